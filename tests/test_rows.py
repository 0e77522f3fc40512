"""Rows in the network's units, and functions of them block by block."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skmvae._machine.rows import BLOCK_ROWS, ScaledRows, map_blocks, mean_and_scale
from skmvae._machine.runtime import make_generator

CPU = torch.device("cpu")
BLOCK = BLOCK_ROWS["cpu"]


def rows_of(X, mean=0.0, scale=1.0):
    return ScaledRows(X, mean, scale, CPU)


def layouts(X):
    memory_mapped = X.copy()
    memory_mapped.flags.writeable = False
    padded = np.zeros((len(X), 2 * X.shape[1]), X.dtype)
    padded[:, ::2] = X
    return {
        "C": X,
        "F": np.asfortranarray(X),
        "read-only": memory_mapped,
        "negative strides": X[::-1, ::-1].copy()[::-1, ::-1],
        "strided": padded[:, ::2],
        "big-endian": X.astype(X.dtype.newbyteorder(">")),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaled_rows_of_any_layout(dtype):
    X = np.random.default_rng(0).normal(5.0, 3.0, (20, 4)).astype(dtype)
    mean, scale = X.mean(0), 2.5
    expected = ((X - mean) / dtype(scale)).astype(np.float32)
    for name, layout in layouts(X).items():
        before = layout.copy()
        rows = rows_of(layout, mean, scale)
        np.testing.assert_allclose(rows[3:9], expected[3:9], rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(rows[np.array([7, 0, 7])], expected[[7, 0, 7]], rtol=1e-6)
        assert rows[3:9].dtype == torch.float32
        np.testing.assert_array_equal(layout, before)


def test_scaled_rows_never_share_memory_with_x():
    X = np.ones((10, 3), np.float32)
    rows_of(X)[2:5].add_(1.0)
    assert (X == 1.0).all()


def test_scaling_is_done_before_rounding_to_float32():
    # An offset of 1e9 leaves float32 no digits for a spread of 1.
    X = 1e9 + np.arange(8.0)[:, None]
    np.testing.assert_allclose(rows_of(X, X.mean(0), 1.0)[:], X - X.mean(0))


def test_overflow_of_float32_is_an_error_after_scaling():
    X = np.full((3, 2), 1e39)
    assert rows_of(X, 0.0, 1e38)[:].isfinite().all()
    with pytest.raises(ValueError, match="too large for dtype\\('float32'\\)"):
        rows_of(X)[:]


@pytest.mark.parametrize("order", ["C", "F"])
def test_mean_and_scale(order):
    X = np.asarray(np.random.default_rng(0).normal(3.0, 2.0, (5000, 3)), order=order)
    mean, scale = mean_and_scale(X)
    np.testing.assert_allclose(mean, X.mean(0), rtol=1e-12)
    assert scale == pytest.approx(np.sqrt(X.var(0).mean()), rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e300])
def test_constant_data_have_scale_one(value):
    mean, scale = mean_and_scale(np.full((1000, 3), value))
    assert scale == 1.0
    np.testing.assert_allclose(mean, value)


@pytest.mark.parametrize("constant", [1.7e12, -1e300])
def test_a_constant_column_does_not_hide_the_scale_of_the_others(constant):
    X = 1e-3 * np.random.default_rng(0).normal(size=(500, 5))
    mean, scale = mean_and_scale(np.c_[X, np.full(500, constant)])
    assert mean[5] == constant
    assert scale == pytest.approx(np.sqrt(X.var(0).sum() / 6), rel=1e-12)


def test_variance_that_underflows_is_an_error():
    with pytest.raises(ValueError, match="too small"):
        mean_and_scale(1e-170 * np.arange(6.0).reshape(3, 2))


def test_variance_that_overflows_is_an_error():
    with pytest.raises(ValueError, match="too large"):
        mean_and_scale(np.array([[1e200], [-1e200]]))


def test_mean_and_scale_do_not_copy_x():
    X = np.ones((200_000, 20), np.float32)
    tracemalloc.start()
    mean_and_scale(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < X.nbytes / 10


@pytest.mark.parametrize("n_rows", [1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
def test_map_blocks_sees_blocks_of_one_size(n_rows):
    X = np.random.default_rng(0).normal(size=(n_rows, 3)).astype(np.float32)
    shapes = set()

    def double(block):
        shapes.add(tuple(block.shape))
        return 2 * block

    out = map_blocks(double, rows_of(X), np.empty_like(X))
    np.testing.assert_array_equal(out, 2 * X)
    assert shapes == {(BLOCK, 3)}


def test_map_blocks_refuses_to_return_nan():
    with pytest.raises(ValueError, match="rows 0 to 2 gave non-finite results"):
        map_blocks(lambda b: b / 0.0, rows_of(np.ones((3, 2))), np.empty((3, 2)))


@settings(deadline=None, max_examples=40)
@given(
    n_rows=st.integers(1, 200),
    n_in=st.integers(1, 40),
    n_hidden=st.sampled_from([1, 16, 33, 500, 512]),
    seed=st.integers(0, 1000),
)
def test_a_row_is_bitwise_independent_of_its_neighbours(n_rows, n_in, n_hidden, seed):
    """The fact about matrix products of one shape that inference rests on."""
    g = make_generator(seed, CPU)
    first = torch.randn(2, n_in, n_hidden, generator=g)
    second = torch.randn(2, n_hidden, 7, generator=g)
    X = torch.randn(n_rows, n_in, generator=g).numpy()

    def network(x):
        h = torch.relu(torch.baddbmm(first[:, :1], x.expand(2, *x.shape), first))
        return torch.baddbmm(second[:, :1], h, second).transpose(0, 1).flatten(1)

    def run(rows):
        return map_blocks(network, rows_of(rows), np.empty((len(rows), 14), np.float32))

    together = run(X)
    order = np.random.default_rng(seed).permutation(n_rows)
    np.testing.assert_array_equal(run(X[order]), together[order])
    np.testing.assert_array_equal(run(X[:1]), together[:1])
    np.testing.assert_array_equal(run(X[-1:]), together[-1:])
