"""Divergences, draws and likelihoods against torch.distributions, SciPy and golden numbers."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli, Dirichlet, Normal, kl_divergence

from skmvae._model.distributions import (
    BernoulliLikelihood,
    GaussianLikelihood,
    dirichlet_kl,
    draw_log_dirichlet,
    draw_normal,
    normal_kl,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(variance=1.0):
    likelihood = GaussianLikelihood().double()
    likelihood.raw_variance.data.fill_(math.log(math.expm1(variance - 1e-4)))
    return likelihood


def random(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def test_normal_kl_golden():
    mean = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    std = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    assert normal_kl(mean, std).item() == pytest.approx(3.75, abs=1e-12)
    assert normal_kl(mean.float(), std.float()).item() == pytest.approx(3.75, abs=2e-7)


@pytest.mark.parametrize(
    ("concentration", "prior", "expected"),
    [
        ((0.1, 0.2, 0.3, 0.4), 1 / 4, 0.75151915520095658),
        ((0.7, 0.1, 0.1, 0.1), 1 / 4, 2.2747640210789388),
        ((3, 0.5, 1.5, 2), 1 / 4, 2.18216988327318),
        ((2, 3, 5), 1 / 3, 1.8150630131314838),
        ((1 / 4, 1 / 4, 1 / 4, 1 / 4), 1 / 4, 0.0),
        ((1.0,), 0.3, 0.0),
    ],
)
def test_dirichlet_kl_golden(concentration, prior, expected):
    a = torch.tensor([concentration], dtype=torch.float64)
    assert dirichlet_kl(a, prior).item() == pytest.approx(expected, abs=1e-12)
    assert dirichlet_kl(a.float(), prior).item() == pytest.approx(expected, abs=2e-7, rel=2e-7)


def test_dirichlet_kl_float32_is_accurate_at_extremes():
    # Computed in float32 this comes out as 9.755.
    a = torch.tensor([[1e6, 1.0, 1.0, 1.0]])
    expected = kl_divergence(Dirichlet(a.double()), Dirichlet(torch.full((1, 4), 0.25).double()))
    assert dirichlet_kl(a, 0.25).item() == pytest.approx(expected.item(), rel=1e-6)
    assert dirichlet_kl(a, 0.25).dtype == torch.float32


def test_closed_gradients_are_those_of_torchs_own_formulas():
    """The divergences and the Gaussian likelihood bring their own backward passes."""
    mean, std = random(4, 7, 3).requires_grad_(), random(4, 7, 3, seed=1).exp().requires_grad_()
    a, output = random(9, 5).exp().requires_grad_(), random(4, 9, 5, seed=2).requires_grad_()
    x, likelihood = random(9, 5, seed=3), gaussian(0.3)
    missing = random(9, 5, seed=7) > 0.3
    prior = Dirichlet(torch.full_like(a, 0.2))

    def log_prob():
        return Normal(output, likelihood.variance.sqrt()).log_prob(x)

    pairs = [
        (normal_kl(mean, std), kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(-1)),
        (dirichlet_kl(a, 0.2), kl_divergence(Dirichlet(a), prior)),
        (likelihood.log_prob(x, output), log_prob().sum(-1)),
        (likelihood.log_prob(x, output, missing), log_prob().masked_fill(missing, 0.0).sum(-1)),
    ]
    inputs = [mean, std, a, output, likelihood.raw_variance]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        weights = random(*found.shape, seed=4)
        gradients, others = (
            torch.autograd.grad((weights * value).sum(), inputs, allow_unused=True)
            for value in (found, expected)
        )
        assert any(gradient is not None for gradient in gradients)
        for gradient, other in zip(gradients, others, strict=True):
            if other is not None:
                torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-12)


def test_draw_normal_has_the_distribution_and_passes_the_gradient():
    mean = torch.tensor([[1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    std = torch.tensor([[0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    z = draw_normal(mean.expand(4000, 2), std.expand(4000, 2), generator())
    standard = ((z - mean) / std).detach().numpy().ravel()
    assert stats.kstest(standard, "norm").pvalue > 0.01
    z.mean(0).sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones_like(mean))
    assert std.grad.abs().max() < 0.1


@pytest.mark.parametrize("concentration", [(0.5, 0.2, 0.3), (0.02, 0.03, 0.95), (5.0, 2.0, 9.0)])
def test_log_dirichlet_draws_have_beta_marginals(concentration):
    a = torch.tensor(concentration, dtype=torch.float64).expand(4000, 3)
    w = draw_log_dirichlet(a, generator()).exp().numpy()
    np.testing.assert_allclose(w.sum(1), 1.0, atol=1e-12)
    total = sum(concentration)
    for i, own in enumerate(concentration):
        if own > total / 2:
            continue  # much of its mass rounds to 1, and the others determine it
        assert stats.kstest(w[:, i], stats.beta(own, total - own).cdf).pvalue > 1e-3


def test_log_dirichlet_is_not_uniform_at_small_concentrations():
    # torch._sample_dirichlet returns exactly (1/4, ...) for 6 % of these draws.
    w = draw_log_dirichlet(torch.full((2000, 4), 1e-3), generator()).exp()
    assert w.amax(1).quantile(0.05) > 0.9
    assert w.sum(1).allclose(torch.ones(2000), atol=1e-6)
    assert torch.equal(draw_log_dirichlet(torch.ones(5, 1), generator()), torch.zeros(5, 1))


def test_log_dirichlet_gradient_is_unbiased():
    a = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64, requires_grad=True)
    w = draw_log_dirichlet(a.expand(200_000, 3), generator()).exp()
    (gradient,) = torch.autograd.grad(w[:, 0].mean(), a)
    # E[w_0] = a_0 / sum(a): its derivatives are (1 - .6, -.6, -.6) at sum 1.
    torch.testing.assert_close(
        gradient, torch.tensor([0.4, -0.6, -0.6], dtype=torch.float64), atol=0.02, rtol=0
    )


def test_averaged_log_prob_is_that_of_the_weighted_sum():
    x, y = random(5, 7), random(3, 5, 7, seed=1)
    log_w = torch.log_softmax(random(5, 3, seed=1), dim=-1)
    mean = sum(log_w[:, k, None].exp() * y[k] for k in range(3))
    expected = Normal(mean, math.sqrt(0.3)).log_prob(x).sum(-1)
    result = gaussian(0.3).averaged_log_prob(x, y, log_w)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    x, likelihood = x.sigmoid(), BernoulliLikelihood()
    mean = sum(log_w[:, k, None].exp() * y[k].sigmoid() for k in range(3))
    expected = (x * mean.log() + (1 - x) * (1 - mean).log()).sum(-1)
    result = likelihood.averaged_log_prob(x, y, log_w)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    expected = Bernoulli(logits=y, validate_args=False).log_prob(x).sum(-1)
    torch.testing.assert_close(likelihood.log_prob(x, y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_bernoulli_is_finite_for_saturated_logits(logit):
    x = torch.tensor([[0.0, 1.0, 0.5]])
    logits = torch.full((2, 1, 3), logit, requires_grad=True)
    log_w = torch.log(torch.tensor([[0.5, 0.5]]))
    likelihood = BernoulliLikelihood()
    value = likelihood.averaged_log_prob(x, logits, log_w) + likelihood.log_prob(x, logits).sum()
    assert value.isfinite().all()
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all()


def test_gaussian_starts_at_unit_variance_and_keeps_its_floor():
    likelihood = GaussianLikelihood()
    likelihood.reset_parameters(generator())
    assert likelihood.variance.item() == pytest.approx(1.0, rel=1e-6)
    likelihood.raw_variance.data.fill_(-1e6)
    assert likelihood.variance.item() == pytest.approx(1e-4, rel=1e-6)
    assert likelihood.noise_variance(scale=10.0) == pytest.approx(1e-2, rel=1e-6)
    assert BernoulliLikelihood().noise_variance(scale=1.0) is None
