"""How the rows of a minibatch are shared; the rest is in tests/distributed, with real ranks."""

import numpy as np
import pytest
import torch
from processes import Of, minibatches

from skmvae._distributed.group import ALONE
from skmvae._distributed.slices import Share, shares


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
    parts = [shares(Of(rank, sizes), size, batch_size) for rank, size in enumerate(sizes)]
    for step, total in zip(zip(*parts, strict=True), totals, strict=True):
        assert [share.total for share in step] == [total] * len(sizes)
        ends = [share.rows.stop for share in step]
        assert [share.start for share in step] == [0, *ends[:-1]]
        assert ends[-1] == total


def test_equal_shards_have_equal_parts():
    np.testing.assert_array_equal(minibatches([64, 64], 32), np.full((2, 4), 16))


def test_a_lone_process_has_the_minibatches_that_it_always_had():
    assert [(s.start, s.size, s.total) for s in shares(ALONE, 70, 32)] == [
        (0, 32, 32),
        (0, 32, 32),
        (0, 6, 6),
    ]


def test_fewer_rows_than_ranks_in_a_minibatch_are_refused():
    with pytest.raises(ValueError, match="batch_size=2 is less than the number of ranks, 3"):
        shares(Of(1, [5, 5, 5]), 5, 2)


def test_a_share_of_all_is_all():
    own = torch.arange(12.0).reshape(2, 3, 2)
    share = Share.of_all(3)
    assert share.whole(own) is own
    assert torch.equal(own[:, share.rows], own)


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 100])
def test_every_so_manieth_row_has_its_place(stride):
    rows = torch.arange(23)
    found = []
    for start, size in ((0, 9), (9, 0), (9, 2), (11, 12)):
        own = rows[start : start + size][-start % stride :: stride]
        share = Share(ALONE, start, size, 23).every(stride)
        assert share.rows == slice(len(found), len(found) + len(own))
        assert share.total == len(rows[::stride])
        found += own.tolist()
    assert found == rows[::stride].tolist()
