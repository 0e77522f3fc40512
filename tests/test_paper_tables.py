"""The tables on the pages are those of the committed results."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "paper"


@pytest.fixture
def render(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import render

    yield render
    for name in [n for n, m in sys.modules.items() if getattr(m, "__file__", None)]:
        if Path(sys.modules[name].__file__).parent == SCRIPTS:
            del sys.modules[name]


def test_no_figure_was_typed_by_hand(render):
    for page in render.PAGES:
        text = page.read_text()
        assert render.rendered(text) == text


def test_a_cell_is_the_mean_over_the_seeds_of_its_settings(render, monkeypatch, tmp_path):
    records = [
        {"settings": {"k": k, "seed": seed}, "values": {"MSE": 10.0 * k + seed}}
        for k in (1, 2)
        for seed in (0, 2)
    ]
    cells = render.Cells("none")
    cells._records = records
    assert (
        cells.cell({"k": 2, "seed": 0}, "MSE") == "21.00\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}1.41"
    )
    assert cells.cell({"k": 3}, "MSE") == ""
    assert render._cell([1.234], 2) == "1.23"


def test_a_cell_of_few_labels_has_the_spread_of_the_draws_alone(render):
    seeds = [[1.0, 2.0, 3.0], [12.0, 14.0, 16.0]]
    assert render._of_draws(seeds) == "8.0\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}1.5"
    assert render._of_draws([[5.0], [6.0]]) == "5.5"
    assert render._of_draws([]) == ""
