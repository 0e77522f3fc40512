"""On the real MNIST, where there is a copy of it."""

import os
from pathlib import Path

import numpy as np
import pytest

from skmvae import MVAETransformer
from skmvae.architectures import MLP
from skmvae.datasets import fetch_mnist

pytestmark = pytest.mark.skipif(
    not Path(os.environ.get("SKMVAE_DATA", ""), "mnist.npz").is_file(),
    reason="SKMVAE_DATA names no folder with mnist.npz",
)


@pytest.fixture(scope="module")
def mnist():
    return fetch_mnist()


def test_it_is_mnist(mnist):
    assert mnist.X_train.shape == (60_000, 784)
    assert mnist.X_test.shape == (10_000, 784)
    assert mnist.X_train.mean(dtype=np.float64) * 255 == pytest.approx(33.318421, abs=1e-4)
    assert mnist.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.y_test[:5].tolist() == [7, 2, 1, 0, 4]


def test_two_epochs_reconstruct_better_than_the_mean(mnist):
    mvae = MVAETransformer(
        k=2,
        latent_dim=10,
        likelihood="bernoulli",
        architecture=MLP((128,)),
        max_iter=2,
        random_state=0,
    ).fit(mnist.X_train[:10_000])
    X = mnist.X_test[:1000]
    error = ((mvae.reconstruct(X) - X) ** 2).sum(1).mean()
    baseline = ((X - mnist.X_train.mean(0)) ** 2).sum(1).mean()
    assert error < 0.7 * baseline
