"""
Saving and loading
==================

A fitted estimator holds NumPy arrays and plain values. joblib is quick but runs code on loading, so
load only files that you trust. Loading a skops file or a model file of this package runs no code.
"""

import json
import tempfile
import time
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import skops.io
from matplotlib import pyplot as plt
from safetensors import safe_open
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import skmvae
from skmvae import MVAETransformer

X, y = load_digits(return_X_y=True)
mvae = MVAETransformer(k=2, latent_dim=8, max_iter=10, random_state=0)
pipe = make_pipeline(mvae, LinearSVC(random_state=0)).fit(X, y)
folder = Path(tempfile.mkdtemp())

# %%
# joblib
# ------

joblib.dump(pipe, folder / "model.joblib")
again = joblib.load(folder / "model.joblib")
print(np.array_equal(again.predict(X), pipe.predict(X)))

# %%
# skops
# -----
# ``SKOPS_TRUSTED`` names the types of this package. skops refuses a file with any other types.

skops.io.dump(pipe, folder / "model.skops")
again = skops.io.load(folder / "model.skops", trusted=skmvae.SKOPS_TRUSTED)
print(np.array_equal(again[0].transform(X), pipe[0].transform(X)))

# %%
# A model file
# ------------
# ``save`` writes the mixture alone as safetensors, which any language can read: arrays by name, and
# everything else as JSON.

mvae = pipe[0]
mvae.save(folder / "model.safetensors")
again = skmvae.load(folder / "model.safetensors")
print(np.array_equal(again.transform(X), mvae.transform(X)))

with safe_open(folder / "model.safetensors", framework="numpy") as file:
    print(json.loads(file.metadata()["parameters"]))
    print(sorted(file.keys())[:3])

# %%
# Each file is about as large as the network parameters, and loads in milliseconds.

loads = {
    "model.joblib": joblib.load,
    "model.skops": partial(skops.io.load, trusted=skmvae.SKOPS_TRUSTED),
    "model.safetensors": skmvae.load,
}
figure, (left, right) = plt.subplots(1, 2, figsize=(6, 4), sharey=True, layout="constrained")
for name, load in loads.items():
    size = (folder / name).stat().st_size / 2**20
    start = time.perf_counter()
    for _ in range(20):
        load(folder / name)
    milliseconds = 1000 * (time.perf_counter() - start) / 20
    print(f"{name:18} {size:6.2f} MiB, loaded in {milliseconds:5.1f} ms")
    for ax, value in ((left, size), (right, milliseconds)):
        ax.bar_label(ax.barh(name.removeprefix("model"), value), fmt="%.2g", padding=-28)
left.set(xlabel="MiB", title="size")
right.set(xlabel="milliseconds", title="time to load")
plt.show()
