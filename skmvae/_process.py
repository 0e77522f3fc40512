"""The process: forks, shortage of memory, malloc, Ctrl-C, and where warnings point."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch

Result = TypeVar("Result")

# Packages whose frames lie between the user's line and a warning: scikit-learn wraps transform, and
# autograd contexts are decorators.
_ON_THE_WAY = frozenset({"skmvae", "sklearn", "torch", "joblib", "contextlib"})

# The process in which this package has computed in more than one thread. A fork copies it.
_computed_in: int | None = None


def check_not_forked() -> None:
    """RuntimeError in a process forked from one that has computed in threads, which are not there.

    torch would wait for them for ever.
    """
    global _computed_in
    if torch.get_num_threads() == 1:
        return
    if _computed_in not in (None, os.getpid()):
        raise RuntimeError(
            "This process was forked from one that has computed in several threads, and torch "
            "would wait here for those that were not forked. Start processes with joblib's loky "
            "(the default of n_jobs) or multiprocessing's 'spawn', or call "
            "torch.set_num_threads(1) in them first."
        )
    _computed_in = os.getpid()


@contextmanager
def out_of_memory_explained(what: str) -> Iterator[None]:
    """An error that says what ran out and what helps: torch's own for a GPU, else MemoryError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        kind = _kind_of_shortage(error)
        if kind is None or isinstance(error.__cause__, MemoryError | RuntimeError):
            raise  # no shortage, or explained further in
        # These frames hold what fills the memory, for as long as somebody holds the error.
        traceback.clear_frames(error.__traceback__)
        who = "NumPy" if isinstance(error, MemoryError) else "torch"
        raise kind(f"{what} {who} says: {error}") from error


def _kind_of_shortage(error: Exception) -> type[MemoryError] | type[RuntimeError] | None:
    """The error type for a shortage of memory; torch has none for that of the host."""
    if isinstance(error, torch.OutOfMemoryError):
        return torch.OutOfMemoryError
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return MemoryError
    return None


def warn(message: str) -> None:
    """Issue a UserWarning that points at the line of the user's that led here."""
    frame, stacklevel = sys._getframe(1), 2
    while frame.f_globals.get("__name__", "").partition(".")[0] in _ON_THE_WAY and frame.f_back:
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(message, stacklevel=stacklevel)


def uninterrupted(function: Callable[[], Result]) -> tuple[Result, KeyboardInterrupt | None]:
    """Return the result of ``function``, called again after a Ctrl-C, and that Ctrl-C.

    This is for the short work after training, which one Ctrl-C must not throw away. A second does.
    """
    try:
        return function(), None
    except KeyboardInterrupt as interruption:
        return function(), interruption


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a training step frees for the next step.

    Freeing one block of just under 32 MB raises malloc's own threshold for returning memory to the
    system. Otherwise every step returns its gradients and pays for their pages again.
    """
    with suppress(RuntimeError):  # the fit may need less than that
        torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")
