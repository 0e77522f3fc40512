"""Components taken out of a network at rest: of any architecture that holds them apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import assert_same_to_rounding
from sklearn.base import BaseEstimator
from torch import nn

from skmvae._inference import Inference
from skmvae._state import NetworkState
from skmvae.architectures import ComponentLinear

K, N_FEATURES, LATENT_DIM = 4, 5, 2


class OneAfterTheOther(nn.Module):
    """As torch's grouped layers want it: an axis of k times the width, not always the first."""

    def __init__(self, k, n_in, n_out):
        super().__init__()
        self.k = k
        self.weight = nn.Parameter(torch.empty(n_in, k * n_out))
        self.bias = nn.Parameter(torch.empty(k * n_out))
        self.trunk = nn.Parameter(torch.empty(n_in, n_in))
        self.register_buffer("shift", torch.empty(1, k, 1))

    def forward(self, h, generator=None):
        h = torch.tanh(h @ self.trunk)
        h = h.expand(self.k, *h.shape[-2:])
        weight = self.weight.unflatten(1, (self.k, -1)).transpose(0, 1)
        return torch.baddbmm(self.bias.view(self.k, 1, -1), h, weight) + self.shift.transpose(0, 1)


class Apart(nn.Module):
    """One module a component: the names change with k, not the shapes."""

    def __init__(self, k, n_in, n_out):
        super().__init__()
        self.parts = nn.ModuleList(ComponentLinear(1, n_in, n_out) for _ in range(k))


def with_array(shape_for):
    """Return a stack with an array more, whose shape depends on k."""

    class Stack(OneAfterTheOther):
        def __init__(self, k, n_in, n_out):
            super().__init__(k, n_in, n_out)
            if shape_for(k) is not None:
                self.extra = nn.Parameter(torch.empty(shape_for(k)))

    return Stack


class Architecture(BaseEstimator):
    def __init__(self, stack=OneAfterTheOther):
        self.stack = stack

    def build(self, n_features, latent_dim, k):
        return (
            self.stack(k, n_features, 2 * latent_dim + 1),
            self.stack(k, latent_dim, n_features),
        )


def state_of(stack):
    state = NetworkState(
        architecture=Architecture(stack),
        n_features=N_FEATURES,
        latent_dim=LATENT_DIM,
        k=K,
        likelihood="gaussian",
        weight_concentration_prior=1 / K,
        mean=np.arange(N_FEATURES, dtype=np.float64),
        fill=np.zeros(N_FEATURES),
        scale=2.0,
        shares=np.array([0.1, 0.2, 0.3, 0.4]),
        arrays={},
    )
    encoder, decoder = state.architecture.build(N_FEATURES, LATENT_DIM, K)
    modules = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(size=tensor.shape).astype(np.float32)
        for name, tensor in modules.state_dict().items()
    }
    arrays["likelihood.raw_variance"] = np.array(0.5, dtype=np.float32)
    return replace(state, arrays=arrays)


@pytest.mark.parametrize("components", [[0], [3], [0, 2], [1, 2], [1, 2, 3], [0, 1, 2, 3]])
def test_what_is_kept_gives_what_it_gave(components):
    state = state_of(OneAfterTheOther)
    kept = state.with_components(np.array(components), 0.7)
    assert (kept.k, kept.weight_concentration_prior) == (len(components), 0.7)
    np.testing.assert_allclose(
        kept.shares, state.shares[components] / sum(state.shares[components])
    )
    whole, part = (Inference(s, torch.device("cpu")) for s in (state, kept))
    X = np.random.default_rng(1).normal(size=(6, N_FEATURES))
    codes = whole.codes(X).reshape(6, K, LATENT_DIM)[:, components].reshape(6, -1)
    assert_same_to_rounding(part.codes(X), codes)
    for name, array in kept.arrays.items():
        assert array.dtype == np.float32
        assert not np.shares_memory(array, state.arrays[name])
    for new, old in enumerate(components):
        assert_same_to_rounding(part.reconstruct(X, new), whole.reconstruct(X, old))


@pytest.mark.parametrize(
    ("stack", "name", "shape", "new_shape"),
    [
        (with_array(lambda k: (k, k)), "extra", "(4, 4)", "(2, 2)"),
        (with_array(lambda k: (k + k // 4,)), "extra", "(5,)", "(2,)"),
        (with_array(lambda k: (k, 12 // k)), "extra", "(4, 3)", "(2, 6)"),
        (with_array(lambda k: (k,) if k <= 2 else None), "extra", "missing", "(2,)"),
        (with_array(lambda k: (3, 1) if k < K else (3,)), "extra", "(3,)", "(3, 1)"),
        (Apart, "parts.2.weight", "(1, 5, 5)", "missing"),
    ],
)
def test_arrays_that_cannot_be_cut_are_named(stack, name, shape, new_shape):
    state = state_of(stack)
    before = dict(state.arrays)
    with pytest.raises(ValueError, match="cannot be cut by component") as error:
        state.with_components(np.array([0, 2]), 0.5)
    message = str(error.value)
    assert f"encoder.{name} of the architecture {state.architecture!r}" in message
    assert f"its shape is {shape} for k=4 and {new_shape} for k=2" in message
    assert "fit again with k=2" in message
    assert state.arrays == before
