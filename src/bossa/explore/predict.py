"""What does the fit say of new rows? Their linear predictor, offset included, or the mean it stands for.

A prediction is a Target of one Linear step, X β + offset, shown through the inverse link: tests and limits are made on the link scale,
so they never leave the range of the response. Rows with a missing value give a null row; rows are never lost. A query stands for rows
too: its variables at their values, the other numbers at their mean and the other factors at their first level.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from attrs import evolve

from ..errors import OptionError, UnknownOption
from ..state.design import Problem
from ..state.fit import FitState
from ..state.inference import PredictionState
from ..state.target import Linear, Target
from ..types import Floats, is_whole
from . import grammar
from .axes import first_fastest
from .conditional import names_groups, with_groups
from .grammar import Means
from .grid import MOST_CELLS, series
from .reference import Reference
from .rows import null_space
from .scale import own_scale, through

TYPES = ("response", "link")
NEW_LEVELS = ("error", "population", "sample")
VARYING = ("include", "exclude")


def predict(
    problem: Problem,
    fit: FitState,
    newdata: Any,
    *,
    type: str = "response",
    varying: str = "include",
    new_levels: str = "error",
    n_points: int = 50,
) -> PredictionState:
    """Predictions for the rows of a frame, or for the rows of a query.

    newdata     polars frame, or a query such as "wt ~ cyl@[4, 6]" (numeric focal without values: n_points over its range)
    type        "response" | "link"
    varying     "include" | "exclude" the random effects (mixed models)
    new_levels  groups the fit did not have: "error" | "population" | "sample"
    """
    for given, among, name in ((type, TYPES, "type"), (varying, VARYING, "varying"), (new_levels, NEW_LEVELS, "new_levels")):
        if given not in among:
            raise UnknownOption(given, among, where="predict()", kind=name)
    if not is_whole(n_points) or n_points < 1:
        raise OptionError(f"n_points={n_points!r} is not a whole number of at least 1.", where="predict()")
    grouped = problem.design.random is not None and varying == "include"
    frame, notes = query_rows(problem, newdata, int(n_points)) if isinstance(newdata, str) else (newdata, ())
    target, said = fixed_target(problem, frame, type)
    if grouped and isinstance(newdata, str) and not names_groups(problem, frame):
        grouped = False  # a query without a group speaks of the population; said below
    if grouped:
        target, groups = with_groups(problem, fit, target, frame, new_levels)
        said = (*said, *groups)
    elif problem.design.random is not None:
        said = (*said, "random effects left out: predictions for the population")
    target = evolve(target, notes=said)
    value = target.value(fit.coef)
    shown = value if target.back is None else np.asarray(target.back.value(value))
    if target.estimable is not None:
        shown = np.where(target.estimable, shown, np.nan)
    return PredictionState(
        newdata=frame, target=target, fitted=shown, type=type, varying="include" if grouped else "exclude", notes=(*notes, *said)
    )


def fixed_target(problem: Problem, frame: pl.DataFrame, type: str) -> tuple[Target, tuple[str, ...]]:
    """The Target of the fixed part on the rows of a frame, and what to say of rows that have no prediction."""
    if frame is problem.data:  # the very rows of the fit: the design has them
        X, offset, estimable, missing = problem.design.X, problem.design.offset, None, 0
        lost = 0
    else:
        rows = problem.encoder.rows(frame)
        full = np.asarray(rows.X)
        X, offset, estimable = full[:, np.asarray(problem.design.kept)], rows.offset, _within(full, problem)
        missing, lost = int((~rows.ok).sum()), 0 if estimable is None else int((~estimable & rows.ok).sum())
    target = Target(
        labels=frame,
        steps=(Linear(matrix=X, offset=offset, label="rows of the new data"),),
        kind="predictions",
        scale=type,
        back=through(problem.link) if type == "response" else None,
        estimable=estimable,
    )
    notes = own_scale(problem)
    notes += [f"{missing} row{'s have' if missing > 1 else ' has'} a missing value and no prediction"] if missing else []
    notes += [f"{lost} row{'s are' if lost > 1 else ' is'} not determined by the data: the design has no such rows"] if lost else []
    return evolve(target, notes=tuple(notes)), tuple(notes)


def _within(full: Floats, problem: Problem) -> np.ndarray | None:
    """(n,) rows that the data determine; None: all (a missing value does not count)."""
    null = null_space(problem)
    if null is None:
        return None
    out = np.nan_to_num(np.abs(full @ null).max(axis=1)) <= 1e-8 * max(1.0, float(np.nanmax(np.abs(full), initial=0.0)))
    return None if out.all() else out


def query_rows(problem: Problem, text: str, n_points: int) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows that a query stands for, and what is held."""
    query = grammar.parse(text, where="predict()")
    reference = Reference(problem=problem, query=query, where="predict()")
    asked: dict[str, tuple[Any, ...]] = {}
    for part in (*query.focal, *query.conditions):
        if not isinstance(part, Means):
            position = part.variable.position if isinstance(part, grammar.Bracket) else part.position
            raise reference.error("predictions are of values, not of contrasts or slopes.", position, "Use explore().")
        v = part.variable
        if v.name in asked:
            raise reference.error(f"{v.name!r} is used twice.", v.position)
        levels = reference.levels(v, need=False)
        if levels is None:
            focal = part in query.focal
            known = problem.encoder.variables[v.name]
            levels = tuple(np.linspace(known.minimum, known.maximum, n_points).tolist()) if focal else (reference.mean(v.name),)
        asked[v.name] = levels
    cells = first_fastest(list(asked.values()))
    if len(cells) > MOST_CELLS:
        raise OptionError(f"the query stands for {len(cells):,} rows.", where="predict()", do="Give fewer values.")
    held = {n: _held(reference, n) for n in reference.names if n not in asked}
    columns = {n: [cell[i] for cell in cells] for i, n in enumerate(asked)} | {n: [v] * len(cells) for n, v in held.items()}
    frame = pl.DataFrame([series(problem.encoder.variables[n], values) for n, values in columns.items()])
    said = ", ".join(f"{n} = {v:.4g}" if isinstance(v, float) else f"{n} = {v}" for n, v in held.items())
    return frame, (f"held at {said}",) if held else ()


def _held(reference: Reference, name: str) -> Any:
    """The mean of a number, the first level of a factor."""
    return reference.mean(name) if reference.numeric(name) else reference.cells(reference.encoder.variables[name])[0]
