"""Every check of scikit-learn, with no expected failure, no skip of ours and no retry."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmvae import MVAETransformer
from skmvae.architectures import MLP

SMALL = MLP(hidden_layer_sizes=(32,))


class BernoulliOfReals(MVAETransformer):
    """The checks give any real numbers; a Bernoulli likelihood gets them squashed into [0, 1]."""

    def fit(self, X, y=None):
        return super().fit(_squash(X))

    def score_samples(self, X, n_draws=16):
        return super().score_samples(_squash(X), n_draws)


def _squash(X):
    values = np.asarray(X)
    if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
        return X
    return expit(X if hasattr(X, "columns") else np.asarray(X))


ESTIMATORS = [
    MVAETransformer(max_iter=2),
    MVAETransformer(k=1, max_iter=2),
    MVAETransformer(architecture=MLP(hidden_layer_sizes=(512,)), max_iter=2),
    MVAETransformer(k=2, objective="averaged", architecture=SMALL, max_iter=2),
    MVAETransformer(objective="elbo", architecture=SMALL, max_iter=2, early_stopping=True),
    BernoulliOfReals(likelihood="bernoulli", architecture=SMALL, max_iter=2),
]


# Some checks shuffle with NumPy's global generator themselves.
@pytest.mark.may_use_numpy_random
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check(estimator, check):
    check(estimator)
