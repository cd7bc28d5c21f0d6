"""The linear mixed model: y = Xβ + Zb + offset + ε,  b = σΛu,  Var ε_i = σ²/w_i.

The criterion of θ (restricted or full likelihood, β and σ² profiled out) is minimised from cross-products (`kernels.profiled`) in units
where the search is easy: y as its least-squares residual, X and the columns of each term orthonormalised over the rows. All that comes
back is in the user's units and lme4's order.

`weights` are precision weights, as in lme4. `freq` are counts: with one grouping factor and counts that are constant within its groups,
a group with count f is f groups like it, each with random effects of its own; else row i is f_i rows of its group.

Source: Bates, Mächler, Bolker & Walker (2015) for model, criterion and conventions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..errors import BoundaryWarning, ConvergenceWarning, DataError, FitFailed, warn
from ..kernels import blocks, profiled
from ..kernels.blocks import Layout, Products
from ..kernels.linalg import lstsq, triangular
from ..kernels.optimize import ROUNDING, Minimum, minimize
from ..kernels.profiled import Point
from ..state.design import Design, Problem, RETerm
from ..state.fit import FitState, Outcome
from ..state.plan import Draws, Replicates
from ..types import Array, Bools, Floats
from . import random
from .lm import dropped_note
from .refits import refit_counts, refit_responses
from .registry import estimator

SMALL = 2_000  # random effects up to which a second start costs next to nothing
COLLINEAR = 1e-9  # what must be left of a column of Z beside the others of its term for it to be made orthogonal to them
SADDLE = 1e-3  # criterion gained per unit of variance below which a boundary is one
SLIGHT = 1e-2  # singular value of T from which downward its direction is held for a boundary or a saddle


def accepts(problem: Problem) -> bool:
    gaussian = problem.family.name == "gaussian" and problem.link.name == "identity"
    return problem.design.random is not None and problem.prior is None and gaussian


@frozen(kw_only=True, eq=False)
class Prepared:
    """A problem in the units of the search, and the way back.

    P        cross-products of [Z̃ X̃ ỹ]: X̃ = X R⁻¹, ỹ = y − offset − Xβ₀, Z̃ = Z K⁻¹ term by term
    R (p, p), start (p,)  R and β₀ of the least-squares fit;  kept (P,)
    scales   K (k, k) of each grouping, block-diagonal over its terms
    n        observations, counts included;  log_weights  Σ f log w
    """

    P: Products
    R: Floats
    start: Floats
    kept: Bools
    scales: tuple[Floats, ...]
    n: float
    reml: bool
    log_weights: float
    notes: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout:
        return self.P.layout

    def evaluate(self, theta: Floats) -> Point | None:
        return profiled.evaluate(self.P, theta, self.n, self.reml)

    def inward(self, theta: Floats) -> Floats:
        """θ of the user's units → θ of the search."""
        T = blocks.factors(self.layout, theta)
        return self._through([K @ t for K, t in zip(self.scales, T)])

    def outward(self, theta: Floats) -> Floats:
        """θ of the search → θ of the user's units, diagonals of T ≥ 0."""
        T = blocks.factors(self.layout, theta)
        return self._through([np.linalg.solve(K, t) for K, t in zip(self.scales, T)])

    def _through(self, factors: list[Array]) -> Floats:
        """θ of the lower triangles with the same TTᵀ."""
        return blocks.theta_of(self.layout, [lower_factor(f) for f in factors])


def lower_factor(A: Array) -> Floats:
    """Lower triangular L (k, k) with LLᵀ = AAᵀ and diagonal ≥ 0, A (k, m ≥ k) of any rank."""
    L = A.copy() if A.shape[0] == A.shape[1] and not np.triu(A, 1).any() else np.tril(np.linalg.qr(A.T)[1].T)
    return L * np.where(np.diag(L) < 0, -1.0, 1.0)


def prepare(problem: Problem, *, check: bool = False, scaled: bool = True) -> Prepared:
    """Cross-products of a problem.

    check   refuse or warn about what its terms cannot tell
    scaled  the columns of each term in the units of the search; else θ keeps the user's units
    """
    design, where = problem.design, f"model({problem.spec.formula!r})"
    terms = design.random.terms  # type: ignore[union-attr]
    if check:
        random.check_terms(design, free_scale=True, where=where)
    w, count, notes = rows_and_counts(design)
    assert design.y is not None
    y = design.y if design.offset is None else design.y - design.offset
    total = design.total_weights
    solution = lstsq(design.X, y, total)
    n, p = design.n_obs, len(solution.coef)
    if n <= p:
        raise DataError(f"there are {p} coefficients for {n:g} observations.", where=where, do="Use fewer terms or more rows.")
    if not np.abs(solution.residual).max() > 1e-14 * np.abs(y).max():
        raise random.refuse_zero_residual(where)
    X = design.X if solution.kept.all() else design.X[:, solution.kept]
    F = np.column_stack((X @ np.linalg.inv(solution.R) * math.sqrt(n), solution.residual))
    if scaled:
        terms, scales = zip(*(_scaled(term, total, n) for term in terms))
    else:
        scales = tuple(np.eye(len(term.names)) for term in terms)
    lay = blocks.layout(terms)
    K = []
    for g in lay.groupings:
        K.append(np.zeros((g.k, g.k)))
        for number, columns in g.members:
            K[-1][columns, columns] = scales[number]
    log_weights = 0.0
    if design.weights is not None:
        log_weights = float(np.log(design.weights).sum() if design.freq is None else design.freq @ np.log(design.weights))
    return Prepared(
        P=blocks.products(lay, F, w, count),
        R=solution.R / math.sqrt(n),
        start=solution.coef,
        kept=solution.kept,
        scales=tuple(K),
        n=n,
        reml=problem.method != "ml",
        log_weights=log_weights,
        notes=notes,
    )


def rows_and_counts(design: Design) -> tuple[Floats | None, Floats | None, tuple[str, ...]]:
    """Weights of rows (n,), counts of groups (G,), and what was made of `freq`: see the module docstring."""
    if design.freq is None:
        return design.weights, None, ()
    terms = design.random.terms  # type: ignore[union-attr]
    if len({t.factor for t in terms}) == 1:
        group, G = terms[0].group, len(terms[0].levels)
        low, high = np.full(G, np.inf), np.full(G, -np.inf)
        np.minimum.at(low, group, design.freq)
        np.maximum.at(high, group, design.freq)
        if (low == high).all():
            note = f"the counts are constant within {terms[0].factor}: they count whole groups, each copy with random effects of its own"
            return design.weights, low, (note,)
    return design.total_weights, None, ("the counts repeat rows within their groups: copies share the random effects of their group",)


def _scaled(term: RETerm, weights: Floats | None, n: float) -> tuple[RETerm, Floats]:
    """The term with Z̃ = Z K⁻¹ of unit mean square and, where T is a full triangle, orthogonal columns; and K (k, k) upper."""
    Z = term.Z
    WZ = Z if weights is None else Z * weights[:, None]
    unit = np.sqrt(np.maximum(np.einsum("ij,ij->j", Z, WZ), 1e-300) / n)
    K = np.diag(unit)
    for block in random.full_blocks(term.mask) or []:
        if block.stop - block.start == 1:
            continue
        root = WZ[:, block] if weights is None else Z[:, block] * np.sqrt(weights)[:, None]
        R = triangular_factor(root / unit[block])
        if (np.abs(np.diag(R)) > COLLINEAR * math.sqrt(n)).all():
            K[block, block] = R * unit[block] / math.sqrt(n)
    return evolve(term, Z=Z @ np.linalg.inv(K)), K


def triangular_factor(A: Floats) -> Array:
    """R (k, k) upper with RᵀR = AᵀA, A (n, k) of unit columns: by Cholesky, or by QR where that would lose digits."""
    G = A.T @ A
    try:
        R = np.linalg.cholesky(G).T
    except np.linalg.LinAlgError:
        R = np.zeros_like(G)
    return R if (np.diag(R) > 1e-3 * np.sqrt(np.diag(G))).all() else triangular(A)


def moment_start(P: Products, n: float, reml: bool) -> Floats:
    """θ from moments of the least-squares residuals: column by column, or group by group where that is the better."""
    T = within_groups(P) if P.cross is None else None
    if T is None:
        return one_way(P)
    full = blocks.theta_of(P.layout, [T])
    if np.abs(T).max() < 3.0:
        return full
    return min((full, one_way(P)), key=lambda theta: profiled.criterion(P, theta, n, reml))


def within_groups(P: Products) -> Floats | None:
    """T (k, k) from the least-squares effects b̂_g = A_g⁻¹Z_gᵀr of the groups, None where too few groups have one.

    Cov(b̂_g) = σ²(Σ + A_g⁻¹),  so  Σ ≈ mean b̂b̂ᵀ / s² − mean A⁻¹;   s² from what is left within groups.

    Source: Swamy (1970) eq. 4.
    """
    g, m = P.layout.first, P.B.shape[1] - 1
    with np.errstate(all="ignore"):
        inverse, _ = blocks.inverse_factors(P.A.copy())
        half = np.einsum("abg,bg->ag", inverse, P.B[:, m])
        b = np.einsum("bag,bg->ag", inverse, half)
    usable = np.flatnonzero(np.isfinite(b).all(axis=0) & (np.einsum("abg,abg->g", inverse, inverse) * np.einsum("aag->g", P.A) < 1e4))
    count = np.ones(g.G) if P.count is None else P.count
    weight = count[usable]
    total = weight.sum()
    n = P.C[0, 0] if m else count @ P.A[0, 0]
    free = n - m - g.k * total
    if total < g.k + 2 or free < 1:
        return None
    inverse, half, b = inverse[:, :, usable], half[:, usable], b[:, usable]
    s2 = (P.C[m, m] - (half**2).sum(axis=0) @ weight) / free
    S = (b * weight) @ b.T / (total * s2) - np.einsum("cag,cbg,g->ab", inverse, inverse, weight) / total
    if len(g.rows) < g.k * (g.k + 1) // 2:
        S = np.where(((connected := mask_of(g)) | connected.T), S, 0.0)
    values, vectors = np.linalg.eigh(S)
    if not np.isfinite(values).all():
        return None
    return lower_factor(vectors * np.sqrt(np.clip(values, 0.01, 100.0)))


def mask_of(g: blocks.Grouping) -> Bools:
    """The free entries of T (k, k)."""
    mask = np.zeros((g.k, g.k), dtype=bool)
    mask[g.rows, g.cols] = True
    return mask


def one_way(P: Products) -> Floats:
    """θ from one-way moments.   E Σ_g (z_gᵀr)² ≈ σ² Σ_g A_g + τ² Σ_g A_g²,  with the total variance r²/n standing for σ² + τ²."""
    lay, m = P.layout, P.B.shape[1] - 1
    count = np.ones(lay.first.G) if P.count is None else P.count
    n = P.C[0, 0] if m else count @ P.A[0, 0]
    variance = P.C[m, m] / n
    made = []
    for j, g in enumerate(lay.groupings):
        if j == 0:
            sides, sizes, weight = P.B[:, m], np.einsum("aag->ag", P.A), count
        else:
            start = lay.starts[j - 1]
            sides = P.Br[start : start + g.G * g.k, m].reshape(g.G, g.k).T
            sizes = np.array([np.bincount(g.group, z * z, g.G) for z in g.Z])
            weight = np.ones(g.G)
        first, second = sizes @ weight, sizes**2 @ weight
        ratio = (sides**2 @ weight) / np.maximum(variance * first, 1e-300)
        spread = second / np.maximum(first, 1e-300)
        phi = (ratio - 1.0) / np.maximum(spread - ratio, 0.2 * spread)
        made.append(np.diag(np.sqrt(np.clip(phi, 0.02, 20.0))))
    return blocks.theta_of(lay, made)


def search(prepared: Prepared, start: Floats | None, tol: float | None, max_iter: int | None) -> Minimum:
    """The minimum of the criterion, in the units of the search; other starts where the first ends at the boundary or not at all."""
    options = {"tol": 1e-13 if tol is None else tol, "max_iter": 200 if max_iter is None else max_iter, "forget": True}
    first = moment_start(prepared.P, prepared.n, prepared.reml) if start is None else prepared.inward(start)
    best = _descend(prepared, first, options)
    if best is None or not best.converged or (prepared.layout.q <= SMALL and singular(prepared.layout, best.x)):
        others = (_descend(prepared, other, options) for other in _other_starts(prepared.layout))
        best = min((m for m in (best, *others) if m is not None), key=_by_criterion, default=None)
    if best is None:
        raise FitFailed("the likelihood cannot be computed at any start.", where="fit()", do="Check the scale of the predictors.")
    return best


def _other_starts(lay: Layout) -> tuple[Floats, Floats]:
    """T = I, and one with correlations: from there other optima at the boundary are found."""
    return blocks.theta_of(lay, [np.eye(g.k) for g in lay.groupings]), np.random.default_rng(0).standard_normal(lay.t)


def _by_criterion(m: Minimum) -> float:
    return float(m.point.criterion)


def _descend(prepared: Prepared, start: Floats, options: dict[str, Any]) -> Minimum | None:
    """One search, carried on from where a variance near 0 turns out to be a saddle, and moved onto the boundary where it ends beside it."""
    best = minimize(prepared.evaluate, profiled.average_information, start, **options)
    for _ in range(5):
        if best is None or not singular(prepared.layout, best.x, SLIGHT):
            return best
        away = off_saddle(best.point)
        if away is None:
            break
        again = minimize(prepared.evaluate, profiled.average_information, away, **options)
        if again is None or again.point.criterion > best.point.criterion - ROUNDING * (1.0 + abs(best.point.criterion)):
            break
        best = _added(again, best)
    return _onto_boundary(prepared, best, options) if best is not None and singular(prepared.layout, best.x) else best


def _added(last: Minimum, before: Minimum) -> Minimum:
    """`last` with the evaluations that led to it."""
    return evolve(last, iterations=before.iterations + last.iterations, evaluations=before.evaluations + last.evaluations)


def singular(lay: Layout, theta: Floats, below: float = random.SINGULAR) -> bool:
    """Does some block of T have a singular value below this?   σ_min ≥ |det T| / ‖T‖^(k−1) settles it for most."""
    for g, T in zip(lay.groupings, blocks.factors(lay, theta)):
        clear = abs(math.prod(T.diagonal().tolist())) > below * math.sqrt(np.vdot(T, T)) ** (g.k - 1)
        if not clear and any((s < below).any() for _, s in _spectra(g, T)):
            return True
    return False


def _spectra(g: blocks.Grouping, T: Floats) -> list[tuple[Array, Array]]:
    """(columns, singular values) of the parts of T that no entry connects."""
    label = list(range(g.k))
    for a, b in zip(g.rows.tolist(), g.cols.tolist()):
        old, new = label[a], label[b]
        label = [new if name == old else name for name in label]
    parts = [np.array([i for i in range(g.k) if label[i] == name]) for name in dict.fromkeys(label)]
    return [(part, np.linalg.svd(T[part[:, None], part], compute_uv=False)) for part in parts]


def off_saddle(point: Point) -> Floats | None:
    """θ a little way along a direction of Σ in which the criterion falls though its slope in θ is 0; None where there is none.

    Two kinds, both where a part of T is (nearly) singular: a variance that wants to be larger (Q < 0 across the range of T), and a
    range of T that wants to turn (2QT ≠ 0 above the diagonal, where θ has no entry).
    """
    lay, moved, found = point.factor.P.layout, [], False
    for g, T, Q, slope in zip(lay.groupings, point.factor.T, profiled.curvature(point), point.slopes):
        T = T.copy()
        for part, _ in _spectra(g, T):
            at = np.ix_(part, part)
            U, s, _ = np.linalg.svd(T[at])
            null = U[:, s < SLIGHT]
            if not null.shape[1]:
                continue
            values, vectors = np.linalg.eigh(null.T @ Q[at] @ null)
            above, curved = np.triu(slope[at], 1), 2.0 * np.maximum(np.diag(Q[at]), 1e-3)[:, None]
            if values[0] < -SADDLE:
                T[at] = lower_factor(np.hstack((T[at], 0.1 * null @ vectors[:, :1])))
                found = True
            elif (above**2 / curved).sum() > ROUNDING * (1.0 + abs(point.criterion)):
                T[at] = lower_factor(T[at] - above / curved)
                found = True
        moved.append(T)
    return blocks.theta_of(lay, moved) if found else None


def _onto_boundary(prepared: Prepared, best: Minimum, options: dict[str, Any]) -> Minimum:
    """Singular values of T that are 0 up to the search's tolerance made exactly 0, where that loses nothing."""
    lay, moved = prepared.layout, []
    for g, T in zip(lay.groupings, blocks.factors(lay, best.x)):
        T = T.copy()
        for part, _ in _spectra(g, T):
            at = np.ix_(part, part)
            U, s, Vt = np.linalg.svd(T[at])
            if (s < random.SINGULAR).any():
                T[at] = lower_factor(U * np.where(s < random.SINGULAR, 0.0, s) @ Vt)
        moved.append(T)
    again = minimize(prepared.evaluate, profiled.average_information, blocks.theta_of(lay, moved), **options)
    if again is None or again.point.criterion > best.point.criterion + 1e-9 * (1.0 + abs(best.point.criterion)):
        return best
    return _added(again, best)


def lmm_many(problem: Problem, fit: FitState, replicates: Replicates) -> Draws | None:
    """New responses, or new counts of whole groups, without another pass over the rows; other frequencies are fitted one by one."""
    design = problem.design
    weights, count, _ = rows_and_counts(design)
    if replicates.y is not None:
        return refit_responses(prepare(problem), design, weights, fit, replicates.y)
    counts = group_counts(design, count, np.asarray(replicates.freq))
    return None if counts is None else refit_counts(prepare(problem), design, weights, fit, counts)


def group_counts(design: Design, count: Floats | None, freq: Floats) -> Floats | None:
    """How often each group counts (b, G), where frequencies (b, n) are constant within the one factor's groups; else None.

    count  (G,)  the groups' own, from `rows_and_counts`
    """
    terms = design.random.terms  # type: ignore[union-attr]
    if len({t.factor for t in terms}) > 1 or (design.freq is not None and count is None):
        return None
    group = terms[0].group
    by_group = freq[:, np.unique(group, return_index=True)[1]]
    if not (by_group[:, group] == freq).all():
        return None
    return by_group.astype(float) if count is None else by_group * count


@estimator("lmm", accepts=accepts, many=lmm_many, takes=("max_iter", "tol", "start"))
def fit_lmm(problem: Problem) -> FitState:
    """Restricted (default) or full maximum likelihood."""
    design, options = problem.design, problem.options
    prepared = prepare(problem, check=True)
    start = options.start.theta if isinstance(options.start, FitState) else options.start
    start = None if start is None else np.asarray(start, dtype=float)
    if start is not None and start.shape != (prepared.layout.t,):
        raise DataError(f"start has {start.size} numbers, θ has {prepared.layout.t}.", where="fit()", do="Give θ in lme4's order.")
    found = search(prepared, start, options.tol, options.max_iter)
    point, sigma = found.point, found.point.sigma
    coef = prepared.start + np.linalg.solve(prepared.R, point.coef)
    root = np.linalg.inv(point.L[:-1, :-1].T @ prepared.R)
    theta = prepared.outward(found.x)
    b0, br = user_modes(prepared, point.modes.b0[:, 0], point.modes.br[:, 0])
    X = design.X if prepared.kept.all() else design.X[:, prepared.kept]
    eta = X @ coef + blocks.times_Z(prepared.layout, point.modes.b0[:, 0], point.modes.br[:, 0])
    eta = eta if design.offset is None else eta + design.offset
    value = criterion_of(prepared, point)
    outcome = _outcome(problem, prepared, found, theta)
    npar = len(coef) + len(theta) + 1
    return FitState(
        estimator="lmm",
        coef=coef,
        vcov=sigma**2 * root @ root.T,
        kept=prepared.kept,
        sigma=sigma,
        dispersion=sigma**2,
        dispersion_estimated=True,
        eta=eta,
        mu=eta,
        working=design.total_weights,
        loglik=-0.5 * value,
        deviance=value,
        npar=npar,
        df_resid=prepared.n - npar,
        theta=theta,
        b=blocks.flatten(prepared.layout, b0, br),
        outcome=outcome,
        notes=(*dropped_note(design, prepared.kept), *prepared.notes),
    )


def criterion_of(prepared: Prepared, point: Point) -> float:
    """The criterion in the user's units: without the change of X to X̃ and with the weights' log-determinant."""
    value = point.criterion - prepared.log_weights
    return value + 2.0 * float(np.log(np.abs(np.diag(prepared.R))).sum()) if prepared.reml else value


def user_modes(prepared: Prepared, v0: Floats, vr: Floats) -> tuple[Array, Array]:
    """b of the user's units, K⁻¹b̃ group by group: (k, G) and (D,)."""
    lay = prepared.layout
    out = vr.copy()
    for start, g, K in zip(lay.starts, lay.rest, prepared.scales[1:]):
        part = slice(start, start + g.G * g.k)
        out[part] = np.linalg.solve(K, vr[part].reshape(g.G, g.k).T).T.ravel()
    return np.linalg.solve(prepared.scales[0], v0), out


def _outcome(problem: Problem, prepared: Prepared, found: Minimum, theta: Floats) -> Outcome:
    """How the search ended, said once."""
    lay = prepared.layout
    names: list[str] = []
    edge = singular(lay, found.x)
    for g, T, K in zip(lay.groupings, blocks.factors(lay, theta), prepared.scales):
        for number, columns in g.members if edge else ():
            scale = np.sqrt((K[columns, columns] ** 2).sum(axis=0))
            names += random.boundary_names(problem.design.random.terms[number], T[columns, columns], scale)  # type: ignore[union-attr]
    status, message, advice = "ok", "The likelihood has been maximised.", ""
    if not found.converged:
        status, message = "suspect", "The search for the variances stopped before it reached the maximum of the likelihood."
        advice = "Rescale or centre predictors, drop random slopes that the data hardly support, or raise max_iter."
        warn(f"{message} {advice}", ConvergenceWarning)
    elif names:
        status, (message, advice) = "boundary", random.boundary_words(names)
        warn(f"{message} {advice}", BoundaryWarning)
    return Outcome(
        status=status,
        message=message,
        advice=advice,
        method="REML" if prepared.reml else "ML",
        iterations=found.evaluations,
        gradient=math.sqrt(max(found.gain, 0.0)),
        boundary=tuple(names),
    )
