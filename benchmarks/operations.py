"""How many operations does one training step start? On a GPU each costs a launch.

    python benchmarks/operations.py

Counts on a CPU what torch dispatches, without views and empty tensors. On a GPU most operations are
one kernel, and a small kernel takes longer to start than to run.
"""

from collections import Counter

import numpy as np
from contenders import Ours
from machine import print_machine
from torch.utils._python_dispatch import TorchDispatchMode

from skmvae._model.distributions import LIKELIHOODS
from skmvae._model.objective import OBJECTIVES

N_FEATURES, BATCH_SIZE = 784, 128


class Operations(TorchDispatchMode):
    """Counts the operations that compute something, by name."""

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


def operations(**params):
    """Operations of the second step; the first one creates the state of the optimizer."""
    X = np.random.default_rng(0).random((2 * BATCH_SIZE, N_FEATURES), dtype=np.float32)
    ours = Ours(X, k=4, latent_dim=20, batch_size=BATCH_SIZE, device="cpu", **params)
    ours.step()
    minibatch, second = next(ours.minibatches), Operations()
    with second:
        ours.trainer._run_step(*minibatch)
    return sum(second.counts.values())


def main():
    print_machine()
    print(f"\n{'objective':12}{'likelihood':12}{'float32':>9}{'bfloat16':>10}{'beta=0':>8}")
    for objective in OBJECTIVES:
        for likelihood in LIKELIHOODS:
            model = {"objective": objective, "likelihood": likelihood}
            counts = [operations(precision=p, **model) for p in ("float32", "bfloat16")]
            counts.append(operations(precision="bfloat16", beta=0.0, **model))
            print(f"{objective:12}{likelihood:12}{counts[0]:9}{counts[1]:10}{counts[2]:8}")


if __name__ == "__main__":
    main()
