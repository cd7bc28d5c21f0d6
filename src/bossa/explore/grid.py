"""Which rows does a query speak of? The parts of a query become axes of cells, and the cells rows of the design.

An `Axis` is what one part contributes: the values its variables take in each cell, and, for contrasts, the (rows, cells) matrix over
them. Axes multiply, the first fastest, as in emmeans. The other variables of the model are averaged over or held:

    factors, booleans, numbers with at most two values, variables of factor(x)   all their levels
    other numbers (offsets too)                                                   their mean over the rows used;  `at=` overrides

`Reference` knows the model's variables, resolves names and levels, and raises errors with a caret under the word they are about.

Source: Searle, Speed & Milliken (1980) on population marginal means; Lenth (2016) for the reference grid and the names of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve, field, frozen

from ..design.encoder import Encoder
from ..design.encoder import Variable as Known
from ..design.transforms import LEVELLED
from ..errors import DataError, FormulaError, OptionError, Refused, UnknownOption, listing, suggestion
from ..state.design import Problem
from ..state.spec import Call, Expr, Name, Operation, names_in
from ..types import Floats
from . import contrast, grammar
from .derivative import SCALED
from .grammar import OTHERS, Bracket, Change, Contrast, Level, Means, Part, Query, Values, Variable

UNDONE = {"log": np.exp, "log2": np.exp2, "log10": partial(np.power, 10.0), "log1p": np.expm1, "sqrt": np.square, "exp": np.log}
UNDONE |= dict.fromkeys(SCALED)
MOST_CELLS = 500_000
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


@frozen(kw_only=True, eq=False)
class Reference:
    """The variables of a fitted model as a query sees them.

    at    values held, by name (checked)
    raw   values are of the variable itself (True) or of the one transform that the formula makes of it
    """

    problem: Problem
    query: Query
    where: str = "explore()"
    at: Mapping[str, tuple[Any, ...]] = field(factory=dict)
    raw: bool = True

    @property
    def encoder(self) -> Encoder:
        return self.problem.encoder

    @property
    def names(self) -> list[str]:
        """Variables of the fixed part and of offsets."""
        wanted = [*(v for t in self.encoder.terms for v in t.variables), *sorted(self.offset_names)]
        return [n for n in dict.fromkeys(wanted) if n in self.encoder.variables]

    @property
    def offset_names(self) -> set[str]:
        """Variables that offsets are made of."""
        spec = self.encoder.spec
        return {n.id for e in spec.offsets for n in names_in(e)} | ({spec.offset} if spec.offset else set())

    def error(self, what: str, position: int, do: str = "") -> FormulaError:
        return FormulaError(what, text=self.query.text, position=position, do=do, where=self.where)

    def known(self, name: str, position: int) -> Known:
        """The variable of that name."""
        names = self.names
        if name in names:
            return self.encoder.variables[name]
        if name in self.encoder.variables:
            raise self.error(f"{name!r} groups the random effects and is not in the fixed part.", position, f"Ask about {listing(names)}.")
        terms = [t.label for t in self.encoder.terms if t.label == name and t.variables]
        if terms:
            raise self.error(f"{name!r} is a term.", position, "Name the column itself; transforms follow it.")
        raise self.error(f"{name!r} is not a variable of the model.", position, suggestion(name, names, "It has:"))

    def numeric(self, name: str) -> bool:
        """Does the formula use the variable as a number somewhere?"""
        if self.encoder.variables[name].kind != "numeric":
            return False
        spec = self.encoder.spec
        exprs = [f for t in self.encoder.terms for f in t.factors] + list(spec.offsets)
        return spec.offset == name or any(_as_number(e, name) for e in exprs)

    def default(self, name: str) -> tuple[Any, ...]:
        """Values of a variable that nobody asked about."""
        if name in self.at:
            return self.at[name]
        return self.cells(self.encoder.variables[name]) or (self.mean(name),)

    def cells(self, known: Known) -> tuple[Any, ...]:
        """Levels of a factor, or the few values of a number; () for a number with many."""
        if known.kind == "numeric" and known.dtype.is_integer():
            return tuple(int(v) for v in known.values)
        return known.levels or known.values

    def mean(self, name: str) -> float:
        """Mean over the observations used."""
        v, freq = self.encoder.variables[name], self.problem.design.freq
        if freq is None or self.problem.data is None:
            return float(v.mean)  # type: ignore[arg-type]
        return float(np.average(self.problem.data[name].cast(pl.Float64).to_numpy(), weights=freq))

    def levels(self, variable: Variable, need: bool = True) -> tuple[Any, ...] | None:
        """Values asked for; every level where none are; None for a number without values, which is an error where values are needed."""
        known = self.known(variable.name, variable.position)
        if variable.values is not None:
            if variable.name in self.at:
                raise self.error(f"values of {variable.name!r} are given here and in at=.", variable.position, "Keep one of them.")
            return self.listed(known, variable.values)
        if variable.name in self.at:
            return self.at[variable.name]
        if known.kind != "numeric" or not self.numeric(variable.name):
            return self.cells(known)
        if known.values and need:
            return self.cells(known)
        if need:
            do = f"Give values: {variable.name}@[{known.minimum:.4g}, {known.maximum:.4g}]."
            raise self.error(f"{variable.name!r} is a number, so it has no levels.", variable.position, do)
        return None

    def listed(self, known: Known, values: Values) -> tuple[Any, ...]:
        """Values of a `@`."""
        name = known.name
        if values.kind == "list":
            return tuple(dict.fromkeys(self.value(known, level) for level in values.items))
        if known.kind != "numeric":
            if values.kind == "data":
                return known.levels
            do = f"Its levels are: {listing(known.labels)}."
            raise self.error(f"{name!r} is a factor, which has no {values.kind}.", values.position, do)
        if values.kind == "mean":
            return (self.mean(name),)
        if values.kind == "range":
            low, high = float(known.minimum), float(known.maximum)  # type: ignore[arg-type]
            return tuple(np.linspace(low, high, values.n).tolist()) if values.n > 1 else (0.5 * (low + high),)
        column = self.data(f"{name}@{values.kind}")[name]
        if values.kind == "data":
            return tuple(column.unique().sort().to_list())
        x = column.cast(pl.Float64).to_numpy()
        return tuple(np.quantile(x, np.arange(1, values.n + 1) / (values.n + 1)).tolist())

    def data(self, what: str) -> pl.DataFrame:
        """The rows used."""
        if self.problem.data is None:
            raise DataError(f"{what} needs the rows of the data, which this model does not carry.", where=self.where, do="Fit it again.")
        return self.problem.data

    def value(self, known: Known, level: Level) -> Any:
        """A level or number as the encoder takes it."""
        found = match(known, level.value)
        if known.kind != "numeric" or not self.numeric(known.name):
            if found is None:
                do = suggestion(level.value, known.labels or known.values, "It has:")
                raise self.error(f"{known.name!r} has no level {level.value!r}.", level.position, do)
            return found
        number = as_number(level.value)
        if number is None:
            raise self.error(f"{known.name!r} is a number, not {level.value!r}.", level.position, f"Write {known.name}@{known.mean:.4g}.")
        return number if self.raw else self.untransformed(known.name, number, level.position)

    def transform(self, name: str, position: int) -> Call:
        """The one transform by which a variable enters."""
        factors = {f for t in self.encoder.terms for f in t.factors if any(n.id == name for n in names_in(f))}
        only = next(iter(factors), None)
        if len(factors) == 1 and isinstance(only, Call) and only.args == (Name(name),) and not only.kwargs and only.function in UNDONE:
            return only
        raise self.error(f"{name!r} does not enter by one transform that can be undone.", position, "Leave inverse_transforms= out.")

    def untransformed(self, name: str, value: float, position: int) -> float:
        """The variable's value where its one transform has `value`."""
        only = self.transform(name, position)
        if only.function in SCALED:
            shift, scale = self.encoder.learnt[only]
            return value * scale + shift
        return float(UNDONE[only.function](value))  # type: ignore[misc]

    # ------------------------------------------------------------ parts
    def axes(self, part: Part, *, role: str = "set", alone: bool = True, sign: str = "-", splits: bool = False) -> Axis:
        """The axis of a part. alone: the only contrast of the query;  sign: between the names of a contrast."""
        if isinstance(part, Means):
            v = part.variable
            levels = self.levels(v, need=False)
            if levels is None:
                known = self.encoder.variables[v.name]
                levels = self.cells(known) or (self.mean(v.name),)
            return Axis(names=(v.name,), cells=tuple((x,) for x in levels), columns={v.name: levels}, role=role, splits=splits)
        if isinstance(part, Change):
            return self.change_axis(part, alone, sign)
        if isinstance(part, Bracket):
            return self.bracket_axis(part, role, alone, sign)
        assert isinstance(part, Contrast)
        return self.contrast_axis(part, role, alone, sign)

    def contrast_axis(self, part: Contrast, role: str, alone: bool, sign: str) -> Axis:
        levels = [self.levels(v) for v in part.variables]
        names = tuple(v.name for v in part.variables)
        if len(set(names)) < len(names):
            raise self.error("a variable is named twice in one contrast.", part.position)
        cells = first_fastest([list(x) for x in levels])  # type: ignore[arg-type]
        texts = [" ".join(t) for t in first_fastest([shown(n, x, alone) for n, x in zip(names, levels)])]  # type: ignore[arg-type]
        if len(cells) < 2:
            raise self.error(f"{' and '.join(names)} has one cell: there is nothing to compare.", part.variables[0].position)
        matrix, labels = contrast.rows(part.method, texts, sign, **self.contrast_options(part, cells, texts))
        column = "contrast" if alone else f"{'_'.join(names)}_{part.method}"
        return Axis(names=names, cells=tuple(cells), columns={column: labels}, matrix=matrix, role=role, method=part.method)

    def contrast_options(self, part: Contrast, cells: list[tuple[Any, ...]], texts: list[str]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for option, level in part.options:
            if option == "last":
                out["base"] = len(cells) - 1
            elif option == "degree":
                if not isinstance(level.value, int) or isinstance(level.value, bool) or not 1 <= level.value < len(cells):
                    raise self.error(f"degree={level.value!r} is not a whole number from 1 to {len(cells) - 1}.", level.position)
                out["degree"] = level.value
            elif len(part.variables) == 1:
                known = self.encoder.variables[part.variables[0].name]
                value = self.value(known, level)
                if (value,) not in cells:
                    raise self.error(f"{option}={level.value!r} is not among the levels compared.", level.position)
                out["base"] = cells.index((value,))
            elif str(level.value) in texts:
                out["base"] = texts.index(str(level.value))
            else:
                do = f'The cells are: {listing(texts)}. Write {option}="{texts[0]}".'
                raise self.error(f"{option}={level.value!r} is not a cell of the term.", level.position, do)
        return out

    def bracket_axis(self, part: Bracket, role: str, alone: bool, sign: str) -> Axis:
        name = part.variable.name
        known = self.known(name, part.variable.position)
        number = known.kind == "numeric" and self.numeric(name) and not known.values
        sides = [side for item in part.items for side in (item.plus, item.minus)]
        others = [x for side in sides for x in side if x.value == OTHERS and not x.quoted]
        if number and others:
            raise self.error(f"{name!r} is a number: it has no other levels.", others[0].position, "Write the values.")
        named = [self.value(known, x) for side in sides for x in side if x not in others]
        every = list(dict.fromkeys(named)) if number else [x for x in known.levels or known.values if others or x in named]
        every += [x for x in dict.fromkeys(named) if x not in every]
        matrix = np.zeros((len(part.items), len(every)))
        for row, item in zip(matrix, part.items):
            taken = [[self.value(known, x) for x in side if x not in others] for side in (item.plus, item.minus)]
            rest = [x for x in every if x not in (*taken[0], *taken[1])]
            for side, amount in zip(taken, (1.0, -1.0)):
                chosen = side or rest
                for x in chosen:
                    row[every.index(x)] += amount / len(chosen)
        labels = [item.text if sign == "-" else item.text.replace(" - ", f" {sign} ") for item in part.items]
        column = "contrast" if alone else f"{name}_custom"
        cells = tuple((x,) for x in every)
        return Axis(names=(name,), cells=cells, columns={column: labels}, matrix=matrix, role=role, method="custom")

    def change_axis(self, part: Change, alone: bool, sign: str) -> Axis:
        self.sloped(part.name, part.position)
        name, size = part.name, part.size
        ends = (-0.5 * size, 0.5 * size) if part.centered else (0.0, size)
        texts = [f"({name} {'-' if e < 0 else '+'} {abs(e):.15g})" if e else name for e in ends]
        label = f"{texts[1]} {sign} {texts[0]}"
        column = "contrast" if alone else f"{name}_change"
        matrix = np.array([[-1.0, 1.0]])
        cells = tuple((e,) for e in ends)
        return Axis(names=(name,), cells=cells, columns={column: [label]}, matrix=matrix, role="shift", method="custom")

    def sloped(self, name: str, position: int) -> None:
        """The variable must be a number in the formula."""
        known = self.known(name, position)
        if known.kind != "numeric" or not self.numeric(name):
            raise self.error(f"{name!r} is a factor, which has no slope.", position, f"Compare its levels: pairwise({name}).")


def _as_number(expr: Expr, name: str) -> bool:
    """Does the expression use the column as a number, outside factor() and the codings?"""
    if isinstance(expr, Name):
        return expr.id == name
    if isinstance(expr, Call):
        if expr.function in LEVELLED and expr.function != "poly":
            return False
        return any(_as_number(a, name) for a in expr.args)
    return isinstance(expr, Operation) and any(_as_number(a, name) for a in expr.args)


def as_number(value: Any) -> float | int | None:
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, (int, float, np.integer, np.floating)):
        return value.item() if isinstance(value, np.generic) else value
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def match(known: Known, value: Any) -> Any:
    """The level that is meant, by value, label or spelling; None: no such level."""
    levels = known.levels or known.values
    if isinstance(value, np.generic):
        value = value.item()
    for level in levels:
        if type(level) is type(value) and level == value:
            return level
    number = as_number(value)
    for level, label in zip(levels, known.labels or levels):
        same_number = number is not None and not isinstance(level, (bool, str)) and float(level) == number
        written = {str(value), f"{value:.15g}" if isinstance(value, (int, float)) else str(value)}
        if same_number or str(label) in written or (known.kind == "bool" and str(level).lower() == str(value).lower()):
            return level
    return None


def shown(name: str, levels: Sequence[Any], alone: bool) -> list[str]:
    """Levels as they stand in the names of contrasts: numbers carry the name of their variable, as in emmeans."""
    texts = [f"{x:.15g}" if isinstance(x, float) else str(x) for x in levels]
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
        out = np.ones((1, 1))
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
    axes = [reference.axes(p, alone=alone, sign=sign) for p in rest]
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
    return reference.axes(part, role=role, alone=alone, sign=sign, splits=splits)


def _check_once(reference: Reference, axes: Sequence[Axis], slope: str | None) -> None:
    seen: set[str] = set()
    for axis in axes:
        for name in axis.names:
            if axis.role != "shift" and name in seen:
                do = "Name each variable once."
                raise FormulaError(f"{name!r} is used twice.", text=reference.query.text, where=reference.where, do=do)
            seen |= set() if axis.role == "shift" else {name}


def checked_at(reference: Reference, at: Any) -> dict[str, tuple[Any, ...]]:
    """`at=` as values by name.

    raises  OptionError or UnknownOption that says what at= takes
    """
    where = f"{reference.where.removesuffix(')')}at=)"
    if at is None:
        return {}
    if not isinstance(at, Mapping):
        raise OptionError(f"at={at!r} is not a dict.", where=where, do='Write at={"x": [1, 2]}.')
    out = {}
    for name, values in at.items():
        if name not in reference.names:
            raise UnknownOption(name, reference.names, where=where, kind="variable")
        listed = [values] if isinstance(values, (str, int, float, np.generic)) else list(values)
        known = reference.encoder.variables[name]
        if not listed:
            raise OptionError(f"there are no values for {name!r}.", where=where)
        quiet = evolve(reference, query=Query(repr(dict(at)), ()), where=where)
        out[name] = tuple(dict.fromkeys(quiet.value(known, Level(v, 0)) for v in listed))
    return out


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


def series(known: Known, values: Sequence[Any]) -> pl.Series:
    """A column as the encoder takes it."""
    if known.kind == "numeric":
        return pl.Series(known.name, np.asarray(values, dtype=float))
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
        code, values, shifts = 0, dict(held), {}
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
