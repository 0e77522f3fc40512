"""The learning rate over a fit, against values by hand."""

import numpy as np
import pytest

from skmvae._fit.schedules import SCHEDULES, constant, one_cycle


@pytest.mark.parametrize(
    ("progress", "share"),
    [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.55, 0.5), (1.0, 0.0), (1.5, 0.0)],
)
def test_one_cycle_by_hand(progress, share):
    assert one_cycle(progress) == pytest.approx(share, abs=1e-12)


def test_one_cycle_rises_once_and_falls_once():
    shares = [one_cycle(progress) for progress in np.linspace(0, 1, 1001)]
    peak = int(np.argmax(shares))
    assert peak == 100
    assert (np.diff(shares[: peak + 1]) > 0).all()
    assert (np.diff(shares[peak:]) < 0).all()
    assert np.abs(np.diff(shares)).max() < 0.011  # no jump


def test_constant():
    assert {constant(progress) for progress in (0.01, 0.5, 0.99)} == {1.0}


def test_the_paper_s_adam_has_the_usual_betas():
    assert SCHEDULES["constant"].betas == (0.9, 0.999)
