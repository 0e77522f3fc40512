"""Processes that are really killed: a fit goes on from its checkpoint, a file is old or new.

A process for each trial would spend seconds importing torch. So one process, the launcher, imports
it and forks the jobs, which are functions of the test modules of this folder.
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
import time
import traceback
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import skmvae
from skmvae import MVAETransformer
from skmvae._files import checkpoints
from skmvae._files.tensors import read_tensors
from skmvae.architectures import MLP

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and fork")

TRIALS = int(os.environ.get("SKMVAE_TRIALS", "5"))
FEW = (TRIALS + 1) // 2  # of those with several processes or fits

# Seconds after which something has gone wrong with a job, however busy the machine is.
DEADLINE = 60 + 10 * TRIALS

EXIT_CODE = 3  # of a job that answers SIGTERM with sys.exit
PAUSED = -signal.SIGSTOP if os.name == "posix" else None  # no exit code, but in place of one

X = load_digits().data[:500]


def small(**params):
    """An estimator whose epochs take milliseconds. Forked processes may not use a GPU."""
    params = {
        "k": 3,
        "latent_dim": 2,
        "architecture": MLP((16,)),
        "batch_size": 250,
        "device": "cpu",
        "random_state": 0,
        "verbose": 1,
    } | params
    return MVAETransformer(**params)


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


# Jobs: each runs in a process of its own and returns named arrays.


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


def fit(*, pause_after=None, exits=False, save=None, hidden=16, **params):
    """With ``exits``, SIGTERM is answered by sys.exit; with ``save``, to a model file too."""
    if exits:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_CODE))
    Reporter(pause_after)
    mvae = small(architecture=MLP((hidden,)), **params).fit(X)
    if save is not None:
        mvae.save(save)
    return contents(mvae)


def search(folder, max_iter):
    """Four fits, of two candidates on two folds, and one of the best on all rows."""
    grid = {"latent_dim": [1, 2]}
    mvae = small(max_iter=max_iter, checkpoint_dir=folder)
    found = GridSearchCV(mvae, grid, cv=2, n_jobs=1, error_score="raise").fit(X)
    scores = {n: v for n, v in found.cv_results_.items() if n.endswith("test_score")}
    return {**contents(found.best_estimator_), **scores}


def reported_search(pause_after=None, **arguments):
    Reporter(pause_after)
    return search(**arguments)


def save(path, sources, times, pauses=False):
    """Save one and the other model to the same file in turns."""
    models = [skmvae.load(source) for source in sources]
    models[1].save(path)
    if pauses:
        pause()
    for _ in range(times):
        for mvae in models:
            mvae.save(path)
    return {}


# The launcher, as its own process runs it.


def launch():
    """For each line of standard input fork the job it says, or say how that ended or if it paused.

    What is left of them at the end of the input is killed.
    """
    for name in ("torch._dynamo", "safetensors.numpy"):  # what the first fit of a process imports
        importlib.import_module(name)
    checkpoints._SHARE_OF_TIME = 1e9  # a checkpoint after every epoch
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
        [sys.executable, "-c", "import test_kill; test_kill.launch()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Of a process with more threads, only the one that forks lives on.
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
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


@pytest.fixture
def start(tmp_path):
    """Starts jobs, which do not outlive the test."""
    jobs = []

    def start_job(function, **arguments):
        jobs.append(Job(tmp_path / f"job{len(jobs)}", function, arguments))
        return jobs[-1]

    yield start_job
    for job in jobs:
        job.end()


@pytest.fixture
def rng(request):
    """Random times, other ones in each test."""
    return np.random.default_rng([*request.node.name.encode()])


def saved_epochs(folder):
    """How many epochs each of the checkpoints holds; each of them must be whole."""
    paths = [path for path in folder.glob("*") if not path.name.startswith(".")]
    states = [read_tensors(path)[1]["training"] for path in paths]
    return [len(state["progress"]["records"]) for state in states]


def names_of_unfinished(folder):
    return [path.name for path in folder.glob(".*")]


class RandomKills:
    """The same fit again and again, which signals end at random times until one may end itself.

    Each chain of them has a folder of its own, and all must end as a fit without checkpoints does.
    """

    def __init__(self, start, rng, tmp_path, **params):
        self._start, self._rng, self._folder, self._params = start, rng, tmp_path, params
        self._expected = start(fit, **params).result()
        self._n_epochs = len(self._expected["history loss"])
        self._seconds = self._expected["history seconds"].mean()

    def check(self, n_trials, n_kills=1, number=signal.SIGKILL):
        """Let chains of kills end; in some of them the last fit must have found a checkpoint."""
        assert any([self._chain(n_kills, number, trial) for trial in range(n_trials)])  # noqa: C419

    def _chain(self, n_kills, number, trial):
        """The epochs that had been done when the last fit began."""
        folder = self._folder / f"checkpoints{trial}"
        arguments = {**self._params, "exits": trial % 2 == 1, "checkpoint_dir": str(folder)}
        done = 0
        for n_left in range(n_kills, 0, -1):
            n_epochs = self._rng.integers((self._n_epochs - done) // n_left + 1)
            done += self._kill(number, folder, done, int(n_epochs), arguments)
        last = self._start(fit, **arguments)
        assert differences(last.result(), self._expected) == []
        assert last.n_epochs() == self._n_epochs - done
        assert saved_epochs(folder) == [self._n_epochs]
        assert names_of_unfinished(folder) == []
        return done

    def _kill(self, number, folder, done, n_epochs, arguments):
        """Let the fit run for so many epochs and a random part of more; how many it has saved."""
        job = self._start(fit, pause_after=n_epochs, **arguments)
        assert job.pauses(), job.output()
        job.go_on()
        time.sleep(self._rng.uniform(0.0, 2.0 * self._seconds))
        job.send(number)
        assert job.exit_code() in (0, -number, EXIT_CODE), job.output()
        saved = sum(saved_epochs(folder)) - done
        # An epoch is reported just before its checkpoint is written.
        assert saved in (job.n_epochs() - 1, job.n_epochs())
        if job.exit_code() == EXIT_CODE:
            assert names_of_unfinished(folder) == []
        return saved


# With early stopping, eight epochs; at so high a rate the best of them is an early one.
@pytest.mark.parametrize(
    "params",
    [
        {"max_iter": 8},
        {
            "max_iter": 30,
            "early_stopping": True,
            "n_iter_no_change": 7,
            "tol": 1e9,
            "learning_rate": 0.5,
        },
    ],
    ids=["all rows", "early stopping"],
)
@pytest.mark.parametrize("schedule", ["trapezoid", "constant"])
def test_a_killed_fit_goes_on_and_ends_as_if_it_had_not_been_killed(
    start, rng, tmp_path, schedule, params
):
    kills = RandomKills(start, rng, tmp_path, learning_rate_schedule=schedule, **params)
    kills.check(FEW)


def test_a_fit_that_is_killed_again_and_again_ends_as_if_it_had_not_been(start, rng, tmp_path):
    kills = RandomKills(start, rng, tmp_path, max_iter=12)
    kills.check(FEW, n_kills=3)


def test_sigterm_leaves_the_checkpoint_of_the_last_finished_epoch(start, rng, tmp_path):
    """Every other job answers it with sys.exit, the others with nothing."""
    RandomKills(start, rng, tmp_path, max_iter=8).check(FEW, number=signal.SIGTERM)


def test_a_killed_search_keeps_the_candidates_that_it_had_finished(start, rng, tmp_path):
    n_fits, n_epochs = 5, 3
    begin = time.perf_counter()
    expected = start(reported_search, folder=None, max_iter=n_epochs).result()
    seconds = (time.perf_counter() - begin) / n_fits
    for trial in range(FEW):
        folder = tmp_path / f"checkpoints{trial}"
        arguments = {"folder": str(folder), "max_iter": n_epochs}
        pause_after = int(rng.integers(1, n_fits * n_epochs))
        job = start(reported_search, pause_after=pause_after, **arguments)
        assert job.pauses(), job.output()
        job.go_on()
        time.sleep(rng.uniform(0.0, seconds))
        job.send(signal.SIGKILL)
        assert job.exit_code() in (0, -signal.SIGKILL)
        saved = saved_epochs(folder)
        assert sum(saved) >= pause_after - 1
        # All but the last of those that had begun had ended.
        assert sorted(saved)[1:] == [n_epochs] * (len(saved) - 1)
        again = start(reported_search, **arguments)
        assert differences(again.result(), expected) == []
        assert again.n_epochs() == n_fits * n_epochs - sum(saved)
        assert saved_epochs(folder) == [n_epochs] * n_fits
        assert names_of_unfinished(folder) == []


def test_two_processes_with_the_same_fit_and_folder_end_with_the_same_model(start, rng, tmp_path):
    """And without a warning, which is an error in jobs."""
    params = {"max_iter": 8}
    expected = start(fit, **params).result()
    for trial in range(FEW):
        folder = tmp_path / f"checkpoints{trial}"
        jobs = []
        for _ in range(2):
            jobs.append(start(fit, checkpoint_dir=str(folder), **params))
            time.sleep(rng.choice([0.0, rng.uniform(0.0, 0.2)]))
        for job in jobs:
            assert differences(job.result(), expected) == []
        assert saved_epochs(folder) == [8]
        assert names_of_unfinished(folder) == []


def saved_models(start, folder, hidden):
    """Two models, and the files that they are saved to."""
    sources = [str(folder / "first"), str(folder / "second")]
    jobs = [
        start(fit, save=source, max_iter=n, hidden=hidden) for n, source in enumerate(sources, 1)
    ]
    return [job.result() for job in jobs], sources


def test_a_process_killed_while_it_saves_leaves_the_old_or_the_new_file(start, rng, tmp_path):
    # Wide layers, so that much of the time is that of writing.
    models, sources = saved_models(start, tmp_path, hidden=1000)
    path = tmp_path / "saved" / "mvae"
    path.parent.mkdir()
    for _ in range(TRIALS):
        job = start(save, path=str(path), sources=sources, times=10**6, pauses=True)
        assert job.pauses(), job.output()
        job.go_on()
        time.sleep(rng.uniform(0.0, 0.1))
        job.send(signal.SIGKILL)
        assert job.exit_code() == -signal.SIGKILL
        found = contents(skmvae.load(path))
        assert [] in [differences(found, model) for model in models]
        # One that the killed process did not finish, if any: the next one deletes the others.
        assert len(names_of_unfinished(path.parent)) <= 1
    skmvae.load(sources[0]).save(path)
    assert names_of_unfinished(path.parent) == []


def test_two_processes_that_save_to_the_same_file_do_not_hinder_each_other(start, tmp_path):
    models, sources = saved_models(start, tmp_path, hidden=16)
    path = tmp_path / "saved" / "mvae"
    path.parent.mkdir()
    jobs = [start(save, path=str(path), sources=sources, times=10 * TRIALS) for _ in range(2)]
    for job in jobs:
        job.result()
    found = contents(skmvae.load(path))
    assert [] in [differences(found, model) for model in models]
    assert names_of_unfinished(path.parent) == []
