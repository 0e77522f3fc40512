"""One pass over the rows: the training step, the optimizer and the log of what they gave."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._distributed.group import ALONE, Group
from .._distributed.slices import Share, shares
from .._model.network import MixtureVAE
from .._model.objective import ObjectiveTerms, objective_terms
from .._rows.scaled import ScaledRows
from .._runtime import make_generator, no_gradients
from .._state import MOMENTS, TrainingState, to_arrays, to_tensors
from .batches import batches_of
from .graphs import GraphedStep
from .schedules import SCHEDULES

# The noise variance is one scalar that has to follow the reconstruction error down by orders of
# magnitude; at the pace of the weights it lags behind for most of a short fit.
_VARIANCE_LEARNING_RATE_FACTOR = 10.0

# Momentum of 1e-15 takes 300 batches without a gradient to become denormal with a beta of 0.85, a
# second moment of 1e-30 takes 900 with 0.98.
_BATCHES_BETWEEN_CLEARING = 256

_LOOK_AT_OWN_ROWS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


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
    precision: str
    max_iter: int
    batch_size: int
    learning_rate: float
    learning_rate_schedule: str
    n_iter_no_change: int
    tol: float
    verbose: int

    def loss(self, terms: ObjectiveTerms) -> float:
        """Equation 14."""
        return terms.loss(kl_weight=self.kl_weight, beta=self.beta)

    def loss_weights(self, device: torch.device) -> Tensor:
        """The factors of the terms in equation 14, (4,)."""
        weights = ObjectiveTerms(1.0, self.kl_weight, 1.0, self.beta)
        return torch.tensor(weights, dtype=torch.float32, device=device)


class Trainer:
    """Trains a network on rows, epoch by epoch.

    In a ``group`` each rank has rows of its own and, after every step, the same weights.
    """

    def __init__(
        self,
        network: MixtureVAE,
        rows: ScaledRows,
        settings: TrainingSettings,
        *,
        n_training: int,
        seed: int,
        group: Group = ALONE,
    ) -> None:
        self._network = network
        self._settings = settings
        self._seed = seed
        self._group = group
        _join(network, group)
        self._generator = make_generator(seed, rows.device)
        self._shuffler = np.random.default_rng(seed)
        self._loss_weights = settings.loss_weights(rows.device)
        self._optimizer = _make_optimizer(network, settings, rows.device)
        self._share = SCHEDULES[settings.learning_rate_schedule].share
        n_rows, n_training = np.sum(group.gather((len(rows), n_training)), axis=0).tolist()
        self._n_steps = settings.max_iter * math.ceil(n_training / settings.batch_size)
        self._step_number = 0
        self._learning_rates: list[float] = []  # of the steps of the epoch
        self._batches = batches_of(rows, settings.batch_size)
        self._log = _TermsLog(math.ceil(n_rows / settings.batch_size), rows.device, group)
        self._graphed = (
            GraphedStep(self._optimizer.zero_grad, self._generator)
            # A graph of a step has one place in the minibatch, and would have to hold what ranks
            # say to each other, be there one of them.
            if rows.device.type == "cuda" and group is ALONE
            else None
        )

    def run_epoch(self, training: np.ndarray, where: str) -> ObjectiveTerms:
        """Train on these rows in a new order; the terms of the loss, means over them."""
        order = self._group.own_shuffler(self._shuffler).permutation(training)
        self._own_generator = self._group.own_generator(self._generator)
        self._network.train()
        self._log.clear()
        self._learning_rates.clear()
        sizes = []
        for share in self._minibatches(order):
            self._run_step(share)
            sizes.append(share.total)
            if len(sizes) % _BATCHES_BETWEEN_CLEARING == 0:
                _clear_vanished_moments(self._optimizer)
        _clear_vanished_moments(self._optimizer)
        return self._log.means(sizes, where)

    @property
    def learning_rate(self) -> float:
        """Mean over the steps of the last epoch."""
        return math.fsum(self._learning_rates) / len(self._learning_rates)

    @no_gradients()
    def evaluate(self, held_out: np.ndarray, where: str) -> ObjectiveTerms:
        """The terms on held-out rows, with the same draws in every epoch and no dropout."""
        self._network.eval()
        self._log.clear()
        generator = make_generator(self._seed, self._generator.device)
        generator = self._group.own_generator(generator)
        sizes = []
        for share in self._minibatches(held_out):
            self._log.add(self._terms(share, generator))
            sizes.append(share.total)
        return self._log.means(sizes, where)

    def state(self) -> TrainingState:
        """What the next epoch follows from; on a CPU in the trainer's own memory, uncopied."""
        state = TrainingState(
            {"generator": self._generator.get_state().numpy()},
            {"steps": self._step_number, "shuffler": self._shuffler.bit_generator.state},
        )
        state = state.with_part("weights", to_arrays(self._network.state_dict()))
        for kind in MOMENTS:
            moments = {
                name: self._optimizer.state[parameter][kind]
                for name, parameter in self._network.named_parameters()
            }
            state = state.with_part(kind, to_arrays(moments))
        return state

    def restore(self, state: TrainingState) -> None:
        """Go on from there; with fresh moments and generators where it has weights alone."""
        self._network.load_state_dict(to_tensors(state.part("weights")))
        if "steps" not in state.values:
            return
        self._step_number = state.values["steps"]
        self._shuffler.bit_generator.state = state.values["shuffler"]
        generator = torch.from_numpy(state.arrays["generator"].copy())
        # Those of a CPU and of a GPU differ; on the other kind the draws begin anew.
        if generator.shape == self._generator.get_state().shape:
            self._generator.set_state(generator)
        parts = {kind: to_tensors(state.part(kind)) for kind in MOMENTS}
        for name, parameter in self._network.named_parameters():
            device = parameter.device
            self._optimizer.state[parameter] = {
                "step": torch.tensor(self._step_number, dtype=torch.float32, device=device),
                # The optimizer changes them in place, and ``state`` is somebody else's.
                **{kind: part[name].to(device, copy=True) for kind, part in parts.items()},
            }

    def _minibatches(self, indices: np.ndarray) -> Iterator[Share]:
        """Of these rows and, in a group, those of the others: each when it can be read."""
        parts = shares(self._group, len(indices), self._settings.batch_size)
        batches = self._batches.over(indices, [share.size for share in parts])
        for share, _ in zip(parts, batches, strict=True):
            yield share

    def _run_step(self, share: Share) -> None:
        self._set_learning_rate()
        if self._graphed is None:
            self._step(share)
        else:
            self._graphed(self._step, share)

    def _set_learning_rate(self) -> None:
        """To the share at the middle of the step that comes: more than zero even for a lone one."""
        share = self._share((self._step_number + 0.5) / self._n_steps)
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(share * group["peak"])  # where a captured graph reads it
            else:
                group["lr"] = share * group["peak"]
        self._learning_rates.append(share * self._settings.learning_rate)
        self._step_number += 1

    def _step(self, share: Share) -> None:
        """One gradient step on the next rows. Reads no value: a GPU would have to wait."""
        terms = self._terms(share, self._own_generator, dropout_generator=self._own_generator)
        self._optimizer.zero_grad()
        torch.dot(terms, self._loss_weights).backward()
        self._group.add_gradients(self._network.parameters())
        self._optimizer.step()
        self._log.add(terms)

    def _terms(self, share: Share, generator, dropout_generator=None) -> Tensor:
        return objective_terms(
            self._network,
            self._batches.read(share.size),
            objective=self._settings.objective,
            weight_concentration_prior=self._settings.weight_concentration_prior,
            kl_weight=self._settings.kl_weight,
            beta=self._settings.beta,
            precision=self._settings.precision,
            generator=generator,
            dropout_generator=dropout_generator,
            share=share,
        )


def _join(network: MixtureVAE, group: Group) -> None:
    """Let the layers that look at the whole minibatch know with whom it is shared."""
    for name, module in network.named_modules():
        if isinstance(getattr(module, "group", None), Group):
            module.group = group
        elif group.size > 1 and isinstance(module, _LOOK_AT_OWN_ROWS):
            raise ValueError(
                f"{name} of the architecture is a {type(module).__name__}, which would normalise "
                "each rank's rows by themselves. Normalise as ComponentBatchNorm does, over the "
                "group that the fit sets."
            )


def _make_optimizer(
    network: MixtureVAE, settings: TrainingSettings, device: torch.device
) -> torch.optim.Optimizer:
    weights = [*network.encoder.parameters(), *network.decoder.parameters()]
    groups: list[dict[str, Any]] = [{"params": weights, "peak": settings.learning_rate}]
    if variance := list(network.likelihood.parameters()):
        peak = _VARIANCE_LEARNING_RATE_FACTOR * settings.learning_rate
        groups.append({"params": variance, "peak": peak})
    on_gpu = device.type == "cuda"
    for group in groups:
        # A GPU has the rate in float32: one that no longer fits diverges all the same.
        group["peak"] = min(group["peak"], torch.finfo(torch.float32).max)
        group["lr"] = group["peak"]
        if on_gpu:
            group["lr"] = torch.tensor(group["peak"], dtype=torch.float32, device=device)
    betas = SCHEDULES[settings.learning_rate_schedule].betas
    return torch.optim.Adam(groups, betas=betas, fused=True, capturable=on_gpu)


def _clear_vanished_moments(optimizer: torch.optim.Optimizer) -> None:
    """Zero the moments that have decayed to nothing.

    The weights of a pixel that is black in a few hundred rows running, or of a unit that is never
    active, get no gradient, and their moments decay into denormal numbers, with which CPUs compute
    very slowly. A first moment below 1e-15 moves a weight by less than 1e-7 of the learning rate,
    and the root of a second one below 1e-30 is that little beside Adam's epsilon of 1e-8.
    """
    for state in optimizer.state.values():
        for name, least in zip(MOMENTS, (1e-15, 1e-30), strict=True):
            torch.hardshrink(state[name], lambd=least, out=state[name])


class _TermsLog:
    """The terms of every batch of an epoch on the device, read once: no synchronisation between."""

    def __init__(self, n_batches: int, device: torch.device, group: Group) -> None:
        self._group = group
        shape = (n_batches, len(ObjectiveTerms._fields))
        self._values = torch.empty(shape, dtype=torch.float32, device=device)
        self._batch = torch.zeros(1, dtype=torch.int64, device=device)

    def clear(self) -> None:
        self._batch.zero_()

    @torch.no_grad()
    def add(self, terms: Tensor) -> None:
        self._values.index_copy_(0, self._batch, terms.unsqueeze(0))
        self._batch += 1

    def means(self, batch_sizes: list[int], where: str) -> ObjectiveTerms:
        """Means over all rows, as floats; DivergenceError if a term was ever not finite."""
        values = self._group.add(self._values[: len(batch_sizes)]).cpu().double().numpy()
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
        return ObjectiveTerms(*np.average(values, axis=0, weights=batch_sizes).tolist())
