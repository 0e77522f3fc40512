"""What ``verbose`` reports, and where."""

import logging

import pytest

from skmvae._fit.observers import Reporter
from skmvae._state import Epoch

RECORD = {"loss": 3.25, "reconstruction": 2.0, "learning_rate": 1e-3, "seconds": 2.0}


def report(n_epochs=3):
    reporter = Reporter(max_iter=5)
    for n in range(1, n_epochs + 1):
        reporter.begin_epoch()
        assert reporter.end_epoch(Epoch((RECORD,) * n, None, None)) is False


def test_it_goes_to_the_log_if_somebody_listens(capsys, caplog):
    with caplog.at_level(logging.INFO, logger="skmvae"):
        report()
    assert caplog.messages[2] == (
        "epoch 3/5  loss 3.2500  reconstruction 2.0000  learning_rate 1.0e-03  2.0 s, "
        "at most 4 s left"
    )
    assert len(caplog.messages) == 3
    assert capsys.readouterr().out == ""


def test_it_goes_to_the_screen_if_nobody_does(capsys):
    report()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("epoch 1/5  loss 3.2500  ")


class Deaf(logging.Handler):
    """Shows nothing of what is wanted."""

    def __init__(self):
        super().__init__(logging.WARNING)


@pytest.mark.parametrize("handlers", [[], [logging.NullHandler()], [Deaf()]])
def test_it_goes_to_the_screen_if_no_handler_shows_it(handlers, capsys, monkeypatch):
    """A root logger at INFO without a handler drops it."""
    monkeypatch.setattr(logging.root, "handlers", handlers)
    level = logging.root.level
    logging.root.setLevel(logging.INFO)
    try:
        report()
    finally:
        logging.root.setLevel(level)
    assert len(capsys.readouterr().out.splitlines()) == 3
