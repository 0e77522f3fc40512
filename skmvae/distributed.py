"""One fit by several processes, each with a part of the rows, on one machine or on many."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import ArrayLike

from ._distributed.group import Group, ranks
from ._files.keys import key_of
from ._runtime import resolve_device
from ._transformer import MVAETransformer
from ._validation import check_value, column_names, in_interval

__all__ = ["fit"]

# May differ; but for the device, rank 0's counts.
_OF_A_RANK = ("checkpoint_dir", "device", "random_state", "verbose")


def fit(
    estimator: MVAETransformer, X: ArrayLike, y: Any = None, *, timeout: float = 600.0
) -> MVAETransformer:
    """Train an estimator on the rows that several processes have between them.

    Called by every rank of the default group of ``torch.distributed``, which ``torchrun``, Ray
    Train, Spark's ``TorchDistributor`` or a script of yours has started: each with the same
    estimator and with rows of its own, its shard. A step is that of one process on the union of the
    ranks' rows: a minibatch of ``batch_size`` rows has from each rank a part in proportion to its
    shard. Units, ``weights_``, ``history_`` and early stopping are of the rows of all ranks. Every
    rank ends with the same model, to the bit.

    The ``random_state`` of rank 0 counts. Rank 0 alone prints, calls callbacks (which see
    ``weights_`` of its shard during the fit), and reads and writes checkpoints. A fit that is
    started again goes on from its checkpoint, with the same number of ranks or another; with the
    same shards it ends with bitwise the model of one that was not interrupted. With
    ``early_stopping`` it goes on with the same shards only, since each rank holds out some of its
    rows.

    If a rank fails, is interrupted (Ctrl-C) or dies, the fit ends on all ranks. That rank raises
    its own error, the others raise RuntimeError, and every estimator stays as it was.

    Parameters
    ----------
    estimator : MVAETransformer
        Its parameters must be the same on every rank, but for ``device``, ``random_state``,
        ``checkpoint_dir`` and ``verbose``.
    X : {array-like, sparse matrix} of shape (n_samples_of_this_rank, n_features)
        One row or more, two with ``early_stopping``; shards may differ in size.
    y : None
        Ignored.
    timeout : float, default=600
        Seconds that a rank waits for the others. A rank that dies is noticed at once, mostly; one
        that hangs, within this time. Under "clusters" all wait while rank 0 finds the parts that
        components start from.

    Returns
    -------
    estimator : MVAETransformer
        The same object, fitted.

    Raises
    ------
    ValueError
        If a parameter or X is not valid, or not alike on all ranks.
    RuntimeError
        If there is no process group, or if another rank has failed, was interrupted, or died. The
        message names a rank that refuses its parameters or rows.

    See Also
    --------
    skmvae.MVAETransformer.fit : In one process.

    Examples
    --------
    A group of one, as ``torchrun --nproc-per-node 1`` would start it:

    >>> import tempfile
    >>> import torch.distributed as dist
    >>> from sklearn.datasets import load_digits
    >>> import skmvae.distributed
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dist.init_process_group("gloo", f"file://{folder}/meeting", rank=0, world_size=1)
    ...     mvae = skmvae.MVAETransformer(k=2, latent_dim=3, max_iter=2)
    ...     mvae = skmvae.distributed.fit(mvae, load_digits().data)
    ...     dist.destroy_process_group()
    >>> mvae.n_iter_
    2
    """
    if not isinstance(estimator, MVAETransformer):
        raise TypeError(
            f"skmvae.distributed.fit takes an MVAETransformer, not a {type(estimator).__name__}. "
            "Fit that first, and what comes after it on its codes."
        )
    check_value("timeout", timeout, in_interval(0.0, np.inf, closed="neither"))
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            "skmvae.distributed.fit works in a process group. Start the script with "
            "`python -m torch.distributed.run --nproc-per-node 2` and call "
            "torch.distributed.init_process_group('gloo') in it, or 'nccl' for GPUs."
        )
    with ranks(timeout) as group:
        _check_backend(estimator.device)
        _check_alike(estimator, X, group)
        return estimator._fit_in(group, X, y)


def _check_backend(device: str) -> None:
    if dist.get_backend() == "nccl" and resolve_device(device).type == "cpu":
        raise ValueError(
            f"device={device!r} is the CPU here, for which the group's backend 'nccl' has no "
            "operations. Call init_process_group('gloo')."
        )


def _check_alike(estimator: MVAETransformer, X, group: Group) -> None:
    """ValueError on every rank, naming one that has another parameter or other columns."""
    params = estimator.get_params(deep=False)
    own = {name: value for name, value in params.items() if name not in _OF_A_RANK}
    own["number of columns"] = np.shape(X)[1:]
    own["set of column names"] = column_names(X)
    own["earlier fit"] = getattr(estimator, "_state", None) if own["warm_start"] else None
    described = {name: (key_of(value), repr(value)[:100]) for name, value in own.items()}
    first, *others = group.all_gather(described)
    for rank, other in enumerate(others, start=1):
        for name, (digest, value) in other.items():
            if digest != first[name][0]:
                raise ValueError(
                    f"rank {rank} has another {name} than rank 0: {value} against "
                    f"{first[name][1]}. Give every rank the same estimator and columns."
                )
