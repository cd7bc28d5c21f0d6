"""Which variables does a fitted model have, and what do names, levels and values in a query mean to it?

`Reference` resolves them: a name to a variable of the fixed part, a level by its value, label or spelling, `range(n)` or `quantile(n)`
to numbers. What nobody asked about has its reference values, over which it is averaged or at which it is held:

    factors, booleans, numbers with at most two values, variables of factor(x)   all their levels
    other numbers                                                                their mean over the rows used;  `at=` overrides

Errors carry a caret under the word they are about, and the nearest name.

Source: Lenth (2016), reference grids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve, field, frozen

from ..design.encoder import Encoder
from ..design.encoder import Variable as Known
from ..design.transforms import LEVELLED
from ..errors import DataError, FormulaError, OptionError, UnknownOption, listing, suggestion
from ..state.design import Problem
from ..state.spec import Call, Expr, Name, Operation, names_in
from .derivative import SCALED
from .grammar import CONTRASTS, SPELLINGS, Level, Query, Values, Variable

UNDONE: dict[str, Callable[[float], Any] | None] = {"log": np.exp, "log2": np.exp2, "log10": partial(np.power, 10.0), "log1p": np.expm1}
UNDONE |= {"sqrt": np.square, "exp": np.log} | dict.fromkeys(SCALED)


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
        if name in CONTRASTS or name in SPELLINGS:
            raise self.error(f"{name!r} is a contrast, not a variable.", position, f"Write what it compares: {name}(g).")
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
        if number is None or not math.isfinite(number):
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
        undo = UNDONE[only.function]
        assert undo is not None
        return float(undo(value))

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
