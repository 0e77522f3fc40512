"""Parts of the data: where the components of a mixture start."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from .._distributed.group import Group
from .codes import codes_of
from .neighbours import NeighbourGraph, edges_of, mutual_neighbours, nearest
from .projection import Projection, points_of, projection_of
from .scaled import ScaledRows, row_blocks

# Parts are found among no more rows than this; others belong to the part of rows that are near.
_MOST_ROWS = 20_000

# Separate parts are sought among no more rows than this.
_MOST_OF_SEPARATE = 5_000

# Each row is joined to so many neighbours: with ten, rows on an interval can fall in two where they
# are sparse.
_N_JOINED = 15

# A smaller fraction of the rows, or fewer rows, are a group of outliers.
_LEAST_FRACTION, _LEAST_ROWS = 0.01, 5

# Of the neighbours of the smaller of two parts, this fraction may be in the other one: of parts
# that are as good as separate, and of others. docs/paper.md says how these were found.
_N_NEIGHBORS, _SEPARATE, _NEAR = 10, 0.003, 0.05

# Dense parts have this fraction of the rows at least.
_LEAST_DENSE = 0.02


class Parts(NamedTuple):
    """The part of each row, and the share of each part in the training rows of all ranks."""

    labels: np.ndarray  # (n,)
    shares: np.ndarray  # (K,)


def find_parts(
    rows: ScaledRows,
    training: np.ndarray,
    k: int,
    *,
    k_separate: bool,
    precision: str,
    seed: int,
    group: Group,
) -> Parts | None:
    """Divide the rows into k parts, or into fewer if those are what the training rows fall into.

    None if they cannot be divided, or, with ``k_separate``, do not fall into k separate parts.
    """
    rng = np.random.default_rng(seed)
    sample = None
    if group.rank == 0:
        sample = _sample(rows, training, k, k_separate, precision, rng)
    sample = group.broadcast(sample)
    if sample is None:
        return None
    labels = _labels(rows, *sample)
    counts = np.sum(group.all_gather(np.bincount(labels[training], minlength=k)), axis=0)
    return Parts(labels, counts / counts.sum()) if (counts > 0).sum() > 1 else None


def _sample(
    rows: ScaledRows,
    training: np.ndarray,
    k: int,
    k_separate: bool,
    precision: str,
    rng: np.random.Generator,
):
    """Projection, points and their labels, of a sample of the rows; None as in ``find_parts``."""
    size = min(len(training), _MOST_ROWS)
    if size <= k:
        return None
    some = np.sort(rng.choice(training, size=size, replace=False))
    projection = projection_of(rows, training, rng)
    points = points_of(rows, some, projection)
    fewer = points[np.sort(rng.choice(size, size=min(size, _MOST_OF_SEPARATE), replace=False))]
    labels = _separate_parts(fewer, k, k_separate, rng)
    if labels is not None:
        points = fewer
    elif not k_separate:
        labels = _near_parts(points, k, precision, rng)
    if labels is None or len(parts := _large(labels, k)) < 2:
        return None
    kept = np.isin(labels, parts)
    return (
        None if projection is None else projection.to(torch.device("cpu")),
        points.cpu().numpy()[kept],
        np.searchsorted(parts, labels[kept]),
    )


def _separate_parts(
    points: torch.Tensor, k: int, k_separate: bool, rng: np.random.Generator
) -> np.ndarray | None:
    """Labels by the first way that finds as many parts as there may be."""
    may_be = range(k if k_separate else 2, k + 1)
    for find in (_joined_parts, _dense_parts):
        labels = find(points, rng)
        if len(_large(labels, k)) in may_be:
            return labels
    return None


def _large(labels: np.ndarray, k: int) -> np.ndarray:
    """The labels of parts that are no outliers; of many parts, each may have few rows."""
    least = min(_LEAST_FRACTION, 0.5 / k) * len(labels)
    return np.flatnonzero(np.bincount(labels) >= max(_LEAST_ROWS, least))


def _joined_parts(points: torch.Tensor, rng: np.random.Generator) -> np.ndarray:
    """Labels of the connected components of the graph in which each point is joined to its nearest.

    Lines that cross are one part: to cut them all the same would be to cut them where they cross.
    """
    n = len(points)
    i, j = edges_of(np.arange(n), nearest(points, _N_JOINED, rng))
    graph = sparse.csr_array((np.ones(len(i)), (i, j)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def _dense_parts(points: torch.Tensor, rng: np.random.Generator) -> np.ndarray:
    """Labels of the clusters of HDBSCAN (Campello et al. 2013); all 0 if they share neighbours.

    A few rows between two parts join them in the graph, but are no dense bridge.
    """
    from sklearn.cluster import HDBSCAN  # nothing but this needs it

    found = points.cpu().numpy()
    size = max(10, int(_LEAST_DENSE * len(found)))
    labels = HDBSCAN(size, min_samples=min(5, len(found)), copy=True).fit_predict(found)
    if (kept := labels >= 0).any():
        labels = _classifier(found[kept], labels[kept]).predict(found)
        if _shared(labels, _graph(points, rng)).max() <= _SEPARATE:
            return labels
    return np.zeros(len(found), dtype=np.int64)


def _near_parts(
    points: torch.Tensor, k: int, precision: str, rng: np.random.Generator
) -> np.ndarray:
    """Labels of k parts, or of fewer, between which there are few pairs of neighbours.

    They are clusters of codes that tell neighbours from other points, or of the points, whichever
    have fewer neighbours apart: codes show parts of any shape, but not how dense points are.
    """
    from sklearn.cluster import KMeans  # nothing but this needs it

    if _has_too_few(points.cpu().numpy(), k):
        return np.zeros(len(points), dtype=np.int64)
    graph = _graph(points, rng)
    seed = int(rng.integers(2**31))
    codes = codes_of(points, graph, precision, seed)
    candidates = [
        KMeans(k, n_init=10, random_state=seed).fit_predict(found)
        for found in (codes, points.cpu().numpy())
        if not _has_too_few(found, k)
    ]
    labels = min(candidates, key=lambda labels: _n_apart(labels, graph))
    merged = _merged(labels, graph)
    return merged if len(_large(merged, k)) > 1 else labels


def _graph(points: torch.Tensor, rng: np.random.Generator) -> NeighbourGraph:
    edges = edges_of(np.arange(len(points)), nearest(points, _N_NEIGHBORS, rng))
    return mutual_neighbours(edges, len(points))


def _has_too_few(points: np.ndarray, k: int) -> bool:
    """Whether there are fewer than k different points, of which k-means would warn."""
    return len(np.unique(points, axis=0)) < k


def _n_apart(labels: np.ndarray, graph: NeighbourGraph) -> int:
    """The number of pairs of neighbours in different parts."""
    i, j = graph.pairs()
    return int((labels[i] != labels[j]).sum())


def _shared(labels: np.ndarray, graph: NeighbourGraph) -> np.ndarray:
    """The fraction of the smaller part's neighbours that are in the other one, (k, k); 0 within."""
    i, j = graph.pairs()
    k = labels.max() + 1
    n_pairs = sparse.coo_array((np.ones(len(i)), (labels[i], labels[j])), shape=(k, k)).toarray()
    of_part = n_pairs.sum(1)
    shared = n_pairs / np.minimum.outer(of_part, of_part).clip(min=1.0)
    np.fill_diagonal(shared, 0.0)
    return shared


def _merged(labels: np.ndarray, graph: NeighbourGraph) -> np.ndarray:
    """Parts that share neighbours as one, two at a time."""
    merged = labels
    while (shared := _shared(merged, graph)).max() >= _NEAR:
        first, second = np.unravel_index(shared.argmax(), shared.shape)
        merged = np.unique(np.where(merged == second, first, merged), return_inverse=True)[1]
    return merged


def _labels(
    rows: ScaledRows, projection: Projection | None, points: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The label of each row: that of most of its neighbours among the points."""
    if projection is not None:
        projection = projection.to(rows.device)
    classifier = _classifier(points, labels)
    found = np.empty(len(rows), dtype=np.int64)
    for block in row_blocks(len(rows), rows.n_features):
        numbers = np.arange(len(rows))[block]
        found[block] = classifier.predict(points_of(rows, numbers, projection).cpu().numpy())
    return found


def _classifier(points: np.ndarray, labels: np.ndarray):
    """Tells the label of other points by their five nearest."""
    from sklearn.neighbors import KNeighborsClassifier  # nothing but this needs it

    return KNeighborsClassifier(min(5, len(points))).fit(points, labels)
