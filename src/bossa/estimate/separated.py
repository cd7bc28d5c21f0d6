"""Which predictor separates the outcomes, in words a reader can check against the data.

Given the direction along which the likelihood rises for ever and the rows it moves, the simplest true sentence is looked for: the whole
response is constant; some cells of factors have only one outcome; one column splits the outcomes at a value; else the columns that do
so together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels.linalg import lengths
from ..kernels.separation import moving
from ..state.design import Design, Problem
from ..state.spec import Call, Expr, Name, Term
from ..types import Bools, Floats

CODINGS = ("factor", "C", "treatment", "sum", "helmert", "sequential")
CATEGORICAL = ("String", "Categorical", "Enum", "Boolean")


def guilty(X: Floats, direction: Floats) -> Bools:
    """Columns (p,) that the direction (p,) changes by more than rounding."""
    size = np.abs(direction) * lengths(X)
    return size > 1e-6 * size.max()


def named(names: tuple[str, ...], columns: Bools) -> str:
    """The names where `columns` (p,) is True, at most six of them spelt out."""
    chosen = [name for name, c in zip(names, columns) if c]
    return ", ".join(chosen[:6]) + (f" and {len(chosen) - 6} more" if len(chosen) > 6 else "")


def explanation(problem: Problem, design: Design, direction: Floats) -> tuple[str, str]:
    """What separates, as a sentence, and the coefficients that run away.

    design     with the kept columns only
    direction  (p,)
    """
    response, y = str(problem.spec.response), design.y
    assert y is not None
    moves, columns = moving(design.X, direction), guilty(design.X, direction)
    running = named(design.names, columns)
    if np.ptp(y) == 0:
        return f"every row has {response} = {y[0]:g}", running
    cells = _pure_cells(problem, design, columns, moves) or _pure_columns(design, columns, moves)
    if cells:
        said = [f"every row with {label} has {response} = {value:g}" for label, value in cells[:3]]
        return ", ".join(said) + (f" (and {len(cells) - 3} more cells)" if len(cells) > 3 else ""), running
    varying = columns & (np.ptp(design.X, axis=0) > 0)
    if varying.sum() == 1 and moves.all():
        j = int(np.argmax(varying))
        split = _split(design.names[j], design.X[:, j], y, response)
        if split:
            return split, running
    kind = "all" if moves.all() else f"{int(moves.sum())} of {design.n}"
    together = named(design.names, varying if varying.any() else columns)
    return f"a combination of {together} tells the outcomes of {kind} rows apart without error", running


def _pure_cells(problem: Problem, design: Design, columns: Bools, moves: Bools) -> list[tuple[str, float]]:
    """(label, outcome) of the cells of factors that hold one outcome only: main effects first, then interactions."""
    if problem.data is None or problem.data.height != design.n:
        return []
    blamed = {design.terms[k] for k in np.unique(design.term_of[columns])}
    terms = sorted((t for t in problem.spec.fixed if str(t) in blamed and t.degree > 0), key=_degree)
    for degree in sorted({t.degree for t in terms}):
        found = []
        for term in (t for t in terms if t.degree == degree):
            factors = [_factor(problem.data, e) for e in term.factors]
            if all(factors):
                found += _cells_of(problem.data, factors, design.y, moves)
        if found:
            return found
    return []


def _degree(term: Term) -> int:
    return term.degree


def _factor(data: Any, expr: Expr) -> str:
    """The data column behind a categorical factor of a term: g, factor(g), treatment(g, ref="a"); "" for anything else."""
    coded = isinstance(expr, Call) and expr.function in CODINGS and bool(expr.args)
    inner = expr.args[0] if isinstance(expr, Call) and coded else expr
    if not isinstance(inner, Name) or inner.id not in data.columns:
        return ""
    return inner.id if coded or str(data[inner.id].dtype).split("(")[0] in CATEGORICAL else ""


def _cells_of(data: Any, factors: list[str], y: Any, moves: Bools) -> list[tuple[str, float]]:
    rows: dict[tuple, list[int]] = {}
    for i, cell in enumerate(zip(*(data[f].to_list() for f in factors))):
        rows.setdefault(cell, []).append(i)
    return [
        (":".join(f"{f}[{v}]" for f, v in zip(factors, cell)), float(y[index[0]]))
        for cell, index in sorted(rows.items(), key=str)
        if moves[index].all() and np.ptp(y[index]) == 0
    ]


def _pure_columns(design: Design, columns: Bools, moves: Bools) -> list[tuple[str, float]]:
    """The same by 0/1 columns, where there is no data frame."""
    found = []
    for j in np.flatnonzero(columns):
        x = design.X[:, j]
        on = x == 1.0
        if (on | (x == 0.0)).all() and 0 < on.sum() < design.n and moves[on].all() and np.ptp(design.y[on]) == 0:  # type: ignore[index]
            found.append((design.names[j], float(design.y[on][0])))  # type: ignore[index]
    return found


def _split(name: str, x: Floats, y: Floats, response: str) -> str:
    """One column that splits the outcomes at a value."""
    low, high = y.min(), y.max()
    for first, second in ((low, high), (high, low)):
        if x[y == first].max() <= x[y == second].min():
            return f"every row with {name} up to {x[y == first].max():g} has {response} = {first:g}, every row above has {second:g}"
    return ""
