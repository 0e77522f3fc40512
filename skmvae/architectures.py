"""Architectures: the networks that one component consists of.

An architecture is a :class:`~sklearn.base.BaseEstimator` with a method ``build``, so it can be
cloned, nested in a grid search (``architecture__hidden_layer_sizes``) and saved.

To write one of your own, subclass ``BaseEstimator`` and give ``build(n_features, latent_dim, k)``
returning two :class:`torch.nn.Module`: an encoder whose ``forward(x, generator=None)`` maps
``(n_rows, n_features)`` or ``(k, n_rows, n_features)`` to ``(k, n_rows, 2 * latent_dim + 1)``
(posterior means, raw standard deviations, one raw concentration), and a decoder whose
``forward(z, generator=None)`` maps ``(k, n_rows, latent_dim)`` to ``(k, n_rows, n_features)``.
``generator`` is the source of any random draws while training and None at inference. Every module
that owns parameters or buffers needs ``reset_parameters(generator)``; both are float32, and buffers
are persistent. An attribute ``default_learning_rate`` is what ``learning_rate=None`` means for
the architecture; without one it means that of :class:`MLP`. :class:`ComponentLinear` is a building
block that keeps to these rules; it holds k linear layers as one batched product.

Examples
--------
A linear architecture, which makes the model a mixture of probabilistic PCAs:

>>> from sklearn.base import BaseEstimator
>>> from sklearn.datasets import load_iris
>>> from torch import nn
>>> from skmvae import MVAETransformer
>>> from skmvae.architectures import ComponentLinear
>>> class Plain(nn.Module):
...     def __init__(self, k, n_in, n_out):
...         super().__init__()
...         self.linear = ComponentLinear(k, n_in, n_out)
...     def forward(self, h, generator=None):
...         return self.linear(h)
>>> class LinearArchitecture(BaseEstimator):
...     def build(self, n_features, latent_dim, k):
...         return Plain(k, n_features, 2 * latent_dim + 1), Plain(k, latent_dim, n_features)
>>> X = load_iris().data
>>> mvae = MVAETransformer(k=2, latent_dim=2, architecture=LinearArchitecture(), max_iter=5)
>>> mvae.fit_transform(X).shape
(150, 4)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn
from torch.nn import functional as F

from ._model.convolution import ConvDecoder, ConvEncoder, ConvOptions, ImageShape, image_sizes
from ._model.layers import ComponentLinear, ComponentMLP
from ._validation import are_sizes, check_parameters, in_interval, one_of, optional

__all__ = ["MLP", "ComponentLinear", "Conv"]

# Default widths (hidden_layer_sizes=None): the time of a step falls with the square of the width.
_NARROWEST, _WIDEST, _UNITS_A_COLUMN = 128, 500, 4

# The rate that suits layers of up to so many inputs: chosen on MNIST, and on CIFAR-10 for linear
# layers of 2,048 and 8,192 inputs (docs/benchmarks.md).
_LEARNING_RATE, _FULL_RATE_INPUTS = 3e-3, 4096

# Activations work in place where autograd allows it: a layer's output has no other use.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "elu": partial(F.elu, inplace=True),
    "leaky_relu": partial(F.leaky_relu, inplace=True),
    "gelu": F.gelu,
    "silu": F.silu,
}


class MLP(BaseEstimator):
    """Fully connected encoder and decoder, as the paper uses for MNIST (section V.A).

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=None
        Widths of the encoder's hidden layers, from the input on. The decoder has the same in
        reverse order. An empty tuple makes both linear. None means two layers, four times as wide
        as X but no narrower than 128 and no wider than 500, the paper's width for MNIST.
    activation : {"relu", "tanh", "elu", "leaky_relu", "gelu", "silu"}, default="relu"
        Activation of the hidden layers.
    dropout : float, default=0.0
        Probability, in [0, 1), that training drops a hidden unit. Inference never drops one.

    Examples
    --------
    >>> from skmvae import MVAETransformer
    >>> from skmvae.architectures import MLP
    >>> MVAETransformer(architecture=MLP(hidden_layer_sizes=(64,))).architecture
    MLP(hidden_layer_sizes=(64,))
    """

    default_learning_rate: ClassVar[float] = _LEARNING_RATE

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] | None = None,
        *,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout

    def build(self, n_features: int, latent_dim: int, k: int) -> tuple[nn.Module, nn.Module]:
        """Make the stacked encoder and decoder of k components.

        Parameters
        ----------
        n_features, latent_dim, k : int
            Widths of a row and of a code, and number of components.

        Returns
        -------
        encoder, decoder : torch.nn.Module
            (n_rows, n_features) or (k, n_rows, n_features) -> (k, n_rows, 2 * latent_dim + 1), and
            (k, n_rows, latent_dim) -> (k, n_rows, n_features).

        Raises
        ------
        ValueError
            If a parameter of the architecture is out of range.
        """
        check_parameters(
            self,
            {
                "hidden_layer_sizes": optional((are_sizes, "a tuple of ints >= 1")),
                "activation": one_of(_ACTIVATIONS),
                "dropout": in_interval(0.0, 1.0, closed="left"),
            },
        )
        hidden = self.hidden_layer_sizes
        if hidden is None:
            hidden = 2 * (min(_WIDEST, max(_NARROWEST, _UNITS_A_COLUMN * n_features)),)
        activation = _ACTIVATIONS[self.activation]
        encoder_sizes = (n_features, *hidden, 2 * latent_dim + 1)
        decoder_sizes = (latent_dim, *reversed(hidden), n_features)
        return (
            ComponentMLP(k, encoder_sizes, activation, self.dropout),
            ComponentMLP(k, decoder_sizes, activation, self.dropout),
        )


class Conv(BaseEstimator):
    """Convolutional encoder and decoder for images (section V.C of the paper).

    The encoder is a stack of convolutions and one linear layer, the decoder one linear layer and
    the same convolutions, transposed. Each but the last of the decoder is followed by batch
    normalisation and a leaky ReLU. The paper gives five layers of 3 x 3 kernels and batch
    normalisation for 32 x 32 images; channels and strides are not in the paper.

    X stays a table with one image a row, channel by channel: ``images.reshape(n, -1)`` for images
    ``(n, channels, height, width)``, ``images.transpose(0, 3, 1, 2).reshape(n, -1)`` for images
    with the channels last.

    Parameters
    ----------
    image_shape : tuple of int
        Channels, height and width of an image; their product is the number of columns of X.
    channels : tuple of int, default=(32, 64, 64, 128, 128)
        Output channels of each convolution of the encoder, from the input on.
    kernel_size : int, default=3
        Height and width of the kernels, odd.
    strides : tuple of int, default=(2, 1, 2, 1, 1)
        Stride of each convolution. A stride of s divides height and width by s, rounding up.
    batch_norm : bool, default=True
        Normalise channels over the minibatch in training, and by running statistics at inference.
        Each component has its own statistics.
    negative_slope : float, default=0.2
        Slope, in [0, 1), of the leaky ReLU for negative values.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skmvae import MVAETransformer
    >>> from skmvae.architectures import Conv
    >>> X = load_digits().data  # 8 x 8 pixels, one channel
    >>> conv = Conv((1, 8, 8), channels=(16, 32), strides=(2, 2))
    >>> mvae = MVAETransformer(k=2, latent_dim=5, architecture=conv, max_iter=2)
    >>> mvae.fit_transform(X).shape
    (1797, 10)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: Sequence[int] = (32, 64, 64, 128, 128),
        *,
        kernel_size: int = 3,
        strides: Sequence[int] = (2, 1, 2, 1, 1),
        batch_norm: bool = True,
        negative_slope: float = 0.2,
    ) -> None:
        self.image_shape = image_shape
        self.channels = channels
        self.kernel_size = kernel_size
        self.strides = strides
        self.batch_norm = batch_norm
        self.negative_slope = negative_slope

    def build(self, n_features: int, latent_dim: int, k: int) -> tuple[nn.Module, nn.Module]:
        """Make the stacked encoder and decoder of k components.

        Parameters
        ----------
        n_features, latent_dim, k : int
            Widths of a row and of a code, and number of components.

        Returns
        -------
        encoder, decoder : torch.nn.Module
            (n_rows, n_features) or (k, n_rows, n_features) -> (k, n_rows, 2 * latent_dim + 1), and
            (k, n_rows, latent_dim) -> (k, n_rows, n_features).

        Raises
        ------
        ValueError
            If a parameter of the architecture is out of range, if ``image_shape`` does not give
            ``n_features``, or if the strides leave nothing of the image to shrink.
        """
        self._check()
        image_shape = ImageShape(*self.image_shape)
        self._check_sizes(image_shape, n_features)
        options = ConvOptions(
            channels=tuple(self.channels),
            kernel_size=int(self.kernel_size),
            strides=tuple(self.strides),
            batch_norm=bool(self.batch_norm),
            negative_slope=float(self.negative_slope),
        )
        return (
            ConvEncoder(k, image_shape, 2 * latent_dim + 1, options),
            ConvDecoder(k, image_shape, latent_dim, options),
        )

    @property
    def default_learning_rate(self) -> float:
        """3e-3, and less where convolutions give the linear layer more than 4,096 numbers.

        A step of Adam moves each weight by about the learning rate, so an output moves the more,
        the more inputs it has: as their root, if their signs are random.
        """
        self._check()
        height, width = image_sizes(ImageShape(*self.image_shape), self.strides)[-1]
        n_inputs = self.channels[-1] * height * width
        return _LEARNING_RATE * min(1.0, math.sqrt(_FULL_RATE_INPUTS / n_inputs))

    def _check(self) -> None:
        """Raise ValueError if a parameter is out of range."""
        check_parameters(
            self,
            {
                "image_shape": (
                    lambda value: are_sizes(value) and len(value) == 3,
                    "a tuple of 3 ints >= 1: channels, height and width",
                ),
                "channels": (
                    lambda value: are_sizes(value) and len(value) > 0,
                    "a non-empty tuple of ints >= 1",
                ),
                "kernel_size": (
                    lambda value: are_sizes((value,)) and value % 2 == 1,
                    "an odd int >= 1",
                ),
                "strides": (
                    lambda value: are_sizes(value) and len(value) == len(self.channels),
                    "a tuple of ints >= 1, one for each of channels",
                ),
                "batch_norm": (lambda value: isinstance(value, bool | np.bool_), "a bool"),
                "negative_slope": in_interval(0.0, 1.0, closed="left"),
            },
        )

    def _check_sizes(self, image_shape: ImageShape, n_features: int) -> None:
        if math.prod(image_shape) != n_features:
            raise ValueError(
                f"image_shape={tuple(image_shape)} means {math.prod(image_shape)} columns, but X "
                f"has {n_features}. image_shape is (channels, height, width), and X holds one "
                "image a row, channel by channel."
            )
        sizes = image_sizes(image_shape, self.strides)
        for layer, (size, stride) in enumerate(zip(sizes, self.strides, strict=False)):
            if stride > min(size):
                raise ValueError(
                    f"strides={tuple(self.strides)} shrink the images of {image_shape.height} x "
                    f"{image_shape.width} pixels to {size[0]} x {size[1]} before layer {layer}, "
                    f"less than its stride of {stride}. Use smaller strides or fewer layers."
                )
