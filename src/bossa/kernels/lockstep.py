"""Many linear mixed models that differ in their response alone, maximised side by side: replicates are one more axis of every array.

The design gives A_g = Z_gᵀWZ_g, Z_gᵀWX and XᵀWX once; a response y_b only Z_gᵀWy_b, XᵀWy_b and y_bᵀWy_b. Per replicate b, with T_b of its
own, criterion and exact gradient are those of `kernels.profiled` for one grouping factor:

    M_gb = T_bᵀA_gT_b + I = L Lᵀ,    R_b = [X y]ᵀ[X y] − Σ_g (L⁻¹T_bᵀ Z_gᵀ[X y])ᵀ(…),    r²_b = squared last pivot of R_b

The search is BFGS from θ̂ with the full fit's Hessian; replicates that have stopped leave the work.

Source: Bates et al. (2015) §3.4; Nocedal & Wright (2006) §6.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen

from ..types import Floats, Ints
from .blocks import Grouping, Products, inverse_factors
from .gram import FINE, NOT_CONVERGED

TOL = 1e-11  # gᵀH⁻¹g where a replicate stops
STEPS = 60


@frozen(kw_only=True, eq=False)
class Responses:
    """The products of b responses on one design with one grouping factor.

    P   Products of [Z X ·]: the last dense column is replaced by the responses
    By  (k, b, G)  Z_gᵀWy;   Cy (b, p)  XᵀWy;   yy (b,)  yᵀWy
    n, reml        observations, and which likelihood
    """

    P: Products
    By: Floats
    Cy: Floats
    yy: Floats
    n: float
    reml: bool

    @property
    def p(self) -> int:
        return self.Cy.shape[1]

    def some(self, index: Ints) -> Responses:
        return Responses(P=self.P, By=self.By[:, index], Cy=self.Cy[index], yy=self.yy[index], n=self.n, reml=self.reml)


@frozen(kw_only=True, eq=False)
class Points:
    """What is known at θ (b, t).

    criterion (b,), gradient (b, t);  L (b, p + 1, p + 1)  factor of R
    J      (k, k, b, G)  L_g⁻¹Tᵀ
    e      (k, s, b, G)  Z_gᵀW(residual − Zb), of y and (REML) of X's whitened columns;  scale (s, b) of their squares
    """

    criterion: Floats
    gradient: Floats
    L: Floats
    J: Floats
    e: Floats
    scale: Floats


def responses(P: Products, F: Floats, Y: Floats, w: Floats | None, n: float, reml: bool) -> Responses:
    """Products of responses Y (b, m rows) beside the columns F (rows, p); w (rows,) weights or None."""
    g = P.layout.first
    order = np.argsort(g.group, kind="stable")
    starts = np.searchsorted(g.group[order], np.arange(g.G))
    W = Y if w is None else Y * w
    sorted_rows = W[:, order]
    By = np.stack([np.add.reduceat(sorted_rows * z[order], starts, axis=1) for z in g.Z])
    return Responses(P=P, By=By, Cy=W @ F, yy=np.einsum("bi,bi->b", W, Y), n=n, reml=reml)


def triangles(g: Grouping, theta: Floats) -> Floats:
    """T (b, k, k) of θ (b, t)."""
    T = np.zeros((len(theta), g.k, g.k))
    T[:, g.rows, g.cols] = theta[:, g.index]
    return T


def evaluate(at: Responses, theta: Floats) -> Points:
    """Criterion and gradient of every replicate at its own θ (b, t); nan where it cannot be computed."""
    g, P, p, b = at.P.layout.first, at.P, at.p, len(theta)
    k, G = g.k, g.G
    T = triangles(g, theta)
    with np.errstate(all="ignore"):
        AT = np.einsum("acg,bcj->ajbg", P.A, T)
        M = np.einsum("bai,ajbg->ijbg", T, AT)
        for a in range(k):
            M[a, a] += 1.0
        inverse, logs = inverse_factors(M.reshape(k, k, b * G))
        inverse = inverse.reshape(k, k, b, G)
        logdet = 2.0 * logs.reshape(b, G).sum(axis=1)
        J = np.einsum("acbg,bdc->adbg", inverse, T)
        WX = np.einsum("adbg,dsg->asbg", J, P.B[:, :p])
        Wy = np.einsum("adbg,dbg->abg", J, at.By)
        W = np.concatenate((WX, Wy[:, None]), axis=1)
        R = np.empty((b, p + 1, p + 1))
        R[:, :p, :p] = P.C[:p, :p]
        R[:, :p, p] = R[:, p, :p] = at.Cy
        R[:, p, p] = at.yy
        R -= np.einsum("asbg,atbg->bst", W, W, optimize=True)
        L, bad = _cholesky(R)
        free = at.n - p if at.reml else at.n
        r2 = L[:, p, p] ** 2
        criterion = logdet + free * (1.0 + np.log(2.0 * np.pi * r2 / free))
        if at.reml:
            criterion += 2.0 * np.log(np.abs(np.einsum("bii->bi", L)[:, :p])).sum(axis=1)
        white = np.linalg.inv(L[:, :p, :p]).transpose(0, 2, 1)
        coef = np.einsum("bij,bj->bi", white, L[:, p, :p])
        D = np.zeros((b, p + 1, 1 + (p if at.reml else 0)))
        D[:, p, 0] = 1.0
        D[:, :p, 0] = -coef
        if at.reml:
            D[:, :p, 1:] = white
        V = np.einsum("asbg,bst->atbg", W, D)
        u = np.einsum("cabg,ctbg->atbg", inverse, V)
        right = np.einsum("dsg,bst->dtbg", P.B[:, :p], D[:, :p])
        right[:, 0] += at.By
        e = right - np.einsum("ajbg,jtbg->atbg", AT, u)
        scale = np.ones((D.shape[2], b))
        scale[0] = free / r2
        slope = -2.0 * np.einsum("atbg,ctbg,tb->bac", e, u, scale, optimize=True)
        X = np.einsum("cabg,cdbg->dabg", inverse, J)
        slope += 2.0 * np.einsum("acg,cdbg->bad", P.A, X, optimize=True)
    gradient = np.zeros_like(theta)
    gradient[:, g.index] = slope[:, g.rows, g.cols]
    criterion = np.where(bad | ~np.isfinite(criterion), np.inf, criterion)
    return Points(criterion=criterion, gradient=gradient, L=L, J=J, e=e, scale=scale)


def curvature(at: Responses, points: Points) -> Floats:
    """Q (b, k, k) = ∂criterion/∂Σ: negative along a direction without variance means that it wants some."""
    A, J = at.P.A, points.J
    JA = np.einsum("acbg,cdg->adbg", J, A)
    Q = A.sum(axis=2) - np.einsum("cabg,cdbg->bad", JA, JA, optimize=True)
    return Q - np.einsum("asbg,csbg,sb->bac", points.e, points.e, points.scale, optimize=True)


def _cholesky(R: Floats) -> tuple[Floats, Any]:
    """Factors of a stack; the identity, and True, where one is not positive definite."""
    try:
        return np.asarray(np.linalg.cholesky(R), dtype=float), np.zeros(len(R), dtype=bool)
    except np.linalg.LinAlgError:
        fine: Any = np.isfinite(R).all(axis=(1, 2))
        scale = np.sqrt(np.maximum(np.einsum("bii->bi", np.where(fine[:, None, None], R, 1.0)), 1e-300))
        unit = np.where(fine[:, None, None], R, np.eye(R.shape[1])) / (scale[:, :, None] * scale[:, None, :])
        bad = ~fine | (np.linalg.eigvalsh(unit)[:, 0] < 1e-14)
        return np.asarray(np.linalg.cholesky(np.where(bad[:, None, None], np.eye(R.shape[1]), R)), dtype=float), bad


def maximise(at: Responses, start: Floats, hessian: Floats) -> tuple[Floats, Points, Ints]:
    """θ (b, t) of every replicate, what is known there, and codes (b,).

    start    (t,)    where all begin
    hessian  (t, t)  positive definite, of the criterion about there
    """
    b, t = len(at.yy), len(start)
    theta = np.tile(start, (b, 1))
    H = np.tile(np.linalg.inv(hessian), (b, 1, 1))
    now = evaluate(at, theta)
    criterion, gradient = now.criterion.copy(), now.gradient.copy()
    code = np.full(b, NOT_CONVERGED)
    active = np.flatnonzero(np.isfinite(criterion))
    length = np.ones(b)
    for _ in range(STEPS):
        g, Ha = gradient[active], H[active]
        step = -np.einsum("bij,bj->bi", Ha, g)
        gain = -np.einsum("bi,bi->b", step, g)
        done = gain < TOL
        code[active[done]] = FINE
        active, g, step, gain = active[~done], g[~done], step[~done], gain[~done]
        if not len(active):
            break
        step *= np.minimum(1.0, (1.0 + 2.0 * np.abs(theta[active]).max(axis=1)) / np.abs(step).max(axis=1))[:, None]
        moved = length[active, None] * step
        new = evaluate(at.some(active), theta[active] + moved)
        slack = 1e-10 * (1.0 + np.abs(criterion[active]))
        better = new.criterion <= criterion[active] - 1e-4 * length[active] * gain + slack
        length[active[~better]] *= 0.3
        lost = length[active] < 1e-9
        took = active[better]
        y = new.gradient[better] - g[better]
        H[took] = _updated(H[took], moved[better], y)
        theta[took] += moved[better]
        criterion[took], gradient[took], length[took] = new.criterion[better], new.gradient[better], 1.0
        active = active[~lost]
        if not len(active):
            break
    assert t == theta.shape[1]
    return theta, evaluate(at, theta), code


def _updated(H: Floats, s: Floats, y: Floats) -> Floats:
    """Inverse BFGS updates (b, t, t) for steps s and changes y of the gradient (b, t), where the curvature is positive.

    Source: Nocedal & Wright (2006) eq. 6.17.
    """
    sy = np.einsum("bi,bi->b", s, y)
    use = sy > 1e-10 * np.sqrt(np.einsum("bi,bi->b", s, s) * np.einsum("bi,bi->b", y, y))
    rho = np.where(use, 1.0 / np.where(use, sy, 1.0), 0.0)
    Hy = np.einsum("bij,bj->bi", H, y)
    yHy = np.einsum("bi,bi->b", y, Hy)
    out = H - rho[:, None, None] * (Hy[:, :, None] * s[:, None, :] + s[:, :, None] * Hy[:, None, :])
    out += (rho**2 * yHy + rho)[:, None, None] * s[:, :, None] * s[:, None, :]
    return np.where(use[:, None, None], out, H)
