"""The training loop on tensors alone."""

import logging

import numpy as np
import pytest
import torch
from networks import data, generator, settings, small_network

from skmvae._fit.epoch import DivergenceError
from skmvae._fit.schedules import trapezoid
from skmvae._fit.training import train
from skmvae._rows.scaled import ScaledRows

CPU = torch.device("cpu")


def run(network, rows, held_out=0, **changes):
    indices = np.arange(len(rows))
    return train(
        network,
        rows,
        training=indices[held_out:],
        held_out=indices[:held_out],
        settings=settings(**changes),
        seed=0,
    )


def parameters(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_the_loss_falls():
    losses = [r["loss"] for r in run(small_network(), data(200), max_iter=30).records]
    assert losses[-1] < losses[0] - 0.5
    assert np.polyfit(range(30), losses, 1)[0] < 0


def test_one_record_an_epoch_with_terms_that_add_up():
    result = run(small_network(), data(), kl_weight=0.5, beta=3.0)
    assert len(result.records) == 3
    assert result.interruption is None
    for record in result.records:
        total = (
            record["reconstruction"]
            + 0.5 * record["kl_latent"]
            + record["kl_weights"]
            + 3.0 * record["dhsic"]
        )
        assert record["loss"] == pytest.approx(total, rel=1e-12)
        assert record["learning_rate"] == 1e-3
        assert record["seconds"] > 0
        assert "validation_loss" not in record


def test_a_cycle_is_as_long_as_the_fit():
    """Counted in minibatches of the rows that are trained on: 5 an epoch, not 7 as of all rows."""
    result = run(
        small_network(),
        data(50),
        held_out=10,
        max_iter=4,
        batch_size=8,
        learning_rate=0.02,
        learning_rate_schedule="trapezoid",
        n_iter_no_change=4,
    )
    steps = 0.02 * np.array([trapezoid((step + 0.5) / 20) for step in range(20)])
    found = [record["learning_rate"] for record in result.records]
    np.testing.assert_allclose(found, steps.reshape(4, 5).mean(axis=1))


def test_each_epoch_sees_every_row_once_in_another_order():
    class Spy(ScaledRows):
        seen: list

        def __getitem__(self, indices):
            self.seen.append(np.asarray(indices))
            return super().__getitem__(indices)

    rows = Spy(np.ones((50, 5), np.float32), 0.0, 1.0, CPU)
    rows.seen = []
    run(small_network(), rows, max_iter=2)
    assert [len(batch) for batch in rows.seen] == [16, 16, 16, 2] * 2
    epochs = np.concatenate(rows.seen[:4]), np.concatenate(rows.seen[4:])
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert not np.array_equal(*epochs)


def test_records_are_means_over_rows_not_over_batches():
    rows = data(17)
    network = small_network()
    # Without a step the terms of one epoch are those of the whole data, whatever the batches.
    one = run(network, rows, max_iter=1, learning_rate=1e-30, batch_size=17).records[0]
    network = small_network()
    many = run(network, rows, max_iter=1, learning_rate=1e-30, batch_size=16).records[0]
    assert many["kl_latent"] == pytest.approx(one["kl_latent"], rel=1e-5)
    assert many["kl_weights"] == pytest.approx(one["kl_weights"], rel=1e-5)


def test_same_seed_same_weights_bitwise():
    first, second = small_network(), small_network()
    run(first, data())
    run(second, data())
    assert torch.equal(parameters(first), parameters(second))


@pytest.mark.parametrize("batch_size", [1, 5, 6, 49, 50, 1000])
def test_any_batch_size_trains_on_all_rows(batch_size):
    network = small_network()
    before = parameters(network)
    result = run(network, data(), batch_size=batch_size, max_iter=1)
    assert np.isfinite(list(result.records[0].values())).all()
    assert not torch.equal(parameters(network), before)


def test_early_stopping_keeps_the_best_weights():
    network, rows = small_network(), data(40)
    result = run(network, rows, held_out=20, max_iter=200, learning_rate=0.05, n_iter_no_change=5)
    losses = [r["validation_loss"] for r in result.records]
    assert 5 < len(losses) < 200
    best = int(np.argmin(losses))
    assert best < len(losses) - 1
    # Training again for just as many epochs as it took to reach the best one gives its weights.
    again = small_network()
    run(again, rows, held_out=20, max_iter=best + 1, learning_rate=0.05, n_iter_no_change=500)
    assert torch.equal(parameters(network), parameters(again))


def test_early_stopping_waits_for_an_improvement_by_tol():
    patient = run(small_network(), data(), held_out=10, max_iter=20, tol=0.0).records
    impatient = run(small_network(), data(), held_out=10, max_iter=20, tol=1e6).records
    assert len(impatient) == 3 + 1  # the first epoch improves on infinity
    assert len(patient) > len(impatient)


def test_held_out_rows_are_not_trained_on():
    X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    changed = X.copy()
    changed[:10] += 100.0
    weights = []
    for array in (X, changed):
        network = small_network()
        rows = ScaledRows(array, 0.0, 1.0, CPU)
        run(network, rows, held_out=10, max_iter=1)
        weights.append(parameters(network))
    assert torch.equal(*weights)


def test_divergence_names_epoch_and_term():
    network = small_network()
    with torch.no_grad():
        network.decoder.layers[-1].bias.fill_(np.inf)
    with pytest.raises(DivergenceError, match=r": reconstruction became .* epoch 1, batch 1\."):
        run(network, data())


def test_divergence_names_the_batch_after_the_step_that_broke_the_weights():
    with pytest.raises(DivergenceError, match=r"epoch 1, batch 2\."):
        run(small_network(), data(), learning_rate=1e38)


def test_divergence_in_the_last_step_is_not_returned():
    with pytest.raises(DivergenceError, match="last batch of epoch 1"):
        run(small_network(), data(), learning_rate=1e38, batch_size=50, max_iter=1)


def test_divergence_is_a_value_error():
    assert issubclass(DivergenceError, ValueError)


class Interrupted(ScaledRows):
    """Presses Ctrl-C when the given number of batches has been read."""

    def __init__(self, rows, batches):
        self.__dict__ = dict(rows.__dict__)
        self.batches = batches

    def __getitem__(self, indices):
        self.batches -= 1
        if self.batches < 0:
            raise KeyboardInterrupt
        return super().__getitem__(indices)


@pytest.mark.parametrize("batches", [4, 5, 7, 8, 10])
def test_interruption_keeps_the_last_finished_epoch(batches):
    network = small_network()
    result = run(network, Interrupted(data(50), batches), max_iter=10)
    n_epochs = batches // 4
    assert isinstance(result.interruption, KeyboardInterrupt)
    assert len(result.records) == n_epochs
    again = small_network()
    run(again, data(50), max_iter=n_epochs)
    assert torch.equal(parameters(network), parameters(again))


def test_interruption_before_the_first_epoch_has_ended_is_raised():
    with pytest.raises(KeyboardInterrupt):
        run(small_network(), Interrupted(data(50), 3))


def test_works_inside_no_grad_and_inference_mode():
    expected, inside = small_network(), small_network()
    run(expected, data())
    with torch.no_grad(), torch.inference_mode():
        run(inside, data())
    assert torch.equal(parameters(expected), parameters(inside))


def test_silent_by_default(capsys, caplog):
    with caplog.at_level(logging.DEBUG, logger="skmvae"):
        run(small_network(), data())
    assert capsys.readouterr() == ("", "")
    assert not caplog.records


def test_verbose_goes_to_the_log_if_somebody_listens(capsys, caplog):
    with caplog.at_level(logging.INFO, logger="skmvae"):
        run(small_network(), data(), verbose=1)
    assert len(caplog.records) == 3
    assert capsys.readouterr().out == ""
    assert "epoch 3/3" in caplog.text
    assert "reconstruction" in caplog.text
    assert caplog.text.count("  learning_rate 1.0e-03  ") == 3


def test_verbose_goes_to_the_screen_if_nobody_does(capsys):
    run(small_network(), data(), verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("epoch 1/3  loss ")


class Deaf(logging.Handler):
    """Shows nothing of what is wanted."""

    def __init__(self):
        super().__init__(logging.WARNING)


@pytest.mark.parametrize("handlers", [[], [logging.NullHandler()], [Deaf()]])
def test_verbose_goes_to_the_screen_if_no_handler_shows_it(handlers, capsys, monkeypatch):
    """A root logger at INFO without a handler drops it."""
    monkeypatch.setattr(logging.root, "handlers", handlers)
    level = logging.root.level
    logging.root.setLevel(logging.INFO)
    try:
        run(small_network(), data(), verbose=1)
    finally:
        logging.root.setLevel(level)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_dropout_is_off_in_validation():
    """The held-out loss is that of the network that is kept, not of one with units dropped."""
    losses = []
    for dropout in (0.0, 0.9):
        network = small_network()
        network.encoder.dropout = network.decoder.dropout = dropout
        result = run(network, data(), held_out=20, max_iter=1, learning_rate=1e-30)
        losses.append(result.records[0]["validation_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_dropout_draws_from_the_training_generator():
    network = small_network()
    network.encoder.dropout = 0.5
    x = torch.ones(4, 5)
    assert not torch.equal(network.encode(x, generator(1)).mean, network.encode(x).mean)
    run(network, data(), max_iter=1)
