"""
Components that are clusters
============================

With ``objective="clusters"`` each component learns its own part of the rows, and ``predict``
returns the component of each row. This example finds the ten digits of scikit-learn without
labels, with sixteen components to choose from.
"""

from matplotlib import pyplot as plt
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import normalized_mutual_info_score

from skmvae import MVAETransformer
from skmvae.plotting import ComponentUsageDisplay

X, y = load_digits(return_X_y=True)
X /= 16

mvae = MVAETransformer(
    k=16, latent_dim=8, objective="clusters", likelihood="bernoulli", random_state=0
).fit(X)
print("weights:", mvae.weights_.round(2))
mvae = mvae.prune()
cluster = mvae.predict(X)
print(f"components in use: {mvae.k}")

# %%
# NMI measures how much the components, and k-means on the pixels, say about the digits: 0 is
# nothing, 1 is everything.
k_means = KMeans(10, n_init=3, random_state=0).fit_predict(X)
print(f"components: NMI {normalized_mutual_info_score(y, cluster):.2f}")
print(f"k-means:    NMI {normalized_mutual_info_score(y, k_means):.2f}")

# %%
# Which component is responsible for which digit? A digit that is written in two ways can have two.
ComponentUsageDisplay.from_estimator(mvae, X, y)
plt.show()

# %%
# A component is more than a centre: it is a model of its rows, from which new ones can be drawn.
# Each line shows one component: eight rows that it is responsible for, and eight samples.

# sphinx_gallery_thumbnail_number = 2
figure, axes = plt.subplots(mvae.k, 16, figsize=(7, 0.46 * mvae.k), layout="constrained")
for i, line in enumerate(axes):
    own, drawn = X[cluster == i][:8], mvae.sample(8, random_state=0, component=i)
    for ax in line:
        ax.set(xticks=[], yticks=[])
    for ax, image in zip(line, [*own, *drawn], strict=False):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
axes[0, 3].set_title("its rows")
axes[0, 11].set_title("its samples")
plt.show()
