"""Models on MNIST and the figures of the tables: errors, accuracies, use of the components."""

import warnings

import numpy as np
from common import Results, arguments, fitted, make_model
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import LinearSVC

from skmvae.architectures import MLP, Conv
from skmvae.datasets import fetch_mnist
from skmvae.metrics import dhsic_score, effective_components, reconstruction_error

CLASSIFIERS = ("MLP", "SVM", "KNN")
N_DRAWS = 3  # of the labelled rows


def accuracies(train, y_train, test, y_test, seed):
    """Accuracies of the paper's three classifiers, in per cent."""
    classifiers = {
        "MLP": MLPClassifier((100,), batch_size=128, max_iter=10, random_state=seed),
        "SVM": LinearSVC(random_state=seed),
        "KNN": KNeighborsClassifier(5),
    }
    values = {}
    for name, classifier in classifiers.items():
        with warnings.catch_warnings():
            # The MLP has a fixed number of epochs, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(train, y_train)
        values[name] = round(100 * classifier.score(test, y_test), 2)
    return values


class Mnist:
    """The data, and every measure of a model on it; a model is given as its settings."""

    def __init__(self):
        self.data = fetch_mnist()
        self._results = Results("mnist")

    def model(self, settings):
        def make():
            architecture = _architecture(settings)
            return make_model(settings, likelihood="bernoulli", architecture=architecture)

        return fitted(settings, make, self.data.X_train)

    def measure(self, settings, measures=("errors", "weights", "accuracies")):
        """The values of all ``measures`` together."""
        values = {}
        for name in measures:
            key = {**settings, "measure": name}
            values |= self._results.get(key, lambda n=name: getattr(self, f"_{n}")(settings))
        return values

    def _errors(self, settings):
        """Sum of squares per test image (the paper's MSE), of the mixture and of each component."""
        mvae, X = self.model(settings), self.data.X_test
        alone = [reconstruction_error(X, mvae.reconstruct(X, component=i)) for i in range(mvae.k)]
        return {
            "MSE": reconstruction_error(X, mvae.reconstruct(X)),
            "MSE of components": alone,
            "bound": float(mvae.score(X[:2000])),
        }

    def _weights(self, settings):
        mvae = self.model(settings)
        return {
            "weights": mvae.weights_.tolist(),
            "effective components": effective_components(mvae.weights_),
            "dHSIC": dhsic_score(mvae.transform(self.data.X_test[:2000]), mvae.k),
            "fit seconds": float(sum(mvae.history_["seconds"])),
        }

    def _accuracies(self, settings):
        mvae = self.model(settings)
        train, test = mvae.transform(self.data.X_train), mvae.transform(self.data.X_test)
        return self.accuracies(train, test, settings["seed"])

    def _component_accuracies(self, settings):
        mvae, d = self.model(settings), settings["latent_dim"]
        train, test = mvae.transform(self.data.X_train), mvae.transform(self.data.X_test)
        columns = [slice(i * d, (i + 1) * d) for i in range(mvae.k)]
        accuracies = [self.accuracies(train[:, c], test[:, c], settings["seed"]) for c in columns]
        return {f"{name} of components": [a[name] for a in accuracies] for name in CLASSIFIERS}

    def _clusters(self, settings):
        """Normalised mutual information of digits with k-means on codes, and with components."""
        mvae = self.model(settings)
        X, y = self.data.X_test, self.data.y_test
        clusters = KMeans(10, n_init=3, random_state=settings["seed"]).fit_predict(
            mvae.transform(X)
        )
        components = mvae.mixing_weights(X).argmax(axis=1)
        return {
            "NMI of k-means": normalized_mutual_info_score(y, clusters),
            "NMI of components": normalized_mutual_info_score(y, components),
        }

    def _components(self, settings):
        """Clusters by ``predict``: accuracy under the best one-to-one naming by digits, and NMI."""
        mvae = self.model(settings)
        y, found = self.data.y_test, mvae.predict(self.data.X_test)
        return {
            "accuracy of components": round(100 * matched_accuracy(y, found), 2),
            "NMI of components": normalized_mutual_info_score(y, found),
        }

    def _few(self, settings):
        """Test accuracy of a scaled linear SVM with 100 labels, for three draws of the labels."""
        mvae = self.model(settings)
        scaler = StandardScaler().fit(mvae.transform(self.data.X_train))
        train, test = (
            scaler.transform(mvae.transform(X)) for X in (self.data.X_train, self.data.X_test)
        )
        scores = []
        for draw in range(N_DRAWS):
            rows = labelled_rows(self.data.y_train, 100, draw)
            svm = LinearSVC(C=0.01, random_state=draw).fit(train[rows], self.data.y_train[rows])
            scores.append(round(100 * svm.score(test, self.data.y_test), 2))
        return {"scaled SVM, 100": scores}

    def _transductive(self, settings):
        """Label spreading over the test images, for three draws of the labels."""
        codes, y = self.model(settings).transform(self.data.X_test), self.data.y_test
        values = {}
        for n_labels in (100, 1_000):
            scores = values[f"LabelSpreading, {n_labels}"] = []
            for draw in range(N_DRAWS):
                rows = labelled_rows(y, n_labels, draw)
                labels = np.full(len(y), -1)
                labels[rows] = y[rows]
                model = LabelSpreading(kernel="knn", n_neighbors=8, max_iter=50).fit(codes, labels)
                right = model.transduction_ == y
                right[rows] = False
                scores.append(round(100 * right.sum() / (len(y) - n_labels), 2))
        return values

    def accuracies(self, train, test, seed):
        """Accuracies with ``train`` and ``test`` as features of the training and test images."""
        return accuracies(train, self.data.y_train, test, self.data.y_test, seed)


def measure_all(description, settings, measures):
    """Measure every model of ``settings(epochs, seed)``, for the seeds of the command line."""
    parsed = arguments(description, epochs=10)
    mnist = Mnist()
    for seed in range(parsed.seeds):
        for model in settings(parsed.epochs, seed).values():
            mnist.measure(model, measures)


def labelled_rows(y, n_labels, draw):
    """Row numbers of a draw that keeps the class frequencies."""
    if n_labels == len(y):
        return np.arange(len(y))
    rows, _ = train_test_split(
        np.arange(len(y)), train_size=n_labels, stratify=y, random_state=draw
    )
    return rows


def mixture(*, k=4, epochs, seed, **changes):
    """Settings of the paper's network: two hidden layers of 500, d = 20, eq. 8, beta = 1."""
    settings = {
        "k": k,
        "latent_dim": 20,
        "objective": "melbo",
        "kl_weight": 1.0,
        "beta": 1.0,
        "hidden": [500, 500],
        "epochs": epochs,
        "seed": seed,
    }
    return {**settings, **changes}


def matched_accuracy(y, found):
    """Accuracy of parts under their best one-to-one naming by classes."""
    counts = contingency_matrix(found, y)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(y))


def convolutional(*, k=4, epochs, seed, **changes):
    """Settings as from ``mixture``, with convolutions for 28 x 28 images."""
    settings = mixture(k=k, epochs=epochs, seed=seed, **changes)
    del settings["hidden"]
    return {**settings, "channels": [32, 64, 64, 128], "strides": [2, 2, 1, 2]}


def _architecture(settings):
    if "hidden" in settings:
        return MLP(tuple(settings["hidden"]))
    return Conv((1, 28, 28), tuple(settings["channels"]), strides=tuple(settings["strides"]))


def single_vaes(*, k, epochs, seed):
    """Single VAEs as fair baselines of a mixture of k, by name."""
    d = 20
    changes = {f"VAE, d = {d}": {}}
    changes[f"VAE, d = {d}, KL weight 1/{k}"] = {"kl_weight": 1.0 / k}
    changes[f"VAE, d = {k * d}"] = {"latent_dim": k * d}
    changes[f"VAE, d = {k * d}, KL weight 1/{k}"] = {"latent_dim": k * d, "kl_weight": 1.0 / k}
    changes[f"VAE, d = {d}, as many parameters as K = {k}"] = {"hidden": [_width(k, d)] * 2}
    return {name: mixture(k=1, epochs=epochs, seed=seed, **c) for name, c in changes.items()}


def _width(k, latent_dim, n_features=784, hidden=500):
    """Hidden width of a single VAE with about as many parameters as k VAEs of width ``hidden``."""

    def n_parameters(h):
        encoder = (n_features + 1) * h + (h + 1) * h + (h + 1) * (2 * latent_dim + 1)
        return encoder + (latent_dim + 1) * h + (h + 1) * h + (h + 1) * n_features

    widths = np.arange(hidden, hidden * k + 1)
    return int(widths[np.abs(n_parameters(widths) - k * n_parameters(hidden)).argmin()])
