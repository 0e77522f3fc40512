"""Pictures of a fitted mixture, in the style of scikit-learn's displays.

Each display holds what it shows, so that it can be drawn again: ``from_estimator`` computes and
draws, ``plot`` draws. Needs matplotlib, which the extra ``plot`` brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from ._rows.scaled import dense
from ._rows.statistics import value_range
from ._transformer import MVAETransformer, RandomState
from ._validation import are_sizes, at_least, check_rows, check_value

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
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


class _Display:
    """Base of the displays: ``plot`` draws on the axes given, on parts of one, or on a figure."""

    def plot(self, *, ax: Any = None) -> Self:
        """Draw, or draw again.

        Parameters
        ----------
        ax : Axes or array of Axes, default=None
            One matplotlib axes, which is divided if there are more panels, or one for each panel;
            None makes a figure.

        Returns
        -------
        self : display
        """
        self._draw(ax)
        return self

    def _draw(self, ax: Any) -> None:
        raise NotImplementedError

    def _panels(self, shape, ax, size):
        """Set ``figure_`` and return its axes in the given shape; a panel has ``size`` inches."""
        if ax is None:
            width, height = shape[1] * size[0], shape[0] * size[1]
            self.figure_ = plt.figure(figsize=(width, height), layout="constrained")
            return self.figure_.subplots(*shape, squeeze=False)
        axes = np.asarray(ax, dtype=object)
        if axes.size == np.prod(shape) and all(isinstance(a, Axes) for a in axes.flat):
            self.figure_ = axes.flat[0].figure
            return axes.reshape(shape)
        place = ax.get_subplotspec() if isinstance(ax, Axes) else None
        if place is None:
            raise ValueError(
                f"ax={ax!r} holds {axes.size} axes for {np.prod(shape)} panels. Give as many axes, "
                "or one from plt.subplots, which is divided, or None."
            )
        ax.axis("off")
        self.figure_ = ax.figure
        return place.subgridspec(*shape).subplots(squeeze=False)


@dataclass(eq=False, repr=False)
class LossCurveDisplay(_Display):
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
    >>> from skmvae import MVAETransformer, plotting
    >>> mvae = MVAETransformer(k=2, latent_dim=2, max_iter=5).fit(load_iris().data)
    >>> display = plotting.LossCurveDisplay.from_estimator(mvae)
    >>> [ax.get_title() for ax in display.axes_]
    ['loss', 'reconstruction', 'KL of the codes', 'KL of the mixing weights', 'dHSIC']
    """

    history: dict[str, list[float]]

    @classmethod
    def from_estimator(cls, estimator: MVAETransformer, *, ax: Any = None) -> Self:
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : fitted MVAETransformer
        ax : Axes or array of Axes, default=None

        Returns
        -------
        display : LossCurveDisplay
        """
        check_is_fitted(estimator)
        return cls(estimator.history_).plot(ax=ax)

    def _draw(self, ax: Any) -> None:
        names = ["loss", "reconstruction", "kl_latent", "kl_mixing", "dhsic"]
        titles = [*names[:2], "KL of the codes", "KL of the mixing weights", "dHSIC"]
        self.axes_ = self._panels((1, len(titles)), ax, (2.6, 2.4))[0]
        epochs = np.arange(1, len(self.history["loss"]) + 1)
        for ax, name, title in zip(self.axes_, names, titles, strict=True):
            ax.plot(epochs, self.history[name], color=_COLORS[0], label="training")
            ax.set(title=title, xlabel="epoch")
            ax.xaxis.get_major_locator().set_params(integer=True)
        self.axes_[0].set_ylabel("nats a row")
        if "validation_loss" in self.history:
            style = {"ls": "--", "color": _COLORS[2], "label": "held out"}
            self.axes_[0].plot(epochs, self.history["validation_loss"], **style)
            self.axes_[0].legend()


@dataclass(eq=False, repr=False)
class LatentSpaceDisplay(_Display):
    """The codes of rows, one panel a component.

    Codes of more than two dimensions are shown in the two that vary most, which the titles name.

    Parameters
    ----------
    codes : ndarray of shape (k, n_samples, latent_dim)
    weights : ndarray of shape (k,), default=None
        Mean mixing weights, for the titles.
    y : ndarray of shape (n_samples,), default=None
        Classes or numbers to colour by, such as ``mvae.predict(X)``.

    Attributes
    ----------
    axes_ : ndarray of shape (k,) of matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> import numpy as np
    >>> from skmvae.plotting import LatentSpaceDisplay
    >>> Z = np.random.default_rng(0).normal(size=(100, 6)) * [1, 3, 2, 2, 1, 3]
    >>> display = LatentSpaceDisplay.from_codes(Z, k=2)
    >>> print(display.axes_[1].get_title())
    component 1
    widest of 3: z0, z2
    """

    codes: np.ndarray
    weights: np.ndarray | None = None
    y: np.ndarray | None = None

    @classmethod
    def from_estimator(
        cls, estimator: MVAETransformer, X: ArrayLike, y: ArrayLike | None = None, *, ax: Any = None
    ) -> Self:
        """Encode X and draw.

        Parameters
        ----------
        estimator : fitted MVAETransformer
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
        ax : Axes or array of Axes, default=None

        Returns
        -------
        display : LatentSpaceDisplay
        """
        Z, weights = estimator.transform(X), estimator.weights_
        return cls._from_columns(Z, y, len(weights), weights).plot(ax=ax)

    @classmethod
    def from_codes(
        cls, Z: ArrayLike, y: ArrayLike | None = None, *, k: int, ax: Any = None
    ) -> Self:
        """Draw given codes.

        Parameters
        ----------
        Z : array-like of shape (n_samples, k * latent_dim)
            Codes as ``transform`` returns them.
        y : array-like of shape (n_samples,), default=None
        k : int
            Number of components.
        ax : Axes or array of Axes, default=None

        Returns
        -------
        display : LatentSpaceDisplay
        """
        check_value("k", k, at_least(1))
        return cls._from_columns(Z, y, k).plot(ax=ax)

    @classmethod
    def _from_columns(cls, Z, y, k, weights=None):
        codes = np.asarray(Z)
        if codes.ndim != 2 or codes.shape[1] % k:
            raise ValueError(f"Z has shape {codes.shape}, but k={k} needs k * latent_dim columns.")
        by_component = codes.reshape(len(codes), k, -1).transpose(1, 0, 2)
        return cls(by_component, weights, None if y is None else _labels(y, codes))

    def _draw(self, ax: Any) -> None:
        self.axes_ = self._panels((1, len(self.codes)), ax, (3.0, 3.2))[0]
        for i, (ax, codes) in enumerate(zip(self.axes_, self.codes, strict=True)):
            title = f"component {i}"
            if self.weights is not None:
                title += f", weight {self.weights[i]:.2f}"
            widest = np.sort(np.argsort(-codes.var(axis=0), kind="stable")[:2])
            x_name, y_name = [*(f"z{column}" for column in widest), ""][:2]
            x, y = [*codes[:, widest].T, np.zeros(len(codes))][:2]  # one dimension makes a line
            if codes.shape[1] > 2:
                title += f"\nwidest of {codes.shape[1]}: {x_name}, {y_name}"
            _scatter(ax, x, y, self.y, with_legend=i == len(self.codes) - 1)
            ax.set(title=title, xlabel=x_name, ylabel=y_name)


@dataclass(eq=False, repr=False)
class ReconstructionDisplay(_Display):
    r"""Rows, what the mixture makes of them, and what each component alone does.

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
    >>> from skmvae import MVAETransformer, plotting
    >>> X = load_digits().data
    >>> mvae = MVAETransformer(k=1, latent_dim=2, max_iter=2).fit(X)
    >>> display = plotting.ReconstructionDisplay.from_estimator(mvae, X[:5], image_shape=(8, 8))
    >>> [line[0].get_ylabel() for line in display.axes_]
    ['original', 'mixture', 'component 0\nweight 1.00']
    """

    original: np.ndarray
    mixture: np.ndarray
    components: np.ndarray
    weights: np.ndarray
    image_shape: Sequence[int] | None = None

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
        estimator : fitted MVAETransformer
        X : array-like of shape (n_samples, n_features)
            A handful of rows.
        image_shape : tuple of int, default=None
        ax : Axes or array of Axes, default=None

        Returns
        -------
        display : ReconstructionDisplay
        """
        mixture, weights = estimator.reconstruct(X), estimator.mixing_weights(X)
        components = [estimator.reconstruct(X, component=i) for i in range(weights.shape[1])]
        original = dense(check_rows(estimator, X, reset=False)).astype(float)
        return cls(original, mixture, np.stack(components), weights, image_shape).plot(ax=ax)

    def _draw(self, ax: Any) -> None:
        (self._draw_lines if self.image_shape is None else self._draw_images)(ax)

    def _draw_images(self, ax):
        _check_image_shape(self.image_shape, self.original.shape[1])
        rows = {"original": self.original, "mixture": self.mixture}
        for i, (images, weight) in enumerate(zip(self.components, self.weights.T, strict=True)):
            rows[f"component {i}\nweight {weight.mean():.2f}"] = images
        self.axes_ = self._panels((len(rows), len(self.original)), ax, (0.9, 0.9))
        limits = value_range(self.original)  # of what was observed
        for line, (name, images) in zip(self.axes_, rows.items(), strict=True):
            for ax, image in zip(line, images, strict=True):
                _show(ax, image, self.image_shape, limits)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")

    def _draw_lines(self, ax):
        self.axes_ = self._panels((1, len(self.original)), ax, (3.4, 2.8))[0]
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


@dataclass(eq=False, repr=False)
class ComponentUsageDisplay(_Display):
    """Mean mixing weight of each component, over all rows or by class.

    Parameters
    ----------
    usage : ndarray of shape (n_groups, k)
        Mean mixing weights, one row a group.
    groups : sequence of str

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from skmvae.plotting import ComponentUsageDisplay
    >>> display = ComponentUsageDisplay.from_weights([[0.9, 0.1], [0.2, 0.8]], y=["cat", "dog"])
    >>> display.groups, display.usage.round(2).tolist()
    (['all rows', 'cat', 'dog'], [[0.55, 0.45], [0.9, 0.1], [0.2, 0.8]])
    """

    usage: np.ndarray
    groups: Sequence[str]

    @classmethod
    def from_estimator(
        cls, estimator: MVAETransformer, X: ArrayLike, y: ArrayLike | None = None, *, ax: Any = None
    ) -> Self:
        """Average the mixing weights of the rows X and draw.

        Parameters
        ----------
        estimator : fitted MVAETransformer
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Classes to average over.
        ax : Axes, default=None

        Returns
        -------
        display : ComponentUsageDisplay
        """
        return cls.from_weights(estimator.mixing_weights(X), y, ax=ax)

    @classmethod
    def from_weights(
        cls, weights: ArrayLike, y: ArrayLike | None = None, *, ax: Any = None
    ) -> Self:
        """Average given mixing weights and draw.

        Parameters
        ----------
        weights : array-like of shape (n_samples, k)
            As ``mixing_weights`` returns them.
        y : array-like of shape (n_samples,), default=None
            Classes to average over.
        ax : Axes, default=None

        Returns
        -------
        display : ComponentUsageDisplay
        """
        of_rows = check_array(weights, input_name="weights")
        usage, groups = [of_rows.mean(axis=0)], ["all rows"]
        if y is not None:
            y = _labels(y, of_rows)
            for label in np.unique(y):
                usage.append(of_rows[y == label].mean(axis=0))
                groups.append(str(label))
        return cls(np.stack(usage), groups).plot(ax=ax)

    def _draw(self, ax: Any) -> None:
        n_groups, k = self.usage.shape
        self.ax_ = self._panels((1, 1), ax, (5.5, 1.2 + 0.32 * n_groups))[0, 0]
        places, left = np.arange(n_groups), np.zeros(n_groups)
        for i in range(k):
            color, hatch = _COLORS[i % len(_COLORS)], "//" if i >= len(_COLORS) else None
            widths, style = self.usage[:, i], {"color": color, "hatch": hatch}
            self.ax_.barh(places, widths, left=left, label=str(i), **style)
            left += widths
        self.ax_.set_yticks(places, self.groups)
        self.ax_.invert_yaxis()
        self.ax_.set(xlim=(0, 1), xlabel="mean mixing weight", title="use of the components")
        self.ax_.legend(title="component", bbox_to_anchor=(1.0, 1.0), loc="upper left")


@dataclass(eq=False, repr=False)
class SampleDisplay(_Display):
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
    >>> from skmvae import MVAETransformer, plotting
    >>> mvae = MVAETransformer(k=2, latent_dim=2, max_iter=2).fit(load_digits().data)
    >>> display = plotting.SampleDisplay.from_estimator(mvae, image_shape=(8, 8), n_samples=20)
    >>> f"{display.figure_.get_suptitle()}: {len(display.axes_)} lines of {len(display.axes_[0])}"
    'samples: 2 lines of 10'
    """

    samples: np.ndarray
    image_shape: Sequence[int]

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
        estimator : fitted MVAETransformer
        image_shape : tuple of int
        n_samples : int, default=20
            Ten fit in a line.
        random_state : int, RandomState instance or None, default=None
            As in ``MVAETransformer.sample``.
        ax : Axes or array of Axes, default=None

        Returns
        -------
        display : SampleDisplay
        """
        check_value("n_samples", n_samples, at_least(1))
        return cls(estimator.sample(n_samples, random_state), image_shape).plot(ax=ax)

    def _draw(self, ax: Any) -> None:
        _check_image_shape(self.image_shape, self.samples.shape[1])
        n_columns = min(10, len(self.samples))
        shape = (-(-len(self.samples) // n_columns), n_columns)
        self.axes_ = self._panels(shape, ax, (0.9, 0.9))
        limits = value_range(self.samples)
        for panel in self.axes_.flat[len(self.samples) :]:
            panel.axis("off")
        for panel, image in zip(self.axes_.flat, self.samples, strict=False):
            _show(panel, image, self.image_shape, limits)
        if ax is None:
            self.figure_.suptitle("samples")


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
