"""Metrics against golden numbers, slow versions and their limits."""

import numpy as np
import pytest
import torch
from scipy import sparse

from skmvae import metrics
from skmvae._model.dhsic import centred, dhsic_of_means, rbf_grams
from skmvae.metrics import (
    dhsic_score,
    effective_components,
    inception_score,
    neighbor_purity,
    reconstruction_error,
)

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [1 / 3, 1 / 3, 1 / 3]])


def golden_codes():
    rng = np.random.RandomState(0)
    shared = rng.standard_normal((32, 20))
    return np.hstack([0.5 * shared + rng.standard_normal((32, 20)) for _ in range(4)])


@pytest.mark.parametrize("block", [1, 7, 32, 100])
def test_dhsic_in_blocks_is_dhsic(block, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK_ROWS", block)
    # Case B has the number of hyppo with the authors' bandwidth.
    assert dhsic_score(golden_codes(), 4) == pytest.approx(0.018762589197400648, abs=1e-14)
    z = centred(torch.tensor(golden_codes()).unflatten(1, (4, 20)).transpose(0, 1))
    for gamma in (None, 0.3):
        expected = dhsic_of_means(rbf_grams(z, gamma).mean(-1)).item()
        assert dhsic_score(golden_codes(), 4, gamma=gamma) == pytest.approx(expected, abs=1e-15)


def test_dhsic_tells_copies_from_independent_codes():
    z = np.random.default_rng(0).normal(size=(400, 2))
    assert dhsic_score(z, 2) < 0.01 < dhsic_score(z[:, [0, 0]], 2)
    assert dhsic_score(z, 1) == 0.0
    Z = np.random.default_rng(0).normal(size=(128, 80))  # as the pages quote them
    assert dhsic_score(Z, k=4) == pytest.approx(0.004, abs=0.0005)
    assert dhsic_score(np.tile(Z[:, :20], 4), k=4) == pytest.approx(0.014, abs=0.0005)


@pytest.mark.parametrize(
    ("Z", "arguments", "message"),
    [
        (np.ones((10, 7)), {"k": 2}, "7 columns, which k=2 does not divide"),
        (np.ones((3, 4)), {"k": 2}, "minimum of 4 is required"),
        (np.full((10, 4), np.nan), {"k": 2}, "Z contains NaN"),
        (np.ones((10, 4)), {"k": 0}, "k must be an int >= 1. Got 0"),
        (np.ones((10, 4)), {"k": 2, "gamma": 0.0}, "gamma must be"),
        (1e155 * np.random.default_rng(0).normal(size=(20, 2)), {"k": 2}, "too large"),
    ],
)
def test_dhsic_refuses(Z, arguments, message):
    with pytest.raises(ValueError, match=message):
        dhsic_score(Z, **arguments)


def test_reconstruction_errors_by_hand():
    X, Y = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[1.0, 1.0], [0.0, 0.0]])
    assert reconstruction_error(X, Y) == (2 + 25) / 2
    assert reconstruction_error(X, Y, kind="mean") == (2 + 25) / 4
    assert reconstruction_error(X, Y, kind="root_sum") == pytest.approx(13.5**0.5)
    assert reconstruction_error(X.astype(np.float32), Y.tolist()) == 13.5
    with pytest.raises(ValueError, match=r"\(2, 2\) and reconstruction \(2, 1\)"):
        reconstruction_error(X, Y[:, :1])
    with pytest.raises(ValueError, match="kind must be one of"):
        reconstruction_error(X, Y, kind="rmse")


def test_inception_score_golden_numbers():
    """Equation 15 by hand, and as torch-fidelity gives it."""
    mean, std = inception_score(P, splits=1)
    assert (mean, std) == (pytest.approx(1.24439640541095, abs=1e-12), 0.0)
    mean, std = inception_score(P, splits=2)
    assert mean == pytest.approx(1.14327335238782, abs=1e-12)
    assert std == pytest.approx(0.106451221608026, abs=1e-12)
    assert inception_score(np.full((20, 5), 0.2))[0] == pytest.approx(1.0)
    assert inception_score(np.tile(np.eye(5), (4, 1)), splits=2)[0] == pytest.approx(5.0)
    for bad in (P - 0.3, 2 * P):
        with pytest.raises(ValueError, match="predict_proba"):
            inception_score(bad, splits=1)
    with pytest.raises(ValueError, match="minimum of 5 is required"):
        inception_score(P, splits=5)


def test_effective_components():
    assert effective_components([0.5, 0.5, 0.0]) == pytest.approx(2.0)
    assert effective_components([7.0, 7.0, 7.0]) == pytest.approx(3.0)
    for bad in ([-1.0, 2.0], [0.0, 0.0], [[0.5, 0.5]]):
        with pytest.raises(ValueError, match="weights must be one number >= 0"):
            effective_components(bad)


def test_neighbor_purity_is_the_share_of_equal_labels_among_mutual_neighbours():
    X, y = np.array([[0.0], [0.1], [0.3], [5.0], [5.2]]), np.array(["a", "a", "b", "c", "c"])
    # With one neighbour 0 and 1 have each other, and 3 and 4.
    assert neighbor_purity(X, y, n_neighbors=1) == 1.0
    # With two also 0 and 2, 1 and 2, whose labels differ.
    assert neighbor_purity(X, y, n_neighbors=2) == pytest.approx(2 / 4)
    assert neighbor_purity(sparse.csr_array(X), y, n_neighbors=2) == pytest.approx(2 / 4)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e39])
def test_neighbor_purity_does_not_depend_on_units_nor_on_the_order_of_rows(scale):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(10), 30)
    X = scale * (3.0 * rng.normal(size=(10, 8))[y] + rng.normal(size=(300, 8)))
    assert neighbor_purity(X + 1e3 * scale, y) > 0.9
    assert neighbor_purity(np.zeros((300, 2)), y) < 0.2


def test_neighbor_purity_of_one_row_is_nan():
    assert np.isnan(neighbor_purity([[1.0, 2.0]], [0]))


def test_neighbor_purity_refuses_labels_of_other_rows():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        neighbor_purity(np.eye(3), [0, 1])
