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
    """Also of codes that differ in length."""
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


def test_gram_matrices_and_their_product():
    codes = centred(torch.as_tensor(np.stack(case_b())))
    grams = rbf_grams(codes, 0.3)
    expected = (-0.3 * torch.cdist(codes, codes).square()).exp()
    torch.testing.assert_close(grams[1:], expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(grams[0], expected.prod(0), rtol=1e-12, atol=1e-14)
    some = rbf_grams(codes, 0.3, rows=slice(5, 12))
    torch.testing.assert_close(some, grams[:, 5:12], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("dim", "gamma"),
    [
        (1, 0.39269908169872),
        (2, 0.15915494309190),
        (10, 0.02627961287596),
        (20, 0.01281630590019),
        (50, 0.00505024747020),
        (256, 0.00097847170763),
    ],
)
def test_bandwidth_golden(dim, gamma):
    assert rbf_gamma(dim) == pytest.approx(gamma, abs=1e-13)


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


def test_golden_number_of_r_with_its_bandwidths():
    gammas = (0.6349270911, 1.0984078661, 0.9900203130)
    grams = [gram(z, 1 / (2 * bandwidth**2)) for z, bandwidth in zip(CASE_A, gammas, strict=True)]
    assert of_grams(grams).item() == pytest.approx(0.08113510195950252, abs=1e-9)


def test_golden_gradients():
    codes = torch.tensor(np.stack(case_b()), requires_grad=True)
    dhsic(codes).backward()
    assert codes.grad[0, 0, 0].item() == pytest.approx(1.83415978778e-05, abs=1e-12)
    assert codes.grad.norm().item() == pytest.approx(0.000684004431638, abs=1e-12)


@pytest.mark.parametrize(("n", "k"), [(6, 3), (3, 4), (5, 2)])
def test_equals_the_literal_sums(n, k):
    rng = np.random.default_rng(n * k)
    codes = [rng.standard_normal((n, 2)) for _ in range(k)]
    assert statistic(codes).item() == pytest.approx(brute_force(codes), abs=1e-12)


def test_two_variables_is_hsic():
    # tr(G H L H) / n^2, the biased HSIC; the paper's equation 12 lacks the 1 / n^4.
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 3))
    centring = np.eye(8) - 1 / 8
    hsic = np.trace(gram(x)[0].numpy() @ centring @ gram(y)[0].numpy() @ centring) / 64
    assert statistic([x, y]).item() == pytest.approx(hsic, abs=1e-12)


@pytest.mark.parametrize(("k", "n", "d"), [(4, 32, 20), (2, 7, 1), (3, 5, 2)])
def test_value_and_gradient_are_those_of_the_plain_formula(k, n, d):
    rng = np.random.default_rng(k)
    codes = torch.tensor(rng.normal(size=(k, n, d)) + rng.normal(size=(n, d)), requires_grad=True)
    value, expected = dhsic(codes), plain(codes)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    (gradient,) = torch.autograd.grad(3.0 * value, codes)
    (expected,) = torch.autograd.grad(3.0 * expected, codes)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


def test_gradcheck():
    codes = torch.tensor(np.stack([z[:5, :2] for z in case_b()]), requires_grad=True)
    assert torch.autograd.gradcheck(dhsic, codes)


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


def test_collapsed_codes_have_a_finite_gradient():
    codes = torch.full((3, 10, 2), 1e-6, requires_grad=True)
    dhsic(codes).backward()
    assert codes.grad.isfinite().all()


def test_depends_on_neither_the_order_of_variables_nor_that_of_rows():
    codes = case_b()
    value = statistic(codes).item()
    assert statistic(codes[::-1]).item() == pytest.approx(value, abs=1e-15)
    assert statistic([z[::-1].copy() for z in codes]).item() == pytest.approx(value, abs=1e-14)


def same_twice(spread, offset):
    """Two equal codes of 64 rows in float32."""
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 64, 3))).float()
    return (spread * z + offset).expand(2, 64, 3)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_an_offset_does_not_matter(offset):
    z = same_twice(1.0, offset)
    exact = dhsic(z.double())
    torch.testing.assert_close(dhsic(z).double(), exact, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("spread", [1e3, 1e4, 1e5])
def test_widely_spread_codes_neither_overflow_nor_underflow(spread):
    z = same_twice(spread, 0.0).clone().requires_grad_()
    value = dhsic(z)
    exact = dhsic(z.detach().double())
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=0.0)
    value.backward()
    assert z.grad.isfinite().all()


def test_dependent_codes_score_higher_than_independent_ones():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200, 2))
    others = [rng.standard_normal((200, 2)) for _ in range(2)]
    assert statistic([z, z, z]) > 5 * statistic([z, *others])
