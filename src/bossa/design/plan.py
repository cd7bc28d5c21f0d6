"""Which columns does each term get? R's rules of marginality: when a factor is coded by contrasts, and when by all its levels.

In term T a factor v is coded by contrasts if an earlier term contains T without v (nothing left: the mean), else by one column per
level; without an intercept the first factor of the first term that has one gets all its levels.

Source: R `terms.formula` (TermCode) and `model.matrix`; Chambers & Hastie (1992) §2.4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, OptionError, UnknownOption
from ..kernels.contrasts import coding
from ..state.spec import Call, Expr, Name, Term
from .columns import Codes, Value
from .encoder import Piece, Pieces


def contrasted(terms: Sequence[Term], is_factor: Callable[[Expr], bool]) -> list[tuple[bool, ...]]:
    """For every factor of every term: coded by contrasts (True) or by all its levels (False; numbers too)."""
    intercept = any(not t.degree for t in terms)
    earlier: list[frozenset[Expr]] = []
    out: list[tuple[bool, ...]] = []
    for term in terms:
        whole = frozenset(term.factors)
        flags = []
        for factor in term.factors:
            rest = whole - {factor}
            flags.append(is_factor(factor) and (not rest or any(rest <= e for e in earlier)))
        earlier.append(whole)
        if not intercept and any(is_factor(f) for f in term.factors):
            flags[next(i for i, f in enumerate(term.factors) if is_factor(f))] = False
            intercept = True  # the mean is in the span from here on
        out.append(tuple(flags))
    return out


def plan(terms: Sequence[Term], values: Mapping[Expr, Value], contrasts: Mapping[str, Any]) -> list[Pieces]:
    """The pieces of each term, from the values its factors have at the fit."""
    flags = contrasted(terms, lambda e: isinstance(values[e], Codes))
    made: dict[tuple[Expr, bool], Piece] = {}
    out = []
    for term, by_contrasts in zip(terms, flags):
        pieces = []
        for factor, flag in zip(term.factors, by_contrasts):
            if (factor, flag) not in made:
                made[factor, flag] = piece(factor, values[factor], flag, contrasts)
            pieces.append(made[factor, flag])
        out.append(tuple(pieces))
    return out


def piece(expr: Expr, value: Value, by_contrasts: bool, contrasts: Mapping[str, Any]) -> Piece:
    """One factor of a term as columns with names."""
    name = str(expr)
    if not isinstance(value, Codes):
        return Piece(expr, None, (name,) if value.names is None else tuple(f"{name}[{n}]" for n in value.names))
    labels = value.levels.labels
    if not by_contrasts:
        return Piece(expr, np.eye(len(labels)), tuple(f"{name}[{label}]" for label in labels), labels, "levels")
    matrix, names, coded = chosen_coding(expr, value, contrasts)
    return Piece(expr, matrix, tuple(f"{name}[{n}]" for n in names), labels, coded)


def chosen_coding(expr: Expr, value: Codes, contrasts: Mapping[str, Any]) -> tuple[np.ndarray, tuple[str, ...], str]:
    """The coding asked for: in the formula, by `contrasts=`, else treatment. Its matrix, names of its columns, its own name."""
    key = contrast_key(expr, contrasts)
    if value.coding is not None and key is not None:
        raise OptionError(f"{expr} has its coding in the formula and another in contrasts=.", where="model()", do="Keep one of them.")
    kind, base = value.coding if value.coding is not None else (contrasts[key] if key is not None else "treatment", None)
    labels = value.levels.labels
    if isinstance(kind, str):
        return *coding(kind, labels, None if base is None else value.levels.index(base, str(expr))), kind
    rows, columns = kind.shape
    if rows != len(labels) or columns >= rows:
        what = f"the array is {rows} × {columns}, and {expr} has {len(labels)} levels: {', '.join(labels)}."
        raise OptionError(what, where="contrasts=", do=f"Give {len(labels)} rows and at most {len(labels) - 1} columns.")
    return kind, tuple(str(j + 1) for j in range(columns)), "array"


def contrast_key(expr: Expr, contrasts: Mapping[str, Any]) -> str | None:
    """The key of `contrasts=` that speaks of this factor: its label, or the column inside factor()."""
    inside = str(expr.args[0]) if isinstance(expr, Call) and expr.function == "factor" and isinstance(expr.args[0], Name) else None
    return next((k for k in (str(expr), inside) if k in contrasts), None)


def unused_contrasts(
    terms: Sequence[Term], values: Mapping[Expr, Value], contrasts: Mapping[str, Any], columns: Container[str]
) -> list[str]:
    """Notes on codings of columns that are no factor of the fixed part.

    raises  OptionError for a coding of a number, or of what is no column at all
    """
    factors = {str(f): f for t in terms for f in t.factors}
    coded = [f for f in factors.values() if isinstance(values[f], Codes)]
    used = {contrast_key(f, contrasts) for f in coded}
    notes = []
    for key in contrasts:
        if key in used:
            continue
        if key in factors:
            raise OptionError(f"{key!r} is numeric in this formula.", where="contrasts=", do=f"Write factor({key}) there.")
        inner = key.removeprefix("factor(").removesuffix(")") if key.startswith("factor(") else key
        if inner not in columns:
            raise UnknownOption(key, sorted(map(str, coded)) or ["no factor"], where="contrasts=", kind="factor")
        notes.append(f"contrasts= of {key} has no use: it is no factor of the fixed part.")
    return notes


def check_levels(values: Mapping[Expr, Value]) -> None:
    """A factor in a term needs two levels."""
    for expr, value in values.items():
        if isinstance(value, Codes) and len(value.levels.labels) < 2:
            have = f"only the level {value.levels.labels[0]!r}" if value.levels.labels else "no level"
            raise DataError(
                f"the factor {expr} has {have} in the rows used.", where="formula", do="A factor needs two levels: leave it out."
            )
