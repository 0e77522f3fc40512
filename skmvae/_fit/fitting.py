"""A fit: rows and plain values in, trained parameters out. The one loop, whoever calls it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .._distributed.group import ALONE, Group
from .._model.network import MixtureVAE
from .._model.objective import OF_PARTS, Objective, ObjectiveTerms
from .._process import check_not_forked, keep_freed_memory, uninterrupted
from .._rows.neighbours import NeighbourGraph, find_neighbours
from .._rows.parts import Parts, find_parts
from .._rows.scaled import ScaledRows, is_finite
from .._rows.statistics import observed_a_row
from .._runtime import draw_seed, gradients, make_generator
from .._state import (
    Epoch,
    NetworkState,
    Record,
    Trained,
    TrainingState,
    new_network,
    to_arrays,
    to_tensors,
)
from .observers import Observer
from .rows import later_units, scaled_rows, split, units, usable_rows
from .schedules import Schedule
from .step import DivergenceError, Trainer, TrainingSettings

# Default batch size: with 128, a table of 100 rows would get one step per epoch.
_SMALLEST_BATCH, _LARGEST_BATCH, _BATCHES_AN_EPOCH = 32, 128, 10


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit in plain values; the names are those of the estimator's parameters."""

    architecture: object
    latent_dim: int
    k: int
    likelihood: str
    objective: Objective  # with the neighbours' weight per column
    device: torch.device
    precision: str
    max_iter: int
    batch_size: int | None
    learning_rate: float
    schedule: Schedule
    n_neighbors: int
    validation_fraction: float | None  # None holds out no rows
    n_iter_no_change: int
    tol: float

    def for_rows_of(self, n_columns: float) -> FitSettings:
        """These settings with the neighbours' weight per row, as the loss is."""
        weight = self.objective.neighbor_weight * n_columns
        return replace(self, objective=replace(self.objective, neighbor_weight=weight))


class PreviousFit(NamedTuple):
    """The fit that another one continues."""

    state: NetworkState
    training: TrainingState | None  # kept by ``partial_fit``
    n_epochs: int
    split_seed: int
    weights: np.ndarray  # (K,), ``weights_``
    labels: np.ndarray | None  # (n,), the component of each row of X, of a warm start with parts


class FitResult(NamedTuple):
    """Result of a fit, the state of training, and the Ctrl-C that cut the fit short."""

    trained: Trained
    training: TrainingState | None  # None after Ctrl-C within an epoch
    interruption: KeyboardInterrupt | None = None


class Checkpoint(Observer, Protocol):
    """An observer that keeps the state of training, to go on from in another process."""

    def read(self, untrained: NetworkState) -> TrainingState | None: ...


class Progress(NamedTuple):
    """Records of the finished epochs, and the network parameters of the best one.

    Replaced as a whole when an epoch ends, so that Ctrl-C finds the old or the new one.
    """

    records: tuple[Record, ...] = ()
    parameters: dict[str, Tensor] | None = None
    best_loss: float = np.inf
    stale_epochs: int = 0


@gradients()
def fit(
    X,
    settings: FitSettings,
    *,
    seed: int | None,
    previous: PreviousFit | None = None,
    observers: Iterable[Observer] = (),
    checkpoint: Checkpoint | None = None,
    group: Group = ALONE,
) -> FitResult:
    """Train on X, in a ``group`` with the rows of all ranks.

    With ``validation_fraction``, rows are held out, the parameters of the epoch with the lowest
    loss on them are kept, and training stops once it has not improved by ``tol`` for
    ``n_iter_no_change`` epochs. Otherwise the parameters of the last finished epoch are kept, also
    after Ctrl-C; in a group, and before there are parameters to keep, Ctrl-C is raised.
    """
    check_not_forked()
    keep_freed_memory()
    n_columns = observed_a_row(X, group)
    has_holes = n_columns < X.shape[1]
    usable = group.agree(lambda: usable_rows(X, has_holes))
    settings = settings.for_rows_of(n_columns)
    untrained = _untrained_state(X, settings, previous, group)
    start = None if previous is None else TrainingState.of(previous.state, previous.training)
    if checkpoint is not None and (found := checkpoint.read(untrained)):
        # With random_state=None any seed will do, so the fit that was begun is this one.
        start, seed = found, found.values["seed"]
    start, seed = group.broadcast((start, draw_seed(seed)))
    split_seed, network_seed, training_seed = _seeds(seed, previous)
    rows = group.agree(lambda: split(usable, settings.validation_fraction, split_seed))
    scaled = scaled_rows(X, untrained, settings.device, has_holes)
    observers = [*observers] if checkpoint is None else [*observers, checkpoint]
    neighbours, parts = None, None
    if start is None or not _is_over(_progress_of(start), settings):
        neighbours = _neighbours(scaled, rows[0], settings, training_seed, observers, group)
        parts = _parts(scaled, rows[0], settings, previous, training_seed, observers, group)
    trainer = Trainer(
        new_network(untrained, make_generator(network_seed, settings.device), settings.device),
        scaled,
        _training_settings(settings, sum(group.all_gather(len(rows[0])))),
        n_training=len(rows[0]),
        seed=training_seed,
        neighbours=neighbours,
        parts=parts,
        group=group,
    )
    loop = _Loop(trainer, untrained, (seed, split_seed), rows, settings, observers, group)
    interruption = loop.run(start)
    result, late_interruption = uninterrupted(loop.result)
    return result._replace(interruption=interruption or late_interruption)


class _Loop:
    """The epochs of one fit."""

    def __init__(
        self,
        trainer: Trainer,
        untrained: NetworkState,
        seeds: tuple[int, int],
        rows: tuple[np.ndarray, np.ndarray],
        settings: FitSettings,
        observers: list[Observer],
        group: Group,
    ) -> None:
        self._trainer, self._untrained = trainer, untrained
        self._seed, self._split_seed = seeds
        self._training, self._held_out = rows
        self._settings, self._observers, self._group = settings, observers, group
        self._progress = Progress()
        self._is_at_end_of_epoch = False

    def run(self, start: TrainingState | None) -> KeyboardInterrupt | None:
        """Train from ``start`` on; return the Ctrl-C that ended it, if there is a result."""
        try:
            if start is not None:
                self._restore(start)
            while not _is_over(self._progress, self._settings):
                if self._run_epoch():
                    break
            for observer in self._observers:
                observer.end_fit(self._epoch())
        except KeyboardInterrupt as interruption:
            if self._progress.parameters is None or self._group is not ALONE:
                raise
            return interruption
        return None

    def result(self) -> FitResult:
        training = None
        if self._is_at_end_of_epoch:
            training = self._training_state().between_fits()
        return FitResult(self._trained(), training)

    def _run_epoch(self) -> bool:
        """Train once on all rows; return whether an observer asks to stop."""
        for observer in self._observers:
            observer.begin_epoch()
        self._is_at_end_of_epoch = False
        record = self._group.broadcast(self._train_once())
        self._progress = _advanced(self._progress, self._trainer.network, record, self._settings)
        self._is_at_end_of_epoch = True
        epoch = self._epoch()
        asks_to_stop = [observer.end_epoch(epoch) for observer in self._observers]
        return self._group.broadcast(any(asks_to_stop))

    def _epoch(self) -> Epoch:
        return Epoch(self._progress.records, self._trained, self._training_state)

    def _train_once(self) -> Record:
        number, start = len(self._progress.records) + 1, time.perf_counter()
        objective = self._settings.objective
        terms = self._trainer.run_epoch(self._training, f"epoch {number}")
        record = {"loss": self._loss(terms), **terms._asdict()}
        if objective.beta == 0.0:
            del record["dhsic"]  # it was not computed
        if objective.neighbor_weight == 0.0:
            del record["neighbors"]
        record["learning_rate"] = self._trainer.learning_rate
        if len(self._held_out):
            where = f"the validation after epoch {number}"
            record["validation_loss"] = self._loss(self._trainer.evaluate(self._held_out, where))
        record["seconds"] = time.perf_counter() - start
        return record

    def _loss(self, terms: ObjectiveTerms) -> float:
        return self._settings.objective.loss(terms)

    def _restore(self, start: TrainingState) -> None:
        """Go on from a state of this fit, or with the parameters of another one."""
        self._trainer.restore(start)
        self._progress = _progress_of(start)
        self._is_at_end_of_epoch = len(self._progress.records) > 0
        if self._progress.parameters is None and len(self._held_out):
            terms = self._trainer.evaluate(self._held_out, "the validation before epoch 1")
            parameters = _snapshot(self._trainer.network)
            self._progress = Progress((), parameters, self._loss(terms))

    def _trained(self) -> Trained:
        progress = self._progress
        assert progress.parameters is not None  # max_iter >= 1
        state = self._untrained.with_parameters(progress.parameters)
        return Trained(state, progress.records, self._split_seed)

    def _training_state(self) -> TrainingState:
        """The trainer's state and the progress; the best parameters where they are not the last."""
        progress = self._progress
        values = {"records": list(progress.records), "stale_epochs": progress.stale_epochs}
        state = self._trainer.state()
        if len(self._held_out):
            assert progress.parameters is not None
            state = state.with_part("best", to_arrays(progress.parameters))
            values["best_loss"] = progress.best_loss
        return state.with_values(progress=values, seed=self._seed)


def _untrained_state(
    X, settings: FitSettings, previous: PreviousFit | None, group: Group
) -> NetworkState:
    """The shapes and the units of the network to train: those of a previous fit, or new."""
    if previous is None:
        mean, scale, fill = units(X, settings.likelihood, group)
    else:
        mean, scale, fill = later_units(X, previous.state, group)
    k = settings.k
    state = NetworkState(
        architecture=settings.architecture,
        n_features=X.shape[1],
        latent_dim=settings.latent_dim,
        k=k,
        likelihood=settings.likelihood,
        weight_concentration_prior=settings.objective.prior,
        mean=mean,
        scale=scale,
        fill=fill,
        shares=None if settings.objective.name == "averaged" else np.full(k, 1.0 / k),
        arrays={},
    )
    if previous is not None:
        state.check_continues(previous.state)
    return state


def _seeds(seed: int, previous: PreviousFit | None) -> tuple[int, int, int]:
    """Seeds of the split, of the network and of training.

    A warm start has new draws and a new order of the rows, but the split of the fit before: rows
    that it was trained on are no judges of it.
    """
    n_epochs = 0 if previous is None else previous.n_epochs
    seeds = np.random.SeedSequence(seed).generate_state(3 + n_epochs)
    split_seed, network_seed, training_seed = (int(seeds[i]) for i in (0, 1, -1))
    return split_seed if previous is None else previous.split_seed, network_seed, training_seed


def _training_settings(settings: FitSettings, n_training: int) -> TrainingSettings:
    batch_size = settings.batch_size
    if batch_size is None:
        batch_size = min(_LARGEST_BATCH, max(_SMALLEST_BATCH, n_training // _BATCHES_AN_EPOCH))
    return TrainingSettings(
        settings.objective,
        settings.precision,
        settings.max_iter,
        batch_size,
        settings.learning_rate,
        settings.schedule,
    )


def _progress_of(state: TrainingState) -> Progress:
    """The progress in a state of training; none yet where the state is of another fit."""
    if "progress" not in state.values:
        return Progress()
    values = state.values["progress"]
    return Progress(
        tuple(values["records"]),
        to_tensors(state.part("best") or state.part("weights")),
        values.get("best_loss", np.inf),
        values["stale_epochs"],
    )


def _neighbours(
    rows: ScaledRows,
    training: np.ndarray,
    settings: FitSettings,
    seed: int,
    observers: list[Observer],
    group: Group,
) -> NeighbourGraph | None:
    """The graph of this rank's rows, if the loss has the term that needs it."""
    if settings.objective.neighbor_weight == 0.0:
        return None
    return find_neighbours(
        rows,
        training,
        settings.n_neighbors,
        seed=[seed, group.rank],
        report=partial(_report, observers),
    )


def _parts(
    rows: ScaledRows,
    training: np.ndarray,
    settings: FitSettings,
    previous: PreviousFit | None,
    seed: int,
    observers: list[Observer],
    group: Group,
) -> Parts | None:
    """The parts that components start from: those that they have, if an earlier fit gave them some.

    A chunk after the first goes on with the shares that are in the state of training.
    """
    if settings.objective.name not in OF_PARTS or settings.k == 1:
        return None
    if previous is not None:
        labels = previous.labels
        return None if labels is None else Parts(labels, previous.weights)
    parts = find_parts(
        rows,
        training,
        settings.k,
        # A density gains by components that share a part, and loses by others (docs/paper.md).
        k_separate=settings.objective.name == "mixture",
        precision=settings.precision,
        seed=seed,
        group=group,
    )
    if parts is not None:
        _report(observers, f"components start from {(parts.shares > 0).sum()} parts of the rows")
    return parts


def _report(observers: list[Observer], line: str) -> None:
    for observer in observers:
        observer.report(line)


def _is_over(progress: Progress, settings: FitSettings) -> bool:
    return (
        len(progress.records) >= settings.max_iter
        or progress.stale_epochs >= settings.n_iter_no_change
    )


def _advanced(
    progress: Progress, network: MixtureVAE, record: Record, settings: FitSettings
) -> Progress:
    """The progress after one more epoch. Without held-out rows every epoch is the best so far."""
    records = (*progress.records, record)
    for name, tensor in network.state_dict().items():
        if not is_finite(tensor):
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
        0 if loss < progress.best_loss - settings.tol else progress.stale_epochs + 1,
    )


def _snapshot(network: MixtureVAE) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}
