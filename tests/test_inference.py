"""Networks are made once for a fitted state, and go with it."""

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from skmvae import _inference


@pytest.fixture
def counted(monkeypatch):
    """What ``load_network`` was asked for."""
    calls = []
    original = _inference.load_network

    def load_network(state, device, dtype):
        calls.append((state, str(device), np.dtype(dtype).name))
        return original(state, device, dtype)

    monkeypatch.setattr(_inference, "load_network", load_network)
    return calls


def test_a_network_is_made_once_for_each_dtype(make_small, digits, counted):
    X, _ = digits
    mvae = make_small().fit(X)
    counted.clear()
    for _ in range(3):
        for dtype in (np.float64, np.float32):
            mvae.transform(X[:1].astype(dtype))
            mvae.reconstruct(X[:1].astype(dtype))
    assert [dtype for _, _, dtype in counted] == ["float64", "float32"]


@pytest.mark.cpu
def test_a_refit_has_a_network_of_its_own(make_small, digits):
    X, _ = digits
    mvae = make_small().fit(X)
    mvae.transform(X)
    expected = make_small(random_state=1).fit(X).transform(X)
    np.testing.assert_array_equal(mvae.set_params(random_state=1).fit(X).transform(X), expected)


def test_networks_are_not_saved_and_not_copied(make_small, digits):
    X, _ = digits
    mvae = make_small().fit(X)
    before = len(pickle.dumps(mvae))
    codes = mvae.transform(X)
    assert len(pickle.dumps(mvae)) == before
    for other in (copy.deepcopy(mvae), pickle.loads(pickle.dumps(mvae))):
        assert other._state not in _inference._LOADED
        np.testing.assert_array_equal(other.transform(X), codes)


def test_networks_go_with_their_state(make_small, digits):
    mvae = make_small().fit(digits[0])
    mvae.transform(digits[0])
    gc.collect()
    before = len(_inference._LOADED)
    assert mvae._state in _inference._LOADED
    del mvae
    gc.collect()
    assert len(_inference._LOADED) == before - 1


def test_threads_may_share_an_estimator_that_has_no_network_yet(fitted, digits):
    X, _ = digits
    expected = fitted.transform(X)
    for _ in range(5):
        fresh = copy.deepcopy(fitted)
        with ThreadPoolExecutor(8) as pool:
            for codes in pool.map(lambda _, fresh=fresh: fresh.transform(X), range(16)):
                np.testing.assert_array_equal(codes, expected)
