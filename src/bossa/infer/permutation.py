"""Could the data be this strange if the null were true? Statistics of rearranged data, under which the null makes rearrangement harmless.

For a row ℓᵀβ = c of the question in a linear model (Freedman & Lane 1983):

    reduced fit under the constraint → residuals e; y* = fitted + permuted e; refit the full model; t* = (ℓᵀβ* − c)/se*

Where the reduced model has no constant, permuting would be meaningless, and signs are flipped instead. `within=` permutes only inside its
levels, `cluster=` whole groups. Errors must be exchangeable (for signs: symmetric); with a robust se* (`errors="hetero"`, `"cluster"`) the
test also holds, in large samples, where their spread, or their dependence inside clusters, differs.

Where residuals cannot be exchanged (generalized and mixed models) the null model is fitted and new responses are drawn from it: a
parametric bootstrap of the null, and named so. p = (b + 1)/(m + 1) of random arrangements, b/m of all of them: never 0.

Source: Freedman & Lane (1983); Winkler et al. (2014) §2; DiCiccio & Romano (2017) for robust statistics; Cameron, Gelbach & Miller (2008)
for signs of clusters; Davison & Hinkley (1997) §4.4 for draws from the null model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..errors import BossaWarning, FitFailed, Refused
from ..estimate import registry
from ..estimate.many import each, refit
from ..kernels.pivots import Pivots
from ..state.design import Problem
from ..state.fields import choice, flag, integer, workers
from ..state.fit import FitState
from ..state.inference import InferenceState, ResamplesState
from ..state.plan import MOST, Plan
from ..state.target import Target
from . import Common, backend
from .arrangements import LARGEST, Exchange, exchange
from .constrained import held, pivot, rotated
from .covariance import standard_errors
from .exchangeable import ERRORS, SCHEMES, WHERE, Setting, setting
from .plan import plan
from .profile import spread_limits
from .progress import progress_bar
from .shown import Question, linear_rows, question
from .verdict import Answer, judged

ROUNDING = 1e-13  # residuals that small beside the response are none


@frozen(kw_only=True)
class Perm(Common):
    """Options of how="perm".

    n_perm    rearrangements; "all", or a number that there are not: every distinct one, and p is exact
    scheme    "auto": Freedman–Lane for linear models, draws from the null model for others;  "response": permute y, for a model whose
              only question is the whole model;  "sign-flip": symmetric errors instead of exchangeable ones;  "parametric": from the null
    within    column inside whose levels rows are exchangeable;  cluster: column of groups of equal size that are exchangeable as wholes
    errors    what studentizes the statistic of a linear model: "iid"; "hetero" (HC3), "HC0" … "HC4" for errors of unequal spread;
              "cluster" (CR2), "CR0" "CR1" "CR1S" "CR2" with cluster=
    seed      whatever numpy's default_rng takes; the result keeps the entropy
    profile_auto  the limits of `varying_spread` of a mixed model, by profile likelihood, come along
    """

    n_perm: int | str = integer(1000, minimum=1, word="all", do="Use e.g. n_perm=10_000, or n_perm='all' for small designs.")
    scheme: str = choice("auto", among=SCHEMES)
    within: str | None = None
    cluster: str | None = None
    errors: str = choice("iid", among=ERRORS)
    seed: Any = None
    n_jobs: int | None = workers()
    profile_auto: bool = flag(True)
    progress: Any = field(default="auto")


@frozen(kw_only=True, eq=False)
class Part:
    """Questions answered by one plan: their numbers among the K, and how their statistics come of it.

    every     the plan takes all arrangements there are
    said      what is done, in words;  moves: "arrangements" | "sign flips"
    question  of residuals rearranged;  else problem, fit, j and c: refits, whose coefficient j is tested against c
    """

    rows: tuple[int, ...]
    plan: Plan
    every: bool
    said: str
    moves: str = "arrangements"
    question: Pivots | None = None
    refitted: tuple[Problem, FitState, int, float] | None = None

    def statistics(self, n_jobs: int | None, tick: Callable[[int], None] | None) -> tuple[np.ndarray, np.ndarray]:
        """t* (m, rows), m < plan.n when interrupted by Ctrl-C, and a code of each replicate (m,)."""
        if self.question is None:
            assert self.refitted is not None
            problem, fit, j, c = self.refitted
            draws = refit(problem, fit, self.plan, n_jobs=n_jobs, tick=tick)
            assert draws.se is not None
            with np.errstate(divide="ignore", invalid="ignore"):
                return ((draws.coef[:, j] - c) / draws.se[:, j])[:, None], draws.code
        done: list[np.ndarray] = []
        try:
            for block in each(partial(_rearranged, self.question, self.plan), range(self.plan.blocks), n_jobs):
                done.append(block)
                if tick is not None:
                    tick(len(block))
        except KeyboardInterrupt:
            if not done:
                raise
        t = np.concatenate(done)
        return t, np.zeros(len(t), dtype=int)


def _rearranged(asked: Pivots, plan: Plan, i: int) -> np.ndarray:
    """t* of block i of the plan (b, K)."""
    return asked.of_signs(plan.drawn(i)) if plan.unit == "sign" else asked.of_orders(plan.drawn(i))


@frozen(eq=False)
class Rearranged:
    """Responses base + rearranged part (n,) from the orders or signs that `arrange` draws."""

    base: np.ndarray
    part: np.ndarray
    arrange: Callable[[np.random.Generator, int, int], np.ndarray]
    signs: bool

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        drawn = self.arrange(rng, start, b)
        return self.base + (self.part * drawn if self.signs else self.part[drawn])


@backend("perm", Perm)
def permutation(problem: Problem, fit: FitState, target: Target, options: Perm) -> InferenceState:
    """Statistic, p-value with its Monte Carlo error, and limits that hold the statistic when the null is true."""
    L, asked = _linear_question(target, fit, options)
    given = setting(problem, fit, options)
    values = asked.null - asked.observed + L @ fit.coef
    parts, left_out = _parts(given, L, values, options.n_perm)
    longest, K = max((part.plan.n for part in parts), default=1), len(L)
    draws, code = np.full((longest, K), np.nan), np.zeros(longest, int)
    observed, done, planned, every = np.full(K, np.nan), np.zeros(K, int), np.zeros(K, int), np.zeros(K, bool)
    se = _standard_errors(given, fit, L)
    for part in parts:
        rows = list(part.rows)
        with np.errstate(divide="ignore", invalid="ignore"):  # a perfect fit
            observed[rows] = (L[rows] @ fit.coef - values[rows]) / se[rows]
        planned[rows], every[rows] = part.plan.n, part.every
    with progress_bar(options.progress, sum(part.plan.n for part in parts), "permutation") as tick:
        for part in parts:
            try:
                t, codes = part.statistics(options.n_jobs, tick)
            except KeyboardInterrupt:
                if not done.any():
                    raise
                break
            draws[: len(t), list(part.rows)] = t
            code[: len(t)] = np.maximum(code[: len(t)], codes)
            done[list(part.rows)] = len(t)
            if len(t) < part.plan.n:
                break
    used = max(int(done.max(initial=0)), 1)
    answer = Answer(observed=observed, draws=draws[:used], code=code[:used], done=done, planned=planned, every=every)
    verdict = judged(asked, answer, options.conf_level, given.seed)
    state = ResamplesState(
        values=answer.draws,
        observed=observed,
        code=answer.code,
        scheme=given.scheme,
        seed=given.seed,
        planned=int(planned.max(initial=1)),
        failed=verdict.failed,
        spread=spread_limits(problem, fit, options.conf_level) if options.profile_auto and target.kind == "params" else None,
    )
    errors = "iid" if given.robust is None else given.robust.errors
    chosen = {"n_perm": options.n_perm, "scheme": given.scheme, "within": options.within, "cluster": options.cluster}
    return InferenceState(
        how="perm",
        level=options.conf_level,
        statistic=observed,
        statistic_name="t" if given.fit.dispersion_estimated else "z",
        p_value=verdict.p_value,
        null=asked.null_shown,
        side=options.alternative,
        columns={"p_mc_se": verdict.p_mc_se, "null_lower": verdict.limits[0], "null_upper": verdict.limits[1]},
        notes=(*_notes(parts, answer, options.n_perm), *left_out, *verdict.notes, *(given.robust.notes if given.robust else ())),
        options=chosen | {"errors": errors, "seed": given.seed},
        extra=state,
    )


def _standard_errors(given: Setting, fit: FitState, L: np.ndarray) -> np.ndarray:
    if given.robust is not None:
        return standard_errors(given.robust, L)
    return np.sqrt(np.einsum("ki,ij,kj->k", L, fit.vcov, L))


def _parts(given: Setting, L: np.ndarray, values: np.ndarray, asked: int | str) -> tuple[list[Part], list[str]]:
    """The work, and the rows that are left out in words: linear models share arrangements between rows, others have refits for each."""
    made: list[Part] = []
    ways: dict[tuple[bool, str], list[int]] = {}
    no_null: list[int] = []
    failed: list[FitFailed] = []
    for k in np.flatnonzero(np.isfinite(values)).tolist():
        if given.scheme == "parametric":
            try:
                made.append(_from_null(given, L[k], values[k], int(asked), k))
            except FitFailed as error:
                failed.append(error)
            continue
        way = _way(given, L[k])
        if way is None:
            no_null.append(k)
        else:
            ways.setdefault(way, []).append(k)
    too_many: list[tuple[list[int], Exchange]] = []
    for (signs, said), rows in ways.items():
        for some in [rows] if given.basis is not None else [[k] for k in rows]:
            part, possible = _part(given, L, values, some, signs, said, asked)
            if part is None:
                too_many.append((some, possible))
            else:
                made.append(part)
    if failed and not made:
        raise failed[0]
    left_out = [f"left out: {len(failed)} row{'s' * (len(failed) > 1)} under whose null no model can be fitted"] if failed else []
    left_out += ["responses permuted: no test of rows that hold the mean"] if no_null else []
    if too_many and not made:
        raise Refused(
            f"there are {' and '.join(_so_many(*pair) for pair in too_many)}; at most {LARGEST:,} are enumerated.",
            where="n_perm='all'",
            do="Use a number, e.g. n_perm=10_000: p_mc_se then shows how far p may be from the exact one.",
        )
    if too_many:
        what = " and ".join(_so_many(*pair) for pair in too_many)
        left_out.append(f"left out: {what}, where at most {LARGEST:,} are enumerated; give n_perm= a number to test these rows")
    return made, left_out


def _so_many(rows: list[int], possible: Exchange) -> str:
    return f"{possible.said()} distinct {possible.moves} for {len(rows)} row{'s' if len(rows) > 1 else ''}"


def _way(given: Setting, row: np.ndarray) -> tuple[bool, str] | None:
    """Whether signs are flipped, and what is done in words; None where the scheme has no null for the row."""
    ones = given.ones
    moves_mean = ones is None or abs(row @ ones) > 1e-8 * np.abs(row).max() * np.abs(ones).max()
    inside = " inside blocks" if given.within is not None else " as whole groups" if given.groups is not None else ""
    how = "studentized" if given.robust is None else f"studentized by {given.robust.errors} errors"
    if given.scheme == "response":
        return None if moves_mean else (False, f"responses permuted{inside}, the whole model's null, {how}")
    if given.scheme == "sign-flip":
        return True, f"signs of residuals flipped{inside}, {how}"
    if moves_mean and given.within is None:
        return True, f"signs flipped{inside} where the null removes the constant (the intercept), {how}"
    return False, f"Freedman–Lane: residuals under the null permuted{inside}, {how}"


def _part(
    given: Setting, L: np.ndarray, values: np.ndarray, rows: list[int], signs: bool, said: str, asked: int | str
) -> tuple[Part | None, Exchange]:
    """The work for rows that share arrangements, None where all of these are too many; and the arrangements."""
    design, basis = given.problem.design, given.basis
    if basis is not None:
        effect = np.linalg.solve(basis.R.T, L[rows].T).T
        moved = _null_residuals(given, L[rows], values[rows], effect)
    else:
        base = _base(given, L[rows[0]], values[rows[0]])
        moved = (np.asarray(design.y) - base)[None]
    possible = exchange(design.X, moved, given.within, given.groups, signs)
    planned = possible.plan(asked, scheme=given.scheme, seed=given.seed)
    if planned is None:
        return None, possible
    work, every = planned
    if basis is not None:
        spread = None if basis.pulls is None else effect @ basis.pulls.T
        df = design.n - basis.Q.shape[1]
        question = Pivots(residual=moved, Q=basis.Q, effect=effect, df=df, spread=spread, clusters=basis.clusters)
        return Part(rows=tuple(rows), plan=work, every=every, said=said, moves=possible.moves, question=question), possible
    k = rows[0]
    problem, fit = _turned(given, L[k])
    if given.scheme == "response":  # whatever the data say, refits of the null start there
        assert given.ones is not None
        fit = evolve(fit, coef=given.ones * float(problem.link.link(np.mean(moved))))
    work = evolve(work, unit="response", draw=Rearranged(base, moved[0], work.draw, signs), block_size=min(work.block_size, MOST))
    refitted = (problem, fit, pivot(L[k]), values[k])
    return Part(rows=(k,), plan=work, every=every, said=said, moves=possible.moves, refitted=refitted), possible


def _null_residuals(given: Setting, L: np.ndarray, values: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """What each null ℓᵀβ = c leaves of the (whitened) response of a linear model (K, n): r + a (ℓᵀβ̂ − c)/‖a‖²."""
    basis = given.basis
    assert basis is not None
    if given.scheme == "response":
        assert given.ones is not None
        y, constant = np.asarray(given.problem.design.y), given.problem.design.X @ given.ones
        return np.tile(y - constant * (constant @ y) / (constant @ constant), (len(L), 1))
    share = (L @ given.fit.coef - values) / np.einsum("kp,kp->k", effect, effect)
    moved = basis.residual + (share[:, None] * effect) @ basis.Q.T
    moved[np.abs(moved).max(axis=1) <= ROUNDING * np.abs(np.asarray(given.problem.design.y)).max()] = 0.0
    return moved


def _base(given: Setting, row: np.ndarray, c: float) -> np.ndarray:
    """What does not change places where models are refitted: fitted values under ℓᵀβ = c, or nothing of a response."""
    if given.scheme == "response":
        return np.zeros(given.problem.design.n)
    smaller = held(given.problem, row, c)
    return smaller.design.X @ _fitted(smaller, given.fit).coef + np.asarray(smaller.design.offset)


def _from_null(given: Setting, row: np.ndarray, c: float, n: int, k: int) -> Part:
    """Responses drawn from the model fitted under ℓᵀβ = c."""
    problem, fit = _turned(given, row)
    reduced = _fitted(held(given.problem, row, c), given.fit)
    full = np.insert(reduced.coef, pivot(row), c)
    null = evolve(reduced, coef=full, vcov=np.eye(len(full)), kept=problem.design.kept)
    said = "parametric bootstrap of the null: responses drawn from the model fitted under it, not permuted"
    drawn = plan(problem, null, "parametric", n, given.seed)
    return Part(rows=(k,), plan=drawn, every=False, said=said, refitted=(problem, fit, pivot(row), c))


def _turned(given: Setting, row: np.ndarray) -> tuple[Problem, FitState]:
    """Problem and fit with ℓᵀβ among the coefficients, so that refits record its standard error."""
    fit = given.fit
    coef = np.array(fit.coef)
    coef[pivot(row)] = row @ fit.coef
    return rotated(given.problem, row), evolve(fit, coef=coef)


def _fitted(problem: Problem, fit: FitState) -> FitState:
    """The fit under a constraint, by the model's own estimator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        return registry.named(fit.estimator).fit(problem)


def _notes(parts: list[Part], answer: Answer, asked: int | str) -> list[str]:
    """What was done and how often, one sentence for each way."""
    ways: dict[str, int] = {}
    for part in parts:
        m = int(answer.done[part.rows[0]])
        if part.every:
            many = f"all {m:,} distinct {part.moves}, exact" if m == part.plan.n else f"{m:,} of {part.plan.n:,} distinct {part.moves}"
            many += f" ({asked:,} were asked for)" if asked != "all" and asked != m else ""
        else:
            many = f"{m} times"
        said = f"permutation: {part.said}, {many}"
        ways[said] = ways.get(said, 0) + len(part.rows)
    total = sum(ways.values())
    return [said + (f" ({n} of {total} rows)" if len(ways) > 1 else "") for said, n in ways.items()]


def _linear_question(target: Target, fit: FitState, options: Perm) -> tuple[np.ndarray, Question]:
    """ℓ (K, p) of every row, and the question; refused where it is none, or not linear in the coefficients."""
    if target.kind == "predictions":
        raise Refused("a prediction has no null hypothesis to rearrange the data under.", where=WHERE, do="Use how='boot', or .explore().")
    asked = question(target, fit.coef, options)
    L = linear_rows(target, fit.coef)
    if L is None:
        raise Refused("the question is not linear in the coefficients.", where=WHERE, do="Ask it on the link scale, or use how='boot'.")
    return L, asked
