"""What do described columns hold? `normal()`, `factor()`, `groups()` … of n rows → a frame, from one random stream.

The first column of groups is laid out in blocks of rows; every other column of levels is in random order: balanced over all rows, over
the groups of another column (`per=`), or inside each of them (`within=`). Arrays, series and numbers are columns as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Set, Sized
from typing import Any

import numpy as np
import polars as pl

from ..errors import DataError, OptionError, UnknownColumn
from ..state.distributions import Column, Factor, Groups, Normal, Uniform
from ..types import Ints, is_number, is_whole
from .data import as_frame

WHERE = "simulate()"


def row_count(columns: Mapping[str, Any], n: Any, data: pl.DataFrame | None) -> int:
    """How many rows: as n says, the data have, given columns are long, or groups(size=) add up to; all that say so must agree."""
    said: dict[str, int] = {}
    if n is not None:
        if not is_whole(n) or n < 1:
            do = "Give one number; several are for power=." if isinstance(n, (list, tuple, range, np.ndarray)) else ""
            raise OptionError(f"n={n!r} is not a whole number of at least 1.", where=WHERE, do=do)
        said["n="] = int(n)
    if data is not None:
        said["the data"] = data.height
    for name, what in columns.items():
        if isinstance(what, Groups) and what.size is not None:
            said[name] = what.count * what.size
        elif is_given(what):
            said[name] = len(what)
    if not said:
        raise OptionError("how many rows is not said.", where=WHERE, do="Give n=, or groups(…, size=…).")
    if len(set(said.values())) > 1:
        each = ", ".join(f"{name} {rows}" for name, rows in said.items())
        raise OptionError(f"the numbers of rows differ: {each}.", where=WHERE, do="Make them agree.")
    return next(iter(said.values()))


def is_given(what: Any) -> bool:
    """A column as it stands: an array, a series or a list; no description, no constant."""
    return isinstance(what, Sized) and not isinstance(what, (str, bytes, Mapping, Set, Column))


def draw_frame(columns: Mapping[str, Any], n: int, rng: np.random.Generator, data: pl.DataFrame | None = None) -> pl.DataFrame:
    """The columns, in the order given, after those of `data`.   raises  DataError, OptionError, UnknownColumn"""
    made: dict[str, pl.Series] = {} if data is None else {s.name: s for s in data.get_columns() if s.name not in columns}
    waiting = dict(columns)
    order = [*made, *columns]
    blocks = next((name for name, what in columns.items() if isinstance(what, Groups) and what.per is what.within is None), None)
    while waiting:
        ready = [name for name, what in waiting.items() if not needs(what) - made.keys()]
        if not ready:
            name, what = next(iter(waiting.items()))
            missing = next(iter(needs(what) - made.keys()))
            if missing in columns:
                raise OptionError(
                    f"{name!r} and {missing!r} are each said by way of the other.", where=WHERE, do="Drop one per= or within=."
                )
            raise UnknownColumn(missing, order, where=f"{WHERE} {name}=")
        for name in ready:
            made[name] = _column(name, waiting.pop(name), n, rng, made, in_blocks=name == blocks)
    return pl.DataFrame([made[name] for name in order] or [pl.Series("row", np.arange(1, n + 1))])  # a frame without columns has no rows


def needs(what: Any) -> set[str]:
    """Columns that per= and within= name."""
    if not isinstance(what, Column):
        return set()
    return {name for name in (what.per, getattr(what, "within", None)) if name is not None}


def _column(name: str, what: Any, n: int, rng: np.random.Generator, made: Mapping[str, pl.Series], *, in_blocks: bool) -> pl.Series:
    if is_number(what):
        return pl.Series(name, np.full(n, what))
    if not isinstance(what, Column):
        if not is_given(what):
            raise OptionError(
                f"{name}={what!r:.60} is no column.", where=WHERE, do="Use normal(), uniform(), factor(), values(), groups(), or an array."
            )
        return as_frame({name: what}).get_column(name)
    unit = None if what.per is None else _codes(made[what.per], name)
    m = n if unit is None else int(unit.max()) + 1
    if isinstance(what, Normal):
        drawn: Any = rng.normal(what.mean, what.sd, m)
    elif isinstance(what, Uniform):
        drawn = rng.uniform(what.low, what.high, m)
    else:
        drawn = _levels(name, what, m, rng, _unit_codes(made, name, what, unit), in_blocks)
    if unit is not None:
        drawn = drawn[unit]
    if isinstance(what, (Normal, Uniform)):
        return pl.Series(name, drawn)
    if isinstance(what, Factor) and what.numeric:
        return pl.Series(name, np.array(what.levels)[drawn])
    labels = what.levels if isinstance(what, Factor) else [f"{name}{i + 1}" for i in range(what.count)]
    return pl.Series(name, labels, dtype=pl.Enum(labels)).gather(drawn)


def _unit_codes(made: Mapping[str, pl.Series], name: str, what: Factor | Groups, unit: Ints | None) -> Ints | None:
    """Codes of the within= column, one for each row, or for each unit of per=."""
    if what.within is None:
        return None
    within = _codes(made[what.within], name)
    if unit is None:
        return within
    first = np.unique(unit, return_index=True)[1]
    if (within[first][unit] != within).any():
        raise OptionError(
            f"the groups of {what.per!r} do not lie inside those of {what.within!r}.", where=f"{WHERE} {name}=", do="Drop within=."
        )
    return within[first]


def _codes(series: pl.Series, name: str) -> Ints:
    """Codes (n,) of a column's different values."""
    if series.null_count():
        raise DataError(f"{series.name!r} has missing values.", where=f"{WHERE} {name}=", do="Fill them first.")
    return np.unique(series.to_numpy(), return_inverse=True)[1]


def _levels(name: str, what: Factor | Groups, m: int, rng: np.random.Generator, within: Ints | None, in_blocks: bool) -> Ints:
    """Codes (m,) of the levels of each row or unit."""
    if isinstance(what, Factor) and what.prob is not None:
        return rng.choice(len(what.levels), size=m, p=np.array(what.prob))
    k = len(what.levels) if isinstance(what, Factor) else what.count
    if within is None and k > m:
        kind, rows = ("groups" if isinstance(what, Groups) else "levels"), "row" if what.per is None else f"group of {what.per}"
        raise OptionError(f"{k} {kind} need at least one {rows} each, there are {m}.", where=f"{WHERE} {name}=", do="Give a larger n=.")
    return np.arange(m) * k // m if in_blocks else balanced(rng, k, np.zeros(m, dtype=np.intp) if within is None else within)


def balanced(rng: np.random.Generator, k: int, within: Ints) -> Ints:
    """Codes 0 … k−1 (m,), in random order, as often as each other (±1) inside every group of `within` (m,)."""
    order = np.lexsort((rng.random(len(within)), within))
    start = np.concatenate(([0], np.cumsum(np.bincount(within))))
    group = within[order]
    rank = np.arange(len(within)) - start[group]
    levels = np.argsort(rng.random((len(start) - 1, k)), axis=1)
    codes = np.empty(len(within), dtype=np.intp)
    codes[order] = levels[group, rank % k]
    return codes
