"""Rows a second through a fitted model, beside its matrix products alone."""

import statistics

import torch
from floor import layers
from machine import seconds_of

from skmvae import MVAETransformer

K, LATENT_DIM = 4, 20


def measure(X, quick, device):
    """Medians of turns; the products are done in blocks of as many rows as the model takes."""
    mvae = MVAETransformer(
        k=K, latent_dim=LATENT_DIM, likelihood="bernoulli", max_iter=1, device=device
    ).fit(X[:1000])
    results = []
    print(f"\n{'':24}{'rows':>8}{'rows a second':>15}{'products alone':>16}{'share':>8}")
    for name in ("transform", "reconstruct"):
        method = getattr(mvae, name)
        n_layers = 3 if name == "transform" else 6
        for n_rows in (1, 1000) if quick else (1, 1000, len(X)):
            for dtype in ("float32", "float64"):
                n_times = 500 if n_rows == 1 else 20 if n_rows == 1000 else 3
                rows = X[:n_rows].astype(dtype)
                products = _products(n_rows, X.shape[1], n_layers, device, dtype)
                ours, floor = [], []
                for _ in range(n_times):
                    ours += seconds_of(lambda rows=rows, method=method: method(rows))
                    floor += seconds_of(products)
                result = {
                    "method": name,
                    "rows": n_rows,
                    "dtype": dtype,
                    "rows a second": n_rows / statistics.median(ours),
                    "products alone": n_rows / statistics.median(floor),
                }
                results.append(result)
                _print_row(*result.values())
    return results


def _print_row(name, n_rows, dtype, ours, floor):
    print(f"{name:14}{dtype:10}{n_rows:8d}{ours:15.0f}{floor:16.0f}{ours / floor:8.2f}", flush=True)


def _products(n_rows, n_features, n_layers, device, dtype, block_rows=1024):
    """A function that does the matrix products of the first ``n_layers`` layers."""
    block_rows = min(n_rows, block_rows)
    operands = [
        (
            torch.randn(K, block_rows, n_in, device=device, dtype=getattr(torch, dtype)),
            torch.randn(K, n_in, n_out, device=device, dtype=getattr(torch, dtype)),
        )
        for n_in, n_out in layers(n_features, LATENT_DIM)[:n_layers]
    ]

    def multiply():
        for _ in range(0, n_rows, block_rows):
            for h, w in operands:
                torch.bmm(h, w)
        if device != "cpu":
            torch.cuda.synchronize()

    return multiply
