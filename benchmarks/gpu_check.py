"""Does skmvae work on this GPU, and how fast? Prints one report to paste into an issue.

    python benchmarks/gpu_check.py > report.md           # under four minutes
    python benchmarks/gpu_check.py --json figures.json   # also writes the figures to a file
    python benchmarks/gpu_check.py --only kernels        # runs one part, in this process
    python benchmarks/gpu_check.py --suite               # runs all tests of the package instead

Each part runs in a process of its own, since an error on a GPU can spoil everything that its
process does later. The most important parts come first, since a part is skipped if no time is left.
The report shows the end of the output of a part that fails. Without a GPU the script says so and
ends.
"""

import importlib.util
import io
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import inference as inference_speed
import numpy as np
import precision
import steps
import torch
from contenders import Ours
from machine import make_parser, print_machine
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from skmvae import MVAETransformer
from skmvae._fit import batches
from skmvae.architectures import Conv
from skmvae.datasets import fetch_mnist

ROOT = Path(__file__).parents[1]
DEVICE, ACTIVITY = "cuda", torch.profiler.ProfilerActivity.CUDA
# The whole run may take 240 s; start and report need some of that.
SECONDS, SECONDS_A_PART = 225, 60
LINES = 25  # of the output of a part, in the report
FIGURES = "figures: "  # prefix of a line in which a part prints figures for the report
COMMON = {"k": 4, "latent_dim": 20, "batch_size": 128}


def training_steps():
    """Milliseconds a step of the default model, beside the obvious version and the floor."""
    case = steps.compare(
        _random_images(60_000),
        n_steps=200,
        n_before=0,
        device=DEVICE,
        with_pythae=importlib.util.find_spec("pythae") is not None,
        **COMMON,
    )
    tell({f"{name}, ms": value for name, value in case["milliseconds"].items()})


def kernels():
    """CUDA kernels in the captured step of the default model."""
    X, n_replays = _random_images(12_800), 5
    for name in precision.PRECISIONS:
        ours = Ours(X, precision=name, device=DEVICE, **COMMON)
        ours.run(10)
        (graph,) = ours.trainer._graphed._graphs.values()
        trace = _trace(lambda graph=graph: [graph.replay() for _ in range(n_replays)])
        tell({f"{name}, kernels a step": _n_kernels(trace) / n_replays})


def other_steps():
    """Milliseconds a step by objective ("melbo" is the default), with holes, with convolutions."""
    rows, images = _random_images(12_800), _random_images(2_560, 3 * 32 * 32)
    is_missing = np.random.default_rng(1).random(rows.shape) < 0.5
    cases = {name: (rows, {"objective": name}) for name in ("melbo", "mixture", "averaged")}
    cases["half missing"] = np.where(is_missing, np.float32(np.nan), rows), {}
    cases["Conv"] = images, {"architecture": Conv((3, 32, 32))}
    for case, (X, params) in cases.items():
        for name in precision.PRECISIONS:
            tell({f"{case} {name}, ms": _milliseconds(X, precision=name, **params)})


def quality():
    """Quality in bfloat16 and float32; the errors must differ by less than 5 %."""
    data, errors = _real_images(), []
    for name in precision.PRECISIONS:
        found = precision.measure(data, name, seed=0, epochs=5)
        tell({f"{name}, {key}": value for key, value in found.items()})
        errors.append(found["MSE"])
    assert abs(errors[1] / errors[0] - 1) < 0.05


def streamed_rows():
    """Streamed rows must train as resident rows do; seconds of the faster of two epochs."""
    losses = []
    for name, fraction in (("resident", batches._RESIDENT_FRACTION), ("streamed", 0.0)):
        batches._RESIDENT_FRACTION = fraction
        history = _fit(_random_images(30_000), max_iter=2).history_
        tell({f"{name}, s": min(history["seconds"]), f"{name}, loss": history["loss"][-1]})
        losses.append(history["loss"])
    _compare(losses[:1], losses[1:])


def peak_memory():
    """Peak memory of one epoch, above the memory before it; the rows must be released after it."""
    for n_rows in (1_000, 60_000):
        X, before = _random_images(n_rows), torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _fit(X, max_iter=1)
        peak, left = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated()
        left -= before
        amounts = {"of the rows": X.nbytes, "at the peak": peak, "after the fit": left}
        tell({f"{n_rows} rows, MiB {when}": n / 2**20 for when, n in amounts.items()})
    # Not zero: cuBLAS keeps tens of MiB per stream.
    assert left < X.nbytes


def inference():
    """Rows a second through a fitted model, and the ratio to the matrix products alone."""
    with redirect_stdout(io.StringIO()):  # drops its table of the same figures
        found = inference_speed.measure(_random_images(1_000), quick=True, device=DEVICE)
    for case in found:
        name = f"{case['method']} of {case['rows']} in {case['dtype']}"
        speed = case["rows a second"]
        tell({f"{name}, rows/s": speed, f"{name}, share": speed / case["products alone"]})


def gpu_to_cpu():
    """A model fitted on the GPU, pickled and loaded, must give the same results on the CPU."""
    X = load_digits().data / 16
    mvae = _fit(X)
    loaded = pickle.loads(pickle.dumps(mvae)).set_params(device="cpu")
    for name in ("transform", "reconstruct", "score_samples"):
        _compare([getattr(loaded, name)(X)], [getattr(mvae, name)(X)])


def two_fits_at_once():
    """Fits in two threads must give the same models as fits one after the other."""
    X = load_digits().data / 16

    def codes(seed):
        return _fit(X, random_state=seed).transform(X)

    alone = [codes(seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        _compare(pool.map(codes, (0, 1)), alone)


FUNCTIONS = {
    function.__name__: function
    for function in (
        training_steps,
        kernels,
        other_steps,
        quality,
        streamed_rows,
        peak_memory,
        inference,
        gpu_to_cpu,
        two_fits_at_once,
    )
}
SUITE = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
PARTS = {
    "gpu_tests": [*SUITE, "-m", "gpu"],
    **{name: [__file__, "--only", name] for name in FUNCTIONS},
}


def tell(figures):
    """Print figures of a part, by name, for the report."""
    print(FIGURES + json.dumps(figures), flush=True)


def _random_images(n_rows, n_features=784):
    return np.random.default_rng(0).random((n_rows, n_features), dtype=np.float32)


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


def _milliseconds(X, **params):
    """Milliseconds a step in the fastest epoch of a fit; the first epoch captures the step."""
    seconds = _fit(X, max_iter=4, **COMMON, **params).history_["seconds"]
    return 1e3 * min(seconds) / math.ceil(len(X) / COMMON["batch_size"])


def _compare(found, expected):
    """Compare with a tolerance, as the tests do: the order of sums on a GPU is not fixed."""
    for f, e in zip(found, expected, strict=True):
        print("largest difference", np.abs(np.subtract(f, e)).max())
        np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-3)


def _trace(function):
    """The events of the profiler during a call, in the format of Chrome's traces."""
    with torch.profiler.profile(activities=[ACTIVITY]) as profile:
        function()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        return json.loads(path.read_text())["traceEvents"]


def _n_kernels(trace):
    """Number of kernels; copies and fills of memory have categories of their own in a trace."""
    n = sum(event.get("cat") == "kernel" for event in trace)
    assert n > 0, "the profiler has seen no kernel"
    return n


class Result(NamedTuple):
    """The outcome of a part."""

    name: str
    passed: bool
    seconds: float
    output: list[str]  # its last lines
    figures: dict[str, float]

    @property
    def section(self):
        """The section of the report."""
        title = f"{'pass' if self.passed else 'FAIL'}: {self.name} ({self.seconds:.0f} s)"
        about = f"{FUNCTIONS[self.name].__doc__}\n\n" if self.name in FUNCTIONS else ""
        figures = [f"{name} {value:.4g}" for name, value in self.figures.items()]
        lines = "\n".join(self.output + figures)
        return f"## {title}\n\n{about}```text\n{lines}\n```\n"

    @property
    def record(self):
        """The entry in the file of figures."""
        return {"passed": self.passed, "seconds": round(self.seconds, 1), "figures": self.figures}


def run_part(name, seconds):
    """Run a part in a process of its own, for at most this many seconds."""
    print(name, file=sys.stderr, flush=True)
    start = time.perf_counter()
    passed, lines = _run(PARTS[name], seconds) if seconds > 0 else (False, ["no time was left"])
    figures = {}
    for line in lines:
        if line.startswith(FIGURES):
            figures |= json.loads(line.removeprefix(FIGURES))
    others = [line for line in lines if not line.startswith(FIGURES)]
    return Result(name, passed, time.perf_counter() - start, others[-LINES:], figures)


def _run(arguments, seconds):
    """Run Python; return whether its exit status is 0, and the lines that it printed."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        try:
            code = _python(arguments, timeout=seconds, stdout=file, stderr=subprocess.STDOUT)
            end = f"exit status {code}"
        except subprocess.TimeoutExpired:
            code, end = None, f"timed out after {seconds:.3g} s"
        file.seek(0)
        lines = file.read().splitlines()
    return code == 0, lines if code == 0 else [*lines, end]


def _python(arguments, **options):
    """Run Python without buffering, so that no output is lost at a timeout; return its status."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, **options).returncode


def summary_of(results):
    """One line: how many parts passed, and the names of those that failed."""
    failed = [result.name for result in results if not result.passed]
    n_passed, seconds = len(results) - len(failed), sum(result.seconds for result in results)
    failures = f"; failed: {', '.join(failed)}" if failed else ""
    return f"{n_passed} of {len(results)} parts passed in {seconds:.0f} s{failures}"


def print_gpu_machine():
    """``print_machine``, plus versions and memory of the GPU."""
    record = {"CUDA": torch.version.cuda, "driver and memory": _driver_and_memory()}
    machine = print_machine() | record
    for name, value in record.items():
        print(f"{name}: {value}")
    return machine


def _driver_and_memory():
    """From ``nvidia-smi``, if there is one."""
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except OSError as error:
        return f"unknown: {error}"


def report(json_path=None):
    """Run all parts, print the report, and write the figures to ``json_path`` if it is given."""
    end = time.monotonic() + SECONDS
    results = [run_part(name, min(SECONDS_A_PART, end - time.monotonic())) for name in PARTS]
    summary = summary_of(results)
    print(f"{summary}\n\n# skmvae on a GPU\n\n```text")
    machine = print_gpu_machine()
    print("```\n")
    print("\n".join(result.section for result in results))
    if json_path is not None:
        parts = {result.name: result.record for result in results}
        record = {"summary": summary, "machine": machine, "parts": parts}
        json_path.write_text(json.dumps(record, indent=2) + "\n")
    return int(not all(result.passed for result in results))


def main(arguments=None):
    parser = make_parser(__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--only", choices=FUNCTIONS, help="run one part, in this process")
    instead.add_argument("--suite", action="store_true", help="run the whole test suite")
    arguments = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(f"No GPU: torch {torch.__version__} sees no CUDA device, so nothing can be checked.")
        return 0
    if arguments.suite:
        return _python(SUITE)
    if arguments.only:
        FUNCTIONS[arguments.only]()
        return 0
    return report(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
