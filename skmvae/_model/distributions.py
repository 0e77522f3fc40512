"""Divergences, reparameterised draws, and the likelihood of a row given decoder outputs.

Shapes: K components, B rows, d latent dimensions, F features. Every draw takes an explicit
generator, so the global one of torch is never touched.
"""

from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def normal_kl(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, I)), summed over the last axis."""
    return _NormalKL.apply(mean, std)


class _NormalKL(torch.autograd.Function):
    """sum_d (m^2 + s^2 - 1) / 2 - log s, with derivatives m and s - 1 / s.

    Like the other functions of this kind here, it is in place of many small operations, each of
    which takes a GPU longer to start than to do.
    """

    @staticmethod
    def forward(ctx, mean: Tensor, std: Tensor) -> Tensor:
        ctx.save_for_backward(mean, std)
        summands = torch.addcmul(mean.square(), std, std).sub_(std.log(), alpha=2.0)
        return summands.sum(-1).sub_(mean.shape[-1]).mul_(0.5)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = ctx.saved_tensors
        gradient = gradient.unsqueeze(-1)
        return gradient * mean, (std - std.reciprocal()).mul_(gradient)


def dirichlet_kl(concentration: Tensor, prior: float) -> Tensor:
    """KL(Dir(a) || Dir(c, ..., c)): (B, K) -> (B,), computed in float64.

    lgamma and digamma cancel: in float32 concentrations far from the prior lose most digits.
    """
    return _DirichletKL.apply(concentration, prior)


class _DirichletKL(torch.autograd.Function):
    """sum_k f(a_k, a_k - c) - f(A, A - K c) + K lgamma(c) - lgamma(K c), A being sum_k a_k.

    Here f(a, e) = e digamma(a) - lgamma(a). The derivative of f(a, a - c) by a is
    (a - c) trigamma(a): the other terms cancel.
    """

    @staticmethod
    def forward(ctx, concentration: Tensor, prior: float) -> Tensor:
        a = concentration.double()
        both = torch.stack([a, a - prior])
        a, excess = torch.cat([both, both.sum(-1, keepdim=True)], dim=-1)  # (B, K + 1)
        ctx.save_for_backward(a, excess)
        ctx.dtype = concentration.dtype
        k = concentration.shape[-1]
        constant = k * math.lgamma(prior) - math.lgamma(k * prior)
        values = torch.digamma(a).mul_(excess).sub_(torch.lgamma(a))
        return (values[:, :-1].sum(-1) - values[:, -1]).add_(constant).to(ctx.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        a, excess = ctx.saved_tensors
        slopes = torch.polygamma(1, a).mul_(excess)
        slopes = (slopes[:, :-1] - slopes[:, -1:]).mul_(gradient.unsqueeze(-1))
        return slopes.to(ctx.dtype), None


def draw_normal(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """z = mean + std * eps with eps ~ N(0, I)."""
    eps = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return torch.addcmul(mean, std, eps)


def draw_log_dirichlet(concentration: Tensor, generator: torch.Generator) -> Tensor:
    """log w for w ~ Dir(a): (B, K) -> (B, K), differentiable in a.

    Gamma(a) is drawn as Gamma(a + 1) U^(1/a) in log space. torch's own Dirichlet sampler
    underflows for small a, and then returns exactly 1/K without a word.
    ``torch._standard_gamma`` is private, but nothing public takes a generator.
    """
    gamma = torch._standard_gamma(concentration + 1.0, generator=generator)
    uniform = 1.0 - torch.rand(
        gamma.shape, generator=generator, dtype=gamma.dtype, device=gamma.device
    )
    return F.log_softmax(gamma.log() + uniform.log() / concentration, dim=-1)


class GaussianLikelihood(nn.Module):
    """p(x | y) = N(x; y, s^2 I) with one learned variance s^2, in units of ``scale_``."""

    SUPPORT: ClassVar[tuple[float, float] | None] = None  # any real x
    IS_SCALED: ClassVar[bool] = True  # X is centred and divided by one scale

    # A floor of 1 % of the data's scale: without it, constant data drive s^2 to 0.
    VARIANCE_FLOOR = 1e-4

    def __init__(self) -> None:
        super().__init__()
        self.raw_variance = nn.Parameter(torch.empty((), dtype=torch.float32))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Start at s^2 = 1, the variance of the scaled data."""
        nn.init.constant_(self.raw_variance, math.log(math.expm1(1.0 - self.VARIANCE_FLOOR)))

    @property
    def variance(self) -> Tensor:
        return F.softplus(self.raw_variance) + self.VARIANCE_FLOOR

    def log_prob(self, x: Tensor, output: Tensor, missing: Tensor | None = None) -> Tensor:
        """log p(x | y) for x (B, F) and outputs y (..., B, F) -> (..., B).

        Here and below, columns that are ``missing`` (B, F) have no part in it.
        """
        return _NormalLogProb.apply(x, output, self.variance, missing)

    def averaged_log_prob(
        self, x: Tensor, output: Tensor, log_weights: Tensor, missing: Tensor | None = None
    ) -> Tensor:
        """log p(x | sum_k w_k y_k), equation 5: (B, F), (K, B, F), (B, K) -> (B,)."""
        return self.log_prob(x, torch.einsum("bk,kbf->bf", log_weights.exp(), output), missing)

    def mean(self, output: Tensor) -> Tensor:
        """E[x | y], in units of ``scale_``."""
        return output

    def draw(self, mean: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
        """x of its mean, both in the units of X."""
        return mean + math.sqrt(self.variance.item()) * scale * rng.standard_normal(mean.shape)

    def noise_variance(self, scale: float) -> float | None:
        """s^2 in squared units of X."""
        return self.variance.item() * scale**2


class _NormalLogProb(torch.autograd.Function):
    """-(q / v + n log(2 pi v)) / 2 with q = ||x - y||^2, the mean y and the variance v.

    The n columns are those that are not missing, and so are those of q. Its derivatives are
    (x - y) / v by y, 0 in missing columns, and (q / v - n) / (2 v) by v; none is asked for by x.
    """

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor, variance: Tensor, missing: Tensor | None) -> Tensor:
        difference, half, ctx.fraction = x - y, 0.5 * x.shape[-1], None
        if missing is not None:
            difference.masked_fill_(missing, 0.0)
            ctx.fraction = 1.0 - missing.mean(-1, dtype=x.dtype)  # n / F, (B,)
            half = half * ctx.fraction
        squares = torch.linalg.vector_norm(difference, dim=-1).square_()
        ctx.save_for_backward(difference, squares, variance)
        constant = variance.log().mul(-half).sub(half * math.log(2.0 * math.pi))
        return torch.addcdiv(constant, squares, variance, value=-0.5)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, Tensor, None]:
        difference, squares, variance = ctx.saved_tensors
        scaled = gradient / variance
        of_columns = gradient if ctx.fraction is None else gradient * ctx.fraction
        by_variance = (scaled * squares).sum().sub(of_columns.sum(), alpha=difference.shape[-1])
        by_variance = by_variance.div_(variance).mul_(0.5)
        return None, difference * scaled.unsqueeze(-1), by_variance, None


class BernoulliLikelihood(nn.Module):
    """p(x | y) = prod_f y^x (1 - y)^(1 - x) with y = sigmoid(output), for x in [0, 1]."""

    SUPPORT: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    IS_SCALED: ClassVar[bool] = False

    def log_prob(self, x: Tensor, output: Tensor, missing: Tensor | None = None) -> Tensor:
        """log p(x | y) for x (B, F) and logits (..., B, F) -> (..., B)."""
        # x log y + (1 - x) log(1 - y), with log(1 - y) = log y - output.
        return _sum_of_observed(torch.addcmul(F.logsigmoid(output), x - 1.0, output), missing)

    def averaged_log_prob(
        self, x: Tensor, output: Tensor, log_weights: Tensor, missing: Tensor | None = None
    ) -> Tensor:
        """log p(x | sum_k w_k y_k), equation 5: (B, F), (K, B, F), (B, K) -> (B,).

        In log space, because sum_k w_k y_k rounds to 1 and above, where log(1 - y) ends.
        """
        log_weights = log_weights.T.unsqueeze(-1)  # (K, B, 1)
        log_y = torch.logsumexp(log_weights + F.logsigmoid(output), dim=0)
        log_not_y = torch.logsumexp(log_weights + F.logsigmoid(-output), dim=0)
        return _sum_of_observed(x * log_y + (1.0 - x) * log_not_y, missing)

    def mean(self, output: Tensor) -> Tensor:
        """E[x | y]."""
        return torch.sigmoid(output)

    def draw(self, mean: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
        """x of its mean: zeros and ones."""
        return (rng.random(mean.shape) < mean).astype(mean.dtype)

    def noise_variance(self, scale: float) -> float | None:
        """A Bernoulli variable has no variance apart from its mean."""
        return None


def _sum_of_observed(summands: Tensor, missing: Tensor | None) -> Tensor:
    """Sum over the columns that are not missing: (..., B, F) -> (..., B)."""
    return (summands if missing is None else summands.masked_fill(missing, 0.0)).sum(-1)


Likelihood: TypeAlias = GaussianLikelihood | BernoulliLikelihood

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": GaussianLikelihood,
    "bernoulli": BernoulliLikelihood,
}
