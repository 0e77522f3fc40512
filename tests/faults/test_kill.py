"""Processes that are really killed: a fit goes on from its checkpoint, a file is old or new."""

import os
import signal
import sys
import time

import pytest
from jobs import (
    EXIT_CODE,
    FEW,
    TRIALS,
    Reporter,
    X,
    contents,
    differences,
    names_of_unfinished,
    pause,
    saved_epochs,
    search,
    small,
)

import skmvae
from skmvae.architectures import MLP

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and fork")


# Jobs.


def fit(*, pause_after=None, exits=False, save=None, hidden=16, **params):
    """With ``exits``, SIGTERM is answered by sys.exit; with ``save``, to a model file too."""
    if exits:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_CODE))
    Reporter(pause_after)
    mvae = small(architecture=MLP((hidden,)), **params).fit(X)
    if save is not None:
        mvae.save(save)
    return contents(mvae)


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
    skmvae.load(sources[0]).save(path)


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
