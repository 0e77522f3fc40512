"""Ranks of a distributed fit that are interrupted, killed or hang: no rank waits for ever."""

import builtins
import os
import random
import signal
import time
from functools import partial

import joblib
import numpy as np
import pytest
from networks import small_estimator
from processes import start, values
from sklearn.datasets import load_digits

import skmvae.distributed
from skmvae._files import checkpoints

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

TRIALS = int(os.environ.get("SKMVAE_TRIALS", "1"))

# Seconds in which the others notice a rank that has gone, on a busy machine.
SOON = 20

X = load_digits().data[:300]

small = partial(small_estimator, max_iter=100_000)


def refitted(say, rank, size, folder, timeout=60.0):
    """Fit an estimator that is fitted; return whether it is as before, and the error.

    An interrupted rank lives on until there is a file ``go``.
    """
    mvae = small(max_iter=1).fit(X)
    before = dict(vars(mvae))
    say("fits")
    try:
        skmvae.distributed.fit(mvae.set_params(max_iter=100_000), X[rank::size], timeout=timeout)
    except (KeyboardInterrupt, RuntimeError) as error:
        after = dict(vars(mvae.set_params(max_iter=1)))
        while isinstance(error, KeyboardInterrupt) and not (folder / "go").exists():
            time.sleep(0.01)
        return after == before, f"{type(error).__name__}: {error}"
    return False, "fitted"


def begun(size, folder, *args):
    """Return the ranks of a fit that has begun."""
    group = start(refitted, size, folder, size, folder, *args)
    assert [rank.says() for rank in group] == ["fits"] * size
    time.sleep(random.Random(str(folder)).uniform(0.2, 1.5))
    return group


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("trial", range(TRIALS))
def test_a_rank_that_goes_ends_the_others(how, trial, tmp_path):
    """One that is interrupted raises KeyboardInterrupt; every estimator stays as it was."""
    size = 2 + (trial + how) % 3
    group = begun(size, tmp_path)
    victim = (trial + 1) % size
    os.kill(group[victim].process.pid, how)
    sent = time.perf_counter()
    outcomes = {rank: group[rank].outcome() for rank in range(size) if rank != victim}
    assert time.perf_counter() - sent < SOON
    (tmp_path / "go").touch()
    outcomes[victim] = group[victim].outcome()
    for rank, outcome in outcomes.items():
        if rank == victim and how != signal.SIGINT:
            assert outcome.value is None
            continue
        is_as_before, error = outcome.value
        assert is_as_before
        expected = (
            "KeyboardInterrupt" if rank == victim else "RuntimeError: Another rank has failed"
        )
        assert error.startswith(expected), error


def test_a_rank_that_hangs_ends_the_others_within_the_timeout(tmp_path):
    group = begun(3, tmp_path, 1.0)
    os.kill(group[1].process.pid, signal.SIGSTOP)
    begin = time.perf_counter()
    for rank in (0, 2):
        is_as_before, error = group[rank].outcome().value
        assert is_as_before
        assert "has said nothing for timeout=1 s" in error
    assert time.perf_counter() - begin < 1.0 + SOON
    os.kill(group[1].process.pid, signal.SIGCONT)
    assert group[1].outcome().value[1].startswith("RuntimeError")


def kept(say, rank, size, folder):
    """Fit with a checkpoint per epoch; return the model, its losses and the epochs of this run."""
    checkpoints._FRACTION_OF_TIME = np.inf
    lines = []
    builtins.print = lambda line, **kwargs: (lines.append(line), say(line))  # the reports of rank 0
    mvae = small(max_iter=6, verbose=1, checkpoint_dir=folder)
    skmvae.distributed.fit(mvae, X[rank::size], timeout=60)
    return joblib.hash(mvae._state.arrays), mvae.history_["loss"], len(lines)


def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path):
    for name in ("whole", "cut", "again"):
        (tmp_path / name).mkdir()
    folder = tmp_path / "checkpoints"
    (digest, losses, _), _ = values(kept, 2, tmp_path / "whole", 2, None)
    ranks = start(kept, 2, tmp_path / "cut", 2, folder)
    while not ranks[0].says().startswith("epoch 3/"):
        pass
    os.kill(ranks[1].process.pid, signal.SIGKILL)
    first, second = (rank.outcome() for rank in ranks)
    assert "Another rank has failed" in str(first.error)
    assert second.value is None
    for found in values(kept, 2, tmp_path, 2, folder):
        assert found[:2] == (digest, losses)
        assert found[2] <= 4
    for found in values(kept, 2, tmp_path / "again", 2, folder):  # it is found whole
        assert found == (digest, losses, 0)
