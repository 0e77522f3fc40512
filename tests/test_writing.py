"""A file is the old one or the new one, whatever happens between them."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from skmvae._files import writing
from skmvae._files.writing import write_whole

resource = pytest.importorskip("resource", reason="limits and signals are those of POSIX")

# A writer that stops when all is written but not yet in its place. It reads the one module that it
# needs, so that it starts in a moment. fsync is the last call before the file takes its place.
WRITER = """
import importlib.util, os, signal, sys
from pathlib import Path
# A job that a shell starts in the background ignores Ctrl-C, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
spec = importlib.util.spec_from_file_location("writing", sys.argv[1])
writing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writing)
fsync = os.fsync
def stop(descriptor):
    fsync(descriptor)
    os.fsync = fsync
    print("written", flush=True)
    sys.stdin.readline()
os.fsync = stop
writing.write_whole(Path(sys.argv[2]), b"of the other")
print("done", flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def other_writer(path):
    """Another process that has written all to ``path``, but not put it there."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, writing.__file__, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "written\n", process.stderr.read()
        yield process
        process.kill()


def names(path):
    return sorted(entry.name for entry in path.parent.iterdir())


@contextlib.contextmanager
def no_file_larger_than(n_bytes):
    """What the system calls EFBIG, for the whole process; Python ignores the signal of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("data", [b"", b"new", bytes(range(256)) * 5000])
def test_the_data_is_there_and_nothing_else(path, data):
    write_whole(path, data)
    assert path.read_bytes() == data
    assert names(path) == ["file"]


@pytest.mark.parametrize("name", ["file", "größe 模型.safetensors", ".hidden", "a" * 255])
def test_a_file_of_any_name_is_replaced(tmp_path, name):
    write_whole(tmp_path / name, b"long and old")
    write_whole(tmp_path / name, b"new")
    assert (tmp_path / name).read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_relative_path_is_one_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_whole(type(tmp_path)("file"), b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_who_has_the_old_file_open_keeps_it(path):
    """Weights are mapped from a file that may be replaced."""
    path.write_bytes(b"old")
    with path.open("rb") as file:
        write_whole(path, b"new")
        assert file.read() == b"old"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permission_bits_follow_the_umask(path, umask):
    before = os.umask(umask)
    try:
        write_whole(path, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root")
def test_the_group_that_may_read_stays_the_same(path):
    path.write_bytes(b"old")
    os.chown(path, -1, 4321)
    path.chmod(0o640)
    write_whole(path, b"new")
    assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (4321, 0o640)


def test_another_group_may_not_read_instead(path, monkeypatch):
    path.write_bytes(b"old")
    path.chmod(0o640)
    old = path.stat()

    def of_another_group(self, **kwargs):
        values = list(old)
        values[5] += self.name != "file"
        return os.stat_result(values)

    def refused(*args):
        raise PermissionError

    monkeypatch.setattr(os, "chown", refused)
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "stat", of_another_group)
        write_whole(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_who_could_not_read_the_old_file_cannot_read_the_new_one(path, mode):
    """At no time: not while it is written, either."""
    path.write_bytes(b"old")
    path.chmod(mode)
    seen = []

    def look(descriptor):
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", look)
        write_whole(path, b"new")
    assert seen[0] == mode
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_a_link(tmp_path, exists):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    link.symlink_to("there/target")
    if exists:
        target.write_bytes(b"old")
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(target) == ["target"]


def test_a_link_to_itself_is_an_error_of_the_system(path):
    path.symlink_to("file")
    with pytest.raises(OSError, match="file"):
        write_whole(path, b"new")
    assert path.is_symlink()


def test_what_is_not_a_file_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(OSError, match=name):
            write_whole(tmp_path / name, b"new")
    assert (tmp_path / "folder").is_dir()
    assert (tmp_path / "pipe").is_fifo()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_whole(tmp_path / "nowhere" / "file", b"new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 1, 4096, 99_999])
@pytest.mark.parametrize("exists", [True, False])
def test_a_full_disk_leaves_what_was_there(path, limit, exists):
    if exists:
        path.write_bytes(b"old")
    with no_file_larger_than(limit), pytest.raises(OSError, match="File too large"):
        write_whole(path, bytes(100_000))
    assert names(path) == ["file"] * exists
    assert not exists or path.read_bytes() == b"old"
    write_whole(path, bytes(100_000))
    assert path.read_bytes() == bytes(100_000)


def test_ctrl_c_leaves_what_was_there(path, other_writer):
    path.write_bytes(b"old")
    assert len(names(path)) == 2
    other_writer.send_signal(signal.SIGINT)
    _, errors = other_writer.communicate(timeout=60)
    assert errors.endswith("KeyboardInterrupt\n")
    assert names(path) == ["file"]
    assert path.read_bytes() == b"old"


def test_what_a_killed_writer_left_is_in_nobodys_way(path, other_writer):
    path.write_bytes(b"old")
    other_writer.kill()
    other_writer.wait()
    assert path.read_bytes() == b"old"
    left = [name for name in names(path) if name != "file"]
    assert [(name[:8], len(name)) for name in left] == [(".skmvae-", 24)]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path) == [*left, "file"]


def test_the_last_of_two_writers_wins(path, other_writer):
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert other_writer.communicate("\n", timeout=60) == ("done\n", "")
    assert path.read_bytes() == b"of the other"
    assert names(path) == ["file"]


def test_many_writers_of_one_file_all_succeed(path):
    """Each writes one letter, and the file is always that of one of them."""
    sizes, errors, start = [1, 5000, 100_000], [], threading.Barrier(7)

    def write(letter):
        start.wait()
        try:
            for i in range(40):
                write_whole(path, letter * sizes[i % 3])
        except OSError as error:
            errors.append(error)

    write_whole(path, b"first")
    writers = [threading.Thread(target=write, args=(bytes([65 + i]),)) for i in range(6)]
    for writer in writers:
        writer.start()
    start.wait()
    found = set()
    while any(writer.is_alive() for writer in writers):
        data = path.read_bytes()
        found.add((len(data), len(set(data))))
    for writer in writers:
        writer.join()
    assert found <= {(5, 5), *((size, 1) for size in sizes)}
    assert not errors
    assert names(path) == ["file"]
