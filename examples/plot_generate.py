"""
Generating new rows
===================

``sample`` draws codes from the prior N(0, I), and may draw them where no training row has its code.
A density fitted to the codes follows them more closely: fit scikit-learn's ``GaussianMixture`` on
the codes, draw from it, and decode with ``inverse_transform``.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from skmvae import MVAETransformer
from skmvae.plotting import SampleDisplay

X, y = load_digits(return_X_y=True)
mvae = MVAETransformer(k=2, latent_dim=8, max_iter=40, random_state=0).fit(X)

density = GaussianMixture(40, covariance_type="full", reg_covar=1e-3, random_state=0)
density.fit(mvae.transform(X).astype(float))
codes, _ = density.sample(60)
generated = mvae.inverse_transform(codes)

# %%

SampleDisplay(mvae.sample(60, random_state=0), (8, 8)).plot().figure_.suptitle(
    "codes from the prior"
)
plt.show()

# %%

# sphinx_gallery_thumbnail_number = 2
SampleDisplay(generated, (8, 8)).plot().figure_.suptitle("codes from the Gaussian mixture")
plt.show()

# %%
# How far is a generated row from the nearest training row, and how far are training rows from each
# other? A copy would be at distance zero, and noise would be far away.


def nearest(rows, others):
    distances = np.sqrt(((rows[:, None] - others[None]) ** 2).sum(axis=2))
    return np.median(np.sort(distances, axis=1)[:, 0])


print(f"rows to other rows:           {nearest(X[:200], X[200:]):.1f}")
print(f"prior samples to rows:        {nearest(mvae.sample(200, random_state=0), X):.1f}")
print(f"samples of the codes to rows: {nearest(generated, X):.1f}")
