"""Small networks in float64, and fixed draws, for tests of the mathematics."""

import torch
from torch import nn

from skmvae._network import MixtureVAE, Posterior
from skmvae.architectures import MLP


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def make_network(k=3, n_features=5, latent_dim=2, likelihood="gaussian", hidden=(6,), seed=0):
    architecture = MLP(hidden_layer_sizes=hidden, activation="tanh")
    network = MixtureVAE(
        architecture, n_features=n_features, latent_dim=latent_dim, k=k, likelihood=likelihood
    ).double()
    for i, parameter in enumerate(network.parameters()):
        nn.init.normal_(parameter, std=0.5, generator=generator(seed + i))
    return network


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
