"""Mixtures of variational autoencoders (M-VAE) as a scikit-learn transformer."""

from ._fit.step import DivergenceError
from ._imputer import MVAEImputer
from ._loading import load
from ._show_versions import show_versions
from ._transformer import SKOPS_TRUSTED, MVAETransformer
from ._version import __version__

__all__ = [
    "SKOPS_TRUSTED",
    "DivergenceError",
    "MVAEImputer",
    "MVAETransformer",
    "__version__",
    "load",
    "show_versions",
]
