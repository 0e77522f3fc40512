"""Devices, seeds, and the way from arrays to tensors and back."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skmvae._runtime import (
    BLOCK_ROWS,
    ScaledRows,
    draw_seed,
    gradients,
    inference_device,
    make_generator,
    map_blocks,
    matrix_products,
    mean_and_scale,
    no_gradients,
    resolve_device,
    resolve_precision,
)

CPU = torch.device("cpu")
BLOCK = BLOCK_ROWS["cpu"]


def rows_of(X, mean=0.0, scale=1.0):
    return ScaledRows(X, mean, scale, CPU)


def test_auto_takes_what_there_is():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("device", ["gpu", "helloworld", "", "mps", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ValueError, match=f"device={device!r}"):
        resolve_device(device)


def test_inference_falls_back_to_the_cpu_with_a_warning():
    with pytest.warns(UserWarning, match="Computing on the CPU"):
        assert inference_device("cuda:99") == CPU


def test_seeds():
    assert draw_seed(7) == draw_seed(np.int64(7)) == 7
    assert draw_seed(None) != draw_seed(None)
    random_state = np.random.RandomState(0)
    assert draw_seed(random_state) != draw_seed(random_state)
    assert draw_seed(np.random.RandomState(0)) == draw_seed(np.random.RandomState(0))


def test_generators_are_independent_of_the_global_one():
    first = torch.rand(3, generator=make_generator(5, CPU))
    second = torch.rand(3, generator=make_generator(5, CPU))
    assert torch.equal(first, second)


def test_gradients_hold_inside_every_mode_of_the_caller():
    with torch.no_grad(), torch.inference_mode(), torch.autocast("cpu"), gradients():
        x = torch.ones(2, 2, requires_grad=True)
        product = x @ x
        assert product.dtype == torch.float32
        product.sum().backward()
        assert x.grad is not None
    with no_gradients():
        assert not (torch.ones(2, requires_grad=True) * 2).requires_grad


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


def test_precision_auto_takes_what_the_hardware_has(monkeypatch):
    for units in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda u=units: {"amx_bf16": u})
        assert resolve_precision("auto", CPU) == ("bfloat16" if units else "float32")
        for precision in ("float32", "bfloat16"):
            assert resolve_precision(precision, CPU) == precision


def test_precision_auto_is_float32_where_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_precision("auto", CPU) == "float32"


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_precision_auto_on_a_gpu(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    expected = "bfloat16" if capability >= (8, 0) else "float32"
    assert resolve_precision("auto", torch.device("cuda")) == expected


def test_matrix_products_and_nothing_else_are_reduced():
    a = torch.full((1, 2, 2), 1.001)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with matrix_products(precision, CPU):
            assert torch.baddbmm(a, a, a).dtype == dtype
            assert (a * a).sum().dtype == torch.float32
