"""Versions of what is installed, for bug reports."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from ._version import __version__

_PACKAGES = ("torch", "scikit-learn", "numpy", "scipy", "joblib", "matplotlib", "skops", "rich")


def show_versions() -> None:
    """Print the versions of Python, skmvae and what it uses, and the devices that torch sees.

    Examples
    --------
    >>> import skmvae
    >>> skmvae.show_versions()
    skmvae: 0...
    Python: 3...
    """
    lines = {
        "skmvae": __version__,
        "Python": sys.version.split()[0],
        "platform": platform.platform(),
    }
    lines |= {name: _version_of(name) for name in _PACKAGES}
    lines["threads"] = str(torch.get_num_threads())
    lines["CPU"] = torch.backends.cpu.get_cpu_capability()
    n_devices = torch.cuda.device_count()
    lines["CUDA"] = ", ".join(torch.cuda.get_device_name(i) for i in range(n_devices)) or "none"
    for name, value in lines.items():
        print(f"{name}: {value}")


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
