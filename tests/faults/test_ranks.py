"""Ranks of a distributed fit that are interrupted, killed or hang: none waits for ever."""

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
from networks import small_estimator
from processes import DEADLINE, run, start, values
from sklearn.datasets import load_digits

import skmvae.distributed
from skmvae._distributed.group import Ranks, ranks
from skmvae._files import checkpoints
from skmvae._inference import Inference

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

TRIALS = int(os.environ.get("SKMVAE_TRIALS", "5"))
FEW = (TRIALS + 1) // 2

# Of a rank that is alone, or to be told of it; a group of three on a busy machine takes seconds.
SOON = 20

X = load_digits().data[:300]


small = partial(small_estimator, max_iter=100_000)


def digest(mvae):
    return joblib.hash({"arrays": mvae._state.arrays, "history": mvae.history_})


def fitted(say, rank, size, mvae, timeout=60.0):
    """What is left of a fit: the model if there is one, and the error if that came."""

    @contextmanager
    def announced(timeout):
        with ranks(timeout) as group:
            say("fits")  # before it is there, nobody can say that a rank has gone
            yield group

    skmvae.distributed.ranks = announced
    small(max_iter=1).fit(X)  # imports what is left: there Ctrl-C may become RuntimeError
    error = None
    try:
        skmvae.distributed.fit(mvae, X[rank::size], timeout=timeout)
    except (KeyboardInterrupt, RuntimeError, ValueError) as raised:
        error = f"{type(raised).__name__}: {raised}"
    found = (mvae.n_iter_, digest(mvae)) if hasattr(mvae, "n_iter_") else None
    return found, error


def begun(size, folder, *args):
    """The ranks, once they have met."""
    folder.mkdir()
    group = start(fitted, size, folder, size, *args)
    assert [rank.says() for rank in group] == ["fits"] * size
    return group


@pytest.mark.parametrize("trial", range(TRIALS))
def test_ctrl_c_on_any_rank_leaves_all_with_the_same_epoch(trial, tmp_path):
    draws = random.Random(trial)
    size = 2 + trial % 2
    group = begun(size, tmp_path / "group", small(), float(SOON))
    time.sleep(draws.uniform(0.0, 2.0))
    pressed = group if trial % 3 == 2 else [draws.choice(group)]  # a terminal's reaches all
    for rank in pressed:
        os.kill(rank.process.pid, signal.SIGINT)
    sent = time.perf_counter()
    outcomes = [rank.outcome() for rank in group]
    # At once, but for one in hundreds that the others noticed after their timeout only.
    assert time.perf_counter() - sent < 2 * SOON
    models = {model for (model, _) in (outcome.value for outcome in outcomes)}
    assert len(models) == 1
    for outcome in outcomes:
        assert outcome.value[1].startswith("KeyboardInterrupt")


def pressed_at_the_end(say, rank, size, name):
    """Ctrl-C on rank 1 when it has trained, as its weights_ are computed or brought together."""
    owner = {"mean_weights": Inference, "mean": Ranks}[name]
    original, calls = getattr(owner, name), []

    def pressed(self, *args):
        # Called before: by the fit that imports the rest of torch; for the units of 64 columns.
        if name == "mean_weights" or np.shape(args[0]) == (2,):
            calls.append(None)
            if rank == 1 and len(calls) == (2 if name == "mean_weights" else 1):
                os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args)

    setattr(owner, name, pressed)
    return fitted(say, rank, size, small(max_iter=3))


@pytest.mark.parametrize("name", ["mean_weights", "mean"])
def test_ctrl_c_after_the_last_epoch_leaves_all_alike(name, tmp_path):
    (model, error), *others = values(pressed_at_the_end, 3, tmp_path, 3, name)
    assert error.startswith("KeyboardInterrupt")
    assert others[1] == (model, error)
    assert others[0][0] == model
    if name == "mean_weights":  # the model is there, and worth the second time that this takes
        assert model[0] == 3
    else:
        assert model is None


@pytest.mark.parametrize("trial", range(FEW))
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_rank_that_dies_ends_the_others_by_name(how, trial, tmp_path):
    draws = random.Random(trial)
    size = 4 - trial % 3  # of four, one waits for survivors alone
    group = begun(size, tmp_path / "group", small())
    time.sleep(draws.uniform(0.0, 2.0))
    victim = draws.randrange(size)
    os.kill(group[victim].process.pid, how)
    sent = time.perf_counter()
    outcomes = [rank.outcome() for rank in group]
    assert time.perf_counter() - sent < SOON
    for rank, outcome in enumerate(outcomes):
        if rank != victim:
            model, error = outcome.value
            assert error.startswith(f"RuntimeError: rank {victim} has died, or"), error
            assert model is None


def test_a_rank_that_hangs_ends_the_others_within_twice_the_timeout(tmp_path):
    group = begun(3, tmp_path / "group", small(), 2.0)
    time.sleep(1.0)
    os.kill(group[1].process.pid, signal.SIGSTOP)
    begin = time.perf_counter()
    for rank in (0, 2):
        model, error = group[rank].outcome().value
        assert error.startswith("RuntimeError: rank 1 has died, or has said nothing for timeout=2")
        assert model is None
    assert time.perf_counter() - begin < 2 * 2.0 + SOON
    os.kill(group[1].process.pid, signal.SIGCONT)
    assert group[1].outcome().value[1].startswith("RuntimeError")


def comes_too_late(say, rank):
    """Rank 1 dies before the fit, for which the other one is there already."""
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    begin = time.monotonic()
    try:
        skmvae.distributed.fit(small(), X, timeout=2.0)
    except RuntimeError:
        return time.monotonic() - begin


def test_a_rank_that_dies_before_the_fit_is_not_waited_for(tmp_path):
    waited, dead = run(comes_too_late, 2, tmp_path)
    assert dead.value is None
    assert waited.value < 2.0 + SOON


class Epochs(logging.Handler):
    """Says which epochs rank 0 has trained."""

    def __init__(self, say):
        super().__init__(logging.INFO)
        self.say, self.n = say, 0

    def emit(self, record):
        self.n += "loss" in record.getMessage()
        self.say(record.getMessage())


def kept(say, rank, size, folder):
    """A fit with a checkpoint after every epoch: its model, its losses, the epochs of this run."""
    checkpoints._SHARE_OF_TIME = np.inf
    epochs, logger = Epochs(say), logging.getLogger("skmvae")
    logger.addHandler(epochs)
    logger.setLevel(logging.INFO)
    mvae = small(max_iter=6, verbose=1, checkpoint_dir=folder)
    skmvae.distributed.fit(mvae, X[rank::size], timeout=60)
    return joblib.hash(mvae._state.arrays), mvae.history_["loss"], epochs.n


def until(ranks, epoch):
    while not ranks[0].says().startswith(f"epoch {epoch}/"):
        pass


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The model of a fit of two ranks, and a folder where such a fit was killed."""
    whole, cut, folder = (tmp_path_factory.mktemp(name) for name in ("whole", "cut", "folder"))
    model = values(kept, 2, whole, 2, None)[0]
    ranks = start(kept, 2, cut, 2, folder)
    until(ranks, 3)
    os.kill(ranks[1].process.pid, signal.SIGKILL)
    first, second = (rank.outcome() for rank in ranks)
    assert "rank 1 has died" in str(first.error)
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


@pytest.mark.parametrize("trial", range((TRIALS + 3) // 4))
def test_killed_again_and_again_it_ends_with_the_same_bits(trial, killed, tmp_path):
    draws = random.Random(trial)
    (digest, losses, _), folder = killed[0], tmp_path / "checkpoints"
    for n in range(3):
        group = tmp_path / str(n)
        group.mkdir()
        ranks = start(kept, 2, group, 2, folder)
        until(ranks, 2 * n + 1)
        time.sleep(draws.uniform(0.0, 0.05))
        for rank in ranks:
            os.kill(rank.process.pid, signal.SIGKILL)
        for rank in ranks:
            rank.outcome()
    assert values(kept, 2, tmp_path, 2, folder)[1][:2] == (digest, losses)


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
