"""Fingerprints of X: which rows a checkpoint is of."""

from __future__ import annotations

import hashlib

import numpy as np

from .._distributed.group import Group
from .scaled import dense_blocks


def fingerprint_of_shards(X, group: Group) -> tuple[int, ...]:
    """Sums of hashes of the rows of all ranks: the same whatever ranks have which of them.

    Each row is hashed twice, by a random affine map of its 32-bit words modulo 2^64, and mixed.
    """
    n_words = X.shape[1] * X.dtype.itemsize // 4
    rng = np.random.default_rng(n_words)
    factors = rng.integers(2**64, size=(n_words, 2), dtype=np.uint64) | 1
    of_zeros = rng.integers(2**64, size=2, dtype=np.uint64)
    total = np.zeros(2, np.uint64)
    for block in dense_blocks(X):
        words = _plain(block).view(np.uint32).astype(np.uint64)
        hashes = words @ factors + of_zeros
        hashes ^= hashes >> np.uint64(32)
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        total += (hashes ^ (hashes >> np.uint64(29))).sum(axis=0)
    return tuple(np.sum(group.all_gather(total), axis=0).tolist())


def fingerprint(X) -> str:
    """SHA-256 of shape, type and values, dense or sparse, without copying X."""
    digest = hashlib.sha256(f"{X.shape} {X.dtype}".encode())
    for block in dense_blocks(X):
        digest.update(_plain(block).view(np.uint8).data)
    return digest.hexdigest()


def _plain(block: np.ndarray) -> np.ndarray:
    """A copy in which values that mean the same have the same bits.

    A sparse X has no -0.0, and NaN can have any of many patterns.
    """
    plain = np.ascontiguousarray(block + 0.0)
    plain[np.isnan(plain)] = np.nan
    return plain
