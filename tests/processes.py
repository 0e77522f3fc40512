"""Real processes in a real group: a function run on every rank, and what became of each."""

import multiprocessing
import os
from typing import Any, NamedTuple

import numpy as np

from skmvae._distributed.group import Group
from skmvae._distributed.slices import slices

CONTEXT = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
# Imported once, where every rank is forked from: each would spend seconds on it. The third one is
# what torch's optimizers import when the first of them is made.
CONTEXT.set_forkserver_preload(
    ["pytest", "pandas", "torch._dynamo", "sklearn.pipeline", "skmvae.distributed"]
)

# Seconds after which something has gone wrong, however busy the machine is.
DEADLINE = 120


class Outcome(NamedTuple):
    """What a rank's function returned, or what it raised; neither if the process died."""

    value: Any = None
    error: BaseException | None = None


class Rank(NamedTuple):
    process: Any
    pipe: Any

    def says(self):
        """The next thing that it has sent, in a job that does."""
        assert self.pipe.poll(DEADLINE), "a rank says nothing"
        return self.pipe.recv()

    def outcome(self):
        try:
            while not isinstance(said := self.says(), Outcome):
                pass
        except EOFError:
            said = Outcome()
        self.process.join(DEADLINE)
        assert not self.process.is_alive(), "a rank does not end"
        return said


def start(function, size, folder, *args):
    """Run ``function(say, rank, *args)`` on ``size`` ranks; ``say`` sends here what it gets."""
    ranks = []
    for rank in range(size):
        here, there = CONTEXT.Pipe()
        job = (function, rank, size, str(folder / "meeting"), there, args)
        process = CONTEXT.Process(target=_serve, args=job, daemon=True)
        process.start()
        there.close()
        ranks.append(Rank(process, here))
    return ranks


def run(function, size, folder, *args):
    """The outcome on each rank."""
    return [rank.outcome() for rank in start(function, size, folder, *args)]


def values(function, size, folder, *args):
    """What each rank returns; none may fail."""
    outcomes = run(function, size, folder, *args)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in outcomes]


def _serve(function, rank, size, meeting, pipe, args):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=size)
    try:
        outcome = Outcome(value=function(pipe.send, rank, *args))
    except BaseException as error:
        outcome = Outcome(error=error)
    pipe.send(outcome)
    dist.destroy_process_group()


class Of(Group):
    """One process, which knows how many rows the others have."""

    def __init__(self, rank, sizes):
        self.rank, self.world_size, self._sizes = rank, len(sizes), sizes

    def all_gather(self, value):
        assert value == self._sizes[self.rank]
        return self._sizes


def minibatches(sizes, batch_size):
    """How many rows each rank gives to each: (ranks, batches)."""
    return np.array(
        [
            [part.size for part in slices(Of(rank, sizes), size, batch_size)]
            for rank, size in enumerate(sizes)
        ]
    )
