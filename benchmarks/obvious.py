"""The M-VAE that a good engineer would write on the first day: the baseline of ``speed.py``.

K ``nn.Module`` VAEs in a list, a loop over them, torch.distributions, DataLoader, plain Adam. Model
and objective ("melbo", Bernoulli likelihood) are those of ``MVAETransformer``.
"""

import math

import torch
from torch import nn
from torch.distributions import Dirichlet, Normal, kl_divergence
from torch.nn import functional as F


class VAE(nn.Module):
    """One component."""

    def __init__(self, n_features, latent_dim, hidden):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.mean = nn.Linear(hidden, latent_dim)
        self.std = nn.Linear(hidden, latent_dim)
        self.concentration = nn.Linear(hidden, 1)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, n_features),
        )

    def forward(self, x):
        h = self.encoder(x)
        posterior = Normal(self.mean(h), F.softplus(self.std(h)) + 1e-6)
        z = posterior.rsample()
        return posterior, z, self.decoder(z), F.softplus(self.concentration(h)) + 1e-6


class ObviousMVAE(nn.Module):
    """K components in a list."""

    def __init__(self, n_features, latent_dim=20, k=4, hidden=500):
        super().__init__()
        self.components = nn.ModuleList(VAE(n_features, latent_dim, hidden) for _ in range(k))

    def loss(self, x, beta=1.0):
        k = len(self.components)
        outputs = [component(x) for component in self.components]
        concentration = torch.cat([o[3] for o in outputs], dim=1)
        concentration = concentration / concentration.sum(dim=1, keepdim=True)
        loss = 0.0
        for i, (posterior, _, logits, _) in enumerate(outputs):
            nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=1)
            prior = Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.stddev))
            kl = kl_divergence(posterior, prior).sum(dim=1)
            loss = loss + concentration[:, i] * nll + kl / k
        if k > 1:
            prior = Dirichlet(torch.full_like(concentration, 1 / k))
            loss = loss + kl_divergence(Dirichlet(concentration), prior)
        loss = loss.mean()
        if k > 1:
            loss = loss + beta * dhsic([z for _, z, _, _ in outputs])
        return loss


def dhsic(codes):
    """Equation 13, with the bandwidth of the authors' code."""
    d = codes[0].shape[1]
    m = 2 * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    joint, product, cross = 1.0, 1.0, 1.0
    for z in codes:
        gram = torch.exp(-(torch.cdist(z, z) ** 2) / (2 * m**2))
        joint = joint * gram
        product = product * gram.mean()
        cross = cross * gram.mean(dim=1)
    return joint.mean() + product - 2 * cross.mean()
