"""Random-effects algebra: θ ↔ T, cross-products by group, and the blocked Cholesky factor of a mixed model.

Which linear system does a mixed model solve, and how is it solved without ever forming Z? Everything here is about

    M = ΛᵀZᵀWZΛ + I = L Lᵀ,        Λ = block-diagonal in T,        b = Λ u

The terms of one grouping factor are merged into one `Grouping` (T block-diagonal over its terms). The grouping with the most random
effects comes `first`: its part of M is block-diagonal and is factored for all groups at once. The D random effects of all other
groupings (the rest) are left with a dense Schur complement, kept as S̃ = Z_rᵀ(V₀⁻¹)Z_r before Λ_r is applied:

    M_g = T₀ᵀA_gT₀ + I,     H_g = T₀M_g⁻¹T₀ᵀ,     S̃ = A_rr − Σ_g N_gᵀH_gN_g,     S = Λ_rᵀS̃Λ_r + I

A_g = Z_gᵀWZ_g (k, k) of group g, N_g = Z_gᵀWZ_r, nonzero only where group g meets a level of the rest. Nothing costs n once the
products are there. Conventions of all functions:

    arrays over the groups of `first` have the group as last axis:  A (k, k, G),  columns (k, s, G)
    a q-vector (s of them) is the pair  v0 (k, s, G), vr (D, s);    `flatten` gives b as FitState holds it
    F (n, m) are dense columns (X and y, or whatever meets Z)

Source: Bates, Mächler, Bolker & Walker (2015) §3–4 (lme4); Bates (2022) MixedModels.jl for the blocked factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..errors import Refused
from ..types import Array, Floats, Ints
from .crossing import DenseCross, Entries, Meeting, SparseCross, cross_blocks, meeting, symmetric

LAPACK_ROWS = 100  # up to here NumPy's own routines serve: importing SciPy's takes longer than many fits
MAX_REST = 5_000  # columns of the dense Schur complement


@frozen(kw_only=True, eq=False)
class Grouping:
    """All random-effects terms of one factor: b_g = T u_g for each of its G levels.

    group    (n,)    level of each row
    Z        (k, n)  columns of all its terms, rows last
    rows, cols, index  (t_j,)  T[rows, cols] = θ[index]
    members  for each term: its number in the REStructure and its slice of the k columns
    """

    factor: str
    G: int
    group: Ints
    Z: Floats
    rows: Ints
    cols: Ints
    index: Ints
    members: tuple[tuple[int, slice], ...]

    @property
    def k(self) -> int:
        return self.Z.shape[0]


@frozen(kw_only=True, eq=False)
class Layout:
    """Which random effect stands where: everything about the data that weights and θ do not change.

    first    the grouping eliminated first;  rest: the others, their columns start at `starts` among D
    entries  where N is nonzero;  met: for each rest grouping its Meeting with `first`
    places   for each rest grouping, (P, k_j): where the pair's columns stand among the entries
    among    ((i, j, Meeting), …) for rest groupings i < j
    shapes   (G, k) of each term of the REStructure
    """

    first: Grouping
    rest: tuple[Grouping, ...]
    starts: tuple[int, ...]
    D: int
    t: int
    shapes: tuple[tuple[int, int], ...]
    entries: Entries
    met: tuple[Meeting, ...] = ()
    places: tuple[Ints, ...] = ()
    among: tuple[tuple[int, int, Meeting], ...] = ()

    @property
    def groupings(self) -> tuple[Grouping, ...]:
        return (self.first, *self.rest)

    @property
    def q(self) -> int:
        return self.first.G * self.first.k + self.D


def layout(terms: Sequence[Any]) -> Layout:
    """The layout of RETerms (factor, levels, group, Z, mask). Refused where the rest has more than MAX_REST random effects."""
    all_groupings = _groupings(terms)
    order = sorted(range(len(all_groupings)), key=lambda i: -all_groupings[i].G * all_groupings[i].k)
    first, rest = all_groupings[order[0]], tuple(all_groupings[i] for i in order[1:])
    sizes = [g.G * g.k for g in rest]
    D = sum(sizes)
    if D > MAX_REST:
        raise Refused(
            f"the random effects besides those of {first.factor!r} are {D:,} numbers ({', '.join(g.factor for g in rest)}); "
            f"up to {MAX_REST:,} fit the dense factor used here.",
            where="random effects",
            do="Drop a term, or enter the factor with fewer levels as a fixed effect.",
        )
    starts = tuple(int(s) for s in np.cumsum([0, *sizes])[:-1])
    shapes = tuple((len(t.levels), t.mask.shape[0]) for t in terms)
    met, entries, places = _entries(first, rest, starts, D)
    among = tuple((i, j, meeting(rest[i].group, rest[j].group, rest[i].G, rest[j].G)) for j in range(len(rest)) for i in range(j))
    t = sum(len(g.index) for g in all_groupings)
    return Layout(first=first, rest=rest, starts=starts, D=D, t=t, shapes=shapes, entries=entries, met=met, places=places, among=among)


def _groupings(terms: Sequence[Any]) -> list[Grouping]:
    numbers: dict[str, list[int]] = {}
    for i, term in enumerate(terms):
        numbers.setdefault(term.factor, []).append(i)
    free = [np.nonzero(term.mask.T) for term in terms]  # column-major: (cols, rows)
    theta_start = np.cumsum([0, *(len(c) for c, _ in free)])
    made = []
    for members in numbers.values():
        column = np.cumsum([0, *(terms[i].mask.shape[0] for i in members)])
        Z = [terms[i].Z.T for i in members]
        made.append(
            Grouping(
                factor=terms[members[0]].factor,
                G=len(terms[members[0]].levels),
                group=terms[members[0]].group,
                Z=np.ascontiguousarray(Z[0] if len(Z) == 1 else np.concatenate(Z), dtype=float),
                rows=np.concatenate([free[i][1] + c for i, c in zip(members, column)]),
                cols=np.concatenate([free[i][0] + c for i, c in zip(members, column)]),
                index=np.concatenate([np.arange(theta_start[i], theta_start[i + 1]) for i in members]),
                members=tuple((i, slice(int(c), int(d))) for i, c, d in zip(members, column, column[1:])),
            )
        )
    return made


def _entries(
    first: Grouping, rest: tuple[Grouping, ...], starts: tuple[int, ...], D: int
) -> tuple[tuple[Meeting, ...], Entries, tuple[Ints, ...]]:
    met = tuple(meeting(first.group, g.group, first.G, g.G) for g in rest)
    columns = [s + m.right[:, None] * g.k + np.arange(g.k) for s, m, g in zip(starts, met, rest)]
    empty = [np.empty(0, dtype=np.intp)]
    group = np.concatenate([*empty, *(np.repeat(m.left, g.k) for m, g in zip(met, rest))])
    column = np.concatenate([*empty, *(c.ravel() for c in columns)])
    order = np.argsort(group * D + column)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    bounds = np.cumsum([0, *(c.size for c in columns)])
    places = tuple(place[a:b].reshape(c.shape) for a, b, c in zip(bounds, bounds[1:], columns))
    ptr = np.concatenate(([0], np.cumsum(np.bincount(group, minlength=first.G))))
    return met, Entries(G=first.G, k=first.k, D=D, group=group[order], column=column[order], ptr=ptr), places


def factors(lay: Layout, theta: Floats) -> tuple[Floats, ...]:
    """T (k, k) of each grouping, `first` at the head.   theta (t,) in the order of the REStructure, column-major within a term."""
    made = []
    for g in lay.groupings:
        T = np.zeros((g.k, g.k))
        T[g.rows, g.cols] = theta[g.index]
        made.append(T)
    return tuple(made)


def theta_of(lay: Layout, T: Sequence[Floats]) -> Floats:
    """Inverse of `factors`: the free entries of T (k, k) matrices, or of gradients with respect to them, as (t,)."""
    theta = np.empty(lay.t)
    for g, value in zip(lay.groupings, T):
        theta[g.index] = value[g.rows, g.cols]
    return theta


def flatten(lay: Layout, v0: Floats, vr: Floats) -> Floats:
    """b (q,) as FitState holds it (terms in order, group-major), from v0 (k, G) and vr (D,)."""
    parts: list[Floats] = [np.empty(0)] * len(lay.shapes)
    by_group = [v0.T] + [vr[s : s + g.G * g.k].reshape(g.G, g.k) for s, g in zip(lay.starts, lay.rest)]
    for g, values in zip(lay.groupings, by_group):
        for number, columns in g.members:
            parts[number] = values[:, columns].ravel()
    return np.concatenate(parts)


def unflatten(lay: Layout, b: Floats) -> tuple[Floats, Floats]:
    """Inverse of `flatten`: v0 (k, G), vr (D,)."""
    ends = np.cumsum([0, *(G * k for G, k in lay.shapes)])
    parts = [b[s:e].reshape(shape) for s, e, shape in zip(ends, ends[1:], lay.shapes)]
    by_group = [np.concatenate([parts[i] for i, _ in g.members], axis=1) for g in lay.groupings]
    return np.ascontiguousarray(by_group[0].T), np.concatenate([np.empty(0), *(v.ravel() for v in by_group[1:])])


def times_Z(lay: Layout, v0: Floats, vr: Floats) -> Floats:
    """Z b (n,) from b as v0 (k, G) and vr (D,)."""
    out = np.einsum("kn,kn->n", lay.first.Z, v0[:, lay.first.group])
    for s, g in zip(lay.starts, lay.rest):
        b = vr[s : s + g.G * g.k].reshape(g.G, g.k)
        out += np.einsum("kn,nk->n", g.Z, b[g.group])
    return out


def times_Zt(lay: Layout, r: Floats) -> tuple[Floats, Floats]:
    """Zᵀr from r (n,), as v0 (k, G) and vr (D,)."""
    v0, *rest = (np.array([np.bincount(g.group, z * r, g.G) for z in g.Z]) for g in lay.groupings)
    return v0, np.concatenate([np.empty(0), *(v.T.ravel() for v in rest)])


@frozen(kw_only=True, eq=False)
class Products:
    """Cross-products of [Z F] in the metric W: all that the likelihood needs of the data.

    A      (k, k, G)  Z_gᵀWZ_g of the first grouping
    B      (k, m, G)  Z_gᵀWF;   Br (D, m)  Z_rᵀWF;   C (m, m)  FᵀWF
    cross  the blocks N and A_rr of the rest (DenseCross or SparseCross), None with one grouping
    count  (G,) how often each group of a one-factor model counts, None: once
    """

    layout: Layout
    A: Floats
    B: Floats
    Br: Floats
    C: Floats
    cross: DenseCross | SparseCross | None = None
    count: Floats | None = None


def products(lay: Layout, F: Floats, w: Floats | None = None, count: Floats | None = None) -> Products:
    """One pass over the rows.

    F      (n, m)  dense columns; m may be 0
    w      (n,)    weights, None: all 1
    count  (G,)    see Products; only with one grouping
    """
    first = lay.first
    WZ = first.Z if w is None else first.Z * w
    A = np.empty((first.k, first.k, first.G))
    for a in range(first.k):
        for b in range(a + 1):
            A[a, b] = A[b, a] = np.bincount(first.group, WZ[a] * first.Z[b], first.G)
    B, Br = _with_columns(lay, F, w)
    each = w if count is None else count[first.group] if w is None else w * count[first.group]
    C = F.T @ F if each is None else F.T @ (F * each[:, None])
    return Products(layout=lay, A=A, B=B, Br=Br, C=C, cross=_cross(lay, w) if lay.rest else None, count=count)


def with_response(P: Products, F: Floats, y: Floats, w: Floats | None = None) -> Products:
    """The products after the last column of F (n, m) is replaced by y (n,): for refits to new responses."""
    lay, wy = P.layout, y if w is None else w * y
    each = wy if P.count is None else wy * P.count[lay.first.group]
    B, Br, C = P.B.copy(), P.Br.copy(), P.C.copy()
    B[:, -1], Br[:, -1] = times_Zt(lay, wy)
    C[-1, :-1] = C[:-1, -1] = F[:, :-1].T @ each
    C[-1, -1] = y @ each
    return evolve(P, B=B, Br=Br, C=C)


def _with_columns(lay: Layout, F: Floats, w: Floats | None) -> tuple[Floats, Floats]:
    m = F.shape[1]
    B, Br = np.empty((lay.first.k, m, lay.first.G)), np.empty((lay.D, m))
    for j in range(m):
        B[:, j], Br[:, j] = times_Zt(lay, F[:, j] if w is None else w * F[:, j])
    return B, Br


def _cross(lay: Layout, w: Floats | None) -> DenseCross | SparseCross:
    first = lay.first
    WZ = first.Z if w is None else first.Z * w
    N = np.empty((first.k, len(lay.entries.column)))
    for g, met, place in zip(lay.rest, lay.met, lay.places):
        for a in range(first.k):
            for b in range(g.k):
                N[a, place[:, b]] = np.bincount(met.pair, WZ[a] * g.Z[b], len(met.left))
    index, value = _square(lay, w)
    return cross_blocks(lay.entries, N, index, value)


def _square(lay: Layout, w: Floats | None) -> tuple[Ints, Floats]:
    """A_rr as (flat index, value), lower triangle."""
    index, value = [], []
    same = [(i, i, Meeting(g.group, np.arange(g.G), np.arange(g.G))) for i, g in enumerate(lay.rest)]
    for i, j, met in [*same, *lay.among]:
        gi, gj = lay.rest[i], lay.rest[j]
        for a in range(gi.k):
            WZ = gi.Z[a] if w is None else gi.Z[a] * w
            for b in range(a + 1 if i == j else gj.k):
                column = lay.starts[i] + met.left * gi.k + a
                row = lay.starts[j] + met.right * gj.k + b
                index.append(np.maximum(row, column) * lay.D + np.minimum(row, column))
                value.append(np.bincount(met.pair, WZ * gj.Z[b], len(met.left)))
    return np.concatenate(index), np.concatenate(value)


@frozen(kw_only=True, eq=False)
class Cholesky:
    """Factor of M at one θ.

    T       of each grouping
    J       (k, k, G)  L_g⁻¹T₀ᵀ, so H_g = J_gᵀJ_g;   X (k, k, G)  T₀M_g⁻¹, so H_g = X_gT₀ᵀ
    SL      (D, D)  S̃Λ_r;   upper (D, D)  UᵀU = S = Λ_rᵀS̃Λ_r + I, upper triangle of a Fortran array
    logdet  log |M|, counts included; inf or nan where θ overflows
    """

    P: Products
    T: tuple[Floats, ...]
    J: Floats
    X: Floats
    logdet: float
    SL: Floats = field(factory=partial(np.empty, (0, 0)))
    upper: Floats = field(factory=partial(np.empty, (0, 0)))


def cholesky(P: Products, T: tuple[Floats, ...]) -> Cholesky:
    """Factor M at T = factors(layout, θ). Costs O(G k³ + pairs + D³), nothing that grows with n."""
    T0, A = T[0], P.A
    k, G = A.shape[1:]
    if k == 1:
        M = A * T0[0, 0] ** 2
    else:
        TT = (T0.T[:, None, :, None] * T0.T[None, :, None, :]).reshape(k * k, k * k)
        M = (TT @ A.reshape(k * k, G)).reshape(k, k, G)
    for a in range(k):
        M[a, a] += 1.0
    inverse, logs = inverse_factors(M)
    J = np.matmul(T0, inverse)
    X = J * inverse if k == 1 else np.einsum("cag,cbg->abg", J, inverse)
    logdet = 2.0 * float(logs.sum() if P.count is None else logs @ P.count)
    if P.cross is None:
        return Cholesky(P=P, T=T, J=J, X=X, logdet=logdet)
    SL = P.cross.schur(J)
    times_factors(P.layout, SL, T)
    S = SL.copy()
    times_factors(P.layout, S.T, T)
    S.flat[:: len(S) + 1] += 1.0
    upper = upper_factor(S)
    logdet += 2.0 * float(np.log(np.diag(upper)).sum())
    return Cholesky(P=P, T=T, J=J, X=X, logdet=logdet, SL=SL, upper=upper)


def inverse_factors(M: Floats) -> tuple[Floats, Floats]:
    """L⁻¹ (k, k, G) of each M_g = L Lᵀ and Σ_j log L_jj (G,); the loops run over k, never over groups. M is overwritten."""
    k = len(M)
    if k == 1:
        return 1.0 / np.sqrt(M), 0.5 * np.log(M[0, 0])
    L, inverse = M, np.zeros_like(M)
    product = np.ones(M.shape[2])
    for j in range(k):
        if j:
            L[j:, j] -= np.einsum("ilg,lg->ig", L[j:, :j], L[j, :j])
        root = np.sqrt(L[j, j])
        L[j:, j] /= root
        product *= root
        inverse[j, j] = 1.0 / root
        if j:
            inverse[j, :j] = np.einsum("lg,lcg->cg", L[j, :j], inverse[:j, :j])
            inverse[j, :j] *= -inverse[j, j]
    return inverse, np.log(product)


def upper_factor(S: Floats) -> Array:
    """U upper triangular with UᵀU = S, in a Fortran array; S is overwritten. nan where S is not positive definite: θ overflows."""
    if len(S) <= LAPACK_ROWS:
        try:
            return np.linalg.cholesky(S).T
        except np.linalg.LinAlgError:
            return np.full_like(S, np.nan)
    from scipy.linalg.lapack import dpotrf

    upper, info = dpotrf(S.T, lower=0, clean=0, overwrite_a=1)
    return upper if info == 0 else np.full_like(upper, np.nan)


def solve_upper(upper: Floats, B: Floats, transposed: bool) -> Array:
    """U⁻¹B, or U⁻ᵀB, for B (D, s)."""
    if len(upper) <= LAPACK_ROWS:
        return np.linalg.solve(upper.T if transposed else upper, B)
    from scipy.linalg.blas import dtrsm

    return dtrsm(1.0, upper, B, trans_a=int(transposed))


def inverse_upper(upper: Floats) -> Floats:
    """(UᵀU)⁻¹, symmetric."""
    if len(upper) <= LAPACK_ROWS:
        half = np.linalg.inv(upper)
        return half @ half.T
    from scipy.linalg.lapack import dpotri

    made, _ = dpotri(upper, lower=0)
    return symmetric(made.T)


def times_factors(lay: Layout, X: Floats, T: Sequence[Floats]) -> None:
    """X ← XΛ_r in place.   X (s, D), T of every grouping."""
    for start, g, t in zip(lay.starts, lay.rest, T[1:]):
        part = X[:, start : start + g.G * g.k]
        if g.k == 1:
            part *= t[0, 0]
        else:
            part[...] = (part.reshape(len(X), g.G, g.k) @ t).reshape(part.shape)


def times_factors_t(lay: Layout, X: Floats, T: Sequence[Floats]) -> Floats:
    """Λ_rᵀX (D, s)."""
    out = X.copy()
    times_factors(lay, out.T, T)
    return out


def lift(lay: Layout, X: Floats, T: Sequence[Floats]) -> Floats:
    """Λ_rX (D, s)."""
    return times_factors_t(lay, X, [t.T for t in T])


@frozen(eq=False)
class Half:
    """s columns on their way through the factor: W0 (k, s, G) and Wr (D, s) are L⁻¹Λᵀ of them, `left` (D, s) is Z_rᵀV₀⁻¹ of them."""

    W0: Floats
    Wr: Floats
    left: Floats

    def gram(self, other: Half, count: Floats | None = None) -> Floats:
        """(L⁻¹Λᵀ·)ᵀ(L⁻¹Λᵀ·) (s, s′): what elimination takes from the cross-products of the columns."""
        W0 = self.W0 if count is None else self.W0 * count
        out = np.matmul(W0, other.W0.transpose(0, 2, 1)).sum(axis=0)
        return out + self.Wr.T @ other.Wr if self.Wr.size else out

    def combine(self, weights: Floats) -> Half:
        """The same for the columns times weights (s, s′)."""
        return Half(np.matmul(weights.T, self.W0), self.Wr @ weights, self.left @ weights)


def halve(c: Cholesky, B: Floats, Br: Floats) -> Half:
    """L⁻¹Λᵀ of s columns, given ZᵀW times them: B (k, s, G), Br (D, s)."""
    W0 = c.J[0, 0] * B if len(B) == 1 else np.einsum("abg,bsg->asg", c.J, B)
    if c.P.cross is None:
        return Half(W0, Br, Br)
    left = Br - c.P.cross.down(_across(c.J, W0))
    return Half(W0, solve_upper(c.upper, times_factors_t(c.P.layout, left, c.T), transposed=True), left)


def _across(J: Floats, V: Floats) -> Floats:
    """J_gᵀ V_g: (k, k, G), (k, s, G) → (k, s, G)."""
    return J[0, 0] * V if len(V) == 1 else np.einsum("bag,bsg->asg", J, V)


@frozen(eq=False)
class Modes:
    """u = M⁻¹Λᵀr, b = Λu, and e = r − ZᵀWZ b (so that u = Λᵀe), for s right sides r: first's (k, s, G), rest's (D, s)."""

    u0: Floats
    ur: Floats
    b0: Floats
    br: Floats
    e0: Floats
    er: Floats


def modes(c: Cholesky, B: Floats, half: Half) -> Modes:
    """Solutions for s right sides r = ZᵀW·(columns): B (k, s, G) is r's first part, half = halve(c, B, Br)."""
    ur = br = er = half.left
    if c.P.cross is not None:
        ur = solve_upper(c.upper, half.Wr, transposed=False)
        br = lift(c.P.layout, ur, c.T)
        er = half.left - c.SL @ ur
        B = B - c.P.cross.up(br)
    u0 = _across(c.X, B)
    b0 = (c.T[0] @ u0.reshape(len(u0), -1)).reshape(u0.shape)
    A = c.P.A
    e0 = B - (A[0, 0] * b0 if len(B) == 1 else np.einsum("abg,bsg->asg", A, b0))
    return Modes(u0, ur, b0, br, e0, er)


@frozen(kw_only=True, eq=False)
class Inverse:
    """The parts of ΛM⁻¹Λᵀ that likelihoods and conditional variances need.

    Y       (D, D)  its rest block Λ_rS⁻¹Λ_rᵀ;   U (k, k, G)  N_gYN_gᵀ
    slopes  ∂log|M|/∂T of each grouping, (k, k)
    """

    Y: Floats
    U: Floats
    slopes: tuple[Floats, ...]


def inverse(c: Cholesky) -> Inverse:
    """Derivatives of log |M| with respect to T, and the parts of M⁻¹ they go through.

    ∂log|M|/∂T₀ = 2 Σ_g (A_g − F_gU_g) X_g,  F_g = I − A_gH_g;      ∂log|M|/∂T_r = 2 Σ_h [S̃Λ_rS⁻¹]_hh
    """
    P, T0 = c.P, c.T[0]
    if P.cross is None:
        return Inverse(Y=c.SL, U=np.zeros(()), slopes=(2.0 * sum_products(P.A, c.X, P.count),))
    lay, slopes = P.layout, []
    Y = inverse_upper(c.upper)
    for start, g in zip(lay.starts, lay.rest):
        part = slice(start, start + g.G * g.k)
        left, right = c.SL[part].reshape(g.G, g.k, lay.D), Y[part].reshape(g.G, g.k, lay.D)
        slopes.append(2.0 * np.einsum("hac,hbc->ab", left, right))
    times_factors(lay, Y, [t.T for t in c.T])
    times_factors(lay, Y.T, [t.T for t in c.T])
    U = P.cross.within(Y)
    AH = np.einsum("abg,bcg->acg", P.A, np.matmul(T0, c.X))
    FU = U - np.einsum("abg,bcg->acg", AH, U)
    return Inverse(Y=Y, U=U, slopes=(2.0 * sum_products(P.A - FU, c.X, None), *slopes))


def sum_products(A: Floats, X: Floats, count: Floats | None) -> Floats:
    """Σ_g A_gX_g (k, k) of (k, k, G) arrays."""
    k = len(A)
    if count is not None:
        X = X * count
    return A.reshape(k, -1) @ X.transpose(1, 0, 2).reshape(k, -1).T


def conditional_variances(c: Cholesky, inv: Inverse) -> tuple[Floats, ...]:
    """Blocks of ΛM⁻¹Λᵀ on the diagonal, (k, k, G) of each grouping: Var(b | y) / σ² at known coefficients."""
    H = np.matmul(c.T[0], c.X)
    first = H if c.P.cross is None else H + np.einsum("abg,bcg,cdg->adg", H, inv.U, H)
    lay, made = c.P.layout, [first]
    for start, g in zip(lay.starts, lay.rest):
        at = start + np.arange(g.G)[:, None] * g.k + np.arange(g.k)
        made.append(np.moveaxis(inv.Y[at[:, :, None], at[:, None, :]], 0, 2))
    return tuple(made)


def leverage(c: Cholesky, inv: Inverse) -> Floats:
    """z_iᵀΛM⁻¹Λᵀz_i of every row (n,): times the row's weight, its leverage on the random part."""
    lay = c.P.layout
    first, *rest = conditional_variances(c, inv)
    out = _quadratic(lay.first, first)
    if c.P.cross is None:
        return out
    H = np.matmul(c.T[0], c.X)
    for g, block in zip(lay.rest, rest):
        out += _quadratic(g, block)
    NY = c.P.cross.at_entries(lay.entries, inv.Y)
    G0 = -np.einsum("abe,be->ae", H[:, :, lay.entries.group], NY)
    for g, met, place in zip(lay.rest, lay.met, lay.places):
        for b in range(g.k):
            at = place[met.pair, b]
            out += 2.0 * g.Z[b] * np.einsum("an,an->n", lay.first.Z, G0[:, at])
    for i, j, _ in lay.among:
        gi, gj = lay.rest[i], lay.rest[j]
        for a in range(gi.k):
            for b in range(gj.k):
                row, column = lay.starts[i] + gi.group * gi.k + a, lay.starts[j] + gj.group * gj.k + b
                out += 2.0 * gi.Z[a] * gj.Z[b] * inv.Y[row, column]
    return out


def _quadratic(g: Grouping, block: Floats) -> Floats:
    return np.einsum("an,abn,bn->n", g.Z, block[:, :, g.group], g.Z)
