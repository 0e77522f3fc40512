"""Table II: simple classifiers on the codes of MNIST images, and fair baselines.

python benchmarks/paper/table_2.py --epochs 10 --seeds 3
"""

from common import Results, arguments
from mnist import Mnist, mixture, single_vaes
from sklearn.decomposition import PCA

from skmvae.metrics import reconstruction_error

K = 4


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist = Mnist()
    for seed in range(parsed.seeds):
        mnist.measure(
            mixture(k=K, epochs=parsed.epochs, seed=seed),
            ("errors", "weights", "accuracies", "component_accuracies"),
        )
        for model in single_vaes(k=K, epochs=parsed.epochs, seed=seed).values():
            mnist.measure(model)
    results = Results("mnist_pca")
    for seed in range(parsed.seeds):
        results.get({"columns": 80, "seed": seed}, lambda s=seed: pca(mnist, 80, s))
    results.get({"columns": 784, "seed": 0}, lambda: raw(mnist))


def pca(mnist, n_columns, seed):
    X_train, X_test = mnist.data.X_train, mnist.data.X_test
    model = PCA(n_columns, random_state=0).fit(X_train)
    train, test = model.transform(X_train), model.transform(X_test)
    error = reconstruction_error(X_test, model.inverse_transform(test))
    return {"MSE": error, **mnist.accuracies(train, test, seed)}


def raw(mnist):
    """Accuracies on the pixels themselves."""
    return {"MSE": 0.0, **mnist.accuracies(mnist.data.X_train, mnist.data.X_test, 0)}


if __name__ == "__main__":
    main()
