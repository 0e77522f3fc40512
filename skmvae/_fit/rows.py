"""What a fit works with of X: its units, and which rows it trains on and holds out."""

from __future__ import annotations

import math

import numpy as np
import torch

from .._distributed.group import Group
from .._model.distributions import LIKELIHOODS
from .._rows.scaled import ScaledRows
from .._rows.statistics import column_means, has_values, mean_and_scale
from .._state import NetworkState


def units(X, likelihood: str, group: Group) -> tuple[np.ndarray, float, np.ndarray]:
    """What is subtracted from X, what that is divided by, and the columns' means in these units.

    NaN is the mean of a column without a value. Rows that come later may have holes, if X has none.
    """
    if not LIKELIHOODS[likelihood].IS_SCALED:
        return np.zeros(X.shape[1]), 1.0, column_means(X, group)
    mean, scale = mean_and_scale(X, group)
    return np.nan_to_num(mean), scale, np.where(np.isnan(mean), np.nan, 0.0)


def later_units(X, previous: NetworkState, group: Group) -> tuple[np.ndarray, float, np.ndarray]:
    """Those of a previous fit, and of columns that it saw no value of, those of X."""
    mean, scale, fill = previous.mean, previous.scale, previous.fill
    if np.isnan(fill).any():
        means = column_means(X, group)
        came = np.isnan(fill) & ~np.isnan(means)
        if LIKELIHOODS[previous.likelihood].IS_SCALED:
            mean = np.where(came, means, mean)
        fill = np.where(came, (means - mean) / scale, fill)
    return mean, scale, fill


def scaled_rows(X, state: NetworkState, device: torch.device, has_holes: bool) -> ScaledRows:
    """X in the units of a network, float32, and what it puts for holes if there are any."""
    return ScaledRows(
        X,
        state.mean,
        state.scale,
        device,
        limits=LIKELIHOODS[state.likelihood].SUPPORT,
        fill=np.nan_to_num(state.fill) if has_holes else None,
    )


def usable_rows(X, has_holes: bool) -> np.ndarray:
    """Numbers of the rows that have a value: others teach nothing and are near to no other."""
    numbers = np.flatnonzero(has_values(X)) if has_holes else np.arange(X.shape[0])
    if not numbers.size:
        raise ValueError(
            "X contains NaN alone, which means that no value was observed: there is nothing to "
            "learn from. Give at least one row with a value."
        )
    return numbers


def split(
    rows: np.ndarray, validation_fraction: float | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows to train on and of those to hold out."""
    n_rows = len(rows)
    if validation_fraction is None:
        return rows, rows[:0]
    n_held_out = math.ceil(validation_fraction * n_rows)
    if n_held_out == n_rows:
        raise ValueError(
            f"early_stopping=True needs rows to train on beside those it holds out, but "
            f"n_samples={n_rows} and validation_fraction={validation_fraction}. Give more rows, "
            "lower validation_fraction or set early_stopping=False."
        )
    rows = np.random.default_rng(seed).permutation(rows)
    return np.sort(rows[n_held_out:]), np.sort(rows[:n_held_out])
