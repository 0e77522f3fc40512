"""Rows a second through a fitted model, beside its matrix products alone."""

import statistics
import time

import torch
from floor import HIDDEN, layers

from skmvae import MVAETransformer

K, LATENT_DIM = 4, 20


def measure(X, quick, device):
    """Medians; ``products`` are those of the blocks that the same rows take."""
    mvae = MVAETransformer(
        k=K, latent_dim=LATENT_DIM, likelihood="bernoulli", max_iter=1, device=device
    ).fit(X[:1000])
    results = []
    print(f"\n{'':12}{'rows':>8}{'rows a second':>15}{'products alone':>16}{'share':>8}")
    for name in ("transform", "reconstruct"):
        method = getattr(mvae, name)
        n_layers = 3 if name == "transform" else 6
        for n_rows in (1, 1000) if quick else (1, 1000, len(X)):
            n_times = 500 if n_rows == 1 else 20 if n_rows == 1000 else 5
            rows = X[:n_rows]
            products = _products(n_rows, X.shape[1], n_layers, device)
            ours, floor = [], []
            for _ in range(n_times):
                ours.append(_seconds(lambda rows=rows, method=method: method(rows)))
                floor.append(_seconds(products))
            ours, floor = n_rows / statistics.median(ours), n_rows / statistics.median(floor)
            results.append(
                {"method": name, "rows": n_rows, "rows a second": ours, "products alone": floor}
            )
            print(f"{name:12}{n_rows:8d}{ours:15.0f}{floor:16.0f}{ours / floor:8.2f}", flush=True)
    return results


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _products(n_rows, n_features, n_layers, device, block_rows=1024):
    """The float32 products of the first layers, in blocks that suit products, as a function."""
    block_rows = min(n_rows, block_rows)
    operands = [
        (
            torch.randn(K, block_rows, n_in, device=device),
            torch.randn(K, n_in, n_out, device=device),
        )
        for n_in, n_out in layers(n_features, LATENT_DIM)[:n_layers]
    ]
    assert operands[0][1].shape[-1] == HIDDEN

    def multiply():
        for _ in range(0, n_rows, block_rows):
            for h, w in operands:
                torch.bmm(h, w)
        if device != "cpu":
            torch.cuda.synchronize()

    return multiply
