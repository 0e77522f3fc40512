"""How long until a model is good: seconds of fit, by the quality that they buy.

    SKMVAE_DATA=... python benchmarks/time_to_quality.py mnist --seeds 3
    python benchmarks/time_to_quality.py tables --seeds 3
    python benchmarks/time_to_quality.py search
    python benchmarks/time_to_quality.py smallest
    python benchmarks/time_to_quality.py jobs

"before" is the training of version 0.1: Adam at 1e-3 throughout, minibatches of 128, 500 units in
both hidden layers, and 100 epochs by default. Seconds are those of the processor, on one thread, so
that other work on the machine hardly counts; those of the obvious version are its step's, measured
in the same run, times the steps of "before", which trains the same model on the same batches.

A fit is measured once for its settings; a run that is cut short goes on where it stopped. "mnist"
trains on 50,000 of the training images and judges the codes on the other 10,000.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from contenders import Obvious
from machine import load, print_machine, save
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae.architectures import MLP

sys.path.append(str(Path(__file__).parent / "paper"))
import defaults
import tried
from common import PLAIN_ADAM
from mnist import accuracies

BEFORE = {"architecture": MLP((500, 500)), **PLAIN_ADAM}
EPOCHS = {"now": (2, 3, 4, 5), "before": (6, 10)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, ...")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    save("time_to_quality", {"machine": print_machine()})
    PARTS[parsed.part](parsed.seeds)


def measured(key, compute):
    """The figures kept under ``key``, from the file or else from ``compute()``."""
    kept = load("time_to_quality")
    if key not in kept:
        kept = {key: compute()}
        save("time_to_quality", kept)
        print(key, kept[key], flush=True)
    return kept[key]


def cpu_seconds(function):
    start = time.process_time()
    function()
    return time.process_time() - start


def mnist(n_seeds):
    X, y, X_held_out, y_held_out = tried.load()

    def figures(codes, codes_held_out, reconstruction):
        error = float(np.square(reconstruction - X_held_out).sum(1).mean())
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
                settings = (BEFORE if name == "before" else {}) | {"max_iter": epochs}
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
    """Three-fold scores of benchmarks/paper/defaults.py, and seconds of one fit."""
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
    """Searches on digits: the README's, one of the classifier's parameter, and two of many."""
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
    """One epoch of 100 rows, once the first call has loaded what it needs."""
    X = np.random.default_rng(0).normal(size=(100, 64))
    for name, settings in (("now", {}), ("before", BEFORE)):
        mvae = MVAETransformer(max_iter=1, random_state=0, **settings).fit(X)

        def seconds(mvae=mvae):
            return {
                "seconds": statistics.median(cpu_seconds(lambda: mvae.fit(X)) for _ in range(50))
            }

        measured(f"one epoch of 100 rows, {name}", seconds)


def jobs(_):
    """The search of the README by the clock: one process with two threads, or two with one."""
    torch.set_num_threads(2)
    X, y = load_digits(return_X_y=True)
    pipe = Pipeline(
        [("mvae", MVAETransformer(k=4, max_iter=15, random_state=0)), ("svm", LinearSVC())]
    )

    def by_the_clock(n_jobs):
        search = GridSearchCV(pipe, {"mvae__beta": [0, 1, 100]}, cv=3, n_jobs=n_jobs, refit=False)
        search.fit(X, y)  # the first starts the workers, which then import torch
        start = time.perf_counter()
        search.fit(X, y)
        return {"seconds by the clock": time.perf_counter() - start}

    for n_jobs in (1, 2):
        measured(f"jobs, {n_jobs}", lambda n=n_jobs: by_the_clock(n))


PARTS = {"mnist": mnist, "tables": tables, "search": search, "smallest": smallest, "jobs": jobs}

if __name__ == "__main__":
    main()
