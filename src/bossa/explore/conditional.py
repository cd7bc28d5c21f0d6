"""Predictions of a mixed model with its groups: the fixed part plus z b̂ of the groups that the fit knows.

A group that the fit does not know, or that is missing, has no b̂; `new_levels` says what then: an error (a missing one: a null row),
the population's prediction (b = 0), or a draw of b from its estimated distribution. The standard error of such a row is that of
x β̂ + z (b̂ − b): an unknown group counts with its whole variance.

Source: Henderson (1975); Robinson (1991) §3.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from attrs import evolve

from ..design.levels import rows_text
from ..errors import DataError, UnknownColumn
from ..estimate.random import term_factors
from ..kernels.streams import entropy, stream
from ..state.design import Problem
from ..state.fit import FitState
from ..state.spec import names_in
from ..state.target import Linear, Target
from ..types import Floats, Ints
from . import varying

UNSEEN, MISSING = -1, -2
Rows = list[tuple[Ints, Floats]]


def with_groups(problem: Problem, fit: FitState, target: Target, frame: pl.DataFrame, new_levels: str) -> tuple[Target, tuple[str, ...]]:
    """The target with the random part in its offset, and what to say of unknown groups.

    new_levels  "error" | "population" | "sample"
    """
    try:
        rows = problem.encoder.random(frame)
    except UnknownColumn as error:
        do = "Give it, or use varying='exclude': predictions for the population, without random effects."
        raise DataError(f"{error.what.removesuffix('.')}, and the random effects need it.", where="predict()", do=do) from None
    unseen = np.any([codes == UNSEEN for codes, _ in rows], axis=0)
    missing = np.any([codes == MISSING for codes, _ in rows], axis=0)
    part = varying.random_part(problem, fit, rows)
    notes = []
    if new_levels == "error":
        if unseen.any():
            raise _unknown(problem, rows, frame)
        part[missing] = np.nan
        if missing.any():
            n = int(missing.sum())
            notes.append(f"{rows_text(n)} without a group and a prediction (new_levels='population' gives the population's)")
    elif (unseen | missing).any():
        part, said = _without_group(problem, fit, rows, part, new_levels)
        notes.append(said)
    step = target.steps[0]
    assert isinstance(step, Linear)
    offset = part if step.offset is None else step.offset + part
    step = evolve(step, offset=offset, label="rows of the new data, random effects of their groups in the offset")
    return evolve(target, steps=(step, *target.steps[1:]), details=target.details | {"random": rows}), tuple(notes)


def names_groups(problem: Problem, frame: pl.DataFrame) -> bool:
    """Whether the frame has the columns of every grouping factor."""
    return all(name.id in frame.columns for term in problem.encoder.varying for part in term.parts for name in names_in(part))


def unknown_groups(problem: Problem, frame: pl.DataFrame) -> Rows:
    """The rows as if every group were new, whether or not the frame names groups: for a new response from the population."""
    names = {name.id for term in problem.encoder.varying for part in term.parts for name in names_in(part)} - set(frame.columns)
    frame = frame.with_columns(pl.lit(None, dtype=problem.encoder.variables[name].dtype).alias(name) for name in sorted(names))
    return [(np.full(len(codes), UNSEEN), Z) for codes, Z in problem.encoder.random(frame)]


def _without_group(problem: Problem, fit: FitState, rows: Rows, part: Floats, new_levels: str) -> tuple[Floats, str]:
    """The random part where a group is unknown: 0, or z b with b drawn once for each term and row."""
    unknown = np.any([codes < 0 for codes, _ in rows], axis=0)
    few = f"{rows_text(int(unknown.sum()))} with a group that the fit did not have"
    if new_levels == "population":
        return part, f"{few}: its random effect is taken as 0"
    seed = entropy(None)
    rng = stream(seed, 0)
    part = part.copy()
    for (codes, Z), T in zip(rows, term_factors(problem.design.random, fit.theta)):
        drawn = fit.sigma * rng.standard_normal((len(codes), T.shape[0])) @ T.T
        part += np.where(codes < 0, np.einsum("nk,nk->n", np.nan_to_num(Z), drawn), 0.0)
    return part, f"{few}: its random effect is drawn, for each row on its own, seed {seed}"


def _unknown(problem: Problem, rows: Rows, frame: pl.DataFrame) -> DataError:
    """Names the first groups that the fit did not have."""
    assert problem.design.random is not None
    for (codes, _), term in zip(rows, problem.design.random.terms):
        new = np.flatnonzero(codes == UNSEEN)
        if len(new):
            parts = [p for p in term.factor.split(":") if p in frame.columns]
            some = frame[new][parts].unique(maintain_order=True).head(5).rows() if parts else []
            shown = ", ".join(":".join(str(v) for v in row) for row in some) or f"row {new[0]}"
            return DataError(
                f"{term.factor} has groups that the fit did not have: {shown}.",
                where="predict()",
                do="Use new_levels='population' (their random effect is 0), new_levels='sample', or varying='exclude'.",
            )
    raise AssertionError("no unknown group")
