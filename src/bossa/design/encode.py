"""How do a formula and data become arrays? `encode(spec, frame)` → (Encoder, Design, rows used).

Order of work: evaluate everything once on all rows (transforms learn from every value present, as in R), one joint mask of missing
values, levels from the rows left, then X is written column by column. Rows of weight or count 0 leave n; every choice is in
`Design.notes`.

Source: R `model.frame`, `model.matrix`; lme4 `mkReTrms` for the random part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve

from ..errors import DataError, OptionError, listing
from ..state.design import Design
from ..state.spec import Call, Expr, Name, Spec, Term
from ..types import Array, Bools, Floats, Ints
from .columns import Codes, Columns, Numbers, Value, absent
from .encoder import Encoder, Pieces, TermInfo, Variable, column_numbers, fill, full_length, piece_names, relevelled, response
from .formula import data_names, dot_columns, resolve
from .levels import Levels, rows_text
from .plan import check_levels, plan, unused_contrasts
from .varying import nesting, structure, varying_terms

PROPORTIONS = ("binomial", "quasibinomial")


def encode(spec: Spec, frame: pl.DataFrame) -> tuple[Encoder, Design, pl.DataFrame]:
    """The design of a model on its data.

    returns  the Encoder for new rows, the Design (X in Fortran order), and the frame of the rows used (the same object if all are)
    raises   DataError, UnknownColumn … with what to do
    """
    if not frame.height:
        raise DataError("the data have no rows.", where="model()")
    spec = resolve(spec, frame)
    dots = dot_columns(spec, frame)
    notes = [f"'.' stands for {listing(dots, 30)}."] if dots else []
    counts, counted = _counts(spec, frame, notes)
    rows = frame if counted is None else frame.filter(counted)
    columns = Columns(rows, spec.env, spec.levels, {}, learning=True, counts=counts)
    groups = {part: _as_factor(columns, part) for bar in spec.bars for part in bar.factor}
    values = {e: full_length(columns(e), rows.height) for e in dict.fromkeys([*_factors(spec), *groups.values()])}

    ok = _present(spec, columns, values, notes)
    y, trials, success = _response(spec, columns, ok, notes)
    used, values = _used_levels(values, ok, notes)
    check_levels(values)
    notes += [*unused_contrasts(spec.fixed, values, spec.contrasts, columns.names), *_unused_levels(spec, columns)]
    weights = _weights(spec, columns, ok, trials)
    kept = _kept(ok, weights, notes)
    values = {e: taken_value(v, kept) for e, v in values.items()}
    variables = _variables(spec, columns, values, used, kept)
    _check_finite(values, variables)

    pieces = plan(spec.fixed, values, spec.contrasts)
    terms, names = _terms(spec.fixed, pieces, columns.names)
    varying = varying_terms(spec.bars, values, groups)
    encoder = Encoder(
        spec=spec,
        variables=variables,
        terms=terms,
        columns=names,
        learnt=columns.learnt,
        used=used,
        pieces=tuple(pieces),
        varying=varying,
        success=success,
    )
    n = rows.height if kept is None else kept.size
    y = None if y is None else _finite(_taken(y, kept), "the response")
    X = _written(terms, pieces, values, n, None if varying else columns)
    random = structure(varying, values, n) if varying else None
    index = kept if counted is None else np.flatnonzero(counted) if kept is None else np.flatnonzero(counted)[kept]
    design = Design(
        X=X,
        y=y,
        weights=_taken(weights, kept),
        freq=_taken(counts, kept),
        offset=_offset(encoder, columns, kept),
        names=names,
        term_of=np.repeat(np.arange(len(terms)), [len(piece_names(p)) for p in pieces]),
        terms=tuple(t.label for t in terms),
        columns=names,
        kept=np.ones(len(names), dtype=bool),
        rows=np.arange(frame.height) if index is None else index,
        n_data=frame.height,
        random=random,
        notes=(*notes, *(nesting(random) if random else ())),
    )
    return encoder, design, frame if index is None else frame[index]


# ---------------------------------------------------------------- rows
def _counts(spec: Spec, frame: pl.DataFrame, notes: list[str]) -> tuple[Floats | None, Bools | None]:
    """freq_weights (n,) of the rows that count, and which they are (None: all); a missing count is left to the joint mask."""
    if spec.freq_weights is None:
        return None, None
    where = f"freq_weights={spec.freq_weights!r}"
    counts = column_numbers(Columns(frame, {}, {}, {}, learning=True), spec.freq_weights, where)
    there = counts[~np.isnan(counts)]
    if (there < 0).any() or not np.isfinite(there).all() or (there != np.floor(there)).any():
        raise DataError("counts are whole numbers of at least 0.", where=where, do="For precision weights use weights=.")
    zero = counts == 0
    if not zero.any():
        return np.nan_to_num(counts), None
    if zero.all():
        raise DataError("every count is 0.", where=where)
    notes.append(f"{_many(zero)} of {rows_text(zero.size)} left out: count 0.")
    return np.nan_to_num(counts[~zero]), ~zero


def _present(spec: Spec, columns: Columns, values: Mapping[Expr, Value], notes: list[str]) -> Bools:
    """Rows (n,) in which nothing that the model needs is missing."""
    sources: dict[Expr, Value] = dict(values)
    for expr in (spec.response, *spec.offsets, *(Name(n) for n in (spec.weights, spec.freq_weights, spec.offset) if n is not None)):
        if expr is not None:
            sources[expr] = full_length(columns(expr), columns.frame.height)
    ok = np.ones(columns.frame.height, dtype=bool)
    gone = {expr: mask for expr, value in sources.items() if (mask := absent(value)) is not None}
    if not gone:
        return ok
    reasons = _reasons(columns, sources, gone)
    for mask in gone.values():
        ok &= ~mask
    text = f"a value is missing in {_many(~ok)} of {rows_text(ok.size)} ({', '.join(f'{name} {count}' for name, count in reasons.items())})"
    if spec.missing == "error":
        raise DataError(f"{text}.", where="model(missing='error')", do="Drop or fill them first, or use missing='drop'.")
    if not ok.any():
        raise DataError(f"no row is complete: {text}.", where="model()")
    notes.append(f"Left out: {text}.")
    return ok


def _reasons(columns: Columns, sources: Mapping[Expr, Value], gone: Mapping[Expr, Bools]) -> dict[str, int]:
    """Missing values by column; by expression where a function made one of a value that is there (log of a negative number)."""
    reasons: dict[str, int] = {}
    for expr, mask in gone.items():
        made = mask.copy()
        for name in data_names(expr):
            if name in columns.names and (own := absent(columns(Name(name)))) is not None:
                reasons[name] = _many(own)
                made &= ~own
        if made.any():
            reasons[f"{expr} {'no level' if isinstance(sources[expr], Codes) else 'not a number'}"] = _many(made)
    return reasons


def _weights(spec: Spec, columns: Columns, ok: Bools, trials: Floats | None) -> Floats | None:
    """Prior weights times trials (n,), checked on the rows left; None: all 1."""
    if spec.weights is None:
        return trials
    where = f"weights={spec.weights!r}"
    weights = column_numbers(columns, spec.weights, where)
    used = weights[ok]
    if (used < 0).any():
        raise DataError(f"{_many(used < 0)} weights are negative.", where=where)
    if not np.isfinite(used).all():
        raise DataError(f"{_many(~np.isfinite(used))} weights are infinite.", where=where)
    return weights if trials is None else weights * trials


def _kept(ok: Bools, weights: Floats | None, notes: list[str]) -> Ints | None:
    """Rows with everything there and a positive weight; None: all."""
    final = ok
    if weights is not None:
        zero = ok & (weights == 0)
        if zero.any():
            final = ok & ~zero
            if not final.any():
                raise DataError("every weight is 0.", where="weights=")
            notes.append(f"{rows_text(_many(zero))} of weight 0: not counted.")
    return None if final.all() else np.flatnonzero(final)


def _many(mask: Bools) -> int:
    return int(np.count_nonzero(mask))


def _taken(x: Any, kept: Ints | None) -> Any:
    return x if x is None or kept is None else x[kept]


def taken_value(value: Value, kept: Ints | None) -> Value:
    if kept is None:
        return value
    return evolve(value, codes=value.codes[kept]) if isinstance(value, Codes) else evolve(value, values=value.values[kept])


# ---------------------------------------------------------------- values
def _factors(spec: Spec) -> Iterator[Expr]:
    """Every factor of a term, fixed or left of a bar."""
    for terms in (spec.fixed, *(bar.lhs for bar in spec.bars)):
        yield from (f for term in terms for f in term.factors)


def _as_factor(columns: Columns, part: Expr) -> Expr:
    """A grouping factor's expression: numbers are made a factor."""
    value = columns(part)
    if isinstance(value, Numbers) and value.values.ndim > 1:
        raise DataError("a grouping factor is one column.", where=str(part))
    return part if isinstance(value, Codes) else Call("factor", (part,))


def _used_levels(values: Mapping[Expr, Value], ok: Bools, notes: list[str]) -> tuple[dict[Expr, Ints], dict[Expr, Value]]:
    """Which levels of each factor occur in the rows left, and the factors among these levels; a bool keeps both."""
    used: dict[Expr, Ints] = {}
    out: dict[Expr, Value] = {}
    for expr, value in values.items():
        if isinstance(value, Codes):
            used[expr] = _occurring(value, ok)
            if len(used[expr]) < len(value.levels.labels):
                kept = set(used[expr].tolist())
                notes.append(
                    f"Levels of {expr} without rows are left out: {listing(v for i, v in enumerate(value.levels.labels) if i not in kept)}."
                )
                value = relevelled(value, used[expr])
        out[expr] = value
    return used, out


def _unused_levels(spec: Spec, columns: Columns) -> Iterator[str]:
    """Notes on `levels=` of columns that are no factor here."""
    for name in spec.levels:
        if name in columns.ordered:
            continue
        if Name(name) in columns.learnt:
            raise OptionError(f"{name!r} is numeric in this formula.", where="levels=", do=f"Write factor({name}) there.")
        yield f"levels= of {name} has no use: the formula does not have it."


def _occurring(value: Codes, ok: Bools) -> Ints:
    G = len(value.levels.labels)
    if value.levels.kind == "bool":
        return np.arange(G)
    seen = np.zeros(G + 2, dtype=bool)
    seen[value.codes if ok.all() else value.codes[ok]] = True
    return np.flatnonzero(seen[:G])


LARGEST = 1e150  # numbers beyond have no square in double precision


def _check_finite(values: Mapping[Expr, Value], variables: Mapping[str, Variable]) -> None:
    """No ±inf or too large a number anywhere; a column whose least and largest value are fine needs no second look."""
    for expr, value in values.items():
        column = variables.get(expr.id) if isinstance(expr, Name) else None
        ends = None if column is None else (column.minimum, column.maximum)
        if isinstance(value, Numbers) and (ends is None or None in ends or not np.abs(np.array(ends, dtype=float)).max() < LARGEST):
            _finite(value.values, str(expr))


def _finite(x: Array, name: str) -> Array:
    """x itself, checked for ±inf (missing values are gone by now) and for numbers whose squares overflow."""
    flat = x.ravel(order="K")
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.dot(flat, flat)
    if not np.isfinite(squares):
        wrong = ~np.isfinite(x)
        if wrong.any():
            raise DataError(
                f"{name} is infinite in {rows_text(_many(np.logical_or.reduce(wrong.reshape(len(x), -1), axis=1)))}.",
                where="formula",
                do="Leave those rows out or transform the column differently.",
            )
        raise DataError(
            f"{name} has values as large as {float(np.abs(x).max())!r}, whose squares are beyond double precision.",
            where="formula",
            do="Measure it in other units.",
        )
    return x


def _offset(encoder: Encoder, columns: Columns, kept: Ints | None) -> Floats | None:
    total = encoder.offset(columns)
    return None if total is None else _finite(_taken(total, kept), "the offset")


def _response(spec: Spec, columns: Columns, ok: Bools, notes: list[str]) -> tuple[Floats | None, Floats | None, Levels | None]:
    """y (n,), trials (n,) or None, and the two levels of a response that is a factor."""
    if spec.response is None:
        return None, None, None
    value = columns(spec.response)
    family = getattr(spec.family, "name", None)
    proportion = family is None or family in PROPORTIONS
    success = None
    if isinstance(value, Codes):
        success = _success(spec.response, value, ok, proportion, family)
        if value.levels.kind == "text" or proportion:
            notes.append(f"Response {spec.response}: {success.labels[1]} is success (1), {success.labels[0]} is 0.")
    elif value.values.ndim > 1:
        if not (isinstance(spec.response, Call) and spec.response.function == "cbind") or value.values.shape[1] != 2:
            raise DataError(
                "has several columns.", where=f"the response {spec.response}", do="A response is one column, or cbind(success, failure)."
            )
        if not proportion:
            raise DataError(
                f"cbind() counts successes and failures, which family {family!r} does not have.",
                where=f"the response {spec.response}",
                do="Use family='binomial'.",
            )
        if (value.values[ok] < 0).any():
            raise DataError("counts are negative.", where=f"the response {spec.response}")
    y, trials = response(columns, spec, success)
    return y, trials, success


def _success(expr: Expr, value: Codes, ok: Bools, proportion: bool, family: str | None) -> Levels:
    levels = value.levels
    if levels.kind == "bool":
        return levels
    if not proportion:
        raise DataError(
            f"is text, and family {family!r} needs numbers.",
            where=f"the response {expr}",
            do="A response with two levels takes family='binomial'.",
        )
    levels = relevelled(value, _occurring(value, ok)).levels
    if len(levels.labels) != 2:
        raise DataError(
            f"has {len(levels.labels)} levels ({listing(levels.labels, 6)}); a binomial response has two.",
            where=f"the response {expr}",
            do="Compare one level with the rest: a column of True and False.",
        )
    return levels


def _written(terms: tuple[TermInfo, ...], pieces: list[Pieces], values: dict[Expr, Value], n: int, spare: Columns | None) -> Floats:
    """X (n, P), term by term; with `spare` (where nothing else reads them) values are let go of once their last term has them."""
    X = np.empty((n, sum(len(piece_names(p)) for p in pieces)), order="F")
    last = {p.expr: i for i, term in enumerate(pieces) for p in term}
    for i, (info, term) in enumerate(zip(terms, pieces)):
        fill(X[:, info.columns], term, values)
        for expr in {p.expr for p in term if spare is not None and last[p.expr] == i}:
            del values[expr]
            spare.cache.pop(expr, None)  # type: ignore[union-attr]
    return X


# ---------------------------------------------------------------- what the encoder knows
def _terms(fixed: tuple[Term, ...], pieces: Iterable[Pieces], known: frozenset[str]) -> tuple[tuple[TermInfo, ...], tuple[str, ...]]:
    infos: list[TermInfo] = []
    names: list[str] = []
    for term, parts in zip(fixed, pieces):
        own = piece_names(parts)
        variables = dict.fromkeys(n for f in term.factors for n in data_names(f) if n in known)
        label = str(term) if term.degree else "Intercept"
        infos.append(
            TermInfo(label=label, factors=term.factors, variables=tuple(variables), columns=slice(len(names), len(names) + len(own)))
        )
        names += own
    return tuple(infos), tuple(names)


def _variables(
    spec: Spec, columns: Columns, values: Mapping[Expr, Value], used: Mapping[Expr, Ints], kept: Ints | None
) -> dict[str, Variable]:
    """Every column that terms, offsets and groups read, described over the rows used."""
    read = [n for e in (*_factors(spec), *spec.offsets) for n in data_names(e)]
    read += [spec.offset] if spec.offset is not None else []
    grouping = [n for bar in spec.bars for e in bar.factor for n in data_names(e)]
    out = {}
    for name in dict.fromkeys([*read, *grouping]):
        if name not in columns.names:
            continue
        value, dtype = columns(Name(name)), columns.frame.get_column(name).dtype
        if isinstance(value, Codes):
            places = used.get(Name(name))
            if places is None:
                places = _occurring(taken_value(value, kept), np.ones(1, dtype=bool))  # type: ignore[arg-type]
            levels = relevelled(value, places).levels
            kind = "bool" if levels.kind == "bool" else "factor"
            out[name] = Variable(name=name, kind=kind, dtype=dtype, levels=levels.values, labels=levels.labels)
        else:
            as_factor = _levels_inside(name, values)
            if name not in read and as_factor is not None:
                out[name] = Variable(name=name, kind="factor", dtype=dtype, levels=as_factor.values, labels=as_factor.labels)
            else:
                out[name] = _numeric(name, dtype, _taken(value.values, kept), as_factor)
    return out


def _levels_inside(name: str, values: Mapping[Expr, Value]) -> Levels | None:
    """Levels of factor(name) or C(name, …), if the formula has one."""
    for expr, value in values.items():
        if isinstance(value, Codes) and isinstance(expr, Call) and expr.args and expr.args[0] == Name(name):
            return value.levels
    return None


def _numeric(name: str, dtype: Any, x: Floats, as_factor: Levels | None) -> Variable:
    blocks = [x[start : start + 8192] for start in range(0, x.size, 8192)]  # that stay in cache, and on one BLAS thread
    low = high = float(x[0])
    total = squares = 0.0
    with np.errstate(invalid="ignore", over="ignore"):  # an infinite value is legal where only 1/x is used; a huge one is refused later
        origin = float(np.add.reduce(blocks[0]) / blocks[0].size)
        for block in blocks:
            low, high = min(low, float(np.minimum.reduce(block))), max(high, float(np.maximum.reduce(block)))
            deviation = block - origin
            total += float(np.add.reduce(deviation))
            squares += float(deviation @ deviation)
    mean = origin + total / x.size
    squares = max(squares - total * (total / x.size), 0.0)  # exact enough: a mean of 1/k of the rows is within √k sd of the mean of all
    different = 1 if low == high else 2 if all(((block == low) | (block == high)).all() for block in blocks) else 3
    values = as_factor.values if as_factor is not None else tuple(sorted({low, high})) if different < 3 else ()
    return Variable(
        name=name,
        kind="numeric",
        dtype=dtype,
        mean=mean,
        sd=float(np.sqrt(squares / max(x.size - 1, 1))),
        minimum=low,
        maximum=high,
        n_unique=different,
        values=values,
    )
