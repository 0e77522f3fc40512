"""How much quality does training with bfloat16 matrix products cost? MNIST, several seeds.

    python benchmarks/precision.py --epochs 10 --seeds 3

Fits the paper's MNIST network (K = 4, d = 20, Bernoulli, "melbo") in both precisions with each
seed. Compares the squared error of test rows, and the accuracy of KNN and of a linear SVM on their
codes. bfloat16 costs nothing if the means differ by no more than the seeds do.
"""

import numpy as np
from machine import make_parser, print_machine, save
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae.datasets import fetch_mnist
from skmvae.metrics import reconstruction_error

PRECISIONS = ("float32", "bfloat16")


def measure(mnist, precision, seed, epochs):
    """Fit once, and measure the quality on test rows."""
    mvae = MVAETransformer(
        likelihood="bernoulli",
        max_iter=epochs,
        learning_rate=1e-3,
        learning_rate_schedule="constant",
        precision=precision,
        random_state=seed,
    ).fit(mnist.X_train)
    train, test = mvae.transform(mnist.X_train), mvae.transform(mnist.X_test)
    classifiers = {"KNN %": KNeighborsClassifier(5), "SVM %": LinearSVC(random_state=seed)}
    return {
        "MSE": reconstruction_error(mnist.X_test, mvae.reconstruct(mnist.X_test)),
        **{
            name: 100 * classifier.fit(train, mnist.y_train).score(test, mnist.y_test)
            for name, classifier in classifiers.items()
        },
        "bound, nats": float(mvae.score(mnist.X_test[:1000])),
        "seconds an epoch": float(np.median(mvae.history_["seconds"])),
    }


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="keep the figures in results/")
    arguments = parser.parse_args()
    mnist = fetch_mnist()
    result = {"machine": print_machine(), "fits": []}
    for seed in range(arguments.seeds):
        for precision in PRECISIONS:
            figures = measure(mnist, precision, seed, arguments.epochs)
            result["fits"].append({"precision": precision, "seed": seed, **figures})
            if len(result["fits"]) == 1:
                print(f"\n{'':10}{'seed':>5}" + "".join(f"{name:>18}" for name in figures))
            values = "".join(f"{value:18.2f}" for value in figures.values())
            print(f"{precision:10}{seed:5d}{values}", flush=True)
    if arguments.save:
        save("precision", result)


if __name__ == "__main__":
    main()
