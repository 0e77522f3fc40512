"""Rows whose file is replaced, deleted or cut while a fit reads them."""

import functools
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from jobs import small

import skmvae
from skmvae.architectures import MLP

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files and signals")

# What becomes of the file.


def nothing(path):
    pass


def deleted(path):
    path.unlink()


def replaced(path):
    other = path.with_name("other.npy")
    np.save(other, np.zeros_like(np.load(path)))
    other.replace(path)


def cut(path):
    """What was saved just before must be whole."""
    small(max_iter=1).fit(np.eye(9)).save(path.with_name("model.safetensors"))
    with path.open("r+b") as file:
        file.truncate(4096)


def fit(path, what):
    """A job: it happens as soon as training begins."""
    path = Path(path)
    happen = functools.cache(lambda: globals()[what](path))

    class Vanishing(MLP):
        def build(self, n_features, latent_dim, k):
            encoder, decoder = super().build(n_features, latent_dim, k)
            encoder.register_forward_pre_hook(lambda *_: happen())
            return encoder, decoder

    X = np.load(path, mmap_mode="r")
    mvae = small(architecture=Vanishing((8,)), max_iter=2).fit(X)
    happened = happen.cache_info().currsize == 1
    return {"codes": mvae.transform(np.eye(200)), "happened": np.array(happened)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.npy"


@pytest.fixture
def fit_while(start, path):
    def start_fit(what):
        np.save(path, np.random.default_rng(0).normal(size=(5000, 200)))
        return start(fit, path=str(path), what=what)

    return start_fit


@pytest.mark.parametrize("what", ["deleted", "replaced"])
def test_a_file_that_is_deleted_or_replaced_is_read_to_the_end(fit_while, what):
    expected, found = fit_while("nothing").result(), fit_while(what).result()
    assert found["happened"]
    np.testing.assert_array_equal(found["codes"], expected["codes"])


def test_a_file_that_is_cut_ends_the_process_and_what_was_saved_is_whole(fit_while, path):
    """No program can go on reading a memory map whose file has become shorter."""
    assert fit_while("cut").exit_code() == -signal.SIGBUS
    model = skmvae.load(path.with_name("model.safetensors"))
    assert model.transform(np.eye(9)).shape == (9, 6)
