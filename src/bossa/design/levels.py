"""Which levels does a factor have, and which row has which? Columns of a frame as floats, or as codes among levels.

Codes: 0 … G−1, MISSING (−1) for null or NaN, UNSEEN (−2) for a value that was no level at the fit. Nothing is copied that the frame
can lend.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from attrs import frozen

from ..errors import DataError, UnknownLevel, listing
from ..types import Array, Floats

MISSING, UNSEEN = -1, -2
SHORT = 1_000  # below this Python or NumPy is quicker than starting polars' engine


@frozen(eq=False)
class Levels:
    """values (original), labels (as shown), kind "text" | "number" | "bool"."""

    kind: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    def index(self, level: Any, where: str) -> int:
        """Place of a level given by value or label."""
        for known in (self.values, self.labels):
            if level in known:
                return known.index(level)
        if str(level) in self.labels:
            return self.labels.index(str(level))
        raise UnknownLevel(level, where, self.labels, where="formula")


def column_kind(series: pl.Series, where: str) -> str:
    """ "number" | "bool" | "text" | "null"."""
    dtype = series.dtype
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Boolean:
        return "bool"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if dtype == pl.Null:
        return "null"
    do = "Turn it into a number first (days since a date, say)." if dtype.is_temporal() else "Use a column of numbers, strings or booleans."
    raise DataError(f"column {series.name!r} has type {dtype}, which no term can use.", where=where, do=do)


def as_floats(series: pl.Series) -> Floats:
    """(n,) float64, NaN where null; the frame's own memory where it is float64 without nulls."""
    if series.dtype != pl.Float64:
        series = series.cast(pl.Float64)
    return series.to_numpy()


def number_label(value: float) -> str:
    return f"{value:.15g}"


def text_levels(series: pl.Series) -> list[str]:
    """All levels: an Enum's categories in their order, else the values sorted bytewise."""
    if isinstance(series.dtype, pl.Enum):
        return series.dtype.categories.to_list()
    return sorted(occurring_texts(series))  # code points, the order of UTF-8 bytes


def occurring_texts(series: pl.Series) -> set[str]:
    values = series if len(series) <= SHORT else series.unique()
    return set(values.to_list()) - {None}


def text_codes(series: pl.Series, labels: tuple[str, ...]) -> Array:
    """Codes (n,) of strings, a Categorical or an Enum among `labels`."""
    if len(series) <= SHORT:
        place: dict[str | None, int] = {label: i for i, label in enumerate(labels)} | {None: MISSING}
        return np.array([place.get(v, UNSEEN) for v in series.to_list()], dtype=np.int32)
    n_null = series.null_count()
    if isinstance(series.dtype, pl.Enum):
        own = series.dtype.categories.to_list()
        physical = series.to_physical()
        if own != list(labels):
            at = {label: i for i, label in enumerate(labels)}
            table = np.array([at.get(label, UNSEEN) for label in own] + [MISSING], dtype=np.int32)
            return table[physical.cast(pl.Int64).fill_null(len(own)).to_numpy() if n_null else physical.to_numpy()]
    else:
        text = series if series.dtype == pl.String else series.cast(pl.String)
        physical = text.cast(pl.Enum(labels), strict=False).to_physical()
    if physical.null_count() == 0:
        return _signed(physical.to_numpy())
    codes = physical.cast(pl.Int32).fill_null(MISSING).to_numpy()
    if physical.null_count() > n_null:
        codes = np.where((codes < 0) & series.is_not_null().to_numpy(), UNSEEN, codes)
    return codes


def _signed(codes: Array) -> Array:
    """The same memory as signed integers where the largest code allows it."""
    signed = np.dtype(f"i{codes.dtype.itemsize}")
    return codes.view(signed) if codes.size == 0 or codes.max() <= np.iinfo(signed).max else codes.astype(np.int64)


def number_levels(values: Floats, integer: bool) -> tuple[Any, ...]:
    """The different values, sorted; whole numbers of an integer column as int."""
    different = np.unique(values) if len(values) <= SHORT else np.sort(pl.Series(values).unique().to_numpy())
    different = different[~np.isnan(different)]
    return tuple(int(v) for v in different) if integer else tuple(different.tolist())


def number_codes(values: Floats, levels: tuple[Any, ...]) -> Array:
    """Codes (n,) of numbers among `levels`."""
    known = np.array(levels, dtype=float)
    if not known.size:
        return np.where(np.isnan(values), MISSING, UNSEEN)
    low, high = known.min(), known.max()
    if high - low <= 8 * values.size and (known == np.floor(known)).all():  # whole numbers: a table is quicker than a search
        table = np.zeros(int(high - low) + 1, dtype=np.int32)
        table[(known - low).astype(np.intp)] = np.arange(known.size)
        codes = table[np.nan_to_num(np.clip(values, low, high) - low).astype(np.intp)]
    else:
        order = np.argsort(known).astype(np.int32)
        codes = order[np.minimum(np.searchsorted(known, values, sorter=order), known.size - 1)]
    wrong = known[codes] != values
    if wrong.any():
        codes[wrong] = np.where(np.isnan(values[wrong]), MISSING, UNSEEN)
    return codes


def reordered(name: str, given: list, used: set) -> list:
    """`levels=` as given; every value there must be among them."""
    gone = sorted(used - set(given), key=str)
    if gone:
        do = f"Name every level of the data, the reference first: {listing([*given, *gone])}."
        raise DataError(f"the levels of {name!r} leave out {', '.join(map(repr, gone[:5]))}.", where="model() levels=", do=do)
    return given


def rows_text(n: int) -> str:
    """ "1 row", "5 rows"."""
    return f"{n} row" if n == 1 else f"{n} rows"
