"""How good are the codes with few labels? The model sees all 60,000 images without labels.

    python benchmarks/paper/few_labels.py --epochs 10 --seeds 3

Draws each number of labels three times, stratified by digit. Compare with model M1 of Kingma et al.
(2014), "Semi-supervised learning with deep generative models".
"""

from common import Results, arguments
from mnist import N_DRAWS, Mnist, labelled_rows, mixture, single_vaes
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

LABELS = (100, 300, 1_000, 10_000, 60_000)


def settings(epochs, seed):
    """The models whose codes are compared, by name."""
    mixtures = {
        f"M-VAE, {objective}, KL weight {kl_weight:g}": mixture(
            epochs=epochs, seed=seed, objective=objective, kl_weight=kl_weight
        )
        for objective, kl_weight in (("melbo", 1.0), ("melbo", 0.25), ("elbo", 1.0), ("elbo", 0.25))
    }
    return mixtures | single_vaes(k=4, epochs=epochs, seed=seed)


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist = Mnist()
    results = Results("few_labels")
    for seed in range(parsed.seeds):
        for model in settings(parsed.epochs, seed).values():
            results.get(model, lambda m=model: of_codes(mnist, m))
    X_train, X_test = mnist.data.X_train, mnist.data.X_test
    results.get({"features": "pixels"}, lambda: accuracies(mnist, X_train, X_test))
    results.get({"features": "PCA", "columns": 80}, lambda: of_pca(mnist, 80))


def of_codes(mnist, model):
    mvae = mnist.model(model)
    train, test = mvae.transform(mnist.data.X_train), mvae.transform(mnist.data.X_test)
    return accuracies(mnist, train, test)


def of_pca(mnist, n_columns):
    model = PCA(n_columns, random_state=0).fit(mnist.data.X_train)
    return accuracies(
        mnist, model.transform(mnist.data.X_train), model.transform(mnist.data.X_test)
    )


def accuracies(mnist, train, test):
    """Accuracies of each draw, in per cent, by classifier and number of labels."""
    scaler = StandardScaler().fit(train)
    scaled, scaled_test = scaler.transform(train), scaler.transform(test)
    values = {}
    for n_labels in LABELS:
        found = {"SVM": [], "scaled SVM": [], "KNN": []}
        for draw in range(N_DRAWS if n_labels < len(train) else 1):
            rows = labelled_rows(mnist.data.y_train, n_labels, draw)
            y, y_test = mnist.data.y_train[rows], mnist.data.y_test
            svm = LinearSVC(random_state=draw).fit(train[rows], y)
            found["SVM"].append(svm.score(test, y_test))
            svm = LinearSVC(random_state=draw, C=0.01).fit(scaled[rows], y)
            found["scaled SVM"].append(svm.score(scaled_test, y_test))
            knn = KNeighborsClassifier(min(5, n_labels // 20)).fit(train[rows], y)
            found["KNN"].append(knn.score(test, y_test))
        for name, scores in found.items():
            values[f"{name}, {n_labels}"] = [round(100 * score, 2) for score in scores]
    return values


if __name__ == "__main__":
    main()
