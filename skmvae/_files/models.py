"""Model files: a fitted estimator as safetensors, which runs no code and any language can read."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Collection
from dataclasses import fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .._saved import fields_before
from .._state import NetworkState, TrainingState
from .._version import __version__
from .tensors import Arrays, read_tensors, write_tensors

Model = TypeVar("Model")

_KIND, _FORMAT_VERSION = "skmvae model", 1

_OURS = ("skmvae.architectures.Conv", "skmvae.architectures.MLP")

# Fields of a NetworkState that are neither arrays nor an architecture.
_NETWORK_VALUES = tuple(
    field.name
    for field in fields(NetworkState)
    if field.name not in ("architecture", "arrays", "fill", "mean", "shares")
)
_ARRAYS = ("fill", "mean", "weights")  # other arrays have a prefix, "network/" or "training/"


def write_model(path: Path, parameters: dict[str, Any], fitted: dict[str, Any]) -> None:
    """Write an estimator's parameters and fitted attributes; OSError leaves what was there."""
    network: NetworkState = fitted["_state"]
    training = fitted.get("_training", TrainingState({}, {}))
    arrays = {
        **{f"network/{name}": array for name, array in network.arrays.items()},
        **{f"training/{name}": array for name, array in training.arrays.items()},
        "fill": network.fill,
        "mean": network.mean,
        "weights": fitted["weights_"],
    }
    values = {
        "about": {
            "kind": _KIND,
            "format_version": _FORMAT_VERSION,
            "skmvae_version": __version__,
        },
        "parameters": {name: _encoded(name, value) for name, value in parameters.items()},
        "architecture": _encoded("architecture", network.architecture),
        "network": {
            **{name: getattr(network, name) for name in _NETWORK_VALUES},
            "shares": None if network.shares is None else network.shares.tolist(),
        },
        "fitted": {"_split_seed": fitted["_split_seed"]},
        "history": {
            name: [None if math.isnan(value) else value for value in column]
            for name, column in fitted["history_"].items()
        },
        "feature_names": list(fitted.get("feature_names_in_", [])),
        "training": training.values,
    }
    write_tensors(path, arrays, values)


def read_model(
    path: Path,
    trusted: Collection[str],
    make: Callable[[dict[str, Any], dict[str, Any]], Model],
) -> Model:
    """Return what ``make`` makes of the parameters and fitted attributes in a file.

    ValueError, naming the file, if that fails. Architectures other than this package's are imported
    if their name is among ``trusted``.
    """
    arrays, values = read_tensors(path)
    try:
        _check_kind(arrays, values)
        parameters = {name: _decoded(v, trusted) for name, v in values["parameters"].items()}
        return make(parameters, _fitted(arrays, values, trusted))
    except Exception as error:  # of whatever type: a file made on purpose can lead to all of them
        reason = f"it lacks {error}." if isinstance(error, KeyError) else error
        raise ValueError(f"{path} cannot be loaded: {reason}") from error


def _check_kind(arrays: Arrays, values: dict[str, Any]) -> None:
    about = values.get("about")
    if not isinstance(about, dict) or about.get("kind") != _KIND:
        raise ValueError(f"it is not a model file of skmvae, but says that it is {about!r}.")
    if about.get("format_version") != _FORMAT_VERSION:
        raise ValueError(
            f"it has format version {about.get('format_version')!r}, and skmvae {__version__} "
            f"reads version {_FORMAT_VERSION}. Load it with skmvae {about.get('skmvae_version')}."
        )
    if unknown := sorted(name for name in arrays if name not in _ARRAYS and "/" not in name):
        raise ValueError(f"it has unknown arrays: {', '.join(unknown)}.")


def _fitted(arrays: Arrays, values: dict[str, Any], trusted: Collection[str]) -> dict[str, Any]:
    of_network = dict(values["network"])
    later = fields_before(
        values["parameters"]["objective"], of_network["k"], of_network["n_features"]
    )
    if "shares" in of_network:
        shares = of_network.pop("shares")
        later["shares"] = None if shares is None else np.array(shares, dtype=np.float64)
    if "fill" in arrays:
        later["fill"] = arrays["fill"]
    network = NetworkState(
        architecture=_decoded(values["architecture"], trusted),
        mean=arrays["mean"],
        **later,
        arrays=_part(arrays, "network/"),
        **of_network,
    )
    fitted = {
        "_split_seed": values["fitted"]["_split_seed"],
        "_state": network,
        "n_features_in_": network.n_features,
        "weights_": arrays["weights"],
        "history_": {
            name: [math.nan if value is None else value for value in column]
            for name, column in values["history"].items()
        },
    }
    if values["feature_names"] != []:
        fitted["feature_names_in_"] = np.array(values["feature_names"], dtype=object)
    if training := _part(arrays, "training/"):
        fitted["_training"] = TrainingState(training, values["training"])
    return fitted


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _encoded(name: str, value: Any) -> Any:
    """The parameter ``name`` as JSON has it: an architecture by its class and parameters."""
    if hasattr(value, "get_params"):
        own = value.get_params(deep=False).items()
        return {
            "class": _path_of(type(value)),
            "parameters": {n: _encoded(f"{name}__{n}", v) for n, v in own},
        }
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, PathLike):
        value = fspath(value)
    if isinstance(value, list | tuple):
        return [_encoded(name, v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError(
        f"{name}={value!r} is nothing that a model file can hold. Set it to plain values with "
        "set_params before saving, or save with joblib."
    )


def _decoded(value: Any, trusted: Collection[str]) -> Any:
    """The other way. Lists become tuples, which mean the same in all parameters."""
    if isinstance(value, list):
        return tuple(_decoded(v, trusted) for v in value)
    if isinstance(value, dict):
        make = _class(value["class"], trusted)
        return make(**{n: _decoded(v, trusted) for n, v in value["parameters"].items()})
    return value


def _path_of(kind: type) -> str:
    """The import path of a class; ValueError if it has none."""
    if getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is not kind:
        raise ValueError(
            f"{kind.__qualname__} cannot be imported from {kind.__module__}, so a model file "
            "cannot name it. Define the architecture at the top of a module."
        )
    return f"{kind.__module__}.{kind.__qualname__}"


def _class(path: str, trusted: Collection[str]) -> Any:
    if path not in (*_OURS, *trusted):
        raise ValueError(
            f"its architecture is {path!r}, which is not of this package. If you trust that, load "
            f"with trusted=[{path!r}], which imports it."
        )
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
