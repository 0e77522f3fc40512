"""Memory that runs out: what was fitted is whole, and the error says what helps.

On a CPU it really runs out: a process may have little more address space than it has taken already.
Of a GPU, only how the errors of torch are handled.
"""

import gc
import re
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from networks import small_estimator
from scipy import sparse
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from skmvae.architectures import MLP

resource = pytest.importorskip("resource")

needs_a_limit = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(),
    reason="needs Linux, where the address space of a process can be limited",
)

MB = 2**20

# More rows than fit into what is left. Nobody reads them: they are all the same one in memory.
ROWS = np.broadcast_to(np.linspace(-1.0, 1.0, 8), (20_000_000, 8))
INTEGERS = np.broadcast_to(np.arange(8, dtype=np.uint8), (20_000_000, 8))
CODES = np.broadcast_to(np.linspace(-1.0, 1.0, 4), (20_000_000, 4))


# Uses of a fitted estimator. Each makes what it needs while there is memory, and is then called.


def fit_with_a_large_batch(mvae):
    X = np.random.default_rng(0).normal(size=(1_000_000, 8))
    return lambda: mvae.set_params(batch_size=1_000_000).fit(X)


def partial_fit_with_a_large_batch(mvae):
    X = np.random.default_rng(0).normal(size=(1_000_000, 8))
    return lambda: mvae.set_params(batch_size=1_000_000).partial_fit(X)


def fit_with_wide_layers(mvae):
    X = np.random.default_rng(0).normal(size=(64, 8))
    return lambda: mvae.set_params(architecture=MLP((5_000, 5_000))).fit(X)


def fit_with_many_components(mvae):
    X = np.random.default_rng(0).normal(size=(64, 8))
    return lambda: mvae.set_params(k=10**6).fit(X)


def fit_of_wide_rows(mvae):
    """The network is made for them."""
    X = np.zeros((16, 100_000), np.float32)
    X[::2] = 1.0
    return lambda: mvae.set_params(architecture=None).fit(X)


def fit_of_very_wide_rows(mvae):
    """The column means alone take more than there is."""
    return lambda: mvae.fit(sparse.csr_array((np.ones(4), (np.arange(4),) * 2), (4, 10**8)))


def fit_of_integers(mvae):
    return lambda: mvae.fit(INTEGERS)


def transform(mvae):
    return lambda: mvae.transform(ROWS)


def transform_of_integers(mvae):
    return lambda: mvae.transform(INTEGERS)


def mixing_weights(mvae):
    return lambda: mvae.mixing_weights(ROWS)


def score_samples(mvae):
    return lambda: mvae.score_samples(ROWS)


def reconstruct(mvae):
    return lambda: mvae.reconstruct(ROWS)


def inverse_transform(mvae):
    return lambda: mvae.inverse_transform(CODES)


def sample(mvae):
    return lambda: mvae.sample(len(ROWS))


# Jobs, each of which runs in a process of its own.


def limit_memory(megabytes):
    """So much more than is taken by now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * MB
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def lift_limit():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def small(**params):
    return small_estimator(**{"max_iter": 1} | params)


def run_out(use, megabytes, n_threads=1):
    """What is raised by the use where so much memory is left; then all must be as it was."""
    torch.set_num_threads(n_threads)
    # oneDNN needs memory of its own. Where there is too little, torch says so and does without it.
    warnings.filterwarnings("ignore", "mkldnn_matmul failed")
    X = np.random.default_rng(1).normal(size=(64, 8))
    mvae = small().fit(X)

    def answers():
        return [mvae.transform(X), mvae.reconstruct(X), mvae.score_samples(X), mvae.sample(5, 0)]

    before, state, n_iter = answers(), mvae._state, mvae.n_iter_
    call = globals()[use](mvae)
    # Threads that do not get a stack end the process, in OpenMP; they are there by now.
    torch.ones(1000, 1000).exp_().sum()
    limit_memory(megabytes)
    try:
        call()
        raised = None
    except Exception as error:
        raised = error
    lift_limit()
    assert mvae._state is state
    assert mvae.n_iter_ == n_iter
    for now, then in zip(answers(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    mvae.set_params(**small().get_params(deep=False)).fit(X)
    assert np.isfinite(mvae.transform(X)).all()
    return {
        "types": np.array([base.__name__ for base in type(raised).__mro__]),
        "message": np.array(str(raised)),
    }


def outcome(job):
    """The error of ``run_out``, as this process can raise it."""
    found = job.result()
    types, message = found["types"].tolist(), str(found["message"])
    raise (MemoryError if "MemoryError" in types else RuntimeError)(f"{types[0]}: {message}")


AMOUNT = r"(Unable to allocate [\d.]+ [MG]iB for an array|tried to allocate \d+ bytes)"


@needs_a_limit
@pytest.mark.parametrize(
    ("use", "expected"),
    [
        # What a layer gives for so many rows.
        ("fit_with_a_large_batch", f"batch_size=1000000 and k=2.*{AMOUNT}"),
        ("partial_fit_with_a_large_batch", f"batch_size=1000000 and k=2.*{AMOUNT}"),
        ("fit_with_wide_layers", f"narrower layers.*{AMOUNT}"),
        ("fit_with_many_components", f"k=1000000.*{AMOUNT}"),
        ("fit_of_wide_rows", f"narrower layers.*{AMOUNT}"),
        ("fit_of_very_wide_rows", AMOUNT),
        ("fit_of_integers", AMOUNT),
    ],
)
def test_where_memory_runs_out_fit_says_what_helps_and_an_earlier_fit_is_whole(
    use, expected, start
):
    with pytest.raises(MemoryError, match=f"fit ran out of memory.*{expected}"):
        outcome(start(run_out, use=use, megabytes=64))


@needs_a_limit
@pytest.mark.parametrize(
    "use",
    [
        "transform",
        "transform_of_integers",
        "mixing_weights",
        "score_samples",
        "reconstruct",
        "inverse_transform",
        "sample",
    ],
)
def test_where_memory_runs_out_at_rest_the_error_says_so_and_the_fit_is_whole(use, start):
    with pytest.raises(MemoryError, match=AMOUNT):
        outcome(start(run_out, use=use, megabytes=16))


@needs_a_limit
def test_where_memory_runs_out_with_two_threads(start):
    job = start(run_out, use="fit_with_a_large_batch", megabytes=64, n_threads=2)
    with pytest.raises(MemoryError, match=f"batch_size=1000000 and k=2.*{AMOUNT}"):
        outcome(job)


def fit_sparse(megabytes):
    """Fit rows that take twice as much when dense, and return their codes."""
    n_rows = megabytes * MB // (10_000 * 8) * 2
    X = sparse.random_array((n_rows, 10_000), density=1e-4, rng=0, format="csr")
    mvae = small(batch_size=256, architecture=MLP((8,))).fit(X[:256])
    limit_memory(megabytes)
    Z = mvae.fit(X).transform(X)
    lift_limit()
    np.testing.assert_allclose(Z[:9], mvae.transform(X[:9].toarray()), rtol=0.0, atol=1e-9)
    return {"codes": Z}


@needs_a_limit
def test_sparse_rows_are_fitted_where_there_is_no_room_for_the_dense_ones(start):
    codes = start(fit_sparse, megabytes=250).result()["codes"]
    assert codes.shape == (6552, 4)
    assert np.isfinite(codes).all()


def fit_small(megabytes):
    X = np.random.default_rng(0).normal(size=(64, 8))
    mvae = small().fit(X)
    expected = mvae.transform(X)
    limit_memory(megabytes)
    assert (mvae.fit(X).transform(X) == expected).all()
    assert (mvae.partial_fit(X).transform(X) != expected).any()
    return {}


@needs_a_limit
def test_a_fit_needs_no_more_memory_than_it_uses(start):
    """What is taken to be fast, and given back at once, is not worth an error."""
    start(fit_small, megabytes=8).result()


class Noted(MLP):
    """Keeps weak references to the decoders that it has made."""

    decoders: ClassVar = []

    def build(self, n_features, latent_dim, k):
        encoder, decoder = super().build(n_features, latent_dim, k)
        self.decoders.append(weakref.ref(decoder))
        return encoder, decoder


def hold_error():
    X = np.random.default_rng(0).normal(size=(1_000_000, 8))
    mvae = small(batch_size=len(X), architecture=Noted((16,)))
    mvae.partial_fit(X[:100])  # so that all is imported
    gc.disable()
    limit_memory(64)
    try:
        mvae.fit(X)
    except (MemoryError, RuntimeError) as error:
        held = error
    lift_limit()
    assert re.search(AMOUNT, str(held))
    assert len(Noted.decoders) > 1
    return {"is gone": np.array(Noted.decoders[-1]() is None)}


@needs_a_limit
def test_an_error_of_the_host_s_memory_does_not_hold_the_memory(start):
    """In a notebook the last error stays around."""
    assert start(hold_error).result()["is gone"]


def fit_memory_map(path, n_rows):
    """Returns the bytes that a fit of all rows takes beyond one of a few."""
    X = np.memmap(path, dtype=np.float32, mode="r", shape=(n_rows, 512))
    mvae = small(batch_size=512, architecture=MLP((8,))).fit(X[:5000])
    before = anonymous_memory()
    peak, stop = before, threading.Event()

    def watch():
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, anonymous_memory())
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    mvae.fit(X)
    stop.set()
    thread.join()
    return {"bytes": np.array(peak - before)}


def anonymous_memory():
    """Bytes, in memory or swapped out, that are not those of a file."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return 1024 * sum(int(x.split()[1]) for x in lines if x.startswith(("RssAnon:", "VmSwap:")))


@needs_a_limit
def test_a_memory_map_is_read_a_batch_at_a_time(start, tmp_path):
    """100 MB of rows: the process never holds more than a small part of them."""
    path, n_rows = tmp_path / "rows.dat", 50_000
    with path.open("wb") as file:
        file.truncate(n_rows * 512 * 4)
    extra = start(fit_memory_map, path=str(path), n_rows=n_rows).result()["bytes"]
    assert extra < n_rows * 512 * 4 / 4


class Hungry(MLP):
    """Its encoder runs out of memory in training on more than 32 rows, and otherwise when told."""

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


def test_out_of_memory_in_fit_says_what_helps_and_keeps_the_earlier_fit(hungry, digits):
    X = digits[0][:100]
    state, codes = hungry._state, hungry.transform(X)
    hungry.set_params(batch_size=64)
    with pytest.raises(torch.OutOfMemoryError, match=r"batch_size=64 and k=3.*7 GiB"):
        hungry.fit(X)
    assert hungry._state is state
    np.testing.assert_array_equal(hungry.transform(X), codes)
    hungry.set_params(batch_size=32).fit(X)


@pytest.mark.parametrize(
    "use",
    [
        lambda mvae, X: mvae.transform(X),
        lambda mvae, X: mvae.mixing_weights(X),
        lambda mvae, X: mvae.reconstruct(X),
        lambda mvae, X: mvae.inverse_transform(np.zeros((5, 6))),
        lambda mvae, X: mvae.score(X),
        lambda mvae, X: mvae.fit(X),  # in the mean weights, at its end
    ],
)
def test_out_of_memory_at_rest_says_once_what_helps(hungry, digits, monkeypatch, use):
    monkeypatch.setattr(Hungry, "at_rest", True)
    with pytest.raises(torch.OutOfMemoryError, match="set_params\\(device='cpu'\\)") as raised:
        use(hungry, digits[0][:100])
    assert str(raised.value).count("torch says") == 1


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_out_of_memory_is_a_failed_candidate_of_a_search(hungry, digits):
    search = GridSearchCV(hungry, {"batch_size": [32, 64]}, cv=2)
    with pytest.warns(FitFailedWarning, match="ran out of memory"):
        search.fit(digits[0][:200])
    assert search.best_params_ == {"batch_size": 32}


def test_an_out_of_memory_error_does_not_hold_the_memory(hungry, digits):
    """In a notebook the last error stays around."""
    hungry.set_params(batch_size=64)
    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError) as raised:
            hungry.fit(digits[0][:100])
        assert Hungry.decoders[-1]() is None, raised
    finally:
        gc.enable()
