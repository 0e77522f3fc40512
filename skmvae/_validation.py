"""Ranges of hyperparameters and checks of input, with messages that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

# A predicate and how to say it.
Rule = tuple[Callable[[Any], bool], str]


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def at_least(low: int) -> Rule:
    def predicate(value: Any) -> bool:
        return _is_int(value) and value >= low

    return predicate, f"an int >= {low}"


def in_interval(low: float, high: float, *, closed: str) -> Rule:
    def predicate(value: Any) -> bool:
        if not _is_real(value):
            return False
        above = value >= low if closed in ("left", "both") else value > low
        below = value <= high if closed in ("right", "both") else value < high
        return above and below

    left = "[" if closed in ("left", "both") else "("
    right = "]" if closed in ("right", "both") else ")"
    return predicate, f"a number in {left}{low:g}, {high:g}{right}"


def index_below(stop: int) -> Rule:
    def predicate(value: Any) -> bool:
        return _is_int(value) and 0 <= value < stop

    return predicate, f"an int in [0, {stop})"


def one_of(options: Iterable[str]) -> Rule:
    names = tuple(options)
    return lambda value: isinstance(value, str) and value in names, f"one of {names}"


def optional(rule: Rule) -> Rule:
    predicate, description = rule
    return lambda value: value is None or predicate(value), f"None or {description}"


def check_parameters(owner: Any, rules: Mapping[str, Rule]) -> None:
    """Raise ValueError for the first parameter of ``owner`` that breaks its rule."""
    for name, rule in rules.items():
        check_value(f"The {name!r} parameter of {type(owner).__name__}", getattr(owner, name), rule)


def check_value(what: str, value: Any, rule: Rule) -> None:
    """Raise ValueError if ``value`` breaks ``rule``."""
    predicate, description = rule
    if not predicate(value):
        raise ValueError(f"{what} must be {description}. Got {value!r} instead.")


def are_layer_sizes(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(_is_int(v) and v >= 1 for v in value)


ESTIMATOR_RULES: dict[str, Rule] = {
    "k": at_least(1),
    "latent_dim": at_least(1),
    "beta": in_interval(0.0, inf, closed="left"),
    "kl_weight": in_interval(0.0, inf, closed="left"),
    "objective": one_of(("averaged", "melbo", "elbo")),
    "likelihood": one_of(("gaussian", "bernoulli")),
    "weight_concentration_prior": optional(in_interval(0.0, inf, closed="neither")),
    "architecture": (
        lambda value: value is None or callable(getattr(value, "build", None)),
        "None or an architecture, an object with a method build(n_features, latent_dim, k)",
    ),
    "max_iter": at_least(1),
    "batch_size": at_least(1),
    "learning_rate": in_interval(0.0, inf, closed="neither"),
    "early_stopping": (lambda value: isinstance(value, bool | np.bool_), "a bool"),
    "validation_fraction": in_interval(0.0, 1.0, closed="neither"),
    "n_iter_no_change": at_least(1),
    "tol": in_interval(0.0, inf, closed="left"),
    "warm_start": (lambda value: isinstance(value, bool | np.bool_), "a bool"),
    "precision": one_of(("auto", "float32")),
    "device": (lambda value: isinstance(value, str | torch.device), "a str or torch.device"),
    "random_state": (
        lambda value: (
            value is None
            or isinstance(value, np.random.RandomState)
            or (_is_int(value) and 0 <= value < 2**32)
        ),
        "None, an int in [0, 2**32) or a numpy.random.RandomState",
    ),
    "verbose": (
        lambda value: isinstance(value, bool) or (_is_int(value) and value >= 0),
        "a bool or an int >= 0",
    ),
}


def check_rows(estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
    """X as a finite 2-d array of float32 or float64, uncopied where it is one already."""
    _refuse_lossy_conversion(X, "X")
    return validate_data(estimator, X, reset=reset, dtype=[np.float32, np.float64])


def check_codes(estimator: Any, Z: Any, *, k: int, latent_dim: int) -> np.ndarray:
    """Z as a finite 2-d array with the columns that transform gives."""
    _refuse_lossy_conversion(Z, "Z")
    Z = check_array(Z, dtype=[np.float32, np.float64], estimator=estimator, input_name="Z")
    if Z.shape[1] != k * latent_dim:
        raise ValueError(
            f"Z has {Z.shape[1]} columns; expected k * latent_dim = {k} * {latent_dim} = "
            f"{k * latent_dim}, the columns that transform returns."
        )
    return Z


def check_unit_interval(X: np.ndarray) -> None:
    """A Bernoulli likelihood is a density only on [0, 1]."""
    low, high = X.min(), X.max()
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"likelihood='bernoulli' needs X in [0, 1], but X spans [{low:g}, {high:g}]. Scale it, "
            "for example with sklearn.preprocessing.MinMaxScaler(clip=True), or use "
            "likelihood='gaussian'."
        )


def _refuse_lossy_conversion(X: Any, name: str) -> None:
    """Types that NumPy would turn into floats while losing what they mean."""
    if isinstance(X, np.ma.MaskedArray):
        raise ValueError(
            f"{name} is a masked array, and its mask would be lost. Fill it, for example with "
            f"{name}.filled(numpy.nan) and sklearn.impute.SimpleImputer."
        )
    if isinstance(X, torch.Tensor) and (
        X.requires_grad or X.device.type != "cpu" or X.dtype == torch.bfloat16
    ):
        raise TypeError(
            f"{name} is a torch tensor ({X.dtype}, {X.device}, requires_grad={X.requires_grad}); "
            "call .detach().cpu().float().numpy() on it."
        )
    dtypes = X.dtypes if hasattr(X, "dtypes") else [getattr(X, "dtype", None)]
    if any("datetime" in str(dtype).lower() for dtype in np.atleast_1d(np.asarray(dtypes, object))):
        raise ValueError(
            f"{name} holds datetimes; turn them into numbers first, for example seconds."
        )
