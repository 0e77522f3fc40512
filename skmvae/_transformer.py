"""MVAETransformer: the scikit-learn shell around the mixture of variational autoencoders."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from os import PathLike, fspath
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ._distributed.group import ALONE, Group
from ._files.models import write_model
from ._files.writing import at_home
from ._fit.callbacks import CallbackSupportMixin, FitTask, with_callbacks, without_callbacks
from ._fit.fitting import PreviousFit, fit
from ._fit.observers import Observer, Reporter
from ._fit.schedules import ENDLESS
from ._inference import Inference
from ._model.distributions import LIKELIHOODS
from ._model.objective import OF_PARTS
from ._parameters import RULES, checkpoint_of, settings_of
from ._process import out_of_memory_explained, uninterrupted
from ._rows.statistics import has_values, is_constant, value_range
from ._runtime import draw_seed, inference_device, resolve_device
from ._saved import check_saved, upgraded
from ._state import NetworkState, Trained, TrainingState, history_of, records_of
from ._tables import numbers_of_incomplete, with_filled
from ._validation import (
    COLUMNS,
    FLAG,
    at_least,
    check_codes,
    check_new_rows,
    check_parameters,
    check_range,
    check_rows,
    check_value,
    in_interval,
    index_below,
    optional,
)
from .architectures import MLP

# The types that skops has to trust to load a saved estimator.
SKOPS_TRUSTED = [
    "skmvae._imputer.MVAEImputer",
    "skmvae._state.NetworkState",
    "skmvae._state.TrainingState",
    "skmvae._transformer.MVAETransformer",
    "skmvae.architectures.Conv",
    "skmvae.architectures.MLP",
]

_SCALE_AS_IN_TRAINING = (
    "Scale it as the training rows were, for example with the MinMaxScaler(clip=True) that was "
    "fitted to them."
)

# How far a chunk moves ``weights_`` towards its own, at least: early chunks count less and less.
_LEAST_STEP = 0.1

RandomState: TypeAlias = int | np.random.RandomState | None


def _weighted(fitted: dict[str, Any], weights: np.ndarray) -> dict[str, Any]:
    """Attributes that ``weights_`` decides: components have them as shares in the density."""
    return {"_state": fitted["_state"].with_shares(weights), "weights_": weights}


def _trains_on_all_rows(estimator: MVAETransformer) -> bool:
    if estimator.early_stopping:
        raise AttributeError(
            "partial_fit has no rows to hold out: set early_stopping=False, or call fit."
        )
    return True


class MVAETransformer(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Mixture of k variational autoencoders (M-VAE, Ye and Bors 2020).

    The k components are small variational autoencoders (VAEs), trained jointly. The encoder of
    each gives a Gaussian posterior over its own code and one Dirichlet concentration. The
    decoders' outputs are mixed by the Dirichlet weights. dHSIC, weighted by ``beta``, pushes the
    codes of different components towards independence. ``transform`` gives the posterior means of
    all components side by side, as features for a simple classifier.

    NaN in X is a value that was not observed, in ``fit`` and in every other method; :meth:`impute`
    fills it. Every method raises ValueError, naming the cause, if an argument is not valid: X has
    to be a table of numbers, finite but for NaN, with the columns seen in ``fit``. A call that
    fails changes nothing.

    Parameters
    ----------
    k : int, default=4
        Number of components, 1 or more (``n_components`` in scikit-learn's mixtures). With
        ``k=1`` the model is a plain VAE.
    latent_dim : int, default=20
        Length of the code of one component, 1 or more. ``transform`` returns ``k * latent_dim``
        columns.
    beta : float, default=1.0
        Weight of the dHSIC penalty on the codes of a minibatch (equation 14), not negative. At 1,
        the paper's value, the penalty is tiny beside the other terms.
    kl_weight : float, default=1.0
        Weight of the KL divergence between the codes' posteriors and N(0, I), not negative.
    objective : {"melbo", "averaged", "elbo", "mixture", "clusters"}, default="melbo"
        What training minimises. "melbo" is the paper's equation 8 as printed, which is not a lower
        bound of log p(x); "averaged" is its equation 5; "elbo" is a lower bound; "mixture" is
        expectation maximisation with components of about equal use; "clusters" tells components
        apart further, and ``predict`` says which row belongs to which. The user guide has the
        formulas and when to take which.
    likelihood : {"gaussian", "bernoulli"}, default="gaussian"
        p(x | y). "gaussian" takes any real X: columns are centred, one overall scale is divided
        out, and one noise variance is learned. "bernoulli" needs X in [0, 1]; values outside by at
        most 1e-6 are clipped.
    weight_concentration_prior : float, default=None
        Concentration c > 0 of the symmetric Dirichlet prior of the mixing weights. None means
        1 / k. It has no part in "mixture" and "clusters".
    architecture : estimator, default=None
        What a component is made of; None means :class:`skmvae.architectures.MLP` with its
        defaults. Its parameters can be set as ``architecture__hidden_layer_sizes`` and so on.
    neighbor_weight : float, default=0.0
        Weight, per column of X, of a term that draws the codes of rows and of their neighbours to
        the same direction and those of other rows apart (InfoNCE, van den Oord et al. 2018), not
        negative. With 1 / 16 simple classifiers need fewer labels where neighbours are mostly of
        one kind; 0 is the model of the paper.
    n_neighbors : int, default=10
        With ``neighbor_weight``, rows are paired that have each other among so many nearest, of
        20,000 rows at a time; 1 or more.
    max_iter : int, default=50
        Number of passes over the training rows (epochs).
    batch_size : int, default=None
        Rows in a minibatch. None means a tenth of the rows, between 32 and 128.
    learning_rate : float, default=None
        Highest step size of Adam, positive; the noise variance has ten times as much. None means
        what the architecture asks for, 3e-3 with ``MLP`` and with most of ``Conv``, and a third of
        it under "constant".
    learning_rate_schedule : {"trapezoid", "constant"}, default="trapezoid"
        How the step size runs over the ``max_iter`` epochs of a fit. "trapezoid" rises to
        ``learning_rate`` in the first twentieth of the steps and falls to zero in the last three
        tenths; a fit that ``early_stopping`` or Ctrl-C cuts short has not cooled down. "constant"
        is how the paper's experiments are run here, at 1e-3. Adam's betas are 0.85 and 0.98 under
        "trapezoid", 0.9 and 0.999 under "constant".
    early_stopping : bool, default=False
        Hold out rows, stop when the loss on them no longer falls, and keep the network parameters
        of the epoch with the lowest held-out loss, even if training is interrupted.
    validation_fraction : float, default=0.1
        Fraction of the rows that ``early_stopping`` holds out, between 0 and 1.
    n_iter_no_change : int, default=10
        Epochs without an improvement by ``tol`` after which ``early_stopping`` stops.
    tol : float, default=1e-4
        Smallest fall of the held-out loss, in nats per row, that counts as an improvement; not
        negative.
    warm_start : bool, default=False
        Start from the network parameters of the previous fit, with a fresh optimizer, and append
        to ``history_``. ``mean_``, ``scale_`` and the rows that ``early_stopping`` holds out stay
        those of the first fit.
    checkpoint_dir : path-like, default=None
        Folder in which ``fit`` keeps a file. After it was killed, a ``fit`` with the same
        parameters, data and folder goes on after an epoch that had ended, and ends with bitwise the
        model of one that was never interrupted (same machine and number of threads). A fit that had
        ended is found and returned. Needs safetensors. No file is ever deleted.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the networks' matrix products in training; all else there is float32. "auto"
        takes bfloat16 where the hardware multiplies it faster (AMX, AVX512_BF16, Arm's BF16, CUDA
        compute capability 8.0 and above).
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU if there is one.
    random_state : int, RandomState instance or None, default=None
        Seed of initialisation, shuffling and sampling. With an int, a fit on the same machine and
        number of threads gives bitwise the same model. None takes entropy from the operating
        system, and does not consult ``np.random.seed``: no global generator is ever advanced.
    verbose : int, default=0
        With 1, report one line an epoch: through ``logging.getLogger("skmvae")`` at level INFO if
        a handler shows it, else on the screen.

    Attributes
    ----------
    weights_ : ndarray of shape (k,)
        Mean mixing weight of each component over the training rows, computed in float32, which is
        its share in the density but under "averaged"; after ``partial_fit`` a moving mean over the
        chunks.
    mean_ : ndarray of shape (n_features,)
        Means of what was observed in each column of X, 0 where nothing was; zeros for the
        Bernoulli likelihood.
    scale_ : float
        Root mean square of ``X - mean_``, the unit of computation; 1 for the Bernoulli likelihood.
    noise_variance_ : float or None
        Variance of X given the decoders' output, in squared units of X, never below 1e-4 times
        ``scale_ ** 2``; None for the Bernoulli likelihood.
    n_iter_ : int
        Number of epochs run, those of earlier fits of a warm start included.
    history_ : dict of str to list of float
        One entry an epoch: ``loss``; its terms before their weights, means over rows in nats of
        ``(X - mean_) / scale_``, which are ``reconstruction``, ``kl_latent`` of the codes,
        ``kl_mixing`` of the mixing weights, and ``dhsic`` (no unit; NaN with ``beta=0``, which
        leaves it out); ``neighbors``, only with ``neighbor_weight``; ``learning_rate``, the mean
        over the steps; ``validation_loss`` with early stopping, which has nothing of
        ``neighbors``; and ``seconds``.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names of X, if they were all strings.

    See Also
    --------
    sklearn.decomposition.PCA : Linear features; the baseline to beat.
    sklearn.mixture.BayesianGaussianMixture : Gaussian components under a Dirichlet prior.

    References
    ----------
    F. Ye and A. G. Bors, "Mixtures of Variational Autoencoders", IPTA 2020,
    https://doi.org/10.1109/IPTA50016.2020.9286619

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import LinearSVC
    >>> from skmvae import MVAETransformer
    >>> X, y = load_digits(return_X_y=True)
    >>> mvae = MVAETransformer(k=2, latent_dim=5, max_iter=10, random_state=0)
    >>> pipe = make_pipeline(mvae, LinearSVC(random_state=0)).fit(X[:1000], y[:1000])
    >>> pipe.score(X[1000:], y[1000:]) > 0.85  # of ten columns
    True
    """

    # Codes are the only input of inverse_transform: there is nothing to route to it.
    __metadata_request__inverse_transform: ClassVar[dict[str, str]] = {"Z": UNUSED}

    # Link behind the question mark of the HTML representation.
    _doc_link_module = "skmvae"
    _doc_link_template = (
        "https://skmvae.readthedocs.io/en/latest/generated/{estimator_module}.{estimator_name}.html"
    )

    _state: NetworkState
    _split_seed: int
    _training: TrainingState  # after partial_fit alone
    weights_: np.ndarray
    history_: dict[str, list[float]]
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        k: int = 4,
        latent_dim: int = 20,
        *,
        beta: float = 1.0,
        kl_weight: float = 1.0,
        objective: str = "melbo",
        likelihood: str = "gaussian",
        weight_concentration_prior: float | None = None,
        architecture: Any = None,
        neighbor_weight: float = 0.0,
        n_neighbors: int = 10,
        max_iter: int = 50,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        learning_rate_schedule: str = "trapezoid",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        checkpoint_dir: str | PathLike[str] | None = None,
        precision: str = "auto",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.k = k
        self.latent_dim = latent_dim
        self.beta = beta
        self.kl_weight = kl_weight
        self.objective = objective
        self.likelihood = likelihood
        self.weight_concentration_prior = weight_concentration_prior
        self.architecture = architecture
        self.neighbor_weight = neighbor_weight
        self.n_neighbors = n_neighbors
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_schedule = learning_rate_schedule
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.checkpoint_dir = checkpoint_dir
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, as in scikit-learn; ``architecture__...`` sets those of it."""
        nested = any(name.startswith("architecture__") for name in params)
        if nested and params.get("architecture", self.architecture) is None:
            params["architecture"] = MLP()
        return super().set_params(**params)

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Train the mixture on X.

        Ctrl-C after an epoch has ended leaves the estimator fitted with the last finished epoch
        (the best one, with ``early_stopping``) and raises KeyboardInterrupt. scikit-learn's
        callbacks (``set_callbacks``, from scikit-learn 1.9 on) see each epoch as a task.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data; NaN where a value is missing. Never modified; a float32 or float64 array
            is not copied either, and a sparse matrix is made dense a few rows at a time.
        y : None
            Ignored.

        Returns
        -------
        self : MVAETransformer

        Raises
        ------
        DivergenceError
            If a term of the loss or a network parameter becomes NaN or infinite.
        torch.OutOfMemoryError, MemoryError
            If the memory of the GPU, or of the computer, does not suffice; the message says what
            helps.
        """
        return self._fit_in(ALONE, X, y)

    @with_callbacks
    def _fit_in(self, group: Group, X: ArrayLike, y: Any) -> Self:
        """``fit`` with the other ranks of a group, where X has this rank's rows."""

        def attributes(trained: Trained) -> dict[str, Any]:
            return self._attributes_of(trained, previous, rows, columns)

        with self._shortage_explained(
            "fit",
            "Lower batch_size or k, choose narrower layers (architecture), or, on a GPU, set "
            "device='cpu'.",
        ):
            continues = self._continues()
            rows, columns = group.agree(lambda: self._check_training_rows(X, continues=continues))
            previous = self._previous_fit(rows, None) if continues else None
            seed = None if self.random_state is None else draw_seed(self.random_state)
            checkpoint = checkpoint_of(self, rows, previous, seed, group)
            observers: list[Observer] = []
            if group.rank == 0 and self.verbose:
                observers.append(Reporter(int(self.max_iter)))
            if group.rank == 0:
                observers.append(FitTask(self, X, y, attributes))
            result = fit(
                rows,
                settings_of(self),
                seed=seed,
                previous=previous,
                observers=observers,
                checkpoint=checkpoint,
                group=group,
            )
            fitted, interruption = uninterrupted(lambda: attributes(result.trained))
            n_usable = int(has_values(rows).sum())
            fitted |= _weighted(fitted, group.mean(fitted["weights_"], n_usable))
        return self._become(fitted, result.interruption or interruption)

    @available_if(_trains_on_all_rows)
    def partial_fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Train once more, for one epoch on the rows of X alone.

        For rows that come in chunks, because there are too many of them or because more come later.
        The first call sets ``mean_`` and ``scale_``, the units of all that follows: give it a chunk
        that is like the rest. Optimizer and generators go on where the last call left them, also
        after the estimator was saved and loaded. After ``fit`` the first call goes on from its
        network; ``fit`` begins anew.

        A stream has no known end, so under "trapezoid" the learning rate is a third of
        ``learning_rate`` throughout, and Adam's betas are the usual ones. ``batch_size=None``
        follows the rows of the chunk, and ``weights_`` is a moving mean over the chunks. Under
        "mixture" and "clusters" components start from the parts of the first chunk, which later
        ones cannot add to.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The chunk, of one row or more; its rows are shuffled.
        y : None
            Ignored.

        Returns
        -------
        self : MVAETransformer

        Raises
        ------
        ValueError
            If all rows of the first chunk are the same, or if ``k`` or another parameter that the
            network depends on has changed.
        AttributeError
            With ``early_stopping=True``: a chunk has no rows to hold out.
        """
        is_first = not self.__sklearn_is_fitted__()
        with self._shortage_explained(
            "partial_fit",
            "Lower batch_size, give fewer rows at a time, or, on a GPU, set device='cpu'.",
        ):
            rows, columns = self._check_training_rows(X, continues=not is_first)
            training = vars(self).get("_training")
            previous = None if is_first else self._previous_fit(rows, training)
            needs_spread = is_first and LIKELIHOODS[self.likelihood].IS_SCALED
            if needs_spread and has_values(rows).any() and is_constant(rows):
                raise ValueError(
                    "The first chunk of partial_fit sets the units of all that follow, but its "
                    f"rows ({rows.shape[0]}) are all the same. Begin with a chunk of rows that "
                    "differ."
                )
            schedule = ENDLESS[self.learning_rate_schedule]
            settings = settings_of(self, max_iter=1, schedule=schedule)
            observers = [Reporter(1)] if self.verbose else []
            seed = draw_seed(self.random_state)
            result = fit(rows, settings, seed=seed, previous=previous, observers=observers)
            if result.training is None and result.interruption is not None:
                raise result.interruption  # before the moments that belong to the parameters
            fitted, interruption = uninterrupted(
                lambda: self._attributes_of(result.trained, previous, rows, columns)
            )
        if previous is not None:
            # A moving mean: a chunk need not have all parts, or have their shares.
            step = max(_LEAST_STEP, 1.0 / (previous.n_epochs + 1))
            change = step * (fitted["weights_"] - previous.weights)
            fitted |= _weighted(fitted, previous.weights + change)
        fitted["_training"] = result.training
        return self._become(fitted, result.interruption or interruption)

    def _become(self, attributes: dict[str, Any], interruption: KeyboardInterrupt | None) -> Self:
        """Take all attributes at once, and raise the Ctrl-C that came meanwhile."""
        self.__dict__ = attributes
        if interruption is not None:
            raise interruption
        return self

    def _continues(self) -> bool:
        """Whether ``fit`` goes on from the parameters, units and columns of an earlier one."""
        return bool(self.warm_start) and self.__sklearn_is_fitted__()

    def _check_training_rows(self, X: ArrayLike, continues: bool) -> tuple[Any, dict[str, Any]]:
        """Rows to train on, and the attributes that name their columns."""
        check_parameters(self, RULES)
        rows, columns = check_new_rows(self, X, reset=not continues)
        self._check_support(
            self.likelihood,
            rows,
            "Scale it, for example with sklearn.preprocessing.MinMaxScaler(clip=True), or use "
            "likelihood='gaussian'.",
        )
        return rows, columns

    def _check_support(self, likelihood: str, X, remedy: str) -> None:
        if (support := LIKELIHOODS[likelihood].SUPPORT) is not None:
            check_range(f"likelihood={likelihood!r}", value_range(X), support, remedy)

    def _previous_fit(self, rows, training: TrainingState | None) -> PreviousFit:
        labels = None
        if self.objective in OF_PARTS and training is None:
            inference = Inference(self._state, resolve_device(self.device))
            labels = inference.mixing_weights(rows).argmax(axis=1)
        return PreviousFit(
            self._state, training, self.n_iter_, self._split_seed, self.weights_, labels
        )

    def _attributes_of(
        self, trained: Trained, previous: PreviousFit | None, X, columns: dict[str, Any]
    ) -> dict[str, Any]:
        """The parameters and what a fit leaves, without what an earlier one has left."""
        kept = {n: v for n, v in self.__dict__.items() if n not in ("_training", *COLUMNS)}
        earlier = [] if previous is None else records_of(self.history_)
        fitted = {
            **kept,
            **columns,
            "_state": trained.state,
            "_split_seed": trained.split_seed,
            "history_": history_of([*earlier, *trained.records]),
        }
        weights = Inference(trained.state, resolve_device(self.device)).mean_weights(X)
        return fitted | _weighted(fitted, weights)

    def _shortage_explained(self, method: str, remedy: str) -> AbstractContextManager[None]:
        return out_of_memory_explained(
            f"{method} ran out of memory with device={self.device!r}, "
            f"batch_size={self.batch_size} and k={self.k}. {remedy}"
        )

    def transform(self, X: ArrayLike) -> Any:  # a data frame after set_output
        """Posterior means of the codes of all components.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to encode. With the Bernoulli likelihood too they may leave [0, 1].

        Returns
        -------
        Z : ndarray of shape (n_samples, k * latent_dim)
            Component-major: columns ``i * latent_dim`` to ``(i + 1) * latent_dim - 1`` are the code
            of component i. Computed in float32 for float32 input, in float64 for any other. The
            other rows of X change the code of a row by rounding alone: by at most about 1e-5 of the
            largest code in float32, 1e-12 in float64.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skmvae import MVAETransformer
        >>> X = load_iris(as_frame=True).data
        >>> mvae = MVAETransformer(k=2, latent_dim=1, max_iter=2).set_output(transform="pandas")
        >>> mvae.fit_transform(X).columns.tolist()
        ['mvaetransformer0', 'mvaetransformer1']
        """
        return self._inference().codes(check_rows(self, X, reset=False))

    def mixing_weights(self, X: ArrayLike) -> np.ndarray:
        """Expected mixing weights E[w | x] (equation 2).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        weights : ndarray of shape (n_samples, k)
            Positive; each row sums to one.
        """
        return self._inference().mixing_weights(check_rows(self, X, reset=False))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Index of the component with the largest expected mixing weight.

        Whether components are clusters of the data depends on ``objective``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        component : ndarray of shape (n_samples,), int64
            In [0, k); the first of equal weights.

        Examples
        --------
        Two clouds far apart become two components:

        >>> import numpy as np
        >>> from skmvae import MVAETransformer
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(400, 5)) + np.repeat([[-9.0], [9.0]], 200, axis=0)
        >>> mvae = MVAETransformer(k=2, latent_dim=2, objective="clusters", random_state=0)
        >>> component = mvae.fit(X).predict(X)
        >>> bool((component[:200] == component[0]).all() and component[0] != component[200])
        True
        """
        return self.mixing_weights(X).argmax(axis=1)

    def reconstruct(self, X: ArrayLike, component: int | None = None) -> np.ndarray:
        """Encode and decode: the mixture's reconstruction, or that of one component alone.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        component : int, default=None
            None mixes the decoders' outputs with their expected weights (equation 5). An int in
            [0, k) gives weight 1 to that component, as in Figure 2 of the paper.

        Returns
        -------
        X_reconstructed : ndarray of shape (n_samples, n_features)
            In the units of X.
        """
        inference = self._inference()
        check_value("component", component, optional(index_below(inference.state.k)))
        return inference.reconstruct(check_rows(self, X, reset=False), component)

    def impute(self, X: Any, n_draws: int = 100, random_state: RandomState = None) -> Any:
        """Fill missing values with what the mixture expects of them, given those observed.

        NaN are replaced by E[x | observed part of x], an average over components and codes by
        self-normalised importance sampling (section 3.3 of Mattei and Frellsen 2019). All else
        stays as it is, bit for bit.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        n_draws : int, default=100
            Codes drawn for each component, the same for all rows and in every call; with fewer, it
            is faster and less exact.
        random_state : int, RandomState instance or None, default=None
            Seed of one draw from p(x | observed part of x), noise included, in place of the mean:
            several of them are a multiple imputation. None gives the mean, which has no seed.

        Returns
        -------
        X_filled : data frame, ndarray or CSR of shape (n_samples, n_features)
            A data frame of pandas or polars, or a table of pyarrow, if X is one, with its names,
            its index and the types of its columns, except that integer columns with holes become
            floats. Float32 arrays stay float32. A column of which ``fit`` saw no value is filled
            with 0.

        References
        ----------
        P.-A. Mattei and J. Frellsen, "MIWAE: Deep generative modelling and imputation of incomplete
        data sets", ICML 2019.

        Examples
        --------
        Half of the measurements of each flower are gone, and found again from the others:

        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> from skmvae import MVAETransformer
        >>> X = load_iris().data
        >>> missing = np.random.default_rng(0).random(X.shape) < 0.5
        >>> holes = np.where(missing, np.nan, X)
        >>> mvae = MVAETransformer(latent_dim=2, objective="elbo", max_iter=200, random_state=0)
        >>> filled = mvae.fit(holes).impute(holes)
        >>> error, spread = (filled - X)[missing].std(), (X - X.mean(axis=0))[missing].std()
        >>> bool(error < 0.6 * spread)
        True
        """
        inference = self._inference()
        check_value("n_draws", n_draws, at_least(1))
        check_value("random_state", random_state, RULES["random_state"])
        rows = check_rows(self, X, reset=False)
        self._check_support(inference.state.likelihood, rows, _SCALE_AS_IN_TRAINING)
        numbers = numbers_of_incomplete(rows)
        seed = None if random_state is None else draw_seed(random_state)
        return with_filled(X, rows, numbers, inference.impute(rows[numbers], n_draws, seed))

    def inverse_transform(self, Z: ArrayLike) -> np.ndarray:
        """Decode codes to rows.

        The mixing weights are not among the codes. Each component decodes its own code, each
        encoder rates its own decoder's output by the concentration that it gives to it, and the
        ratings, normalised, are the weights.

        Parameters
        ----------
        Z : array-like of shape (n_samples, k * latent_dim)
            Codes as ``transform`` returns them.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            In the units of the training data.
        """
        inference = self._inference()
        k, latent_dim = inference.state.k, inference.state.latent_dim
        return inference.decode(check_codes(self, Z, k=k, latent_dim=latent_dim))

    def sample(
        self,
        n_samples: int = 1,
        random_state: RandomState = None,
        component: int | None = None,
        *,
        noise: bool = False,
        return_component: bool = False,
    ) -> Any:  # a tuple with return_component
        """Draw new rows from the density that ``score_samples`` bounds.

        A component i is drawn with its share, which is ``weights_[i]``, then its code
        z_i ~ N(0, I), and the row is y_i, what its decoder makes of that. Under
        ``objective="averaged"`` the model is another, and the row is sum_i w_i y_i for
        w ~ Dir(c, ..., c) and a code of each component (equations 2 to 5). Models that were saved
        before components had shares have equal ones.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws; None takes entropy from the operating system.
        component : int, default=None
            None draws the component of each row. An int in [0, k) is that of all.
        noise : bool, default=False
            Draw x from p(x | y), in place of y itself, which is its mean: then rows have the
            density that ``score_samples`` bounds.
        return_component : bool, default=False
            Return the component of each row too, as scikit-learn's mixtures always do; here most
            callers want rows alone.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), float64
            In the units of the training data.
        component : ndarray of shape (n_samples,), int64
            Only with ``return_component``.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skmvae import MVAETransformer
        >>> mvae = MVAETransformer(k=2, latent_dim=2, objective="mixture", random_state=0)
        >>> mvae.fit(load_iris().data)
        MVAETransformer(k=2, latent_dim=2, objective='mixture', random_state=0)
        >>> rows, component = mvae.sample(100, 0, noise=True, return_component=True)
        >>> rows.shape, component.shape
        ((100, 4), (100,))
        """
        inference = self._inference()
        check_value("n_samples", n_samples, at_least(1))
        check_value("random_state", random_state, RULES["random_state"])
        check_value("component", component, optional(index_below(inference.state.k)))
        check_value("noise", noise, FLAG)
        check_value("return_component", return_component, FLAG)
        if return_component and component is None and inference.state.shares is None:
            raise ValueError(
                "return_component=True, but rows blend all components under "
                "objective='averaged'. Set return_component=False, or choose a component."
            )
        rng = np.random.default_rng(draw_seed(random_state))
        rows, components = inference.generate(n_samples, rng, component, noise)
        return (rows, components) if return_component else rows

    def prune(self, threshold: float = 0.01) -> Self:
        """Copy of this estimator without the components of little weight.

        The other components stay as they are, in their order, and mixing weights keep their
        proportions. The copy can be trained further with ``warm_start=True``. Each array of an
        ``architecture`` of your own is cut along its first axis that grows with k, which must hold
        the components one after the other.

        Parameters
        ----------
        threshold : float, default=0.01
            Components with an entry of ``weights_`` below it, a number in [0, 1), are left out.
            Every component has a weight of about 0.001 in every row.

        Returns
        -------
        pruned : MVAETransformer
            Fitted, sharing nothing with this one, which is unchanged. Its ``k`` is the number of
            components kept, and its ``weights_`` are theirs divided by their sum.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skmvae import MVAETransformer
        >>> X = load_iris().data
        >>> mvae = MVAETransformer(k=3, latent_dim=2, max_iter=2, random_state=0).fit(X)
        >>> mvae.prune(threshold=sorted(mvae.weights_)[1]).k
        2
        """
        check_is_fitted(self)
        check_value("threshold", threshold, in_interval(0.0, 1.0, closed="left"))
        pruned = copy.deepcopy(self)
        pruned.__dict__.pop("_training", None)
        state, weights = pruned._state, pruned.weights_
        kept = np.flatnonzero(weights >= threshold)
        if not kept.size:
            raise ValueError(
                f"threshold={threshold!r} is above all weights_, the largest of which is "
                f"{weights.max():.4g}. Lower threshold below that, so that a component is kept."
            )
        pruned.k = len(kept)
        if pruned.k < state.k:
            prior = state.weight_concentration_prior
            if pruned.weight_concentration_prior is None:
                prior = 1.0 / pruned.k
            pruned._state = state.with_components(kept, prior)
            pruned.weights_ = weights[kept] / weights[kept].sum()
        return pruned

    def score_samples(self, X: ArrayLike, n_draws: int = 16) -> np.ndarray:
        """Lower bound of log p(x) of each row, comparable over all parameters.

        The importance-weighted bound (Burda et al. 2016) of the mixture's log density, in nats
        and in the units of X. The choice of a component is summed out, each having the share
        ``weights_`` (equal ones under "averaged", and in models saved before they had any). It is a
        valid bound whatever ``objective`` trained the model and has no term of ``beta`` or
        ``kl_weight``. With the Bernoulli likelihood it is a log probability for binary X; for
        values between 0 and 1 it only compares models of that likelihood with each other.

        With missing values it bounds log p of what was observed of a row. Each value more changes
        it, so compare rows with the same holes, or models on the same rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        n_draws : int, default=16
            Codes drawn for each component; more give a tighter bound and take longer. The draws
            are the same for all rows and in every call.

        Returns
        -------
        bound : ndarray of shape (n_samples,)
            In nats.

        Examples
        --------
        Flowers score above rows that are none:

        >>> from sklearn.datasets import load_iris
        >>> from skmvae import MVAETransformer
        >>> X = load_iris().data
        >>> mvae = MVAETransformer(k=2, latent_dim=2, random_state=0).fit(X)
        >>> bool(mvae.score_samples(X).min() > mvae.score_samples(10 * X).max())
        True
        """
        inference = self._inference()
        check_value("n_draws", n_draws, at_least(1))
        X = check_rows(self, X, reset=False)
        self._check_support(inference.state.likelihood, X, _SCALE_AS_IN_TRAINING)
        return inference.log_likelihood_bound(X, n_draws)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean of ``score_samples(X)``: higher is better, whatever ``beta`` and ``k``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : None
            Ignored.

        Returns
        -------
        score : float
            In nats per row.
        """
        return float(np.mean(self.score_samples(X), dtype=np.float64))

    def save(self, path: str | PathLike[str]) -> None:
        """Write a model file: safetensors, which holds no code and needs no Python to be read.

        It has the parameters, the network, ``history_`` and what ``partial_fit`` goes on from, but
        no callbacks and nothing of ``set_output``. What is at ``path`` is replaced at once, when
        the new file is whole, and keeps its mode.

        Parameters
        ----------
        path : path-like
            Usually ending in ``.safetensors``.

        Raises
        ------
        ValueError
            If a parameter cannot be written as plain values, such as a RandomState.
        OSError
            If the file cannot be written; what was there is still there.
        ImportError
            If safetensors is not installed (``pip install 'skmvae[safe]'``).

        Examples
        --------
        >>> import tempfile
        >>> from sklearn.datasets import load_iris
        >>> import skmvae
        >>> mvae = skmvae.MVAETransformer(k=3, latent_dim=2, max_iter=2).fit(load_iris().data)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mvae.save(f"{folder}/iris.safetensors")
        ...     loaded = skmvae.load(f"{folder}/iris.safetensors")
        >>> bool((loaded.weights_ == mvae.weights_).all())
        True
        """
        check_is_fitted(self)
        if type(self) is not MVAETransformer:
            raise TypeError(
                f"a model file holds an MVAETransformer, not a {type(self).__name__}; save that "
                "with joblib."
            )
        write_model(at_home(path), self.get_params(deep=False), self.__dict__)

    @property
    def mean_(self) -> np.ndarray:
        return self._state.mean

    @property
    def scale_(self) -> float:
        return self._state.scale

    @property
    def noise_variance_(self) -> float | None:
        return self._state.noise_variance

    @property
    def n_iter_(self) -> int:
        return len(self.history_["loss"])

    def _inference(self) -> Inference:
        check_is_fitted(self)
        # One read of the state: another thread may be fitting this estimator.
        return Inference(self._state, inference_device(self.device))

    @property
    def _n_features_out(self) -> int:
        return self._state.n_codes

    def __sklearn_is_fitted__(self) -> bool:
        return "_state" in vars(self)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __getstate__(self):
        """All of an unfitted estimator; a fitted one without callbacks, which may hold locks.

        Paths are plain strings, which every system and skops can read.
        """
        state = super().__getstate__()
        if isinstance(state["checkpoint_dir"], PathLike):
            state = state | {"checkpoint_dir": fspath(state["checkpoint_dir"])}
        return without_callbacks(state) if self.__sklearn_is_fitted__() else state

    def __setstate__(self, state):
        """Restore a saved estimator; ValueError, naming what is wrong, unless it is whole."""
        state = upgraded(state)
        check_saved(state, self._get_param_names(), type(self).__name__)
        super().__setstate__(state)
