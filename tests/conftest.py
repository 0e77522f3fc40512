"""Fixtures of the whole suite."""

import logging
import os
import random
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

# Without it scikit-learn skips one of its checks. Read when SciPy is imported.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings
from sklearn.datasets import load_digits

from skmvae import MVAETransformer
from skmvae.architectures import MLP

# How long an example takes says nothing on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def process_wide_state():
    """Every process-wide generator and switch, in a form that == compares."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy.random": (keys.tobytes(), position, has_gauss, gauss),
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "torch threads": torch.get_num_threads(),
        "torch default dtype": torch.get_default_dtype(),
        "torch matmul precision": torch.get_float32_matmul_precision(),
        "torch deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad mode": torch.is_grad_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "autocast cache": torch.is_autocast_cache_enabled(),
        "logging": (logging.root.level, len(logging.root.handlers)),
    }


def pytest_collection_modifyitems(items):
    if any(find_spec(name) is None for name in ("onnx", "onnxscript")) or torch.__version__ < "2.8":
        for item in items:
            if item.nodeid.startswith("skmvae/onnx.py"):
                item.add_marker(pytest.mark.skip(reason="needs onnx, onnxscript and torch 2.8"))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _process_wide_state_is_left_alone(request):
    """No test of this suite may find a global generator or switch moved."""
    before = process_wide_state()
    yield
    after = process_wide_state()
    if request.node.get_closest_marker("may_use_numpy_random"):
        before.pop("numpy.random")
    if request.node.get_closest_marker("engine_may_use_random"):
        before.pop("random")
    moved = [name for name, value in before.items() if after[name] != value]
    assert not moved, f"moved by the test: {moved}"


@pytest.fixture(scope="module")
def one_thread():
    """For models so small that on a busy machine threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits():
    """The first 500 digits, float64, read-only, so that nothing can modify them unseen."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:500], y[:500]
    X.flags.writeable = False
    return X, y


@pytest.fixture
def make_small():
    """An estimator that fits in a tenth of a second, as if it stopped there of a longer fit."""

    def make(**params):
        params = {
            "k": 3,
            "latent_dim": 2,
            "architecture": MLP(hidden_layer_sizes=(16,)),
            "max_iter": 2,
            "batch_size": 128,
            "learning_rate": 1e-3,
            "learning_rate_schedule": "constant",
            "random_state": 0,
        } | params
        return MVAETransformer(**params)

    return make


@pytest.fixture(scope="session")
def fitted(digits):
    """A fitted estimator that no test may change."""
    X, _ = digits
    architecture = MLP(hidden_layer_sizes=(16,))
    return MVAETransformer(
        k=3, latent_dim=2, architecture=architecture, max_iter=2, random_state=0
    ).fit(X)


# Of tests/cluster: the snippets of the page on clusters, and children that run them.


@pytest.fixture(scope="session")
def snippets():
    """The code under each heading of the page."""
    page = Path(__file__).parents[1] / "docs" / "cluster.md"
    parts = re.split(r"^## (.*)$", page.read_text(), flags=re.MULTILINE)[1:]
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


@pytest.fixture
def run_in_child(tmp_path):
    """Run a script in a process of its own, which an engine may change as it likes.

    It ends within the time or is killed, and what it printed is in the message then.
    """

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
