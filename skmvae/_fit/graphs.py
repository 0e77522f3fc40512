"""CUDA graphs: a training step recorded once and replayed as a single launch."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .._process import warn

Inputs: TypeAlias = dict[str, Tensor]  # by name
Step: TypeAlias = Callable[[Inputs, Any], None]

# PyTorch allows a process no more than one.
_ONE_CAPTURE_AT_A_TIME = Lock()

# PyTorch asks for a few calls before a capture: libraries choose their kernels and take their
# workspaces, and the optimizer makes its state.
_WARM_UP_CALLS = 3

# Since then a graph finds the generators that it draws from, and to register one is deprecated.
_GENERATORS_ARE_REGISTERED = torch.__version__ < "2.14"


class GraphedStep:
    """A step as one CUDA graph for each kind of minibatch: of another size, or with other inputs.

    Everything that changes between calls has to live on the device: the state of ``generator``, the
    log of the terms, and the rows, which are copied to where the graph reads them. ``prepare`` is
    called before a capture; it drops the gradients, so that each graph makes its own. If a capture
    fails, steps are run one by one from there on.
    """

    def __init__(self, prepare: Callable[[], None], generator: torch.Generator) -> None:
        self._prepare = prepare
        self._generator = generator
        self._stream = torch.cuda.Stream(generator.device)
        self._calls: Counter[Hashable] = Counter()
        self._inputs: dict[Hashable, Inputs] = {}
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._captures = True

    def __call__(self, step: Step, inputs: Inputs, minibatch: Hashable) -> None:
        """Run ``step(inputs, minibatch)``, which has to be the same step every time.

        The step is not kept: its owner keeps this object, and a cycle of the two would hold all
        that the step has on the device until Python's garbage collector happens to run.
        """
        kind = (minibatch, *inputs)
        if kind not in self._inputs:
            self._inputs[kind] = {name: torch.empty_like(x) for name, x in inputs.items()}
        own = self._inputs[kind]
        for name, tensor in inputs.items():
            own[name].copy_(tensor)
        is_warm = self._calls[kind] == _WARM_UP_CALLS
        if self._captures and kind not in self._graphs and is_warm:
            self._try_to_capture(lambda: step(own, minibatch), kind)
        if kind in self._graphs:
            self._graphs[kind].replay()
        else:
            self._calls[kind] += 1
            self._run_aside(lambda: step(own, minibatch))

    def _run_aside(self, step: Callable[[], None]) -> None:
        """Run on the stream that captures, after what is queued and before what will be."""
        current = torch.cuda.current_stream(self._generator.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            step()
        current.wait_stream(self._stream)

    def _try_to_capture(self, step: Callable[[], None], kind: Hashable) -> None:
        try:
            self._graphs[kind] = self._capture(step)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # These frames hold what the step made on the device, and their own failure.
            traceback.clear_frames(error.__traceback__)
            self._captures = False
            self._graphs.clear()
            # Older versions of torch leave the generator in the capture, refusing to draw outside.
            self._generator.graphsafe_set_state(self._generator.clone_state())
            reason = str(error).partition("\n")[0]
            warn(
                "The training step could not be captured as a CUDA graph, so fit goes on without "
                f"one, more slowly: {reason}"
            )

    def _capture(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Record the step; nothing is computed until the replay."""
        self._prepare()
        # A graph makes what it needs for the generator on the current device.
        with _ONE_CAPTURE_AT_A_TIME, torch.cuda.device(self._generator.device):
            graph = torch.cuda.CUDAGraph()
            if _GENERATORS_ARE_REGISTERED:
                graph.register_generator_state(self._generator)
            self._record(graph, step)
        return graph

    def _record(self, graph, step: Callable[[], None]) -> None:
        failure: BaseException | None = None
        try:
            with (
                # torch.cuda.graph leaves its stream current if the capture that it ends is broken.
                torch.cuda.stream(self._stream),
                # "thread_local": another thread may be computing on the GPU meanwhile.
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                try:
                    step()
                except BaseException as error:
                    failure = error
        finally:
            # An error of the step, also Ctrl-C, causes the one that ending the capture raises.
            if failure is not None:
                raise failure
