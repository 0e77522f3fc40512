"""Many threads on one estimator: every answer is from one whole fit, and no thread waits."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import numpy as np
import pytest
from networks import assert_same_to_rounding
from sklearn.base import clone

pytestmark = pytest.mark.cpu

# Calls of each method in each thread.
CALLS = int(os.environ.get("SKMVAE_CALLS", "12"))

N_THREADS = 8

# A thread that takes longer, in seconds, waits for ever.
DEADLINE = 60 + CALLS


def answers(mvae, X):
    return {
        "transform": mvae.transform(X),
        "reconstruct": mvae.reconstruct(X),
        "score_samples": mvae.score_samples(X, n_draws=1),
    }


def is_one_of(found, known):
    """Return whether an answer is, to rounding, that of one of the known fits."""
    for expected in known:
        try:
            assert_same_to_rounding(found, expected)
            return True
        except AssertionError:
            pass
    return False


def check_readers(mvae, X, known, train):
    """Read in many threads while another one trains over and over.

    Every answer must be that of one of the known fits. Each reader has rows of its own.
    """
    done, n_trained = threading.Event(), 0
    seen = [[] for _ in range(N_THREADS)]
    n_rows = [len(X) - 7 * i for i in range(N_THREADS)]

    def read(i):
        for _ in range(CALLS):
            seen[i].append(answers(mvae, X[: n_rows[i]]))

    def train_until_done():
        nonlocal n_trained
        while not done.is_set():
            train()
            n_trained += 1

    pool = ThreadPoolExecutor(N_THREADS + 1)
    writer = pool.submit(train_until_done)
    readers = [pool.submit(read, i) for i in range(N_THREADS)]
    try:
        for reader in readers:
            reader.result(timeout=DEADLINE)
    finally:
        done.set()
    writer.result(timeout=DEADLINE)
    assert n_trained >= 2
    for i, n in enumerate(n_rows):
        for found in seen[i]:
            for name, answer in found.items():
                assert is_one_of(answer, [of_fit[name][:n] for of_fit in known]), (i, name)
    first = {found["transform"][:1].tobytes() for reader in seen for found in reader}
    assert len(first) > 1, "all answers are of one fit"


def test_readers_see_one_whole_fit_while_the_estimator_is_fitted_again(make_small, digits):
    X = digits[0][:120].astype(np.float32)
    mvae = make_small(max_iter=1)
    params = [{"random_state": seed, "beta": seed + 1.0} for seed in (1, 0)]
    known = [answers(clone(mvae).set_params(**p).fit(X), X) for p in params]
    mvae.set_params(**params[1]).fit(X)
    turns = cycle(params)
    check_readers(mvae, X, known, lambda: mvae.set_params(**next(turns)).fit(X))


def test_readers_see_one_whole_fit_while_the_estimator_is_trained_on_chunks(make_small, digits):
    """``fit``, two chunks, and ``fit`` again: the model after each of them is known."""
    X = digits[0][:120]
    mvae = make_small(max_iter=1)
    turns = cycle([mvae.fit, mvae.partial_fit, mvae.partial_fit])
    known = [answers(next(turns)(X), X) for _ in range(3)]
    mvae.fit(X)
    turns = cycle([mvae.fit, mvae.partial_fit, mvae.partial_fit])
    check_readers(mvae, X, known, lambda: next(turns)(X))
