"""Arrays and values in one file: bitwise what was written, or ValueError."""

import json
import math
import struct
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import skmvae
from skmvae._files.tensors import _digest, read_tensors, write_tensors

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
DTYPES += ["float16", "float32", "float64"]

VALUES = {
    "none": None,
    "flags": [True, False],
    "numbers": [0, -1, 2**127, 0.1, 5e-324, 1e308, -0.0],
    "texts": ["", "größe 模型", '"\\/\n\x00', "\U0001f600"],
    "nested": {"a": {"b": [[], {}, [{"c": None}]]}, "": 1},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_type_and_shape_return_bitwise(path, dtype):
    bits = np.random.default_rng(0).integers(0, 256, 4 * 6 * np.dtype(dtype).itemsize, np.uint8)
    if dtype == "bool":
        bits %= 2
    full = bits.view(dtype).reshape(4, 6)  # has NaNs with different bits
    arrays = {
        "0-d": full[1, 2],
        "empty": full[:0],
        "transposed": full.T,
        "backwards": full[::-1, ::3],
        "read-only": np.broadcast_to(full[0], (3, 6)),
        "other byte order": full.astype(full.dtype.newbyteorder("S")),
    }
    write_tensors(path, arrays, {})
    found, values = read_tensors(path)
    assert values == {}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == np.dtype(dtype), name
        expected = np.asarray(array, dtype=dtype, order="C")
        assert found[name].tobytes() == expected.tobytes(), name


def test_values_return_as_they_were_and_other_programs_read_them(path):
    write_tensors(path, {"a": np.arange(3.0)}, VALUES)
    _, values = read_tensors(path)
    assert repr(sorted(values.items())) == repr(sorted(VALUES.items()))  # true is not 1, nor -0.0 0
    np.testing.assert_array_equal(load_file(path)["a"], np.arange(3.0))
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert json.loads(header["__metadata__"]["texts"]) == VALUES["texts"]


@pytest.mark.parametrize("value", [math.nan, [-math.inf]])
def test_numbers_that_json_lacks_are_neither_written_nor_read(path, value):
    with pytest.raises(ValueError, match="JSON"):
        write_tensors(path, {}, {"name": value})
    assert not path.exists()
    text = json.dumps(value)
    save_file({}, path, {"name": text, "sha256": _digest({}, {"name": text})})
    with pytest.raises(ValueError, match=r"file\.safetensors holds values that are not JSON"):
        read_tensors(path)


CHANGES = {
    "rename array": lambda arrays, values: arrays.update(aa=arrays.pop("a")),
    "change bit": lambda arrays, values: arrays["a"].view(np.uint8).__ixor__(1),
    "change shape": lambda arrays, values: arrays.update(a=arrays["a"].reshape(3, 2)),
    "change dtype": lambda arrays, values: arrays.update(a=arrays["a"].view(np.int32)),
    "drop array": lambda arrays, values: arrays.pop("b"),
    "add array": lambda arrays, values: arrays.update(c=np.zeros(0, np.float32)),
    "change value": lambda arrays, values: values.update(x="2"),
    "drop checksum": lambda arrays, values: values.pop("sha256"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_checksum_covers_all_that_the_file_holds(path, change):
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_tensors(path, {"a": a, "b": a + 1}, {"x": 1, "y": [2]})
    data = path.read_bytes()
    values = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    arrays = load_file(path)
    save_file(arrays, path, values)
    read_tensors(path)  # another program has written the same
    change(arrays, values)
    save_file(arrays, path, values)
    with pytest.raises(ValueError, match=r"file\.safetensors is not what was written"):
        read_tensors(path)


def test_read_arrays_are_mapped_and_do_not_change_the_file_and_outlive_it(path):
    write_tensors(path, {"a": np.zeros(10_000)}, {})
    before = path.read_bytes()
    found, other = read_tensors(path)[0]["a"], read_tensors(path)[0]["a"]
    if sys.platform == "linux":
        with open("/proc/self/maps") as maps:  # noqa: PTH123
            assert str(path) in maps.read()
    found[:] = 1.0
    assert path.read_bytes() == before
    write_tensors(path, {"a": np.ones(10_000)}, {})
    path.unlink()
    assert not other.any()


def test_there_is_no_file(path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*file\.safetensors"):
        read_tensors(path)


def test_without_safetensors_the_error_says_what_to_install(path, monkeypatch, make_small, digits):
    mvae = make_small(max_iter=1).fit(digits[0])
    for name in [*(n for n in sys.modules if n.split(".")[0] == "safetensors"), "safetensors"]:
        monkeypatch.setitem(sys.modules, name, None)
    checkpointed = make_small(checkpoint_dir=path.parent / "checkpoints")
    for use in (mvae.save, skmvae.load, lambda path: checkpointed.fit(digits[0])):
        with pytest.raises(ImportError, match=r"need safetensors: pip install 'skmvae\[safe\]'"):
            use(path)
    assert list(path.parent.iterdir()) == []


def test_a_file_that_another_process_replaces_meanwhile_is_read_whole(path, tmp_path):
    """safetensors opens it twice, and could take the names of one and the numbers of the other."""
    for i in range(2):
        write_tensors(tmp_path / str(i), {"a": np.full(4, i)}, {"i": i})
    path.write_bytes((tmp_path / "0").read_bytes())
    code = """import os, shutil
for i in range(10**9):
    shutil.copy(str(i % 2), "new")
    os.replace("new", "file.safetensors")"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as writer:
        try:
            reads = [read_tensors(path) for _ in range(2000)]
        finally:
            writer.kill()
    for arrays, values in reads:
        np.testing.assert_array_equal(arrays["a"], values["i"])
    assert {values["i"] for _, values in reads} == {0, 1}
