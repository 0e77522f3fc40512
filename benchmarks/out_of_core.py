"""Which ways of training work on rows that do not fit into memory?

    python benchmarks/out_of_core.py

Writes grey values as float32, five times the memory limit, to a NumPy file, a Zarr array and
Parquet. Each way of training goes once over all rows, in a process of its own with a limit on its
private memory (``RLIMIT_DATA``: it includes Python and torch, not the pages of a mapped file), and
reports its peak (``RssAnon``). Needs Linux, zarr, dask and pyarrow.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import make_parser, print_machine, save
from memory import Peak, anonymous_bytes

from skmvae import MVAETransformer
from skmvae.architectures import MLP

N_FEATURES, CHUNK, RATIO = 4096, 1_250, 5


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--limit", type=int, default=1000, help="megabytes per process")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    record = {"machine": print_machine()}
    n_chunks = round(RATIO * parsed.limit * 1e6 / (4 * N_FEATURES * CHUNK))
    megabytes = 4e-6 * N_FEATURES * CHUNK * n_chunks
    record |= {"rows": CHUNK * n_chunks, "megabytes": megabytes, "limit": parsed.limit}
    print(f"\n{megabytes:.0f} MB of rows, {parsed.limit} MB for a process\n")
    print(f"{'':24}{'':14}{'peak, MB':>10}{'seconds':>10}")
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder), n_chunks)
        for way in parsed.ways:
            command = [sys.executable, __file__, "--child", way, folder, str(parsed.limit)]
            # Arrow's own allocator reserves more than it uses, and the limit counts reserves.
            system = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
            run = subprocess.run(command, capture_output=True, text=True, env=system)
            if run.returncode:
                raise RuntimeError(run.stderr)
            found = record[way] = json.loads(run.stdout)
            numbers = f"{found['peak, MB']:10.0f}{found['seconds']:10.0f}"
            print(f"{way:24}{found['outcome']:14}{numbers}", flush=True)
    save("out_of_core", record)


def write_rows(folder, n_chunks):
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zarr

    shape = (n_chunks * CHUNK, N_FEATURES)
    mapped = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, shape)
    kept = zarr.create_array(
        folder / "rows.zarr",
        shape=shape,
        chunks=(CHUNK, N_FEATURES),
        dtype="float32",
        compressors=None,
    )
    schema = pa.schema([("row", pa.list_(pa.float32(), N_FEATURES))])
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(folder / "rows.parquet", schema, compression="none") as parquet:
        for start in range(0, len(mapped), CHUNK):
            grey = rng.integers(256, size=(CHUNK, N_FEATURES), dtype=np.uint8)
            rows = grey / np.float32(255)
            mapped[start : start + CHUNK] = kept[start : start + CHUNK] = rows
            column = pa.FixedSizeListArray.from_arrays(rows.ravel(), N_FEATURES)
            parquet.write_table(pa.table([column], schema=schema))
    mapped.flush()


def fit_mapped(mvae, folder):
    mvae.fit(np.load(folder / "rows.npy", mmap_mode="r"))


def fit_zarr(mvae, folder):
    import zarr

    mvae.fit(zarr.open_array(folder / "rows.zarr", mode="r"))


def fit_dask(mvae, folder):
    import dask.array

    mvae.fit(dask.array.from_zarr(folder / "rows.zarr"))


def fit_parquet(mvae, folder):
    import pandas as pd

    mvae.fit(np.stack(pd.read_parquet(folder / "rows.parquet")["row"]))


def chunks_of_zarr(mvae, folder):
    import zarr

    rows = zarr.open_array(folder / "rows.zarr", mode="r")
    for start in range(0, rows.shape[0], rows.chunks[0]):
        mvae.partial_fit(rows[start : start + rows.chunks[0]])


def blocks_of_dask(mvae, folder):
    import dask.array

    for block in dask.array.from_zarr(folder / "rows.zarr").blocks:
        mvae.partial_fit(block.compute(scheduler="synchronous"))


def batches_of_parquet(mvae, folder):
    import pyarrow.parquet as pq

    file = pq.ParquetFile(folder / "rows.parquet")
    for i in range(file.num_row_groups):
        rows = file.read_row_group(i, use_threads=False)["row"].combine_chunks()
        mvae.partial_fit(rows.flatten().to_numpy().reshape(-1, N_FEATURES))


WAYS = {
    "fit, memory map": fit_mapped,
    "fit, Zarr": fit_zarr,
    "fit, Dask array": fit_dask,
    "fit, Parquet": fit_parquet,
    "partial_fit, Zarr": chunks_of_zarr,
    "partial_fit, Dask array": blocks_of_dask,
    "partial_fit, Parquet": batches_of_parquet,
}


def child(way, folder, limit):
    """Train in this process, within the limit, and print the outcome."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit) * 10**6,) * 2)
    mvae = MVAETransformer(
        architecture=MLP((32,)), max_iter=1, batch_size=128, device="cpu", random_state=0
    )
    at_start, start, outcome = anonymous_bytes(), time.perf_counter(), "fitted"
    with Peak() as peak:
        try:
            WAYS[way](mvae, Path(folder))
        except MemoryError:
            outcome = "MemoryError"
    found = {
        "outcome": outcome,
        "peak, MB": 1e-6 * (at_start + peak.bytes),
        "seconds": time.perf_counter() - start,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
