"""One fit by several processes, each with a part of the rows, on one machine or on many."""

from __future__ import annotations

from typing import Any

import joblib
import torch.distributed as dist
from numpy.typing import ArrayLike

from ._machine.group import Ranks, ranks
from ._machine.runtime import resolve_device
from ._transformer import MVAETransformer
from ._validation import ESTIMATOR_RULES, check_parameters, check_value, in_interval

__all__ = ["fit"]

# What may be another one on every rank; rank 0's counts.
_OF_A_RANK = ("device", "random_state", "checkpoint_dir", "verbose")


def fit(
    estimator: MVAETransformer, X: ArrayLike, y: Any = None, *, timeout: float = 600.0
) -> MVAETransformer:
    """Train an estimator on the rows that several processes have between them.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            "skmvae.distributed.fit needs the process group of torch.distributed. Call "
            "torch.distributed.init_process_group('gloo') first, in every process that "
            "`python -m torch.distributed.run` has started."
        )
    with ranks(timeout) as group:
        _check(estimator, X, group)
        return estimator._fit_in(group, X, y)
