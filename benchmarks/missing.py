"""Rows with holes: are missing values filled well, and are the codes of such rows good?

    python benchmarks/missing.py tables --seeds 3
    python benchmarks/missing.py codes --seeds 3
    SKMVAE_DATA=... python benchmarks/missing.py mnist --seeds 3
    SKMVAE_DATA=... python benchmarks/missing.py purity --seeds 3
    python benchmarks/missing.py step

Columns are standardised before values are removed. The error is the root mean square of filled
values less true ones, in these units: 1 is that of a column's mean. Every imputer is fitted to the
rows that it fills, as in the literature. "at random" removes values independently, "blocks" a
stretch of neighbouring columns of each row, and "by another" values of a column where another one,
which is kept, is high (missing at random in the sense of Rubin).
"tables" needs miceforest. Seconds are CPU time on one thread.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from machine import cpu_seconds, run_part
from machine import measured as measured_in
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_friedman1,
)
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmvae import MVAEImputer, MVAETransformer
from skmvae.architectures import MLP
from skmvae.datasets import fetch_mnist
from skmvae.metrics import neighbor_purity

sys.path.append(str(Path(__file__).parent / "paper"))
from manifolds import draw_sheets
from mnist import accuracies


def measured(key, compute):
    return measured_in("missing", key, compute)


# ---- Tables, (n, F), standardised


def sheets():
    return draw_sheets("crossing", seed=0)[0][:2000]


def digits():
    X = load_digits().data
    return X[:, X.std(axis=0) > 0.0]


def friedman():
    X, y = make_friedman1(1000, 10, noise=1.0, random_state=0)
    return np.column_stack([X, y])


TABLES = {
    "breast cancer": lambda: load_breast_cancer().data,
    "wine": lambda: load_wine().data,
    "iris": lambda: load_iris().data,
    "diabetes": lambda: load_diabetes().data,
    "digits": digits,
    "make_classification": lambda: make_classification(
        2000, 40, n_informative=10, n_redundant=20, random_state=0
    )[0],
    "friedman": friedman,
    "sheets": sheets,
}


WIDE = ("digits", "make_classification", "sheets")  # slow imputers come last


# ---- What is missing: (n, F) -> bool (n, F)


def at_random(X, fraction, rng):
    return rng.random(X.shape) < fraction


def blocks(X, fraction, rng):
    """A stretch of columns of each row, which begins anywhere and goes on from the first."""
    n, n_columns = X.shape
    starts = rng.integers(n_columns, size=(n, 1))
    return (np.arange(n_columns) - starts) % n_columns < round(fraction * n_columns)


def by_another(X, fraction, rng):
    """Every second column, the more often the higher the one before it, which is never missing."""
    missing = np.zeros(X.shape, dtype=bool)
    kept = X[:, : 2 * (X.shape[1] // 2) : 2]
    ranks = kept.argsort(axis=0).argsort(axis=0) / len(X)
    missing[:, 1::2] = rng.random(kept.shape) < 2.0 * fraction * ranks
    return missing


PATTERNS = {
    "10 %": (at_random, 0.1),
    "30 %": (at_random, 0.3),
    "50 %": (at_random, 0.5),
    "blocks": (blocks, 0.3),
    "by another": (by_another, 0.3),
}


# ---- Imputers


def miceforest(X):
    import miceforest
    import pandas as pd

    kernel = miceforest.ImputationKernel(
        pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])]), random_state=0
    )
    kernel.mice(5, num_threads=1, verbose=False)
    return kernel.complete_data().to_numpy()


def of_sklearn(imputer):
    def fill(X):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return imputer.fit_transform(X)

    return fill


def trees(seed):
    return IterativeImputer(
        ExtraTreesRegressor(n_estimators=30, max_features=0.3, random_state=seed, n_jobs=1),
        max_iter=3,
        random_state=seed,
    )


def imputers(seed):
    return {
        "mean": of_sklearn(SimpleImputer()),
        "KNNImputer": of_sklearn(KNNImputer(n_neighbors=10)),
        "IterativeImputer": of_sklearn(IterativeImputer(random_state=seed)),
        "IterativeImputer, trees": of_sklearn(trees(seed)),
        **({"miceforest": miceforest} if seed == 0 else {}),  # a minute and more a table
        "MVAEImputer": of_sklearn(MVAEImputer(random_state=seed)),
        "one VAE, 10 codes": of_sklearn(MVAEImputer(single(10, seed))),
        "one VAE, 40 codes": of_sklearn(MVAEImputer(single(40, seed))),
    }


def single(latent_dim, seed):
    """As MVAEImputer's own mixture of four, of tables of at most 1,000 rows."""
    return MVAETransformer(
        k=1, latent_dim=latent_dim, objective="elbo", max_iter=200, random_state=seed
    )


def tables(n_seeds):
    for table, load in sorted(TABLES.items(), key=lambda item: item[0] in WIDE):
        X = StandardScaler().fit_transform(load())
        for pattern, (missing_of, fraction) in PATTERNS.items():
            for seed in range(n_seeds):
                missing = missing_of(X, fraction, np.random.default_rng(seed))
                for name, fill in imputers(seed).items():
                    if name.startswith("one VAE") and (table in WIDE or "0 %" not in pattern):
                        continue
                    measured(
                        f"{table}, {pattern}, {name}, seed {seed}",
                        lambda fill=fill, X=X, missing=missing: error_of(fill, X, missing),
                    )


def error_of(fill, X, missing):
    """Root mean square error and CPU seconds."""
    filled = []
    seconds = cpu_seconds(lambda: filled.append(fill(np.where(missing, np.nan, X))))
    error = float(np.sqrt(np.mean(np.square((filled[0] - X)[missing]))))
    return {"error": error, "seconds": seconds}


# ---- Codes of rows with holes


LABELLED = {
    "breast cancer": load_breast_cancer,
    "wine": load_wine,
    "digits": load_digits,
    "make_classification": lambda return_X_y: make_classification(
        2000, 40, n_informative=10, n_redundant=20, random_state=0
    ),
}


def codes(n_seeds):
    """A linear classifier on codes of rows of which 30 % are missing, or were filled before."""
    for table, load in LABELLED.items():
        X, y = load(return_X_y=True)
        X = X[:, X.std(axis=0) > 0.0]
        for seed in range(n_seeds):
            holes = np.where(at_random(X, 0.3, np.random.default_rng(seed)), np.nan, X)
            for name, step in first_steps(seed).items():
                measured(
                    f"codes of {table}, {name}, seed {seed}",
                    lambda step=step, holes=holes, y=y, seed=seed: accuracy(step, holes, y, seed),
                )


def first_steps(seed):
    """What comes before the mixture: nothing, or an imputer."""
    return {
        "holes": "passthrough",
        "mean": SimpleImputer(),
        "KNNImputer": KNNImputer(n_neighbors=10),
        "IterativeImputer": IterativeImputer(random_state=seed),
        "IterativeImputer, trees": trees(seed),
    }


def accuracy(first, X, y, seed):
    split = train_test_split(X, y, test_size=0.5, random_state=seed, stratify=y)
    X_train, X_test, y_train, y_test = split
    mvae = MVAETransformer(random_state=seed, neighbor_weight=1 / 16)
    pipe = make_pipeline(
        StandardScaler(), first, mvae, StandardScaler(), LogisticRegression(max_iter=1000)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return {"accuracy": pipe.fit(X_train, y_train).score(X_test, y_test)}


def purity(n_seeds):
    """Share of neighbours of one class where half of the values are missing, and without holes."""
    loads = {**LABELLED, "MNIST, 10,000 rows": first_of_mnist}
    for table, load in loads.items():
        X, y = load(return_X_y=True)
        X = X[:, X.std(axis=0) > 0.0]
        if "MNIST" not in table:
            X = StandardScaler().fit_transform(X)
        for seed in range(n_seeds):
            holes = np.where(at_random(X, 0.5, np.random.default_rng(seed)), np.nan, X)
            tables = {"holes": holes, "means": SimpleImputer().fit_transform(holes), "complete": X}
            measured(
                f"purity of {table}, seed {seed}",
                lambda tables=tables, y=y: {n: neighbor_purity(X, y) for n, X in tables.items()},
            )


def first_of_mnist(return_X_y):
    data = fetch_mnist()
    return data.X_train[:10_000], data.y_train[:10_000]


# ---- MNIST


def half_at_random(n, rng):
    return rng.random((n, 784)) < 0.5


def lower_half(n, rng):
    return np.broadcast_to(np.arange(784) >= 392, (n, 784))


def mnist(n_seeds):
    data = fetch_mnist()
    for pattern in (half_at_random, lower_half):
        for seed in range(n_seeds):
            measured(
                f"mnist, {pattern.__name__}, PCA of means, seed {seed}",
                lambda pattern=pattern, seed=seed: simple_of_mnist(data, pattern, seed),
            )
            for weight in (1 / 16, 0.0) if seed == 0 else (1 / 16,):
                measured(
                    f"mnist, {pattern.__name__}, neighbor_weight {weight:g}, seed {seed}",
                    lambda pattern=pattern, seed=seed, weight=weight: of_mnist(
                        data, pattern, seed, neighbor_weight=weight
                    ),
                )


def with_holes(data, pattern, seed):
    """Training rows, test rows, and where the latter are missing."""
    rng = np.random.default_rng(seed)
    X, X_test = data.X_train.astype(np.float32), data.X_test.astype(np.float32)
    holes = np.where(pattern(len(X), rng), np.nan, X)
    missing = pattern(len(X_test), rng)
    return holes, np.where(missing, np.nan, X_test), missing


def simple_of_mnist(data, pattern, seed):
    holes, test_holes, _ = with_holes(data, pattern, seed)
    codes = make_pipeline(SimpleImputer(), PCA(80, random_state=seed))
    return accuracies(
        codes.fit_transform(holes), data.y_train, codes.transform(test_holes), data.y_test, seed
    )


def of_mnist(data, pattern, seed, **params):
    holes, test_holes, missing = with_holes(data, pattern, seed)
    mvae = MVAETransformer(
        likelihood="bernoulli",
        architecture=MLP((500, 500)),
        batch_size=128,
        max_iter=5,
        random_state=seed,
        **params,
    )
    seconds = cpu_seconds(lambda: mvae.fit(holes))
    codes, test_codes = mvae.transform(holes), mvae.transform(test_holes)
    filled = []
    some = slice(0, 2000)  # of the test rows
    filling = cpu_seconds(lambda: filled.append(mvae.impute(test_holes[some])))
    squares = np.square(filled[0] - data.X_test[some])[missing[some]]
    return {
        **accuracies(codes, data.y_train, test_codes, data.y_test, seed),
        "mean square": float(squares.mean()),
        "seconds": seconds,
        "seconds of 2,000 fillings": filling,
    }


def step(n_seeds):
    """CPU time of a step of rows with holes, in that of the same rows without."""
    rng = np.random.default_rng(0)
    shapes = {"30 columns": (2000, 30), "100 columns": (5000, 100), "784 columns": (3000, 784)}
    for name, shape in shapes.items():
        for likelihood in ("gaussian", "bernoulli"):
            X = rng.random(shape, dtype=np.float32)
            tables = {"holes": np.where(rng.random(shape) < 0.5, np.nan, X), "complete": X}
            measured(
                f"step, {name}, {likelihood}",
                lambda tables=tables, likelihood=likelihood: ratio_of_steps(tables, likelihood),
            )


def ratio_of_steps(tables, likelihood, n_turns=4):
    """CPU time of three epochs, in turns; what a fit does besides is taken off."""
    mvae = MVAETransformer(likelihood=likelihood, random_state=0, device="cpu")
    differences = {name: [] for name in tables}
    for _ in range(n_turns):
        for name, X in tables.items():
            one, four = (
                cpu_seconds(lambda X=X, n=n: mvae.set_params(max_iter=n).fit(X)) for n in (1, 4)
            )
            differences[name].append(four - one)
    seconds = {name: float(np.median(values)) for name, values in differences.items()}
    return {"ratio": seconds["holes"] / seconds["complete"], "seconds": seconds}


PARTS = {"tables": tables, "codes": codes, "purity": purity, "mnist": mnist, "step": step}

if __name__ == "__main__":
    run_part(__doc__, "missing", PARTS)
