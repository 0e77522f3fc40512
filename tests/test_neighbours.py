"""The graph of neighbours and the term that pairs rows with them, against slow versions."""

import numpy as np
import pytest
import torch
from networks import generator, random
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from skmvae import MVAETransformer
from skmvae._model.minibatch import Minibatch
from skmvae._model.neighbours import TEMPERATURE, info_nce
from skmvae._rows import neighbours as graph
from skmvae._rows.neighbours import NeighbourGraph, find_neighbours
from skmvae._rows.scaled import ScaledRows

CPU = torch.device("cpu")


def rows_of(X):
    return ScaledRows(X, 0.0, 1.0, CPU)


def drawn(partners, n, n_draws=200):
    """All pairs (i, p(i)) of many draws, but for rows that are their own partner."""
    rng, rows = np.random.default_rng(0), np.arange(n)
    found = {(i, j) for _ in range(n_draws) for i, j in enumerate(partners.draw(rows, rng))}
    return {(i, int(j)) for i, j in found if i != j}


def mutual_pairs(X, rows, n_neighbors):
    """Pairs that have each other among their nearest, by scikit-learn and loops."""
    _, nearest = NearestNeighbors(n_neighbors=n_neighbors).fit(X[rows]).kneighbors()
    near = {(rows[i], rows[j]) for i, others in enumerate(nearest) for j in others}
    return {(i, j) for i, j in near if (j, i) in near}


@pytest.mark.parametrize("storage", [np.asarray, sparse.csr_array])
def test_partners_are_the_mutual_neighbours_among_the_training_rows(storage):
    X = np.random.default_rng(0).normal(size=(120, 6))
    training = np.arange(0, 120, 2)
    partners = find_neighbours(rows_of(storage(X)), training, 4, seed=0)
    assert drawn(partners, 120) == mutual_pairs(X, training, 4)


def test_every_mutual_neighbour_is_drawn_as_often():
    partners = NeighbourGraph(np.array([[1, -1, 2], [-1, -1, -1], [0, -1, -1]]))
    rng = np.random.default_rng(0)
    draws = np.array([partners.draw(np.array([0, 1, 2]), rng) for _ in range(4000)])
    assert set(draws[:, 1]) == {1}
    assert set(draws[:, 2]) == {0}
    assert (draws[:, 0] == 1).mean() == pytest.approx(0.5, abs=0.03)


def test_many_rows_are_divided_into_groups(monkeypatch):
    monkeypatch.setattr(graph, "_GROUP_ROWS", 25)
    X = np.random.default_rng(0).normal(size=(100, 3))
    partners = find_neighbours(rows_of(X), np.arange(100), 3, seed=0)
    pairs = drawn(partners, 100)
    assert len(pairs) > 100
    assert len({i for i, _ in pairs}) > 80


def test_wide_rows_are_projected_to_principal_components():
    """Noise in hundreds of columns does not hide the neighbours in a few strong ones."""
    rng = np.random.default_rng(0)
    X = np.hstack([10 * rng.normal(size=(300, 3)), 0.05 * rng.normal(size=(300, 300))])
    found = drawn(find_neighbours(rows_of(X), np.arange(300), 5, seed=0), 300)
    expected = mutual_pairs(X[:, :3], np.arange(300), 5)
    assert len(found & expected) > 0.9 * len(expected)


def test_the_same_seed_gives_the_same_graph():
    X = np.random.default_rng(0).normal(size=(200, 60))
    first, second = (find_neighbours(rows_of(X), np.arange(200), 5, seed=3) for _ in range(2))
    assert np.array_equal(first._neighbours, second._neighbours)


@pytest.mark.parametrize(
    "X",
    [
        np.ones((1, 3)),
        np.eye(2),
        np.zeros((5, 3)),
        np.repeat(np.eye(4), 30, axis=0),
        np.ones((3, 80)),
    ],
    ids=["one row", "two rows", "constant", "duplicates", "constant and wide"],
)
def test_few_and_equal_rows_have_partners_or_none(X):
    partners = find_neighbours(rows_of(X), np.arange(len(X)), 10, seed=0)
    pairs = drawn(partners, len(X))
    assert all(0 <= j < len(X) for _, j in pairs)
    mvae = MVAETransformer(k=2, latent_dim=2, max_iter=2, neighbor_weight=0.1).fit(X)
    assert np.isfinite(mvae.history_["neighbors"]).all()


def slow_info_nce(mean, partner_mean, ids):
    """The formula with loops."""
    h, p = (m.transpose(0, 1).flatten(1) for m in (mean, partner_mean))
    h, p = h / h.norm(dim=1, keepdim=True), p / p.norm(dim=1, keepdim=True)
    own, other = ids.tolist()
    rows = [i for i in range(len(h)) if own[i] != other[i]]
    total = 0.0
    for i in rows:
        for anchor, candidates, number, numbers in (
            (h[i], p, own[i], other),
            (p[i], h, other[i], own),
        ):
            allowed = [j for j in rows if j == i or numbers[j] != number]
            scores = torch.stack([anchor @ candidates[j] / TEMPERATURE for j in allowed])
            total = total - 0.5 * torch.log_softmax(scores, 0)[allowed.index(i)]
    return total / max(len(rows), 1)


def case(n=9):
    mean, partner_mean = random(3, n, 2).requires_grad_(), random(3, n, 2, seed=1).requires_grad_()
    # Row 2 has no partner; 0 and 1 are each other's; 5 is the partner of two.
    ids = torch.tensor([[*range(n)], [1, 0, 2, 5, 5, 20, 3, 30, 31][:n]])
    return mean, partner_mean, ids


def test_info_nce_and_its_gradient_are_those_of_loops():
    mean, partner_mean, ids = case()
    found = info_nce(mean, partner_mean, ids, Minibatch.whole(9))
    expected = slow_info_nce(mean, partner_mean, ids)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found, (mean, partner_mean)),
        torch.autograd.grad(expected, (mean, partner_mean)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_info_nce_does_not_depend_on_the_order_of_rows_and_components():
    mean, partner_mean, ids = case()
    expected = info_nce(mean, partner_mean, ids, Minibatch.whole(9))
    rows, components = torch.randperm(9, generator=generator()), [2, 0, 1]
    found = info_nce(
        mean[components][:, rows],
        partner_mean[components][:, rows],
        ids[:, rows],
        Minibatch.whole(9),
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_info_nce_is_zero_without_pairs():
    mean, partner_mean, _ = case()
    found = info_nce(mean, partner_mean, torch.arange(9).expand(2, 9), Minibatch.whole(9))
    assert found.item() == 0.0
    for gradient in torch.autograd.grad(found, (mean, partner_mean)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_slices_add_up_to_the_whole():
    """Each process has its own rows as anchors, and the rows of all as candidates."""
    mean, partner_mean, ids = case()
    whole = info_nce(mean, partner_mean, ids, Minibatch.whole(9))
    sizes, starts, total = (4, 5), (0, 4), 0.0
    everything = torch.stack(
        [m.transpose(0, 1).flatten(1) for m in (mean.detach(), partner_mean.detach())]
    )
    everything = torch.nn.functional.normalize(everything, dim=2)
    for start, size in zip(starts, sizes, strict=True):

        def all_reduce(padded):
            return ids if padded.dtype == torch.int64 else everything

        part = Minibatch(9, start, size, 2, all_reduce)
        total += info_nce(
            mean[:, start : start + size],
            partner_mean[:, start : start + size],
            ids[:, start : start + size],
            part,
        ).item()
    assert total == pytest.approx(whole.item(), rel=1e-12)


# What the estimator does with it.


def two_clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 8)) + np.repeat([[-3.0], [3.0]], 150, axis=0)


def make(**params):
    return MVAETransformer(
        **{"k": 2, "latent_dim": 2, "max_iter": 3, "random_state": 0, "device": "cpu"} | params
    )


def test_weight_zero_is_the_model_without():
    X = two_clouds()
    plain, zero = make().fit(X), make(neighbor_weight=0, n_neighbors=3).fit(X)
    np.testing.assert_array_equal(plain.transform(X), zero.transform(X))
    assert "neighbors" not in plain.history_


def test_neighbours_of_rows_are_neighbours_of_codes():
    X = two_clouds()
    expected, kept = mutual_pairs(X, np.arange(300), 10), []
    for weight in (0.0, 1.0):
        Z = make(neighbor_weight=weight, latent_dim=4, max_iter=30).fit_transform(X)
        Z /= np.linalg.norm(Z, axis=1, keepdims=True)
        kept.append(len(mutual_pairs(Z, np.arange(300), 10) & expected) / len(expected))
    assert kept[1] > kept[0] + 0.05


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("objective", ["melbo", "averaged", "elbo", "mixture", "clusters"])
def test_the_loss_has_the_term_and_the_validation_loss_has_not(objective, likelihood):
    X = 1 / (1 + np.exp(-two_clouds()))
    mvae = make(
        neighbor_weight=0.5, objective=objective, likelihood=likelihood, early_stopping=True
    ).fit(X)
    h = {name: np.array(column) for name, column in mvae.history_.items()}
    terms = h["reconstruction"] + h["kl_latent"] + h["kl_mixing"] + h["dhsic"]
    np.testing.assert_allclose(h["loss"], terms + 0.5 * 8 * h["neighbors"], rtol=1e-9)
    assert (h["neighbors"] > 0).all()
    assert np.isfinite(h["validation_loss"]).all()
    assert np.isfinite(mvae.score(X))


def test_a_warm_start_and_chunks_have_neighbours_of_their_own():
    X = two_clouds()
    mvae = make(neighbor_weight=0.1, warm_start=True).fit(X).fit(X[:100])
    assert len(mvae.history_["neighbors"]) == 6
    for chunk in np.split(X, 3):
        mvae.partial_fit(chunk)
    assert np.isfinite(mvae.history_["neighbors"]).all()
    without = mvae.set_params(neighbor_weight=0.0).partial_fit(X)
    assert np.isnan(without.history_["neighbors"][-1])
