"""Arrays and values in one file: bitwise what was written, or ValueError."""

import json
import math
import os
import struct
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


def changed(path, change):
    """Write the file again with other arrays and metadata, as another program could."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    arrays, metadata = load_file(path), header["__metadata__"]
    change(arrays, metadata)
    save_file(arrays, path, metadata)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_type_and_shape_return_bitwise(path, dtype):
    bits = np.random.default_rng(0).integers(0, 256, 4 * 6 * np.dtype(dtype).itemsize, np.uint8)
    if dtype == "bool":
        bits %= 2
    full = bits.view(dtype).reshape(4, 6)  # NaNs among them, each with bits of its own
    arrays = {
        "full": full,
        "0-d": full[1, 2],
        "empty": full[:0],
        "of no column": full[:, :0],
        "transposed": full.T,
        "every second": full[::2, ::3],
        "backwards": full[::-1],
        "read-only": np.broadcast_to(full[0], (3, 6)),
        "Fortran": np.asfortranarray(full),
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


def test_an_array_of_the_other_byte_order_returns_in_that_of_the_machine(path):
    array = np.arange(6, dtype=np.float64)
    write_tensors(path, {"a": array.astype(array.dtype.newbyteorder("S"))}, {})
    found = read_tensors(path)[0]["a"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, array)


def test_values_return_as_they_were(path):
    write_tensors(path, {}, VALUES)
    arrays, values = read_tensors(path)
    assert arrays == {}
    assert values == VALUES
    assert [type(v) for v in values["flags"]] == [bool, bool]
    assert math.copysign(1.0, values["numbers"][-1]) == -1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_what_json_has_not_is_not_written(path, value):
    with pytest.raises(ValueError, match="JSON"):
        write_tensors(path, {}, {"name": value})
    assert not path.exists()


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_what_json_has_not_is_not_read(path, text):
    """Even with a right checksum: write_tensors has not written it."""
    save_file({}, path, {"name": text, "sha256": _digest({}, {"name": text})})
    with pytest.raises(ValueError, match=r"file\.safetensors holds values that are not JSON"):
        read_tensors(path)


def test_other_programs_read_the_file(path):
    write_tensors(path, {"a": np.arange(3.0)}, {"name": [1, None]})
    np.testing.assert_array_equal(load_file(path)["a"], np.arange(3.0))
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert json.loads(header["__metadata__"]["name"]) == [1, None]


def rename_array(arrays, metadata):
    arrays["aa"] = arrays.pop("a")  # in the same place of the order


def swap_arrays(arrays, metadata):
    arrays["a"], arrays["b"] = arrays["b"], arrays["a"]


def change_array(arrays, metadata):
    arrays["a"].view(np.uint8)[0, 0] ^= 1


def change_shape(arrays, metadata):
    arrays["a"] = arrays["a"].reshape(3, 2)


def change_dtype(arrays, metadata):
    arrays["a"] = arrays["a"].view(np.int32)


def drop_array(arrays, metadata):
    del arrays["b"]


def add_array(arrays, metadata):
    arrays["c"] = np.zeros(0, np.float32)


def change_value(arrays, metadata):
    metadata["x"] = "2"


def rename_value(arrays, metadata):
    metadata["z"] = metadata.pop("x")


def drop_value(arrays, metadata):
    del metadata["x"]


def add_value(arrays, metadata):
    metadata["z"] = "1"


def drop_checksum(arrays, metadata):
    del metadata["sha256"]


CHANGES = [rename_array, swap_arrays, change_array, change_shape, change_dtype, drop_array]
CHANGES += [add_array, change_value, rename_value, drop_value, add_value, drop_checksum]


@pytest.mark.parametrize("change", CHANGES)
def test_the_checksum_covers_all_that_the_file_holds(path, change):
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_tensors(path, {"a": a, "b": a + 1}, {"x": 1, "y": [2]})
    changed(path, lambda arrays, metadata: None)
    read_tensors(path)  # written by another program, but the same
    changed(path, change)
    with pytest.raises(ValueError, match=r"file\.safetensors is not what was written"):
        read_tensors(path)


def anonymous_bytes():
    with open(f"/proc/{os.getpid()}/status") as status:  # noqa: PTH123
        return 1024 * sum(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_arrays_are_mapped_from_the_file(path):
    array = np.random.default_rng(0).normal(size=2**23)  # 64 MiB
    write_tensors(path, {"a": array}, {})
    before = anonymous_bytes()
    found = read_tensors(path)[0]["a"]
    assert anonymous_bytes() - before < array.nbytes / 8
    np.testing.assert_array_equal(found, array)
    copied = found.copy()
    assert anonymous_bytes() - before > array.nbytes / 2, "a copy is not seen"
    del copied


def test_changing_a_read_array_does_not_change_the_file(path):
    write_tensors(path, {"a": np.zeros(10_000)}, {})
    before = path.read_bytes()
    found = read_tensors(path)[0]["a"]
    assert found.flags.writeable
    found[:] = 1.0
    assert path.read_bytes() == before
    np.testing.assert_array_equal(read_tensors(path)[0]["a"], np.zeros(10_000))


def test_a_read_array_outlives_its_file(path):
    """Replaced or deleted: the old one is there until nobody has it."""
    write_tensors(path, {"a": np.zeros(10_000)}, {})
    old = read_tensors(path)[0]["a"]
    write_tensors(path, {"a": np.ones(10_000)}, {})
    new = read_tensors(path)[0]["a"]
    path.unlink()
    assert not old.any()
    assert new.all()


def test_there_is_no_file(path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*file\.safetensors"):
        read_tensors(path)


def test_without_safetensors_the_error_says_what_to_install(path, monkeypatch, make_small, digits):
    """That the package can be imported without is for the tests of imports to say."""
    mvae = make_small(max_iter=1).fit(digits[0])
    for name in [*(n for n in sys.modules if n.split(".")[0] == "safetensors"), "safetensors"]:
        monkeypatch.setitem(sys.modules, name, None)
    checkpointed = make_small(checkpoint_dir=path.parent / "checkpoints")
    for use in (mvae.save, skmvae.load, lambda path: checkpointed.fit(digits[0])):
        with pytest.raises(ImportError, match=r"need safetensors: pip install 'skmvae\[safe\]'"):
            use(path)
    assert list(path.parent.iterdir()) == []
