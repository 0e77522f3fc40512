"""The architectures of the package, and one written by a user."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from torch import nn

from skmvae import MVAETransformer
from skmvae.architectures import MLP, ComponentLinear


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("hidden", [(), (7, 5), [4, 4]])
def test_the_decoder_mirrors_the_encoder(hidden):
    encoder, decoder = MLP(hidden_layer_sizes=hidden).build(n_features=6, latent_dim=2, k=3)
    for x in (torch.zeros(10, 6), torch.zeros(3, 10, 6)):
        assert encoder(x).shape == (3, 10, 5)
    assert decoder(torch.zeros(3, 10, 2)).shape == (3, 10, 6)
    assert [layer.weight.shape[2] for layer in encoder.layers] == [*hidden, 5]
    assert [layer.weight.shape[2] for layer in decoder.layers] == [*hidden[::-1], 6]


@pytest.mark.parametrize(("n_features", "width"), [(1, 128), (40, 160), (64, 256), (784, 500)])
def test_default_width_follows_the_columns(n_features, width):
    """As wide as the paper's for MNIST, no wider than a small table needs."""
    encoder, decoder = MLP().build(n_features, latent_dim=2, k=1)
    sizes = [layer.weight.shape[2] for layer in (*encoder.layers, *decoder.layers)]
    assert sizes == [width, width, 5, width, width, n_features]


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "leaky_relu", "gelu", "silu"])
def test_activations(activation):
    encoder, _ = MLP((4,), activation=activation).build(n_features=3, latent_dim=1, k=1)
    expected = getattr(torch, activation, None) or getattr(nn.functional, activation)
    h = torch.linspace(-2, 2, 9)
    assert torch.equal(encoder.activation(h.clone()), expected(h))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hidden_layer_sizes": 500}, "'hidden_layer_sizes' parameter of MLP must be None or a"),
        ({"hidden_layer_sizes": (2.5,)}, "Got \\(2.5,\\)"),
        ({"activation": "sigmoid"}, "'activation' parameter of MLP must be one of .*'relu'"),
        ({"dropout": 1.0}, "'dropout' parameter of MLP must be a number in \\[0, 1\\)"),
    ],
)
def test_bad_parameters_are_named_in_fit(params, message, make_small):
    with pytest.raises(ValueError, match=message):
        make_small(architecture=MLP(**params)).fit(np.ones((4, 3)))


def test_nested_parameters_can_be_set_and_cloned():
    mvae = MVAETransformer().set_params(architecture__hidden_layer_sizes=(4,))
    assert repr(mvae.architecture) == "MLP(hidden_layer_sizes=(4,))"
    copy = clone(mvae)
    assert copy.architecture is not mvae.architecture
    assert copy.get_params()["architecture__hidden_layer_sizes"] == (4,)
    mvae.set_params(architecture=None, architecture__activation="tanh")
    assert repr(mvae.architecture) == "MLP(activation='tanh')"
    assert MVAETransformer().architecture is None


def test_fit_neither_changes_nor_keeps_the_architecture_given(make_small, digits):
    architecture = MLP((8,))
    mvae = make_small(architecture=architecture).fit(digits[0])
    assert architecture.get_params() == MLP((8,)).get_params()
    codes = mvae.transform(digits[0])
    architecture.hidden_layer_sizes = (3, 3)
    np.testing.assert_array_equal(mvae.transform(digits[0]), codes)


class Linear(nn.Module):
    def __init__(self, k, n_in, n_out):
        super().__init__()
        self.linear = ComponentLinear(k, n_in, n_out)

    def forward(self, h, generator=None):
        return self.linear(h)


class LinearArchitecture(BaseEstimator):
    def build(self, n_features, latent_dim, k):
        return Linear(k, n_features, 2 * latent_dim + 1), Linear(k, latent_dim, n_features)


class Changed(LinearArchitecture):
    """``change`` changes the encoder."""

    def __init__(self, change=None):
        self.change = change

    def build(self, n_features, latent_dim, k):
        encoder, decoder = super().build(n_features, latent_dim, k)
        self.change(encoder)
        return encoder, decoder


def with_buffer(encoder):
    encoder.register_buffer("count", torch.zeros(1), persistent=False)


def with_dropout(encoder):
    encoder.linear = nn.Sequential(encoder.linear, nn.Dropout(0.5))


def without_initialisation(encoder):
    encoder.gain = nn.Parameter(torch.ones(()))


def test_an_architecture_written_by_a_user_learns(make_small, digits):
    X = digits[0]
    mvae = make_small(architecture=LinearArchitecture(), max_iter=20, learning_rate=0.03).fit(X)
    assert mvae.transform(X).shape == (500, 6)
    assert mvae.history_["loss"][-1] < mvae.history_["loss"][0]
    residual = ((mvae.reconstruct(X) - X) ** 2).sum()
    assert residual < ((X - X.mean(0)) ** 2).sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_buffer, r"encoder\.count of the architecture is .* buffer"),
        (without_initialisation, "Linear has parameters or buffers but no reset_parameters"),
    ],
)
def test_networks_that_cannot_be_saved_or_repeated_are_refused(change, message, make_small, digits):
    with pytest.raises(TypeError, match=message):
        make_small(architecture=Changed(change)).fit(digits[0])


@pytest.mark.parametrize("architecture", [MLP((16,), dropout=0.5), Changed(with_dropout)])
def test_no_unit_is_dropped_at_inference(architecture, make_small, digits):
    state = torch.get_rng_state()  # the dropout of torch draws from its global generator
    mvae = make_small(architecture=architecture).fit(digits[0])
    torch.set_rng_state(state)
    np.testing.assert_array_equal(mvae.transform(digits[0]), mvae.transform(digits[0]))
