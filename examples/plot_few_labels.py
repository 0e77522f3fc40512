"""
Learning from few labels
========================

The mixture sees all training rows, without labels; the linear classifier sees only a few of them,
with labels. Codes that know their neighbours (``neighbor_weight``) make up for missing labels: a
row and its neighbours have codes in the same direction, so one label speaks for many rows. The
baselines are the mixture without that term, PCA with as many columns, and the pixels themselves.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae.metrics import neighbor_purity

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

# %%
# Is it worth it? The labels of a few rows tell whether neighbours are mostly of one class. Among
# fewer rows neighbours are farther apart, so this is a low estimate.

for n in (50, 100, 200):
    purity = neighbor_purity(X_train[:n], y_train[:n], n_neighbors=3)
    print(f"{n} labelled rows: {purity:.2f} of the pairs of neighbours show the same digit")

# %%
# Neighbours as pure as these deserve a larger weight than 1/16, the usual start.

mvae = MVAETransformer(k=4, latent_dim=10, max_iter=40, neighbor_weight=0, random_state=0)
models = {
    "M-VAE, neighbours": clone(mvae).set_params(neighbor_weight=1 / 4),
    "M-VAE, without": mvae,
    "PCA, 40": PCA(40, random_state=0),
}
features = {
    name: (model.fit_transform(X_train), model.transform(X_test)) for name, model in models.items()
}
features["pixels"] = X_train, X_test

# %%
# The labelled rows are drawn ten times for each number of labels. All features use the same draws.

n_labels = [20, 50, 100, 200, 500]
accuracies = {name: np.empty((len(n_labels), 10)) for name in features}
for i, n in enumerate(n_labels):
    for draw in range(10):
        rows, _ = train_test_split(
            np.arange(len(y_train)), train_size=n, stratify=y_train, random_state=draw
        )
        for name, (train, test) in features.items():
            svm = make_pipeline(StandardScaler(), LinearSVC(C=0.01, random_state=0))
            accuracies[name][i, draw] = svm.fit(train[rows], y_train[rows]).score(test, y_test)

print(f"{'labels':20}" + "".join(f"{n:8}" for n in n_labels))
for name, values in accuracies.items():
    print(f"{name:20}" + "".join(f"{v:8.3f}" for v in values.mean(axis=1)))

# %%

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name, values in accuracies.items():
    ax.errorbar(n_labels, values.mean(1), values.std(1), marker="o", capsize=3, label=name)
ax.set(xscale="log", xlabel="labelled rows", ylabel="accuracy", title="linear SVM")
ax.set_xticks(n_labels, [str(n) for n in n_labels])
ax.minorticks_off()
ax.legend()
plt.show()

# %%
# A transductive classifier also sees the test rows: ``LabelSpreading`` passes the few labels on
# from neighbour to neighbour. It does itself what the term does, so it gains nothing from it here:
# it is as good on the pixels, and on PCA. A linear classifier on codes that know their neighbours
# is as good with few labels, and needs no graph to classify a new row.

print(f"{'label spreading':20}" + "".join(f"{n:8}" for n in n_labels))
for name, (train, test) in features.items():
    scores = np.empty((len(n_labels), 10))
    for i, n in enumerate(n_labels):
        for draw in range(10):
            rows, _ = train_test_split(
                np.arange(len(y_train)), train_size=n, stratify=y_train, random_state=draw
            )
            labels = np.full(len(y_train) + len(y_test), -1)
            labels[rows] = y_train[rows]
            model = LabelSpreading(kernel="knn", n_neighbors=8, max_iter=100)
            model.fit(np.vstack([train, test]), labels)
            scores[i, draw] = np.mean(model.transduction_[len(y_train) :] == y_test)
    print(f"{name:20}" + "".join(f"{v:8.3f}" for v in scores.mean(axis=1)))
