"""Rows with holes: are missing values filled well, and are the codes of such rows good?

    python benchmarks/missing.py tables --seeds 3
    python benchmarks/missing.py codes --seeds 3
    SKMVAE_DATA=... python benchmarks/missing.py mnist --seeds 3
    python benchmarks/missing.py step
    python benchmarks/missing.py settings --seeds 3

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
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler

from skmvae import MVAEImputer, MVAETransformer

sys.path.append(str(Path(__file__).parent / "paper"))
from manifolds import draw_sheets


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
    }


def tables(n_seeds):
    for table, load in sorted(TABLES.items(), key=lambda item: item[0] in WIDE):
        X = StandardScaler().fit_transform(load())
        for pattern, (missing_of, fraction) in PATTERNS.items():
            for seed in range(n_seeds):
                missing = missing_of(X, fraction, np.random.default_rng(seed))
                for name, fill in imputers(seed).items():
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


PARTS = {"tables": tables}

if __name__ == "__main__":
    run_part(__doc__, "missing", PARTS)
