"""Parts of the data: where the components of a mixture start."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from .._distributed.group import Group
from .neighbours import edges_of, nearest, points_of, projection_of
from .scaled import ScaledRows, row_blocks

# Parts are found among no more rows than this; others belong to the part of rows that are near.
_MOST_ROWS = 5_000

# With ten neighbours rows on an interval can fall in two where they are sparse.
_N_NEIGHBORS = 15

# A smaller fraction of the rows is a group of outliers.
_LEAST_FRACTION = 0.01


class Parts(NamedTuple):
    """A partition of rows, and the share of all rows, of those of all ranks, of each part."""

    labels: np.ndarray | None  # (n,); None if no component is held to its part
    shares: np.ndarray  # (K,)


def find_parts(
    rows: ScaledRows, training: np.ndarray, allowed: range, seed: int, group: Group
) -> Parts | None:
    """The separate parts that the training rows fall into; None if their number is not allowed.

    They are the connected components of the graph in which each of a sample of rank 0's rows is
    joined to its nearest. Lines that cross are one part: to cut them all the same would be to cut
    them where they cross.
    """
    rng = np.random.default_rng(seed)
    sample = group.broadcast(_sample(rows, training, allowed, rng) if group.rank == 0 else None)
    if sample is None:
        return None
    labels = _labels(rows, *sample)
    counts = np.sum(group.all_gather(np.bincount(labels[training], minlength=allowed[-1])), axis=0)
    return Parts(labels, counts / counts.sum())


def _sample(rows: ScaledRows, training: np.ndarray, allowed: range, rng: np.random.Generator):
    """Projection, points and their labels, of a sample of the rows; None as in ``find_parts``."""
    some = np.sort(rng.choice(training, size=min(len(training), _MOST_ROWS), replace=False))
    projection = projection_of(rows, training, rng)
    points = points_of(rows, some, projection)
    found = nearest(points, _N_NEIGHBORS, rng)
    edges = edges_of(np.arange(len(some)), found)
    graph = sparse.csr_array((np.ones(found.size), edges), shape=(len(some), len(some)))
    labels = connected_components(graph, directed=False)[1]
    parts = np.flatnonzero(np.bincount(labels) >= _LEAST_FRACTION * len(some))
    if len(parts) not in allowed:
        return None
    kept = np.isin(labels, parts)
    return (
        None if projection is None else projection.cpu(),
        points.cpu().numpy()[kept],
        np.searchsorted(parts, labels[kept]),
    )


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
