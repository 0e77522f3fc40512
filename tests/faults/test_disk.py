"""Full disks and useless folders: save raises and loses nothing, a fit warns once and goes on."""

import contextlib
import functools
import math

import pytest
from jobs import FEW_ROWS, contents, differences, fit_beside
from networks import small_estimator

import skmvae
from skmvae._files import checkpoints

resource = pytest.importorskip("resource", reason="limits of a process are those of POSIX")

pytestmark = [pytest.mark.cpu, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def _a_checkpoint_after_every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoints, "_FRACTION_OF_TIME", math.inf)


make = functools.partial(small_estimator, max_iter=4)


@pytest.fixture(scope="module")
def model():
    return make().fit(FEW_ROWS)


@contextlib.contextmanager
def disk_with(n_bytes):
    """Let no file grow larger, as if the disk were full. Yield a function that makes space."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("space", [0, 4096])
def test_save_without_space_leaves_the_old_file_and_nothing_else(space, model, tmp_path):
    path, old = tmp_path / "model", make(random_state=1).fit(FEW_ROWS)
    old.save(path)
    with disk_with(space):
        for target in (path, tmp_path / "other"):
            with pytest.raises(OSError, match="File too large"):
                model.save(target)
    assert list(tmp_path.iterdir()) == [path]
    assert differences(contents(skmvae.load(path)), contents(old)) == []
    model.save(path)
    assert differences(contents(skmvae.load(path)), contents(model)) == []


def test_a_fit_on_a_full_disk_goes_on_and_writes_when_there_is_space_again(
    model, tmp_path, monkeypatch
):
    """The report of the third epoch makes space."""

    def report(line, **kwargs):
        if line.startswith("epoch 3/"):
            make_space()

    monkeypatch.setattr("builtins.print", report)
    with disk_with(4096) as make_space:
        mvae, messages = fit_beside(tmp_path, max_iter=4, verbose=1)
    assert len(messages) == 1
    assert messages[0].startswith("A checkpoint cannot be written, and fit goes on without: ")
    assert "File too large" in messages[0]
    assert differences(contents(mvae), contents(model)) == []
    assert len(list(tmp_path.iterdir())) == 1
    found, messages = fit_beside(tmp_path, max_iter=4)
    assert messages == []
    assert found.history_ == mvae.history_, "it was fitted again"


@pytest.mark.parametrize("place", ["a file", "below a file"])
def test_a_fit_that_cannot_write_to_its_folder_goes_on(place, model, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    folder = {"a file": file, "below a file": file / "new"}[place]
    mvae, (message,) = fit_beside(folder, max_iter=4)
    assert message.startswith("A checkpoint cannot be written, and fit goes on without: ")
    assert differences(contents(mvae), contents(model)) == []
    assert file.read_bytes() == b"mine"
