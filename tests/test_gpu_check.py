"""The report on a GPU: what it says without one, of parts that fail, and in how much time."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "benchmarks"

HANGS = "import time; time.sleep(60)"


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would take minutes")
def test_without_a_gpu_it_says_so_and_ends_well(tmp_path):
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


def test_a_part_that_fails_is_told_and_the_others_go_on(run):
    parts = {
        "breaks": "raise RuntimeError('no kernel image')",
        "hangs": f"print('so far so good'); {HANGS}",
        "measures": "print('17 rows a second')",
        "dies": "import os; os._exit(7)",
    }
    code, report = run(parts, SECONDS_A_PART=1)
    assert code == 1
    for words in (
        "GPU: a GPU of the future",
        "## FAIL: breaks",
        "RuntimeError: no kernel image",
        "## FAIL: hangs",
        "so far so good\ntimed out after 1 s",
        "## pass: measures",
        "17 rows a second",
        "## FAIL: dies",
        "exit status 7",
    ):
        assert words in report


def test_one_line_that_says_it_all_comes_first(run):
    code, report = run({"a": "", "b": "raise SystemExit(1)", "c": "", "d": "raise SystemExit(2)"})
    assert code == 1
    assert report.splitlines()[0].startswith("2 of 4 parts passed in ")
    assert report.splitlines()[0].endswith(" s; failed: b, d")
    code, report = run({"a": "", "c": ""})
    assert code == 0
    assert report.startswith("2 of 2 parts passed in ")
    assert "failed" not in report


def test_all_parts_together_have_a_limit(run, gpu_check):
    assert gpu_check.SECONDS_A_PART <= 60
    assert gpu_check.SECONDS <= 240
    start = time.perf_counter()
    code, report = run(dict.fromkeys(map(str, range(50)), HANGS), SECONDS=1, SECONDS_A_PART=0.4)
    assert time.perf_counter() - start < 10  # 20 if the parts had no limit together
    assert code == 1
    assert "## FAIL: 0 (0 s)\n\n```text\ntimed out after 0.4 s\n" in report
    assert "## FAIL: 49 (0 s)\n\n```text\nno time was left\n" in report


def test_figures_are_in_the_report_and_in_a_file(run, gpu_check, tmp_path):
    """Those of a part that fails later, too; in the report without what brings them there."""
    tell = "import json; tell = lambda figures: print({!r} + json.dumps(figures)); "
    tell = tell.format(gpu_check.FIGURES)
    parts = {
        "measures": tell + "tell({'step, ms': 0.25}); print('done'); tell({'rows/s': 123456.0})",
        "breaks": tell + "tell({'MSE': 7.0}); assert False",
    }
    path = tmp_path / "figures.json"
    _, report = run(parts, ["--json", str(path)])
    assert "```text\ndone\nstep, ms 0.25\nrows/s 1.235e+05\n```" in report
    assert "MSE 7" in report
    assert gpu_check.FIGURES not in report
    record = json.loads(path.read_text())
    assert record["summary"] == report.splitlines()[0]
    assert record["machine"]["GPU"] == "a GPU of the future"
    assert record["machine"]["torch"] == torch.__version__
    assert {"CUDA", "driver and memory"} <= record["machine"].keys()
    measures, breaks = record["parts"]["measures"], record["parts"]["breaks"]
    assert measures["figures"] == {"step, ms": 0.25, "rows/s": 123456.0}
    assert measures["passed"]
    assert measures["seconds"] >= 0
    assert breaks["figures"] == {"MSE": 7.0}
    assert not breaks["passed"]


def test_a_part_tells_its_figures_as_the_report_reads_them(run, gpu_check, capfd):
    gpu_check.tell({"step, ms": 0.25})
    line = capfd.readouterr().out
    _, report = run({"measures": f"print({line.strip()!r})"})
    assert "```text\nstep, ms 0.25\n```" in report


@pytest.mark.parametrize("arguments", [["--suite"], ["--only", "kernels"]])
def test_without_a_gpu_nothing_is_run(arguments, gpu_check, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main(arguments) == 0
    assert capsys.readouterr().out.startswith("No GPU: ")


def test_every_part_can_be_run_alone(gpu_check):
    for name, arguments in gpu_check.PARTS.items():
        if name != "gpu_tests":
            assert arguments == [str(SCRIPTS / "gpu_check.py"), "--only", name]
            assert gpu_check.FUNCTIONS[name].__doc__


def test_one_part_runs_in_this_process(gpu_check, monkeypatch):
    calls = []
    monkeypatch.setitem(gpu_check.FUNCTIONS, "kernels", lambda: calls.append("kernels"))
    assert gpu_check.main(["--only", "kernels"]) == 0
    assert calls == ["kernels"]


@pytest.mark.parametrize("code", [0, 3])
def test_the_suite_prints_as_it_goes_and_ends_with_its_status(code, gpu_check, monkeypatch, capfd):
    assert gpu_check.SUITE[:2] == ["-m", "pytest"]
    monkeypatch.setattr(gpu_check, "SUITE", ["-c", f"print('1 passed'); raise SystemExit({code})"])
    assert gpu_check.main(["--suite"]) == code
    assert capfd.readouterr().out == "1 passed\n"


def test_kernels_are_counted_without_copies_and_fills(gpu_check):
    kinds = ["kernel", "gpu_memcpy", "kernel", "gpu_memset", "cuda_runtime"]
    trace = [{"cat": kind} for kind in kinds] + [{"name": "process_name"}]
    assert gpu_check._n_kernels(trace) == 2
    with pytest.raises(AssertionError, match="no kernel"):
        gpu_check._n_kernels(trace[1:2])


def test_a_trace_is_one_of_events(gpu_check, monkeypatch):
    """Of a CPU here, which every machine has."""
    monkeypatch.setattr(gpu_check, "ACTIVITY", torch.profiler.ProfilerActivity.CPU)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    trace = gpu_check._trace(lambda: torch.ones(3).exp())
    assert "aten::exp" in [event.get("name") for event in trace]
