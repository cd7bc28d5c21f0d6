"""How do groups differ? The random effects of a mixed model as tables, and how much of the variance they are.

    spread(problem, fit)    variances, standard deviations, correlations and the residual, with a flag at the boundary
    offsets(problem, fit)   each level's random effects b̂ and their conditional standard deviations, √Var(b | y)
    params(problem, fit)    each level's own coefficients: β̂ + b̂
    shares(problem, fit)    R² (marginal, conditional), intraclass correlation, REML criterion

and, for predictions with their groups, the random part of new rows (`random_part`) and what it adds to their variance (`row_variances`).

Source: Bates et al. (2015) §4 and Table 7; Nakagawa & Schielzeth (2013), Johnson (2014) for random slopes, Nakagawa, Johnson &
Schielzeth (2017) for R² and ICC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ..estimate.lmm import Prepared, prepare
from ..estimate.random import SINGULAR, term_factors
from ..kernels import blocks, profiled
from ..kernels.profiled import Point
from ..state.design import Problem, RETerm
from ..state.fit import FitState
from ..types import Floats, Ints

LATENT = {"logit": math.pi**2 / 3, "probit": 1.0, "cloglog": math.pi**2 / 6}  # variance of the latent residual of a binomial link
ROWS = 1_000  # rows whose covariances with all random effects are held at a time


def term_modes(problem: Problem, fit: FitState, values: Floats | None = None) -> list[Floats]:
    """b̂ (or other `values` in its order) as one (G, k) array for each term."""
    terms = problem.design.random.terms  # type: ignore[union-attr]
    ends = np.cumsum([0, *(len(t.levels) * len(t.names) for t in terms)])
    b = fit.b if values is None else values
    return [b[s:e].reshape(len(t.levels), -1) for s, e, t in zip(ends, ends[1:], terms)]  # type: ignore[index]


def spread(problem: Problem, fit: FitState) -> pl.DataFrame:
    """group, term1, term2, variance, sd, corr, boundary.

    A row without term2 is a variance with its sd; one with term2 a covariance (in `variance`) with its correlation. `boundary`: the
    variance is estimated as 0 or the correlation as ±1. The residual's row comes last, where the family has a residual variance.
    """
    rows: list[tuple[Any, ...]] = []
    for term, T in zip(problem.design.random.terms, term_factors(problem.design.random, fit.theta)):  # type: ignore[union-attr]
        S = fit.sigma**2 * T @ T.T
        sd = np.sqrt(np.diag(S))
        zero = np.sqrt((T**2).sum(axis=1)) * np.sqrt((term.Z**2).mean(axis=0)) < SINGULAR
        rows += [(term.factor, name, None, S[i, i], sd[i], None, bool(zero[i])) for i, name in enumerate(term.names)]
        connected = term.mask | term.mask.T
        for j in range(len(T)):
            for i in range(j + 1, len(T)):
                if connected[i, j]:
                    r = S[i, j] / (sd[i] * sd[j]) if sd[i] * sd[j] > 0 else math.nan
                    rows.append((term.factor, term.names[j], term.names[i], S[i, j], None, r, bool(abs(r) > 1 - SINGULAR)))
    if fit.dispersion_estimated:
        rows.append(("Residual", None, None, fit.sigma**2, fit.sigma, None, False))
    kinds = [pl.String, pl.String, pl.String, pl.Float64, pl.Float64, pl.Float64, pl.Boolean]
    names = ("group", "term1", "term2", "variance", "sd", "corr", "boundary")
    return pl.DataFrame(rows, schema=dict(zip(names, kinds)), orient="row")


def offsets(problem: Problem, fit: FitState) -> pl.DataFrame:
    """group, level, term, estimate, se: random effects and their conditional standard deviations, level by level."""
    parts = []
    terms = problem.design.random.terms  # type: ignore[union-attr]
    for term, b, sd in zip(terms, term_modes(problem, fit), term_modes(problem, fit, conditional_sd(problem, fit))):
        parts.append(_by_level(term, term.names, {"estimate": b, "se": sd}))
    return pl.concat(parts)


def params(problem: Problem, fit: FitState) -> pl.DataFrame:
    """group, level, term, estimate: the fixed coefficients with each level's random effects added, factor by factor (lme4's coef)."""
    fixed, parts = dict(zip(problem.design.names, fit.coef)), []
    terms = problem.design.random.terms  # type: ignore[union-attr]
    for factor in dict.fromkeys(t.factor for t in terms):
        own = [(t, b) for t, b in zip(terms, term_modes(problem, fit)) if t.factor == factor]
        names = tuple(dict.fromkeys([*fixed, *(name for t, _ in own for name in t.names)]))
        values = np.tile([fixed.get(name, 0.0) for name in names], (len(own[0][0].levels), 1))
        for term, b in own:
            values[:, [names.index(name) for name in term.names]] += b
        parts.append(_by_level(own[0][0], names, {"estimate": values}))
    return pl.concat(parts)


def _by_level(term: RETerm, names: Sequence[str], columns: dict[str, Floats]) -> pl.DataFrame:
    G, k = len(term.levels), len(names)
    level = pl.Series("level", term.levels, dtype=pl.String).gather(np.repeat(np.arange(G), k))
    labels = pl.Series("term", names, dtype=pl.String).gather(np.tile(np.arange(k), G))
    group = pl.Series("group", [term.factor], dtype=pl.String).gather(np.zeros(G * k, dtype=np.int64))
    return pl.DataFrame([group, level, labels, *(pl.Series(name, v.ravel()) for name, v in columns.items())])


def conditional_sd(problem: Problem, fit: FitState) -> Floats:
    """√Var(b | y) at the estimated parameters, (q,) in the order of FitState.b."""
    if fit.estimator != "lmm":
        return fit.engine.sd  # type: ignore[attr-defined]
    prepared, point = _solved(problem, fit)
    lay, scales = prepared.layout, [np.linalg.inv(K) for K in prepared.scales]
    made = []
    for K, block in zip(scales, blocks.conditional_variances(point.factor, point.inverse)):
        made.append(fit.sigma * np.sqrt(np.einsum("ab,bcg,ac->ag", K, block, K)))
    return blocks.flatten(lay, made[0], np.concatenate([np.empty(0), *(v.T.ravel() for v in made[1:])]))


def _solved(problem: Problem, fit: FitState) -> tuple[Prepared, Point]:
    """The fit's factor again, with the directions that span X."""
    prepared = prepare(problem)
    point = profiled.evaluate(prepared.P, prepared.inward(fit.theta), prepared.n, reml=True)  # type: ignore[arg-type]
    assert point is not None  # it was, when the fit ended there
    return prepared, point


def shares(problem: Problem, fit: FitState) -> dict[str, float]:
    """rsquared_marginal, rsquared_conditional, icc, and by REML reml_criterion.

    With F = Var(Xβ̂), R the mean over rows of z_iᵀ Cov(b) z_i and ε the residual variance (on the link scale for binomial families):
    F/(F+R+ε), (F+R)/(F+R+ε), R/(R+ε). Families whose residual variance on the link scale is a matter of convention: nan.
    """
    design = problem.design
    fixed = design.X @ fit.coef
    f = None if design.freq is None else np.asarray(design.freq)
    about = np.average(fixed, weights=f)
    F = float(np.average((fixed - about) ** 2, weights=f)) * design.n_obs / (design.n_obs - 1)
    R = 0.0
    for term, T in zip(design.random.terms, term_factors(problem.design.random, fit.theta)):  # type: ignore[union-attr]
        R += fit.sigma**2 * float(np.average(((term.Z @ T) ** 2).sum(axis=1), weights=f))
    residual = math.nan
    if problem.family.name == "gaussian" and problem.link.name == "identity":
        residual = fit.sigma**2
    elif problem.family.name == "binomial":
        residual = LATENT.get(problem.link.name, math.nan)
    total = F + R + residual
    made = {"rsquared_marginal": F / total, "rsquared_conditional": (F + R) / total, "icc": R / (R + residual)}
    return made | ({"reml_criterion": fit.deviance} if fit.estimator == "lmm" and problem.method != "ml" else {})


def random_part(problem: Problem, fit: FitState, rows: Sequence[tuple[Ints, Floats]]) -> Floats:
    """z_iᵀb̂ (n,) of new rows.   rows: for each term codes (n,) of the levels, negative for one the fit did not have, and Z (n, k)."""
    out = np.zeros(len(rows[0][0]))
    for (codes, Z), b in zip(rows, term_modes(problem, fit)):
        out += np.where(codes >= 0, np.einsum("nk,nk->n", Z, b[np.maximum(codes, 0)]), 0.0)
    return out


def row_variances(problem: Problem, fit: FitState, X: Floats, rows: Sequence[tuple[Ints, Floats]]) -> Floats:
    """Var(x_iᵀβ̂ + z_iᵀ(b̂ − b)) (n,) of rows of a linear mixed model; an unknown level counts with its whole variance.

    x̃ᵀ Var(β̂) x̃ + σ² zᵀGz,   x̃ = x − XᵀWZGz,  G = ΛM⁻¹Λᵀ

    X     (n, p)  columns kept;   rows as for `random_part`

    Source: Henderson (1975); McCulloch & Searle (2001) §6.8.
    """
    prepared, point = _solved(problem, fit)
    z = _new_rows(problem, prepared, rows)
    return fit.sigma**2 * (_of_fixed_part(prepared, point, X, z) + _quadratic(prepared, point, z))


def own_variances(problem: Problem, fit: FitState) -> Floats:
    """`row_variances` of the design's own rows, σ² left out, without a pass over all random effects for each row."""
    prepared, point = _solved(problem, fit)
    design = problem.design
    z = _new_rows(problem, prepared, [(t.group, t.Z) for t in design.random.terms])  # type: ignore[union-attr]
    return _of_fixed_part(prepared, point, design.X, z) + blocks.leverage(point.factor, point.inverse)


def _of_fixed_part(prepared: Prepared, point: Point, X: Floats, z: list[tuple[Ints, Floats]]) -> Floats:
    """x̃ᵀ Var(β̂) x̃ / σ² (n,), and the whole variance of the groups that the fit does not know."""
    c = point.factor
    random_X = blocks.modes(c, c.P.B[:, :-1], point.half.combine(np.eye(len(point.L), len(point.coef))))
    left = X @ np.linalg.inv(prepared.R)
    unknown = np.zeros(len(X))
    for T, (codes, Z), b in zip(c.T, z, _by_grouping(prepared, random_X.b0, random_X.br)):
        known = codes >= 0
        left[known] -= np.einsum("nk,ksn->ns", Z[known], b[:, :, codes[known]])
        unknown[~known] += ((Z[~known] @ T) ** 2).sum(axis=1)
    A = np.linalg.solve(point.L[:-1, :-1], left.T)
    return np.einsum("ij,ij->j", A, A) + unknown


def _by_grouping(prepared: Prepared, v0: Floats, vr: Floats) -> list[Floats]:
    """A q-vector of s columns, (k, s, G) for each grouping."""
    lay = prepared.layout
    rest = [vr[s : s + g.G * g.k].reshape(g.G, g.k, -1).transpose(1, 2, 0) for s, g in zip(lay.starts, lay.rest)]
    return [v0, *rest]


def _new_rows(problem: Problem, prepared: Prepared, rows: Sequence[tuple[Ints, Floats]]) -> list[tuple[Ints, Floats]]:
    """(codes, Z̃) of each grouping in the units of the search."""
    made = []
    for g, K in zip(prepared.layout.groupings, prepared.scales):
        Z = np.concatenate([rows[number][1] for number, _ in g.members], axis=1)
        made.append((rows[g.members[0][0]][0], Z @ np.linalg.inv(K)))
    return made


def _quadratic(prepared: Prepared, point: Point, rows: list[tuple[Ints, Floats]]) -> Floats:
    """zᵀGz of rows, unknown levels left out: z₀ᵀH_gz₀ + dᵀYd,  d = z_r − N_gᵀH_gz₀."""
    lay, c, inv = prepared.layout, point.factor, point.inverse
    codes, Z = rows[0]
    H = np.matmul(c.T[0], c.X)[:, :, np.maximum(codes, 0)]
    HZ = np.einsum("abn,nb->an", H, np.where(codes[:, None] >= 0, Z, 0.0))
    out = np.einsum("na,an->n", Z, HZ)
    if c.P.cross is None:
        return out
    for start in range(0, len(codes), ROWS):
        at = np.arange(start, min(start + ROWS, len(codes)))
        placed = np.zeros((lay.first.k, len(at), lay.first.G))
        placed[:, np.arange(len(at)), np.maximum(codes[at], 0)] = HZ[:, at]
        d = -c.P.cross.down(placed).T
        for first, g, (level, Zr) in zip(lay.starts, lay.rest, rows[1:]):
            known = np.flatnonzero(level[at] >= 0)
            for a in range(g.k):
                d[known, first + level[at[known]] * g.k + a] += Zr[at[known], a]
        out[at] += np.einsum("nc,nc->n", d @ inv.Y, d)
    return out
