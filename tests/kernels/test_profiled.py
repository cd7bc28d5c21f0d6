"""The profiled criterion, its slope, curvature and information against dense matrices, for every kind of structure."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.kernels import blocks, profiled
from bossa.kernels.information import information
from bossa.kernels.optimize import differences
from mixed_cases import columns, re_term

KINDS = ["slope", "crossed slopes", "nested", "three factors"]


def structure(kind):
    rng = np.random.default_rng(7)
    n = 50
    g, h, x = np.arange(n) % 9, rng.integers(0, 4, n), rng.standard_normal(n)
    S, one = columns(1, x), np.ones((n, 1))
    terms = {
        "slope": [re_term("g", g, S)],
        "crossed slopes": [re_term("g", g, S), re_term("h", h, S, mask=np.eye(2, dtype=bool))],
        "nested": [re_term("g", g, one), re_term("top", g // 3, S)],
        "three factors": [re_term("g", g, one), re_term("h", h, S), re_term("i", np.arange(n) % 3, one)],
    }[kind]
    F = columns(1, rng.standard_normal(n), rng.standard_normal(n))
    w = rng.uniform(0.5, 2, n)
    return terms, F, w


def dense(terms, F, w, theta):
    """V and the matrices Z_j E_ab Z_jᵀ-type derivatives with respect to each covariance entry."""
    V, G, start = np.diag(1 / w), [], 0
    for t in terms:
        same = t.group[:, None] == t.group
        T = np.zeros(t.mask.shape)
        cols, rows = np.nonzero(t.mask.T)
        T[rows, cols] = theta[start : start + len(rows)]
        start += len(rows)
        V = V + (t.Z @ T @ T.T @ t.Z.T) * same
        for a, b in zip(rows, cols):
            E = np.zeros_like(T)
            E[a, b] = E[b, a] = 1
            G.append((t.Z @ E @ t.Z.T) * same)
    return V, G


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_value_slope_and_curvature(kind, reml, singular):
    terms, F, w = structure(kind)
    lay = blocks.layout(terms)
    P = blocks.products(lay, F, w)
    theta = np.linspace(0.4, 1.1, lay.t)
    if singular:
        theta[-1] = 0.0
    point = profiled.evaluate(P, theta, 50, reml)
    V, _ = dense(terms, F, w, theta)
    X, y = F[:, :2], F[:, 2]
    A = X.T @ np.linalg.solve(V, X)
    r = y - X @ np.linalg.solve(A, X.T @ np.linalg.solve(V, y))
    free = 48 if reml else 50
    value = np.linalg.slogdet(V)[1] + np.log(w).sum() + free * (1 + np.log(2 * np.pi * (r @ np.linalg.solve(V, r)) / free))
    assert point.criterion == pytest.approx(value + (np.linalg.slogdet(A)[1] if reml else 0), abs=1e-10)
    assert profiled.criterion(P, theta, 50, reml) == pytest.approx(point.criterion, abs=1e-10)
    np.testing.assert_allclose(point.coef, np.linalg.solve(A, X.T @ np.linalg.solve(V, y)), rtol=1e-9)
    slope = differences(lambda t: np.array(profiled.criterion(P, t, 50, reml)), theta, np.full(lay.t, 1e-4))
    np.testing.assert_allclose(point.gradient, slope, rtol=1e-6, atol=1e-6)
    for Q, T, full in zip(profiled.curvature(point), point.factor.T, point.slopes):
        np.testing.assert_allclose(2 * Q @ T, full, atol=1e-10)
        np.testing.assert_allclose(Q, Q.T, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_average_information_is_the_mean_of_observed_and_expected(kind):
    """Without the curvature of θ ↦ Σ: AI = (N_e/r²) yᵀPV_iPV_jPy less the part that σ² takes."""
    terms, F, w = structure(kind)
    lay = blocks.layout(terms)
    theta = np.linspace(0.4, 1.1, lay.t)
    point = profiled.evaluate(blocks.products(lay, F, w), theta, 50, True)
    V, _ = dense(terms, F, w, theta)
    X, y = F[:, :2], F[:, 2]
    Vi = np.linalg.inv(V)
    Py = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    step = 1e-6
    slopes = []
    for i in range(lay.t):
        e = np.zeros(lay.t)
        e[i] = step
        slopes.append((dense(terms, F, w, theta + e)[0] - dense(terms, F, w, theta - e)[0]) / (2 * step) @ Py @ y)
    q, r2 = np.array(slopes), y @ Py @ y
    expected = 48 / r2 * (q @ Py @ q.T) - 48 / r2**2 * np.outer(q @ Py @ y, q @ Py @ y)
    made = profiled.average_information(point)
    for g, T, slope in zip(lay.groupings, point.factor.T, point.slopes):
        Q = profiled.upward(slope, T)
        made[np.ix_(g.index, g.index)] -= np.where(g.cols[:, None] == g.cols, 2 * Q[np.ix_(g.rows, g.rows)], 0)
    np.testing.assert_allclose(made, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_expected_information_equals_traces(kind):
    terms, F, w = structure(kind)
    lay = blocks.layout(terms)
    theta = np.linspace(0.4, 1.1, lay.t)
    point = profiled.evaluate(blocks.products(lay, F, w), theta, 50, True)
    V, G = dense(terms, F, w, theta)
    order = np.concatenate([g.index for g in lay.groupings])
    G = [G[i] for i in order] + [np.diag(1 / w)]
    X, Vi = F[:, :2], np.linalg.inv(V)
    P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    D = X @ point.D[:2, 1:]
    made = information(point)
    np.testing.assert_allclose(made.trace, [[np.trace(P @ a @ P @ b) for b in G] for a in G], rtol=1e-8)
    np.testing.assert_allclose(made.slope, [-D.T @ Vi @ g @ Vi @ D for g in G], atol=1e-10)
    np.testing.assert_allclose(made.cross, [[D.T @ Vi @ a @ P @ b @ Vi @ D for b in G] for a in G], atol=1e-10)
