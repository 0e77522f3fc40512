"""One pass over the rows: the training step, the optimizer and the log of the terms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._distributed.group import ALONE, Group
from .._distributed.slices import slices
from .._model.minibatch import Minibatch
from .._model.network import MixtureVAE
from .._model.objective import Forward, Objective, ObjectiveTerms, Partners
from .._rows.neighbours import NeighbourGraph
from .._rows.parts import Parts
from .._rows.scaled import ScaledRows, fill_missing
from .._runtime import make_generator, matrix_products, no_gradients
from .._state import MOMENTS, TrainingState, to_arrays, to_tensors
from .batches import batches_of, indices_on
from .graphs import GraphedStep, Inputs
from .schedules import Schedule

# The noise variance is one scalar that has to follow the reconstruction error down by orders of
# magnitude; at the pace of the other parameters it lags behind for most of a short fit.
_VARIANCE_LEARNING_RATE_FACTOR = 10.0

# Components are held to the parts that they start from for this fraction of the steps: until codes
# tell components apart. Let go earlier, some lose their parts again.
_FRACTION_HELD = 0.7

# A first moment of 1e-15 takes 300 steps without a gradient to become denormal with a beta of 0.85,
# a second moment of 1e-30 takes 900 with 0.98.
_STEPS_BETWEEN_CLEARING = 256

_SEE_OWN_ROWS_ALONE = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


class DivergenceError(ValueError):
    """Training produced a NaN or an infinity.

    A ``ValueError``, so that ``GridSearchCV`` counts the candidate as failed and goes on.
    """


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the names are those of the estimator's parameters."""

    objective: Objective
    precision: str
    max_iter: int
    batch_size: int
    learning_rate: float
    schedule: Schedule


class Trainer:
    """Trains a network on rows, epoch by epoch.

    In a ``group`` each rank has rows of its own and, after every step, the same parameters.
    """

    def __init__(
        self,
        network: MixtureVAE,
        rows: ScaledRows,
        settings: TrainingSettings,
        *,
        n_training: int,
        seed: int,
        neighbours: NeighbourGraph | None = None,
        parts: Parts | None = None,
        group: Group = ALONE,
    ) -> None:
        self.network = network
        self._settings = settings
        self._seed = seed
        self._group = group
        _share_statistics(network, group)
        self._generator = make_generator(seed, rows.device)
        self._shuffler = np.random.default_rng(seed)
        # Factors of the terms on the device: the loss is one product there, in place of five sums.
        self._factors = torch.tensor(
            settings.objective.factors(), dtype=torch.float32, device=rows.device
        )
        self._fill = rows.fill
        self._optimizer = _make_optimizer(network, settings, rows.device)
        n_rows, n_training = np.sum(group.all_gather((len(rows), n_training)), axis=0).tolist()
        self._n_steps = settings.max_iter * math.ceil(n_training / settings.batch_size)
        self._n_held_steps = _FRACTION_HELD * self._n_steps
        self._step_number = 0
        self._learning_rates: list[float] = []  # of the steps of the epoch
        self._neighbours = neighbours
        self._labels = None if parts is None else parts.labels
        self._shares = None if parts is None else self._on_device(parts.shares)
        largest = min(settings.batch_size, len(rows)) * (1 if neighbours is None else 2)
        self._batches = batches_of(rows, largest)
        self._log = _TermsLog(math.ceil(n_rows / settings.batch_size), rows.device, group)
        self._graphed = (
            GraphedStep(self._optimizer.zero_grad, self._generator)
            # A graph cannot hold what ranks say to each other, be there one of them.
            if rows.device.type == "cuda" and group is ALONE
            else None
        )

    def run_epoch(self, training: np.ndarray, where: str) -> ObjectiveTerms:
        """Train on these rows in a new order; return the terms of the loss, means over them."""
        order = self._group.own_shuffler(self._shuffler).permutation(training)
        self._own_generator = self._group.own_generator(self._generator)
        self.network.train()
        self._log.clear()
        self._learning_rates.clear()
        sizes = []
        partners = None
        if self._neighbours is not None:
            # Draws that follow from the step's number need not be kept in a checkpoint.
            rng = np.random.default_rng([self._seed, self._group.rank, self._step_number])
            partners = self._neighbours.draw(order, rng)
        labels = None if self._labels is None else self._labels[order]
        for inputs, minibatch in self._minibatches(order, partners, labels):
            self._run_step(inputs, minibatch)
            sizes.append(minibatch.n_rows)
            if len(sizes) % _STEPS_BETWEEN_CLEARING == 0:
                _clear_vanished_moments(self._optimizer)
        _clear_vanished_moments(self._optimizer)
        return self._log.means(sizes, where)

    @no_gradients()
    def evaluate(self, held_out: np.ndarray, where: str) -> ObjectiveTerms:
        """Return the terms on held-out rows, with the same draws every time and no dropout."""
        self.network.eval()
        self._log.clear()
        generator = make_generator(self._seed, self._generator.device)
        generator = self._group.own_generator(generator)
        sizes = []
        for inputs, minibatch in self._minibatches(held_out):
            self._log.add(self._terms(inputs, minibatch, generator))
            sizes.append(minibatch.n_rows)
        return self._log.means(sizes, where)

    def _minibatches(
        self,
        order: np.ndarray,
        partners: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> Iterator[tuple[Inputs, Minibatch]]:
        """This process's rows "x" of each minibatch, and which those are.

        With ``partners``, the rows that they are paired with follow them in "x", and "ids" has the
        numbers of both. With ``labels``, "held" has those of the rows, as long as it lasts.
        """
        device = self._factors.device
        minibatches = slices(self._group, len(order), self._settings.batch_size)
        ends = np.cumsum([minibatch.size for minibatch in minibatches])[:-1]
        rows = np.split(order, ends)
        others: dict[str, Sequence[Tensor]] = {}
        if partners is not None:
            pairs = zip(rows, np.split(partners, ends), strict=True)
            rows = [np.concatenate(pair) for pair in pairs]
            # Rows of different ranks have different numbers.
            others["ids"] = indices_on(device, [r + self._group.rank * 2**40 for r in rows])
        if labels is not None:
            others["held"] = indices_on(device, np.split(labels, ends))
        for i, (x, minibatch) in enumerate(zip(self._batches.over(rows), minibatches, strict=True)):
            if self._step_number >= self._n_held_steps:
                others.pop("held", None)
            yield {"x": x, **{name: steps[i] for name, steps in others.items()}}, minibatch

    def _run_step(self, inputs: Inputs, minibatch: Minibatch) -> None:
        self._set_learning_rate()
        if self._graphed is None:
            self._step(inputs, minibatch)
        else:
            self._graphed(self._step, inputs, minibatch)

    def _step(self, inputs: Inputs, minibatch: Minibatch) -> None:
        """Take one gradient step. Nothing here reads a value: a GPU would have to wait."""
        terms = self._terms(inputs, minibatch, self._own_generator, self._own_generator)
        loss = terms @ self._factors  # equation 14
        self._optimizer.zero_grad()
        loss.backward()
        self._group.all_reduce_gradients(self.network.parameters())
        self._optimizer.step()
        self._log.add(terms)

    def _terms(
        self,
        inputs: Inputs,
        minibatch: Minibatch,
        generator: torch.Generator,
        dropout_generator: torch.Generator | None = None,
    ) -> Tensor:
        """The terms of the objective, (5,). Only the networks' products have the precision."""
        x, missing, partners = inputs["x"], None, None
        if self._fill is not None:
            x, missing = fill_missing(x, self._fill)
        with matrix_products(self._settings.precision, x.device):
            # Rows and partners in one pass: their products are faster than those of two.
            posterior = self.network.encode(x, dropout_generator)
            if "ids" in inputs:
                x = x[: minibatch.size]
                missing = None if missing is None else missing[: minibatch.size]
                posterior, of_partners = posterior.split(minibatch.size)
                partners = Partners(of_partners.mean, inputs["ids"].view(2, -1))
            z = posterior.draw(generator)
            output = self.network.decode(z, dropout_generator)
        likelihood = self.network.likelihood
        forward = Forward(
            likelihood,
            x,
            posterior,
            z,
            output,
            minibatch,
            generator,
            partners,
            self._shares,
            inputs.get("held"),
            missing,
        )
        return self._settings.objective.terms(forward)

    @property
    def learning_rate(self) -> float:
        """The mean over the steps of the last epoch."""
        return math.fsum(self._learning_rates) / len(self._learning_rates)

    def state(self) -> TrainingState:
        """Return what the next epoch follows from; on a CPU in the trainer's own memory."""
        state = TrainingState(
            {"generator": self._generator.get_state().numpy()},
            {"steps": self._step_number, "shuffler": self._shuffler.bit_generator.state},
        )
        if self._shares is not None:
            state = state.with_values(shares=self._shares.tolist())
        state = state.with_part("weights", to_arrays(self.network.state_dict()))
        for kind in MOMENTS:
            moments = {
                name: self._optimizer.state[parameter][kind]
                for name, parameter in self.network.named_parameters()
            }
            state = state.with_part(kind, to_arrays(moments))
        return state

    def restore(self, state: TrainingState) -> None:
        """Go on from a state; with fresh moments and generators if it has parameters alone."""
        self.network.load_state_dict(to_tensors(state.part("weights")))
        if "steps" not in state.values:
            return
        self._step_number = state.values["steps"]
        if "shares" in state.values:
            self._shares = self._on_device(state.values["shares"])
        self._shuffler.bit_generator.state = state.values["shuffler"]
        generator = torch.from_numpy(state.arrays["generator"].copy())
        # Generators of CPU and GPU differ: on the other kind of device the draws begin anew.
        if generator.shape == self._generator.get_state().shape:
            self._generator.set_state(generator)
        parts = {kind: to_tensors(state.part(kind)) for kind in MOMENTS}
        for name, parameter in self.network.named_parameters():
            device = parameter.device
            self._optimizer.state[parameter] = {
                "step": torch.tensor(self._step_number, dtype=torch.float32, device=device),
                # Copies: the optimizer changes moments in place, and the caller keeps ``state``.
                **{kind: part[name].to(device, copy=True) for kind, part in parts.items()},
            }

    def _on_device(self, shares: Sequence[float] | np.ndarray) -> Tensor:
        return torch.tensor(shares, dtype=torch.float32, device=self._factors.device)

    def _set_learning_rate(self) -> None:
        """Set it for the middle of the next step: more than zero even for a lone one."""
        factor = self._settings.schedule.factor((self._step_number + 0.5) / self._n_steps)
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(factor * group["peak"])  # where a captured graph reads it
            else:
                group["lr"] = factor * group["peak"]
        self._learning_rates.append(factor * self._settings.learning_rate)
        self._step_number += 1


def _share_statistics(network: MixtureVAE, group: Group) -> None:
    """Let the layers that normalise over a minibatch sum over all of its slices."""
    if group.world_size == 1:
        return
    for name, module in network.named_modules():
        if hasattr(module, "all_reduce"):
            module.all_reduce = group.all_reduce
        elif isinstance(module, _SEE_OWN_ROWS_ALONE):
            raise ValueError(
                f"{name} of the architecture is a {type(module).__name__}, which would normalise "
                "each rank's rows by themselves. Give it an attribute all_reduce, which the fit "
                "sets, and sum over the minibatch with it, as ComponentBatchNorm does."
            )


def _make_optimizer(
    network: MixtureVAE, settings: TrainingSettings, device: torch.device
) -> torch.optim.Optimizer:
    stacks = [*network.encoder.parameters(), *network.decoder.parameters()]
    groups: list[dict[str, Any]] = [{"params": stacks, "peak": settings.learning_rate}]
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
    return torch.optim.Adam(groups, betas=settings.schedule.betas, fused=True, capturable=on_gpu)


def _clear_vanished_moments(optimizer: torch.optim.Optimizer) -> None:
    """Zero the moments that have decayed to nothing.

    Parameters of a pixel that is black in a few hundred rows running, or of a unit that is never
    active, get no gradient. Their moments decay into denormal numbers, with which CPUs compute very
    slowly. A first moment below 1e-15 moves a parameter by less than 1e-7 of the learning rate, and
    the root of a second moment below 1e-30 is as little beside Adam's epsilon of 1e-8.
    """
    for state in optimizer.state.values():
        for name, least in zip(MOMENTS, (1e-15, 1e-30), strict=True):
            torch.hardshrink(state[name], lambd=least, out=state[name])


class _TermsLog:
    """The terms of every minibatch of an epoch on the device, read once at its end."""

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
        """Return means over all rows; DivergenceError if a term was ever not finite."""
        values = self._group.all_reduce(self._values[: len(batch_sizes)]).cpu().double().numpy()
        failed = ~np.isfinite(values)
        if failed.any():
            # Once the parameters are NaN every term is: the first one to fail is the one to name.
            batch = int(failed.any(axis=1).argmax())
            terms = ", ".join(np.array(ObjectiveTerms._fields)[failed[batch]])
            raise DivergenceError(
                f"Training diverged: {terms} became non-finite in {where}, batch {batch + 1}. "
                "Lower learning_rate, or beta or neighbor_weight if it is large, or look for "
                "outliers in X (sklearn.preprocessing.StandardScaler or RobustScaler)."
            )
        return ObjectiveTerms(*np.average(values, axis=0, weights=batch_sizes).tolist())
