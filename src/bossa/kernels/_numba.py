"""Twins in Numba of the recursions over time: the same signatures and numbers, compiled on their first call and kept on disk.

Source: kalman.py for every formula.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ..types import Floats, Ints

LOG_2PI = math.log(2 * math.pi)


@njit(cache=True)
def _scalar_walk(y: Floats, v: Floats, q: Floats, m: float, P: float, out: Floats) -> None:
    for t in range(len(y)):
        P += q[t]
        out[2, t], out[3, t], K, loglik = m, P, 0.0, 0.0
        if math.isinf(P):
            if y[t] == y[t]:
                K, m, P = 1.0, y[t], v[t]
        elif y[t] == y[t]:
            S, move = P + v[t], y[t] - m
            K = P / S
            m, P = m + K * move, K * v[t]
            loglik = -0.5 * (LOG_2PI + math.log(S) + move * move / S)
        out[0, t], out[1, t], out[4, t], out[5, t] = m, P, K, loglik


def scalar_walk(y: Floats, v: Floats, q: Floats, m0: float, P0: float) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """kalman.scalar_walk."""
    out = np.empty((6, len(y)))
    _scalar_walk(y, v, q, float(m0), float(P0), out)
    return out[0], out[1], out[2], out[3], out[4], out[5]


@njit(cache=True)
def _scalar_back(mean: Floats, var: Floats, mean_f: Floats, var_f: Floats, G: Floats) -> None:
    for t in range(len(mean) - 2, -1, -1):
        mean[t] += G[t] * (mean[t + 1] - mean_f[t + 1])
        var[t] += G[t] * G[t] * (var[t + 1] - var_f[t + 1])


def scalar_back(mean: Floats, var: Floats, mean_f: Floats, var_f: Floats, G: Floats) -> tuple[Floats, Floats]:
    """kalman.scalar_back."""
    mean, var = mean.copy(), var.copy()
    _scalar_back(mean, var, mean_f, var_f, G)
    return mean, var


@njit(cache=True)
def _running_median(ordered: Floats, rank: Ints, out: Floats) -> None:
    n = len(rank)
    after, before = np.arange(1, n + 2), np.arange(-1, n + 1)
    middle, even = (n - 1) // 2, n % 2 == 0
    for t in range(n - 1, -1, -1):
        r = rank[t]
        out[t + 1] = (ordered[middle] + ordered[after[middle]]) / 2 if even else ordered[middle]
        if even:
            if r <= middle:
                middle = after[middle]
        elif r >= middle:
            middle = before[middle]
        after[before[r]], before[after[r]] = after[r], before[r]
        even = not even


def running_median(x: Floats) -> Floats:
    """kalman.running_median."""
    seen = ~np.isnan(x)
    values = x[seen]
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values))
    out = np.full(len(values) + 1, np.nan)
    _running_median(values[order], rank, out)
    return out[np.cumsum(seen)]


@njit(cache=True)
def _running_kish(gain: Floats, out: Floats, left: Floats) -> None:
    first, second, prior = 0.0, 0.0, 1.0
    for t in range(len(gain)):
        K, kept = gain[t], 1 - gain[t]
        first, second, prior = kept * first + K, kept * kept * second + K * K, kept * prior
        out[t], left[t] = first * first / second if second > 0 else math.nan, prior


def running_kish(gain: Floats) -> tuple[Floats, Floats]:
    """kalman.running_kish."""
    out, left = np.empty(len(gain)), np.empty(len(gain))
    _running_kish(gain, out, left)
    return out, left


@njit(cache=True)
def _inverse(A: Floats, out: Floats) -> None:
    """out = A⁻¹ of a symmetric positive definite A, by its Cholesky factor; A is lost."""
    k = len(A)
    for j in range(k):
        for i in range(j):
            for c in range(j, k):
                A[j, c] -= A[i, j] * A[i, c]
        root = 1 / math.sqrt(A[j, j])
        for c in range(j, k):
            A[j, c] *= root
    for j in range(k - 1, -1, -1):  # A = RᵀR;  rows of R⁻¹, in place, above the diagonal
        d = 1 / A[j, j]
        for c in range(k - 1, j - 1, -1):
            total = 1.0 if c == j else 0.0
            for i in range(j + 1, c + 1):
                total -= A[j, i] * out[i, c]
            out[j, c] = total * d
    for i in range(k):  # R⁻¹R⁻ᵀ, from the top: row i uses rows below it only
        for j in range(i, k):
            total = 0.0
            for c in range(j, k):
                total += out[i, c] * out[j, c]
            A[i, j] = total
    for i in range(k):
        for j in range(i, k):
            out[i, j] = out[j, i] = A[i, j]


@njit(cache=True)
def _told(J: Floats, z: Floats, m: Floats, Lambda: Floats, right: Floats) -> None:
    """Λ += JᵀJ, right += Jᵀ(z − Jm)."""
    r, k = J.shape
    for a in range(r):
        gap = z[a]
        for i in range(k):
            gap -= J[a, i] * m[i]
        for i in range(k):
            one = J[a, i]
            if one != 0.0:
                right[i] += one * gap
                for j in range(k):
                    Lambda[i, j] += one * J[a, j]


@njit(cache=True)
def _still(J: Floats, z: Floats, m: Floats, Lambda: Floats, kept: Floats, mean: Floats, V: Floats, F: Floats) -> None:
    T, k = mean.shape
    right, work = np.zeros(k), np.empty((k, k))
    for t in range(T):
        Lambda *= kept[t]
        right *= kept[t]
        F[t] = Lambda
        _told(J[t], z[t], m, Lambda, right)
        work[:] = Lambda
        _inverse(work, V[t])
        for i in range(k):
            total = m[i]
            for j in range(k):
                total += V[t, i, j] * right[j]
            mean[t, i] = total


def still(J: Floats, z: Floats, m: Floats, Lambda: Floats, kept: Floats) -> tuple[Floats, Floats, Floats]:
    """kalman.still."""
    T, k = len(z), len(m)
    mean, V, F = np.empty((T, k)), np.empty((T, k, k)), np.empty((T, k, k))
    _still(np.ascontiguousarray(J), np.ascontiguousarray(z), np.ascontiguousarray(m), Lambda.copy(), kept, mean, V, F)
    return mean, V, F


@njit(cache=True)
def _walks(J: Floats, z: Floats, start: Floats, spread: Floats, Q: Floats, dt: Floats, mean: Floats, V: Floats, F: Floats) -> None:
    T, N, k = mean.shape
    work, right = np.empty((k, k)), np.empty(k)
    for n in range(N):
        m = start[n].copy()
        work[:] = spread[n]
        for t in range(T):
            for i in range(k):
                right[i] = 0.0
                for j in range(k):
                    work[i, j] += dt[t] * Q[n, i, j]
            _inverse(work, F[t, n])
            work[:] = F[t, n]
            _told(J[t], z[t], m, work, right)
            _inverse(work, V[t, n])
            work[:] = V[t, n]
            for i in range(k):
                for j in range(k):
                    m[i] += work[i, j] * right[j]
            mean[t, n] = m


def walks(J: Floats, z: Floats, m: Floats, V: Floats, Q: Floats, dt: Floats, free: int = 0) -> tuple[Floats, Floats, Floats]:
    """kalman.walks."""
    T, (N, k) = len(z), m.shape
    mean, cov, F = np.empty((free + T, N, k)), np.empty((free + T, N, k, k)), np.empty((T, N, k, k))
    mean[:free], cov[:free] = 0.0, 0.0
    J, z, m, V, Q, dt = (np.ascontiguousarray(x) for x in (J, z, m, V, Q, dt))
    _walks(J, z, m, V, Q, dt, mean[free:], cov[free:], F)
    return mean, cov, F


@njit(cache=True)
def _product(A: Floats, B: Floats, out: Floats) -> None:
    """out = A B."""
    k = len(A)
    for i in range(k):
        for j in range(k):
            out[i, j] = 0.0
        for c in range(k):
            one = A[i, c]
            for j in range(k):
                out[i, j] += one * B[c, j]


@njit(cache=True)
def _walks_back(
    mean: Floats, V: Floats, F: Floats, Q: Floats, dt: Floats, m_s: Floats, V_s: Floats, out: Floats, cov: Floats, lag: Floats
) -> None:
    T, N, k = mean.shape
    A, work = np.empty((k, k)), np.empty((k, k))
    for n in range(N):
        for t in range(T - 1, -1, -1):
            _product(V[t, n], F[t, n], A)
            later, spread = (m_s[n], V_s[n]) if t == T - 1 else (out[t + 1, n], cov[t + 1, n])
            _product(spread, A.T.copy(), lag[t, n])
            work[:] = lag[t, n] + dt[t] * Q[n]
            _product(A, work, cov[t, n])
            for i in range(k):
                total = mean[t, n, i]
                for j in range(k):
                    total += A[i, j] * (later[j] - mean[t, n, j])
                out[t, n, i] = total
                for j in range(i):
                    cov[t, n, i, j] = cov[t, n, j, i] = (cov[t, n, i, j] + cov[t, n, j, i]) / 2


def walks_back(mean: Floats, V: Floats, F: Floats, Q: Floats, dt: Floats, m_s: Floats, V_s: Floats) -> tuple[Floats, Floats, Floats]:
    """kalman.walks_back."""
    out, cov, lag = np.empty(mean.shape), np.empty(V.shape), np.empty(V.shape)
    mean, V, F, Q, dt, m_s, V_s = (np.ascontiguousarray(x) for x in (mean, V, F, Q, dt, m_s, V_s))
    _walks_back(mean, V, F, Q, dt, m_s, V_s, out, cov, lag)
    return out, cov, lag
