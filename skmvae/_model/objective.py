"""What training minimises, as a record of named terms, and the bound that scores held-out rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .._machine.runtime import matrix_products
from .dhsic import dhsic, log_rbf_gram
from .distributions import dirichlet_kl, draw_log_dirichlet, draw_normal, normal_kl
from .network import MixtureVAE, Posterior


class ObjectiveTerms(NamedTuple):
    """The terms of the loss, each a mean over the rows of a batch, each minimised (in nats)."""

    reconstruction: Tensor
    kl_latent: Tensor
    kl_weights: Tensor
    dhsic: Tensor

    def loss(self, *, kl_weight: float, beta: float) -> Tensor:
        """Equation 14: -L_MELBO + beta dHSIC."""
        return (
            self.reconstruction + kl_weight * self.kl_latent + self.kl_weights + beta * self.dhsic
        )


def objective_terms(
    network: MixtureVAE,
    x: Tensor,
    *,
    objective: str,
    weight_concentration_prior: float,
    precision: str,
    generator: torch.Generator,
    dropout_generator: torch.Generator | None = None,
) -> ObjectiveTerms:
    """One Monte Carlo estimate of the objective for the rows x (B, F).

    ``precision`` is that of the networks' matrix products alone; the rest is in float32.
    """
    with matrix_products(precision, x.device):
        posterior = network.encode(x, dropout_generator)
        z = draw_normal(posterior.mean, posterior.std, generator)  # (K, B, d)
        output = network.decode(z, dropout_generator)  # (K, B, F)
    reconstruction, kl_latent = OBJECTIVES[objective](network, x, posterior, output, generator)
    return ObjectiveTerms(
        reconstruction=reconstruction.mean(),
        kl_latent=kl_latent.mean(),
        kl_weights=dirichlet_kl(posterior.concentration, weight_concentration_prior).mean(),
        dhsic=_dependence(z),
    )


def _averaged(network, x, posterior: Posterior, output, generator):
    """-log p(x | sum_k w_k y_k), w ~ Dir(a), and (1/K) sum_k KL_k: equation 5."""
    log_weights = draw_log_dirichlet(posterior.concentration, generator)
    reconstruction = -network.likelihood.averaged_log_prob(x, output, log_weights)
    return reconstruction, normal_kl(posterior.mean, posterior.std).mean(0)


def _melbo(network, x, posterior: Posterior, output, generator):
    """-sum_k E[w_k] log p(x | y_k) and (1/K) sum_k KL_k: equation 8 as printed."""
    log_prob = network.likelihood.log_prob(x, output)  # (K, B)
    reconstruction = -(posterior.concentration.T * log_prob).sum(0)
    return reconstruction, normal_kl(posterior.mean, posterior.std).mean(0)


def _elbo(network, x, posterior: Posterior, output, generator):
    """-sum_k E[w_k] log p(x | y_k) and sum_k E[w_k] KL_k: a lower bound of log p(x)."""
    weights = posterior.concentration.T
    reconstruction = -(weights * network.likelihood.log_prob(x, output)).sum(0)
    return reconstruction, (weights * normal_kl(posterior.mean, posterior.std)).sum(0)


OBJECTIVES = {"averaged": _averaged, "melbo": _melbo, "elbo": _elbo}


def _dependence(z: Tensor) -> Tensor:
    """dHSIC of the codes z (K, B, d); 0 for one component and for fewer than 2 K rows."""
    k, n_rows, _ = z.shape
    if k == 1 or n_rows < 2 * k:
        return z.new_zeros(())
    return dhsic(log_rbf_gram(z))


def log_likelihood_bound(network: MixtureVAE, x: Tensor, eps: Tensor) -> Tensor:
    """Importance-weighted lower bound of log p(x): x (B, F), eps (K, L, d) -> (B,).

    log (1 / K L) sum_k sum_l p(x | z_kl) N(z_kl; 0, I) / q(z_kl | x) with z_kl = mean + std eps.
    The weights and the choice of a component are summed out exactly (the prior Dirichlet is
    symmetric, so its mean is 1/K), hence this is at least the "elbo" objective for the same
    draws. All rows share eps: the bound of a row does not depend on its neighbours.
    """
    posterior = network.encode(x)
    k, n_draws, _ = eps.shape
    eps = eps.unsqueeze(2)  # (K, L, 1, d)
    z = posterior.mean.unsqueeze(1) + posterior.std.unsqueeze(1) * eps  # (K, L, B, d)
    log_std = posterior.std.log().sum(-1).unsqueeze(1)  # (K, 1, B)
    log_ratio = log_std + 0.5 * (eps.square() - z.square()).sum(-1)  # (K, L, B)
    output = network.decode(z.flatten(1, 2)).unflatten(1, (n_draws, len(x)))  # (K, L, B, F)
    log_joint = network.likelihood.log_prob(x, output) + log_ratio  # (K, L, B)
    return torch.logsumexp(log_joint.flatten(0, 1), dim=0) - math.log(k * n_draws)
