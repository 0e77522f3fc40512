"""What a figure was measured on, and where it is kept: one file a kind of machine."""

import json
import platform
from pathlib import Path

import numpy as np
import sklearn
import torch

import skmvae


def print_machine():
    """The processor, thread count and versions, as a record; printed too."""
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


def kind(device="cpu"):
    """What figures depend on most, as part of a file's name."""
    if device != "cpu":
        return torch.cuda.get_device_name().lower().replace(" ", "_")
    units = ("amx_bf16", "avx512_bf16")
    return next((u for u in units if _has(u)), torch.backends.cpu.get_cpu_capability().lower())


def save(name, figures, device="cpu"):
    """Keep the figures in results/, beside those of other parts and in place of their own."""
    kept = load(name, device)
    _path(name, device).write_text(json.dumps({**kept, **figures}, indent=2) + "\n")


def load(name, device="cpu"):
    """What ``save`` has kept so far."""
    path = _path(name, device)
    return json.loads(path.read_text()) if path.exists() else {}


def _path(name, device):
    return Path(__file__).parent / "results" / f"{name}_{kind(device)}.json"


def _has(unit):
    return bool(getattr(torch.cpu, "get_capabilities", dict)().get(unit))


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
