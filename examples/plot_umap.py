"""
Codes beside UMAP
=================

UMAP and codes that know their neighbours (``neighbor_weight``) start from the same thing, a graph
of nearest neighbours. UMAP places the rows themselves; here encoders are trained, so new rows take
one product of matrices, codes of any length are decoded back to rows, and rows have a likelihood.
It needs ``pip install umap-learn``.
"""

import time

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from umap import UMAP

from skmvae import MVAETransformer

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

models = {
    "M-VAE, without": MVAETransformer(neighbor_weight=0, random_state=0),
    "M-VAE, neighbours": MVAETransformer(neighbor_weight=1 / 4, random_state=0),
    "UMAP, 10": UMAP(n_components=10, random_state=0, n_jobs=1),
}

# %%
# Accuracy on test rows: a linear SVM and nearest neighbours that have all labels, and a linear SVM
# that has five of each digit. Seconds are those of the fit and of transforming one row; the first
# transform compiles, so it is not counted.


def of_codes(train, test):
    few = np.concatenate([np.flatnonzero(y_train == digit)[:5] for digit in range(10)])
    svm = make_pipeline(StandardScaler(), LinearSVC(C=0.1, random_state=0))
    return (
        svm.fit(train, y_train).score(test, y_test),
        KNeighborsClassifier().fit(train, y_train).score(test, y_test),
        svm.fit(train[few], y_train[few]).score(test, y_test),
    )


codes = {}
print(f"{'':20}{'SVM':>8}{'KNN':>8}{'few':>8}{'fit, s':>10}{'one row, s':>12}")
for name, model in models.items():
    start = time.perf_counter()
    train = model.fit_transform(X_train)
    fit_seconds = time.perf_counter() - start
    codes[name] = model.transform(X_test)
    start = time.perf_counter()
    model.transform(X_test[:1])
    seconds = time.perf_counter() - start
    accuracies = "".join(f"{value:8.3f}" for value in of_codes(train, codes[name]))
    print(f"{name:20}{accuracies}{fit_seconds:10.1f}{seconds:12.4f}")

# %%
# t-SNE shows all three, and the pixels, in two dimensions, coloured by digit.

codes["pixels"] = X_test
figure, axes = plt.subplots(2, 2, figsize=(7, 5), layout="constrained")
for ax, (name, Z) in zip(axes.flat, codes.items(), strict=True):
    ax.scatter(*TSNE(random_state=0).fit_transform(Z).T, c=y_test, cmap="tab10", s=5)
    ax.set(title=name, xticks=[], yticks=[])
plt.show()
