"""Tables with their holes filled, in the container that they came in."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse


def numbers_of_incomplete(rows) -> np.ndarray:
    """The numbers of the rows, dense or CSR, that have a NaN."""
    if sparse.issparse(rows):
        return np.unique(rows.tocoo().row[np.isnan(rows.data)])
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(np.isnan(rows.sum(axis=1)))  # the sum of others may overflow
    return suspects[np.isnan(rows[suspects]).any(axis=1)]


def with_filled(X: Any, rows: Any, numbers: np.ndarray, values: np.ndarray) -> Any:
    """X with ``values`` (m, F) in place of NaN in the rows of these ``numbers`` (m,).

    ``rows`` is X as an array or CSR. A data frame stays one, and its columns without holes stay as
    they are; all else becomes what ``rows`` is.
    """
    if sparse.issparse(rows):
        return _sparse_with_filled(rows, numbers, values)
    filled = np.array(rows)
    filled[numbers] = np.where(np.isnan(rows[numbers]), values, rows[numbers])
    columns = np.flatnonzero(np.isnan(rows[numbers]).any(axis=0))
    if hasattr(X, "isetitem"):
        return _pandas_with_filled(X, np.isnan(rows), filled, columns)
    if hasattr(X, "with_columns"):
        return _polars_with_filled(X, filled, columns)
    if hasattr(X, "set_column"):
        return _pyarrow_with_filled(X, filled, columns)
    return filled


def _sparse_with_filled(rows, numbers: np.ndarray, values: np.ndarray):
    filled = rows.copy()
    filled.sum_duplicates()
    entries = filled.tocoo()
    holes = np.isnan(filled.data)
    places = np.searchsorted(numbers, entries.row[holes])
    filled.data[holes] = values[places, entries.col[holes]]
    return filled


def _pandas_with_filled(X, missing: np.ndarray, filled: np.ndarray, columns: np.ndarray):
    frame = X.copy()
    for i in columns:
        column, values = X.iloc[:, i], filled[:, i]
        if getattr(column.dtype, "kind", "O") == "f":
            own = getattr(column.dtype, "numpy_dtype", column.dtype)
            values = column.where(~missing[:, i], values.astype(own))
        frame.isetitem(i, values)
    return frame


def _polars_with_filled(X, filled: np.ndarray, columns: np.ndarray):
    series = []
    for i in columns:
        column = X.to_series(int(i))
        values = type(column)(column.name, filled[:, i])
        series.append(values.cast(column.dtype) if column.dtype.is_float() else values)
    return X.with_columns(series)


def _pyarrow_with_filled(X, filled: np.ndarray, columns: np.ndarray):
    import pyarrow as pa  # type: ignore[import-untyped]  # X is of it

    for i in columns:
        own = np.dtype(X.schema.types[i].to_pandas_dtype())
        values = filled[:, i].astype(own if own.kind == "f" else filled.dtype)
        X = X.set_column(int(i), X.schema.names[i], pa.array(values))
    return X
