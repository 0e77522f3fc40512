"""The one training loop: a network and rows in, trained weights and a TrainingResult out."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._network import MixtureVAE
from ._objective import ObjectiveTerms, objective_terms
from ._runtime import (
    ScaledRows,
    finish,
    gradients,
    keep_freed_memory,
    make_generator,
    no_gradients,
)

logger = logging.getLogger("skmvae")

# The noise variance is one scalar that has to follow the reconstruction error down by orders of
# magnitude; at the pace of the weights it lags behind for most of a short fit.
_VARIANCE_LEARNING_RATE_FACTOR = 10.0

# Momentum of 1e-15 takes 500 batches without a gradient to become denormal.
_BATCHES_BETWEEN_CLEARING = 256


class DivergenceError(ValueError):
    """Training produced a NaN or an infinity.

    A ``ValueError``, so that ``GridSearchCV`` counts the candidate as failed and goes on.
    """


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the names are those of the estimator's parameters."""

    objective: str
    beta: float
    kl_weight: float
    weight_concentration_prior: float
    max_iter: int
    batch_size: int
    learning_rate: float
    n_iter_no_change: int
    tol: float
    verbose: int


class TrainingResult(NamedTuple):
    """One record an epoch (name -> value), and the Ctrl-C that cut training short, if one did."""

    records: tuple[dict[str, float], ...]
    interruption: KeyboardInterrupt | None


class _Progress(NamedTuple):
    """What is kept of the finished epochs.

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
) -> TrainingResult:
    """Train ``network`` in place on ``rows[training]``.

    With rows held out, the weights of the epoch with the lowest loss on them are kept, and
    training stops once it has not improved by ``tol`` for ``n_iter_no_change`` epochs. With none,
    the weights of the last finished epoch are kept. Both hold after Ctrl-C too; one that comes
    before the first epoch has ended is raised.
    """
    keep_freed_memory()
    generator = make_generator(seed, _device(network))
    shuffler = np.random.default_rng(seed)
    optimizer = _make_optimizer(network, settings.learning_rate)
    progress, interruption = _Progress(), None
    try:
        for epoch in range(1, settings.max_iter + 1):
            start = time.perf_counter()
            order = shuffler.permutation(training)
            terms = _run_epoch(network, optimizer, rows, order, settings, generator, epoch)
            record = _record(terms, settings)
            if len(held_out):
                record["validation_loss"] = _evaluate(
                    network, rows, held_out, settings, seed, epoch
                )
            record["seconds"] = time.perf_counter() - start
            progress = _advance(progress, network, record, settings.tol)
            if settings.verbose:
                _report(progress.records, settings.max_iter)
            if progress.stale_epochs >= settings.n_iter_no_change:
                break
    except KeyboardInterrupt as error:
        if progress.parameters is None:
            raise
        interruption = error
    kept = progress.parameters
    assert kept is not None  # max_iter >= 1
    _, late_interruption = finish(lambda: network.load_state_dict(kept))
    return TrainingResult(progress.records, interruption or late_interruption)


def _make_optimizer(network: MixtureVAE, learning_rate: float) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(
        [*network.encoder.parameters(), *network.decoder.parameters()],
        lr=learning_rate,
        fused=True,
    )
    if variance := list(network.likelihood.parameters()):
        lr = _VARIANCE_LEARNING_RATE_FACTOR * learning_rate
        optimizer.add_param_group({"params": variance, "lr": lr})
    return optimizer


def _run_epoch(network, optimizer, rows, order, settings, generator, epoch) -> ObjectiveTerms:
    network.train()
    log = _TermsLog(len(order), settings.batch_size, _device(network))
    for batch, start in enumerate(range(0, len(order), settings.batch_size), start=1):
        x = rows[order[start : start + settings.batch_size]]
        log.add(_step(network, optimizer, x, settings, generator))
        if batch % _BATCHES_BETWEEN_CLEARING == 0:
            _clear_vanished_momentum(optimizer)
    _clear_vanished_momentum(optimizer)
    return log.means(f"epoch {epoch}")


def _clear_vanished_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Zero the first moments that have decayed to nothing.

    The weights of a pixel that is black in a few hundred rows running get no gradient, and their
    momentum decays into denormal numbers, with which CPUs compute very slowly. Below 1e-15 it moves
    a weight by less than 1e-7 of the learning rate (Adam's epsilon is 1e-8).
    """
    for state in optimizer.state.values():
        torch.hardshrink(state["exp_avg"], lambd=1e-15, out=state["exp_avg"])


def _step(network, optimizer, x, settings, generator) -> ObjectiveTerms:
    """One gradient step on the rows x (B, F)."""
    terms = _terms(network, x, settings, generator, dropout_generator=generator)
    optimizer.zero_grad()
    terms.loss(kl_weight=settings.kl_weight, beta=settings.beta).backward()
    optimizer.step()
    return terms


@no_gradients()
def _evaluate(network, rows, held_out, settings, seed, epoch) -> float:
    """The mean loss on held-out rows, with the same draws in every epoch and no dropout."""
    network.eval()
    generator = make_generator(seed, _device(network))
    log = _TermsLog(len(held_out), settings.batch_size, _device(network))
    for start in range(0, len(held_out), settings.batch_size):
        x = rows[held_out[start : start + settings.batch_size]]
        log.add(_terms(network, x, settings, generator))
    terms = log.means(f"the validation after epoch {epoch}")
    return float(terms.loss(kl_weight=settings.kl_weight, beta=settings.beta))


def _terms(network, x, settings, generator, dropout_generator=None) -> ObjectiveTerms:
    return objective_terms(
        network,
        x,
        objective=settings.objective,
        weight_concentration_prior=settings.weight_concentration_prior,
        generator=generator,
        dropout_generator=dropout_generator,
    )


class _TermsLog:
    """The terms of every batch of an epoch on the device, read once: no synchronisation between."""

    def __init__(self, n_rows: int, batch_size: int, device: torch.device) -> None:
        self._batch_sizes = [
            min(batch_size, n_rows - start) for start in range(0, n_rows, batch_size)
        ]
        shape = (len(self._batch_sizes), len(ObjectiveTerms._fields))
        self._values = torch.empty(shape, dtype=torch.float32, device=device)
        self._n_batches = 0

    @torch.no_grad()
    def add(self, terms: ObjectiveTerms) -> None:
        torch.stack(terms, out=self._values[self._n_batches])
        self._n_batches += 1

    def means(self, where: str) -> ObjectiveTerms:
        """Means over all rows, as floats; DivergenceError if a term was ever not finite."""
        values = self._values.cpu().double().numpy()
        failed = ~np.isfinite(values)
        if failed.any():
            # Once the weights are NaN every term is: the first one to fail is the one to name.
            batch = int(failed.any(axis=1).argmax())
            terms = ", ".join(np.array(ObjectiveTerms._fields)[failed[batch]])
            raise DivergenceError(
                f"Training diverged: {terms} became non-finite in {where}, batch {batch + 1}. "
                "Lower learning_rate or beta, or look for outliers in X "
                "(sklearn.preprocessing.StandardScaler or RobustScaler)."
            )
        return ObjectiveTerms(*np.average(values, axis=0, weights=self._batch_sizes).tolist())


def _record(terms: ObjectiveTerms, settings: TrainingSettings) -> dict[str, float]:
    loss = terms.loss(kl_weight=settings.kl_weight, beta=settings.beta)
    return {"loss": loss, **terms._asdict(), "learning_rate": settings.learning_rate}


def _advance(progress: _Progress, network, record: dict[str, float], tol: float) -> _Progress:
    """The progress after one more epoch. Without held-out rows every epoch is the best so far."""
    records = (*progress.records, record)
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise DivergenceError(
                f"Training diverged: {name} became non-finite in the last batch of epoch "
                f"{len(records)}. Lower learning_rate."
            )
    loss = record.get("validation_loss")
    if loss is None:
        return _Progress(records, _snapshot(network))
    return _Progress(
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
    line = (
        f"epoch {len(records)}/{max_iter}  {terms}  {record['seconds']:.1f} s, "
        f"at most {remaining:.0f} s left"
    )
    if logger.isEnabledFor(logging.INFO):
        logger.info(line)
    else:
        print(line, flush=True)


def _device(network: MixtureVAE) -> torch.device:
    return next(network.parameters()).device
