"""MVAEImputer: the step that fills missing values."""

import numpy as np
import pandas as pd
import pytest
from networks import small_estimator
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import skmvae
from skmvae import MVAEImputer


def small_imputer(**params):
    return MVAEImputer(small_estimator(objective="elbo", max_iter=5), n_draws=5, **params)


@pytest.mark.may_use_numpy_random
@parametrize_with_checks([small_imputer(random_state=0)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture
def rows():
    """Columns of very different units, and a column that is missing throughout."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 1))
    X = np.hstack([z, 1e-3 * z, 1e6 - 1e3 * z, rng.normal(size=(300, 1)), z]) + 0.0
    X[rng.random(X.shape) < 0.3] = np.nan
    X[:, 4] = np.nan
    return X, (z[:, 0] > 0).astype(int)


def test_columns_are_filled_in_their_own_units(rows):
    X, _ = rows
    imputer = MVAEImputer(small_estimator(max_iter=40, objective="elbo"), random_state=0)
    filled = imputer.fit_transform(X)
    holes = np.isnan(X)
    np.testing.assert_array_equal(filled[~holes], X[~holes])
    is_filled = holes[:, 1] & ~holes[:, 2]
    from_other = -1e-6 * (X[is_filled, 2] - 1e6)
    assert np.std(filled[is_filled, 1] - from_other) < 0.5 * np.std(from_other)
    assert (filled[:, 4] == 0.0).all()
    assert not np.isnan(filled).any()


def test_draws_differ_and_follow_from_the_seed(rows):
    X, _ = rows
    imputer, twin = (small_imputer(sample_posterior=True, random_state=3).fit(X) for _ in range(2))
    first, second = imputer.transform(X), imputer.transform(X)
    np.testing.assert_array_equal((first == second)[:, :4], ~np.isnan(X)[:, :4])
    np.testing.assert_array_equal(twin.transform(X), first)
    np.testing.assert_array_equal(twin.transform(X), second)


def test_it_learns_within_the_fold_and_its_mixture_can_be_searched_over(rows):
    X, y = rows
    pipe = make_pipeline(small_imputer(random_state=0), LogisticRegression())
    grid = GridSearchCV(pipe, {"mvaeimputer__mvae__k": [1, 2]}, cv=2).fit(X, y)
    assert grid.best_score_ > 0.75
    fitted = clone(small_imputer(random_state=0)).fit(X[:150])
    np.testing.assert_allclose(fitted.scaler_.mean_[:4], np.nanmean(X[:150, :4], axis=0))
    assert fitted.mvae_ is not fitted.mvae
    assert not hasattr(fitted.mvae, "weights_")


def test_a_bernoulli_mixture_sees_the_columns_as_they_are():
    X = (np.random.default_rng(0).random((80, 4)) < 0.3).astype(float)
    X[::3, 1] = np.nan
    imputer = MVAEImputer(small_estimator(likelihood="bernoulli", max_iter=2)).fit(X)
    assert imputer.scaler_ is None
    assert ((imputer.transform(X) >= 0.0) & (imputer.transform(X) <= 1.0)).all()


def test_names_and_frames(rows):
    X = pd.DataFrame(rows[0], columns=list("abcde"))
    imputer = small_imputer().set_output(transform="pandas")
    filled = imputer.fit_transform(X)
    assert list(filled.columns) == list("abcde")
    assert filled.index.equals(X.index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mvae": LogisticRegression()}, "'mvae' parameter of MVAEImputer must be None or an MVAE"),
        ({"n_draws": 0}, "'n_draws' parameter of MVAEImputer"),
        ({"sample_posterior": 1}, "'sample_posterior'"),
        ({"random_state": -1}, "'random_state'"),
    ],
)
def test_bad_parameters_are_named_and_lose_nothing(change, message, rows):
    imputer = small_imputer().fit(rows[0])
    before = vars(imputer).copy()
    with pytest.raises(ValueError, match=message):
        imputer.set_params(**change).fit(rows[0])
    assert vars(imputer).keys() == before.keys()
    assert imputer.mvae_ is before["mvae_"]


def test_a_fit_that_fails_loses_nothing(rows):
    X, _ = rows
    imputer = small_imputer(random_state=0).fit(X)
    expected = imputer.transform(X)
    for bad, change in (
        (np.full((5, 3), np.nan), {}),
        (X[:, :3], {"mvae__k": 0}),
        (X[:, :3], {"mvae__likelihood": "poisson"}),
        (1e300 * X, {}),
    ):
        with pytest.raises(ValueError, match=r"no value|'k'|'likelihood'|too large"):
            clone_of(imputer, change).fit(bad)
    with pytest.raises(TypeError, match=r"X\.toarray\(\)"):
        imputer.fit(sparse.csr_array(np.nan_to_num(X)))
    np.testing.assert_array_equal(imputer.transform(X), expected)


def clone_of(imputer, change):
    """The same object with other parameters: its fitted state is what must not be lost."""
    return imputer.set_params(**({"mvae__k": 2, "mvae__likelihood": "gaussian"} | change))


def test_a_mixture_without_a_seed_has_that_of_the_imputer(rows):
    mvae = small_estimator(random_state=None, max_iter=1)
    first, second = (MVAEImputer(mvae, n_draws=2, random_state=0) for _ in range(2))
    np.testing.assert_array_equal(first.fit_transform(rows[0]), second.fit_transform(rows[0]))


def test_skops_loads_it(rows, tmp_path):
    import skops.io

    imputer = small_imputer(random_state=0).fit(rows[0])
    skops.io.dump(imputer, tmp_path / "imputer.skops")
    loaded = skops.io.load(tmp_path / "imputer.skops", trusted=skmvae.SKOPS_TRUSTED)
    np.testing.assert_array_equal(loaded.transform(rows[0]), imputer.transform(rows[0]))
