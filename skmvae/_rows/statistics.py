"""Statistics of X, block by block: range, mean, scale, whether all rows are the same."""

from __future__ import annotations

import numpy as np

from .._distributed.group import ALONE, Group
from .scaled import dense, dense_blocks


def value_range(X) -> tuple[float, float]:
    """The smallest and the largest value of X.

    Not ``X.min()``: SciPy sorts and sums the entries of a sparse X in place for that.
    """
    extremes = [(block.min(), block.max()) for block in dense_blocks(X)]
    lows, highs = zip(*extremes, strict=True)
    return float(min(lows)), float(max(highs))


def mean_and_scale(X, group: Group = ALONE) -> tuple[np.ndarray, float]:
    """Column means (F,) and the root mean square of X - mean, in float64, without copying X.

    Of the rows of all ranks, where X is this one's.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # Sums of differences from one row: exact for constant columns, accurate at any offset.
        origin = group.broadcast(dense(X[:1])[0].astype(np.float64))
        own_mean = sum((block - origin).sum(axis=0) for block in dense_blocks(X)) / X.shape[0]
        mean = origin + group.mean(own_mean, X.shape[0])
        own_variances = (
            sum(np.square(block - mean).sum(axis=0) for block in dense_blocks(X)) / X.shape[0]
        )
        variances = group.mean(own_variances, X.shape[0])
    if not np.isfinite(variances.sum()):
        raise ValueError("X contains values too large: their variance overflows dtype('float64').")
    if not variances.any() and not is_constant(X, group):
        raise ValueError(
            "X contains differences too small: their variance underflows dtype('float64'). "
            "Multiply X by a large number."
        )
    # The spread that rounding alone leaves in constant data is not a scale.
    rounding = 10.0 * np.finfo(np.float64).eps * np.abs(mean)
    has_no_spread = (np.sqrt(variances) <= rounding).all()
    return mean, 1.0 if has_no_spread else float(np.sqrt(variances.mean()))


def is_constant(X, group: Group = ALONE) -> bool:
    """Whether all rows, of all ranks, are the same."""
    first = group.broadcast(dense(X[:1]))
    differs = any((block != first).any() for block in dense_blocks(X))
    return not any(group.all_gather(differs))
