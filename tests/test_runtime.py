"""Devices, precision, seeds and autograd contexts."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skmvae._runtime import (
    draw_seed,
    gradients,
    inference_device,
    make_generator,
    matrix_products,
    no_gradients,
    resolve_device,
    resolve_precision,
)

CPU = torch.device("cpu")


def test_auto_takes_what_there_is():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    assert resolve_device("cpu") == CPU
    with pytest.warns(UserWarning, match="Computing on the CPU"):
        assert inference_device("cuda:99") == CPU


@pytest.mark.parametrize("device", ["gpu", "helloworld", "", "mps", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ValueError, match=f"device={device!r}"):
        resolve_device(device)


@pytest.mark.parametrize("set_output", ["default", "pandas"])
def test_a_warning_points_at_the_line_of_the_user(fitted, digits, set_output, make_small, tmp_path):
    """The wrappers of scikit-learn and the decorators of autograd are no lines of the user."""
    mvae = copy.copy(fitted).set_params(device="cuda:99").set_output(transform=set_output)
    pipe = make_pipeline(FunctionTransformer(), mvae)
    calls = [mvae.transform, mvae.score_samples, mvae.reconstruct, pipe.transform]
    for call in calls:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            call(digits[0][:2])
        assert [Path(warning.filename) for warning in found] == [Path(__file__)]
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot be written") as found:
        make_small(checkpoint_dir=tmp_path / "file" / "folder").fit(digits[0])
    assert Path(found[0].filename) == Path(__file__)


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("resolve", [resolve_device, inference_device])
def test_a_forked_process_is_told_what_to_do(monkeypatch, device, resolve):
    """As torch sees it, and before anything else is asked of the GPU; no silent way to the CPU."""
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match=f"device='{device}'.*forked subprocess.*loky.*'spawn'"):
        resolve(device)


def test_seeds():
    assert draw_seed(7) == draw_seed(np.int64(7)) == 7
    assert draw_seed(None) != draw_seed(None)
    random_state = np.random.RandomState(0)
    assert draw_seed(random_state) != draw_seed(random_state)
    assert draw_seed(np.random.RandomState(0)) == draw_seed(np.random.RandomState(0))
    first, second = (torch.rand(3, generator=make_generator(5, CPU)) for _ in range(2))
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


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"neon": True, "bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": False}, "float32"),
    ],
)
def test_precision_auto_takes_what_the_hardware_has(units, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    assert resolve_precision("auto", CPU) == expected
    for precision in ("float32", "bfloat16"):
        assert resolve_precision(precision, CPU) == precision
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert resolve_precision("auto", CPU) == "float32"
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # of older torch
    assert resolve_precision("auto", CPU) == "float32"
    for capability, on_a_gpu in (((7, 5), "float32"), ((8, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert resolve_precision("auto", torch.device("cuda")) == on_a_gpu


def test_matrix_products_and_nothing_else_are_reduced():
    a = torch.full((1, 2, 2), 1.001)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with matrix_products(precision, CPU):
            assert torch.baddbmm(a, a, a).dtype == dtype
            assert (a * a).sum().dtype == torch.float32
