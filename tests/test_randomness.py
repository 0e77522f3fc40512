"""Fits repeat with their random_state, and no global generator moves."""

import threading
from functools import partial

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_backend
from process_state import process_wide_state
from sklearn.base import clone

from skmvae._model.objective import OBJECTIVES
from skmvae.architectures import MLP


def fingerprint(mvae):
    return b"".join(array.tobytes() for array in mvae._state.arrays.values())


@pytest.mark.parametrize("random_state", [0, None, np.random.RandomState(0)])
def test_no_method_moves_a_global_generator(random_state, make_small, digits):
    X, _ = digits
    params = {"objective": "averaged", "architecture": MLP((16,), dropout=0.2)}
    mvae = make_small(random_state=random_state, early_stopping=True, **params)
    before = process_wide_state()
    mvae.fit(X)
    Z = mvae.transform(X)
    mvae.inverse_transform(Z), mvae.reconstruct(X), mvae.mixing_weights(X)
    mvae.score(X), mvae.score_samples(X), mvae.sample(3), mvae.sample(3, random_state=0)
    assert process_wide_state() == before


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.cpu
def test_same_seed_same_model_bitwise(objective, make_small, digits):
    X, _ = digits
    mvae = make_small(objective=objective, architecture=MLP((16,), dropout=0.2)).fit(X)
    assert fingerprint(clone(mvae).fit(X)) == fingerprint(mvae)
    assert fingerprint(mvae.fit(X)) == fingerprint(clone(mvae).fit(X))
    assert fingerprint(clone(mvae).set_params(random_state=1).fit(X)) != fingerprint(mvae)


@pytest.mark.cpu
def test_a_loky_worker_gives_the_same_model(make_small, digits):
    X, _ = digits
    mvae = make_small()
    with parallel_backend("loky", inner_max_num_threads=torch.get_num_threads()):
        (there, other) = Parallel(n_jobs=2)(delayed(clone(mvae).fit)(X) for _ in range(2))
    assert fingerprint(there) == fingerprint(other) == fingerprint(mvae.fit(X))


@pytest.mark.cpu
@pytest.mark.parametrize("params", [{}, {"objective": "clusters", "neighbor_weight": 0.1}], ids=str)
def test_global_settings_of_torch_do_not_matter(params, make_small, digits):
    X, _ = digits
    make_small = partial(make_small, **params)
    expected = make_small().fit(X)
    codes, scores = expected.transform(X), expected.score_samples(X)
    state = torch.get_rng_state()
    torch.manual_seed(123)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.no_grad(), torch.inference_mode(), torch.autocast("cpu"):
            mvae = make_small().fit(X)
            np.testing.assert_array_equal(mvae.transform(X), codes)
            np.testing.assert_array_equal(mvae.score_samples(X), scores)
            assert mvae.set_params(warm_start=True).fit(X).n_iter_ == 4
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
        torch.set_rng_state(state)
    assert fingerprint(mvae.set_params(warm_start=False).fit(X)) == fingerprint(expected)


@pytest.mark.cpu
def test_two_fits_in_two_threads_are_those_alone(make_small, digits):
    X, _ = digits
    models = [
        make_small(precision=precision, random_state=seed, max_iter=10)
        for seed, precision in enumerate(("float32", "bfloat16"))
    ]
    expected = [fingerprint(clone(mvae).fit(X)) for mvae in models]
    assert len(set(expected)) == 2
    threads = [threading.Thread(target=mvae.fit, args=(X,)) for mvae in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [fingerprint(mvae) for mvae in models] == expected
