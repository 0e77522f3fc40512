"""The report on a GPU: what it says without one, and of a part that fails."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would take ten minutes")
def test_without_a_gpu_it_says_so_and_ends_well():
    result = subprocess.run(
        [sys.executable, SCRIPTS / "gpu_check.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith("No GPU: ")


@pytest.fixture
def gpu_check(monkeypatch):
    before = set(sys.modules)
    monkeypatch.syspath_prepend(SCRIPTS)
    import gpu_check

    yield gpu_check
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", "").startswith(str(SCRIPTS)):
            del sys.modules[name]


def test_a_part_that_fails_is_told_and_the_others_go_on(gpu_check, monkeypatch, capsys):
    parts = {
        "breaks": ["-c", "raise RuntimeError('no kernel image')"],
        "hangs": ["-c", "import time; time.sleep(60)"],
        "measures": ["-c", "print('17 rows a second')"],
    }
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    monkeypatch.setattr(gpu_check, "SECONDS_A_PART", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU of the future")
    assert gpu_check.main() == 1
    report = capsys.readouterr().out
    for words in (
        "GPU: a GPU of the future",
        "1 of 3 parts passed",
        "## FAIL: breaks",
        "RuntimeError: no kernel image",
        "## FAIL: hangs",
        "timed out after",
        "## pass: measures",
        "17 rows a second",
    ):
        assert words in report
