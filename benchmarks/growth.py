"""How cost grows with K, d and n, and a whole small fit beside the floor of its steps."""

import math
import statistics

from contenders import Ours, default_precision
from floor import DeviceFloor, Floor
from machine import seconds_of
from sklearn.datasets import load_digits
from steps import in_turns

from skmvae import MVAETransformer
from skmvae._model.objective import OBJECTIVES
from skmvae.architectures import MLP

WARM_UP, STEPS = 5, 30


def measure(X, quick, device):
    """Milliseconds a step by K, d and objective, and seconds an epoch by n, in "auto" precision."""
    precision = default_precision(device)
    results = {"precision": precision, "K": {}, "d": {}, "n": {}}
    results["objective"] = _objectives(X, device, precision)
    for k in (1, 4) if quick else (1, 2, 4, 8, 16):
        results["K"][k] = _step(X, device, precision, k=k, latent_dim=20)
    for d in (20,) if quick else (2, 20, 80, 200):
        results["d"][d] = _step(X, device, precision, k=4, latent_dim=d)
    for n in (2_500, 5_000) if quick else (7_500, 15_000, 30_000, 60_000):
        mvae = MVAETransformer(likelihood="bernoulli", max_iter=1, device=device).fit(X[:n])
        results["n"][n] = mvae.history_["seconds"][0]
    print(f"\ngrowth in {precision}; else K = 4, d = 20, batch 128")
    for name in ("K", "d", "objective", "n"):
        unit = "s an epoch" if name == "n" else "ms a step"
        line = "".join(f"{key:>9}: {value:6.2f}" for key, value in results[name].items())
        print(f"{name}, {unit:12}{line}", flush=True)
    return results


def digits(device):
    """Seconds of a fit of the paper's network over the sum of the floors of its steps."""
    X, _ = load_digits(return_X_y=True)
    precision = default_precision(device)
    mvae = MVAETransformer(
        architecture=MLP((500, 500)),
        max_iter=100,
        batch_size=128,
        random_state=0,
        device=device,
    )
    kind = Floor if device == "cpu" else DeviceFloor
    floor = kind(n_features=64, latent_dim=20, k=4, batch_size=128, precision=precision)
    floor.run(20)
    fits, floors = [], []
    for _ in range(3):
        fits += seconds_of(lambda: mvae.fit(X))
        floors += floor.run(100)
    n_steps = mvae.n_iter_ * math.ceil(len(X) / mvae.batch_size)
    result = {
        "precision": precision,
        "steps": n_steps,
        "fit, seconds": statistics.median(fits),
        "floors, seconds": n_steps * statistics.median(floors),
    }
    result["ratio"] = result["fit, seconds"] / result["floors, seconds"]
    print(
        f"\ndefault fit on digits, {precision}: {result['fit, seconds']:.1f} s for {n_steps} "
        f"steps, {result['ratio']:.2f} times the sum of their floors"
    )
    return result


def _objectives(X, device, precision):
    """In turns, since the objectives differ by little."""
    common = {"k": 4, "latent_dim": 20, "batch_size": 128, "device": device}
    runs = {
        objective: Ours(X, precision=precision, objective=objective, **common).run
        for objective in OBJECTIVES
    }
    for run in runs.values():
        run(WARM_UP)
    return in_turns(runs, 60)


def _step(X, device, precision, *, k, latent_dim):
    ours = Ours(X, k=k, latent_dim=latent_dim, batch_size=128, precision=precision, device=device)
    ours.run(WARM_UP)
    return 1e3 * statistics.median(ours.run(STEPS))
