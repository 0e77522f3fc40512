"""The training loop, from rows and plain values to a result."""

from dataclasses import replace

import numpy as np
import pytest
from networks import fit_settings, objective

from skmvae._fit.fitting import PreviousFit, fit
from skmvae._fit.rows import split
from skmvae._fit.schedules import SCHEDULES, trapezoid
from skmvae._fit.step import DivergenceError


def rows(n=50, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)


def run(X, previous=None, **changes):
    return fit(X, fit_settings(**changes), seed=0, previous=previous)


def parameters(result):
    return np.concatenate([array.ravel() for array in result.trained.state.arrays.values()])


def test_the_loss_falls():
    losses = [r["loss"] for r in run(rows(200), max_iter=30).trained.records]
    assert losses[-1] < losses[0] - 0.4
    assert np.polyfit(range(30), losses, 1)[0] < 0


def test_one_record_an_epoch_with_terms_that_add_up():
    result = run(rows(), objective=objective(kl_weight=0.5, beta=3.0))
    assert len(result.trained.records) == 3
    assert result.interruption is None
    for r in result.trained.records:
        total = r["reconstruction"] + 0.5 * r["kl_latent"] + r["kl_mixing"] + 3.0 * r["dhsic"]
        assert r["loss"] == pytest.approx(total, rel=1e-12)
        assert r["learning_rate"] == 1e-3
        assert r["seconds"] > 0
        assert "validation_loss" not in r


def test_a_schedule_is_as_long_as_the_fit():
    """Counted in minibatches of the rows that are trained on: 5 an epoch, not 7 as with all."""
    settings = {"max_iter": 4, "batch_size": 8, "learning_rate": 0.02, "n_iter_no_change": 4}
    result = run(rows(50), **settings, validation_fraction=0.2, schedule=SCHEDULES["trapezoid"])
    steps = 0.02 * np.array([trapezoid((step + 0.5) / 20) for step in range(20)])
    found = [record["learning_rate"] for record in result.trained.records]
    np.testing.assert_allclose(found, steps.reshape(4, 5).mean(axis=1))


class Watched:
    """An array that notes which rows are asked for in minibatches, and presses Ctrl-C at one."""

    def __init__(self, X, interrupt_at=None):
        self._X, self.shape, self.dtype = X, X.shape, X.dtype
        self.seen, self._interrupt_at = [], interrupt_at

    def __getitem__(self, indices):
        if isinstance(indices, np.ndarray):
            if len(self.seen) == self._interrupt_at:
                raise KeyboardInterrupt
            self.seen.append(indices)
        return self._X[indices]


def test_each_epoch_sees_every_row_once_in_another_order():
    X = Watched(rows())
    run(X, max_iter=2)
    assert [len(batch) for batch in X.seen] == [16, 16, 16, 2] * 2
    epochs = np.concatenate(X.seen[:4]), np.concatenate(X.seen[4:])
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert not np.array_equal(*epochs)


def test_records_are_means_over_rows_not_over_batches():
    # Without a step the terms of one epoch are those of the whole data, whatever the batches.
    one, many = (
        run(rows(17), max_iter=1, learning_rate=1e-30, batch_size=size).trained.records[0]
        for size in (17, 16)
    )
    for name in ("kl_latent", "kl_mixing"):
        assert many[name] == pytest.approx(one[name], rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 6, 49, 50, 1000])
def test_any_batch_size_trains_on_all_rows(batch_size):
    result = run(rows(), batch_size=batch_size, max_iter=1)
    still = run(rows(), batch_size=batch_size, max_iter=1, learning_rate=1e-30)
    assert np.isfinite(list(result.trained.records[0].values())).all()
    assert not np.array_equal(parameters(result), parameters(still))


def test_early_stopping_keeps_the_best_parameters():
    settings = {"validation_fraction": 0.5, "learning_rate": 0.05}
    result = run(rows(40), **settings, max_iter=200, n_iter_no_change=5)
    losses = [r["validation_loss"] for r in result.trained.records]
    assert 5 < len(losses) < 200
    best = int(np.argmin(losses))
    assert best < len(losses) - 1
    # Training again for just as many epochs as it took to reach the best one gives the same.
    again = run(rows(40), **settings, max_iter=best + 1, n_iter_no_change=500)
    assert np.array_equal(parameters(result), parameters(again))


def test_early_stopping_waits_for_an_improvement_by_tol():
    patient, impatient = (
        run(rows(), validation_fraction=0.2, max_iter=20, tol=tol).trained.records
        for tol in (0.0, 1e6)
    )
    assert len(impatient) == 3 + 1  # the first epoch improves on infinity
    assert len(patient) > len(impatient)


def test_held_out_rows_are_not_trained_on():
    X = abs(np.tanh(rows(40)))
    settings = {"validation_fraction": 0.25, "likelihood": "bernoulli", "max_iter": 1}
    result = run(X, **settings)
    _, held_out = split(np.arange(40), 0.25, result.trained.split_seed)
    changed = X.copy()
    changed[held_out] = 1.0 - changed[held_out]
    assert np.array_equal(parameters(run(changed, **settings)), parameters(result))


def test_divergence_names_epoch_and_term():
    state = run(rows()).trained.state
    broken = {n: np.where(n.endswith("layers.1.bias"), np.inf, a) for n, a in state.arrays.items()}
    broken = {n: a.astype(np.float32) for n, a in broken.items()}
    broken |= {n: a for n, a in state.arrays.items() if n.startswith("encoder")}
    previous = PreviousFit(replace(state, arrays=broken), None, 3, 0, np.ones(state.k), None)
    with pytest.raises(DivergenceError, match=r": reconstruction became .* epoch 1, batch 1\."):
        run(rows(), previous)


def test_divergence_names_the_batch_after_the_step_that_broke_the_parameters():
    with pytest.raises(DivergenceError, match=r"epoch 1, batch 2\."):
        run(rows(), learning_rate=1e38)


def test_divergence_in_the_last_step_is_not_returned():
    with pytest.raises(DivergenceError, match="last batch of epoch 1"):
        run(rows(), learning_rate=1e38, batch_size=50, max_iter=1)


@pytest.mark.parametrize("n_batches", [4, 5, 7, 8, 10])
def test_ctrl_c_keeps_the_last_finished_epoch(n_batches):
    result = run(Watched(rows(), n_batches), max_iter=10)
    n_epochs = n_batches // 4
    assert isinstance(result.interruption, KeyboardInterrupt)
    assert len(result.trained.records) == n_epochs
    assert np.array_equal(parameters(result), parameters(run(rows(), max_iter=n_epochs)))


def test_ctrl_c_before_the_first_epoch_has_ended_is_raised():
    with pytest.raises(KeyboardInterrupt):
        run(Watched(rows(), 3))
