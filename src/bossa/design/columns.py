"""What are the values of an expression on the rows of a frame? Numbers, or codes of a factor's levels.

`Columns(frame, …)(expr)` evaluates by walking the tree: columns, numbers, arithmetic, comparisons, and the functions of `transforms`.
At the fit `learnt` is filled (levels of factors, moments, bases, knots, keyed by expression); for new rows it is only read, so new rows
mean what the fitted ones meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve, frozen

from ..errors import DataError, OptionError, UnknownColumn
from ..state.spec import COMPARISONS, Call, Expr, Name, Number, Operation, Text, written
from ..types import Array, Bools, Floats
from .formula import coding_name
from .levels import (
    MISSING,
    UNSEEN,
    Levels,
    as_floats,
    column_kind,
    number_codes,
    number_label,
    number_levels,
    occurring_texts,
    reordered,
    rows_text,
    text_codes,
    text_levels,
)
from .transforms import FUNCTIONS, LEVELLED, Function, bind


@frozen(eq=False)
class Numbers:
    """values (n,), or (n, k) with a name for each column."""

    values: Array
    names: tuple[str, ...] | None = None


@frozen(eq=False)
class Codes:
    """codes (n,) into levels; coding: (kind or matrix, base level or None) if the formula names one."""

    codes: Array
    levels: Levels
    coding: tuple[Any, Any] | None = None


Value = Numbers | Codes


def absent(value: Value) -> Bools | None:
    """Rows (n,) without a value; None where there are none."""
    if isinstance(value, Codes):
        return value.codes == MISSING if value.codes.size and value.codes.min() < 0 else None
    if np.isfinite(np.add.reduce(value.values, axis=None)):
        return None
    nan = np.isnan(value.values)
    rows: Array = nan if nan.ndim == 1 else np.logical_or.reduce(nan, axis=1)
    return rows if rows.any() else None


class Columns:
    """Evaluates expressions on the rows of one frame.

    frame     polars frame
    env       names passed in `env=`
    given     `levels=`: order of levels by column
    learnt    what was learnt at the fit, by expression; filled here when `learning`
    counts    (n,) how often each row counts, when learning; None: once
    """

    def __init__(
        self,
        frame: pl.DataFrame,
        env: Mapping[str, Any],
        given: Mapping[str, list],
        learnt: dict[Expr, Any],
        *,
        learning: bool = False,
        counts: Floats | None = None,
    ):
        self.frame, self.env, self.given, self.learnt = frame, env, given, learnt
        self.learning, self.counts = learning, counts
        self.cache: dict[Expr, Value] = {}
        self.ordered: set[str] = set()  # columns whose given order of levels was used
        self.names = frozenset(frame.columns)

    def __call__(self, expr: Expr) -> Value:
        if expr not in self.cache:
            self.cache[expr] = self.evaluate(expr)
        return self.cache[expr]

    def numbers(self, expr: Expr, inside: Expr) -> Array:
        """Values (n,) or 0-d of an argument that must be numeric; a bool counts 0 and 1."""
        value = self(expr)
        if isinstance(value, Codes):
            if value.levels.kind != "bool":
                raise DataError(
                    f"{written(expr)} is a factor, not a number.",
                    where=written(inside),
                    do="Arithmetic needs numbers; unclass() gives a factor's codes.",
                )
            return np.where(value.codes < 0, np.nan, value.codes)
        if value.values.ndim > 1:
            raise DataError(f"{written(expr)} has several columns.", where=written(inside), do="Use it as a term of its own.")
        return value.values

    def evaluate(self, expr: Expr) -> Value:
        if isinstance(expr, Name):
            return self.name(expr)
        if isinstance(expr, Number):
            return Numbers(np.float64(expr.value))  # type: ignore[arg-type]
        if isinstance(expr, Text):
            raise DataError(f"{expr} is a string, not a value for every row.", where="formula")
        if isinstance(expr, Operation):
            return self.comparison(expr) if expr.op in COMPARISONS else Numbers(self.arithmetic(expr))
        return self.call(expr)

    # ------------------------------------------------------------ names
    def series(self, name: str) -> pl.Series | None:
        """The column, or the array passed in env= under that name; None for a number passed there."""
        if name in self.names:
            return self.frame.get_column(name)
        if name not in self.env:
            raise UnknownColumn(name, [*self.frame.columns, *self.env], where="formula" if self.learning else "new rows")
        value = self.env[name]
        if isinstance(value, (int, float, np.generic)):
            return None
        series = pl.Series(name, value if not isinstance(value, (str, range)) else [value] if isinstance(value, str) else list(value))
        if len(series) != self.frame.height:
            raise DataError(
                f"env= {name!r} has {len(series)} values for {self.frame.height} rows.", where="formula", do="Make it a column of the data."
            )
        return series

    def name(self, expr: Name) -> Value:
        series = self.series(expr.id)
        if series is None:
            return Numbers(np.float64(self.env[expr.id]))  # type: ignore[arg-type]
        kind = column_kind(series, "formula")
        if self.learning and expr not in self.learnt:
            self.learnt[expr] = self.column_levels(series, kind)
        levels = self.learnt[expr]
        if kind == "null":
            return Numbers(np.full(len(series), np.nan)) if levels is None else Codes(np.full(len(series), MISSING), levels)
        if levels is None:
            if kind != "number":
                raise DataError(f"column {expr.id!r} is {kind} here and was a number at the fit.", where="new rows")
            return Numbers(as_floats(series))
        if kind != levels.kind:
            raise DataError(f"column {expr.id!r} is {kind} here and was {levels.kind} at the fit.", where="new rows")
        if kind == "bool":
            flags = series.cast(pl.Int8)
            codes = flags.fill_null(MISSING).to_numpy() if flags.null_count() else flags.to_numpy()
            return Codes(codes if levels.values == (False, True) else np.where(codes < 0, codes, 1 - codes), levels)
        return Codes(text_codes(series, levels.labels), levels)

    def column_levels(self, series: pl.Series, kind: str) -> Levels | None:
        """All levels of a column at the fit, None for numbers."""
        given = self.given.get(series.name) if kind in ("bool", "text") else None
        if given is not None:
            self.ordered.add(series.name)
        if kind == "bool":
            values = (False, True) if given is None else tuple(given)
            if set(values) != {False, True}:
                raise OptionError(f"levels of {series.name!r} are False and True, not {given}.", where="model() levels=")
            return Levels("bool", values, tuple(str(v).upper() for v in values))
        if kind != "text":
            return None
        labels = text_levels(series)
        if given is not None:
            labels = reordered(series.name, given, occurring_texts(series))
        return Levels("text", tuple(labels), tuple(labels))

    # ------------------------------------------------------------ arithmetic
    def arithmetic(self, expr: Operation) -> Array:
        args = [self.numbers(a, expr) for a in expr.args]
        with np.errstate(all="ignore"):
            if len(args) == 1:
                return -args[0] if expr.op == "-" else +args[0]
            return _ARITHMETIC[expr.op](*args)

    def comparison(self, expr: Operation) -> Codes:
        left, right = expr.args
        if isinstance(left, Text):
            left, right = right, left
        levels = Levels("bool", (False, True), ("FALSE", "TRUE"))
        if isinstance(right, Text):
            value = self(left)
            if expr.op not in ("==", "!=") or not isinstance(value, Codes) or not isinstance(right.value, (str, bool)):
                raise DataError(
                    f"{written(expr)} cannot be compared.", where="formula", do="A factor is compared by == or != with one of its levels."
                )
            label = right.value if isinstance(right.value, str) else str(right.value).upper()
            place = value.levels.labels.index(label) if label in value.levels.labels else len(value.levels.labels)
            return Codes(np.where(value.codes == MISSING, MISSING, (value.codes == place) == (expr.op == "==")), levels)
        a, b = (np.asarray(self.numbers(x, expr)) for x in expr.args)
        truth = _COMPARE[expr.op](a, b)
        return Codes(np.where(np.isnan(a) | np.isnan(b), MISSING, truth), levels)

    # ------------------------------------------------------------ calls
    def call(self, expr: Call) -> Value:
        function = FUNCTIONS.get(expr.function)
        if function is None:
            return self.foreign(expr)
        data, given = bind(expr, function)
        options = {name: self.literal(v, expr) for name, v in given.items()}
        if expr.function in ("I", "offset"):
            return self(data[0])
        if expr.function == "cbind":
            columns = [np.broadcast_to(self.numbers(a, expr), self.frame.height) for a in data]
            return Numbers(np.column_stack(columns), tuple(written(a) for a in data))
        if expr.function == "unclass":
            value = self(data[0])
            return Numbers(np.where(value.codes < 0, np.nan, value.codes + 1.0)) if isinstance(value, Codes) else value
        if expr.function in LEVELLED and (expr.function != "poly" or isinstance(self(data[0]), Codes)):
            return self.levelled(expr, data[0], options)
        return self.transformed(expr, function, data[0], options)

    def transformed(self, expr: Call, function: Function, data: Expr, options: dict[str, Any]) -> Numbers:
        """An elementwise function, or one that learns at the fit."""
        x = self.numbers(data, expr)
        try:
            with np.errstate(all="ignore"):
                if function.learn is None:
                    return Numbers(function.apply(x, **options))  # type: ignore[misc]
                x = np.broadcast_to(x, self.frame.height)
                if self.learning and expr not in self.learnt:
                    self.learnt[expr] = self.learn(function, x, dict(function.options) | options)
                values = function.apply(x, self.learnt[expr])  # type: ignore[misc]
        except DataError as error:
            raise DataError(error.what, where=error.where or written(expr), do=error.do) from None
        return Numbers(values) if values.ndim == 1 else Numbers(values, tuple(str(j + 1) for j in range(values.shape[1])))

    def learn(self, function: Function, x: Floats, options: dict[str, Any]) -> Any:
        counts = self.counts
        if not np.isfinite(np.add.reduce(x)):
            there = ~np.isnan(x)
            x, counts = x[there], None if counts is None else counts[there]
            if not np.isfinite(x).all():
                raise DataError(
                    f"the values are infinite in {rows_text(int(np.isinf(x).sum()))}.",
                    do="Nothing can be learnt from them: leave those rows out.",
                )
        if not x.size:
            raise DataError("there is no value to learn from.", do="Every row is missing.")
        return function.learn(x, counts, **options)  # type: ignore[misc]

    def levelled(self, expr: Call, data: Expr, options: dict[str, Any]) -> Codes:
        """factor(), C() and the codings: a factor with or without a coding of its own."""
        value = self(data)
        if isinstance(value, Numbers):
            value = self.number_factor(expr, data, value)
        wanted = options.pop("levels", None)
        if wanted is not None:
            value = self.with_levels(expr, value, wanted)
        if expr.function == "factor":
            return evolve(value, coding=None)
        kind = coding_name(options.pop("coding", "treatment"), written(expr)) if expr.function == "C" else expr.function
        base = {"treatment": "ref", "sum": "omit"}.get(kind if isinstance(kind, str) else "", "")
        unused = [k for k, v in options.items() if v is not None and k != base]
        if unused:
            raise OptionError(f"{unused[0]}= has no meaning for this coding.", where=written(expr))
        return evolve(value, coding=(kind, options.get(base)))

    def number_factor(self, expr: Call, data: Expr, value: Numbers) -> Codes:
        if value.values.ndim > 1:
            raise DataError(f"{written(data)} has several columns.", where=written(expr))
        x = np.broadcast_to(value.values, self.frame.height)
        if self.learning and expr not in self.learnt:
            integer = isinstance(data, Name) and data.id in self.names and self.frame.get_column(data.id).dtype.is_integer()
            levels = number_levels(x, integer)
            if isinstance(data, Name) and data.id in self.given:
                self.ordered.add(data.id)
                levels = tuple(reordered(data.id, self.given[data.id], set(levels)))
            self.learnt[expr] = Levels("number", levels, tuple(number_label(v) for v in levels))
        return Codes(number_codes(x, self.learnt[expr].values), self.learnt[expr])

    def with_levels(self, expr: Call, value: Codes, wanted: Any) -> Codes:
        """factor(x, levels=c(…)): these levels in this order; a value outside them is missing, as in R."""
        wanted = wanted if isinstance(wanted, list) else [wanted]
        own = [value.levels.index(level, written(expr)) for level in wanted]
        levels = Levels(value.levels.kind, tuple(value.levels.values[i] for i in own), tuple(value.levels.labels[i] for i in own))
        table = np.full(len(value.levels.labels) + 2, MISSING)
        table[own] = np.arange(len(own))
        table[UNSEEN] = UNSEEN
        return Codes(table[value.codes], levels)

    def foreign(self, expr: Call) -> Value:
        """A callable passed in env=, on arrays of the rows."""
        function = self.env[expr.function]
        args = [self.lent(self(a)) for a in expr.args]
        out = pl.Series(expr.function, np.asarray(function(*args, **{k: self.literal(v, expr) for k, v in expr.kwargs})))
        if len(out) != self.frame.height:
            raise DataError(f"it gave {len(out)} values for {self.frame.height} rows.", where=written(expr), do="It must work row by row.")
        kind = column_kind(out, written(expr))
        if kind == "number":
            return Numbers(as_floats(out))
        if self.learning and expr not in self.learnt:
            self.learnt[expr] = self.column_levels(out, kind)
        levels = self.learnt[expr]
        return Codes(out.to_numpy().astype(np.int8) if kind == "bool" else text_codes(out, levels.labels), levels)

    def lent(self, value: Value) -> Array:
        if isinstance(value, Numbers):
            return value.values
        return np.array([*value.levels.values, None, None], dtype=object)[value.codes]

    def literal(self, expr: Expr, call: Call) -> Any:
        """The value of an option: a number, a string, TRUE / FALSE, c(…), a name passed in env=, or a bare word."""
        if isinstance(expr, (Number, Text)):
            return int(expr.value) if isinstance(expr, Number) and expr.value == int(expr.value) else expr.value
        if isinstance(expr, Name):
            return self.env[expr.id] if expr.id in self.env else {"T": True, "F": False}.get(expr.id, expr.id)
        if isinstance(expr, Call) and expr.function == "c" and not expr.kwargs:
            return [self.literal(a, call) for a in expr.args]
        if isinstance(expr, Operation) and expr.op in _ARITHMETIC:
            args = [self.literal(a, call) for a in expr.args]
            if all(isinstance(a, (int, float)) for a in args):
                return (
                    (-args[0] if expr.op == "-" else args[0])
                    if len(args) == 1
                    else float(_ARITHMETIC[expr.op](np.float64(args[0]), np.float64(args[1])))
                )
        raise OptionError(f"{written(expr)} is not a value that an option can take.", where=written(call))


_ARITHMETIC = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "%%": np.mod,
    "%/%": np.floor_divide,
}
_COMPARE = {"<": np.less, ">": np.greater, "<=": np.less_equal, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal}
