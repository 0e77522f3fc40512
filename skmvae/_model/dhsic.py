"""The d-variable Hilbert-Schmidt independence criterion (dHSIC) of K codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rbf_gamma(dim: int) -> float:
    """1 / (2 m^2) with m = E||z - z'|| for z, z' ~ N(0, I_dim), the authors' bandwidth."""
    mean_distance = 2.0 * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))
    return 1.0 / (2.0 * mean_distance**2)


def log_rbf_gram(z: Tensor, gamma: float | None = None, *, rows: slice = slice(None)) -> Tensor:
    """-gamma ||z_i - z_j||^2 for i in ``rows`` and all j: (K, n, d) -> (K, b, n)."""
    # Distances do not change with an offset, but the squares below would lose them to it.
    z = z - z.mean(dim=1, keepdim=True)
    z = z * math.sqrt(2.0 * (rbf_gamma(z.shape[-1]) if gamma is None else gamma))
    minus_half_squares = -0.5 * z.square().sum(-1, keepdim=True)  # (K, n, 1)
    ones = torch.ones_like(minus_half_squares)
    # z.z' - |z|^2 / 2 - |z'|^2 / 2 in one product: every pass over (K, n, n) counts.
    left = torch.cat([z, minus_half_squares, ones], dim=-1)
    right = torch.cat([z, ones, minus_half_squares], dim=-1)
    # Rounding can leave it above zero, where the exponential of widely spread codes overflows,
    # and the diagonal, the distance of a row to itself, far below: a row of zeros has no logarithm.
    log_gram = torch.bmm(left[:, rows], right.mT).clamp(max=0.0)
    with torch.no_grad():  # its gradient is zero as it stands, but for rounding
        log_gram.diagonal(offset=rows.start or 0, dim1=1, dim2=2).zero_()
    return log_gram


def row_statistics(log_gram: Tensor) -> tuple[Tensor, Tensor]:
    """mean_j prod_k G_kij (b,) and mean_j G_kij (K, b) of log Gram matrices (K, b, n).

    Products over k are taken as sums of logs: no mean is zero (a Gram matrix has ones on its
    diagonal), and the gradient of ``torch.prod`` would synchronise a GPU to look for zeros.
    """
    # Not mean(): its gradient would write another (K, b, n).
    n = log_gram.shape[-1]
    return log_gram.sum(0).exp().sum(-1) / n, log_gram.exp().sum(-1) / n


def dhsic_of_rows(joint_means: Tensor, row_means: Tensor) -> Tensor:
    """Equation 13 as a V-statistic, >= 0, of ``row_statistics`` of all rows: (n,), (K, n).

    mean_ij prod_k G_k + prod_k mean_ij G_k - 2 mean_i prod_k mean_j G_k.
    """
    joint = joint_means.mean()
    product = row_means.mean(-1).log().sum().exp()
    cross = row_means.log().sum(0).exp().mean()
    # Rounding can leave it just below zero, for example for a constant code.
    return (joint + product - 2.0 * cross).clamp(min=0.0)
