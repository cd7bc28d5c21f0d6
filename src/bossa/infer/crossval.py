"""How well does the model predict what it has not seen? Folds of rows, or of whole groups, are predicted by fits without them.

Leaving one row out of a linear model takes no refit (residual / (1 − leverage)); folds of rows are a plan of 0/1 frequencies. Where the
formula learns from the data (scale, poly, knots) every fold is encoded anew from its own training rows. Groups of a mixed model are held
out together: a new group is predicted by the fixed part, a known one with its random effects.

A term is ablated together with the terms that contain it (a main effect with its interactions). What is made of the predictions:
`scores`.

Source: Stone (1974); Allen (1974) for the leverage identity.
"""

from __future__ import annotations

import warnings
from functools import cached_property, partial
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..design.encode import encode
from ..design.levels import Levels
from ..errors import BossaError, BossaWarning, OptionError, Refused
from ..estimate import registry
from ..estimate.many import each, refit
from ..estimate.prior import about
from ..explore import varying
from ..explore.diagnose import leverage
from ..kernels.gram import NOT_CONVERGED
from ..kernels.streams import entropy, stream
from ..state.design import Problem
from ..state.fields import choice, integer, workers
from ..state.fit import FitState
from ..state.inference import InferenceState
from ..state.plan import Plan
from ..state.target import Target
from ..types import Floats, Ints
from . import backend
from .clusters import cluster_codes
from .plan import LeaveOut
from .progress import progress_bar
from .scores import columns_of_rows, importance, scored, unpredicted

WHERE = "infer(how='cv')"
MANY_ROWS = 20_000  # beyond these, leaving one row out of a GLM is one Newton step instead of a refit


@frozen(kw_only=True)
class CrossValidation:
    """Options of how="cv".

    k              folds, or "loo": each row (or group) left out alone
    holdout_group  column whose groups are held out together; mixed models: their own groups unless told otherwise
    refits         rows of a GLM left out one by one: "exact" refits, or "one-step": one Newton step from the full fit, and the way of
                   "auto" beyond 20,000 rows
    seed           of the assignment to folds; the result keeps the entropy
    n_jobs         workers for the refits; None: one, or what `joblib.parallel_config` says; never changes a number
    """

    k: Any = integer(10, minimum=2, word="loo", do="Give the number of folds, or 'loo': each row left out alone.")
    holdout_group: str | None = None
    refits: str = choice("auto", among=("auto", "exact", "one-step"))
    seed: Any = None
    n_jobs: int | None = workers()
    progress: Any = field(default="auto")


@backend("cv", CrossValidation)
def crossval(problem: Problem, fit: FitState, target: Target, options: CrossValidation) -> InferenceState:
    """Out-of-fold predictions of every row, how good they are, and what each term adds to them."""
    predictions = target.kind == "predictions"
    if target.kind != "params" and not predictions:
        raise Refused("an effect has no out-of-sample error.", where=WHERE, do="Ask it of the model: m.fit().infer(how='cv').")
    if predictions:
        _own_rows(problem, target)
    folds, seed, said = assign(problem, options)
    work = _Work(problem, fit, folds, options)
    removed: list[tuple[str, ...]] = [(), *(() if predictions else _ablations(problem))]
    with progress_bar(options.progress, len(removed), "cross-validation") as tick:
        fitted = []
        for labels in removed:
            fitted.append(work.fitted(labels))
            if tick is not None:
                tick(1)
    state = scored(problem, folds, fitted[0])
    shapes = [name for name in fit.aux if not name.endswith("_se")] if fit.aux else []
    scored_by = (f"errors are deviances at the {' and '.join(shapes)} of the fit to all rows",) if shapes else ()
    notes = (said, *work.notes, *scored_by, *unpredicted(state))
    columns = columns_of_rows(problem, state) if predictions else importance(problem, folds, fitted, removed)
    return InferenceState(
        how="cv",
        level=None,
        columns=columns,
        notes=(
            *notes,
            *(() if predictions else ("pre: share of the out-of-fold error that goes when the term, with all that contains it, comes in",)),
        ),
        options={"k": options.k, "holdout_group": options.holdout_group, "refits": work.refits, "seed": seed},
        extra=state,
    )


def _own_rows(problem: Problem, target: Target) -> None:
    design, data = problem.design, problem.data
    same = data is not None and target.labels.height == design.n_data
    if not same or not (target.labels if design.n == design.n_data else target.labels[design.rows]).equals(data):
        raise Refused("only rows that the fit has used can be left out of it.", where=WHERE, do="Use m.predict().infer(how='cv').")


# ---------------------------------------------------------------- folds
def assign(problem: Problem, options: CrossValidation) -> tuple[Ints, Any, str]:
    """Fold of each row (n,), 0 … k − 1; the entropy that assigned them, None where nothing was drawn; and how, in words."""
    units, name = _units(problem, options)
    count = int(units.max()) + 1
    if options.k == "loo" or count <= options.k:
        what = "each row is left out alone" if name is None else f"each of {count} groups of {name} is left out as a whole"
        return units, None, f"cross-validation: {what}"
    seed = entropy(options.seed, WHERE)
    fold_of = np.empty(count, dtype=np.intp)
    fold_of[stream(seed, 0).permutation(count)] = np.arange(count) % options.k
    what = "rows" if name is None else f"whole groups of {name}"
    return fold_of[units], seed, f"cross-validation: {options.k} folds of {what}, seed {seed}"


def _units(problem: Problem, options: CrossValidation) -> tuple[Ints, str | None]:
    """What is held out together: code of each row (n,), and the column that says so, None: rows on their own."""
    if options.holdout_group is not None:
        return cluster_codes(problem, options.holdout_group, WHERE), options.holdout_group
    random = problem.design.random
    if random is None:
        return np.arange(problem.design.n), None
    by_size = sorted({t.factor: t for t in random.terms}.values(), key=lambda t: len(t.levels))
    coarse, fine = by_size[0], by_size[-1]
    nested = all(len(np.unique(t.group.astype(np.int64) * len(coarse.levels) + coarse.group)) == len(t.levels) for t in by_size)
    chosen = coarse if nested else fine
    return np.asarray(chosen.group), chosen.factor


# ---------------------------------------------------------------- fits without a fold
class _Work:
    """Out-of-fold predictions of a problem, with or without some of its terms."""

    def __init__(self, problem: Problem, fit: FitState, folds: Ints, options: CrossValidation):
        self.problem, self.fit, self.folds, self.options = problem, fit, folds, options
        self.k = int(folds.max()) + 1
        learnt = (
            ()
            if problem.encoder is None
            else tuple(str(e) for e, v in problem.encoder.learnt.items() if v is not None and not isinstance(v, Levels))
        )
        random = problem.design.random
        known = random is not None and any(not _held_out_whole(t.group, folds) for t in random.terms)
        self.reencoded = bool(learnt)
        self.by_plan = not learnt and not known
        self.alone = self.k == problem.design.n
        self.notes: list[str] = []
        if learnt:
            self.notes.append(f"encoded anew in every fold: {', '.join(learnt)}")
        if random is not None:
            self.notes.append(
                "groups that a fit has not seen are predicted without their random effects" + ("; known ones with them" if known else "")
            )
        if problem.design.freq is not None:
            self.notes.append("a row that counts for several is left out with all of them")
        if self.one_step:
            why = "" if options.refits == "one-step" else f"more than {MANY_ROWS:,} rows: "
            self.notes.append(f"{why}each is left out by one Newton step from the full fit, not by a refit (refits='exact' does)")

    @cached_property
    def one_step(self) -> bool:
        stepped = self.by_plan and self.alone and self.fit.estimator == "glm"
        if self.options.refits == "one-step" and not stepped:
            raise OptionError(
                "refits='one-step' is for the rows of a generalized linear model left out one by one, with nothing learnt from the data.",
                where=WHERE,
                do="Leave it out: what has a closed form is exact anyway.",
            )
        return stepped and (self.options.refits == "one-step" or (self.options.refits == "auto" and self.problem.design.n > MANY_ROWS))

    @property
    def refits(self) -> str:
        """How the fits without a fold are made, in one word."""
        closed = self.by_plan and self.alone and self.fit.estimator == "lm"
        return "closed form" if closed else "one-step" if self.one_step else "exact"

    def fitted(self, labels: tuple[str, ...]) -> Floats:
        """Out-of-fold means (n,) of the model without the terms `labels`; nan where a fold could not be predicted."""
        if not self.by_plan:
            return self._fold_by_fold(labels)
        problem = without(self.problem, labels)
        design = problem.design
        if not design.X.shape[1]:
            return np.asarray(problem.link.inverse(np.zeros(design.n) if design.offset is None else np.asarray(design.offset)))
        fit = self.fit if not labels else _quiet(problem, self.fit)
        if fit is None:
            return np.full(design.n, np.nan)
        if self.alone and fit.estimator == "lm":
            with np.errstate(divide="ignore", invalid="ignore"):
                left = 1 - leverage(problem, fit) * (1 if design.freq is None else design.freq)
                return np.where(left > 1e-10, design.y - (design.y - fit.mu) / left, np.nan)
        if self.one_step:
            return self._one_step(problem, fit)
        draw = LeaveOut(self.folds)
        plan = Plan(scheme="folds", unit="row", n=self.k, rows=design.n, seed=0, draw=draw)
        draws = refit(problem, fit, plan, n_jobs=self.options.n_jobs)
        if len(draws.code) < self.k:
            raise KeyboardInterrupt
        eta = np.einsum("ij,ij->i", design.X, draws.coef[self.folds])
        fitted = np.array(problem.link.inverse(eta if design.offset is None else eta + design.offset))
        for j in np.flatnonzero(draws.code == NOT_CONVERGED):  # separated, say: its predictions are at the limit
            rows = np.flatnonzero(self.folds == j)
            fitted[rows] = self._known_groups(rows, labels)
        return fitted

    def _one_step(self, problem: Problem, fit: FitState) -> Floats:
        from .bootstrap import left_out_coef

        design = problem.design
        eta = np.einsum("ij,ij->i", design.X, left_out_coef(problem, fit))
        return np.asarray(problem.link.inverse(eta if design.offset is None else eta + design.offset))

    def _fold_by_fold(self, labels: tuple[str, ...]) -> Floats:
        out = np.full(self.problem.design.n, np.nan)
        rows = np.split(np.argsort(self.folds, kind="stable"), np.cumsum(np.bincount(self.folds, minlength=self.k))[:-1])
        one = partial(self._reencoded if self.reencoded else self._known_groups, labels=labels)
        for fold, fitted in zip(rows, each(one, rows, self.options.n_jobs)):
            out[fold] = fitted
        return out

    def _known_groups(self, rows: Ints, labels: tuple[str, ...]) -> Floats:
        """Predictions of some rows by the fit to the others, on the columns there are; known groups with their random effects."""
        problem = without(self.problem, labels)
        design = problem.design
        counts = np.ones(design.n) if design.freq is None else np.array(design.freq)
        counts[rows] = 0
        train = design.take(counts)
        train = train if design.freq is not None else evolve(train, freq=None)
        fit = _quiet(evolve(problem, design=train), self.fit)
        if fit is None or not fit.kept.all():
            return np.full(len(rows), np.nan)
        eta = design.X[rows] @ fit.coef
        if design.offset is not None:
            eta = eta + design.offset[rows]
        terms = () if design.random is None else zip(design.random.terms, train.random.terms)  # type: ignore[union-attr]
        parts = [(_places(one.levels, other.levels)[one.group[rows]], one.Z[rows]) for one, other in terms]
        if parts:
            eta = eta + varying.random_part(evolve(problem, design=train), fit, parts)
        return np.asarray(problem.link.inverse(eta))

    def _reencoded(self, rows: Ints, labels: tuple[str, ...]) -> Floats:
        """The same, with everything that the formula learns learnt from the other rows alone."""
        problem, data = self.problem, self.problem.data
        if data is None:
            raise Refused(
                "the model was loaded without its data, so nothing can be learnt anew.", where=WHERE, do="Save it with data=True."
            )
        inside = np.ones(problem.design.n, dtype=bool)
        inside[rows] = False
        try:
            encoder, design, _ = encode(problem.spec, data.filter(inside))
        except BossaError:
            return np.full(len(rows), np.nan)
        train = without(evolve(problem, design=design, prior=about(problem.prior, design.names)), labels)
        fit = _quiet(train, self.fit)
        if fit is None:
            return np.full(len(rows), np.nan)
        held = encoder.rows(data[rows], unseen="null")
        X = held.X[:, [design.terms[t] not in labels for t in design.term_of]][:, fit.kept]
        eta = X @ fit.coef if held.offset is None else X @ fit.coef + held.offset
        if design.random is not None:
            eta = eta + varying.random_part(train, fit, encoder.random(data[rows]))
        return np.asarray(problem.link.inverse(eta))


def out_of_fold(problem: Problem, fit: FitState, folds: Ints, options: CrossValidation) -> tuple[Floats, list[str]]:
    """Predictions (n,) by fits without each row's fold, nan where that fit cannot predict; and what must be said."""
    work = _Work(problem, fit, folds, options)
    return work.fitted(()), work.notes


def _held_out_whole(group: Ints, folds: Ints) -> bool:
    """Is every group inside one fold?"""
    return len(np.unique(group.astype(np.int64) * (int(folds.max()) + 1) + folds)) == int(group.max()) + 1


def _places(levels: tuple[str, ...], known: tuple[str, ...]) -> Ints:
    """Place among the known of each level, −1 where it is none."""
    at = {level: i for i, level in enumerate(known)}
    return np.array([at.get(level, -1) for level in levels])


def _quiet(problem: Problem, fit: FitState) -> FitState | None:
    """The problem fitted by the estimator of `fit`; None where it cannot be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        try:
            state = registry.named(fit.estimator).fit(evolve(problem, options=evolve(problem.options, start=None)))
        except BossaError:
            return None
    return None if state.outcome.status == "failed" else state


def without(problem: Problem, labels: tuple[str, ...]) -> Problem:
    """The problem without the columns of some terms."""
    if not labels:
        return problem
    design = problem.design
    some = np.array([design.terms[t] not in labels for t in design.term_of], dtype=bool)
    names = tuple(name for name, keep in zip(design.names, some) if keep)
    smaller = evolve(
        design, X=design.X[:, some], names=names, term_of=design.term_of[some], columns=names, kept=np.ones(len(names), dtype=bool)
    )
    return evolve(problem, design=smaller, prior=about(problem.prior, names))


def _ablations(problem: Problem) -> list[tuple[str, ...]]:
    """For each term but the intercept: its label, then those of the terms that contain it."""
    infos = problem.encoder.terms if problem.encoder is not None else ()
    return [
        (info.label, *(o.label for o in infos if o is not info and set(info.factors) < set(o.factors))) for info in infos if info.factors
    ]
