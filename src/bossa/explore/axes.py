"""Of which cells does a query speak? Its parts become axes, and the axes multiply, the first fastest, as in emmeans.

An `Axis` is what one part contributes: the values its variables take in each cell, and, for contrasts, the (rows, cells) matrix over
them. `resolve(reference, …)` gives all axes of a query, with the labels of the rows and the families of tests that follow from them.

Source: Lenth (2016) for the order and the names of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from attrs import frozen

from ..errors import FormulaError, listing, suggestion
from ..types import Floats
from . import contrast, grammar
from .grammar import OTHERS, Bracket, Change, Contrast, Means, Part
from .reference import Reference, as_number

MOST_GROUPS = 5_000


@frozen(kw_only=True, eq=False)
class Axis:
    """What one part of a query contributes.

    names    variables that change along it
    cells    their values in each cell
    columns  label columns, one entry for each row of the result
    matrix   (rows, cells), None: one row for each cell
    role     "set" rows take the value | "group" rows are those that have it (averaging over the data) | "shift" it is added
    method   name of the contrast, None: means
    splits   rows of different cells belong to different families of tests
    """

    names: tuple[str, ...]
    cells: tuple[tuple[Any, ...], ...]
    columns: Mapping[str, Sequence[Any]]
    matrix: Floats | None = None
    role: str = "set"
    method: str | None = None
    splits: bool = False

    @property
    def rows(self) -> int:
        return len(self.cells) if self.matrix is None else len(self.matrix)


# ---------------------------------------------------------------- one part
def axis_of(reference: Reference, part: Part, *, role: str = "set", alone: bool = True, sign: str = "-", splits: bool = False) -> Axis:
    """The axis of a part. alone: the only contrast of the query;  sign: between the names of a contrast."""
    if isinstance(part, Means):
        v = part.variable
        levels = reference.levels(v, need=False)
        if levels is None:
            known = reference.encoder.variables[v.name]
            levels = reference.cells(known) or (reference.mean(v.name),)
        return Axis(names=(v.name,), cells=tuple((x,) for x in levels), columns={v.name: levels}, role=role, splits=splits)
    if isinstance(part, Change):
        return change_axis(reference, part, alone, sign)
    if isinstance(part, Bracket):
        return bracket_axis(reference, part, role, alone, sign)
    assert isinstance(part, Contrast)
    return contrast_axis(reference, part, role, alone, sign)


def contrast_axis(reference: Reference, part: Contrast, role: str, alone: bool, sign: str) -> Axis:
    levels = [reference.levels(v) for v in part.variables]
    names = tuple(v.name for v in part.variables)
    if len(set(names)) < len(names):
        raise reference.error("a variable is named twice in one contrast.", part.position)
    cells = first_fastest([list(x) for x in levels])  # type: ignore[arg-type]
    texts = [" ".join(t) for t in first_fastest([shown(n, x, alone) for n, x in zip(names, levels)])]  # type: ignore[arg-type]
    if len(cells) < 2:
        raise reference.error(f"{' and '.join(names)} has one cell: there is nothing to compare.", part.variables[0].position)
    matrix, labels = contrast.rows(part.method, texts, sign, **contrast_options(reference, part, cells, texts))
    column = "contrast" if alone else f"{'_'.join(names)}_{part.method}"
    return Axis(names=names, cells=tuple(cells), columns={column: labels}, matrix=matrix, role=role, method=part.method)


def contrast_options(reference: Reference, part: Contrast, cells: list[tuple[Any, ...]], texts: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for option, level in part.options:
        if option == "last":
            out["base"] = len(cells) - 1
        elif option == "degree":
            if not isinstance(level.value, int) or isinstance(level.value, bool) or not 1 <= level.value < len(cells):
                raise reference.error(f"degree={level.value!r} is not a whole number from 1 to {len(cells) - 1}.", level.position)
            out["degree"] = level.value
        elif len(part.variables) == 1:
            known = reference.encoder.variables[part.variables[0].name]
            value = reference.value(known, level)
            if (value,) not in cells:
                raise reference.error(f"{option}={level.value!r} is not among the levels compared.", level.position)
            out["base"] = cells.index((value,))
        elif str(level.value) in texts:
            out["base"] = texts.index(str(level.value))
        else:
            do = f'The cells are: {listing(texts)}. Write {option}="{texts[0]}".'
            raise reference.error(f"{option}={level.value!r} is not a cell of the term.", level.position, do)
    return out


def bracket_axis(reference: Reference, part: Bracket, role: str, alone: bool, sign: str) -> Axis:
    name = part.variable.name
    known = reference.known(name, part.variable.position)
    number = known.kind == "numeric" and reference.numeric(name) and not known.values
    sides = [side for item in part.items for side in (item.plus, item.minus)]
    others = [x for side in sides for x in side if x.value == OTHERS and not x.quoted]
    if number and others:
        raise reference.error(f"{name!r} is a number: it has no other levels.", others[0].position, "Write the values.")
    named = [reference.value(known, x) for side in sides for x in side if x not in others]
    every = list(dict.fromkeys(named)) if number else [x for x in known.levels or known.values if others or x in named]
    every += [x for x in dict.fromkeys(named) if x not in every]
    matrix = np.zeros((len(part.items), len(every)))
    for row, item in zip(matrix, part.items):
        taken = [[reference.value(known, x) for x in side if x not in others] for side in (item.plus, item.minus)]
        rest = [x for x in every if x not in (*taken[0], *taken[1])]
        for side, amount in zip(taken, (1.0, -1.0)):
            chosen = side or rest
            for x in chosen:
                row[every.index(x)] += amount / len(chosen)
    labels = [item.text(sign) for item in part.items]
    column = "contrast" if alone else f"{name}_custom"
    cells = tuple((x,) for x in every)
    return Axis(names=(name,), cells=cells, columns={column: labels}, matrix=matrix, role=role, method="custom")


def change_axis(reference: Reference, part: Change, alone: bool, sign: str) -> Axis:
    reference.sloped(part.name, part.position)
    name, size = part.name, part.size
    ends = (-0.5 * size, 0.5 * size) if part.centered else (0.0, size)
    texts = [f"({name} {'-' if e < 0 else '+'} {abs(e):.15g})" if e else name for e in ends]
    label = f"{texts[1]} {sign} {texts[0]}"
    column = "contrast" if alone else f"{name}_change"
    matrix = np.array([[-1.0, 1.0]])
    cells = tuple((e,) for e in ends)
    return Axis(names=(name,), cells=cells, columns={column: [label]}, matrix=matrix, role="shift", method="custom")


def shown(name: str, levels: Sequence[Any], alone: bool) -> list[str]:
    """Levels as they stand in the names of contrasts: numbers carry the name of their variable, as in emmeans."""
    texts = [f"{x:.15g}" if isinstance(x, float) else str(x).upper() if isinstance(x, bool) else str(x) for x in levels]
    numbers = all(as_number(x) is not None for x in levels)
    return [name + t for t in texts] if numbers and alone else texts


def first_fastest(lists: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Cartesian product, the first list fastest."""
    return [combo[::-1] for combo in product(*lists[::-1])]


# ---------------------------------------------------------------- what is asked
@frozen(kw_only=True, eq=False)
class Asked:
    """A query resolved against a model: its axes, the first fastest, and the variable whose slope is asked, if one is."""

    axes: tuple[Axis, ...]
    slope: str | None = None

    @property
    def contrasts(self) -> list[Axis]:
        return [a for a in self.axes if a.matrix is not None]

    @property
    def cells(self) -> int:
        return int(np.prod([len(a.cells) for a in self.axes], dtype=int))

    @property
    def rows(self) -> int:
        return int(np.prod([a.rows for a in self.axes], dtype=int))

    def matrix(self) -> Floats | None:
        """(rows, cells) of all contrasts together; None: there are none."""
        if not self.contrasts:
            return None
        out: Any = np.ones((1, 1))
        for axis in self.axes:
            out = np.kron(np.eye(len(axis.cells)) if axis.matrix is None else axis.matrix, out)
        return out

    def labels(self) -> pl.DataFrame:
        """What stands before the numbers: contrasts first, then the other axes."""
        columns: dict[str, Any] = {} if self.slope is None else {"slope": [self.slope] * self.rows}
        index = self.index([a.rows for a in self.axes])
        order = sorted(range(len(self.axes)), key=lambda i: self.axes[i].matrix is None)
        for i in order:
            for name, entries in self.axes[i].columns.items():
                taken = name if name not in columns else f"{name}_bossa"
                columns[taken] = [entries[j] for j in index[i]]
        return pl.DataFrame(columns or {"mean": ["overall"]}, strict=False)

    def index(self, lengths: Sequence[int]) -> list[np.ndarray]:
        """Position along each axis of every combination, the first axis fastest."""
        total, fast, out = int(np.prod(lengths, dtype=int)), 1, []
        for n in lengths:
            out.append(np.arange(total) // fast % n)
            fast *= n
        return out

    def family(self) -> np.ndarray | None:
        """(rows,) codes of the families of tests; None: one."""
        split = [bool(a.matrix is None and (a.splits or self.contrasts)) for a in self.axes]
        if not any(split):
            return None
        code, scale = np.zeros(self.rows, dtype=int), 1
        for axis, splits, at in zip(self.axes, split, self.index([a.rows for a in self.axes])):
            if splits:
                code += scale * at
                scale *= axis.rows
        return code


def resolve(reference: Reference, sign: str, groups: bool) -> Asked:
    """The axes of a query. groups: conditions pick out rows of the data (averaging over them) instead of setting values."""
    query = reference.query
    focal, slope = list(query.focal), None
    if len(focal) == 1 and isinstance(focal[0], Means) and reference.levels(focal[0].variable, need=False) is None:
        v = focal[0].variable
        focal = [grammar.Slope(v.name, v.position)]
    rest: list[Part] = []
    for part in focal:
        if isinstance(part, grammar.Slope):
            if slope is not None:
                raise reference.error("a query has one slope.", part.position)
            reference.sloped(part.name, part.position)
            slope = part.name
        elif isinstance(part, Means) and reference.levels(part.variable, need=False) is None:
            v = part.variable
            others = [p.variable.name for p in focal if isinstance(p, Means) and p is not part]
            do = f"Give values: {v.name}@range(3), or ask slope({v.name})" + (f" ~ {' + '.join(others)}." if others else ".")
            raise reference.error(f"{v.name!r} is a number without values.", v.position, do)
        else:
            rest.append(part)
    if slope is not None and any(isinstance(p, (Contrast, Bracket, Change)) for p in rest):
        do = f"Write slope({slope}) ~ pairwise(g)."
        raise FormulaError("contrasts of slopes follow '~'.", text=query.text, where=reference.where, do=do)
    contrasts = [p for p in (*rest, *query.conditions) if isinstance(p, (Contrast, Bracket, Change))]
    alone = len(contrasts) < 2
    axes = [axis_of(reference, p, alone=alone, sign=sign) for p in rest]
    for p in query.conditions:
        role = "group" if groups and not _has_numbers(p, reference) else "set"
        axes.append(condition_axis(reference, p, role, alone, sign, bool(rest)))
    _check_once(reference, axes, slope)
    return Asked(axes=tuple(axes), slope=slope)


def _has_numbers(part: Part, reference: Reference) -> bool:
    """A numeric condition with values: rows are set to them."""
    if not isinstance(part, Means) or part.variable.name not in reference.names:
        return False
    return reference.numeric(part.variable.name) and (part.variable.values is not None or part.variable.name in reference.at)


def condition_axis(reference: Reference, part: Part, role: str, alone: bool, sign: str, splits: bool) -> Axis:
    """The axis of a condition; where it picks out rows it may be any column of the data."""
    if role == "group" and isinstance(part, Means) and part.variable.values is None:
        name = part.variable.name
        data = reference.data(f"averaging by {name}")
        if name not in data.columns:
            do = suggestion(name, data.columns, "It has:")
            raise reference.error(f"{name!r} is not a column of the data.", part.variable.position, do)
        known = reference.encoder.variables.get(name)
        levels = known.levels if known is not None and known.levels else tuple(data[name].drop_nulls().unique().sort().to_list())
        if len(levels) > MOST_GROUPS:
            do = "Cut it into groups first, or give values to set it to."
            raise reference.error(f"{name!r} has {len(levels):,} different values.", part.variable.position, do)
        return Axis(names=(name,), cells=tuple((x,) for x in levels), columns={name: levels}, role=role, splits=splits)
    return axis_of(reference, part, role=role, alone=alone, sign=sign, splits=splits)


def _check_once(reference: Reference, axes: Sequence[Axis], slope: str | None) -> None:
    seen: set[str] = set()
    for axis in axes:
        for name in axis.names:
            if axis.role != "shift" and name in seen:
                do = "Name each variable once."
                raise FormulaError(f"{name!r} is used twice.", text=reference.query.text, where=reference.where, do=do)
            seen |= set() if axis.role == "shift" else {name}
