"""A fitted network at rest: named NumPy arrays and plain values, nothing of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from ._model.distributions import LIKELIHOODS
from ._model.network import MixtureVAE
from ._model.objective import ObjectiveTerms
from ._runtime import gradients, torch_dtype
from ._version import __version__

FORMAT_VERSION = 1

MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names of what Adam remembers


@dataclass(frozen=True, eq=False)
class NetworkState:
    """Everything that inference needs; replaced as a whole, never changed in place."""

    architecture: object
    n_features: int
    latent_dim: int
    k: int
    likelihood: str
    weight_concentration_prior: float
    mean: np.ndarray  # (F,) float64
    scale: float
    # (F,) float64, what the encoders see for a value that is missing, in the network's units: the
    # mean of the column in the first fit, or in the first chunk that had a value; NaN in columns of
    # which no value was ever observed; 0 in models that were saved before there were holes.
    fill: np.ndarray
    # (K,) float64, of the components in the density; None where a row blends them all.
    shares: np.ndarray | None
    arrays: dict[str, np.ndarray]  # parameters and buffers of MixtureVAE, by name; float32
    format_version: int = FORMAT_VERSION
    skmvae_version: str = __version__

    @property
    def n_codes(self) -> int:
        return self.k * self.latent_dim

    @property
    def shares_or_equal(self) -> np.ndarray:
        """(K,), of the components where one of them makes a row."""
        return np.full(self.k, 1.0 / self.k) if self.shares is None else self.shares

    @property
    def noise_variance(self) -> float | None:
        """Variance of X given the decoders' output, in squared units of X; None if it has none."""
        likelihood = LIKELIHOODS[self.likelihood]()
        prefix = "likelihood."
        own = {n.removeprefix(prefix): a for n, a in self.arrays.items() if n.startswith(prefix)}
        likelihood.load_state_dict(to_tensors(own))
        return likelihood.noise_variance(self.scale)

    def check_continues(self, previous: NetworkState) -> None:
        """Raise ValueError if the network of a previous fit had another shape."""
        for name in ("latent_dim", "k", "likelihood", "architecture"):
            old, new = getattr(previous, name), getattr(self, name)
            if not _is_same(old, new):
                raise ValueError(
                    f"Training continues the previous fit, which had {name}={old!r}, but now "
                    f"{name}={new!r}. Set {name} back, or begin anew: call fit with "
                    "warm_start=False."
                )

    def with_parameters(self, tensors: Mapping[str, Tensor]) -> NetworkState:
        """This state with the ``state_dict`` of a network, as arrays of their own."""
        arrays = {name: np.array(array) for name, array in to_arrays(tensors).items()}
        return replace(self, arrays=arrays)

    def with_shares(self, shares: np.ndarray) -> NetworkState:
        """This state with other shares, unless its rows blend all components."""
        # Means of float32 sum to one up to its rounding, which is too little for a draw.
        return self if self.shares is None else replace(self, shares=shares / shares.sum())

    def with_components(
        self, components: np.ndarray, weight_concentration_prior: float
    ) -> NetworkState:
        """This state with some components alone, in ascending order, as arrays of their own.

        An array that grows with k is cut, one that does not is kept whole; ValueError for others.
        """
        kept = replace(
            self, k=len(components), weight_concentration_prior=weight_concentration_prior
        )
        if self.shares is not None:
            shares = self.shares[components]
            kept = replace(kept, shares=shares / shares.sum())
        old, new = shapes(self), shapes(kept)
        arrays = {}
        for name in old | new:
            array = _cut(self.arrays.get(name), new.get(name), self.k, components)
            if array is None:
                raise ValueError(
                    f"{name} of the architecture {self.architecture!r} cannot be cut by component: "
                    f"its shape is {old.get(name, 'missing')} for k={self.k} and "
                    f"{new.get(name, 'missing')} for k={kept.k}. Give it an axis of k equal parts, "
                    f"one for each component, or fit again with k={kept.k}."
                )
            arrays[name] = array
        return replace(kept, arrays=arrays)


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Training at rest, between two epochs: all that the next one follows from.

    A state that has parameters alone is where a warm start begins.
    """

    arrays: dict[str, np.ndarray]  # "kind/name"; the kind of the parameters is "weights"
    values: dict[str, Any]  # what JSON holds

    @classmethod
    def of(cls, network: NetworkState, kept: TrainingState | None = None) -> TrainingState:
        """The parameters of a fitted network, and what was kept ``between_fits``, if that was."""
        return (kept or cls({}, {})).with_part("weights", network.arrays)

    def part(self, kind: str) -> dict[str, np.ndarray]:
        """The arrays of one kind, by the names of the network's parameters and buffers."""
        return {
            name.removeprefix(f"{kind}/"): array
            for name, array in self.arrays.items()
            if name.startswith(f"{kind}/")
        }

    def with_part(self, kind: str, arrays: Mapping[str, np.ndarray]) -> TrainingState:
        return replace(self, arrays=self.arrays | {f"{kind}/{n}": a for n, a in arrays.items()})

    def with_values(self, **values: Any) -> TrainingState:
        return replace(self, values=self.values | values)

    def between_fits(self) -> TrainingState:
        """This state without parameters, which the network's has, and progress, which ends."""
        return TrainingState(
            {n: a for n, a in self.arrays.items() if n.split("/")[0] not in ("weights", "best")},
            {n: v for n, v in self.values.items() if n != "progress"},
        )


Record: TypeAlias = dict[str, float]  # terms, learning rate and seconds of an epoch, by name


class Trained(NamedTuple):
    """Result of a fit: a network, the records of its epochs, and the seed of the held-out rows."""

    state: NetworkState
    records: tuple[Record, ...]
    split_seed: int


class Epoch(NamedTuple):
    """A finished epoch: the records of all so far, and what would be left if the fit ended here.

    The latter is made when it is asked for, and valid until the next epoch begins.
    """

    records: tuple[Record, ...]
    trained: Callable[[], Trained]
    training_state: Callable[[], TrainingState]


def history_of(records: Iterable[Record]) -> dict[str, list[float]]:
    """One dict an epoch -> one list a name; NaN where an epoch lacks a name.

    The loss and the paper's terms are there in any case, the others if any epoch has them.
    """
    records = [*records]
    names = dict.fromkeys(["loss", *ObjectiveTerms._fields])
    del names["neighbors"]
    names |= {name: None for record in records for name in record}
    return {name: [record.get(name, math.nan) for record in records] for name in names}


def records_of(history: dict[str, list[float]]) -> list[Record]:
    """One list a name -> one dict an epoch."""
    epochs = zip(*history.values(), strict=True)
    return [dict(zip(history, values, strict=True)) for values in epochs]


@gradients()
def new_network(
    state: NetworkState, generator: torch.Generator, device: torch.device
) -> MixtureVAE:
    """A network with the shapes of ``state`` and parameters drawn from ``generator`` alone."""
    network = skeleton(state)
    saved = network.state_dict()
    for name, tensor in [*network.named_buffers(), *network.named_parameters()]:
        if name not in saved or tensor.dtype != torch.float32:
            raise TypeError(
                f"{name} of the architecture is {tensor.dtype}, or a buffer that is not "
                "persistent; all parameters and buffers must be float32 and saved."
            )
    network.to_empty(device=device)
    for module in network.modules():
        if not [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            continue
        reset_parameters = getattr(module, "reset_parameters", None)
        if reset_parameters is None:
            raise TypeError(
                f"{type(module).__name__} has parameters or buffers but no "
                "reset_parameters(generator), so the architecture cannot be initialised."
            )
        reset_parameters(generator)
    return network


def load_network(
    state: NetworkState, device: torch.device, dtype: DTypeLike = np.float32
) -> MixtureVAE:
    """The network of a fitted estimator, to read: it may share the memory of ``state``."""
    network = skeleton(state)
    network.load_state_dict(to_tensors(state.arrays), assign=True)
    return network.to(device, torch_dtype(dtype)).eval()


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Arrays that share the memory of the tensors if those are on the CPU."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Tensors on the CPU that share the memory of the arrays if those are writeable."""
    return {
        # torch warns of an array that it must not write to, such as a memory-mapped file.
        name: torch.from_numpy(array if array.flags.writeable else array.copy())
        for name, array in arrays.items()
    }


def _cut(
    array: np.ndarray | None, new_shape: tuple[int, ...] | None, k: int, components: np.ndarray
) -> np.ndarray | None:
    """A copy of the ``components`` among k alone, of ``new_shape``; None if that cannot be."""
    if array is None or new_shape is None or array.ndim != len(new_shape):
        return None
    if array.shape == new_shape:
        return np.array(array)
    axis = next(i for i, size in enumerate(new_shape) if size != array.shape[i])
    before, size, after = array.shape[:axis], array.shape[axis], array.shape[axis + 1 :]
    if size % k or new_shape != (*before, size // k * len(components), *after):
        return None
    parts = np.asarray(array).reshape(*before, k, size // k, *after)
    return parts.take(components, axis=axis).reshape(new_shape)


def _is_same(old, new) -> bool:
    """Whether two parameters mean the same: estimators parameter by parameter, sizes as numbers."""
    if hasattr(old, "get_params"):
        params = old.get_params(deep=False)
        return type(old) is type(new) and all(
            _is_same(value, getattr(new, name)) for name, value in params.items()
        )
    return np.array_equal(np.asarray(old, dtype=object), np.asarray(new, dtype=object))


def shapes(state: NetworkState) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays that the network of ``state`` has, by name."""
    return {name: tuple(t.shape) for name, t in skeleton(state).state_dict().items()}


def skeleton(state: NetworkState) -> MixtureVAE:
    """Return the network of ``state`` without memory for its parameters."""
    with torch.device("meta"):
        return MixtureVAE(
            state.architecture,
            n_features=state.n_features,
            latent_dim=state.latent_dim,
            k=state.k,
            likelihood=state.likelihood,
        )
