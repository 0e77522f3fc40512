"""Minibatches: rows of X in a new order every epoch, on the device when the step asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .._rows.scaled import ScaledRows

# Share of a GPU's free memory that may hold the rows; the network, its gradients, Adam's moments
# and the activations of a batch need the rest.
_RESIDENT_SHARE = 0.5

# While the GPU copies one batch from pinned memory, the CPU gathers the next.
_N_STAGING_BUFFERS = 2


class Batches(Protocol):
    """Where the steps of an epoch get their rows from.

    ``over`` does what the host has to do for each batch of one of ``sizes``, and yields; ``read``
    gives its rows, without the host, so that a captured graph can do it again.
    """

    def over(self, order: np.ndarray, sizes: Sequence[int]) -> Iterator[None]: ...

    def read(self, size: int) -> Tensor: ...


def batches_of(rows: ScaledRows, batch_size: int) -> Batches:
    """Of ``batch_size`` rows at most.

    On a CPU each batch is gathered from X; a GPU holds all rows if they fit, else is fed.
    """
    if rows.device.type == "cpu":
        return HostBatches(rows)
    free_bytes, _ = torch.cuda.mem_get_info(rows.device)
    if rows.nbytes <= _RESIDENT_SHARE * free_bytes:
        return ResidentBatches(rows, batch_size)
    return StreamedBatches(rows, batch_size)


class HostBatches:
    """Batches gathered from X as they are needed."""

    def __init__(self, rows: ScaledRows) -> None:
        self._rows = rows

    def over(self, order: np.ndarray, sizes: Sequence[int]) -> Iterator[None]:
        for indices in np.split(order, np.cumsum(sizes)[:-1]):
            self._x = self._rows[indices]
            yield

    def read(self, size: int) -> Tensor:
        return self._x


class ResidentBatches:
    """Batches gathered on the device, which holds all rows, their order and the place in it."""

    def __init__(self, rows: ScaledRows, batch_size: int) -> None:
        self._rows = rows.on_device()
        self._order = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        self._place = torch.zeros((), dtype=torch.int64, device=rows.device)
        self._offsets = torch.arange(min(batch_size, len(rows)), device=rows.device)

    def over(self, order: np.ndarray, sizes: Sequence[int]) -> Iterator[None]:
        # From pinned memory the copy does not wait for what the GPU is doing.
        on_gpu = self._order.device.type == "cuda"
        host = torch.from_numpy(order).pin_memory() if on_gpu else torch.from_numpy(order)
        self._order[: len(order)].copy_(host, non_blocking=True)
        self._place.zero_()
        for _ in sizes:
            yield

    def read(self, size: int) -> Tensor:
        indices = self._order.index_select(0, self._offsets[:size] + self._place)
        self._place += size
        return self._rows.index_select(0, indices)


class StreamedBatches:
    """Batches gathered on the host into pinned memory and copied to one place on the device."""

    def __init__(self, rows: ScaledRows, batch_size: int) -> None:
        self._rows = rows
        shape = (min(batch_size, len(rows)), rows.n_features)
        self._x = torch.empty(shape, dtype=torch.float32, device=rows.device)
        self._staging = [
            (
                torch.empty(shape, dtype=torch.float32, device="cpu", pin_memory=True),
                torch.cuda.Event(),
            )
            for _ in range(_N_STAGING_BUFFERS)
        ]

    def over(self, order: np.ndarray, sizes: Sequence[int]) -> Iterator[None]:
        for batch, indices in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
            staging, copied = self._staging[batch % _N_STAGING_BUFFERS]
            copied.synchronize()  # with the copy of two batches ago
            size = len(indices)
            staging[:size] = self._rows.on_host(indices)
            self._x[:size].copy_(staging[:size], non_blocking=True)
            copied.record(torch.cuda.current_stream(self._x.device))
            yield

    def read(self, size: int) -> Tensor:
        return self._x[:size]
