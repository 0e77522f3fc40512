"""Points of few dimensions in place of rows, by what was observed of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .scaled import ScaledRows, row_blocks

# Points have this many dimensions, fitted to no more rows than this, and to no more than have so
# many values: they are made dense.
_N_COMPONENTS, _PCA_ROWS, _PCA_VALUES = 50, 10_000, 2**24

# Least noise of a column, as a fraction of the columns' mean variance: where rows have holes and
# there are as many components as columns, none is left over to tell the noise by.
_LEAST_NOISE = 0.01


@dataclass(frozen=True)
class Projection:
    """The first d principal directions V of rows (F, d); of rows with holes, what else places them.

    The coordinates a of a row with holes minimise sum_f (x_f - c_f - V_f a)^2 + sum_i r_i a_i^2
    over its observed columns f, r_i being the noise by the variance along direction i: ridge
    regression of the row on the directions, as in probabilistic PCA (Tipping and Bishop 1999). The
    directions are those of rows whose holes are filled with the columns' means. Rows filled so seem
    near if they have the same holes: docs/benchmarks.md has figures.
    """

    directions: Tensor
    centre: Tensor | None = None  # c, (F,), the means of the columns
    ratios: Tensor | None = None  # r, (d,)

    def points(self, x: Tensor) -> Tensor:
        """Coordinates of x (B, F), which may have NaN if the rows of the fit had: (B, d)."""
        if self.ratios is None or self.centre is None:
            return x @ self.directions
        observed = ~x.isnan()
        onto = torch.where(observed, x - self.centre, 0.0) @ self.directions
        gram = (observed.to(x.dtype) @ self._products).unflatten(1, (len(self.ratios), -1))
        return torch.linalg.solve(gram + self.ratios.diag(), onto.unsqueeze(-1)).squeeze(-1)

    @cached_property
    def _products(self) -> Tensor:
        """V_fi V_fj, (F, d d)."""
        return torch.einsum("fi,fj->fij", self.directions, self.directions).flatten(1)

    def to(self, device: torch.device) -> Projection:
        tensors = (self.directions, self.centre, self.ratios)
        return Projection(*(None if t is None else t.to(device) for t in tensors))  # type: ignore[arg-type]


def projection_of(
    rows: ScaledRows, training: np.ndarray, rng: np.random.Generator
) -> Projection | None:
    """The projection of some of the rows; None for 50 complete columns or fewer."""
    if rows.n_features <= _N_COMPONENTS and rows.fill is None:
        return None
    n = min(len(training), _PCA_ROWS, max(2 * _N_COMPONENTS, _PCA_VALUES // rows.n_features))
    some = np.sort(rng.choice(training, size=n, replace=False))
    sample = rows.on_host(some).numpy()
    n_components = min(_N_COMPONENTS, len(some))
    if rows.fill is None:
        _, directions = _principal(sample - sample.mean(axis=0), n_components, rng)
        return Projection(torch.from_numpy(np.float32(directions.T)).to(rows.device))
    return _of_rows_with_holes(sample, n_components, rng).to(rows.device)


def _of_rows_with_holes(
    sample: np.ndarray, n_components: int, rng: np.random.Generator
) -> Projection:
    n, n_features = sample.shape
    observed = ~np.isnan(sample)
    centre = sample.sum(axis=0, where=observed) / np.maximum(observed.sum(axis=0), 1)
    centred = np.where(observed, sample - centre, np.float32(0.0))
    # Products of pairs of directions are F d^2 numbers.
    most = max(1, math.isqrt(_PCA_VALUES // n_features))
    lengths, directions = _principal(centred, min(n_components, n_features, most), rng)
    variances = np.square(lengths) / n
    total = np.square(centred).sum() / n
    n_left = max(1, n_features - len(variances))
    noise = max((total - variances.sum()) / n_left, _LEAST_NOISE * total / n_features, 1e-12)
    ratios = noise / np.maximum(variances, 1e-3 * noise)
    arrays = (directions.T, centre, ratios)
    return Projection(*(torch.from_numpy(np.float32(array)) for array in arrays))


def _principal(
    centred: np.ndarray, n_components: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Singular values (d,) and right singular vectors (d, F)."""
    from sklearn.utils.extmath import randomized_svd  # nothing but this needs it

    seed = int(rng.integers(2**31))
    _, lengths, directions = randomized_svd(centred, n_components, random_state=seed)
    return lengths, directions


def points_of(rows: ScaledRows, numbers: np.ndarray, projection: Projection | None) -> Tensor:
    """The rows of these numbers, projected, as points (n, d) in float64 on the device."""
    n_components = 1 if projection is None else projection.directions.shape[1]
    values_a_row = max(rows.n_features, n_components**2)
    points = []
    for block in row_blocks(len(numbers), values_a_row, rows.device.type):
        x = rows[numbers[block]]
        points.append(x if projection is None else projection.points(x))
    return torch.cat(points).double()
