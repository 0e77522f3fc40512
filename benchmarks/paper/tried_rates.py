"""Learning rates for short fits: each idea trained once, for a few epochs, on MNIST.

    python benchmarks/paper/tried_rates.py

Hints and no results: one seed. Trains on 50,000 of the training images and judges on the other
10,000; the network is the paper's, the objective "melbo". Seconds are those of the processor, on
one thread.
"""

import math
import time
import warnings
from typing import NamedTuple

import numpy as np
import torch
import tried
from common import Results
from sklearn.exceptions import ConvergenceWarning

from skmvae import MVAETransformer
from skmvae._fit.schedules import SCHEDULES, Schedule, constant, trapezoid


def linear(progress):
    return min(progress / 0.1, (1.0 - progress) / 0.9)


def one_cycle(progress):
    """Up linearly, down along a cosine (Smith and Topin 2019)."""
    if progress < 0.1:
        return progress / 0.1
    return 0.5 * (1.0 + math.cos(math.pi * (progress - 0.1) / 0.9))


class Idea(NamedTuple):
    share: str
    learning_rate: float
    betas: tuple[float, float]
    batch_size: int = 128
    epochs: int = 2


SHARES = {"constant": constant, "one-cycle": one_cycle, "linear": linear, "trapezoid": trapezoid}
USUAL, SHORTER, SHORT = (0.9, 0.999), (0.9, 0.99), (0.85, 0.98)
IDEAS = (
    Idea("constant", 1e-3, USUAL),
    Idea("constant", 1e-3, USUAL, epochs=4),
    Idea("constant", 3e-3, USUAL),
    Idea("one-cycle", 2e-3, USUAL),
    Idea("one-cycle", 3e-3, USUAL),
    Idea("one-cycle", 3e-3, SHORTER),
    Idea("one-cycle", 6e-3, SHORTER),
    Idea("one-cycle", 4e-3, SHORT),
    Idea("one-cycle", 6e-3, SHORT),
    Idea("one-cycle", 4e-3, SHORT, batch_size=64),
    Idea("one-cycle", 6e-3, SHORT, batch_size=256),
    Idea("linear", 4e-3, SHORT),
    Idea("trapezoid", 4e-3, SHORT),
    Idea("trapezoid", 3e-3, SHORT),
    Idea("one-cycle", 4e-3, SHORT, epochs=4),
    Idea("trapezoid", 4e-3, SHORT, epochs=4),
    Idea("trapezoid", 3e-3, SHORTER, epochs=4),
    Idea("trapezoid", 3e-3, SHORT, epochs=4),
)


def settings(idea):
    return {**idea._asdict(), "betas": list(idea.betas)}


def main():
    torch.set_num_threads(1)
    data = tried.load()
    results = Results("tried_rates")
    for idea in IDEAS:
        results.get(settings(idea), lambda i=idea: figures(i, data))


def figures(idea, data):
    SCHEDULES["trapezoid"] = Schedule(SHARES[idea.share], idea.betas)
    mvae = MVAETransformer(
        likelihood="bernoulli",
        learning_rate=idea.learning_rate,
        batch_size=idea.batch_size,
        max_iter=idea.epochs,
        random_state=0,
    )
    start = time.process_time()
    mvae.fit(data.X)
    seconds = time.process_time() - start
    codes = mvae.transform(data.X[: tried.LABELLED_ROWS])
    errors = np.square(mvae.reconstruct(data.X_held_out) - data.X_held_out).sum(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = tried.many_labels(codes, mvae.transform(data.X_held_out), data)
    values = {"MSE": errors.mean(), "bound": mvae.score(data.X_held_out[:1000]), **scores}
    return {"seconds": seconds, **{name: round(float(value), 3) for name, value in values.items()}}


if __name__ == "__main__":
    main()
