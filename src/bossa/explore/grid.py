"""Which rows does a query speak of? A balanced grid of cells, or the rows of the data as they are.

`grid` crosses the cells asked about with every combination of the other variables' reference values, and weights the combinations;
`population` says for which cell each row of the data counts, and what is set in it. Offsets and held values are `effects`' business.

Source: Searle, Speed & Milliken (1980) on population marginal means; Lenth (2016) for the names of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from attrs import frozen

from ..design.encoder import Variable as Known
from ..errors import OptionError, Refused
from ..types import Floats
from .axes import Asked, Axis, first_fastest
from .reference import Reference

MOST_CELLS = 500_000


# ---------------------------------------------------------------- the reference grid
@frozen(kw_only=True, eq=False)
class Grid:
    """The balanced grid: every cell asked about times every combination averaged over, cells fastest.

    frame     one row for each; `weight` (rows,) sums to one in each cell (nan: an empty cell has no weight)
    cell      (rows,)
    averaged  names and values of the variables averaged over;  held: name → value
    """

    frame: pl.DataFrame
    cell: np.ndarray
    weight: Floats
    averaged: Mapping[str, tuple[Any, ...]]
    held: Mapping[str, Any]


def grid(reference: Reference, asked: Asked, weights: str) -> Grid:
    """The grid of a query with its averaging weights ("equal" "proportional" "outer" "cells" "flat")."""
    set_names = {n for a in asked.axes if a.role != "shift" for n in a.names}
    values = {n: reference.default(n) for n in reference.names if n not in set_names}
    if asked.slope in values and asked.slope not in reference.at:
        values[asked.slope] = (reference.mean(asked.slope),)
    averaged = {n: v for n, v in values.items() if len(v) > 1}
    A, R = asked.cells, int(np.prod([len(v) for v in averaged.values()], dtype=int))
    if A * R > MOST_CELLS:
        do = "Hold some at a value by at=, or average over the data: average='observed'."
        raise Refused(f"the grid has {A * R:,} cells (averaging over {', '.join(averaged)}).", where=reference.where, do=do)
    columns: dict[str, np.ndarray] = {n: np.full(A * R, v[0], dtype=object) for n, v in values.items() if len(v) == 1}
    over = first_fastest(list(averaged.values()))
    for i, n in enumerate(averaged):
        columns[n] = np.repeat(np.array([combo[i] for combo in over], dtype=object), A)
    shifts: list[tuple[str, np.ndarray]] = []
    for axis, at in zip(asked.axes, asked.index([len(a.cells) for a in asked.axes])):
        for i, n in enumerate(axis.names):
            chosen = np.tile(np.array([cell[i] for cell in axis.cells], dtype=object)[at], R)
            if axis.role == "shift":
                shifts.append((n, chosen))
            else:
                columns[n] = chosen
    for n, amount in shifts:
        columns[n] = columns[n] + amount
    frame = pl.DataFrame([series(reference.encoder.variables[n], columns[n]) for n in reference.names])
    if not frame.width:
        frame = pl.DataFrame({"": np.zeros(A * R)})
    weight = grid_weights(reference, asked, averaged, over, weights)
    fixed = {v for t in reference.encoder.terms for v in t.variables} | set(reference.at)
    held = {n: v[0] for n, v in values.items() if len(v) == 1 and n in fixed}
    return Grid(frame=frame, cell=np.tile(np.arange(A), R), weight=weight.ravel(), averaged=averaged, held=held)


def series(known: Known, values: Any) -> pl.Series:
    """A column as the encoder takes it."""
    if known.kind == "numeric":
        x = np.asarray(values, dtype=float)
        whole = known.dtype.is_integer() and bool((x == np.floor(x)).all())
        return pl.Series(known.name, x.astype(np.int64) if whole else x)
    return pl.Series(known.name, list(values), dtype=pl.Boolean if known.kind == "bool" else pl.String)


def grid_weights(reference: Reference, asked: Asked, averaged: Mapping[str, tuple], over: list[tuple], weights: str) -> Floats:
    """(R, A): weight of each combination averaged over in each cell; each column sums to one.

    proportional  frequency of the combination in the data;  outer: product of the frequencies of its levels
    cells         frequency of the combination within the cell;  flat: equal over the combinations that occur there
    """
    A, R = asked.cells, len(over)
    if weights == "equal" or R == 1:
        return np.full((R, A), 1.0 / R)
    counts = frequencies(reference, asked, averaged, over)
    if weights == "proportional":
        w = np.repeat(counts.sum(axis=1)[:, None], A, axis=1)
    elif weights == "outer":
        table = counts.sum(axis=1).reshape([len(v) for v in averaged.values()][::-1])
        joint = np.ones(())
        for axis in range(table.ndim):
            joint = np.multiply.outer(joint, table.sum(axis=tuple(i for i in range(table.ndim) if i != axis)))
        w = np.repeat(joint.reshape(R, 1), A, axis=1)
    else:
        w = counts if weights == "cells" else (counts > 0).astype(float)
    with np.errstate(invalid="ignore"):
        return w / w.sum(axis=0)


def frequencies(reference: Reference, asked: Asked, averaged: Mapping[str, tuple], over: list[tuple]) -> Floats:
    """(R, A): weight of the data in each cell of the grid; numbers with values that were asked for do not count as cells."""
    asked_names = [n for a in asked.axes if a.role != "shift" for n in a.names]
    names, table = cell_table(reference, [n for n in (*asked_names, *averaged) if _discrete(reference.encoder.variables[n])])
    index = asked.index([len(a.cells) for a in asked.axes])
    out = np.zeros((len(over), asked.cells))
    for a in range(asked.cells):
        here = {n: axis.cells[at[a]][i] for axis, at in zip(asked.axes, index) for i, n in enumerate(axis.names)}
        for r, combo in enumerate(over):
            out[r, a] = table.get(tuple((here | dict(zip(averaged, combo)))[n] for n in names), 0.0)
    return out


def cell_table(reference: Reference, names: Sequence[str]) -> tuple[list[str], dict[tuple, float]]:
    """The names, once each, and the total weight (counts times prior weights) of each combination of their values in the data."""
    names = list(dict.fromkeys(names))
    data, problem = reference.data("weighting by the data"), reference.problem
    weight = np.ones(data.height) if problem.design.freq is None else np.asarray(problem.design.freq)
    if problem.spec.weights is not None:
        weight = weight * data[problem.spec.weights].cast(pl.Float64).to_numpy()
    if not names:
        return names, {(): float(weight.sum())}
    table = data.select(names).with_columns(pl.Series("\0weight", weight)).group_by(names).agg(pl.col("\0weight").sum())
    return names, {tuple(row[:-1]): row[-1] for row in table.iter_rows()}


def _discrete(known: Known) -> bool:
    return known.kind != "numeric" or bool(known.values)


# ---------------------------------------------------------------- the data as they are
@frozen(kw_only=True, eq=False)
class Population:
    """Rows of the data, as they are or with some variables set, and the cell each counts for.

    frame     rows that belong to a cell;  group (n,) part of the cell that the row itself decides;  weight (n,) counts, None: 1
    settings  values set (name → value) and shifts added (name → amount), with the part of the cell that they decide
    """

    frame: pl.DataFrame
    index: np.ndarray
    group: np.ndarray
    weight: np.ndarray | None
    settings: tuple[tuple[int, Mapping[str, Any], Mapping[str, float]], ...]


def population(reference: Reference, asked: Asked) -> Population:
    """Which rows count for which cell when a query is averaged over the data."""
    data = reference.data("averaging over the data")
    held = {n: v[0] for n, v in reference.at.items()}
    several = [n for n, v in reference.at.items() if len(v) > 1 and not any(n in a.names for a in asked.axes)]
    if several:
        where = f"{reference.where.removesuffix(')')}at=)"
        raise OptionError(f"{several[0]!r} has several values.", where=where, do=f"Ask about them: ~ {several[0]}@[…].")
    group, inside, fast = np.zeros(data.height, dtype=int), np.ones(data.height, dtype=bool), 1
    set_axes: list[tuple[int, Axis]] = []
    for axis in asked.axes:
        if axis.role == "group":
            own = positions(data, axis)
            inside &= own >= 0
            group += fast * own
        else:
            set_axes.append((fast, axis))
        fast *= len(axis.cells)
    settings = []
    for combo in first_fastest([range(len(a.cells)) for _, a in set_axes]):
        code, values = 0, dict(held)
        shifts: dict[str, float] = {}
        for (scale, axis), at in zip(set_axes, combo):
            code += scale * at
            (shifts if axis.role == "shift" else values).update(zip(axis.names, axis.cells[at]))
        settings.append((code, values, shifts))
    freq, index = reference.problem.design.freq, np.flatnonzero(inside)
    weight = None if freq is None else np.asarray(freq)[index]
    frame = data if len(index) == data.height else data[index]
    return Population(frame=frame, index=index, group=group[index], weight=weight, settings=tuple(settings))


def positions(data: pl.DataFrame, axis: Axis) -> np.ndarray:
    """(n,) which cell of the axis each row belongs to; -1: none."""
    out, fast = np.zeros(data.height, dtype=int), 1
    wanted = {cell: i for i, cell in enumerate(axis.cells)}
    each = [list(dict.fromkeys(cell[i] for cell in axis.cells)) for i in range(len(axis.names))]
    gone = np.zeros(data.height, dtype=bool)
    for name, levels in zip(axis.names, each):
        column = data[name]
        code = np.full(data.height, -1)
        text = column.cast(pl.String) if not column.dtype.is_numeric() and column.dtype != pl.Boolean else column
        for i, level in enumerate(levels):
            code[(text == level).fill_null(False).to_numpy()] = i
        gone |= code < 0
        out += fast * np.maximum(code, 0)
        fast *= len(levels)
    combos = first_fastest(each)
    table = np.array([wanted.get(combo, -1) for combo in combos])
    return np.where(gone, -1, table[out])


def blocks(n: int, size: int = 32_768) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
