"""Ranges of hyperparameters and checks of input, with messages that say what to do."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

# Rounding may leave values that far outside of a support: MinMaxScaler gives up to 1 + 2e-16, or
# 1 + 1.2e-7 in float32. They are clipped where rows are used.
ROUNDING = 1e-6

# The names of dtypes, of NumPy and of all kinds of data frames, that hold dates and times, and of
# those that may hold anything.
_TIME_DTYPE = re.compile("date|time|duration|period", re.IGNORECASE)
_OBJECT_DTYPE = re.compile("object|categor|enum|dictionary|str", re.IGNORECASE)

# pandas' Timestamp, Timedelta and NaT are among them.
_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)

# A predicate and how to say it.
Rule = tuple[Callable[[Any], bool], str]


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def at_least(low: int) -> Rule:
    def predicate(value: Any) -> bool:
        return _is_int(value) and value >= low

    return predicate, f"an int >= {low}"


def in_interval(low: float, high: float, *, closed: str) -> Rule:
    def predicate(value: Any) -> bool:
        if not _is_real(value):
            return False
        above = value >= low if closed in ("left", "both") else value > low
        below = value <= high if closed in ("right", "both") else value < high
        return above and below

    left = "[" if closed in ("left", "both") else "("
    right = "]" if closed in ("right", "both") else ")"
    return predicate, f"a number in {left}{low:g}, {high:g}{right}"


def index_below(stop: int) -> Rule:
    def predicate(value: Any) -> bool:
        return _is_int(value) and 0 <= value < stop

    return predicate, f"an int in [0, {stop})"


def one_of(options: Iterable[str]) -> Rule:
    names = tuple(options)
    return lambda value: isinstance(value, str) and value in names, f"one of {names}"


def optional(rule: Rule) -> Rule:
    predicate, description = rule
    return lambda value: value is None or predicate(value), f"None or {description}"


def check_parameters(owner: Any, rules: Mapping[str, Rule]) -> None:
    """Raise ValueError for the first parameter of ``owner`` that breaks its rule."""
    for name, rule in rules.items():
        check_value(f"The {name!r} parameter of {type(owner).__name__}", getattr(owner, name), rule)


def check_value(what: str, value: Any, rule: Rule) -> None:
    """Raise ValueError if ``value`` breaks ``rule``."""
    predicate, description = rule
    if not predicate(value):
        raise ValueError(f"{what} must be {description}. Got {value!r} instead.")


def are_sizes(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(_is_int(v) and v >= 1 for v in value)


# scikit-learn's attributes that say which columns were seen in fit.
COLUMNS = ("n_features_in_", "feature_names_in_")

FLAG: Rule = (lambda value: isinstance(value, bool | np.bool_), "a bool")


def of_type(types: tuple[type, ...], description: str) -> Rule:
    return lambda value: isinstance(value, types), description


def check_rows(estimator: Any, X: Any, *, reset: bool) -> Any:
    """X as a 2-d array of float64 or float32, or CSR; uncopied where it is one already.

    It is finite, or NaN where a value is missing. Anything else becomes float64: rounded to float32
    before it is centred, a large offset would take the digits with it.
    """
    X = _without_loss(X, "X")
    # Overflow in a cast or in a sum is found and named; NumPy need not warn of it too.
    with np.errstate(over="ignore", invalid="ignore"):
        return validate_data(
            estimator,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            accept_sparse="csr",
            ensure_all_finite="allow-nan",
        )


def check_new_rows(estimator: Any, X: Any, *, reset: bool) -> tuple[Any, dict[str, Any]]:
    """X as ``check_rows`` gives it, and the attributes that say which columns were seen.

    Unlike there, the estimator stays as it is.
    """
    twin = object.__new__(type(estimator))
    vars(twin).update(vars(estimator))
    X = check_rows(twin, X, reset=reset)
    return X, {name: vars(twin)[name] for name in COLUMNS if name in vars(twin)}


def check_codes(estimator: Any, Z: Any, *, k: int, latent_dim: int) -> np.ndarray:
    """Z as a finite 2-d array with the columns that transform gives."""
    Z = _without_loss(Z, "Z")
    Z = check_array(Z, dtype=[np.float64, np.float32], estimator=estimator, input_name="Z")
    if Z.shape[1] != k * latent_dim:
        raise ValueError(
            f"Z has {Z.shape[1]} columns; expected k * latent_dim = {k} * {latent_dim} = "
            f"{k * latent_dim}, the columns that transform returns."
        )
    return Z


def check_range(
    what: str, found: tuple[float, float], support: tuple[float, float], remedy: str
) -> None:
    """Raise ValueError if X leaves the support of its likelihood by more than rounding does."""
    (low, high), (least, most) = found, support
    excess = max(least - low, high - most)
    if excess > ROUNDING:
        raise ValueError(
            f"{what} needs X in [{least:g}, {most:g}], but X spans [{low:g}, {high:g}] and leaves "
            f"it by {excess:.3g}. {remedy}"
        )


def is_lazy(X: Any) -> bool:
    """Whether X is a frame whose rows are not computed yet, such as a LazyFrame of polars."""
    return hasattr(type(X), "collect") and not hasattr(type(X), "__array__")


def column_names(X: Any) -> list[Any]:
    """Column names of a data frame or a pyarrow table; an empty list for an array or lazy frame."""
    return [] if is_lazy(X) else list(getattr(X, "column_names", getattr(X, "columns", [])))


def _without_loss(X: Any, name: str) -> Any:
    """X, unless NumPy would lose what it means, or refuse it without naming the cause."""
    if isinstance(X, np.ma.MaskedArray):
        X = X if X.dtype.kind in "fO" else X.astype(np.float64)
        return _without_loss(X.filled(np.nan), name)
    if isinstance(X, np.ndarray) and X.dtype.kind in "biuf":
        return X  # to look at dtypes by their names takes time that a call for one row notices
    if isinstance(X, torch.Tensor):
        if X.requires_grad or X.device.type != "cpu" or X.dtype == torch.bfloat16:
            raise TypeError(
                f"{name} is a torch tensor ({X.dtype}, {X.device}, "
                f"requires_grad={X.requires_grad}); call .detach().cpu().float().numpy() on it."
            )
        return X.numpy()
    if is_lazy(X):
        raise ValueError(
            f"{name} is a {type(X).__name__}, whose rows are not computed yet; call .collect() on "
            "it."
        )
    dtypes = _dtypes(X)
    for column, dtype in enumerate(dtypes):
        if _TIME_DTYPE.search(str(dtype)):
            raise _times(X, name, column)
    if isinstance(X, list | tuple) or any(_OBJECT_DTYPE.search(str(t)) for t in dtypes):
        _check_cells(X, name)
    return X


def _dtypes(X: Any) -> list[Any]:
    """The dtype of an array, or those of the columns of a data frame; none of a list."""
    if hasattr(X, "schema") and hasattr(X.schema, "types"):  # pyarrow
        return list(X.schema.types)
    if getattr(X, "ndim", 2) == 2 and hasattr(X, "dtypes"):
        return list(X.dtypes)
    return [X.dtype] if hasattr(X, "dtype") else []


def _check_cells(X: Any, name: str) -> None:
    """ValueError if one of the Python objects in X is a date, a time or pandas' NA.

    NumPy turns a datetime64 among them into nanoseconds and has a bare TypeError for the others.
    """
    if isinstance(X, list | tuple) and any(isinstance(row, np.ma.MaskedArray) for row in X):
        raise ValueError(
            f"{name} is a list of masked arrays, and their masks would be lost. Stack them with "
            "numpy.ma.stack."
        )
    try:
        cells = np.asarray(X)
    except Exception:  # of whatever type: scikit-learn names the cause
        return
    if cells.dtype.kind in "mM":
        raise _times(X, name, 0)
    if cells.dtype != object:
        return
    kinds = {type(cell) for cell in cells.flat}
    times = tuple(k for k in kinds if issubclass(k, _TIMES) or k.__name__ == "Period")
    if times:
        raise _times(X, name, _column_of(times, cells))
    if str in kinds and (text := _first_text(cells)):
        cell, column = text
        raise ValueError(
            f"could not convert string to float: {name} holds {cell!r} in column "
            f"{_label(X, column)}. Encode such columns first, for example with OneHotEncoder in a "
            "ColumnTransformer."
        )
    if missing := tuple(kind for kind in kinds if kind.__name__ == "NAType"):
        raise ValueError(
            f"{name} contains pandas.NA among Python objects, in column "
            f"{_label(X, _column_of(missing, cells))}. Make the column one of numbers, for example "
            "with .astype('Float64')."
        )


def _first_text(cells: np.ndarray) -> tuple[str, int] | None:
    """The first cell that is no number though it may be text, and its column."""
    for index, cell in np.ndenumerate(cells):
        if isinstance(cell, str):
            try:
                float(cell)
            except ValueError:
                return cell, index[-1]
    return None


def _column_of(kinds: tuple[type, ...], cells: np.ndarray) -> int:
    """The column of the first cell of one of these types."""
    return next(index[-1] for index, cell in np.ndenumerate(cells) if isinstance(cell, kinds))


def _times(X: Any, name: str, column: int) -> ValueError:
    return ValueError(
        f"{name} holds dates or times in column {_label(X, column)}; turn them into numbers first, "
        "for example seconds."
    )


def _label(X: Any, column: int) -> str:
    """How the user calls the column: by its name, or by its number."""
    names = column_names(X)
    return repr(names[column]) if names else str(column)
