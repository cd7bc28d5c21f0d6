"""Satterthwaite and Kenward–Roger against lmerTest and pbkrtest (golden cases), and against n × n definitions where those have none."""

from __future__ import annotations

import warnings

import attrs
import numpy as np
import pytest

from bossa.errors import BoundaryWarning, Refused
from bossa.estimate import lmm
from bossa.infer import df
from mixed_cases import CASES, case, columns, problem, re_term

NEARLY_SINGULAR = {"lmm_moats_random_nitro", "lmm_dyestuff2_singular"}


def fitted(name):
    p, R = case(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return p, lmm.fit_lmm(p), R


@pytest.mark.parametrize("name", CASES)
def test_satterthwaite_rows_are_lmertests(name):
    """lmerTest 3.1.3 differentiates numerically: about 1e-7, 1e-5 where it is nearly singular."""
    p, made, R = fitted(name)
    expected = [float(row["df"]) for row in R["coef_satterthwaite"]]
    np.testing.assert_allclose(df.satterthwaite(p, made, np.eye(len(made.coef))), expected, rtol=1e-5 if name in NEARLY_SINGULAR else 1e-6)


@pytest.mark.parametrize("name", [c for c in CASES if not c.endswith("_ml") and c not in ("lmm_sleepstudy_weights", "lmm_insteval_subset")])
def test_kenward_roger_rows_are_pbkrtests(name):
    p, made, R = fitted(name)
    V, nu = df.kenward_roger(p, made, np.eye(len(made.coef)))
    np.testing.assert_allclose(nu, [float(row["df"]) for row in R["coef_kenward_roger"]], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(V)), [row["se"] for row in R["coef_kenward_roger"]], rtol=1e-7)


# the columns that each term of the formula adds, for cases whose type III tests are tests of columns
TERMS = {"lmm_chickweight_slopes": {"Time:Diet": [5, 6, 7]}, "lmm_moats_split_plot": {"Variety:nitroF": [6, 7, 8, 9, 10, 11]}}


@pytest.mark.parametrize("name", TERMS)
def test_f_tests_are_lmertests_and_pbkrtests(name):
    p, made, R = fitted(name)
    for term, at in TERMS[name].items():
        L = np.eye(len(made.coef))[at]
        for kind, test in (("satterthwaite", df.satterthwaite_test), ("kenward_roger", df.kenward_roger_test)):
            row = next(r for r in R["anova"][f"typeIII_{kind}"] if r["term"] == term)
            found = test(p, made, L)
            assert found.df1 == row["df1"]
            assert pytest.approx(row["F"], rel=1e-7) == found.F
            assert found.df2 == pytest.approx(row["df2"], rel=1e-6)
            assert found.p_value == pytest.approx(row["p"], rel=1e-5)
            dependent = test(p, made, np.vstack((L, L[0] + L[1])))
            assert pytest.approx(found.F, rel=1e-10) == dependent.F


def dense_kenward_roger(p, made, lines):
    """Kenward & Roger (1997) with n × n matrices, weights included."""
    design = p.design
    w = np.ones(design.n) if design.weights is None else design.weights
    G, gamma, start = [], [], 0
    for t in design.random.terms:
        T = np.zeros(t.mask.shape)
        cols, rows = np.nonzero(t.mask.T)
        T[rows, cols] = made.theta[start : start + len(rows)]
        start += len(rows)
        S = made.sigma**2 * T @ T.T
        for a, b in zip(rows, cols):
            E = np.zeros_like(T)
            E[a, b] = E[b, a] = 1
            G.append((t.Z @ E @ t.Z.T) * (t.group[:, None] == t.group))
            gamma.append(S[a, b])
    G.append(np.diag(1 / w))
    gamma.append(made.sigma**2)
    Vi = np.linalg.inv(sum(g * c for g, c in zip(G, gamma)))
    X = design.X
    Phi = np.linalg.inv(X.T @ Vi @ X)
    P = Vi - Vi @ X @ Phi @ X.T @ Vi
    W = 2 * np.linalg.inv([[np.trace(P @ a @ P @ b) for b in G] for a in G])
    slopes = [-X.T @ Vi @ g @ Vi @ X for g in G]
    U = sum(W[r, s] * (X.T @ Vi @ G[r] @ Vi @ G[s] @ Vi @ X - slopes[r] @ Phi @ slopes[s]) for r in range(len(G)) for s in range(len(G)))
    adjusted = Phi + 2 * Phi @ U @ Phi
    nu = []
    for line in lines:
        x = np.array([line @ Phi @ s @ Phi @ line for s in slopes]) / (line @ Phi @ line)
        nu.append(2 / (x @ W @ x))
    return adjusted, np.array(nu)


def crossed_slopes(weighted, counts=False):
    rng = np.random.default_rng(11)
    n = 60
    g, h, x = np.arange(n) % 10, rng.integers(0, 4, n), rng.standard_normal(n)
    y = x + rng.standard_normal(10)[g] * (1 + x) + rng.standard_normal(4)[h] + rng.standard_normal(n)
    terms = [re_term("g", g, columns(1, x)), re_term("h", h, columns(1, x), mask=np.eye(2, dtype=bool))]
    return problem(y, columns(1, x), terms, weights=rng.uniform(0.5, 2, n) if weighted else None)


@pytest.mark.parametrize("which", ["weights", "crossed slopes", "crossed slopes, weights"])
def test_kenward_roger_equals_its_definition(which):
    """With prior weights pbkrtest takes the residual covariance as σ²I; the definition has σ²W⁻¹."""
    p = case("lmm_sleepstudy_weights")[0] if which == "weights" else crossed_slopes("weights" in which)
    made = lmm.fit_lmm(p)
    lines = np.vstack((np.eye(2), [1.0, 2.0]))
    V, nu = df.kenward_roger(p, made, lines)
    V_dense, nu_dense = dense_kenward_roger(p, made, lines)
    np.testing.assert_allclose(V, V_dense, rtol=1e-8)
    np.testing.assert_allclose(nu, nu_dense, rtol=1e-7)


def test_counts_of_groups_are_repeated_groups():
    p, _ = case("lmm_sleepstudy_slope")
    design, term = p.design, p.design.random.terms[0]
    times = np.random.default_rng(4).integers(1, 4, 18)
    rows = np.concatenate([np.flatnonzero(term.group == g) for g in range(18) for _ in range(times[g])])
    repeated = problem(design.y[rows], design.X[rows], [re_term("Subject", np.repeat(np.arange(times.sum()), 10), term.Z[rows])])
    counted = attrs.evolve(p, design=attrs.evolve(design, freq=times[term.group].astype(float)))
    one, two = ((q, lmm.fit_lmm(q)) for q in (counted, repeated))
    J = np.eye(2)
    np.testing.assert_allclose(df.satterthwaite(*one, J), df.satterthwaite(*two, J), rtol=1e-6)
    for a, b in zip(df.kenward_roger(*one, J), df.kenward_roger(*two, J)):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_degrees_of_freedom_do_not_depend_on_the_units_of_the_slope():
    p, _ = case("lmm_sleepstudy_slope")
    seconds = np.diag([1.0, 86_400.0])
    term = p.design.random.terms[0]
    far = attrs.evolve(
        p,
        design=attrs.evolve(
            p.design, X=p.design.X @ seconds, random=attrs.evolve(p.design.random, terms=(attrs.evolve(term, Z=term.Z @ seconds),))
        ),
    )
    here, there = ((q, lmm.fit_lmm(q)) for q in (p, far))
    np.testing.assert_allclose(df.satterthwaite(*there, np.eye(2)), df.satterthwaite(*here, np.eye(2)), rtol=1e-6)


def test_kenward_roger_of_an_ml_fit_is_refused():
    p, made, _ = fitted("lmm_dyestuff_ml")
    with pytest.raises(Refused, match="REML"):
        df.kenward_roger(p, made, np.eye(1))
