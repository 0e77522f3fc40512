"""Table I: reconstruction error on MNIST against the number of components, and fair baselines.

python benchmarks/paper/table_1.py --epochs 10 --seeds 3
"""

from mnist import measure_all, mixture, single_vaes

COMPONENTS = (2, 4, 7, 8, 10)


def settings(epochs, seed):
    """Every model, by the name of its row."""
    rows = {f"M-VAE, K = {k}": mixture(k=k, epochs=epochs, seed=seed) for k in COMPONENTS}
    for k in (4, 10):
        rows |= single_vaes(k=k, epochs=epochs, seed=seed)
    return rows


if __name__ == "__main__":
    measure_all(__doc__, settings, ("errors", "weights"))
