"""Do components find parts that are known? Rows on three curved sheets in 50 dimensions.

    python benchmarks/paper/manifolds.py --epochs 80 --seeds 3

Every seed draws new sheets: two coordinates, bent by their squares and a sine, rotated into 50
columns, with noise. Measures on held-out rows: the bound of the log likelihood, the squared error,
and how well the heaviest component of a row tells its sheet (adjusted Rand index, beside k-means).
"""

import numpy as np
from common import Results, arguments, make_model
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from skmvae.architectures import MLP
from skmvae.metrics import effective_components, reconstruction_error

N_SHEETS, N_FEATURES, N_ROWS, NOISE = 3, 50, 3_000, 0.1
APART = {"apart": 3.0, "crossing": 1.0}


def settings(epochs, seed, sheets):
    """Every model, by the name of its row: single VAEs, and mixtures with as many codes."""
    rows = {f"VAE, d = {d}": {"k": 1, "latent_dim": d, "objective": "melbo"} for d in (2, 6, 16)}
    for k in (N_SHEETS, 8):
        for objective in ("melbo", "elbo", "mixture", "clusters"):
            model = {"k": k, "latent_dim": 2, "objective": objective}
            rows[f"M-VAE, K = {k}, {objective}"] = model
    common = {"sheets": sheets, "epochs": epochs, "seed": seed}
    return {name: {**common, **row} for name, row in rows.items()} | {
        "k-means": {**common, "k": N_SHEETS, "objective": "k-means"}
    }


def main():
    parsed = arguments(__doc__, epochs=80)
    results = Results("manifolds")
    for seed in range(parsed.seeds):
        for sheets in APART:
            for model in settings(parsed.epochs, seed, sheets).values():
                results.get(model, lambda m=model: evaluate(m))


def draw_sheets(sheets, seed):
    """Rows (n, 50) and their sheets (n,); the first half is for training."""
    rng = np.random.default_rng(100 + seed)
    sheet = rng.integers(N_SHEETS, size=N_ROWS)
    u, v = rng.uniform(-1, 1, size=(2, N_ROWS))
    bent = np.stack([u, v, u**2, v**2, np.sin(2 * u * v)], axis=1)
    turns = 4 * rng.normal(size=(N_SHEETS, bent.shape[1], N_FEATURES)) / np.sqrt(bent.shape[1])
    centres = 0.5 * APART[sheets] * rng.normal(size=(N_SHEETS, N_FEATURES))
    X = np.einsum("nb,nbf->nf", bent, turns[sheet]) + centres[sheet]
    return X + NOISE * rng.normal(size=X.shape), sheet


def evaluate(model):
    X, sheet = draw_sheets(model["sheets"], model["seed"])
    train, test = X[: N_ROWS // 2], X[N_ROWS // 2 :]
    sheet = sheet[N_ROWS // 2 :]
    if model["objective"] == "k-means":
        found = KMeans(model["k"], n_init=5, random_state=model["seed"]).fit(train).predict(test)
        return {"ARI": adjusted_rand_score(sheet, found)}
    mvae = make_model(model, architecture=MLP((64, 64))).fit(train)
    bounds = mvae.score_samples(test)
    return {
        "bound": float(bounds.mean()),
        "median bound": float(np.median(bounds)),
        "MSE": reconstruction_error(test, mvae.reconstruct(test)),
        "ARI": adjusted_rand_score(sheet, mvae.predict(test)),
        "effective components": effective_components(mvae.weights_),
    }


if __name__ == "__main__":
    main()
