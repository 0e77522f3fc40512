"""Rows in chunks or all at once: how good is ``partial_fit``, and how slow are checkpoints?

    SKMVAE_DATA=... python benchmarks/streaming.py quality --seeds 3
    SKMVAE_DATA=... python benchmarks/streaming.py checkpoints

"quality": ten passes over 48,000 training images of MNIST, in eight chunks of 6,000 that come in
the same order in every pass, or with ``fit``; judged on 10,000 other images.

"checkpoints": wall time of a fit of four epochs with and without ``checkpoint_dir``, in turn. The
time includes the fingerprint of the rows.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import measured, run_part, save, seconds_of

from skmvae import MVAETransformer
from skmvae.metrics import reconstruction_error

sys.path.append(str(Path(__file__).parent / "paper"))
from common import split_mnist
from mnist import accuracies

CHUNK, N_CHUNKS, PASSES = 6_000, 8, 10
EPOCHS, ROUNDS = 4, 3


def make(**parameters):
    return MVAETransformer(likelihood="bernoulli", **parameters)


def quality(n_seeds):
    X, y, X_held_out, y_held_out = split_mnist()
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
        return {
            "MSE": reconstruction_error(X_held_out, mvae.reconstruct(X_held_out)),
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
            measured("streaming", key, lambda t=train, s=seed: figures(t(s)))


def checkpoints(_):
    X = split_mnist().X

    def seconds(**parameters):
        return seconds_of(lambda: make(max_iter=EPOCHS, random_state=0, **parameters).fit(X))[0]

    ratios = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            ratios.append(seconds(checkpoint_dir=folder) / seconds())
            print(f"{100 * (ratios[-1] - 1):+.1f} % of the time", flush=True)
    save("streaming", {"checkpoints, time with / without": statistics.median(ratios)})


if __name__ == "__main__":
    run_part(__doc__, "streaming", {"quality": quality, "checkpoints": checkpoints})
