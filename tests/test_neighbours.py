"""The graph of neighbours and the term that pairs rows with them, against slow versions."""

import numpy as np
import pytest
import torch
from networks import generator, random
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from skmvae import MVAETransformer
from skmvae._model import neighbours as term
from skmvae._model.minibatch import Minibatch
from skmvae._model.neighbours import TEMPERATURE, info_nce
from skmvae._rows import neighbours as graph
from skmvae._rows import projection
from skmvae._rows.neighbours import NeighbourGraph, find_neighbours
from skmvae._rows.scaled import ScaledRows

CPU = torch.device("cpu")


def rows_of(X):
    return ScaledRows(X, 0.0, 1.0, CPU)


def graph_of(X, n_neighbors, training=None, seed=0, report=print):
    training = np.arange(X.shape[0]) if training is None else training
    return find_neighbours(rows_of(X), training, n_neighbors, seed=seed, report=report)


def pairs_of(partners):
    return set(zip(*(numbers.tolist() for numbers in partners.pairs()), strict=True))


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
    partners = graph_of(storage(X), 4, training)
    assert pairs_of(partners) == mutual_pairs(X, training, 4)
    assert drawn(partners, 120) == pairs_of(partners)


def test_every_mutual_neighbour_is_drawn_as_often():
    partners = NeighbourGraph(sparse.csr_array([[0, 1, 1], [0, 0, 0], [1, 0, 0]]))
    rng = np.random.default_rng(0)
    draws = np.array([partners.draw(np.array([0, 1, 2]), rng) for _ in range(4000)])
    assert set(draws[:, 1]) == {1}
    assert set(draws[:, 2]) == {0}
    assert (draws[:, 0] == 1).mean() == pytest.approx(0.5, abs=0.03)


def test_many_rows_are_divided_into_groups(monkeypatch):
    monkeypatch.setattr(graph, "_GROUP_ROWS", 25)
    monkeypatch.setattr(graph, "_STRETCH_ROWS", 4)
    groups = list(graph._groups(102, np.random.default_rng(0)))
    assert sorted(np.concatenate(groups)) == list(range(102))
    assert max(len(group) for group in groups) <= 24
    X = np.random.default_rng(0).normal(size=(102, 3))
    pairs = pairs_of(graph_of(X, 3))
    together = {(i, j) for group in groups for i in group for j in group}
    assert len(pairs) > 100
    assert pairs <= together


def test_a_long_search_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr(graph, "_GROUP_ROWS", 40)
    monkeypatch.setattr(graph, "_STRETCH_ROWS", 8)
    X, lines = np.random.default_rng(0).normal(size=(120, 3)), []
    graph_of(X, 3, report=lines.append)
    assert lines == []
    monkeypatch.setattr(graph, "_SECONDS_TO_FIRST_LINE", 0.0)
    monkeypatch.setattr(graph, "_SECONDS_BETWEEN_LINES", 0.0)
    graph_of(X, 3, report=lines.append)
    assert lines[-1] == "neighbours of 120 of 120 rows found, 0 s left"
    assert len(lines) == 3


def test_wide_rows_are_projected_to_principal_components():
    """Noise in hundreds of columns does not hide the neighbours in a few strong ones."""
    rng = np.random.default_rng(0)
    X = np.hstack([10 * rng.normal(size=(300, 3)), 0.05 * rng.normal(size=(300, 300))])
    found = pairs_of(graph_of(X, 5))
    expected = mutual_pairs(X[:, :3], np.arange(300), 5)
    assert len(found & expected) > 0.9 * len(expected)


def test_the_same_seed_gives_the_same_graph():
    X = np.random.default_rng(0).normal(size=(200, 60))
    assert pairs_of(graph_of(X, 5, seed=3)) == pairs_of(graph_of(X, 5, seed=3))


@pytest.mark.parametrize(
    "X",
    [np.ones((1, 3)), np.eye(2), np.zeros((5, 3)), np.ones((3, 80))],
    ids=["one row", "two rows", "constant", "constant and wide"],
)
def test_few_and_equal_rows_have_partners_or_none(X):
    for n_neighbors in (10, 10**12):
        assert len(pairs_of(graph_of(X, n_neighbors))) == len(X) * (len(X) - 1)
    mvae = MVAETransformer(k=2, latent_dim=2, max_iter=2, neighbor_weight=0.1).fit(X)
    assert np.isfinite(mvae.history_["neighbors"]).all()


def test_equal_rows_are_paired_at_random():
    """Ties broken by the order of the rows would leave all but a few without a partner."""
    first, second = graph_of(np.zeros((200, 3)), 5).pairs()
    assert len(set(first)) == 200
    assert np.abs(first - second).mean() > 50
    X = np.random.default_rng(0).integers(0, 2, size=(400, 4)).astype(float)
    first, second = graph_of(X, 5).pairs()
    assert len(set(first)) > 380
    assert np.array_equal(X[first], X[second])


def test_neighbours_far_from_the_mean_are_found():
    """In float32 the distances within a cloud would be rounded away."""
    rng = np.random.default_rng(0)
    X = 1e-3 * rng.normal(size=(300, 4)) + np.where(rng.random(300) < 0.5, 10, -10)[:, np.newaxis]
    expected = mutual_pairs(X, np.arange(300), 5)
    assert len(pairs_of(graph_of(X, 5)) & expected) > 0.98 * len(expected)


def test_wide_rows_are_projected_by_fewer_of_them(monkeypatch):
    monkeypatch.setattr(projection, "_PCA_VALUES", 200 * 60)
    X = np.random.default_rng(0).normal(size=(300, 60)) * np.geomspace(1, 1e-6, 60)
    expected = mutual_pairs(X, np.arange(300), 5)
    assert len(pairs_of(graph_of(X, 5)) & expected) > 0.98 * len(expected)


def slow_info_nce(mean, partner_mean, ids, stride=1):
    """The formula with loops; the negatives are every ``stride``-th row."""
    own, other = ids.tolist()
    rows, total = [i for i in range(len(own)) if own[i] != other[i]], 0.0
    for h, p in zip(mean, partner_mean, strict=True):
        h, p = h / h.norm(dim=1, keepdim=True), p / p.norm(dim=1, keepdim=True)
        for i in rows:
            for anchor, candidates, number, numbers in (
                (h[i], p, own[i], other),
                (p[i], h, other[i], own),
            ):
                negatives = [j for j in rows if j % stride == 0 and numbers[j] != number and j != i]
                scores = [anchor @ candidates[j] / TEMPERATURE for j in (i, *negatives)]
                total = total - 0.5 * torch.log_softmax(torch.stack(scores), 0)[0]
    return total / max(len(rows), 1) / len(mean)


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


def test_negatives_of_a_large_minibatch_are_some_of_its_rows(monkeypatch):
    monkeypatch.setattr(term, "_MOST_NEGATIVES", 4)
    mean, partner_mean, ids = case()
    found = info_nce(mean, partner_mean, ids, Minibatch.whole(9))
    expected = slow_info_nce(mean, partner_mean, ids, stride=3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_code_of_zero_has_a_small_gradient():
    mean, partner_mean, ids = case()
    mean.data[:, 0] = 0.0
    info_nce(mean, partner_mean, ids, Minibatch.whole(9)).backward()
    assert mean.grad.isfinite().all()
    assert mean.grad.abs().max() < 1e3


@pytest.mark.parametrize("most", [4, 512])
def test_slices_add_up_to_the_whole(monkeypatch, most):
    """Each process has its own rows as anchors, and rows of all as candidates."""
    monkeypatch.setattr(term, "_MOST_NEGATIVES", most)
    mean, partner_mean, ids = case()
    whole = info_nce(mean, partner_mean, ids, Minibatch.whole(9))
    sums = []  # of what all slices hand over, call by call

    def value(start, size, hand_over):
        rows = slice(start, start + size)
        calls = iter(range(9))
        part = Minibatch(9, start, size, 2, lambda own: hand_over(next(calls), own))
        return info_nce(mean[:, rows], partner_mean[:, rows], ids[:, rows], part).item()

    def add(call, own):
        if call == len(sums):
            sums.append(torch.zeros_like(own))
        sums[call] += own.detach()
        return own

    for slice_of in ((0, 4), (4, 5)):
        value(*slice_of, add)
    total = sum(value(*slice_of, lambda call, _: sums[call]) for slice_of in ((0, 4), (4, 5)))
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


def test_equal_rows_have_the_same_partners_for_the_same_random_state():
    X = np.repeat(two_clouds()[::30], 30, axis=0)
    first, second = (make(neighbor_weight=0.5).fit(X) for _ in range(2))
    assert first.history_["neighbors"] == second.history_["neighbors"]


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


def test_ctrl_c_while_neighbours_are_sought_leaves_the_fit_before(monkeypatch):
    X = two_clouds()
    mvae = make(neighbor_weight=0.1).fit(X)
    before = mvae.transform(X)

    def interrupted(points, n_neighbors, rng):
        raise KeyboardInterrupt

    monkeypatch.setattr(graph, "nearest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mvae.fit(2 * X)
    np.testing.assert_array_equal(mvae.transform(X), before)


def test_divergence_names_the_term():
    with pytest.raises(ValueError, match=r"neighbors became non-finite.*neighbor_weight"):
        make(neighbor_weight=1e38).fit(two_clouds())


def test_the_time_that_neighbours_take_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(graph, "_SECONDS_TO_FIRST_LINE", 0.0)
    make(neighbor_weight=0.1, verbose=1).fit(two_clouds())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "neighbours of 300 of 300 rows found, 0 s left"
    assert "neighbors" in lines[1]


def with_holes(X, fraction=0.5):
    return np.where(np.random.default_rng(1).random(X.shape) < fraction, np.nan, X)


@pytest.mark.parametrize("n_features", [20, 120])
def test_rows_with_holes_are_near_to_what_is_near_in_what_was_observed(n_features):
    """With means in the holes of these rows, a third of the pairs are not of one cluster."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(20, size=1000)
    z = rng.normal(size=(20, 4))[cluster] + 0.1 * rng.normal(size=(1000, 4))
    X = z @ rng.normal(size=(4, n_features)) + 0.1 * rng.normal(size=(1000, n_features))
    rows = ScaledRows(with_holes(X), 0.0, 1.0, torch.device("cpu"), fill=np.zeros(n_features))
    first, second = find_neighbours(
        rows, np.arange(1000), 10, seed=0, report=lambda line: None
    ).pairs()
    purity = np.mean(cluster[first] == cluster[second])
    assert purity > 0.9


def test_points_of_rows_with_holes_minimise_their_criterion():
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(7, 3)))[0].astype(np.float32)
    ratios = np.array([0.1, 0.5, 2.0], np.float32)
    x = with_holes(rng.normal(size=(5, 7)).astype(np.float32), 0.4)
    x[4] = np.nan
    tensors = map(torch.tensor, (directions, np.full(7, 2.0, np.float32), ratios))
    found = projection.Projection(*tensors).points(torch.tensor(x + np.float32(2.0)))
    for row, point in zip(x, found.numpy(), strict=True):
        seen = ~np.isnan(row)
        # Ridge regression as least squares with three more rows.
        A = np.vstack([directions[seen], np.diag(np.sqrt(ratios))])
        expected = np.linalg.lstsq(A, np.append(row[seen], np.zeros(3)), rcond=None)[0]
        np.testing.assert_allclose(point, expected, atol=1e-5)
