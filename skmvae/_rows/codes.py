"""Codes of points that tell their neighbours from all others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._model.layers import ComponentLinear, ComponentMLP
from .._model.minibatch import Minibatch
from .._model.neighbours import info_nce
from .._runtime import gradients, make_generator, matrix_products
from .neighbours import NeighbourGraph

# Width of the hidden layers, a quarter of the number of rows between these; length of a code.
_NARROWEST, _WIDEST, _LENGTH = 128, 500, 20

# Many negatives tell parts better than many steps do; fewer than 300 steps are too few for a small
# table, and 40 passes enough for 20,000 rows.
_BATCH, _EPOCHS, _LEAST_STEPS = 512, 40, 300

_LEARNING_RATE = 1e-3


@gradients()
def codes_of(points: Tensor, graph: NeighbourGraph, precision: str, seed: int) -> np.ndarray:
    """Codes of length 1, (n, 20), of points (n, d): an encoder is trained on the graph alone.

    InfoNCE has no likelihood to serve beside it: that separates parts better than the codes of an
    autoencoder do, and takes a fraction of the time.
    """
    points = points.div(points.square().mean().sqrt().clamp(min=1e-30)).float()
    n = len(points)
    width = min(_WIDEST, max(_NARROWEST, n // 4))
    with torch.device(points.device):
        encoder = ComponentMLP(1, (points.shape[1], width, width, _LENGTH), torch.relu_, 0.0)
    generator, rng = make_generator(seed, points.device), np.random.default_rng(seed)
    for module in encoder.modules():
        if isinstance(module, ComponentLinear):
            module.reset_parameters(generator)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=_LEARNING_RATE, fused=True)
    size = min(n, _BATCH, max(64, n // 10))
    n_steps = max(_LEAST_STEPS, _EPOCHS * (n // size))
    for step in range(n_steps):
        place = step % (n // size) * size
        if place == 0:
            order = rng.permutation(n)
        rows = order[place : place + size]
        ids = np.stack([rows, graph.draw(rows, rng)])
        with matrix_products(precision, points.device):
            codes = encoder(points[ids.ravel()])
        mean, partner_mean = codes.float().split(size, dim=1)
        loss = info_nce(
            mean, partner_mean, torch.from_numpy(ids).to(points.device), Minibatch.whole(size)
        )
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * min(1.0, 2.0 * (1.0 - step / n_steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return F.normalize(encoder(points)[0], dim=-1).cpu().numpy()
