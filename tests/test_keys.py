"""Keys: the same for what means the same, and another for anything that changes a fit."""

import linecache
import sys
import threading
import types
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from torch import nn

from skmvae._files.keys import key_of
from skmvae.architectures import MLP, Conv


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, np.float64(1)),
        (1, np.int32(1)),
        (1, Fraction(1)),
        (0.5, np.float32(0.5)),
        (True, np.bool_(True)),
        ("melbo", np.str_("melbo")),
        ("folder", Path("folder")),
        ((4, 4), [4.0, np.int64(4)]),
        ({"a": 1, "b": 2}, OrderedDict(b=2.0, a=1)),
        (np.eye(3), np.asfortranarray(np.eye(3))),
        (MLP((4,)), MLP([4])),
        (Conv((1, 8, 8), (4,), strides=(2,)), Conv([1, 8, 8], [4], strides=[2])),
    ],
)
def test_what_means_the_same_has_one_key(one, other):
    assert key_of(one) == key_of(other)


def test_what_differs_has_another_key():
    values = [
        *(None, 0, 1, 1.5, float("nan"), float("inf"), True, False, "1", b"1", 2**60, 2**60 + 1),
        *((), (1,), (1, (2,)), ((1,), 2), {1}, {1: 2}, {2: 1}),
        *(np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), np.ones(2), torch.ones(2)),
        *(MLP(), MLP((4,)), MLP((4,), dropout=0.1), Conv((1, 8, 8)), MLP),
        *(np.array([1, "a"], dtype=object), torch.tanh, torch.relu, nn.Tanh, nn.ReLU),
        *(np.random.RandomState(0), np.random.RandomState(1)),
    ]
    keys = [key_of(value) for value in values]
    # The parameters of a tensor and of an array are the same numbers.
    assert len(set(keys)) == len(values)
    assert keys == [key_of(value) for value in values]


CODE = """
from functools import partial
from sklearn.base import BaseEstimator
import torch
from torch import nn
from skmvae.architectures import ComponentLinear

WIDTHS = {"wide": 8}

def activation(h):
    return torch.relu(h)

def twice(f, h):
    return f(f(h))

class Base(nn.Module):
    slope = 0.5
    def scale(self, h):
        return h * self.slope

class Stack(Base):
    def __init__(self, k, n_in, n_out):
        super().__init__()
        self.first = ComponentLinear(k, n_in, WIDTHS["wide"])
        self.last = ComponentLinear(k, WIDTHS["wide"], n_out)
        self.repeat = partial(twice, lambda h: h + 1)
    @property
    def name(self):
        return "stack"
    @staticmethod
    def shift(h, by=0.25):
        return h + by
    def forward(self, h, generator=None):
        return self.last(self.shift(self.repeat(self.scale(activation(self.first(h))))))

class Own(BaseEstimator):
    def __init__(self, width=3):
        self.width = width
    def build(self, n_features, latent_dim, k):
        return Stack(k, n_features, 2 * latent_dim + 1), Stack(k, latent_dim, n_features)
"""

EDITS = {
    "a function that a layer calls": ("torch.relu(h)", "torch.tanh(h)"),
    "a function of a function": ("f(f(h))", "f(h)"),
    "a lambda": ("h + 1", "h + 2"),
    "a constant of the module": ('"wide": 8', '"wide": 9'),
    "a base class": ("h * self.slope", "h / self.slope"),
    "an attribute of a class": ("slope = 0.5", "slope = 0.75"),
    "a default": ("by=0.25", "by=0.5"),
    "a property": ('return "stack"', 'return "pile"'),
    "build": ("2 * latent_dim + 1)", "1 + 2 * latent_dim)"),
    "the class of a layer": ("class Stack(Base)", "class Stack(nn.Module)"),
}


def own(code, name="user_code"):
    """The architecture that the code of a module defines."""
    module = types.ModuleType(name)
    exec(compile(code, "<cell>", "exec"), vars(module))
    return module.Own()


def test_the_same_code_has_one_key_wherever_it_stands():
    expected = key_of(own(CODE))
    assert key_of(own(CODE, "__main__")) == expected
    assert key_of(own("# A comment.\n\n" + CODE)) == expected
    assert key_of(cloudpickle.loads(cloudpickle.dumps(own(CODE, "__main__")))) == expected
    assert key_of(own(CODE).set_params(width=4)) != expected


@pytest.mark.parametrize("edit", EDITS)
def test_code_that_was_edited_has_another_key(edit):
    before, after = EDITS[edit]
    assert before in CODE
    assert key_of(own(CODE.replace(before, after))) != key_of(own(CODE))


def test_the_code_that_runs_counts_and_not_the_file_that_was_edited_since(tmp_path, monkeypatch):
    path = tmp_path / "layers_of_a_user.py"
    path.write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    import layers_of_a_user

    expected = key_of(layers_of_a_user.Own())
    path.write_text(CODE.replace("torch.relu", "torch.tanh"))
    linecache.checkcache()
    assert key_of(layers_of_a_user.Own()) == expected
    del sys.modules["layers_of_a_user"]


def test_functions_of_a_module_that_is_imported_whole(tmp_path, monkeypatch):
    helpers = types.ModuleType("helpers_of_a_user")
    monkeypatch.setitem(sys.modules, "helpers_of_a_user", helpers)
    code = CODE.replace("torch.relu(h)", "helpers_of_a_user.act(h)")
    code = "import helpers_of_a_user\n" + code
    keys = []
    for body in ("h.relu()", "h.tanh()"):
        exec(f"def act(h): return {body}", vars(helpers))
        keys.append(key_of(own(code)))
    assert keys[0] != keys[1]


def test_classes_inside_a_function_know_what_they_enclose():
    def architecture(act):
        class Inside(BaseEstimator):
            def build(self, n_features, latent_dim, k):
                return act

        return Inside()

    assert key_of(architecture(torch.relu)) == key_of(architecture(torch.relu))
    assert key_of(architecture(torch.relu)) != key_of(architecture(torch.tanh))


def test_an_object_without_a_description_is_a_type_error():
    with pytest.raises(TypeError, match=r"lock object .* cannot be described"):
        key_of({"a": threading.Lock()})
