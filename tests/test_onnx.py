"""ONNX files: onnxruntime computes from them what transform and mixing_weights do."""

import logging
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import skmvae
from skmvae import MVAETransformer
from skmvae.architectures import MLP, Conv
from skmvae.onnx import LEAST_TORCH, export

pytest.importorskip("torch", minversion=LEAST_TORCH)
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = [pytest.mark.cpu, pytest.mark.usefixtures("one_thread")]

PAGE = Path(__file__).parents[1] / "docs" / "deploy.md"
SHAPE = (1, 8, 8)
TOLERANCE = 1e-5  # relative to the largest value, in float32


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def assert_same(found, expected):
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def assert_same_model(path, mvae, X):
    """Compare the results for one row, two rows and all rows."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for n_rows in (1, 2, len(X)):
        rows = np.asarray(X[:n_rows], np.float32)
        codes, weights = session.run(["codes", "weights"], {"X": rows})
        assert_same(codes, mvae.transform(rows))
        assert_same(weights, mvae.mixing_weights(rows))


# With the tests below, all activations: Conv has the leaky ReLU.
@pytest.mark.parametrize(
    ("params", "scaling"),
    [
        ({"k": 1, "architecture": MLP((8,), activation="elu"), "likelihood": "bernoulli"}, 1 / 16),
        # The file has to centre and scale rows in units of 1,000.
        ({"k": 2, "architecture": MLP((8, 8), activation="gelu", dropout=0.5)}, 1e3),
        ({"k": 4, "architecture": Conv(SHAPE, (4, 6), strides=(2, 1))}, 1.0),
    ],
    ids=["elu", "gelu, scaled", "conv"],
)
def test_a_file_gives_what_the_estimator_gives(make_small, digits, path, params, scaling):
    X = digits[0] * scaling
    mvae = make_small(**params).fit(X)
    export(mvae, path)
    assert_same_model(path, mvae, X)


def test_the_file_names_its_arrays_and_exporting_changes_nothing(make_small, digits, path):
    mvae = make_small(architecture=MLP((8,), activation="silu"), max_iter=1).fit(digits[0])
    before = mvae.transform(digits[0])
    filters, handlers = warnings.filters[:], logging.root.handlers[:]
    with torch.inference_mode(), torch.autocast("cpu"):
        export(mvae, str(path))
    assert warnings.filters == filters
    assert logging.root.handlers == handlers
    np.testing.assert_array_equal(mvae.transform(digits[0]), before)
    assert_same_model(path, mvae, digits[0])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"X": ["n", 64], "codes": ["n", 6], "weights": ["n", 3]}
    n_values = sum(np.prod(array.dims) for array in model.graph.initializer)
    assert n_values < 64 * (3 * 8 + 2) + 200  # the first layer, mean and fill
    data = path.read_bytes()
    for folder in (skmvae.__file__, torch.__file__, __file__):
        assert str(Path(folder).parent).encode() not in data
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_exported_is_refused_with_the_remedy(fitted, path, monkeypatch):
    with pytest.raises(NotFittedError):
        export(MVAETransformer(), path)
    with pytest.raises(TypeError, match=r"got Pipeline; of a pipeline, give the step"):
        export(make_pipeline(fitted), path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(ImportError, match=r"needs onnxscript: pip install 'skmvae\[onnx\]'"):
            export(fitted, path)
    monkeypatch.setattr(skmvae.onnx, "LEAST_TORCH", "99")
    with pytest.raises(ImportError, match=r"needs torch 99 or newer, found .*: pip install -U"):
        export(fitted, path)
    assert not path.exists()


def test_the_snippets_of_the_page_run(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    write, use = (block for block in blocks if "onnx" in block)
    names = {"X": digits[0]}
    exec(write.replace("max_iter=20", "max_iter=1"), names)
    exec(use, names)
    rows = np.asarray(digits[0], np.float32)
    assert_same(names["codes"], names["mvae"].transform(rows))
    assert_same(names["weights"], names["mvae"].mixing_weights(rows))
    assert_same_model("digits.onnx", names["mvae"], rows)
