"""
=======================================================
MNIST: the paper's Table II, with the missing baselines
=======================================================

Simple classifiers on the codes of the mixture (K = 4, d = 20, two hidden layers of 500, Adam 1e-3,
Bernoulli likelihood), on the codes of each component alone, of a single VAE with as many columns
as one component and as the whole mixture, and on PCA.

    python examples/mnist_classifiers.py --epochs 10

takes about five minutes on two cores. The data come from the folder that ``SKMVAE_DATA`` names or
from OpenML. The paper trains for 100 epochs.
"""

import argparse
import time
import warnings

import numpy as np
from scipy.stats import entropy
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae.datasets import fetch_mnist

K, LATENT_DIM = 4, 20


def classifiers(seed):
    return {
        "KNN": KNeighborsClassifier(5),
        "SVM": LinearSVC(random_state=seed),
        "MLP": MLPClassifier((100,), batch_size=128, max_iter=10, random_state=seed),
    }


def squared_error(reconstruction, X):
    """Sum of squares per image, the paper's MSE."""
    return float(np.square(reconstruction - X).sum(axis=1).mean())


def accuracies(train, test, mnist, seed):
    """Test accuracy of each classifier, in per cent."""
    result = {}
    for name, classifier in classifiers(seed).items():
        with warnings.catch_warnings():
            # Ten epochs of the MLP are the paper's protocol, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(train, mnist.y_train)
        result[name] = 100 * classifier.score(test, mnist.y_test)
    return result


def report(name, error, accuracy):
    error = "" if error is None else f"{error:.2f}"
    print(f"{name:22}{error:>8}" + "".join(f"{a:>8.2f}" for a in accuracy.values()), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--objective", default="melbo", choices=["melbo", "averaged", "elbo"])
    parser.add_argument("--kl-weight", type=float, default=1.0)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    mnist = fetch_mnist()

    def fit(name, k, latent_dim):
        print(f"\ntraining {name}", flush=True)
        start = time.perf_counter()
        model = MVAETransformer(
            k=k,
            latent_dim=latent_dim,
            likelihood="bernoulli",
            objective=arguments.objective,
            kl_weight=arguments.kl_weight,
            beta=arguments.beta,
            max_iter=arguments.epochs,
            random_state=arguments.seed,
            verbose=1,
        ).fit(mnist.X_train)
        epoch = np.median(model.history_["seconds"])
        total = time.perf_counter() - start
        print(f"{total:.0f} s, {epoch:.1f} s an epoch (median)", flush=True)
        return model

    mixture = fit(f"M-VAE, K = {K}, d = {LATENT_DIM}", K, LATENT_DIM)
    singles = {
        f"VAE, d = {d}": fit(f"a single VAE, d = {d}", 1, d) for d in (LATENT_DIM, K * LATENT_DIM)
    }

    print(f"\n{arguments}\n")
    print(f"{'features':22}{'MSE':>8}{'KNN %':>8}{'SVM %':>8}{'MLP %':>8}")
    train, test = mixture.transform(mnist.X_train), mixture.transform(mnist.X_test)
    error = squared_error(mixture.reconstruct(mnist.X_test), mnist.X_test)
    report("M-VAE, all 80 codes", error, accuracies(train, test, mnist, arguments.seed))
    for i in range(K):
        codes = slice(i * LATENT_DIM, (i + 1) * LATENT_DIM)
        error = squared_error(mixture.reconstruct(mnist.X_test, component=i), mnist.X_test)
        accuracy = accuracies(train[:, codes], test[:, codes], mnist, arguments.seed)
        report(f"  component {i} alone", error, accuracy)
    baselines = singles | {
        f"PCA, {K * LATENT_DIM}": PCA(K * LATENT_DIM, random_state=0).fit(mnist.X_train)
    }
    for name, model in baselines.items():
        train, test = model.transform(mnist.X_train), model.transform(mnist.X_test)
        error = squared_error(model.inverse_transform(test), mnist.X_test)
        report(name, error, accuracies(train, test, mnist, arguments.seed))
    print(f"\nmean mixing weights {np.round(mixture.weights_, 3)}")
    print(f"effective number of components {np.exp(entropy(mixture.weights_)):.2f} of {K}")


if __name__ == "__main__":
    main()
