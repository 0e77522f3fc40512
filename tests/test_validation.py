"""Bad hyperparameters and bad input: the error says which, what was seen and what to do."""

import datetime
import re
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from sklearn.datasets import load_wine
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
    "neighbor_weight": [-0.1, np.nan, np.inf, "a", None],
    "n_neighbors": [0, 2.5, None],
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


def test_every_parameter_has_a_rule_which_is_checked_before_the_data(make_small):
    with pytest.raises(ValueError, match="'k' parameter"):
        MVAETransformer(k=0).fit("not data")
    with pytest.raises(ValueError, match=r"n_samples=1 and validation_fraction=0\.1"):
        make_small(early_stopping=True).fit(np.ones((1, 3)))
    assert BAD_PARAMETERS.keys() == MVAETransformer().get_params(deep=False).keys()


def test_good_parameters_of_unusual_type(make_small, digits):
    given = {"k": np.int64(2), "kl_weight": np.float32(0.5), "early_stopping": np.bool_(True)}
    given |= {"beta": 0, "verbose": False, "weight_concentration_prior": 2, "batch_size": None}
    given |= {"learning_rate_schedule": np.str_("trapezoid")}
    for seed in (np.random.RandomState(0), 2**32 - 1):
        mvae = make_small().set_params(**given, random_state=seed).fit(digits[0])
        assert np.isfinite(mvae.transform(digits[0])).all()
        assert all(mvae.get_params()[name] is value for name, value in given.items())


METHODS = ["fit", "transform", "mixing_weights", "predict", "reconstruct", "impute"]
METHODS += ["score_samples", "score"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.where(np.eye(64) > 0, np.inf, np.nan), "infinity"),
        (sp.csr_array(np.where(np.eye(64) > 0, np.inf, 0.0)), "infinity"),
        (np.full((3, 64), "a"), "could not convert string"),
        (np.ones((3, 64)) * 1j, "Complex data not supported"),
        (np.ones(64), "Reshape your data"),
        (np.ones((3, 8, 8)), "dim 3"),
        (pd.Series(np.ones(64)), "2-dimensional container"),
        (np.empty((0, 64)), "0 sample"),
        (np.empty((3, 0)), r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1 is required"),
        ([np.ma.masked_array(np.ones(64))], "masked array"),
        (np.full((3, 64), np.datetime64("2020-01-01")), "dates or times"),
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
    if method != "fit":
        for other in (np.ones((3, 63)), sp.csr_array(np.eye(63))):
            with pytest.raises(ValueError, match="63 features, but MVAETransformer is expecting"):
                getattr(fitted, method)(other)


DAY = np.datetime64("2020-01-01")
STAMP = pd.Timestamp("2020-01-01")


@pytest.mark.parametrize(
    "cell",
    [DAY, STAMP, pd.NaT, pd.Timedelta(1), STAMP.to_period("D"), datetime.time(12), pd.NA],
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
def test_dates_and_na_among_objects_are_named(container, column, cell, make_small):
    """NumPy makes 1.6e15 of a datetime64 among Python's objects, and a bare TypeError of others."""
    X = container([(1.0, 2), (3.0, cell), (5.0, 6)])
    message = "contains pandas.NA" if cell is pd.NA else "dates or times"
    if isinstance(X, pd.DataFrame) and X.b.dtype == "category" and pd.isna(cell):
        assert make_small().fit(X).mean_[1] == 4.0  # NaN is all that a category keeps
        return
    with pytest.raises(ValueError, match=f"{message}.* in column {column}"):
        make_small().fit(X)


@pytest.mark.cpu
def test_objects_that_are_numbers_are_taken(make_small):
    rows = [[1, 2.5], [True, Decimal("0.5")], [np.float32(3), 2**70]]
    X = np.array(rows, dtype=np.float64) / 2.0**70
    objects = np.array([[Fraction(x) for x in row] for row in X], dtype=object)
    expected = make_small().fit(X).transform(X)
    np.testing.assert_array_equal(make_small().fit(objects).transform(objects), expected)
    np.testing.assert_array_equal(make_small().fit(X.tolist()).transform(X.tolist()), expected)


@pytest.mark.parametrize("kind", ["object", "str", "category"])
def test_text_is_refused_by_the_name_of_its_column(kind, make_small):
    frame = pd.DataFrame({"size": [1.5, 2.5], "colour": pd.Series(["3", "red"], dtype=kind)})
    with pytest.raises(ValueError, match="string to float: X holds 'red' in column 'colour'"):
        make_small().fit(frame)


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


STORED = {
    "csr": not_canonical,
    "csr_matrix": sp.csr_matrix,
    "csc": lambda X: not_canonical(X.T).T,
    "bsr": lambda X: sp.bsr_array(X, blocksize=(2, 4)),
    "coo": lambda X: not_canonical(X).tocoo(),
}


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("storage", STORED)
@pytest.mark.cpu
def test_sparse_rows_are_never_changed_and_give_what_dense_ones_give(
    storage, likelihood, make_small, digits, tmp_path
):
    """SciPy sorts and sums entries in place when it is asked for an extreme."""
    dense = np.where(digits[0][:100] > 8.0, digits[0][:100] / 16, 0.0)
    X = STORED[storage](dense)
    for part in parts(X):
        part.flags.writeable = False
    before = [part.copy() for part in parts(X)]
    mvae = make_small(checkpoint_dir=tmp_path, likelihood=likelihood).fit(X)
    expected = make_small(likelihood=likelihood).fit(dense)
    assert mvae.history_["loss"] == expected.history_["loss"]
    for method in METHODS[1:]:
        found = getattr(mvae, method)(X)
        if method == "impute":
            assert type(found) is sp.csr_array or storage == "csr_matrix"
            found = found.toarray()
        np.testing.assert_array_equal(found, getattr(expected, method)(dense))
        assert method == "score" or type(found) is np.ndarray
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(mvae.score_samples, [X] * 12):
            np.testing.assert_array_equal(found, expected.score_samples(dense))
    mvae.partial_fit(X)
    for part, old in zip(parts(X), before, strict=True):
        np.testing.assert_array_equal(part, old)


def test_tensors_are_taken_or_refused_with_the_remedy(make_small, fitted, digits):
    X = digits[0].astype(np.float32)
    np.testing.assert_array_equal(fitted.transform(torch.tensor(X)), fitted.transform(X))
    for how in ({"requires_grad": True}, {"dtype": torch.bfloat16}):
        for call in (make_small().fit, fitted.transform):
            with pytest.raises(TypeError, match=r"\.detach\(\)\.cpu\(\)\.float\(\)\.numpy\(\)"):
                call(torch.ones(3, 64, **how))


@pytest.mark.parametrize(
    ("Z", "message"),
    [
        (np.full((2, 6), np.nan), "Input Z contains NaN"),
        ([], "Reshape"),
        ([[0.0] * 5 + [DAY]], "Z holds dates or times in column 5"),
        (np.ones((3, 5)), r"Z has 5 columns; expected k \* latent_dim = 3 \* 2 = 6"),
    ],
)
def test_bad_codes_are_refused(Z, message, fitted):
    with pytest.raises(ValueError, match=message):
        fitted.inverse_transform(Z)


@pytest.mark.parametrize("method", [*METHODS[1:], "inverse_transform"])
def test_unfitted(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(MVAETransformer(), method)(np.ones((3, 6)))
    for name in ("sample", "prune", "get_feature_names_out"):
        with pytest.raises((NotFittedError, AttributeError)):
            getattr(MVAETransformer(), name)()


@pytest.mark.parametrize("component", [3, -1, 1.0, True])
def test_component_out_of_range(component, fitted, digits):
    for call in (partial(fitted.reconstruct, digits[0]), fitted.sample):
        with pytest.raises(ValueError, match=r"component must be None or an int in \[0, 3\)"):
            call(component=component)


@pytest.mark.parametrize("threshold", [np.nan, -1e-9, 1.0, "a", None, True])
def test_thresholds_and_numbers_of_draws_are_checked(threshold, fitted):
    message = re.escape(f"threshold must be a number in [0, 1). Got {threshold!r} instead.")
    with pytest.raises(ValueError, match=message):
        fitted.prune(threshold)
    message = rf"threshold=0\.9 is above all weights_, .* {fitted.weights_.max():.4g}\. Lower"
    with pytest.raises(ValueError, match=message):
        fitted.prune(0.9)
    for n in (0, 1.5, None):
        with pytest.raises(ValueError, match="n_samples must be an int >= 1"):
            fitted.sample(n)
        with pytest.raises(ValueError, match="n_draws must be an int >= 1"):
            fitted.score_samples(np.ones((3, 64)), n_draws=n)


def test_bernoulli_needs_the_unit_interval(make_small, digits):
    X = digits[0]
    estimator = make_small(likelihood="bernoulli")
    with pytest.raises(ValueError, match=r"X spans \[0, 16\].*MinMaxScaler"):
        estimator.fit(X)
    estimator.fit(X / 16)
    with pytest.raises(ValueError, match=r"X spans \[0, 16\]"):
        estimator.score_samples(X)
    with pytest.raises(ValueError, match=r"needs X in \[0, 1\], but X spans \[0, 2\]"):
        make_small(likelihood="bernoulli").fit(sp.csr_array(2.0 * np.eye(64)))
    # The encoder takes any row: test data may leave the range of the training data.
    assert np.isfinite(estimator.transform(X / 15)).all()
    # Scaled columns leave the interval by rounding, in float32 by 1.2e-7.
    rows = load_wine().data.astype(np.float32)
    scaled = make_pipeline(MinMaxScaler(), make_small(likelihood="bernoulli"))
    assert np.isfinite(scaled.fit(rows).score(rows))


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
    # Up to the shares of the components: mixing weights are those of rows as they are.
    np.testing.assert_allclose(mvae.score_samples(X), expected.score_samples(inside), rtol=1e-6)
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
    X[1, :6] = [*[np.nan] * 5, 3e38]
    for method in METHODS[1:]:
        with pytest.raises(ValueError, match="too large for dtype\\('float32'\\)"):
            getattr(mvae, method)(X)
        # float64 has room for it.
        assert np.isfinite(getattr(mvae, method)(X.astype(np.float64))).all()
