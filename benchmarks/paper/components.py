"""What does our own objective "mixture" gain on MNIST?

    python benchmarks/paper/components.py --epochs 10 --seeds 3

Compares them with "melbo", "elbo" and a single VAE.
"""

from mnist import measure_all, mixture

MEASURES = ("errors", "weights", "components", "few", "transductive", "accuracies")


def settings(epochs, seed):
    """Every model, by the name of its row."""
    models = {
        "M-VAE, mixture": {"objective": "mixture"},
        "M-VAE, mixture, KL weight 0.25": {"objective": "mixture", "kl_weight": 0.25},
        "M-VAE, melbo": {},
        "M-VAE, elbo": {"objective": "elbo"},
        "VAE, d = 20, KL weight 1/4": {"k": 1, "kl_weight": 0.25},
    }
    return {name: mixture(epochs=epochs, seed=seed, **changes) for name, changes in models.items()}


if __name__ == "__main__":
    measure_all(__doc__, settings, MEASURES)
