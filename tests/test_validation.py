"""Bad hyperparameters and bad input: the error says which, what was seen and what to do."""

import datetime
import re
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import sklearn.datasets
import torch
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skmvae import MVAETransformer
from skmvae.architectures import MLP

BAD_PARAMETERS = {
    "k": [0, -1, 2.5, "4", None, True],
    "latent_dim": [0, 1.5, None],
    "beta": [-1.0, np.nan, np.inf, "1", None],
    "kl_weight": [-0.1, np.nan, None],
    "objective": ["vae", None, 1],
    "likelihood": ["normal", None],
    "weight_concentration_prior": [0.0, -1.0, np.nan, "1/k"],
    "architecture": [MLP, "mlp", (500, 500), 5, type("NoEstimator", (), {"build": None})()],
    "max_iter": [0, 1.5, None],
    "batch_size": [0, -1, "auto"],
    "learning_rate": [0.0, -1e-3, np.nan],
    "learning_rate_schedule": ["cosine", None, 1],
    "early_stopping": [1, "yes", None],
    "validation_fraction": [0.0, 1.0, 2, None],
    "n_iter_no_change": [0, None],
    "tol": [-1e-4, np.nan],
    "warm_start": [1, None],
    "checkpoint_dir": [1, True, b"folder"],
    "precision": ["float16", "float64", None],
    "device": [None, 0, "gpu", "cuda:99", torch.device("cpu")],
    "random_state": [-1, 1.5, "seed", np.random.default_rng(0)],
    "verbose": [-1, None, "yes"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in BAD_PARAMETERS.items() for value in values],
)
def test_bad_parameters_are_named_with_their_value(name, value, make_small, digits):
    estimator = make_small().set_params(**{name: value})
    with pytest.raises(ValueError, match=name) as error:
        estimator.fit(digits[0])
    assert repr(value) in str(error.value)


def test_missing_values_of_pandas_are_refused(make_small):
    X = pd.DataFrame({"a": pd.array([1, None], dtype="Int64")})
    with pytest.raises(ValueError, match="NaN"):
        make_small().fit(X)


def test_every_parameter_has_a_rule():
    assert BAD_PARAMETERS.keys() == MVAETransformer().get_params(deep=False).keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", np.int64(2)),
        ("beta", 0),
        ("kl_weight", np.float32(0.5)),
        ("early_stopping", np.bool_(True)),
        ("verbose", False),
        ("weight_concentration_prior", 2),
        ("random_state", np.random.RandomState(0)),
        ("random_state", 2**32 - 1),
        ("batch_size", None),
        ("learning_rate_schedule", np.str_("trapezoid")),
    ],
)
def test_good_parameters_of_unusual_type(name, value, make_small, digits):
    mvae = make_small().set_params(**{name: value}).fit(digits[0])
    assert np.isfinite(mvae.transform(digits[0])).all()
    assert mvae.get_params()[name] is value


def test_parameters_are_checked_before_the_data():
    with pytest.raises(ValueError, match="'k' parameter"):
        MVAETransformer(k=0).fit("not data")


METHODS = ["fit", "transform", "mixing_weights", "predict", "reconstruct", "score_samples", "score"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.full((3, 64), np.nan), "NaN"),
        (np.full((3, 64), np.inf), "infinity"),
        (np.full((3, 64), "a"), "could not convert string"),
        (np.ones((3, 64)) * 1j, "Complex data not supported"),
        (np.ones(64), "Reshape your data"),
        (np.ones((3, 8, 8)), "dim 3"),
        (pd.Series(np.ones(64)), "2-dimensional container"),
        (pl.Series(np.ones(64)), "Reshape your data"),
        (np.empty((0, 64)), "0 sample"),
        (np.empty((3, 0)), r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1 is required"),
        (np.ma.masked_array(np.ones((3, 64))), "masked array"),
        (np.full((3, 64), np.datetime64("2020-01-01")), "dates or times"),
        (np.full((3, 64), np.timedelta64(3, "s")), "dates or times"),
        ([np.full(64, np.datetime64("2020-01-01"))], "dates or times"),
        (pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])}), "dates or times"),
        (pl.DataFrame({"t": [datetime.date(2020, 1, 1)]}), "dates or times"),
        (pa.table({"x": [1.0], "t": [datetime.date(2020, 1, 1)]}), "dates or times in column 't'"),
        (pl.LazyFrame({"t": [1.0]}), r"LazyFrame.*\.collect\(\)"),
    ],
)
def test_bad_rows_are_refused_by_every_method(method, X, message, make_small, fitted):
    estimator = make_small() if method == "fit" else fitted
    with pytest.raises(ValueError, match=message):
        getattr(estimator, method)(X)


DAY = np.datetime64("2020-01-01")
STAMP = pd.Timestamp("2020-01-01")


@pytest.mark.parametrize(
    "cell",
    [
        DAY,
        np.timedelta64(3, "s"),
        STAMP,
        pd.NaT,
        pd.Timedelta(1),
        STAMP.to_period("D"),
        datetime.date(2020, 1, 1),
        datetime.time(12),
        pd.NA,
    ],
    ids=lambda cell: type(cell).__name__,
)
@pytest.mark.parametrize(
    ("container", "column"),
    [
        (lambda rows: rows, "1"),
        (tuple, "1"),
        (lambda rows: np.array(rows, dtype=object), "1"),
        (lambda rows: pd.DataFrame(rows, columns=["a", "b"]).astype(object), "'b'"),
        (lambda rows: pd.DataFrame(rows, columns=["a", "b"]).astype({"b": "category"}), "'b'"),
    ],
    ids=["list", "tuple", "array", "frame", "category"],
)
def test_dates_and_missing_values_among_numbers_are_named(container, column, cell, make_small):
    """NumPy makes 1.6e15 of a datetime64 among Python's objects, and a bare TypeError of others."""
    X = container([(1.0, 2), (3.0, cell), (5.0, 6)])
    message = "contains NaN" if cell is pd.NA else "dates or times"
    where = f".* in column {column}"
    if isinstance(X, pd.DataFrame) and X.b.dtype == "category" and pd.isna(cell):
        message, where = "contains NaN", ""  # all that a category keeps
    with pytest.raises(ValueError, match=message + where):
        make_small().fit(X)


def test_dates_among_codes_are_refused(fitted):
    with pytest.raises(ValueError, match="Z holds dates or times in column 5"):
        fitted.inverse_transform([[0.0] * 5 + [DAY]])


@pytest.mark.cpu
def test_objects_that_are_numbers_are_taken(make_small):
    rows = [[1, 2.5], [True, Decimal("0.5")], [np.float32(3), 2**70]]
    X = np.array(rows, dtype=np.float64) / 2.0**70
    objects = np.array([[Fraction(x) for x in row] for row in X], dtype=object)
    expected = make_small().fit(X).transform(X)
    np.testing.assert_array_equal(make_small().fit(objects).transform(objects), expected)
    np.testing.assert_array_equal(make_small().fit(X.tolist()).transform(X.tolist()), expected)


def not_canonical(X):
    """CSR with unsorted indices, each entry in two parts, and an explicit zero."""
    X = sp.coo_array(X)
    rows, columns, data = (np.repeat(part, 2) for part in (*X.coords, X.data / 2))
    rows, columns, data = np.append(rows, 0), np.append(columns, 0), np.append(data, 0.0)
    order = np.lexsort((np.random.default_rng(0).random(len(rows)), rows))
    indptr = np.searchsorted(rows[order], np.arange(X.shape[0] + 1))
    return sp.csr_array((data[order], columns[order].astype(np.int32), indptr), shape=X.shape)


def parts(X):
    arrays = (getattr(X, name, None) for name in ("data", "indices", "indptr", "row", "col"))
    return [array for array in arrays if array is not None]


def with_int64(X):
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


STORED = {
    "csr": not_canonical,
    "csr, int64": lambda X: with_int64(not_canonical(X)),
    "csc": lambda X: not_canonical(X.T).T,
    "bsr": lambda X: sp.bsr_array(X, blocksize=(2, 4)),
    "coo": lambda X: not_canonical(X).tocoo(),
}


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("storage", STORED)
@pytest.mark.cpu
def test_no_method_changes_a_sparse_matrix(storage, likelihood, make_small, digits, tmp_path):
    """SciPy sorts and sums entries in place when it is asked for an extreme."""
    dense = digits[0][:100] / 16
    X = STORED[storage](dense)
    for part in parts(X):
        part.flags.writeable = False
    before = [part.copy() for part in parts(X)]
    params = {"likelihood": likelihood, "max_iter": 1}
    mvae = make_small(checkpoint_dir=tmp_path, **params).fit(X)
    mvae.partial_fit(X)
    for method in METHODS:
        getattr(mvae, method)(X)
    for part, old in zip(parts(X), before, strict=True):
        np.testing.assert_array_equal(part, old)
    expected = make_small(**params).fit(X.toarray())
    np.testing.assert_array_equal(
        make_small(**params).fit(X).transform(X), expected.transform(dense)
    )


@pytest.mark.cpu
def test_threads_agree_on_a_sparse_matrix(make_small, digits):
    X = not_canonical(digits[0] / 16)
    mvae = make_small(likelihood="bernoulli").fit(X)
    expected = mvae.score_samples(X)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: mvae.score_samples(X), range(12)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize(
    "container", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array, sp.coo_array]
)
@pytest.mark.cpu
def test_sparse_rows_give_what_the_dense_array_gives(container, likelihood, make_small, digits):
    X = np.where(digits[0] > 8.0, digits[0] / 16.0, 0.0)
    expected = make_small(likelihood=likelihood).fit(X)
    mvae = make_small(likelihood=likelihood).fit(container(X))
    assert mvae.history_["loss"] == expected.history_["loss"]
    for method in ("transform", "mixing_weights", "predict", "reconstruct", "score_samples"):
        found = getattr(mvae, method)(container(X))
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, getattr(expected, method)(X))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_sparse_rows_of_other_types(dtype, make_small):
    X = sp.csr_array((np.random.default_rng(0).random((60, 8)) < 0.3).astype(dtype))
    codes = make_small().fit_transform(X)
    assert codes.dtype == (np.float32 if dtype is np.float32 else np.float64)


def test_sparse_rows_are_checked_like_dense_ones(make_small, fitted):
    missing = sp.csr_array(np.where(np.eye(64) > 0, np.nan, 0.0))
    with pytest.raises(ValueError, match="contains NaN"):
        fitted.transform(missing)
    with pytest.raises(ValueError, match=r"needs X in \[0, 1\], but X spans \[0, 2\]"):
        make_small(likelihood="bernoulli").fit(sp.csr_array(2.0 * np.eye(64)))
    with pytest.raises(ValueError, match="expecting 64 features"):
        fitted.transform(sp.csr_array(np.eye(63)))


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(3, 64, requires_grad=True), torch.ones(3, 64, dtype=torch.bfloat16)],
    ids=["requires_grad", "bfloat16"],
)
def test_tensors_that_numpy_cannot_read_are_refused_with_the_remedy(tensor, make_small, fitted):
    for call in (make_small().fit, fitted.transform):
        with pytest.raises(TypeError, match=r"\.detach\(\)\.cpu\(\)\.float\(\)\.numpy\(\)"):
            call(tensor)


def test_cpu_tensors_are_taken(fitted, digits):
    X = digits[0].astype(np.float32)
    np.testing.assert_array_equal(fitted.transform(torch.tensor(X)), fitted.transform(X))


@pytest.mark.parametrize("method", METHODS[1:])
def test_wrong_number_of_columns(method, fitted):
    with pytest.raises(ValueError, match="63 features, but MVAETransformer is expecting 64"):
        getattr(fitted, method)(np.ones((3, 63)))


def test_wrong_number_of_codes_says_what_was_expected(fitted):
    message = r"Z has 5 columns; expected k \* latent_dim = 3 \* 2 = 6"
    with pytest.raises(ValueError, match=message):
        fitted.inverse_transform(np.ones((3, 5)))


@pytest.mark.parametrize(
    ("Z", "message"),
    [(np.full((2, 6), np.nan), "Input Z contains NaN"), (np.ones(6), "Reshape"), ([], "Reshape")],
)
def test_bad_codes_are_refused(Z, message, fitted):
    with pytest.raises(ValueError, match=message):
        fitted.inverse_transform(Z)


@pytest.mark.parametrize("method", [*METHODS[1:], "inverse_transform"])
def test_unfitted(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(MVAETransformer(), method)(np.ones((3, 6)))
    with pytest.raises(NotFittedError):
        MVAETransformer().sample()
    with pytest.raises(NotFittedError):
        MVAETransformer().prune()
    with pytest.raises((NotFittedError, AttributeError)):
        MVAETransformer().get_feature_names_out()


@pytest.mark.parametrize("component", [3, -1, 1.0, "1", True])
def test_component_out_of_range(component, fitted, digits):
    with pytest.raises(ValueError, match=r"component must be None or an int in \[0, 3\)"):
        fitted.reconstruct(digits[0], component=component)
    with pytest.raises(ValueError, match=r"component must be None or an int in \[0, 3\)"):
        fitted.sample(component=component)


@pytest.mark.parametrize("threshold", [np.nan, -1, -1e-9, 1.0, np.inf, "a", None, True])
def test_thresholds(threshold, fitted):
    message = re.escape(f"threshold must be a number in [0, 1). Got {threshold!r} instead.")
    with pytest.raises(ValueError, match=message):
        fitted.prune(threshold)


def test_a_threshold_above_all_weights_names_the_largest(fitted):
    largest = fitted.weights_.max()
    message = rf"threshold=0\.9 is above all weights_, .* {largest:.4g}\. Lower threshold below"
    with pytest.raises(ValueError, match=message):
        fitted.prune(0.9)


@pytest.mark.parametrize("n", [0, -1, 1.5, None])
def test_numbers_of_draws(n, fitted, digits):
    with pytest.raises(ValueError, match="n_samples must be an int >= 1"):
        fitted.sample(n)
    with pytest.raises(ValueError, match="n_draws must be an int >= 1"):
        fitted.score_samples(digits[0], n_draws=n)


def test_bernoulli_needs_the_unit_interval(make_small, digits):
    X = digits[0]
    estimator = make_small(likelihood="bernoulli")
    with pytest.raises(ValueError, match=r"X spans \[0, 16\].*MinMaxScaler"):
        estimator.fit(X)
    estimator.fit(X / 16)
    with pytest.raises(ValueError, match=r"X spans \[0, 16\]"):
        estimator.score_samples(X)
    # The encoder takes any row: test data may leave the range of the training data.
    assert np.isfinite(estimator.transform(X / 15)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["load_iris", "load_breast_cancer", "load_wine"])
def test_what_a_min_max_scaler_gives_is_in_the_unit_interval(name, dtype, make_small):
    """But for rounding, up to 1 + 2e-16 or, in float32, 1 + 1.2e-7."""
    X = getattr(sklearn.datasets, name)().data.astype(dtype)
    scaled = MinMaxScaler().fit_transform(X)
    mvae = make_small(likelihood="bernoulli").fit(scaled)
    np.testing.assert_allclose(
        mvae.score_samples(scaled), mvae.score_samples(np.clip(scaled, 0, 1)), rtol=1e-6
    )
    with_pipeline = make_pipeline(MinMaxScaler(), make_small(likelihood="bernoulli"))
    assert np.isfinite(with_pipeline.fit(X).score(X))


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
@pytest.mark.cpu
def test_rounding_outside_the_unit_interval_is_clipped_in_fit_and_score(
    container, make_small, digits
):
    inside = digits[0] / 16
    outside = np.where(inside == 1.0, 1.0 + 1e-6, inside)
    outside[:, 0] = -1e-6
    X = container(outside)
    expected = make_small(likelihood="bernoulli").fit(inside)
    mvae = make_small(likelihood="bernoulli").fit(X)
    assert mvae.history_["loss"] == expected.history_["loss"]
    np.testing.assert_array_equal(mvae.score_samples(X), expected.score_samples(inside))
    assert not np.array_equal(mvae.transform(X), expected.transform(inside))
    dense = X.toarray() if sp.issparse(X) else X
    np.testing.assert_array_equal(dense, outside)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1 + 1.1e-6), (-1.1e-6, 1.0), (-0.5, 2.0)])
def test_the_excess_over_the_unit_interval_is_shown(low, high, make_small, digits):
    X = digits[0] / 16
    mvae = make_small(likelihood="bernoulli").fit(X)
    X = np.where(X == 0.0, low, np.where(X == 1.0, high, X))
    message = rf"leaves it by {max(-low, high - 1):.3g}\..*"
    with pytest.raises(ValueError, match=message + "likelihood='gaussian'"):
        make_small(likelihood="bernoulli").fit(X)
    with pytest.raises(ValueError, match=message + "fitted to them"):
        mvae.score(X)


def test_values_that_overflow_float32_after_scaling(make_small, digits):
    mvae = make_small().fit(1e-3 * digits[0])
    X = digits[0][:3].astype(np.float32)
    X[1, 5] = 3e38
    for method in METHODS[1:]:
        with pytest.raises(ValueError, match="too large for dtype\\('float32'\\)"):
            getattr(mvae, method)(X)
        # float64 has room for it.
        assert np.isfinite(getattr(mvae, method)(X.astype(np.float64))).all()


def test_early_stopping_needs_rows_to_train_on(make_small):
    with pytest.raises(ValueError, match=r"n_samples=1 and validation_fraction=0\.1"):
        make_small(early_stopping=True).fit(np.ones((1, 3)))
    make_small(early_stopping=True).fit(np.random.default_rng(0).normal(size=(2, 3)))
