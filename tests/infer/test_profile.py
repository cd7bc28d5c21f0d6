"""how="profile": the equation that defines an end, R's limits, boundaries, and agreement between models that are the same."""

import math
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.errors import BossaWarning, OptionError, Refused
from bossa.estimate import many
from bossa.estimate.random import term_factors
from bossa.infer.curve import profile_curve
from bossa.infer.plan import plan

GOLDEN = Path(__file__).parents[1] / "golden" / "data"

# tests/golden, profile.exact: R 4.2.2 with lme4 1.1-31, constrained minimisation and root finding; ML refit of the REML fit
SLEEPSTUDY = {
    "spread": [(14.381384520338338, 37.7160549905135), (3.8011772843598077, 8.753391986978526), (-0.48149258062450545, 0.6850189685180051)],
    "sigma": (22.89825651480599, 28.857999208463074),
    "params": [(237.68068994595785, 265.12951975101146), (7.358652004440529, 13.575919914751541)],
}
MTCARS = [(5.212161, 23.628562), (-7.698661, -1.833282)]  # the same for am ~ wt, binomial


def limits(frame):
    return frame.select("ci_lower", "ci_upper").to_numpy()


def test_sleepstudy_is_that_of_r():
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit().infer(how="profile")
    expected = [*SLEEPSTUDY["spread"], SLEEPSTUDY["sigma"]]
    np.testing.assert_allclose(limits(m.varying_spread), expected, rtol=1e-6)
    np.testing.assert_allclose(limits(m.params), SLEEPSTUDY["params"], rtol=1e-7)
    assert (m.varying_spread["method"] == "profile").all()
    assert any("refitted by ML" in note for note in m.inference.notes)


def test_logistic_regression_is_that_of_r():
    m = model("am ~ wt", load_dataset("mtcars"), family="binomial").fit().infer(how="profile")
    np.testing.assert_allclose(limits(m.params), MTCARS, rtol=1e-6)


# MASS 7.3.58.2, confint(glm(…)) on mtcars; it interpolates its curves by splines
MASS = {
    ("am ~ wt", "binomial", None): [(5.213794626, 23.628910686), (-7.698930195, -1.833364753)],
    ("carb ~ wt + hp", "poisson", None): [(-0.659863166, 0.904767995), (-0.257748229, 0.256695167), (0.002123691, 0.008589864)],
    ("mpg ~ wt", "gamma", "log"): [(3.666850254, 3.998006261), (-0.318028701, -0.219631106)],
    ("mpg ~ wt", "inverse_gaussian", "log"): [(3.620170872, 3.963188381), (-0.303197849, -0.208644338)],
    ("vs ~ mpg", "binomial", "probit"): [(-8.860355708, -2.388279094), (0.112902526, 0.431285215)],
}


@pytest.mark.parametrize("case", MASS, ids=str)
def test_generalized_linear_models_are_those_of_mass(case):
    formula, family, link = case
    m = model(formula, load_dataset("mtcars"), family=family, link=link).fit()
    se = m.infer().params["se"].to_numpy()[:, None]
    assert (np.abs(limits(m.infer(how="profile").params) - MASS[case]) < 0.005 * se).all()  # the error of its splines


# glmmTMB 1.1.5, R 4.2.2: roots of 2(objective − minimum) = 3.84 by uniroot, the rest minimised by nlminb; standard deviations by exp
GLMM = {
    "cbpp": [
        *[(-1.9011878320, -0.9477878240), (-1.6167661762, -0.4077801740), (-1.8010071200, -0.5115534280), (-2.5007574483, -0.8007569249)],
        (math.exp(-1.0610509843), math.exp(0.0952700343)),
    ],
    "gamma": [
        *[(5.4679808081, 5.6000417963), (0.0289050669, 0.0387886004), (math.exp(-2.4026457023), math.exp(-1.7008059309))],
        (math.exp(-4.8833213379 / 2), math.exp(-4.4479395234 / 2)),
    ],
}


@pytest.mark.parametrize("name", GLMM)
def test_generalized_mixed_models_are_those_of_glmmtmb(name):
    """Coefficients, standard deviations and, where the family has one, the dispersion."""
    if name == "cbpp":
        d = pl.read_csv(GOLDEN / "cbpp.csv").with_columns(pl.col("period", "herd").cast(pl.String))
        m = model("incidence/size ~ period + (1 | herd)", d, family="binomial", weights="size").fit()
    else:
        m = model("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy"), family="gamma", link="log").fit()
    m = m.infer(how="profile", n_steps=0)
    np.testing.assert_allclose(np.vstack((limits(m.params), limits(m.varying_spread))), GLMM[name], rtol=2e-6)


def test_spread_after_bootstrap_and_permutation():
    """The bootstrap's own limits and standard errors; after permutation the profile's, unless asked not to."""
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()
    boot = m.infer(how="boot", n_boot=300, seed=1).varying_spread
    assert boot.columns[-4:] == ["se", "ci_lower", "ci_upper", "method"]
    assert boot["method"][0].startswith("boot")
    draws = many.refit(m.problem, m.fit_state, plan(m.problem, m.fit_state, "parametric", 300, 1))
    T = term_factors(m.design.random, draws.theta)[0] * draws.sigma[:, None, None]
    S = T @ T.swapaxes(1, 2)
    values = [*np.sqrt(np.diagonal(S, axis1=1, axis2=2)).T, S[:, 0, 1] / np.sqrt(S[:, 0, 0] * S[:, 1, 1]), draws.sigma]
    np.testing.assert_allclose(boot["se"], [v.std(ddof=1) for v in values], rtol=1e-9)
    np.testing.assert_allclose(limits(boot), [np.quantile(v, [0.025, 0.975]) for v in values], rtol=0.05, atol=0.02)
    perm = m.infer(how="perm", n_perm=20, seed=1).varying_spread
    np.testing.assert_allclose(limits(perm), limits(m.infer(how="profile", n_steps=0).varying_spread), rtol=1e-7)
    assert (perm["method"] == "profile").all()
    assert "ci_lower" not in m.infer(how="perm", n_perm=20, seed=1, profile_auto=False).varying_spread.columns


def test_a_standard_deviation_of_a_glmm_has_an_interval_that_starts_at_0():
    """Little variation between groups, though its estimate is not 0: the end satisfies its equation, the start is the boundary."""
    rng = np.random.default_rng(2)
    g, x = np.repeat(np.arange(10), 6), rng.normal(size=60)
    d = pl.DataFrame({"y": rng.poisson(np.exp(0.3 * x + 0.15 * rng.normal(size=10)[g])), "x": x, "g": g})
    m = model("y ~ x + (1 | g)", d, family="poisson").fit()
    row = m.infer(how="profile", n_steps=8).varying_spread.row(0, named=True)
    assert row["ci_lower"] == 0.0 < row["sd"] < row["ci_upper"]
    curve = m.infer(how="profile", n_steps=8).inference.extra.curves["sd Intercept | g"]
    plain = model("y ~ x", d, family="poisson").fit().fit_state.loglik
    at_0 = dict(zip(*curve))[0.0]
    assert at_0**2 == pytest.approx(2 * (m.fit_state.loglik - plain), abs=1e-6)


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("am ~ wt", {"family": "binomial"}),
        ("carb ~ wt + hp", {"family": "poisson", "weights": "qsec"}),
        ("mpg ~ wt", {"family": "gamma", "link": "log"}),
        ("carb ~ wt", {"family": "negbinomial"}),
    ],
)
def test_an_end_satisfies_its_equation(formula, options):
    """Refitted here with the slope's column in the offset: the deviance has risen by 3.8415 times the dispersion."""
    d = load_dataset("mtcars")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)  # carb is underdispersed: θ at its limit
        m = model(formula, d, **options).fit()
        end = m.infer(how="profile").params.row(-1, named=True)
        rest, _, column = formula.rpartition(" + " if "+" in formula else " ~ ")
        smaller = f"{rest} + offset(o)" if "+" in formula else f"{rest} ~ offset(o)"
        for limit in (end["ci_lower"], end["ci_upper"]):
            held = model(smaller, d.with_columns(o=limit * pl.col(column)), **options).fit()
            if options["family"] == "negbinomial":
                rise = 2 * (m.fit_state.loglik - held.fit_state.loglik)
            else:
                rise = (held.fit_state.deviance - m.fit_state.deviance) / m.fit_state.dispersion
            assert rise == pytest.approx(3.841458820694124, rel=1e-6)


def test_a_linear_model_has_its_t_interval():
    m = model("mpg ~ wt + hp", load_dataset("mtcars")).fit()
    np.testing.assert_allclose(limits(m.infer(how="profile").params), limits(m.infer().params), rtol=1e-9)


def test_a_curve_is_kept_and_goes_through_the_estimate_and_the_ends():
    m = model("am ~ wt", load_dataset("mtcars"), family="binomial").fit().infer(how="profile", n_steps=15)
    psi, zeta = m.inference.extra.curves["wt"]
    assert len(psi) >= 15
    assert (np.diff(psi) > 0).all()
    assert (np.diff(zeta) > 0).all()
    np.testing.assert_allclose(np.interp([*limits(m.params)[1], m.params["estimate"][1]], psi, zeta), [-1.959964, 1.959964, 0], atol=1e-6)
    assert zeta[0] < -2.2
    wide = m.infer(how="profile", threshold=3.0).inference.extra.curves["wt"][1]
    assert wide.max() > 2.6


def test_a_variance_at_its_boundary_has_an_interval_that_starts_at_0():
    """Groups without any difference: the sd is estimated as 0, its interval is [0, upper], and the estimate lies inside."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(8), 6)
    y = rng.normal(size=48)
    y -= np.bincount(g, y)[g] / 6
    with pytest.warns(BossaWarning, match="estimated as 0"):
        m = model("y ~ 1 + (1 | g)", pl.DataFrame({"y": y, "g": g})).fit()
    row = m.infer(how="profile").varying_spread.row(0, named=True)
    assert row["sd"] == 0 == row["ci_lower"]
    assert 0.05 < row["ci_upper"] < 1


@pytest.mark.parametrize("formula", ["y ~ x + (1 + x | g)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (x || g)"])
def test_every_interval_holds_its_estimate(formula):
    rng = np.random.default_rng(7)
    n = 240
    g, h, x = np.repeat(np.arange(24), 10), np.arange(n) % 5, rng.normal(size=n)
    y = x + rng.normal(size=24)[g] + 0.7 * rng.normal(size=24)[g] * x + rng.normal(size=5)[h] + rng.normal(size=n)
    m = model(formula, pl.DataFrame({"y": y, "x": x, "g": g, "h": h}), method="ml").fit().infer(how="profile", n_steps=5)
    spread = m.varying_spread
    shown = spread["sd"].fill_null(spread["corr"])
    for lower, value, upper in [
        *zip(spread["ci_lower"], shown, spread["ci_upper"]),
        *m.params.select("ci_lower", "estimate", "ci_upper").rows(),
    ]:
        assert lower < value < upper


def test_three_correlated_effects_have_ends_that_satisfy_their_equation():
    """The deviance at the held correlation, by a search over everything else that starts elsewhere, is 3.84 above the minimum."""
    rng = np.random.default_rng(6)
    n = 300
    g = np.repeat(np.arange(30), 10)
    x, z = rng.normal(size=n), rng.normal(size=n)
    b = rng.normal(size=(30, 3)) @ np.array([[1, 0.5, 0.2], [0, 0.8, 0.3], [0, 0, 0.7]])
    y = x + (b[g] * np.column_stack((np.ones(n), x, z))).sum(axis=1) + rng.normal(size=n)
    m = model("y ~ x + (1 + x + z | g)", pl.DataFrame({"y": y, "x": x, "z": z, "g": g}), method="ml").fit()
    other = model("y ~ x + (0 + z + x + I(1 + 0*x) | g)", pl.DataFrame({"y": y, "x": x, "z": z, "g": g}), method="ml").fit()
    assert other.fit_state.deviance == pytest.approx(m.fit_state.deviance, abs=1e-6)
    one, two = (f.infer(how="profile", n_steps=0).varying_spread for f in (m, other))
    name = {"I(1 + 0*x)": "Intercept", "I(1 + 0 * x)": "Intercept"}
    mirrored = {
        tuple(sorted(name.get(t, t) for t in (r["term1"], r["term2"]) if t)): (r["ci_lower"], r["ci_upper"]) for r in two.to_dicts()
    }
    for row in one.to_dicts():
        key = tuple(sorted(t for t in (row["term1"], row["term2"]) if t))
        np.testing.assert_allclose(mirrored[key], (row["ci_lower"], row["ci_upper"]), rtol=1e-4, atol=1e-4)


def test_glmm_intervals_are_those_of_the_glm_without_variation():
    """No variation between groups: the profile of the coefficients, variance at 0, is that of the Poisson regression."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(10), 8), rng.normal(size=80)
    d = pl.DataFrame({"y": rng.binomial(12, 1 / (1 + np.exp(-0.4 * x))), "x": x, "g": g})
    with pytest.warns(BossaWarning, match="estimated as 0"):
        mixed = model("y ~ x + (1 | g)", d, family="poisson").fit()
    plain = model("y ~ x", d, family="poisson").fit().infer(how="profile").params
    np.testing.assert_allclose(limits(mixed.infer(how="profile").params), limits(plain), rtol=1e-4)


def test_contrasts_are_profiled_on_the_link_scale():
    d = load_dataset("mtcars").with_columns(g=pl.col("cyl").cast(pl.String))
    m = model("am ~ g", d, family="binomial").fit()
    contrast = m.explore("revpairwise(g)").infer(how="profile").effects
    np.testing.assert_allclose(limits(contrast)[:2], limits(m.infer(how="profile").params)[1:], rtol=1e-7)
    recoded = model("am ~ g", d, family="binomial", levels={"g": ["6", "4", "8"]}).fit().infer(how="profile").params
    np.testing.assert_allclose(limits(contrast)[2], limits(recoded)[2], rtol=1e-7)
    for refused in (m.explore("g", scale="response"), m.predict()):
        with pytest.raises(Refused):
            refused.infer(how="profile")
    with pytest.raises(OptionError, match="threshold"):
        m.infer(how="profile", threshold=-1)


def test_a_coefficient_without_a_finite_estimate_has_no_finite_end_on_that_side():
    """Separated data: the likelihood rises towards +inf, so the interval has a lower end alone."""
    with pytest.warns(BossaWarning):
        m = model("y ~ x", pl.DataFrame({"y": [0, 0, 0, 1, 1, 1], "x": [1.0, 2, 3, 4, 5, 6]}), family="binomial").fit()
    row = m.infer(how="profile").params.row(1, named=True)
    assert not math.isfinite(row["ci_upper"] if row["ci_upper"] is not None else math.inf)


def test_the_curve_finder_meets_edges_asymptotes_and_holes():
    straight = profile_curve(lambda psi: 2 * (psi - 1), 1.0, 0.5, 1.96, 5, 2.2, (-math.inf, math.inf))
    assert (straight.lower, straight.upper) == pytest.approx((0.02, 1.98))
    edge = profile_curve(lambda psi: 2 * (psi - 1), 1.0, 0.5, 1.96, 0, 2.2, (0.5, 1.6))
    assert (edge.lower, edge.upper) == (0.5, 1.6)
    level = profile_curve(lambda psi: 1.5 * math.tanh(psi), 0.0, 1.0, 1.96, 0, 2.2, (-math.inf, math.inf))
    assert (level.lower, level.upper) == (-math.inf, math.inf)
    hole = profile_curve(lambda psi: psi if psi < 2 else math.nan, 0.0, 1.5, 1.96, 0, 2.2, (-math.inf, math.inf))
    assert hole.upper == pytest.approx(1.96)
    assert math.isnan(profile_curve(lambda psi: psi if psi < 1 else math.nan, 0.0, 1.5, 1.96, 0, 2.2, (-math.inf, math.inf)).upper)


@pytest.mark.slow
def test_profile_intervals_cover():
    """A logistic slope (n = 60) and the standard deviation of 12 groups by ML, 300 data sets: between .91 and .98."""
    rng = np.random.default_rng(8)
    slope = sd = 0
    for _ in range(300):
        x = rng.normal(size=60)
        d = pl.DataFrame({"x": x, "y": (rng.random(60) < 1 / (1 + np.exp(-x))).astype(int)})
        row = model("y ~ x", d, family="binomial").fit().infer(how="profile", n_steps=0).params.row(1, named=True)
        slope += row["ci_lower"] < 1 < row["ci_upper"]
        g = np.repeat(np.arange(12), 6)
        d = pl.DataFrame({"g": g, "y": rng.normal(size=12)[g] + rng.normal(size=72)})
        spread = model("y ~ 1 + (1 | g)", d).fit().infer(how="profile", n_steps=0).varying_spread.row(0, named=True)
        sd += spread["ci_lower"] < 1 < spread["ci_upper"]
    assert 0.91 < slope / 300 < 0.98
    assert 0.91 < sd / 300 < 0.98


def weak(seed):
    """Eight groups of five: too few to tell an intercept's spread from a slope's."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(8), 5), np.tile(np.arange(5) - 2.0, 8)
    b = rng.normal(size=(8, 2)) @ np.array([[0.6, 0.3], [0.0, 0.15]])
    y = 1 + 0.3 * x + b[g, 0] + b[g, 1] * x + rng.normal(size=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        return model("y ~ x + (x | g)", pl.DataFrame({"y": y, "x": x, "g": g})).fit()


def test_a_correlation_cannot_be_told_where_one_deviation_may_be_0():
    """At sd = 0 every correlation is the same model: ζ of the correlation falls steadily to ζ of that sd at 0, and stays."""
    state = weak(5).infer(how="profile", n_steps=12).inference.extra
    at_0 = dict(zip(*state.curves["sd Intercept | g"]))[0.0]
    zeta = state.curves["corr Intercept, x | g"][1]
    assert -1.96 < at_0 < 0
    assert zeta[0] == pytest.approx(at_0, abs=1e-4)
    assert (np.diff(zeta) > -1e-4).all()
    assert (state.spread.lower[2], state.spread.upper[2]) == (-1.0, 1.0)


def test_a_correlation_without_an_estimate_may_be_anything():
    """By maximum likelihood the intercepts do not vary: all correlations are one model."""
    state = weak(20).infer(how="profile", n_steps=0).inference.extra
    assert "corr Intercept, x | g" not in state.curves
    assert (state.spread.lower[2], state.spread.upper[2]) == (-1.0, 1.0)
    assert np.isfinite(state.spread.upper).all()
