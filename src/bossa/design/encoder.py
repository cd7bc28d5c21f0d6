"""How do new rows become the same columns? The `Encoder` keeps what the fit learnt of the data, never the rows.

Every design matrix is made here: at the fit, for effects, predictions, simulation and cross-validation. A term is a product of pieces;
a numeric piece lends its column(s), a factor piece looks its level up in a coding matrix; the first piece varies fastest, as in R.

    X[i, (j1, j2, …)] = Π_pieces value(i, j)        value = C[code_i, j] for a factor
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve, frozen

from ..errors import DataError, UnknownLevel
from ..state.fields import array, check_axes
from ..state.spec import Call, Expr, Name, Spec
from ..types import Array, Bools, Floats, Ints
from .columns import Codes, Columns, Numbers, Value, absent
from .levels import MISSING, UNSEEN, Levels


@frozen(kw_only=True, eq=False)
class Variable:
    """One column of the data that the model reads, as it was in the rows used.

    kind             "numeric" | "factor" | "bool"
    levels, labels   of a factor or bool, unused ones left out: original values, and as shown
    mean, sd, minimum, maximum   of a number
    n_unique         different values of a number, counted up to 3 (3: three or more)
    values           sorted different values of a number that has one or two, or stands inside factor() or C(); else ()
    """

    name: str
    kind: str
    dtype: Any
    levels: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()
    mean: float | None = None
    sd: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    n_unique: int = 0
    values: tuple[Any, ...] = ()


@frozen(kw_only=True, eq=False)
class TermInfo:
    """label; factors (expressions) and variables (column names) it is made of; slice of its columns."""

    label: str
    factors: tuple[Expr, ...]
    variables: tuple[str, ...]
    columns: slice


@frozen(eq=False)
class Piece:
    """One factor of a term: its coding matrix (G, c) by level, or None for numbers; names of its columns (c,).

    labels  (G,)  of its levels;  coding  "treatment" | "sum" | … | "array", or "levels": one column per level
    """

    expr: Expr
    matrix: Floats | None
    names: tuple[str, ...]
    labels: tuple[str, ...] = ()
    coding: str = ""


Pieces = tuple[Piece, ...]


@frozen(kw_only=True, eq=False)
class Varying:
    """One random-effects term: how rows find their group, and the columns of Z.

    group   name of the grouping factor
    parts   its factors' expressions
    used    (G,) sorted combined codes of the groups there were
    labels  (G,)
    terms   pieces of each term of the left side;  names: columns of Z (k,);  blocks: sizes of the correlated blocks
    """

    group: str
    parts: tuple[Expr, ...]
    used: Ints = array("G")
    labels: tuple[str, ...]
    terms: tuple[Pieces, ...]
    names: tuple[str, ...]
    blocks: tuple[int, ...]


@frozen(kw_only=True, eq=False)
class Rows:
    """Encoded rows: X (n, P), NaN in rows that are not ok; offset (n,) or None; ok (n,): nothing missing, no unseen level."""

    X: Array = array("n", "P")
    offset: Array | None = array("n", optional=True)
    ok: Array = array("n")

    __attrs_post_init__ = check_axes


def piece_names(pieces: Pieces) -> tuple[str, ...]:
    """Names of a term's columns, first piece fastest; the intercept has no piece."""
    if not pieces:
        return ("Intercept",)
    return tuple(":".join(names[::-1]) for names in product(*(p.names for p in pieces[::-1])))


def fill(out: Floats, pieces: Pieces, values: Mapping[Expr, Value]) -> None:
    """Write one term's columns into out (n, c)."""
    widths = [range(len(p.names)) for p in pieces[::-1]]
    for column, choice in zip(out.T, product(*widths)):
        fresh = True
        for piece, j in zip(pieces, choice[::-1]):
            _times(column, piece, j, values[piece.expr], fresh)
            fresh = False
        if fresh:
            column[:] = 1.0


def _times(out: Floats, piece: Piece, j: int, value: Value, fresh: bool) -> None:
    """out = or *= column j of the piece."""
    if isinstance(value, Numbers):
        x = value.values if value.values.ndim == 1 else value.values[:, j]
        if fresh:
            out[:] = x
        else:
            out *= x
        return
    assert piece.matrix is not None
    row = piece.matrix[:, j]
    level = np.flatnonzero(row)
    if level.size == 1 and row[level[0]] == 1.0:
        if fresh:
            np.equal(value.codes, level[0], out=out, casting="unsafe")
        else:
            out *= value.codes == level[0]
    elif fresh:
        np.take(row, value.codes, out=out, mode="clip")
    else:
        out *= np.take(row, value.codes, mode="clip")


@frozen(kw_only=True, eq=False)
class Encoder:
    """What the fit learnt of the data, and so how any rows become its columns. Holds no rows; pickles.

    variables  columns of the data that the fixed part, offsets and random effects read
    terms      of the fixed part in R's order, "Intercept" among them
    columns    (P,)  coefficient names
    learnt     by expression: levels, moments, bases, knots
    used       by expression: places, among the levels learnt, of those that occur
    """

    spec: Spec
    variables: Mapping[str, Variable]
    terms: tuple[TermInfo, ...]
    columns: tuple[str, ...]
    learnt: Mapping[Expr, Any]
    used: Mapping[Expr, Ints]
    pieces: tuple[Pieces, ...]
    varying: tuple[Varying, ...] = ()
    success: Levels | None = None

    def values(self, frame: pl.DataFrame) -> Columns:
        """Evaluates expressions on new rows with what was learnt."""
        return Columns(frame, self.spec.env, self.spec.levels, dict(self.learnt))

    def rows(self, frame: pl.DataFrame, *, unseen: str = "error", offset: bool = True) -> Rows:
        """The fixed part's columns for any rows; rows are never lost.

        unseen  "error", or "null": a level that the fit did not have makes the row not ok
        offset  False: leave the offset out, and do not ask for its columns
        """
        columns = self.values(frame)
        ok = np.ones(frame.height, dtype=bool)
        values = {p.expr: self.atom(columns, p.expr, ok, unseen) for pieces in self.pieces for p in pieces}
        X = np.empty((frame.height, len(self.columns)), order="F")
        for info, pieces in zip(self.terms, self.pieces):
            fill(X[:, info.columns], pieces, values)
        total = self.offset(columns) if offset else None
        if total is not None:
            ok &= ~np.isnan(total)
        if not ok.all():
            X[~ok] = np.nan
        return Rows(X=X, offset=total, ok=ok)

    def atom(self, columns: Columns, expr: Expr, ok: Bools, unseen: str = "null") -> Value:
        """One factor of a term on new rows; `ok` loses the rows that lack it."""
        value = self.among_used(expr, full_length(columns(expr), columns.frame.height))
        if isinstance(value, Codes):
            if value.codes.size and value.codes.min() < 0:
                self.check_unseen(columns, expr, value, unseen)
                ok &= value.codes >= 0
        else:
            gone = absent(value)
            if gone is not None:
                ok &= ~gone
        return value

    def among_used(self, expr: Expr, value: Value) -> Value:
        """A factor's codes among the levels that the fit used."""
        if not isinstance(value, Codes):
            return value
        return relevelled(value, self.used[expr])

    def check_unseen(self, columns: Columns, expr: Expr, value: Codes, unseen: str) -> None:
        if unseen == "null":
            return
        new = np.flatnonzero(value.codes == UNSEEN)
        if new.size:
            name = expr.args[0] if isinstance(expr, Call) and expr.args else expr
            series = columns.series(str(name)) if str(name) in columns.names else None
            level = str(expr) if series is None else series[int(new[0])]
            raise UnknownLevel(level, str(name), value.levels.labels, where="new rows")

    def offset(self, columns: Columns) -> Floats | None:
        """Sum of the offsets (n,), NaN where one is missing; None if the model has none."""
        parts = [_vector(columns, e) for e in self.spec.offsets]
        if self.spec.offset is not None:
            parts.append(column_numbers(columns, self.spec.offset, "offset="))
        if not parts:
            return None
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        return total

    def random(self, frame: pl.DataFrame) -> list[tuple[Ints, Floats]]:
        """For each random-effects term of the design: codes (n,) of the groups (-1 unseen, -2 missing) and Z (n, k), NaN where missing."""
        columns = self.values(frame)
        out = []
        for term in self.varying:
            codes = self.group_codes(columns, term)
            ok = np.ones(frame.height, dtype=bool)
            values = {p.expr: self.atom(columns, p.expr, ok, "error") for pieces in term.terms for p in pieces}
            Z = z_columns(term, values, frame.height)
            Z[~ok] = np.nan
            out.append((codes, Z))
        return out

    def group_codes(self, columns: Columns, term: Varying) -> Ints:
        """Group (n,) of each row; -1 for a group that the fit did not have, -2 where it is missing."""
        combined, gone = combined_codes([self.among_used(e, columns(e)) for e in term.parts])
        place = np.searchsorted(term.used, combined)
        place = np.minimum(place, len(term.used) - 1)
        codes = np.where(term.used[place] == combined, place, -1)
        return np.where(gone, -2, codes) if gone is not None else codes

    def response(self, frame: pl.DataFrame) -> Floats:
        """The response (n,), NaN where missing; a proportion for cbind()."""
        return response(self.values(frame), self.spec, self.success)[0]

    def prior_weights(self, frame: pl.DataFrame) -> Floats | None:
        """Prior weights times trials (n,), None where all are 1."""
        columns = self.values(frame)
        trials = response(columns, self.spec, self.success)[1]
        if self.spec.weights is None:
            return trials
        weights = column_numbers(columns, self.spec.weights, "weights=")
        return weights if trials is None else weights * trials


def z_columns(term: Varying, values: Mapping[Expr, Value], n: int) -> Floats:
    Z = np.empty((n, len(term.names)), order="F")
    at = 0
    for pieces in term.terms:
        width = len(piece_names(pieces))
        fill(Z[:, at : at + width], pieces, values)
        at += width
    return Z


def full_length(value: Value, n: int) -> Value:
    """A constant expression counts for every row."""
    if isinstance(value, Numbers) and value.values.ndim == 0:
        return Numbers(np.full(n, float(value.values)))
    return value


def relevelled(value: Codes, used: Ints) -> Codes:
    """The same factor among the levels `used` (places in the old ones); others become UNSEEN."""
    G = len(value.levels.labels)
    if len(used) == G:
        return value
    table = np.full(G + 2, UNSEEN, dtype=np.int32)
    table[used] = np.arange(len(used))
    table[MISSING] = MISSING
    levels = evolve(value.levels, values=tuple(value.levels.values[i] for i in used), labels=tuple(value.levels.labels[i] for i in used))
    return evolve(value, codes=table[value.codes], levels=levels)


def combined_codes(parts: list[Value]) -> tuple[Ints, Bools | None]:
    """One code (n,) for each combination of several factors, first slowest, -1 where one is unseen; and where one is missing."""
    combined: Ints | None = None
    gone: Bools | None = None
    unseen: Bools | None = None
    for part in parts:
        assert isinstance(part, Codes)
        codes = part.codes.astype(np.int64)
        if codes.size and codes.min() < 0:
            gone = codes == MISSING if gone is None else gone | (codes == MISSING)
            unseen = codes == UNSEEN if unseen is None else unseen | (codes == UNSEEN)
        combined = codes if combined is None else combined * len(part.levels.labels) + codes
    assert combined is not None
    return combined if unseen is None else np.where(unseen, -1, combined), gone


def response(columns: Columns, spec: Spec, success: Levels | None) -> tuple[Floats, Floats | None]:
    """y (n,), NaN where missing, and trials (n,) of a cbind() response or None."""
    assert spec.response is not None
    value = full_length(columns(spec.response), columns.frame.height)
    if isinstance(value, Codes):
        if success is not None and value.levels is not success and value.levels.labels != success.labels:
            value = relevelled(value, np.array([value.levels.labels.index(label) for label in success.labels]))
        return np.where(value.codes < 0, np.nan, value.codes.astype(float)), None
    if value.values.ndim == 1:
        return value.values, None
    successes, trials = value.values[:, 0], value.values.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(trials == 0, 0.0, successes / trials), trials


def _vector(columns: Columns, expr: Expr) -> Floats:
    value = full_length(columns(expr), columns.frame.height)
    if isinstance(value, Codes) or value.values.ndim > 1:
        raise DataError("an offset must be one number for each row.", where=str(expr))
    return value.values


def column_numbers(columns: Columns, name: str, where: str) -> Floats:
    value = columns(Name(name))
    if isinstance(value, Codes):
        raise DataError(f"column {name!r} is not numeric.", where=where)
    return value.values
