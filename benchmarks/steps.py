"""Training steps of ``MVAETransformer`` beside other ways to train, and beside their floor."""

import math
import statistics

from contenders import Obvious, Ours, Pythae
from floor import DeviceFloor, Floor, flops

WARM_UP, TURN = 2, 10  # steps

OURS = {"skmvae float32": "float32", "skmvae bfloat16": "bfloat16"}


def in_turns(runs, n_steps):
    """Median milliseconds a step; the contenders take turns of ten steps after two to warm up."""
    times = {name: [] for name in runs}
    for _ in range(math.ceil(n_steps / TURN)):
        for name, run in runs.items():
            times[name] += run(WARM_UP + TURN)[WARM_UP:]
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def compare(X, *, k, latent_dim, batch_size, n_steps, n_before, device, with_pythae):
    """Milliseconds a step of each contender, after ``n_before`` steps that are not counted."""
    common = {"k": k, "latent_dim": latent_dim, "batch_size": batch_size}
    contenders = {"obvious": Obvious(X, device=device, **common)}
    if with_pythae:
        contenders["pythae"] = Pythae(
            X, latent_dim=latent_dim, batch_size=batch_size, device=device
        )
    for name, precision in OURS.items():
        contenders[name] = Ours(X, precision=precision, device=device, **common)
    for contender in contenders.values():
        for _ in range(n_before // TURN):
            contender.run(TURN)
    floor = Floor if device == "cpu" else DeviceFloor
    for precision in OURS.values():
        contenders[f"floor {precision}"] = floor(
            n_features=X.shape[1], precision=precision, **common
        )
    milliseconds = in_turns({name: c.run for name, c in contenders.items()}, n_steps)
    n_batches = math.ceil(len(X) / batch_size)
    n_flops = flops(n_features=X.shape[1], **common)
    return {
        **common,
        "steps": TURN * math.ceil(n_steps / TURN),
        "milliseconds": milliseconds,
        "seconds an epoch": {name: 1e-3 * n_batches * ms for name, ms in milliseconds.items()},
        "GFLOP/s": {name: 1e-6 * n_flops / milliseconds[name] for name in OURS},
    }


def phases(X, *, latent_dim, n_steps, k=4, batch_size=128):
    """Milliseconds of the parts of a step.

    ``calls`` is a whole step of a tiny network: the time that Python and torch take to call the
    operations. ``rest`` is the remainder: passes over activations, and products and Adam that find
    less in the caches than they do in isolation.
    """
    common = {"k": k, "latent_dim": latent_dim, "batch_size": batch_size}
    results = {}
    for name, precision in OURS.items():
        whole = Ours(X, precision=precision, device="cpu", **common)
        calls = Ours(X[:, :8].copy(), precision=precision, device="cpu", hidden=8, **common)
        floor = Floor(n_features=X.shape[1], precision=precision, **common)
        parts = {
            "step": whole.run,
            "products": floor.products,
            "Adam": floor.adam,
            "calls": calls.run,
        }
        ms = in_turns(parts, n_steps)
        ms["rest"] = ms["step"] - ms["products"] - ms["Adam"] - ms["calls"]
        results[name] = ms
        print(f"{name:18}" + "".join(f"  {part} {value:.2f}" for part, value in ms.items()))
    return results


def print_table(cases):
    """One line per case and contender; speed-ups over the other versions, and over the floor."""
    print(
        f"\n{'K':>3}{'batch':>7}{'':4}{'':18}{'ms a step':>10}{'s an epoch':>12}{'GFLOP/s':>9}"
        f"{'x obvious':>11}{'x pythae':>10}{'of floor':>10}"
    )
    for case in cases:
        ms = case["milliseconds"]
        for name, value in ms.items():
            line = f"{case['k']:3d}{case['batch_size']:7d}{'':4}{name:18}{value:10.2f}"
            line += f"{case['seconds an epoch'][name]:12.2f}"
            if name in OURS:
                line += f"{case['GFLOP/s'][name]:9.0f}{ms['obvious'] / value:11.2f}"
                pythae = f"{case['k'] * ms['pythae'] / value:.2f}" if "pythae" in ms else ""
                line += f"{pythae:>10}{value / ms['floor ' + OURS[name]]:10.2f}"
            print(line, flush=True)
