"""The image data of the paper, as flat rows in [0, 1].

Both functions look first into the folder that the environment variable ``SKMVAE_DATA`` names, and
otherwise ask :func:`sklearn.datasets.fetch_openml`, which downloads once and keeps a copy.
"""

from __future__ import annotations

import io
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml
from sklearn.utils import Bunch

from ._files.writing import at_home

__all__ = ["fetch_cifar10", "fetch_mnist"]

_CIFAR10_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


def fetch_mnist(*, data_home=None):
    """Load MNIST: 70,000 grey images of handwritten digits, 28 x 28 pixels.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Where :func:`sklearn.datasets.fetch_openml` keeps its downloads.

    Returns
    -------
    mnist : Bunch
        ``X_train`` (60000, 784) and ``X_test`` (10000, 784), float32 in [0, 1]; ``y_train`` and
        ``y_test``, int64; ``image_shape``, here (28, 28).

    Raises
    ------
    OSError
        If ``SKMVAE_DATA`` has no ``mnist.npz`` and OpenML cannot be reached.

    Notes
    -----
    ``mnist.npz`` has the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``, as the file of
    the same name that Keras uses.
    """
    path = _local_file("mnist.npz")
    if path is None:
        pixels, labels = _from_openml("mnist_784", 1, "mnist.npz", data_home)
        return _bunch(pixels, labels, 60_000, image_shape=(28, 28))
    with np.load(path) as data:
        pixels = np.concatenate([data["x_train"], data["x_test"]]).reshape(-1, 784)
        labels = np.concatenate([data["y_train"], data["y_test"]])
        return _bunch(pixels, labels, len(data["x_train"]), image_shape=(28, 28))


def fetch_cifar10(*, data_home=None):
    """Load CIFAR-10: 60,000 colour photographs of 10 classes, 32 x 32 pixels.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Where :func:`sklearn.datasets.fetch_openml` keeps its downloads.

    Returns
    -------
    cifar10 : Bunch
        ``X_train`` (50000, 3072) and ``X_test`` (10000, 3072), float32 in [0, 1], channel first
        (all of red, then green, then blue); ``y_train`` and ``y_test``, int64; ``image_shape``,
        here (3, 32, 32); ``classes``, the names of the labels.

    Raises
    ------
    OSError
        If ``SKMVAE_DATA`` has no ``cifar10_jpeg.npz`` and OpenML cannot be reached.
    ImportError
        If ``cifar10_jpeg.npz`` is there but Pillow, which decodes it, is not.

    Notes
    -----
    ``cifar10_jpeg.npz`` holds the images as JPEG, which smooths them a little: ``jpeg_train`` and
    ``jpeg_test`` are the concatenated files, cut by ``offsets_train`` and ``offsets_test``;
    ``y_train`` and ``y_test`` are the labels. Numbers measured on it should say so.
    """
    path = _local_file("cifar10_jpeg.npz")
    if path is None:
        pixels, labels = _from_openml("CIFAR_10", 1, "cifar10_jpeg.npz", data_home)
        n_train = 50_000
    else:
        with np.load(path) as data:
            pixels = np.concatenate([_decode_jpegs(data, part) for part in ("train", "test")])
            labels = np.concatenate([data["y_train"], data["y_test"]])
            n_train = len(data["y_train"])
    cifar10 = _bunch(pixels, labels, n_train, image_shape=(3, 32, 32))
    cifar10.classes = _CIFAR10_CLASSES.copy()
    return cifar10


def _local_file(name: str) -> Path | None:
    folder = os.environ.get("SKMVAE_DATA")
    path = at_home(folder) / name if folder else None
    return path if path is not None and path.is_file() else None


def _from_openml(name: str, version: int, file_name: str, data_home) -> tuple:
    parser = "pandas" if find_spec("pandas") else "liac-arff"  # minutes faster, but an extra
    try:
        data = fetch_openml(
            name, version=version, data_home=data_home, as_frame=False, parser=parser
        )
    except (OSError, ValueError) as error:
        raise OSError(
            f"{name} could not be had: SKMVAE_DATA={os.environ.get('SKMVAE_DATA')!r} names no "
            f"folder with {file_name}, and fetch_openml failed ({error}). Set SKMVAE_DATA to a "
            "folder that holds the file, or try again with a network."
        ) from error
    return data.data, data.target


def _decode_jpegs(data, part: str) -> np.ndarray:
    """JPEG files in one byte array -> (n, 3072) uint8, channel first."""
    from PIL import Image  # an extra; only this file format needs it

    jpeg, offsets = data[f"jpeg_{part}"], data[f"offsets_{part}"]
    images = np.empty((len(offsets) - 1, 3, 32, 32), np.uint8)
    for image, start, stop in zip(images, offsets, offsets[1:], strict=False):
        pixels = np.asarray(Image.open(io.BytesIO(jpeg[start:stop].tobytes())).convert("RGB"))
        image[:] = pixels.transpose(2, 0, 1)
    return images.reshape(len(images), -1)


def _bunch(pixels, labels, n_train: int, image_shape: tuple[int, ...]) -> Bunch:
    X = np.divide(pixels, 255.0, dtype=np.float32)
    y = np.asarray(labels).astype(np.int64)
    return Bunch(
        X_train=X[:n_train],
        y_train=y[:n_train],
        X_test=X[n_train:],
        y_test=y[n_train:],
        image_shape=image_shape,
    )
