"""Run functions of the tests in processes that can be paused and killed.

A new process spends seconds on the import of torch. So one process, the launcher, imports torch and
forks the jobs. A job is a function of a test module in this folder and returns named arrays.
"""

import atexit
import functools
import gc
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
import warnings

import numpy as np
from networks import small_estimator
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skmvae._files import checkpoints
from skmvae._files.tensors import read_tensors

TRIALS = int(os.environ.get("SKMVAE_TRIALS", "4"))
FEW = (TRIALS + 1) // 2  # trials where each takes several processes or fits

# A job that takes longer, in seconds, hangs: no machine is so slow.
DEADLINE = 120 + 10 * TRIALS

PAUSED = -signal.SIGSTOP if os.name == "posix" else None  # stands where an exit code would

X = load_digits().data[:500]
FEW_ROWS = np.random.default_rng(0).normal(size=(60, 5))


def small(**params):
    return small_estimator(**{"k": 3, "batch_size": 250, "verbose": 1} | params)


def fit_beside(folder, **params):
    """Fit a few rows with the checkpoints of a folder; return the estimator and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mvae = small_estimator(checkpoint_dir=folder, **params).fit(FEW_ROWS)
    return mvae, [str(warning.message) for warning in caught]


def contents(mvae):
    """Return by name all that an estimator has from its training."""
    if not hasattr(mvae, "_state"):
        return {}
    found = {
        **mvae._state.arrays,
        "mean_": mvae.mean_,
        "weights_": mvae.weights_,
        "noise_variance_": np.array(mvae.noise_variance_),
        **{f"history {name}": np.array(values) for name, values in mvae.history_.items()},
    }
    if (training := vars(mvae).get("_training")) is not None:
        found |= {f"training {name}": array for name, array in training.arrays.items()}
        found["training values"] = np.array(json.dumps(training.values, sort_keys=True))
    return found


def differences(found, expected):
    """Return the names of what differs in a bit. The seconds of the epochs may differ."""
    names = (found.keys() | expected.keys()) - {"history seconds"}

    def bits(array):
        return None if array is None else (array.dtype, array.shape, array.tobytes())

    return [name for name in sorted(names) if bits(found.get(name)) != bits(expected.get(name))]


def saved_epochs(folder):
    """Return the number of epochs in each checkpoint. Every checkpoint must be readable."""
    paths = [path for path in folder.glob("*") if not path.name.startswith(".")]
    states = [read_tensors(path)[1]["training"] for path in paths]
    return [len(state["progress"]["records"]) for state in states]


# Parts of jobs.

# The first stops early after eight epochs; at so high a rate the best of them is an early one.
FITS = {
    "stops early": {"max_iter": 30, "early_stopping": True, "n_iter_no_change": 7, "tol": 1e9}
    | {"learning_rate": 0.5, "learning_rate_schedule": "constant"},
    "all rows": {"max_iter": 8},
}
N_EPOCHS = {"stops early": 8, "all rows": 8, "search": 15}


def train(kind, folder):
    """Run a fit or a search, of five short fits, and return what it has found."""
    if kind != "search":
        return contents(small(**FITS[kind], checkpoint_dir=folder).fit(X))
    mvae = small(max_iter=3, checkpoint_dir=folder)
    grid = {"latent_dim": [1, 2]}
    found = GridSearchCV(mvae, grid, cv=2, n_jobs=1, error_score="raise").fit(X)
    scores = {n: v for n, v in found.cv_results_.items() if n.endswith("test_score")}
    return {**contents(found.best_estimator_), **scores}


def pause():
    """Stop until SIGCONT, so that the test can be slow to send what follows."""
    os.kill(os.getpid(), signal.SIGSTOP)


class Reporter(logging.Handler):
    """Print and count the reported epochs, and pause after one of them."""

    def __init__(self, pause_after=None):
        super().__init__()
        logger = logging.getLogger("skmvae")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        self.n_epochs = 0
        self._pause_after = pause_after
        if pause_after == 0:
            pause()

    def emit(self, record):
        if record.getMessage().startswith("epoch"):
            print(record.getMessage(), flush=True)
            self.n_epochs += 1
            if self.n_epochs == self._pause_after:
                pause()


# The launcher in its own process.


def launch():
    """Read orders, one per line: fork a job, or wait until a job has ended or paused."""
    for name in ("torch._dynamo", "safetensors.numpy"):  # the first fit of a process imports these
        importlib.import_module(name)
    checkpoints._FRACTION_OF_TIME = 1e9  # a checkpoint after every epoch
    gc.freeze()  # a collection in a job would copy all of this process's memory
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, int):
            status = os.waitpid(order, os.WUNTRACED)[1]
            answer = PAUSED if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                run_job(**order)
        print(answer, flush=True)


def run_job(module, function, path, arguments):
    """Run the function, write what it returns to ``path``.npz, and end this process."""
    log = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.alarm(DEADLINE)  # ends the job even if the tests have died
    # Processes that a shell starts in the background ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("error")
    code = 1
    try:
        result = getattr(importlib.import_module(module), function)(**arguments)
        np.savez(f"{path}.npz", **result)
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # no signal lets this process go on as a second launcher


# The launcher and its jobs in the process of the tests.


@functools.cache
def launcher():
    """Start with the first job, and end with the tests."""
    # A fork has one thread and cannot use CUDA.
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, "-c", "import jobs; jobs.launch()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | settings,
    )
    atexit.register(process.communicate)
    return process


def ask_launcher(order):
    process = launcher()
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, "the launcher has ended"
    return int(answer)


class Job:
    """A function in a process of its own. The names of its files begin with ``path``."""

    def __init__(self, path, function, arguments):
        self._path = path
        self._state = None  # exit code or PAUSED
        module, name = function.__module__, function.__name__
        order = {"module": module, "function": name, "path": str(path), "arguments": arguments}
        self._pid = ask_launcher(order)

    def send(self, number):
        """Send a signal. A job that has ended, and was not waited for, takes no notice."""
        assert self._state in (None, PAUSED)
        os.kill(self._pid, number)

    def pauses(self):
        """Wait until it pauses or ends; return whether it pauses."""
        self._state = ask_launcher(self._pid)
        return self._state == PAUSED

    def go_on(self):
        assert self._state == PAUSED, self.output()
        self.send(signal.SIGCONT)
        self._state = None

    def exit_code(self):
        """Wait for its end; a signal that ended it counts as its negative number."""
        if self._state is None:
            assert not self.pauses()
        return self._state

    def end(self):
        if self._state in (None, PAUSED):
            self.send(signal.SIGKILL)
            while self.pauses():
                pass

    def output(self):
        return self._path.with_suffix(".log").read_text()

    def n_epochs(self):
        return sum(line.startswith("epoch") for line in self.output().splitlines())

    def result(self):
        assert self.exit_code() == 0, self.output()
        with np.load(self._path.with_suffix(".npz")) as arrays:
            return dict(arrays)
