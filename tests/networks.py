"""Small networks and fixed draws for tests of the mathematics and of training."""

import numpy as np
import torch
from torch import nn

from skmvae import MVAETransformer
from skmvae._fit.fitting import FitSettings
from skmvae._fit.schedules import SCHEDULES
from skmvae._fit.step import TrainingSettings
from skmvae._model.minibatch import Minibatch
from skmvae._model.network import MixtureVAE, Posterior
from skmvae._model.objective import Forward, Objective, ObjectiveTerms
from skmvae._rows.scaled import ScaledRows
from skmvae.architectures import MLP


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def make_network(k=3, n_features=5, latent_dim=2, likelihood="gaussian", hidden=(6,), seed=0):
    """In float64."""
    architecture = MLP(hidden_layer_sizes=hidden, activation="tanh")
    network = MixtureVAE(
        architecture, n_features=n_features, latent_dim=latent_dim, k=k, likelihood=likelihood
    ).double()
    for i, parameter in enumerate(network.parameters()):
        nn.init.normal_(parameter, std=0.5, generator=generator(seed + i))
    return network


def small_network(**kwargs):
    """In float32, as training needs it."""
    return make_network(**kwargs).float()


def small_estimator(**params):
    """Whose epochs take milliseconds. Processes that are forked may not use a GPU."""
    params = {
        "k": 2,
        "latent_dim": 2,
        "architecture": MLP((16,)),
        "batch_size": 32,
        "random_state": 0,
        "device": "cpu",
    } | params
    return MVAETransformer(**params)


def data(n=50, n_features=5, seed=0, device="cpu"):
    X = np.random.default_rng(seed).normal(size=(n, n_features)).astype(np.float32)
    return ScaledRows(X, 0.0, 1.0, torch.device(device))


def objective(name="melbo", **changes):
    values = {"beta": 1.0, "kl_weight": 1.0, "prior": 1 / 3}
    return Objective(name, **(values | changes))


def terms_of(network, x, objective, draws, minibatch=None, missing=None):
    """The terms of an objective as a step computes them, in the precision of the network."""
    posterior = network.encode(x)
    z = posterior.draw(draws)
    minibatch = minibatch or Minibatch.whole(len(x))
    output = network.decode(z)
    forward = Forward(
        network.likelihood, x, posterior, z, output, minibatch, draws, missing=missing
    )
    return ObjectiveTerms(*objective.terms(forward))


def settings(**changes):
    values = {
        "objective": objective(),
        "precision": "float32",
        "max_iter": 3,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "schedule": SCHEDULES["constant"],
    }
    return TrainingSettings(**(values | changes))


def fit_settings(**changes):
    values = {
        "architecture": MLP(hidden_layer_sizes=(6,), activation="tanh"),
        "latent_dim": 2,
        "k": 3,
        "likelihood": "gaussian",
        "objective": objective(),
        "device": torch.device("cpu"),
        "precision": "float32",
        "max_iter": 3,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "schedule": SCHEDULES["constant"],
        "n_neighbors": 10,
        "validation_fraction": None,
        "n_iter_no_change": 3,
        "tol": 1e-4,
    }
    return FitSettings(**(values | changes))


def permute_components(network, order):
    """The same mixture with its components in another order."""
    state = {
        name: tensor[order] if tensor.dim() else tensor
        for name, tensor in network.state_dict().items()
    }
    network.load_state_dict(state)


class FixedMixture:
    """Given posteriors and linear decoders x = W_k z + b_k: a mixture with a known log p(x)."""

    def __init__(self, posterior, weights, biases, likelihood):
        self.posterior, self.likelihood = Posterior(*posterior), likelihood
        self.weights, self.biases = weights, biases

    def encode(self, x, generator=None):
        return self.posterior

    def decode(self, z, generator=None):
        return z @ self.weights.mT + self.biases.unsqueeze(1)


def assert_same_to_rounding(found, expected):
    """The promise of inference: 1e-12 in float64 and 1e-5 in float32, of the largest value."""
    assert found.dtype == expected.dtype
    tolerance = {"float64": 1e-12, "float32": 1e-5}[expected.dtype.name]
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=tolerance * np.abs(expected).max())
