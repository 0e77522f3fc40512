"""How the learning rate runs over a fit, and how long Adam remembers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

_WARM_UP = 0.1  # of the steps


def one_cycle(progress: float) -> float:
    """Up linearly in the first tenth, down to nothing along a cosine (Smith and Topin 2019)."""
    if progress < _WARM_UP:
        return progress / _WARM_UP
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (progress - _WARM_UP) / (1.0 - _WARM_UP))))


def constant(progress: float) -> float:
    """As it is from the first step to the last."""
    return 1.0


class Schedule(NamedTuple):
    """The share of the highest learning rate at a progress in (0, 1), and Adam's betas."""

    share: Callable[[float], float]
    betas: tuple[float, float]


SCHEDULES = {
    # With the usual 0.999 the second moments average a thousand steps, which is all of a short fit.
    "one-cycle": Schedule(one_cycle, betas=(0.85, 0.98)),
    "constant": Schedule(constant, betas=(0.9, 0.999)),
}
