"""Could the data be this strange if the null were true? Statistics of rearranged data, under which the null makes rearrangement harmless.

For a row ℓᵀβ = c of the question in a linear model (Freedman & Lane 1983):

    reduced fit under the constraint → residuals e; y* = fitted + permuted e; refit the full model; t* = (ℓᵀβ* − c)/se*

Where the reduced model has no constant, permuting would be meaningless, and signs are flipped instead. `within=` permutes only inside its
levels, `cluster=` whole groups. Errors must be exchangeable: with unequal spread use signs, the wild bootstrap or robust errors.

Where residuals cannot be exchanged (generalized and mixed models) the null model is fitted and new responses are drawn from it: a
parametric bootstrap of the null, and named so. p = (b + 1)/(m + 1), never 0.

Source: Freedman & Lane (1983); Winkler et al. (2014) §2; Davison & Hinkley (1997) §4.4 for draws from the null model.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..errors import BossaWarning, OptionError, Refused
from ..estimate import registry
from ..estimate.many import failures, refit
from ..kernels.linalg import inverse_factored, triangular
from ..kernels.resample import monte_carlo_se, permutation_p
from ..kernels.streams import entropy
from ..state.design import Problem, REStructure
from ..state.fields import choice, integer
from ..state.fit import FitState
from ..state.inference import InferenceState, ResamplesState
from ..state.plan import BLOCK_CELLS, Draws, Plan
from ..state.target import Target
from . import Common, backend
from .clusters import cluster_codes
from .constrained import held, pivot, rotated
from .plan import PermuteDraw, expanded, plan
from .progress import progress_bar
from .shown import Question, linear_rows, question

SCHEMES = ("auto", "freedman-lane", "response", "sign-flip", "parametric")
WHERE = "infer(how='perm')"


@frozen(kw_only=True)
class Perm(Common):
    """Options of how="perm".

    n_perm    rearrangements
    scheme    "auto": Freedman–Lane for linear models, draws from the null model for others;  "response": permute y, for a model whose
              only question is the whole model;  "sign-flip": symmetric errors instead of exchangeable ones;  "parametric": from the null
    within    column inside whose levels rows are exchangeable;  cluster: column of groups of equal size that are exchangeable as wholes
    seed      whatever numpy's default_rng takes; the result keeps the entropy
    """

    n_perm: int = integer(1000, minimum=1)
    scheme: str = choice("auto", among=SCHEMES)
    within: str | None = None
    cluster: str | None = None
    seed: Any = None
    n_jobs: int | None = None
    progress: Any = field(default="auto")


@frozen(kw_only=True, eq=False)
class Setting:
    """What every row shares: the problem with counted rows written out (LM: whitened), its fit, and what may change places.

    ones  (p,)  combination of columns that is 1 in every row, None where there is none
    """

    problem: Problem
    fit: FitState
    scheme: str
    within: np.ndarray | None
    groups: np.ndarray | None
    ones: np.ndarray | None
    seed: Any


@frozen(kw_only=True, eq=False)
class Part:
    """Questions that share arrangements: their numbers among the K, plan of n_perm × their number of replicates, problem and fit."""

    rows: tuple[int, ...]
    plan: Plan
    problem: Problem
    fit: FitState


@backend("perm", Perm)
def permutation(problem: Problem, fit: FitState, target: Target, options: Perm) -> InferenceState:
    """Statistic, p-value with its Monte Carlo error, and limits that hold the statistic when the null is true."""
    L, asked = _linear_question(target, fit, options)
    setting = _setting(problem, fit, options, len(L))
    values = asked.null - asked.observed + L @ fit.coef
    parts, said = _parts(setting, L, values, options.n_perm)
    observed = np.full(len(L), np.nan)
    draws = np.full((options.n_perm, len(L)), np.nan)
    code = np.zeros(options.n_perm, int)
    done = options.n_perm
    with progress_bar(options.progress, sum(part.plan.n for part in parts), "permutation") as tick:
        for part in parts:
            refits = refit(part.problem, part.fit, part.plan, n_jobs=options.n_jobs, tick=tick)
            done = min(done, len(refits.code) // len(part.rows))
            for i, k in enumerate(part.rows):
                one = slice(i, done * len(part.rows), len(part.rows))
                observed[k] = (L[k] @ fit.coef - values[k]) / np.sqrt(L[k] @ fit.vcov @ L[k])
                draws[:done, k] = _statistic(setting, L[k], values[k], refits, one)
                code[:done] = np.maximum(code[:done], refits.code[one])
    return _state(asked, options, setting, observed, draws[:done], code[:done], said)


def _parts(setting: Setting, L: np.ndarray, values: np.ndarray, n: int) -> tuple[list[Part], list[str]]:
    """The work: linear models share arrangements between rows; others have a problem of their own for each. And each row's way in words."""
    made, said = [], []
    shared: dict[bool, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for k in np.flatnonzero(np.isfinite(values)).tolist():
        if setting.scheme == "parametric":
            made.append(_from_null(setting, L[k], values[k], n, k))
            said.append("parametric bootstrap of the null: responses drawn from the model fitted under it, not permuted")
            continue
        base, signs, how = _reduced(setting, L[k], values[k])
        said.append(how)
        if base is not None and setting.problem.design.random is None:
            shared.setdefault(signs, []).append((k, base, np.asarray(setting.problem.design.y) - base))
        elif base is not None:
            part = np.asarray(setting.problem.design.y) - base
            made.append(_part(setting, [(k, base, part)], signs, n, *_turned(setting, L[k])))
    made += [_part(setting, rows, signs, n, setting.problem, setting.fit) for signs, rows in shared.items()]
    return made, said


def _part(setting: Setting, rows: list, signs: bool, n: int, problem: Problem, fit: FitState) -> Part:
    numbers, bases, parts = zip(*rows)
    draw = PermuteDraw(np.array(bases), np.array(parts), setting.within, setting.groups, signs)
    K, size = len(numbers), problem.design.n
    block = K * max(1, min(256, BLOCK_CELLS // size) // K)
    made = Plan(scheme=setting.scheme, unit="response", n=n * K, rows=size, seed=setting.seed, draw=draw, block_size=block)
    return Part(rows=numbers, plan=made, problem=problem, fit=fit)


def _from_null(setting: Setting, row: np.ndarray, c: float, n: int, k: int) -> Part:
    """Responses drawn from the model fitted under ℓᵀβ = c."""
    problem, fit = _turned(setting, row)
    reduced = _fitted(held(setting.problem, row, c), setting.fit)
    full = np.insert(reduced.coef, pivot(row), c)
    null = evolve(reduced, coef=full, vcov=np.eye(len(full)), kept=problem.design.kept)
    return Part(rows=(k,), plan=plan(problem, null, "parametric", n, setting.seed), problem=problem, fit=fit)


def _state(
    asked: Question, options: Perm, setting: Setting, observed: np.ndarray, draws: np.ndarray, code: np.ndarray, said: list[str]
) -> InferenceState:
    p_value, limits = np.full(len(observed), np.nan), np.full((2, len(observed)), np.nan)
    level, m = options.conf_level, len(draws)
    for k in np.flatnonzero(np.isfinite(observed)):
        usable = draws[np.isfinite(draws[:, k]), k][:, None]
        p_value[k] = permutation_p(observed[k : k + 1], usable, asked.side)[0]
        limits[:, k] = np.quantile(usable[:, 0], [(1 - level) / 2, (1 + level) / 2])
    failed = failures(Draws(coef=draws, sigma=np.zeros(m), code=code))
    planned, scheme, seed = options.n_perm, setting.scheme, setting.seed
    state = ResamplesState(values=draws, observed=observed, code=code, scheme=scheme, seed=seed, planned=planned, failed=failed)
    kinds = dict.fromkeys(said)
    notes = [f"permutation: {how}, {m} times" + (f" ({said.count(how)} of {len(said)} rows)" if len(kinds) > 1 else "") for how in kinds]
    notes.append(f"p = (b + 1)/(m + 1), null limits hold {level:.15g} of the statistics; seed {setting.seed}")
    notes += ["left out: " + ", ".join(f"{n} {reason}" for reason, n in failed.items())] if failed else []
    notes += [f"partial: interrupted after {m} of {options.n_perm}"] if m < options.n_perm else []
    return InferenceState(
        how="perm",
        level=level,
        statistic=observed,
        statistic_name="t" if setting.fit.dispersion_estimated else "z",
        p_value=p_value,
        null=asked.null_shown,
        side=options.alternative,
        columns={"p_mc_se": monte_carlo_se(p_value, m), "null_lower": limits[0], "null_upper": limits[1]},
        notes=tuple(notes),
        options={"n_perm": planned, "scheme": scheme, "within": options.within, "cluster": options.cluster, "seed": seed},
        extra=state,
    )


def _linear_question(target: Target, fit: FitState, options: Perm) -> tuple[np.ndarray, Question]:
    """ℓ (K, p) of every row, and the question; refused where it is none, or not linear in the coefficients."""
    if target.kind == "predictions":
        raise Refused("a prediction has no null hypothesis to rearrange the data under.", where=WHERE, do="Use how='boot', or .explore().")
    asked = question(target, fit.coef, options)
    L = linear_rows(target, fit.coef)
    if L is None:
        raise Refused("the question is not linear in the coefficients.", where=WHERE, do="Ask it on the link scale, or use how='boot'.")
    return L, asked


def _setting(problem: Problem, fit: FitState, options: Perm, K: int) -> Setting:
    linear = problem.family.name == "gaussian" and problem.link.name == "identity"
    plain = linear and problem.design.random is None
    scheme = options.scheme
    blocked = options.within is not None or options.cluster is not None
    if scheme == "auto":
        scheme = "freedman-lane" if plain or (linear and blocked) else "parametric"
    _check_scheme(problem, scheme, linear, options)
    within = None if options.within is None else cluster_codes(problem, options.within, WHERE)
    groups = None if options.cluster is None else cluster_codes(problem, options.cluster, WHERE)
    codes: Any = within if within is not None else groups
    problem, fit, codes = expanded(problem, fit, codes)
    if problem.design.random is not None and scheme != "parametric":
        _exchangeable(problem.design.random, codes, whole=groups is not None)
    if groups is not None and scheme != "sign-flip" and len(set(np.bincount(codes).tolist())) > 1:
        what = f"the groups of {options.cluster!r} differ in size, so they cannot change places."
        raise Refused(what, where=WHERE, do="Use scheme='sign-flip'.")
    ones = _constant(problem)
    if plain and scheme != "parametric":
        problem, fit = whitened(problem, fit)
    return Setting(
        problem=problem,
        fit=fit,
        scheme=scheme,
        within=codes if within is not None else None,
        groups=codes if groups is not None else None,
        ones=ones,
        seed=entropy(options.seed, WHERE),
    )


def _check_scheme(problem: Problem, scheme: str, linear: bool, options: Perm) -> None:
    design = problem.design
    blocked = options.within is not None or options.cluster is not None
    if options.within is not None and options.cluster is not None:
        raise OptionError("within= and cluster= exclude each other.", where=WHERE, do="Name what is exchangeable: rows inside, or wholes.")
    if scheme == "parametric":
        if problem.family.sample is None:
            what = f"family {problem.family.name!r} has no distribution to draw from under the null."
            raise Refused(what, where=WHERE, do="Use how='boot', or how='asymp'.")
        if blocked:
            raise OptionError("draws from the null model have no blocks.", where=WHERE, do="Leave within= and cluster= out.")
        return
    if scheme == "response":
        if len([t for t in design.terms if t != "Intercept"]) > 1 or not problem.spec.intercept:
            raise Refused(
                "permuting the response tests the whole model at once, not one term of several.",
                where=WHERE,
                do="Use scheme='freedman-lane' (linear models) or 'parametric', which keep the other terms.",
            )
        if options.null not in (None, 0):
            raise Refused("permuting the response tests that nothing matters: null= is 0.", where=WHERE, do="Use scheme='freedman-lane'.")
        if design.random is not None or (not linear and (design.weights is not None or design.offset is not None)):
            what = "responses are not exchangeable here: rows differ by weight, offset or group."
            raise Refused(what, where=WHERE, do="Use scheme='parametric'.")
    elif not linear:
        raise Refused(
            f"residuals of a {problem.family.name} model are not exchangeable: their spread moves with the mean.",
            where=WHERE,
            do="Use scheme='parametric' (the default): draws from the null model.",
        )
    elif design.random is not None and not blocked:
        raise Refused(
            "residuals of a mixed model are not exchangeable between groups.",
            where=WHERE,
            do="Use scheme='parametric' (the default), or within= (rows inside groups), cluster= (whole groups).",
        )


def _exchangeable(random: REStructure, codes: Any, whole: bool) -> None:
    """Refuses blocks between which the random effects are not the same, or wholes that they cut or tell apart."""
    for term in random.terms:
        if whole:
            pairs = np.unique(term.group.astype(np.int64) * (int(codes.max()) + 1) + codes)
            order = np.argsort(codes, kind="stable").reshape(int(codes.max()) + 1, -1) if len(set(np.bincount(codes))) == 1 else None
            alike = order is not None and np.allclose(term.Z[order], term.Z[order[0]])
            if len(pairs) > len(term.levels) or not alike:
                raise Refused(
                    f"whole groups change places where each has its own levels of {term.factor!r} and the same random-effects columns.",
                    where=WHERE,
                    do="Use scheme='parametric'.",
                )
        else:
            pairs = np.unique(codes.astype(np.int64) * len(term.levels) + term.group)
            if len(pairs) > int(codes.max()) + 1 or term.names != ("Intercept",):
                raise Refused(
                    f"rows inside a block differ in their random effects of {term.factor!r}.",
                    where=WHERE,
                    do="Permute within its levels, with a random intercept alone; or use scheme='parametric'.",
                )


def whitened(problem: Problem, fit: FitState) -> tuple[Problem, FitState]:
    """√w X and √w (y − offset): errors are then exchangeable under the model."""
    design = problem.design
    y = np.asarray(design.y) if design.offset is None else design.y - design.offset
    root = np.ones(design.n) if design.weights is None else np.sqrt(design.weights)
    return evolve(problem, design=evolve(design, X=design.X * root[:, None], y=y * root, weights=None, offset=None)), fit


def _reduced(setting: Setting, row: np.ndarray, c: float) -> tuple[np.ndarray | None, bool, str]:
    """Fitted values under ℓᵀβ = c (None where the scheme has no null for the row), whether signs are flipped, and the way in words."""
    problem, fit, ones = setting.problem, setting.fit, setting.ones
    moves_mean = ones is None or abs(row @ ones) > 1e-8 * np.abs(row).max() * np.abs(ones).max()
    if setting.scheme == "response":
        if moves_mean or ones is None:
            return None, False, "responses permuted; no test of rows that hold the mean"
        y, constant = np.asarray(problem.design.y), problem.design.X @ ones
        base = constant * (constant @ y) / (constant @ constant) if fit.estimator == "lm" else np.zeros(len(y))
        return base, False, "responses permuted, the whole model's null"
    smaller = held(problem, row, c)
    base = smaller.design.X @ _fitted(smaller, fit).coef + np.asarray(smaller.design.offset)
    inside = " inside blocks" if setting.within is not None else " as whole groups" if setting.groups is not None else ""
    if setting.scheme == "sign-flip":
        return base, True, f"signs of residuals flipped{inside}, studentized"
    if moves_mean and setting.within is None:
        return base, True, f"signs flipped{inside} where the null removes the constant (the intercept), studentized"
    return base, False, f"Freedman–Lane: residuals under the null permuted{inside}, studentized"


def _turned(setting: Setting, row: np.ndarray) -> tuple[Problem, FitState]:
    """Problem and fit with ℓᵀβ among the coefficients, so that refits record its standard error."""
    fit = setting.fit
    coef = np.array(fit.coef)
    coef[pivot(row)] = row @ fit.coef
    return rotated(setting.problem, row), evolve(fit, coef=coef)


def _fitted(problem: Problem, fit: FitState) -> FitState:
    """The fit under a constraint, by the model's own estimator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        return registry.named(fit.estimator).fit(problem)


def _constant(problem: Problem) -> np.ndarray | None:
    """The combination of columns (p,) that is 1 in every row, None where there is none."""
    X = problem.design.X
    ones = np.linalg.lstsq(X, np.ones(len(X)), rcond=None)[0]
    return ones if np.abs(X @ ones - 1).max() < 1e-8 else None


def _statistic(setting: Setting, row: np.ndarray, c: float, refits: Draws, one: slice) -> np.ndarray:
    """(ℓᵀβ − c)/se of some of the refits (B,)."""
    design, j = setting.problem.design, pivot(row)
    with np.errstate(divide="ignore", invalid="ignore"):
        if setting.fit.estimator == "lm" and setting.scheme != "parametric":
            scale = np.sqrt(row @ inverse_factored(triangular(design.X, design.total_weights)) @ row)
            return (refits.coef[one] @ row - c) / (refits.sigma[one] * scale)
        return (refits.coef[one, j] - c) / np.asarray(refits.se)[one, j]
