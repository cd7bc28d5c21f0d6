"""Twins in JAX of the batched kernels of gram.py and replicates.py: the same signatures and numbers, compiled, on whatever device JAX has.

Double precision is switched on around each call, never for the session. A compiled function serves one shape: the blocks of a plan
share theirs, so compiling is paid for about twice a plan. What cannot be traced, a family or link of the user's own, runs as defined.

Source: gram.py, replicates.py and lockstep.py for every formula.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtr

from ..types import Floats, Ints
from . import gram
from .family import FAMILIES, Family
from .gram import CONDITION, FINE, NOT_CONVERGED, OUT_OF_RANGE, RANK
from .link import LINKS, Link
from .lockstep import CURVED, DECREASE, ROUNDING, SHORTER, SHORTEST, STEPS
from .replicates import TOL, Block

CELLS = 16_777_216  # numbers in one block of outer products (128 MB): a device wants longer products than a cache does


HELD: dict[int, tuple[weakref.ref, Any]] = {}


def _held(X: Floats) -> Any:
    """X on the device: a read-only array is taken there once, and held until it is gone; the blocks of a plan share theirs."""
    if X.flags.writeable:
        return jnp.asarray(X)
    known = HELD.get(id(X))
    if known is None or known[0]() is not X:
        known = HELD[id(X)] = weakref.ref(X, partial(_dropped, id(X))), jnp.asarray(X)
    return known[1]


def _dropped(key: int, gone: weakref.ref) -> None:
    if key in HELD and HELD[key][0] is gone:
        del HELD[key]


def _out(results: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(np.array(r) for r in results)


def _grams(X: Any, W: Any, y: Any, weights: Any = None) -> tuple[Any, Any, Any]:
    """gram.grams: packed products of W with x_jx_k, x_jy and y², block of rows by block of rows."""
    n, p = X.shape
    b = len(W)
    v = jnp.ones(n) if weights is None else weights
    j, k = np.triu_indices(p)
    size = min(n, max(64, CELLS // (len(j) + p + 1)))
    blocks = -(-n // size)

    def add(packed: Any, block: tuple[Any, Any, Any, Any]) -> tuple[Any, None]:
        x, w, z, v = block
        columns = jnp.column_stack((x[:, j] * x[:, k], x * z[:, None], z**2)) * v[:, None]
        return packed + w.astype(columns.dtype) @ columns, None

    more = blocks * size - n
    x, z, v = jnp.pad(X, ((0, more), (0, 0))), jnp.pad(y, (0, more)), jnp.pad(v, (0, more))
    w = jnp.pad(W, ((0, 0), (0, more))).reshape(b, blocks, size).transpose(1, 0, 2)
    blocked = x.reshape(blocks, size, p), w, z.reshape(blocks, size), v.reshape(blocks, size)
    packed, _ = lax.scan(add, jnp.zeros((b, len(j) + p + 1)), blocked)
    upper = packed[:, : len(j)]
    G = jnp.zeros((b, p, p)).at[:, j, k].set(upper).at[:, k, j].set(upper)
    return G, packed[:, len(j) : -1], packed[:, -1]


def _solve(G: Any, right: Any) -> tuple[Any, Any, Any]:
    """gram.solve_many."""
    diagonal = jnp.einsum("bii->bi", G)
    fine = (diagonal > 0).all(axis=1) & jnp.isfinite(G).all(axis=(1, 2))
    scale = jnp.sqrt(jnp.where(fine[:, None], diagonal, 1.0))
    eye = jnp.eye(G.shape[1])
    unit = jnp.where(fine[:, None, None], G, eye) / (scale[:, :, None] * scale[:, None, :])
    inverse = jnp.linalg.inv(unit)
    inflation = jnp.einsum("bii->bi", inverse)
    fine &= (inflation > 0).all(axis=1) & (inflation.sum(axis=1) < CONDITION**1.5)
    inverse = jnp.where(fine[:, None, None], inverse, eye) / (scale[:, :, None] * scale[:, None, :])
    coef = jnp.einsum("bij,bj->bi", inverse, right)
    return jnp.where(fine[:, None], coef, jnp.nan), inverse, jnp.where(fine, FINE, RANK)


@jax.jit
def _ols(X: Any, W: Any, y: Any, weights: Any) -> tuple[Any, ...]:
    G, right, total = _grams(X, W, y, weights)
    coef, inverse, code = _solve(G, right)
    return coef, inverse, total - jnp.einsum("bi,bi->b", coef, right), code


def ols_many(X: Floats, W: Floats, y: Floats, weights: Floats | None = None) -> tuple[Floats, Floats, Floats, Ints]:
    """gram.ols_many."""
    with jax.enable_x64(True):
        return _out(_ols(_held(X), W, y, weights))


@jax.jit
def _responses(X: Any, R: Any, weights: Any, Y: Any) -> tuple[Any, Any]:
    inverse = jnp.linalg.inv(R)
    weighted = Y * weights
    projected = weighted @ X @ inverse
    return projected @ inverse.T, jnp.einsum("bi,bi->b", weighted, Y) - jnp.einsum("bi,bi->b", projected, projected)


def ols_responses(X: Floats, R: Floats, weights: Floats | None, Y: Floats) -> tuple[Floats, Floats]:
    """gram.ols_responses."""
    with jax.enable_x64(True):
        return _out(_responses(_held(X), R, 1.0 if weights is None else weights, Y))


def _logit(eta: Any) -> tuple[Any, Any]:
    e = jnp.exp(-jnp.abs(eta))
    return 1.0 / (1.0 + jnp.exp(-eta)), e / (1.0 + e) ** 2


def _probit(eta: Any) -> tuple[Any, Any]:
    return ndtr(eta), jnp.exp(-0.5 * eta**2) / np.sqrt(2 * np.pi)


def _cloglog(eta: Any) -> tuple[Any, Any]:
    low = jnp.minimum(eta, 700.0)
    return -jnp.expm1(-jnp.exp(eta)), jnp.exp(low - jnp.exp(low))


def _log(eta: Any) -> tuple[Any, Any]:
    mu = jnp.exp(eta)
    return mu, mu


def _identity(eta: Any) -> tuple[Any, Any]:
    return eta, jnp.ones_like(eta)


def _inverse(eta: Any) -> tuple[Any, Any]:
    return 1.0 / eta, -1.0 / eta**2


def _sqrt(eta: Any) -> tuple[Any, Any]:
    return eta**2, 2.0 * eta


def _proportion(mu: Any) -> Any:
    return mu * (1.0 - mu)


def _as_mean(mu: Any) -> Any:
    return mu


MEANS: dict[str, Callable] = {  # eta → mu, dmu/deta
    "logit": _logit,
    "probit": _probit,
    "cloglog": _cloglog,
    "log": _log,
    "identity": _identity,
    "inverse": _inverse,
    "sqrt": _sqrt,
}
VARIANCES: dict[str, Callable] = {
    "gaussian": jnp.ones_like,
    "binomial": _proportion,
    "quasibinomial": _proportion,
    "poisson": _as_mean,
    "quasipoisson": _as_mean,
    "gamma": jnp.square,
}


PROBE = np.array([0.2, 0.5, 0.9])


def traceable(family: Family, link: Link) -> bool:
    """Are these the library's own, and in the two tables? Asked of their values, because a worker has copies of them."""
    if family.name not in VARIANCES or link.name not in MEANS:
        return False
    own, table = LINKS[link.name], FAMILIES[family.name]
    pairs = ((family.variance, table.variance), (link.inverse, own.inverse), (link.slope, own.slope))
    return all(np.array_equal(f(PROBE), g(PROBE)) for f, g in pairs)


def glm_many(
    X: Floats,
    W: Floats | None,
    Y: Floats,
    offset: Floats | None,
    rule: tuple[Any, Any],
    start: Floats,
    weights: Floats | None = None,
    steps: int = 25,
) -> tuple[Floats, Floats, Ints]:
    """gram.glm_many."""
    family, link = rule
    if not traceable(family, link):
        return gram.glm_many.definition(X, W, Y, offset, rule, start, weights, steps)
    rows = W, Y, 0.0 if offset is None else offset, start, weights
    with jax.enable_x64(True):
        found = _scoring(_held(X), *rows, names=(family.name, link.name), natural=family.natural == link.name, steps=steps)
        return _out(found)


@partial(jax.jit, static_argnames=("names", "natural", "steps"))
def _scoring(
    X: Any, W: Any, Y: Any, offset: Any, start: Any, weights: Any, *, names: tuple[str, str], natural: bool, steps: int
) -> tuple[Any, ...]:
    """Every replicate steps until the last has stopped; those that have stopped stand still."""
    variance, mean = VARIANCES[names[0]], MEANS[names[1]]
    (b, n), p = (Y if W is None else W).shape, X.shape[1]
    W = jnp.ones((b, n)) if W is None else W.astype(X.dtype)
    W = W if weights is None else W * weights

    def scoring_step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        iteration, active, coef, step, before, inverse, code = state
        mu, slope = mean(coef @ X.T + offset)
        V = variance(mu)
        working, score = (W * V, W * (Y - mu)) if natural else (W * slope**2 / V, W * slope / V * (Y - mu))
        wild = ~(jnp.isfinite(working).all(axis=1) & jnp.isfinite(score).all(axis=1))
        working, score = jnp.where(wild[:, None], 1.0, working), jnp.where(wild[:, None], 0.0, score)
        G, _, _ = _grams(X, working, jnp.zeros(n))
        g = score @ X
        change, inv, bad = _solve(G, g)
        size = jnp.sqrt(jnp.abs(jnp.einsum("bi,bi->b", change, g)))
        lost = active & ((bad != FINE) | wild)
        going = active & ~lost
        worse = going & (size > 2 * before) & (size > 1e-6)
        move = going & ~worse
        done = move & ((size < 1e-9) | ((size < 1e-6) & (size * size < 1e-9 * before) & (iteration > 0)))
        step = jnp.where(move[:, None], change, jnp.where(worse[:, None], step / 2, step))
        coef = coef + jnp.where(move[:, None], step, jnp.where(worse[:, None], -step, 0.0))
        before = jnp.where(move, size, before)
        inverse = jnp.where(done[:, None, None], inv, inverse)
        code = jnp.where(lost, jnp.where((bad != FINE) & (iteration == 0), RANK, OUT_OF_RANGE), jnp.where(done, FINE, code))
        return iteration + 1, going & ~done, coef, step, before, inverse, code

    def unfinished(state: tuple[Any, ...]) -> Any:
        return (state[0] < steps) & state[1].any()

    first = (0, jnp.ones(b, dtype=bool), jnp.tile(start, (b, 1)), jnp.zeros((b, p)), jnp.full(b, jnp.inf))
    state = lax.while_loop(unfinished, scoring_step, (*first, jnp.full((b, p, p), jnp.nan), jnp.full(b, NOT_CONVERGED)))
    *_, coef, _, _, inverse, code = state
    return jnp.where((code == FINE)[:, None], coef, jnp.nan), inverse, code


# ---------------------------------------------------------------- linear mixed models with one grouping factor
def _inverse_factors(M: list[list[Any]]) -> tuple[Any, Any]:
    """blocks.inverse_factors: L⁻¹ (k, k, G) and log |L| (G,) of M_g = L Lᵀ, given as k × k arrays (G,)."""
    k = len(M)
    L: list[list[Any]] = [[jnp.zeros_like(M[0][0])] * k for _ in range(k)]
    inverse: list[list[Any]] = [[jnp.zeros_like(M[0][0])] * k for _ in range(k)]
    logs = jnp.zeros_like(M[0][0])
    for j in range(k):
        L[j][j] = jnp.sqrt(M[j][j] - sum(L[j][i] ** 2 for i in range(j)))
        logs = logs + jnp.log(L[j][j])
        for a in range(j + 1, k):
            L[a][j] = (M[a][j] - sum(L[a][i] * L[j][i] for i in range(j))) / L[j][j]
        inverse[j][j] = 1.0 / L[j][j]
        for c in range(j):
            inverse[j][c] = -sum(L[j][i] * inverse[i][c] for i in range(c, j)) * inverse[j][j]
    return jnp.stack([jnp.stack(row) for row in inverse]), logs


def _profiled(shared: tuple[Any, ...], own: tuple[Any, ...], theta: Any, reml: bool) -> tuple[Any, Any, Any]:
    """replicates.evaluate of one replicate: criterion, gradient (t,), L (p + 1, p + 1).

    shared  A (k, k, G), B (k, p, G), rows, cols;   own  By (k, G), C (p + 1, p + 1), n, count (G,), det (G,)
    """
    (A, B, rows, cols), (By, C, n, count, det) = shared, own
    k, p, _ = B.shape
    free = n - p if reml else n
    T = jnp.zeros((k, k)).at[rows, cols].set(theta)
    M = jnp.einsum("ai,acg,cj->ijg", T, A, T)
    inverse, logs = _inverse_factors([[M[i, j] + (i == j) for j in range(k)] for i in range(k)])
    F = jnp.concatenate((B, By[:, None]), axis=1)
    W = jnp.einsum("acg,dc,dsg->sag", inverse, T, F)
    L = jnp.linalg.cholesky(C - jnp.einsum("sag,tag,g->st", W, W, count))
    good = jnp.isfinite(L).all()
    L = jnp.where(good, L, jnp.eye(p + 1))
    r2 = L[p, p] ** 2
    criterion = 2.0 * (logs * det).sum() + free * (1.0 + jnp.log(2.0 * jnp.pi * r2 / free))
    if reml:
        criterion += 2.0 * jnp.log(jnp.abs(jnp.diagonal(L)[:p])).sum()
    white = lax.linalg.triangular_solve(L[:p, :p], jnp.eye(p), left_side=True, lower=True)
    D = jnp.concatenate((-L[p, :p] @ white, jnp.ones(1)))[None]
    if reml:
        D = jnp.concatenate((D, jnp.column_stack((white, jnp.zeros(p)))))
    u = jnp.einsum("acg,ts,sag->tcg", inverse, D, W)
    e = jnp.einsum("ts,dsg->tdg", D, F) - jnp.einsum("acg,cj,tjg->tag", A, T, u)
    scale = jnp.ones(len(D)).at[0].set(free / r2)
    slope = -2.0 * jnp.einsum("tag,tcg,t,g->ac", e, u, scale, count)
    slope += 2.0 * jnp.einsum("acg,cj,ijg,ibg,g->ab", A, T, inverse, inverse, det)
    criterion = jnp.where(good & jnp.isfinite(criterion), criterion, jnp.inf)
    return criterion, slope[rows, cols], L


BEGINNING, SEARCHING, ENDING, ENDED = range(4)


def _maximum(shared: tuple[Any, ...], own: tuple[Any, ...], start: Any, inverse: Any, reml: bool) -> tuple[Any, ...]:
    """replicates.lmm_many of one replicate: the steps of lockstep.descend, each evaluation in its turn because compiling one takes long."""

    def turn(state: tuple[Any, ...]) -> tuple[Any, ...]:
        tried, stage, done, x, value, gradient, H, length, gain, moved, _ = state
        new, slopes, L = _profiled(shared, own, x + moved, reml)
        searching = stage == SEARCHING
        better = searching & (new <= value - DECREASE * length * gain + ROUNDING * (1.0 + jnp.abs(value)))
        H = jnp.where(better, _updated(H, moved, slopes - gradient), H)
        length = jnp.where(searching, jnp.where(better, 1.0, SHORTER * length), length)
        taken = better | (stage != SEARCHING)
        x, value, gradient = jnp.where(taken, x + moved, x), jnp.where(taken, new, value), jnp.where(taken, slopes, gradient)
        step = -H @ gradient
        gain = -(step @ gradient)
        lost = (length <= SHORTEST) | (tried == STEPS) | ~jnp.isfinite(value)
        over = ~lost & (gain < TOL)
        short = length * jnp.minimum(1.0, (1.0 + 2.0 * jnp.abs(x).max()) / jnp.abs(step).max())
        moved = jnp.where(lost, 0.0, jnp.where(over, step, short * step))
        done = jnp.where(stage == ENDING, done, over)
        stage = jnp.where(stage == ENDING, ENDED, jnp.where(lost | over, ENDING, SEARCHING))
        return tried + 1, stage, done, x, value, gradient, H, length, gain, moved, L

    def unfinished(state: tuple[Any, ...]) -> Any:
        return state[1] != ENDED

    nothing = jnp.zeros_like(start)
    L = jnp.eye(len(own[1]))
    first = (0, BEGINNING, jnp.array(False), start, jnp.array(jnp.inf), nothing, inverse, jnp.array(1.0), jnp.array(jnp.inf), nothing, L)
    _, _, done, x, value, _, _, _, _, _, L = lax.while_loop(unfinished, turn, first)
    return x, value, L, jnp.where(done, FINE, NOT_CONVERGED)


def _updated(H: Any, s: Any, y: Any) -> Any:
    """lockstep.updated."""
    sy, Hy = s @ y, H @ y
    use = sy > CURVED * jnp.sqrt((s @ s) * (y @ y))
    r = jnp.where(use, 1.0 / jnp.where(use, sy, 1.0), 0.0)
    cross = r * jnp.outer(Hy, s)
    return H + (1.0 + (y @ Hy) * r) * r * jnp.outer(s, s) - cross - cross.T


@partial(jax.jit, static_argnames="reml")
def _maxima(shared: tuple[Any, ...], own: tuple[Any, ...], start: Any, inverse: Any, *, reml: bool) -> tuple[Any, ...]:
    return jax.vmap(partial(_maximum, reml=reml), in_axes=(None, 0, 0, None))(shared, own, start, inverse)


def lmm_many(block: Block, start: Floats, inverse: Floats) -> tuple[Floats, Floats, Floats, Ints]:
    """replicates.lmm_many; the last replicate fills the block up to a power of two, so that few shapes are compiled."""
    b = len(block.n)
    whole = np.minimum(np.arange(1 << max(b - 1, 0).bit_length()), b - 1)
    count = np.ones((b, block.A.shape[2])) if block.count is None else block.count
    each = block.By.transpose(1, 0, 2), block.C, block.n, count, count if block.det is None else block.det
    own, starts = tuple(x[whole] for x in each), start[whole]
    with jax.enable_x64(True):
        found = _out(_maxima((block.A, block.B, block.rows, block.cols), own, starts, inverse, reml=block.reml))
    return tuple(x[:b] for x in found)
