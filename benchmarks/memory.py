"""Peak memory of inference and training on memory-mapped rows: it must not grow with their number.

Counts the private memory of the process (``RssAnon`` of Linux), not the pages of the mapped file:
the peak during a call, less the memory before it, less the output. Each call runs in a process of
its own, so that it cannot use memory that an earlier call left behind.
"""

import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import joblib
import numpy as np

from skmvae import MVAETransformer
from skmvae.architectures import MLP

N_FEATURES = 784
STATUS = Path("/proc/self/status")


class Peak:
    """Bytes of private memory at the highest point of a ``with`` block, above its start."""

    def __enter__(self):
        self._start = self._highest = anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._done.set()
        self._thread.join()
        self.bytes = self._highest - self._start

    def _watch(self):
        while not self._done.wait(0.002):
            self._highest = max(self._highest, anonymous_bytes())


def anonymous_bytes():
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", STATUS.read_text()).group(1))


def measure(quick, device):
    """Megabytes beyond the output, by method and number of rows."""
    if not STATUS.exists():
        print("\nmemory: not measured, needs Linux")
        return None
    lengths = (10_000, 50_000) if quick else (10_000, 1_000_000)
    results = []
    print(f"\n{'':14}{'rows':>10}{'output, MB':>12}{'more, MB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.joblib"
        for n_rows in lengths:
            rows = _write_rows(Path(folder) / f"{n_rows}.npy", n_rows)
            # A small network, so that a million rows take minutes, not an hour.
            mvae = MVAETransformer(
                architecture=MLP((32,)), max_iter=1, batch_size=1024, device=device
            )
            joblib.dump(mvae.fit(np.load(rows, mmap_mode="r")[:10_000]), model)
            for method in ("fit", "transform", "reconstruct"):
                command = [sys.executable, __file__, str(model), str(rows), method]
                line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                output, more = (1e-6 * int(number) for number in line.split())
                results.append({"method": method, "rows": n_rows, "megabytes": more})
                print(f"{method:14}{n_rows:10d}{output:12.0f}{more:10.0f}", flush=True)
    return results


def measure_here(model, rows, method):
    """Print the bytes of the output of one call, and the bytes at its peak beyond the output."""
    mvae, X = joblib.load(model), np.load(rows, mmap_mode="r")
    mvae.transform(X[:100])  # libraries allocate memory in the first call
    with Peak() as peak:
        output = getattr(mvae, method)(X)
    n_bytes = output.nbytes if isinstance(output, np.ndarray) else 0
    print(n_bytes, peak.bytes - n_bytes)


def _write_rows(path, n_rows):
    X = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, N_FEATURES))
    rng = np.random.default_rng(0)
    for start in range(0, n_rows, 10_000):
        X[start : start + 10_000] = rng.random((10_000, N_FEATURES), dtype=np.float32)
    X.flush()
    return path


if __name__ == "__main__":
    measure_here(*sys.argv[1:])
