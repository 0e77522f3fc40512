"""Ranks of a distributed fit that are interrupted, killed or hang: no rank waits for ever."""

import builtins
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
from networks import small_estimator
from processes import DEADLINE, start, values
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


def until(ranks, epoch):
    while not ranks[0].says().startswith(f"epoch {epoch}/"):
        pass


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return the model of a fit of two ranks, and a folder where such a fit was killed."""
    whole, cut, folder = (tmp_path_factory.mktemp(name) for name in ("whole", "cut", "folder"))
    model = values(kept, 2, whole, 2, None)[0]
    ranks = start(kept, 2, cut, 2, folder)
    until(ranks, 3)
    os.kill(ranks[1].process.pid, signal.SIGKILL)
    first, second = (rank.outcome() for rank in ranks)
    assert "Another rank has failed" in str(first.error)
    assert second.value is None
    return model, folder


def copied(killed, tmp_path):
    model, folder = killed
    return model, shutil.copytree(folder, tmp_path / "checkpoints")


def test_a_killed_fit_goes_on_to_the_same_bits(killed, tmp_path):
    (digest, losses, _), folder = copied(killed, tmp_path)
    for found in values(kept, 2, tmp_path, 2, folder):
        assert found[:2] == (digest, losses)
        assert found[2] <= 4
    (tmp_path / "meeting").unlink(missing_ok=True)  # torch takes it away, mostly
    for found in values(kept, 2, tmp_path, 2, folder):  # it is found whole
        assert found == (digest, losses, 0)


@pytest.mark.parametrize("size", [1, 3])
def test_a_killed_fit_goes_on_with_another_number_of_ranks(size, killed, tmp_path):
    (_, losses, _), folder = copied(killed, tmp_path)
    found = values(kept, size, tmp_path, size, folder)
    assert len({(digest, *own) for digest, own, _ in found}) == 1
    _, own, n_epochs = found[0]
    assert 3 <= n_epochs <= 4
    assert own[:2] == losses[:2]
    np.testing.assert_allclose(own[-1], losses[-1], rtol=0.05)


JOB = """
import os, signal, sys
import joblib, torch, torch.distributed as dist
torch.set_num_threads(1)
dist.init_process_group("gloo")
sys.path[:0] = [{tests!r}, {faults!r}]
import test_ranks
attempt, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), dist.get_rank()
def say(line):
    if attempt == 0 and line.startswith("epoch 3/"):
        os.kill(os.getpid(), signal.SIGKILL)
digest, _, _ = test_ranks.kept(say, rank, 2, {folder!r})
open({found!r} + str(rank), "w").write(f"{{attempt}} {{digest}}")
dist.destroy_process_group()
"""


@pytest.mark.skipif("SKMVAE_TRIALS" not in os.environ, reason="half a minute: in long runs alone")
def test_torchrun_starts_again_where_it_was(killed, tmp_path):
    digest = killed[0][0]
    here = Path(__file__)
    paths = {"tests": str(here.parents[1]), "faults": str(here.parent)}
    job = tmp_path / "job.py"
    found = str(tmp_path / "found")
    job.write_text(JOB.format(folder=str(tmp_path / "checkpoints"), found=found, **paths))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--max-restarts", "1", str(job)]
    # Else ranks that are started again may find the addresses of those before (torch 2.13).
    environment = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert result.returncode == 0, result.stderr
    assert [Path(found + rank).read_text() for rank in "01"] == [f"1 {digest}"] * 2
