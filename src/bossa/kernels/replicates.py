"""Many linear mixed models with one grouping factor, maximised side by side: replicates are one more axis of every array.

They share a design and differ in their response, or in how often each group counts. Whatever the rows, the likelihood needs

    A_g = Z_gᵀWZ_g and Z_gᵀWX, the same for all;     Z_gᵀWy_b;     c_gb, the count of group g;     C_b = [X y]ᵀW[X y], counted

Per replicate b, with T_b of its own, criterion and exact gradient are those of `kernels.profiled`:

    M_gb = T_bᵀA_gT_b + I = L Lᵀ,    R_b = C_b − Σ_g c_gb (L⁻¹T_bᵀZ_gᵀW[X y])ᵀ(…),    r²_b = squared last pivot of R_b

Source: Bates et al. (2015) §3.4; the search is `lockstep.descend`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..types import Bools, Floats, Ints
from .blocks import inverse_factors
from .gram import FINE, NOT_CONVERGED
from .lockstep import descend
from .seam import kernel

TOL = 1e-9  # gᵀH⁻¹g from which a replicate takes one last step: what is left then is a tenth of √TOL standard errors or less
ALIKE = 12  # digits
MOST_KINDS = 64  # of groups, beyond which they are not merged
IN_CACHE = 131_072  # replicates × groups × columns of [X y] × effects that are searched together
DIFFERENCE = 1e-4  # step of differences, of the size of T's row or of what one group can tell of it


@frozen(kw_only=True, eq=False)
class Block:
    """The cross-products of b replicates.

    A      (k, k, G)          B (k, p, G)  Z_gᵀWX
    By     (k, b, G)          C (b, p + 1, p + 1)
    n      (b,)  observations, counts included
    count  (b, G), None: once;   det (b, G)  how often each group counts in log|M|, None: as often
    rows, cols  (t,)  T[rows, cols] = θ;   reml  which likelihood
    """

    A: Floats
    B: Floats
    By: Floats
    C: Floats
    n: Floats
    count: Floats | None = None
    det: Floats | None = None
    rows: Ints
    cols: Ints
    reml: bool

    @property
    def p(self) -> int:
        return self.B.shape[1]

    @property
    def free(self) -> Floats:
        return self.n - self.p if self.reml else self.n

    def some(self, index: Ints) -> Block:
        count, det = (None if c is None else c[index] for c in (self.count, self.det))
        return evolve(self, By=self.By[:, index], C=self.C[index], n=self.n[index], count=count, det=det)

    @property
    def in_det(self) -> Floats | None:
        return self.count if self.det is None else self.det


@frozen(kw_only=True, eq=False)
class Points:
    """What is known at θ (b, t).

    criterion (b,), gradient (b, t);  L (b, p + 1, p + 1)  factor of R, the identity where there is none
    inverse (k, k, b, G)  L_g⁻¹;  T (b, k, k)
    e, u   (b, s, k, G)  Z_gᵀW(residual − Zb) and modes, of y and (REML) of X's whitened columns;  scale (b, s) of their products
    """

    criterion: Floats
    gradient: Floats
    L: Floats
    inverse: Floats
    T: Floats
    e: Floats
    u: Floats
    scale: Floats


def merged(block: Block) -> Block:
    """The same likelihood with fewer groups, where many share A_g and Z_gᵀWX, as in balanced designs.

    An orthogonal turn of m such groups leaves one with X and their mean of Z_gᵀWy, counted m times, and m − 1 without X, of which only
    the scatter of Z_gᵀWy about that mean matters: k groups have it too.
    """
    A, B, (k, p, G), b = block.A, block.B, block.B.shape, len(block.n)
    few = min(G / (2 * (k + 1)), MOST_KINDS)
    numbers = np.concatenate((A.reshape(k * k, G), B.reshape(k * p, G)))
    size = np.abs(numbers).max(axis=1, initial=1e-300)[:, None]
    numbers = np.round(numbers / size, ALIKE) + 0.0  # sums of the same numbers in another order are the same
    if any(len(np.unique(row)) > few for row in numbers):
        return block
    _, first, which = np.unique(numbers.T, axis=0, return_index=True, return_inverse=True)
    U, which = len(first), which.reshape(-1)
    if few < U:
        return block
    member = (which[:, None] == np.arange(U)).astype(float)
    count = np.ones((b, G)) if block.count is None else block.count
    total = count @ member
    mean = (block.By * count) @ member / np.where(total > 0, total, 1.0)
    left = block.By - mean[:, :, which]
    S = ((left[:, None] * left * count) @ member).transpose(2, 3, 0, 1)
    values, vectors = np.linalg.eigh(S)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))[:, :, None, :]).transpose(2, 0, 3, 1).reshape(k, b, k * U)
    return evolve(
        block,
        A=np.concatenate([A[:, :, first]] * (k + 1), axis=2),
        B=np.concatenate((B[:, :, first], np.zeros((k, p, k * U))), axis=2),
        By=np.concatenate((mean, root), axis=2),
        count=np.concatenate((total, np.ones((b, k * U))), axis=1),
        det=np.concatenate((total, np.zeros((b, k * U))), axis=1),
    )


def triangles(rows: Ints, cols: Ints, k: int, theta: Floats) -> Floats:
    """T (b, k, k) of θ (b, t)."""
    T = np.zeros((len(theta), k, k))
    T[:, rows, cols] = theta
    return T


def evaluate(at: Block, theta: Floats, precision: Floats | None = None) -> Points:
    """Criterion and gradient of every replicate at its own θ (b, t); inf and nan where they cannot be computed.

    precision  (b,)  1/σ² where it is held, for the gradient of the deviance at that σ; None: profiled out, free / r²
    """
    (k, p, G), b = at.B.shape, len(theta)
    with np.errstate(all="ignore"):
        T = triangles(at.rows, at.cols, k, theta)
        TT = (T.transpose(2, 0, 1)[:, None, :, :, None] * T.transpose(2, 0, 1)[None, :, :, None, :]).reshape(k * k * b, k * k)
        M = (TT @ at.A.reshape(k * k, G)).reshape(k, k, b * G)
        for a in range(k):
            M[a, a] += 1.0
        inverse, logs = inverse_factors(M)
        inverse, logs = inverse.reshape(k, k, b, G), logs.reshape(b, G)
        TB = np.empty((b, k, p + 1, G))  # Tᵀ Z_gᵀW[X y]
        TB[:, :, :p] = (T.transpose(0, 2, 1) @ at.B.reshape(k, p * G)).reshape(b, k, p, G)
        TB[:, :, p] = T.transpose(0, 2, 1) @ at.By.transpose(1, 0, 2)
        W = np.einsum("acbg,bcsg->bsag", inverse, TB)
        flat = W.reshape(b, p + 1, k * G)
        L, bad = _cholesky(at.C - flat @ _counted(W, at.count).reshape(b, p + 1, k * G).transpose(0, 2, 1))
        r2 = L[:, p, p] ** 2
        logdet = 2.0 * _counted(logs, at.in_det).sum(axis=1)
        criterion = logdet + at.free * (1.0 + np.log(2.0 * np.pi * r2 / at.free))
        if at.reml:
            criterion += 2.0 * np.log(np.abs(np.einsum("bii->bi", L)[:, :p])).sum(axis=1)
        D = _columns(L, at.reml)
        V = (D @ flat).reshape(b, -1, k, G)
        u = np.einsum("acbg,btag->btcg", inverse, V)
        e = (D[:, :, :p] @ at.B.transpose(1, 0, 2).reshape(p, k * G)).reshape(V.shape)
        e[:, 0] += at.By.transpose(1, 0, 2)
        e -= np.einsum("acg,btcg->btag", at.A, np.matmul(T[:, None], u))
        scale = np.ones((b, D.shape[1]))
        scale[:, 0] = at.free / r2 if precision is None else precision
        slope = -2.0 * np.matmul(e, (_counted(u, at.count) * scale[:, :, None, None]).swapaxes(2, 3)).sum(axis=1)
        inside = _counted(np.einsum("aibg,ajbg->bijg", inverse, inverse), at.in_det).reshape(b, k * k, G)
        of_logdet = (inside @ at.A.reshape(k * k, G).T).reshape(b, k, k, k, k)
        slope += 2.0 * np.einsum("bijac,bci->baj", of_logdet, T)
    criterion = np.where(bad | ~np.isfinite(criterion), np.inf, criterion)
    return Points(criterion=criterion, gradient=slope[:, at.rows, at.cols], L=L, inverse=inverse, T=T, e=e, u=u, scale=scale)


def _counted(V: Floats, count: Floats | None) -> Floats:
    return V if count is None else V * count.reshape(len(V), *[1] * (V.ndim - 2), -1)


def _columns(L: Floats, reml: bool) -> Floats:
    """D (b, s, p + 1): [X y] times its first row is the residual, times the others (REML) columns that V⁻¹ makes orthonormal."""
    p = L.shape[1] - 1
    white = np.linalg.inv(L[:, :p, :p])
    D = np.zeros((len(L), 1 + (p if reml else 0), p + 1))
    D[:, 0, p] = 1.0
    D[:, 0, :p] = -(L[:, p, None, :p] @ white)[:, 0]
    if reml:
        D[:, 1:, :p] = white
    return D


def _cholesky(R: Floats) -> tuple[Floats, Bools]:
    """Factors of a stack; the identity, and True, where one is not positive definite."""
    try:
        return np.asarray(np.linalg.cholesky(R), dtype=float), np.zeros(len(R), dtype=bool)
    except np.linalg.LinAlgError:
        fine: Any = np.isfinite(R).all(axis=(1, 2))
        scale = np.sqrt(np.maximum(np.einsum("bii->bi", np.where(fine[:, None, None], R, 1.0)), 1e-300))
        unit = np.where(fine[:, None, None], R, np.eye(R.shape[1])) / (scale[:, :, None] * scale[:, None, :])
        bad = ~fine | (np.linalg.eigvalsh(unit)[:, 0] < 1e-14)
        return np.asarray(np.linalg.cholesky(np.where(bad[:, None, None], np.eye(R.shape[1]), R)), dtype=float), bad


def curvature(at: Block, points: Points) -> Floats:
    """Q (b, k, k) = ∂criterion/∂Σ: negative along a direction without variance means that it wants some."""
    HA = np.einsum("acbg,bdc,deg->baeg", points.inverse, points.T, at.A, optimize=True)
    A = at.A.sum(axis=2) if at.in_det is None else np.einsum("acg,bg->bac", at.A, at.in_det)
    Q = A - np.einsum("bacg,badg->bcd", _counted(HA, at.in_det), HA)
    return Q - np.einsum("bsag,bscg,bs->bac", _counted(points.e, at.count), points.e, points.scale)


@frozen(eq=False)
class Curvature:
    """Of the deviance in (θ, σ) at b fits: hessian (b, t + 1, t + 1); root (b, p, p), V = σ² root rootᵀ; slopes (b, t, p, p) of V / σ²
    in the same columns, ∂V/∂θ_i = σ² root slope rootᵀ."""

    hessian: Floats
    root: Floats
    slopes: Floats


def deviance_curvature(at: Block, theta: Floats, sigma: Floats) -> Curvature:
    """∂²d/∂(θ, σ)², d = log-determinants(θ) + N_e log(2πσ²) + r²(θ)/σ²; by differences of the exact gradient in θ.

    theta (b, t), sigma (b,)   where each fit ended
    """
    parts = [_deviance_curvature(at.some(i), theta[i], sigma[i]) for i in _in_cache(at)]
    return Curvature(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("hessian", "root", "slopes")))


def _deviance_curvature(at: Block, theta: Floats, sigma: Floats) -> Curvature:
    (b, t), p, precision = theta.shape, at.p, sigma**-2.0
    point = evaluate(at, theta)
    H = np.empty((b, t + 1, t + 1))
    size = np.sqrt((triangles(at.rows, at.cols, len(at.A), theta) ** 2).sum(axis=2))
    step = DIFFERENCE * np.maximum(size, np.sqrt(at.A.shape[2] / np.einsum("aag->a", at.A)))[:, at.rows]
    for i in range(t):
        moved = np.zeros((b, t))
        moved[:, i] = step[:, i]
        sides = (evaluate(at, theta + moved, precision).gradient, evaluate(at, theta - moved, precision).gradient)
        H[:, i, :t] = (sides[0] - sides[1]) / (2.0 * step[:, i, None])
    e, u = point.e, _counted(point.u, at.count)
    of_r2 = -2.0 * np.matmul(e[:, 0], u[:, 0].swapaxes(1, 2))[:, at.rows, at.cols]
    H[:, :t, t] = H[:, t, :t] = -2.0 * of_r2 * (precision / sigma)[:, None]
    H[:, t, t] = 6.0 * point.L[:, p, p] ** 2 * precision**2 - 2.0 * at.free * precision
    if not at.reml:
        whole = evaluate(evolve(at, reml=True), theta)
        e, u = whole.e, _counted(whole.u, at.count)
    half = np.matmul(e[:, 1:, at.rows].swapaxes(1, 2), u[:, 1:, at.cols].transpose(0, 2, 3, 1))
    root = np.asarray(np.linalg.inv(point.L[:, :p, :p].swapaxes(1, 2)), dtype=float)
    return Curvature(0.5 * (H + H.swapaxes(1, 2)), root, half + half.swapaxes(2, 3))


class Criterion:
    """The criterion of a block, as `lockstep.descend` asks for it."""

    def __init__(self, block: Block):
        self.block = block

    def at(self, x: Floats, active: Ints) -> tuple[Floats, Floats]:
        whole = len(active) == len(self.block.n)
        found = evaluate(self.block if whole else self.block.some(active), x)
        return found.criterion, found.gradient

    def settle(self, taken: Ints, better: Bools) -> None:
        """Nothing is kept from one point to the next."""


def _small_studies(rng: np.random.Generator) -> tuple[Any, ...]:
    """Twelve studies of ten groups with intercept and slope, differing in response, or in the counts of their groups."""
    b, G, m = 12, 10, 6
    x = rng.normal(size=(G, m))
    Z = np.stack((np.ones((G, m)), x))
    effects = rng.normal(size=(b, G, 2)) @ np.array([[0.8, 0.0], [0.3, 0.5]])
    y = effects[:, :, 0, None] + effects[:, :, 1, None] * x + rng.normal(size=(b, G, m))
    counted = bool(rng.integers(2))
    count = rng.integers(1, 3, size=(b, G)).astype(float) if counted else None
    y = np.broadcast_to(y[:1], y.shape) if counted else y
    each = np.ones((b, G)) if count is None else count
    columns = np.concatenate((np.broadcast_to(Z[:, None], (2, b, G, m)), y[None]))
    block = Block(
        A=np.einsum("agi,cgi->acg", Z, Z),
        B=np.einsum("agi,cgi->acg", Z, Z),
        By=np.einsum("agi,bgi->abg", Z, y),
        C=np.einsum("sbgi,tbgi,bg->bst", columns, columns, each),
        n=each.sum(axis=1) * m,
        count=count,
        rows=np.array([0, 1, 1]),
        cols=np.array([0, 0, 1]),
        reml=bool(rng.integers(2)),
    )
    return block, np.tile([0.8, 0.2, 0.5], (b, 1)), np.diag([0.03, 0.03, 0.03])


@kernel(example=_small_studies, jax="bossa.kernels._jax:lmm_many")
def lmm_many(block: Block, start: Floats, inverse: Floats) -> tuple[Floats, Floats, Floats, Ints]:
    """The maximum of every replicate's likelihood.

    start    (b, t)
    inverse  (t, t)  of the criterion's Hessian about there, positive definite
    returns  θ (b, t), criterion (b,), L (b, p + 1, p + 1) of `Points` there, code (b,)
    """
    parts = (_maxima(block.some(i), start[i], inverse) for i in _in_cache(block))
    theta, criterion, L, code = (np.concatenate(x) for x in zip(*parts))
    return theta, criterion, L, code


def _in_cache(block: Block) -> list[Ints]:
    """The replicates, as many at a time as stay in the cache."""
    b, size = len(block.n), max(1, IN_CACHE // (block.B.shape[2] * len(block.A) * (block.p + 1)))
    return [np.arange(i, min(i + size, b)) for i in range(0, b, size)]


def _maxima(block: Block, start: Floats, inverse: Floats) -> tuple[Floats, Floats, Floats, Ints]:
    ended = descend(Criterion(block), start, inverse, TOL)
    theta = ended.x + ended.step
    points = evaluate(block, theta)
    return theta, points.criterion, points.L, np.where(ended.done, FINE, NOT_CONVERGED)
