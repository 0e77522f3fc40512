"""Training on a GPU as captured graphs. All but one of the tests need a GPU."""

import contextlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import data, settings, small_network

from skmvae import MVAETransformer
from skmvae._fit import batches
from skmvae._fit.epoch import Trainer
from skmvae._fit.graphs import GraphedStep


class FakeGraph:
    """Takes note of what is called while it captures, and does it again when replayed."""

    capturing = None

    def __init__(self):
        self.calls = []

    def register_generator_state(self, generator):
        pass

    def replay(self):
        for call in self.calls:
            call()

    @contextlib.contextmanager
    def capture(self, **kwargs):
        FakeGraph.capturing = self
        yield
        FakeGraph.capturing = None


class FakeStream:
    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        pass


def test_each_size_is_warmed_up_then_captured_once_then_replayed(monkeypatch):
    """The bookkeeping alone, without a GPU: every call is one step, whichever way it is made."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **kwargs: graph.capture(**kwargs))
    eager, steps, prepared = [], [], []

    def step(size):
        if FakeGraph.capturing is None:
            eager.append(size)
            steps.append(size)
        else:
            FakeGraph.capturing.calls.append(lambda: steps.append(size))

    graphed = GraphedStep(step, lambda: prepared.append(True), torch.Generator())
    sizes = [8, 8, 8, 8, 3] * 5
    for size in sizes:
        graphed(size)
    assert steps == sizes
    assert eager == [8, 8, 8, 3, 3, 3]
    assert len(prepared) == 2


def trained(graphed, precision="float32", likelihood="gaussian", objective="melbo", n_rows=100):
    """Weights and terms after 8 epochs of batches of 16 rows, the last one of 4."""
    network = small_network(likelihood=likelihood, hidden=(64,)).cuda()
    rows = data(n_rows, device="cuda")
    trainer = Trainer(network, rows, settings(precision=precision, objective=objective), seed=0)
    assert isinstance(trainer._run_step, GraphedStep)
    if not graphed:
        trainer._run_step = trainer._step
    shuffler = np.random.default_rng(0)
    terms = [trainer.run_epoch(shuffler.permutation(n_rows), "") for _ in range(8)]
    weights = torch.cat([p.detach().flatten() for p in network.parameters()])
    return weights.cpu(), np.array(terms), trainer


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("objective", ["melbo", "averaged", "elbo"])
def test_graphs_give_what_the_plain_step_gives(precision, objective):
    """The same draws, too: the generator goes on where the graph before left it."""
    weights, terms, trainer = trained(True, precision, objective=objective)
    expected_weights, expected_terms, _ = trained(False, precision, objective=objective)
    assert sorted(trainer._run_step._graphs) == [4, 16]
    np.testing.assert_allclose(terms, expected_terms, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_an_epoch_of_replays_does_not_synchronise():
    _, _, trainer = trained(True)
    order = np.arange(100)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            torch.ones((), device="cuda").item()
        for size in trainer._batches.over(order):
            trainer._run_step(size)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_streamed_rows_train_like_resident_ones(monkeypatch):
    resident, _, _ = trained(True)
    monkeypatch.setattr(batches, "_RESIDENT_SHARE", 0.0)
    streamed, _, trainer = trained(True)
    assert isinstance(trainer._batches, batches.StreamedBatches)
    torch.testing.assert_close(streamed, resident, rtol=1e-3, atol=1e-4)


def fit(X, seed=0, **params):
    return MVAETransformer(
        k=2, latent_dim=3, max_iter=5, random_state=seed, device="cuda", **params
    ).fit(X)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_same_model(digits, precision):
    X, _ = digits
    first, second = (fit(X, precision=precision).transform(X) for _ in range(2))
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_two_fits_in_two_threads(digits):
    X, _ = digits
    alone = [fit(X, seed).transform(X) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: fit(X, seed).transform(X), (0, 1)))
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_a_model_fitted_on_a_gpu_gives_the_same_on_a_cpu(digits):
    X, _ = digits
    mvae = pickle.loads(pickle.dumps(fit(X)))
    on_gpu = mvae.transform(X), mvae.reconstruct(X), mvae.score_samples(X)
    mvae.set_params(device="cpu")
    on_cpu = mvae.transform(X), mvae.reconstruct(X), mvae.score_samples(X)
    for found, expected in zip(on_gpu, on_cpu, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_a_row_does_not_depend_on_its_neighbours(digits):
    X, _ = digits
    mvae = fit(X)
    np.testing.assert_array_equal(mvae.transform(X[:3]), mvae.transform(X)[:3])


@pytest.mark.gpu
def test_early_stopping(digits):
    X, _ = digits
    history = fit(X, early_stopping=True).history_
    assert np.isfinite(history["validation_loss"]).all()
