"""Observers: the protocol of whoever hears of a fit, and the reporter of ``verbose``."""

from __future__ import annotations

import logging
from typing import Protocol

from .._state import Epoch, Record

logger = logging.getLogger("skmvae")


class Observer(Protocol):
    """Hears of a fit. What one raises ends the fit, without a call of ``end_fit``."""

    def report(self, line: str) -> None:
        """Hear how far work that takes long has come before the first epoch."""
        return

    def begin_epoch(self) -> None:
        return None

    def end_epoch(self, epoch: Epoch) -> bool:
        """Return whether the fit has to stop here."""

    def end_fit(self, epoch: Epoch) -> None:
        return None


class Reporter(Observer):
    """Reports one line an epoch, to the log if somebody listens and to the screen otherwise."""

    def __init__(self, max_iter: int) -> None:
        self._max_iter = max_iter

    def report(self, line: str) -> None:
        if _is_heard(logger):
            logger.info(line)
        else:
            print(line, flush=True)

    def end_epoch(self, epoch: Epoch) -> bool:
        self.report(self._line(epoch.records))
        return False

    def _line(self, records: tuple[Record, ...]) -> str:
        record, n_epochs = records[-1], len(records)
        seconds = sum(r["seconds"] for r in records) / n_epochs
        names = [n for n in record if n not in ("learning_rate", "seconds")]
        terms = "  ".join(f"{name} {record[name]:.4f}" for name in names)
        return (
            f"epoch {n_epochs}/{self._max_iter}  {terms}  "
            f"learning_rate {record['learning_rate']:.1e}  {record['seconds']:.1f} s, "
            f"at most {seconds * (self._max_iter - n_epochs):.0f} s left"
        )


def _is_heard(logger: logging.Logger) -> bool:
    """Whether a message of level INFO reaches a handler that shows it.

    Where there is none, logging's own last resort drops all below a warning.
    """
    here: logging.Logger | None = logger
    handlers: list[logging.Handler] = []
    while here is not None:
        handlers += here.handlers
        here = here.parent if here.propagate else None
    return logger.isEnabledFor(logging.INFO) and any(
        handler.level <= logging.INFO and not isinstance(handler, logging.NullHandler)
        for handler in handlers
    )
