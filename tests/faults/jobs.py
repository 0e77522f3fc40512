"""Functions of the tests, each in a process of its own, which can be paused and killed.

A process for each would spend seconds importing torch. So one process, the launcher, imports it and
forks the jobs, which are functions of the test modules of this folder and return named arrays.
"""

import atexit
import contextlib
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

TRIALS = int(os.environ.get("SKMVAE_TRIALS", "5"))
FEW = (TRIALS + 1) // 2  # of those with several processes or fits

# Seconds after which something has gone wrong with a job, however busy the machine is.
DEADLINE = 60 + 10 * TRIALS

EXIT_CODE = 3  # of a job that answers SIGTERM with sys.exit
PAUSED = -signal.SIGSTOP if os.name == "posix" else None  # no exit code, but in place of one

X = load_digits().data[:500]


def small(**params):
    return small_estimator(**{"k": 3, "batch_size": 250, "verbose": 1} | params)


def contents(mvae):
    """All that an estimator has from its training, by name."""
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
    """The names of what is not bitwise the same, but for the seconds that it took."""
    return [
        name
        for name in sorted((found.keys() | expected.keys()) - {"history seconds"})
        if name not in found
        or name not in expected
        or found[name].dtype != expected[name].dtype
        or found[name].shape != expected[name].shape
        or found[name].tobytes() != expected[name].tobytes()
    ]


def saved_epochs(folder):
    """How many epochs each of the checkpoints holds; each of them must be whole."""
    paths = [path for path in folder.glob("*") if not path.name.startswith(".")]
    states = [read_tensors(path)[1]["training"] for path in paths]
    return [len(state["progress"]["records"]) for state in states]


def names_of_unfinished(folder):
    return [path.name for path in folder.glob(".*")]


# What jobs do.


def pause():
    """Stop until the tests say SIGCONT, so that they need not be quick to send what follows."""
    os.kill(os.getpid(), signal.SIGSTOP)


class Reporter(logging.Handler):
    """Prints and counts the epochs that fits report, and pauses after one of them."""

    def __init__(self, pause_after=None):
        super().__init__()
        logger = logging.getLogger("skmvae")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        self.n_epochs = 0
        self._pause_after = pause_after
        self._pause_if_it_is_time()

    def emit(self, record):
        if record.getMessage().startswith("epoch"):
            print(record.getMessage(), flush=True)
            self.n_epochs += 1
            self._pause_if_it_is_time()

    def _pause_if_it_is_time(self):
        if self.n_epochs == self._pause_after:
            pause()


def search(folder, max_iter):
    """Four fits, of two candidates on two folds, and one of the best on all rows."""
    grid = {"latent_dim": [1, 2]}
    mvae = small(max_iter=max_iter, checkpoint_dir=folder)
    found = GridSearchCV(mvae, grid, cv=2, n_jobs=1, error_score="raise").fit(X)
    scores = {n: v for n, v in found.cv_results_.items() if n.endswith("test_score")}
    return {**contents(found.best_estimator_), **scores}


# The launcher, as its own process runs it.


def launch():
    """For each line of standard input fork the job it says, or say how that ended or if it paused.

    What is left of them at the end of the input is killed.
    """
    for name in ("torch._dynamo", "safetensors.numpy"):  # what the first fit of a process imports
        importlib.import_module(name)
    checkpoints._FRACTION_OF_TIME = 1e9  # a checkpoint after every epoch
    gc.freeze()  # a collection in a job would touch, and so copy, all of this process's memory
    alive = set()
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, int):
            answer = wait_for(order)
            if answer != PAUSED:
                alive.remove(order)
        else:
            answer = os.fork()
            if answer == 0:
                run_job(**order)
            alive.add(answer)
        print(answer, flush=True)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def wait_for(pid):
    """How it ended, the negative number of the signal that ended it, or PAUSED."""
    status = os.waitpid(pid, os.WUNTRACED)[1]
    return PAUSED if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)


def run_job(module, function, path, arguments):
    """Run the function in this process, which ends with it; what it returns is ``path``.npz."""
    log = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.alarm(DEADLINE)  # whatever happens to the tests
    # A job that a shell starts in the background ignores SIGINT, and so do its children.
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
        # Not even another signal lets this process go on as a second launcher.
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)


# The launcher and its jobs, as the tests see them.


@functools.cache
def launcher():
    """Started with the first job, and ended with the tests."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import jobs; jobs.launch()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Of a process with more threads, only the one that forks lives on.
        env=os.environ
        | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "CUDA_VISIBLE_DEVICES": "",  # jobs are forked, after which CUDA cannot be used
        },
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
    """A function in a process of its own. Its files, and their names, are ``path`` and more."""

    def __init__(self, path, function, arguments):
        self._path = path
        self._state = None  # how it ended, or PAUSED
        order = {
            "module": function.__module__,
            "function": function.__name__,
            "path": str(path),
            "arguments": arguments,
        }
        self._pid = ask_launcher(order)

    def send(self, number):
        """A signal; if it has ended it is still there, until it is waited for, and gets none."""
        assert self._state in (None, PAUSED)
        os.kill(self._pid, number)

    def pauses(self):
        """Whether it pauses before it ends; waits for that."""
        self._state = ask_launcher(self._pid)
        return self._state == PAUSED

    def go_on(self):
        self.send(signal.SIGCONT)
        self._state = None

    def exit_code(self):
        """How it ended: the negative number of the signal, if one ended it."""
        if self._state is None:
            assert not self.pauses()
        return self._state

    def end(self):
        if self._state in (None, PAUSED):
            self.send(signal.SIGKILL)
            while self.pauses():
                pass

    def output(self):
        """The lines that it has printed."""
        return self._path.with_suffix(".log").read_text().splitlines()

    def n_epochs(self):
        return sum(line.startswith("epoch") for line in self.output())

    def result(self):
        assert self.exit_code() == 0, "\n".join(self.output())
        with np.load(self._path.with_suffix(".npz")) as arrays:
            return dict(arrays)
