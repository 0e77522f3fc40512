"""
Finding the parts of the data
=============================

Three curved sheets cross each other in 50 columns. With ``objective="clusters"`` the components
start from the separate parts that a graph of neighbours shows, and as many are used as there are
parts: ``k`` is an upper bound. ``predict`` names the part of new rows, and ``prune`` removes the
components that were not needed. The components of the paper's objective share the sheets, and
k-means cuts across them.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from skmvae import MVAETransformer
from skmvae.plotting import LatentSpaceDisplay

rng = np.random.default_rng(0)
sheet = rng.integers(3, size=3000)
u, v = rng.uniform(-1, 1, size=(2, 3000))
bent = np.stack([u, v, u**2, v**2, np.sin(2 * u * v)], axis=1)
X = np.einsum("nb,nbf->nf", bent, 2 * rng.normal(size=(3, 5, 50))[sheet])
X += 0.5 * rng.normal(size=(3, 50))[sheet] + 0.1 * rng.normal(size=X.shape)
train, test = X[:1500], X[1500:]

mvae = MVAETransformer(k=8, latent_dim=2, objective="clusters", random_state=0).fit(train)
print("weights:", mvae.weights_.round(3))
found = mvae.prune()
partitions = {
    "the sheets": sheet[1500:],
    'components, "clusters"': found.predict(test),
    'components, "melbo"': mvae.set_params(k=3, objective="melbo").fit(train).predict(test),
    "k-means": KMeans(3, n_init=5, random_state=0).fit(train).predict(test),
}

# %%
# The adjusted Rand index compares partitions: 1 for the same one, about 0 for one drawn at random.

print(f"{found.k} components")
for name, labels in partitions.items():
    print(f"{name:24} {adjusted_rand_score(sheet[1500:], labels):.2f}")

# %%

points = PCA(2, random_state=0).fit_transform(test)
figure, axes = plt.subplots(2, 2, figsize=(7, 6.4), layout="constrained")
for ax, (name, labels) in zip(axes.flat, partitions.items(), strict=True):
    ax.scatter(*points.T, c=labels, cmap="tab10", vmax=9, s=4)
    ax.set(title=name, xticks=[], yticks=[])
plt.show()

# %%
# Each component has a code of its own for the rows of its part, and knows nothing about others:
# their codes are near 0.

LatentSpaceDisplay.from_estimator(found, test, found.predict(test))
plt.show()

# %%
# Samples are drawn from one component at a time. Do they look like rows? Their nearest rows are as
# far as those of rows; a blend of two sheets would be far from all.


def to_nearest(rows):
    distances = np.sqrt(((rows[:, None] - train[None]) ** 2).sum(axis=2))
    return np.median(distances.min(axis=1))


samples, component = found.sample(300, random_state=0, noise=True, return_component=True)
between = (samples[component == 0][:90] + samples[component == 1][:90]) / 2
print(f"new rows to rows: {to_nearest(test[:300]):.2f}")
print(f"samples to rows:  {to_nearest(samples):.2f}")
print(f"blends to rows:   {to_nearest(between):.2f}")
