"""The graph of neighbours: for each row, the rows that it may be paired with in training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from .._runtime import no_gradients
from .scaled import ScaledRows, row_blocks

# Neighbours are sought among at most so many rows at a time, so that the time is linear in n.
_GROUP_ROWS = 20_000

# A group is made of stretches of so many rows, so that a file is read in few places.
_STRETCH_ROWS = 256

# Distances are those in this many principal components, fitted to at most so many rows.
_N_COMPONENTS, _PCA_ROWS = 50, 10_000

# The first line on progress comes after so many seconds, and others so long after the one before.
_SECONDS_TO_FIRST_LINE, _SECONDS_BETWEEN_LINES = 3.0, 10.0


class NeighbourGraph:
    """The neighbours that each row may be paired with: row numbers (n, n_neighbors).

    Those that a row has come first. A row without one is its own partner, which teaches nothing.
    """

    def __init__(self, neighbours: np.ndarray, counts: np.ndarray) -> None:
        self._neighbours, self._counts = neighbours, counts

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """All (i, j) of which j may be drawn for i."""
        position = np.arange(self._neighbours.shape[1])
        i, position = np.nonzero(position < self._counts[:, np.newaxis])
        return i, self._neighbours[i, position]

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner of each of the rows, each of its neighbours with the same probability."""
        counts = self._counts[rows]
        chosen = (rng.random(len(rows)) * counts).astype(np.int64)
        return np.where(counts > 0, self._neighbours[rows, np.minimum(chosen, counts - 1)], rows)


def find_neighbours(
    rows: ScaledRows,
    training: np.ndarray,
    n_neighbors: int,
    *,
    seed: int | list[int],
    report: Callable[[str], None],
) -> NeighbourGraph:
    """Pair rows that have each other among their ``n_neighbors`` nearest.

    Rows that are not in ``training`` are nobody's neighbours. The rows are divided at random into
    groups, and neighbours are sought by brute force within each. ``report`` hears of the progress.
    """
    rng = np.random.default_rng(seed)
    n_neighbors = max(1, min(n_neighbors, len(training) - 1))
    nearest = np.full((len(rows), n_neighbors), -1, dtype=np.min_scalar_type(-len(rows)))
    projection = _projection(rows, training, rng)
    start, n_done, next_line = time.perf_counter(), 0, _SECONDS_TO_FIRST_LINE
    for positions in _groups(len(training), rng):
        group = training[positions]
        found = _nearest(_points(rows, group, projection), n_neighbors)
        nearest[group, : found.shape[1]] = group[found]
        n_done += len(group)
        if (seconds := time.perf_counter() - start) > next_line:
            left = seconds * (len(training) / n_done - 1.0)
            report(f"neighbours of {n_done} of {len(training)} rows found, {left:.0f} s left")
            next_line = seconds + _SECONDS_BETWEEN_LINES
    return _mutual(nearest)


def _groups(n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The numbers below n, dealt at random to groups of nearly equal size."""
    starts = rng.permutation(np.arange(0, n, _STRETCH_ROWS))
    for of_group in np.array_split(starts, math.ceil(n / _GROUP_ROWS)):
        numbers = np.sort(of_group)[:, np.newaxis] + np.arange(_STRETCH_ROWS)
        yield numbers[numbers < n]


def _projection(rows: ScaledRows, training: np.ndarray, rng: np.random.Generator) -> Tensor | None:
    """The first 50 principal directions, (F, 50), on the device; None for fewer columns."""
    from sklearn.utils.extmath import randomized_svd  # nothing but this needs it

    if rows.n_features <= _N_COMPONENTS:
        return None
    some = np.sort(rng.choice(training, size=min(len(training), _PCA_ROWS), replace=False))
    sample = rows.on_host(some).numpy()
    _, _, directions = randomized_svd(
        sample - sample.mean(axis=0),
        min(_N_COMPONENTS, len(some)),
        random_state=int(rng.integers(2**31)),
    )
    return torch.from_numpy(np.float32(directions.T)).to(rows.device)


def _points(rows: ScaledRows, numbers: np.ndarray, projection: Tensor | None) -> Tensor:
    """The rows of these numbers, projected, as centred points (n, d) on the device."""
    points = []
    for block in row_blocks(len(numbers), rows.n_features, rows.device.type):
        x = rows[numbers[block]]
        points.append(x if projection is None else x @ projection)
    found = torch.cat(points)
    return found - found.mean(0)


@no_gradients()
def _nearest(points: Tensor, n_neighbors: int) -> np.ndarray:
    """The nearest other points of each, without ties' order promised: (n, at most n_neighbors)."""
    n = len(points)
    n_neighbors = min(n_neighbors, n - 1)
    squares = points.square().sum(1)
    found = torch.empty((n, n_neighbors), dtype=torch.int64, device="cpu")
    for block in row_blocks(n, n, points.device.type):
        distances = torch.addmm(squares, points[block], points.T, alpha=-2.0)
        distances[torch.arange(len(distances)), torch.arange(n)[block]] = math.inf
        found[block] = distances.topk(n_neighbors, largest=False).indices.cpu()
    return found.numpy()


def _mutual(nearest: np.ndarray) -> NeighbourGraph:
    """Keep j among the neighbours of i, in the order of distance, if i is among those of j."""
    kept, counts = np.zeros_like(nearest), np.zeros(len(nearest), dtype=nearest.dtype)
    for block in row_blocks(len(nearest), nearest.shape[1] ** 2):
        own, numbers = nearest[block], np.arange(len(nearest))[block]
        is_mutual = (nearest[own] == numbers[:, None, None]).any(axis=2) & (own >= 0)
        order = np.argsort(~is_mutual, axis=1, kind="stable")
        kept[block] = np.take_along_axis(own, order, axis=1)
        counts[block] = is_mutual.sum(axis=1)
    return NeighbourGraph(kept, counts)
