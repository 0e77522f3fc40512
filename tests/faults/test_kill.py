"""Killed processes: a fit goes on from its checkpoint, and a file is the old or the new one."""

import os
import signal
import sys
import time

import jobs
import pytest
from jobs import Reporter, X, contents, differences, pause, saved_epochs, small, train

import skmvae
from skmvae.architectures import MLP

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and fork")

EXIT_CODE = 3

# Jobs.


def reported(kind, folder=None, pause_after=None, exits=False):
    """Train and report; ``exits`` answers SIGTERM with sys.exit."""
    if exits:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_CODE))
    Reporter(pause_after)
    return train(kind, folder)


def save(path, sources, times):
    """Save two models to one file in turn."""
    models = [skmvae.load(source) for source in sources]
    models[1].save(path)
    pause()
    for _ in range(times):
        for mvae in models:
            mvae.save(path)
    return {}


# Tests.


@pytest.mark.parametrize(
    ("kind", "number"),
    [*((kind, signal.SIGKILL) for kind in jobs.N_EPOCHS), ("all rows", signal.SIGTERM)],
)
def test_what_was_killed_twice_goes_on_and_ends_with_the_same_bits(
    start, rng, tmp_path, kind, number
):
    """Every other job answers SIGTERM with sys.exit; the others do not handle it."""
    expected, n_epochs, found = start(reported, kind=kind).result(), jobs.N_EPOCHS[kind], []
    for trial in range(jobs.FEW):
        folder, saved, codes = tmp_path / f"checkpoints{trial}", 0, []
        arguments = {"kind": kind, "folder": str(folder), "exits": trial % 2 == 1}
        for n_more in rng.integers(n_epochs // 2, size=2):
            n_more = min(int(n_more), n_epochs - saved)
            job = start(reported, pause_after=n_more, **arguments)
            assert job.pauses(), job.output()
            job.go_on()
            time.sleep(rng.uniform(0.0, 0.05))
            job.send(number)
            assert job.exit_code() in (0, -number, EXIT_CODE), job.output()
            before, saved = saved, sum(saved_epochs(folder))
            # An epoch is reported just before its checkpoint is written.
            assert saved - before in (job.n_epochs() - 1, job.n_epochs())
            codes.append(job.exit_code())
            assert -number in codes or not list(folder.glob(".*"))
        last = start(reported, **arguments)
        assert differences(last.result(), expected) == []
        assert last.n_epochs() == n_epochs - saved
        assert sum(saved_epochs(folder)) == n_epochs
        found.append(saved)
    assert any(found), "no fit went on from a checkpoint"


def test_two_processes_with_the_same_fit_and_folder_end_with_the_same_model(start, rng, tmp_path):
    """Neither warns: a warning is an error in a job."""
    expected = start(reported, kind="all rows").result()
    for trial in range(jobs.FEW):
        folder, both = tmp_path / f"checkpoints{trial}", []
        for _ in range(2):
            both.append(start(reported, kind="all rows", folder=str(folder)))
            time.sleep(rng.uniform(0.0, 0.1))
        for job in both:
            assert differences(job.result(), expected) == []
        assert saved_epochs(folder) == [8]
        assert len(list(folder.iterdir())) == 1


def test_of_two_processes_that_save_to_the_same_file_one_is_killed(start, rng, tmp_path):
    """The other one ends well, and the file is always the old or the new model."""
    # With wide layers most of the time goes into writing.
    models = [small(architecture=MLP((1000,)), max_iter=n).fit(X) for n in (1, 2)]
    sources = [str(tmp_path / f"{n}") for n in (1, 2)]
    for mvae, source in zip(models, sources, strict=True):
        mvae.save(source)
    path = tmp_path / "mvae"

    def assert_is_whole():
        found = contents(skmvae.load(path))
        assert [] in [differences(found, contents(mvae)) for mvae in models]

    for _ in range(jobs.TRIALS):
        both = [start(save, path=str(path), sources=sources, times=n) for n in (10**6, 10)]
        for job in both:
            assert job.pauses(), job.output()
        for job in both:
            job.go_on()
        time.sleep(rng.uniform(0.0, 0.1))
        both[0].send(signal.SIGKILL)
        assert both[0].exit_code() == -signal.SIGKILL
        assert_is_whole()
        both[1].result()
        assert_is_whole()
