"""A file is the old one or the new one, whatever happens while it is written."""

import os
import stat

import pytest

from skmvae._files.writing import write_whole

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and modes")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def names(path):
    return sorted(entry.name for entry in path.parent.iterdir())


@pytest.mark.parametrize("name", ["file", "größe 模型.safetensors", "a" * 255])
def test_a_file_of_any_name_is_replaced(tmp_path, name):
    for data in (b"long and old", b"new", b""):
        write_whole(tmp_path / name, data)
        assert (tmp_path / name).read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_mode_of_a_new_file_follows_the_umask(path, umask):
    before = os.umask(umask)
    try:
        write_whole(path, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_replaced_file_keeps_its_mode_and_its_group(path, mode, monkeypatch):
    """The temporary file has them before any data is on the disk."""
    path.write_bytes(b"old")
    if os.geteuid() == 0:
        os.chown(path, -1, 4321)
    path.chmod(mode)
    group, seen = path.stat().st_gid, []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.fstat(descriptor)))
    write_whole(path, b"new")
    for found in (seen[0], path.stat()):
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (mode, group)


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


@pytest.mark.parametrize("place", ["nowhere/file", "file/below", "folder", "pipe", "loop"])
def test_what_cannot_be_replaced_is_left_alone(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=place.partition("/")[0]):
        write_whole(tmp_path / place, b"new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "loop", "pipe"]
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert (tmp_path / "pipe").is_fifo()


def test_ctrl_c_leaves_what_was_there(path, monkeypatch):
    """All is in the temporary file. faults/test_kill.py kills processes that write."""

    def pressed(descriptor):
        assert len(names(path)) == 2
        raise KeyboardInterrupt

    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", pressed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert names(path) == ["file"]
    assert path.read_bytes() == b"old"
