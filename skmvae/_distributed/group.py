"""The processes that fit one estimator together: this one alone, or the ranks of a group."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from .._runtime import make_generator

Value = TypeVar("Value")


class Group:
    """This process alone, and the operations of several, which ``Ranks`` overrides.

    All ranks call the same methods in the same order.
    """

    rank, world_size = 0, 1

    def agree(self, check: Callable[[], Value]) -> Value:
        """Return the result of ``check`` here; RuntimeError if it fails on another rank."""
        return check()

    def all_gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, in their order."""
        return [value]

    def broadcast(self, value: Value) -> Value:
        """Return the value of rank 0."""
        return value

    def mean(self, value: Value, n_rows: int | np.ndarray) -> Value:
        """Return the mean over the rows of all ranks; ``value`` is the mean over this one's.

        Where columns have different numbers of rows, ``n_rows`` has them.
        """
        return value

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum over the ranks; its gradient is the sum of their gradients."""
        return tensor

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the ranks."""

    def own_shuffler(self, shuffler: np.random.Generator) -> np.random.Generator:
        """Return a generator of this rank, which follows from the one that all have in common."""
        return shuffler

    def own_generator(self, generator: torch.Generator) -> torch.Generator:
        """Return a generator of this rank, as ``own_shuffler`` does."""
        return generator


ALONE = Group()


class Ranks(Group):
    """The processes of torch.distributed's default group, with a group of their own for a fit.

    A rank that fails or is interrupted closes its connections, which ends what the others wait for.
    """

    def __init__(self, timeout: float) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._timeout = timeout
        self._group: dist.ProcessGroup | None = dist.new_group(timeout=timedelta(seconds=timeout))
        self._gradients: Tensor | None = None  # of all parameters, one after the other

    def agree(self, check: Callable[[], Value]) -> Value:
        try:
            value, error = check(), None
        except Exception as raised:  # of whatever type: all ranks have to hear of it
            error = raised
        reports = self.all_gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, report in enumerate(reports):
            if report is not None:
                raise RuntimeError(f"rank {rank} failed with {report}")
        return value

    def all_gather(self, value: Value) -> list[Value]:
        values: list[Any] = [None] * self.world_size
        self._together(lambda group: dist.all_gather_object(values, value, group=group))
        return values

    def broadcast(self, value: Value) -> Value:
        values = [value]
        self._together(lambda group: dist.broadcast_object_list(values, src=0, group=group))
        return values[0]

    def mean(self, value, n_rows: int | np.ndarray):
        values, sizes = zip(*self.all_gather((value, n_rows)), strict=True)
        return sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return _Sum.apply(tensor, self)

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        found = [(p, p.grad.flatten()) for p in parameters if p.grad is not None]
        gradients = [gradient for _, gradient in found]
        # Memory that is there already: new pages take longer than what is written to them.
        self._gradients = torch.cat(gradients, out=self._gradients)
        parts = self.sum(self._gradients).split([len(gradient) for gradient in gradients])
        for (parameter, _), part in zip(found, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks in the place of ``tensor``, without gradients."""
        self._together(lambda group: dist.all_reduce(tensor, group=group))
        return tensor

    def own_shuffler(self, shuffler: np.random.Generator) -> np.random.Generator:
        return np.random.default_rng([int(shuffler.integers(2**63)), self.rank])

    def own_generator(self, generator: torch.Generator) -> torch.Generator:
        seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
        own = np.random.SeedSequence([int(seed), self.rank]).generate_state(1)
        return make_generator(int(own[0]), generator.device)

    def close(self) -> None:
        """Close the connections, in which frames that failed may still have a part."""
        if error := sys.exception():
            traceback.clear_frames(error.__traceback__)
        group, self._group = self._group, None
        dist.destroy_process_group(group)

    def _together(self, operation: Callable[[dist.ProcessGroup | None], Any]) -> None:
        try:
            operation(self._group)
        except RuntimeError as error:
            raise RuntimeError(
                "Another rank has failed, was interrupted or died, or has said nothing for "
                f"timeout={self._timeout:g} s; its own output may say why. With checkpoint_dir, a "
                "fit that is started again goes on from its last checkpoint."
            ) from error


class _Sum(torch.autograd.Function):
    """``Group.all_reduce``."""

    @staticmethod
    def forward(ctx, tensor: Tensor, group: Ranks) -> Tensor:
        ctx.group = group
        return group.sum(tensor.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.sum(gradient.clone(memory_format=torch.contiguous_format)), None


@contextmanager
def ranks(timeout: float) -> Iterator[Ranks]:
    """Yield the group of all ranks, and close it in the end."""
    group = Ranks(timeout)
    try:
        yield group
    finally:
        group.close()
