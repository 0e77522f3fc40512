"""Figures for the page "When to use it" that no other script has.

    python benchmarks/choosing.py anomalies --seeds 10
    python benchmarks/choosing.py density --seeds 3
    python benchmarks/choosing.py boosting --seeds 6

"anomalies": areas under the ROC curve of anomaly scores, on three tables. A model is fitted to half
of the normal rows, once alone and once with anomalies among them that are a twentieth of all, and
tells the other half from other anomalies. All have their defaults, on standardised columns; seconds
are CPU time of one thread.

"density": mean log likelihood, in nats, of the held-out half of tables, for the mixture its lower
bound. GaussianMixture has the number of components and the kind of covariance that are best on a
quarter of the rows to fit. Columns that are constant in the rows to fit are left out.

"boosting": gradient boosting on the columns themselves, on the tables and the splits of
neighbours.py, which has the figures of codes.
"""

import sys
from pathlib import Path

import numpy as np
from machine import cpu_seconds, run_part
from machine import measured as measured_in
from neighbours import N_DRAWS, TABLES, five_of_each, is_regression
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
)
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmvae import MVAETransformer

sys.path.append(str(Path(__file__).parent / "paper"))
from manifolds import draw_sheets


def measured(key, compute):
    return measured_in("choosing", key, compute)


# ---- Anomalies: normal rows, and anomalies


def tumours(_):
    X, y = load_breast_cancer(return_X_y=True)
    return X[y == 1], X[y == 0]


def digits(seed):
    """All digits but one."""
    X, y = load_digits(return_X_y=True)
    return X[y != seed], X[y == seed]


def sheets(seed):
    """Rows on curved sheets that cross, and rows whose columns come from different ones."""
    X, _ = draw_sheets("crossing", seed)
    rng = np.random.default_rng(seed)
    return X, rng.permuted(X[: len(X) // 4], axis=0)


DIGITS = "digits, one digit among the others"
ANOMALIES = {
    "breast cancer, malignant among benign": tumours,
    DIGITS: digits,
    "sheets, columns of different rows": sheets,
}
DETECTORS = {
    "M-VAE, mixture": lambda s: MVAETransformer(objective="mixture", random_state=s),
    "one VAE (k=1)": lambda s: MVAETransformer(1, random_state=s),
    "IsolationForest": lambda s: IsolationForest(random_state=s),
    "LocalOutlierFactor": lambda s: LocalOutlierFactor(novelty=True),
    "GaussianMixture, 4": lambda s: GaussianMixture(4, random_state=s),
    "PCA, 0.9": lambda s: PCA(0.9),
}
SHARES = (0.0, 0.05)  # of anomalies among the rows to fit


def anomalies(n_seeds):
    for seed in range(n_seeds):
        for table in ANOMALIES:
            for share in SHARES:
                for name in DETECTORS:
                    measured(
                        f"{table}, {share:g}, {name}, seed {seed}",
                        lambda t=table, c=share, n=name, s=seed: of_detector(t, c, n, s),
                    )


def of_detector(table, share, name, seed):
    rng = np.random.default_rng(seed)
    normal, odd = (rng.permutation(rows) for rows in ANOMALIES[table](seed))
    train, test = np.array_split(normal, 2)
    n_among = round(share / (1 - share) * len(train))
    train, odd = np.vstack([train, odd[:n_among]]), odd[n_among:]
    model = make_pipeline(StandardScaler(), DETECTORS[name](seed))
    seconds = cpu_seconds(lambda: model.fit(train))
    is_odd = np.repeat([False, True], [len(test), len(odd)])
    auc = roc_auc_score(is_odd, -model.score_samples(np.vstack([test, odd])))
    return {"AUC": round(float(auc), 4), "seconds": round(seconds, 3)}


# ---- Density


def rows_of(load):
    return lambda _: load()[0]


DENSITIES = {
    "sheets that cross": lambda s: draw_sheets("crossing", s)[0],
    "swiss roll": rows_of(TABLES["swiss roll"]),
    "digits": rows_of(TABLES["digits"]),
    "breast cancer": rows_of(TABLES["breast cancer"]),
    "wine": rows_of(TABLES["wine"]),
}


def best_mixture(X, seed):
    """The mixture of Gaussians that is best on a quarter of X when fitted to the rest."""
    rest, judges = np.split(X, [3 * len(X) // 4])
    candidates = [
        GaussianMixture(k, covariance_type=kind, reg_covar=1e-3, random_state=seed)
        for k in (1, 2, 4, 8, 16, 32)
        for kind in ("full", "diag")
    ]
    return max(candidates, key=lambda model: model.fit(rest).score(judges)).fit(X)


# Functions of rows and seed that return a fitted model.
DENSITY_MODELS = {
    "M-VAE, mixture": lambda X, s: MVAETransformer(objective="mixture", random_state=s).fit(X),
    "one VAE (k=1)": lambda X, s: MVAETransformer(1, random_state=s).fit(X),
    "PCA, 0.9": lambda X, s: PCA(0.9).fit(X),
    "GaussianMixture": best_mixture,
}


def density(n_seeds):
    for seed in range(n_seeds):
        for table in DENSITIES:
            for name in DENSITY_MODELS:
                measured(
                    f"{table}, density, {name}, seed {seed}",
                    lambda t=table, n=name, s=seed: of_density(t, n, s),
                )


def of_density(table, name, seed):
    X = np.random.default_rng(seed).permutation(DENSITIES[table](seed))
    train, test = np.array_split(X, 2)
    varies = train.std(axis=0) > 0
    scaler = StandardScaler().fit(train[:, varies])
    train, test = scaler.transform(train[:, varies]), scaler.transform(test[:, varies])
    models = []
    seconds = cpu_seconds(lambda: models.append(DENSITY_MODELS[name](train, seed)))
    return {"nats": round(float(models[0].score(test)), 2), "seconds": round(seconds, 3)}


# ---- Gradient boosting on the columns


def boosting(n_seeds):
    for table in TABLES:
        for seed in range(n_seeds):
            measured(f"{table}, boosting, seed {seed}", lambda t=table, s=seed: of_boosting(t, s))


def of_boosting(table, seed):
    """Test scores in per cent with the labels of half of the rows, and with five a class."""
    X, y = TABLES[table]()
    rows, held_out = np.array_split(np.random.default_rng(seed).permutation(len(X)), 2)
    X, X_test, y, y_test = X[rows], X[held_out], y[rows], y[held_out]
    if is_regression(y):
        model = HistGradientBoostingRegressor(random_state=0)
    else:
        model = HistGradientBoostingClassifier(random_state=0)
    found = {"all": model.fit(X, y).score(X_test, y_test)}
    if not is_regression(y):
        draws = [five_of_each(y, np.random.default_rng([seed, draw])) for draw in range(N_DRAWS)]
        # The default of 20 rows in a leaf would leave no tree.
        model.set_params(min_samples_leaf=2)
        scores = [model.fit(X[few], y[few]).score(X_test, y_test) for few in draws]
        found["5 labels a class"] = np.mean(scores)
    return {name: round(100 * float(value), 3) for name, value in found.items()}


PARTS = {"anomalies": anomalies, "density": density, "boosting": boosting}

if __name__ == "__main__":
    run_part(__doc__, "choosing", PARTS)
