"""One random_state, local generators: repeatable, and nobody else's generator moves."""

import subprocess
import sys
import threading

import joblib
import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_backend
from networks import assert_same_to_rounding
from process_state import process_wide_state
from sklearn.base import clone

from skmvae._model.objective import OBJECTIVES
from skmvae.architectures import MLP


def fingerprint(mvae):
    return b"".join(array.tobytes() for array in mvae._state.arrays.values())


@pytest.mark.parametrize("random_state", [0, None, np.random.RandomState(0)])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_method_moves_a_global_generator(objective, random_state, make_small, digits):
    X, _ = digits
    mvae = make_small(
        objective=objective,
        random_state=random_state,
        early_stopping=True,
        architecture=MLP((16,), dropout=0.2),
    )
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
def test_another_process_gives_the_same_model(make_small, digits, tmp_path):
    joblib.dump((make_small(), digits[0]), tmp_path / "in.joblib")
    code = (
        "import joblib; mvae, X = joblib.load('in.joblib'); joblib.dump(mvae.fit(X), 'out.joblib')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    there = joblib.load(tmp_path / "out.joblib")
    assert fingerprint(there) == fingerprint(make_small().fit(digits[0]))


def test_none_gives_another_model_each_time(make_small, digits):
    X, _ = digits
    mvae = make_small(random_state=None)
    assert fingerprint(clone(mvae).fit(X)) != fingerprint(clone(mvae).fit(X))


@pytest.mark.cpu
def test_a_random_state_object_advances(make_small, digits):
    X, _ = digits
    mvae = make_small(random_state=np.random.RandomState(0))
    first, second = fingerprint(mvae.fit(X)), fingerprint(mvae.fit(X))
    assert first != second
    assert fingerprint(make_small(random_state=np.random.RandomState(0)).fit(X)) == first


@pytest.mark.cpu
def test_the_user_s_torch_settings_do_not_matter(make_small, digits):
    X, _ = digits
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


@pytest.mark.parametrize("first", ["float32", "bfloat16"])
@pytest.mark.parametrize("second", ["float32", "bfloat16"])
@pytest.mark.cpu
def test_two_fits_in_two_threads_are_those_alone(first, second, make_small, digits):
    X, _ = digits
    models = [
        make_small(precision=precision, random_state=seed, max_iter=10)
        for seed, precision in enumerate((first, second))
    ]
    expected = [fingerprint(clone(mvae).fit(X)) for mvae in models]
    assert len(set(expected)) == 2
    threads = [threading.Thread(target=mvae.fit, args=(X,)) for mvae in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [fingerprint(mvae) for mvae in models] == expected


def test_transform_from_many_threads(fitted, digits):
    X, _ = digits
    expected = fitted.transform(X)
    results = {}

    def work(n):
        results[n] = [fitted.transform(X[: 40 * n]) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for n, codes in results.items():
        for z in codes:
            assert_same_to_rounding(z, expected[: 40 * n])


@pytest.mark.cpu
def test_two_fits_at_once_give_what_each_gives_alone(make_small, digits):
    X, _ = digits
    seeds = range(4)
    alone = [fingerprint(make_small(random_state=s, max_iter=5).fit(X)) for s in seeds]
    fitted = {}

    def work(seed):
        fitted[seed] = fingerprint(make_small(random_state=seed, max_iter=5).fit(X))

    threads = [threading.Thread(target=work, args=(s,)) for s in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [fitted[s] for s in seeds] == alone


@pytest.mark.cpu
def test_transform_while_the_same_estimator_is_fitted(make_small, digits):
    """A reader sees the old model or the new one, never a mixture of both."""
    X, _ = digits
    mvae = make_small(random_state=0).fit(X)
    before = mvae.transform(X)
    after = make_small(random_state=1).fit(X).transform(X)
    mvae.set_params(random_state=1)
    thread = threading.Thread(target=mvae.fit, args=(X,))
    thread.start()
    seen = [mvae.transform(X) for _ in range(60)]
    thread.join()
    assert all(np.array_equal(z, before) or np.array_equal(z, after) for z in seen)
    np.testing.assert_array_equal(mvae.transform(X), after)
