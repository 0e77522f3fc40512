"""How the learning rate runs over a fit, and how long Adam remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

_RISE, _FALL = 0.05, 0.3  # of the steps


def trapezoid(progress: float) -> float:
    """Up to one in the first twentieth, and from there down to zero in the last three tenths."""
    return min(1.0, progress / _RISE, (1.0 - progress) / _FALL)


def constant(progress: float) -> float:
    """As it is from the first step to the last."""
    return 1.0


def third(progress: float) -> float:
    """What stands for the trapezoid where there is no end to fall towards."""
    return 1.0 / 3.0


class Schedule(NamedTuple):
    """The share of the highest learning rate at a progress in (0, 1), and Adam's betas."""

    share: Callable[[float], float]
    betas: tuple[float, float]


SCHEDULES = {
    # With the usual 0.999 the second moments average a thousand steps, which is all of a short fit.
    "trapezoid": Schedule(trapezoid, betas=(0.85, 0.98)),
    "constant": Schedule(constant, betas=(0.9, 0.999)),
    "third": Schedule(third, betas=(0.9, 0.999)),
}

# What takes the place of a schedule in training that has no known end.
ENDLESS = {"trapezoid": "third", "constant": "constant"}
