"""Components as the parts of the data: are they found, counted, and sampled from?

    SKMVAE_DATA=... python benchmarks/parts.py mnist --seeds 3
    SKMVAE_DATA=... python benchmarks/parts.py others --seeds 1
    python benchmarks/parts.py tables --seeds 3
    python benchmarks/parts.py samples --seeds 3
    SKMVAE_DATA=... python benchmarks/parts.py start

Every clustering is fitted to training rows and judged on the parts of test rows, which it predicts;
one that cannot predict gives a test row the part of most of its five nearest training rows.
Accuracy is that of the best matching of parts and classes. The three curved sheets are in
``benchmarks/paper/manifolds.py``. "others" needs umap-learn. Seconds are CPU time on one thread.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from machine import cpu_seconds, run_part
from machine import measured as measured_in
from sklearn.base import clone
from sklearn.cluster import HDBSCAN, KMeans, SpectralClustering
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_wine,
    make_blobs,
    make_circles,
    make_moons,
)
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from skmvae import MVAETransformer
from skmvae._fit import fitting
from skmvae.architectures import MLP
from skmvae.datasets import fetch_mnist

sys.path.append(str(Path(__file__).parent / "paper"))
from manifolds import APART, N_ROWS, draw_sheets
from mnist import matched_accuracy

MOST_ROWS = 5_000  # of MNIST for slow clusterings


def measured(key, compute):
    return measured_in("parts", key, compute)


# ---- Clusterings: X (n, F), X_test -> parts of the test rows, and the number in use


def of_mixture(mvae, X, X_test):
    """The components of a mixture; in use are those with a weight of a tenth of an equal one."""
    mvae.fit(X)
    return mvae.predict(X_test), int((mvae.weights_ >= 0.1 / mvae.k).sum())


def of_model(model, X, X_test):
    found = model.fit(X).predict(X_test)
    return found, len(np.unique(found))


def of_labels(model, X, X_test):
    """A model that labels the rows that it is fitted to; -1 means noise."""
    labels = model.fit_predict(X)
    kept = labels >= 0
    if not kept.any():
        return np.zeros(len(X_test), dtype=int), 1
    found = KNeighborsClassifier().fit(X[kept], labels[kept]).predict(X_test)
    return found, len(np.unique(labels[kept]))


def some_rows(X, seed):
    return X[np.random.default_rng(seed).permutation(len(X))[:MOST_ROWS]]


def scores(cluster, model, X, X_test, y_test):
    found = []
    seconds = cpu_seconds(lambda: found.extend(cluster(model, X, X_test)))
    labels, n_used = found
    return {
        "accuracy": matched_accuracy(y_test, labels),
        "NMI": normalized_mutual_info_score(y_test, labels),
        "ARI": adjusted_rand_score(y_test, labels),
        "in use": n_used,
        "seconds": seconds,
    }


def simple_clusterings(k, seed):
    """Those of scikit-learn, by name; the last three find the number of parts, up to 2 k or so."""
    most = 2 * k
    return {
        "k-means": (of_model, KMeans(k, n_init=10, random_state=seed)),
        "GaussianMixture": (of_model, GaussianMixture(k, reg_covar=1e-3, random_state=seed)),
        "spectral clustering": (
            of_labels,
            SpectralClustering(
                k, affinity="nearest_neighbors", assign_labels="cluster_qr", random_state=seed
            ),
        ),
        "BayesianGaussianMixture": (
            of_model,
            BayesianGaussianMixture(
                n_components=most, reg_covar=1e-3, max_iter=200, random_state=seed
            ),
        ),
        "HDBSCAN": (of_labels, HDBSCAN(min_cluster_size=20, copy=True)),
    }


# ---- MNIST


def clusters(**params):
    """The mixture of this section; layers of 500 units, Bernoulli likelihood."""
    return MVAETransformer(latent_dim=10, likelihood="bernoulli", objective="clusters", **params)


def mnist(n_seeds):
    data = fetch_mnist()
    X, X_test, y_test = data.X_train, data.X_test, data.y_test
    for seed in range(n_seeds):
        # The count needs no long fit.
        for k, epochs in ((10, 10), (16, 5)):
            measured(
                f"MNIST, clusters, K = {k}, seed {seed}",
                lambda k=k, e=epochs, s=seed: of_mnist(k, e, s),
            )
        pca = PCA(50, random_state=seed).fit(X)
        Z, Z_test = pca.transform(X), pca.transform(X_test)
        for name, (cluster, model) in simple_clusterings(10, seed).items():
            rows = Z if name in ("k-means", "GaussianMixture") else some_rows(Z, seed)
            measured(
                f"MNIST, PCA, {name}, seed {seed}",
                lambda c=cluster, m=model, Z=rows, T=Z_test: scores(c, m, Z, T, y_test),
            )


def of_mnist(k, epochs, seed):
    """The components, and k-means on the codes of the same model."""
    data = fetch_mnist()
    mvae = clusters(k=k, max_iter=epochs, random_state=seed)
    found = scores(of_mixture, mvae, data.X_train, data.X_test, data.y_test)
    Z, Z_test = mvae.transform(data.X_train), mvae.transform(data.X_test)
    k_means = KMeans(10, n_init=10, random_state=seed)
    of_codes = scores(of_model, k_means, Z, Z_test, data.y_test)
    return {
        **found,
        "bound": mvae.score(data.X_test),
        **{f"k-means of codes, {name}": of_codes[name] for name in ("accuracy", "NMI")},
    }


def others(n_seeds):
    from umap import UMAP

    data = fetch_mnist()
    for seed in range(n_seeds):
        umap = UMAP(10, random_state=seed, n_jobs=1)
        codes = {}

        def of_umap(model, X, X_test, umap=umap, codes=codes):
            if not codes:
                codes.update(train=umap.fit_transform(X), test=umap.transform(X_test))
            Z = codes["train"]
            cluster = of_labels if isinstance(model, HDBSCAN) else of_model
            return cluster(model, some_rows(Z, 0) if cluster is of_labels else Z, codes["test"])

        for name in ("k-means", "GaussianMixture", "HDBSCAN"):
            model = simple_clusterings(10, seed)[name][1]
            measured(
                f"MNIST, UMAP, {name}, seed {seed}",
                lambda m=model, c=of_umap: scores(c, m, data.X_train, data.X_test, data.y_test),
            )


# ---- Tables


def unequal(seed):
    """Parts of 5, 25 and 70 per cent of the rows, the larger the wider."""
    return make_blobs([100, 500, 1400], 10, cluster_std=[1, 2, 3], random_state=seed)


def in_noise(make, **shape):
    """Two dimensions of a shape that is not round, among eight columns of noise."""

    def draw(seed):
        X, y = make(2000, random_state=seed, **shape)
        noise = 0.1 * np.random.default_rng(seed).normal(size=(len(X), 8))
        return np.hstack([X, noise]), y

    return draw


def digits(seed):
    X, y = load_digits(return_X_y=True)
    return X / 16.0, y


TABLES = {
    "digits": digits,
    "wine": lambda seed: load_wine(return_X_y=True),
    "breast cancer": lambda seed: load_breast_cancer(return_X_y=True),
    "blobs of 5, 25, 70 %": unequal,
    "moons in noise": in_noise(make_moons, noise=0.08),
    "circles in noise": in_noise(make_circles, noise=0.05, factor=0.5),
}


def tables(n_seeds):
    for name, draw in TABLES.items():
        for seed in range(n_seeds):
            X, y = draw(seed)
            if name in ("wine", "breast cancer"):
                X = StandardScaler().fit_transform(X)
            X, X_test, _, y_test = train_test_split(X, y, test_size=0.4, random_state=seed)
            k = len(np.unique(y))
            for label, (cluster, model) in of_table(name, k, seed).items():
                measured(
                    f"{name}, {label}, seed {seed}",
                    lambda c=cluster, m=model, X=X, X_test=X_test, y=y_test: scores(
                        c, m, X, X_test, y
                    ),
                )


def of_table(name, k, seed):
    """All clusterings of a table with k classes."""
    mvae = MVAETransformer(
        latent_dim=5,
        likelihood="bernoulli" if name == "digits" else "gaussian",
        objective="clusters",
        random_state=seed,
    )
    most = {2: 6, 3: 8, 10: 16}[k]
    ours = {
        "clusters": clone(mvae).set_params(k=k),
        "clusters, more than there are": clone(mvae).set_params(k=most),
    }
    return {
        **{label: (of_mixture, model) for label, model in ours.items()},
        **simple_clusterings(k, seed),
    }


# ---- Samples

SAMPLED = (("mixture", 3), ("mixture", 8), ("clusters", 3), ("elbo", 3))


def samples(n_seeds):
    """Do rows that are drawn from models of the sheets look like rows that are there?"""
    for seed in range(n_seeds):
        for sheets in APART:
            for objective, k in SAMPLED:
                measured(
                    f"samples, {sheets}, {objective}, K = {k}, seed {seed}",
                    lambda s=sheets, o=objective, k=k, r=seed: of_samples(s, o, k, r),
                )


def of_samples(sheets, objective, k, seed):
    X, _ = draw_sheets(sheets, seed)
    train, test = X[: N_ROWS // 2], X[N_ROWS // 2 :]
    mvae = MVAETransformer(
        k=k,
        latent_dim=2,
        objective=objective,
        architecture=MLP((64, 64)),
        max_iter=80,
        random_state=seed,
    ).fit(train)
    drawn = mvae.sample(len(test), random_state=0, noise=True)
    of_drawn, of_test = mvae.score_samples(drawn), mvae.score_samples(test)
    return {
        "AUC": told_apart(drawn, test),
        "AUC of blends": told_apart(blends(mvae, len(test)), test),
        "bound": float(of_test.mean()),
        "median bound": float(np.median(of_test)),
        "bound of samples": float(of_drawn.mean()),
        "median bound of samples": float(np.median(of_drawn)),
    }


def blends(mvae, n_rows):
    """Rows as earlier versions drew them: the outputs of all components, mixed by w ~ Dir(1/k)."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(mvae.k, 1 / mvae.k), size=n_rows)
    alone = [mvae.sample(n_rows, random_state=i, component=i) for i in range(mvae.k)]
    rows = np.einsum("nk,knf->nf", weights, alone)
    return rows + np.sqrt(mvae.noise_variance_) * rng.standard_normal(rows.shape)


def told_apart(drawn, rows):
    """AUC of a classifier between drawn rows and others, in five folds; 0.5 is the best."""
    X = np.vstack([drawn, rows])
    y = np.repeat([0, 1], [len(drawn), len(rows)])
    classifier = HistGradientBoostingClassifier(random_state=0)
    return float(cross_val_score(classifier, X, y, cv=5, scoring="roc_auc").mean())


# ---- What the start takes


def start(n_seeds):
    """CPU seconds of finding the parts, and of an epoch after that."""
    X, _ = digits(0)
    for name, rows in {"MNIST": fetch_mnist().X_train, "digits": X}.items():
        measured(f"start, {name}", lambda X=rows: of_start(X))


def of_start(X):
    find_parts, seconds = fitting.find_parts, []

    def timed(*args, **kwargs):
        found = []
        seconds.append(cpu_seconds(lambda: found.append(find_parts(*args, **kwargs))))
        return found[0]

    fitting.find_parts = timed
    try:
        whole = cpu_seconds(lambda: clusters(k=10, max_iter=2, random_state=0).fit(X))
    finally:
        fitting.find_parts = find_parts
    return {"start": seconds[0], "epoch": (whole - seconds[0]) / 2}


PARTS = {
    "mnist": mnist,
    "others": others,
    "tables": tables,
    "samples": samples,
    "start": start,
}

if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Graph is not fully connected")
    run_part(__doc__, "parts", PARTS)
