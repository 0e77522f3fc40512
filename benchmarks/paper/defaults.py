"""Are the defaults good for more than MNIST? Small tables of scikit-learn, against PCA.

    python benchmarks/paper/defaults.py --epochs 100 --seeds 3

Measures three-fold cross-validated scores of a linear model and of nearest neighbours on these
features: standardised columns (digits: raw pixels); codes of the mixture under each objective and
KL weight; codes of a single VAE with as many columns; PCA with as many columns as the codes or the
table.
"""

import numpy as np
from common import Results, arguments, make_model
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
    make_classification,
)
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from skmvae.architectures import MLP

K, LATENT_DIM = 4, 20
KL_WEIGHTS = (1.0, 0.25, 0.1)
OF_OBJECTIVE = {
    "melbo": KL_WEIGHTS,
    "averaged": KL_WEIGHTS,
    "elbo": KL_WEIGHTS,
    "mixture": (1.0,),
}

TABLES = {
    "digits": lambda: load_digits(return_X_y=True),
    "breast cancer": lambda: load_breast_cancer(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "make_classification": lambda: make_classification(
        1000, 40, n_informative=10, n_redundant=10, n_classes=3, random_state=0
    ),
}


def main():
    parsed = arguments(__doc__, epochs=100)
    results = Results("defaults")
    for seed in range(parsed.seeds):
        for table in TABLES:
            for features in ({"features": "columns"}, {"features": "PCA"}, *codes(parsed.epochs)):
                settings = {"table": table, "seed": seed, **features}
                results.get(settings, lambda s=settings: evaluate(s))


def codes(epochs):
    """Settings of the mixtures and of the single VAEs."""
    models = [
        {"k": K, "latent_dim": LATENT_DIM, "objective": objective, "kl_weight": kl_weight}
        for objective, kl_weights in OF_OBJECTIVE.items()
        for kl_weight in kl_weights
    ]
    vae = {"k": 1, "latent_dim": K * LATENT_DIM, "objective": "melbo"}
    models += [{**vae, "kl_weight": kl_weight} for kl_weight in (1.0, 1.0 / K)]
    return [{"features": "codes", **model, "epochs": epochs} for model in models]


def evaluate(settings):
    return cross_validated(settings["table"], settings["seed"], lambda X: _features(settings, X))


def cross_validated(table, seed, features):
    """Mean scores over the folds, in per cent: accuracy, or R^2 for the diabetes table.

    ``features(X)`` returns a fitted transformer, or None to use the columns themselves.
    """
    X, y = TABLES[table]()
    is_regression = table == "diabetes"
    kind = KFold if is_regression else StratifiedKFold
    scores = []
    for train, test in kind(3, shuffle=True, random_state=seed).split(X, y):
        columns = X if table == "digits" else StandardScaler().fit(X[train]).transform(X)
        model = features(columns[train])
        Z_train, Z_test = (
            columns[rows] if model is None else model.transform(columns[rows])
            for rows in (train, test)
        )
        scores.append(
            [
                predictor.fit(Z_train, y[train]).score(Z_test, y[test])
                for predictor in _predictors(is_regression)
            ]
        )
    linear, neighbours = 100 * np.mean(scores, axis=0)
    return {"linear": round(float(linear), 2), "KNN": round(float(neighbours), 2)}


def _features(settings, X):
    if settings["features"] == "columns":
        return None
    if settings["features"] == "PCA":
        return PCA(min(K * LATENT_DIM, *X.shape)).fit(X)
    return make_model(settings, architecture=MLP((500, 500))).fit(X)


def _predictors(is_regression):
    if is_regression:
        return Ridge(), KNeighborsRegressor()
    return LogisticRegression(max_iter=2000), KNeighborsClassifier()


if __name__ == "__main__":
    main()
