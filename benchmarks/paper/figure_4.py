"""Figure 4: accuracy of simple classifiers on the codes against the number of components.

    python benchmarks/paper/figure_4.py --epochs 10 --seeds 3

Dashed lines: codes of a single VAE with as many columns.
"""

import numpy as np
from common import HERE, arguments
from matplotlib import pyplot as plt
from mnist import CLASSIFIERS, Mnist, mixture

COMPONENTS = range(1, 11)


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist = Mnist()

    def accuracies(model_of_k):
        """Shape (classifiers, numbers of components, seeds)."""
        found = [
            [mnist.measure(model_of_k(k, seed), ("accuracies",)) for seed in range(parsed.seeds)]
            for k in COMPONENTS
        ]
        return np.array([[[a[name] for a in row] for row in found] for name in CLASSIFIERS])

    mixtures = accuracies(lambda k, seed: mixture(k=k, epochs=parsed.epochs, seed=seed))
    vaes = accuracies(
        lambda k, seed: mixture(k=1, latent_dim=20 * k, epochs=parsed.epochs, seed=seed)
    )
    figure, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for name, of_mixtures, of_vaes in zip(CLASSIFIERS, mixtures, vaes, strict=True):
        bars = ax.errorbar(
            COMPONENTS, *_mean_and_std(of_mixtures), marker="o", capsize=3, label=name
        )
        color = bars[0].get_color()
        ax.errorbar(COMPONENTS, *_mean_and_std(of_vaes), color=color, ls="--", lw=1, capsize=3)
    ax.plot([], [], "k--", lw=1, label="single VAE, 20 K codes")
    ax.set(
        xlabel="number of components K",
        ylabel="test accuracy, %",
        title=f"Codes of MNIST, d = 20, {parsed.epochs} epochs, mean of {parsed.seeds} seeds",
    )
    ax.legend()
    figure.savefig(HERE / "results" / "figure_4.png", dpi=130)


def _mean_and_std(accuracies):
    """Over the seeds; the deviation of one seed is 0."""
    ddof = min(1, accuracies.shape[1] - 1)
    return accuracies.mean(axis=1), accuracies.std(axis=1, ddof=ddof)


if __name__ == "__main__":
    main()
