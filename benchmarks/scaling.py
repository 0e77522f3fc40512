"""How a fit scales over processes: measured with two, computed for up to 1,024.

    python benchmarks/scaling.py measure
    python benchmarks/scaling.py predict

Two processes of one thread each. In turns of a few steps, one trains alone while the other waits,
then both train together, on as many rows each (weak scaling) or on half of them each (strong), and
then both only add up gradients, as they do in every step; medians over the turns. "predict" takes
what "measure" has kept for this kind of machine.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from contenders import Ours
from machine import print_machine, save

from skmvae._machine.group import ranks
from skmvae._machine.runtime import resolve_precision

SHAPES = {"784 columns, k=4": (784, 4, 20), "64 columns, k=4": (64, 4, 20)}
BATCH_SIZES = (64, 128, 256, 512, 1024)
N_TURNS, N_STEPS, N_WARM_UP = 12, 6, 2


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["measure", "predict"])
    {"measure": measure, "predict": predict}[parser.parse_args().part]()


def measure():
    torch.set_num_threads(1)
    save("scaling", {"machine": print_machine()})
    for name, shape in SHAPES.items():
        for batch_size in BATCH_SIZES:
            figures = of_two_processes(*shape, batch_size)
            save("scaling", {f"{name}, {batch_size} rows a process": figures})
            print(name, batch_size, figures, flush=True)


def of_two_processes(*args):
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        results = context.Queue()
        processes = [
            context.Process(target=work, args=(rank, meeting, results, *args)) for rank in (0, 1)
        ]
        for process in processes:
            process.start()
        figures = results.get()
        for process in processes:
            process.join()
    return figures


def work(rank, meeting, results, n_features, k, latent_dim, batch_size):
    """Interleaved turns on both ranks; rank 0 puts the medians into ``results``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", meeting, rank=rank, world_size=2)
    X = np.random.default_rng(rank).random((8 * batch_size, n_features), dtype=np.float32)
    common = {"k": k, "latent_dim": latent_dim, "precision": resolve_precision("auto", torch.device("cpu")), "device": "cpu"}
    with ranks(600.0) as group:
        alone = Ours(X, batch_size=batch_size, **common)
        weak = Ours(X, batch_size=2 * batch_size, group=group, **common)
        strong = Ours(X, batch_size=batch_size, group=group, **common)
        gradients = torch.cat([p.detach().flatten() for p in alone.network.parameters()])
        turns = {
            "alone": alone.step if rank == 0 else lambda: None,
            "weak": weak.step,
            "strong": strong.step,
            "adding up": lambda: group.sum(gradients.zero_()),
        }
        seconds = {name: [] for name in turns}
        for _ in range(N_TURNS):
            for name, step in turns.items():
                group.gather(None)  # both begin together
                for n in range(N_WARM_UP + N_STEPS):
                    begin = time.perf_counter()
                    step()
                    if n >= N_WARM_UP:
                        seconds[name].append(time.perf_counter() - begin)
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


def predict():
    raise NotImplementedError


if __name__ == "__main__":
    main()
