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
X_train, X_test = X[:1500].copy(), X[1500:]

# %%
# Every second training row has lost its lower half too, so that the encoders learn what a half
# leaves open. The fit is short, so that it does not know the training rows by heart.

X_train[::2, 32:] = np.nan
mvae = MVAETransformer(k=4, latent_dim=10, objective="elbo", max_iter=20, random_state=0)
mvae.fit(X_train)

rows = [int(np.flatnonzero(y[1500:] == digit)[0]) for digit in range(10)]
holes = X_test[rows].copy()
holes[:, 32:] = np.nan
mean = mvae.impute(holes)
draws = [mvae.impute(holes, random_state=seed) for seed in range(5)]

lines = {"digit": X_test[rows], "given": holes, "mean": mean}
lines |= {f"draw {i}": draw for i, draw in enumerate(draws)}
figure, axes = plt.subplots(len(lines), 10, figsize=(6.5, 4.8), layout="constrained")
for line, (name, images) in zip(axes, lines.items(), strict=True):
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for ax, image in zip(line, images, strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        ax.set(xticks=[], yticks=[])
plt.show()

# %%
# How sure are the draws, and how sure should they be? As sure as their mean is right: the spread of
# draws and the error of the mean should be equal. The mixture is surer than that, as small models
# of small data are.

holes = X_test.copy()
holes[:, 32:] = np.nan
error = mvae.impute(holes) - X_test
draws = np.stack([mvae.impute(holes, random_state=seed) for seed in range(10)])
print(f"error of the mean   {np.sqrt(np.mean(error[:, 32:] ** 2)):.2f} of 16 levels of grey")
print(f"spread of the draws {np.sqrt(np.mean(draws[:, :, 32:].var(axis=0))):.2f}")
