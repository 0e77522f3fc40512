"""K layers held as one stacked layer: parameters and activations carry the component axis first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class ComponentLinear(nn.Module):
    """K affine maps as one batched product.

    Parameters
    ----------
    k : int
        Number of components.
    in_features, out_features : int
        Width of the input and of the output of each component.
    gain : float, default=1.0
        Initial standard deviation of the weights, in units of 1 / sqrt(in_features): sqrt(2) before
        a ReLU (He et al. 2015), 1 where no activation follows.
    """

    def __init__(self, k: int, in_features: int, out_features: int, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.weight = nn.Parameter(torch.empty(k, in_features, out_features, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(k, 1, out_features, dtype=torch.float32))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights from N(0, gain^2 / in_features) and set the biases to zero."""
        std = self.gain / math.sqrt(self.weight.shape[1])
        nn.init.normal_(self.weight, std=std, generator=generator)
        nn.init.zeros_(self.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Map ``h`` (K, B, in), or (B, in) shared by all components, to (K, B, out)."""
        h = h.expand(len(self.weight), *h.shape[-2:])
        return torch.baddbmm(self.bias, h, self.weight)


class ComponentMLP(nn.Module):
    """K multi-layer perceptrons as one stack: (K, B, sizes[0]) -> (K, B, sizes[-1])."""

    def __init__(
        self,
        k: int,
        sizes: Sequence[int],
        activation: Callable[[Tensor], Tensor],
        dropout: float,
    ) -> None:
        super().__init__()
        *hidden, last = pairwise(sizes)
        self.layers = nn.ModuleList(
            ComponentLinear(k, *size, gain=math.sqrt(2.0)) for size in hidden
        )
        self.layers.append(ComponentLinear(k, *last))
        self.activation = activation
        self.dropout = dropout

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Apply the stack; dropout is active exactly when a generator is given."""
        *hidden, last = self.layers
        for layer in hidden:
            h = self.activation(layer(h))
            if generator is not None and self.dropout > 0.0:
                keep = torch.empty_like(h).bernoulli_(1.0 - self.dropout, generator=generator)
                h = h * keep / (1.0 - self.dropout)
        return last(h)
