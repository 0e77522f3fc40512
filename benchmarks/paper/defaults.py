"""Are the defaults good for more than MNIST? Small tables of scikit-learn, against PCA.

    python benchmarks/paper/defaults.py --epochs 100 --seeds 3

Three-fold cross-validated score of a linear model and of nearest neighbours on standardised columns
(digits: raw pixels), on codes of the mixture under each objective and KL weight, on codes of a
single VAE with as many columns, and on PCA with as many columns as that or as the table has.
"""

import numpy as np
from common import PLAIN_ADAM, Results, arguments
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

from skmvae import MVAETransformer
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
    for objective, kl_weights in OF_OBJECTIVE.items():
        for kl_weight in kl_weights:
            yield {
                "features": "codes",
                "k": K,
                "latent_dim": LATENT_DIM,
                "objective": objective,
                "kl_weight": kl_weight,
                "epochs": epochs,
            }
    for kl_weight in (1.0, 1.0 / K):
        yield {
            "features": "codes",
            "k": 1,
            "latent_dim": K * LATENT_DIM,
            "objective": "melbo",
            "kl_weight": kl_weight,
            "epochs": epochs,
        }


def evaluate(settings):
    return cross_validated(settings["table"], settings["seed"], lambda X: _features(settings, X))


def cross_validated(table, seed, features):
    """Mean scores over the folds, in per cent: accuracy, or R^2 for the diabetes table.

    ``features(X)`` gives a fitted transformer, or None for the columns as they are.
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
    return MVAETransformer(
        k=settings["k"],
        latent_dim=settings["latent_dim"],
        objective=settings["objective"],
        kl_weight=settings["kl_weight"],
        architecture=MLP((500, 500)),
        max_iter=settings["epochs"],
        **PLAIN_ADAM,
        random_state=settings["seed"],
    ).fit(X)


def _predictors(is_regression):
    if is_regression:
        return Ridge(), KNeighborsRegressor()
    return LogisticRegression(max_iter=2000), KNeighborsClassifier()


if __name__ == "__main__":
    main()
