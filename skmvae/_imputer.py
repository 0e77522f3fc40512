"""MVAEImputer: a mixture of VAEs as a step that fills missing values."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from ._model.distributions import LIKELIHOODS
from ._parameters import RULES
from ._runtime import draw_seed
from ._transformer import MVAETransformer, RandomState
from ._validation import (
    FLAG,
    at_least,
    check_parameters,
    check_rows,
    of_type,
    optional,
)

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
        Fill with a draw instead of an expectation, for multiple imputation: transform as often as
        you want complete tables.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws, and of the mixture that ``mvae=None`` means.

    Attributes
    ----------
    mvae_ : MVAETransformer
        Fitted.
    scaler_ : StandardScaler or None
        Fitted; None with the Bernoulli likelihood.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names of X, if they were all strings.

    See Also
    --------
    sklearn.impute.IterativeImputer : Regresses each column on the others; faster on few columns.

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
    scaler_: StandardScaler | None

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
        """
        check_parameters(
            self,
            {
                "mvae": optional(of_type((MVAETransformer,), "an MVAETransformer")),
                "n_draws": at_least(1),
                "sample_posterior": FLAG,
                "random_state": RULES["random_state"],
            },
        )
        rows = check_rows(self, X, reset=True)
        mvae = self._default(len(rows)) if self.mvae is None else clone(self.mvae)
        scaler = None
        if LIKELIHOODS[mvae.likelihood].IS_SCALED:
            with np.errstate(invalid="ignore"):  # a column without a value has no mean
                scaler = StandardScaler().fit(rows)
        self.mvae_ = mvae.fit(rows if scaler is None else scaler.transform(rows))
        self.scaler_ = scaler
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
        rows = check_rows(self, X, reset=False)
        seed = draw_seed(self.random_state) if self.sample_posterior else None
        if self.scaler_ is None:
            return self.mvae_.impute(rows, self.n_draws, seed)
        filled = self.mvae_.impute(self.scaler_.transform(rows), self.n_draws, seed)
        in_own_units = np.nan_to_num(self.scaler_.inverse_transform(filled))
        return np.where(np.isnan(rows), in_own_units, rows)

    def _default(self, n_rows: int) -> MVAETransformer:
        return MVAETransformer(
            latent_dim=10,
            objective="elbo",
            max_iter=min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, _ROWS_SEEN // n_rows)),
            random_state=self.random_state,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
