"""Rows in chunks: each call of partial_fit is one epoch of one fit."""

import copy
import pickle

import numpy as np
import pytest

from skmvae import DivergenceError


def assert_same(found, expected):
    for name, array in expected._state.arrays.items():
        np.testing.assert_array_equal(found._state.arrays[name], array, err_msg=name)
    assert found.n_iter_ == expected.n_iter_
    assert found.history_["loss"] == expected.history_["loss"]


WAYS = {
    "at once": lambda mvae, path: mvae,
    "deepcopy": lambda mvae, path: copy.deepcopy(mvae),
    "pickle": lambda mvae, path: pickle.loads(pickle.dumps(mvae)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.cpu
def test_calls_on_the_same_rows_are_the_epochs_of_a_fit(make_small, digits, tmp_path, way):
    X, objective = digits[0], "averaged" if way == "at once" else "melbo"
    mvae = make_small(objective=objective)
    weights = []
    for _ in range(3):
        mvae = WAYS[way](mvae.partial_fit(X), tmp_path / "model")
        weights.append(mvae.mixing_weights(X).mean(axis=0))
    assert_same(mvae, make_small(objective=objective, max_iter=3).fit(X))
    assert mvae.weights_ == pytest.approx(np.mean(weights, axis=0))


def test_the_first_chunk_sets_units_and_columns(make_small, digits):
    X = digits[0][:, 20:30]
    mvae = make_small(batch_size=None).partial_fit(X[:100])
    for chunk in (10 * X[100:], X[200:201], X[201:204]):
        mvae.partial_fit(chunk)
    reference = make_small(max_iter=1).fit(X[:100])
    np.testing.assert_array_equal(mvae.mean_, reference.mean_)
    assert mvae.scale_ == reference.scale_
    assert mvae.n_iter_ == 4
    with pytest.raises(ValueError, match="9 features"):
        mvae.partial_fit(X[:, 1:])


@pytest.mark.cpu
def test_a_first_chunk_of_equal_rows_is_refused(make_small, digits):
    X, n_rows = digits[0], 5
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
    X[7, 3] = np.inf
    return X


@pytest.mark.parametrize(
    ("change", "chunk", "error", "match"),
    [
        ({}, bad_chunk, ValueError, "infinity"),
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
def test_copies_are_trained_apart(make_small, digits):
    X, _ = digits
    mvae = make_small().partial_fit(X)
    other = copy.copy(mvae)  # shares the arrays
    expected = pickle.loads(pickle.dumps(mvae))
    mvae.partial_fit(X[:100])
    assert_same(other.partial_fit(X[100:]), expected.partial_fit(X[100:]))


@pytest.mark.cpu
def test_fit_and_partial_fit_follow_each_other(make_small, digits):
    X, _ = digits
    mvae = make_small().partial_fit(X).fit(X)
    assert_same(mvae, make_small().fit(X))  # fit begins anew, warm_start apart
    losses = mvae.history_["loss"]
    mvae.partial_fit(X)
    assert mvae.history_["loss"][:2] == losses
    assert mvae.history_["loss"][2] < losses[0]
    assert mvae.set_params(warm_start=True).fit(X).n_iter_ == 5
    assert mvae.prune(sorted(mvae.weights_)[1]).partial_fit(X).k == 2


def test_early_stopping_has_no_partial_fit(make_small):
    mvae = make_small(early_stopping=True)
    assert not hasattr(mvae, "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit") as raised:
        mvae.partial_fit  # noqa: B018
    assert "early_stopping=False" in str(raised.value.__cause__)


def test_the_learning_rate_is_a_third_under_a_trapezoid(make_small, digits):
    mvae = make_small(learning_rate=3e-3, learning_rate_schedule="trapezoid")
    mvae.partial_fit(digits[0]).partial_fit(digits[0])
    assert mvae.history_["learning_rate"] == pytest.approx([1e-3, 1e-3])
