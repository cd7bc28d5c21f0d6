"""How well are the variances of a linear mixed model determined? Its expected information, and what Kenward and Roger build on it.

The covariance is Σ_rγ_rG_r: G_r = Z(I ⊗ E_r)Zᵀ for every free entry of every term's covariance matrix (E_r with a one at (a, b) and
(b, a)), the last one W⁻¹ with γ = σ². Everything is per σ², and in columns X D that V⁻¹ makes orthonormal (the D of `profiled.Point`):

    slope_r = −DᵀXᵀV⁻¹G_rV⁻¹XD,     cross_rs = DᵀXᵀV⁻¹G_rPG_sV⁻¹XD,     trace_rs = tr(PG_rPG_s)

With C = ZᵀPZ these need the q × q matrix ZᵀV⁻¹Z only through sums of squares of its blocks, which are formed a few rows at a time.

Source: Kenward & Roger (1997) §2–3; Halekoh & Højsgaard (2014) §3.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from ..errors import Refused
from ..types import Floats
from . import blocks
from .profiled import Point, by_grouping, projected

MAX_FLOPS = 2e12  # a minute or two
ROWS = 2_000_000  # cells of ZᵀV⁻¹Z formed at a time


@frozen(eq=False)
class Information:
    """slope (r, p, p), cross (r, r, p, p), trace (r, r) of the r variances and covariances, the residual variance last."""

    slope: Floats
    cross: Floats
    trace: Floats


def information(point: Point) -> Information:
    """The pieces at a REML point (its D spans X). Refused where the blocks of ZᵀV⁻¹Z are too many."""
    P, T = point.factor.P, point.factor.T
    lay, p = P.layout, len(point.coef)
    flops = 2.0 * lay.D * (lay.first.G * lay.first.k + lay.D) ** 2
    if flops > MAX_FLOPS:
        raise Refused(
            f"it needs all {lay.q:,} × {lay.q:,} covariances of the random effects, {flops / 1e12:.0f} million million operations.",
            where="df='kenward-roger'",
            do="Use df='satterthwaite', which at this size gives the same to many digits.",
        )
    sides = [e[:, 1:] for e, _ in by_grouping(P, point.modes)]
    plain = [point.modes.e0[:, 1:], *sides[1:]]
    E = [_patterns(g) for g in lay.groupings]
    owner = np.concatenate([np.full(len(e), j) for j, e in enumerate(E)])
    gamma = np.concatenate([(t @ t.T)[g.rows, g.cols] for g, t in zip(lay.groupings, T)])
    slope = np.concatenate([-np.einsum("asg,rab,btg->rst", e, pattern, f, optimize=True) for e, pattern, f in zip(sides, E, plain)])
    cross = _cross(point, E, plain, p)
    squares = _squares(point)
    trace = np.empty((len(owner), len(owner)))
    for i, left in enumerate(E):
        for j, right in enumerate(E):
            trace[np.ix_(owner == i, owner == j)] = np.einsum("rab,abcd,scd->rs", left, squares[i, j], right)
    trace -= 2.0 * np.einsum("rsii->rs", cross) + np.einsum("rij,sji->rs", slope, slope)
    single = np.concatenate([np.einsum("rab,ab->r", pattern, base) for pattern, base in zip(E, _sums(point))])
    single += np.einsum("rii->r", slope)
    return _with_residual(slope, cross, trace, single, gamma, point.n_effective)


def _patterns(g: blocks.Grouping) -> Floats:
    """E_r (r, k, k) of one grouping's variances and covariances."""
    E = np.zeros((len(g.rows), g.k, g.k))
    r = np.arange(len(g.rows))
    E[r, g.rows, g.cols] = E[r, g.cols, g.rows] = 1.0
    return E


def _cross(point: Point, E: list[Floats], plain: list[Floats], p: int) -> Floats:
    """(E_r e_X)ᵀ ZᵀPZ (E_s e_X), (r, r, p, p)."""
    lay = point.factor.P.layout
    r = sum(len(e) for e in E)
    w0, wr = np.zeros((lay.first.k, r, p, lay.first.G)), np.zeros((lay.D, r, p))
    w0[:, : len(E[0])] = np.einsum("rab,bsg->arsg", E[0], plain[0])
    at = len(E[0])
    for start, g, pattern, e in zip(lay.starts, lay.rest, E[1:], plain[1:]):
        wr[start : start + g.G * g.k, at : at + len(pattern)] = np.einsum("rab,bsg->gars", pattern, e).reshape(-1, len(pattern), p)
        at += len(pattern)
    made = projected(point, w0.reshape(lay.first.k, r * p, -1), wr.reshape(lay.D, r * p))
    return made.reshape(r, p, r, p).transpose(0, 2, 1, 3)


def _first_block(point: Point) -> tuple[Floats, Floats]:
    """F_g = I − A_gH_g and F_gA_g, the diagonal of Z₀ᵀV₀⁻¹Z₀; both (k, k, G)."""
    c, A = point.factor, point.factor.P.A
    F = -np.einsum("abg,bcg->acg", A, np.matmul(c.T[0], c.X))
    for a in range(len(A)):
        F[a, a] += 1.0
    return F, np.einsum("abg,bcg->acg", F, A)


def _sums(point: Point) -> list[Floats]:
    """Σ_g [ZᵀV⁻¹Z]_gg of each grouping, (k, k)."""
    P, lay = point.factor.P, point.factor.P.layout
    F, FA = _first_block(point)
    if P.cross is None:
        return [(FA if P.count is None else FA * P.count).sum(axis=2)]
    first = FA - np.einsum("abg,bcg,dcg->adg", F, point.inverse.U, F)
    rest = _rest_block(point)
    made = [first.sum(axis=2)]
    for start, g in zip(lay.starts, lay.rest):
        at = start + np.arange(g.G)[:, None] * g.k + np.arange(g.k)
        made.append(rest[at[:, :, None], at[:, None, :]].sum(axis=0))
    return made


def _rest_block(point: Point) -> Floats:
    """Z_rᵀV⁻¹Z_r = S̃ − S̃YS̃, (D, D)."""
    c = point.factor
    half = blocks.solve_upper(c.upper, c.SL.T, transposed=True)
    return c.P.cross.schur(c.J) - half.T @ half  # type: ignore[union-attr]


def _squares(point: Point) -> dict[tuple[int, int], Floats]:
    """Σ_gh B_gh,ac B_gh,bd (k, k, k′, k′) of every two groupings, B = ZᵀV⁻¹Z."""
    P, lay = point.factor.P, point.factor.P.layout
    F, FA = _first_block(point)
    if P.cross is None:
        weighted = FA if P.count is None else FA * P.count
        return {(0, 0): np.einsum("acg,bdg->abcd", weighted, FA)}
    rest, Y = _rest_block(point), point.inverse.Y
    parts = [slice(s, s + g.G * g.k) for s, g in zip(lay.starts, lay.rest)]
    sizes = [(g.G, g.k) for g in lay.groupings]
    made = {}
    for i, left in enumerate(parts):
        for j, right in enumerate(parts):
            made[i + 1, j + 1] = _contract(rest[left, right].reshape(*sizes[i + 1], *sizes[j + 1]))
    k, G, D = lay.first.k, lay.first.G, lay.D
    FN = np.einsum("abg,bgc->gac", F, P.cross.dense())
    through = FN.reshape(G * k, D) @ Y
    across = FN.reshape(G * k, D) - through @ P.cross.schur(point.factor.J)
    for j, right in enumerate(parts):
        made[0, j + 1] = _contract(across[:, right].reshape(G, k, *sizes[j + 1]))
        made[j + 1, 0] = made[0, j + 1].transpose(2, 3, 0, 1)
    total, step = np.zeros((k, k, k, k)), max(1, ROWS // (G * k * k))
    for start in range(0, G, step):
        stop = min(start + step, G)
        B = -(through[start * k : stop * k] @ FN.reshape(G * k, D).T).reshape(stop - start, k, G, k)
        own = np.arange(start, stop)
        B[own - start, :, own, :] += FA[:, :, own].transpose(2, 0, 1)
        total += _contract(B)
    made[0, 0] = total
    return made


def _contract(B: Floats) -> Floats:
    """Σ_gh B_gahc B_gbhd, (a, b, c, d)."""
    k, m = B.shape[1], B.shape[3]
    flat = B.transpose(1, 3, 0, 2).reshape(k * m, -1)
    return (flat @ flat.T).reshape(k, m, k, m).transpose(0, 2, 1, 3)


def _with_residual(slope: Floats, cross: Floats, trace: Floats, single: Floats, gamma: Floats, free: float) -> Information:
    """The residual variance's pieces from the others': W⁻¹ = V − Σγ_rG_r and PVP = P, PX = 0.

    single  (r,)  tr(PG_r);   free = tr(PV) = N − p
    """
    p = slope.shape[1]
    slope0 = -np.eye(p) - np.einsum("r,rij->ij", gamma, slope)
    row = -np.einsum("r,rsij->sij", gamma, cross)
    traces = single - gamma @ trace
    last = free - gamma @ single - gamma @ traces
    r = len(gamma)
    full_cross, full_trace = np.empty((r + 1, r + 1, p, p)), np.empty((r + 1, r + 1))
    full_cross[:r, :r], full_trace[:r, :r] = cross, trace
    full_cross[r, :r], full_cross[:r, r] = row, row.transpose(0, 2, 1)
    full_cross[r, r] = -np.einsum("r,rij->ij", gamma, full_cross[:r, r])
    full_trace[r, :r] = full_trace[:r, r] = traces
    full_trace[r, r] = last
    return Information(np.concatenate((slope, slope0[None])), full_cross, full_trace)
