"""CIFAR-10 in four epochs (Table III has forty), by learning rate and by model.

    python benchmarks/paper/short_cifar.py --epochs 4 --seeds 1

Data, networks and RMSE are as in table_3.py. Seconds are CPU time on one thread.
"""

import time

import torch
from common import PLAIN_ADAM, Results, arguments
from table_3 import CHANNELS, LATENT_DIM, N_TRAIN, STRIDES, K, data_name, untrained

from skmvae.datasets import fetch_cifar10
from skmvae.metrics import effective_components, reconstruction_error

PLAIN = {"schedule": "constant", "learning_rate": PLAIN_ADAM["learning_rate"]}
TRAPEZOID = {"schedule": "trapezoid", "learning_rate": 2e-3}
MELBO = {"k": K, "latent_dim": LATENT_DIM, "objective": "melbo", "kl_weight": 1.0}
VAE = {**MELBO, "k": 1, "latent_dim": K * LATENT_DIM, "kl_weight": 0.25}
MODELS = {
    "M-VAE, melbo, constant learning rate of 0.001": {**MELBO, **PLAIN},
    "M-VAE, melbo, 0.003": {**MELBO, **TRAPEZOID, "learning_rate": 3e-3},
    "M-VAE, melbo": {**MELBO, **TRAPEZOID},
    "VAE, d = 1024, KL weight 0.25": {**VAE, **TRAPEZOID},
    "M-VAE, mixture, KL weight 0.25": {
        **MELBO,
        **TRAPEZOID,
        "objective": "mixture",
        "kl_weight": 0.25,
    },
}


def settings(epochs, seed):
    """Every model, by the name of its row."""
    common = {"data": data_name(), "epochs": epochs, "seed": seed}
    return {name: {**common, **model} for name, model in MODELS.items()}


def main():
    parsed = arguments(__doc__, epochs=4)
    torch.set_num_threads(1)
    cifar = fetch_cifar10()
    results = Results("short_cifar")
    for seed in range(parsed.seeds):
        for model in settings(parsed.epochs, seed).values():
            results.get(model, lambda m=model: evaluate(m, cifar))


def evaluate(model, cifar):
    mvae = untrained(
        {**model, "channels": CHANNELS, "strides": STRIDES},
        learning_rate_schedule=model["schedule"],
        learning_rate=model["learning_rate"],
    )
    start = time.process_time()
    mvae.fit(cifar.X_train[:N_TRAIN])
    seconds = time.process_time() - start
    reconstruction = mvae.reconstruct(cifar.X_test).clip(0.0, 1.0)
    return {
        "RMSE": reconstruction_error(cifar.X_test, reconstruction, kind="root_sum"),
        "effective components": effective_components(mvae.weights_),
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
