"""Rows: arrays to tensors in the network's units, block by block, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import DTypeLike
from scipy import sparse
from torch import Tensor

from .group import ALONE, Group
from .runtime import check_not_forked, no_gradients, torch_dtype

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
    (CSR) or larger than memory. With ``limits`` values are clipped to them.
    """

    def __init__(
        self,
        X,
        mean,
        scale: float,
        device: torch.device,
        dtype: DTypeLike = np.float32,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self._X = X
        self._mean = np.asarray(mean, dtype=X.dtype)
        self._scale = scale
        self._limits = limits
        self.dtype = np.dtype(dtype)
        self.device = device

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
        """The same on the host."""
        with np.errstate(over="ignore", invalid="ignore"):
            centred = torch.from_numpy(np.subtract(_dense(self._X[rows]), self._mean))
        batch = centred.div_(self._scale).to(self.tensor_dtype).contiguous()
        if not is_finite(batch):
            raise ValueError(f"Input contains a value too large for dtype('{self.dtype}').")
        return batch if self._limits is None else batch.clamp_(*self._limits)


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are; their sum, mostly, is enough to say so and takes a single pass."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


def _dense(rows) -> np.ndarray:
    return rows.toarray() if sparse.issparse(rows) else rows


def _blocks(X) -> Iterator[np.ndarray]:
    """All rows of X, dense, a block at a time."""
    return (_dense(X[block]) for block in row_blocks(*X.shape))


def value_range(X) -> tuple[float, float]:
    """The smallest and the largest value of X.

    Not ``X.min()``: SciPy sorts and sums the entries of a sparse X in place for that.
    """
    extremes = [(block.min(), block.max()) for block in _blocks(X)]
    lows, highs = zip(*extremes, strict=True)
    return float(min(lows)), float(max(highs))


def mean_and_scale(X, group: Group = ALONE) -> tuple[np.ndarray, float]:
    """Column means (F,) and the root mean square of X - mean, in float64, without copying X.

    Of the rows of all ranks, where X is this one's.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # Sums of differences from one row: exact for constant columns, accurate at any offset.
        origin = group.first(_dense(X[:1])[0].astype(np.float64))
        own_mean = sum((block - origin).sum(axis=0) for block in _blocks(X)) / X.shape[0]
        mean = origin + group.mean(own_mean, X.shape[0])
        own_variances = (
            sum(np.square(block - mean).sum(axis=0) for block in _blocks(X)) / X.shape[0]
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
    first = group.first(_dense(X[:1]))
    differs = any((block != first).any() for block in _blocks(X))
    return not any(group.gather(differs))


def fingerprint_of_shards(X, group: Group) -> tuple[int, ...]:
    """Sums of hashes of the rows of all ranks: the same whatever ranks have which of them.

    Each row is hashed twice, by a random affine map of its 32-bit words modulo 2^64, and mixed.
    """
    n_words = X.shape[1] * X.dtype.itemsize // 4
    rng = np.random.default_rng(n_words)
    factors = rng.integers(2**64, size=(n_words, 2), dtype=np.uint64) | 1
    of_zeros = rng.integers(2**64, size=2, dtype=np.uint64)
    total = np.zeros(2, np.uint64)
    for block in _blocks(X):
        words = np.ascontiguousarray(block + 0.0).view(np.uint32).astype(np.uint64)
        hashes = words @ factors + of_zeros
        hashes ^= hashes >> np.uint64(32)
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        total += (hashes ^ (hashes >> np.uint64(29))).sum(axis=0)
    return tuple(np.sum(group.gather(total), axis=0).tolist())


def fingerprint(X) -> str:
    """SHA-256 of shape, type and values, dense or sparse, without copying X.

    Zero is added since a sparse X has no -0.0, which is the same number and another pattern of
    bits.
    """
    digest = hashlib.sha256(f"{X.shape} {X.dtype}".encode())
    for block in _blocks(X):
        digest.update(np.ascontiguousarray(block + 0.0).view(np.uint8).data)
    return digest.hexdigest()


@no_gradients()
def map_blocks(
    function: Callable[[Tensor], Tensor], rows: ScaledRows, out: np.ndarray, *, values_a_row: int
) -> np.ndarray:
    """Fill ``out`` (n, ...) with ``function`` of ``rows``, which makes ``values_a_row`` at most."""
    check_not_forked()
    filled = torch.from_numpy(out)
    for block in row_blocks(len(rows), values_a_row, rows.device.type):
        result = function(rows[block]).cpu()  # all that the host waits for on a GPU
        if not is_finite(result):
            raise ValueError(
                f"rows {block.start} to {block.stop - 1} gave non-finite results: their values "
                "are far outside the range of the training data."
            )
        filled[block] = result
    return out
