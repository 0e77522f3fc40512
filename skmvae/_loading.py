"""``skmvae.load``: a model file back to an estimator."""

from __future__ import annotations

from collections.abc import Collection
from os import PathLike
from typing import Any

from ._files.models import read_model
from ._files.writing import at_home
from ._transformer import MVAETransformer
from ._version import __version__


def load(path: str | PathLike[str], *, trusted: Collection[str] = ()) -> MVAETransformer:
    """Read a model file that :meth:`MVAETransformer.save` has written.

    Runs no code of the file, whoever made it. Its checksum, names, shapes and types are checked,
    and the parameters are mapped from the file rather than copied. Later versions of the package
    read the files of earlier ones.

    Parameters
    ----------
    path : path-like
    trusted : collection of str, default=()
        Import paths of architectures of your own, such as ``"my_package.layers.MyArchitecture"``,
        that may be imported if the file names them.

    Returns
    -------
    mvae : MVAETransformer
        Fitted.

    Raises
    ------
    ValueError
        If the file is damaged, not of this package, of a later format, or names an architecture
        that is not trusted.
    FileNotFoundError
        If there is no such file.
    ImportError
        If safetensors is not installed (``pip install 'skmvae[safe]'``).

    Examples
    --------
    See :meth:`MVAETransformer.save`.
    """
    return read_model(at_home(path), trusted, _restored)


def _restored(parameters: dict[str, Any], fitted: dict[str, Any]) -> MVAETransformer:
    if unknown := sorted(parameters.keys() - set(MVAETransformer._get_param_names())):
        raise ValueError(
            f"it has parameters that skmvae {__version__} does not know: {', '.join(unknown)}."
        )
    mvae = object.__new__(MVAETransformer)
    mvae.__setstate__(parameters | fitted)
    return mvae
