"""How long until a model is good? Seconds of a fit beside the quality of the codes.

    SKMVAE_DATA=... python benchmarks/time_to_quality.py mnist --seeds 3
    python benchmarks/time_to_quality.py tables --seeds 3
    python benchmarks/time_to_quality.py search
    python benchmarks/time_to_quality.py smallest
    python benchmarks/time_to_quality.py jobs

"now" is the training with the defaults, and "neighbours" that with the term of neighbours, their
graph included. "before" is the training of version 0.1: Adam at 1e-3
throughout, minibatches of 128, 500 units in both hidden layers, and 100 epochs by default. Seconds
are CPU time on one thread. The seconds of the obvious version are the time of one of its steps,
measured in the same run, times the number of steps of "before": both train the same model on the
same minibatches.

Each fit is measured once, and a run that was stopped continues where it stopped. "mnist" trains on
50,000 training images and judges the codes on the other 10,000.
"""

import math
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from contenders import Obvious
from machine import cpu_seconds, run_part, seconds_of
from machine import measured as measured_in
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae.architectures import MLP
from skmvae.metrics import reconstruction_error

sys.path.append(str(Path(__file__).parent / "paper"))
import defaults
from common import PLAIN_ADAM, split_mnist
from mnist import accuracies

BEFORE = {"architecture": MLP((500, 500)), **PLAIN_ADAM}
SETTINGS = {"now": {}, "neighbours": {"neighbor_weight": 1 / 16}, "before": BEFORE}
EPOCHS = {"now": (2, 3, 4, 5), "neighbours": (1, 2), "before": (6, 10)}

measured = partial(measured_in, "time_to_quality")


def mnist(n_seeds):
    X, y, X_held_out, y_held_out = split_mnist()

    def figures(codes, codes_held_out, reconstruction):
        error = reconstruction_error(X_held_out, reconstruction)
        return {"MSE": error, **accuracies(codes, y, codes_held_out, y_held_out, seed=0)}

    def of_mixture(settings, seed):
        mvae = MVAETransformer(likelihood="bernoulli", random_state=seed, **settings)
        seconds = cpu_seconds(lambda: mvae.fit(X))
        codes = mvae.transform(X), mvae.transform(X_held_out)
        return {"seconds": seconds, **figures(*codes, mvae.reconstruct(X_held_out))}

    def of_pca():
        pca = PCA(80, random_state=0)
        seconds = cpu_seconds(lambda: pca.fit(X))
        codes = pca.transform(X), pca.transform(X_held_out)
        return {"seconds": seconds, **figures(*codes, pca.inverse_transform(codes[1]))}

    def of_obvious():
        obvious = Obvious(X, k=4, latent_dim=20, batch_size=128, device="cpu")
        obvious.run(20)
        step = statistics.median(cpu_seconds(obvious.step) for _ in range(100))
        return {"seconds": step * math.ceil(len(X) / 128)}

    measured("mnist, obvious, an epoch", of_obvious)
    measured("mnist, PCA", of_pca)
    for seed in range(n_seeds):
        for name, lengths in EPOCHS.items():
            for epochs in lengths:
                settings = SETTINGS[name] | {"max_iter": epochs}
                key = f"mnist, {name}, {epochs} epochs, seed {seed}"
                measured(key, lambda s=settings, seed=seed: of_mixture(s, seed))


def tables(n_seeds):
    for table in defaults.TABLES:
        for seed in range(n_seeds):
            for name, settings in (("now", {}), ("before", BEFORE | {"max_iter": 100})):
                key = f"{table}, {name}, seed {seed}"
                measured(key, lambda t=table, s=settings, r=seed: of_table(t, s, r))
            measured(f"{table}, PCA, seed {seed}", lambda t=table, r=seed: of_table(t, None, r))


def of_table(table, settings, seed):
    """Scores as in benchmarks/paper/defaults.py, and the mean seconds of the three fits."""
    seconds = []

    def features(X):
        if settings is None:
            model = PCA(min(defaults.K * defaults.LATENT_DIM, *X.shape))
        else:
            model = MVAETransformer(random_state=seed, **settings)
        seconds.append(cpu_seconds(lambda: model.fit(X)))
        return model

    scores = defaults.cross_validated(table, seed, features)
    return {"seconds": statistics.mean(seconds), **scores}


def search(_):
    """Searches on digits: the README's, one over C of the SVM, and two over nine candidates."""
    X, y = load_digits(return_X_y=True)

    def of_search(make, settings, **pipeline):
        mvae = MVAETransformer(k=4, random_state=0, **settings)
        found = make(Pipeline([("mvae", mvae), ("svm", LinearSVC(random_state=0))], **pipeline))
        seconds = cpu_seconds(lambda: found.fit(X, y))
        return {"seconds": seconds, "best score": 100 * float(found.best_score_)}

    def readme(pipe):
        return GridSearchCV(pipe, {"mvae__beta": [0, 1, 100]}, cv=3)

    def classifier(pipe):
        return GridSearchCV(pipe, {"svm__C": [0.001, 0.01, 0.1, 1]}, cv=3)

    many = {"mvae__kl_weight": [0.1, 0.25, 1], "mvae__latent_dim": [5, 10, 20]}

    def grid(pipe):
        return GridSearchCV(pipe, many, cv=3)

    def halving(pipe):
        return HalvingGridSearchCV(
            pipe, many, resource="mvae__max_iter", min_resources=4, max_resources=36, cv=3
        )

    measured("search, now", lambda: of_search(readme, {"max_iter": 15}))
    measured("search, before", lambda: of_search(readme, BEFORE | {"max_iter": 20}))
    measured("search of C", lambda: of_search(classifier, {"max_iter": 15}))
    with tempfile.TemporaryDirectory() as cache:
        measured(
            "search of C, memory", lambda: of_search(classifier, {"max_iter": 15}, memory=cache)
        )
    measured("search of nine, grid", lambda: of_search(grid, {"max_iter": 36}))
    measured("search of nine, halving", lambda: of_search(halving, {"max_iter": 36}))


def smallest(_):
    """One epoch of 100 rows, after a first call that loads and allocates what it needs."""
    X = np.random.default_rng(0).normal(size=(100, 64))
    for name, settings in (("now", {}), ("before", BEFORE)):
        mvae = MVAETransformer(max_iter=1, random_state=0, **settings).fit(X)

        def seconds(mvae=mvae):
            return {
                "seconds": statistics.median(cpu_seconds(lambda: mvae.fit(X)) for _ in range(50))
            }

        measured(f"one epoch of 100 rows, {name}", seconds)


def jobs(_):
    """Wall time of the README's search: one process with two threads, or two with one each."""
    torch.set_num_threads(2)
    X, y = load_digits(return_X_y=True)
    pipe = Pipeline(
        [("mvae", MVAETransformer(k=4, max_iter=15, random_state=0)), ("svm", LinearSVC())]
    )

    def by_the_clock(n_jobs):
        search = GridSearchCV(pipe, {"mvae__beta": [0, 1, 100]}, cv=3, n_jobs=n_jobs, refit=False)
        search.fit(X, y)  # the first fit starts the workers, which import torch
        return {"seconds by the clock": seconds_of(lambda: search.fit(X, y))[0]}

    for n_jobs in (1, 2):
        measured(f"jobs, {n_jobs}", lambda n=n_jobs: by_the_clock(n))


PARTS = {"mnist": mnist, "tables": tables, "search": search, "smallest": smallest, "jobs": jobs}

if __name__ == "__main__":
    run_part(__doc__, "time_to_quality", PARTS)
