"""Files that are whole or not there: written beside their place, then put there at once."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from os import PathLike
from pathlib import Path


def at_home(path: str | PathLike[str]) -> Path:
    """The path with ``~`` expanded; a name that only looks like a user's folder stays a name."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for "~name"


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``; OSError leaves what is there as it was.

    Nothing is replaced before the data is on the disk, and not in its cache alone. A writer that is
    killed leaves a hidden file ``.skmvae-...`` in the folder, which nobody reads.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    if os.path.lexists(path) and not path.is_file():
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    # Named before it is made, so that Ctrl-C at any place leaves none. The name is short, since
    # that of ``path`` may be as long as the file system allows.
    temporary = path.with_name(f".skmvae-{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            _take_readers_of(path, temporary)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _take_readers_of(path: Path, temporary: Path) -> None:
    """Let those read the new file who may read the one that it replaces, and nobody else."""
    try:
        old = path.stat()
    except FileNotFoundError:
        return  # a new file has the mode that the umask gives
    mode = stat.S_IMODE(old.st_mode)
    if hasattr(os, "chown") and old.st_gid != temporary.stat().st_gid:
        try:
            os.chown(temporary, -1, old.st_gid)
        except OSError:
            mode &= ~stat.S_IRWXG  # the group of this process is another one
    temporary.chmod(mode)


def _flush_folder(folder: Path) -> None:
    """Make the new name last; some systems cannot, and the file is whole without."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
