"""Rows of all types and magnitudes: a finite result, or an error that names the cause."""

import os
import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from networks import small_estimator

from skmvae.architectures import MLP

bounded = settings(
    max_examples=int(os.environ.get("SKMVAE_EXAMPLES", "25")),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TYPES = ["bool", "int8", "int64", "uint8", "uint64", "float16", "float32", "float64"]

N_FEATURES = 3

# What an error may be about: each is a property of X that can be changed.
CAUSES = (
    r"X contains values too large",
    r"X contains differences too small.*underflows",
    r"Input (X )?contains (infinity or )?a value too large",
    r"rows \d+ to \d+ gave non-finite results: their values are far outside the range",
    r"Training diverged: .*look for outliers in X",
    r"partial_fit sets the units.*rows \(\d+\) are all the same",
    r"likelihood='bernoulli' needs X in \[0, 1\], but X spans",
)


@st.composite
def tables(draw, n_columns=None):
    """Draw an array of any type in C order; columns, rows or all may be constant."""
    dtype = draw(st.sampled_from(TYPES))
    shape = draw(st.integers(1, 9)), n_columns or draw(st.integers(1, 4))
    cells = hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    if dtype == "float64":
        cells |= st.floats(-100.0, 100.0, width=16)
    few = st.sampled_from(draw(st.lists(cells, min_size=1, max_size=6)))
    X = draw(hnp.arrays(dtype, shape, elements=few))
    if draw(st.booleans()):
        X[:, draw(st.integers(0, shape[1] - 1))] = draw(cells)
    if draw(st.booleans()):
        X[draw(st.integers(0, shape[0] - 1)) :] = X[0]
    return X.astype("longdouble") if dtype == "float64" and draw(st.booleans()) else X


LIKELIHOODS = ["gaussian", "bernoulli"]
likelihoods = st.sampled_from(LIKELIHOODS)


def small(likelihood):
    return small_estimator(architecture=MLP((4,)), likelihood=likelihood, max_iter=1)


def check(use, X):
    """Check for no warning, X as it was, and finite results unless X is to blame."""
    before, results = X.tobytes(), {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            results = use(X)
        except ValueError as error:
            message = str(error).replace("\n", " ")
            assert any(re.search(cause, message) for cause in CAUSES), message
    assert X.tobytes() == before, "X was changed"
    for name, (result, shape) in results.items():
        assert result.shape == shape, name
        assert np.isfinite(result).all(), name


def fitted_results(mvae, X):
    """Return what the methods give for the fitted rows, and the fitted attributes."""
    n, n_features = X.shape
    return {
        "transform": (mvae.transform(X), (n, 4)),
        "mixing_weights": (mvae.mixing_weights(X), (n, 2)),
        "reconstruct": (mvae.reconstruct(X), (n, n_features)),
        "score_samples": (mvae.score_samples(X, n_draws=2), (n,)),
        "sample": (mvae.sample(2, random_state=0), (2, n_features)),
        "mean_": (mvae.mean_, (n_features,)),
        "weights_": (mvae.weights_, (2,)),
        "scale_": (np.array(mvae.scale_), ()),
        "history_": (np.array([*mvae.history_.values()]), (len(mvae.history_), mvae.n_iter_)),
    }


# A denormal spread, whose reciprocal overflows.
DENORMAL = np.array([[1e-45], [0.0]], np.float32)
# More than any other type holds.
HUGE = np.array([[np.finfo("longdouble").max], [1.0]])
# Finite, but partial sums are infinite and their sum is NaN.
LARGEST = np.array([[-1.0]] * 7 + [[1.0]], np.float32) * np.finfo(np.float32).max


@bounded
@given(X=tables(), likelihood=likelihoods)
@example(X=DENORMAL, likelihood="gaussian")
@example(X=HUGE, likelihood="gaussian")
@example(X=LARGEST * np.ones(2, np.float32), likelihood="gaussian")
def test_fit_is_finite_or_names_the_cause(X, likelihood):
    check(lambda X: fitted_results(small(likelihood).fit(X), X), X)


@bounded
@given(X=tables(n_columns=N_FEATURES), Y=tables(n_columns=N_FEATURES))
@example(X=np.eye(3), Y=np.full((2, 3), 1e300))
@example(X=np.eye(3), Y=np.eye(7, 3, k=-4) * 1e17)  # the gradients overflow
def test_partial_fit_is_finite_or_names_the_cause(X, Y):
    """The second chunk may be far from the first, which has set the units."""

    def use(Y):
        mvae = small("gaussian").partial_fit(X)
        before = mvae.transform(X).tobytes()
        try:
            mvae.partial_fit(Y)
        except ValueError:
            assert mvae.transform(X).tobytes() == before
            raise
        return fitted_results(mvae, Y)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            small("gaussian").partial_fit(X).transform(X)
        except ValueError:
            X = np.eye(N_FEATURES)
    check(use, Y)


@pytest.fixture(scope="module")
def of_ordinary_rows():
    X = np.random.default_rng(0).normal(size=(20, N_FEATURES))
    return {likelihood: small(likelihood).fit(abs(np.tanh(X))) for likelihood in LIKELIHOODS}


@bounded
@given(X=tables(n_columns=N_FEATURES), likelihood=likelihoods)
@example(X=HUGE * np.ones(3), likelihood="gaussian")
def test_transform_is_finite_or_names_the_cause(of_ordinary_rows, X, likelihood):
    """Rows that are unlike those of the fit."""
    mvae = of_ordinary_rows[likelihood]

    def use(X):
        Z = mvae.transform(X)
        assert Z.dtype == (np.float32 if X.dtype == np.float32 else np.float64)
        return {"transform": (Z, (len(X), 4)), "reconstruct": (mvae.reconstruct(X), X.shape)}

    check(use, X)
