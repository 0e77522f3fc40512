"""The one training loop: a network and rows in, trained weights and a TrainingResult out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from .._distributed.group import ALONE, Group
from .._model.network import MixtureVAE
from .._process import check_not_forked, finish, keep_freed_memory
from .._rows.scaled import ScaledRows
from .._runtime import gradients
from .._state import TrainingState, to_arrays, to_tensors
from .epoch import DivergenceError, Trainer, TrainingSettings

logger = logging.getLogger("skmvae")


class Progress(NamedTuple):
    """What is kept of the finished epochs: their records and the weights of the best one.

    Replaced as a whole when an epoch ends, so that an interruption finds the old or the new one.
    """

    records: tuple[dict[str, float], ...] = ()
    parameters: dict[str, Tensor] | None = None
    best_loss: float = np.inf
    stale_epochs: int = 0


class TrainingResult(NamedTuple):
    """One record an epoch (name -> value), and the Ctrl-C that cut training short, if one did."""

    records: tuple[dict[str, float], ...]
    interruption: KeyboardInterrupt | None


# Gets what makes the state of training, and whether training ends with it.
Keeper = Callable[[Callable[[], TrainingState], bool], None]


def keep_nothing(make: Callable[[], TrainingState], is_last: bool) -> None:
    """A Keeper."""


@gradients()
def train(
    network: MixtureVAE,
    rows: ScaledRows,
    *,
    training: np.ndarray,
    held_out: np.ndarray,
    settings: TrainingSettings,
    seed: int,
    start: TrainingState | None = None,
    begin_epoch: Callable[[], None] = lambda: None,
    end_epoch: Callable[[Progress], bool] = lambda progress: False,
    keep: Keeper = keep_nothing,
    group: Group = ALONE,
) -> TrainingResult:
    """Train ``network`` in place on ``rows[training]``, until ``end_epoch`` asks to stop.

    With rows held out, the weights of the epoch with the lowest loss on them are kept, and
    training stops once it has not improved by ``tol`` for ``n_iter_no_change`` epochs. With no
    rows held out, the weights of the last finished epoch are kept. All this holds after Ctrl-C
    too; one that comes before there are weights to keep is raised.

    ``start`` is the state that an earlier training was in, to go on from as if it had not stopped;
    if it has weights alone, those are the weights to begin with, and to improve on. ``keep`` is
    called after each epoch. In a ``group`` each rank has rows of its own, and all end alike.
    """
    check_not_forked()
    keep_freed_memory()
    trainer = Trainer(network, rows, settings, n_training=len(training), seed=seed, group=group)
    progress, interruption = Progress(), None
    try:
        if start is not None:
            trainer.restore(start)
            progress = _progress_of(start)
            if progress.parameters is None and len(held_out):
                terms = trainer.evaluate(held_out, "the validation before epoch 1")
                progress = Progress((), _snapshot(network), settings.loss(terms))
        while not _is_over(progress, settings):
            begin_epoch()
            record = _run_epoch(trainer, training, held_out, settings, len(progress.records) + 1)
            record = group.first(record)
            progress = _advance(progress, network, record, settings.tol)
            if settings.verbose:
                _report(progress.records, settings.max_iter)
            stop = group.first(end_epoch(progress))
            state = partial(_state_of, trainer, progress, has_best=len(held_out) > 0)
            keep(state, stop or _is_over(progress, settings))
            if stop:
                break
        group.gather(None)  # nobody goes on to the end before all have the last epoch
    except KeyboardInterrupt as error:
        settled = group.settle(progress, len(progress.records))
        if settled is None or settled.parameters is None:
            raise
        progress, interruption = settled, error
    kept = progress.parameters
    assert kept is not None  # max_iter >= 1
    _, late_interruption = finish(lambda: network.load_state_dict(kept))
    return TrainingResult(progress.records, interruption or late_interruption)


def _is_over(progress: Progress, settings: TrainingSettings) -> bool:
    return (
        len(progress.records) >= settings.max_iter
        or progress.stale_epochs >= settings.n_iter_no_change
    )


def _run_epoch(
    trainer: Trainer,
    training: np.ndarray,
    held_out: np.ndarray,
    settings: TrainingSettings,
    epoch: int,
) -> dict[str, float]:
    """Train once on all rows; the record of it."""
    start = time.perf_counter()
    terms = trainer.run_epoch(training, f"epoch {epoch}")
    record = {"loss": settings.loss(terms), **terms._asdict()}
    if settings.beta == 0.0:
        del record["dhsic"]  # it was not computed
    record["learning_rate"] = trainer.learning_rate
    if len(held_out):
        terms = trainer.evaluate(held_out, f"the validation after epoch {epoch}")
        record["validation_loss"] = settings.loss(terms)
    record["seconds"] = time.perf_counter() - start
    return record


def _state_of(trainer: Trainer, progress: Progress, *, has_best: bool) -> TrainingState:
    """The trainer's state, and the progress; the best weights where they are not the last ones."""
    state = trainer.state()
    values = {"records": list(progress.records), "stale_epochs": progress.stale_epochs}
    if has_best:
        assert progress.parameters is not None
        state = state.with_part("best", to_arrays(progress.parameters))
        values["best_loss"] = progress.best_loss
    return state.with_values(progress=values)


def _progress_of(state: TrainingState) -> Progress:
    """The other way; none yet where the state is of another fit."""
    if "progress" not in state.values:
        return Progress()
    values = state.values["progress"]
    return Progress(
        tuple(values["records"]),
        to_tensors(state.part("best") or state.part("weights")),
        values.get("best_loss", np.inf),
        values["stale_epochs"],
    )


def _advance(progress: Progress, network, record: dict[str, float], tol: float) -> Progress:
    """The progress after one more epoch. Without held-out rows every epoch is the best so far."""
    records = (*progress.records, record)
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise DivergenceError(
                f"Training diverged: {name} became non-finite in the last batch of epoch "
                f"{len(records)}. Lower learning_rate, or look for outliers in X."
            )
    loss = record.get("validation_loss")
    if loss is None:
        return Progress(records, _snapshot(network))
    return Progress(
        records,
        _snapshot(network) if loss < progress.best_loss else progress.parameters,
        min(loss, progress.best_loss),
        0 if loss < progress.best_loss - tol else progress.stale_epochs + 1,
    )


def _snapshot(network: MixtureVAE) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _report(records: tuple[dict[str, float], ...], max_iter: int) -> None:
    """One line for the last epoch, to the log if somebody listens and to the screen if not."""
    record = records[-1]
    remaining = sum(r["seconds"] for r in records) / len(records) * (max_iter - len(records))
    names = [n for n in record if n not in ("learning_rate", "seconds")]
    terms = "  ".join(f"{name} {record[name]:.4f}" for name in names)
    terms += f"  learning_rate {record['learning_rate']:.1e}"
    line = (
        f"epoch {len(records)}/{max_iter}  {terms}  {record['seconds']:.1f} s, "
        f"at most {remaining:.0f} s left"
    )
    if _is_heard(logger):
        logger.info(line)
    else:
        print(line, flush=True)


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
