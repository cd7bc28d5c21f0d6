"""Which frame does the user mean? Anything tabular → a polars frame; its memory is shared where the format allows, never changed.

Order of levels: a pandas or Arrow categorical keeps the order of its categories (as an R factor does) and becomes an Enum; a polars
Categorical has no order of its own and is sorted like strings when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ..errors import DataError, one

_ACCEPTED = "Give a polars, pandas or pyarrow frame, or a dict of columns."


def as_frame(data: Any) -> pl.DataFrame:
    """A polars frame of the same rows and columns; a polars frame is returned as it is.

    raises  DataError for what is not a table, or has columns that cannot be read
    """
    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, pl.LazyFrame):
        try:
            return data.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"the lazy frame cannot be collected: {str(error).splitlines()[0]}", where="data") from error
    if isinstance(data, Mapping):
        return _from_columns(data)
    return _from_foreign(data)


def _from_columns(data: Mapping[Any, Any]) -> pl.DataFrame:
    columns = [_column(name, values) for name, values in data.items()]
    lengths = {len(c) for c in columns}
    if len(lengths) > 1:
        each = ", ".join(f"{c.name} {len(c)}" for c in columns[:8])
        raise DataError(f"the columns have different lengths: {each}.", where="data")
    return pl.DataFrame(columns)


def _column(name: Any, values: Any) -> pl.Series:
    where = f"data column {name!r}"
    if not isinstance(name, str):
        raise DataError("a column's name must be a string.", where=where)
    if isinstance(values, pl.Series):
        return values.alias(name)
    if isinstance(values, (str, bytes, Mapping, set)) or not isinstance(values, (list, tuple, range, np.ndarray)):
        if isinstance(values, (str, bytes, Mapping, set, int, float, bool)) or values is None:
            raise DataError(f"{one(values)} is not a column.", where=where, do="Give a list or an array, one value for each row.")
        return _from_foreign_series(name, values)
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise DataError(f"the array has {values.ndim} axes, a column has one.", where=where)
    kinds = set() if isinstance(values, np.ndarray) else {type(v) for v in values} - {type(None)}
    if len(kinds) > 1 and all(issubclass(kind, (int, float, np.number)) and kind is not bool for kind in kinds):
        values = [None if v is None else float(v) for v in values]  # polars would take the type of the first for all
    try:
        return pl.Series(name, values)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        raise DataError("its values are of mixed or unknown types.", where=where, do="Use numbers only, or strings only.") from None


def _from_foreign(data: Any) -> pl.DataFrame:
    """pandas, pyarrow and whatever else narwhals reads."""
    import narwhals as nw

    try:
        frame = nw.from_native(data)
        if isinstance(frame, nw.LazyFrame):
            frame = frame.collect()
        names = frame.columns
    except TypeError:
        raise DataError(f"{one(data)} is not a table.", where="data", do=_ACCEPTED) from None
    except nw.exceptions.DuplicateError:
        names = [str(name) for name in data.columns]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the column {twice!r} is there twice.", where="data", do="Rename one of them.") from None
    labels = [str(name) for name in names]
    if len(set(labels)) < len(labels):
        twice = next(n for n in labels if labels.count(n) > 1)
        raise DataError(f"the column {twice!r} is there twice.", where="data", do="Rename one of them.")
    return pl.DataFrame([_series(label, frame.get_column(name)) for label, name in zip(labels, names)])


def _from_foreign_series(name: str, values: Any) -> pl.Series:
    import narwhals as nw

    try:
        series = nw.from_native(values, series_only=True)
    except TypeError:
        what = f"{one(values)} is not a column."
        raise DataError(what, where=f"data column {name!r}", do="Give a list, an array or a series.") from None
    return _series(name, series)


def _series(name: str, series: Any) -> pl.Series:
    """One narwhals series; numbers without nulls are handed over as an array, categories keep their order."""
    import narwhals as nw

    if series.dtype in (nw.Categorical, nw.Enum):
        return _categories(name, series)
    if series.dtype.is_numeric() and not series.is_null().any():
        return pl.Series(name, series.to_numpy())
    pandas_alone = series.implementation.is_pandas_like() and nw.dependencies.get_pyarrow() is None
    if series.dtype == nw.Object or (pandas_alone and not series.dtype.is_temporal()):
        gone = series.is_null().to_list()
        return _column(name, [None if missing else v for v, missing in zip(series.to_list(), gone)])
    return series.to_polars().alias(name)


def _categories(name: str, series: Any) -> pl.Series:
    """A categorical as an Enum of all its categories, in their order."""
    native = series.to_native()
    if series.implementation.is_pandas_like():
        categories = [str(c) for c in native.cat.categories.tolist()]
        codes = native.cat.codes.to_numpy().astype(np.int64)
    else:  # Arrow
        native = native.unify_dictionaries()
        categories = [str(c) for c in native.chunk(0).dictionary.to_pylist()] if native.num_chunks else []
        place = {c: i for i, c in enumerate(categories)}
        codes = np.array([-1 if v is None else place[str(v)] for v in series.to_list()], dtype=np.int64)
    if len(set(categories)) < len(categories):
        raise DataError("two of its categories have the same name.", where=f"data column {name!r}")
    levels = pl.Series(name, [*categories, None], dtype=pl.Enum(categories))
    return levels.gather(pl.Series(np.where(codes < 0, len(categories), codes)))
