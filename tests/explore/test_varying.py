"""Random effects as tables, against lme4 and performance (golden cases), and prediction variances against their definition."""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl
import pytest

from bossa.errors import BoundaryWarning
from bossa.estimate import lmm
from bossa.estimate.random import term_factors
from bossa.explore import varying
from mixed_cases import CASES, case, columns, problem, re_term


def fitted(name):
    p, R = case(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return p, lmm.fit_lmm(p), R


def columns_of(R, names):
    """Where the term's columns stand in lme4's table."""
    lme4 = ["(Intercept)" if name == "Intercept" else name for name in names]
    return [R["columns"].index(name) if name in R["columns"] else j for j, name in enumerate(lme4)]


@pytest.mark.parametrize("name", CASES)
def test_offsets_are_lme4s_modes_and_conditional_sd(name):
    p, made, R = fitted(name)
    table = varying.offsets(p, made)
    for term in p.design.random.terms:
        expected = R["ranef"].get(term.factor) or R["ranef"]["Variety:Block"]
        at = columns_of(expected, term.names)
        for level, b, sd in list(zip(expected["levels"], expected["matrix"], expected["condSD"]))[:40]:
            label = level if level in term.levels else ":".join(level.split(":")[::-1])
            mine = table.filter((pl.col("group") == term.factor) & (pl.col("level") == label) & pl.col("term").is_in(term.names))
            np.testing.assert_allclose(mine["estimate"], [b[j] for j in at], atol=1e-7 * made.sigma)
            np.testing.assert_allclose(mine["se"], [sd[j] for j in at], atol=1e-7 * made.sigma)


@pytest.mark.parametrize("name", CASES)
def test_spread_and_shares_are_lme4s_and_performances(name):
    p, made, R = fitted(name)
    table = varying.spread(p, made)
    largest = max(abs(row["vcov"]) for row in R["varcorr"])
    np.testing.assert_allclose(table["variance"], [row["vcov"] for row in R["varcorr"]], atol=1e-7 * largest)
    for mine, row in zip(table.iter_rows(named=True), R["varcorr"]):
        shown = mine["sd"] if row["term2"] is None else mine["corr"]
        assert shown == pytest.approx(row["sdcor"], abs=1e-7 * max(1.0, largest**0.5))
        assert (mine["term2"] is None) == (row["term2"] is None)
    shares = varying.shares(p, made)
    assert shares["rsquared_marginal"] == pytest.approx(R["r2_nakagawa"]["marginal"], abs=1e-7)
    assert shares["rsquared_conditional"] == pytest.approx(R["r2_nakagawa"]["conditional"], abs=1e-7)
    assert shares["icc"] == pytest.approx(R["r2_nakagawa"]["icc_adjusted"], abs=1e-7)
    if R["REML"]:
        assert shares["reml_criterion"] == pytest.approx(R["REMLcrit"], rel=1e-11)


def test_the_boundary_is_flagged():
    p, made, _ = fitted("lmm_moats_random_nitro")
    flagged = varying.spread(p, made).filter(pl.col("boundary"))
    assert flagged.select("group", "term1", "term2").rows() == [("Block", "Intercept", "x1")]


def test_params_add_the_fixed_part():
    p, made, _ = fitted("lmm_sleepstudy_two_terms")
    table = varying.params(p, made)
    own = table.filter((pl.col("level") == "308") & (pl.col("term") == "Intercept"))["estimate"][0]
    assert table.columns == ["group", "level", "term", "estimate"]
    assert own == pytest.approx(varying.offsets(p, made)["estimate"][0])  # the fixed column is named x0 here: nothing to add
    fixed = table.filter((pl.col("level") == "308") & (pl.col("term") == "x1"))["estimate"][0]
    assert fixed == made.coef[1]


def crossed():
    rng = np.random.default_rng(3)
    n = 60
    g, h, x = np.arange(n) % 10, rng.integers(0, 4, n), rng.standard_normal(n)
    y = x + rng.standard_normal(10)[g] * (1 + x) + rng.standard_normal(4)[h] + rng.standard_normal(n)
    return problem(y, columns(1, x), [re_term("g", g, columns(1, x)), re_term("h", h, np.ones((n, 1)))], weights=rng.uniform(0.5, 2, n))


def test_variances_of_rows_with_their_groups_equal_the_mixed_model_equations():
    """The inverse of Henderson's equations, (p + q) × (p + q); a level that the fit did not have adds its whole variance."""
    p = crossed()
    made = lmm.fit_lmm(p)
    design = p.design
    Z, S = [], []
    for t, T in zip(design.random.terms, term_factors(p.design.random, made.theta)):
        block = np.zeros((design.n, len(t.levels), T.shape[0]))
        block[np.arange(design.n), t.group] = t.Z
        Z.append(block.reshape(design.n, -1))
        S += [made.sigma**2 * T @ T.T] * len(t.levels)
    Z = np.concatenate(Z, axis=1)
    prior, at = np.zeros((Z.shape[1], Z.shape[1])), 0
    for s in S:
        prior[at : at + len(s), at : at + len(s)] = np.linalg.inv(s)
        at += len(s)
    A = np.concatenate((design.X, Z), axis=1)
    H = A.T @ (A * design.weights[:, None]) / made.sigma**2
    H[2:, 2:] += prior
    V = np.linalg.inv(H)
    rows = [(t.group, t.Z) for t in design.random.terms]
    expected = np.einsum("ij,jk,ik->i", A, V, A)
    np.testing.assert_allclose(varying.row_variances(p, made, design.X, rows), expected, rtol=1e-8)
    unknown = [(np.where(np.arange(60) < 5, -1, rows[0][0]), rows[0][1]), rows[1]]
    found = varying.row_variances(p, made, design.X, unknown)
    np.testing.assert_allclose(found[5:], expected[5:], rtol=1e-8)
    B = A.copy()
    B[:, 2:22] = 0
    own = ((rows[0][1] @ term_factors(p.design.random, made.theta)[0]) ** 2).sum(axis=1) * made.sigma**2
    np.testing.assert_allclose(found[:5], (np.einsum("ij,jk,ik->i", B, V, B) + own)[:5], rtol=1e-8)
    np.testing.assert_allclose(varying.random_part(p, made, rows), made.eta - design.X @ made.coef, atol=1e-10)
    assert (varying.random_part(p, made, [(np.full(60, -1), Z) for _, Z in rows]) == 0).all()
