"""Rows in chunks, or all at once: partial_fit beside fit on MNIST, and the cost of checkpoints.

    SKMVAE_DATA=... python benchmarks/streaming.py quality --seeds 3
    SKMVAE_DATA=... python benchmarks/streaming.py checkpoints

"quality": ten passes over 48,000 of the training images, in eight chunks of 6,000, which come in
the same order in every pass; the codes are judged on 10,000 others. "checkpoints": a fit of four
epochs with and without ``checkpoint_dir``, in turn, by the clock; what is written includes the
fingerprint of the rows.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import load, print_machine, save

from skmvae import MVAETransformer

sys.path.append(str(Path(__file__).parent / "paper"))
import tried
from mnist import accuracies

CHUNK, N_CHUNKS, PASSES = 6_000, 8, 10
EPOCHS, ROUNDS = 4, 3


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, ...")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    save("streaming", {"machine": print_machine()})
    PARTS[parsed.part](parsed.seeds)


def make(**parameters):
    return MVAETransformer(likelihood="bernoulli", **parameters)


def quality(n_seeds):
    X, y, X_held_out, y_held_out = tried.load()
    X, y = X[: N_CHUNKS * CHUNK], y[: N_CHUNKS * CHUNK]

    def all_at_once(seed, **parameters):
        return make(max_iter=PASSES, random_state=seed, **parameters).fit(X)

    def in_chunks(seed):
        mvae = make(random_state=seed)
        for _ in range(PASSES):
            for chunk in np.split(X, N_CHUNKS):
                mvae.partial_fit(chunk)
        return mvae

    def figures(mvae):
        reconstruction = mvae.reconstruct(X_held_out)
        return {
            "MSE": float(np.square(reconstruction - X_held_out).sum(1).mean()),
            "bound": mvae.score(X_held_out[:1000]),
            **accuracies(mvae.transform(X), y, mvae.transform(X_held_out), y_held_out, seed=0),
        }

    constant = {"learning_rate_schedule": "constant", "learning_rate": 1e-3}
    ways = {
        "partial_fit": in_chunks,
        "fit": all_at_once,
        "fit, constant": lambda seed: all_at_once(seed, **constant),
    }
    for seed in range(n_seeds):
        for name, train in ways.items():
            key = f"{name}, seed {seed}"
            if key not in load("streaming"):
                save("streaming", {key: figures(train(seed))})
                print(key, load("streaming")[key], flush=True)


def checkpoints(_):
    X = tried.load().X

    def seconds(**parameters):
        start = time.perf_counter()
        make(max_iter=EPOCHS, random_state=0, **parameters).fit(X)
        return time.perf_counter() - start

    ratios = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            ratios.append(seconds(checkpoint_dir=folder) / seconds())
            print(f"{100 * (ratios[-1] - 1):+.1f} % of the time", flush=True)
    save("streaming", {"checkpoints, time with / without": statistics.median(ratios)})


PARTS = {"quality": quality, "checkpoints": checkpoints}

if __name__ == "__main__":
    main()
