"""The learning rate over a fit, against values by hand."""

import numpy as np
import pytest

from skmvae._fit.schedules import ENDLESS, SCHEDULES, constant, third, trapezoid


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0.0, 0.0), (0.025, 0.5), (0.05, 1.0), (0.4, 1.0), (0.7, 1.0), (0.85, 0.5), (1.0, 0.0)],
)
def test_trapezoid_by_hand(progress, factor):
    assert trapezoid(progress) == pytest.approx(factor, abs=1e-12)


def test_trapezoid_rises_once_and_falls_once():
    factors = [trapezoid(progress) for progress in np.linspace(0, 1, 1001)]
    assert (np.diff(factors[:51]) > 0).all()
    assert set(factors[50:700]) == {1.0}
    assert (np.diff(factors[700:]) < 0).all()
    assert np.abs(np.diff(factors)).max() < 0.021  # no jump


def test_those_without_an_end_stay_as_they_are():
    assert {constant(progress) for progress in (0.01, 0.5, 0.99)} == {1.0}
    assert {third(progress) for progress in (0.01, 0.5, 0.99)} == {1 / 3}


def test_every_schedule_has_one_without_an_end():
    assert SCHEDULES.keys() == ENDLESS.keys()


def test_the_paper_s_adam_has_the_usual_betas():
    assert SCHEDULES["constant"].betas == (0.9, 0.999)
