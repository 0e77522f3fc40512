"""Codes that know their neighbours: what ``neighbor_weight`` gives and takes, beside other codes.

    SKMVAE_DATA=... python benchmarks/neighbours.py weights --seeds 1
    SKMVAE_DATA=... python benchmarks/neighbours.py mnist --seeds 3
    SKMVAE_DATA=... python benchmarks/neighbours.py objectives --seeds 1
    SKMVAE_DATA=... python benchmarks/neighbours.py others --seeds 1
    SKMVAE_DATA=... python benchmarks/neighbours.py conv --seeds 1
    python benchmarks/neighbours.py tables --seeds 6
    SKMVAE_DATA=... python benchmarks/neighbours.py graph
    SKMVAE_DATA=... python benchmarks/neighbours.py picture

"weights" compares weights on validation rows: 10,000 of MNIST's training images, and a quarter of
the training half of two tables. All other parts are judged on test rows. Models of MNIST: layers of
500 units, Bernoulli likelihood, five epochs. "others" needs umap-learn and contrastive-ne
(``pip install -e '.[bench]'``). Seconds are CPU time on one thread.
"""

import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from machine import cpu_seconds, run_part
from machine import measured as measured_in
from sklearn.cluster import KMeans
from sklearn.datasets import (
    load_iris,
    make_classification,
    make_friedman1,
    make_friedman2,
    make_regression,
    make_swiss_roll,
)
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.manifold import TSNE
from sklearn.metrics import normalized_mutual_info_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae.architectures import MLP, Conv
from skmvae.datasets import fetch_mnist
from skmvae.metrics import neighbor_purity, reconstruction_error

sys.path.append(str(Path(__file__).parent / "paper"))
import defaults
from mnist import labelled_rows

WEIGHT = 1 / 16
N_DRAWS = 5  # of the labelled rows


def measured(key, compute):
    return measured_in("neighbours", key, compute)


# ---- MNIST


def images():
    """X and y for training and for test."""
    data = fetch_mnist()
    return data.X_train, data.y_train, data.X_test, data.y_test


def weights(n_seeds):
    X, y, _, _ = images()
    X, X_held_out, y, y_held_out = train_test_split(X, y, test_size=10_000, random_state=0)
    for seed in range(n_seeds):
        for weight in (0, 1 / 64, 1 / 32, 1 / 16, 1 / 8):
            model = mixture(neighbor_weight=weight, random_state=seed)
            measured(
                f"validation: MNIST, weight {weight:g}, seed {seed}",
                lambda m=model: of_model(m, X, y, X_held_out, y_held_out),
            )
            for name in ("digits", "make_classification, 40 columns"):
                measured(
                    f"validation: {name}, weight {weight:g}, seed {seed}",
                    lambda n=name, w=weight, s=seed: of_table(n, w, s, validate=True),
                )


def mnist(n_seeds):
    data = images()
    for seed in range(n_seeds):
        for weight in (0, WEIGHT):
            models = {
                "K = 4": mixture(random_state=seed, neighbor_weight=weight),
                "one VAE, 80 codes": mixture(
                    1, latent_dim=80, kl_weight=0.25, random_state=seed, neighbor_weight=weight
                ),
            }
            for name, model in models.items():
                measured(
                    f"{name}, weight {weight:g}, seed {seed}", lambda m=model: of_model(m, *data)
                )


def objectives(n_seeds):
    data = images()
    for seed in range(n_seeds):
        for objective in ("mixture", "clusters"):
            model = mixture(objective=objective, random_state=seed, neighbor_weight=WEIGHT)
            measured(f"{objective}, seed {seed}", lambda m=model: of_model(m, *data))


def conv(n_seeds):
    data = images()
    for seed in range(n_seeds):
        for weight in (0, WEIGHT):
            model = mixture(
                architecture=Conv((1, 28, 28), channels=(8, 16, 32), strides=(2, 2, 2)),
                random_state=seed,
                neighbor_weight=weight,
            )
            measured(f"Conv, weight {weight:g}, seed {seed}", lambda m=model: of_model(m, *data))


def others(n_seeds):
    data = images()
    measured("PCA, 80", lambda: of_transformer(PCA(80, random_state=0), *data))
    for seed in range(n_seeds):
        measured(f"UMAP, 10, seed {seed}", lambda s=seed: of_transformer(make_umap(s), *data))
        measured(f"contrastive-ne, 10, seed {seed}", lambda s=seed: of_transformer(Cne(s), *data))


def mixture(k=4, **params):
    return MVAETransformer(
        k,
        **{"likelihood": "bernoulli", "architecture": MLP((500, 500)), "max_iter": 5} | params,
    )


def make_umap(seed):
    from umap import UMAP

    return UMAP(n_components=10, random_state=seed, n_jobs=1)


class Cne:
    """InfoNC-t-SNE with a network in place of a table of positions: 20 epochs of its 200."""

    def __init__(self, seed):
        from cne import CNE

        self._model = CNE(parametric=True, loss_mode="infonce", embd_dim=10, n_epochs=20, seed=seed)

    def fit(self, X):
        self._model.fit(X, init=X)
        return self

    def transform(self, X):
        return self._model.transform(X)


def of_model(mvae, X, y, X_test, y_test):
    """The figures of the codes, the error of reconstructions, and the bound of 2,000 rows."""
    values = of_transformer(mvae, X, y, X_test, y_test)
    values["MSE"] = reconstruction_error(X_test, mvae.reconstruct(X_test))
    values["bound"] = float(mvae.score(X_test[:2000]))
    return values


def of_transformer(model, X, y, X_test, y_test):
    found = {"fit seconds": cpu_seconds(lambda: model.fit(X))}
    codes = []
    found["transform seconds"] = cpu_seconds(lambda: codes.append(model.transform(X_test)))
    return found | figures(model.transform(X), y, codes[0], y_test)


def figures(train, y, test, y_test):
    """Test accuracies in per cent, and the mutual information of ten clusters and the digits."""
    scaler = StandardScaler().fit(train)
    scaled, scaled_test = scaler.transform(train), scaler.transform(test)
    classifiers = {
        "linear SVM": LinearSVC(C=0.1, random_state=0),
        "KNN": KNeighborsClassifier(),
        "MLP": MLPClassifier((100,), batch_size=128, max_iter=10, random_state=0),
    }
    values = {}
    with warnings.catch_warnings():
        # The MLP has a fixed number of epochs, converged or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name, model in classifiers.items():
            own, own_test = (train, test) if name == "KNN" else (scaled, scaled_test)
            values[name] = 100 * model.fit(own, y).score(own_test, y_test)
    for n_labels in (100, 1_000):
        of_svm, of_spreading = [], []
        for draw in range(N_DRAWS):
            rows = labelled_rows(y, n_labels, draw)
            svm = LinearSVC(C=0.01, random_state=0).fit(scaled[rows], y[rows])
            of_svm.append(svm.score(scaled_test, y_test))
            rows = labelled_rows(y_test, n_labels, draw)
            of_spreading.append(spread(test, y_test, rows))
        values[f"SVM, {n_labels} labels"] = 100 * np.mean(of_svm)
        values[f"label spreading, {n_labels}"] = 100 * np.mean(of_spreading)
    parts = KMeans(10, n_init=4, random_state=0).fit_predict(test)
    values["NMI"] = normalized_mutual_info_score(y_test, parts)
    return {name: round(float(value), 3) for name, value in values.items()}


def spread(codes, y, rows):
    """Accuracy of label spreading on the rows without a label."""
    labels = np.full(len(y), -1)
    labels[rows] = y[rows]
    model = LabelSpreading(kernel="knn", n_neighbors=8, max_iter=100).fit(codes, labels)
    others = labels < 0
    return np.mean(model.transduction_[others] == y[others])


# ---- Tables


def classes(n_rows, n_columns, **params):
    return make_classification(n_rows, n_columns, random_state=0, **params)


def swiss_roll():
    """A curved sheet in ten columns, four of them noise; the target is the position along it."""
    X, position = make_swiss_roll(2000, noise=0.5, random_state=0)
    noise = np.random.default_rng(0).normal(size=(len(X), 4))
    return np.hstack([X, X**2 / 20, noise]), position


def noise():
    """Twenty independent columns, of which three decide the class: neighbours mean little."""
    X = np.random.default_rng(0).normal(size=(2000, 20))
    return X, (X[:, :3].sum(axis=1) > 0).astype(int)


def one_hot():
    """Six columns of five categories each; the sum of two of them decides the class."""
    categories = np.random.default_rng(0).integers(5, size=(2000, 6))
    X = OneHotEncoder(sparse_output=False).fit_transform(categories)
    return X, (categories[:, 0] + categories[:, 1] > 4).astype(int)


TABLES = {
    **{name: defaults.TABLES[name] for name in ("digits", "breast cancer", "wine")},
    "iris": lambda: load_iris(return_X_y=True),
    "make_classification, 20 columns": lambda: classes(
        2000, 20, n_informative=5, n_redundant=5, n_clusters_per_class=3
    ),
    "make_classification, 40 columns": defaults.TABLES["make_classification"],
    "make_classification, 100 columns": lambda: classes(
        2000, 100, n_informative=20, n_redundant=30, n_classes=5, n_clusters_per_class=1
    ),
    "diabetes": defaults.TABLES["diabetes"],
    "friedman 1": lambda: make_friedman1(2000, 10, noise=1.0, random_state=0),
    "friedman 2": lambda: make_friedman2(2000, noise=100.0, random_state=0),
    "swiss roll": swiss_roll,
    "low-rank regression": lambda: make_regression(
        2000, 50, n_informative=20, effective_rank=10, noise=2.0, random_state=0
    ),
    "noise": noise,
    "one-hot": one_hot,
}


def tables(n_seeds):
    for name, load in TABLES.items():
        X, y = load()
        if not is_regression(y):
            X = StandardScaler().fit_transform(X)
            measured(f"{name}, purity", lambda X=X, y=y: {"purity": neighbor_purity(X, y)})
        for seed in range(n_seeds):
            for features in ("columns", "PCA", 0, WEIGHT):
                measured(
                    f"{name}, {features}, seed {seed}",
                    lambda n=name, f=features, s=seed: of_table(n, f, s),
                )


def is_regression(y):
    return len(np.unique(y)) > 20


def of_table(name, features, seed, *, validate=False):
    """Scores of a linear model, of neighbours, and of a linear model with five labels a class.

    Half of the rows are for training. With ``validate`` a quarter of them takes the place of the
    other half. ``features`` is "columns", "PCA" or the weight of the term of neighbours.
    """
    X, y = TABLES[name]()
    rows, held_out = np.array_split(np.random.default_rng(seed).permutation(len(X)), 2)
    if validate:
        held_out, rows = np.split(rows, [len(rows) // 4])
    scaler = StandardScaler().fit(X[rows])
    train, test = scaler.transform(X[rows]), scaler.transform(X[held_out])
    if features != "columns":
        if features == "PCA":
            model = PCA(min(80, *train.shape), random_state=0)
        else:
            model = MVAETransformer(neighbor_weight=features, random_state=seed)
        train, test = model.fit_transform(train), model.transform(test)
    y, y_test = y[rows], y[held_out]
    linear, nearest = Ridge(), KNeighborsRegressor(10)
    if not is_regression(y):
        linear, nearest = LogisticRegression(max_iter=5000), KNeighborsClassifier()
    linear = make_pipeline(StandardScaler(), linear)
    values = {
        "linear": linear.fit(train, y).score(test, y_test),
        "KNN": nearest.fit(train, y).score(test, y_test),
    }
    if not is_regression(y):
        few = [five_of_each(y, np.random.default_rng([seed, draw])) for draw in range(N_DRAWS)]
        scores = [linear.fit(train[rows], y[rows]).score(test, y_test) for rows in few]
        values["5 labels a class"] = np.mean(scores)
    return {name: round(100 * float(value), 3) for name, value in values.items()}


def five_of_each(y, rng):
    return np.concatenate([rng.permutation(np.flatnonzero(y == c))[:5] for c in np.unique(y)])


# ---- The graph


def graph(_):
    """Seconds of the graph beside those of an epoch."""
    from skmvae._rows.neighbours import find_neighbours
    from skmvae._rows.scaled import ScaledRows

    def seconds(X):
        rows = ScaledRows(X, np.zeros(X.shape[1]), 1.0, torch.device("cpu"))
        return cpu_seconds(
            lambda: find_neighbours(rows, np.arange(len(X)), 10, seed=0, report=logging.info)
        )

    def epoch(X, **params):
        return cpu_seconds(lambda: mixture(max_iter=1, random_state=0, **params).fit(X))

    X, *_ = images()
    measured("graph, MNIST", lambda: seconds(X))
    measured("epoch, MNIST", lambda: epoch(X))
    narrow = np.random.default_rng(0).normal(size=(20_000, 10)).astype(np.float32)
    small = {"likelihood": "gaussian", "architecture": None}
    measured("graph, 20,000 rows of 10", lambda: seconds(narrow))
    measured("epoch, 20,000 rows of 10", lambda: epoch(narrow, **small))
    wide = np.random.default_rng(0).normal(size=(1_000_000, 100)).astype(np.float32)
    measured("graph, a million rows of 100", lambda: seconds(wide))


def picture(_):
    """Codes of 3,000 test images without and with the term, in two dimensions by t-SNE."""
    from matplotlib import pyplot as plt

    X, _, X_test, y_test = images()
    figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
    for ax, weight in zip(axes, (0, WEIGHT), strict=True):
        mvae = mixture(neighbor_weight=weight, random_state=0).fit(X)
        points = TSNE(random_state=0).fit_transform(mvae.transform(X_test[:3000]))
        found = ax.scatter(*points.T, c=y_test[:3000], cmap="tab10", s=3)
        name = "codes that know their neighbours" if weight else "codes without"
        ax.set(title=name, xticks=[], yticks=[])
    figure.legend(*found.legend_elements(), loc="outside right center", frameon=False)
    plt.savefig(Path(__file__).parent / "results" / "neighbours.png", dpi=100)


PARTS = {
    "weights": weights,
    "mnist": mnist,
    "objectives": objectives,
    "others": others,
    "conv": conv,
    "tables": tables,
    "graph": graph,
    "picture": picture,
}

if __name__ == "__main__":
    run_part(__doc__, "neighbours", PARTS)
