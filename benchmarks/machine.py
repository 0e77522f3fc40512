"""What a figure was measured on."""

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
        "AMX": bool(getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16")),
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


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
