"""Minibatches from a host and from a device give the same rows."""

import numpy as np
import pytest
import torch
from networks import data

from skmvae._fit.batches import HostBatches, ResidentBatches, StreamedBatches, batches_of

on_gpu = pytest.mark.gpu


def epoch(batches, order, size=8):
    sizes = [min(size, len(order) - start) for start in range(0, len(order), size)]
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [x.cpu().clone() for x in batches.over(parts)]


def make(source, rows, batch_size):
    return source(rows, batch_size) if source is StreamedBatches else source(rows)


SOURCES = [
    (HostBatches, "cpu"),
    (ResidentBatches, "cpu"),
    pytest.param(ResidentBatches, "cuda", marks=on_gpu),
    pytest.param(StreamedBatches, "cuda", marks=on_gpu),
]


@pytest.mark.parametrize(("source", "device"), SOURCES)
@pytest.mark.parametrize("n_rows", [1, 7, 8, 50])
def test_an_epoch_is_the_rows_in_the_given_order(source, device, n_rows):
    rows, expected = data(n_rows, device=device), data(n_rows)
    batches = make(source, rows, 8)
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(n_rows)
        found = epoch(batches, order)
        assert [len(x) for x in found[:-1]] == [8] * (len(found) - 1)
        assert torch.equal(torch.cat(found), expected[order])


@pytest.mark.parametrize(("source", "device"), SOURCES)
def test_an_epoch_may_leave_rows_out(source, device):
    """Training leaves out the held-out rows; the validation after it has no others."""
    batches = make(source, data(30, device=device), 8)
    for order in (np.arange(20), np.arange(20, 30), np.arange(20)):
        assert torch.equal(torch.cat(epoch(batches, order)), data(30)[order])


@pytest.mark.parametrize(("source", "device"), SOURCES)
def test_a_batch_may_be_larger_than_the_data(source, device):
    batches = make(source, data(5, device=device), 5)
    assert torch.equal(torch.cat(epoch(batches, np.arange(5), 10**12)), data(5)[:])


def test_on_a_cpu_rows_are_gathered_from_x():
    assert isinstance(batches_of(data(), 8), HostBatches)


@pytest.mark.gpu
def test_a_gpu_holds_the_rows_if_they_fit(monkeypatch):
    rows = data(1000, device="cuda")
    assert isinstance(batches_of(rows, 8), ResidentBatches)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (rows.nbytes, 0))
    assert isinstance(batches_of(rows, 8), StreamedBatches)
