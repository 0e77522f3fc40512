"""
What each component learns
==========================

The displays of :mod:`skmvae.plotting` show how training went, which component is used for which
digit, and how each component reconstructs the images. The data are scikit-learn's 8 x 8 digits.
"""

from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from skmvae import MVAETransformer
from skmvae.metrics import effective_components
from skmvae.plotting import (
    ComponentUsageDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
    SampleDisplay,
)

X, y = load_digits(return_X_y=True)
mvae = MVAETransformer(k=4, latent_dim=8, objective="mixture", max_iter=40, random_state=0).fit(X)

# %%
# Training
# --------
# ``history_`` holds every term of the objective, in nats per row.

LossCurveDisplay.from_estimator(mvae)
plt.show()

# %%
# Use of the components
# ---------------------
# With ``objective="mixture"`` the components have similar shares of the rows, and almost all of a
# row's mixing weight goes to one component. With the default, "melbo", nothing keeps one component
# from taking most of the mixing weight of all rows.

# sphinx_gallery_thumbnail_number = 2
ComponentUsageDisplay.from_estimator(mvae, X, y)
plt.show()
print(f"effective number of components: {effective_components(mvae.weights_):.2f} of {mvae.k}")
print(f"mean largest mixing weight of a row: {mvae.mixing_weights(X).max(axis=1).mean():.2f}")

# %%
# Codes
# -----
# The display shows, for each component, the two dimensions of the code that vary most.

LatentSpaceDisplay.from_estimator(mvae, X, y)
plt.show()

# %%
# Reconstructions and samples
# ---------------------------

ReconstructionDisplay.from_estimator(mvae, X[:10], image_shape=(8, 8))
plt.show()

# %%

SampleDisplay.from_estimator(mvae, image_shape=(8, 8), n_samples=20, random_state=0)
plt.show()
