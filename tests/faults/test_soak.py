"""Many fits in one process: neither memory nor open files grow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc"),
]

ROUNDS = int(os.environ.get("SKMVAE_SOAK", "60"))

CHILD = """
import gc, json, os, pickle, resource, shutil, sys
from pathlib import Path
import numpy as np
import skmvae
from skmvae import MVAETransformer
from skmvae.architectures import MLP

rounds, folder = int(sys.argv[1]), Path(sys.argv[2])
X = np.random.default_rng(0).normal(size=(64, 200))

def state():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20, len(os.listdir("/proc/self/fd"))

def use(seed):
    shutil.rmtree(folder / "fits", ignore_errors=True)
    mvae = MVAETransformer(2, 2, architecture=MLP((300,)), max_iter=1, random_state=seed,
                           checkpoint_dir=folder / "fits")
    mvae.fit(X)
    mvae.fit(X)  # reads what the first one has written
    mvae.partial_fit(X)
    mvae.save(folder / "model")
    pickle.loads(pickle.dumps(skmvae.load(folder / "model"))).partial_fit(X).score(X)

states = []
for i in range(rounds):
    use(i % 5)
    if i >= rounds // 4:
        states.append(state())
print(json.dumps([states[0], states[-1]]))
"""


def test_memory_and_open_files_are_flat(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(ROUNDS), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (megabytes, files), (megabytes_then, files_then) = json.loads(result.stdout)
    # A model has 1 MB, so a leak of one a round would be 45.
    assert megabytes_then - megabytes < 12.0
    assert files_then == files
