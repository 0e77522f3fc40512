"""How fast is ``MVAETransformer``, beside other versions and beside the limits of the machine?

    python benchmarks/speed.py                        # everything, about six minutes
    python benchmarks/speed.py --quick                # one case of each, under two minutes
    python benchmarks/speed.py --only steps --mnist   # training steps, on MNIST itself

Measures the paper's MNIST network (784-500-500-20, Bernoulli, "melbo") on random images or, with
``--mnist``, on the real ones. Parts:

steps
    Median milliseconds a step of four versions, which take turns in one process: the obvious
    PyTorch version (``obvious.py``); pythae's VAE under its own trainer, which trains one component
    (skipped if pythae is not installed); ours in each precision; and the floor, the matrix products
    of a step in isolation plus one pass of Adam.
phases
    Where the time of a step goes (CPU only).
inference
    Rows a second through ``transform`` and ``reconstruct``, beside their matrix products alone.
memory
    Peak memory beyond the output, for memory-mapped X of two lengths.
growth
    How the cost of a step grows with K and d, and the cost of an epoch with n.
digits
    A whole fit on scikit-learn's digits, beside the sum of the floors of its steps.
"""

import importlib.util

import growth
import inference
import memory
import numpy as np
import steps
import torch
from machine import make_parser, print_machine, save

from skmvae.datasets import fetch_mnist

N_ROWS, N_FEATURES, LATENT_DIM = 60_000, 784, 20
PARTS = ("steps", "phases", "inference", "memory", "growth", "digits")


def run_steps(X, arguments):
    # Pixels that are hardly ever lit slow down the other versions' Adam after hundreds of steps.
    n_before = 2 * N_ROWS // 128 if arguments.mnist else 0
    cases = [(4, 128)] if arguments.quick else [(k, b) for k in (1, 4, 10) for b in (128, 256)]
    if arguments.k:
        cases = [(k, b) for k, b in cases if k == arguments.k]
    results = []
    for k, batch_size in cases:
        result = steps.compare(
            X,
            k=k,
            latent_dim=LATENT_DIM,
            batch_size=batch_size,
            n_steps=arguments.steps,
            n_before=n_before,
            device=arguments.device,
            with_pythae=importlib.util.find_spec("pythae") is not None,
        )
        results.append(result)
        steps.print_table([result])
    return results


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one case of each part")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--mnist", action="store_true", help="train on MNIST, after two epochs")
    parser.add_argument("--k", type=int, help="steps: only with this many components")
    parser.add_argument("--steps", type=int, default=60, help="steps counted, at least 30")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--save", action="store_true", help="keep the figures in results/")
    arguments = parser.parse_args()
    if arguments.mnist:
        X = fetch_mnist().X_train
    else:
        X = np.random.default_rng(0).random((N_ROWS, N_FEATURES), dtype=np.float32)
    parts = {
        "steps": lambda: run_steps(X, arguments),
        "phases": lambda: steps.phases(X, latent_dim=LATENT_DIM, n_steps=arguments.steps),
        "inference": lambda: inference.measure(X, arguments.quick, arguments.device),
        "memory": lambda: memory.measure(arguments.quick, arguments.device),
        "growth": lambda: growth.measure(X, arguments.quick, arguments.device),
        "digits": lambda: growth.digits(arguments.device),
    }
    result = {"machine": print_machine()}
    every = PARTS if arguments.device == "cpu" else [part for part in PARTS if part != "phases"]
    for name in [arguments.only] if arguments.only else every:
        result[name] = parts[name]()
    if arguments.save:
        save("speed_mnist" if arguments.mnist else "speed_random", result, arguments.device)


if __name__ == "__main__":
    main()
