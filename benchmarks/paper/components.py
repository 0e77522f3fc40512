"""Do components that share the work, or that are clusters, earn their name?

python benchmarks/paper/components.py --epochs 10 --seeds 3

The objectives of ours, "mixture" and "clusters", beside the paper's "melbo" and a single VAE.
"""

from common import arguments
from mnist import Mnist, mixture

CLUSTERS = 10
MEASURES = ("errors", "weights", "components", "few", "transductive", "accuracies")


def settings(epochs, seed):
    """Every model, by the name of its row."""
    single = {"k": 1, "kl_weight": 0.25}
    rows = {
        f"M-VAE, {objective}": mixture(epochs=epochs, seed=seed, objective=objective)
        for objective in ("mixture", "melbo")
    }
    rows |= {
        f"M-VAE, K = {CLUSTERS}, {objective}": mixture(
            k=CLUSTERS, epochs=epochs, seed=seed, objective=objective
        )
        for objective in ("clusters", "mixture")
    }
    return rows | {"VAE, d = 20, KL weight 1/4": mixture(epochs=epochs, seed=seed, **single)}


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist = Mnist()
    for seed in range(parsed.seeds):
        for model in settings(parsed.epochs, seed).values():
            mnist.measure(model, MEASURES)


if __name__ == "__main__":
    main()
