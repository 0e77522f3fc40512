"""
Finding the parts of the data
=============================

Three curved sheets cross each other in 50 columns. With ``objective="clusters"`` the components
start from the separate parts that a graph of neighbours shows, and as many are used as there are
parts: ``k`` is an upper bound. ``predict`` names the part of new rows, and ``prune`` removes the
components that were not needed. k-means cuts across the sheets.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from skmvae import MVAETransformer

rng = np.random.default_rng(0)
sheet = rng.integers(3, size=3000)
u, v = rng.uniform(-1, 1, size=(2, 3000))
bent = np.stack([u, v, u**2, v**2, np.sin(2 * u * v)], axis=1)
X = np.einsum("nb,nbf->nf", bent, 2 * rng.normal(size=(3, 5, 50))[sheet])
X += 0.5 * rng.normal(size=(3, 50))[sheet] + 0.1 * rng.normal(size=X.shape)
train, test = X[:1500], X[1500:]

mvae = MVAETransformer(k=8, latent_dim=2, objective="clusters", random_state=0).fit(train)
print("weights:", mvae.weights_.round(3))
found = mvae.prune(0.02)
parts = found.predict(test)
k_means = KMeans(3, n_init=5, random_state=0).fit(train).predict(test)

# %%
# The adjusted Rand index compares partitions: 1 for the same one, about 0 for one drawn at random.

print(f"{found.k} components: {adjusted_rand_score(sheet[1500:], parts):.2f}")
print(f"k-means:      {adjusted_rand_score(sheet[1500:], k_means):.2f}")

# %%

points = PCA(2, random_state=0).fit_transform(test)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for ax, (name, labels) in zip(
    axes,
    {"the sheets": sheet[1500:], "components": parts, "k-means": k_means}.items(),
    strict=True,
):
    ax.scatter(*points.T, c=labels, cmap="tab10", vmax=9, s=4)
    ax.set(title=name, xticks=[], yticks=[])
plt.show()

# %%
# Where the graph of neighbours does not fall apart, as that of scikit-learn's digits, components
# start at random, all of them are used, and their number says nothing about the data.
