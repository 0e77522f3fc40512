"""Many threads on one estimator: every answer is from one whole fit, and nobody waits for ever."""

import os
import threading
from itertools import cycle

import numpy as np
import pytest
from networks import assert_same_to_rounding
from sklearn.base import clone

import skmvae

pytestmark = pytest.mark.cpu

# Of each method, in each of the threads.
CALLS = int(os.environ.get("SKMVAE_CALLS", "20"))

N_THREADS = 8

# Seconds after which a thread is taken to wait for ever, however busy the machine is.
DEADLINE = 60 + CALLS

METHODS = ("transform", "reconstruct", "score_samples")


def answers(mvae, X):
    """Those of all methods, by name; scores of one draw, since they take longest."""
    return {
        "transform": mvae.transform(X),
        "reconstruct": mvae.reconstruct(X),
        "score_samples": mvae.score_samples(X, n_draws=1),
    }


class Threads:
    """Runs functions in threads. What one of them raises is raised by ``join``."""

    def __init__(self):
        self._threads, self._errors = [], []

    def start(self, function, *arguments):
        def run():
            try:
                function(*arguments)
            except BaseException as error:
                self._errors.append(error)

        # The tests end even if a thread does not.
        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def join(self):
        for thread in self._threads:
            thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in self._threads), "a thread waits for ever"
        if self._errors:
            raise self._errors[0]


def is_one_of(found, known):
    """Whether an answer is, to rounding, that of one of the known fits."""
    for expected in known:
        try:
            assert_same_to_rounding(found, expected)
            return True
        except AssertionError:
            pass
    return False


def check_readers(mvae, X, known, refit):
    """Read from many threads while another calls ``refit`` over and over.

    ``known`` are the answers of the fits that there are. Each reader has rows of its own.
    """
    seen = [{name: [] for name in METHODS} for _ in range(N_THREADS)]
    done = threading.Event()
    n_refits = 0
    n_rows = [len(X) - 7 * i for i in range(N_THREADS)]

    def read(i):
        for _ in range(CALLS):
            for name, answer in answers(mvae, X[: n_rows[i]]).items():
                seen[i][name].append(answer)

    def refit_until_done():
        nonlocal n_refits
        while not done.is_set():
            refit()
            n_refits += 1

    readers, writer = Threads(), Threads()
    writer.start(refit_until_done)
    for i in range(N_THREADS):
        readers.start(read, i)
    try:
        readers.join()
    finally:
        done.set()
        writer.join()
    assert n_refits >= 2
    for i, n in enumerate(n_rows):
        for name in METHODS:
            assert len(seen[i][name]) == CALLS
            expected = [known_answers[name][:n] for known_answers in known]
            assert all(is_one_of(answer, expected) for answer in seen[i][name]), (i, name)
    # Answers of one fit alone would be no test.
    first = [answer[:1].tobytes() for reader in seen for answer in reader["transform"]]
    assert len(set(first)) > 1


def test_readers_see_one_whole_fit_while_the_estimator_is_fitted_again(make_small, digits):
    X = digits[0][:120].astype(np.float32)
    mvae = make_small(max_iter=1)
    fits = [clone(mvae).set_params(random_state=seed, beta=seed + 1.0).fit(X) for seed in (0, 1)]
    known = [answers(fit, X) for fit in fits]
    assert not is_one_of(known[0]["transform"], [known[1]["transform"]])
    params = cycle([{"random_state": 1, "beta": 2.0}, {"random_state": 0, "beta": 1.0}])
    mvae.set_params(random_state=0, beta=1.0).fit(X)
    check_readers(mvae, X, known, lambda: mvae.set_params(**next(params)).fit(X))


def test_readers_see_one_whole_fit_while_the_estimator_is_trained_on_chunks(make_small, digits):
    """A fit, chunk after chunk, and a fit again: the answers after each of them are known."""
    X = digits[0][:120]
    mvae = make_small(max_iter=1)

    def steps():
        while True:
            yield mvae.fit
            for _ in range(4):
                yield mvae.partial_fit

    train = steps()
    known = [answers(next(train)(X), X) for _ in range(5)]
    mvae.fit(X)
    train = steps()
    check_readers(mvae, X, known, lambda: next(train)(X))


def test_chunks_and_files_in_many_threads_are_those_of_one(make_small, digits, tmp_path):
    """Each thread has an estimator of its own; they share the folder of checkpoints and files."""
    X = digits[0][:120]

    def train(seed, folder):
        folder.mkdir(exist_ok=True)
        mvae = make_small(random_state=seed, checkpoint_dir=folder).fit(X)
        for i in range(3):
            mvae.partial_fit(X[40 * i : 40 * i + 40]).save(folder / f"{seed}.safetensors")
            mvae = skmvae.load(folder / f"{seed}.safetensors")
        return mvae

    expected = [train(seed, tmp_path / "alone").transform(X) for seed in range(4)]
    found, threads = {}, Threads()
    for seed in range(4):
        threads.start(
            lambda seed: found.update({seed: train(seed, tmp_path / "together").transform(X)}), seed
        )
    threads.join()
    for seed in range(4):
        np.testing.assert_array_equal(found[seed], expected[seed])


def test_threads_may_save_one_estimator_to_one_file_while_it_is_fitted(
    make_small, digits, tmp_path
):
    """Whatever is there is one of the two fits, whole."""
    X = digits[0][:120]
    mvae, path = make_small(max_iter=1), tmp_path / "mvae.safetensors"
    fits = [clone(mvae).set_params(random_state=seed).fit(X) for seed in (0, 1)]
    known = [fit.transform(X) for fit in fits]
    mvae.fit(X).save(path)
    done, seen = threading.Event(), []

    def fit():
        for seed in cycle((1, 0)):
            if done.is_set():
                return
            mvae.set_params(random_state=seed).fit(X)

    def save():
        for _ in range(CALLS):
            mvae.save(path)

    def load():
        for _ in range(CALLS):
            seen.append(skmvae.load(path).transform(X))

    writer, others = Threads(), Threads()
    writer.start(fit)
    for function in (save, save, load, load):
        others.start(function)
    try:
        others.join()
    finally:
        done.set()
        writer.join()
    assert len(seen) == 2 * CALLS
    assert all(is_one_of(codes, known) for codes in seen)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
