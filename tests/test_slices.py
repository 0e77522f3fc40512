"""Slices of minibatches; what ranks do with them is in tests/distributed."""

import numpy as np
import pytest
import torch
from processes import Of, minibatches

from skmvae._distributed.group import ALONE
from skmvae._distributed.slices import slices
from skmvae._model.minibatch import Minibatch


@pytest.mark.parametrize("sizes", [[64, 64], [100, 100, 100], [1, 99], [7, 0, 60], [5, 5, 5, 5]])
@pytest.mark.parametrize("batch_size", [4, 32, 1000])
def test_every_row_has_one_place_and_every_minibatch_its_size(sizes, batch_size):
    found = minibatches(sizes, batch_size)
    assert found.min() >= 0
    np.testing.assert_array_equal(found.sum(1), sizes)
    totals = found.sum(0)
    assert totals.min() >= 1
    assert len(totals) == -(-sum(sizes) // batch_size)
    assert abs(totals[:-1] - batch_size).max(initial=0) < len(sizes)
    parts = [slices(Of(rank, sizes), size, batch_size) for rank, size in enumerate(sizes)]
    for step, total in zip(zip(*parts, strict=True), totals, strict=True):
        assert [part.n_rows for part in step] == [total] * len(sizes)
        ends = [part.rows.stop for part in step]
        assert [part.start for part in step] == [0, *ends[:-1]]
        assert ends[-1] == total


def test_equal_shards_have_equal_parts():
    np.testing.assert_array_equal(minibatches([64, 64], 32), np.full((2, 4), 16))


def test_a_lone_process_has_the_minibatches_that_it_always_had():
    assert slices(ALONE, 70, 32) == [Minibatch.whole(n) for n in (32, 32, 6)]


def test_fewer_rows_than_ranks_in_a_minibatch_are_refused():
    with pytest.raises(ValueError, match="batch_size=2 is less than the number of ranks, 3"):
        slices(Of(1, [5, 5, 5]), 5, 2)


def test_a_whole_minibatch_needs_nobody():
    own = torch.arange(12.0).reshape(2, 3, 2)
    minibatch = Minibatch.whole(3)
    assert minibatch.gather(own) is own
    assert minibatch.equal_part(own) is own
    assert torch.equal(own[:, minibatch.rows], own)


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 100])
def test_every_so_manieth_row_has_its_place(stride):
    rows = torch.arange(23)
    found = []
    for start, size in ((0, 9), (9, 0), (9, 2), (11, 12)):
        own = rows[start : start + size][-start % stride :: stride]
        part = Minibatch(23, start, size).every(stride)
        assert part.rows == slice(len(found), len(found) + len(own))
        assert part.n_rows == len(rows[::stride])
        found += own.tolist()
    assert found == rows[::stride].tolist()
