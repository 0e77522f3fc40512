"""MVAEImputer: a mixture of VAEs as a step that fills missing values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from ._model.distributions import LIKELIHOODS
from ._parameters import RULES
from ._runtime import draw_seed
from ._transformer import MVAETransformer, RandomState
from ._validation import (
    FLAG,
    at_least,
    check_new_rows,
    check_parameters,
    check_rows,
    of_type,
    optional,
)

_RULES = {
    "mvae": optional(of_type((MVAETransformer,), "an MVAETransformer")),
    "n_draws": at_least(1),
    "sample_posterior": FLAG,
    "random_state": RULES["random_state"],
}

# Epochs of the default mixture. Few rows make few steps an epoch.
_MOST_EPOCHS, _FEWEST_EPOCHS, _ROWS_SEEN = 200, 20, 200_000


class MVAEImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Fill missing values with what a mixture of VAEs expects of them.

    The step to put before any other estimator in a pipeline: it fits an
    :class:`MVAETransformer` to the rows as they are, NaN standing for what is missing, and
    ``transform`` gives the rows with :meth:`MVAETransformer.impute`. Columns are standardised for
    the mixture, unless its likelihood is Bernoulli, and filled in their own units.

    Parameters
    ----------
    mvae : MVAETransformer, default=None
        The mixture to fit a clone of. None means ``MVAETransformer(k=4, latent_dim=10,
        objective="elbo")`` with 200 epochs, or with fewer for more than 1,000 rows, but no fewer
        than 20.
    n_draws : int, default=100
        Codes drawn for each component, as for :meth:`MVAETransformer.impute`.
    sample_posterior : bool, default=False
        Fill with a draw instead of an expectation, for multiple imputation: call ``transform`` as
        often as you want complete tables. Each call has other draws, as in
        :class:`sklearn.impute.IterativeImputer`.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws, and of a mixture that has no ``random_state`` of its own.

    Attributes
    ----------
    mvae_ : MVAETransformer
        Fitted.
    scaler_ : StandardScaler or None
        Fitted; None with the Bernoulli likelihood.
    random_state_ : RandomState
        Of the next draws.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names of X, if they were all strings.

    See Also
    --------
    sklearn.impute.IterativeImputer : Regresses each column on the others; faster.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skmvae import MVAEImputer, MVAETransformer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X[np.random.default_rng(0).random(X.shape) < 0.3] = np.nan
    >>> mvae = MVAETransformer(latent_dim=5, objective="elbo", max_iter=20)
    >>> imputer = MVAEImputer(mvae, n_draws=20, random_state=0)
    >>> pipe = make_pipeline(imputer, StandardScaler(), LogisticRegression())
    >>> pipe.fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.9
    True
    """

    mvae_: MVAETransformer
    scaler_: Any

    def __init__(
        self,
        mvae: MVAETransformer | None = None,
        *,
        n_draws: int = 100,
        sample_posterior: bool = False,
        random_state: RandomState = None,
    ) -> None:
        self.mvae = mvae
        self.n_draws = n_draws
        self.sample_posterior = sample_posterior
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit the mixture to what was observed.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with NaN where values are missing. Never modified.
        y : None
            Ignored.

        Returns
        -------
        self : MVAEImputer

        Raises
        ------
        ValueError, DivergenceError
            As :meth:`MVAETransformer.fit` does.
        TypeError
            If X is sparse.
        """
        check_parameters(self, _RULES)
        rows, columns = check_new_rows(self, X, reset=True)
        rows = _dense(rows)
        from sklearn.preprocessing import StandardScaler  # slow to import, and needed here alone

        seed = draw_seed(self.random_state)
        mvae = _default(len(rows)) if self.mvae is None else clone(self.mvae)
        if mvae.random_state is None:
            mvae.set_params(random_state=seed)
        check_parameters(mvae, RULES)
        scaler = None
        if LIKELIHOODS[mvae.likelihood].IS_SCALED:
            scaler = _quietly(StandardScaler().fit, rows)
        mvae.fit(rows if scaler is None else _quietly(scaler.transform, rows))
        for name, value in columns.items():
            setattr(self, name, value)
        self.mvae_, self.scaler_ = mvae, scaler
        self.random_state_ = np.random.RandomState(seed)
        return self

    def transform(self, X: ArrayLike) -> Any:  # a data frame after set_output
        """Fill the missing values of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        X_filled : ndarray of shape (n_samples, n_features)
            Observed values are those of X, bit for bit.
        """
        check_is_fitted(self)
        rows = _dense(check_rows(self, X, reset=False))
        state = self.random_state_ if self.sample_posterior else None
        if self.scaler_ is None:
            return self.mvae_.impute(rows, self.n_draws, state)
        filled = self.mvae_.impute(_quietly(self.scaler_.transform, rows), self.n_draws, state)
        in_own_units = self.scaler_.inverse_transform(filled)
        in_own_units[:, np.isnan(self.scaler_.mean_)] = 0.0  # columns without a value
        return np.where(np.isnan(rows), in_own_units, rows)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _default(n_rows: int) -> MVAETransformer:
    """A mixture for a table of so many rows."""
    max_iter = min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, _ROWS_SEEN // n_rows))
    return MVAETransformer(latent_dim=10, objective="elbo", max_iter=max_iter)


def _dense(rows: Any) -> np.ndarray:
    if sparse.issparse(rows):
        raise TypeError(
            "MVAEImputer centres columns, so it takes no sparse X. Call X.toarray(), or fill X as "
            "it is, with MVAETransformer.impute."
        )
    return rows


def _quietly(function: Callable[[np.ndarray], Any], rows: np.ndarray) -> Any:
    """What is not finite in the end is named by the mixture; NumPy need not warn of it too."""
    with np.errstate(over="ignore", invalid="ignore"):
        return function(rows)
