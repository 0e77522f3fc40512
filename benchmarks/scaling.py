"""How does a fit scale over two processes, and how good are fits with large minibatches?

    python benchmarks/scaling.py measure
    SKMVAE_DATA=... python benchmarks/scaling.py minibatches

"measure": median step times of two processes with one thread each, which take turns of a few steps.
First one of them trains alone and the other waits; then both train together, with as many rows each
as the one alone (weak scaling) or with half as many each (strong scaling); then both only sum
gradients, as every step does.

"minibatches": quality on MNIST with larger minibatches, higher learning rates and more epochs.
"""

import multiprocessing
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from contenders import Ours, default_precision
from machine import make_parser, print_machine, save, seconds_of
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae._distributed.group import ranks
from skmvae.architectures import MLP

sys.path.append(str(Path(__file__).parent / "paper"))
from common import split_mnist

K, HIDDEN, N_FEATURES, LATENT_DIM = 4, 500, 784, 20
BATCH_SIZES = (128, 512, 1024, 2048, 4096)
N_TURNS, N_STEPS, N_WARM_UP = 8, 6, 2

# Rows, learning rate in units of the default, epochs.
MINIBATCHES = (
    (128, 1, 5),
    (512, 1, 5),
    (512, 2, 5),
    (2048, 1, 5),
    (2048, 2, 5),
    (2048, 4, 5),
    (2048, 2, 20),
    (8192, 1, 5),
    (8192, 2, 5),
    (8192, 4, 5),
    (8192, 2, 20),
)


def main():
    parser = make_parser(__doc__)
    parts = {"measure": measure, "minibatches": minibatches}
    parser.add_argument("part", choices=parts)
    parts[parser.parse_args().part]()


def measure():
    torch.set_num_threads(1)
    save("scaling", {"machine": print_machine()})
    for batch_size in BATCH_SIZES:
        figures = of_two_processes(batch_size)
        save("scaling", {f"k={K}, layers of {HIDDEN}, {batch_size} rows a process": figures})
        print(batch_size, figures, flush=True)


def of_two_processes(batch_size):
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        results = context.SimpleQueue()
        processes = [
            context.Process(target=work, args=(rank, meeting, results, batch_size))
            for rank in (0, 1)
        ]
        for process in processes:
            process.start()
        figures = results.get()
        for process in processes:
            process.join()
    return figures


def work(rank, meeting, results, batch_size):
    """Take turns with the other rank; rank 0 puts the medians into ``results``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", meeting, rank=rank, world_size=2)
    X = np.random.default_rng(rank).random((8 * batch_size, N_FEATURES), dtype=np.float32)
    model = {"k": K, "hidden": HIDDEN, "latent_dim": LATENT_DIM, "device": "cpu"}
    model["precision"] = default_precision("cpu")
    with ranks(600.0) as group:
        alone = Ours(X, batch_size=batch_size, **model)
        weak = Ours(X, batch_size=2 * batch_size, group=group, **model)
        strong = Ours(X, batch_size=batch_size, group=group, **model)
        gradients = torch.cat([p.detach().flatten() for p in alone.trainer.network.parameters()])
        turns = {
            "alone": alone.step if rank == 0 else lambda: None,
            "weak": weak.step,
            "strong": strong.step,
            "adding up": lambda: group.sum(gradients.zero_()),
        }
        seconds = {name: [] for name in turns}
        for _ in range(N_TURNS):
            for name, step in turns.items():
                group.all_gather(None)  # the ranks begin together
                seconds[name] += seconds_of(step, N_WARM_UP + N_STEPS)[N_WARM_UP:]
    if rank == 0:
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        results.put(
            {
                "milliseconds": {name: 1e3 * value for name, value in medians.items()},
                "parameters": gradients.numel(),
                "weak, times the rows a second": 2 * medians["alone"] / medians["weak"],
                "strong, times the rows a second": medians["alone"] / medians["strong"],
                "share of communication, weak": medians["adding up"] / medians["weak"],
            }
        )
    dist.destroy_process_group()


def minibatches():
    X, y, X_held_out, y_held_out = split_mnist()
    for batch_size, times, max_iter in MINIBATCHES:
        mvae = MVAETransformer(
            likelihood="bernoulli", max_iter=max_iter, batch_size=batch_size, random_state=0
        )
        mvae.set_params(learning_rate=times * MLP.default_learning_rate).fit(X)
        svm = make_pipeline(StandardScaler(), LinearSVC(random_state=0))
        accuracy = svm.fit(mvae.transform(X), y).score(mvae.transform(X_held_out), y_held_out)
        figures = {"bound": mvae.score(X_held_out), "SVM": 100 * accuracy}
        key = f"minibatches of {batch_size}, {times} times the learning rate, {max_iter} epochs"
        save("scaling", {key: figures})
        print(key, figures, flush=True)


if __name__ == "__main__":
    main()
