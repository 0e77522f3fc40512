"""Damaged and hostile files: refused by name, or right; no code is run, little memory is taken."""

import contextlib
import functools
import io
import json
import math
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from jobs import FEW_ROWS, contents, differences, fit_beside
from networks import small_estimator
from safetensors.numpy import load, save

import skmvae
from skmvae._files.tensors import _digest

# Flipped bits in each kind of file.
FLIPS = int(os.environ.get("SKMVAE_FLIPS", "20"))

pytestmark = [pytest.mark.cpu, pytest.mark.usefixtures("one_thread")]

make = functools.partial(small_estimator, max_iter=1)


@pytest.fixture(scope="module")
def model():
    """Return a model with all that a file may have: the moments of partial_fit too."""
    return make().fit(FEW_ROWS).partial_fit(FEW_ROWS)


@pytest.fixture(scope="module")
def model_bytes(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    model.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return the name and the bytes of a checkpoint, and the model of its fit."""
    folder = tmp_path_factory.mktemp("checkpoint")
    mvae = make(checkpoint_dir=folder).fit(FEW_ROWS)
    (path,) = folder.iterdir()
    return path.name, path.read_bytes(), mvae


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def marker(tmp_path):
    """Return a folder that code of a file would make."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code of the file was run"


def assert_refused(path, says="."):
    """Check that the error names the file and says what is wrong."""
    with pytest.raises((ValueError, OSError), match=says) as raised:
        skmvae.load(path)
    assert str(path) in str(raised.value)


@pytest.fixture
def begins_anew(checkpoint, tmp_path):
    """Check that a fit beside this checkpoint warns once, sets the file aside, and ends right."""
    name, _, right = checkpoint
    folder = tmp_path / "folder"

    def assert_begins_anew(data):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / name).write_bytes(data)
        mvae, (message,) = fit_beside(folder, max_iter=1)
        assert message.startswith("A checkpoint cannot be read, and fit begins without: ")
        (aside,) = folder.glob("*.unreadable-*")
        assert str(folder / name) in message
        assert str(aside) in message
        assert aside.read_bytes() == data
        assert differences(contents(mvae), contents(right)) == []
        found, messages = fit_beside(folder, max_iter=1)
        assert not messages
        assert found.history_ == mvae.history_, "it was fitted again"

    return assert_begins_anew


def cuts(data):
    """Return the beginnings of a file, also those about the end of the header and of the data."""
    end = 8 + int.from_bytes(data[:8], "little")
    lengths = {*range(0, len(data), 4096), 7, 8, end - 1, end, len(data) - 1}
    return [data[:n] for n in sorted(lengths)]


def flipped(data, rng):
    position, bit = int(rng.integers(len(data))), int(rng.integers(8))
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


# Damage.


def test_a_file_that_was_cut_is_refused(path, model_bytes, checkpoint, begins_anew):
    for data in cuts(model_bytes):
        path.write_bytes(data)
        assert_refused(path)
    for data in cuts(checkpoint[1]):
        begins_anew(data)


def test_another_file_in_its_place_is_refused(path, model_bytes, checkpoint, begins_anew, tmp_path):
    path.write_bytes(checkpoint[1])
    assert_refused(path, "is not a model file of skmvae")
    begins_anew(model_bytes)
    make(checkpoint_dir=tmp_path / "other", random_state=1).fit(FEW_ROWS)
    (other,) = (tmp_path / "other").iterdir()
    begins_anew(other.read_bytes())


def test_a_flipped_bit_is_seen(path, model_bytes, model, checkpoint, begins_anew):
    rng = np.random.default_rng(1)
    for _ in range(FLIPS):
        path.write_bytes(flipped(model_bytes, rng))
        with contextlib.suppress(ValueError, OSError):  # or the bit is one of the header's padding
            assert differences(contents(skmvae.load(path)), contents(model)) == []
        begins_anew(flipped(checkpoint[1], rng))


# Code.


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("dump", [pickle.dump, joblib.dump, torch.save])
def test_a_pickle_is_not_run(dump, path, marker, begins_anew):
    buffer = io.BytesIO()
    dump(Bomb(marker), buffer)
    for place in (path, path.with_suffix(".pt")):  # torch goes by the suffix
        place.write_bytes(buffer.getvalue())
        assert_refused(place, "is not a safetensors file")
    begins_anew(buffer.getvalue())


@pytest.mark.parametrize("place", [("architecture",), ("parameters", "k")])
@pytest.mark.parametrize("name", ["explosive.Mine", "os.mkdir", "skmvae.architectures.nn", 3])
def test_a_class_is_not_imported_unless_it_is_trusted(
    place, name, path, marker, model_bytes, tmp_path, monkeypatch
):
    (tmp_path / "explosive.py").write_text(f"import os\nos.mkdir({str(marker)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    value = {"class": name, "parameters": {"path": str(marker)}}
    write_crafted(path, model_bytes, at(*place, value=value))
    for trusted in ((), ["explosive", "os"]):
        with pytest.raises(ValueError, match="which is not of this package"):
            skmvae.load(path, trusted=trusted)
    assert "explosive" not in sys.modules


# Right checksum, wrong content. tests/test_persistence.py has states that do not fit together.


class Verbatim(str):
    """Text that goes into the metadata as it is, JSON or not."""


def write_crafted(path, data, change):
    """Write ``data`` after ``change(arrays, values)``, with the checksum that belongs to it."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    arrays = {name: array.copy() for name, array in load(data).items()}
    texts = header["__metadata__"].items()
    values = {name: json.loads(text) for name, text in texts if name != "sha256"}
    change(arrays, values)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    metadata = {
        name: str(value) if isinstance(value, Verbatim) else json.dumps(value)
        for name, value in values.items()
    }
    path.write_bytes(save(arrays, {**metadata, "sha256": _digest(arrays, metadata)}))


def at(*place, value):
    """Return the change that puts ``value`` into the values at ``place``."""

    def change(arrays, values):
        for name in place[:-1]:
            values = values[name]
        values[place[-1]] = value

    return change


def array(name, make_array):
    """Return the change that puts ``make_array(old)`` into the place of an array."""
    return lambda arrays, values: arrays.__setitem__(name, make_array(arrays.get(name)))


MOMENT = "training/exp_avg/encoder.layers.0.weight"
HIDDEN = ("architecture", "parameters", "hidden_layer_sizes")

# name: (change, what the message says)
CRAFTED = {
    "unknown array": (array("zzz", lambda a: np.zeros(3)), "zzz"),
    "wrong moment": (array(MOMENT, lambda a: a[:, :4]), "exp_avg/encoder"),
    "later format": (at("about", "format_version", value=2), "format version 2, and skmvae"),
    "unknown parameter": (at("parameters", "zzz", value=1), "does not know: zzz"),
    "text of steps": (at("training", "steps", value="x"), "steps"),
    "huge layer": (at(*HIDDEN, value=[2**40]), "encoder.layers.0.weight"),
    "deep lists": (at("more", value=Verbatim(100_000 * "[")), "not JSON"),
    "no number": (at("parameters", "beta", value=math.nan), "not JSON"),
}


@pytest.mark.parametrize(("change", "says"), CRAFTED.values(), ids=CRAFTED)
def test_a_model_file_with_wrong_content_is_refused(change, says, path, model_bytes):
    write_crafted(path, model_bytes, change)
    assert_refused(path, re.escape(says))


CRAFTED_CHECKPOINTS = {
    "later format": at("about", "format_version", value=2),
    "text of seed": at("training", "seed", value="x"),
    "wrong weights": array("weights/encoder.layers.0.weight", lambda a: a[:, :4]),
}


@pytest.mark.parametrize("change", CRAFTED_CHECKPOINTS.values(), ids=CRAFTED_CHECKPOINTS)
def test_a_checkpoint_with_wrong_content_begins_anew(change, checkpoint, begins_anew, path):
    write_crafted(path, checkpoint[1], change)
    begins_anew(path.read_bytes())


# Hostile headers.


def raw(header, body=b""):
    """Return a safetensors file with any header."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + body


def one(body=bytes(8), **changes):
    return raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}, body)


HOSTILE = {
    "huge header": (2**62).to_bytes(8, "little") + b"{}",
    "deep header": raw(b'{"a":' + 10**6 * b"["),
    "lone surrogate": raw(b'{"__metadata__":{"a":"\\ud800"}}'),
    "no checksum": one(),
    "overflowing shape": one(shape=[2**62, 2**62]),
    "bfloat16": one(bytes(4), dtype="BF16", data_offsets=[0, 4]),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_refused(data, path, begins_anew):
    path.write_bytes(data)
    assert_refused(path, "is not a safetensors file|is not what was written")
    begins_anew(data)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs /proc")
def test_no_hostile_file_takes_much_memory(model_bytes, path):
    files = list(HOSTILE.values())
    for change, _ in CRAFTED.values():
        write_crafted(path, model_bytes, change)
        files.append(path.read_bytes())

    def most_memory():
        """Return the most, in megabytes, that the process has had since the last reset."""
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # resets it
    before = most_memory()
    for data in files:
        path.write_bytes(data)
        with contextlib.suppress(ValueError, OSError):
            skmvae.load(path)
    assert most_memory() - before < 64.0
