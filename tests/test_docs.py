"""What the pages say of the code is in the code."""

import re
from pathlib import Path

import numpy as np
import pytest

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


GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))


def snippets(page):
    """The Python blocks of a page, with a single epoch where it sets their number."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    short = [re.sub(r"max_iter=\d+", "max_iter=1", block) for block in blocks]
    return [s.replace("MVAEImputer()", "MVAEImputer(MVAETransformer(max_iter=1))") for s in short]


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A function that runs the snippets of a page in an empty folder, and returns their names."""
    for package in ("pandas", "polars", "skops", "safetensors"):
        pytest.importorskip(package)
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.chdir(tmp_path)

    def run(page):
        names = {}
        for block in snippets(page):
            exec(block, names)
        return names

    yield run
    pytest.importorskip("matplotlib.pyplot").close("all")


@pytest.mark.may_use_numpy_random  # LinearSVC() draws from it
@pytest.mark.parametrize("page", [p for p in GUIDE if snippets(p)], ids=lambda page: page.stem)
def test_the_snippets_of_a_page_of_the_guide_run(page, ran):
    objects = [value for value in ran(page).values() if not isinstance(value, type)]
    assert any(hasattr(value, "n_features_in_") for value in objects)


def test_the_snippets_of_the_guide_do_what_the_pages_say(ran, tmp_path):
    names = ran(ROOT / "docs" / "guide" / "missing.md")
    X, filled, draw = (names[name] for name in ("X", "filled", "draw"))
    assert names["codes"].shape == (569, 80)
    assert np.isnan(X).mean() > 0.25
    np.testing.assert_array_equal(filled[~np.isnan(X)], X[~np.isnan(X)])
    assert np.isfinite(filled).all()
    assert (draw != filled).any()

    names = ran(ROOT / "docs" / "guide" / "long_fits.md")
    assert len(list((tmp_path / "fits").iterdir())) == 2 * 3 + 1
    assert names["mvae"].n_iter_ == 9

    names = ran(ROOT / "docs" / "guide" / "saving.md")
    assert names["mvae"].transform(names["X"]).shape == (1797, 80)
    assert (tmp_path / "model.skops").exists()


def test_the_readme_is_a_first_page():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 100
    assert readme.count("![") == 1
    assert f"version {skmvae.__version__}." in readme


def test_the_version_is_the_same_everywhere():
    version = skmvae.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest[1] == version
