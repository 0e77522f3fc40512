"""The snippets of the pages on clusters, and children that run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import processes
import pytest
from networks import assert_same_to_rounding
from sklearn.datasets import load_digits

import skmvae.distributed
from skmvae import MVAETransformer


@pytest.fixture(scope="session")
def snippets():
    """The code under each heading of the pages."""
    docs = Path(__file__).parents[2] / "docs"
    pages = "".join((docs / name).read_text() for name in ("scale.md", "cluster.md"))
    parts = re.split(r"^## (.*)$", pages, flags=re.MULTILINE)[1:]
    find = re.compile(r"```python\n(.*?)```", flags=re.DOTALL)
    return {parts[i]: find.findall(parts[i + 1]) for i in range(0, len(parts), 2)}


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all workers see, with a model, the rows and their codes."""
    folder = tmp_path_factory.mktemp("shared")
    X = load_digits().data
    mvae = MVAETransformer(max_iter=1, random_state=0).fit(X)
    mvae.save(folder / "digits.safetensors")
    np.save(folder / "X.npy", X)
    np.save(folder / "codes.npy", mvae.transform(X))
    return folder


def fit_shard(say, rank, X):
    mvae = MVAETransformer(max_iter=20, random_state=0)
    return skmvae.distributed.fit(mvae, np.array_split(X, 2)[rank])


@pytest.fixture
def check_fit_of_two_ranks(shared, tmp_path):
    """Compare the saved model with that of two processes without an engine."""

    def check():
        X = np.load(shared / "X.npy")
        path = shared / "together.safetensors"
        found = skmvae.load(path)
        path.unlink()
        expected, _ = processes.values(fit_shard, 2, tmp_path, X)
        assert_same_to_rounding(found.transform(X), expected.transform(X))

    return check


@pytest.fixture
def run_in_child(tmp_path):
    """Run a script in a process of its own; fail with its output if it fails or takes too long."""

    def run(script, timeout, **environment):
        path = tmp_path / "script.py"
        path.write_text(script)
        child = subprocess.run(
            [sys.executable, str(path)],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert child.returncode == 0, child.stdout + child.stderr

    return run
