"""Where is a state that drifts, given noisy looks at it? Filters and smoothers for Gaussian random walks.

    θ_t = θ_{t−1} + w_t,  w_t ~ N(0, Q_t)          looks: z_t = J_t θ_t + e_t,  e_t ~ N(0, R_t)

Scalar streams: `filter_scalar`, `smooth_scalar`. Vectors, three forms of the same analysis step: `joseph` (covariance), `square_root`
(Cholesky factor of the covariance), and the square-root information form (U, d) with U β = d + e, e ~ N(0, I): `walk`, `fade`, `look`.
The last takes a prior that knows nothing (U = 0), batches of deficient rank and Q that is singular, all exactly; its smoother
(`smooth_back`) needs no inverse of a filtered covariance. Looks are then whitened: R = I.

Source: Anderson & Moore (1979); Bierman (1977) ch. 5–6 (square-root information filter) and ch. 10 (its covariance smoother);
Durbin & Koopman (2012) ch. 4–5; West & Harrison (1997) §6.3 for discounting.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import frozen

from ..types import Floats, Ints
from .linalg import upper
from .seam import kernel

LOG_2PI = math.log(2 * math.pi)


# ---------------------------------------------------------------- scalar streams
@frozen(eq=False)
class ScalarPath:
    """Filtered path (T, …): mean and var after each look, mean_f and var_f before it, gain; loglik (T, …) of each look."""

    mean: Floats
    var: Floats
    mean_f: Floats
    var_f: Floats
    gain: Floats
    loglik: Floats


def _looks(rng: np.random.Generator) -> tuple[Any, ...]:
    """Looks of a number that moves, of which some are missing; a proper prior or none."""
    y = rng.normal(size=60)
    y[rng.random(60) < 0.1] = np.nan
    return y, rng.uniform(0.2, 2.0, 60), rng.uniform(0.0, 0.5, 60), 0.3, math.inf if rng.integers(2) else 2.0


@kernel(example=_looks, numba="bossa.kernels._numba:scalar_walk")
def scalar_walk(y: Floats, v: Floats, q: Floats, m0: float, P0: float) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """The arrays (T,) of `filter_scalar`'s path, its recursion in plain floats."""
    means, variances, gains = [], [], []
    m, P = float(m0), float(P0)
    for look, noise, step in zip(y.tolist(), v.tolist(), q.tolist()):
        P += step
        if look != look:
            K = 0.0
        elif math.isinf(P):
            K, m, P = 1.0, look, noise
        else:
            K = P / (P + noise)
            m, P = m + K * (look - m), K * noise
        means.append(m)
        variances.append(P)
        gains.append(K)
    return _with_forecasts(y, v, q, (m0, P0), np.array(means), np.array(variances), np.array(gains))


def _with_forecasts(
    y: Floats, v: Floats, q: Floats, prior: tuple[float, float], mean: Floats, var: Floats, gain: Floats
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """mean, var, mean_f, var_f, gain, loglik (T,)."""
    mean_f, var_f = np.empty_like(mean), np.empty_like(var)
    mean_f[:1], mean_f[1:], var_f[:1], var_f[1:] = prior[0], mean[:-1], prior[1], var[:-1]
    var_f += q
    S, move = var_f + v, y - mean_f
    with np.errstate(invalid="ignore"):
        loglik = -0.5 * (LOG_2PI + np.log(S) + move * move / S)
    return mean, var, mean_f, var_f, gain, np.where(np.isnan(y) | np.isinf(var_f), 0.0, loglik)


def scalar_still(y: Floats, v: Floats, m0: float, P0: float) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """`scalar_walk` of a number that stands still, by running sums.

    1/P_t = 1/P_0 + Σ 1/v_s,   m_t = m_0 + P_t Σ (y_s − m_0)/v_s,   K_t = P_t/v_t        about the first look where P_0 is inf
    """
    seen = ~np.isnan(y)
    told = np.where(seen, 1 / v, 0.0)
    near = float(m0) if math.isfinite(P0) or not seen.any() else float(y[seen][0])
    information = np.cumsum(told) + 1 / P0
    with np.errstate(divide="ignore"):
        P = 1 / information
    known = information > 0
    mean = np.where(known, near + np.where(known, P, 0.0) * np.cumsum(told * np.where(seen, y - near, 0.0)), float(m0))
    return _with_forecasts(y, v, np.zeros_like(v), (m0, P0), mean, P, np.where(seen, P, 0.0) * told)


def filter_scalar(y: Floats, v: Floats, q: Floats, m0: float, P0: float) -> ScalarPath:
    """The Kalman filter of one number.

        P_f = P + q_t,   K = P_f/(P_f + v_t),   m ← m + K(y_t − m),   P = K v_t

    The last form does not cancel, whatever P_f: the variance stays right for a prior variance of 1e20 and for inf.

    y   (T,)  looks; nan: no look at this step
    v   (T,)  their variances
    q   (T,)  variance of the step before each look
    P0  prior variance; inf: nothing is known, and the first look has no likelihood of its own (0)
    """
    return ScalarPath(*(scalar_still(y, v, m0, P0) if P0 > 0 and not q.any() else scalar_walk(y, v, q, m0, P0)))


def filter_scalars(y: Floats, v: Floats, q: Floats, m0: float, P0: float) -> ScalarPath:
    """`filter_scalar` on many streams at once: y, v, q broadcast to (T, …), every output has that shape."""
    y, v, q = np.broadcast_arrays(y, v, q)
    out = np.empty((6, *y.shape))
    m, P = np.full(y.shape[1:], float(m0)), np.full(y.shape[1:], float(P0))
    for t in range(len(y)):
        m_f, P_f = m, P + q[t]
        there, flat = ~np.isnan(y[t]), np.isinf(P_f)
        S = P_f + v[t]
        with np.errstate(invalid="ignore"):
            K = np.where(there, np.where(flat, 1.0, P_f / S), 0.0)
            move = np.where(there, y[t] - m_f, 0.0)
            P = np.where(there, np.where(flat, v[t], P_f * (v[t] / S)), P_f)
            m = m_f + K * move
            loglik = np.where(there & ~flat, -0.5 * (LOG_2PI + np.log(S) + move * move / S), 0.0)
        for row, value in zip(out, (m, P, m_f, P_f, K, loglik)):
            row[t] = value
    return ScalarPath(*out)


def _back_example(rng: np.random.Generator) -> tuple[Any, ...]:
    path = filter_scalar(rng.normal(size=60), rng.uniform(0.2, 2.0, 60), rng.uniform(0.1, 0.5, 60), 0.3, 2.0)
    return path.mean, path.var, path.mean_f, path.var_f, path.var[:-1] / path.var_f[1:]


@kernel(example=_back_example, numba="bossa.kernels._numba:scalar_back")
def scalar_back(mean: Floats, var: Floats, mean_f: Floats, var_f: Floats, G: Floats) -> tuple[Floats, Floats]:
    """Smoothed means and variances (T,) of `smooth_scalar`, in plain floats.   G (T − 1,)"""
    if not len(mean):
        return mean.copy(), var.copy()
    m, P = mean[-1].item(), var[-1].item()
    means, variances = [m], [P]
    steps = zip(*(x.tolist()[::-1] for x in (mean[:-1], var[:-1], mean_f[1:], var_f[1:], G)))
    for here, spread, ahead, spread_ahead, g in steps:
        m, P = here + g * (m - ahead), spread + g * g * (P - spread_ahead)
        means.append(m)
        variances.append(P)
    return np.array(means[::-1]), np.array(variances[::-1])


def smooth_scalar(path: ScalarPath, lag: int | None = None) -> tuple[Floats, Floats, Floats]:
    """Rauch–Tung–Striebel: each step given all looks, or those up to `lag` steps later.

        G_t = P_t/P_{f,t+1},   m_t^s = m_t + G_t(m_{t+1}^s − m_{f,t+1}),   P_t^s = P_t + G_t²(P_{t+1}^s − P_{f,t+1})

    path     ScalarPath of (T, …)
    returns  mean (T, …), variance (T, …), covariance of steps t + 1 and t (T − 1, …)

    Source: Rauch, Tung & Striebel (1965); Durbin & Koopman (2012) §4.4.
    """
    T = len(path.mean)
    ahead = path.var_f[1:]
    G = np.divide(path.var[:-1], ahead, out=np.ones_like(ahead), where=ahead != 0) if T else path.var  # 0 of 0: a point stays where it is
    if path.mean.ndim == 1 and (lag is None or lag >= T):
        mean, var = scalar_back(path.mean, path.var, path.mean_f, path.var_f, G)
        return mean, var, G * var[1:]
    mean, var = path.mean.copy(), path.var.copy()
    if lag is None or lag >= T:
        for t in range(T - 2, -1, -1):
            mean[t] += G[t] * (mean[t + 1] - path.mean_f[t + 1])
            var[t] += G[t] ** 2 * (var[t + 1] - path.var_f[t + 1])
        return mean, var, G * var[1:]
    for t in range(T):
        end = min(t + lag, T - 1)
        m, P = path.mean[end], path.var[end]
        for s in range(end - 1, t - 1, -1):
            m = path.mean[s] + G[s] * (m - path.mean_f[s + 1])
            P = path.var[s] + G[s] ** 2 * (P - path.var_f[s + 1])
        mean[t], var[t] = m, P
    return mean, var, G * var[1:]


def _uneven(rng: np.random.Generator) -> tuple[Any, ...]:
    x = rng.integers(0, 30, 80) / 7.0
    x[rng.random(80) < 0.1] = np.nan
    return (x,)


@kernel(example=_uneven, numba="bossa.kernels._numba:running_median")
def running_median(x: Floats) -> Floats:
    """Median (T,) of the values so far, nan where none was; nan in x is passed over.

    All values are sorted once and linked; the last is taken out of the list, and the median moves by at most one place. O(T log T)
    """
    seen = ~np.isnan(x)
    values = x[seen]
    n = len(values)
    order = np.argsort(values, kind="stable")
    rank = np.empty(n, dtype=int)
    rank[order] = np.arange(n)
    ordered, after, before = [*values[order].tolist(), math.inf], list(range(1, n + 2)), list(range(-1, n + 1))
    middle, even, out = (n - 1) // 2, n % 2 == 0, [math.nan]
    for r in rank.tolist()[::-1]:
        low = ordered[middle]
        out.append((low + ordered[after[middle]]) / 2 if even else low)
        if even:
            if r <= middle:
                middle = after[middle]
        elif r >= middle:
            middle = before[middle]
        after[before[r]], before[after[r]] = after[r], before[r]
        even = not even
    return np.array([math.nan, *out[:0:-1]])[np.cumsum(seen)]


def _gains(rng: np.random.Generator) -> tuple[Any, ...]:
    return (np.where(rng.random(60) < 0.1, 0.0, rng.uniform(0.0, 1.0, 60)),)


@kernel(example=_gains, numba="bossa.kernels._numba:running_kish")
def running_kish(gain: Floats) -> tuple[Floats, Floats]:
    """Kish's effective number of looks in the filtered mean, (Σw)²/Σw², and the weight left on the prior.

    Look i has weight w_{t,i} = K_i ∏_{i<j≤t} (1 − K_j); the prior has ∏_{j≤t} (1 − K_j).

    gain     (T,)
    returns  (T,) nan before the first look, (T,)
    """
    numbers, left = [], []
    first, second, prior = 0.0, 0.0, 1.0
    for K in gain.tolist():
        kept = 1 - K
        first, second, prior = kept * first + K, kept * kept * second + K * K, kept * prior
        numbers.append(first * first / second if second else math.nan)
        left.append(prior)
    return np.array(numbers), np.array(left)


def steady_variance(q: float, v: float) -> float:
    """Variance that the filter settles at: P = (−q + √(q² + 4 q v))/2, the limit of knowledge of a state that moves."""
    return (-q + math.sqrt(q * q + 4 * q * v)) / 2


# ---------------------------------------------------------------- vectors, covariance forms
def joseph(m: Floats, P: Floats, z: Floats, J: Floats, R: Floats) -> tuple[Floats, Floats, float]:
    """One look in covariance form: P ← (I − KJ)P(I − KJ)ᵀ + KRKᵀ, symmetric and positive whatever the rounding in K.

    m (k,), P (k, k) forecast;  z (r,), J (r, k), R (r, r) the look
    returns  m, P after it, log-likelihood of z

    Source: Bucy & Joseph (1968); Anderson & Moore (1979) §6.
    """
    move, S = z - J @ m, J @ P @ J.T + R
    C = np.linalg.cholesky(S)
    K = np.linalg.solve(S, J @ P).T
    left = np.eye(len(m)) - K @ J
    P = left @ P @ left.T + K @ R @ K.T
    white = np.linalg.solve(C, move)
    loglik = -0.5 * (len(z) * LOG_2PI + 2 * float(np.log(np.diag(C)).sum()) + float(white @ white))
    return m + K @ move, (P + P.T) / 2, loglik


def square_root(m: Floats, L: Floats, z: Floats, J: Floats, R_root: Floats) -> tuple[Floats, Floats, float]:
    """One look in square-root form: P = LLᵀ; one QR gives the factors of S and P and the gain.

        QR of [[R^½, JL], [0, L]]ᵀ  →  [[S^½, 0], [K S^½, L₊]]ᵀ

    L (k, k) any root of P;  R_root (r, r) any root of R;  returns m, L, log-likelihood of z

    Source: Morf & Kailath (1975); Anderson & Moore (1979) §6.5.
    """
    r, k = J.shape
    pre = np.block([[R_root, J @ L], [np.zeros((k, r)), L]])
    post = upper(pre.T).T
    S_root, KS, L = post[:r, :r], post[r:, :r], post[r:, r:]
    white = np.linalg.solve(S_root, z - J @ m)
    loglik = -0.5 * (r * LOG_2PI + 2 * float(np.log(np.abs(np.diag(S_root))).sum()) + float(white @ white))
    return m + KS @ white, L, loglik


# ---------------------------------------------------------------- vectors, square-root information
@frozen(eq=False)
class Step:
    """What a drift step leaves for the smoother: Gw = θ_t − θ_{t−1} with W w = c − X θ_t + e, e ~ N(0, I).

    G (k, s), W (s, s) upper triangular, X (s, k), c (s,)
    """

    G: Floats
    W: Floats
    X: Floats
    c: Floats

    @property
    def logdet(self) -> float:
        """log|I + GᵀΛG|, what the step takes from the determinant of the precision."""
        return 2 * float(np.log(np.abs(np.diag(self.W))).sum())


def walk(U: Floats, d: Floats, G: Floats) -> tuple[Floats, Floats, Step]:
    """Forecast by a random walk with Q = GGᵀ: w is eliminated from w ~ N(0, I), U(θ − Gw) = d + e by one QR.

    U (k, k), d (k,);  G (k, s)
    returns  U, d of the forecast and the `Step`

    Source: Bierman (1977) §VI.
    """
    k, s = G.shape
    stacked = np.zeros((s + k, s + k + 1))
    stacked[:s, :s] = np.eye(s)
    stacked[s:, :s], stacked[s:, s:-1], stacked[s:, -1] = -U @ G, U, d
    R = upper(stacked)
    return R[s:, s:-1], R[s:, -1], Step(G, R[:s, :s], R[:s, s:-1], R[:s, -1])


def look(U: Floats, d: Floats, J: Floats, z: Floats) -> tuple[Floats, Floats, float]:
    """Analysis: stack the whitened look z = Jθ + e under Uθ = d + e and triangularise.

    U (k, k), d (k,);  J (r, k), z (r,)
    returns  U, d after the look, and what is left: ρ² = (z − Jm)ᵀ(JPJᵀ + I)⁻¹(z − Jm) where the forecast was proper

    Source: Bierman (1977) §V.2; Golub (1965).
    """
    k, r = len(d), len(z)
    stacked = np.empty((k + r, k + 1))
    stacked[:k, :k], stacked[:k, k], stacked[k:, :k], stacked[k:, k] = U, d, J, z
    R = upper(stacked)
    rest = R[k:, k]
    return R[:k, :k], R[:k, k], float(rest @ rest)


@frozen(eq=False)
class Known:
    """What Uθ = d + e says: mean (k,) and covariance V (k, k), nan where nothing is known; rank; and U, d, ρ² without contradictions.

    Where U is short of rank, d may hold parts that no θ can meet; they are moved into `rest`.
    """

    mean: Floats
    V: Floats
    rank: int
    U: Floats
    d: Floats
    rest: float = 0.0

    @property
    def logdet(self) -> float:
        """log|UᵀU|, -inf short of rank."""
        if self.rank < len(self.d):
            return -math.inf
        return 2 * float(np.log(np.abs(np.diag(self.U))).sum())


SINGULAR = 1e-10  # singular values of U with unit columns, relative to the largest


def known(U: Floats, d: Floats) -> Known:
    """Mean and covariance of a state in square-root information form, as far as it is determined.

    Upper triangular and clearly of full rank: by its inverse. Else by the singular values of U with columns of unit length; a coefficient
    is determined if it has no part in the null space.
    """
    k = U.shape[1]
    if not U.any():
        return Known(np.full(k, np.nan), np.full((k, k), np.nan), 0, U, np.zeros(k), float(d @ d))
    size = np.sqrt(np.einsum("ij,ij->j", U, U))
    scale = np.where(size > 0, size, 1.0)
    if size.all() and (np.abs(np.diag(U)) > 1e-6 * size).all():
        inverse = np.linalg.inv(U / scale)
        if math.sqrt(k) * np.linalg.norm(inverse) < 1e8:
            inverse /= scale[:, None]
            return Known(inverse @ d, inverse @ inverse.T, k, U, d)
    left, values, rows = np.linalg.svd(U / scale)
    rank = int((values > SINGULAR * values[0]).sum())
    inside = left.T @ d
    half = rows[:rank].T / values[:rank] / scale[:, None]
    mean, V = half @ inside[:rank], half @ half.T
    if rank == k:
        return Known(mean, V, k, U, d)
    null = rows[rank:]
    blind = np.sqrt(np.einsum("ij,ij->j", null, null)) > 1e-7
    mean[blind], V[blind], V[:, blind] = np.nan, np.nan, np.nan
    clean = np.zeros((k, k))
    clean[:rank] = values[:rank, None] * rows[:rank] * scale
    told = np.concatenate((inside[:rank], np.zeros(k - rank)))
    return Known(mean, V, rank, clean, told, float(inside[rank:] @ inside[rank:]))


def known_many(U: Floats, d: Floats) -> tuple[Floats, Floats, Ints]:
    """`known` of many states: mean (T, k), V (T, k, k), rank (T,).   U (T, k, k), d (T, k)"""
    T, k = d.shape
    size = np.sqrt(np.einsum("tij,tij->tj", U, U))
    fine = ((np.abs(np.einsum("tii->ti", U)) > 1e-6 * size) & (size > 0)).all(axis=1)
    mean, V, rank = np.full((T, k), np.nan), np.full((T, k, k), np.nan), np.full(T, k)
    inverse = np.linalg.inv(np.where(fine[:, None, None], U / np.where(size > 0, size, 1.0)[:, None], np.eye(k)))
    fine &= math.sqrt(k) * np.sqrt(np.einsum("tij,tij->t", inverse, inverse)) < 1e8
    inverse /= np.where(size > 0, size, 1.0)[:, :, None]
    mean[fine], V[fine] = (inverse @ d[:, :, None])[fine, :, 0], (inverse @ inverse.transpose(0, 2, 1))[fine]
    for t in np.flatnonzero(~fine):
        found = known(U[t], d[t])
        mean[t], V[t], rank[t] = found.mean, found.V, found.rank
    return mean, V, rank


def smooth_back(mean: Floats, V: Floats, step: Step) -> tuple[Floats, Floats, Floats]:
    """θ_{t−1} given all looks, from θ_t given all looks and the step between them.

        θ_{t−1} = θ_t − Gw = A θ_t − G W⁻¹(c + e),   A = I + G W⁻¹ X

    mean (k,), V (k, k) smoothed at t
    returns  mean (k,), V (k, k) smoothed at t − 1, and Cov(θ_t, θ_{t−1}) (k, k)

    Source: Bierman (1977) §X; Dyer & McReynolds (1969).
    """
    B = np.linalg.solve(step.W.T, step.G.T).T if step.G.size else step.G  # G W⁻¹
    A = np.eye(len(mean)) + B @ step.X
    back = A @ V @ A.T + B @ B.T
    return A @ mean - B @ step.c, (back + back.T) / 2, V @ A.T


# ---------------------------------------------------------------- vectors, many looks (and many random walks) at once
def _vectors(rng: np.random.Generator) -> tuple[Any, ...]:
    T, k = 12, 3
    J, z = np.triu(rng.normal(size=(T, k, k))) + 2 * np.eye(k), rng.normal(size=(T, k))
    J[4], z[4] = 0.0, 0.0
    A = rng.normal(size=(k, k))
    return J, z, rng.normal(size=k), A @ A.T + np.eye(k)


def _still_example(rng: np.random.Generator) -> tuple[Any, ...]:
    J, z, m, Lambda = _vectors(rng)
    return J, z, m, Lambda, np.full(len(J), 1.0 if rng.integers(2) else 0.9)


def _walks_example(rng: np.random.Generator) -> tuple[Any, ...]:
    J, z, m, Lambda = _vectors(rng)
    many = np.array([0.0, 0.1, 2.0])
    return J, z, np.tile(m, (3, 1)), np.tile(np.linalg.inv(Lambda), (3, 1, 1)), many[:, None, None] * np.eye(3), rng.uniform(0, 2, len(J))


@kernel(example=_still_example, numba="bossa.kernels._numba:still")
def still(J: Floats, z: Floats, m: Floats, Lambda: Floats, kept: Floats) -> tuple[Floats, Floats, Floats]:
    """A state that stands still, or is forgotten, by running sums of what the looks tell.

        Λ_t = κ_t Λ_{t−1} + J_tᵀJ_t,   m_t = m_0 + Λ_t⁻¹ s_t,   s_t = κ_t s_{t−1} + J_tᵀ(z_t − J_t m_0)

    J (T, r, k), z (T, r)  whitened looks, rows of zeros where there is none;  m (k,), Λ (k, k) before them, well conditioned
    kept (T,)  κ: what a step leaves of the precision, 1: all
    returns  m (T, k), V = Λ⁻¹ (T, k, k), κΛ (T, k, k) the precision of each forecast
    """
    right = (z - J @ m)[:, None, :] @ J
    told, moved = np.concatenate((Lambda[None], J.transpose(0, 2, 1) @ J)), np.concatenate((np.zeros((1, 1, len(m))), right))
    if (kept == 1).all():
        told, moved = np.cumsum(told, axis=0), np.cumsum(moved, axis=0)
    else:
        for t, share in enumerate(kept.tolist()):
            told[t + 1] += share * told[t]
            moved[t + 1] += share * moved[t]
    V = np.linalg.inv(told[1:])
    return m + (moved[1:] @ V)[:, 0], (V + V.transpose(0, 2, 1)) / 2, told[:-1] * kept[:, None, None]


@kernel(example=_walks_example, numba="bossa.kernels._numba:walks")
def walks(J: Floats, z: Floats, m: Floats, V: Floats, Q: Floats, dt: Floats, free: int = 0) -> tuple[Floats, Floats, Floats]:
    """N random walks under the same looks, by covariance and precision in turn.

        F_t = (V_{t−1} + dt_t Q)⁻¹,   V_t = (F_t + J_tᵀJ_t)⁻¹,   m_t = m_{t−1} + V_t J_tᵀ(z_t − J_t m_{t−1})

    J (T, r, k), z (T, r)  whitened looks, rows of zeros where there is none;  m (N, k), V (N, k, k) before them, well conditioned
    Q (N, k, k) per unit of time, dt (T,);  free  rows of zeros to begin m and V with, for what came before
    returns  m (free + T, N, k), V (free + T, N, k, k), F (T, N, k, k)
    """
    T, (N, k) = len(z), m.shape
    mean, cov, F = np.empty((free + T, N, k)), np.empty((free + T, N, k, k)), np.empty((T, N, k, k))
    mean[:free], cov[:free] = 0.0, 0.0
    told = J.transpose(0, 2, 1) @ J
    for t in range(T):
        F[t] = np.linalg.inv(V + dt[t] * Q)
        V = np.linalg.inv(F[t] + told[t])
        V = cov[free + t] = (V + V.transpose(0, 2, 1)) / 2
        m = mean[free + t] = m + (V @ ((z[t] - m @ J[t].T) @ J[t])[:, :, None])[:, :, 0]
    return mean, cov, F


def _walks_back_example(rng: np.random.Generator) -> tuple[Any, ...]:
    J, z, m, V, Q, dt = _walks_example(rng)
    mean, cov, F = walks(J, z, m, V, Q, dt)
    return mean[:-1], cov[:-1], F[1:], Q, dt[1:], mean[-1], cov[-1]


@kernel(example=_walks_back_example, numba="bossa.kernels._numba:walks_back")
def walks_back(mean: Floats, V: Floats, F: Floats, Q: Floats, dt: Floats, m_s: Floats, V_s: Floats) -> tuple[Floats, Floats, Floats]:
    """Rauch–Tung–Striebel for `walks`, without a difference of covariances.

        A_t = V_t F_{t+1},   m_t^s = m_t + A_t(m_{t+1}^s − m_t),   V_t^s = A_t V_{t+1}^s A_tᵀ + A_t dt_{t+1} Q

    mean (T, N, k), V (T, N, k, k) filtered; F (T, N, k, k), dt (T,) of the step after each;  Q (N, k, k)
    m_s (N, k), V_s (N, k, k)  smoothed, after the last step
    returns  smoothed m (T, N, k), V (T, N, k, k), and Cov(θ_{t+1}, θ_t) (T, N, k, k)
    """
    out, cov, lag = np.empty(mean.shape), np.empty(V.shape), np.empty(V.shape)
    for t in range(len(mean) - 1, -1, -1):
        A = V[t] @ F[t]
        half = V_s @ A.transpose(0, 2, 1)
        m_s = mean[t] + (A @ (m_s - mean[t])[:, :, None])[:, :, 0]
        V_s = A @ (half + dt[t] * Q)
        V_s = (V_s + V_s.transpose(0, 2, 1)) / 2
        out[t], cov[t], lag[t] = m_s, V_s, half
    return out, cov, lag
