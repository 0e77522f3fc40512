"""Operations of one training step: how often a GPU is asked for something.

    python benchmarks/operations.py

Counted on the CPU, as torch dispatches them; views and empty tensors are left out. On a GPU each is
one kernel, mostly, and takes longer to start than to do if it is small.
"""

from collections import Counter

import numpy as np
import torch
from machine import print_machine
from torch.utils._python_dispatch import TorchDispatchMode

from skmvae._fit.epoch import Trainer, TrainingSettings
from skmvae._machine.rows import ScaledRows
from skmvae._model.distributions import LIKELIHOODS
from skmvae._model.objective import OBJECTIVES
from skmvae._state import NetworkState, new_network
from skmvae.architectures import MLP

CPU = torch.device("cpu")
K, N_FEATURES, LATENT_DIM, BATCH_SIZE = 4, 784, 20, 128


class Operations(TorchDispatchMode):
    """Counts what computes something, by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returns = function._schema.returns
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        name = str(function)
        if not (is_view or name.startswith(("profiler.", "aten.empty", "aten.detach"))):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def trainer(likelihood, objective, precision, beta=1.0):
    """A trainer of the default architecture on random rows."""
    state = NetworkState(
        architecture=MLP((500, 500)),
        n_features=N_FEATURES,
        latent_dim=LATENT_DIM,
        k=K,
        likelihood=likelihood,
        weight_concentration_prior=1 / K,
        mean=np.zeros(N_FEATURES),
        scale=1.0,
        arrays={},
    )
    X = np.random.default_rng(0).random((2 * BATCH_SIZE, N_FEATURES), dtype=np.float32)
    settings = TrainingSettings(
        objective=objective,
        beta=beta,
        kl_weight=1.0,
        weight_concentration_prior=1 / K,
        precision=precision,
        max_iter=1,
        batch_size=BATCH_SIZE,
        learning_rate=1e-3,
        learning_rate_schedule="constant",
        n_iter_no_change=1,
        tol=0.0,
        verbose=0,
    )
    network = new_network(state, torch.Generator().manual_seed(0), CPU)
    return Trainer(network, ScaledRows(X, 0.0, 1.0, CPU), settings, n_training=len(X), seed=0)


def operations(*args, **kwargs):
    """Of the second of two steps: the first makes what the optimizer keeps."""
    trained = trainer(*args, **kwargs)
    trained._own_generator = trained._generator
    first, second = trained._minibatches(np.arange(2 * BATCH_SIZE)), Operations()
    trained._run_step(next(first))
    share = next(first)
    with second:
        trained._run_step(share)
    return sum(second.counts.values())


def main():
    print_machine()
    print(f"\n{'objective':12}{'likelihood':12}{'float32':>9}{'bfloat16':>10}{'beta=0':>8}")
    for objective in OBJECTIVES:
        for likelihood in LIKELIHOODS:
            counts = [operations(likelihood, objective, p) for p in ("float32", "bfloat16")]
            counts.append(operations(likelihood, objective, "bfloat16", beta=0.0))
            print(f"{objective:12}{likelihood:12}{counts[0]:9}{counts[1]:10}{counts[2]:8}")


if __name__ == "__main__":
    main()
