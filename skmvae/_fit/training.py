"""The one training loop: a network and rows in, trained weights and a TrainingResult out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from .._machine.rows import ScaledRows
from .._machine.runtime import finish, gradients, keep_freed_memory
from .._model.network import MixtureVAE
from .epoch import DivergenceError, Trainer, TrainingSettings

logger = logging.getLogger("skmvae")


class TrainingResult(NamedTuple):
    """One record an epoch (name -> value), and the Ctrl-C that cut training short, if one did."""

    records: tuple[dict[str, float], ...]
    interruption: KeyboardInterrupt | None


class Progress(NamedTuple):
    """What is kept of the finished epochs: their records and the weights of the best one.

    Replaced as a whole when an epoch ends, so that an interruption finds the old or the new one.
    """

    records: tuple[dict[str, float], ...] = ()
    parameters: dict[str, Tensor] | None = None
    best_loss: float = np.inf
    stale_epochs: int = 0


@gradients()
def train(
    network: MixtureVAE,
    rows: ScaledRows,
    *,
    training: np.ndarray,
    held_out: np.ndarray,
    settings: TrainingSettings,
    seed: int,
    continues: bool = False,
    begin_epoch: Callable[[], None] = lambda: None,
    end_epoch: Callable[[Progress], bool] = lambda progress: False,
) -> TrainingResult:
    """Train ``network`` in place on ``rows[training]``, until ``end_epoch`` asks to stop.

    With rows held out, the weights of the epoch with the lowest loss on them are kept, and
    training stops once it has not improved by ``tol`` for ``n_iter_no_change`` epochs. If it
    ``continues`` with a fitted network, the weights of that are the ones to improve on. With no
    rows held out, the weights of the last finished epoch are kept. All this holds after Ctrl-C
    too; one that comes before there are weights to keep is raised.
    """
    keep_freed_memory()
    trainer = Trainer(network, rows, settings, n_training=len(training), seed=seed)
    shuffler = np.random.default_rng(seed)
    progress, interruption = Progress(), None
    try:
        if continues and len(held_out):
            terms = trainer.evaluate(held_out, "the validation before epoch 1")
            progress = Progress((), _snapshot(network), settings.loss(terms))
        for epoch in range(1, settings.max_iter + 1):
            begin_epoch()
            start = time.perf_counter()
            terms = trainer.run_epoch(shuffler.permutation(training), f"epoch {epoch}")
            record = {"loss": settings.loss(terms), **terms._asdict()}
            record["learning_rate"] = trainer.learning_rate
            if len(held_out):
                terms = trainer.evaluate(held_out, f"the validation after epoch {epoch}")
                record["validation_loss"] = settings.loss(terms)
            record["seconds"] = time.perf_counter() - start
            progress = _advance(progress, network, record, settings.tol)
            if settings.verbose:
                _report(progress.records, settings.max_iter)
            stop = end_epoch(progress)
            if stop or progress.stale_epochs >= settings.n_iter_no_change:
                break
    except KeyboardInterrupt as error:
        if progress.parameters is None:
            raise
        interruption = error
    kept = progress.parameters
    assert kept is not None  # max_iter >= 1
    _, late_interruption = finish(lambda: network.load_state_dict(kept))
    return TrainingResult(progress.records, interruption or late_interruption)


def _advance(progress: Progress, network, record: dict[str, float], tol: float) -> Progress:
    """The progress after one more epoch. Without held-out rows every epoch is the best so far."""
    records = (*progress.records, record)
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise DivergenceError(
                f"Training diverged: {name} became non-finite in the last batch of epoch "
                f"{len(records)}. Lower learning_rate."
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
    if logger.isEnabledFor(logging.INFO):
        logger.info(line)
    else:
        print(line, flush=True)
