"""Fixtures of the whole suite."""

import os
from importlib.util import find_spec

# Without it scikit-learn skips one of its checks. Read when SciPy is imported.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Processes of pytest-xdist that have threads of their own wait for each other. Read by torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings
from process_state import process_wide_state
from sklearn.datasets import load_digits

from skmvae import MVAETransformer
from skmvae import _runtime as runtime
from skmvae.architectures import MLP

# Doctest would import them all by one name.
collect_ignore_glob = ["*conftest.py"]

# How long an example takes says nothing on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    if any(find_spec(name) is None for name in ("onnx", "onnxscript")) or torch.__version__ < "2.8":
        for item in items:
            if item.nodeid.startswith("skmvae/onnx.py"):
                item.add_marker(pytest.mark.skip(reason="needs onnx, onnxscript and torch 2.8"))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test that is about a CPU finds no GPU, nor do its fixtures and the processes it starts.

    It is about one if it compares bits of two fits, for example: a GPU's sums have no fixed order.
    """
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("cpu"):
            patch.setattr(runtime, "_best_device", lambda: "cpu")
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return (yield)


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
