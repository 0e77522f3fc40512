"""Damaged and hostile files: refused by name or right, never run, never larger than they are."""

import contextlib
import io
import json
import math
import os
import pickle
import re
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
import torch
from safetensors.numpy import load, save

import skmvae
from skmvae import SKOPS_TRUSTED, MVAETransformer
from skmvae._files.tensors import _digest
from skmvae.architectures import MLP

resource = pytest.importorskip("resource", reason="links, pipes and limits are those of POSIX")

# Of each kind of file; SKMVAE_FLIPS=500 by hand.
FLIPS = int(os.environ.get("SKMVAE_FLIPS", "60"))

pytestmark = [pytest.mark.cpu, pytest.mark.usefixtures("one_thread")]

X = np.random.default_rng(0).normal(size=(60, 5))
X.flags.writeable = False


def make(**params):
    params = {"architecture": MLP((8,)), "max_iter": 1, "random_state": 0} | params
    return MVAETransformer(2, 2, **params)


@pytest.fixture(scope="module")
def model():
    """With all that a file may have: moments of partial_fit too."""
    return make().fit(X).partial_fit(X)


@pytest.fixture(scope="module")
def model_bytes(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    model.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def right():
    """The model of the fit that has the checkpoints of these tests."""
    return make().fit(X)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Its name and bytes."""
    folder = tmp_path_factory.mktemp("checkpoint")
    make(checkpoint_dir=folder).fit(X)
    (path,) = folder.iterdir()
    return path.name, path.read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def marker(tmp_path):
    """A folder that is there if code of a file was run."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code of the file was run"


def content(mvae):
    """All of a fitted estimator, in a form that == compares bitwise."""
    network, training = vars(mvae._state).copy(), vars(mvae).get("_training")
    arrays = network.pop("arrays") | {"mean": network.pop("mean"), "weights_": mvae.weights_}
    arrays |= {f"training/{n}": a for n, a in training.arrays.items()} if training else {}
    return {
        "parameters": repr(sorted(mvae.get_params().items())),
        "network": repr(sorted(network.items(), key=lambda item: item[0])),
        "training": repr(training and sorted(training.values.items())),
        "history": repr(sorted(mvae.history_.items())),
        "rest": repr((mvae.n_iter_, mvae.noise_variance_, mvae._split_seed, mvae.scale_)),
        "arrays": {n: (a.dtype.str, a.shape, a.tobytes()) for n, a in arrays.items()},
    }


def assert_refused_or_right(path, model, what):
    """Whether it was refused."""
    found, refusal = None, None
    try:
        found = skmvae.load(path)
    except (ValueError, OSError) as error:
        refusal = str(error)
    if refusal is None:
        assert content(found) == content(model), what
    else:
        assert str(path) in refusal, what
    return refusal is not None


def without_seconds(history):
    return {name: column for name, column in history.items() if name != "seconds"}


def assert_fit_is_right(mvae, right, what=""):
    assert without_seconds(mvae.history_) == without_seconds(right.history_), what
    np.testing.assert_array_equal(mvae.weights_, right.weights_, err_msg=what)
    np.testing.assert_array_equal(mvae.transform(X), right.transform(X), err_msg=what)


def fit_beside(folder, **params):
    """A fit with the checkpoints of a folder, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mvae = make(checkpoint_dir=folder, **params).fit(X)
    return mvae, [str(warning.message) for warning in caught]


def fit_beside_one(folder, name, data):
    """The same where ``data`` is in the place of the checkpoint, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / name).write_bytes(data)
    return fit_beside(folder)


def assert_begun_anew(folder, name, data, right, what=""):
    """One warning that names the file, which is kept, and the right model in the end."""
    mvae, messages = fit_beside_one(folder, name, data)
    assert len(messages) == 1, what
    assert messages[0].startswith("A checkpoint cannot be read, and fit begins without: "), what
    assert messages[0].count(str(folder / name)) == 2, what  # what is wrong, and where it is now
    aside, written = sorted(folder.iterdir(), key=lambda path: path.name == name)
    assert re.fullmatch(re.escape(name) + r"\.unreadable-[0-9a-f]{8}", aside.name), what
    assert str(aside) in messages[0], what
    assert aside.read_bytes() == data, what
    assert written.name == name, what
    assert_fit_is_right(mvae, right, what)
    found, messages = fit_beside(folder)
    assert not messages, what
    assert found.history_ == mvae.history_, what  # the seconds too: it was not fitted again


def places_to_cut(data):
    """Lengths: at every kilobyte, and about the ends of the header's length, header and data."""
    header_end = 8 + int.from_bytes(data[:8], "little")
    odd = {1, 7, 8, 9, header_end - 1, header_end, header_end + 1, len(data) - 1}
    return sorted({*range(0, len(data), 1024), *odd})


def flipped(data, rng):
    """One bit of ``data`` is another."""
    position, bit = int(rng.integers(len(data))), int(rng.integers(8))
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed), f"bit {bit} of byte {position}"


# --- Damage


def test_an_undamaged_file_is_right(path, model_bytes, model, checkpoint, right, tmp_path):
    """What the other tests compare with."""
    path.write_bytes(model_bytes)
    assert not assert_refused_or_right(path, model, "undamaged")
    found, messages = fit_beside_one(tmp_path / "folder", *checkpoint)
    assert not messages
    assert_fit_is_right(found, right)


def test_a_truncated_model_file_is_refused(path, model_bytes, model):
    for length in places_to_cut(model_bytes):
        path.write_bytes(model_bytes[:length])
        assert assert_refused_or_right(path, model, f"{length} bytes")


def test_a_model_file_with_something_after_its_end_is_refused(path, model_bytes, model):
    path.write_bytes(model_bytes + b"\0")
    assert assert_refused_or_right(path, model, "")


def test_a_truncated_checkpoint_begins_anew(checkpoint, right, tmp_path):
    name, data = checkpoint
    for length in places_to_cut(data):
        assert_begun_anew(tmp_path / "folder", name, data[:length], right, f"{length} bytes")


def test_a_flipped_bit_of_a_model_file_is_seen(path, model_bytes, model):
    rng = np.random.default_rng(1)
    for _ in range(FLIPS):
        data, what = flipped(model_bytes, rng)
        path.write_bytes(data)
        assert_refused_or_right(path, model, what)


def test_a_flipped_bit_of_a_checkpoint_begins_anew(checkpoint, right, tmp_path):
    rng = np.random.default_rng(2)
    name, original = checkpoint
    for _ in range(FLIPS):
        data, what = flipped(original, rng)
        assert_begun_anew(tmp_path / "folder", name, data, right, what)


def test_a_damaged_checkpoint_of_a_shorter_fit_is_set_aside_too(checkpoint, tmp_path):
    """With constant learning rates a fit would go on from where that one ended."""
    params = {"learning_rate_schedule": "constant"}
    right = make(max_iter=2, **params).fit(X)
    make(checkpoint_dir=tmp_path, **params).fit(X)
    (shorter,) = tmp_path.iterdir()
    shorter.write_bytes(shorter.read_bytes()[:-1])
    mvae, (message,) = fit_beside(tmp_path, max_iter=2, **params)
    assert str(shorter) in message
    assert_fit_is_right(mvae, right)
    assert not shorter.exists()
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names[0].startswith(f"{shorter.name}.unreadable-")
    assert names[1] == shorter.name.replace("-1.safetensors", "-2.safetensors")


DUMPS = {
    "pickle": (
        lambda mvae, path: path.write_bytes(pickle.dumps(mvae)),
        lambda path: pickle.loads(path.read_bytes()),
    ),
    "joblib": (joblib.dump, joblib.load),
    "skops": (skops.io.dump, lambda path: skops.io.load(path, trusted=SKOPS_TRUSTED)),
}


@pytest.mark.parametrize("way", DUMPS)
def test_a_truncated_file_of_another_format_is_refused(way, path, model):
    """By whichever exception: never is there half a model."""
    dump, load_again = DUMPS[way]
    dump(model, path)
    data = path.read_bytes()
    assert content(load_again(path)) == content(model)
    for length in [*range(0, len(data), 1024), 1, 2, 3, len(data) // 2 + 1, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(Exception) as raised:  # noqa: PT011
            load_again(path)
        assert isinstance(raised.value, Exception), length


# --- Something else in their place


def test_two_model_files_swapped_are_each_the_other(tmp_path, model):
    other = make(random_state=1).fit(X)
    model.save(tmp_path / "a")
    other.save(tmp_path / "b")
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    (tmp_path / "c").rename(tmp_path / "b")
    assert content(skmvae.load(tmp_path / "a")) == content(other)
    assert content(skmvae.load(tmp_path / "b")) == content(model)


def test_two_checkpoints_swapped_are_set_aside(tmp_path, right):
    other = make(random_state=1).fit(X)
    make(checkpoint_dir=tmp_path / "a").fit(X)
    make(checkpoint_dir=tmp_path / "b", random_state=1).fit(X)
    (a,), (b,) = (tmp_path / "a").iterdir(), (tmp_path / "b").iterdir()
    assert a.name != b.name
    of_a, of_b = a.read_bytes(), b.read_bytes()
    a.write_bytes(of_b)
    b.write_bytes(of_a)
    for file, data, params, expected in (
        (a, of_b, {}, right),
        (b, of_a, {"random_state": 1}, other),
    ):
        mvae, (message,) = fit_beside(file.parent, **params)
        assert f"{file} is not " in message
        assert_fit_is_right(mvae, expected)
        (aside,) = file.parent.glob("*.unreadable-*")
        assert aside.read_bytes() == data
        assert fit_beside(file.parent, **params)[1] == []


def test_a_model_file_is_no_checkpoint_and_the_other_way(
    path, model_bytes, checkpoint, right, tmp_path
):
    name, data = checkpoint
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is not a model file of skmvae") as raised:
        skmvae.load(path)
    assert str(path) in str(raised.value)
    assert_begun_anew(tmp_path / "folder", name, model_bytes, right)


def make_folder(path):
    path.mkdir()
    (path / "mine").write_bytes(b"")


PLACES = {"folder": make_folder, "pipe": os.mkfifo, "link to itself": lambda p: p.symlink_to(p)}


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_no_file_is_not_read(kind, path):
    PLACES[kind](path)
    with pytest.raises(OSError, match="There is no file") as raised:
        skmvae.load(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_no_file_in_the_place_of_a_checkpoint_stays(kind, checkpoint, right, tmp_path):
    place = tmp_path / checkpoint[0]
    PLACES[kind](place)
    mvae, messages = fit_beside(tmp_path)
    assert_fit_is_right(mvae, right)
    (message,) = messages
    assert message.startswith("A checkpoint cannot be written, and fit goes on without: ")
    assert place.name in message
    assert list(tmp_path.iterdir()) == [place]
    assert not place.is_file()


# --- Code


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def in_memory(dump, value):
    buffer = io.BytesIO()
    dump(value, buffer)
    return buffer.getvalue()


BOMBS = {
    "pickle": (pickle.dumps, pickle.loads),
    "joblib": (lambda b: in_memory(joblib.dump, b), lambda d: joblib.load(io.BytesIO(d))),
    "torch": (
        lambda b: in_memory(torch.save, b),
        lambda d: torch.load(io.BytesIO(d), weights_only=False),
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_pickle_in_the_place_of_a_file_is_not_run(
    kind, path, marker, checkpoint, right, tmp_path
):
    dump, load_unsafely = BOMBS[kind]
    data = dump(Bomb(marker))
    load_unsafely(data)
    assert marker.is_dir(), "it is no bomb"
    marker.rmdir()
    for place in (path, tmp_path / "model.pt", tmp_path / "model"):  # torch goes by the suffix
        place.write_bytes(data)
        with pytest.raises(ValueError, match="is not a safetensors file") as raised:
            skmvae.load(place)
        assert str(place) in str(raised.value)
    assert_begun_anew(tmp_path / "folder", checkpoint[0], data, right)


def bomb_text(marker):
    """A pickle that is text, so that JSON can hold it."""
    text = pickle.dumps(Bomb(marker), protocol=0).decode()
    pickle.loads(text.encode())
    marker.rmdir()  # which was made
    return text


PLACES_OF_VALUES = [
    ("parameters", "objective"),
    ("parameters", "checkpoint_dir"),
    ("about", "skmvae_version"),
    ("about", "kind"),
    ("network", "skmvae_version"),
    ("network", "likelihood"),
    ("fitted", "_split_seed"),
    ("architecture", "class"),
    ("architecture", "parameters", "activation"),
    ("training", "shuffler"),
    ("feature_names",),
    ("more",),
]


@pytest.mark.parametrize("place", PLACES_OF_VALUES, ids="/".join)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_a_pickle_among_the_values_is_not_run(place, path, marker, model_bytes):
    """Whether the file is refused is for other tests to say."""
    write_crafted(path, model_bytes, at(*place, value=bomb_text(marker)))
    with contextlib.suppress(ValueError):
        skmvae.load(path).transform(X)


@pytest.mark.parametrize("name", ["about", "parameters", "training", "history", "more"])
def test_a_pickle_in_the_place_of_the_values_is_not_run(name, path, marker, model_bytes):
    write_crafted(path, model_bytes, at(name, value=Verbatim(bomb_text(marker))))
    with pytest.raises(ValueError, match="values that are not JSON") as raised:
        skmvae.load(path)
    assert str(path) in str(raised.value)


EXPLOSIVE = """
import os
from skmvae.architectures import MLP
os.mkdir({marker!r})
class Mine(MLP):
    pass
"""


@pytest.fixture
def explosive(tmp_path, monkeypatch, marker):
    """The name of a class in a module that makes the marker when it is imported."""
    (tmp_path / "explosive.py").write_text(EXPLOSIVE.format(marker=str(marker)))
    monkeypatch.syspath_prepend(tmp_path)
    yield "explosive.Mine"
    sys.modules.pop("explosive", None)


@pytest.mark.parametrize(
    "place",
    [
        ("architecture", "class"),
        ("parameters", "architecture", "class"),
        ("architecture", "parameters", "dropout"),
        ("parameters", "k"),
    ],
    ids="/".join,
)
def test_an_architecture_is_not_imported_unless_it_is_trusted(
    place, path, marker, model_bytes, explosive
):
    value = explosive if place[-1] == "class" else {"class": explosive, "parameters": {}}
    write_crafted(path, model_bytes, at(*place, value=value))
    for trusted in ((), ["explosive"], ["explosive.Other"], ["os.mkdir"], explosive):
        with pytest.raises(ValueError, match="is not of this package") as raised:
            skmvae.load(path, trusted=trusted)
        assert str(path) in str(raised.value)
        assert repr(explosive) in str(raised.value)
    assert "explosive" not in sys.modules
    assert not marker.exists()
    if place[-1] == "class":
        skmvae.load(path, trusted=[explosive])
        assert marker.is_dir(), "it is not explosive"
        marker.rmdir()


@pytest.mark.parametrize(
    "name",
    ["os.mkdir", "skmvae.architectures.MLP.__init__", "skmvae.architectures.nn", "", 3, None],
)
def test_nothing_but_the_two_architectures_is_made(name, path, marker, model_bytes):
    value = {"class": name, "parameters": {"path": str(marker)}}
    write_crafted(path, model_bytes, at("architecture", value=value))
    with pytest.raises(ValueError, match="which is not of this package") as raised:
        skmvae.load(path)
    assert str(path) in str(raised.value)


# --- Right checksum, wrong content


class Verbatim(str):
    """Text that stands in the metadata as it is, JSON or not."""


def write_crafted(path, data, change):
    """A file of ``data`` after ``change(arrays, values)``, with the checksum that it should have.

    Values need not be what JSON has: NaN stays NaN.
    """
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    arrays = {name: array.copy() for name, array in load(data).items()}
    values = {
        name: json.loads(text) for name, text in header["__metadata__"].items() if name != "sha256"
    }
    change(arrays, values)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    metadata = {
        name: str(value) if isinstance(value, Verbatim) else json.dumps(value)
        for name, value in values.items()
    }
    path.write_bytes(save(arrays, {**metadata, "sha256": _digest(arrays, metadata)}))


def at(*place, value):
    """The change that puts ``value`` into the values at ``place``."""

    def change(arrays, values):
        for name in place[:-1]:
            values = values[name]
        values[place[-1]] = value

    return change


def without(*place):
    def change(arrays, values):
        for name in place[:-1]:
            values = values[name]
        del values[place[-1]]

    return change


def array(name, make_array):
    """The change that puts ``make_array(old)`` in the place of an array."""
    return lambda arrays, values: arrays.__setitem__(name, make_array(arrays.get(name)))


def without_array(name):
    return lambda arrays, values: arrays.pop(name)


def nested(depth):
    return Verbatim('{"k": ' + depth * "[" + depth * "]" + "}")


WEIGHT = "network/encoder.layers.0.weight"
NAME = "model.safetensors"
MOMENT = "training/exp_avg/encoder.layers.0.weight"
HIDDEN = ("architecture", "parameters", "hidden_layer_sizes")

# name: (what is changed, what the message says beside the name of the file)
CRAFTED = {
    "an undamaged file": (lambda arrays, values: None, None),
    # arrays
    "a wrong shape": (array(WEIGHT, lambda a: a[:, :4]), "encoder.layers.0.weight"),
    "an axis more": (array(WEIGHT, lambda a: a[None]), "encoder.layers.0.weight"),
    "a missing array": (without_array(WEIGHT), "encoder.layers.0.weight"),
    "no mean": (without_array("mean"), "mean"),
    "no weights": (without_array("weights"), "weights"),
    "a short mean": (array("mean", lambda a: a[:4]), "mean"),
    "a long weights_": (array("weights", lambda a: np.ones(3)), "weights_"),
    "an unknown array": (array("zzz", lambda a: np.zeros(3)), "zzz"),
    "an unknown array of the network": (array("network/zzz", lambda a: np.zeros(3)), "zzz"),
    "an unknown array of training": (array("training/zzz", lambda a: np.zeros(3)), "zzz"),
    "float16": (array(WEIGHT, lambda a: a.astype(np.float16)), "encoder.layers.0.weight"),
    "float64": (array(WEIGHT, lambda a: a.astype(np.float64)), "encoder.layers.0.weight"),
    "int8": (array(WEIGHT, lambda a: a.astype(np.int8)), "encoder.layers.0.weight"),
    "float32 weights_": (array("weights", lambda a: a.astype(np.float32)), "weights_"),
    "a moment of a wrong shape": (array(MOMENT, lambda a: a[:, :4]), "exp_avg/encoder"),
    "a moment of int8": (array(MOMENT, lambda a: a.astype(np.int8)), "exp_avg/encoder"),
    "no generator": (without_array("training/generator"), "generator"),
    # of another version, or another program
    "a later format": (at("about", "format_version", value=2), "format version 2, and skmvae"),
    "an earlier format": (at("about", "format_version", value=0), "format version 0"),
    "a format that is no number": (at("about", "format_version", value="1"), "version '1'"),
    "a later format of the network": (at("network", "format_version", value=2), "format version 2"),
    "another kind": (at("about", "kind", value="other model"), "is not a model file of skmvae"),
    "an unknown parameter": (at("parameters", "zzz", value=1), "does not know: zzz"),
    "a missing parameter": (without("parameters", "beta"), "beta"),
    "an unknown parameter of the architecture": (
        at("architecture", "parameters", "zzz", value=1),
        "zzz",
    ),
    "an unknown value of the network": (at("network", "zzz", value=1), "zzz"),
    # values of wrong types
    "parameters that are a list": (at("parameters", value=[1]), "cannot be loaded"),
    "a network that is a list": (at("network", value=[1]), "cannot be loaded"),
    "a network without k": (without("network", "k"), "cannot be loaded"),
    "k that is a text": (at("network", "k", value="two"), "k of the fitted state"),
    "k that is true": (at("network", "k", value=True), "k"),
    "no likelihood like that": (at("network", "likelihood", value="cauchy"), "likelihood"),
    "a scale that is a list": (at("network", "scale", value=[1.0]), "scale"),
    "fitted that is a number": (at("fitted", value=3), "cannot be loaded"),
    "a split seed that is a text": (at("fitted", "_split_seed", value="x"), "_split_seed"),
    "a history that is a list": (at("history", value=[1]), "cannot be loaded"),
    "a column of history that is a text": (at("history", "loss", value="ab"), "history"),
    "a column of history of texts": (at("history", "loss", value=["a", "b"]), "history"),
    "a column of history that is too short": (at("history", "loss", value=[1.0]), "fitted state"),
    "feature names that are a number": (at("feature_names", value=3), "feature_names"),
    "feature names that are numbers": (at("feature_names", value=[1, 2, 3, 4, 5]), "feature_names"),
    "too few feature names": (at("feature_names", value=["a"]), "feature_names"),
    "training that is a number": (at("training", value=3), "training"),
    "training without its seed": (without("training", "seed"), "seed"),
    "steps that are a text": (at("training", "steps", value="x"), "steps"),
    "a shuffler that is a list": (at("training", "shuffler", value=[1]), "shuffler"),
    "no architecture": (at("architecture", value=None), "architecture"),
    "an architecture that is a text": (at("architecture", value="MLP"), "architecture"),
    "an architecture without a class": (without("architecture", "class"), "it lacks 'class'"),
    "another architecture": (
        at("architecture", "class", value="skmvae.architectures.Conv"),
        "cannot be loaded",
    ),
    "layers that are texts": (at(*HIDDEN, value=["a"]), "hidden_layer_sizes"),
    "dropout that is an architecture": (
        at(
            "architecture",
            "parameters",
            "dropout",
            value={"class": "skmvae.architectures.MLP", "parameters": {}},
        ),
        "dropout",
    ),
    # sizes
    "a layer of 2**40": (at(*HIDDEN, value=[2**40]), "encoder.layers.0.weight"),
    "a layer of 2**62": (at(*HIDDEN, value=[2**62]), NAME),
    "a layer of 10**30": (at(*HIDDEN, value=[10**30]), NAME),
    "a thousand layers": (at(*HIDDEN, value=1000 * [1]), "lacks"),
    "k of 2**40": (at("network", "k", value=2**40), "encoder.layers.0.weight"),
    "k of 2**63": (at("network", "k", value=2**63), NAME),
    "2**62 columns": (at("network", "n_features", value=2**62), NAME),
    "codes of 10**30": (at("network", "latent_dim", value=10**30), NAME),
    "an int of 5000 digits": (
        at("parameters", value=Verbatim('{"k": ' + 5000 * "1" + "}")),
        "values that are not JSON",
    ),
    # nesting
    "lists in lists, 100": (at("architecture", value=json.loads(100 * "[" + 100 * "]")), "archi"),
    "lists in lists, 700": (at("parameters", value=nested(700)), NAME),
    "lists in lists, 100000": (at("parameters", value=nested(100_000)), "not JSON"),
    "lists in lists elsewhere": (at("more", value=Verbatim(100_000 * "[")), "not JSON"),
    "dicts in dicts, 100000": (at("parameters", value=Verbatim(100_000 * '{"k": ')), "not JSON"),
    # what JSON has not
    "NaN": (at("parameters", "beta", value=math.nan), "not JSON"),
    "Infinity": (at("parameters", "beta", value=math.inf), "not JSON"),
    "a scale of NaN": (at("network", "scale", value=math.nan), NAME),
    "a scale of -Infinity": (at("network", "scale", value=-math.inf), "not JSON"),
    "a history of NaN": (at("history", "loss", value=[math.nan, 1.0]), "not JSON"),
    "no JSON": (at("network", value=Verbatim("k = 2")), "not JSON"),
    "nothing": (at("network", value=Verbatim("")), "not JSON"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_model_file_with_a_right_checksum_and_wrong_content_is_refused(
    name, path, model, model_bytes
):
    change, says = CRAFTED[name]
    write_crafted(path, model_bytes, change)
    if says is None:
        assert content(skmvae.load(path)) == content(model)
        return
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        skmvae.load(path)
    assert str(path) in str(raised.value)


CRAFTED_CHECKPOINTS = {
    "a later format": at("about", "format_version", value=2),
    "no about": without("about"),
    "no training": without("training"),
    "training that is a number": at("training", value=3),
    "no seed": without("training", "seed"),
    "a seed that is a text": at("training", "seed", value="x"),
    "steps that are a text": at("training", "steps", value="x"),
    "a shuffler that is a list": at("training", "shuffler", value=[1]),
    "no progress": without("training", "progress"),
    "progress that is empty": at("training", "progress", value={}),
    "records that are a number": at("training", "progress", "records", value=3),
    "records that are numbers": at("training", "progress", "records", value=[1]),
    "no generator": without_array("generator"),
    "a generator of int16": array("generator", lambda a: a.astype(np.int16)),
    "no weights": without_array("weights/encoder.layers.0.weight"),
    "weights of a wrong shape": array("weights/encoder.layers.0.weight", lambda a: a[:, :4]),
    "weights of float16": array("weights/encoder.layers.0.weight", lambda a: a.astype("f2")),
    "weights of int8": array("weights/encoder.layers.0.weight", lambda a: a.astype("i1")),
    "unknown weights": array("weights/zzz", lambda a: np.zeros(3, np.float32)),
    "no moments": without_array("exp_avg/encoder.layers.0.weight"),
    "lists in lists": at("training", value=Verbatim(100_000 * "[")),
    "no JSON": at("training", value=Verbatim("steps = 2")),
}


@pytest.mark.parametrize("name", CRAFTED_CHECKPOINTS)
def test_a_checkpoint_with_a_right_checksum_and_wrong_content_begins_anew(
    name, checkpoint, right, tmp_path
):
    write_crafted(tmp_path / "crafted", checkpoint[1], CRAFTED_CHECKPOINTS[name])
    data = (tmp_path / "crafted").read_bytes()
    assert_begun_anew(tmp_path / "folder", checkpoint[0], data, right)


# --- Headers, and files that are larger in memory


def raw(header, body=b""):
    """A safetensors file of whatever header."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + body


def one(body=bytes(8), **changes):
    return raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}, body)


REFUSED = r"is not a safetensors file|is not what was written"


def zip_bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("data.pkl", bytes(10**8))
    assert len(buffer.getvalue()) < 10**6
    return buffer.getvalue()


HOSTILE = {
    "nothing": b"",
    "one byte": b"{",
    "zeros": bytes(10_000),
    "noise": np.random.default_rng(0).bytes(10_000),
    "text": b"once upon a time there was a model\n",
    "header of 2**62": (2**62).to_bytes(8, "little") + b"{}",
    "header of 2**64 - 1": b"\xff" * 8 + b"{}",
    "header of 99 MB that is not there": (99_000_000).to_bytes(8, "little") + b"{}",
    "empty header": raw({}),
    "header that is a list": raw([1, 2]),
    "header of lists in lists": raw(b'{"a":' + 10**6 * b"["),
    "header of dicts in dicts": raw(b'{"__metadata__":' + 10**6 * b'{"a":'),
    "header that is not UTF-8": raw(b'{"\xff":1}'),
    "lone surrogate": raw(b'{"__metadata__":{"a":"\\ud800"}}'),
    "metadata that is no text": raw({"__metadata__": {"about": {"kind": "skmvae model"}}}),
    "no checksum": one(),
    "offsets of 2**40": one(data_offsets=[2**40, 2**40 + 8]),
    "end at 2**40": one(data_offsets=[0, 2**40]),
    "end before begin": one(data_offsets=[8, 0]),
    "negative offsets": one(data_offsets=[-8, 0]),
    "shape that overflows": one(shape=[2**62, 2**62]),
    "shape that overflows to 2": one(shape=[2**63 + 1, 2]),
    "shape of 2**40": one(shape=[2**40]),
    "negative shape": one(shape=[-2]),
    "shape of 2**62 and 0": one(b"", shape=[2**62, 0], data_offsets=[0, 0]),
    "shape of 0 and 2**63": one(b"", shape=[0, 2**63], data_offsets=[0, 0]),
    "shape of 0 and twice 2**63 - 1": one(
        b"", shape=[0, 2**63 - 1, 2**63 - 1], data_offsets=[0, 0]
    ),
    "a hundred axes": one(shape=99 * [1] + [2]),
    "bfloat16": one(bytes(4), dtype="BF16", data_offsets=[0, 4]),
    "float8": one(bytes(2), dtype="F8_E4M3", data_offsets=[0, 2]),
    "float4": one(bytes(1), dtype="F4", data_offsets=[0, 1]),
    "bool of 2": one(b"\x02\xff", dtype="BOOL", data_offsets=[0, 2]),
    "no such type": one(dtype="F33"),
    "two arrays in one place": raw(
        {n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"}, bytes(8)
    ),
    "many arrays of nothing": raw(
        {f"{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(1000)}
    ),
}


@pytest.fixture(scope="module")
def hostile():
    return HOSTILE | {"zip bomb": zip_bomb()}


@pytest.mark.parametrize("name", [*HOSTILE, "zip bomb"])
def test_a_hostile_header_is_refused(name, hostile, path, checkpoint, right, tmp_path):
    path.write_bytes(hostile[name])
    with pytest.raises(ValueError, match=REFUSED) as raised:
        skmvae.load(path)
    assert str(path) in str(raised.value)
    assert_begun_anew(tmp_path / "folder", checkpoint[0], hostile[name], right)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F16", "I32"])
def test_an_array_of_another_type_is_refused(dtype, path, model_bytes):
    """In the place of a float32 array, with offsets that fit it."""
    header = json.loads(data := model_bytes[8 : 8 + int.from_bytes(model_bytes[:8], "little")])
    entry = header[WEIGHT]
    entry["dtype"] = dtype
    entry["shape"][-1] *= {"BF16": 2, "F8_E4M3": 4, "F16": 2, "I32": 1}[dtype]
    path.write_bytes(raw(header, model_bytes[8 + len(data) :]))
    with pytest.raises(ValueError, match=REFUSED) as raised:
        skmvae.load(path)
    assert str(path) in str(raised.value)


@contextlib.contextmanager
def no_more_than(n_bytes):
    """Memory, beside what the process has; gives the megabytes that it grew to since.

    The most memory that it had is counted from here on, files that it has mapped included.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")
    before = most_memory()
    resource.setrlimit(resource.RLIMIT_AS, (size + n_bytes, hard))
    try:
        yield lambda: most_memory() - before
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def most_memory():
    """In megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


needs_proc = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs /proc/self/clear_refs"
)


@needs_proc
def test_no_hostile_file_takes_much_memory(hostile, model_bytes, path, checkpoint, tmp_path):
    def load_all():
        for data in (*hostile.values(), *crafted):
            path.write_bytes(data)
            with contextlib.suppress(Exception):
                skmvae.load(path)

    def fit_all():
        for data in hostile.values():
            fit_beside_one(tmp_path / "folder", checkpoint[0], data)

    crafted = []
    for name in (name for name in CRAFTED if re.search(r"\d|layers", name)):
        write_crafted(path, model_bytes, CRAFTED[name][0])
        crafted.append(path.read_bytes())
    assert len(crafted) > 10
    for use in (load_all, fit_all):
        with no_more_than(2**32) as grown:
            use()
            assert grown() < 64.0
    with no_more_than(2**32) as grown:
        kept = b"1" * 10**8
        assert grown() > 64.0, "memory is not counted"
        del kept


@needs_proc
def test_a_file_with_more_than_fits_into_memory_is_refused(path):
    """A file with holes: 8 GB to read, and nothing on the disk."""
    header = raw({"a": {"dtype": "U8", "shape": [2**33], "data_offsets": [0, 2**33]}})
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 2**33)
    with no_more_than(2**32) as grown:
        with pytest.raises((ValueError, OSError, MemoryError)):
            skmvae.load(path)
        assert grown() < 64.0


# --- What a fit may be given, and its files have to hold


@pytest.mark.parametrize(
    "params",
    [
        {"max_iter": np.int64(1)},
        {"beta": np.float32(0.5)},
        {"kl_weight": np.float32(0.5)},
        {"learning_rate": np.float32(0.01), "tol": np.float16(0.1)},
        {"early_stopping": np.bool_(True), "n_iter_no_change": np.int8(2)},
        {"k": np.int8(2), "latent_dim": np.uint8(2), "batch_size": np.int32(32)},
    ],
    ids=lambda params: ", ".join(params),
)
def test_numbers_of_numpy_do_not_end_a_fit_with_checkpoints(params, tmp_path):
    """They come from grids of a search."""
    right = make().set_params(**params).fit(X)
    mvae = make(checkpoint_dir=tmp_path).set_params(**params).fit(X)
    assert_fit_is_right(mvae, right)
    found = make(checkpoint_dir=tmp_path).set_params(**params).fit(X)
    assert found.history_ == mvae.history_, "it was fitted again"
