"""The graph of neighbours: for each row, the rows that it may be paired with in training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from .._runtime import no_gradients
from .projection import points_of, projection_of
from .scaled import ScaledRows, row_blocks

# Neighbours are sought among about so many rows at a time, so that the time is linear in n.
_GROUP_ROWS = 20_000

# A group is made of stretches of so many rows, so that a file is read in few places.
_STRETCH_ROWS = 256

# Random part of a distance, in units of the points' variance. Among equal rows, or equal distances,
# it decides who is near.
_JITTER = 1e-12

# The first line on progress comes after so many seconds, and others so long after the one before.
_SECONDS_TO_FIRST_LINE, _SECONDS_BETWEEN_LINES = 3.0, 10.0


class NeighbourGraph:
    """The rows that each row may be paired with: the columns of its entries in ``graph`` (n, n).

    A row without an entry is its own partner, which teaches nothing.
    """

    def __init__(self, graph: sparse.csr_array) -> None:
        self._starts, self._neighbours = graph.indptr, graph.indices

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """All (i, j) of which j may be drawn for i."""
        counts = np.diff(self._starts)
        return np.repeat(np.arange(len(counts)), counts), self._neighbours

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner of each of the rows, each of its neighbours with the same probability."""
        starts = self._starts[rows]
        counts = self._starts[rows + 1] - starts
        partners, has_one = rows.copy(), counts > 0
        chosen = (rng.random(len(rows)) * counts).astype(np.int64)
        partners[has_one] = self._neighbours[(starts + chosen)[has_one]]
        return partners


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
    projection = projection_of(rows, training, rng)
    edges = []
    start, n_done, next_line = time.perf_counter(), 0, _SECONDS_TO_FIRST_LINE
    for positions in _groups(len(training), rng):
        group = training[positions]
        found = nearest(points_of(rows, group, projection), n_neighbors, rng)
        edges.append(edges_of(group, found))
        n_done += len(group)
        if (seconds := time.perf_counter() - start) > next_line:
            left = seconds * (len(training) / n_done - 1.0)
            report(f"neighbours of {n_done} of {len(training)} rows found, {left:.0f} s left")
            next_line = seconds + _SECONDS_BETWEEN_LINES
    return mutual_neighbours(np.concatenate(edges, axis=1), len(rows))


def mutual_neighbours(edges: np.ndarray, n: int) -> NeighbourGraph:
    """The graph of n rows with an edge where ``edges`` (2, m) have both directions of it."""
    found = np.ones(edges.shape[1], dtype=bool)
    graph = sparse.csr_array((found, (edges[0], edges[1])), shape=(n, n))
    return NeighbourGraph(graph.multiply(graph.T).tocsr())


def edges_of(numbers: np.ndarray, found: np.ndarray) -> np.ndarray:
    """From each row to its nearest: numbers (n,) and positions in them (n, m) -> (2, n m)."""
    return np.stack([np.repeat(numbers, found.shape[1]), numbers[found.ravel()]])


def _groups(n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The numbers below n, dealt at random to groups of nearly equal size."""
    starts = rng.permutation(np.arange(0, n, _STRETCH_ROWS))
    for of_group in np.array_split(starts, math.ceil(n / _GROUP_ROWS)):
        numbers = np.sort(of_group)[:, np.newaxis] + np.arange(_STRETCH_ROWS)
        yield numbers[numbers < n]


@no_gradients()
def nearest(points: Tensor, n_neighbors: int, rng: np.random.Generator) -> np.ndarray:
    """The nearest other points of each: (n, n_neighbors), or n - 1 if that is less.

    Squared distances are |b|^2 - 2 a.b, up to what is the same for all b; float32 would lose those
    of points that are close together and far from the mean. To the distance of points i and j is
    added a random number that belongs to (i + j) mod n: the same seen from both, so that equal
    points have each other as neighbours, and not all of them the same few.
    """
    n, device = len(points), points.device
    points = points - points.mean(0)
    n_neighbors = min(n_neighbors, n - 1)
    squares = points.square().sum(1)
    noise = torch.from_numpy(np.tile(rng.random(n), 2)).to(device) * (
        _JITTER * squares.mean().clamp(min=1e-30)
    )
    found = torch.empty((n, n_neighbors), dtype=torch.int64, device="cpu")
    numbers = torch.arange(n, device=device)
    for block in row_blocks(n, n, device.type):
        distances = torch.addmm(squares, points[block], points.T, alpha=-2.0)
        distances += noise.as_strided(distances.shape, (1, 1), block.start)
        distances[numbers[: len(distances)], numbers[block]] = math.inf
        found[block] = distances.topk(n_neighbors, largest=False).indices.cpu()
    return found.numpy()
