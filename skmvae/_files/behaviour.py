"""Behaviour: numbers that tell apart two architectures whose classes have the same code.

What a layer computes may hang on functions, constants and objects anywhere; what it gives does not.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .._runtime import gradients, make_generator
from .._state import NetworkState, new_network

_CPU = torch.device("cpu")
_N_ROWS = 4

# Most by which the numbers may differ between processors and numbers of threads.
_TOLERANCE = 1e-4


def behaviour_of(state: NetworkState) -> list[float]:
    """Describe what the encoder and the decoder of ``state`` give, and the sizes of gradients.

    Nothing is known of a network that does not work on a few rows; its fit will say why.
    """
    try:
        numbers = _measured(state)
    except Exception:  # of whatever type: the modules are somebody else's
        return []
    return numbers if np.isfinite(numbers).all() else []


@gradients()
def _measured(state: NetworkState) -> list[float]:
    """Numbers for drawn parameters, fixed rows and codes, in training and at inference."""
    network = new_network(state, make_generator(0, _CPU), _CPU)
    x = _waves(_N_ROWS, state.n_features)
    z = _waves(state.k, _N_ROWS, state.latent_dim)
    numbers = []
    for is_training in (False, True):
        network.train(is_training)
        for stack, rows in ((network.encoder, x), (network.decoder, z)):
            output = stack(rows, make_generator(1, _CPU) if is_training else None).float()
            network.zero_grad()
            weighted = (output * _waves(*output.shape)).mean()
            if weighted.requires_grad:
                weighted.backward()
            size = output.detach().abs().mean() + 1e-12
            numbers += [size.log(), weighted.detach() / size, *_gradient_sizes(stack)]
    return torch.stack(numbers).tolist()


def is_same_behaviour(one: list[float], other: list[float]) -> bool:
    return np.shape(one) == np.shape(other) and np.allclose(one, other, atol=_TOLERANCE, rtol=0)


def _waves(*shape: int) -> Tensor:
    n = int(np.prod(shape))
    return torch.arange(n, dtype=torch.float32, device=_CPU).mul_(0.7).sin_().view(shape)


def _gradient_sizes(stack: torch.nn.Module) -> list[Tensor]:
    """The norm of all gradients, and the part of each: small ones are rounding alone."""
    norms = [p.grad.norm() for p in stack.parameters() if p.grad is not None]
    if not norms:
        return []
    total = torch.stack(norms).norm() + 1e-12
    return [total.log(), *(norm / total for norm in norms)]
