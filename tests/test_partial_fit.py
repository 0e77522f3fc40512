"""Rows in chunks: one epoch on each, as if nothing lay between the calls."""

import copy
import pickle

import numpy as np
import pytest
import skops.io
from scipy import sparse

import skmvae
from skmvae import SKOPS_TRUSTED, DivergenceError


def assert_same(found, expected):
    for name, array in expected._state.arrays.items():
        np.testing.assert_array_equal(found._state.arrays[name], array, err_msg=name)
    assert found.n_iter_ == expected.n_iter_
    assert found.history_["loss"] == expected.history_["loss"]


def through_skops(mvae, path):
    skops.io.dump(mvae, path)
    return skops.io.load(path, trusted=SKOPS_TRUSTED)


def through_model_file(mvae, path):
    mvae.save(path)
    return skmvae.load(path)


WAYS = {
    "at once": lambda mvae, path: mvae,
    "deepcopy": lambda mvae, path: copy.deepcopy(mvae),
    "pickle": lambda mvae, path: pickle.loads(pickle.dumps(mvae)),
    "skops": through_skops,
    "model file": through_model_file,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("objective", ["melbo", "averaged"])
@pytest.mark.cpu
def test_calls_on_the_same_rows_are_the_epochs_of_a_fit(
    make_small, digits, tmp_path, way, objective
):
    X, _ = digits
    mvae = make_small(objective=objective)
    for _ in range(3):
        mvae = WAYS[way](mvae.partial_fit(X), tmp_path / "model")
    assert_same(mvae, make_small(objective=objective, max_iter=3).fit(X))
    assert mvae.weights_ == pytest.approx(mvae.mixing_weights(X).mean(axis=0))


def test_the_first_chunk_sets_units_and_columns(make_small, digits):
    X = digits[0][:, 20:30]
    mvae = make_small().partial_fit(X[:100]).partial_fit(10 * X[100:])
    reference = make_small(max_iter=1).fit(X[:100])
    np.testing.assert_array_equal(mvae.mean_, reference.mean_)
    assert mvae.scale_ == reference.scale_
    with pytest.raises(ValueError, match="9 features"):
        mvae.partial_fit(X[:, 1:])


def test_chunks_of_any_size(make_small, digits):
    X, _ = digits
    mvae = make_small(batch_size=None)
    for chunk in (X[:200], X[200:201], X[201:204], X[204:]):
        mvae.partial_fit(chunk)
    assert mvae.n_iter_ == 4
    assert np.isfinite(mvae.transform(X)).all()


@pytest.mark.cpu
def test_sparse_chunks_are_those_of_dense_rows(make_small, digits):
    X, _ = digits
    found, expected = make_small(), make_small()
    for chunk in np.split(X, 2):
        found.partial_fit(sparse.csr_array(chunk))
        expected.partial_fit(chunk)
    assert_same(found, expected)


@pytest.mark.parametrize("n_rows", [1, 5])
@pytest.mark.cpu
def test_a_first_chunk_without_a_spread_is_refused(make_small, digits, n_rows):
    X, _ = digits
    mvae = make_small()
    with pytest.raises(ValueError, match=rf"first chunk.*\({n_rows}\).*rows that differ"):
        mvae.partial_fit(np.repeat(X[:1], n_rows, axis=0))
    assert not hasattr(mvae, "n_features_in_")
    assert_same(mvae.partial_fit(X), make_small(max_iter=1).fit(X))
    mvae.partial_fit(np.repeat(X[:1], n_rows, axis=0))  # later it is a chunk like others
    assert mvae.n_iter_ == 2


def test_a_bernoulli_has_its_units(make_small, digits):
    mvae = make_small(likelihood="bernoulli").partial_fit(np.zeros((5, 64)))
    assert mvae.partial_fit(digits[0] / 16).scale_ == 1.0
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        mvae.partial_fit(digits[0])


def bad_chunk(X):
    X = X.copy()
    X[7, 3] = np.nan
    return X


@pytest.mark.parametrize(
    ("change", "chunk", "error", "match"),
    [
        ({}, bad_chunk, ValueError, "NaN"),
        ({"k": 4}, lambda X: X, ValueError, "k=3.*k=4"),
        ({"learning_rate": 1e30, "batch_size": 16}, lambda X: X, DivergenceError, "learning_rate"),
        ({"max_iter": 0}, lambda X: X, ValueError, "max_iter"),
    ],
)
@pytest.mark.cpu
def test_a_call_that_fails_changes_nothing(make_small, digits, change, chunk, error, match):
    X, _ = digits
    mvae, expected = make_small(), make_small()
    for part in np.split(X[:400], 2):
        mvae.partial_fit(part)
        expected.partial_fit(part)
    with pytest.raises(error, match=match):
        mvae.set_params(**change).partial_fit(chunk(X[400:]))
    mvae.set_params(**expected.get_params())
    assert_same(mvae, expected)
    assert_same(mvae.partial_fit(X[400:]), expected.partial_fit(X[400:]))


@pytest.mark.cpu
def test_a_copy_goes_its_own_way(make_small, digits):
    X, _ = digits
    mvae = make_small().partial_fit(X)
    other = copy.copy(mvae)  # shares the arrays
    expected = pickle.loads(pickle.dumps(mvae))
    mvae.partial_fit(X[:100])
    assert_same(other.partial_fit(X[100:]), expected.partial_fit(X[100:]))


@pytest.mark.cpu
def test_fit_begins_anew(make_small, digits):
    X, _ = digits
    mvae = make_small().partial_fit(X).fit(X)
    assert_same(mvae, make_small().fit(X))
    assert "_training" not in vars(mvae)


def test_after_fit_it_goes_on_from_its_weights(make_small, digits):
    X, _ = digits
    mvae = make_small(max_iter=3).fit(X)
    loss = mvae.history_["loss"]
    mvae.partial_fit(X)
    assert mvae.history_["loss"][:3] == loss
    assert mvae.history_["loss"][3] < loss[0]


def test_warm_start_goes_on_from_its_weights(make_small, digits):
    X, _ = digits
    mvae = make_small(warm_start=True).partial_fit(X).fit(X)
    assert mvae.n_iter_ == 3
    assert "_training" not in vars(mvae)


def test_a_pruned_estimator_can_go_on(make_small, digits):
    X, _ = digits
    mvae = make_small().partial_fit(X)
    pruned = mvae.prune(sorted(mvae.weights_)[1])
    assert pruned.partial_fit(X).k == 2


def test_early_stopping_has_none(make_small):
    mvae = make_small(early_stopping=True)
    assert not hasattr(mvae, "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit") as raised:
        mvae.partial_fit  # noqa: B018
    assert "early_stopping=False" in str(raised.value.__cause__)


def test_without_an_end_the_rate_is_a_third(make_small, digits):
    mvae = make_small(learning_rate=3e-3, learning_rate_schedule="trapezoid")
    mvae.partial_fit(digits[0]).partial_fit(digits[0])
    assert mvae.history_["learning_rate"] == pytest.approx([1e-3, 1e-3])


def damaged(training, **changes):
    return type(training)(**{"arrays": training.arrays, "values": training.values} | changes)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda t: {"arrays": {}}, "TrainingState"),
        (lambda t: damaged(t, values={}), "seed of the saved training"),
        (lambda t: damaged(t, arrays={}), "exp_avg/"),
        (
            lambda t: damaged(t, arrays={n: a.ravel() for n, a in t.arrays.items()}),
            "exp_avg/.*must be float32",
        ),
    ],
)
def test_damaged_moments_are_refused(make_small, digits, damage, match):
    mvae = make_small().partial_fit(digits[0])
    state = mvae.__getstate__()
    state["_training"] = damage(mvae._training)
    with pytest.raises(ValueError, match=match):
        make_small().__setstate__(state)
