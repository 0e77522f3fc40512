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

# Of a report, whatever it says: who receives it must know its length.
_REPORT_BYTES = 2048


class Group:
    """This process alone, and what several do together: ``Ranks`` overrides it all.

    Each method is called by all ranks, in the same order.
    """

    rank, size = 0, 1

    def gather(self, value: Value) -> list[Value]:
        """What each rank gives, in the order of the ranks."""
        return [value]

    def first(self, value: Value) -> Value:
        """What rank 0 gives."""
        return value

    def mean(self, value: Value, n_rows: int) -> Value:
        """The mean over the rows of all ranks, where ``value`` is that over this one's."""
        return value

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of what all ranks give; its gradient is the sum of all ranks' gradients."""
        return tensor

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the ranks."""

    def own_shuffler(self, shuffler: np.random.Generator) -> np.random.Generator:
        """For draws of this rank alone, which follow from those that all have in common."""
        return shuffler

    def own_generator(self, generator: torch.Generator) -> torch.Generator:
        """The same of torch."""
        return generator

    def settle(self, progress: Value, n_epochs: int) -> Value | None:
        """After Ctrl-C on any rank: the progress of the one with the most epochs.

        None if a rank has not begun to train.
        """
        return progress

    def finish(self, interruption: KeyboardInterrupt | None) -> KeyboardInterrupt | None:
        """The Ctrl-C of any rank; RuntimeError if a rank has failed."""
        return interruption


ALONE = Group()


class Ranks(Group):
    """The processes of torch.distributed's default group.

    They have two groups of their own: one to work in, and one on which they report how it went. A
    rank that fails or is interrupted closes the first, which ends whatever the others wait for
    there, and they close theirs. Then each reports to each; one that does not has died.
    """

    def __init__(self, timeout: float) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        limit = timedelta(seconds=timeout)
        self._working_group = dist.new_group(timeout=limit)
        self._reporting_group = dist.new_group(backend="gloo", timeout=limit)
        self._timeout = timeout
        self._others = [rank for rank in range(self.size) if rank != self.rank]
        self._verdict: RuntimeError | KeyboardInterrupt | None = None
        self._is_settled = False
        self._gradients: Tensor | None = None  # of all parameters, one after the other

    def gather(self, value: Value) -> list[Value]:
        values: list[Any] = [None] * self.size
        self._together(lambda group: dist.all_gather_object(values, value, group=group))
        return values

    def first(self, value: Value) -> Value:
        values = [value]
        self._together(lambda group: dist.broadcast_object_list(values, src=0, group=group))
        return values[0]

    def mean(self, value, n_rows: int):
        values, sizes = zip(*self.gather((value, n_rows)), strict=True)
        return sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)

    def add(self, tensor: Tensor) -> Tensor:
        return _Sum.apply(tensor, self)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        found = [(p, p.grad.flatten()) for p in parameters if p.grad is not None]
        gradients = [gradient for _, gradient in found]
        # In memory that is there already: new pages take longer than what is written to them.
        self._gradients = torch.cat(gradients, out=self._gradients)
        parts = self.sum(self._gradients).split([len(gradient) for gradient in gradients])
        for (parameter, _), part in zip(found, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in the place of ``tensor``, without gradients."""
        self._together(lambda group: dist.all_reduce(tensor, group=group))
        return tensor

    def own_shuffler(self, shuffler: np.random.Generator) -> np.random.Generator:
        return np.random.default_rng([int(shuffler.integers(2**63)), self.rank])

    def own_generator(self, generator: torch.Generator) -> torch.Generator:
        seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
        own = np.random.SeedSequence([int(seed), self.rank]).generate_state(1)
        return make_generator(int(own[0]), generator.device)

    def settle(self, progress: Value, n_epochs: int) -> Value | None:
        if self._working_group is not None:
            self._verdict = self._exchange("interrupted")
        if isinstance(self._verdict, RuntimeError):
            raise self._verdict
        lengths = self._lengths(n_epochs)
        if None in lengths:
            return None
        values = [progress]
        furthest = int(np.argmax(lengths))
        dist.broadcast_object_list(values, src=furthest, group=self._reporting_group)
        return values[0]

    def finish(self, interruption: KeyboardInterrupt | None) -> KeyboardInterrupt | None:
        if self._working_group is not None:
            self._verdict = self._exchange("ended" if interruption is None else "interrupted")
            if isinstance(self._verdict, KeyboardInterrupt) and None in self._lengths(-1):
                raise self._verdict  # before a rank had its model
        if isinstance(self._verdict, RuntimeError):
            raise self._verdict
        return interruption or self._verdict

    def fail(self, error: BaseException) -> None:
        """Tell the others of an error here, if they do not know of it."""
        interrupted = isinstance(error, KeyboardInterrupt)
        if self._working_group is not None:
            text = f"failed with {type(error).__name__}: {error}"
            self._verdict = self._exchange("interrupted" if interrupted else text)
        if isinstance(self._verdict, KeyboardInterrupt) and not self._is_settled:
            self._lengths(None)

    def close(self) -> None:
        self._stop_work()
        dist.destroy_process_group(self._reporting_group)

    def _together(self, operation: Callable[[dist.ProcessGroup], Any]) -> None:
        """In the group for work, until Ctrl-C has closed it. An error there is not this rank's own.

        No frame that goes on keeps the group: it is closed when nobody holds it.
        """
        if self._working_group is None:
            operation(self._reporting_group)
            return
        try:
            operation(self._working_group)
        except RuntimeError as error:
            self._verdict = self._exchange("lost the others")
            raise (self._verdict or error) from error

    def _stop_work(self) -> None:
        if self._working_group is not None:
            group, self._working_group = self._working_group, None
            dist.destroy_process_group(group)
        # It is open as long as the frames hold it in which Ctrl-C, or another rank, cut its work.
        error = sys.exception()
        if isinstance(error, KeyboardInterrupt | RuntimeError):
            traceback.clear_frames(error.__traceback__)

    def _exchange(self, report: str) -> RuntimeError | KeyboardInterrupt | None:
        """Report to all, each to each; what follows from all reports."""
        self._stop_work()
        sent = torch.zeros(_REPORT_BYTES, dtype=torch.uint8, device="cpu")
        text = report.encode()[:_REPORT_BYTES]
        sent[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        received = {rank: torch.zeros_like(sent) for rank in self._others}
        pending = {rank: self._post(sent, received[rank], rank) for rank in self._others}
        reports = {self.rank: report}
        for rank in self._others:
            if pending[rank] and all(work and _has_come(work) for work in pending[rank]):
                text = received[rank].numpy().tobytes().rstrip(b"\0")
                reports[rank] = text.decode(errors="ignore")
        return self._follows_from(reports)

    def _post(self, sent: Tensor, received: Tensor, rank: int) -> list[dist.Work | None]:
        """None of what is sent or received if the other has died."""
        group = self._reporting_group
        try:
            return [dist.irecv(received, rank, group), dist.isend(sent, rank, group)]
        except RuntimeError:
            return []

    def _follows_from(self, reports: dict[int, str]) -> RuntimeError | KeyboardInterrupt | None:
        dead = [rank for rank in self._others if rank not in reports]
        failed = {rank: text for rank, text in reports.items() if text.startswith("failed")}
        if failed:
            rank = min(failed)
            return RuntimeError(f"rank {rank} {failed[rank]}")
        if dead:
            return RuntimeError(
                f"rank {', '.join(map(str, dead))} has died, or has said nothing for "
                f"timeout={self._timeout:g} s. Its own output may say why. With checkpoint_dir, a "
                "fit that is started again goes on from its last checkpoint."
            )
        if interrupted := [rank for rank, text in reports.items() if text == "interrupted"]:
            return KeyboardInterrupt(f"rank {min(interrupted)} was interrupted")
        return None

    def _lengths(self, n_epochs: int | None) -> list[Any]:
        """Each rank's number of epochs after Ctrl-C: -1 if all are done, None outside training."""
        self._is_settled = True
        lengths: list[Any] = [None] * self.size
        dist.all_gather_object(lengths, n_epochs, group=self._reporting_group)
        return lengths


def _has_come(work: dist.Work) -> bool:
    try:
        work.wait()
    except RuntimeError:
        return False
    return True


class _Sum(torch.autograd.Function):
    """``Group.add``."""

    @staticmethod
    def forward(ctx, tensor: Tensor, group: Ranks) -> Tensor:
        ctx.group = group
        return group.sum(tensor.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.sum(gradient.clone(memory_format=torch.contiguous_format)), None


@contextmanager
def ranks(timeout: float) -> Iterator[Ranks]:
    """The group of all ranks; an error of one is known to all before it is raised."""
    group = Ranks(timeout)
    try:
        yield group
    except BaseException as error:
        group.fail(error)
        raise
    finally:
        group.close()
