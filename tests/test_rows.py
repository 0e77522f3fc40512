"""Rows in the network's units, and functions of them block by block."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from skmvae._distributed.group import ALONE
from skmvae._rows import scaled as rows_module
from skmvae._rows.fingerprints import fingerprint, fingerprint_of_shards
from skmvae._rows.scaled import ScaledRows, fill_missing, map_blocks, row_blocks
from skmvae._rows.statistics import is_constant, mean_and_scale, observed_a_row, value_range

CPU = torch.device("cpu")


def rows_of(X, mean=0.0, scale=1.0):
    return ScaledRows(X, mean, scale, CPU)


def layouts(X):
    padded = np.zeros((len(X), 2 * X.shape[1]), X.dtype)
    padded[:, ::2] = X
    return {
        "F": np.asfortranarray(X),
        "negative strides": X[::-1, ::-1].copy()[::-1, ::-1],
        "strided": padded[:, ::2],
        "big-endian": X.astype(X.dtype.newbyteorder(">")),
        "sparse matrix": sparse.csr_matrix(X),
        "sparse array": sparse.csr_array(X),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_any_layout_are_scaled_before_they_are_rounded(dtype):
    """An offset of 1e9 leaves float32 no digits for a spread of 1."""
    X = np.random.default_rng(0).poisson(0.3, (40, 6)).astype(dtype)
    if dtype is np.float64:
        X[:, 0] += 1e9
    mean, scale = mean_and_scale(X)
    expected = (X - mean) / scale
    X.flags.writeable = False
    for name, layout in {"C, read-only": X, **layouts(X)}.items():
        np.testing.assert_array_equal(mean_and_scale(layout)[0], mean)
        assert mean_and_scale(layout)[1] == pytest.approx(scale, rel=1e-12)
        rows = rows_of(layout, mean, scale)
        assert (len(rows), rows.n_features, rows.nbytes) == (40, 6, 40 * 6 * 4)
        for index in (slice(3, 9), np.array([7, 0, 7])):
            np.testing.assert_allclose(rows[index], expected[index], rtol=1e-5, err_msg=name)
        assert rows[3:9].dtype == torch.float32
        rows[2:5].add_(1.0)  # its memory is its own
        after = layout.toarray() if sparse.issparse(layout) else layout
        np.testing.assert_array_equal(after, X)
    found = ScaledRows(X, np.zeros(6), 1.0, CPU, np.float64)[:].numpy()
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, X)


def test_what_overflows_or_underflows_after_scaling_is_an_error():
    X = np.full((3, 2), 1e39)
    assert rows_of(X, 0.0, 1e38)[:].isfinite().all()
    with pytest.raises(ValueError, match="too large for dtype\\('float32'\\)"):
        rows_of(X)[:]
    with pytest.raises(ValueError, match="too small"):
        mean_and_scale(1e-170 * np.eye(6000, 1, k=-3000))  # in one of several blocks
    with pytest.raises(ValueError, match="too large"):
        mean_and_scale(np.array([[1e200], [-1e200]]))
    with pytest.raises(ValueError, match="rows 0 to 2 gave non-finite results"):
        map_blocks(lambda b: b / 0.0, rows_of(np.ones((3, 2))), np.empty((3, 2)), values_a_row=2)


@pytest.mark.parametrize("order", ["C", "F"])
def test_mean_and_scale(order):
    X = np.asarray(np.random.default_rng(0).normal(3.0, 2.0, (5000, 3)), order=order)
    mean, scale = mean_and_scale(X)
    np.testing.assert_allclose(mean, X.mean(0), rtol=1e-12)
    assert scale == pytest.approx(np.sqrt(X.var(0).mean()), rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.7e12, -1e300])
def test_constant_data_have_scale_one(value):
    mean, scale = mean_and_scale(np.full((1000, 3), value))
    assert scale == 1.0
    np.testing.assert_allclose(mean, value)
    # Nor does a constant column hide the scale of the others.
    X = 1e-3 * np.random.default_rng(0).normal(size=(1000, 5))
    mean, scale = mean_and_scale(np.c_[X, np.full(1000, value)])
    assert mean[5] == value
    assert scale == pytest.approx(np.sqrt(X.var(0).sum() / 6), rel=1e-12)


def test_statistics_are_of_what_was_observed():
    rng = np.random.default_rng(0)
    X = rng.normal(3.0, 2.0, (3000, 4)) + 1e9
    X[rng.random(X.shape) < [0.5, 0.01, 0.0, 1.0]] = np.nan
    X[0, :2] = np.nan
    for layout in (X, sparse.csr_array(X)):
        mean, scale = mean_and_scale(layout)
        np.testing.assert_allclose(mean[:3], np.nanmean(X[:, :3] - 1e9, axis=0) + 1e9, atol=3e-7)
        assert np.isnan(mean[3])  # of no value
        assert scale == pytest.approx(np.sqrt(np.nanmean((X - mean)[:, :3] ** 2)), rel=1e-7)
        assert observed_a_row(layout) == pytest.approx(np.mean(~np.isnan(X)) * 4, rel=1e-12)
        assert value_range(layout) == (np.nanmin(X), np.nanmax(X))
        assert not is_constant(layout)
    assert observed_a_row(X[:, 2:3]) == 1.0
    assert is_constant(np.where(np.isnan(X), np.nan, [7.0, 8.0, 9.0, 1.0]))
    assert np.isnan(value_range(X[:, 3:])).all()


def test_rows_have_nan_for_holes_and_their_fill_where_it_is_asked_for():
    X = np.array([[1.0, np.nan], [np.nan, 4.0], [5.0, 6.0]])
    rows = ScaledRows(X, [1.0, 2.0], 2.0, CPU, limits=(0.0, 1.5), fill=np.array([7.0, 8.0]))
    np.testing.assert_array_equal(rows[:], [[0.0, np.nan], [np.nan, 1.0], [1.5, 1.5]])
    filled, missing = fill_missing(rows[[1, 0]], rows.fill)
    np.testing.assert_array_equal(filled, [[7.0, 1.0], [0.0, 8.0]])
    np.testing.assert_array_equal(missing, [[True, False], [False, True]])
    X[0, 0] = 1e39
    with pytest.raises(ValueError, match="too large for dtype\\('float32'\\)"):
        rows[:]


@given(n_rows=st.integers(1, 5000), values_a_row=st.integers(1, 2**24))
def test_row_blocks_are_all_rows_once_and_bounded(n_rows, values_a_row):
    blocks = row_blocks(n_rows, values_a_row)
    assert blocks[0].start == 0
    assert blocks[-1].stop == n_rows
    assert all(before.stop == after.start for before, after in pairwise(blocks))
    largest = max(block.stop - block.start for block in blocks)
    assert 1 <= largest <= 1024
    assert largest == 1 or largest * values_a_row <= 2**22


@pytest.mark.parametrize("n_rows", [1, 7, 8, 29])
def test_map_blocks_computes_each_row_once_and_no_other(n_rows, monkeypatch):
    monkeypatch.setitem(rows_module._BLOCK_ROWS, "cpu", 8)
    X = np.random.default_rng(0).normal(size=(n_rows, 3)).astype(np.float32)
    sizes = []

    def double(block):
        sizes.append(len(block))
        return 2 * block

    out = map_blocks(double, rows_of(X), np.empty_like(X), values_a_row=3)
    np.testing.assert_array_equal(out, 2 * X)
    assert sum(sizes) == n_rows
    assert max(sizes) <= 8


def test_rows_are_copied_or_densified_a_block_at_a_time():
    places = np.unravel_index(np.arange(0, 10**7, 10**4), (20_000, 500))
    for X in (np.ones((20_000, 500), np.float32), sparse.csr_array((np.ones(1000), places))):
        tracemalloc.start()
        mean, scale = mean_and_scale(X)
        ScaledRows(X, mean, scale, CPU)[:128]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < X.shape[0] * X.shape[1] * 8 / 4


def test_rows_have_one_fingerprint_in_whatever_order_and_other_rows_another():
    X = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    found = fingerprint_of_shards(X, ALONE)
    assert fingerprint_of_shards(X[::-1], ALONE) == found
    assert fingerprint_of_shards(sparse.csr_array(X), ALONE) == found
    exchanged = X.copy()
    exchanged[3, [0, 1]] = exchanged[3, [1, 0]]
    nudged = X.copy()
    nudged[49, 4] = np.nextafter(nudged[49, 4], 1, dtype=np.float32)
    longer = [np.vstack([X, X[:1]]), np.vstack([X, np.zeros((1, 5), X.dtype)])]
    others = [exchanged, nudged, *longer, X[1:], X[:, 1:], X.astype(np.float64)]
    assert len({found, *(fingerprint_of_shards(other, ALONE) for other in others)}) == 8


def test_all_nan_are_one_in_fingerprints():
    X = np.ones((4, 3), np.float32)
    X[2, 1] = np.nan
    other = X.copy()
    other.view(np.uint32)[2, 1] ^= 0x80000001  # its sign and its payload
    assert np.isnan(other[2, 1])
    assert other.tobytes() != X.tobytes()
    assert fingerprint(other) == fingerprint(X) != fingerprint(np.nan_to_num(X))
    assert fingerprint_of_shards(other, ALONE) == fingerprint_of_shards(X, ALONE)
