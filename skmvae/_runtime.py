"""Devices, precision, generators, autograd contexts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import DTypeLike

from ._process import warn

# torch's names of what multiplies bfloat16 faster than float32: measured on Intel's AMX and AMD's
# AVX-512, on Arm by its documentation alone.
_BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")

_TORCH_DTYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}


def resolve_device(device: str) -> torch.device:
    """The torch device for a ``device`` parameter; ValueError when this machine has none such."""
    try:
        resolved = torch.device(_best_device() if device == "auto" else device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} is not a device: {error}") from error
    if resolved.type not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r} is not supported; use 'auto', 'cpu' or 'cuda'.")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r} is not available: torch sees {torch.cuda.device_count()} CUDA "
            "devices. Use device='auto' or device='cpu'."
        )
    if resolved.type == "cuda":
        _start_cuda(device)
    return resolved


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _start_cuda(device: str) -> None:
    """RuntimeError where torch cannot: in a process forked from one that uses CUDA, above all."""
    try:
        torch.cuda.init()
    except RuntimeError as error:
        raise RuntimeError(
            f"device={device!r} cannot be used in this process: {error}. A process forked from one "
            "that has used CUDA cannot use it too: start it with joblib's loky (the default of "
            "n_jobs) or multiprocessing's 'spawn', or set device='cpu'."
        ) from error


def inference_device(device: str) -> torch.device:
    """The torch device for a ``device`` parameter; the CPU, with a warning, if there is none such.

    A model fitted on a GPU can be used on a machine without one.
    """
    try:
        return resolve_device(device)
    except ValueError as error:
        warn(f"{error} Computing on the CPU.")
        return torch.device("cpu")


def resolve_precision(precision: str, device: torch.device) -> str:
    """float32 or bfloat16 for a ``precision`` parameter on the device."""
    if precision != "auto":
        return precision
    return "bfloat16" if _multiplies_bfloat16_faster(device) else "float32"


def _multiplies_bfloat16_faster(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Older versions of torch cannot tell what the CPU has; builds without oneDNN cannot use it.
    capabilities: Mapping = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.backends.mkldnn.is_available() and any(
        capabilities.get(unit, False) for unit in _BFLOAT16_UNITS
    )


def matrix_products(precision: str, device: torch.device) -> torch.autocast:
    """Context in which torch's matrix products have ``precision``, in this thread alone.

    Without autocast's cache: a step casts each weight once, and the cache belongs to the process.
    """
    return torch.autocast(
        device.type,
        dtype=torch.bfloat16,
        enabled=precision == "bfloat16",
        cache_enabled=False,
    )


def torch_dtype(dtype: DTypeLike) -> torch.dtype:
    """float32 or float64, as torch has it."""
    return _TORCH_DTYPES[np.dtype(dtype)]


def make_generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed)


def draw_seed(random_state) -> int:
    """A seed from an int, a RandomState, or (None) the operating system's entropy.

    scikit-learn takes None to mean NumPy's global generator; this package never advances a
    generator that is not its own.
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    return int(random_state)


@contextmanager
def gradients() -> Iterator[None]:
    """Training works the same inside a caller's no_grad, inference_mode or autocast."""
    with torch.inference_mode(False), torch.enable_grad(), _no_autocast():
        yield


@contextmanager
def no_gradients() -> Iterator[None]:
    with torch.inference_mode(), _no_autocast():
        yield


@contextmanager
def _no_autocast() -> Iterator[None]:
    """Outside of a caller's autocast. To enter torch's own takes time also where there is none."""
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
