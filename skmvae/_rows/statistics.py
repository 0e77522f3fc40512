"""Statistics of X, block by block, of what was observed: NaN stands for what was not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._distributed.group import ALONE, Group
from .scaled import dense_blocks


def value_range(X) -> tuple[float, float]:
    """The smallest and the largest value of X; NaN if it has none.

    Not ``X.min()``: SciPy sorts and sums the entries of a sparse X in place for that.
    """
    extremes = [
        (np.fmin.reduce(block, axis=None), np.fmax.reduce(block, axis=None))
        for block in dense_blocks(X)
    ]
    lows, highs = zip(*extremes, strict=True)
    return float(np.fmin.reduce(lows)), float(np.fmax.reduce(highs))


def observed_a_row(X, group: Group = ALONE) -> float:
    """The mean number of values that were observed in a row of any rank; F to the bit if all."""
    n_missing = sum(int(np.isnan(block).sum()) for block in dense_blocks(X) if _has_nan(block))
    return float(group.mean(X.shape[1] - n_missing / X.shape[0], X.shape[0]))


def has_values(X) -> np.ndarray:
    """Which rows have a value that was observed, (n,) bool."""
    found = [
        ~np.isnan(block).all(axis=1) if _has_nan(block) else np.ones(len(block), dtype=bool)
        for block in dense_blocks(X)
    ]
    return np.concatenate(found)


def _has_nan(block: np.ndarray) -> bool:
    """Whether it may have: a sum takes a pass less than to look at each value."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isnan(block.sum()))


def column_means(X, group: Group = ALONE) -> np.ndarray:
    """Means of what was observed in each column, (F,) float64; NaN where nothing was."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Sums of differences from one value: exact for constant columns, accurate at any offset.
        origin = _first_values(X, group).astype(np.float64)
        sums, counts = _sums(X, lambda block: block - origin)
        return origin + group.mean(sums / np.maximum(counts, 1), counts)


def mean_and_scale(X, group: Group = ALONE) -> tuple[np.ndarray, float]:
    """Column means (F,) and the root mean square of X - mean, in float64, without copying X.

    Of what the rows of all ranks have, where X is this one's. A column without a value has NaN.
    """
    mean = column_means(X, group)
    with np.errstate(over="ignore", invalid="ignore"):
        sums, counts = _sums(X, lambda block: np.square(block - mean))
        variances = group.mean(sums / np.maximum(counts, 1), counts)
        n_observed = np.sum(group.all_gather(counts), axis=0)
    variances = np.where(n_observed > 0, variances, 0.0)
    if not np.isfinite(variances.sum()):
        raise ValueError("X contains values too large: their variance overflows dtype('float64').")
    if not variances.any() and not is_constant(X, group):
        raise ValueError(
            "X contains differences too small: their variance underflows dtype('float64'). "
            "Multiply X by a large number."
        )
    # The spread that rounding alone leaves in constant data is not a scale.
    rounding = 10.0 * np.finfo(np.float64).eps * np.abs(np.nan_to_num(mean))
    has_no_spread = (np.sqrt(variances) <= rounding).all()
    # Factors of exactly 1 where all columns have as many values.
    variance = (variances * (n_observed / n_observed.mean())).mean()
    return mean, 1.0 if has_no_spread else float(np.sqrt(variance))


def is_constant(X, group: Group = ALONE) -> bool:
    """Whether all rows, of all ranks, are the same where they were observed."""
    first = _first_values(X, group)
    differs = any(((block != first) & ~np.isnan(block)).any() for block in dense_blocks(X))
    return not any(group.all_gather(differs))


def _first_values(X, group: Group) -> np.ndarray:
    """The first observed value of each column (F,) of the rows of all ranks, else NaN."""
    first = np.full(X.shape[1], np.nan, X.dtype)
    for block in dense_blocks(X):
        rows = (~np.isnan(block)).argmax(axis=0)
        first = np.where(np.isnan(first), block[rows, np.arange(X.shape[1])], first)
        if not np.isnan(first).any():
            break
    first, *others = group.all_gather(first)
    for other in others:
        first = np.where(np.isnan(first), other, first)
    return first


def _sums(X, function: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The sum of ``function`` of the observed values of each column, and their number, (F,) each.

    For each block in a call of its own: what one makes is gone before the next.
    """
    sums, counts = np.zeros(X.shape[1]), np.zeros(X.shape[1], np.int64)
    for block in dense_blocks(X):
        of_block, n = _sum(function(block))
        sums, counts = sums + of_block, counts + n
    return sums, counts


def _sum(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sums = values.sum(axis=0)
    if not np.isnan(sums).any():
        return sums, np.full(len(sums), len(values))
    observed = ~np.isnan(values)
    return values.sum(axis=0, where=observed), observed.sum(axis=0)
