"""The best setting for MNIST that we know: convolutions, and a KL weight of one half.

    python benchmarks/paper/best.py --epochs 10 --seeds 3

Runs the classifiers of table_2.py and few_labels.py on the mixture and on single VAEs with the same
convolutions. A fit of the mixture took 22 to 33 minutes on one thread beside other work.
"""

from common import Results, arguments
from few_labels import of_codes
from mnist import Mnist, convolutional


def settings(epochs, seed):
    """Every model, by the name of its row."""
    rows = {
        f"M-VAE, Conv, KL weight {kl_weight:g}": convolutional(
            epochs=epochs, seed=seed, kl_weight=kl_weight
        )
        for kl_weight in (0.5, 1.0)
    }
    for latent_dim in (20, 80):
        rows[f"VAE, Conv, d = {latent_dim}"] = convolutional(
            k=1, epochs=epochs, seed=seed, latent_dim=latent_dim
        )
        rows[f"VAE, Conv, d = {latent_dim}, KL weight 1/4"] = convolutional(
            k=1, epochs=epochs, seed=seed, latent_dim=latent_dim, kl_weight=0.25
        )
    return rows


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist, labels = Mnist(), Results("few_labels")
    for seed in range(parsed.seeds):
        for model in settings(parsed.epochs, seed).values():
            mnist.measure(model, ("errors", "weights", "accuracies", "clusters"))
            labels.get(model, lambda m=model: of_codes(mnist, m))


if __name__ == "__main__":
    main()
