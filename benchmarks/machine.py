"""What the scripts have in common: arguments, timing, and the figures kept in results/.

Each kind of machine has its own files of figures, which record the processor and the versions.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import sklearn
import torch

import skmvae


def make_parser(description):
    """A parser whose ``--help`` shows the docstring of the script as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run_part(description, name, parts):
    """Run one of ``parts`` on one thread: ``SCRIPT.py PART --seeds N``; keep the machine's data."""
    parser = make_parser(description)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds: 0, 1, ...")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    save(name, {"machine": print_machine()})
    parts[parsed.part](parsed.seeds)


def print_machine():
    """Print the processor, the thread count and the versions; return them as a record."""
    record = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "AMX": _has("amx_bf16"),
        "AVX512_BF16": _has("avx512_bf16"),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "NumPy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "skmvae": skmvae.__version__,
    }
    for name, value in record.items():
        print(f"{name}: {value}")
    return record


def seconds_of(function, n_times=1, device="cpu"):
    """Wall time of each call; on a GPU, which works through a queue, the mean for all calls."""
    if device != "cpu":
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(n_times):
            function()
        torch.cuda.synchronize()
        return [(time.perf_counter() - start) / n_times] * n_times
    times = [time.perf_counter()]
    for _ in range(n_times):
        function()
        times.append(time.perf_counter())
    return np.diff(times).tolist()


def cpu_seconds(function):
    """CPU time of one call, in which other work on the machine hardly counts."""
    start = time.process_time()
    function()
    return time.process_time() - start


def measured(name, key, compute):
    """The figures under ``key`` of the file ``name``; computed and saved if they are missing."""
    kept = load(name)
    if key not in kept:
        kept = {key: compute()}
        save(name, kept)
        print(key, kept[key], flush=True)
    return kept[key]


def save(name, figures, device="cpu"):
    """Add the figures to the file, in place of older ones with the same keys."""
    kept = load(name, device)
    _path(name, device).write_text(json.dumps({**kept, **figures}, indent=2) + "\n")


def load(name, device="cpu"):
    """All figures saved so far."""
    path = _path(name, device)
    return json.loads(path.read_text()) if path.exists() else {}


def _path(name, device):
    """File name by what figures depend on most: the GPU, or the vector unit of the CPU."""
    if device != "cpu":
        kind = torch.cuda.get_device_name().lower().replace(" ", "_")
    else:
        other = torch.backends.cpu.get_cpu_capability().lower()
        kind = next((unit for unit in ("amx_bf16", "avx512_bf16") if _has(unit)), other)
    return Path(__file__).parent / "results" / f"{name}_{kind}.json"


def _has(unit):
    return bool(getattr(torch.cpu, "get_capabilities", dict)().get(unit))


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
