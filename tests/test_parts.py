"""Parts of the data that components of a mixture start from."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score

from skmvae import MVAETransformer
from skmvae._distributed.group import ALONE
from skmvae._model.objective import OBJECTIVES
from skmvae._parameters import settings_of
from skmvae._rows import parts as module
from skmvae._rows.parts import find_parts
from skmvae._rows.scaled import ScaledRows
from skmvae.architectures import MLP


def parts_of(X, k, training=None, seed=0):
    rows = ScaledRows(X, np.zeros(X.shape[1]), 1.0, torch.device("cpu"))
    training = np.arange(len(X)) if training is None else training
    return find_parts(rows, training, range(2, k + 1), seed, ALONE)


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


@pytest.mark.parametrize("seed", range(5))
def test_many_parts_are_all_found(seed):
    X, y = make_blobs([100] * 8, 5, cluster_std=0.5, center_box=(-9, 9), random_state=seed)
    assert adjusted_rand_score(y, parts_of(X, 8).labels) > 0.99
    assert parts_of(X, 7) is None


def test_a_few_rows_far_away_are_no_part():
    X, y = blobs([1000, 1000])
    far = 100 + np.random.default_rng(0).normal(size=(18, 10))
    parts = parts_of(np.vstack([X, far]), 4)
    assert adjusted_rand_score(y, parts.labels[:2000]) == 1.0
    assert (parts.shares > 0).sum() == 2


def test_wide_and_many_rows_have_the_parts_of_a_sample(monkeypatch):
    monkeypatch.setattr(module, "_MOST_ROWS", 200)
    X, y = blobs([300, 300, 300], n_columns=80)
    training = np.arange(0, 900, 2)
    parts = parts_of(X, 5, training)
    assert adjusted_rand_score(y, parts.labels) == 1.0
    assert sorted(parts.shares[parts.shares > 0]) == pytest.approx([1 / 3] * 3, abs=0.05)


@pytest.mark.parametrize(
    ("X", "k"),
    [
        (np.random.default_rng(0).normal(size=(500, 8)), 4),
        (np.random.default_rng(0).uniform(size=(1000, 1)), 60),
        (np.ones((50, 3)), 4),
        (np.random.default_rng(0).normal(size=(7, 3)), 4),
    ],
    ids=["one part", "an interval", "constant", "few rows"],
)
def test_without_separate_parts_there_is_no_start(X, k):
    assert parts_of(X, k) is None


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
    X, _ = blobs([100, 300, 600])
    mvae = fitted(X, k=6, objective="clusters", warm_start=True)
    monkeypatch.delattr("skmvae._fit.fitting.find_parts")
    assert (mvae.fit(X).weights_ > 0.02).sum() == 3
    assert mvae.prune(0.02).fit(X).k == 3


def test_chunks_do_not_start_from_parts(monkeypatch):
    """A chunk of one part would take the components of the others from them."""
    monkeypatch.delattr("skmvae._fit.fitting.find_parts")
    X, y = blobs([300, 300, 300])
    mvae = MVAETransformer(3, latent_dim=1, objective="clusters", random_state=0)
    for chunk in (X, X[y == 0], X[y == 0], X):
        mvae.partial_fit(chunk)
    assert mvae.weights_.min() > 0.1


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_objectives_of_parts_alone_start_from_them(objective):
    mvae = MVAETransformer(k=2, objective=objective, device="cpu")
    assert settings_of(mvae).starts_from_parts == (objective in ("mixture", "clusters"))
    assert not settings_of(mvae.set_params(k=1)).starts_from_parts
