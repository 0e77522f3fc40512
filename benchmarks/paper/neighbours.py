"""Codes that know their neighbours: MNIST and small tables with and without the term.

    python benchmarks/paper/neighbours.py --epochs 5 --seeds 3

MNIST: K = 4, d = 20, layers of 500, Bernoulli likelihood, the package's learning rates. Tables: the
package's defaults, half of the rows for training and half for test. The weight was chosen in a
prototype that looked at test rows, so the figures are no clean test of it.
"""

import time

import numpy as np
from common import Results, arguments
from defaults import TABLES
from mnist import N_DRAWS, labelled_rows
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae.architectures import MLP
from skmvae.datasets import fetch_mnist
from skmvae.metrics import reconstruction_error

WEIGHTS = (0.0, 1 / 16)


def main():
    parsed = arguments(__doc__, epochs=5)
    results = Results("neighbours")
    for seed in range(parsed.seeds):
        for weight in WEIGHTS:
            for table in TABLES:
                settings = {"table": table, "neighbor_weight": weight, "seed": seed}
                results.get(settings, lambda s=settings: on_table(s))
    data = fetch_mnist()
    for seed in range(parsed.seeds):
        for weight in WEIGHTS:
            settings = {"epochs": parsed.epochs, "neighbor_weight": weight, "seed": seed}
            results.get(settings, lambda s=settings: on_mnist(data, s))


def on_mnist(data, settings):
    mvae = MVAETransformer(
        likelihood="bernoulli",
        architecture=MLP((500, 500)),
        neighbor_weight=settings["neighbor_weight"],
        max_iter=settings["epochs"],
        random_state=settings["seed"],
    )
    start = time.process_time()
    mvae.fit(data.X_train)
    values = {"CPU seconds": time.process_time() - start}
    train, test = mvae.transform(data.X_train), mvae.transform(data.X_test)
    values["SVM"] = 100 * LinearSVC(random_state=0).fit(train, data.y_train).score(
        test, data.y_test
    )
    knn = KNeighborsClassifier().fit(train, data.y_train)
    values["KNN"] = 100 * knn.score(test, data.y_test)
    scaler = StandardScaler().fit(train)
    scaled, scaled_test = scaler.transform(train), scaler.transform(test)
    for n_labels in (100, 1_000):
        scores = []
        for draw in range(N_DRAWS):
            rows = labelled_rows(data.y_train, n_labels, draw)
            svm = LinearSVC(C=0.01, random_state=draw).fit(scaled[rows], data.y_train[rows])
            scores.append(100 * svm.score(scaled_test, data.y_test))
        values[f"SVM, {n_labels} labels"] = np.mean(scores)
    parts = KMeans(10, n_init=4, random_state=0).fit_predict(test)
    values["NMI"] = normalized_mutual_info_score(data.y_test, parts)
    values["MSE"] = reconstruction_error(data.X_test, mvae.reconstruct(data.X_test))
    values["bound"] = mvae.score(data.X_test[:2000])
    return {name: round(float(value), 3) for name, value in values.items()}


def on_table(settings):
    """Scores of a linear model, of nearest neighbours, and with five labels a class."""
    X, y = TABLES[settings["table"]]()
    rng = np.random.default_rng(settings["seed"])
    rows, held_out = np.array_split(rng.permutation(len(X)), 2)
    scaler = StandardScaler().fit(X[rows])
    mvae = MVAETransformer(
        neighbor_weight=settings["neighbor_weight"], random_state=settings["seed"]
    )
    train, test = mvae.fit_transform(scaler.transform(X[rows])), mvae.transform(scaler.transform(X))
    test, y_train, y_test = test[held_out], y[rows], y[held_out]
    if settings["table"] == "diabetes":
        found = [Ridge().fit(train, y_train), KNeighborsRegressor(10).fit(train, y_train)]
    else:
        few = np.concatenate([rng.permutation(np.flatnonzero(y_train == c))[:5] for c in set(y)])
        found = [_linear().fit(train, y_train), KNeighborsClassifier().fit(train, y_train)]
        found.append(_linear().fit(train[few], y_train[few]))
    scores = [round(100 * model.score(test, y_test), 2) for model in found]
    return dict(zip(("linear", "KNN", "5 labels a class"), scores, strict=False))


def _linear():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


if __name__ == "__main__":
    main()
