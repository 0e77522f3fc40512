"""Mixtures of variational autoencoders (M-VAE) as a scikit-learn transformer."""

from ._epoch import DivergenceError
from ._transformer import SKOPS_TRUSTED, MVAETransformer
from ._version import __version__

__all__ = ["SKOPS_TRUSTED", "DivergenceError", "MVAETransformer", "__version__"]
