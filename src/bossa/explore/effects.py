"""Which numbers does a query ask for? Marginal means, slopes and contrasts of a fit, as a `Target` over its coefficients.

    explore(problem, fit, query, …)  →  EffectsState

A query is resolved to axes (`grid`), the axes to rows of the design, and the rows to a pipeline. With M the weighted means of the
design's rows in each cell (of their derivatives, for slopes), C the contrasts, g the link and h its inverse:

    scale      means                             contrasts     slopes
    link       M β                               C M β         M′β
    response   h(M β), tested and bounded        C h(M β)      mean(h′(Xβ) X′β)
               before h, so limits stay in range
    regrid     h(M β), tested and bounded as     the same      the same
               it is, by the delta method

Ratios are differences of logs shown through exp (C log …), odds ratios of logits, lift is a ratio less one; under a log (logit) link they
are exp(C M β), as in emmeans. Averages over the data (`average="observed"`) are means after h, mean(h(Xβ)) for h(M β), as in
marginaleffects.

Source: Searle, Speed & Milliken (1980); Lenth (2016); Arel-Bundock, Greifer & Heiss (2024) for averages over the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve, field, frozen

from ..errors import NotYet, OptionError, Refused, UnknownOption
from ..kernels.link import LOG, LOGIT, Link
from ..state.design import Problem
from ..state.fit import FitState
from ..state.inference import EffectsState
from ..state.target import Average, Each, Linear, RowBlock, Target
from ..types import Floats
from . import grammar, information
from .axes import Asked, resolve
from .conditional import unknown_groups
from .grid import cell_table, grid, population
from .reference import Reference, checked_at
from .rows import HeldRows, ObservedRows, beyond_cells, completed, finite_rows, mean_rows, null_space
from .scale import LIFT, LOGS, RATIO, LinkSlope, own_scale, response_link, through, untold_transform

AVERAGES = ("grid", "observed")
WEIGHTS = ("equal", "proportional", "outer", "cells", "flat")
SCALES = ("auto", "link", "response", "regrid")
COMPARISONS = ("difference", "ratio", "odds_ratio", "lift")
PROPORTIONS = ("binomial", "quasibinomial")
SHOWN_GRID = 2_000  # rows of a grid that is kept for show


@frozen(kw_only=True)
class Options:
    """How a query is to be answered: the arguments of explore(), checked."""

    average: str = "grid"
    weights: str = "equal"
    scale: str = "auto"
    compare: str = "difference"


def explore(
    problem: Problem,
    fit: FitState,
    query: str,
    *,
    at: Any = None,
    by: Any = None,
    average: str | None = None,
    weights: str = "equal",
    scale: str = "auto",
    compare: str = "difference",
    varying: str = "exclude",
    inverse_transforms: bool = True,
) -> EffectsState:
    """The answer to a query: its Target and estimates.

    at       {"x": [1, 2]}: values of variables;  by: column(s) within which to answer, as conditions after "~"
    average  "grid" | "observed";  weights of the grid's combinations; None is "grid"
    scale    "auto": link for contrasts and slopes, response for means;  "link" | "response" | "regrid", see the module
    compare  "difference" | "ratio" | "odds_ratio" | "lift"
    varying  "exclude" the random effects | "include"
    inverse_transforms  False: values are those of the transform in the formula (center(x)), not of the column
    """
    if information.asked(problem, query):
        told = {"at": at, "by": by, "average": average, "weights": weights != "equal", "scale": scale != "auto"}
        told |= {"compare": compare != "difference", "varying": varying != "exclude"}
        return information.information(problem, fit, {name: value not in (None, False) for name, value in told.items()})
    average = average or "grid"
    given = {"average": (average, AVERAGES), "weights": (weights, WEIGHTS), "scale": (scale, SCALES), "compare": (compare, COMPARISONS)}
    for name, (value, among) in {**given, "varying": (varying, ("exclude", "include"))}.items():
        if value not in among:
            raise UnknownOption(value, among, where="explore()", kind=name)
    if varying == "include" and problem.design.random is None:
        raise Refused("this model has no random effects to include.", where="explore(varying='include')", do="Leave varying= out.")
    options = Options(average=average, weights=weights, scale=scale, compare=compare)
    parsed = with_groups(grammar.parse(query), by)
    reference = Reference(problem=problem, query=parsed, raw=inverse_transforms)
    reference = evolve(reference, at=checked_at(reference, at))
    asked = resolve(reference, sign="-" if compare == "difference" else "/", groups=average == "observed")
    question = Question(reference=reference, asked=asked, options=options)
    target = question.target()
    if varying == "include":
        target = question.of_a_new_group(target)
    return EffectsState(query=query, **shown_estimate(target, fit.coef))


def shown_estimate(target: Target, coef: Floats) -> dict[str, Any]:
    """The target and its numbers as shown, (K,); NaN where nothing can be estimated, which the target then says."""
    with np.errstate(all="ignore"):
        value = target.value(coef)
        shown = value if target.back is None else np.asarray(target.back.value(value))
    known = np.ones(len(value), dtype=bool) if target.estimable is None else target.estimable
    lost = known & ~np.isfinite(value)
    if lost.any():
        why = "the model has no finite value there"
        reason = tuple(why if gone else r for gone, r in zip(lost, target.reason or [""] * len(lost)))
        notes = (*target.notes, f"not estimable: {why}")
        target, known = evolve(target, estimable=known & ~lost, reason=reason, notes=notes), known & ~lost
    return {"target": target, "estimate": np.where(known, shown, np.nan)}


def with_groups(query: grammar.Query, by: Any) -> grammar.Query:
    """The query with the columns of `by=` as further conditions."""
    if by is None:
        return query
    names: list[Any] = [by] if isinstance(by, str) else list(by) if isinstance(by, (list, tuple)) else [by]
    if not names or not all(isinstance(n, str) for n in names):
        raise OptionError(f"by={by!r} is not the name of a column, or a list of names.", where="explore()", do='Write by="sex".')
    more = tuple(grammar.Means(grammar.Variable(n, 0)) for n in names)
    return evolve(query, text=f"{query.text}, by={', '.join(names)}", conditions=(*query.conditions, *more))


# ---------------------------------------------------------------- from rows to numbers
@frozen(kw_only=True, eq=False)
class Question:
    """A resolved query and how to answer it."""

    reference: Reference
    asked: Asked
    options: Options
    outer: Link = field()

    @outer.default
    def _outer(self) -> Link:
        """The link in the broad sense: of the family, or the transform of the response."""
        link = self.reference.problem.link
        return link if link.name != "identity" else response_link(self.reference.problem)

    @property
    def kind(self) -> str:
        if self.asked.contrasts:
            return "contrasts"
        return "means" if self.asked.slope is None else "slopes"

    @property
    def observed(self) -> bool:
        return self.options.average == "observed"

    @property
    def scale(self) -> str:
        """The scale with "auto" resolved."""
        scale, link = self.options.scale, self.reference.problem.link
        if self.options.compare != "difference":
            return "response"
        if scale == "auto":
            return "response" if self.kind == "means" and link.name != "identity" else "link"
        if scale != "link" and self.outer.name == "identity":
            return "response" if link.name != "identity" else "link"
        return scale

    def target(self) -> Target:
        """The Target that answers."""
        self.check()
        source, notes, details = self.rows()
        steps, back = self.steps(source)
        estimable, reason = self.estimable(source)
        asked, contrasts = self.asked, self.asked.contrasts
        return Target(
            labels=asked.labels(),
            steps=tuple(steps),
            kind=self.kind,
            scale="link" if self.scale == "link" else "response",
            null=0.0 if back is None else float(np.asarray(back.function(np.zeros(1)))[0]),
            back=back,
            estimable=None if estimable.all() else estimable,
            reason=tuple(reason),
            family=asked.family(),
            group_size=np.full(asked.rows, len(contrasts[0].cells)) if len(contrasts) == 1 else None,
            contrast=None if not contrasts else contrasts[0].method if len(contrasts) == 1 else "interaction",
            notes=(*notes, *self.said(back), *_not_estimable(reason)),
            details=details,
        )

    def of_a_new_group(self, target: Target) -> Target:
        """The same numbers for one new group: its random effects have mean 0, and their variance joins the standard errors."""
        if self.observed or self.asked.slope is not None or not all(isinstance(step, Linear) for step in target.steps):
            raise NotYet(
                "the random effects are carried through means and contrasts of the balanced grid on the link scale alone.",
                where="explore(varying='include')",
                do="Leave varying= out, or ask for means with scale='link'.",
            )
        made = grid(self.reference, self.asked, self.options.weights)
        weight = np.nan_to_num(made.weight)
        mixed = []
        for _, Z in unknown_groups(self.reference.problem, made.frame):
            mean = np.zeros((self.asked.cells, Z.shape[1]))
            np.add.at(mean, made.cell, weight[:, None] * Z)
            mixed.append(np.asarray(self.asked.matrix()) @ mean if self.asked.contrasts else mean)
        note = "for one new group: the variance of its random effects is in the standard errors"
        return evolve(target, details=target.details | {"new_group": mixed}, notes=(*target.notes, note))

    def check(self) -> None:
        """Refuse what has no meaning together."""
        o = self.options
        if o.compare != "difference":
            where = f"explore(compare={o.compare!r})"
            if not self.asked.contrasts:
                raise OptionError("it says how means are compared, and this query compares none.", where=where, do="Ask pairwise(g).")
            if self.asked.slope is not None:
                raise Refused("slopes are compared by differences.", where=where, do="Leave compare= out.")
            if o.scale == "link":
                raise OptionError("it is about the response.", where=f"{where[:-1]}, scale='link')", do="Leave scale= out.")
            unbalanced = np.abs(self.asked.matrix().sum(axis=1)).max() > 1e-9  # type: ignore[union-attr]
            family = self.reference.problem.family.name
            if o.compare == "odds_ratio" and family not in PROPORTIONS:
                raise Refused(f"means of the {family} family have no odds.", where=where, do="Use compare='ratio'.")
            if unbalanced:
                raise Refused("the contrast does not sum to zero.", where=where)
        if self.observed and o.weights != "equal":
            do = "Leave weights= out, or average='grid'."
            raise OptionError(f"weights={o.weights!r} is for the balanced grid.", where="explore(average='observed')", do=do)
        if o.scale in ("response", "regrid") and self.outer.name == "identity":
            untold_transform(self.reference.problem)

    # ------------------------------------------------------------ rows
    def rows(self) -> tuple[Any, list[str], dict[str, Any]]:
        """The rows to average, what to say of them, and the grid for show."""
        problem, asked, null = self.reference.problem, self.asked, null_space(self.reference.problem)
        kept = np.asarray(problem.design.kept)
        unit = None if asked.slope is None or self.reference.raw else self.reference.transform(asked.slope, 0)
        plain = ObservedRows(encoder=problem.encoder, people=None, kept=kept, slope=asked.slope, unit=unit, null=null)  # type: ignore[arg-type]
        if self.observed:
            people = population(self.reference, asked)
            source = evolve(plain, people=people, X=problem.design.X, offset=problem.design.offset)
            return source, [f"averaged over the {len(people.group):,} rows of the data that apply"], {}
        made = grid(self.reference, asked, self.options.weights)
        offset, said = self.offset(made)
        full, own = finite_rows(problem.encoder, made.frame, offset is None)
        weight = np.nan_to_num(made.weight)
        block = RowBlock(cell=made.cell, X=full[:, kept], offset=own if offset is None else offset, weight=weight)
        block = completed(plain, block, made.frame, full)
        details = {"grid": made.frame.with_columns(pl.Series("weight_bossa", made.weight))} if made.frame.height <= SHOWN_GRID else {}
        return HeldRows(block=block, null=null), [*_grid_notes(made, self.options.weights), *said], details

    def offset(self, made: Any) -> tuple[Floats | None, list[str]]:
        """The mean of the offset in every row of the grid, unless the query speaks of its variables; None: whatever the grid gives."""
        problem = self.reference.problem
        if problem.design.offset is None or self.reference.offset_names & self.touched():
            return None, []
        mean = float(np.average(problem.design.offset, weights=problem.design.freq))
        return np.full(made.frame.height, mean), [f"offset at its mean, {mean:.4g}"]

    def touched(self) -> set[str]:
        """Variables that the query or at= gives values."""
        return {n for a in self.asked.axes for n in a.names} | set(self.reference.at)

    # ------------------------------------------------------------ steps
    def steps(self, source: Any) -> tuple[list[Any], Each | None]:
        """The pipeline, and the map through which its values are shown."""
        C, outer, scale = self.asked.matrix(), self.outer, self.scale
        if self.options.compare != "difference":
            return self.ratios(source, C)  # type: ignore[arg-type]
        if scale == "link" or outer.name == "identity":
            return [self.linear(source, C)], None
        if self.kind == "means" and scale == "response":
            if not self.observed:
                return [self.linear(source, None)], through(outer)
            there = Each(name=f"the {outer.name} link", function=outer.link, slope=LinkSlope(link=outer))
            return [*self.responses(source), there], through(outer)
        return [*self.responses(source), *([] if C is None else [Linear(matrix=C, label="contrasts of the means")])], None

    def responses(self, source: Any) -> list[Any]:
        """Means (slopes) of each cell on the scale of the response."""
        if self.outer.name == "identity":
            return [self.linear(source, None)]
        if self.observed or self.asked.slope is not None:
            return [self.average(source)]
        return [self.linear(source, None), through(self.outer)]

    def ratios(self, source: Any, C: Floats) -> tuple[list[Any], Each]:
        """Differences of logs or logits, shown as ratios."""
        compare, outer = self.options.compare, self.outer
        back = LIFT if compare == "lift" else RATIO
        wanted = LOGIT if compare == "odds_ratio" else LOG
        units = LOGS.get(outer.name) if wanted is LOG else 1.0 if outer.name == "logit" else None
        if units is not None and not self.observed:
            return [self.linear(source, C * units)], back
        there = Each(name=f"{'log' if wanted is LOG else 'log odds'} of each mean", function=wanted.link, slope=LinkSlope(link=wanted))
        return [*self.responses(source), there, Linear(matrix=C, label="contrasts of the logs")], back

    def average(self, source: Any) -> Average:
        link = self.outer
        what = "slopes of the response" if self.asked.slope is not None else "predicted responses"
        label = f"weighted means of {what} in each cell"
        return Average(rows=source, cells=self.asked.cells, function=link.inverse, slope=link.slope, curve=link.curve, label=label)

    def linear(self, source: Any, C: Floats | None) -> Linear:
        """One Linear step: the weighted means of the rows (of their rates), and contrasts of them."""
        M, offset = mean_rows(source, self.asked.cells, len(self.reference.problem.design.names))
        if C is not None:
            rounding = 1e-13 * (np.abs(C) @ np.abs(M))
            M, offset = C @ M, None if offset is None else C @ offset
            M = np.where(np.abs(M) <= rounding, 0.0, M)  # what cancels cancels exactly: an effect the model cannot have is 0
        return Linear(matrix=M, offset=offset, label="L: weighted means of the rows in each cell" + ("" if C is None else ", contrasted"))

    # ------------------------------------------------------------ what can be estimated
    def estimable(self, source: Any) -> tuple[np.ndarray, list[str]]:
        """(K,) whether the data determine each row of the result, and why not."""
        C, cells = self.asked.matrix(), self.asked.cells
        linear = self.scale == "link" or self.outer.name == "identity" or (not self.observed and self.asked.slope is None)
        outside = beyond_cells(source, cells, linear) if source.null is not None else np.zeros((1, cells))
        empty = ~source.present(cells)
        if C is not None:
            empty = (C != 0) @ empty
            outside = outside @ C.T if linear else outside @ np.abs(C).T
        ok = ~empty & (np.abs(outside).max(axis=0) <= 1e-8)
        return ok, self.reasons(source, ok) if not ok.all() else []

    def reasons(self, source: Any, ok: np.ndarray) -> list[str]:
        """Why each row of the result that is not estimable is not: the empty cells behind it."""
        if self.observed or source.null is None:
            return ["" if good else "no rows of the data belong to it" for good in ok]
        names = [n for n in self.reference.names if self.reference.cells(self.reference.encoder.variables[n])]
        names, table = cell_table(self.reference, names)
        gone = np.abs(source.block.beyond).max(axis=1) > 1e-8
        frame = grid(self.reference, self.asked, self.options.weights).frame.select(names)
        C = self.asked.matrix()
        uses = np.eye(self.asked.cells, dtype=bool) if C is None else np.abs(C) > 0
        out = []
        for good, cells in zip(ok, uses):
            rows = np.flatnonzero(gone & cells[source.block.cell] & (not good))
            empty = [r for r in (frame.row(int(i)) for i in rows) if not table.get(tuple(r))]
            texts = dict.fromkeys(", ".join(f"{n} = {v}" for n, v in zip(names, r)) for r in empty)
            shown = "; ".join(list(texts)[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
            out.append("" if good else f"no rows of the data have {shown}" if texts else "its coefficients are not determined by the data")
        return out

    def said(self, back: Each | None) -> list[str]:
        """The scale, in words."""
        if self.options.compare != "difference":
            logs = "log odds" if self.options.compare == "odds_ratio" else "logs"
            return [f"compared by {self.options.compare.replace('_', ' ')}; tested as differences of {logs}"]
        if self.outer.name == "identity":
            return own_scale(self.reference.problem)
        if self.scale == "link":
            name = self.outer.name
            response = self.reference.problem.link.name == "identity"
            return [f"on the scale of {self.reference.encoder.spec.response}" if response else f"on the {name} scale"]
        if back is not None:
            after = "after" if self.observed else "before"
            return [f"on the response scale; averaged {after} the inverse {self.outer.name}, tested before it"]
        return ["on the response scale, before averages and comparisons"]


def _grid_notes(made: Any, weights: str) -> list[str]:
    notes = []
    if made.averaged:
        kind = {"equal": "equal weights", "flat": "equal weights over the cells that occur"}.get(weights, f"{weights} weights")
        notes.append(f"averaged over {', '.join(made.averaged)} ({kind})")
    if made.held:
        notes.append("held at " + ", ".join(f"{n} = {v:.4g}" if isinstance(v, float) else f"{n} = {v}" for n, v in made.held.items()))
    return notes


def _not_estimable(reason: Sequence[str]) -> list[str]:
    texts = list(dict.fromkeys(r for r in reason if r))
    return [f"not estimable: {'; '.join(texts[:3])}"] if texts else []
