"""Fixtures of the whole suite."""

import random

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from skmvae import MVAETransformer
from skmvae.architectures import MLP


def global_generators():
    """The state of every process-wide generator, in a form that == compares."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    return (
        random.getstate(),
        (keys.tobytes(), position, has_gauss, gauss),
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )


@pytest.fixture(autouse=True)
def _global_state_is_left_alone():
    """No test of this suite may find the global generators or switches moved."""
    before = global_generators()
    yield
    assert global_generators() == before


@pytest.fixture(scope="session")
def digits():
    """The first 500 digits, float64, read-only, so that nothing can modify them unseen."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:500], y[:500]
    X.flags.writeable = False
    return X, y


@pytest.fixture
def make_small():
    """An estimator that fits in a tenth of a second."""

    def make(**params):
        params = {
            "k": 3,
            "latent_dim": 2,
            "architecture": MLP(hidden_layer_sizes=(16,)),
            "max_iter": 2,
            "random_state": 0,
        } | params
        return MVAETransformer(**params)

    return make


@pytest.fixture(scope="session")
def fitted(digits):
    """A fitted estimator that no test may change."""
    X, _ = digits
    architecture = MLP(hidden_layer_sizes=(16,))
    return MVAETransformer(
        k=3, latent_dim=2, architecture=architecture, max_iter=2, random_state=0
    ).fit(X)
