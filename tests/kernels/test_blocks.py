"""The blocked factor against the dense matrices it stands for, on random structures: one factor, nested, crossed, three factors."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bossa.errors import Refused
from bossa.kernels import blocks, crossing
from bossa.state.design import RETerm

SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def re_term(factor, group, Z, mask=None):
    G, k = int(group.max()) + 1, Z.shape[1]
    mask = np.tril(np.ones((k, k), dtype=bool)) if mask is None else mask
    return RETerm(factor=factor, names=tuple(f"c{i}" for i in range(k)), levels=tuple(map(str, range(G))), group=group, Z=Z, mask=mask)


def random_terms(rng, kind, n=60):
    """Small structures of every kind: what meets what, and how many columns."""
    x = rng.standard_normal(n)
    ones = np.ones((n, 1))
    slope = np.column_stack((np.ones(n), x))
    g = np.concatenate((np.arange(6), rng.integers(0, 6, n - 6)))
    h = np.concatenate((np.arange(4), rng.integers(0, 4, n - 4)))
    i = np.concatenate((np.arange(3), rng.integers(0, 3, n - 3)))
    if kind == "intercept":
        return [re_term("g", g, ones)]
    if kind == "slope":
        return [re_term("g", g, slope)]
    if kind == "uncorrelated":
        return [re_term("g", g, ones), re_term("g", g, x[:, None])]
    if kind == "three columns":
        return [re_term("g", g, np.column_stack((slope, rng.standard_normal(n))))]
    if kind == "nested":
        return [re_term("h:g", g, ones), re_term("h", g // 2, slope)]
    if kind == "crossed":
        return [re_term("h", h, ones), re_term("g", g, ones)]
    if kind == "crossed slopes":
        return [re_term("g", g, slope), re_term("h", h, slope), re_term("g", g, rng.standard_normal((n, 1)))]
    return [re_term("g", g, slope), re_term("h", h, ones), re_term("i", i, slope), re_term("i", i, rng.standard_normal((n, 1)))]


KINDS = ["intercept", "slope", "uncorrelated", "three columns", "nested", "crossed", "crossed slopes", "three factors"]
CASES = st.tuples(st.sampled_from(KINDS), st.integers(0, 10_000), st.booleans(), st.booleans())


def dense_Z(terms):
    """Z (n, q) with columns as FitState.b: terms in order, group-major."""
    out = []
    for t in terms:
        n, k = t.Z.shape
        Z = np.zeros((n, len(t.levels), k))
        Z[np.arange(n), t.group] = t.Z
        out.append(Z.reshape(n, -1))
    return np.concatenate(out, axis=1)


def dense_Lambda(terms, theta):
    blocks_, start = [], 0
    for t in terms:
        T = np.zeros(t.mask.shape)
        cols, rows = np.nonzero(t.mask.T)
        T[rows, cols] = theta[start : start + len(rows)]
        start += len(rows)
        blocks_.append(np.kron(np.eye(len(t.levels)), T))
    q = sum(len(b) for b in blocks_)
    out, at = np.zeros((q, q)), 0
    for b in blocks_:
        out[at : at + len(b), at : at + len(b)] = b
        at += len(b)
    return out


def setup(case, sparse):
    kind, seed, weighted, _ = case
    rng = np.random.default_rng(seed)
    terms = random_terms(rng, kind)
    n = len(terms[0].group)
    w = rng.uniform(0.3, 3, n) if weighted else None
    F = np.column_stack((np.ones(n), rng.standard_normal((n, 2))))
    lay = blocks.layout(terms)
    theta = rng.standard_normal(lay.t) * rng.choice([1.0, 0.1, 0.0], lay.t)
    with pytest.MonkeyPatch.context() as patch:
        if sparse:
            patch.setattr(crossing, "DENSE_CELLS", 0)
            patch.setattr(crossing, "PAIR_SECONDS", 0.0)
        P = blocks.products(lay, F, w)
    W = np.eye(n) if w is None else np.diag(w)
    return terms, lay, theta, P, dense_Z(terms), dense_Lambda(terms, theta), W, F


@SETTINGS
@given(CASES)
def test_factor_solutions_and_inverse_equal_the_dense_ones(case):
    _, lay, theta, P, Z, Lam, W, F = setup(case, sparse=case[3])
    M = Lam.T @ Z.T @ W @ Z @ Lam + np.eye(lay.q)
    c = blocks.cholesky(P, blocks.factors(lay, theta))
    np.testing.assert_allclose(c.logdet, np.linalg.slogdet(M)[1], rtol=1e-10, atol=1e-10)
    half = blocks.halve(c, P.B, P.Br)
    m = blocks.modes(c, P.B, half)
    u = np.linalg.solve(M, Lam.T @ Z.T @ W @ F)
    b = Lam @ u
    e = Z.T @ W @ (F - Z @ b)
    for j in range(F.shape[1]):
        np.testing.assert_allclose(blocks.flatten(lay, m.u0[:, j], m.ur[:, j]), u[:, j], atol=1e-9)
        np.testing.assert_allclose(blocks.flatten(lay, m.b0[:, j], m.br[:, j]), b[:, j], atol=1e-9)
        np.testing.assert_allclose(blocks.flatten(lay, m.e0[:, j], m.er[:, j]), e[:, j], atol=1e-8)
        np.testing.assert_allclose(blocks.times_Z(lay, m.b0[:, j], m.br[:, j]), Z @ b[:, j], atol=1e-9)
    np.testing.assert_allclose(P.C - half.gram(half), F.T @ W @ F - u.T @ Lam.T @ Z.T @ W @ F, atol=1e-8)
    inv = blocks.inverse(c)
    G = Lam @ np.linalg.solve(M, Lam.T)
    np.testing.assert_allclose(blocks.leverage(c, inv), np.einsum("ij,jk,ik->i", Z, G, Z), atol=1e-9)
    diagonals = [np.array([np.diag(block[:, :, g]) for g in range(block.shape[2])]).T for block in blocks.conditional_variances(c, inv)]
    rest = np.concatenate([np.empty(0), *(d.T.ravel() for d in diagonals[1:])])
    np.testing.assert_allclose(blocks.flatten(lay, diagonals[0], rest), np.diag(G), atol=1e-10)


@SETTINGS
@given(CASES)
def test_slope_of_the_log_determinant_equals_differences(case):
    _, lay, theta, P, *_ = setup(case, sparse=case[3])
    slope = blocks.theta_of(lay, blocks.inverse(blocks.cholesky(P, blocks.factors(lay, theta))).slopes)
    for i in range(lay.t):
        step = np.zeros(lay.t)
        step[i] = 1e-5
        up, down = (blocks.cholesky(P, blocks.factors(lay, theta + s)).logdet for s in (step, -step))
        np.testing.assert_allclose(slope[i], (up - down) / 2e-5, rtol=1e-6, atol=1e-6)


@SETTINGS
@given(CASES)
def test_chunks_pairs_and_dense_blocks_are_the_same(case):
    _, lay, theta, P, *_ = setup(case, sparse=True)
    if P.cross is None:
        return
    assert P.cross.pairs is not None
    chunked = attrs.evolve(P, cross=crossing.SparseCross(P.cross.N, P.cross.square, None))
    one, two = (blocks.cholesky(p, blocks.factors(lay, theta)) for p in (P, chunked))
    np.testing.assert_allclose(one.SL, two.SL, atol=1e-10)
    np.testing.assert_allclose(blocks.inverse(one).U, blocks.inverse(two).U, atol=1e-10)


def test_counts_of_groups_are_repeated_groups():
    rng = np.random.default_rng(3)
    term = random_terms(rng, "slope")[0]
    n = len(term.group)
    F = rng.standard_normal((n, 2))
    count = np.array([2.0, 1, 0, 3, 1, 1])
    rows = [(r, c) for r in range(n) for c in range(int(count[term.group[r]]))]
    r, copy = np.array(rows).T
    _, group = np.unique(term.group[r] * 10 + copy, return_inverse=True)
    repeated = re_term("g", group, term.Z[r])
    theta = np.array([0.7, -0.2, 0.4])
    made = []
    for t, f, k in ((term, F, count), (repeated, F[r], None)):
        lay = blocks.layout([t])
        P = blocks.products(lay, f, count=k)
        c = blocks.cholesky(P, blocks.factors(lay, theta))
        half = blocks.halve(c, P.B, P.Br)
        made.append((c.logdet, P.C - half.gram(half, P.count), blocks.inverse(c).slopes[0]))
    for one, two in zip(*made):
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_new_response_replaces_only_its_column():
    rng = np.random.default_rng(5)
    terms = random_terms(rng, "three factors")
    n = len(terms[0].group)
    F, y, w = rng.standard_normal((n, 3)), rng.standard_normal(n), rng.uniform(1, 2, n)
    lay = blocks.layout(terms)
    fresh = blocks.products(lay, np.column_stack((F[:, :2], y)), w)
    replaced = blocks.with_response(blocks.products(lay, F, w), F, y, w)
    for name in ("B", "Br", "C"):
        np.testing.assert_allclose(getattr(replaced, name), getattr(fresh, name), atol=1e-12)


def test_theta_is_lme4s_column_major_order():
    rng = np.random.default_rng(0)
    lay = blocks.layout(random_terms(rng, "three columns"))
    T = blocks.factors(lay, np.arange(1.0, 7.0))[0]
    np.testing.assert_array_equal(T, [[1, 0, 0], [2, 4, 0], [3, 5, 6]])
    np.testing.assert_array_equal(blocks.theta_of(lay, (T,)), np.arange(1.0, 7.0))


def test_too_many_levels_beside_the_largest_factor_are_refused_by_name():
    n = 12_000
    g, h = np.arange(n) % 6_000, np.arange(n) % 5_500
    with pytest.raises(Refused, match="h"):
        blocks.layout([re_term("g", g, np.ones((n, 1))), re_term("h", h, np.ones((n, 1)))])
