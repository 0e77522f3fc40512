"""What one component is made of.

An architecture is a :class:`~sklearn.base.BaseEstimator` with a method ``build``, so it can be
cloned, nested in a grid search (``architecture__hidden_layer_sizes``) and saved.

To write one of your own, subclass ``BaseEstimator`` and give ``build(n_features, latent_dim, k)``
returning two :class:`torch.nn.Module`: an encoder whose ``forward(x, generator=None)`` maps
``(n_rows, n_features)`` or ``(k, n_rows, n_features)`` to ``(k, n_rows, 2 * latent_dim + 1)``
(posterior means, raw standard deviations, one raw concentration), and a decoder whose
``forward(z, generator=None)`` maps ``(k, n_rows, latent_dim)`` to ``(k, n_rows, n_features)``.
``generator`` is the source of any random draws while training and None at inference. Every module
that owns parameters needs ``reset_parameters(generator)``; parameters are float32, and there are no
buffers. :class:`ComponentLinear` is a building
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

from collections.abc import Callable
from functools import partial

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn
from torch.nn import functional as F

from ._layers import ComponentLinear, ComponentMLP
from ._validation import are_layer_sizes, check_parameters, in_interval, one_of

__all__ = ["MLP", "ComponentLinear"]

# In place where autograd allows it: a layer's output has no other use.
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
    hidden_layer_sizes : tuple of int, default=(500, 500)
        Widths of the encoder's hidden layers, from the input on. The decoder has the same in
        reverse order. An empty tuple makes both linear.
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

    def __init__(self, hidden_layer_sizes=(500, 500), *, activation="relu", dropout=0.0):
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
                "hidden_layer_sizes": (are_layer_sizes, "a tuple of ints >= 1"),
                "activation": one_of(_ACTIVATIONS),
                "dropout": in_interval(0.0, 1.0, closed="left"),
            },
        )
        hidden = tuple(self.hidden_layer_sizes)
        activation = _ACTIVATIONS[self.activation]
        encoder_sizes = (n_features, *hidden, 2 * latent_dim + 1)
        decoder_sizes = (latent_dim, *reversed(hidden), n_features)
        return (
            ComponentMLP(k, encoder_sizes, activation, self.dropout),
            ComponentMLP(k, decoder_sizes, activation, self.dropout),
        )
