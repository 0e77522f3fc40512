"""Figure 4: accuracy of simple classifiers on the codes against the number of components.

python benchmarks/paper/figure_4.py --epochs 10 --seeds 3
"""

import numpy as np
from common import HERE, arguments
from matplotlib import pyplot as plt
from mnist import CLASSIFIERS, Mnist, mixture

COMPONENTS = (1, 2, 4, 7, 8, 10)


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist = Mnist()
    found = np.array(
        [
            [
                [
                    mnist.measure(mixture(k=k, epochs=parsed.epochs, seed=seed), ("accuracies",))[c]
                    for seed in range(parsed.seeds)
                ]
                for k in COMPONENTS
            ]
            for c in CLASSIFIERS
        ]
    )
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, values in zip(CLASSIFIERS, found, strict=True):
        ax.errorbar(COMPONENTS, values.mean(1), values.std(1), marker="o", capsize=3, label=name)
    ax.set(
        xlabel="number of components K",
        ylabel="test accuracy, %",
        title=f"Codes of MNIST, d = 20, {parsed.epochs} epochs, {parsed.seeds} seed(s)",
    )
    ax.legend()
    figure.savefig(HERE / "results" / "figure_4.png", dpi=130)


if __name__ == "__main__":
    main()
