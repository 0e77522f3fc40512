"""A fitted network at rest: named NumPy arrays and plain values, nothing of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from ._model.distributions import LIKELIHOODS
from ._model.network import MixtureVAE
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
    arrays: dict[str, np.ndarray]  # parameters and buffers of MixtureVAE, by name; float32
    format_version: int = FORMAT_VERSION
    skmvae_version: str = __version__

    @property
    def n_codes(self) -> int:
        return self.k * self.latent_dim

    def continuing(self, previous: NetworkState) -> NetworkState:
        """This state in the units of a previous fit; ValueError if that had another shape."""
        for name in ("latent_dim", "k", "likelihood", "architecture"):
            old, new = getattr(previous, name), getattr(self, name)
            if not _is_same(old, new):
                raise ValueError(
                    f"Training continues the previous fit, which had {name}={old!r}, but now "
                    f"{name}={new!r}. Set {name} back, or begin anew: call fit with "
                    "warm_start=False."
                )
        return replace(self, mean=previous.mean, scale=previous.scale)

    def holding(self, tensors: Mapping[str, Tensor]) -> NetworkState:
        """This state with the ``state_dict`` of a network, as arrays of their own."""
        arrays = {name: np.array(array) for name, array in to_arrays(tensors).items()}
        return replace(self, arrays=arrays)

    def keeping(self, components: np.ndarray, weight_concentration_prior: float) -> NetworkState:
        """This state with only some components, in ascending order, as arrays of their own.

        What grows with k is cut, what does not is kept whole; ValueError if an array does neither.
        """
        kept = replace(
            self, k=len(components), weight_concentration_prior=weight_concentration_prior
        )
        old, new = _shapes(self), _shapes(kept)
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

    A state that has weights alone is where a warm start begins.
    """

    arrays: dict[str, np.ndarray]  # "kind/name": weights, moments, ...
    values: dict[str, Any]  # what JSON holds

    @classmethod
    def of(cls, network: NetworkState, memory: TrainingState | None = None) -> TrainingState:
        """The weights of a fitted network, and what was kept ``between_fits``, if that was."""
        memory = memory or cls({}, {})
        return memory.with_part("weights", network.arrays)

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
        """Without weights, which the network's state has, and progress, which ends with a fit."""
        return TrainingState(
            {n: a for n, a in self.arrays.items() if n.split("/")[0] not in ("weights", "best")},
            {n: v for n, v in self.values.items() if n != "progress"},
        )


@gradients()
def new_network(
    state: NetworkState, generator: torch.Generator, device: torch.device
) -> MixtureVAE:
    """A network with the shapes of ``state`` and weights drawn from ``generator`` alone."""
    network = _skeleton(state)
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
    network = _skeleton(state)
    network.load_state_dict(to_tensors(state.arrays), assign=True)
    return network.to(device, torch_dtype(dtype)).eval()


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """In the memory of the tensors, where that is the CPU's."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """On the CPU, in the memory of the arrays where that may be written to."""
    return {
        # torch warns of an array that it must not write to, such as a memory-mapped file.
        name: torch.from_numpy(array if array.flags.writeable else array.copy())
        for name, array in arrays.items()
    }


def check_state(state: NetworkState) -> None:
    """Raise ValueError, naming what is wrong, unless ``state`` is whole and consistent."""
    if not isinstance(state, NetworkState):
        raise ValueError(f"the fitted state must be a NetworkState, got {type(state).__name__}.")
    if missing := sorted({field.name for field in fields(NetworkState)} - vars(state).keys()):
        raise ValueError(f"the fitted state lacks {', '.join(missing)}.")
    if state.format_version != FORMAT_VERSION:
        raise ValueError(
            f"the fitted state has format version {state.format_version!r}; skmvae {__version__} "
            f"reads version {FORMAT_VERSION}. Load it with skmvae {state.skmvae_version}, or fit "
            "again."
        )
    _check_fields(state)
    expected = _shapes(state)
    expected["mean"] = (state.n_features,)
    found = {**state.arrays, "mean": state.mean}
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"the fitted state lacks {', '.join(missing)}.")
    if unknown := sorted(found.keys() - expected.keys()):
        raise ValueError(f"the fitted state has unknown arrays: {', '.join(unknown)}.")
    for name, shape in expected.items():
        check_array_of(name, found[name], shape, np.float64 if name == "mean" else np.float32)


def check_training(training: TrainingState, network: NetworkState, *, in_a_fit: bool) -> None:
    """Raise ValueError, naming what is wrong, unless training can go on from there."""
    values = getattr(training, "values", None)
    if not isinstance(training, TrainingState) or not isinstance(values, dict):
        raise ValueError(f"the saved training must be a TrainingState, got {training!r}.")
    holds = {
        "seed": is_count(values.get("seed")),
        "steps": is_count(values.get("steps")),
        "shuffler": _is_shuffler(values.get("shuffler")),
    }
    if in_a_fit:
        holds["progress"] = _is_progress(values.get("progress"))
    for name, is_valid in holds.items():
        if not is_valid:
            raise ValueError(f"{name} of the saved training is not valid: {values.get(name)!r}.")
    has_best = in_a_fit and "best_loss" in values["progress"]
    _check_arrays(training, network, ["weights"] * in_a_fit + ["best"] * has_best)


def _check_arrays(training: TrainingState, network: NetworkState, kinds: list[str]) -> None:
    """Of all that the network has for ``kinds``, of its parameters for the moments."""
    skeleton = _skeleton(network)
    named: dict[str, Iterable[tuple[str, Tensor]]]
    named = {kind: skeleton.state_dict().items() for kind in kinds}
    named |= {kind: skeleton.named_parameters() for kind in MOMENTS}
    expected = {
        f"{kind}/{name}": tuple(tensor.shape)
        for kind, tensors in named.items()
        for name, tensor in tensors
    }
    if different := training.arrays.keys() ^ {*expected, "generator"}:
        raise ValueError(
            f"the saved training lacks, or has too many: {', '.join(sorted(different))}."
        )
    for name, shape in expected.items():
        check_array_of(name, training.arrays[name], shape, np.float32)
    generator = training.arrays["generator"]
    check_array_of("generator", generator, (np.size(generator),), np.uint8)


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


def _check_fields(state: NetworkState) -> None:
    """The plain values, on which the expected shapes of the arrays depend."""
    expected = {
        "architecture": callable(getattr(state.architecture, "build", None)),
        "n_features": _is_positive_int(state.n_features),
        "latent_dim": _is_positive_int(state.latent_dim),
        "k": _is_positive_int(state.k),
        "likelihood": isinstance(state.likelihood, str) and state.likelihood in LIKELIHOODS,
        "weight_concentration_prior": _is_positive_float(state.weight_concentration_prior),
        "scale": _is_positive_float(state.scale),
        "arrays": isinstance(state.arrays, dict),
    }
    for name, holds in expected.items():
        if not holds:
            raise ValueError(f"{name} of the fitted state is not valid: {getattr(state, name)!r}.")


def is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_shuffler(value) -> bool:
    try:
        np.random.default_rng(0).bit_generator.state = value
    except (TypeError, ValueError, KeyError, OverflowError):
        return False
    return True


def _is_progress(value) -> bool:
    records = value.get("records") if isinstance(value, dict) else None
    return (
        isinstance(records, list)
        and len(records) > 0
        and all(isinstance(record, dict) for record in records)
        and all(isinstance(v, float) for record in records for v in record.values())
        and is_count(value.get("stale_epochs"))
        and isinstance(value.get("best_loss", 0.0), float)
    )


def _is_positive_int(value) -> bool:
    return is_count(value) and value >= 1


def _is_positive_float(value) -> bool:
    return isinstance(value, float) and 0.0 < value < math.inf


def check_array_of(name: str, array, shape: tuple[int, ...], dtype: type) -> None:
    """Raise ValueError, naming the array, unless it has the shape and the dtype."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        found = (
            f"{array.dtype} {array.shape}"
            if isinstance(array, np.ndarray)
            else type(array).__name__
        )
        raise ValueError(
            f"{name} of the fitted state must be {np.dtype(dtype)} {shape}, got {found}."
        )


def _shapes(state: NetworkState) -> dict[str, tuple[int, ...]]:
    """Of the arrays that the network of ``state`` has, by name."""
    return {name: tuple(t.shape) for name, t in _skeleton(state).state_dict().items()}


def _skeleton(state: NetworkState) -> MixtureVAE:
    """The network of ``state`` without memory for its parameters."""
    with torch.device("meta"):
        return MixtureVAE(
            state.architecture,
            n_features=state.n_features,
            latent_dim=state.latent_dim,
            k=state.k,
            likelihood=state.likelihood,
        )
