"""Keys, and the behaviour of architectures: the same for what means the same, and else another."""

import linecache
import sys
import types
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from torch import nn

from skmvae._files.behaviour import behaviour_of, is_same_behaviour
from skmvae._files.keys import code_of_network, key_of
from skmvae._state import NetworkState
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
        ({"a": 1, "b": 2}, {"a": 1.0, "b": 2}),
        (np.eye(3), np.asfortranarray(np.eye(3))),
        (MLP((4,)), MLP([4])),
        ([MLP((4,))] * 2, [MLP((4,)), MLP((4,))]),
        ({torch.relu, torch.tanh}, {torch.tanh, torch.relu}),
        (Conv((1, 8, 8), (4,), strides=(2,)), Conv([1, 8, 8], [4], strides=[2])),
    ],
)
def test_what_means_the_same_has_one_key(one, other):
    assert key_of(one) == key_of(other)


def test_what_differs_has_another_key():
    values = [
        *(None, 0, 1, 1.5, float("nan"), float("inf"), True, False, "1", b"1", 2**60, 2**60 + 1),
        *((), (1,), (1, (2,)), ((1,), 2), {1}, {1: 2}, {2: 1}),
        *(np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), np.ones(2)),
        *(MLP(), MLP((4,)), MLP((4,), dropout=0.1), Conv((1, 8, 8)), MLP),
        *(np.array([1, "a"], dtype=object), torch.tanh, torch.relu, nn.Tanh, nn.ReLU),
        *(nn.LeakyReLU(0.1), nn.LeakyReLU(0.2), np.tanh, np.sinh, WithSlots(1), WithSlots(2)),
    ]
    keys = [key_of(value) for value in values]
    assert len(set(keys)) == len(values)
    assert keys == [key_of(value) for value in values]


class WithSlots:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


@dataclass
class Settings(BaseEstimator):
    width: int = 3


def test_objects_of_all_kinds_have_a_key_that_lasts():
    """Also one that holds itself, cannot be pickled, or changes where nothing is computed."""
    ring = types.SimpleNamespace(x=1)
    ring.ring = ring
    for value in (Settings(4), ring, lambda x: x, torch.Generator(), nn.ReLU()):
        assert key_of(value) == key_of(value)
    assert key_of(Settings(4)) != key_of(Settings(5))


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
    "a property": ('return "stack"', 'return len("pile")'),
    "build": ("2 * latent_dim + 1)", "1 + 2 * latent_dim)"),
    "the class of a layer": (
        "class Stack(Base):",
        "class Steep(Base):\n    slope = 0.9\n\nclass Stack(Steep):",
    ),
}


def own(code, name="user_code"):
    """The architecture that the code of a module defines."""
    module = types.ModuleType(name)
    exec(compile(code, "<cell>", "exec"), vars(module))
    return module.Own()


def described(architecture):
    """What a checkpoint knows of an architecture: its key, and how it behaves."""
    state = NetworkState(
        architecture, 5, 2, 2, "gaussian", 0.5, np.zeros(5), 1.0, np.zeros(5), None, {}
    )
    return key_of((architecture, code_of_network(state))), behaviour_of(state)


def is_same(one, other):
    return one[0] == other[0] and is_same_behaviour(one[1], other[1])


def test_the_same_code_is_the_same_wherever_it_stands():
    expected = described(own(CODE))
    assert is_same(described(own(CODE)), expected)
    assert is_same(described(own(CODE, "__main__")), expected)
    assert is_same(described(own("# A comment.\n\n" + CODE)), expected)
    assert not is_same(described(own(CODE).set_params(width=4)), expected)


def test_a_process_that_cannot_import_it_sees_the_same():
    def architecture():
        class Inside(MLP):
            def build(self, n_features, latent_dim, k):
                return super().build(n_features, latent_dim, k)

        return Inside((4,))

    pickled = cloudpickle.dumps((architecture(), described))
    with joblib.parallel_config("loky", n_jobs=1, inner_max_num_threads=1):
        (found,) = joblib.Parallel(n_jobs=2)([joblib.delayed(_described_there)(pickled)])
    assert is_same(found, described(architecture()))


def _described_there(pickled):
    architecture, describe = cloudpickle.loads(pickled)
    return describe(architecture)


@pytest.mark.parametrize("edit", EDITS)
def test_code_that_was_edited_is_another_architecture(edit):
    before, after = EDITS[edit]
    assert before in CODE
    assert not is_same(described(own(CODE.replace(before, after))), described(own(CODE)))


@pytest.mark.parametrize(
    ("activation", "edited"),
    [
        ("nn.LeakyReLU(0.1)", "nn.LeakyReLU(0.9)"),
        ("getattr(torch, 'relu')", "getattr(torch, 'sigmoid')"),
        ("__import__('functools').cache(lambda h: h.relu())", "lambda h: h.tanh()"),
        ("list({'a': torch.relu, 'b': torch.neg}.values())[0]", "torch.neg"),
        ("(lambda h: h.relu())", "(lambda h: h.relu().detach() + 0 * h)"),
    ],
)
def test_what_code_does_not_show_is_seen_in_what_it_computes(activation, edited):
    codes = (CODE.replace("torch.relu(h)", f"({a})(h)") for a in (activation, edited))
    assert not is_same(*(described(own(code)) for code in codes))


def test_the_code_that_runs_counts_and_not_the_file_that_was_edited_since(tmp_path, monkeypatch):
    path = tmp_path / "layers_of_a_user.py"
    path.write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    import layers_of_a_user

    expected = described(layers_of_a_user.Own())
    path.write_text(CODE.replace("torch.relu", "torch.tanh"))
    linecache.checkcache()
    assert is_same(described(layers_of_a_user.Own()), expected)
    del sys.modules["layers_of_a_user"]
