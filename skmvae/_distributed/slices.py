"""Which rows of a minibatch this process has, where several share it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .group import ALONE, Group


@dataclass(frozen=True)
class Share:
    """The rows that this process has of a minibatch: ``size`` of ``total``, from ``start`` on."""

    group: Group
    start: int
    size: int
    total: int

    @classmethod
    def of_all(cls, n_rows: int) -> Share:
        return cls(ALONE, 0, n_rows, n_rows)

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.size)

    def every(self, stride: int) -> Share:
        """Of the batch's rows 0, stride, 2 stride, ...: which of those this process has."""
        start, stop, total = (
            math.ceil(n / stride) for n in (self.start, self.start + self.size, self.total)
        )
        return Share(self.group, start, stop - start, total)

    def equal_part(self, of_all: Tensor) -> Tensor:
        """What each process adds to a sum that is to be ``of_all``, with the gradient of that."""
        if self.group.size == 1:
            return of_all
        return of_all - (1.0 - 1.0 / self.group.size) * of_all.detach()

    def whole(self, own: Tensor) -> Tensor:
        """The batch's (A, total, ...) of this process's (A, size, ...), with gradients."""
        if self.group.size == 1:
            return own
        n_after = self.total - self.start - self.size
        parts = [own.new_zeros(len(own), n, *own.shape[2:]) for n in (self.start, n_after)]
        return self.group.add(torch.cat([parts[0], own, parts[1]], dim=1))


def shares(group: Group, n_rows: int, batch_size: int) -> list[Share]:
    """Of each minibatch of an epoch, when this process has ``n_rows``.

    Each rank gives to each batch in proportion to its rows, so that all end together.
    """
    if batch_size < group.size:
        raise ValueError(
            f"batch_size={batch_size} is less than the number of ranks, {group.size}: there would "
            "be minibatches with nothing in them. Raise batch_size, or start fewer ranks."
        )
    counts = np.array(group.gather(n_rows))
    total = counts.sum()
    ends = np.minimum(np.arange(0, total + batch_size, batch_size), total)
    sizes = np.diff(ends[:, None] * counts // total, axis=0)  # (batches, ranks)
    starts = sizes[:, : group.rank].sum(1)
    columns = starts, sizes[:, group.rank], sizes.sum(1)
    return [Share(group, *row) for row in np.stack(columns, axis=1).tolist()]
