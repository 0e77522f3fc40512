"""Many fits in one process: neither memory nor open files grow."""

import gc
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from networks import small_estimator

import skmvae
from skmvae.architectures import MLP

ROUNDS = int(os.environ.get("SKMVAE_SOAK", "24"))


def use(folder, seed):
    X = np.random.default_rng(0).normal(size=(64, 200))
    shutil.rmtree(folder / "fits", ignore_errors=True)
    params = {"architecture": MLP((300,)), "max_iter": 1, "random_state": seed}
    mvae = small_estimator(checkpoint_dir=folder / "fits", **params)
    mvae.fit(X)
    mvae.fit(X)  # reads what the first one has written
    mvae.partial_fit(X)
    mvae.save(folder / "model")
    pickle.loads(pickle.dumps(skmvae.load(folder / "model"))).partial_fit(X).score(X)


def soak(folder, rounds):
    """Return how many megabytes and open files the last three quarters of the rounds add."""
    states = []
    for i in range(rounds):
        use(Path(folder), i % 5)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        n_files = len(list(Path("/proc/self/fd").iterdir()))
        states.append((pages * os.sysconf("SC_PAGESIZE") / 2**20, n_files))
    return {"grown": np.subtract(states[-1], states[rounds // 4])}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_and_open_files_are_flat(tmp_path, start):
    """A model has 1 MB, so a leak of one per round would be 18 MB."""
    megabytes, n_files = start(soak, folder=str(tmp_path), rounds=ROUNDS).result()["grown"]
    assert megabytes < 12.0
    assert n_files == 0
