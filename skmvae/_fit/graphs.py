"""CUDA graphs: a training step recorded once and replayed as a single launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock

import torch

# PyTorch allows a process no more than one.
_ONE_CAPTURE_AT_A_TIME = Lock()

# PyTorch asks for a few calls before a capture: libraries choose their kernels and take their
# workspaces, and the optimizer makes its state.
_WARM_UP_CALLS = 3


class GraphedStep:
    """``step(size)`` as one CUDA graph for each size of batch, the smaller last one included.

    Everything that changes between calls has to live on the device: the rows, the place in them,
    the state of ``generator``, the log of the terms. ``prepare`` is called before a capture; it
    drops the gradients, so that each graph makes its own.
    """

    def __init__(
        self,
        step: Callable[[int], None],
        prepare: Callable[[], None],
        generator: torch.Generator,
    ) -> None:
        self._step = step
        self._prepare = prepare
        self._generator = generator
        self._stream = torch.cuda.Stream(generator.device)
        self._calls: Counter[int] = Counter()
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, size: int) -> None:
        if size in self._graphs:
            self._graphs[size].replay()
        elif self._calls[size] < _WARM_UP_CALLS:
            self._calls[size] += 1
            self._run_aside(size)
        else:
            self._graphs[size] = self._capture(size)
            self._graphs[size].replay()

    def _run_aside(self, size: int) -> None:
        """On the stream that captures, after what is queued and before what will be."""
        current = torch.cuda.current_stream(self._generator.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._step(size)
        current.wait_stream(self._stream)

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        """Records the step; nothing is computed until the replay."""
        self._prepare()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        # "thread_local": another thread may be computing on the GPU meanwhile.
        with (
            _ONE_CAPTURE_AT_A_TIME,
            torch.cuda.device(self._generator.device),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            self._step(size)
        return graph
