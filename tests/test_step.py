"""One epoch: the step, the optimizer, the log of the terms."""

import gc
import weakref

import numpy as np
import pytest
import torch
from networks import data, generator, objective, settings, small_network, terms_of

from skmvae._distributed.group import ALONE
from skmvae._fit import step as step_module
from skmvae._fit.batches import ResidentBatches
from skmvae._fit.schedules import SCHEDULES
from skmvae._fit.step import _STEPS_BETWEEN_CLEARING, Trainer, _clear_vanished_moments, _TermsLog
from skmvae._model.objective import OBJECTIVES, ObjectiveTerms


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_never_reads_a_value(name, likelihood, precision):
    """Reading one makes a GPU finish its queue, and cannot be captured in a graph."""
    rows = data(160)
    chosen = settings(objective=objective(name), precision=precision)
    trainer = Trainer(small_network(likelihood=likelihood), rows, chosen, n_training=160, seed=0)
    trainer._batches = ResidentBatches(rows)  # those of a GPU
    trainer._optimizer.step = lambda: None  # Adam on a CPU, unlike on a GPU, reads its step counts
    trainer._own_generator = trainer._generator  # of an epoch
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for inputs, minibatch in trainer._minibatches(np.arange(160)):
            trainer._step(inputs, minibatch)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["aten::baddbmm"] > 10
    for name in ("item", "_local_scalar_dense", "is_nonzero", "nonzero"):
        assert f"aten::{name}" not in counts


@pytest.mark.parametrize(
    ("schedule", "beta1", "beta2"), [("constant", 0.9, 0.999), ("trapezoid", 0.85, 0.98)]
)
def test_an_epoch_is_the_plain_loop(schedule, beta1, beta2):
    """Adam written out, on the terms of each batch in turn."""
    rows, order = data(40), np.random.default_rng(5).permutation(40)
    chosen = settings(objective=objective(beta=2.0), max_iter=3, schedule=SCHEDULES[schedule])
    factor = SCHEDULES[schedule].factor
    network, oracle = small_network(), small_network()
    terms = Trainer(network, rows, chosen, n_training=40, seed=5).run_epoch(np.arange(40), "")
    draws = generator(5)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in oracle.parameters()]
    totals = torch.zeros(5, dtype=torch.float64)
    for step, start in enumerate(range(0, 40, 16), start=1):
        x = rows[order[start : start + 16]]
        batch = terms_of(oracle, x, chosen.objective, draws)
        totals += len(x) / 40 * torch.stack(batch).detach().double()
        loss = batch.reconstruction + batch.kl_latent + batch.kl_mixing + 2.0 * batch.dhsic
        gradients = torch.autograd.grad(loss, list(oracle.parameters()))
        with torch.no_grad():
            named = zip(oracle.named_parameters(), gradients, moments, strict=True)
            for (name, parameter), gradient, (first, second) in named:
                rate = 1e-2 if name == "likelihood.raw_variance" else 1e-3
                rate *= factor((step - 0.5) / 9)
                first.mul_(beta1).add_((1 - beta1) * gradient)
                second.mul_(beta2).add_((1 - beta2) * gradient**2)
                scale = (second / (1 - beta2**step)).sqrt() + 1e-8
                parameter -= rate * (first / (1 - beta1**step)) / scale
    np.testing.assert_allclose(terms, totals, rtol=1e-5)
    for found, expected in zip(network.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_the_same_descent_but_for_rounding():
    """The weights move as in float32, and stay float32."""
    moved = {}
    for precision in ("float32", "bfloat16"):
        network = small_network(hidden=(64,))
        before = torch.cat([p.detach().flatten() for p in network.parameters()])
        Trainer(
            network, data(512), settings(precision=precision), n_training=512, seed=0
        ).run_epoch(np.arange(512), "")
        after = torch.cat([p.detach().flatten() for p in network.parameters()])
        assert after.dtype == torch.float32
        moved[precision] = after - before
    assert not torch.equal(moved["float32"], moved["bfloat16"])
    cosine = torch.cosine_similarity(moved["float32"], moved["bfloat16"], dim=0)
    assert cosine > 0.99
    assert moved["bfloat16"].norm().item() == pytest.approx(
        moved["float32"].norm().item(), rel=0.02
    )


def test_moments_without_a_gradient_do_not_become_denormal(monkeypatch):
    """A weight that gets one gradient and then none, beside one that gets one every time."""
    weight = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([weight], betas=SCHEDULES["trapezoid"].betas, fused=True)
    for step in range(5000):
        weight.grad = torch.tensor([float(step == 0), 1.0])
        optimizer.step()
        if step % _STEPS_BETWEEN_CLEARING == 0:
            _clear_vanished_moments(optimizer)
    for name in ("exp_avg", "exp_avg_sq"):
        assert optimizer.state[weight][name].tolist() == [0.0, pytest.approx(1.0, rel=1e-5)]
    calls = []
    monkeypatch.setattr(step_module, "_clear_vanished_moments", calls.append)
    monkeypatch.setattr(step_module, "_STEPS_BETWEEN_CLEARING", 4)
    trainer = Trainer(small_network(), data(10 * 16), settings(), n_training=10 * 16, seed=0)
    for _ in range(2):
        trainer.run_epoch(np.arange(160), "")
    assert len(calls) == 2 * (10 // 4 + 1)


def test_a_trainer_goes_when_the_fit_is_over():
    """And with it the network, Adam's moments and, on a GPU, all rows; not some time later."""
    trainer = Trainer(small_network(), data(), settings(), n_training=50, seed=0)
    trainer.run_epoch(np.arange(50), "")
    gone = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert gone() is None
    finally:
        gc.enable()


def test_the_log_weights_batches_by_their_rows_and_starts_anew():
    log = _TermsLog(3, torch.device("cpu"), ALONE)
    for values in ([1.0, 3.0], [5.0]):
        log.clear()
        for value in values:
            log.add(torch.tensor([value, 2 * value, 0.0, 1.0, 0.0]))
        sizes = [3, 1][: len(values)]
        mean = np.average(values, weights=sizes)
        assert log.means(sizes, "") == ObjectiveTerms(mean, 2 * mean, 0.0, 1.0, 0.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("on_device", [False, True])
def test_every_step_has_its_learning_rate(schedule, on_device):
    """The rate is that at the middle of the step, and ten times as high for the noise variance.

    A captured graph reads it from a tensor, which the host fills before each replay.
    """
    chosen = settings(max_iter=2, learning_rate=0.02, schedule=SCHEDULES[schedule])
    trainer = Trainer(small_network(), data(60), chosen, n_training=40, seed=0)
    factor = SCHEDULES[schedule].factor
    expected = [0.02 * factor((step + 0.5) / 6) for step in range(6)]
    used, groups, step = [], trainer._optimizer.param_groups, trainer._optimizer.step
    if on_device:
        for group in groups:
            group["lr"] = torch.tensor(group["lr"])
    trainer._optimizer.step = lambda: (used.append([float(g["lr"]) for g in groups]), step())
    for rates in (expected[:3], expected[3:]):
        trainer.run_epoch(np.arange(40), "")
        assert trainer.learning_rate == pytest.approx(np.mean(rates))
    np.testing.assert_allclose(used, np.outer(expected, [1.0, 10.0]), rtol=1e-6)
