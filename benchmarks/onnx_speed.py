"""How fast is ``transform`` beside the same model in onnxruntime? On one thread.

    python benchmarks/onnx_speed.py --save

Measures two models in float32: the paper's MNIST network on random rows (784-500-500-20, Bernoulli,
K = 4), and the default model on scikit-learn's digits, repeated. Figures are medians of CPU time
over turns; a turn with one row has 50 calls. skmvae takes 10,000 rows in blocks of 1,024;
onnxruntime is measured with all rows at once, and with the same blocks.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from machine import cpu_seconds, make_parser, print_machine, save
from sklearn.datasets import load_digits

from skmvae import MVAETransformer
from skmvae.onnx import export

N_ROWS, BLOCK = 10_000, 1024
N_TURNS, N_CALLS = 12, {1: 50, N_ROWS: 1}


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--save", action="store_true", help="keep the figures in results/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {"machine": print_machine() | {"onnxruntime": onnxruntime.__version__}}
    images = np.random.default_rng(0).random((N_ROWS, 784), dtype=np.float32)
    digits = np.resize(load_digits().data.astype(np.float32), (N_ROWS, 64))
    paper = MVAETransformer(k=4, latent_dim=20, likelihood="bernoulli", max_iter=1)
    result["onnx"] = [
        *measure("784-500-500-20", paper.fit(images[:1000]), images),
        *measure("digits, default", MVAETransformer(max_iter=1).fit(digits[:1000]), digits),
    ]
    print_table(result["onnx"])
    if arguments.save:
        save("onnx", result)


def measure(name, mvae, X):
    session = session_of(mvae)
    results = []
    for n_rows, n_calls in N_CALLS.items():
        rows = X[:n_rows]
        ways = {
            "skmvae": lambda rows=rows: mvae.transform(rows),
            "onnxruntime": lambda rows=rows: run(session, rows),
            "onnxruntime, in blocks": lambda rows=rows: np.concatenate(
                [run(session, rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK)]
            ),
        }
        codes = [way() for way in ways.values()]
        seconds = {way: [] for way in ways}
        for _ in range(N_TURNS):
            for way, function in ways.items():
                seconds[way] += [cpu_seconds(function) for _ in range(n_calls)]
        results.append(
            {
                "model": name,
                "rows": n_rows,
                **{way: n_rows / statistics.median(times) for way, times in seconds.items()},
                "largest difference": float(max(np.abs(other - codes[0]).max() for other in codes)),
                "largest code": float(np.abs(codes[0]).max()),
            }
        )
    return results


def run(session, rows):
    return session.run(["codes"], {"X": rows})[0]


def session_of(mvae):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(mvae, path)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def print_table(results):
    ways = ("skmvae", "onnxruntime", "onnxruntime, in blocks")
    print(f"\n| model | rows | {' | '.join(ways)} |\n| --- | --- | --- | --- | --- |")
    for result in results:
        speeds = " | ".join(f"{result[way]:,.0f}" for way in ways)
        print(f"| {result['model']} | {result['rows']:,} | {speeds} |")


if __name__ == "__main__":
    main()
