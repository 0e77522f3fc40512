"""What the pages say of the code is in the code."""

import re
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

import skmvae

ROOT = Path(__file__).parents[1]
SOURCES = "\n".join(path.read_text() for path in Path(skmvae.__file__).parent.rglob("*.py"))
# Messages as they read: literals joined, values left out.
MESSAGES = re.sub(r'"\s*\n\s*f?"', "", SOURCES)
MESSAGES = re.sub(r"\{[^{}]*\}", "...", MESSAGES)
OF_SCIKIT_LEARN = {"Input X contains NaN."}


def keys():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    return re.findall(r"^`(.+)`$", page, flags=re.MULTILINE)


def test_the_page_has_keys():
    assert len(keys()) > 12


@pytest.mark.parametrize("key", keys())
def test_troubleshooting_is_keyed_by_texts_that_exist(key):
    if key in OF_SCIKIT_LEARN:
        return
    # Between the values that a message fills in.
    for words in re.split(r"\.\.\.|'cuda'|\b0\b|\bX\b|\bZ\b", key):
        assert words.strip() in MESSAGES, words


def test_every_public_name_is_in_the_reference():
    from skmvae import architectures, datasets, distributed, metrics, onnx, plotting

    reference = (ROOT / "docs" / "api.rst").read_text()
    for module in (skmvae, architectures, datasets, distributed, metrics, onnx, plotting):
        for name in module.__all__:
            assert name == "__version__" or name in reference, f"{module.__name__}.{name}"


@pytest.mark.may_use_numpy_random  # LinearSVC() draws from it
def test_the_five_minutes_run(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pyplot, "show", lambda: None)
    page = (ROOT / "docs" / "start.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names = {}
    for block in blocks:
        exec(block, names)
    pyplot.close("all")
    assert (tmp_path / "model.joblib").exists()
    assert names["pipe"].score(names["X_test"], names["y_test"]) > 0.9
    assert names["codes"].shape == (450, 40)
    assert names["rows"].shape == (450, 64)
    assert names["new"].shape == (10, 64)


@pytest.mark.may_use_numpy_random  # LinearSVC() draws from it
def test_the_first_lines_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"```python\n(.*?)```", readme, flags=re.DOTALL)[1]
    block, n_found = re.subn(r"max_iter=\d+", "max_iter=1", block)
    assert n_found == 1
    exec(block, {})
    assert (tmp_path / "model.joblib").exists()


def test_the_snippets_of_the_user_guide_run(tmp_path, monkeypatch):
    """Those for sharing, checkpoints and chunks, in turn."""
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    X = load_digits().data
    pd.DataFrame(X).to_csv("rows.csv", index=False)
    pl.DataFrame(X).write_parquet("rows.parquet")
    page = (ROOT / "docs" / "user_guide.md").read_text()
    share, resume, csv, parquet = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names = {"X": X}
    exec(share.replace("max_iter=20", "max_iter=1"), names)
    assert names["mvae"].transform(X).shape == (1797, 80)
    exec(resume.replace("max_iter=20", "max_iter=1"), names)
    assert len(list((tmp_path / "fits").iterdir())) == 2 * 3 + 1
    for chunks in (csv, parquet):
        exec(chunks, names)
        assert names["mvae"].n_iter_ == 9
