"""Minibatches: rows of X in a new order every epoch, on the device when the step asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .._rows.scaled import ScaledRows

# Fraction of a GPU's free memory that may hold the rows; the network, its gradients, Adam's moments
# and the activations of a minibatch need the rest.
_RESIDENT_FRACTION = 0.5

# While the GPU copies one minibatch from pinned memory, the CPU gathers the next.
_N_STAGING_BUFFERS = 2


class Batches(Protocol):
    """Source of the rows of an epoch's steps."""

    def over(self, parts: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """Yield the rows x (size, F) of each array of indices, valid until the next."""


def batches_of(rows: ScaledRows, largest: int) -> Batches:
    """Source of minibatches of at most ``largest`` rows.

    On a CPU each is gathered from X; a GPU holds all rows if they fit, and is fed otherwise.
    """
    if rows.device.type == "cpu":
        return HostBatches(rows)
    free_bytes, _ = torch.cuda.mem_get_info(rows.device)
    if rows.nbytes <= _RESIDENT_FRACTION * free_bytes:
        return ResidentBatches(rows)
    return StreamedBatches(rows, largest)


class HostBatches:
    """Minibatches gathered from X as they are needed."""

    def __init__(self, rows: ScaledRows) -> None:
        self._rows = rows

    def over(self, parts: Sequence[np.ndarray]) -> Iterator[Tensor]:
        for indices in parts:
            yield self._rows[indices]


class ResidentBatches:
    """Minibatches gathered on the device, which holds all rows."""

    def __init__(self, rows: ScaledRows) -> None:
        self._rows = rows.on_device()

    def over(self, parts: Sequence[np.ndarray]) -> Iterator[Tensor]:
        for indices in indices_on(self._rows.device, parts):
            yield self._rows.index_select(0, indices)


class StreamedBatches:
    """Minibatches gathered on the host into pinned memory and copied to one place on the device."""

    def __init__(self, rows: ScaledRows, largest: int) -> None:
        self._rows = rows
        shape = (largest, rows.n_features)
        self._x = torch.empty(shape, dtype=torch.float32, device=rows.device)
        self._staging = [
            (
                torch.empty(shape, dtype=torch.float32, device="cpu", pin_memory=True),
                torch.cuda.Event(),
            )
            for _ in range(_N_STAGING_BUFFERS)
        ]

    def over(self, parts: Sequence[np.ndarray]) -> Iterator[Tensor]:
        for batch, indices in enumerate(parts):
            staging, copied = self._staging[batch % _N_STAGING_BUFFERS]
            copied.synchronize()  # with the copy of two minibatches ago
            size = len(indices)
            staging[:size] = self._rows.on_host(indices)
            self._x[:size].copy_(staging[:size], non_blocking=True)
            copied.record(torch.cuda.current_stream(self._x.device))
            yield self._x[:size]


def indices_on(device: torch.device, parts: Sequence[np.ndarray]) -> Sequence[Tensor]:
    """Arrays of indices as tensors on the device, copied at once."""
    indices = torch.from_numpy(np.concatenate(parts))
    if device.type == "cuda":
        # From pinned memory the copy does not wait for what the GPU is doing.
        indices = indices.pin_memory().to(device, non_blocking=True)
    return indices.split([len(part) for part in parts])
