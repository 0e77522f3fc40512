"""Real signals, real processes: nothing that was fitted is lost."""

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from skmvae._inference import Inference
from skmvae.architectures import MLP

# The child fits for ever, reports each finished epoch, and says what it has after Ctrl-C.
CHILD = """
import json, sys
import numpy as np
from sklearn.datasets import load_digits
from skmvae import MVAETransformer
from skmvae.architectures import MLP

X = load_digits().data[:500]
params = dict(k=3, latent_dim=2, architecture=MLP((16,)), learning_rate_schedule="constant",
              random_state=0)
mvae = MVAETransformer(max_iter=10**6, verbose=1, **params)
if "refit" in sys.argv:
    mvae = MVAETransformer(max_iter=1, **params).fit(X)
    mvae.set_params(max_iter=10**6, verbose=1)
interrupted = False
try:
    mvae.fit(X)
except KeyboardInterrupt:
    interrupted = True
again = MVAETransformer(max_iter=mvae.n_iter_, **params).fit(X)
print(json.dumps({
    "interrupted": interrupted,
    "n_iter": mvae.n_iter_,
    "history": len(mvae.history_["loss"]),
    "same": bool(np.array_equal(again.transform(X), mvae.transform(X))),
    "weights": bool(np.allclose(mvae.weights_, mvae.mixing_weights(X).mean(0))),
}))
"""


@pytest.fixture(autouse=True)
def _ctrl_c_is_listened_to():
    """A job that a shell starts in the background ignores SIGINT, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(arguments, epochs, delay):
    """Start the child, wait for some epochs and a little, and press Ctrl-C."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", CHILD, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(epochs):
        assert child.stdout.readline().startswith("epoch")
    time.sleep(delay)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("delay", np.random.default_rng(0).uniform(0.0, 0.05, 5).round(3))
def test_ctrl_c_keeps_the_last_finished_epoch_and_is_raised(delay):
    result = interrupt([], epochs=2, delay=delay)
    assert result["interrupted"]
    assert result["n_iter"] == result["history"] >= 2
    assert result["same"], "the kept weights are not those of a fit of as many epochs"
    assert result["weights"]


def test_ctrl_c_in_a_refit_replaces_the_earlier_fit():
    result = interrupt(["refit"], epochs=3, delay=0.0)
    assert result["interrupted"]
    assert result["n_iter"] >= 3
    assert result["same"]


def test_ctrl_c_before_the_first_epoch_keeps_the_earlier_fit(make_small, digits):
    X, _ = digits
    mvae = make_small().fit(X)
    state, n_iter = mvae._state, mvae.n_iter_

    class Pressed(np.ndarray):
        """An array that presses Ctrl-C when the first batch is read."""

        def __getitem__(self, index):
            if isinstance(index, np.ndarray) and index.dtype == np.int64:
                os.kill(os.getpid(), signal.SIGINT)
            return np.asarray(super().__getitem__(index))

    from skmvae import _transformer

    original = _transformer.check_rows
    _transformer.check_rows = lambda e, X, reset: original(e, X, reset=reset).view(Pressed)
    try:
        with pytest.raises(KeyboardInterrupt):
            mvae.fit(X)
    finally:
        _transformer.check_rows = original
    assert mvae._state is state
    assert mvae.n_iter_ == n_iter
    assert np.isfinite(mvae.transform(X)).all()


def test_ctrl_c_after_the_last_epoch_loses_nothing(make_small, digits, monkeypatch):
    """While the mean weights are computed: once is remembered, twice keeps the earlier fit."""
    X, _ = digits
    original = Inference.mean_weights
    presses = 1

    def pressed(self, X):
        nonlocal presses
        presses -= 1
        if presses >= 0:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, X)

    monkeypatch.setattr(Inference, "mean_weights", pressed)
    mvae = make_small()
    with pytest.raises(KeyboardInterrupt):
        mvae.fit(X)
    assert mvae.n_iter_ == 2
    np.testing.assert_array_equal(mvae.transform(X), make_small().fit_transform(X))
    presses, state = 2, mvae._state
    with pytest.raises(KeyboardInterrupt):
        mvae.fit(X[:100])
    assert mvae._state is state


class Hungry(MLP):
    """Its encoder runs out of memory in training on more than 32 rows, and otherwise when told."""

    at_rest = False
    decoders: ClassVar = []

    def build(self, n_features, latent_dim, k):
        encoder, decoder = super().build(n_features, latent_dim, k)
        encoder.register_forward_pre_hook(self._check)
        self.decoders.append(weakref.ref(decoder))
        return encoder, decoder

    @staticmethod
    def _check(encoder, inputs):
        if inputs[0].shape[-2] > 32 if encoder.training else Hungry.at_rest:
            raise torch.OutOfMemoryError("Tried to allocate 7 GiB.")


@pytest.fixture
def hungry(make_small, digits):
    return make_small(architecture=Hungry((16,)), batch_size=32).fit(digits[0])


def test_out_of_memory_in_fit_says_what_helps_and_keeps_the_earlier_fit(hungry, digits):
    X, _ = digits
    state, codes = hungry._state, hungry.transform(X)
    hungry.set_params(batch_size=64)
    with pytest.raises(torch.OutOfMemoryError, match=r"batch_size=64 and k=3.*7 GiB"):
        hungry.fit(X)
    assert hungry._state is state
    np.testing.assert_array_equal(hungry.transform(X), codes)
    hungry.set_params(batch_size=32).fit(X)


@pytest.mark.parametrize(
    "use",
    [
        lambda mvae, X: mvae.transform(X),
        lambda mvae, X: mvae.mixing_weights(X),
        lambda mvae, X: mvae.reconstruct(X),
        lambda mvae, X: mvae.inverse_transform(np.zeros((5, 6))),
        lambda mvae, X: mvae.score(X),
        lambda mvae, X: mvae.fit(X),  # in the mean weights, at its end
    ],
)
def test_out_of_memory_at_rest_says_once_what_helps(hungry, digits, monkeypatch, use):
    monkeypatch.setattr(Hungry, "at_rest", True)
    with pytest.raises(torch.OutOfMemoryError, match="set_params\\(device='cpu'\\)") as raised:
        use(hungry, digits[0])
    assert str(raised.value).count("torch says") == 1


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_out_of_memory_is_a_failed_candidate_of_a_search(hungry, digits):
    search = GridSearchCV(hungry, {"batch_size": [32, 64]}, cv=2)
    with pytest.warns(FitFailedWarning, match="ran out of memory"):
        search.fit(digits[0][:200])
    assert search.best_params_ == {"batch_size": 32}


def test_an_out_of_memory_error_does_not_hold_the_memory(hungry, digits):
    """In a notebook the last error stays around."""
    hungry.set_params(batch_size=64)
    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError) as raised:
            hungry.fit(digits[0])
        assert Hungry.decoders[-1]() is None, raised
    finally:
        gc.enable()


def fit_and_transform(digits, device):
    from skmvae import MVAETransformer

    X, _ = digits
    MVAETransformer(max_iter=1, device=device).fit(X).transform(X)


def report_error(function, arguments, reports):
    try:
        function(*arguments)
        reports.put("no error")
    except RuntimeError as error:
        reports.put(str(error))


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_forked_process_says_that_it_cannot_use_the_gpu(digits, device):
    fit_and_transform(digits, device)
    fork = multiprocessing.get_context("fork")
    reports = fork.SimpleQueue()
    child = fork.Process(target=report_error, args=(fit_and_transform, (digits, device), reports))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert "'spawn'" in reports.get()


def test_a_spawned_process_can_fit():
    code = """
import multiprocessing as mp, numpy as np
from skmvae import MVAETransformer
from skmvae.architectures import MLP

def work(seed):
    X = np.random.default_rng(0).normal(size=(50, 4))
    return MVAETransformer(k=2, latent_dim=2, architecture=MLP((8,)), max_iter=1,
                           random_state=0).fit(X).score(X)

if __name__ == "__main__":
    with mp.get_context("spawn").Pool(2) as pool:
        a, b = pool.map(work, [0, 1])
    assert a == b == work(0)
"""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"skmvae_spawn_{os.getpid()}.py"
    path.write_text(code)
    try:
        result = subprocess.run(
            [sys.executable, str(path)], capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        path.unlink()
    assert result.returncode == 0, result.stderr


def test_a_memory_map_is_read_a_batch_at_a_time(tmp_path):
    """2 GB of rows: the process never holds more than a small part of them."""
    code = """
import resource, sys
import numpy as np
from skmvae import MVAETransformer
from skmvae.architectures import MLP

X = np.memmap(sys.argv[1], dtype=np.float32, mode="r", shape=(int(sys.argv[2]), 512))
mvae = MVAETransformer(k=2, latent_dim=2, architecture=MLP((8,)), max_iter=1, batch_size=512,
                       random_state=0)
def anonymous():
    with open("/proc/self/status") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith(("RssAnon:", "VmSwap:")))
mvae.fit(X[:5000])
before = anonymous()
peak = before
import threading, time
stop = False
def watch():
    global peak
    while not stop:
        peak = max(peak, anonymous())
        time.sleep(0.005)
thread = threading.Thread(target=watch); thread.start()
mvae.fit(X)
stop = True; thread.join()
print(peak - before)
"""
    n_rows = 200_000
    path = tmp_path / "rows.dat"
    with path.open("wb") as f:
        f.truncate(n_rows * 512 * 4)
    script = tmp_path / "child.py"
    script.write_text(code)
    result = subprocess.run(
        [sys.executable, str(script), str(path), str(n_rows)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    extra_bytes = 1024 * int(result.stdout)
    assert extra_bytes < n_rows * 512 * 4 / 4
