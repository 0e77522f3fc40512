"""
Digits of which the lower half is gone
======================================

The upper half of a digit leaves several digits possible. ``impute`` gives their mean, which is
blurred where they differ. With a ``random_state`` it gives one of them, and with other states
others: the draws come from the mixture's components and codes, weighted by how well they explain
the pixels that are there.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from skmvae import MVAETransformer

X, y = load_digits(return_X_y=True)
X_train, X_test = X[:1500] / 16, X[1500:] / 16
mvae = MVAETransformer(
    k=4,
    latent_dim=8,
    objective="mixture",
    likelihood="bernoulli",
    max_iter=60,
    random_state=0,
)
mvae.fit(X_train)

# %%
# The mixture was trained on whole digits. Missing values may come later.

rows = [int(np.flatnonzero(y[1500:] == digit)[0]) for digit in range(10)]
holes = X_test[rows].copy()
holes[:, 32:] = np.nan
mean = mvae.impute(holes)
# A draw has the noise of its pixels, black or white: the mean of ten that share a code has not.
draws = [mvae.impute(holes, n_draws=50, random_state=seed) for seed in range(4)]

lines = {"digit": X_test[rows], "given": holes, "mean": mean}
lines |= {f"draw {i}": draw for i, draw in enumerate(draws)}
figure, axes = plt.subplots(len(lines), 10, figsize=(6.5, 4.8), layout="constrained")
for line, (name, images) in zip(axes, lines.items(), strict=True):
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for ax, image in zip(line, images, strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
plt.show()

# %%
# The components that the upper half leaves possible, by their mixing weights:

print("digit  weights of the components, whole and upper half")
for digit, whole, half in zip(
    y[1500:][rows],
    mvae.mixing_weights(X_test[rows]).round(2),
    mvae.mixing_weights(holes).round(2),
    strict=True,
):
    print(f"{digit:5}  {whole}  {half}")
