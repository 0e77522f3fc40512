"""Ctrl-C at random times leaves the old or the new fit, the old or the new file, and never a part.

A job asks for each Ctrl-C; the process of the tests sends it (see jobs.py).
"""

import copy
import functools
import itertools
import os
import signal
import sys
import time
from pathlib import Path

import jobs
import numpy as np
import pytest
import torch
from jobs import Reporter, X, contents, differences, pause, saved_epochs, small, train

from skmvae._inference import Inference

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and fork")


def ctrl_c_in(seconds, function, *arguments):
    """Call the function, ask for Ctrl-C in so many seconds, and return whether it came in time.

    Python loses a Ctrl-C that arrives in the callback of a weak reference: that is not in time.
    """
    returned, lost, hook = False, [], sys.unraisablehook
    sys.unraisablehook = lambda unraisable: lost.append(unraisable.exc_type)
    try:
        print("press", seconds, flush=True)
        pause()
        function(*arguments)
        returned = True
        end = time.monotonic() + jobs.DEADLINE / 4
        while KeyboardInterrupt not in lost and time.monotonic() < end:
            time.sleep(0.01)  # the signal is on its way
    except KeyboardInterrupt:
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()  # noqa: PT018
        return not returned
    finally:
        sys.unraisablehook = hook
    assert KeyboardInterrupt in lost, "no KeyboardInterrupt came of Ctrl-C"
    return False


def delays(seed, n, function):
    """Yield random seconds until Ctrl-C: in turn anywhere in a call, and about its end."""
    rng, times = np.random.default_rng(seed), []
    for _ in range(2):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    for trial in range(n):
        yield min(times) * (rng.uniform(0.7, 1.2) if trial % 2 else rng.uniform(0.0, 1.0))


# Jobs.


def interrupt_fits(trials, seed, folder):
    """Interrupt first fits and, every other time, refits."""
    params = {"max_iter": 8, "learning_rate_schedule": "constant", "early_stopping": True}

    @functools.cache
    def expected(n_epochs):
        return contents(small(**params | {"max_iter": n_epochs}).fit(X))

    reporter, in_time = Reporter(), []
    for trial, seconds in enumerate(delays(seed, trials, lambda: small(**params).fit(X))):
        mvae = small(**params)
        if trial // 2 % 2:
            mvae.set_params(random_state=1).fit(X[:300]).set_params(random_state=0)
        before, reporter.n_epochs = contents(mvae), 0
        in_time.append(ctrl_c_in(seconds, mvae.fit, X))
        n_reported, found = reporter.n_epochs, contents(mvae)
        if in_time[-1] and differences(found, before) == []:
            # No epoch had ended, or Ctrl-C came when fit was as good as over.
            assert n_reported in (0, params["max_iter"])
        else:
            assert mvae.n_iter_ in (n_reported, n_reported + 1)
            assert differences(found, expected(mvae.n_iter_)) == []
    return {"in_time": in_time}


def interrupt_partial_fits(trials, seed, folder):
    make = functools.partial(small, max_iter=1, batch_size=20)
    in_time = []
    for trial, seconds in enumerate(delays(seed, trials, lambda: make().partial_fit(X))):
        mvae = make()
        if trial % 3:
            mvae.fit(X[:300])
        if trial % 3 == 2:
            mvae.partial_fit(X[300:])
        before, after = contents(mvae), contents(copy.deepcopy(mvae).partial_fit(X))
        in_time.append(ctrl_c_in(seconds, mvae.partial_fit, X))
        found = contents(mvae)
        is_old = in_time[-1] and differences(found, before) == []
        assert is_old or differences(found, after) == []
    return {"in_time": in_time}


def interrupt_with_checkpoints(trials, seed, folder, kind):
    expected, reporter, in_time = train(kind, None), Reporter(), []
    folders = (Path(folder) / str(i) for i in itertools.count())
    times = delays(seed, trials, lambda: train(kind, next(folders)))
    for seconds, own in zip(times, folders, strict=False):
        in_time.append(ctrl_c_in(seconds, train, kind, own))
        assert not list(own.glob(".*")), "an unfinished file is left"
        saved, reporter.n_epochs = sum(saved_epochs(own)), 0
        assert differences(train(kind, own), expected) == []
        assert reporter.n_epochs == jobs.N_EPOCHS[kind] - saved
    return {"in_time": in_time}


@pytest.mark.parametrize(
    ("job", "trials", "arguments"),
    [
        (interrupt_fits, 2 * jobs.TRIALS, {}),
        (interrupt_partial_fits, jobs.TRIALS, {}),
        (interrupt_with_checkpoints, jobs.TRIALS, {"kind": "stops early"}),
        (interrupt_with_checkpoints, jobs.FEW, {"kind": "search"}),
    ],
)
def test_ctrl_c_leaves_the_old_or_the_new(job, trials, arguments, start, rng, tmp_path):
    """Press Ctrl-C whenever the job asks for it; some of them must come in time."""
    folder, seed = tmp_path / "own", int(rng.integers(2**31))
    folder.mkdir()
    running = start(job, trials=trials, seed=seed, folder=str(folder), **arguments)
    while running.pauses():
        # Ctrl-C may have cut the line before this one short of its end.
        seconds = float(running.output().rpartition("press")[2])
        running.go_on()
        time.sleep(seconds)
        running.send(signal.SIGINT)
    assert running.result()["in_time"].any()


# Ctrl-C at known times, in the process of the tests.


@pytest.fixture
def press():
    """Return what presses Ctrl-C. Processes that a shell starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.cpu
def test_ctrl_c_after_the_last_epoch_loses_nothing(make_small, digits, monkeypatch, press):
    """A first Ctrl-C while ``weights_`` is computed waits; a second one keeps the earlier fit."""
    X, _ = digits
    original, presses = Inference.mean_weights, 1

    def pressed(self, X):
        nonlocal presses
        presses -= 1
        if presses >= 0:
            press()
        return original(self, X)

    monkeypatch.setattr(Inference, "mean_weights", pressed)
    mvae = make_small()
    with pytest.raises(KeyboardInterrupt):
        mvae.fit(X)
    assert mvae.n_iter_ == 2
    np.testing.assert_array_equal(mvae.transform(X), make_small().fit_transform(X))
    presses, before = 2, contents(mvae)
    with pytest.raises(KeyboardInterrupt):
        mvae.fit(X[:100])
    assert differences(contents(mvae), before) == []


@pytest.mark.cpu
def test_ctrl_c_at_the_end_of_partial_fit_mixes_no_old_state_with_new(
    make_small, digits, monkeypatch, press
):
    """New weights with old moments and generators would be neither fit."""
    X, _ = digits
    mvae = make_small().partial_fit(X)
    before, after = contents(mvae), contents(copy.deepcopy(mvae).partial_fit(X))
    monkeypatch.setattr("builtins.print", press)  # which reports the epoch
    with pytest.raises(KeyboardInterrupt):
        mvae.set_params(verbose=1).partial_fit(X)
    found = contents(mvae)
    assert [] in [differences(found, before), differences(found, after)]
