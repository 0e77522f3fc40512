"""A minibatch, and the slice of it that is at hand where several processes share it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def alone(own: Tensor) -> Tensor:
    """Sum over one process."""
    return own


@dataclass(frozen=True)
class Minibatch:
    """Rows ``start`` to ``start + size`` of a minibatch of ``n_rows``.

    ``all_reduce`` sums a tensor over the ``n_slices`` processes that have the other rows, and its
    gradient is the sum of their gradients.
    """

    n_rows: int
    start: int
    size: int
    n_slices: int = 1
    all_reduce: Callable[[Tensor], Tensor] = alone

    @classmethod
    def whole(cls, n_rows: int) -> Minibatch:
        """A minibatch whose rows are all at hand."""
        return cls(n_rows, 0, n_rows)

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.size)

    def every(self, stride: int) -> Minibatch:
        """The minibatch of the rows 0, stride, 2 stride, ... of this one."""
        start, stop, n_rows = (
            math.ceil(n / stride) for n in (self.start, self.start + self.size, self.n_rows)
        )
        return replace(self, n_rows=n_rows, start=start, size=stop - start)

    def gather(self, own: Tensor) -> Tensor:
        """All slices in order, with gradients: (A, size, ...) -> (A, n_rows, ...)."""
        if self.n_slices == 1:
            return own
        n_after = self.n_rows - self.start - self.size
        before, after = (own.new_zeros(len(own), n, *own.shape[2:]) for n in (self.start, n_after))
        return self.all_reduce(torch.cat([before, own, after], dim=1))

    def equal_part(self, of_all: Tensor) -> Tensor:
        """This process's summand of a sum that is ``of_all``, with the gradient of ``of_all``."""
        if self.n_slices == 1:
            return of_all
        return of_all - (1.0 - 1.0 / self.n_slices) * of_all.detach()
