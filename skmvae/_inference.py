"""A fitted network put to work: arrays in, arrays out, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ._model.distributions import LIKELIHOODS
from ._model.network import Posterior, mix
from ._model.objective import WeightedDraws, weighted_draws
from ._process import out_of_memory_explained
from ._rows.scaled import ScaledRows, fill_missing, map_blocks
from ._rows.statistics import has_values
from ._runtime import make_generator, torch_dtype
from ._state import NetworkState, load_network

# Every row and every model is scored with the same draws, so that scores can be compared.
_SCORE_SEED = 0
# Numbers that the decoders put out for one row at a time in scoring.
_OUTPUTS_A_ROW = 2**16

# Networks of the states that are in use, by device and dtype: to make one takes longer than a row
# does. A network goes with its state, so it is never saved and never outlives a fit.
_LOADED: WeakKeyDictionary[NetworkState, dict] = WeakKeyDictionary()


class _Loaded:
    """A network on a device, and what else of its state is at work beside it."""

    def __init__(self, state: NetworkState, device: torch.device, dtype: np.dtype) -> None:
        on_device = partial(torch.tensor, dtype=torch_dtype(dtype), device=device)
        never_observed = np.flatnonzero(np.isnan(state.fill))
        self.network = load_network(state, device, dtype)
        self._shares = on_device(state.shares_or_equal)  # (K,)
        self._mean, self._scale = on_device(state.mean), state.scale
        self._fill = on_device(np.nan_to_num(state.fill))  # (F,)
        self._never_observed = None
        if never_observed.size:
            self._never_observed = torch.tensor(never_observed, device=device)

    def posterior(self, x: Tensor) -> Posterior:
        return self._encode(*self._filled(x))

    def draws(self, x: Tensor, eps: Iterable[Tensor]) -> Iterator[WeightedDraws]:
        """Weighted draws for rows x (B, F), as many at a time as each of ``eps`` has."""
        x, missing = self._filled(x)
        posterior = self._encode(x, missing)
        for part in eps:
            yield weighted_draws(self.network, x, posterior, part, self._shares, missing)

    def in_units_of_x(self, rows: Tensor) -> Tensor:
        """Rows (B, F) of the decoders. A column of which no value was ever observed is 0."""
        found = torch.add(self._mean, rows, alpha=self._scale)
        if self._never_observed is None:
            return found
        return found.index_fill(1, self._never_observed, 0.0)

    def _filled(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x with what the encoders see for NaN, and where that was; None if nowhere."""
        # A sum takes less time than a look at each value.
        if not x.sum().isnan() or not x.isnan().any():
            return x, None
        return fill_missing(x, self._fill)

    def _encode(self, x: Tensor, missing: Tensor | None) -> Posterior:
        """The posteriors of filled rows, which are the prior where all columns are missing."""
        posterior = self.network.encode(x)
        if missing is None:
            return posterior
        return posterior.with_prior(missing.all(-1), self._shares)


def _loaded(state: NetworkState, device: torch.device, dtype: np.dtype) -> _Loaded:
    loaded = _LOADED.setdefault(state, {})
    if (device, dtype) not in loaded:
        # Two threads may both come here: they load the same network.
        loaded[device, dtype] = _Loaded(state, device, dtype)
    return loaded[device, dtype]


Function = Callable[[_Loaded, Tensor], Tensor]


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
        network = _loaded(self.state, self._device, np.dtype(np.float32)).network
        return network.likelihood.noise_variance(self.state.scale)

    def codes(self, X) -> np.ndarray:
        """Posterior means, component-major: (n, F) -> (n, K d)."""

        def codes(loaded: _Loaded, x: Tensor) -> Tensor:
            return loaded.posterior(x).mean.transpose(0, 1).flatten(1)

        return self._map(codes, self._scaled(X), (self.state.n_codes,))

    def mixing_weights(self, X) -> np.ndarray:
        """E[w | x]: (n, F) -> (n, K)."""
        return self._mixing_weights(self._scaled(X))

    def mean_weights(self, X) -> np.ndarray:
        """Mean of E[w | x] over the rows that have a value: (n, F) -> (K,) float64.

        Computed in float32, as training is, which takes half of the time of float64.
        """
        rows = ScaledRows(X, self.state.mean, self.state.scale, self._device)
        return self._mixing_weights(rows)[has_values(X)].mean(axis=0, dtype=np.float64)

    def _mixing_weights(self, rows: ScaledRows) -> np.ndarray:
        def weights(loaded: _Loaded, x: Tensor) -> Tensor:
            return loaded.posterior(x).concentration

        return self._map(weights, rows, (self.state.k,))

    def reconstruct(self, X, component: int | None) -> np.ndarray:
        """sum_k E[w_k] y_k, or y_component: (n, F) -> (n, F)."""

        def reconstruct(loaded: _Loaded, x: Tensor) -> Tensor:
            posterior = loaded.posterior(x)
            means = loaded.network.component_means(posterior.mean)
            return mix(means, posterior.concentration) if component is None else means[component]

        return self._rows(reconstruct, self._scaled(X))

    def decode(self, Z: np.ndarray) -> np.ndarray:
        """Codes to rows: (n, K d) -> (n, F). Encoder k rates decoder k's output, in place of w."""

        def decode(loaded: _Loaded, codes: Tensor) -> Tensor:
            means = loaded.network.component_means(self._by_component(codes))
            return mix(means, loaded.network.encode(means).concentration)

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
        return self._with_noise(rows, rng) if noise else rows, components

    def _with_noise(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """x of its mean (n, F). A column of which no value was ever observed has none."""
        likelihood = _loaded(self.state, self._device, rows.dtype).network.likelihood
        return np.where(
            np.isnan(self.state.fill), rows, likelihood.draw(rows, self.state.scale, rng)
        )

    def _decoded(self, codes: np.ndarray, components: np.ndarray) -> np.ndarray:
        """y_k of each code, k being its component: (n, d) and (n,) -> (n, F)."""
        k = self.state.k

        def decode(loaded: _Loaded, draws: Tensor) -> Tensor:
            component, z = draws[:, 0].long(), draws[:, 1:]
            means = loaded.network.component_means(z.expand(k, -1, -1))
            return means[component, torch.arange(len(z), device=z.device)]

        return self._rows(decode, self._unscaled(np.column_stack([components, codes])))

    def _blends(self, n_rows: int, rng: np.random.Generator) -> np.ndarray:
        """sum_k w_k y_k for w ~ Dir(c, ..., c) and z_k ~ N(0, I), equation 5: (n, F)."""
        k, n_codes = self.state.k, self.state.n_codes
        weights = rng.dirichlet(np.full(k, self.state.weight_concentration_prior), size=n_rows)
        codes = rng.standard_normal((n_rows, n_codes))

        def blend(loaded: _Loaded, draws: Tensor) -> Tensor:
            weights, codes = draws.split((k, n_codes), dim=1)
            return mix(loaded.network.component_means(self._by_component(codes)), weights)

        return self._rows(blend, self._unscaled(np.hstack([weights, codes])))

    def log_likelihood_bound(self, X, n_draws: int) -> np.ndarray:
        """Importance-weighted lower bound of log p(x), in the units of X: (n, F) -> (n,).

        The x of a row are the values that were observed of it.
        """
        n_features, log_scale = self.state.n_features, math.log(self.state.scale)

        def bound(loaded: _Loaded, x: Tensor) -> Tensor:
            sums = [draws.log_sum() for draws in loaded.draws(x, eps)]
            log_sum = torch.logsumexp(torch.stack(sums), dim=0)
            n_observed = n_features - x.isnan().sum(-1, dtype=x.dtype)
            return log_sum - math.log(n_draws) - log_scale * n_observed

        rows = self._in_support(X)
        eps = self._eps(n_draws, make_generator(_SCORE_SEED, torch.device("cpu")), rows)
        return self._map(bound, rows, (), n_outputs=eps[0].shape[1])

    def impute(self, X, n_draws: int, seed: int | None) -> np.ndarray:
        """Rows given what was observed of them: (n, F) -> (n, F).

        Their expectation, or with a seed, one draw from their distribution.
        """
        rows = self._in_support(X)
        generator = make_generator(_SCORE_SEED if seed is None else seed, torch.device("cpu"))
        eps = self._eps(n_draws, generator, rows)
        if seed is None:
            return self._rows(partial(_expected, eps), rows, n_outputs=eps[0].shape[1])
        means = self._rows(partial(_drawn, eps, generator), rows, n_outputs=eps[0].shape[1])
        return self._with_noise(means, np.random.default_rng(seed))

    def _eps(
        self, n_draws: int, generator: torch.Generator, rows: ScaledRows
    ) -> tuple[Tensor, ...]:
        """N(0, I), the same for all rows: (K, L, d) each, with L that sum to ``n_draws``.

        A few draws at a time: memory must not grow with their number.
        """
        k = self.state.k
        shape = (k, n_draws, self.state.latent_dim)
        eps = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        n_at_once = min(n_draws, max(1, _OUTPUTS_A_ROW // (k * self.state.n_features)))
        return eps.to(self._device, rows.tensor_dtype).split(n_at_once, dim=1)

    def _in_support(self, X) -> ScaledRows:
        return self._scaled(X, LIKELIHOODS[self.state.likelihood].SUPPORT)

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
        function: Function,
        rows: ScaledRows,
        shape: tuple[int, ...],
        *,
        n_outputs: int = 1,
    ) -> np.ndarray:
        """``function`` of what is loaded and of all rows: (n, *shape).

        Of each row the decoders make ``n_outputs`` outputs (K, F) at a time.
        """
        with self._memory():
            loaded = _loaded(self.state, self._device, rows.dtype)
            return map_blocks(
                lambda x: function(loaded, x),
                rows,
                np.empty((len(rows), *shape), rows.dtype),
                values_a_row=n_outputs * self.state.k * self.state.n_features,
            )

    def _rows(self, function: Function, rows: ScaledRows, *, n_outputs: int = 1) -> np.ndarray:
        """Map a function that gives rows, and take the rows back to the units of X."""

        def in_units_of_x(loaded: _Loaded, x: Tensor) -> Tensor:
            return loaded.in_units_of_x(function(loaded, x))

        return self._map(in_units_of_x, rows, (self.state.n_features,), n_outputs=n_outputs)


def _expected(eps: Iterable[Tensor], loaded: _Loaded, x: Tensor) -> Tensor:
    """Mean of the decoders' means by the weights of the draws: (B, F) -> (B, F)."""
    mean, log_sum = torch.zeros_like(x), x.new_full((len(x),), -math.inf)
    for draws in loaded.draws(x, eps):
        weights = draws.log_weights.flatten(0, 1).softmax(0)  # (K L, B)
        means = loaded.network.likelihood.mean(draws.output.flatten(0, 1))
        # These draws' share in the sum of all weights so far.
        share = torch.sigmoid(draws.log_sum() - log_sum).unsqueeze(1)
        mean = torch.lerp(mean, torch.einsum("lb,lbf->bf", weights, means), share)
        log_sum = torch.logaddexp(log_sum, draws.log_sum())
    return mean


def _drawn(
    eps: tuple[Tensor, ...], generator: torch.Generator, loaded: _Loaded, x: Tensor
) -> Tensor:
    """The decoder's mean for one of the draws, chosen by its weight: (B, F) -> (B, F).

    Of two uniform numbers for as many draws as are made at a time, one chooses among them, and the
    other between this choice and the one before. The generator gives them row by row, so it does
    not matter how many rows there are at a time.
    """
    chosen, log_sum = torch.zeros_like(x), x.new_full((len(x),), -math.inf)
    numbers = torch.arange(len(x), device=x.device)
    shape = (len(x), len(eps), 2)
    uniforms = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu").to(x)
    for draws, uniform in zip(loaded.draws(x, eps), uniforms.unbind(1), strict=True):
        shares = draws.log_weights.flatten(0, 1).softmax(0).cumsum(0)  # (K L, B)
        winner = (shares < uniform[:, 0] * shares[-1]).sum(0)
        means = loaded.network.likelihood.mean(draws.output.flatten(0, 1)[winner, numbers])
        of_these = torch.sigmoid(draws.log_sum() - log_sum)
        chosen = torch.where((uniform[:, 1] < of_these).unsqueeze(1), means, chosen)
        log_sum = torch.logaddexp(log_sum, draws.log_sum())
    return chosen
