"""Saved estimators: what they must hold, and what earlier versions called otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
from torch import Tensor

from ._model.distributions import LIKELIHOODS
from ._state import FORMAT_VERSION, MOMENTS, NetworkState, TrainingState, shapes, skeleton
from ._version import __version__

# Fitted attributes in the state of an estimator; the others follow from these.
FITTED = ("_split_seed", "_state", "history_", "n_features_in_", "weights_")

# Parameters that estimators saved before them lack, with the values that they were trained with.
_LATER_PARAMETERS = {
    "learning_rate_schedule": "constant",
    "checkpoint_dir": None,
    "neighbor_weight": 0.0,
    "n_neighbors": 10,
}

# Fields that a NetworkState may lack which earlier versions saved.
_LATER_FIELDS = (["fill"], ["fill", "shares"])

# Fitted attributes that earlier versions saved, and that follow from others.
_DERIVED = ("mean_", "n_iter_", "noise_variance_", "scale_")

# Columns of history_ that earlier versions called otherwise.
_RENAMED_COLUMNS = {"kl_weights": "kl_mixing"}


def upgraded(saved: dict[str, Any]) -> dict[str, Any]:
    """The state of an estimator that an earlier version saved, as this one saves it."""
    saved = {**_LATER_PARAMETERS, **saved}
    state = saved.get("_state")
    if isinstance(state, NetworkState) and (lacking := _lacks(state)) in _LATER_FIELDS:
        later = fields_before(saved.get("objective"), state.k, state.n_features)
        own = {name: later[name] for name in lacking}
        saved["_state"] = NetworkState(**vars(state), **own)
    if isinstance(history := saved.get("history_"), dict):
        saved["history_"] = {_RENAMED_COLUMNS.get(n, n): column for n, column in history.items()}
    return {name: value for name, value in saved.items() if name not in _DERIVED}


def fields_before(objective: object, k: int, n_features: int) -> dict[str, Any]:
    """What models have that were saved without: equal shares, and 0 in place of what is missing."""
    return {
        "shares": None if objective == "averaged" else np.full(k, 1.0 / k),
        "fill": np.zeros(n_features),
    }


def check_saved(saved: dict[str, Any], parameters: Iterable[str], kind: str) -> None:
    """Raise ValueError, naming what is wrong, unless the state of an estimator is whole."""
    expected = set(parameters)
    if saved.keys() & set(FITTED):
        expected.update(FITTED)
    if missing := sorted(expected - saved.keys()):
        raise ValueError(f"the saved {kind} lacks {', '.join(missing)}.")
    if "_state" in saved:
        check_state(saved["_state"])
        if "_training" in saved:
            check_training(saved["_training"], saved["_state"], in_a_fit=False)
        _check_attributes(saved)


def check_state(state: NetworkState) -> None:
    """Raise ValueError, naming what is wrong, unless ``state`` is whole and consistent."""
    if not isinstance(state, NetworkState):
        raise ValueError(f"the fitted state must be a NetworkState, got {type(state).__name__}.")
    if missing := _lacks(state):
        raise ValueError(f"the fitted state lacks {', '.join(missing)}.")
    if state.format_version != FORMAT_VERSION:
        raise ValueError(
            f"the fitted state has format version {state.format_version!r}; skmvae {__version__} "
            f"reads version {FORMAT_VERSION}. Load it with skmvae {state.skmvae_version}, or fit "
            "again."
        )
    _check_fields(state)
    expected = shapes(state)
    of_columns = {"mean": state.mean, "fill": state.fill}
    expected |= dict.fromkeys(of_columns, (state.n_features,))
    found = {**state.arrays, **of_columns}
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"the fitted state lacks {', '.join(missing)}.")
    if unknown := sorted(found.keys() - expected.keys()):
        raise ValueError(f"the fitted state has unknown arrays: {', '.join(unknown)}.")
    for name, shape in expected.items():
        _check_array_of(name, found[name], shape, np.float64 if name in of_columns else np.float32)
    if state.shares is not None:
        _check_array_of("shares", state.shares, (state.k,), np.float64)
        if not (state.shares > 0.0).all() or abs(state.shares.sum() - 1.0) > 1e-6:
            raise ValueError(
                f"shares of the fitted state is not valid: {state.shares}; expected positive "
                "numbers that sum to one."
            )


def _lacks(state: NetworkState) -> list[str]:
    return sorted({field.name for field in fields(NetworkState)} - vars(state).keys())


def check_training(training: TrainingState, network: NetworkState, *, in_a_fit: bool) -> None:
    """Raise ValueError, naming what is wrong, unless training can go on from there."""
    values = getattr(training, "values", None)
    if not isinstance(training, TrainingState) or not isinstance(values, dict):
        raise ValueError(f"the saved training must be a TrainingState, got {training!r}.")
    holds = {
        "seed": _is_count(values.get("seed")),
        "steps": _is_count(values.get("steps")),
        "shuffler": _is_shuffler(values.get("shuffler")),
        "shares": "shares" not in values or _are_shares(values["shares"], network.k),
    }
    if in_a_fit:
        holds["progress"] = _is_progress(values.get("progress"))
    for name, is_valid in holds.items():
        if not is_valid:
            raise ValueError(f"{name} of the saved training is not valid: {values.get(name)!r}.")
    has_best = in_a_fit and "best_loss" in values["progress"]
    _check_arrays(training, network, ["weights"] * in_a_fit + ["best"] * has_best)


def _check_arrays(training: TrainingState, network: NetworkState, kinds: list[str]) -> None:
    """Check the arrays of ``kinds``, for all that the network has, and the moments."""
    empty = skeleton(network)
    named: dict[str, Iterable[tuple[str, Tensor]]]
    named = {kind: empty.state_dict().items() for kind in kinds}
    named |= {kind: empty.named_parameters() for kind in MOMENTS}
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
        _check_array_of(name, training.arrays[name], shape, np.float32)
    generator = training.arrays["generator"]
    _check_array_of("generator", generator, (np.size(generator),), np.uint8)


def _check_attributes(saved: dict) -> None:
    """ValueError unless the fitted attributes of a saved estimator fit its network."""
    network = saved["_state"]
    _check_array_of("weights_", saved["weights_"], (network.k,), np.float64)
    if saved["n_features_in_"] != network.n_features:
        raise ValueError(
            f"n_features_in_ of the fitted state is {saved['n_features_in_']!r}, but its network "
            f"has n_features={network.n_features}."
        )
    history = saved["history_"]
    names = saved.get("feature_names_in_", [""] * network.n_features)
    holds = {
        "_split_seed": _is_count(saved["_split_seed"]),
        "feature_names_in_": np.shape(names) == (network.n_features,)
        and all(isinstance(name, str) for name in names),
        "history_": _is_history(history),
    }
    for name, is_valid in holds.items():
        if not is_valid:
            raise ValueError(f"{name} of the fitted state is not valid: {saved[name]!r}.")
    lengths = {len(column) for column in history.values()}
    if len(lengths) != 1:
        raise ValueError(
            f"the columns of history_ of the fitted state have the lengths {sorted(lengths)}; "
            "expected one entry an epoch in each."
        )


def _is_history(history) -> bool:
    return isinstance(history, dict) and all(
        isinstance(column, list) and all(isinstance(value, float) for value in column)
        for column in history.values()
    )


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


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_shares(value, k: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == k
        and all(isinstance(share, float) and 0.0 <= share <= 1.0 for share in value)
    )


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
        and _is_count(value.get("stale_epochs"))
        and isinstance(value.get("best_loss", 0.0), float)
    )


def _is_positive_int(value) -> bool:
    return _is_count(value) and value >= 1


def _is_positive_float(value) -> bool:
    return isinstance(value, float) and 0.0 < value < math.inf


def _check_array_of(name: str, array, shape: tuple[int, ...], dtype: type) -> None:
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
