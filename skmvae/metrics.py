"""Measures of a mixture's codes, weights, reconstructions and samples.

What scikit-learn already measures is not here: accuracy, mutual information, silhouettes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import rel_entr
from scipy.stats import entropy
from sklearn.utils import check_array, check_X_y

from ._model.dhsic import centred, dhsic_of_means, rbf_grams
from ._process import check_not_forked
from ._rows.neighbours import find_neighbours
from ._rows.scaled import ScaledRows
from ._rows.statistics import mean_and_scale, observed_a_row
from ._runtime import no_gradients
from ._validation import at_least, check_value, in_interval, one_of, optional

__all__ = [
    "dhsic_score",
    "effective_components",
    "inception_score",
    "neighbor_purity",
    "reconstruction_error",
]

# Rows of the Gram matrices computed at a time.
_BLOCK_ROWS = 256


@no_gradients()
def dhsic_score(Z: ArrayLike, k: int, *, gamma: float | None = None) -> float:
    """Dependence between the codes of k components: dHSIC (equation 13 of the paper).

    The V-statistic of Pfister et al. (2018) with Gaussian kernels exp(-gamma ||z - z'||^2). It is 0
    or above, and near 0 for codes that are jointly independent. Computed in float64, in time
    proportional to the square of the number of rows and memory proportional to it.

    Parameters
    ----------
    Z : array-like of shape (n_samples, k * latent_dim)
        Codes side by side, as ``MVAETransformer.transform`` returns them; at least 2 k rows.
    k : int
        Number of components.
    gamma : float, default=None
        Of the kernel, in inverse squared units of Z. None takes what training takes:
        1 / (2 m^2), m being the mean distance of two draws from N(0, I).

    Returns
    -------
    dhsic : float

    Raises
    ------
    ValueError
        If Z is not a finite table, has fewer than 2 k rows, values whose squares overflow, or
        columns that k does not divide.

    References
    ----------
    N. Pfister, P. Buehlmann, B. Schoelkopf and J. Peters, "Kernel-based tests for joint
    independence", JRSS B 80 (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from skmvae.metrics import dhsic_score
    >>> z = np.random.default_rng(0).normal(size=(500, 2))
    >>> dhsic_score(z, k=2) < 0.001  # two independent columns
    True
    >>> dhsic_score(z[:, [0, 0]], k=2) > 0.05  # a column and its copy
    True
    """
    check_value("k", k, at_least(1))
    check_value("gamma", gamma, optional(in_interval(0.0, np.inf, closed="neither")))
    codes = check_array(Z, dtype=np.float64, input_name="Z", ensure_min_samples=2 * k)
    if codes.shape[1] % k:
        raise ValueError(f"Z has {codes.shape[1]} columns, which k={k} does not divide.")
    if k == 1:
        return 0.0
    z = centred(torch.tensor(codes, device="cpu").unflatten(1, (k, -1)).transpose(0, 1))
    blocks = [slice(start, start + _BLOCK_ROWS) for start in range(0, len(codes), _BLOCK_ROWS)]
    means = [rbf_grams(z, gamma, rows=rows).mean(-1) for rows in blocks]
    score = float(dhsic_of_means(torch.cat(means, dim=-1)))
    if not np.isfinite(score):
        raise ValueError("Z contains values too large: their squares overflow dtype('float64').")
    return score


def reconstruction_error(X: ArrayLike, reconstruction: ArrayLike, *, kind: str = "sum") -> float:
    """Squared error of reconstructions, in one of the three ways that the literature uses.

    Parameters
    ----------
    X, reconstruction : array-like of shape (n_samples, n_features)
        Rows, and what a model makes of them, in the same units. Values of X that are missing (NaN)
        have no part in the error.
    kind : {"sum", "mean", "root_sum"}, default="sum"
        - "sum": mean over rows of the sum of squares of a row. The "MSE" of the paper's Table I.
        - "mean": mean over all observed values, the error per pixel; that of
          :func:`sklearn.metrics.mean_squared_error`.
        - "root_sum": square root of "sum". The "RMSE" of the paper's Table III. It is not the root
          mean squared error per pixel, which is smaller by a factor of sqrt(n_features).

    Returns
    -------
    error : float
        In squared units of X; in units of X for "root_sum".

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite, no value of X was observed, or ``kind`` is none
        of the three.

    Examples
    --------
    >>> from skmvae.metrics import reconstruction_error
    >>> X, reconstruction = [[0.0, 0.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]
    >>> [reconstruction_error(X, reconstruction, kind=kind) for kind in ("sum", "mean", "root_sum")]
    [1.0, 0.5, 1.0]
    """
    check_value("kind", kind, one_of(("sum", "mean", "root_sum")))
    x = check_array(
        X, dtype=[np.float64, np.float32], input_name="X", ensure_all_finite="allow-nan"
    )
    y = check_array(reconstruction, dtype=[np.float64, np.float32], input_name="reconstruction")
    if x.shape != y.shape:
        raise ValueError(
            f"X has the shape {x.shape} and reconstruction {y.shape}; they must agree."
        )
    squares = np.square(x - y, dtype=np.float64)
    observed = ~np.isnan(x)
    if not observed.any():
        raise ValueError("X has no value that was observed, so there is no error.")
    if kind == "mean":
        return float(squares.mean(where=observed))
    total = float(squares.sum(axis=1, where=observed).mean())
    return total**0.5 if kind == "root_sum" else total


def inception_score(probabilities: ArrayLike, *, splits: int = 10) -> tuple[float, float]:
    """Diversity and decidedness of samples, as a classifier sees them (equation 15 of the paper).

    exp of the mean over samples of KL(p(y | x) || p(y)), p(y) being the mean of p(y | x) over a
    split. It is 1 for a classifier that says the same of every sample, and the number of classes
    when each sample is certain and all classes are equally frequent. Scores depend on the
    classifier: compare only those of the same one, and report that of real data beside them. The
    published scores use the Inception network of 2015 (Salimans et al. 2016).

    Parameters
    ----------
    probabilities : array-like of shape (n_samples, n_classes)
        p(y | x) of each sample, such as a classifier's ``predict_proba`` gives.
    splits : int, default=10
        Number of equal parts, in the given order, to score apart.

    Returns
    -------
    mean, std : float
        Over the parts; ``std`` without Bessel's correction.

    Raises
    ------
    ValueError
        If a row is not a distribution, or there are fewer rows than parts.

    References
    ----------
    T. Salimans et al., "Improved techniques for training GANs", NIPS 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from skmvae.metrics import inception_score
    >>> mean, std = inception_score(np.eye(10), splits=1)
    >>> round(mean, 6)
    10.0
    """
    check_value("splits", splits, at_least(1))
    p = check_array(
        probabilities, dtype=np.float64, input_name="probabilities", ensure_min_samples=splits
    )
    if (p < 0.0).any() or not np.allclose(p.sum(axis=1), 1.0, atol=1e-4):
        raise ValueError(
            "probabilities must be >= 0 and sum to 1 in each row; pass a classifier's "
            "predict_proba, not its decision_function or logits."
        )
    scores = [
        np.exp(rel_entr(part, part.mean(axis=0)).sum(axis=1).mean())
        for part in np.array_split(p, splits)
    ]
    return float(np.mean(scores)), float(np.std(scores))


def effective_components(weights: ArrayLike) -> float:
    """How many components share the work: exp of the entropy of mixing weights.

    Parameters
    ----------
    weights : array-like of shape (k,)
        Mean mixing weights, such as ``MVAETransformer.weights_``; they are normalised.

    Returns
    -------
    n_effective : float
        From 1, one component has all the weight, to k, all have the same.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or all are zero.

    Examples
    --------
    >>> from skmvae.metrics import effective_components
    >>> effective_components([0.25, 0.25, 0.25, 0.25])
    4.0
    >>> effective_components([1.0, 0.0, 0.0, 0.0])
    1.0
    """
    w = check_array(weights, ensure_2d=False, dtype=np.float64, input_name="weights")
    if w.ndim != 1 or (w < 0.0).any() or w.sum() == 0.0:
        raise ValueError(f"weights must be one number >= 0 a component, not all zero; got {w!r}.")
    return float(np.exp(entropy(w)))


def neighbor_purity(X: ArrayLike, y: ArrayLike, *, n_neighbors: int = 10) -> float:
    """How often neighbours have the same label, to see whether codes can learn from them.

    The share of equal labels among the pairs that ``MVAETransformer(neighbor_weight=...)`` would
    draw from: rows that have each other among their ``n_neighbors`` nearest (of 20,000 rows at a
    time). Compare it with the share among pairs of any rows, which is the sum of the squares of the
    classes' frequencies.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows whose labels are known, scaled as for ``fit``; NaN where a value is missing. Neighbours
        among few rows are farther apart than among all of the data, so the purity of some of the
        rows is a low estimate.
    y : array-like of shape (n_samples,)
        Their labels. A value that stands for an unknown label is a label like others: leave such
        rows out.
    n_neighbors : int, default=10
        Number of nearest neighbours, 1 or more.

    Returns
    -------
    purity : float
        Between 0 and 1; NaN if there are no such pairs.

    Raises
    ------
    ValueError
        If X is not a finite table, or y not a label of each row.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skmvae.metrics import neighbor_purity
    >>> X, y = load_digits(return_X_y=True)
    >>> round(neighbor_purity(X, y), 2)
    0.99
    """
    check_value("n_neighbors", n_neighbors, at_least(1))
    check_not_forked()
    table, labels = check_X_y(
        X,
        y,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        ensure_all_finite="allow-nan",
    )
    mean, scale = mean_and_scale(table)
    fill = None if observed_a_row(table) == table.shape[1] else np.zeros_like(mean)
    rows = ScaledRows(table, np.nan_to_num(mean), scale, torch.device("cpu"), fill=fill)
    all_rows = np.arange(len(rows))
    graph = find_neighbours(rows, all_rows, n_neighbors, seed=0, report=lambda line: None)
    first, second = (labels[numbers] for numbers in graph.pairs())
    return float(np.mean(first == second)) if len(first) else np.nan
