"""Ctrl-C at random times: what was fitted or saved is whole, the old or the new one.

The signals are sent by the tests' process to a job (see jobs.py) that asks for them.
"""

import copy
import functools
import itertools
import logging
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import (
    DEADLINE,
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
from skmvae._inference import Inference
from skmvae.architectures import MLP

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and fork")

# What the jobs have in common.


def ctrl_c_in(seconds, function, *arguments):
    """Ask for Ctrl-C in so many seconds, call the function, and say whether it came in time.

    Not if Python itself throws it away, as it does with what is raised in the callback of a weak
    reference.
    """
    before, returned, lost, hook = switches(), False, [], sys.unraisablehook
    sys.unraisablehook = lambda unraisable: lost.append(unraisable.exc_type)
    try:
        print("press", seconds, flush=True)
        pause()
        function(*arguments)
        returned = True
        end = time.monotonic() + DEADLINE / 4
        while KeyboardInterrupt not in lost and time.monotonic() < end:
            time.sleep(0.01)  # it is on its way
    except KeyboardInterrupt:
        assert switches() == before
        return not returned
    finally:
        sys.unraisablehook = hook
    if KeyboardInterrupt in lost:
        return False
    raise AssertionError("Ctrl-C was pressed, and no KeyboardInterrupt came of it")


def switches():
    """Of torch, in this thread."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(),
    )


class Delays:
    """Random seconds until Ctrl-C: by turns anywhere in a call of the function, and at its end."""

    def __init__(self, seed, function):
        self._rng = np.random.default_rng(seed)
        self._seconds = min(self._time(function) for _ in range(3))

    @staticmethod
    def _time(function):
        begin = time.perf_counter()
        function()
        return time.perf_counter() - begin

    def draw(self, n):
        for trial in range(n):
            share = self._rng.uniform(0.7, 1.2) if trial % 2 else self._rng.uniform(0.0, 1.0)
            yield share * self._seconds


def outcome(in_time):
    """What a job returns of its trials."""
    print(f"{sum(in_time)} of {len(in_time)} in time")
    return {"in_time": np.array(in_time)}


# The jobs.


def interrupt_fits(trials, seed, **params):
    """Every other is a refit."""
    params = {"max_iter": 8, "learning_rate_schedule": "constant", **params}

    @functools.cache
    def expected(n_epochs):
        return contents(small(**params | {"max_iter": n_epochs}).fit(X))

    reporter, in_time = Reporter(), []
    delays = Delays(seed, lambda: small(**params).fit(X))
    for trial, seconds in enumerate(delays.draw(trials)):
        mvae = small(**params)
        if trial // 2 % 2:
            mvae.set_params(random_state=1).fit(X[:300]).set_params(random_state=0)
        before, reporter.n_epochs = contents(mvae), 0
        in_time.append(ctrl_c_in(seconds, mvae.fit, X))
        n_reported, found = reporter.n_epochs, contents(mvae)
        if in_time[-1] and differences(found, before) == []:
            # Nothing was finished, or it came when fit was as good as over.
            assert n_reported in (0, params["max_iter"])
        else:
            assert mvae.n_iter_ in (n_reported, n_reported + 1)
            assert differences(found, expected(mvae.n_iter_)) == []
    return outcome(in_time)


def interrupt_partial_fits(trials, seed):
    make = functools.partial(small, max_iter=1, batch_size=20)  # many batches of one epoch
    in_time = []
    for trial, seconds in enumerate(Delays(seed, lambda: make().partial_fit(X)).draw(trials)):
        mvae = make()
        if trial % 3:
            mvae.fit(X[:300])
        if trial % 3 == 2:
            mvae.partial_fit(X[300:])
        before, after = contents(mvae), contents(copy.deepcopy(mvae).partial_fit(X))
        in_time.append(ctrl_c_in(seconds, mvae.partial_fit, X))
        found = contents(mvae)
        assert differences(found, after) == [] or (
            in_time[-1] and differences(found, before) == []
        ), (differences(found, after), differences(found, before))
    return outcome(in_time)


def interrupt_saves(trials, seed, folder):
    # Wide layers, so that much of the time is that of writing.
    models = [small(architecture=MLP((2000,)), max_iter=n).fit(X) for n in (1, 2)]
    path = Path(folder) / "mvae"
    old, new = models
    in_time = []
    for seconds in Delays(seed, lambda: models[0].save(path)).draw(trials):
        in_time.append(ctrl_c_in(seconds, new.save, path))
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
        found = contents(skmvae.load(path))
        if differences(found, contents(new)) == []:
            old, new = new, old
        else:
            assert in_time[-1]
            assert differences(found, contents(old)) == []
    return outcome(in_time)


def interrupt_fits_with_checkpoints(trials, seed, folder):
    params = {"max_iter": 8, "early_stopping": True, "learning_rate": 0.5}
    expected = contents(small(**params).fit(X))
    folders = (Path(folder) / str(i) for i in itertools.count())
    delays = Delays(seed, lambda: small(**params, checkpoint_dir=next(folders)).fit(X))
    reporter, in_time = Reporter(), []
    for seconds, folder in zip(delays.draw(trials), folders, strict=False):
        mvae = small(**params, checkpoint_dir=folder)
        in_time.append(ctrl_c_in(seconds, mvae.fit, X))
        saved = sum(saved_epochs(folder))
        assert names_of_unfinished(folder) == []
        reporter.n_epochs = 0
        assert differences(contents(mvae.fit(X)), expected) == []
        assert reporter.n_epochs == params["max_iter"] - saved
    return outcome(in_time)


def interrupt_searches(trials, seed, folder):
    expected = search(None, 3)
    folders = (Path(folder) / str(i) for i in itertools.count())
    in_time = []
    delays = Delays(seed, lambda: search(next(folders), 3))
    for seconds, folder in zip(delays.draw(trials), folders, strict=False):
        in_time.append(ctrl_c_in(seconds, search, folder, 3))
        assert names_of_unfinished(folder) == []
        assert differences(search(folder, 3), expected) == []
        assert saved_epochs(folder) == [3] * 5
    return outcome(in_time)


# The tests.


@pytest.fixture
def check(start, rng):
    """Runs a job and presses Ctrl-C whenever it asks; in some trials it must come in time."""

    def check_job(function, trials, **arguments):
        job = start(function, trials=trials, seed=int(rng.integers(2**31)), **arguments)
        while job.pauses():
            # Ctrl-C may have cut the line before it short of its end.
            seconds = float(job.output()[-1].rpartition("press")[2])
            job.go_on()
            time.sleep(seconds)
            job.send(signal.SIGINT)
        assert job.result()["in_time"].any()

    return check_job


@pytest.mark.parametrize(
    "params",
    [{}, {"early_stopping": True, "learning_rate": 0.5}],
    ids=["all rows", "early stopping"],
)
def test_ctrl_c_in_fit_keeps_the_last_finished_epoch_or_the_earlier_fit(check, params):
    check(interrupt_fits, TRIALS, **params)


def test_ctrl_c_in_partial_fit_leaves_what_was_or_what_it_would_have_become(check):
    check(interrupt_partial_fits, TRIALS)


def test_ctrl_c_in_save_leaves_the_old_or_the_new_file_and_no_other(check, tmp_path):
    (tmp_path / "saved").mkdir()
    check(interrupt_saves, TRIALS, folder=str(tmp_path / "saved"))


def test_a_fit_with_checkpoints_goes_on_after_ctrl_c(check, tmp_path):
    check(interrupt_fits_with_checkpoints, TRIALS, folder=str(tmp_path))


def test_a_search_with_checkpoints_goes_on_after_ctrl_c(check, tmp_path):
    check(interrupt_searches, TRIALS, folder=str(tmp_path))


@pytest.fixture
def _ctrl_c_is_listened_to():
    """A job that a shell starts in the background ignores SIGINT, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_is_listened_to")
@pytest.mark.cpu
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

    original = _transformer.check_new_rows

    def pressed(*args, **kwargs):
        rows, columns = original(*args, **kwargs)
        return rows.view(Pressed), columns

    _transformer.check_new_rows = pressed
    try:
        with pytest.raises(KeyboardInterrupt):
            mvae.fit(X)
    finally:
        _transformer.check_new_rows = original
    assert mvae._state is state
    assert mvae.n_iter_ == n_iter
    assert np.isfinite(mvae.transform(X)).all()


@pytest.mark.usefixtures("_ctrl_c_is_listened_to")
@pytest.mark.cpu
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


class Pressing(logging.Handler):
    """Presses Ctrl-C when an epoch is reported."""

    def emit(self, record):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def pressing(_ctrl_c_is_listened_to):
    logger, handler = logging.getLogger("skmvae"), Pressing()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_ctrl_c_when_a_partial_fit_reports_leaves_what_was_or_what_it_would_have_become(
    make_small, digits, pressing
):
    """The new weights with the old moments and generators would be neither."""
    X, _ = digits
    mvae = make_small().partial_fit(X)
    before, after = contents(mvae), contents(copy.deepcopy(mvae).partial_fit(X))
    with pytest.raises(KeyboardInterrupt):
        mvae.set_params(verbose=1).partial_fit(X)
    found = contents(mvae)
    assert [] in [differences(found, before), differences(found, after)]
