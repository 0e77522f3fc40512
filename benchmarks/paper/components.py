"""Do components that share the work, or that are clusters, earn their name?

python benchmarks/paper/components.py --epochs 10 --seeds 3

The objectives of ours, "mixture" and "clusters", beside "melbo", "elbo" and a single VAE.
"""

from common import arguments
from mnist import Mnist, mixture

CLUSTERS = 10
MEASURES = ("errors", "weights", "components", "few", "transductive", "accuracies")


def settings(epochs, seed):
    """Every model, by the name of its row."""
    models = {
        "M-VAE, mixture": {"objective": "mixture"},
        "M-VAE, mixture, KL weight 0.25": {"objective": "mixture", "kl_weight": 0.25},
        f"M-VAE, K = {CLUSTERS}, clusters": {"k": CLUSTERS, "objective": "clusters"},
        "M-VAE, melbo": {},
        "M-VAE, elbo": {"objective": "elbo"},
        "VAE, d = 20, KL weight 1/4": {"k": 1, "kl_weight": 0.25},
    }
    return {name: mixture(epochs=epochs, seed=seed, **changes) for name, changes in models.items()}


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist = Mnist()
    for seed in range(parsed.seeds):
        for model in settings(parsed.epochs, seed).values():
            mnist.measure(model, MEASURES)


if __name__ == "__main__":
    main()
