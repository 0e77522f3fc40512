"""The d-variable Hilbert-Schmidt independence criterion (dHSIC) of K codes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rbf_gamma(dim: int) -> float:
    """1 / (2 m^2) with m = E||z - z'|| for z, z' ~ N(0, I_dim), the authors' bandwidth."""
    mean_distance = 2.0 * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))
    return 1.0 / (2.0 * mean_distance**2)


def dhsic(
    z: Tensor, rows: slice = slice(None), together: Callable[[Tensor], Tensor] = lambda own: own
) -> Tensor:
    """Equation 13 of the codes z (K, n, d), as a V-statistic; its gradient is that of ``rows``.

    Where several processes have a part of the Gram matrices' ``rows`` each, ``together`` makes
    (A, n) of this one's (A, b), and the gradients of all add up to that of the whole.
    """
    return _DHSIC.apply(z, rows, together)


def rbf_grams(z: Tensor, gamma: float | None = None, *, rows: slice = slice(None)) -> Tensor:
    """G_kij = exp(-gamma ||z_i - z_j||^2) of z (K, n, d) and, before them, prod_k G_kij.

    For i in ``rows`` and all j: (1 + K, b, n), without gradients. The codes have to be ``centred``:
    distances do not change with an offset, but their squares would lose them to it.
    """
    gamma = rbf_gamma(z.shape[-1]) if gamma is None else gamma
    squares = z.square().sum(-1)
    log_gram = squares[:, rows].unsqueeze(-1) + squares.unsqueeze(1)
    log_gram.baddbmm_(z[:, rows], z.mT, beta=-gamma, alpha=2.0 * gamma)
    # Rounding can leave it above zero, where the exponential of widely spread codes overflows,
    # and the diagonal, the distance of a row to itself, far below: a row of zeros has no mean to
    # divide by.
    log_gram.clamp_(max=0.0).diagonal(offset=rows.start or 0, dim1=1, dim2=2).zero_()
    grams = z.new_empty(1 + len(z), *log_gram.shape[1:])
    torch.exp(log_gram, out=grams[1:])
    torch.prod(grams[1:], 0, out=grams[0])
    return grams


def dhsic_of_means(means: Tensor) -> Tensor:
    """Equation 13, >= 0, of the means over j of ``rbf_grams``, for all rows: (1 + K, n) -> ().

    mean_ij prod_k G_k + prod_k mean_ij G_k - 2 mean_i prod_k mean_j G_k.
    """
    totals = means.mean(-1)
    cross = means[1:].prod(0).mean()
    # Rounding can leave it just below zero, for example for a constant code.
    return (totals[0] + totals[1:].prod()).sub(cross, alpha=2.0).clamp(min=0.0)


def centred(z: Tensor) -> Tensor:
    """The codes (K, n, d) less their means over the rows."""
    return z - z.mean(dim=1, keepdim=True)


class _DHSIC(torch.autograd.Function):
    """``dhsic``. The backward pass that autograd makes has three times as many operations.

    With r_ki = mean_j G_kij, m_k = mean_i r_ki, P = prod_k m_k, C_i = prod_k r_ki, the derivative
    by log G_kij is V_kij / n^2 where V_kij = prod_k G_kij + (P / m_k - 2 C_i / r_ki) G_kij; that of
    log G_kij by z_ki is -2 gamma (z_ki - z_kj), and by z_kj the opposite.
    """

    @staticmethod
    def forward(ctx, z: Tensor, rows: slice, together: Callable[[Tensor], Tensor]) -> Tensor:
        z = centred(z)
        grams = rbf_grams(z, rows=rows)
        means = together(grams.mean(-1))
        ctx.rows = rows
        ctx.save_for_backward(z, grams, means)
        return dhsic_of_means(means)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        z, grams, means = ctx.saved_tensors
        _, n, dim = z.shape
        r = means[1:]
        m = r.mean(-1, keepdim=True)
        factors = (m.prod(0) / m).sub(r.prod(0) / r, alpha=2.0)[:, ctx.rows]  # (K, b)
        v = torch.addcmul(grams[0], factors.unsqueeze(-1), grams[1:])  # (K, b, n)
        if v.shape[1] < n:  # nothing of the other rows, which other processes have
            v, own = v.new_zeros(len(z), n, n), v
            v[:, ctx.rows] = own
        v = v + v.mT
        by_z = torch.baddbmm(v.sum(-1, keepdim=True) * z, v, z, alpha=-1.0)
        return by_z * (gradient * (-2.0 * rbf_gamma(dim) / n**2)), None, None
