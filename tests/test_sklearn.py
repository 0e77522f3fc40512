"""Every check of scikit-learn, with no expected failure, no skip of ours and no retry.

On rows of both dtypes; with the environment variable ``SKMVAE_SEEDS=20``, for as many seeds.
"""

import os

import numpy as np
import pytest
from networks import assert_same_to_rounding
from scipy.special import expit
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.metaestimators import available_if

from skmvae import MVAETransformer
from skmvae.architectures import MLP

SMALL = MLP(hidden_layer_sizes=(32,))


class BernoulliOfReals(MVAETransformer):
    """The checks give any real numbers; a Bernoulli likelihood gets them squashed into [0, 1]."""

    def fit(self, X, y=None):
        return super().fit(_squash(X))

    def partial_fit(self, X, y=None):
        return super().partial_fit(_squash(X))

    def score_samples(self, X, n_draws=16):
        return super().score_samples(_squash(X), n_draws)


def _squash(X):
    values = np.asarray(X)
    if values.dtype.kind not in "fiub" or np.isinf(values).any():
        return X
    return expit(X if hasattr(X, "columns") else np.asarray(X))


class OfFloat32(MVAETransformer):
    """The checks give float64; this one sees float32."""

    def fit(self, X, y=None):
        return super().fit(_in_float32(X))

    @available_if(lambda self: not self.early_stopping)
    def partial_fit(self, X, y=None):
        return super().partial_fit(_in_float32(X))

    def transform(self, X):
        return super().transform(_in_float32(X))

    def score_samples(self, X, n_draws=16):
        return super().score_samples(_in_float32(X), n_draws)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _in_float32(X):
    is_double = getattr(X, "dtype", None) == np.float64
    return X.astype(np.float32) if is_double else X


class BernoulliOfFloat32(OfFloat32, BernoulliOfReals):
    pass


CONFIGURATIONS = [
    {},
    {"k": 1, "latent_dim": 3},
    {"architecture": MLP(hidden_layer_sizes=(512,))},
    {"k": 2, "objective": "averaged", "architecture": SMALL},
    {"k": 3, "latent_dim": 2, "objective": "elbo", "early_stopping": True},
    {"k": 3, "objective": "mixture", "architecture": SMALL},
]
ESTIMATORS = [
    *(MVAETransformer(max_iter=2, **parameters) for parameters in CONFIGURATIONS),
    *(OfFloat32(max_iter=2, **parameters) for parameters in CONFIGURATIONS),
    BernoulliOfReals(likelihood="bernoulli", architecture=SMALL, max_iter=2),
    BernoulliOfFloat32(likelihood="bernoulli", architecture=SMALL, max_iter=2),
]


@pytest.fixture(params=range(int(os.environ.get("SKMVAE_SEEDS", "1"))))
def seed(request, monkeypatch):
    """The checks set a seed of 0 or 1 themselves; this is added to it."""
    original = estimator_checks.set_random_state
    monkeypatch.setattr(
        estimator_checks,
        "set_random_state",
        lambda estimator, random_state=0: original(estimator, random_state + 10 * request.param),
    )


@pytest.fixture
def _float32_is_compared_as_float32(monkeypatch):
    """Two checks compare rows to 1e-7 whatever their dtype, less than float32 has digits for."""
    for name in ("assert_allclose", "assert_allclose_dense_sparse"):
        original = getattr(estimator_checks, name)

        def compare(found, expected, *args, original=original, **kwargs):
            if getattr(found, "dtype", None) == getattr(expected, "dtype", None) == np.float32:
                assert_same_to_rounding(found, expected)
            else:
                original(found, expected, *args, **kwargs)

        monkeypatch.setattr(estimator_checks, name, compare)


# They compare them more closely than the sums of a GPU allow.
ABOUT_TWO_FITS = {
    "check_fit_idempotent",
    "check_pipeline_consistency",
    "check_transformer_data_not_an_array",
    "check_transformer_general",
}


# Some checks shuffle with NumPy's global generator themselves.
@pytest.mark.may_use_numpy_random
@pytest.mark.usefixtures("seed", "_float32_is_compared_as_float32")
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check(estimator, check):
    if check.func.__name__ in ABOUT_TWO_FITS:
        estimator.set_params(device="cpu")
    check(estimator)


def test_no_method_asks_for_metadata():
    """As PCA: the codes of inverse_transform are its input, and no metadata."""
    mvae = MVAETransformer()
    assert not hasattr(mvae, "set_inverse_transform_request")
    requests = get_routing_for_object(mvae)
    for method in ("fit", "partial_fit", "transform", "inverse_transform", "predict", "score"):
        assert getattr(requests, method).requests == {}
