"""The graph of neighbours: for each row, the rows that it may be paired with in training."""

from __future__ import annotations

import logging
import math
import time

import numpy as np
import torch
from torch import Tensor

from .._runtime import no_gradients
from .scaled import ScaledRows, row_blocks

logger = logging.getLogger("skmvae")

# Neighbours are sought among at most so many rows at a time, so that the time is linear in n.
_GROUP_ROWS = 20_000

# Distances are those in this many principal components, fitted to at most so many rows.
_N_COMPONENTS, _PCA_ROWS = 50, 10_000

_SECONDS_WORTH_A_LINE = 3.0


class NeighbourGraph:
    """The neighbours that each row may be paired with: (n, n_neighbors) of row numbers.

    A row without a neighbour is its own partner, which teaches nothing.
    """

    def __init__(self, neighbours: np.ndarray) -> None:
        is_one = neighbours >= 0
        self._counts = is_one.sum(axis=1)
        # Those that a row has come first, in the order of their distance.
        order = np.argsort(~is_one, axis=1, kind="stable")
        self._neighbours = np.take_along_axis(neighbours, order, axis=1)

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner of each of the rows, each of its neighbours with the same probability."""
        counts = self._counts[rows]
        chosen = (rng.random(len(rows)) * counts).astype(np.int64)
        return np.where(counts > 0, self._neighbours[rows, np.minimum(chosen, counts - 1)], rows)


def find_neighbours(
    rows: ScaledRows, training: np.ndarray, n_neighbors: int, seed: int | list[int]
) -> NeighbourGraph:
    """Pair rows that have each other among their ``n_neighbors`` nearest.

    Rows that are not in ``training`` are nobody's neighbours. The rows are divided at random into
    groups, and neighbours are sought by brute force within each.
    """
    start, rng = time.perf_counter(), np.random.default_rng(seed)
    points = _projected(rows, training, rng)
    nearest = np.full((len(rows), n_neighbors), -1, dtype=np.int64)
    n_groups = math.ceil(len(training) / _GROUP_ROWS)
    for group in np.array_split(rng.permutation(len(training)), n_groups):
        found = _nearest(points[torch.from_numpy(group)], n_neighbors)
        nearest[training[group], : found.shape[1]] = training[group][found]
    neighbours = _mutual(nearest)
    if (seconds := time.perf_counter() - start) > _SECONDS_WORTH_A_LINE:
        logger.info("neighbours of %d rows found in %.0f s", len(training), seconds)
    return NeighbourGraph(neighbours)


def _projected(rows: ScaledRows, training: np.ndarray, rng: np.random.Generator) -> Tensor:
    """The training rows in at most 50 principal components, (n, d), on the device."""
    from sklearn.utils.extmath import randomized_svd  # nothing but this needs it

    n, device = len(training), rows.device
    projection = None
    if rows.n_features > _N_COMPONENTS:
        some = np.sort(rng.choice(training, size=min(n, _PCA_ROWS), replace=False))
        sample = rows.on_host(some).numpy()
        _, _, directions = randomized_svd(
            sample - sample.mean(axis=0),
            min(_N_COMPONENTS, len(some)),
            random_state=int(rng.integers(2**31)),
        )
        projection = torch.from_numpy(np.float32(directions.T)).to(device)
    width = rows.n_features if projection is None else projection.shape[1]
    points = torch.empty((n, width), dtype=torch.float32, device=device)
    for block in row_blocks(n, rows.n_features, device.type):
        x = rows[training[block]]
        points[block] = x if projection is None else x @ projection
    return points - points.mean(0)


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


def _mutual(nearest: np.ndarray) -> np.ndarray:
    """Keep j among the neighbours of i if i is among those of j; -1 for the others."""
    kept = np.full_like(nearest, -1)
    for block in row_blocks(len(nearest), nearest.shape[1] ** 2):
        own, numbers = nearest[block], np.arange(len(nearest))[block]
        is_mutual = (nearest[own] == numbers[:, None, None]).any(axis=2) & (own >= 0)
        kept[block][is_mutual] = own[is_mutual]
    return kept
