"""What each part does: the objective, the KL weight, and beta, at K = 4 on MNIST; single VAEs.

python benchmarks/paper/ablations.py --epochs 10 --seeds 3
"""

from common import arguments
from mnist import Mnist, mixture, single_vaes

OBJECTIVES = ("melbo", "averaged", "elbo")
KL_WEIGHTS = (1.0, 0.25, 0.1)
BETAS = (0.0, 1.0, 100.0, 1_000.0, 10_000.0)


def settings(epochs, seed):
    """Every model of the page, by name."""
    rows = {
        f"{objective}, KL weight {kl_weight:g}": mixture(
            epochs=epochs, seed=seed, objective=objective, kl_weight=kl_weight
        )
        for objective in OBJECTIVES
        for kl_weight in KL_WEIGHTS
    }
    rows |= {f"beta = {beta:g}": mixture(epochs=epochs, seed=seed, beta=beta) for beta in BETAS}
    return rows | single_vaes(k=4, epochs=epochs, seed=seed)


def main():
    parsed = arguments(__doc__, epochs=10)
    mnist = Mnist()
    for seed in range(parsed.seeds):
        for model in settings(parsed.epochs, seed).values():
            mnist.measure(model, ("errors", "weights", "accuracies", "clusters"))


if __name__ == "__main__":
    main()
