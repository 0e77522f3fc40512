"""Points of few dimensions in place of rows: principal components of what was observed."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    """The first d principal directions (F, d) of rows, and, of rows with holes, how much noise.

    The coordinates a of a row with holes are what probabilistic PCA expects of them (Tipping and
    Bishop 1999): they minimise sum_f (x_f - V_f a)^2 + sum_i a_i^2 s^2 / v_i over observed f, s^2
    being the noise and v_i the variance along direction i. With means in the holes, rows seemed
    near that have the same holes: docs/how_it_works.md has figures.
    """

    directions: Tensor  # V
    noise_ratios: Tensor | None = None  # s^2 / v_i, (d,)

    def points(self, x: Tensor) -> Tensor:
        """Coordinates of x (B, F), which may have NaN if the rows of the fit had: (B, d)."""
        if self.noise_ratios is None:
            return x @ self.directions
        missing = x.isnan()
        onto = x.masked_fill(missing, 0.0) @ self.directions
        outer = torch.einsum("fi,fj->fij", self.directions, self.directions).flatten(1)
        gram = ((~missing).to(x.dtype) @ outer).unflatten(1, (len(self.noise_ratios), -1))
        gram = gram + self.noise_ratios.diag()
        return torch.linalg.solve(gram, onto.unsqueeze(-1)).squeeze(-1)

    def to(self, device: torch.device) -> Projection:
        ratios = self.noise_ratios
        return Projection(self.directions.to(device), None if ratios is None else ratios.to(device))


def projection_of(
    rows: ScaledRows, training: np.ndarray, rng: np.random.Generator
) -> Projection | None:
    """The projection of some of the rows; None for 50 complete columns or fewer."""
    from sklearn.utils.extmath import randomized_svd  # nothing but this needs it

    n_features, has_holes = rows.n_features, rows.fill is not None
    if n_features <= _N_COMPONENTS and not has_holes:
        return None
    n = min(len(training), _PCA_ROWS, max(2 * _N_COMPONENTS, _PCA_VALUES // n_features))
    some = np.sort(rng.choice(training, size=n, replace=False))
    sample = rows.filled(some).cpu().numpy()
    sample -= sample.mean(axis=0)
    n_components = min(_N_COMPONENTS, len(some))
    if has_holes:
        # Products of pairs of directions are F d^2 numbers.
        n_components = min(n_components, n_features, max(1, math.isqrt(_PCA_VALUES // n_features)))
    _, lengths, directions = randomized_svd(
        sample, n_components, random_state=int(rng.integers(2**31))
    )
    projection = Projection(torch.from_numpy(np.float32(directions.T)))
    if has_holes:
        variances = np.square(lengths) / n
        total = np.square(sample).sum() / n
        n_left = max(1, n_features - n_components)
        noise = max((total - variances.sum()) / n_left, _LEAST_NOISE * total / n_features, 1e-12)
        ratios = np.float32(noise / np.maximum(variances, 1e-3 * noise))
        projection = Projection(projection.directions, torch.from_numpy(ratios))
    return projection.to(rows.device)


def points_of(rows: ScaledRows, numbers: np.ndarray, projection: Projection | None) -> Tensor:
    """The rows of these numbers, projected, as points (n, d) in float64 on the device."""
    n_components = 1 if projection is None else projection.directions.shape[1]
    values_a_row = max(rows.n_features, n_components**2)
    points = []
    for block in row_blocks(len(numbers), values_a_row, rows.device.type):
        x = rows[numbers[block]]
        if rows.fill is not None:
            x = x - rows.fill  # the means of the columns
        points.append(x if projection is None else projection.points(x))
    return torch.cat(points).double()
