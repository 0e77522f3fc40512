"""The report on a GPU: without one, with parts that fail, and within its time."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "benchmarks"

HANGS = "import time; time.sleep(60)"


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would take minutes")
def test_without_a_gpu_the_report_is_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, SCRIPTS / "gpu_check.py", "--json", tmp_path / "figures"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith("No GPU: ")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def gpu_check(monkeypatch):
    """The script, which takes this machine for one with a GPU."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(SCRIPTS)
    import gpu_check

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU of the future")
    yield gpu_check
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(SCRIPTS)):
            del sys.modules[name]


@pytest.fixture
def run(gpu_check, monkeypatch, capfd):
    """Runs the script with parts that are lines of Python: its exit status and its report."""

    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    def run_script(parts, arguments=(), **limits):
        commands = {name: ["-c", code] for name, code in parts.items()}
        monkeypatch.setattr(gpu_check, "PARTS", commands)
        for name, value in limits.items():
            monkeypatch.setattr(gpu_check, name, value)
        code = gpu_check.main([*arguments])
        return code, capfd.readouterr().out

    return run_script


def test_the_report_names_the_parts_that_failed(run):
    parts = {
        "breaks": "raise RuntimeError('no kernel image')",
        "measures": "print('17 rows a second')",
        "dies": "import os; os._exit(7)",
    }
    code, report = run(parts)
    assert code == 1
    assert report.startswith("1 of 3 parts passed in ")
    assert report.splitlines()[0].endswith(" s; failed: breaks, dies")
    words = ["GPU: a GPU of the future", "RuntimeError: no kernel image", "17 rows a second"]
    words += ["## FAIL: breaks", "## pass: measures", "## FAIL: dies", "exit status 7"]
    assert [found for found in words if found not in report] == []
    code, report = run({"a": ""})
    assert code == 0
    assert report.startswith("1 of 1 parts passed in ")


def test_each_part_and_all_together_have_a_limit(run):
    parts = dict.fromkeys(map(str, range(50)), f"print('so far so good', flush=True); {HANGS}")
    start = time.perf_counter()
    code, report = run(parts, SECONDS=1, SECONDS_A_PART=0.4)
    assert time.perf_counter() - start < 10  # 20 with the limit of each part alone
    assert code == 1
    assert "so far so good\ntimed out after 0.4 s\n" in report
    assert "## FAIL: 49 (0 s)\n\n```text\nno time was left\n" in report
