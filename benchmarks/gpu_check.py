"""Everything that only a GPU can show, in one command and one report to paste into an issue.

    python benchmarks/gpu_check.py > report.md    # under ten minutes

Each part is a process of its own, since an error on a GPU can spoil all that its process does
after. One that fails is reported with the end of its traceback. Without a GPU it says so, no more.
"""

import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import precision
import torch
from machine import print_machine
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from skmvae import MVAETransformer
from skmvae._fit import batches
from skmvae.datasets import fetch_mnist

ROOT = Path(__file__).parents[1]
DEVICE = "cuda"
SECONDS, SECONDS_A_PART, LINES = 580, 200, 25


def quality():
    """bfloat16 beside float32: errors that differ by no more than 5 %."""
    data = _real_images()
    found = {name: precision.measure(data, name, seed=0, epochs=5) for name in precision.PRECISIONS}
    for name, figures in found.items():
        print(name, ", ".join(f"{key} {value:.2f}" for key, value in figures.items()))
    assert abs(found["bfloat16"]["MSE"] / found["float32"]["MSE"] - 1) < 0.05


def streamed_rows():
    """They train as resident ones do; seconds of the faster of two epochs."""
    losses = []
    for name, share in (("resident", batches._RESIDENT_SHARE), ("streamed", 0.0)):
        batches._RESIDENT_SHARE = share
        history = _fit(_random_images(30_000), max_iter=2).history_
        losses.append(history["loss"])
        print(f"{name}: {min(history['seconds']):.3f} s, loss {history['loss'][-1]:.4f}")
    _compare(losses[:1], losses[1:])


def two_fits_at_once():
    """From two threads: the models that each gives alone."""
    X = load_digits().data / 16

    def codes(seed):
        return _fit(X, random_state=seed).transform(X)

    alone = [codes(seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        _compare(pool.map(codes, (0, 1)), alone)


def gpu_to_cpu():
    """A model fitted on the GPU, pickled and loaded, gives the same on the CPU."""
    X = load_digits().data / 16
    mvae = _fit(X)
    loaded = pickle.loads(pickle.dumps(mvae)).set_params(device="cpu")
    for name in ("transform", "reconstruct", "score_samples"):
        _compare([getattr(loaded, name)(X)], [getattr(mvae, name)(X)])


def peak_memory():
    """Of one epoch, above what is held before it; the rows are not held after it."""
    for n_rows in (1_000, 60_000):
        X, before = _random_images(n_rows), torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _fit(X, max_iter=1)
        peak, left = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated()
        left -= before
        print(f"rows {X.nbytes >> 20} MiB, peak {peak >> 20} MiB, after the fit {left >> 20} MiB")
    # Workspaces of cuBLAS stay, tens of MiB a stream.
    assert left < X.nbytes


FUNCTIONS = {
    f.__name__: f for f in (quality, streamed_rows, two_fits_at_once, gpu_to_cpu, peak_memory)
}
SPEED = ["benchmarks/speed.py", "--quick", "--device", DEVICE, "--only"]
PARTS = {
    "gpu_tests": ["-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"],
    "training_steps": [*SPEED, "steps", "--steps", "200"],
    "inference": [*SPEED, "inference"],
    **{name: [__file__, name] for name in FUNCTIONS},
}


def _random_images(n_rows):
    return np.random.default_rng(0).random((n_rows, 784), dtype=np.float32)


def _real_images():
    """12,000 rows of MNIST if ``SKMVAE_DATA`` is set, else scikit-learn's digits."""
    if os.environ.get("SKMVAE_DATA"):
        mnist = fetch_mnist()
        X, y, n_train = mnist.X_train[:12_000], mnist.y_train[:12_000], 10_000
    else:
        X, y = load_digits(return_X_y=True)
        X, n_train = np.float32(X / 16), 1_200
    print(f"{len(X)} rows of {X.shape[1]} columns")
    return Bunch(X_train=X[:n_train], y_train=y[:n_train], X_test=X[n_train:], y_test=y[n_train:])


def _fit(X, **params):
    params = {"max_iter": 5, "likelihood": "bernoulli", "random_state": 0} | params
    return MVAETransformer(device=DEVICE, **params).fit(X)


def _compare(found, expected):
    """As the tests do: the order of a GPU's sums is not fixed."""
    for f, e in zip(found, expected, strict=True):
        print("largest difference", np.abs(np.subtract(f, e)).max())
        np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-3)


def report_on(name, seconds):
    """(whether the part passed, its section of the report)."""
    print(name, file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        result = subprocess.run(
            [sys.executable, *PARTS[name]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        passed, output = result.returncode == 0, result.stdout
    except subprocess.TimeoutExpired as error:
        passed, output = False, str(error)
    title = f"{'pass' if passed else 'FAIL'}: {name} ({time.perf_counter() - start:.0f} s)"
    about = f"{FUNCTIONS[name].__doc__}\n\n" if name in FUNCTIONS else ""
    output = "\n".join(output.splitlines()[-LINES:])
    return passed, f"## {title}\n\n{about}```text\n{output}\n```\n"


def print_gpu():
    """Driver and memory, as far as ``nvidia-smi`` is there to ask."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv"]
    try:
        print(subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip())
    except OSError as error:
        print(f"driver unknown: {error}")


def main():
    if not torch.cuda.is_available():
        print(f"No GPU: torch {torch.__version__} sees no CUDA device, so nothing can be checked.")
        return 0
    print("# skmvae on a GPU\n\n```text")
    print_machine()
    print(f"CUDA: {torch.version.cuda}")
    print_gpu()
    end = time.monotonic() + SECONDS
    results = [
        report_on(name, max(1, min(SECONDS_A_PART, end - time.monotonic()))) for name in PARTS
    ]
    n_passed = sum(passed for passed, _ in results)
    print(f"```\n\n{n_passed} of {len(results)} parts passed.\n")
    print("\n".join(section for _, section in results))
    return int(n_passed < len(results))


if __name__ == "__main__":
    sys.exit(FUNCTIONS[sys.argv[1]]() if sys.argv[1:] else main())
