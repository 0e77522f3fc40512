"""Inside scikit-learn's compositions: pipelines, column transformers, unions, searches."""

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import parallel_backend
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import FitFailedWarning
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from skmvae.architectures import MLP


@pytest.fixture
def pipe(make_small):
    mvae = make_small(k=2, latent_dim=8, max_iter=15, learning_rate=5e-3, architecture=MLP((64,)))
    return Pipeline([("mvae", mvae), ("svm", LinearSVC(random_state=0))])


def test_linear_svc_on_the_codes(pipe, digits):
    X, y = digits
    pipe.set_params(mvae__max_iter=60).fit(X[:400], y[:400])
    assert pipe.score(X[400:], y[400:]) > 0.7
    neighbours = KNeighborsClassifier(5).fit(pipe[0].transform(X[:400]), y[:400])
    assert neighbours.score(pipe[0].transform(X[400:]), y[400:]) > 0.8


def test_column_transformer_with_missing_values_and_names(make_small):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "c"])
    X.loc[3, "a"] = np.nan
    X["kind"] = pd.Series(rng.choice(["x", "y"], 60), dtype=object)
    numbers = make_pipeline(SimpleImputer(), StandardScaler(), make_small(k=2))
    columns = ColumnTransformer(
        [
            ("codes", numbers, ["a", "b", "c"]),
            ("kind", OneHotEncoder(sparse_output=False), ["kind"]),
        ]
    ).set_output(transform="pandas")
    out = columns.fit_transform(X)
    expected = [f"codes__mvaetransformer{i}" for i in range(4)] + ["kind__kind_x", "kind__kind_y"]
    assert list(out.columns) == expected
    assert np.isfinite(out.to_numpy()).all()


@pytest.mark.cpu
def test_grid_search_gives_the_same_in_one_process_and_in_two(pipe, digits):
    """n_jobs=2 starts loky workers; each is given as many threads as this process has."""
    X, y = digits
    sizes = {"mvae__architecture__hidden_layer_sizes": [(8,), (16, 16)]}
    grid = [{"mvae__beta": [0.0, 1e4]}, {"mvae__architecture": [None], **sizes}]
    serial = GridSearchCV(pipe, grid, cv=2).fit(X, y)
    with parallel_backend("loky", inner_max_num_threads=torch.get_num_threads()):
        parallel = GridSearchCV(pipe, grid, cv=2, n_jobs=2).fit(X, y)
    key = "mean_test_score"
    np.testing.assert_allclose(serial.cv_results_[key], parallel.cv_results_[key])
    assert serial.best_params_ == parallel.best_params_
    # A refit in this process: trained anew, not taken from a worker.
    np.testing.assert_array_equal(
        serial.best_estimator_[0].transform(X), parallel.best_estimator_[0].transform(X)
    )


def test_a_diverging_candidate_fails_and_the_search_goes_on(make_small, digits):
    search = GridSearchCV(make_small(), {"learning_rate": [1e-3, 1e38]}, cv=2)
    with (
        pytest.warns(FitFailedWarning, match="DivergenceError"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(digits[0])
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])
    assert search.best_params_ == {"learning_rate": 1e-3}
