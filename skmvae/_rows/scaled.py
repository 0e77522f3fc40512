"""Rows: arrays to tensors in the network's units, block by block, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import DTypeLike
from scipy import sparse
from torch import Tensor

from .._process import check_not_forked
from .._runtime import no_gradients, torch_dtype

# Work in blocks takes no more rows at a time than this, and no more than make this many values in
# one array: memory is bounded by it. A GPU needs large blocks to be busy.
_BLOCK_ROWS = {"cpu": 1024, "cuda": 4096}
_BLOCK_VALUES = {"cpu": 2**22, "cuda": 2**26}


def row_blocks(n_rows: int, values_a_row: int, device_type: str = "cpu") -> list[slice]:
    """All rows, in blocks whose size is bounded by their number and by that of their values."""
    size = min(_BLOCK_ROWS[device_type], max(1, _BLOCK_VALUES[device_type] // values_a_row))
    return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


class ScaledRows:
    """Rows of ``X`` in the network's units, (X - mean) / scale, made as they are asked for.

    Only the rows asked for are ever copied: ``X`` may be read-only, memory-mapped, strided, sparse
    (CSR) or larger than memory. With ``limits`` values are clipped to them. A value that was not
    observed is NaN in X and in the rows; ``fill`` (F,), only where there are such, is what the
    encoders see in their place.
    """

    def __init__(
        self,
        X,
        mean,
        scale: float,
        device: torch.device,
        dtype: DTypeLike = np.float32,
        limits: tuple[float, float] | None = None,
        fill: np.ndarray | None = None,
    ) -> None:
        self._X = X
        self._mean = np.asarray(mean, dtype=X.dtype)
        self._scale = scale
        self._limits = limits
        self.dtype = np.dtype(dtype)
        self.device = device
        self.fill = None
        if fill is not None:
            self.fill = torch.tensor(fill, dtype=self.tensor_dtype, device=device)

    def __len__(self) -> int:
        return self._X.shape[0]

    @property
    def n_features(self) -> int:
        return self._X.shape[1]

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch_dtype(self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that all rows take on the device."""
        return len(self) * self.n_features * self.dtype.itemsize

    def __getitem__(self, rows) -> Tensor:
        """A tensor of ``dtype`` on the device; ValueError if a value overflows it."""
        # A GPU need not have its copy before the host goes on.
        return self.on_host(rows).to(self.device, non_blocking=True)

    def on_device(self) -> Tensor:
        """All rows, (n, F), brought to the device block by block."""
        shape = (len(self), self.n_features)
        tensor = torch.empty(shape, dtype=self.tensor_dtype, device=self.device)
        for block in row_blocks(*shape, self.device.type):
            tensor[block] = self[block]
        return tensor

    def on_host(self, rows) -> Tensor:
        """A tensor of ``dtype`` on the host; ValueError if a value overflows it."""
        with np.errstate(over="ignore", invalid="ignore"):
            centred = torch.from_numpy(np.subtract(dense(self._X[rows]), self._mean))
        batch = centred.div_(self._scale).to(self.tensor_dtype).contiguous()
        if not batch.sum().isfinite() and batch.isinf().any():
            raise ValueError(f"Input contains a value too large for dtype('{self.dtype}').")
        return batch if self._limits is None else batch.clamp_(*self._limits)


def fill_missing(x: Tensor, fill: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, F) with ``fill`` (F,) in place of NaN, and where that was, (B, F)."""
    missing = x.isnan()
    return torch.where(missing, fill, x), missing


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are; their sum, mostly, is enough to say so and takes a single pass."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


def dense(rows) -> np.ndarray:
    return rows.toarray() if sparse.issparse(rows) else rows


def dense_blocks(X) -> Iterator[np.ndarray]:
    """All rows of X, dense, a block at a time."""
    return (dense(X[block]) for block in row_blocks(*X.shape))


@no_gradients()
def map_blocks(
    function: Callable[[Tensor], Tensor], rows: ScaledRows, out: np.ndarray, *, values_a_row: int
) -> np.ndarray:
    """Fill ``out`` (n, ...) with ``function`` of ``rows``, which makes ``values_a_row`` at most."""
    check_not_forked()
    filled = torch.from_numpy(out)
    for block in row_blocks(len(rows), values_a_row, rows.device.type):
        result = function(rows[block]).cpu()
        if not is_finite(result):
            raise ValueError(
                f"rows {block.start} to {block.stop - 1} gave non-finite results: their values "
                "are far outside the range of the training data."
            )
        filled[block] = result
    return out
