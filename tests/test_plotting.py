"""Displays: what they hold, where they draw, and that the picture shows it."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError

from skmvae import MVAETransformer
from skmvae.plotting import (
    ComponentUsageDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
    SampleDisplay,
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def fitted(make_small, digits):
    return make_small(latent_dim=4).fit(digits[0])


def lines(ax):
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


def test_loss_curves_are_the_history(make_small, digits):
    mvae = make_small(early_stopping=True, max_iter=3).fit(digits[0])
    display = LossCurveDisplay.from_estimator(mvae)
    assert [ax.get_title() for ax in display.axes_][:2] == ["loss", "reconstruction"]
    assert_array_equal(lines(display.axes_[0])["training"], mvae.history_["loss"])
    assert_array_equal(lines(display.axes_[0])["held out"], mvae.history_["validation_loss"])
    assert_array_equal(lines(display.axes_[4])["training"], mvae.history_["dhsic"])
    assert display.axes_[0].get_legend() is not None


def test_without_early_stopping_no_held_out_curve(fitted):
    display = LossCurveDisplay.from_estimator(fitted)
    assert list(lines(display.axes_[0])) == ["training"]


def test_latent_space_has_a_panel_a_component_and_a_colour_a_class(fitted, digits):
    X, y = digits
    display = LatentSpaceDisplay.from_estimator(fitted, X, y)
    Z = fitted.transform(X).reshape(len(X), 3, 4)
    assert display.axes_.shape == (3,)
    for i, ax in enumerate(display.axes_):
        widest = np.sort(np.argsort(-Z[:, i].var(axis=0))[:2])
        assert f"component {i}, weight {fitted.weights_[i]:.2f}" in ax.get_title()
        assert f"z{widest[0]}, z{widest[1]}" in ax.get_title()
        assert len(ax.collections) == 10
        assert_allclose(ax.collections[3].get_offsets(), Z[y == 3, i][:, widest])
    assert [text.get_text() for text in display.axes_[-1].get_legend().get_texts()] == list(
        "0123456789"
    )


def test_two_dimensional_codes_are_shown_as_they_are(make_small, digits):
    mvae = make_small(latent_dim=2).fit(digits[0])
    ax = LatentSpaceDisplay.from_estimator(mvae, digits[0]).axes_[1]
    assert "widest" not in ax.get_title()
    assert_allclose(ax.collections[0].get_offsets(), mvae.transform(digits[0])[:, 2:4])


def test_one_dimensional_codes_are_points_on_a_line(make_small, digits):
    mvae = make_small(latent_dim=1).fit(digits[0])
    offsets = LatentSpaceDisplay.from_estimator(mvae, digits[0]).axes_[0].collections[0]
    assert_array_equal(offsets.get_offsets()[:, 1], 0.0)


def test_numbers_get_a_colour_scale(fitted, digits):
    display = LatentSpaceDisplay.from_estimator(fitted, digits[0], digits[0][:, 20] / 7)
    assert len(display.figure_.axes) == 4  # three panels and the colour bar
    assert len(display.axes_[0].collections) == 1


def test_many_names_get_a_legend(fitted, digits):
    names = np.array([f"group {i:02d}" for i in range(12)])[np.arange(len(digits[0])) % 12]
    ax = LatentSpaceDisplay.from_estimator(fitted, digits[0], names).axes_[-1]
    colors = {tuple(points.get_facecolor()[0]) for points in ax.collections}
    assert len(ax.collections) == len(colors) == len(ax.get_legend().get_texts()) == 12


def test_codes_at_hand(fitted, digits):
    X, y = digits
    display = LatentSpaceDisplay.from_codes(fitted.transform(X), y, k=3)
    assert_array_equal(display.codes, LatentSpaceDisplay.from_estimator(fitted, X, y).codes)
    assert display.axes_[1].get_title().startswith("component 1\n")
    with pytest.raises(ValueError, match="k=5 needs"):
        LatentSpaceDisplay.from_codes(fitted.transform(X), y, k=5)
    with pytest.raises(ValueError, match="k must be an int >= 1"):
        LatentSpaceDisplay.from_codes(fitted.transform(X), y, k=0)


def test_the_fitted_components_are_shown_whatever_k_is_now(make_small, digits):
    X = digits[0][:20]
    mvae = make_small(k=4).fit(X).set_params(k=2)
    assert LatentSpaceDisplay.from_estimator(mvae, X).codes.shape == (4, 20, 2)
    assert ReconstructionDisplay.from_estimator(mvae, X[:2]).components.shape == (4, 2, 64)


def test_classes_in_a_column_and_missing_ones(fitted, digits):
    X, y = digits
    draw = LatentSpaceDisplay.from_estimator, ComponentUsageDisplay.from_estimator
    for from_estimator in draw:
        with pytest.raises(ValueError, match="y contains NaN"):
            from_estimator(fitted, X, np.where(y == 3, np.nan, y))
    assert draw[0](fitted, X, y[:, None]).y.shape == y.shape
    assert draw[1](fitted, X, y[:, None]).usage.shape == (11, 3)


def test_rows_and_classes_must_match(fitted, digits):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LatentSpaceDisplay.from_estimator(fitted, digits[0], digits[1][:-1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ComponentUsageDisplay.from_estimator(fitted, digits[0], digits[1][:-1])


def test_reconstructions_as_images(fitted, digits):
    X = digits[0][:4]
    display = ReconstructionDisplay.from_estimator(fitted, X, image_shape=(8, 8))
    assert display.axes_.shape == (5, 4)
    shown = display.axes_[0, 2].get_images()[0].get_array()
    assert_array_equal(shown, X[2].reshape(8, 8))
    shown = display.axes_[3, 1].get_images()[0].get_array()
    assert_allclose(shown, fitted.reconstruct(X, component=1)[1].reshape(8, 8))
    assert display.axes_[3, 0].get_ylabel().startswith("component 1")


def test_images_in_colour_have_their_channels_first(digits):
    X = np.zeros((60, 12))
    X[:, 4:8] = np.random.default_rng(0).random((60, 4))  # the second of three channels
    mvae = MVAETransformer(k=1, latent_dim=1, max_iter=1, random_state=0).fit(X)
    display = ReconstructionDisplay.from_estimator(mvae, X[:2], image_shape=(3, 2, 2))
    shown = display.axes_[0, 0].get_images()[0].get_array()
    assert shown.shape == (2, 2, 3)
    assert_allclose(shown[..., 1], X[0, 4:8].reshape(2, 2) / X[:2].max())
    assert not shown[..., [0, 2]].any()


def test_reconstructions_of_a_table_are_lines(fitted, digits):
    X = digits[0][:3]
    display = ReconstructionDisplay.from_estimator(fitted, X)
    found = lines(display.axes_[1])
    assert_array_equal(found["original"], X[1])
    assert_allclose(found["mixture"], fitted.reconstruct(X)[1])
    assert sum(label.startswith("component") for label in found) == 3


def test_usage_by_class_adds_up(fitted, digits):
    X, y = digits
    display = ComponentUsageDisplay.from_estimator(fitted, X, y)
    weights = fitted.mixing_weights(X)
    assert_allclose(display.usage[0], weights.mean(axis=0))
    assert_allclose(display.usage[8], weights[y == 7].mean(axis=0))
    assert_allclose(display.usage.sum(axis=1), 1.0)
    assert len(display.ax_.patches) == 3 * 11
    assert display.groups[:2] == ["all rows", "0"]


def test_weights_at_hand(fitted, digits):
    X, y = digits
    display = ComponentUsageDisplay.from_weights(fitted.mixing_weights(X), y)
    assert_array_equal(display.usage, ComponentUsageDisplay.from_estimator(fitted, X, y).usage)
    with pytest.raises(ValueError, match="2D array"):
        ComponentUsageDisplay.from_weights(fitted.weights_)


def test_a_class_may_be_called_like_the_total(fitted, digits):
    names = np.where(digits[1] < 5, "all rows", "others")
    ax = ComponentUsageDisplay.from_estimator(fitted, digits[0], names).ax_
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "all rows",
        "all rows",
        "others",
    ]
    assert len({patch.get_y() for patch in ax.patches}) == 3


@pytest.mark.parametrize("image_shape", [(8, 7), (64,), (4, 4, 4), 64, (8.0, 8.0), (-8, -8)])
def test_image_shape_must_fit(fitted, digits, image_shape):
    with pytest.raises(ValueError, match=r"image_shape=.* 64 columns"):
        ReconstructionDisplay.from_estimator(fitted, digits[0][:2], image_shape=image_shape)
    with pytest.raises(ValueError, match=r"image_shape=.* 64 columns"):
        SampleDisplay.from_estimator(fitted, image_shape=image_shape)
    assert plt.get_fignums() == []


def test_images_of_one_colour(fitted):
    black = np.zeros((2, 12))
    display = ReconstructionDisplay(black, black, black[None], np.ones((2, 1)), (3, 2, 2)).plot()
    assert not display.axes_[0, 0].get_images()[0].get_array().any()


def test_samples_fill_a_grid(fitted):
    display = SampleDisplay.from_estimator(fitted, image_shape=(8, 8), n_samples=13, random_state=0)
    assert display.axes_.shape == (2, 10)
    assert_array_equal(display.samples, fitted.sample(13, random_state=0))
    assert display.axes_[1, 2].axison
    assert not display.axes_[1, 3].axison


def test_number_of_samples_is_checked(fitted):
    with pytest.raises(ValueError, match="n_samples"):
        SampleDisplay.from_estimator(fitted, image_shape=(8, 8), n_samples=0)


def test_one_axes_is_divided(fitted, digits):
    figure, (left, right) = plt.subplots(1, 2)
    display = LatentSpaceDisplay.from_estimator(fitted, digits[0], ax=right)
    assert display.figure_ is figure
    assert display.axes_.shape == (3,)
    assert not left.collections
    assert all(
        ax.get_subplotspec().get_topmost_subplotspec().colspan.start == 1 for ax in display.axes_
    )


def test_axes_of_the_user_are_taken(fitted, digits):
    _, axes = plt.subplots(3, 1)
    display = LatentSpaceDisplay.from_estimator(fitted, digits[0], ax=axes)
    assert list(display.axes_) == list(axes)
    figure, ax = plt.subplots()
    assert ComponentUsageDisplay.from_estimator(fitted, digits[0], ax=ax).ax_ is ax
    assert plt.get_fignums() == [1, figure.number]


def test_wrong_number_of_axes(fitted, digits):
    _, axes = plt.subplots(2, 1)
    with pytest.raises(ValueError, match="holds 2 axes for 3 panels"):
        LatentSpaceDisplay.from_estimator(fitted, digits[0], ax=axes)
    with pytest.raises(ValueError, match="ax='left'"):
        ComponentUsageDisplay.from_estimator(fitted, digits[0], ax="left")


def test_a_display_can_be_drawn_again(fitted, digits):
    display = LatentSpaceDisplay.from_estimator(fitted, *digits)
    first = display.figure_
    assert display.plot() is display
    assert display.figure_ is not first


def test_unfitted(make_small, digits):
    for draw in (
        lambda m: LossCurveDisplay.from_estimator(m),
        lambda m: LatentSpaceDisplay.from_estimator(m, digits[0]),
        lambda m: ReconstructionDisplay.from_estimator(m, digits[0][:2]),
        lambda m: ComponentUsageDisplay.from_estimator(m, digits[0]),
        lambda m: SampleDisplay.from_estimator(m, image_shape=(8, 8)),
    ):
        with pytest.raises(NotFittedError):
            draw(make_small())
    assert plt.get_fignums() == []


@pytest.mark.cpu
def test_a_table_of_pandas(make_small, digits):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(digits[0], columns=[f"p{i}" for i in range(64)])
    mvae = make_small().set_output(transform="pandas").fit(X)
    y = pandas.Series(digits[1])
    plain = make_small().fit(digits[0])
    for cls, name in ((LatentSpaceDisplay, "codes"), (ComponentUsageDisplay, "usage")):
        shown, expected = cls.from_estimator(mvae, X, y), cls.from_estimator(plain, *digits)
        assert_array_equal(getattr(shown, name), getattr(expected, name))
    shown = ReconstructionDisplay.from_estimator(mvae, X[:2])
    assert_array_equal(shown.original, digits[0][:2])
    assert_array_equal(shown.mixture, plain.reconstruct(digits[0][:2]))


def test_sparse_rows(fitted, digits):
    X = csr_array(digits[0][:3])
    shown = ReconstructionDisplay.from_estimator(fitted, X)
    assert_array_equal(shown.original, digits[0][:3])
    assert_array_equal(shown.mixture, fitted.reconstruct(digits[0][:3]))
    assert_array_equal(
        ComponentUsageDisplay.from_estimator(fitted, X).usage,
        ComponentUsageDisplay.from_estimator(fitted, digits[0][:3]).usage,
    )


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "skmvae.plotting")
    with pytest.raises(ImportError, match=r"skmvae\[plot\]"):
        import skmvae.plotting  # noqa: F401
