"""
Components that are clusters
============================

With ``objective="clusters"`` each component learns its own part of the rows, and ``predict``
returns the component of each row. This example fits ten components to scikit-learn's ten digits,
without labels.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import normalized_mutual_info_score

from skmvae import MVAETransformer
from skmvae.architectures import MLP

X, y = load_digits(return_X_y=True)
X /= 16

mvae = MVAETransformer(
    k=10,
    latent_dim=8,
    objective="clusters",
    likelihood="bernoulli",
    architecture=MLP((200, 200)),
    max_iter=40,
    random_state=0,
).fit(X)
cluster = mvae.predict(X)

# %%
# NMI measures how much the components, and k-means on the pixels, say about the digits: 0 is
# nothing, 1 is everything. Components need not be digits: they are parts of about the same size
# that a small network describes well. On images as small as these, k-means on the pixels says as
# much. A component is more than a centre: it is a model of its rows.
k_means = KMeans(10, n_init=3, random_state=0).fit_predict(X)
print(f"components: NMI {normalized_mutual_info_score(y, cluster):.2f}")
print(f"k-means:    NMI {normalized_mutual_info_score(y, k_means):.2f}")
print("rows of each component:", np.bincount(cluster, minlength=10))

# %%
# Each line shows one component: five rows that it is responsible for, and five samples.
figure, axes = plt.subplots(10, 10, figsize=(6, 6), layout="constrained")
for i, line in enumerate(axes):
    own, drawn = X[cluster == i][:5], mvae.sample(5, random_state=0, component=i)
    for ax in line:
        ax.set(xticks=[], yticks=[])
    for ax, image in zip(line, [*own, *drawn], strict=False):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
axes[0, 2].set_title("its rows")
axes[0, 7].set_title("its samples")
plt.show()
