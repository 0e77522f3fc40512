"""Milliseconds a training step: ``MVAETransformer`` beside the obvious PyTorch version.

    python benchmarks/speed.py --quick

Both train the network of the paper's MNIST experiment (784-500-500-20, Bernoulli, "melbo") on
random images or, with ``--mnist``, on the real ones after two epochs. The two take turns of ten
steps, after two to warm up, in one process, so that a change of the machine's speed meets both;
medians are reported, and their ratio. Prints a table and writes JSON.
"""

import argparse
import json
import math
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import sklearn
import torch
from obvious import ObviousTrainer

import skmvae
from skmvae import _training
from skmvae._runtime import ScaledRows, keep_freed_memory, make_generator
from skmvae._state import NetworkState, new_network
from skmvae.architectures import MLP
from skmvae.datasets import fetch_mnist

N_ROWS, N_FEATURES, LATENT_DIM = 60_000, 784, 20
WARM_UP, TURN = 2, 10  # steps


class OurTrainer:
    """The loop of ``skmvae._training``, one step at a time."""

    def __init__(self, X, *, k, batch_size):
        device = torch.device("cpu")
        state = NetworkState(
            architecture=MLP(),
            n_features=N_FEATURES,
            latent_dim=LATENT_DIM,
            k=k,
            likelihood="bernoulli",
            weight_concentration_prior=1 / k,
            mean=np.zeros(N_FEATURES),
            scale=1.0,
            arrays={},
        )
        keep_freed_memory()  # as train() does
        self.settings = _training.TrainingSettings(
            objective="melbo",
            beta=1.0,
            kl_weight=1.0,
            weight_concentration_prior=1 / k,
            precision="float32",
            max_iter=1,
            batch_size=batch_size,
            learning_rate=1e-3,
            n_iter_no_change=1,
            tol=0.0,
            verbose=0,
        )
        self.generator = make_generator(0, device)
        self.network = new_network(state, self.generator, device)
        self.optimizer = _training._make_optimizer(self.network, 1e-3)
        self.rows = ScaledRows(X, state.mean, state.scale, device)
        self.log = _training._TermsLog(10**6 * batch_size, batch_size, device)
        self.n_steps = 0
        self.shuffler = np.random.default_rng(0)
        self.order = self.shuffler.permutation(len(X))

    def step(self):
        size = self.settings.batch_size
        if len(self.order) < size:
            self.order = self.shuffler.permutation(len(self.rows))
        batch, self.order = self.order[:size], self.order[size:]
        x = self.rows[batch]
        terms = _training._step(self.network, self.optimizer, x, self.settings, self.generator)
        self.log.add(terms)
        self.n_steps += 1
        if self.n_steps % _training._BATCHES_BETWEEN_CLEARING == 0:
            _training._clear_vanished_momentum(self.optimizer)


def compare(X, k, batch_size, n_steps, n_before):
    """Medians and ratio of both, in milliseconds, over interleaved steps after ``n_before``."""
    trainers = {
        "obvious": ObviousTrainer(X, k=k, batch_size=batch_size, latent_dim=LATENT_DIM),
        "skmvae": OurTrainer(X, k=k, batch_size=batch_size),
    }
    for trainer in trainers.values():
        for _ in range(n_before):
            trainer.step()
    times = {name: [] for name in trainers}
    for _ in range(math.ceil(n_steps / TURN)):
        for name, trainer in trainers.items():
            for step in range(WARM_UP + TURN):
                start = time.perf_counter()
                trainer.step()
                if step >= WARM_UP:
                    times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "k": k,
        "batch_size": batch_size,
        "steps": len(times["skmvae"]),
        "milliseconds": medians,
        "ratio": medians["obvious"] / medians["skmvae"],
    }


def machine():
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "skmvae": skmvae.__version__,
    }


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="K = 4, batch 128 only")
    parser.add_argument("--mnist", action="store_true", help="MNIST, after two epochs of 128 rows")
    parser.add_argument("--steps", type=int, default=40, help="steps counted, at least 30")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if arguments.mnist:
        # Rarely lit pixels slow the obvious version down only after some hundred steps.
        X, n_before = fetch_mnist().X_train, 2 * N_ROWS // 128
    else:
        X = np.random.default_rng(0).random((N_ROWS, N_FEATURES), dtype=np.float32)
        n_before = 0
    cases = [(4, 128)] if arguments.quick else [(k, b) for k in (1, 4, 10) for b in (128, 256)]
    result = {"machine": machine(), "cases": []}
    for name, value in result["machine"].items():
        print(f"{name}: {value}")
    print(f"\n{'K':>3} {'batch':>6} {'obvious':>10} {'skmvae':>10} {'ratio':>7}")
    for k, batch_size in cases:
        case = compare(X, k, batch_size, arguments.steps, n_before)
        result["cases"].append(case)
        ms = case["milliseconds"]
        print(
            f"{k:3d} {batch_size:6d} {ms['obvious']:7.1f} ms {ms['skmvae']:7.1f} ms "
            f"{case['ratio']:6.2f}x",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
