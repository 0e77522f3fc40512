"""Training on a GPU as captured graphs. Most of the tests need a GPU."""

import contextlib
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import assert_same_to_rounding, data, objective, settings, small_network

from skmvae import MVAETransformer
from skmvae._fit import batches
from skmvae._fit.graphs import GraphedStep
from skmvae._fit.schedules import SCHEDULES
from skmvae._fit.step import DivergenceError, Trainer
from skmvae._model.objective import OBJECTIVES

ROWS = {"x": torch.ones(2, 3)}


class FakeGraph:
    """Record calls while capturing, and repeat them in a replay."""

    capturing = None
    register_generator_state = staticmethod(lambda generator: None)

    def __init__(self):
        self.calls, self.broken = [], False

    def replay(self):
        for call in self.calls:
            call()

    @contextlib.contextmanager
    def capture(self, stream, **kwargs):
        """Fail at the end if the step failed, and leave the stream changed, as torch does."""
        before, FakeStream.current = FakeStream.current, stream
        FakeGraph.capturing = self
        yield
        FakeGraph.capturing = None
        if self.broken:
            raise RuntimeError("operation failed due to a previous error during capture")
        FakeStream.current = before


class FakeStream:
    current = None
    __init__ = wait_stream = lambda self, *args, **options: None


@contextlib.contextmanager
def on_stream(stream):
    before, FakeStream.current = FakeStream.current, stream
    try:
        yield
    finally:
        FakeStream.current = before


class FakeGenerator:
    """Refuse to draw after a failed capture, as the generator of older torch does."""

    device = None

    def __init__(self, place=0):
        self.place = place
        self.stuck = False

    def draw(self):
        assert not self.stuck
        self.place += 1

    def clone_state(self):
        return FakeGenerator(self.place)

    def graphsafe_set_state(self, other):
        self.place, self.stuck = other.place, other.stuck


class Steps:
    """Record each step and draw once; fail in the capture of the sizes in ``failures``."""

    def __init__(self, failures):
        self.generator, self.failures = FakeGenerator(), failures
        self.eager, self.taken = [], []

    def __call__(self, x, size):
        if FakeGraph.capturing is None:
            self.eager.append(size)
            self._take(size)
        elif size in self.failures:
            self.generator.stuck = FakeGraph.capturing.broken = True
            raise self.failures[size]
        else:
            FakeGraph.capturing.calls.append(lambda: self._take(size))

    def _take(self, size):
        self.generator.draw()
        self.taken.append(size)


@pytest.fixture
def _without_a_gpu(monkeypatch):
    """The bookkeeping of GraphedStep alone."""
    home = FakeStream()
    monkeypatch.setattr(FakeStream, "current", home)
    fakes = {
        "CUDAGraph": FakeGraph,
        "Stream": FakeStream,
        "current_stream": lambda device: FakeStream.current,
        "stream": on_stream,
        "device": contextlib.nullcontext,
        "graph": lambda graph, **kwargs: graph.capture(**kwargs),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    yield
    assert FakeStream.current is home


@pytest.mark.usefixtures("_without_a_gpu")
@pytest.mark.parametrize("failing", [None, 8, 3])
def test_each_size_is_warmed_up_then_captured_once_then_replayed(failing):
    """Every call is one step; a failed capture gives one warning, and training continues."""
    error = RuntimeError("operation not permitted\nCompile with CUDA_DSA")
    step, prepared = Steps({failing: error}), []
    graphed = GraphedStep(lambda: prepared.append(True), step.generator)
    sizes = [8, 8, 8, 8, 3] * 5
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for size in sizes:
            graphed(step, ROWS, size)
    assert step.taken == sizes
    assert step.generator.place == len(sizes)
    captured = [8, 8, 8, 3, 3, 3]
    assert step.eager == {None: captured, 8: sizes, 3: [*captured, *sizes[19:]]}[failing]
    if failing is None:
        assert not warned
        assert len(prepared) == 2
    else:
        [warning] = warned
        assert str(warning.message).endswith("slowly: operation not permitted")


@pytest.mark.usefixtures("_without_a_gpu")
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), torch.OutOfMemoryError("512 GiB"), DivergenceError("NaN")]
)
def test_errors_of_the_step_itself_are_raised(error):
    step = Steps({8: error})
    graphed = GraphedStep(lambda: None, step.generator)
    for _ in range(3):
        graphed(step, ROWS, 8)
    with pytest.raises(type(error)) as raised:
        graphed(step, ROWS, 8)
    assert raised.value is error


def trained(graphed, precision="float32", name="melbo", schedule="constant"):
    """Parameters and terms after 8 epochs of minibatches of 16 rows, the last one of 4."""
    network, rows = small_network(hidden=(64,)).cuda(), data(100, device="cuda")
    how = {"precision": precision, "objective": objective(name), "schedule": SCHEDULES[schedule]}
    trainer = Trainer(network, rows, settings(max_iter=8, **how), n_training=len(rows), seed=0)
    assert isinstance(trainer._graphed, GraphedStep)
    if not graphed:
        trainer._graphed = None
    terms = [trainer.run_epoch(np.arange(100), "") for _ in range(8)]
    parameters = torch.cat([p.detach().flatten() for p in network.parameters()])
    return parameters.cpu(), np.array(terms), trainer


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_graphs_give_what_the_plain_step_gives(precision, name):
    """Each graph advances the generator, so the draws are the same."""
    found, terms, trainer = trained(True, precision, name=name)
    expected, expected_terms, _ = trained(False, precision, name=name)
    assert sorted(minibatch.size for minibatch, *_ in trainer._graphed._graphs) == [4, 16]
    np.testing.assert_allclose(terms, expected_terms, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_an_epoch_of_replays_does_not_synchronise():
    _, _, trainer = trained(True)
    order = np.arange(100)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a prototype
            torch.cuda.set_sync_debug_mode("error")
        with pytest.raises(RuntimeError, match="synchroniz"):
            torch.ones((), device="cuda").item()
        for inputs, minibatch in trainer._minibatches(order):
            trainer._run_step(inputs, minibatch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_streamed_rows_train_like_resident_ones_and_replays_follow_the_learning_rate(monkeypatch):
    """Parameters would be off by up to 0.03 if replays kept the rate of their capture."""
    expected, _, _ = trained(False, schedule="trapezoid")
    resident, _, _ = trained(True, schedule="trapezoid")
    monkeypatch.setattr(batches, "_RESIDENT_FRACTION", 0.0)
    streamed, _, trainer = trained(True, schedule="trapezoid")
    assert isinstance(trainer._batches, batches.StreamedBatches)
    for found in (resident, streamed):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def fit(X, seed=0, **params):
    return MVAETransformer(
        k=2, latent_dim=3, max_iter=5, random_state=seed, device="cuda", **params
    ).fit(X)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_model_also_in_two_threads(precision, digits):
    X, _ = digits
    alone = [fit(X, seed, precision=precision).transform(X) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        fits = pool.map(lambda seed: fit(X, seed, precision=precision), (0, 1))
    for mvae, expected in zip(fits, alone, strict=True):
        found = mvae.transform(X)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        assert_same_to_rounding(mvae.transform(X[:3]), found[:3])


@pytest.mark.gpu
def test_a_model_fitted_on_a_gpu_gives_the_same_on_a_cpu(digits):
    X, _ = digits
    mvae = pickle.loads(pickle.dumps(fit(X)))
    on_gpu = mvae.transform(X), mvae.reconstruct(X), mvae.score_samples(X)
    mvae.set_params(device="cpu")
    on_cpu = mvae.transform(X), mvae.reconstruct(X), mvae.score_samples(X)
    for found, expected in zip(on_gpu, on_cpu, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
