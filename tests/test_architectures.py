"""The architectures of the package, and one written by a user."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from torch import nn

from skmvae import MVAETransformer
from skmvae.architectures import MLP, ComponentLinear


@pytest.mark.parametrize("hidden", [(), (7, 5), [4, 4]])
def test_the_decoder_mirrors_the_encoder(hidden):
    encoder, decoder = MLP(hidden_layer_sizes=hidden).build(n_features=6, latent_dim=2, k=3)
    for x in (torch.zeros(10, 6), torch.zeros(3, 10, 6)):
        assert encoder(x).shape == (3, 10, 5)
    assert decoder(torch.zeros(3, 10, 2)).shape == (3, 10, 6)
    assert [layer.weight.shape[2] for layer in encoder.layers] == [*hidden, 5]
    assert [layer.weight.shape[2] for layer in decoder.layers] == [*hidden[::-1], 6]
    # As wide as the paper's for MNIST by default, and no wider than a small table needs.
    for n_features, width in ((1, 128), (40, 160), (64, 256), (784, 500)):
        encoder, _ = MLP().build(n_features, latent_dim=2, k=1)
        assert [layer.weight.shape[2] for layer in encoder.layers] == [width, width, 5]


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


class Linear(nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        self.linear = ComponentLinear(*sizes)

    def forward(self, h, generator=None):
        return self.linear(h)


class LinearArchitecture(BaseEstimator):
    """``change`` changes the encoder."""

    def __init__(self, change=None):
        self.change = change

    def build(self, n_features, latent_dim, k):
        encoder = Linear(k, n_features, 2 * latent_dim + 1)
        if self.change:
            self.change(encoder)
        return encoder, Linear(k, latent_dim, n_features)


def with_dropout(encoder):
    encoder.linear = nn.Sequential(encoder.linear, nn.Dropout(0.5))


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
        (
            lambda encoder: encoder.register_buffer("count", torch.zeros(1), persistent=False),
            r"encoder\.count of the architecture is .* buffer",
        ),
        (
            lambda encoder: setattr(encoder, "gain", nn.Parameter(torch.ones(()))),
            "Linear has parameters or buffers but no reset_parameters",
        ),
    ],
)
def test_networks_that_cannot_be_saved_or_repeated_are_refused(change, message, make_small, digits):
    with pytest.raises(TypeError, match=message):
        make_small(architecture=LinearArchitecture(change)).fit(digits[0])


@pytest.mark.parametrize(
    "architecture", [MLP((16,), dropout=0.5), LinearArchitecture(with_dropout)]
)
def test_inference_drops_no_unit_of_a_copy_of_the_architecture(architecture, make_small, digits):
    state = torch.get_rng_state()  # the dropout of torch draws from its global generator
    mvae = make_small(architecture=architecture).fit(digits[0])
    torch.set_rng_state(state)
    codes = mvae.transform(digits[0])
    architecture.hidden_layer_sizes = (3, 3)  # of the one given, which is not kept
    np.testing.assert_array_equal(mvae.transform(digits[0]), codes)
