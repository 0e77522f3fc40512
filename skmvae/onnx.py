"""A fitted mixture as an ONNX file, for programs that have neither Python nor torch.

Needs onnx and onnxscript, which the extra ``onnx`` brings; torch imports them in ``export``.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from os import PathLike

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ._files.writing import at_home, write_whole
from ._rows.scaled import fill_missing
from ._runtime import gradients
from ._state import NetworkState, load_network
from ._transformer import MVAETransformer

__all__ = ["export"]

# The exporter of torch 2.6 cannot have any number of rows with baddbmm; 2.7 was not tried.
LEAST_TORCH = "2.8"


class _Codes(nn.Module):
    """``transform`` and ``mixing_weights`` of rows in the units of X: all that the file has."""

    mean: Tensor
    fill: Tensor
    shares: Tensor

    def __init__(self, state: NetworkState) -> None:
        super().__init__()
        self.network = load_network(state, torch.device("cpu"))
        for name, values in {
            "mean": state.mean,
            "fill": np.nan_to_num(state.fill),
            "shares": state.shares_or_equal,
        }.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32, device="cpu"))
        self.scale = state.scale

    def forward(self, X: Tensor) -> tuple[Tensor, Tensor]:
        x, missing = fill_missing((X - self.mean) / self.scale, self.fill)
        posterior = self.network.encode(x).with_prior(missing.all(-1), self.shares)
        return posterior.mean.transpose(0, 1).flatten(1), posterior.concentration


def export(mvae: MVAETransformer, path: str | PathLike[str]) -> None:
    """Write what ``transform`` and ``mixing_weights`` compute as an ONNX file.

    The file has one input, ``X`` of shape (n, n_features), and two outputs, ``codes`` of shape
    (n, k * latent_dim) and ``weights`` of shape (n, k), for any n. All are float32. ``mean_`` and
    ``scale_`` are in the file: X are rows as ``transform`` takes them, with NaN for missing values.
    What is at ``path`` is replaced at once, when the new file is whole.

    Parameters
    ----------
    mvae : MVAETransformer
        A fitted one. Of a pipeline, the step; what is before it is not in the file.
    path : path-like
        Usually ending in ``.onnx``.

    Raises
    ------
    NotFittedError
        If mvae is not fitted.
    TypeError
        If mvae is something else, such as a pipeline.
    ImportError
        If onnx or onnxscript is not installed (``pip install 'skmvae[onnx]'``), or torch is older
        than 2.8.
    OSError
        If the file cannot be written; what was there is still there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_iris
    >>> from skmvae import MVAETransformer
    >>> from skmvae.onnx import export
    >>> mvae = MVAETransformer(k=3, latent_dim=2, max_iter=2).fit(load_iris().data)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(mvae, Path(folder) / "iris.onnx")
    """
    if not isinstance(mvae, MVAETransformer):
        raise TypeError(
            f"mvae must be an MVAETransformer, got {type(mvae).__name__}; of a pipeline, give the "
            "step: pipe.named_steps['mvae']."
        )
    check_is_fitted(mvae)
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise ImportError(
            f"skmvae.onnx.export needs {' and '.join(missing)}: pip install 'skmvae[onnx]'"
        )
    if torch.__version__ < LEAST_TORCH:
        raise ImportError(
            f"skmvae.onnx.export needs torch {LEAST_TORCH} or newer, found {torch.__version__}: "
            "pip install -U torch"
        )
    state = mvae._state  # one read: another thread may be fitting this estimator
    # Not one row: torch would take the number for a constant.
    rows = torch.zeros(2, state.n_features, dtype=torch.float32, device="cpu")
    with warnings.catch_warnings(), gradients():
        warnings.simplefilter("ignore")  # torch's exporter warns of torch's own code
        program = torch.onnx.export(
            _Codes(state).eval(),
            (rows,),
            input_names=["X"],
            output_names=["codes", "weights"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # as with dynamo=True
    model = program.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")  # else the paths of this machine go with the file
    write_whole(at_home(path), model.SerializeToString())
