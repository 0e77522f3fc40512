"""
Convolutions for images
=======================

``Conv`` makes each component a convolutional network, and ``MLP``, the default, a fully connected
one. Both learn from 8 x 8 digits here. X stays a table with one image a row, and ``Conv`` is told
the shape of the images: channels, height and width. It has five layers by default; three suit
images as small as these. Convolutions take longer than ``MLP``, and gain little on such images.
"""

import time

import numpy as np
from matplotlib import pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae.architectures import MLP, Conv

X, y = load_digits(return_X_y=True)
X /= 16
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)
architectures = {"MLP": MLP(), "Conv": Conv((1, 8, 8), channels=(16, 32, 64), strides=(2, 1, 2))}
mvae = MVAETransformer(latent_dim=10, likelihood="bernoulli", max_iter=30, random_state=0)

# %%
# Codes for a classifier
# ----------------------
# Both are fitted to all training rows, without neighbours and with them (``neighbor_weight``). Then
# a linear classifier sees a few of the labels, drawn ten times, or almost all.

models, features = {}, {}
for name, architecture in architectures.items():
    for suffix, weight in {"": 0, ", neighbours": 1 / 4}.items():
        start = time.perf_counter()
        model = clone(mvae).set_params(architecture=architecture, neighbor_weight=weight)
        codes = model.fit_transform(X_train)
        print(f"{name + suffix:17} fitted in {time.perf_counter() - start:.1f} s")
        models[name + suffix] = model
        features[name + suffix] = codes, model.transform(X_test)

n_labels = [20, 50, 100, 200, 500, 1250]
accuracies = {name: np.empty((len(n_labels), 10)) for name in features}
for i, n in enumerate(n_labels):
    for draw in range(10):
        rows, _ = train_test_split(
            np.arange(len(y_train)), train_size=n, stratify=y_train, random_state=draw
        )
        for name, (train, test) in features.items():
            svm = make_pipeline(StandardScaler(), LinearSVC(C=0.01, random_state=0))
            accuracies[name][i, draw] = svm.fit(train[rows], y_train[rows]).score(test, y_test)

print(f"{'labels':17}" + "".join(f"{n:8}" for n in n_labels))
for name, values in accuracies.items():
    print(f"{name:17}" + "".join(f"{v:8.3f}" for v in values.mean(axis=1)))

# %%
# Neighbours do more for few labels than the architecture does. With them the two are about level.

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name, values in accuracies.items():
    color, style = "C1" if "Conv" in name else "C0", "-" if "neighbours" in name else "--"
    ax.plot(n_labels, values.mean(axis=1), style, color=color, marker="o", label=name)
ax.set(xscale="log", xlabel="labelled rows", ylabel="accuracy", title="linear SVM on the codes")
ax.set_xticks(n_labels, [str(n) for n in n_labels])
ax.minorticks_off()
ax.legend()
plt.show()

# %%
# Holes
# -----
# Every image, of training and test rows, loses a block of 4 x 4 pixels at a random place. The
# likelihood and the objective were chosen on held-out training rows. The error is the root mean
# square over the removed pixels, which are between 0 and 1.

place, rng = np.arange(8), np.random.default_rng(0)
first = rng.integers(5, size=(2, len(X), 1))
in_rows, in_columns = (place >= first) & (place < first + 4)
hole = (in_rows[:, :, None] & in_columns[:, None, :]).reshape(X.shape)
train, test = np.split(np.where(hole, np.nan, np.vstack([X_train, X_test])), [len(X_train)])
hole = hole[len(X_train) :]

imputers = {"mean": SimpleImputer(), "KNNImputer": KNNImputer(n_neighbors=10)}
filled = {name: imputer.fit(train).transform(test) for name, imputer in imputers.items()}
gaussian = clone(mvae).set_params(likelihood="gaussian", objective="elbo")
for name, architecture in architectures.items():
    filled[name] = clone(gaussian).set_params(architecture=architecture).fit(train).impute(test)
for name, images in filled.items():
    print(f"{name:11} error {np.sqrt(np.mean(np.square(images - X_test)[hole])):.3f}")

# %%

shown = [np.flatnonzero(y_test == digit)[0] for digit in range(10)]


def show(lines):
    size = 6.5, 0.65 * len(lines)
    _, axes = plt.subplots(len(lines), 10, figsize=size, layout="constrained")
    for line, (name, images) in zip(axes, lines.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for ax, image in zip(line, images[shown], strict=True):
            ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[], facecolor="C1")
    plt.show()


show({"digit": X_test, "given": test, "MLP": filled["MLP"], "Conv": filled["Conv"]})

# %%
# Reconstructions
# ---------------
# These are of the whole images, by the models without neighbours.

images = {"digit": X_test}
for name in architectures:
    images[name] = models[name].reconstruct(X_test)
    error = np.sqrt(np.mean(np.square(images[name] - X_test)))
    print(f"{name:4} error {error:.3f}")
show(images)
