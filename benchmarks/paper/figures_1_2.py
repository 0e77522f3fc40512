"""Figures 1 and 2: test images, their reconstructions by each component alone and by the mixture.

python benchmarks/paper/figures_1_2.py --epochs 10
"""

from common import HERE, arguments
from matplotlib import pyplot as plt
from mnist import Mnist, mixture

from skmvae.metrics import reconstruction_error

N_IMAGES = 12


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist = Mnist()
    mvae = mnist.model(mixture(epochs=parsed.epochs, seed=0))
    X = mnist.data.X_test[:N_IMAGES]
    rows = {"test images": X}
    for i, weight in enumerate(mvae.weights_):
        rows[f"component {i}\nweight {weight:.2f}"] = mvae.reconstruct(X, component=i)
    rows["mixture"] = mvae.reconstruct(X)
    figure, axes = plt.subplots(
        len(rows), N_IMAGES, figsize=(N_IMAGES * 0.7 + 1.4, len(rows) * 0.75), squeeze=False
    )
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, images, strict=True):
            ax.imshow(image.reshape(28, 28), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        error = "" if images is X else f"\nerror {_error(mnist, mvae, name):.1f}"
        line[0].set_ylabel(name + error, rotation=0, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(left=0.16, right=0.99, top=0.99, bottom=0.01, wspace=0.06, hspace=0.06)
    figure.savefig(HERE / "results" / "figures_1_2.png", dpi=130)


def _error(mnist, mvae, name):
    """Mean over all test images of the sum of squares of an image."""
    component = int(name.split()[1]) if name.startswith("component") else None
    X = mnist.data.X_test
    return reconstruction_error(X, mvae.reconstruct(X, component=component))


if __name__ == "__main__":
    main()
