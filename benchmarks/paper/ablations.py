"""What do objective, KL weight and beta do? K = 4 on MNIST, beside single VAEs.

python benchmarks/paper/ablations.py --epochs 10 --seeds 3
"""

from mnist import measure_all, mixture, single_vaes

OBJECTIVES = ("melbo", "averaged", "elbo")
KL_WEIGHTS = (1.0, 0.25, 0.1)
BETAS = (0.0, 1.0, 100.0, 1_000.0, 10_000.0)


def settings(epochs, seed):
    """Every model, by the name of its row."""
    rows = {
        f"{objective}, KL weight {kl_weight:g}": mixture(
            epochs=epochs, seed=seed, objective=objective, kl_weight=kl_weight
        )
        for objective in OBJECTIVES
        for kl_weight in KL_WEIGHTS
    }
    rows |= {f"beta = {beta:g}": mixture(epochs=epochs, seed=seed, beta=beta) for beta in BETAS}
    return rows | single_vaes(k=4, epochs=epochs, seed=seed)


if __name__ == "__main__":
    measure_all(__doc__, settings, ("errors", "weights", "accuracies", "clusters"))
