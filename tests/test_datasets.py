"""Loading MNIST and CIFAR-10: from a folder, from OpenML, or a clear error."""

import io
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from skmvae import datasets


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of SKMVAE_DATA, without a network beside it."""
    monkeypatch.setenv("SKMVAE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "fetch_openml", Mock(side_effect=OSError("no network")))
    return tmp_path


def test_mnist_from_a_folder(folder):
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    arrays = {"x_train": images[:5], "x_test": images[5:]}
    labels = {"y_train": np.arange(5, dtype=np.uint8), "y_test": np.arange(2, dtype=np.uint8)}
    np.savez(folder / "mnist.npz", **arrays, **labels)
    mnist = datasets.fetch_mnist()
    assert mnist.X_train.shape == (5, 784)
    assert mnist.X_train.dtype == np.float32
    np.testing.assert_allclose(mnist.X_test, images[5:].reshape(2, -1) / 255, rtol=1e-6)
    assert mnist.y_train.tolist() == [0, 1, 2, 3, 4]
    assert mnist.image_shape == (28, 28)


def test_cifar10_from_a_folder(folder):
    flat = [np.full((32, 32, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255))]
    files = []
    for image in flat:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95)
        files.append(np.frombuffer(buffer.getvalue(), np.uint8))
    offsets = np.cumsum([0, *map(len, files)])
    np.savez(
        folder / "cifar10_jpeg.npz",
        jpeg_train=np.concatenate(files),
        offsets_train=offsets,
        y_train=np.array([1, 2], np.uint8),
        jpeg_test=files[0],
        offsets_test=offsets[:2],
        y_test=np.array([9], np.uint8),
    )
    cifar10 = datasets.fetch_cifar10()
    assert cifar10.X_train.shape == (2, 3072)
    red, blue = cifar10.X_train.reshape(2, *cifar10.image_shape)
    assert red[0].min() > 0.95
    assert red[2].max() < 0.05
    assert blue[2].min() > 0.95
    assert cifar10.y_test.tolist() == [9]
    assert len(cifar10.classes) == 10


@pytest.mark.parametrize(
    ("name", "n_train"), [("mnist", 60_000), ("cifar10", 50_000)], ids=["mnist", "cifar10"]
)
def test_openml_is_asked_if_the_folder_lacks_the_file(name, n_train, folder, monkeypatch):
    def fetch(name, *, as_frame, **kwargs):
        assert as_frame is False
        data = np.tile(np.arange(n_train + 10_000)[:, None] % 256, (1, 4))
        return datasets.Bunch(data=data, target=(data[:, 0] % 10).astype(str).astype(object))

    with pytest.raises(OSError, match=r"could not be had: SKMVAE_DATA=.*Set SKMVAE_DATA to"):
        getattr(datasets, f"fetch_{name}")()
    monkeypatch.setattr(datasets, "fetch_openml", fetch)
    found = getattr(datasets, f"fetch_{name}")()
    assert [len(found.X_train), len(found.X_test)] == [n_train, 10_000]
    assert found.X_train.max() == 1.0
    assert found.y_train.dtype == np.int64
