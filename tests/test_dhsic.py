"""dHSIC against the literal sums of equation 13 and golden numbers."""

import itertools
import math

import numpy as np
import pytest
import torch

from skmvae._model.dhsic import centred, dhsic, dhsic_of_means, rbf_gamma, rbf_grams

CASE_A = [np.sin(np.arange(6 * d).reshape(6, d) * (j + 1) + j) for j, d in enumerate((1, 2, 3))]


def case_b():
    rng = np.random.RandomState(0)
    shared = rng.standard_normal((32, 20))
    return [0.5 * shared + rng.standard_normal((32, 20)) for _ in range(4)]


def gram(z, gamma=None, dtype=torch.float64):
    """G_ij of one code (n, d), (1, n, n)."""
    return rbf_grams(centred(torch.as_tensor(z, dtype=dtype)[None]), gamma)[1:]


def of_grams(grams):
    grams = torch.cat(grams)
    return dhsic_of_means(torch.cat([grams.prod(0, keepdim=True), grams]).mean(-1))


def statistic(codes, gamma=None, dtype=torch.float64):
    """Return dHSIC, also of codes that differ in length."""
    return of_grams([gram(z, gamma, dtype) for z in codes])


def brute_force(codes):
    """Equation 13 as printed: sums over all tuples of 2, 2K and K + 1 row indices."""
    grams = [gram(z)[0].numpy() for z in codes]
    k, n = len(grams), len(codes[0])
    product = math.prod
    first = sum(product(g[i, j] for g in grams) for i in range(n) for j in range(n)) / n**2
    second = sum(
        product(grams[j][t[2 * j], t[2 * j + 1]] for j in range(k))
        for t in itertools.product(range(n), repeat=2 * k)
    ) / n ** (2 * k)
    third = sum(
        product(grams[j][t[0], t[j + 1]] for j in range(k))
        for t in itertools.product(range(n), repeat=k + 1)
    ) / n ** (k + 1)
    return first + second - 2 * third


def plain(codes):
    """Equation 13 in the shortest words, with autograd's own gradient."""
    distances = (codes.unsqueeze(2) - codes.unsqueeze(1)).square().sum(-1)
    grams = (-rbf_gamma(codes.shape[-1]) * distances).exp()
    rows = grams.mean(-1)
    return grams.prod(0).mean() + rows.mean(-1).prod() - 2 * rows.prod(0).mean()


def test_bandwidth_golden():
    golden = {1: 0.39269908169872, 2: 0.15915494309190, 10: 0.02627961287596}
    golden |= {20: 0.01281630590019, 50: 0.00505024747020, 256: 0.00097847170763}
    assert {dim: rbf_gamma(dim) for dim in golden} == pytest.approx(golden, abs=1e-13)


@pytest.mark.parametrize(
    ("codes", "gamma", "expected"),
    [
        (CASE_A, None, 0.021149931839456015),
        (case_b(), None, 0.018762589197400648),
        (CASE_A, 0.5, 0.072109374741535337),
        (case_b(), 0.5, 0.03124904574555188),
    ],
)
def test_golden_numbers(codes, gamma, expected):
    assert statistic(codes, gamma).item() == pytest.approx(expected, abs=1e-12)
    assert statistic(codes, gamma, torch.float32).item() == pytest.approx(expected, abs=2e-7)


def test_golden_numbers_of_r_and_of_gradients():
    bandwidths = (0.6349270911, 1.0984078661, 0.9900203130)
    grams = [gram(z, 1 / (2 * width**2)) for z, width in zip(CASE_A, bandwidths, strict=True)]
    assert of_grams(grams).item() == pytest.approx(0.08113510195950252, abs=1e-9)
    codes = torch.tensor(np.stack(case_b()), requires_grad=True)
    dhsic(codes).backward()
    assert codes.grad[0, 0, 0].item() == pytest.approx(1.83415978778e-05, abs=1e-12)
    assert codes.grad.norm().item() == pytest.approx(0.000684004431638, abs=1e-12)


@pytest.mark.parametrize(("n", "k"), [(6, 3), (3, 4), (5, 2)])
def test_equals_the_literal_sums(n, k):
    rng = np.random.default_rng(n * k)
    codes = [rng.standard_normal((n, 2)) for _ in range(k)]
    assert statistic(codes).item() == pytest.approx(brute_force(codes), abs=1e-12)


@pytest.mark.parametrize(("k", "n", "d"), [(4, 32, 20), (2, 7, 1), (3, 5, 2)])
def test_value_and_gradient_are_those_of_the_plain_formula(k, n, d):
    rng = np.random.default_rng(k)
    codes = torch.tensor(rng.normal(size=(k, n, d)) + rng.normal(size=(n, d)), requires_grad=True)
    value, expected = dhsic(codes), plain(codes)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    (gradient,) = torch.autograd.grad(3.0 * value, codes)
    (expected,) = torch.autograd.grad(3.0 * expected, codes)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


def test_gradients_of_parts_of_the_rows_add_up():
    codes = torch.tensor(np.stack(case_b()), requires_grad=True)
    (expected,) = torch.autograd.grad(dhsic(codes), codes)
    parts = [slice(0, 5), slice(5, 6), slice(6, 6), slice(6, 32)]
    whole = torch.cat([rbf_grams(centred(codes.detach()), rows=part) for part in parts], dim=1)
    total = torch.zeros_like(codes)
    for part in parts:
        value = dhsic(codes, part, lambda own: whole.mean(-1))
        assert value.item() == pytest.approx(dhsic(codes).item(), rel=1e-12)
        total += torch.autograd.grad(value, codes)[0]
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-16)


def test_degenerate_cases_are_zero_and_not_negative():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 2))
    assert statistic([x]).item() == pytest.approx(0.0, abs=1e-15)
    assert statistic([x[:1], x[1:2]]).item() == pytest.approx(0.0, abs=1e-15)
    assert statistic([x, np.ones((9, 2))]).item() == pytest.approx(0.0, abs=1e-15)
    assert statistic([x, np.ones((9, 2))]).item() >= 0.0
    codes = torch.full((3, 10, 2), 1e-6, requires_grad=True)
    dhsic(codes).backward()
    assert codes.grad.isfinite().all()


@pytest.mark.parametrize(("spread", "offset"), [(1, 0), (1, 1e3), (1, 1e5), (1e3, 0), (1e5, 0)])
def test_float32_does_for_codes_far_away_or_far_apart(spread, offset):
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 64, 3))).float()
    z = (spread * rows + offset).expand(2, 64, 3).clone().requires_grad_()
    value = dhsic(z)
    torch.testing.assert_close(value.double(), dhsic(z.detach().double()), rtol=1e-4, atol=0.0)
    value.backward()
    assert z.grad.isfinite().all()
    # Rounding makes no kernel of two equal rows greater than 1, nor infinite.
    assert rbf_grams(centred(spread * rows.repeat(1, 2, 1))).max() == 1.0
