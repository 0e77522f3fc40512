"""Figure 3: two-dimensional codes of four components and of a single VAE, coloured by digit.

python benchmarks/paper/figure_3.py --epochs 10
"""

from common import HERE, arguments
from matplotlib import pyplot as plt
from mnist import Mnist, mixture

N_ROWS = 5_000


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist = Mnist()
    X, y = mnist.data.X_test[:N_ROWS], mnist.data.y_test[:N_ROWS]
    four = mnist.model(mixture(epochs=parsed.epochs, seed=0, latent_dim=2))
    one = mnist.model(mixture(k=1, epochs=parsed.epochs, seed=0, latent_dim=2))
    codes = four.transform(X).reshape(len(X), 4, 2).transpose(1, 0, 2)
    titles = [f"component {i}, weight {w:.2f}" for i, w in enumerate(four.weights_)]
    panels = [*zip(titles, codes, strict=True), ("a single VAE", one.transform(X))]
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), layout="constrained")
    for ax, (title, points) in zip(axes, panels, strict=True):
        dots = ax.scatter(*points.T, c=y, s=2, cmap="tab10", vmin=-0.5, vmax=9.5)
        ax.set(title=title, xticks=[], yticks=[])
    figure.colorbar(dots, ax=axes[-1], ticks=range(10), label="digit")
    figure.savefig(HERE / "results" / "figure_3.png", dpi=110)


if __name__ == "__main__":
    main()
