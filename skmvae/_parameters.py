"""The estimator's parameters: their rules, and the settings and the checkpoint that follow."""

from __future__ import annotations

import math
from os import PathLike
from typing import Any

import numpy as np
from sklearn.base import clone

from ._distributed.group import ALONE, Group
from ._files.checkpoints import Checkpoint
from ._files.writing import at_home
from ._fit.fitting import FitSettings, PreviousFit
from ._fit.schedules import SCHEDULES
from ._model.distributions import LIKELIHOODS
from ._model.objective import OBJECTIVES, OF_PARTS, Objective
from ._rows.fingerprints import fingerprint, fingerprint_of_shards
from ._runtime import resolve_device, resolve_precision
from ._validation import FLAG, Rule, at_least, check_value, in_interval, of_type, one_of, optional
from ._version import __version__
from .architectures import MLP

_RATE = in_interval(0.0, math.inf, closed="neither")

RULES: dict[str, Rule] = {
    "k": at_least(1),
    "latent_dim": at_least(1),
    "beta": in_interval(0.0, math.inf, closed="left"),
    "kl_weight": in_interval(0.0, math.inf, closed="left"),
    "objective": one_of(OBJECTIVES),
    "likelihood": one_of(LIKELIHOODS),
    "weight_concentration_prior": optional(in_interval(0.0, math.inf, closed="neither")),
    "architecture": (
        lambda value: (
            value is None
            or (
                not isinstance(value, type)
                and all(hasattr(value, method) for method in ("build", "get_params"))
            )
        ),
        "None or an architecture such as MLP(), an instance of a BaseEstimator with a method "
        "build(n_features, latent_dim, k)",
    ),
    "neighbor_weight": in_interval(0.0, math.inf, closed="left"),
    "n_neighbors": at_least(1),
    "max_iter": at_least(1),
    "batch_size": optional(at_least(1)),
    "learning_rate": optional(_RATE),
    "learning_rate_schedule": one_of(SCHEDULES),
    "early_stopping": FLAG,
    "validation_fraction": in_interval(0.0, 1.0, closed="neither"),
    "n_iter_no_change": at_least(1),
    "tol": in_interval(0.0, math.inf, closed="left"),
    "warm_start": FLAG,
    "checkpoint_dir": optional(of_type((str, PathLike), "a path to a folder")),
    "precision": one_of(("auto", "float32", "bfloat16")),
    "device": of_type((str,), "a str such as 'auto', 'cpu' or 'cuda:0'"),
    "random_state": (
        lambda value: (
            value is None
            or isinstance(value, np.random.RandomState)
            or (at_least(0)[0](value) and value < 2**32)
        ),
        "None, an int in [0, 2**32) or a numpy.random.RandomState",
    ),
    "verbose": (
        lambda value: isinstance(value, bool) or at_least(0)[0](value),
        "a bool or an int >= 0",
    ),
}

# Parameters that do not say which fit it is; the seed, the previous fit of a warm start and the
# length do so instead.
_NOT_OF_THE_FIT = ("checkpoint_dir", "max_iter", "random_state", "verbose", "warm_start")


def settings_of(estimator: Any, **changes: Any) -> FitSettings:
    """The parameters in plain values, since those of NumPy would reach the history."""
    prior = estimator.weight_concentration_prior
    device = resolve_device(estimator.device)
    architecture = MLP() if estimator.architecture is None else clone(estimator.architecture)
    settings: dict[str, Any] = {
        "architecture": architecture,
        "latent_dim": int(estimator.latent_dim),
        "k": int(estimator.k),
        "likelihood": estimator.likelihood,
        "objective": Objective(
            estimator.objective,
            beta=float(estimator.beta),
            kl_weight=float(estimator.kl_weight),
            prior=1.0 / estimator.k if prior is None else float(prior),
            neighbor_weight=float(estimator.neighbor_weight),
        ),
        "device": device,
        "precision": resolve_precision(estimator.precision, device),
        "max_iter": int(estimator.max_iter),
        "batch_size": None if estimator.batch_size is None else int(estimator.batch_size),
        "learning_rate": _learning_rate(estimator, architecture),
        "schedule": SCHEDULES[estimator.learning_rate_schedule],
        "n_neighbors": int(estimator.n_neighbors),
        "validation_fraction": estimator.validation_fraction if estimator.early_stopping else None,
        "n_iter_no_change": int(estimator.n_iter_no_change),
        "tol": float(estimator.tol),
    }
    return FitSettings(**(settings | changes))


def _learning_rate(estimator: Any, architecture: Any) -> float:
    """The highest rate: the parameter, or what the architecture asks for."""
    if estimator.learning_rate is not None:
        return float(estimator.learning_rate)
    highest = getattr(architecture, "default_learning_rate", MLP.default_learning_rate)
    check_value(f"default_learning_rate of {architecture!r}", highest, _RATE)
    # A third where the rate never falls, as in ``partial_fit``.
    return float(highest) / (3.0 if estimator.learning_rate_schedule == "constant" else 1.0)


def checkpoint_of(
    estimator: Any, X, previous: PreviousFit | None, seed: int | None, group: Group
) -> Checkpoint | None:
    """The checkpoint of this fit, which rank 0 reads and writes, if it has a folder for it.

    Its name follows from all that the fit follows from.
    """
    folder = group.broadcast(estimator.checkpoint_dir)
    if folder is None:
        return None
    # With early stopping each shard holds out rows of its own: with other shards, a fit that
    # went on from here would be judged by rows that it was trained on.
    is_split = group is not ALONE and not estimator.early_stopping
    data = fingerprint_of_shards(X, group) if is_split else group.all_gather(fingerprint(X))
    if group.rank > 0:
        return None
    params = estimator.get_params(deep=False)
    if estimator.architecture is None:
        params["architecture"] = MLP()
    params["learning_rate"] = _learning_rate(estimator, params["architecture"])
    for name in _NOT_OF_THE_FIT:
        del params[name]
    begin = (
        None if previous is None else (previous.state, estimator.history_, estimator._split_seed)
    )
    return Checkpoint(
        at_home(folder),
        (__version__, params, seed, data, begin),
        int(estimator.max_iter),
        can_grow=estimator.learning_rate_schedule == "constant"
        and estimator.objective not in OF_PARTS,  # which hold rows to their parts for a fraction
    )
