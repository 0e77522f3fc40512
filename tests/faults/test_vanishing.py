"""Rows whose file is replaced, deleted or cut while a fit reads them."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files and signals")

CHILD = """
import sys
from pathlib import Path
import numpy as np
from skmvae import MVAETransformer
from skmvae.architectures import MLP

class Vanishing(MLP):
    '''Does away with the file of the rows as soon as training begins.'''

    def build(self, n_features, latent_dim, k):
        encoder, decoder = super().build(n_features, latent_dim, k)
        encoder.register_forward_pre_hook(lambda *_: act())
        return encoder, decoder

def act():
    global act
    what, act = sys.argv[2], lambda: None
    if what == "delete":
        path.unlink()
    elif what == "replace":
        np.save(path.with_name("other.npy"), np.zeros_like(X))
        path.with_name("other.npy").replace(path)
    elif what == "cut":
        MVAETransformer(2, 2, architecture=MLP((4,)), max_iter=1).fit(np.eye(9)).save(saved)
        with path.open("r+b") as file:
            file.truncate(4096)

path = Path(sys.argv[1])
saved = path.with_name("model.safetensors")
X = np.load(path, mmap_mode="r")
mvae = MVAETransformer(2, 2, architecture=Vanishing((8,)), max_iter=2, random_state=0).fit(X)
np.save(path.with_name("codes.npy"), mvae.transform(np.eye(200)))
"""


def fit(tmp_path, what):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(5000, 200)))
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "rows.npy"), what],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.mark.parametrize("what", ["delete", "replace"])
def test_a_file_that_is_deleted_or_replaced_is_read_to_the_end(tmp_path, what):
    codes = []
    for action in ("nothing", what):
        result = fit(tmp_path, action)
        assert result.returncode == 0, result.stderr
        codes.append(np.load(tmp_path / "codes.npy"))
    np.testing.assert_array_equal(*codes)


def test_a_file_that_is_cut_ends_the_process_and_what_was_saved_is_whole(tmp_path):
    """No program can go on reading a memory map whose file has become shorter."""
    import skmvae

    result = fit(tmp_path, "cut")
    assert result.returncode == -signal.SIGBUS
    assert skmvae.load(tmp_path / "model.safetensors").transform(np.eye(9)).shape == (9, 4)
