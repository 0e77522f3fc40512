"""Pictures of a fitted mixture, in the style of scikit-learn's displays.

Each display holds what it shows, so that it can be drawn again: ``from_estimator`` computes and
draws, ``plot`` draws. Needs matplotlib, which the extra ``plot`` brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from ._transformer import MVAETransformer, RandomState
from ._validation import are_sizes, at_least, check_value

try:
    from matplotlib import pyplot as plt
    from matplotlib.axes import Axes
except ImportError as error:
    raise ImportError("skmvae.plotting needs matplotlib: pip install 'skmvae[plot]'") from error

__all__ = [
    "ComponentUsageDisplay",
    "LatentSpaceDisplay",
    "LossCurveDisplay",
    "ReconstructionDisplay",
    "SampleDisplay",
]

# Ten colours told apart with any colour vision (Petroff 2021).
_COLORS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)


class LossCurveDisplay:
    """The loss and its terms over the epochs of training.

    Parameters
    ----------
    history : dict of str to list of float
        As the ``history_`` of a fitted :class:`~skmvae.MVAETransformer`.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes
        One panel for the loss, one for each of its terms.
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skmvae import MVAETransformer
    >>> from skmvae.plotting import LossCurveDisplay
    >>> mvae = MVAETransformer(k=2, latent_dim=2, max_iter=5).fit(load_iris().data)
    >>> display = LossCurveDisplay.from_estimator(mvae)
    >>> len(display.axes_)
    5
    """

    def __init__(self, history: dict[str, list[float]]) -> None:
        self.history = history

    @classmethod
    def from_estimator(cls, estimator: MVAETransformer, *, ax: Any = None) -> Self:
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : MVAETransformer
            A fitted one.
        ax : Axes or array of Axes, default=None
            One matplotlib axes, which is divided, or one for each panel; None makes a figure.

        Returns
        -------
        display : LossCurveDisplay
        """
        check_is_fitted(estimator)
        return cls(estimator.history_).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or array of Axes, default=None
            One matplotlib axes, which is divided, or one for each panel; None makes a figure.

        Returns
        -------
        display : LossCurveDisplay
        """
        titles = {
            "loss": "loss",
            "reconstruction": "reconstruction",
            "kl_latent": "KL of the codes",
            "kl_mixing": "KL of the mixing weights",
            "dhsic": "dHSIC",
        }
        self.figure_, grid = _panels((1, len(titles)), ax, (2.6, 2.4))
        self.axes_ = grid[0]
        epochs = np.arange(1, len(self.history["loss"]) + 1)
        for ax, (name, title) in zip(self.axes_, titles.items(), strict=True):
            ax.plot(epochs, self.history[name], color=_COLORS[0], label="training")
            ax.set(title=title, xlabel="epoch")
            ax.xaxis.get_major_locator().set_params(integer=True)
        self.axes_[0].set_ylabel("nats a row")
        if "validation_loss" in self.history:
            held_out = self.history["validation_loss"]
            self.axes_[0].plot(epochs, held_out, "--", color=_COLORS[2], label="held out")
            self.axes_[0].legend()
        return self


class LatentSpaceDisplay:
    """The codes of rows, one panel a component.

    Codes of more than two dimensions are shown in the two whose values vary most; the titles say
    which.

    Parameters
    ----------
    codes : ndarray of shape (k, n_samples, latent_dim)
        Codes by component.
    weights : ndarray of shape (k,), default=None
        Mean mixing weights, for the titles.
    y : ndarray of shape (n_samples,), default=None
        Classes or numbers to colour by.

    Attributes
    ----------
    axes_ : ndarray of shape (k,) of matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skmvae import MVAETransformer
    >>> from skmvae.plotting import LatentSpaceDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> mvae = MVAETransformer(k=3, latent_dim=2, max_iter=5).fit(X)
    >>> LatentSpaceDisplay.from_estimator(mvae, X, y).axes_.shape
    (3,)
    """

    def __init__(
        self, codes: np.ndarray, weights: np.ndarray | None = None, y: np.ndarray | None = None
    ) -> None:
        self.codes = codes
        self.weights = weights
        self.y = y

    @classmethod
    def from_estimator(
        cls,
        estimator: MVAETransformer,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        ax: Any = None,
    ) -> Self:
        """Encode X and draw.

        Parameters
        ----------
        estimator : MVAETransformer
            A fitted one.
        X : array-like of shape (n_samples, n_features)
            Rows to encode.
        y : array-like of shape (n_samples,), default=None
            Classes or numbers to colour by.
        ax : Axes or array of Axes, default=None
            One matplotlib axes, which is divided, or one for each panel; None makes a figure.

        Returns
        -------
        display : LatentSpaceDisplay
        """
        Z, weights = estimator.transform(X), estimator.weights_
        return cls._of(Z, y, len(weights), weights).plot(ax=ax)

    @classmethod
    def from_codes(
        cls, Z: ArrayLike, y: ArrayLike | None = None, *, k: int, ax: Any = None
    ) -> Self:
        """Draw codes that are at hand.

        Parameters
        ----------
        Z : array-like of shape (n_samples, k * latent_dim)
            Codes as ``transform`` returns them.
        y : array-like of shape (n_samples,), default=None
            Classes or numbers to colour by.
        k : int
            Number of components.
        ax : Axes or array of Axes, default=None
            One matplotlib axes, which is divided, or one for each panel; None makes a figure.

        Returns
        -------
        display : LatentSpaceDisplay
        """
        check_value("k", k, at_least(1))
        return cls._of(Z, y, k).plot(ax=ax)

    @classmethod
    def _of(cls, Z, y, k, weights=None):
        codes = np.asarray(Z)
        if codes.ndim != 2 or codes.shape[1] % k:
            raise ValueError(f"Z has shape {codes.shape}, but k={k} needs k * latent_dim columns.")
        by_component = codes.reshape(len(codes), k, -1).transpose(1, 0, 2)
        return cls(by_component, weights, None if y is None else _labels(y, codes))

    def plot(self, *, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or array of Axes, default=None
            One matplotlib axes, which is divided, or one for each panel; None makes a figure.

        Returns
        -------
        display : LatentSpaceDisplay
        """
        self.figure_, grid = _panels((1, len(self.codes)), ax, (3.0, 3.2))
        self.axes_ = grid[0]
        for i, (ax, codes) in enumerate(zip(self.axes_, self.codes, strict=True)):
            title = f"component {i}"
            if self.weights is not None:
                title += f", weight {self.weights[i]:.2f}"
            if codes.shape[1] == 1:
                columns, ax_label = (codes[:, 0], np.zeros(len(codes))), ("z0", "")
            else:
                first, second = np.sort(np.argsort(-codes.var(axis=0), kind="stable")[:2])
                columns, ax_label = (codes[:, first], codes[:, second]), (f"z{first}", f"z{second}")
                if codes.shape[1] > 2:
                    title += f"\nwidest of {codes.shape[1]}: z{first}, z{second}"
            _scatter(ax, *columns, self.y, with_legend=i == len(self.codes) - 1)
            ax.set(title=title, xlabel=ax_label[0], ylabel=ax_label[1])
        return self


class ReconstructionDisplay:
    """Rows, what the mixture makes of them, and what each component alone does.

    Parameters
    ----------
    original, mixture : ndarray of shape (n_samples, n_features)
        Rows and their reconstructions.
    components : ndarray of shape (k, n_samples, n_features)
        Reconstructions by each component.
    weights : ndarray of shape (n_samples, k)
        Mixing weights of the rows.
    image_shape : tuple of int, default=None
        (height, width) or (channels, height, width) to draw images; None draws lines.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes
        Of shape (k + 2, n_samples) for images, and (n_samples,) for lines.
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skmvae import MVAETransformer
    >>> from skmvae.plotting import ReconstructionDisplay
    >>> X = load_digits().data
    >>> mvae = MVAETransformer(k=2, latent_dim=2, max_iter=2).fit(X)
    >>> display = ReconstructionDisplay.from_estimator(mvae, X[:5], image_shape=(8, 8))
    >>> display.axes_.shape
    (4, 5)
    """

    def __init__(
        self,
        original: np.ndarray,
        mixture: np.ndarray,
        components: np.ndarray,
        weights: np.ndarray,
        image_shape: Sequence[int] | None = None,
    ) -> None:
        self.original = original
        self.mixture = mixture
        self.components = components
        self.weights = weights
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator: MVAETransformer,
        X: ArrayLike,
        *,
        image_shape: Sequence[int] | None = None,
        ax: Any = None,
    ) -> Self:
        """Reconstruct the rows X and draw.

        Parameters
        ----------
        estimator : MVAETransformer
            A fitted one.
        X : array-like of shape (n_samples, n_features)
            A handful of rows.
        image_shape : tuple of int, default=None
            (height, width) or (channels, height, width) to draw images; None draws lines.
        ax : Axes or array of Axes, default=None
            One matplotlib axes, which is divided, or one for each panel; None makes a figure.

        Returns
        -------
        display : ReconstructionDisplay
        """
        check_is_fitted(estimator)
        k = len(estimator.weights_)
        components = [estimator.reconstruct(X, component=i) for i in range(k)]
        return cls(
            _as_dense(X),
            estimator.reconstruct(X),
            np.stack(components),
            estimator.mixing_weights(X),
            image_shape,
        ).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or array of Axes, default=None
            One matplotlib axes, which is divided, or one for each panel; None makes a figure.

        Returns
        -------
        display : ReconstructionDisplay
        """
        if self.image_shape is None:
            self._plot_lines(ax)
        else:
            self._plot_images(ax)
        return self

    def _plot_images(self, ax):
        _check_image_shape(self.image_shape, self.original.shape[1])
        rows = {"original": self.original, "mixture": self.mixture}
        mean_weights = self.weights.mean(axis=0)
        for i, images in enumerate(self.components):
            rows[f"component {i}\nweight {mean_weights[i]:.2f}"] = images
        shape = (len(rows), len(self.original))
        self.figure_, self.axes_ = _panels(shape, ax, (0.9, 0.9))
        limits = self.original.min(), self.original.max()
        for line, (name, images) in zip(self.axes_, rows.items(), strict=True):
            for ax, image in zip(line, images, strict=True):
                _show(ax, image, self.image_shape, limits)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")

    def _plot_lines(self, ax):
        self.figure_, grid = _panels((1, len(self.original)), ax, (3.4, 2.8))
        self.axes_ = grid[0]
        columns = np.arange(self.original.shape[1])
        for row, ax in enumerate(self.axes_):
            for i, values in enumerate(self.components):
                color = _COLORS[(i + 1) % len(_COLORS)]
                label = f"component {i}, weight {self.weights[row, i]:.2f}"
                ax.plot(columns, values[row], color=color, lw=0.9, label=label)
            ax.plot(columns, self.mixture[row], color=_COLORS[0], lw=2, label="mixture")
            ax.plot(columns, self.original[row], "k.", ms=4, label="original")
            ax.set(title=f"row {row}", xlabel="column")
        self.axes_[-1].legend(fontsize="small", bbox_to_anchor=(1.0, 1.0), loc="upper left")


class ComponentUsageDisplay:
    """Mean mixing weight of each component, over all rows or by class.

    Parameters
    ----------
    usage : ndarray of shape (n_groups, k)
        Mean mixing weights, one row a group.
    groups : sequence of str
        Names of the groups.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skmvae import MVAETransformer
    >>> from skmvae.plotting import ComponentUsageDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> mvae = MVAETransformer(k=3, latent_dim=2, max_iter=5).fit(X)
    >>> ComponentUsageDisplay.from_estimator(mvae, X, y).usage.shape  # all rows, and three classes
    (4, 3)
    """

    def __init__(self, usage: np.ndarray, groups: Sequence[str]) -> None:
        self.usage = usage
        self.groups = groups

    @classmethod
    def from_estimator(
        cls,
        estimator: MVAETransformer,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        ax: Any = None,
    ) -> Self:
        """Average the mixing weights of X and draw.

        Parameters
        ----------
        estimator : MVAETransformer
            A fitted one.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Classes to average over.
        ax : Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : ComponentUsageDisplay
        """
        return cls.from_weights(estimator.mixing_weights(X), y, ax=ax)

    @classmethod
    def from_weights(
        cls, weights: ArrayLike, y: ArrayLike | None = None, *, ax: Any = None
    ) -> Self:
        """Average mixing weights that are at hand and draw.

        Parameters
        ----------
        weights : array-like of shape (n_samples, k)
            As ``mixing_weights`` returns them.
        y : array-like of shape (n_samples,), default=None
            Classes to average over.
        ax : Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : ComponentUsageDisplay
        """
        shares = check_array(weights, input_name="weights")
        usage, groups = [shares.mean(axis=0)], ["all rows"]
        if y is not None:
            y = _labels(y, shares)
            for label in np.unique(y):
                usage.append(shares[y == label].mean(axis=0))
                groups.append(str(label))
        return cls(np.stack(usage), groups).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : ComponentUsageDisplay
        """
        n_groups, k = self.usage.shape
        self.figure_, grid = _panels((1, 1), ax, (5.5, 1.2 + 0.32 * n_groups))
        self.ax_ = grid[0, 0]
        places, left = np.arange(n_groups), np.zeros(n_groups)
        for i in range(k):
            color, hatch = _COLORS[i % len(_COLORS)], "//" if i >= len(_COLORS) else None
            self.ax_.barh(
                places, self.usage[:, i], left=left, color=color, hatch=hatch, label=str(i)
            )
            left += self.usage[:, i]
        self.ax_.set_yticks(places, self.groups)
        self.ax_.invert_yaxis()
        self.ax_.set(xlim=(0, 1), xlabel="mean mixing weight", title="use of the components")
        self.ax_.legend(title="component", bbox_to_anchor=(1.0, 1.0), loc="upper left")
        return self


class SampleDisplay:
    """Rows drawn from the mixture, as images.

    Parameters
    ----------
    samples : ndarray of shape (n_samples, n_features)
    image_shape : tuple of int
        (height, width) or (channels, height, width).

    Attributes
    ----------
    axes_ : ndarray of shape (n_rows, n_columns) of matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skmvae import MVAETransformer
    >>> from skmvae.plotting import SampleDisplay
    >>> mvae = MVAETransformer(k=2, latent_dim=2, max_iter=2).fit(load_digits().data)
    >>> SampleDisplay.from_estimator(mvae, image_shape=(8, 8), n_samples=20).axes_.shape
    (2, 10)
    """

    def __init__(self, samples: np.ndarray, image_shape: Sequence[int]) -> None:
        self.samples = samples
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator: MVAETransformer,
        *,
        image_shape: Sequence[int],
        n_samples: int = 20,
        random_state: RandomState = None,
        ax: Any = None,
    ) -> Self:
        """Sample and draw.

        Parameters
        ----------
        estimator : MVAETransformer
            A fitted one.
        image_shape : tuple of int
            (height, width) or (channels, height, width).
        n_samples : int, default=20
            Ten fit in a line.
        random_state : int, RandomState instance or None, default=None
            As in ``MVAETransformer.sample``.
        ax : Axes or array of Axes, default=None
            One matplotlib axes, which is divided, or one for each panel; None makes a figure.

        Returns
        -------
        display : SampleDisplay
        """
        check_value("n_samples", n_samples, at_least(1))
        return cls(estimator.sample(n_samples, random_state), image_shape).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or array of Axes, default=None
            One matplotlib axes, which is divided, or one for each panel; None makes a figure.

        Returns
        -------
        display : SampleDisplay
        """
        _check_image_shape(self.image_shape, self.samples.shape[1])
        n_columns = min(10, len(self.samples))
        shape = (-(-len(self.samples) // n_columns), n_columns)
        self.figure_, self.axes_ = _panels(shape, ax, (0.9, 0.9))
        limits = self.samples.min(), self.samples.max()
        for panel in self.axes_.flat[len(self.samples) :]:
            panel.axis("off")
        for panel, image in zip(self.axes_.flat, self.samples, strict=False):
            _show(panel, image, self.image_shape, limits)
        if ax is None:
            self.figure_.suptitle("samples")
        return self


def _as_dense(X: Any) -> np.ndarray:
    return np.asarray(X.toarray() if issparse(X) else X, dtype=float)


def _panels(shape, ax, panel_size):
    """A figure and its axes in the given shape; ``panel_size`` is in inches."""
    if ax is None:
        size = shape[1] * panel_size[0], shape[0] * panel_size[1]
        return plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    axes = np.asarray(ax, dtype=object)
    if axes.size == np.prod(shape) and all(isinstance(a, Axes) for a in axes.flat):
        return axes.flat[0].figure, axes.reshape(shape)
    place = ax.get_subplotspec() if isinstance(ax, Axes) else None
    if place is None:
        raise ValueError(
            f"ax={ax!r} holds {axes.size} axes for {np.prod(shape)} panels. Give as many axes, or "
            "one from plt.subplots, which is divided, or None."
        )
    ax.axis("off")
    return ax.figure, place.subgridspec(*shape).subplots(squeeze=False)


def _labels(y, rows):
    """y as an array with a finite entry for each row."""
    y = column_or_1d(y)
    check_consistent_length(rows, y)
    assert_all_finite(y, input_name="y")
    return y


def _check_image_shape(image_shape, n_features):
    shape = tuple(image_shape) if are_sizes(image_shape) else ()
    in_colour = len(shape) == 3 and shape[0] in (1, 3)
    if not (len(shape) == 2 or in_colour) or np.prod(shape) != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} does not fit rows of {n_features} columns. Give (height, "
            "width), or (channels, height, width) with one or three channels."
        )


def _show(ax, image, image_shape, limits):
    """One image, grey or in colours, channels first."""
    pixels = np.reshape(image, image_shape)
    if pixels.ndim == 3:
        low, high = limits
        pixels = (pixels.transpose(1, 2, 0).clip(low, high) - low) / ((high - low) or 1.0)
        if pixels.shape[2] == 1:
            pixels, limits = pixels[..., 0], (0.0, 1.0)
    ax.imshow(pixels, cmap="gray", vmin=limits[0], vmax=limits[1])
    ax.set(xticks=[], yticks=[])


def _scatter(ax, x, y, colored_by, *, with_legend):
    """Points in one colour, a colour for each class, or a colour scale for numbers."""
    options = {"s": 8, "linewidths": 0, "alpha": 0.7}
    if colored_by is None:
        ax.scatter(x, y, color=_COLORS[0], **options)
        return
    classes = np.unique(colored_by)
    many, numbers = len(classes) > len(_COLORS), np.issubdtype(colored_by.dtype, np.number)
    if type_of_target(colored_by).startswith("continuous") or (many and numbers):
        points = ax.scatter(x, y, c=colored_by, cmap="viridis", **options)
        if with_legend:
            ax.figure.colorbar(points, ax=ax)
        return
    colors = plt.get_cmap("viridis")(np.linspace(0, 1, len(classes))) if many else _COLORS
    for label, color in zip(classes, colors, strict=False):
        chosen = colored_by == label
        ax.scatter(x[chosen], y[chosen], color=color, label=str(label), **options)
    if with_legend:
        n_columns = -(-len(classes) // len(_COLORS))
        ax.legend(bbox_to_anchor=(1.0, 1.0), loc="upper left", markerscale=2.5, ncols=n_columns)
