"""Files that are whole or not there: written beside their place, then put there at once."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
import zlib
from os import PathLike
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where a file that is open can be neither renamed nor deleted
    fcntl = None  # type: ignore[assignment]

# Of file systems without locks, as some of clusters are. What killed writers leave stays there.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def at_home(path: str | PathLike[str]) -> Path:
    """The path with ``~`` expanded; a name that only looks like a user's folder stays a name."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for "~name"


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``; OSError leaves what is there as it was.

    Nothing is replaced before the data is on the disk, and not in its cache alone.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    if os.path.lexists(path) and not path.is_file():
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    _delete_abandoned(path)
    while not _write(path, data):
        pass  # another writer has taken the new file for an abandoned one
    _flush_folder(path.parent)


def _write(path: Path, data: bytes) -> bool:
    """Whether ``data`` is at ``path`` now; not if the file was deleted before it was locked."""
    # Named before it is made, so that Ctrl-C at any place leaves none.
    temporary = path.with_name(f"{_prefix(path)}{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as file:
            _take_mode_of(path, temporary)
            _lock_if_possible(file)
            if not os.fstat(file.fileno()).st_nlink:
                return False
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:  # as long as it is locked, no other writer deletes it
                temporary.replace(path)
        if fcntl is None:
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return True


def _prefix(path: Path) -> str:
    """How the names of unfinished files begin: short, since that of ``path`` may be of any length.

    With the rest they have 24 bytes.
    """
    return f".skmvae{zlib.crc32(os.fsencode(path.name)):08x}-"


def _take_mode_of(path: Path, temporary: Path) -> None:
    """Who may read the file that is replaced may read the new one, and nobody else."""
    with contextlib.suppress(FileNotFoundError):  # a new file has the mode that the umask gives
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))


def _lock(file: BinaryIO, *, wait: bool = True) -> None:
    """Until the file is closed or its process dies; or BlockingIOError if somebody else has it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _lock_if_possible(file: BinaryIO) -> None:
    try:
        _lock(file)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _delete_abandoned(path: Path) -> None:
    """What writers of ``path`` that were killed have left; one that lives holds the lock."""
    if fcntl is None:
        return  # there is no knowing
    for entry in path.parent.iterdir():
        if entry.name.startswith(_prefix(path)):
            with contextlib.suppress(OSError), entry.open("rb") as file:
                _lock(file, wait=False)
                entry.unlink()


def _flush_folder(folder: Path) -> None:
    """Make the new name last; some systems cannot, and the file is whole without."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
