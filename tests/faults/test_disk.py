"""Disks that are full or cannot be written to: saving says so and loses nothing, fits go on."""

import contextlib
import json
import logging
import math
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest

import skmvae
from skmvae import MVAETransformer
from skmvae._files import checkpoints
from skmvae.architectures import MLP

resource = pytest.importorskip("resource", reason="limits and users are those of POSIX")

pytestmark = [pytest.mark.cpu, pytest.mark.usefixtures("one_thread")]

X = np.random.default_rng(0).normal(size=(60, 5))
X.flags.writeable = False

EPOCHS = 4


@pytest.fixture(autouse=True)
def _a_checkpoint_after_every_epoch(monkeypatch):
    """Otherwise a fit as short as these would only write its last."""
    monkeypatch.setattr(checkpoints, "_FRACTION_OF_TIME", math.inf)


def make(**params):
    params = {"architecture": MLP((8,)), "max_iter": EPOCHS, "random_state": 0} | params
    return MVAETransformer(2, 2, **params)


@pytest.fixture(scope="module")
def model():
    return make().fit(X)


@pytest.fixture(scope="module")
def old():
    """The model of a file that another one shall replace."""
    return make(random_state=1).fit(X)


@contextlib.contextmanager
def no_file_larger_than(n_bytes):
    """What the system calls EFBIG, for the whole process; gives what ends it early.

    Python ignores the signal that comes with it; here nobody relies on that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.fixture
def read_only():
    """A folder that who runs in ``as_nobody`` can read and not write to."""
    # Not tmp_path, since nobody else may enter that.
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


@contextlib.contextmanager
def as_nobody(folder):
    """As a user who may not write to ``folder``: root may, whatever the permissions say."""
    folder.chmod(0o555)
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        if not os.access(folder, os.R_OK | os.X_OK, effective_ids=True):
            pytest.skip("another user cannot enter the folder of temporary files")
        yield
    finally:
        os.seteuid(0)


def fit_with_checkpoints(folder, **params):
    """The estimator and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mvae = make(checkpoint_dir=folder, **params).fit(X)
    return mvae, [str(warning.message) for warning in caught]


def assert_same_fit(found, expected):
    np.testing.assert_array_equal(found.transform(X), expected.transform(X))
    np.testing.assert_array_equal(found.weights_, expected.weights_)
    for name, array in expected._state.arrays.items():
        np.testing.assert_array_equal(found._state.arrays[name], array, err_msg=name)
    for name, column in expected.history_.items():
        assert name == "seconds" or found.history_[name] == column, name


def assert_went_on(folder, model, reason):
    """A fit that cannot write its checkpoints has one warning and the model that it should."""
    mvae, messages = fit_with_checkpoints(folder)
    assert len(messages) == 1
    assert messages[0].startswith("A checkpoint cannot be written, and fit goes on without: ")
    assert reason in messages[0]
    assert_same_fit(mvae, model)
    return messages[0]


def assert_finds(folder, mvae):
    """A fit with these checkpoints is not run again: even its seconds are the same."""
    found, messages = fit_with_checkpoints(folder)
    assert messages == []
    assert found.history_ == mvae.history_
    assert_same_fit(found, mvae)


def assert_is_old(path, old):
    """All that is in the folder is the old file, whole."""
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    np.testing.assert_array_equal(skmvae.load(path).transform(X), old.transform(X))


# --- No space


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_saving_to_a_full_disk_raises_and_leaves_the_estimator(model):
    before = model.transform(X)
    with pytest.raises(OSError, match="No space left"):
        joblib.dump(model, "/dev/full")
    np.testing.assert_array_equal(model.transform(X), before)


@pytest.mark.parametrize("limit", [0, 1, 4096, -1])
def test_save_without_space_leaves_the_old_file(limit, model, old, tmp_path):
    path = tmp_path / "model"
    model.save(path)
    limit %= path.stat().st_size  # -1: all but the last byte has space
    old.save(path)
    before = pickle.dumps(model)
    with no_file_larger_than(limit), pytest.raises(OSError, match="File too large"):
        model.save(path)
    assert_is_old(path, old)
    assert pickle.dumps(model) == before
    model.save(path)
    assert_is_old(path, model)


def test_save_without_space_leaves_nothing_where_nothing_was(model, tmp_path):
    with no_file_larger_than(4096), pytest.raises(OSError, match="File too large"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_dump_without_space_raises_and_leaves_the_estimator(model, tmp_path):
    """What remains of the file is joblib's affair, but it is no model."""
    before = model.transform(X)
    with no_file_larger_than(1024), pytest.raises(OSError, match="File too large"):
        joblib.dump(model, tmp_path / "model.joblib")
    np.testing.assert_array_equal(model.transform(X), before)
    with pytest.raises(Exception):  # noqa: B017, PT011
        joblib.load(tmp_path / "model.joblib")


@pytest.mark.parametrize("limit", [0, 4096])
def test_a_fit_without_space_for_checkpoints_goes_on(limit, model, tmp_path):
    with no_file_larger_than(limit):
        assert_went_on(tmp_path, model, "File too large")
    assert list(tmp_path.iterdir()) == []


def test_a_fit_whose_first_checkpoint_has_space_keeps_that_and_goes_on(model, tmp_path):
    """The old checkpoint is as whole as an old model, and another fit goes on from it."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    fill = at_epoch(2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard)))
    with no_file_larger_than(hard), fill:
        mvae, messages = fit_with_checkpoints(tmp_path, verbose=1)
    assert len(messages) == 1
    assert_same_fit(mvae, model)
    assert len(list(tmp_path.iterdir())) == 1
    with logged() as lines:
        again, messages = fit_with_checkpoints(tmp_path, verbose=1)
    assert messages == []
    assert_same_fit(again, model)
    assert [line.split()[0] for line in lines if line.startswith("epoch")] == 3 * ["epoch"]
    assert again.history_["seconds"][0] == mvae.history_["seconds"][0]


def test_a_checkpoint_is_written_when_there_is_space_again(model, tmp_path):
    """In the same fit, which has warned by then."""
    with no_file_larger_than(4096) as end, at_epoch(3, end):
        mvae, messages = fit_with_checkpoints(tmp_path, verbose=1)
    assert len(messages) == 1
    assert_same_fit(mvae, model)
    assert len(list(tmp_path.iterdir())) == 1
    assert_finds(tmp_path, mvae)


class Listener(logging.Handler):
    """Gets the line that an epoch with verbose=1 logs, before its checkpoint is written."""

    def __init__(self, hear):
        super().__init__(logging.INFO)
        self.hear = hear

    def emit(self, record):
        self.hear(record.getMessage())


@contextlib.contextmanager
def listening(hear):
    logger, listener = logging.getLogger("skmvae"), Listener(hear)
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)


def at_epoch(number, do):
    return listening(lambda line: do() if line.startswith(f"epoch {number}/") else None)


@contextlib.contextmanager
def logged():
    lines = []
    with listening(lines.append):
        yield lines


# --- No permission


def test_save_in_a_read_only_folder_leaves_the_old_file(model, old, read_only):
    path = read_only / "model"
    old.save(path)
    with as_nobody(read_only):
        skmvae.load(path)
        with pytest.raises(OSError, match="Permission denied"):
            model.save(path)
        with pytest.raises(OSError, match="Permission denied"):
            model.save(read_only / "other")
        assert_is_old(path, old)


def test_a_fit_with_a_read_only_folder_goes_on(model, read_only):
    with as_nobody(read_only):
        assert_went_on(read_only, model, "Permission denied")
        assert_went_on(read_only / "below", model, "Permission denied")
        assert list(read_only.iterdir()) == []


def test_a_finished_fit_is_found_in_a_read_only_folder(read_only):
    mvae, messages = fit_with_checkpoints(read_only)
    assert messages == []
    with as_nobody(read_only):
        assert_finds(read_only, mvae)


def test_a_damaged_checkpoint_in_a_read_only_folder_stays_and_no_other_place_is_named(
    model, read_only
):
    fit_with_checkpoints(read_only)
    (path,) = read_only.iterdir()
    path.write_bytes(b"damaged")
    with as_nobody(read_only):
        mvae, messages = fit_with_checkpoints(read_only)
        assert [path.read_bytes() for path in read_only.iterdir()] == [b"damaged"]
    assert_same_fit(mvae, model)
    assert len(messages) == 2  # one for reading and one for writing
    assert str(path) in messages[0]
    assert ".unreadable-" not in messages[0]


# --- No folder, or something else


def test_save_to_a_folder_that_is_not_there(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model.save(tmp_path / "nowhere" / "model")
    assert list(tmp_path.iterdir()) == []


def test_save_to_a_path_below_a_file(model, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(NotADirectoryError, match="file"):
        model.save(tmp_path / "file" / "model")
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("empty", [True, False])
def test_save_to_a_path_that_is_a_folder(model, tmp_path, empty):
    """Even an empty one, which a rename would replace."""
    path = tmp_path / "folder"
    path.mkdir()
    if not empty:
        (path / "mine").write_bytes(b"mine")
    with pytest.raises(OSError, match="folder"):
        model.save(path)
    assert path.is_dir()
    assert list(tmp_path.iterdir()) == [path]
    assert len(list(path.iterdir())) == (not empty)


def test_save_does_not_replace_a_device(model, tmp_path):
    """It would make a file of /dev/full or /dev/null, for all who use the machine."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"):
        model.save(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()  # before something that matters
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="Not a regular file"):
            model.save("/dev/full")
        assert stat.S_ISCHR(os.stat("/dev/full").st_mode)  # noqa: PTH116
        assert not list(Path("/dev").glob(".full*"))


def test_a_folder_of_checkpoints_is_made_with_all_above_it(model, tmp_path):
    folder = tmp_path / "a" / "b" / "c"
    mvae, messages = fit_with_checkpoints(folder)
    assert messages == []
    assert_same_fit(mvae, model)
    assert len(list(folder.iterdir())) == 1
    assert_finds(folder, mvae)


@pytest.mark.parametrize("place", ["file", "file/below", "lost", "lost/below", "loop", "pipe"])
def test_a_fit_whose_folder_of_checkpoints_is_none_goes_on(place, model, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "lost").symlink_to("file/elsewhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    assert_went_on(tmp_path / place, model, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 4
    assert (tmp_path / "file").read_bytes() == b"mine"


# --- A small disk of its own, full and then read-only

# In a process that alone sees the disk, all one after the other, since it takes seconds to start.
SMALL_DISK = """
import json, os, subprocess, sys, warnings
from pathlib import Path
import joblib, numpy as np, torch
import skmvae
from skmvae._files import checkpoints
from skmvae.architectures import MLP

torch.set_num_threads(1)
checkpoints._FRACTION_OF_TIME = float("inf")
disk, report = Path(sys.argv[1]), {}
X = np.random.default_rng(0).normal(size=(60, 5))

def make(**params):
    params = {"architecture": MLP((8,)), "max_iter": 4, "random_state": 0} | params
    return skmvae.MVAETransformer(2, 2, **params)

def fit(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mvae = make(checkpoint_dir=disk / name).fit(X)
    return {
        "same": bool((mvae.transform(X) == codes).all()),
        "warnings": [str(w.message) for w in caught],
        "seconds": mvae.history_["seconds"],
        "files": files(),
    }

def error_of(do):
    try:
        do()
    except OSError as error:
        return error.strerror

def files():
    return sorted(str(p.relative_to(disk)) for p in disk.rglob("*") if p.is_file())

def save():
    error = error_of(lambda: model.save(disk / "model"))
    loaded = skmvae.load(disk / "model").transform(X)
    return {
        "error": error,
        "old": bool((loaded == old.transform(X)).all()),
        "new": bool((loaded == codes).all()),
        "files": files(),
    }

model, old = make().fit(X), make(random_state=1).fit(X)
codes = model.transform(X)
old.save(disk / "model")
with (disk / "full").open("wb", buffering=0) as file:
    report["filled"] = error_of(lambda: [file.write(bytes(512)) for _ in range(2**20)])
report["full: save"] = save()
report["full: dump"] = error_of(lambda: joblib.dump(model, disk / "dump"))
(disk / "dump").unlink()
with (disk / "full").open("ab", buffering=0) as file:  # what dump had found
    error_of(lambda: [file.write(bytes(512)) for _ in range(2**20)])
report["full: fit"] = fit("checkpoints")
(disk / "full").unlink()
report["space: fit"] = fit("checkpoints")
report["space: fit again"] = fit("checkpoints")
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
report["read-only: save"] = save()
report["read-only: dump"] = error_of(lambda: joblib.dump(model, disk / "dump"))
report["read-only: fit"] = fit("other")
report["read-only: fit again"] = fit("checkpoints")
subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
report["space: save"] = save()
print(json.dumps(report))
"""

MOUNT = 'mount -t tmpfs -o size=256k tmpfs "$1" && exec "${@:2}"'


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """What happened on it."""
    disk = str(tmp_path_factory.mktemp("disk"))
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("needs unshare and mount")
    for flags in ("-rm", "-m"):  # a user namespace of one's own, or root
        mounted = ["unshare", flags, "bash", "-c", MOUNT, "bash", disk]
        tried = subprocess.run([*mounted, "true"], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            break
    else:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.strip()}")
    result = subprocess.run(
        [*mounted, sys.executable, "-c", SMALL_DISK, disk],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["filled"] == "No space left on device"
    return report


@pytest.mark.parametrize(
    ("state", "error", "others"),
    [
        ("full", "No space left on device", ["full"]),
        ("read-only", "Read-only file system", ["checkpoints"]),
    ],
)
def test_save_to_such_a_disk_leaves_the_old_file(state, error, others, small_disk):
    report = small_disk[f"{state}: save"]
    assert report["error"] == error
    assert report["old"]
    assert [name.split("/")[0] for name in report["files"]] == [*others, "model"]
    assert small_disk[f"{state}: dump"] == error


def test_save_to_such_a_disk_with_space_again(small_disk):
    report = small_disk["space: save"]
    assert report["error"] is None
    assert report["new"]
    assert [name.split("/")[0] for name in report["files"]] == ["checkpoints", "model"]


@pytest.mark.parametrize(
    ("state", "error", "others"),
    [
        ("full", "No space left on device", ["full"]),
        ("read-only", "Read-only file system", ["checkpoints"]),
    ],
)
def test_a_fit_with_checkpoints_on_such_a_disk_goes_on(state, error, others, small_disk):
    report = small_disk[f"{state}: fit"]
    (message,) = report["warnings"]
    assert message.startswith("A checkpoint cannot be written, and fit goes on without: ")
    assert error in message
    assert report["same"]
    assert [name.split("/")[0] for name in report["files"]] == [*others, "model"]


def test_a_later_fit_on_such_a_disk_with_space_again_has_its_checkpoint(small_disk):
    later = small_disk["space: fit"]
    assert later["warnings"] == []
    assert later["same"]
    assert len(later["files"]) == 2
    for again in ("space: fit again", "read-only: fit again"):
        assert small_disk[again] == later, again
