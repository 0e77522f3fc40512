"""Shared by the scripts: arguments, data, models kept on disk, and results kept as JSON.

A result is computed once for its settings and then read from ``results/``, so a run that was
stopped continues where it stopped. Fitted models are kept in ``models/``, which git ignores.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import sklearn
import torch

import skmvae
from skmvae import MVAETransformer
from skmvae.datasets import fetch_mnist

# The training of the paper's figures; the defaults of the package are others.
PLAIN_ADAM = {"learning_rate": 1e-3, "learning_rate_schedule": "constant", "batch_size": 128}

HERE = Path(__file__).parent
RESULTS, MODELS = HERE / "results", HERE / "models"


def arguments(description, *, epochs):
    """``--epochs``, ``--seeds`` and ``--data``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds: 0, 1, ...")
    parser.add_argument("--data", help="folder with the data, in place of SKMVAE_DATA")
    parsed = parser.parse_args()
    if parsed.data:
        os.environ["SKMVAE_DATA"] = parsed.data
    return parsed


class Split(NamedTuple):
    X: np.ndarray
    y: np.ndarray
    X_held_out: np.ndarray
    y_held_out: np.ndarray


def split_mnist():
    """50,000 training images of MNIST to train on, and the other 10,000 to judge by."""
    mnist = fetch_mnist()
    order = np.random.default_rng(12345).permutation(60_000)
    rows, held_out = order[:50_000], order[50_000:]
    return Split(
        mnist.X_train[rows], mnist.y_train[rows], mnist.X_train[held_out], mnist.y_train[held_out]
    )


def make_model(settings, **params):
    """An estimator from a record of settings; ``params`` override plain Adam."""
    named = ("k", "latent_dim", "objective", "kl_weight", "beta")
    return MVAETransformer(
        **{name: settings[name] for name in named if name in settings},
        **PLAIN_ADAM | params,
        max_iter=settings["epochs"],
        random_state=settings["seed"],
    )


class Results:
    """A JSON file with one record per line: settings, values, versions and wall time."""

    def __init__(self, name):
        self.path = RESULTS / f"{name}.json"
        self.records = json.loads(self.path.read_text()) if self.path.exists() else []

    def get(self, settings, compute):
        """The values for ``settings``, from the file or else from ``compute()``."""
        for record in self.records:
            if record["settings"] == settings:
                return record["values"]
        start = time.perf_counter()
        values = compute()
        seconds = round(time.perf_counter() - start, 1)
        self.records.append(
            {"settings": settings, "values": values, "seconds": seconds, **_versions()}
        )
        self.path.parent.mkdir(exist_ok=True)
        partial = self.path.with_suffix(".partial")
        lines = ",\n".join(json.dumps(record) for record in self.records)
        partial.write_text(f"[\n{lines}\n]\n")
        partial.replace(self.path)
        print(f"{self.path.stem}: {settings} -> {values} ({seconds} s)", flush=True)
        return values


def fitted(settings, make, X):
    """The model that ``make()`` returns, fitted on X; read from ``models/`` if it is there."""
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = MODELS / f"{name}.joblib"
    if path.exists():
        return joblib.load(path)
    print(f"fitting {settings}", file=sys.stderr, flush=True)
    model = make().fit(X)
    path.parent.mkdir(exist_ok=True)
    joblib.dump(model, path)
    return model


def _versions():
    return {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {
            "skmvae": skmvae.__version__,
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
            "Python": platform.python_version(),
        },
    }
