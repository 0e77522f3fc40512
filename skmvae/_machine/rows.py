"""Rows: arrays to tensors in the network's units, block by block, and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .runtime import no_gradients

# Inference always runs on blocks of this many rows, the last one padded with zeros. Matrix
# products choose their kernels by shape, so with one shape a row's result is bitwise the same
# whatever rows surround it. Larger blocks hardly raise the throughput of a CPU but make a single
# row, padded to a block, wait longer; a GPU needs them to be busy.
BLOCK_ROWS = {"cpu": 64, "cuda": 4096}


class ScaledRows:
    """Rows of ``X`` in the network's units, (X - mean) / scale, made as they are asked for.

    Only the rows asked for are ever copied: ``X`` may be read-only, memory-mapped, strided
    or larger than memory.
    """

    def __init__(self, X: np.ndarray, mean, scale: float, device: torch.device) -> None:
        self._X = X
        self._mean = np.asarray(mean, dtype=X.dtype)
        self._scale = X.dtype.type(scale)
        self.device = device

    def __len__(self) -> int:
        return len(self._X)

    @property
    def n_features(self) -> int:
        return self._X.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that all rows take on the device."""
        return self._X.size * 4

    def __getitem__(self, rows) -> Tensor:
        """Float32 tensor on the device; ValueError if a value overflows float32."""
        return torch.from_numpy(self.scaled(rows)).to(self.device)

    def on_device(self) -> Tensor:
        """All rows, (n, F), brought to the device block by block."""
        shape = (len(self), self.n_features)
        tensor = torch.empty(shape, dtype=torch.float32, device=self.device)
        for start in range(0, len(self), BLOCK_ROWS["cuda"]):
            block = slice(start, start + BLOCK_ROWS["cuda"])
            tensor[block] = self[block]
        return tensor

    def scaled(self, rows) -> np.ndarray:
        """Float32 array in the network's units, on the host."""
        with np.errstate(over="ignore", invalid="ignore"):
            batch = np.subtract(self._X[rows], self._mean)
            batch /= self._scale
            batch = np.ascontiguousarray(batch, dtype=np.float32)
        if not np.isfinite(batch).all():
            raise ValueError("Input contains a value too large for dtype('float32').")
        return batch


def mean_and_scale(X: np.ndarray) -> tuple[np.ndarray, float]:
    """Column means (F,) and the root mean square of X - mean, in float64, without copying X."""
    blocks = [slice(start, start + 1024) for start in range(0, len(X), 1024)]
    with np.errstate(over="ignore", invalid="ignore"):
        # Sums of differences from one row: exact for constant columns, accurate at any offset.
        origin = X[0].astype(np.float64)
        mean = origin + sum((X[block] - origin).sum(axis=0) for block in blocks) / len(X)
        variances = sum(np.square(X[block] - mean).sum(axis=0) for block in blocks) / len(X)
    if not np.isfinite(variances.sum()):
        raise ValueError("X contains values too large: their variance overflows dtype('float64').")
    if not variances.any() and any((X[block] != X[0]).any() for block in blocks):
        raise ValueError(
            "X contains differences too small: their variance underflows dtype('float64'). "
            "Multiply X by a large number."
        )
    # The spread that rounding alone leaves in constant data is not a scale.
    rounding = 10.0 * np.finfo(np.float64).eps * np.abs(mean)
    is_constant = (np.sqrt(variances) <= rounding).all()
    return mean, 1.0 if is_constant else float(np.sqrt(variances.mean()))


@no_gradients()
def map_blocks(
    function: Callable[[Tensor], Tensor], rows: ScaledRows, out: np.ndarray
) -> np.ndarray:
    """Fill ``out`` (n, ...) with ``function`` of ``rows``, in blocks of one size."""
    size = BLOCK_ROWS[rows.device.type]
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        n_rows = len(block)
        if n_rows < size:
            block = torch.cat([block, block.new_zeros(size - n_rows, block.shape[1])])
        result = function(block)[:n_rows].cpu().numpy()
        if not np.isfinite(result).all():
            raise ValueError(
                f"rows {start} to {start + n_rows - 1} gave non-finite results: their values are "
                "far outside the range of the training data."
            )
        out[start : start + n_rows] = result
    return out
