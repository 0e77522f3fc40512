"""Parts of the data that components of a mixture start from."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from skmvae import MVAETransformer
from skmvae._distributed.group import ALONE
from skmvae._model.objective import OBJECTIVES
from skmvae._rows import parts as module
from skmvae._rows.parts import find_parts
from skmvae._rows.scaled import ScaledRows
from skmvae.architectures import MLP


def parts_of(X, k, training=None, seed=0, k_separate=False):
    rows = ScaledRows(X, np.zeros(X.shape[1]), 1.0, torch.device("cpu"))
    training = np.arange(len(X)) if training is None else training
    return find_parts(
        rows, training, k, k_separate=k_separate, precision="float32", seed=seed, group=ALONE
    )


def blobs(sizes, n_columns=10, seed=0):
    return make_blobs(sizes, n_columns, cluster_std=1.0, center_box=(-9, 9), random_state=seed)


def moons(n=600):
    X, y = make_moons(n, noise=0.05, random_state=0)
    return np.hstack([X, 0.02 * np.random.default_rng(0).normal(size=(n, 6))]), y


@pytest.mark.parametrize("k", [3, 8])
def test_separate_parts_are_found_and_counted(k):
    X, y = blobs([60, 250, 700])
    parts = parts_of(X, k)
    assert adjusted_rand_score(y, parts.labels) == 1.0
    found = np.sort(parts.shares)
    np.testing.assert_allclose(found[-3:], [60 / 1010, 250 / 1010, 700 / 1010])
    assert (found[:-3] == 0.0).all()


@pytest.mark.parametrize("n", [600, 3000])
def test_parts_need_not_be_round(n):
    X, y = moons(n)
    assert adjusted_rand_score(y, parts_of(X, 4).labels) == 1.0


def test_a_few_rows_between_them_do_not_join_parts():
    X, y = moons(1200)
    rng = np.random.default_rng(1)
    between = X[y == 0][:6] + np.linspace(0, 1, 6)[:, np.newaxis] * (X[y == 1][0] - X[y == 0][0])
    X = np.vstack([X, between + 0.02 * rng.normal(size=between.shape)])
    assert adjusted_rand_score(y, parts_of(X, 6).labels[:1200]) > 0.99


@pytest.mark.parametrize("seed", range(5))
def test_many_parts_are_all_found(seed):
    X, y = make_blobs([100] * 8, 5, cluster_std=0.5, center_box=(-9, 9), random_state=seed)
    assert adjusted_rand_score(y, parts_of(X, 8).labels) > 0.99
    two_as_one = parts_of(X, 7)
    assert np.sort(two_as_one.shares) == pytest.approx([1 / 8] * 6 + [1 / 4], abs=0.01)


def test_a_few_rows_far_away_are_no_part():
    X, y = blobs([1000, 1000])
    far = 100 + np.random.default_rng(0).normal(size=(18, 10))
    parts = parts_of(np.vstack([X, far]), 4)
    assert adjusted_rand_score(y, parts.labels[:2000]) == 1.0
    assert (parts.shares > 0).sum() == 2


def test_wide_and_many_rows_have_the_parts_of_a_sample(monkeypatch):
    monkeypatch.setattr(module, "_MOST_ROWS", 300)
    monkeypatch.setattr(module, "_MOST_OF_SEPARATE", 200)
    X, y = blobs([300, 300, 300], n_columns=80)
    training = np.arange(0, 900, 2)
    parts = parts_of(X, 5, training)
    assert adjusted_rand_score(y, parts.labels) == 1.0
    assert sorted(parts.shares[parts.shares > 0]) == pytest.approx([1 / 3] * 3, abs=0.05)


@pytest.mark.parametrize("k", [10, 16])
def test_parts_that_are_not_separate_are_found_and_counted(k, digits):
    X, y = digits[0] / 16, digits[1]
    parts = parts_of(X, k)
    assert 8 <= (parts.shares > 0).sum() <= 13
    assert normalized_mutual_info_score(y, parts.labels) > 0.75


def test_parts_that_overlap_are_told_by_where_the_rows_are():
    """Their codes, spread evenly over a sphere, do not know where rows are dense."""
    X, y = make_blobs([500, 500], centers=[[0, 0], [4, 0]], random_state=0)
    assert adjusted_rand_score(y, parts_of(X, 2).labels) > 0.85


def test_rows_of_one_part_are_divided_into_as_many_as_are_asked_for():
    X = np.random.default_rng(0).normal(size=(500, 8))
    assert (parts_of(X, 4).shares > 0.1).all()


@pytest.mark.parametrize("n", [3, 4, 10, 30, 60])
@pytest.mark.parametrize("k", [2, 8, 16])
def test_of_few_rows_no_part_is_a_handful(n, k):
    parts = parts_of(np.random.default_rng(n).normal(size=(n, 5)), k)
    if n < 10:
        assert parts is None
    if parts is not None:
        assert (parts.shares > 0).sum() > 1


@pytest.mark.parametrize(
    ("X", "k"),
    [(np.ones((50, 3)), 2), (np.eye(4), 4), (np.repeat(np.eye(3), 8, axis=0), 4)],
    ids=["constant", "one row a part", "fewer different rows than parts"],
)
def test_rows_that_cannot_be_divided_have_no_parts(X, k):
    assert parts_of(X, k) is None


def test_a_density_wants_k_separate_parts(digits):
    X, _ = blobs([200, 200])
    assert parts_of(X, 2, k_separate=True) is not None
    assert parts_of(X, 5, k_separate=True) is None
    assert parts_of(digits[0] / 16, 10, k_separate=True) is None


def test_the_same_seed_finds_the_same_parts():
    X, _ = blobs([100, 200])
    first, second = parts_of(X, 4, seed=3), parts_of(X, 4, seed=3)
    assert np.array_equal(first.labels, second.labels)


# What the estimator does with them.


def fitted(X, **params):
    settings = {"latent_dim": 1, "architecture": MLP((32,)), "max_iter": 20, "random_state": 0}
    return MVAETransformer(**settings | {"objective": "mixture", "device": "cpu"} | params).fit(X)


def test_clusters_are_the_parts_and_no_more():
    X, y = blobs([100, 300, 600])
    mvae = fitted(X[::2], k=6, objective="clusters")
    assert (mvae.weights_ > 0.02).sum() == 3
    assert adjusted_rand_score(y[1::2], mvae.predict(X[1::2])) > 0.95
    assert mvae.prune(0.02).k == 3


def test_a_mixture_has_a_component_for_each_part_or_uses_all():
    X, y = blobs([100, 300, 600])
    mvae = fitted(X[::2], k=3)
    assert adjusted_rand_score(y[1::2], mvae.predict(X[1::2])) > 0.95
    assert (fitted(X, k=6).weights_ > 0.02).sum() > 3


def test_a_warm_start_keeps_idle_components_idle_and_does_not_start_anew(monkeypatch):
    X, y = blobs([100, 300, 600])
    mvae = fitted(X, k=6, objective="clusters", warm_start=True)
    monkeypatch.delattr("skmvae._fit.fitting.find_parts")
    assert (mvae.fit(X).weights_ > 0.02).sum() == 3
    pruned = mvae.prune(0.02).fit(X)
    assert pruned.k == 3
    assert adjusted_rand_score(y, pruned.predict(X)) > 0.95


@pytest.mark.parametrize("objective", ["mixture", "clusters"])
def test_a_fit_that_goes_on_keeps_parts_of_unequal_share(objective):
    """Equal shares would divide the large part between both components."""
    X, y = blobs([60, 1200])
    mvae = fitted(X, k=2, objective=objective)
    for go_on in (mvae.set_params(warm_start=True).fit, mvae.prune().partial_fit):
        assert adjusted_rand_score(y, go_on(X).predict(X)) > 0.75


def test_chunks_start_from_the_parts_of_the_first_one():
    X, y = blobs([300, 300, 300])
    mvae = MVAETransformer(5, latent_dim=1, objective="clusters", random_state=0)
    for _ in range(40):
        mvae.partial_fit(X)
    assert adjusted_rand_score(y, mvae.predict(X)) > 0.95
    assert mvae.prune().k == 3
    # weights_ have forgotten the network of the first chunks.
    now = mvae.mixing_weights(X).mean(axis=0)
    np.testing.assert_allclose(mvae.weights_, now, atol=0.0015)
    # A chunk of one part does not take the components of the others from them.
    before = mvae.weights_
    mvae.partial_fit(X[y == 0])
    np.testing.assert_allclose(mvae.weights_, before, atol=1 / 10)
    assert (mvae.weights_ > 0.1).sum() == 3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_objectives_of_parts_alone_start_from_them(objective, monkeypatch):
    asked = []
    monkeypatch.setattr("skmvae._fit.fitting.find_parts", lambda *args, **kwargs: asked.append(1))
    X, _ = blobs([60, 60])
    fitted(X, k=2, objective=objective, max_iter=1)
    fitted(X, k=1, objective=objective, max_iter=1)
    assert len(asked) == (objective in ("mixture", "clusters"))
