"""Objectives of training as named terms, and the bound that scores held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .dhsic import dhsic
from .distributions import Likelihood, dirichlet_kl, draw_log_dirichlet
from .minibatch import Minibatch
from .neighbours import info_nce
from .network import MixtureVAE, Posterior

# Temperature of the responsibilities, in nats a column: bounds, and their differences between two
# components, grow with the number of columns. On MNIST it is 10 nats.
_TEMPERATURE = 1 / 80

# Enough iterations to keep every component at work, not to make their parts of a minibatch equal:
# where bounds differ sharply, as under a Gaussian likelihood, that takes hundreds.
_TRANSPORT_ITERATIONS = 5

# Share of a component that was found no part: none, but with a logarithm.
_LEAST_SHARE = 1e-6

# Most rows in a Gram matrix: its size grows with the square, and the matrices of four components
# and a minibatch of 8,192 rows would take a gigabyte.
_GRAM_ROWS = 512


class ObjectiveTerms(NamedTuple):
    """The terms of the loss, each a mean over rows, each minimised (in nats)."""

    reconstruction: float
    kl_latent: float
    kl_mixing: float
    dhsic: float
    neighbors: float


class Partners(NamedTuple):
    """The neighbours that the rows are paired with."""

    mean: Tensor  # (K, B, d), of their posterior
    ids: Tensor  # (2, B), numbers of the rows and of their partners


class Forward(NamedTuple):
    """Results of a forward pass for the rows x (B, F) at hand: the input of every objective."""

    likelihood: Likelihood
    x: Tensor
    posterior: Posterior
    z: Tensor  # (K, B, d), drawn from the posterior
    output: Tensor  # (K, B, F), of the decoders
    minibatch: Minibatch
    generator: torch.Generator  # for further draws
    partners: Partners | None = None  # where the rows are paired with neighbours
    shares: Tensor | None = None  # (K,), of rows, where components have unequal ones
    held: Tensor | None = None  # (B,), the component that alone is responsible for each row
    missing: Tensor | None = None  # (B, F), which columns of x were not observed

    def log_prob(self) -> Tensor:
        """log p(x | y_k) of what was observed, (K, B)."""
        return self.likelihood.log_prob(self.x, self.output, self.missing)

    def n_observed(self) -> Tensor | int:
        """Number of columns that were observed, (B,), or of all; 1 at least."""
        n_features = self.x.shape[-1]
        if self.missing is None:
            return n_features
        return (n_features - self.missing.sum(-1, dtype=self.x.dtype)).clamp(min=1.0)


# The terms of each row but dHSIC, three of (B,).
Terms = Callable[["Objective", Forward], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Objective:
    """An objective in plain values; ``name`` is one of ``OBJECTIVES``."""

    name: str
    beta: float
    kl_weight: float
    prior: float  # concentration c of the mixing weights
    neighbor_weight: float = 0.0

    def factors(self) -> ObjectiveTerms:
        """The weights of the terms: equation 14, -L_MELBO + beta dHSIC, and the neighbours'."""
        return ObjectiveTerms(1.0, self.kl_weight, 1.0, self.beta, self.neighbor_weight)

    def loss(self, terms: ObjectiveTerms) -> float:
        """The loss of numbers; a step has it as one product of tensors."""
        return sum(factor * term for factor, term in zip(self.factors(), terms, strict=True))

    def terms(self, forward: Forward) -> Tensor:
        """The ``ObjectiveTerms`` as one tensor (5,), a Monte Carlo estimate.

        Where the minibatch is shared, this process's summand of each. With ``beta=0`` dHSIC is not
        computed, and zero here; so is the term of neighbours for rows without partners.
        """
        of_rows = torch.stack(OBJECTIVES[self.name](self, forward)).sum(1)
        z, minibatch, partners = forward.z, forward.minibatch, forward.partners
        dependence = neighbors = z.new_zeros(())
        if self.beta > 0.0:
            dependence = _dependence(z, minibatch)
        if partners is not None:
            neighbors = info_nce(forward.posterior.mean, partners.mean, partners.ids, minibatch)
        return torch.cat([of_rows / minibatch.n_rows, torch.stack([dependence, neighbors])])


def _averaged(objective: Objective, forward: Forward):
    """-log p(x | sum_k w_k y_k), w ~ Dir(a), and (1/K) sum_k KL_k: equation 5."""
    a = forward.posterior.concentration
    log_weights = draw_log_dirichlet(a, forward.generator)
    log_prob = forward.likelihood.averaged_log_prob(
        forward.x, forward.output, log_weights, forward.missing
    )
    return -log_prob, forward.posterior.kl().mean(0), dirichlet_kl(a, objective.prior)


def _melbo(objective: Objective, forward: Forward):
    """-sum_k E[w_k] log p(x | y_k) and (1/K) sum_k KL_k: equation 8 as printed."""
    posterior = forward.posterior
    reconstruction = -(posterior.weights * forward.log_prob()).sum(0)
    kl_mixing = dirichlet_kl(posterior.concentration, objective.prior)
    return reconstruction, posterior.kl().mean(0), kl_mixing


def _elbo(objective: Objective, forward: Forward):
    """-sum_k E[w_k] log p(x | y_k) and sum_k E[w_k] KL_k: a lower bound of log p(x)."""
    posterior = forward.posterior
    reconstruction = -(posterior.weights * forward.log_prob()).sum(0)
    kl_mixing = dirichlet_kl(posterior.concentration, objective.prior)
    return reconstruction, (posterior.weights * posterior.kl()).sum(0), kl_mixing


def _mixture(objective: Objective, forward: Forward, kl_elsewhere: float = 0.0):
    """sum_k r_k (KL_k - log p(x | y_k)) and KL(r || E[w]), r being responsibilities.

    ``kl_elsewhere`` is the factor of KL_k in a row for which component k is not responsible.
    """
    log_prob, kl = forward.log_prob(), forward.posterior.kl()
    with torch.no_grad():
        r, log_r = _responsibilities(objective, forward, log_prob, kl)
    kl_mixing = (r * (log_r - forward.posterior.weights.log())).sum(0)
    return -(r * log_prob).sum(0), ((r + kl_elsewhere * (1.0 - r)) * kl).sum(0), kl_mixing


def _responsibilities(
    objective: Objective, forward: Forward, log_prob: Tensor, kl: Tensor
) -> tuple[Tensor, Tensor]:
    """r and log r, (K, B), balanced by the shares; 1 for the part that a row is held to."""
    if forward.held is not None:
        k = torch.arange(len(kl), device=kl.device).unsqueeze(1)
        # Where r is 0 its logarithm has no part in the terms.
        return (k == forward.held).to(kl.dtype), torch.zeros_like(kl)
    bound = (log_prob - objective.kl_weight * kl) / (_TEMPERATURE * forward.n_observed())
    log_r = balanced_log_softmax(forward.minibatch.gather(bound), forward.shares)
    log_r = log_r[:, forward.minibatch.rows]
    return log_r.exp(), log_r


def _clusters(objective: Objective, forward: Forward):
    """The terms of "mixture" and sum_k (1 - r_k) KL_k / K: elsewhere a code is the prior."""
    return _mixture(objective, forward, kl_elsewhere=1.0 / len(forward.z))


def balanced_log_softmax(logits: Tensor, shares: Tensor | None = None) -> Tensor:
    """log softmax_k(logits + c_k) with c such that component k has about its share of rows: (K, B).

    The entropic optimal transport of rows to components, by Sinkhorn's iterations (Cuturi 2013).
    Shares are (K,); None means equal ones.
    """
    log_r = logits.log_softmax(0)
    if shares is not None:
        log_shares = shares.clamp(min=_LEAST_SHARE).log().unsqueeze(1)
    for _ in range(_TRANSPORT_ITERATIONS):
        log_r = log_r - log_r.logsumexp(1, keepdim=True)
        if shares is not None:
            log_r = log_r + log_shares
        log_r = log_r.log_softmax(0)
    return log_r


# Objectives whose components are parts of the data.
OF_PARTS = ("mixture", "clusters")

OBJECTIVES: dict[str, Terms] = {
    "melbo": _melbo,
    "averaged": _averaged,
    "elbo": _elbo,
    "mixture": _mixture,
    "clusters": _clusters,
}


def _dependence(z: Tensor, minibatch: Minibatch) -> Tensor:
    """dHSIC of the codes z (K, B, d); 0 for one component and for fewer than 2 K rows.

    With more than 512 rows, every second or third and so on is taken. Each process has its own rows
    of the Gram matrices, and an equal part of the value.
    """
    k = len(z)
    if k == 1 or minibatch.n_rows < 2 * k:
        return z.new_zeros(())
    stride = math.ceil(minibatch.n_rows / _GRAM_ROWS)
    z, minibatch = z[:, -minibatch.start % stride :: stride], minibatch.every(stride)
    value = dhsic(minibatch.gather(z), minibatch.rows, minibatch.gather)
    return minibatch.equal_part(value)


class WeightedDraws(NamedTuple):
    """What L codes of each of K encoders stand for, for B rows: importance sampling."""

    log_weights: Tensor  # (K, L, B), of s_k p(x | z_kl) N(z_kl; 0, I) / q(z_kl | x)
    output: Tensor  # (K, L, B, F), of the decoders

    def log_sum(self) -> Tensor:
        """Log of the sum of the weights, (B,). Less log L, it is a lower bound of log p(x)."""
        return self.log_weights.flatten(0, 1).logsumexp(0)


def weighted_draws(
    network: MixtureVAE,
    x: Tensor,
    posterior: Posterior,
    eps: Tensor,
    shares: Tensor,
    missing: Tensor | None = None,
) -> WeightedDraws:
    """Draws z_kl = mean + std eps for rows x (B, F), with eps (K, L, d) and shares (K,).

    The weights and the choice of a component are summed out exactly. With equal shares, the mean of
    the prior Dirichlet, the bound is at least the "elbo" objective for the same draws. All rows
    have the same eps: the bound of a row does not depend on its neighbours.
    """
    n_draws = eps.shape[1]
    eps = eps.unsqueeze(2)  # (K, L, 1, d)
    z = posterior.mean.unsqueeze(1) + posterior.std.unsqueeze(1) * eps  # (K, L, B, d)
    log_std = posterior.std.log().sum(-1).unsqueeze(1)  # (K, 1, B)
    log_ratio = log_std + 0.5 * (eps.square() - z.square()).sum(-1)  # (K, L, B)
    output = network.decode(z.flatten(1, 2)).unflatten(1, (n_draws, len(x)))  # (K, L, B, F)
    log_joint = network.likelihood.log_prob(x, output, missing) + log_ratio  # (K, L, B)
    return WeightedDraws(log_joint + shares.log().reshape(-1, 1, 1), output)
