"""Slices: which rows of each minibatch a process has."""

from __future__ import annotations

import numpy as np

from .._model.minibatch import Minibatch
from .group import Group


def slices(group: Group, n_rows: int, batch_size: int) -> list[Minibatch]:
    """This process's slice of each minibatch of an epoch, when it has ``n_rows`` rows.

    Each rank gives to each minibatch in proportion to its rows, so that all end together.
    """
    if batch_size < group.world_size:
        raise ValueError(
            f"batch_size={batch_size} is less than the number of ranks, {group.world_size}: there "
            "would be minibatches with nothing in them. Raise batch_size, or start fewer ranks."
        )
    counts = np.array(group.all_gather(n_rows))
    total = counts.sum()
    ends = np.minimum(np.arange(0, total + batch_size, batch_size), total)
    sizes = np.diff(ends[:, None] * counts // total, axis=0)  # (minibatches, ranks)
    starts = sizes[:, : group.rank].sum(1)
    columns = sizes.sum(1), starts, sizes[:, group.rank]
    sums = () if group.world_size == 1 else (group.world_size, group.all_reduce)
    return [Minibatch(*row, *sums) for row in np.stack(columns, axis=1).tolist()]
