"""Random effects under weights that change at every step: the solves that penalised IRLS needs, behind one interface.

    OneFactor   one grouping factor, its rows sorted: every group at once, and any number of parameter sets at once
    Blocked     any structure, by the blocked factor of `blocks`

A vector of random effects is an array that only its system reads: (k, …, G) for OneFactor, (q,) for Blocked; T is a tuple of (k, k, …)
arrays, one per grouping. Rows are the last axis, "…" the parameter sets (none for Blocked). Both systems have

    T_of(theta), theta_of(T)       θ (…, t) ↔ T
    times_Z(b), times_Zt(v)        Zb (…, n) and Zᵀv
    scale(T, u), scale_t(T, r)     Λu and Λᵀr
    dot(u, v), outer(e, u)         uᵀv (…,); Σ_g e_g u_gᵀ of each grouping, (k, k, …)
    entry(j, a, b, u)              dΛ u where only entry (a, b) of grouping j's T changes, by 1
    each(v), total(v)              rows times the count of their group; their sum (…,)
    factor(w, T)                   of M = ΛᵀZᵀWZΛ + I, with
        logdet                     (…,)
        solve(r), solve_u(v)       M⁻¹Λᵀr and ΛM⁻¹Λᵀr; M⁻¹v
        spread()                   z_iᵀΛM⁻¹Λᵀz_i of each row (…, n); ∂log|M|/∂T of each grouping at fixed W
        reduced(F)                 FᵀWF − FᵀWZΛM⁻¹ΛᵀZᵀWF (…, m, m) for columns F (m, n)

A group of OneFactor may count several times (`count`): sums over groups or rows count it so, `outer` and `times_Zt` do not.
A matrix M that is not positive definite has logdet nan or inf; nothing raises.

Source: Bates, Mächler, Bolker & Walker (2015) §3; structure-of-arrays over groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen

from ..types import Bools, Floats, Ints
from .blocks import (
    Cholesky,
    Grouping,
    Layout,
    Products,
    cholesky,
    conditional_variances,
    factors,
    flatten,
    halve,
    inverse,
    inverse_factors,
    leverage,
    modes,
    products,
    theta_of,
    times_Z,
    times_Zt,
    unflatten,
)


def system(lay: Layout, count: Floats | None = None) -> OneFactor | Blocked:
    """The system of a layout: OneFactor where it has one grouping and every level has a row.

    count  (G,)  how often each group of a OneFactor counts, None: once
    """
    first = lay.first
    counts = np.bincount(first.group, minlength=first.G)
    if lay.rest or not counts.all():
        return Blocked(lay, np.arange(len(first.group)))
    order = np.argsort(first.group, kind="stable")
    Z = np.ascontiguousarray(first.Z[:, order])
    code = first.group[order]
    return OneFactor(lay, order, code, np.cumsum(counts) - counts, Z, (Z == 1.0).all(axis=1), count, None if count is None else count[code])


# ---------------------------------------------------------------- one factor
@frozen(eq=False)
class OneFactor:
    """Rows in the order `order`: code (n,) ascending, starts (G,), Z (k, n); ones (k,): that column is constant 1.

    count (G,), row_count (n,)  of each group and of the group of each row; None: 1
    """

    lay: Layout
    order: Ints
    code: Ints
    starts: Ints
    Z: Floats
    ones: Bools
    count: Floats | None = None
    row_count: Floats | None = None

    @property
    def grouping(self) -> Grouping:
        return self.lay.first

    def zero(self, *sets: int) -> Floats:
        return np.zeros((self.grouping.k, *sets, self.grouping.G))

    def T_of(self, theta: Floats) -> tuple[Floats, ...]:
        g = self.grouping
        if g.k == 1:
            return (np.moveaxis(theta, -1, 0)[None] if theta.ndim > 1 else theta[None],)
        T = np.zeros((g.k, g.k, *theta.shape[:-1]))
        T[g.rows, g.cols] = np.moveaxis(theta[..., g.index], -1, 0)
        return (T,)

    def theta_of(self, T: tuple[Floats, ...]) -> Floats:
        g = self.grouping
        if g.k == 1:
            return np.moveaxis(T[0][0], 0, -1) if T[0].ndim > 2 else T[0][0]
        theta = np.empty((*T[0].shape[2:], len(g.index)))
        theta[..., g.index] = np.moveaxis(T[0][g.rows, g.cols], 0, -1)
        return theta

    def times_Z(self, b: Floats) -> Floats:
        out: Any = 0.0
        for z, one, value in zip(self.Z, self.ones, b):
            rows = value.take(self.code, axis=-1)
            out = out + (rows if one else z * rows)
        return out

    def times_Zt(self, v: Floats) -> Floats:
        if self.ones.all() and len(self.ones) == 1:
            return np.add.reduceat(v, self.starts, axis=-1)[None]
        return np.array([np.add.reduceat(v if one else v * z, self.starts, axis=-1) for z, one in zip(self.Z, self.ones)])

    def scale(self, T: tuple[Floats, ...], u: Floats) -> Floats:
        return _apply(T[0][..., None], u)

    def scale_t(self, T: tuple[Floats, ...], r: Floats) -> Floats:
        return _apply(np.swapaxes(T[0], 0, 1)[..., None], r)

    def dot(self, u: Floats, v: Floats) -> Floats:
        return (u * v if self.count is None else self.count * u * v).sum(axis=(0, -1))

    def outer(self, e: Floats, u: Floats) -> tuple[Floats, ...]:
        u = u if self.count is None else self.count * u
        return ((e * u).sum(axis=-1)[None] if len(u) == 1 else np.einsum("a...g,b...g->ab...", e, u),)

    def entry(self, number: int, a: int, b: int, u: Floats) -> Floats:
        """Row a holds row b of u, the rest is 0: dΛ u where Λ changes by T[a, b]."""
        out = np.zeros_like(u)
        out[a] = u[b]
        return out

    def each(self, v: Floats) -> Floats:
        return v if self.row_count is None else self.row_count * v

    def total(self, v: Floats) -> Floats:
        return self.each(v).sum(axis=-1)

    def groups_total(self, v: Floats) -> Floats:
        """Σ over groups of v (…, G)."""
        return (v if self.count is None else self.count * v).sum(axis=-1)

    def factor(self, w: Floats, T: tuple[Floats, ...]) -> GroupFactor:
        k = self.grouping.k
        A = np.empty((k, k, *w.shape[:-1], self.grouping.G))
        for a in range(k):
            wz = w if self.ones[a] else w * self.Z[a]
            for b in range(a + 1):
                A[a, b] = A[b, a] = np.add.reduceat(wz if self.ones[b] else wz * self.Z[b], self.starts, axis=-1)
        t = T[0][..., None]
        if k == 1:
            M = A * (t * t)
            M += 1.0
            return GroupFactor(self, w, t, A, np.reciprocal(M, out=M))
        M = np.einsum("ca...,cd...,db...->ab...", t, A, t)
        M[np.arange(k), np.arange(k)] += 1.0
        root, logs = inverse_factors(M.reshape(k, k, -1))
        inverse = np.einsum("cag,cbg->abg", root, root)
        return GroupFactor(self, w, t, A, inverse.reshape(A.shape), root.reshape(A.shape), 2.0 * logs.reshape(A.shape[2:]))

    def modes(self, b: Floats) -> Floats:
        """b (k, G) as FitState holds it."""
        return flatten(self.lay, b, np.empty(0))

    def vector(self, b: Floats) -> Floats:
        return unflatten(self.lay, b)[0]


@frozen(eq=False)
class GroupFactor:
    """t (k, k, …, 1) is T; A (k, k, …, G) = Z_gᵀWZ_g; inverse (k, k, …, G) is M_g⁻¹.

    k > 1: root (k, k, …, G), the inverse of M_g's Cholesky factor, and logs (…, G) = log|M_g|
    """

    system: OneFactor
    w: Floats
    t: Floats
    A: Floats
    inverse: Floats
    root: Floats | None = None
    logs: Floats | None = None

    @property
    def logdet(self) -> Floats:
        return self.system.groups_total(-np.log(self.inverse[0, 0]) if self.logs is None else self.logs)

    def solve_u(self, r: Floats) -> Floats:
        """M⁻¹r."""
        return _apply(self.inverse, r)

    def solve(self, r: Floats) -> tuple[Floats, Floats]:
        u = self.solve_u(_apply(np.swapaxes(self.t, 0, 1), r))
        return u, _apply(self.t, u)

    def covariance(self) -> Floats:
        """T M_g⁻¹ Tᵀ (k, k, …, G)."""
        if len(self.A) == 1:
            return self.inverse * (self.t * self.t)
        J = self.half()
        return np.einsum("ca...,cb...->ab...", J, J)

    def half(self) -> Floats:
        """L_g⁻¹Tᵀ (k, k, …, G), M_g = L_gL_gᵀ."""
        return np.sqrt(self.inverse) * self.t if self.root is None else np.einsum("ab...,cb...->ac...", self.root, self.t)

    def spread(self, each: Floats | None = None) -> tuple[Floats, tuple[Floats, ...]]:
        """each (…, G)  multiplies the slopes of each group's log-determinant, None: 1."""
        s, H = self.system, self.covariance()
        h: Any = 0.0
        for a in range(len(H)):
            for b in range(a + 1):
                z = np.take(H[a, b], s.code, axis=-1)
                z = z if s.ones[a] else z * s.Z[a]
                z = z if s.ones[b] else z * s.Z[b]
                h = h + (z if a == b else 2.0 * z)
        X = self.t * self.inverse if len(H) == 1 else np.einsum("ac...,cb...->ab...", self.t, self.inverse)
        X = X if each is None else X * each
        X = X if s.count is None else X * s.count
        slope = (self.A * X).sum(axis=-1) if len(H) == 1 else np.einsum("ac...g,cb...g->ab...", self.A, X)
        return h, (2.0 * slope,)

    def reduced(self, F: Floats) -> Floats:
        s = self.system
        F = F.reshape(len(F), *[1] * (self.w.ndim - F.ndim + 1), *F.shape[1:])
        wF = self.w * F
        B = np.array([np.add.reduceat(wF if one else wF * z, s.starts, axis=-1) for z, one in zip(s.Z, s.ones)])
        J = self.half()
        W0 = J[0] * B if len(B) == 1 else np.einsum("ab...g,bm...g->am...g", J, B)
        counted = W0 if s.count is None else s.count * W0
        if F.ndim == 2:
            return F @ s.each(wF).T - np.tensordot(W0, counted, ((0, 2), (0, 2)))
        return np.einsum("m...n,p...n->...mp", F, s.each(wF)) - np.einsum("am...g,ap...g->...mp", W0, counted)

    def covariances(self) -> tuple[Floats, ...]:
        return (self.covariance(),)


def _apply(matrix: Floats, u: Floats) -> Floats:
    """matrix (k, k, …), u (k, …) → (k, …)."""
    return matrix[0] * u if len(matrix) == 1 else np.einsum("ab...,b...->a...", matrix, u)


# ---------------------------------------------------------------- any structure
@frozen(eq=False)
class Blocked:
    """Any layout; vectors of random effects are the first grouping's (k, G), raveled, then the rest's (D,)."""

    lay: Layout
    order: Ints
    count: None = None

    def zero(self) -> Floats:
        return np.zeros(self.lay.q)

    def T_of(self, theta: Floats) -> tuple[Floats, ...]:
        return factors(self.lay, theta)

    def theta_of(self, T: tuple[Floats, ...]) -> Floats:
        return theta_of(self.lay, T)

    def split(self, v: Floats) -> tuple[Floats, Floats]:
        first = self.lay.first
        size = first.k * first.G
        return v[:size].reshape(first.k, first.G), v[size:]

    def parts(self, v: Floats) -> list[Floats]:
        """(k, G) of every grouping."""
        v0, vr = self.split(v)
        return [v0, *(vr[s : s + g.G * g.k].reshape(g.G, g.k).T for s, g in zip(self.lay.starts, self.lay.rest))]

    def times_Z(self, b: Floats) -> Floats:
        return times_Z(self.lay, *self.split(b))

    def times_Zt(self, v: Floats) -> Floats:
        return _join(*times_Zt(self.lay, v))

    def scale(self, T: tuple[Floats, ...], u: Floats) -> Floats:
        first, *rest = (t @ v for t, v in zip(T, self.parts(u)))
        return np.concatenate([first.ravel(), *(v.T.ravel() for v in rest)])

    def scale_t(self, T: tuple[Floats, ...], r: Floats) -> Floats:
        return self.scale(tuple(t.T for t in T), r)

    def dot(self, u: Floats, v: Floats) -> Floats:
        return u @ v

    def outer(self, e: Floats, u: Floats) -> tuple[Floats, ...]:
        return tuple(a @ b.T for a, b in zip(self.parts(e), self.parts(u)))

    def entry(self, number: int, a: int, b: int, u: Floats) -> Floats:
        out = np.zeros_like(u)
        self.parts(out)[number][a] = self.parts(u)[number][b]
        return out

    def each(self, v: Floats) -> Floats:
        return v

    def total(self, v: Floats) -> Floats:
        return v.sum(axis=-1)

    def factor(self, w: Floats, T: tuple[Floats, ...]) -> BlockFactor:
        P = products(self.lay, np.empty((len(w), 0)), w)
        return BlockFactor(self, w, P, cholesky(P, T))

    def modes(self, b: Floats) -> Floats:
        return flatten(self.lay, *self.split(b))

    def vector(self, b: Floats) -> Floats:
        return _join(*unflatten(self.lay, b))


def _join(v0: Floats, vr: Floats) -> Floats:
    return np.concatenate((v0.ravel(), vr.ravel()))


@frozen(eq=False)
class BlockFactor:
    """The blocked Cholesky factor at weights w (n,)."""

    system: Blocked
    w: Floats
    P: Products
    c: Cholesky

    @property
    def logdet(self) -> float:
        return self.c.logdet

    def solve(self, r: Floats) -> tuple[Floats, Floats]:
        v0, vr = self.system.split(r)
        B, Br = v0[:, None], vr[:, None]
        m = modes(self.c, B, halve(self.c, B, Br))
        return _join(m.u0, m.ur), _join(m.b0, m.br)

    def solve_u(self, v: Floats) -> Floats:
        s = self.system
        return v - self.solve(s.times_Zt(self.w * s.times_Z(s.scale(self.c.T, v))))[0]

    def spread(self) -> tuple[Floats, tuple[Floats, ...]]:
        inv = inverse(self.c)
        return leverage(self.c, inv), inv.slopes

    def reduced(self, F: Floats) -> Floats:
        P = products_of_columns(self.system.lay, F, self.w)
        half = halve(self.c, P[0], P[1])
        return (F * self.w) @ F.T - half.gram(half)

    def covariances(self) -> tuple[Floats, ...]:
        return conditional_variances(self.c, inverse(self.c))


def products_of_columns(lay: Layout, F: Floats, w: Floats) -> tuple[Floats, Floats]:
    """ZᵀWF of columns F (m, n): (k, m, G), (D, m)."""
    each = [times_Zt(lay, w * f) for f in F]
    return np.stack([v0 for v0, _ in each], axis=1), np.stack([vr for _, vr in each], axis=1)
