"""Schedules: how the learning rate runs over a fit, and how long Adam remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

_RISE, _FALL = 0.05, 0.3  # parts of all steps


class Schedule(NamedTuple):
    """The factor of the highest learning rate at a progress in (0, 1), and Adam's betas."""

    factor: Callable[[float], float]
    betas: tuple[float, float]


def trapezoid(progress: float) -> float:
    """Rise to one in the first twentieth, and fall to zero in the last three tenths."""
    return min(1.0, progress / _RISE, (1.0 - progress) / _FALL)


def constant(progress: float) -> float:
    """Return one from the first step to the last."""
    return 1.0


def third(progress: float) -> float:
    """Return a third throughout."""
    return 1.0 / 3.0


SCHEDULES = {
    # With the usual 0.999 the second moments average a thousand steps, which is all of a short fit.
    "trapezoid": Schedule(trapezoid, betas=(0.85, 0.98)),
    "constant": Schedule(constant, betas=(0.9, 0.999)),
}

# Schedules of training that has no known end, by the name of what they stand for.
ENDLESS = {
    "trapezoid": Schedule(third, betas=(0.9, 0.999)),
    "constant": SCHEDULES["constant"],
}
