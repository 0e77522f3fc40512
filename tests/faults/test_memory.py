"""Memory that runs out: the earlier fit is whole, and the error says what helps.

On a CPU memory really runs out: a job limits its address space. For a GPU torch's error is raised.
Rows may also be in a file: a memory map, which is read one batch at a time.
"""

import functools
import gc
import warnings
import weakref
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from jobs import contents, differences
from networks import small_estimator
from scipy import sparse

from skmvae.architectures import MLP

resource = pytest.importorskip("resource")

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(),
    reason="needs Linux, where the address space of a process can be limited",
)

MB = 2**20

# More rows than fit into memory; here they are all the same one.
ROWS = np.broadcast_to(np.linspace(-1.0, 1.0, 8), (20_000_000, 8))
X = np.random.default_rng(0).normal(size=(64, 8))


small = functools.partial(small_estimator, max_iter=1)


# Uses of an estimator that is fitted to X.
USES = {
    "large batch": lambda mvae, many: mvae.set_params(batch_size=10**6).fit(many),
    "partial_fit": lambda mvae, many: mvae.set_params(batch_size=10**6).partial_fit(many),
    "wide layers": lambda mvae, many: mvae.set_params(architecture=MLP((5_000, 5_000))).fit(X),
    "transform": lambda mvae, many: mvae.transform(ROWS),
    "sample": lambda mvae, many: mvae.sample(len(ROWS)),
}


# Jobs.


def limit_memory(megabytes):
    """Let the process take so much more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * MB
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def lift_limit():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def run_out(use, megabytes):
    """Return what is raised where so much memory is left. All must be as before."""
    warnings.filterwarnings("ignore", "mkldnn_matmul failed")  # torch then does without oneDNN
    mvae, many = small().fit(X), np.tile(X, (20_000, 1))
    before = contents(mvae)
    limit_memory(megabytes)
    try:
        USES[use](mvae, many)
        raised = None
    except Exception as error:
        raised = error
    lift_limit()
    assert differences(contents(mvae), before) == []
    mvae.set_params(**small().get_params(deep=False)).fit(X)
    assert np.isfinite(mvae.transform(X)).all()
    return {"kind": type(raised).__name__, "message": str(raised)}


AMOUNT = r"(Unable to allocate [\d.]+ [MG]iB for an array|tried to allocate \d+ bytes)"


@pytest.mark.parametrize(
    ("use", "megabytes", "says"),
    [
        ("large batch", 64, f"^fit ran out of memory.*batch_size=1000000 and k=2.*{AMOUNT}"),
        ("partial_fit", 64, f"partial_fit ran out.*batch_size=1000000.*{AMOUNT}"),
        ("wide layers", 64, f"fit ran out of memory.*narrower layers.*{AMOUNT}"),
        ("transform", 16, AMOUNT),
        ("sample", 16, AMOUNT),
    ],
)
def test_memory_that_runs_out_is_an_error_that_says_how_much(use, megabytes, says, start):
    found = start(run_out, use=use, megabytes=megabytes).result()
    assert str(found["kind"]) in ("MemoryError", "_ArrayMemoryError"), found
    with pytest.raises(MemoryError, match=says):
        raise MemoryError(str(found["message"]))


def fit_in_little_memory(kind, path):
    """Fit rows, sparse or in a file, that take twice the memory that is left."""
    left = {"sparse": 120, "memory map": 40}[kind]
    if kind == "sparse":
        rows = sparse.random_array((3_000, 10_000), density=1e-4, rng=0, format="csr")
    else:
        Path(path).write_bytes(bytes(2 * left * MB))
        rows = np.memmap(path, dtype=np.float32, mode="r").reshape(-1, 512)
    mvae = small(batch_size=128, architecture=MLP((8,))).fit(rows[:128])
    limit_memory(left)
    codes = mvae.fit(rows).transform(rows[-9:])
    lift_limit()
    last = rows[-9:].toarray() if kind == "sparse" else rows[-9:]
    np.testing.assert_allclose(codes, mvae.transform(last), rtol=0.0, atol=1e-6)
    return {}


@pytest.mark.parametrize("kind", ["sparse", "memory map"])
def test_sparse_and_mapped_rows_are_read_a_batch_at_a_time(kind, start, tmp_path):
    start(fit_in_little_memory, kind=kind, path=str(tmp_path / "rows")).result()


# Errors of a GPU's memory.


class Hungry(MLP):
    """Runs out of memory in training on more than 32 rows, and at rest when told."""

    at_rest = False
    decoders: ClassVar = []

    def build(self, n_features, latent_dim, k):
        encoder, decoder = super().build(n_features, latent_dim, k)
        encoder.register_forward_pre_hook(self._check)
        self.decoders.append(weakref.ref(decoder))
        return encoder, decoder

    @staticmethod
    def _check(encoder, inputs):
        if inputs[0].shape[-2] > 32 if encoder.training else Hungry.at_rest:
            raise torch.OutOfMemoryError("Tried to allocate 7 GiB.")


@pytest.fixture
def hungry(make_small, digits):
    return make_small(architecture=Hungry((16,)), batch_size=32).fit(digits[0][:100])


def test_out_of_memory_in_fit_says_what_helps_and_holds_no_memory(hungry, digits):
    """A notebook keeps its last error."""
    X = digits[0][:100]
    before = contents(hungry)
    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError, match=r"batch_size=64 and k=3.*7 GiB") as raised:
            hungry.set_params(batch_size=64).fit(X)
        assert Hungry.decoders[-1]() is None, raised
    finally:
        gc.enable()
    assert differences(contents(hungry), before) == []
    hungry.set_params(batch_size=32).fit(X)


@pytest.mark.parametrize("method", ["transform", "score", "fit"])
def test_out_of_memory_at_rest_says_once_what_helps(hungry, digits, monkeypatch, method):
    """``fit`` computes ``weights_`` at its end, at rest."""
    monkeypatch.setattr(Hungry, "at_rest", True)
    with pytest.raises(torch.OutOfMemoryError, match="set_params\\(device='cpu'\\)") as raised:
        getattr(hungry, method)(digits[0][:100])
    assert str(raised.value).count("torch says") == 1
