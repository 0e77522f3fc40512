"""A fitted network put to work: arrays in, arrays out, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ._model.distributions import LIKELIHOODS
from ._model.network import MixtureVAE, mix
from ._model.objective import log_likelihood_bound
from ._process import out_of_memory_explained
from ._rows.scaled import ScaledRows, map_blocks
from ._runtime import make_generator, torch_dtype
from ._state import NetworkState, load_network

# Every row and every model is scored with the same draws, so that scores can be compared.
_SCORE_SEED = 0
# Numbers that the decoders put out for one row at a time in scoring.
_OUTPUTS_A_ROW = 2**16

# Networks of the states that are in use, by device and dtype: to make one takes longer than a row
# does. A network goes with its state, so it is never saved and never outlives a fit.
_NETWORKS: WeakKeyDictionary[NetworkState, dict] = WeakKeyDictionary()


def _network_of(
    state: NetworkState, device: torch.device, dtype: np.dtype
) -> tuple[MixtureVAE, Tensor]:
    """The network, and the mean of X beside it."""
    networks = _NETWORKS.setdefault(state, {})
    if (device, dtype) not in networks:
        mean = torch.tensor(state.mean, dtype=torch_dtype(dtype), device=device)
        # Two threads may both come here: they make the same network.
        networks[device, dtype] = load_network(state, device, dtype), mean
    return networks[device, dtype]


class Inference:
    """The network of ``state`` on a device. n rows, F features, d latent dimensions.

    Deterministic: posterior means and expected weights, never a draw of its own. Results are
    computed in the dtype of the array that they are asked for, and have it.
    """

    def __init__(self, state: NetworkState, device: torch.device) -> None:
        self.state = state
        self._device = device

    @property
    def noise_variance(self) -> float | None:
        """Of X given the decoders' output, in squared units of X; None if it has none."""
        network, _ = _network_of(self.state, self._device, np.dtype(np.float32))
        return network.likelihood.noise_variance(self.state.scale)

    def codes(self, X) -> np.ndarray:
        """Posterior means, component-major: (n, F) -> (n, K d)."""

        def codes(network: MixtureVAE, x: Tensor) -> Tensor:
            return network.encode(x).mean.transpose(0, 1).flatten(1)

        return self._map(codes, self._scaled(X), (self.state.n_codes,))

    def mixing_weights(self, X) -> np.ndarray:
        """E[w | x]: (n, F) -> (n, K)."""

        def weights(network: MixtureVAE, x: Tensor) -> Tensor:
            return network.encode(x).concentration

        return self._map(weights, self._scaled(X), (self.state.k,))

    def mean_weights(self, X) -> np.ndarray:
        """Mean of E[w | x] over the rows: (n, F) -> (K,) float64."""
        return self.mixing_weights(X).mean(axis=0, dtype=np.float64)

    def reconstruct(self, X, component: int | None) -> np.ndarray:
        """sum_k E[w_k] y_k, or y_component: (n, F) -> (n, F)."""

        def reconstruct(network: MixtureVAE, x: Tensor) -> Tensor:
            posterior = network.encode(x)
            means = network.component_means(posterior.mean)
            return mix(means, posterior.concentration) if component is None else means[component]

        return self._rows(reconstruct, self._scaled(X))

    def decode(self, Z: np.ndarray) -> np.ndarray:
        """Codes to rows: (n, K d) -> (n, F). Encoder k rates decoder k's output, in place of w."""

        def decode(network: MixtureVAE, codes: Tensor) -> Tensor:
            means = network.component_means(self._by_component(codes))
            return mix(means, network.encode(means).concentration)

        return self._rows(decode, self._unscaled(Z))

    def generate(
        self, n_rows: int, rng: np.random.Generator, component: int | None, noise: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """New rows (n, F) float64 and the component (n,) of each; None where rows blend all."""
        state = self.state
        if state.shares is None and component is None:
            components, rows = None, self._blends(n_rows, rng)
        else:
            codes = rng.standard_normal((n_rows, state.latent_dim))
            if component is None:
                components = rng.choice(state.k, size=n_rows, p=state.shares)
            else:
                components = np.full(n_rows, component, dtype=np.int64)
            rows = self._decoded(codes, components)
        if noise:
            network, _ = _network_of(state, self._device, rows.dtype)
            rows = network.likelihood.draw(rows, state.scale, rng)
        return rows, components

    def _decoded(self, codes: np.ndarray, components: np.ndarray) -> np.ndarray:
        """y_k of each code, k being its component: (n, d) and (n,) -> (n, F)."""
        k = self.state.k

        def decode(network: MixtureVAE, draws: Tensor) -> Tensor:
            component, z = draws[:, 0].long(), draws[:, 1:]
            means = network.component_means(z.expand(k, -1, -1))
            return means[component, torch.arange(len(z), device=z.device)]

        return self._rows(decode, self._unscaled(np.column_stack([components, codes])))

    def _blends(self, n_rows: int, rng: np.random.Generator) -> np.ndarray:
        """sum_k w_k y_k for w ~ Dir(c, ..., c) and z_k ~ N(0, I), equation 5: (n, F)."""
        k, n_codes = self.state.k, self.state.n_codes
        weights = rng.dirichlet(np.full(k, self.state.weight_concentration_prior), size=n_rows)
        codes = rng.standard_normal((n_rows, n_codes))

        def blend(network: MixtureVAE, draws: Tensor) -> Tensor:
            weights, codes = draws.split((k, n_codes), dim=1)
            return mix(network.component_means(self._by_component(codes)), weights)

        return self._rows(blend, self._unscaled(np.hstack([weights, codes])))

    def log_likelihood_bound(self, X, n_draws: int) -> np.ndarray:
        """Importance-weighted lower bound of log p(x), in the units of X: (n, F) -> (n,)."""
        k, n_features = self.state.k, self.state.n_features
        generator = make_generator(_SCORE_SEED, torch.device("cpu"))
        shape = (k, n_draws, self.state.latent_dim)
        eps = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        limits = LIKELIHOODS[self.state.likelihood].SUPPORT
        rows = self._scaled(X, limits)
        # A few draws at a time: memory must not grow with their number.
        n_at_once = min(n_draws, max(1, _OUTPUTS_A_ROW // (k * n_features)))
        parts = eps.to(self._device, rows.tensor_dtype).split(n_at_once, dim=1)
        equal = np.full(k, 1.0 / k)
        shares = torch.tensor(
            equal if self.state.shares is None else self.state.shares,
            dtype=rows.tensor_dtype,
            device=self._device,
        )
        log_volume = n_features * math.log(self.state.scale)

        def bound(network: MixtureVAE, x: Tensor) -> Tensor:
            sums = [
                log_likelihood_bound(network, x, part, shares) + math.log(part.shape[1])
                for part in parts
            ]
            return torch.logsumexp(torch.stack(sums), dim=0) - math.log(n_draws) - log_volume

        return self._map(bound, rows, (), n_outputs=n_at_once)

    def _scaled(self, X, limits: tuple[float, float] | None = None) -> ScaledRows:
        return ScaledRows(X, self.state.mean, self.state.scale, self._device, X.dtype, limits)

    def _unscaled(self, Z: np.ndarray) -> ScaledRows:
        return ScaledRows(Z, 0.0, 1.0, self._device, Z.dtype)

    def _by_component(self, codes: Tensor) -> Tensor:
        """(B, K d) -> (K, B, d)."""
        return codes.unflatten(1, (self.state.k, self.state.latent_dim)).transpose(0, 1)

    def _memory(self) -> AbstractContextManager[None]:
        return out_of_memory_explained(
            f"Ran out of memory on device={str(self._device)!r}, where rows go through the network "
            "in blocks, however many there are. Free what other models and processes hold there, "
            "give fewer rows at a time, or, on a GPU, compute on the CPU: set_params(device='cpu') "
            "works on a fitted estimator too."
        )

    def _map(
        self,
        function: Callable[[MixtureVAE, Tensor], Tensor],
        rows: ScaledRows,
        shape: tuple[int, ...],
        *,
        n_outputs: int = 1,
    ) -> np.ndarray:
        """``function`` of the network and of all rows: (n, *shape).

        Of each row the decoders make ``n_outputs`` outputs (K, F) at a time.
        """
        with self._memory():
            network, _ = _network_of(self.state, self._device, rows.dtype)
            return map_blocks(
                lambda x: function(network, x),
                rows,
                np.empty((len(rows), *shape), rows.dtype),
                values_a_row=n_outputs * self.state.k * self.state.n_features,
            )

    def _rows(
        self, function: Callable[[MixtureVAE, Tensor], Tensor], rows: ScaledRows
    ) -> np.ndarray:
        """Map a function that gives rows, and take the rows back to the units of X."""
        with self._memory():
            _, mean = _network_of(self.state, self._device, rows.dtype)

        def in_units_of_x(network: MixtureVAE, x: Tensor) -> Tensor:
            return torch.add(mean, function(network, x), alpha=self.state.scale)

        return self._map(in_units_of_x, rows, (self.state.n_features,))
