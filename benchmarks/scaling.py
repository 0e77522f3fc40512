"""How a fit scales over processes: measured with two, computed for up to 1,024.

    python benchmarks/scaling.py measure
    python benchmarks/scaling.py shapes
    SKMVAE_DATA=... python benchmarks/scaling.py minibatches
    python benchmarks/scaling.py predict

"measure": two processes of one thread each. In turns of a few steps, one trains alone while the
other waits, then both train together, on as many rows each (weak scaling) or on half of them each
(strong), and then both only add up gradients, as they do in every step; medians over the turns.

"shapes": a step of one process for other numbers of components and widths.

"minibatches": what MNIST's training images give with larger ones, higher learning rates and more
epochs.

"predict": a step of b rows on each of R ranks takes c0 + c1 b + c2 g^2 / R, where the constants fit
the steps of one process ("measure", "shapes") and g is the size of dHSIC's Gram matrices, the b R
rows of the minibatch but at most 512; and the time of its sums over the ranks, each 2 (R - 1) / R
times its bytes over the bandwidth and 2 log2 R latencies: of the gradients (4 bytes a parameter, or
2 if they were sent as bfloat16), and, forwards and backwards, of the g rows of codes and of row
means. Nothing overlaps.
"""

import argparse
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
from contenders import Ours
from machine import kind, load, print_machine, save
from scipy.optimize import nnls
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae._machine.group import ranks
from skmvae._machine.runtime import resolve_precision
from skmvae._model.objective import _GRAM_ROWS as GRAM_ROWS

sys.path.append(str(Path(__file__).parent / "paper"))
import tried


class Shape(NamedTuple):
    """The size of a network, for 784 columns and 20 codes a component."""

    k: int
    width: int

    def __str__(self):
        return f"k={self.k}, layers of {self.width}"


SHAPE = Shape(4, 500)
OTHERS = (Shape(1, 500), Shape(16, 500), Shape(4, 128), Shape(4, 2000))
N_FEATURES, LATENT_DIM = 784, 20
BATCH_SIZES = (128, 512, 1024, 2048, 4096)
BATCH_SIZES_OF_OTHERS = (128, 512, 2048)
N_TURNS, N_STEPS, N_WARM_UP = 8, 6, 2


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {f.__name__: f for f in (measure, shapes, minibatches, predict)}
    parser.add_argument("part", choices=parts)
    parts[parser.parse_args().part]()


def measure():
    torch.set_num_threads(1)
    save("scaling", {"machine": print_machine()})
    for batch_size in BATCH_SIZES:
        figures = of_two_processes(batch_size)
        save("scaling", {f"{SHAPE}, {batch_size} rows a process": figures})
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


def steps(shape, rank, batch_size, n_rows, **group):
    X = np.random.default_rng(rank).random((n_rows, N_FEATURES), dtype=np.float32)
    return Ours(
        X,
        k=shape.k,
        hidden=shape.width,
        latent_dim=LATENT_DIM,
        batch_size=batch_size,
        precision=resolve_precision("auto", torch.device("cpu")),
        device="cpu",
        **group,
    )


def work(rank, meeting, results, batch_size):
    """Interleaved turns on both ranks; rank 0 puts the medians into ``results``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", meeting, rank=rank, world_size=2)
    n_rows = 8 * batch_size
    with ranks(600.0) as group:
        alone = steps(SHAPE, rank, batch_size, n_rows)
        weak = steps(SHAPE, rank, 2 * batch_size, n_rows, group=group)
        strong = steps(SHAPE, rank, batch_size, n_rows, group=group)
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


def shapes():
    torch.set_num_threads(1)
    for shape in OTHERS:
        for batch_size in BATCH_SIZES_OF_OTHERS:
            alone = steps(shape, 0, batch_size, 8 * batch_size)
            alone.run(N_WARM_UP)
            milliseconds = {"alone": 1e3 * statistics.median(alone.run(4 * N_STEPS))}
            n_parameters = sum(p.numel() for p in alone.network.parameters())
            figures = {"milliseconds": milliseconds, "parameters": n_parameters}
            save("scaling", {f"{shape}, {batch_size} rows": figures})
            print(shape, batch_size, figures, flush=True)


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


def minibatches():
    X, y, X_held_out, y_held_out = tried.load()
    for batch_size, times, max_iter in MINIBATCHES:
        mvae = MVAETransformer(
            likelihood="bernoulli", max_iter=max_iter, batch_size=batch_size, random_state=0
        )
        mvae.set_params(learning_rate=times * mvae.learning_rate).fit(X)
        svm = make_pipeline(StandardScaler(), LinearSVC(random_state=0))
        accuracy = svm.fit(mvae.transform(X), y).score(mvae.transform(X_held_out), y_held_out)
        figures = {"bound": mvae.score(X_held_out), "SVM": 100 * accuracy}
        key = f"minibatches of {batch_size}, {times} times the learning rate, {max_iter} epochs"
        save("scaling", {key: figures})
        print(key, figures, flush=True)


class Step(NamedTuple):
    """A step of ``Ours``, in seconds as a function of its rows, and what it has to tell."""

    constants: np.ndarray  # c0, c1, c2
    n_parameters: int
    k: int

    @classmethod
    def measured(cls, shape):
        kept = {
            name: value for name, value in load("scaling").items() if name.startswith(f"{shape},")
        }
        rows = np.array([int(name.split(",")[2].split()[0]) for name in kept])
        seconds = np.array([value["milliseconds"]["alone"] for value in kept.values()]) / 1e3
        parts = np.stack([np.ones(len(rows)), rows, np.minimum(rows, GRAM_ROWS) ** 2], axis=1)
        # As well relative to each: the shortest count as much as the longest.
        constants, _ = nnls(parts / seconds[:, None], np.ones(len(rows)))
        return cls(constants, next(iter(kept.values()))["parameters"], shape.k)

    def seconds(self, n_rows, n_ranks, link, times_as_fast=1, bytes_a_gradient=4):
        c0, c1, c2 = self.constants / times_as_fast
        gram_rows = min(n_rows * n_ranks, GRAM_ROWS)
        own = c0 + c1 * n_rows + c2 * gram_rows**2 / n_ranks
        codes = 4 * self.k * gram_rows * (LATENT_DIM + 1 + 1 / self.k)
        n_bytes = bytes_a_gradient * self.n_parameters + 2 * codes
        n_sums = 5  # gradients, and codes and row means there and back
        latency = n_sums * 2 * math.log2(n_ranks) * link.latency
        return own + 2 * (n_ranks - 1) / n_ranks * n_bytes / link.bandwidth + latency

    def efficiency(self, n_rows, n_ranks, link, times_as_fast=1, **bytes_a_gradient):
        """Weak scaling: of the rows a second that as many processes alone would do."""
        alone = self.seconds(n_rows, 1, link, times_as_fast)
        together = self.seconds(n_rows, n_ranks, link, times_as_fast, **bytes_a_gradient)
        return round(float(alone / together), 3)


class Link(NamedTuple):
    bandwidth: float  # bytes a second
    latency: float  # seconds


LINKS = {
    "10 GbE": Link(1.25e9, 30e-6),
    "100 Gb/s": Link(12.5e9, 5e-6),
    "NVLink": Link(300e9, 3e-6),
}
N_RANKS = (2, 8, 64, 1024)
NAMES = {1: "one thread", 100: "100 times as fast"}


def predict():
    step = Step.measured(SHAPE)
    by_link = {
        f"{NAMES[times_as_fast]}, {n_rows}, {link}": [
            step.efficiency(n_rows, n, LINKS[link], times_as_fast) for n in N_RANKS
        ]
        for times_as_fast in NAMES
        for n_rows in (128, 1024)
        for link in LINKS
    }
    by_shape = {str(shape): of_shape(Step.measured(shape)) for shape in (SHAPE, *OTHERS)}
    save("scaling", {"constants": step.constants.tolist(), "ranks": N_RANKS})
    save("scaling", {"predicted efficiency": by_link, "predicted efficiency, shapes": by_shape})
    print("c0, c1, c2:", step.constants)
    for row, efficiencies in (by_link | by_shape).items():
        print(row, efficiencies)
    draw(step)


def of_shape(step):
    """64 fast devices with 100 Gb/s."""
    arguments = 64, LINKS["100 Gb/s"], 100
    return {
        "megabytes of gradients": 4e-6 * step.n_parameters,
        "milliseconds of 1024 rows alone": float(1e3 * step.seconds(1024, 1, *arguments[1:])),
        "128 rows": step.efficiency(128, *arguments),
        "1024 rows": step.efficiency(1024, *arguments),
        "1024 rows, bfloat16": step.efficiency(1024, *arguments, bytes_a_gradient=2),
        "8192 rows": step.efficiency(8192, *arguments),
    }


def draw(step):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    n_ranks = 2 ** np.arange(11)
    for axis, times_as_fast in zip(axes, NAMES, strict=True):
        for colour, (name, link) in enumerate(LINKS.items()):
            for n_rows, style in ((128, "--"), (1024, "-")):
                efficiencies = [step.efficiency(n_rows, n, link, times_as_fast) for n in n_ranks]
                label = f"{name}, {n_rows} rows a rank"
                axis.plot(n_ranks, efficiencies, style, color=f"C{colour}", label=label)
        axis.set_xscale("log", base=2)
        axis.set_xlabel("ranks")
        axis.set_title(NAMES[times_as_fast])
        axis.set_ylim(0, 1.02)
    axes[0].set_ylabel("efficiency (computed)")
    axes[0].legend(fontsize="small", loc="lower left")
    figure.savefig(Path(__file__).parent / "results" / f"scaling_{kind()}.png", dpi=110)


if __name__ == "__main__":
    main()
