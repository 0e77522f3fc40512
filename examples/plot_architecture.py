"""
An architecture of your own
===========================

``architecture`` takes any estimator with a method ``build`` that returns an encoder and a decoder
for all components at once. The architecture here is linear, so the model is a mixture of
probabilistic PCAs. :class:`skmvae.architectures.ComponentLinear` holds k linear layers as one.
"""

from matplotlib import pyplot as plt
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from torch import nn

from skmvae import MVAETransformer
from skmvae.architectures import ComponentLinear
from skmvae.plotting import ReconstructionDisplay


class Stack(nn.Module):
    """A layer without dropout, which needs no generator."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, generator=None):
        return self.layer(x)


class Linear(BaseEstimator):
    """One linear layer as encoder and one as decoder."""

    def build(self, n_features, latent_dim, k):
        encoder = ComponentLinear(k, n_features, 2 * latent_dim + 1)
        decoder = ComponentLinear(k, latent_dim, n_features)
        return Stack(encoder), Stack(decoder)


X, y = load_digits(return_X_y=True)
X_train, X_test = X[:1000], X[1000:]

# %%

models = {}
for name, architecture in {"two hidden layers of 500": None, "linear": Linear()}.items():
    mvae = MVAETransformer(
        k=4, latent_dim=8, architecture=architecture, max_iter=60, random_state=0
    ).fit(X_train)
    models[name] = mvae
    error = ((mvae.reconstruct(X_test) - X_test) ** 2).sum(axis=1).mean()
    print(f"{name:26} bound {mvae.score(X_test):8.1f}   squared error {error:6.1f}")

# %%

ReconstructionDisplay.from_estimator(models["linear"], X_test[:10], image_shape=(8, 8))
plt.show()
