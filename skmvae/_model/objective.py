"""What training minimises, as a record of named terms, and the bound that scores held-out rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .._distributed.slices import Share
from .._runtime import matrix_products
from .dhsic import dhsic
from .distributions import dirichlet_kl, draw_log_dirichlet, draw_normal, normal_kl
from .network import MixtureVAE, Posterior

# Of the responsibilities, in nats a column: bounds, and the differences between those of two
# components, grow with the number of columns. On MNIST it is 10 nats.
_TEMPERATURE = 1 / 80

# Enough to keep every component at work, not to make the shares of a minibatch equal: where the
# components' bounds differ sharply, as under a Gaussian likelihood, that takes hundreds.
_TRANSPORT_ITERATIONS = 5

# Of a Gram matrix, which grows with the square: those of four components and the 8,192 rows of a
# large minibatch would take a gigabyte.
_GRAM_ROWS = 512


class ObjectiveTerms(NamedTuple):
    """The terms of the loss, each a mean over rows, each minimised (in nats)."""

    reconstruction: float
    kl_latent: float
    kl_weights: float
    dhsic: float

    def loss(self, *, kl_weight: float, beta: float) -> float:
        """Equation 14: -L_MELBO + beta dHSIC."""
        return (
            self.reconstruction + kl_weight * self.kl_latent + self.kl_weights + beta * self.dhsic
        )


class Batch(NamedTuple):
    """What an objective is made of: rows x (B, F), their posterior and the decoders' output.

    They are this process's ``share`` of the rows of the minibatch.
    """

    network: MixtureVAE
    x: Tensor
    posterior: Posterior
    output: Tensor  # (K, B, F)
    weight_concentration_prior: float
    kl_weight: float
    generator: torch.Generator
    share: Share

    @property
    def weights(self) -> Tensor:
        """E[w], (K, B)."""
        return self.posterior.concentration.T

    def log_prob(self) -> Tensor:
        """log p(x | y_k), (K, B)."""
        return self.network.likelihood.log_prob(self.x, self.output)

    def kl_latent(self) -> Tensor:
        """KL_k, (K, B)."""
        return normal_kl(self.posterior.mean, self.posterior.std)

    def kl_weights(self) -> Tensor:
        """KL(Dir(a) || Dir(c)), (B,)."""
        return dirichlet_kl(self.posterior.concentration, self.weight_concentration_prior)


def objective_terms(
    network: MixtureVAE,
    x: Tensor,
    *,
    objective: str,
    weight_concentration_prior: float,
    kl_weight: float,
    beta: float,
    precision: str,
    generator: torch.Generator,
    dropout_generator: torch.Generator | None = None,
    share: Share | None = None,
) -> Tensor:
    """One Monte Carlo estimate of the objective for the rows x (B, F), all of the minibatch or not.

    The ``ObjectiveTerms`` as one tensor (4,), of which the loss is one product; where the minibatch
    is shared, what this process adds to each. ``precision`` is that of the networks' matrix
    products alone; the rest is in float32. With ``beta=0`` dHSIC is not computed, and zero here.
    """
    share = share or Share.of_all(len(x))
    with matrix_products(precision, x.device):
        posterior = network.encode(x, dropout_generator)
        z = draw_normal(posterior.mean, posterior.std, generator)  # (K, B, d)
        output = network.decode(z, dropout_generator)  # (K, B, F)
    batch = Batch(
        network, x, posterior, output, weight_concentration_prior, kl_weight, generator, share
    )
    of_rows = torch.stack(OBJECTIVES[objective](batch)).sum(1) / share.total
    dependence = _dependence(z, share) if beta > 0.0 else z.new_zeros(())
    return torch.cat([of_rows, dependence.unsqueeze(0)])


def _averaged(batch: Batch):
    """-log p(x | sum_k w_k y_k), w ~ Dir(a), and (1/K) sum_k KL_k: equation 5."""
    log_weights = draw_log_dirichlet(batch.posterior.concentration, batch.generator)
    log_prob = batch.network.likelihood.averaged_log_prob(batch.x, batch.output, log_weights)
    return -log_prob, batch.kl_latent().mean(0), batch.kl_weights()


def _melbo(batch: Batch):
    """-sum_k E[w_k] log p(x | y_k) and (1/K) sum_k KL_k: equation 8 as printed."""
    reconstruction = -(batch.weights * batch.log_prob()).sum(0)
    return reconstruction, batch.kl_latent().mean(0), batch.kl_weights()


def _elbo(batch: Batch):
    """-sum_k E[w_k] log p(x | y_k) and sum_k E[w_k] KL_k: a lower bound of log p(x)."""
    reconstruction = -(batch.weights * batch.log_prob()).sum(0)
    return reconstruction, (batch.weights * batch.kl_latent()).sum(0), batch.kl_weights()


def _mixture(batch: Batch, foreign: float = 0.0):
    """sum_k r_k (KL_k - log p(x | y_k)) and KL(r || E[w]), r being balanced responsibilities.

    ``foreign`` is the share of KL_k that a row pays for codes of components not responsible for it.
    """
    log_prob, kl_latent = batch.log_prob(), batch.kl_latent()
    with torch.no_grad():
        bound = log_prob - batch.kl_weight * kl_latent
        evidence = batch.share.whole(bound / (_TEMPERATURE * batch.x.shape[-1]))
        log_r = balanced_log_softmax(evidence)[:, batch.share.rows]
        r = log_r.exp()
    kl_weights = (r * (log_r - batch.weights.log())).sum(0)
    return -(r * log_prob).sum(0), ((r + foreign * (1.0 - r)) * kl_latent).sum(0), kl_weights


def _clusters(batch: Batch):
    """The same and sum_k (1 - r_k) KL_k / K: off its rows the code of a component is the prior."""
    return _mixture(batch, foreign=1.0 / len(batch.output))


def balanced_log_softmax(evidence: Tensor) -> Tensor:
    """log softmax_k(evidence + c_k) with c such that all K have about the same share: (K, B).

    The entropic optimal transport of rows to components, by Sinkhorn's iterations (Cuturi 2013).
    """
    log_r = evidence.log_softmax(0)
    for _ in range(_TRANSPORT_ITERATIONS):
        log_r = (log_r - log_r.logsumexp(1, keepdim=True)).log_softmax(0)
    return log_r


OBJECTIVES = {
    "averaged": _averaged,
    "melbo": _melbo,
    "elbo": _elbo,
    "mixture": _mixture,
    "clusters": _clusters,
}


def _dependence(z: Tensor, share: Share) -> Tensor:
    """dHSIC of the codes z (K, B, d); 0 for one component and for fewer than 2 K rows.

    Of more than 512 rows, that of every second, or third, and so on. Each process has its own
    rows of the Gram matrices, and an equal part of what they make.
    """
    k = len(z)
    if k == 1 or share.total < 2 * k:
        return z.new_zeros(())
    stride = math.ceil(share.total / _GRAM_ROWS)
    z, share = z[:, -share.start % stride :: stride], share.every(stride)
    return share.equal_part(dhsic(share.whole(z), share.rows, share.whole))


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
