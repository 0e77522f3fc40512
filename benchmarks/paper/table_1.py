"""Table I: reconstruction error on MNIST against the number of components, and fair baselines.

python benchmarks/paper/table_1.py --epochs 10 --seeds 3
"""

from common import arguments
from mnist import Mnist, mixture, single_vaes

COMPONENTS = (1, 2, 4, 7, 8, 10)


def settings(epochs, seed):
    """Every model of the table, by its row."""
    rows = {f"M-VAE, K = {k}": mixture(k=k, epochs=epochs, seed=seed) for k in COMPONENTS[1:]}
    for k in (4, 10):
        rows |= single_vaes(k=k, epochs=epochs, seed=seed)
    return rows


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist = Mnist()
    for seed in range(parsed.seeds):
        for model in settings(parsed.epochs, seed).values():
            mnist.measure(model, ("errors", "weights"))


if __name__ == "__main__":
    main()
