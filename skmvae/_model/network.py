"""MixtureVAE: encode, decode and mix for all K components at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .distributions import LIKELIHOODS, draw_normal, normal_kl

# Added to the softplus that gives standard deviations and concentrations: softplus underflows
# to 0 in float32, and both go through a logarithm.
_FLOOR = 1e-6

# Least part of a row's concentration, nearly. KL(Dir(a) || Dir(c)) has a pole at a_k = 0 that
# otherwise throws training back: on CIFAR-10, K = 4, from 69 nats to a mean of 1,200 in one epoch.
_LEAST_PART = 1e-3


class Posterior(NamedTuple):
    """Posteriors of B rows under K encoders: q(z_k | x) = N(mean, std^2), q(w | x) = Dir(a)."""

    mean: Tensor  # (K, B, d)
    std: Tensor  # (K, B, d)
    concentration: Tensor  # (B, K), each row sums to one, so it is E[w] as well

    @property
    def weights(self) -> Tensor:
        """E[w], (K, B)."""
        return self.concentration.T

    def split(self, size: int) -> tuple[Posterior, Posterior]:
        """The posteriors of the first ``size`` rows and of the others."""
        first, others = (
            Posterior(self.mean[:, rows], self.std[:, rows], self.concentration[rows])
            for rows in (slice(size), slice(size, None))
        )
        return first, others

    def with_prior(self, rows: Tensor, shares: Tensor) -> Posterior:
        """N(0, I) and the components' shares (K,) for the rows (B,) of which nothing is known."""
        return Posterior(
            self.mean.masked_fill(rows.unsqueeze(-1), 0.0),
            self.std.masked_fill(rows.unsqueeze(-1), 1.0),
            torch.where(rows.unsqueeze(-1), shares, self.concentration),
        )

    def draw(self, generator: torch.Generator) -> Tensor:
        """z_k of every component, (K, B, d)."""
        return draw_normal(self.mean, self.std, generator)

    def kl(self) -> Tensor:
        """KL_k = KL(q(z_k | x) || N(0, I)), (K, B)."""
        return normal_kl(self.mean, self.std)


class MixtureVAE(nn.Module):
    """K encoders, K decoders and a likelihood.

    Parameters
    ----------
    architecture : object with ``build(n_features, latent_dim, k)``
        Gives the stacks: ``encoder(x, generator)`` maps (B, F) or (K, B, F) to (K, B, 2 d + 1),
        ``decoder(z, generator)`` maps (K, B, d) to (K, B, F).
    n_features, latent_dim, k : int
    likelihood : {"gaussian", "bernoulli"}
    """

    def __init__(
        self, architecture, *, n_features: int, latent_dim: int, k: int, likelihood: str
    ) -> None:
        super().__init__()
        self.k, self.latent_dim, self.n_features = k, latent_dim, n_features
        self.encoder, self.decoder = architecture.build(n_features, latent_dim, k)
        self.likelihood = LIKELIHOODS[likelihood]()

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """Equations 2 and 3 for x (B, F), or for one input a component, x (K, B, F)."""
        # Matrix products may have had a lower precision than the rest has.
        raw = self.encoder(x, generator).to(x.dtype)
        _check_shape("encoder", raw, (self.k, x.shape[-2], 2 * self.latent_dim + 1))
        mean, raw_std, raw_concentration = raw.split((self.latent_dim, self.latent_dim, 1), dim=-1)
        concentration = F.softplus(raw_concentration.squeeze(-1).T) + _FLOOR
        # a / sum(a), by a softmax of log a: two operations with the gradient, instead of ten.
        normalised = concentration.log().softmax(-1)
        # (a + c sum(a)) / (1 + K c) is 1 to the bit for K = 1 in this form.
        smoothing = self.k * _LEAST_PART / (1.0 + self.k * _LEAST_PART)
        return Posterior(
            mean=mean,
            # On a CPU softplus is ten times slower on a view with gaps.
            std=F.softplus(raw_std.contiguous()) + _FLOOR,
            concentration=normalised.sub(normalised - 1.0 / self.k, alpha=smoothing),
        )

    def decode(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Outputs of the decoders, before the likelihood's link: (K, B, d) -> (K, B, F)."""
        output = self.decoder(z, generator).to(z.dtype)
        _check_shape("decoder", output, (self.k, z.shape[-2], self.n_features))
        return output

    def component_means(self, z: Tensor) -> Tensor:
        """y_k, the mean of decoder k: (K, B, d) -> (K, B, F)."""
        return self.likelihood.mean(self.decode(z))


def _check_shape(stack: str, output: Tensor, expected: tuple[int, int, int]) -> None:
    """Another shape may fit the loss by broadcasting, and train something else."""
    if output.shape != expected:
        raise ValueError(
            f"the {stack} that architecture.build made gave shape {tuple(output.shape)}; expected "
            f"{expected}: k, rows, and "
            f"{'2 * latent_dim + 1' if stack == 'encoder' else 'n_features'}."
        )


def mix(means: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_k y_k, equation 5: (K, B, F) and (B, K) -> (B, F)."""
    # On a CPU einsum copies weights with gaps row by row.
    return torch.einsum("bk,kbf->bf", weights.contiguous(), means)
