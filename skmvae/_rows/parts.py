"""Parts of the data: where the components of a mixture start."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import eigsh
from torch import Tensor

from .._distributed.group import Group
from .neighbours import nearest, points_of, projection_of
from .scaled import ScaledRows, row_blocks

# Parts are found among no more rows than this; others belong to the part of rows that are near.
_MOST_ROWS = 5_000

# Neighbours of a row in the graph that is cut.
_N_NEIGHBORS = 10

# Parts are separate if the next eigenvalue is so many times as large as their last one, or as the
# least that counts.
_GAP, _LEAST_EIGENVALUE = 5.0, 1e-4


class Parts(NamedTuple):
    """A partition of rows, and the share of all rows, of those of all ranks, of each part."""

    labels: np.ndarray | None  # (n,); None if no component is held to its part
    shares: np.ndarray  # (K,)


def find_parts(
    rows: ScaledRows, training: np.ndarray, k: int, seed: int, group: Group
) -> Parts | None:
    """The parts that the training rows fall into, if their neighbours show two to k of them.

    The graph of neighbours of a sample of rank 0's rows is cut by its spectrum (Ng, Jordan and
    Weiss 2002). None if it does not fall apart: cut all the same, crossing lines would be cut where
    they cross.
    """
    rng = np.random.default_rng(seed)
    sample = group.broadcast(_cut(rows, training, k, rng) if group.rank == 0 else None)
    if sample is None:
        return None
    labels = _labels(rows, *sample)
    counts = np.bincount(labels[training], minlength=k)
    counts = np.sum(group.all_gather(counts), axis=0)
    return Parts(labels, counts / counts.sum())


def _cut(rows: ScaledRows, training: np.ndarray, k: int, rng: np.random.Generator):
    """Projection, points and labels of a sample of the rows."""
    if len(training) <= 2 * k:
        return None
    projection = projection_of(rows, training, rng)
    some = np.sort(rng.choice(training, size=min(len(training), _MOST_ROWS), replace=False))
    points = points_of(rows, some, projection)
    found = nearest(points, _N_NEIGHBORS, rng)
    i, j = np.repeat(np.arange(len(some)), found.shape[1]), found.ravel()
    graph = sparse.csr_array((np.ones(len(i)), (i, j)), shape=(len(some), len(some)))
    if (labels := separate_parts(graph + graph.T, k, rng)) is None:
        return None
    return None if projection is None else projection.cpu(), points.cpu().numpy(), labels


def separate_parts(graph: sparse.csr_array, k: int, rng: np.random.Generator) -> np.ndarray | None:
    """Labels (n,) of the two to k separate parts of a graph with symmetric weights, n > k + 1."""
    root = 1.0 / np.sqrt(graph.sum(axis=1))
    normalised = sparse.diags_array(root) @ graph @ sparse.diags_array(root)
    values, vectors = eigsh(normalised, k + 1, which="LA", v0=rng.random(len(root)))
    order = np.argsort(-values)
    eigenvalues = 1.0 - values[order]  # of the Laplacian; of separate parts as many are 0, nearly
    ratios = eigenvalues[2:] / np.maximum(eigenvalues[1:-1], _LEAST_EIGENVALUE)
    gaps = np.flatnonzero(ratios >= _GAP)
    if not len(gaps):
        return None
    n_parts = gaps[-1] + 2
    return _cluster_qr(vectors[:, order[:n_parts]] * root[:, np.newaxis])


def _cluster_qr(vectors: np.ndarray) -> np.ndarray:
    """Labels (n,) from eigenvectors (n, k), by one pivoted QR (Damle, Minden and Ying 2019)."""
    k = vectors.shape[1]
    _, _, pivots = linalg.qr(vectors.T, pivoting=True, mode="economic")
    left, _, right = linalg.svd(vectors[pivots[:k]].T)
    return np.abs(vectors @ (left @ right)).argmax(axis=1)


def _labels(
    rows: ScaledRows, projection: Tensor | None, points: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The label of each row: that of most of its neighbours among the points."""
    from sklearn.neighbors import KNeighborsClassifier  # nothing but this needs it

    if projection is not None:
        projection = projection.to(rows.device)
    classifier = KNeighborsClassifier().fit(points, labels)
    found = np.empty(len(rows), dtype=np.int64)
    for block in row_blocks(len(rows), rows.n_features):
        numbers = np.arange(len(rows))[block]
        found[block] = classifier.predict(points_of(rows, numbers, projection).cpu().numpy())
    return found
