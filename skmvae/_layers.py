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
    """

    def __init__(self, k: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(k, in_features, out_features, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(k, 1, out_features, dtype=torch.float32))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """He et al. (2015) initialisation and zero biases, as the paper's authors use."""
        fan_in = self.weight.shape[1]
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / fan_in), generator=generator)
        nn.init.zeros_(self.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Map ``h`` (K, B, in), or (B, in) shared by all components, to (K, B, out)."""
        return torch.baddbmm(self.bias, h.expand(len(self.weight), *h.shape[-2:]), self.weight)


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
        self.layers = nn.ModuleList(
            ComponentLinear(k, n_in, n_out) for n_in, n_out in pairwise(sizes)
        )
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
