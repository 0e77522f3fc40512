"""Mixtures of variational autoencoders (M-VAE) as a scikit-learn transformer."""

from ._fit.epoch import DivergenceError
from ._show_versions import show_versions
from ._transformer import SKOPS_TRUSTED, MVAETransformer, load
from ._version import __version__

__all__ = [
    "SKOPS_TRUSTED",
    "DivergenceError",
    "MVAETransformer",
    "__version__",
    "load",
    "show_versions",
]
