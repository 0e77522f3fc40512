"""Named arrays and plain values in one safetensors file, checked when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .writing import write_whole

Arrays = dict[str, np.ndarray]

_DIGEST = "sha256"


def check_safetensors() -> None:
    """Raise ImportError, with the remedy, where safetensors is not installed."""
    try:
        import safetensors.numpy  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Checkpoints and model files need safetensors: pip install 'skmvae[safe]'."
        ) from error


def write_tensors(path: Path, arrays: Arrays, values: Mapping[str, Any]) -> None:
    """Write the file; a value may be all that JSON has. OSError leaves what was there."""
    check_safetensors()
    from safetensors.numpy import save

    arrays = {name: _as_written(array) for name, array in arrays.items()}
    metadata = {name: json.dumps(value, allow_nan=False) for name, value in values.items()}
    write_whole(path, save(arrays, {**metadata, _DIGEST: _digest(arrays, metadata)}))


def read_tensors(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays, mapped from the file, and the values; ValueError unless all is as written.

    Runs no code and takes no more memory than the file is long, whatever is in it.
    """
    check_safetensors()
    while True:
        version = _version(path)
        try:
            return _read(path)
        except ValueError:
            # safetensors opens the path twice, for the names and for the numbers, and another
            # process may put a new file there in between.
            if _version(path) == version:
                raise


def _version(path: Path) -> tuple[int, int, int]:
    """What differs between a file and the one that replaces it."""
    if not path.is_file():  # so that the message is not safetensors' own
        raise FileNotFoundError(f"There is no file {path}.")
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the values of the file, if the checksum in it is theirs."""
    from safetensors import SafetensorError, safe_open

    try:
        # Read as torch's tensors: for NumPy, safetensors copies what it reads.
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    found = metadata.pop(_DIGEST, "")
    if found != _digest(arrays, metadata):
        raise ValueError(
            f"{path} is not what was written: its checksum is wrong. It is damaged, or another "
            "program has made or changed it."
        )
    try:
        return arrays, {name: _parsed(text) for name, text in metadata.items()}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds values that are not JSON: {error}") from error


def _as_written(array: np.ndarray) -> np.ndarray:
    """Row by row and in the byte order of the machine."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _parsed(text: str) -> Any:
    """JSON alone, where Python's parser would take NaN and Infinity too."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number.")

    return json.loads(text, parse_constant=refuse)


def _digest(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    """SHA-256 of all that the file holds, in the order of the names."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
