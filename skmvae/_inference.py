"""A fitted network put to work: arrays in, arrays out, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from ._machine.rows import BLOCK_ROWS, ScaledRows, map_blocks
from ._machine.runtime import make_generator, out_of_memory_explained
from ._model.network import mix
from ._model.objective import log_likelihood_bound
from ._state import NetworkState, load_network

# Every row and every model is scored with the same draws, so that scores can be compared.
_SCORE_SEED = 0
# Numbers that the decoders put out at a time in scoring: 64 MB.
_OUTPUTS_AT_ONCE = 2**24


class Inference:
    """The network of ``state``, loaded for one call. n rows, F features, d latent dimensions.

    Deterministic: posterior means and expected weights, never a draw of its own. Results have the
    dtype of the array they are computed from.
    """

    def __init__(self, state: NetworkState, device: torch.device) -> None:
        self.state = state
        self._device = device
        with self._memory():
            self._network = load_network(state, device)

    @property
    def noise_variance(self) -> float | None:
        """Of X given the decoders' output, in squared units of X; None if it has none."""
        return self._network.likelihood.noise_variance(self.state.scale)

    def codes(self, X: np.ndarray) -> np.ndarray:
        """Posterior means, component-major: (n, F) -> (n, K d)."""

        def codes(x: Tensor) -> Tensor:
            return self._network.encode(x).mean.transpose(0, 1).flatten(1)

        return self._map(codes, self._scaled(X), (len(X), self.state.n_codes), X.dtype)

    def mixing_weights(self, X: np.ndarray) -> np.ndarray:
        """E[w | x]: (n, F) -> (n, K)."""

        def weights(x: Tensor) -> Tensor:
            return self._network.encode(x).concentration

        return self._map(weights, self._scaled(X), (len(X), self.state.k), X.dtype)

    def mean_weights(self, X: np.ndarray) -> np.ndarray:
        """Mean of E[w | x] over the rows: (n, F) -> (K,) float64."""
        return self.mixing_weights(X).mean(axis=0, dtype=np.float64)

    def reconstruct(self, X: np.ndarray, component: int | None) -> np.ndarray:
        """sum_k E[w_k] y_k, or y_component: (n, F) -> (n, F)."""

        def reconstruct(x: Tensor) -> Tensor:
            posterior = self._network.encode(x)
            means = self._network.component_means(posterior.mean)
            return mix(means, posterior.concentration) if component is None else means[component]

        return self._rows(reconstruct, self._scaled(X), X.dtype)

    def decode(self, Z: np.ndarray) -> np.ndarray:
        """Codes to rows: (n, K d) -> (n, F). Encoder k rates decoder k's output, in place of w."""

        def decode(codes: Tensor) -> Tensor:
            means = self._network.component_means(self._by_component(codes))
            return mix(means, self._network.encode(means).concentration)

        return self._rows(decode, ScaledRows(Z, 0.0, 1.0, self._device), Z.dtype)

    def generate(self, n_rows: int, rng: np.random.Generator) -> np.ndarray:
        """sum_k w_k y_k for w ~ Dir(c, ..., c) and z_k ~ N(0, I): -> (n, F) float64."""
        k, n_codes = self.state.k, self.state.n_codes
        weights = rng.dirichlet(np.full(k, self.state.weight_concentration_prior), size=n_rows)
        codes = rng.standard_normal((n_rows, n_codes))
        draws = np.hstack([weights, codes])

        def generate(draws: Tensor) -> Tensor:
            weights, codes = draws.split((k, n_codes), dim=1)
            return mix(self._network.component_means(self._by_component(codes)), weights)

        return self._rows(generate, ScaledRows(draws, 0.0, 1.0, self._device), draws.dtype)

    def log_likelihood_bound(self, X: np.ndarray, n_draws: int) -> np.ndarray:
        """Importance-weighted lower bound of log p(x), in the units of X: (n, F) -> (n,)."""
        shape = (self.state.k, n_draws, self.state.latent_dim)
        generator = make_generator(_SCORE_SEED, torch.device("cpu"))
        eps = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        # A few draws at a time: memory must not grow with their number.
        outputs_a_draw = self.state.k * BLOCK_ROWS[self._device.type] * self.state.n_features
        parts = eps.to(self._device).split(max(1, _OUTPUTS_AT_ONCE // outputs_a_draw), dim=1)
        log_volume = self.state.n_features * math.log(self.state.scale)

        def bound(x: Tensor) -> Tensor:
            sums = [
                log_likelihood_bound(self._network, x, part) + math.log(part.shape[1])
                for part in parts
            ]
            return torch.logsumexp(torch.stack(sums), dim=0) - math.log(n_draws) - log_volume

        return self._map(bound, self._scaled(X), (len(X),), X.dtype)

    def _scaled(self, X: np.ndarray) -> ScaledRows:
        return ScaledRows(X, self.state.mean, self.state.scale, self._device)

    def _by_component(self, codes: Tensor) -> Tensor:
        """(B, K d) -> (K, B, d)."""
        return codes.unflatten(1, (self.state.k, self.state.latent_dim)).transpose(0, 1)

    def _map(self, function: Callable[[Tensor], Tensor], rows, shape, dtype) -> np.ndarray:
        with self._memory():
            return map_blocks(function, rows, np.empty(shape, dtype))

    def _memory(self) -> AbstractContextManager[None]:
        return out_of_memory_explained(
            f"Ran out of memory on device={str(self._device)!r}, where rows go through the network "
            "in blocks, however many there are. Free what other models and processes hold there, "
            "or compute on the CPU: set_params(device='cpu') works on a fitted estimator too."
        )

    def _rows(self, function: Callable[[Tensor], Tensor], rows, dtype) -> np.ndarray:
        """Like ``_map`` for a function that gives rows, which are taken back to the units of X."""
        out = self._map(function, rows, (len(rows), self.state.n_features), dtype)
        out *= self.state.scale
        out += self.state.mean.astype(dtype)
        return out
