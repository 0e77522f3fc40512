"""Checkpoints: the file in which a fit keeps its training, to go on from if it is killed."""

from __future__ import annotations

import contextlib
import logging
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._process import warn
from .._saved import check_training
from .._state import Epoch, NetworkState, TrainingState
from .behaviour import behaviour_of, is_same_behaviour
from .keys import code_of_network, key_of
from .tensors import check_safetensors, read_tensors, write_tensors

logger = logging.getLogger("skmvae")

_FORMAT_VERSION = 1

# Most that writing may take of the time of a fit; what a killed fit loses is an epoch, or fifty
# times what writing one takes.
_FRACTION_OF_TIME = 0.02

# Seconds of writing, before the first has shown it: a fit of less than a second writes its last
# epoch alone.
_EXPECTED_SECONDS = 0.02


class Checkpoint:
    """An observer that keeps the training of one fit in a folder where other fits have theirs.

    ``identity`` says which fit it is but for its ``max_iter``. Whether a longer fit of the same
    identity goes on from where a shorter one ended is ``can_grow``: with learning rates that depend
    on the length, it would not be the fit that it is without.
    """

    def __init__(self, folder: Path, identity: Any, max_iter: int, *, can_grow: bool) -> None:
        check_safetensors()
        self._folder = folder
        self._identity = identity
        self._max_iter = max_iter
        self._can_grow = can_grow
        self._written = time.perf_counter()
        self._seconds = _EXPECTED_SECONDS
        self._has_warned = False
        self._is_behind = False

    def read(self, untrained: NetworkState) -> TrainingState | None:
        """The state to go on from, with the ``seed`` of its fit; None if there is none.

        It has to be called first: the name of the file follows from the modules of the network too.
        """
        self._key = key_of((self._identity, code_of_network(untrained)))
        self._behaviour = None if _is_ours(untrained.architecture) else behaviour_of(untrained)
        for max_iter in self._lengths_to_read():
            path = self._path_of(max_iter)
            try:
                state = self._read(path, max_iter, untrained)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                self._set_aside(path, error)
                continue
            if state is None:
                logger.info("fit begins anew: the architecture of %s computed otherwise", path)
            else:
                logger.info("fit goes on from the checkpoint %s", path)
            return state
        return None

    def report(self, line: str) -> None:
        pass

    def begin_epoch(self) -> None:
        pass

    def end_epoch(self, epoch: Epoch) -> bool:
        """Write the state if that costs little by now."""
        self._is_behind = True
        if self._seconds <= _FRACTION_OF_TIME * (time.perf_counter() - self._written):
            self._write(epoch)
        return False

    def end_fit(self, epoch: Epoch) -> None:
        """Write the last state, if the file has not got it."""
        if self._is_behind:
            self._write(epoch)

    def _write(self, epoch: Epoch) -> None:
        """Write the state; a fit does not end because of what it cannot write."""
        start = time.perf_counter()
        state = epoch.training_state()
        values = {
            "about": self._about(self._max_iter),
            "behaviour": self._behaviour,
            "training": state.values,
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_tensors(self._path_of(self._max_iter), state.arrays, values)
        except OSError as error:
            self._warn_once(error)
        self._is_behind = False
        self._written = time.perf_counter()
        self._seconds = self._written - start

    def _path_of(self, max_iter: int) -> Path:
        return self._folder / f"mvae-{self._key}-{max_iter}.safetensors"

    def _about(self, max_iter: int) -> dict[str, Any]:
        """The description that a file of this key has of itself."""
        return {"format_version": _FORMAT_VERSION, "key": self._key, "max_iter": max_iter}

    def _lengths_to_read(self) -> list[int]:
        """``max_iter`` of this fit, and then those of shorter ones, the longest first."""
        lengths = set(self._lengths())
        shorter = sorted((n for n in lengths if n < self._max_iter), reverse=True)
        if shorter and not self._can_grow and self._max_iter not in lengths:
            logger.info(
                "fit with max_iter=%d begins anew, although there is a checkpoint with max_iter=%d:"
                " what its epochs do depends on max_iter. With learning_rate_schedule='constant' "
                "it would go on, except under the objectives 'mixture' and 'clusters'.",
                self._max_iter,
                shorter[0],
            )
        return [self._max_iter, *(shorter if self._can_grow else [])]

    def _lengths(self) -> Iterator[int]:
        """The ``max_iter`` of the checkpoints of this key."""
        pattern = re.compile(rf"mvae-{self._key}-(\d+)\.safetensors")
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if match := pattern.fullmatch(path.name):
                    yield int(match[1])

    def _read(self, path: Path, max_iter: int, untrained: NetworkState) -> TrainingState | None:
        """The state in a file; None if it is of an architecture that computes otherwise."""
        arrays, values = read_tensors(path)
        if (about := values.get("about")) != self._about(max_iter):
            raise ValueError(f"{path} is not the checkpoint of this fit, but of {about}.")
        state = TrainingState(arrays, values.get("training", {}))
        try:
            check_training(state, untrained, in_a_fit=True)
        except ValueError as error:
            raise ValueError(f"{path} is not whole: {error}") from error
        behaviour = self._behaviour
        is_same = behaviour is None or is_same_behaviour(values.get("behaviour", []), behaviour)
        return state if is_same else None

    def _set_aside(self, path: Path, error: Exception) -> None:
        """Rename a file that cannot be read: it may be somebody else's, and must not be deleted."""
        aside = path.with_name(f"{path.name}.unreadable-{uuid.uuid4().hex[:8]}")
        message = f"A checkpoint cannot be read, and fit begins without: {error}"
        with contextlib.suppress(OSError):
            path.replace(aside)
            message += f" It is now {aside}."
        warn(message)

    def _warn_once(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            warn(f"A checkpoint cannot be written, and fit goes on without: {error}")


def _is_ours(architecture: object) -> bool:
    """Whether it is of this package, whose version is in the key."""
    return type(architecture).__module__ == "skmvae.architectures"
