"""The objectives term by term in NumPy, against a plain VAE, and against exact likelihoods."""

import math

import networks
import numpy as np
import pytest
import torch
from networks import FixedMixture, generator, make_network, permute_components, random
from scipy.special import digamma, gammaln, logsumexp
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

import skmvae._model.network as network_module
import skmvae._model.objective as objective_module
from skmvae._model.dhsic import dhsic
from skmvae._model.distributions import GaussianLikelihood
from skmvae._model.minibatch import Minibatch
from skmvae._model.objective import (
    OBJECTIVES,
    Forward,
    Objective,
    ObjectiveTerms,
    balanced_log_softmax,
    weighted_draws,
)

LIKELIHOODS = ("gaussian", "bernoulli")


def terms_of(network, x, name, seed=0, prior=None, kl_weight=1.0, beta=1.0, missing=None):
    k = network.encode(x).concentration.shape[1]
    chosen = Objective(name, beta, kl_weight, 1 / k if prior is None else prior)
    return networks.terms_of(network, x, chosen, generator(seed), missing=missing)


def rows(n, n_features, likelihood):
    x = random(n, n_features, seed=9)
    return x.sigmoid() if likelihood == "bernoulli" else x


@pytest.fixture
def fixed_draws(monkeypatch):
    """Make every draw of the objective use given noise, whatever the order of components."""

    def fix(eps, log_weights):
        monkeypatch.setattr(network_module, "draw_normal", lambda mean, std, g: mean + std * eps)
        monkeypatch.setattr(objective_module, "draw_log_dirichlet", lambda a, g: log_weights)

    return fix


def numpy_transport(logits, n_iterations=5):
    """log of exp(logits) (B, K) scaled in turn: each row sums to 1, each column to B / K."""
    log_r = logits
    for _ in range(n_iterations):
        log_r = log_r - logsumexp(log_r, axis=1, keepdims=True)
        log_r = log_r - logsumexp(log_r, axis=0)
    return log_r - logsumexp(log_r, axis=1, keepdims=True)


def numpy_kl_mixing(a):
    """From Dirichlet(1/K, ..., 1/K) to Dirichlet(a) of each row."""
    c, total = 1 / a.shape[1], a.sum(1, keepdims=True)
    constants = gammaln(total[:, 0]) - gammaln(a).sum(1) + a.shape[1] * gammaln(c)
    return constants + ((a - c) * (digamma(a) - digamma(total))).sum(1)


def numpy_terms(network, x, eps, log_weights, objective, kl_weight, missing):
    """Every term of the objective with plain loops over rows, components and observed columns."""
    gaussian = hasattr(network.likelihood, "variance")
    posterior = network.encode(x)
    mean, std = posterior.mean.detach().numpy(), posterior.std.detach().numpy()
    a = posterior.concentration.detach().numpy()
    z = mean + std * eps.numpy()
    output = network.decode(torch.as_tensor(z)).detach().numpy()
    x, w = x.numpy(), np.exp(log_weights.numpy())
    k, n = a.shape[1], len(x)

    def log_prob(b, y):
        pairs = [(v, m) for v, m, hole in zip(x[b], y, missing[b], strict=True) if not hole]
        if gaussian:
            s2 = network.likelihood.variance.item()
            return sum(
                -0.5 * (v - m) ** 2 / s2 - 0.5 * math.log(2 * math.pi * s2) for v, m in pairs
            )
        return sum(v * math.log(m) + (1 - v) * math.log(1 - m) for v, m in pairs)

    y = output if gaussian else 1 / (1 + np.exp(-output))
    log_p = np.array([[log_prob(b, y[i, b]) for i in range(k)] for b in range(n)])
    kl = 0.5 * (mean**2 + std**2 - 1 - 2 * np.log(std)).sum(2).T
    if objective in ("mixture", "clusters"):
        n_observed = (~missing).sum(1, keepdims=True).clip(min=1)
        log_r = numpy_transport((log_p - kl_weight * kl) / (n_observed / 80))
        r = np.exp(log_r)
        factor = r if objective == "mixture" else r + (1 - r) / k
        return -(r * log_p).sum(1), (factor * kl).sum(1), (r * (log_r - np.log(a))).sum(1)
    if objective == "averaged":
        mixed = [sum(w[b, i] * y[i, b] for i in range(k)) for b in range(n)]
        reconstruction = [-log_prob(b, mixed[b]) for b in range(n)]
    else:
        reconstruction = -(a * log_p).sum(1)
    kl_latent = (a * kl).sum(1) if objective == "elbo" else kl.mean(1)
    return reconstruction, kl_latent, numpy_kl_mixing(a)


HOLES = torch.tensor(np.random.default_rng(3).random((8, 5)) < 0.4)


@pytest.mark.parametrize("missing", [None, HOLES], ids=["complete", "holes"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_terms_equal_numpy_loops(objective, likelihood, missing, fixed_draws):
    network = make_network(likelihood=likelihood)
    x, eps = rows(8, 5, likelihood), random(3, 8, 2, seed=5)
    log_weights = random(8, 3, seed=6).log_softmax(1)
    fixed_draws(eps, log_weights)
    terms = terms_of(network, x, objective, kl_weight=0.3, missing=missing)
    holes = np.zeros((8, 5), dtype=bool) if missing is None else missing.numpy()
    expected = numpy_terms(network, x, eps, log_weights, objective, 0.3, holes)
    expected = [np.mean(values) for values in expected]
    np.testing.assert_allclose([t.item() for t in terms[:3]], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_stands_in_a_hole_never_matters(objective, likelihood, monkeypatch):
    """Neither to the terms nor to a gradient, bit for bit: only the encoders see it."""
    network, x = make_network(likelihood=likelihood), rows(8, 5, likelihood)
    posterior = network.encode(x)
    monkeypatch.setattr(network, "encode", lambda x: posterior)

    def of(x):
        terms = torch.stack(terms_of(network, x, objective, missing=HOLES)[:3])
        parameters = list(network.parameters())
        return [terms, *torch.autograd.grad(terms.sum(), parameters, retain_graph=True)]

    for stand_in in (0.0, 0.7, 1e3):
        for found, expected in zip(of(x.masked_fill(HOLES, stand_in)), of(x), strict=True):
            assert torch.equal(found, expected)


def test_loss_is_equation_14_and_the_term_of_neighbours():
    terms = ObjectiveTerms(10.0, 4.0, 2.0, 0.5, 3.0)
    assert Objective("melbo", 1.0, 1.0, 0.25).loss(terms) == 16.5
    assert Objective("melbo", 100.0, 0.25, 0.25).loss(terms) == 63.0
    assert Objective("melbo", 1.0, 1.0, 0.25, neighbor_weight=4.0).loss(terms) == 28.5


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_component_is_a_plain_vae(objective, likelihood):
    """Loss and gradients of equation 1, from torch's own layers and distributions."""
    network = make_network(k=1, likelihood=likelihood)
    x = rows(8, 5, likelihood)
    terms = terms_of(network, x, objective, seed=3, prior=0.7)
    assert terms.kl_mixing.item() == pytest.approx(0.0, abs=1e-15)
    assert terms.dhsic.item() == 0.0
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(sum(terms), parameters)

    def affine(h, layer):
        return F.linear(h, layer.weight[0].T, layer.bias[0, 0])

    head = affine(torch.tanh(affine(x, network.encoder.layers[0])), network.encoder.layers[1])
    q = Normal(head[:, :2], F.softplus(head[:, 2:4]) + 1e-6)
    z = q.mean + q.stddev * torch.randn(1, 8, 2, generator=generator(3), dtype=torch.float64)[0]
    y = affine(torch.tanh(affine(z, network.decoder.layers[0])), network.decoder.layers[1])
    if likelihood == "gaussian":
        reconstruction = -Normal(y, network.likelihood.variance.sqrt()).log_prob(x).sum(1)
    else:
        reconstruction = F.binary_cross_entropy_with_logits(y, x, reduction="none").sum(1)
    kl = kl_divergence(q, Normal(torch.zeros_like(z), torch.ones_like(z))).sum(1)
    loss = (reconstruction + kl).mean()
    expected = torch.autograd.grad(loss, parameters)

    assert sum(terms).item() == pytest.approx(loss.item(), abs=1e-12)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_does_not_depend_on_the_order_of_components(objective, fixed_draws):
    network, x, order = make_network(), rows(8, 5, "gaussian"), [2, 0, 1]
    eps, log_weights = random(3, 8, 2, seed=5), random(8, 3, seed=6).log_softmax(1)
    fixed_draws(eps, log_weights)
    before = terms_of(network, x, objective)
    permute_components(network, order)
    fixed_draws(eps[order], log_weights[:, order])
    after = terms_of(network, x, objective)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_balanced_responsibilities_give_each_component_as_many_rows():
    logits = 3.0 * random(4, 200, seed=1) + torch.tensor([[5.0], [0.0], [0.0], [-5.0]])
    assert logits.softmax(0).mean(1)[0] > 0.7
    r = balanced_log_softmax(logits).exp()
    torch.testing.assert_close(r.sum(0), torch.ones(200, dtype=torch.float64))
    assert (r.mean(1) - 0.25).abs().max() < 0.05
    # Rows differ in their logits alone: the offset of a component is the same in all of them.
    offsets = (r.log() - logits) - (r.log() - logits)[:1]
    torch.testing.assert_close(offsets, offsets[:, :1].expand_as(offsets))


def test_balanced_responsibilities_give_each_component_its_share():
    shares = torch.tensor([0.1, 0.6, 0.3, 0.0], dtype=torch.float64)
    r = balanced_log_softmax(3.0 * random(4, 200, seed=1), shares).exp()
    torch.testing.assert_close(r.sum(0), torch.ones(200, dtype=torch.float64))
    assert (r.mean(1) - shares).abs().max() < 0.05


@pytest.mark.parametrize("name", ["mixture", "clusters"])
def test_a_held_row_trains_its_component_alone(name):
    network, x, held = (
        make_network(),
        rows(8, 5, "gaussian"),
        torch.tensor([0, 0, 2, 2, 0, 2, 0, 2]),
    )
    posterior = network.encode(x)
    z = posterior.mean
    output = network.decode(z)
    forward = Forward(
        network.likelihood, x, posterior, z, output, Minibatch.whole(8), generator(), held=held
    )
    reconstruction, kl_latent, kl_mixing = OBJECTIVES[name](
        Objective(name, 1.0, 1.0, 1 / 3), forward
    )
    of_held = (held, torch.arange(8))
    torch.testing.assert_close(reconstruction, -forward.log_prob()[of_held])
    torch.testing.assert_close(kl_mixing, -posterior.weights.log()[of_held])
    kl = posterior.kl()
    elsewhere = (kl.sum(0) - kl[of_held]) / 3 if name == "clusters" else 0.0
    torch.testing.assert_close(kl_latent, kl[of_held] + elsewhere)


def test_balanced_responsibilities_are_right_at_the_extremes():
    def mean(logits):
        return balanced_log_softmax(logits).exp().mean(1)

    assert torch.equal(balanced_log_softmax(torch.zeros(1, 5)), torch.zeros(1, 5))
    torch.testing.assert_close(mean(torch.full((4, 5), -1e6)), torch.full((4,), 0.25))
    hopeless = torch.zeros(3, 6)
    hopeless[2] = -1e4  # underflows in float32
    torch.testing.assert_close(mean(hopeless), torch.full((3,), 1 / 3))
    certain = random(3, 6, seed=2).float()
    certain[0] += 1e4  # all rows want the first component
    torch.testing.assert_close(mean(certain), torch.full((3,), 1 / 3), atol=0.05, rtol=0)


def test_the_responsibilities_pass_no_gradient():
    """The term of the mixing weights trains the encoders alone."""
    network = make_network()
    terms_of(network, rows(8, 5, "gaussian"), "clusters").kl_mixing.backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in network.decoder.parameters())
    for name, parameter in network.encoder.named_parameters():
        assert (parameter.grad.abs().flatten(1).amax(1) > 1e-6).all(), name


def test_dhsic_has_a_gradient_to_every_encoder_and_to_no_decoder():
    network = make_network()
    terms_of(network, rows(32, 5, "gaussian"), "melbo").dhsic.backward()
    for name, parameter in network.encoder.named_parameters():
        assert (parameter.grad.abs().flatten(1).amax(1) > 1e-9).all(), name
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in network.decoder.parameters())


def test_dhsic_takes_at_most_512_rows():
    """Every sixth of 3,000 rows is taken."""
    z = random(3, 3000, 2)
    assert objective_module._dependence(z, Minibatch.whole(3000)) == dhsic(z[:, ::6])
    assert objective_module._dependence(z[:, :512], Minibatch.whole(512)) == dhsic(z[:, :512])


def test_dhsic_is_skipped_below_two_k_rows():
    network = make_network(k=3)
    assert terms_of(network, rows(5, 5, "gaussian"), "melbo").dhsic.item() == 0.0
    assert terms_of(network, rows(6, 5, "gaussian"), "melbo").dhsic.item() > 0.0


def test_dhsic_is_not_computed_without_beta(monkeypatch):
    network, x = make_network(k=3), rows(32, 5, "gaussian")
    expected = terms_of(network, x, "melbo")
    monkeypatch.setattr(objective_module, "dhsic", None)
    found = terms_of(network, x, "melbo", beta=0.0)
    assert found == expected._replace(dhsic=torch.zeros(()))


# k identical linear VAEs, x = z + N(0, 1), at x = 10: log p(x) = log N(10; 0, 2).


def identical_vaes(first, k=4, n_rows=1000, kl_scale=None):
    """The best Gaussian posteriors for concentrations (first, rest equal), and the objective."""
    a = torch.full((k,), (1 - first) / (k - 1), dtype=torch.float64)
    a[0] = first
    strength = a * k if kl_scale is None else torch.ones(k, dtype=torch.float64)
    variance = 1 / (1 + strength)
    mean = 10.0 * strength * variance

    def expand(values):
        return values[:, None, None].expand(k, n_rows, 1)

    likelihood = GaussianLikelihood().double()
    likelihood.raw_variance.data.fill_(math.log(math.expm1(1.0 - 1e-4)))
    return FixedMixture(
        (expand(mean), expand(variance.sqrt()), a.expand(n_rows, k)),
        torch.ones(k, 1, 1, dtype=torch.float64),
        torch.zeros(k, 1, dtype=torch.float64),
        likelihood,
    )


LOG_P = -0.5 * math.log(2 * math.pi * 2) - 100 / 4


def bound(network, objective, seed=0):
    x = torch.full((1000, 1), 10.0, dtype=torch.float64)
    terms = terms_of(network, x, objective, seed)
    return -sum(terms[:3]).item()


def test_melbo_exceeds_the_log_likelihood():
    # Equation 8 is not a lower bound: its maximum here is -23.25, log p(x) is -26.27.
    best = max(bound(identical_vaes(first), "melbo") for first in np.linspace(0.3, 0.99, 24))
    assert best == pytest.approx(-23.25, abs=0.2)
    assert best > LOG_P + 2.5


def test_elbo_never_exceeds_the_log_likelihood_and_reaches_it():
    for first in (0.25, 0.5, 0.9, 0.99):
        assert bound(identical_vaes(first, kl_scale=1), "elbo") <= LOG_P + 1e-6
    reached = [bound(identical_vaes(0.25, kl_scale=1), "elbo", seed=seed) for seed in range(8)]
    assert np.mean(reached) == pytest.approx(LOG_P, abs=0.05)


# The linear model of the notes: exact log p(x), the best diagonal posterior, two components.

W = torch.tensor([[1, 0.5], [-0.5, 1], [0.25, -1]], dtype=torch.float64)
W2 = torch.tensor([[0.5, 0], [0, 0.5], [1, 1]], dtype=torch.float64)
B = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
B2 = torch.tensor([1, -0.5, 1.5], dtype=torch.float64)
X = torch.tensor([[1, -0.5, 2]], dtype=torch.float64)


def linear_mixture(weights, biases, n_rows=1):
    """Decoders W_k z + b_k with variance 1/4, and each posterior's best diagonal Gaussian."""
    likelihood = GaussianLikelihood().double()
    likelihood.raw_variance.data.fill_(math.log(math.expm1(0.25 - 1e-4)))
    means, stds = [], []
    for w, b in zip(weights, biases, strict=True):
        precision = torch.eye(2, dtype=torch.float64) + 4.0 * w.T @ w
        means.append(torch.linalg.solve(precision, 4.0 * w.T @ (X[0] - b)))
        stds.append(precision.diagonal().rsqrt())
    k = len(weights)
    shape = (k, n_rows, 2)
    return FixedMixture(
        (
            torch.stack(means).unsqueeze(1).expand(shape),
            torch.stack(stds).unsqueeze(1).expand(shape),
            torch.full((n_rows, k), 1 / k, dtype=torch.float64),
        ),
        torch.stack(weights),
        torch.stack(biases),
        likelihood,
    )


def test_best_diagonal_posterior_golden():
    posterior = linear_mixture([W], [B]).posterior
    assert posterior.mean[0, 0].tolist() == pytest.approx([0.85853659, -0.53414634], abs=1e-8)
    assert posterior.std[0, 0].square().tolist() == pytest.approx([0.16, 0.1], abs=1e-12)


def test_elbo_of_the_linear_model_golden(fixed_draws):
    # The reconstruction is quadratic in z: these four points have the moments of N(0, I).
    points = math.sqrt(2) * torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    fixed_draws(points[None], torch.zeros(4, 1, dtype=torch.float64))
    terms = terms_of(linear_mixture([W], [B], 4), X.expand(4, 3), "elbo")
    bound = -sum(terms[:3]).item()
    assert bound == pytest.approx(-6.13642075093951, abs=1e-12)


FIRST, SECOND = -6.12835605997457, -2.27524019471118  # log p of the two linear models


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def bound_of(network, x, eps, shares):
    draws = weighted_draws(network, x, network.encode(x), eps, shares)
    return draws.log_sum() - math.log(eps.shape[1])


@pytest.mark.parametrize(
    ("weights", "biases", "shares", "expected"),
    [
        ([W], [B], [1.0], FIRST),
        ([W2], [B2], [1.0], SECOND),
        ([W, W2], [B, B2], [0.5, 0.5], -2.94739571511753),
        ([W, W2], [B, B2], [0.9, 0.1], math.log(0.9 * math.exp(FIRST) + 0.1 * math.exp(SECOND))),
    ],
)
def test_one_draw_from_the_exact_posterior_gives_log_p(weights, biases, shares, expected):
    # Rotated codes have the same prior and a diagonal posterior covariance.
    rotated = [
        w @ torch.linalg.eigh(torch.eye(2, dtype=torch.float64) + 4 * w.T @ w).eigenvectors
        for w in weights
    ]
    network = linear_mixture(rotated, biases)
    value = bound_of(network, X, random(len(weights), 1, 2), tensor(*shares)).item()
    assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("n_draws", "expected", "tolerance"),
    [(10, -6.1276, 0.01), (1000, -6.12836, 0.002)],
)
def test_importance_weighted_bound_golden(n_draws, expected, tolerance):
    repeats = max(20, 4_000 // n_draws)
    network = linear_mixture([W], [B])
    values = [
        bound_of(network, X, random(1, n_draws, 2, seed=seed), tensor(1.0)).item()
        for seed in range(repeats)
    ]
    assert np.mean(values) == pytest.approx(expected, abs=tolerance)


def test_importance_weighted_bound_of_a_mixture_reaches_log_p():
    network = linear_mixture([W, W2], [B, B2])
    value = bound_of(network, X, random(2, 200_000, 2), tensor(0.5, 0.5)).item()
    assert value == pytest.approx(-2.94739571511753, abs=0.01)


def test_bound_equals_numpy_and_is_at_least_the_elbo_of_the_same_draws():
    network = make_network(k=3)
    x, eps = random(6, 5, seed=9), random(3, 4, 2, seed=1)
    result = bound_of(network, x, eps, tensor(1 / 3, 1 / 3, 1 / 3)).detach().numpy()
    posterior = network.encode(x)
    a = posterior.concentration.detach().numpy()
    log_joint = np.empty((3, 4, 6))
    for k in range(3):
        for draw in range(4):
            q = Normal(posterior.mean, posterior.std)
            z = posterior.mean + posterior.std * eps[:, draw].unsqueeze(1)
            ratio = Normal(0.0, 1.0).log_prob(z).sum(-1) - q.log_prob(z).sum(-1)
            log_p = network.likelihood.log_prob(x, network.decode(z))
            log_joint[k, draw] = (log_p + ratio)[k].detach().numpy()
    expected = logsumexp(log_joint.reshape(12, 6), axis=0) - math.log(12)
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    # Jensen, twice: over the draws and over w and the choice of a component.
    elbo = (a.T * log_joint.mean(1)).sum(0) - numpy_kl_mixing(a)
    assert (result >= elbo).all()
