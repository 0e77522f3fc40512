"""Displays: what they hold, what they show, and the axes that they draw on."""

import sys

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError

from skmvae.plotting import (
    ComponentUsageDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
    SampleDisplay,
)


@pytest.fixture(autouse=True)
def _close_figures():
    plt.close("all")  # those of doctests, which may come before
    yield
    plt.close("all")


def lines(ax):
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


def test_loss_curves_are_the_history(fitted):
    display = LossCurveDisplay.from_estimator(fitted)
    assert [ax.get_title() for ax in display.axes_][:2] == ["loss", "reconstruction"]
    assert list(lines(display.axes_[0])) == ["training"]
    assert_array_equal(lines(display.axes_[4])["training"], fitted.history_["dhsic"])
    held_out = [3.0, 2.0]
    ax = LossCurveDisplay({**fitted.history_, "validation_loss": held_out}).plot().axes_[0]
    assert_array_equal(lines(ax)["training"], fitted.history_["loss"])
    assert_array_equal(lines(ax)["held out"], held_out)
    assert ax.get_legend() is not None


def test_latent_space_has_a_panel_a_component_and_a_colour_a_class(fitted, digits):
    X, y = digits
    display = LatentSpaceDisplay.from_estimator(fitted, X, y)
    Z = fitted.transform(X)
    assert display.axes_.shape == (3,)
    for i, ax in enumerate(display.axes_):
        assert ax.get_title() == f"component {i}, weight {fitted.weights_[i]:.2f}"
        assert len(ax.collections) == 10
        assert_allclose(ax.collections[3].get_offsets(), Z[y == 3, 2 * i : 2 * i + 2])
    texts = display.axes_[-1].get_legend().get_texts()
    assert [text.get_text() for text in texts] == list("0123456789")
    first = display.figure_
    assert display.plot() is display
    assert display.figure_ is not first
    display = LatentSpaceDisplay.from_estimator(fitted, X, X[:, 20] / 7)
    assert len(display.figure_.axes) == 4  # numbers have a colour scale beside the panels
    assert len(display.axes_[0].collections) == 1


@pytest.mark.parametrize("latent_dim", [1, 2, 4])
def test_two_dimensions_of_the_codes_are_shown(latent_dim):
    spreads = np.tile([1, 3, 2, 4][:latent_dim], 2)
    Z = spreads * np.random.default_rng(0).normal(size=(50, 2 * latent_dim))
    ax = LatentSpaceDisplay.from_codes(Z, k=2).axes_[1]
    codes, shown = Z[:, latent_dim:], ax.collections[0].get_offsets()
    if latent_dim == 1:
        codes = np.column_stack([codes, np.zeros(50)])
    assert_allclose(shown, codes[:, [1, 3]] if latent_dim == 4 else codes)
    widest = "\nwidest of 4: z1, z3" if latent_dim == 4 else ""
    assert ax.get_title() == "component 1" + widest
    with pytest.raises(ValueError, match="k=5 needs"):
        LatentSpaceDisplay.from_codes(np.ones((50, 8)), k=5)
    with pytest.raises(ValueError, match="k must be an int >= 1"):
        LatentSpaceDisplay.from_codes(Z, k=0)


def test_reconstructions_as_images_with_their_channels_first(fitted, digits):
    X = digits[0][:4]
    display = ReconstructionDisplay.from_estimator(fitted, X, image_shape=(8, 8))
    assert display.axes_.shape == (5, 4)
    shown = [display.axes_[place].get_images()[0].get_array() for place in ((0, 2), (3, 1))]
    assert_array_equal(shown[0], X[2].reshape(8, 8))
    assert_allclose(shown[1], fitted.reconstruct(X, component=1)[1].reshape(8, 8))
    assert display.axes_[3, 0].get_ylabel().startswith("component 1")
    X = np.zeros((2, 12))
    X[:, 4:8] = np.random.default_rng(0).random((2, 4))  # the second of three channels
    display = ReconstructionDisplay(X, X, X[None], np.ones((2, 1)), (3, 2, 2)).plot()
    shown = display.axes_[0, 0].get_images()[0].get_array()
    assert_allclose(shown[..., 1], X[0, 4:8].reshape(2, 2) / X.max())
    assert not shown[..., [0, 2]].any()
    black = SampleDisplay(0 * X, (3, 2, 2)).plot().axes_[0, 0].get_images()[0].get_array()
    assert not black.any()


@pytest.mark.parametrize("container", [np.asarray, csr_array])
def test_reconstructions_of_a_table_are_lines(container, fitted, digits):
    X = digits[0][:3]
    found = lines(ReconstructionDisplay.from_estimator(fitted, container(X)).axes_[1])
    assert_array_equal(found["original"], X[1])
    assert_allclose(found["mixture"], fitted.reconstruct(X)[1])
    assert sum(label.startswith("component") for label in found) == 3


def test_usage_is_the_mean_weight_by_class(fitted, digits):
    X, y = digits
    weights, names = fitted.mixing_weights(X), np.where(y < 5, "all rows", "others")
    display = ComponentUsageDisplay.from_estimator(fitted, X, names)
    expected = [weights.mean(axis=0), weights[y < 5].mean(axis=0), weights[y >= 5].mean(axis=0)]
    assert_allclose(display.usage, expected)
    assert display.groups == ["all rows", "all rows", "others"]
    assert len(display.ax_.patches) == 3 * 3
    assert len({patch.get_y() for patch in display.ax_.patches}) == 3
    with pytest.raises(ValueError, match="2D array"):
        ComponentUsageDisplay.from_weights(fitted.weights_)
    for cls in (LatentSpaceDisplay, ComponentUsageDisplay):
        cls.from_estimator(fitted, X, y[:, None])
        with pytest.raises(ValueError, match="y contains NaN"):
            cls.from_estimator(fitted, X, np.where(y == 3, np.nan, y))
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            cls.from_estimator(fitted, X, y[:-1])


def test_samples_fill_a_grid(fitted):
    display = SampleDisplay.from_estimator(fitted, image_shape=(8, 8), n_samples=13, random_state=0)
    assert display.axes_.shape == (2, 10)
    assert_array_equal(display.samples, fitted.sample(13, random_state=0))
    assert [ax.axison for ax in display.axes_[1, 2:4]] == [True, False]
    with pytest.raises(ValueError, match="n_samples"):
        SampleDisplay.from_estimator(fitted, image_shape=(8, 8), n_samples=0)
    for shape in ((8, 7), (64,), 64, (8.0, 8.0)):
        with pytest.raises(ValueError, match=r"image_shape=.* 64 columns"):
            SampleDisplay.from_estimator(fitted, image_shape=shape)
    assert len(plt.get_fignums()) == 1  # that of the samples


def test_axes_of_the_user_are_taken_and_one_is_divided(fitted, digits):
    figure, (left, right) = plt.subplots(1, 2)
    display = LatentSpaceDisplay.from_estimator(fitted, digits[0], ax=right)
    assert display.figure_ is figure
    assert display.axes_.shape == (3,)
    assert not left.collections
    places = [ax.get_subplotspec().get_topmost_subplotspec() for ax in display.axes_]
    assert all(place.colspan.start == 1 for place in places)
    _, axes = plt.subplots(3, 1)
    display = LatentSpaceDisplay.from_estimator(fitted, digits[0], ax=axes)
    assert list(display.axes_) == list(axes)
    assert ComponentUsageDisplay.from_estimator(fitted, digits[0], ax=left).ax_ is left
    assert len(plt.get_fignums()) == 2
    with pytest.raises(ValueError, match="holds 2 axes for 3 panels"):
        LatentSpaceDisplay.from_estimator(fitted, digits[0], ax=axes[:2])
    with pytest.raises(ValueError, match="ax='left'"):
        ComponentUsageDisplay.from_estimator(fitted, digits[0], ax="left")


def test_unfitted(make_small, digits):
    for cls in (LatentSpaceDisplay, ReconstructionDisplay, ComponentUsageDisplay):
        with pytest.raises(NotFittedError):
            cls.from_estimator(make_small(), digits[0][:2])
    with pytest.raises(NotFittedError):
        LossCurveDisplay.from_estimator(make_small())
    with pytest.raises(NotFittedError):
        SampleDisplay.from_estimator(make_small(), image_shape=(8, 8))
    assert plt.get_fignums() == []


@pytest.mark.cpu
def test_a_table_of_pandas(make_small, digits):
    X, y = pd.DataFrame(digits[0], columns=[f"p{i}" for i in range(64)]), pd.Series(digits[1])
    mvae = make_small().set_output(transform="pandas").fit(X).set_params(k=2)
    plain = make_small().fit(digits[0])
    for cls, name in ((LatentSpaceDisplay, "codes"), (ComponentUsageDisplay, "usage")):
        shown, expected = cls.from_estimator(mvae, X, y), cls.from_estimator(plain, *digits)
        assert_array_equal(getattr(shown, name), getattr(expected, name))
    shown = ReconstructionDisplay.from_estimator(mvae, X[:2])
    assert_array_equal(shown.original, digits[0][:2])
    assert_array_equal(shown.mixture, plain.reconstruct(digits[0][:2]))


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "skmvae.plotting")
    with pytest.raises(ImportError, match=r"skmvae\[plot\]"):
        import skmvae.plotting  # noqa: F401
