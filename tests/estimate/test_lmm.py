"""The linear mixed model against lme4 (golden cases), against dense likelihoods, and its laws."""

from __future__ import annotations

import pickle
import warnings

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bossa.errors import BoundaryWarning, DataError, DataWarning, Refused
from bossa.estimate import lmm
from bossa.estimate.lm import fit_lm
from bossa.kernels.optimize import differences, minimize
from bossa.kernels.profiled import average_information
from bossa.state.design import FitOptions
from mixed_cases import CASES, case, columns, problem, re_term

SETTINGS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SINGULAR = {"lmm_dyestuff2_singular", "lmm_moats_random_nitro"}


def fit(p):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return lmm.fit_lmm(p)


@pytest.mark.parametrize("name", CASES)
def test_golden_case_agrees_with_lme4(name):
    """lme4 1.1.31, polished by Newton steps: parameters to 1e-7 of their standard error, the criterion to rounding."""
    p, R = case(name)
    made = fit(p)
    se = np.array([row["se"] for row in R["coef"]])
    assert made.deviance == pytest.approx(R["criterion"], abs=1e-9 * max(1, abs(R["criterion"])))
    assert made.loglik == pytest.approx(R["loglik"], rel=1e-11)
    assert (made.npar, made.df_resid) == (R["npar"], R["df_resid"])
    assert made.sigma == pytest.approx(R["sigma"], rel=1e-7)
    np.testing.assert_allclose((made.coef - [row["estimate"] for row in R["coef"]]) / se, 0, atol=1e-7)
    np.testing.assert_allclose(made.vcov / np.outer(se, se), np.array(R["vcov"]["matrix"]) / np.outer(se, se), atol=1e-7)
    np.testing.assert_allclose(made.theta, list(R["theta"].values()), atol=1e-7)
    np.testing.assert_allclose(made.mu[:10], R["fitted"], rtol=1e-7)
    assert made.outcome.status == ("boundary" if name in SINGULAR else "ok")


def test_scaling_the_response_scales_everything_but_theta():
    p, _ = case("lmm_sleepstudy_slope")
    once, thrice = fit(p), fit(attrs.evolve(p, design=attrs.evolve(p.design, y=-3e4 * p.design.y)))
    np.testing.assert_allclose(thrice.theta, once.theta, rtol=1e-6)
    np.testing.assert_allclose(thrice.coef, -3e4 * once.coef, rtol=1e-9)
    np.testing.assert_allclose(thrice.b, -3e4 * once.b, rtol=1e-6)
    assert thrice.sigma == pytest.approx(3e4 * once.sigma, rel=1e-8)


def test_shifting_the_response_or_the_slope_variable_loses_no_digits():
    """Responses around a million, a covariate around the year 2000: searches and cross-products work on centred columns."""
    p, _ = case("lmm_sleepstudy_slope")
    X = p.design.X
    year = columns(1, X[:, 1] + 2000)
    term = p.design.random.terms[0]
    far = attrs.evolve(p.design, y=p.design.y + 1e6, X=year, random=attrs.evolve(p.design.random, terms=(attrs.evolve(term, Z=year),)))
    here, there = fit(p), fit(attrs.evolve(p, design=far))
    assert there.deviance == pytest.approx(here.deviance, abs=1e-6)
    assert there.outcome.status == "ok"
    np.testing.assert_allclose(there.coef[1], here.coef[1], rtol=1e-7)
    np.testing.assert_allclose(there.mu, here.mu + 1e6, atol=1e-4)


def test_relabelling_groups_changes_nothing():
    p, _ = case("lmm_penicillin")
    rng = np.random.default_rng(1)
    terms = []
    for term in p.design.random.terms:
        new = rng.permutation(len(term.levels))
        terms.append(attrs.evolve(term, group=new[term.group]))
    terms = terms[::-1]
    other = fit(attrs.evolve(p, design=attrs.evolve(p.design, random=attrs.evolve(p.design.random, terms=tuple(terms)))))
    made = fit(p)
    np.testing.assert_allclose(other.theta, made.theta[::-1], rtol=1e-6)
    np.testing.assert_allclose(other.mu, made.mu, rtol=1e-8)


def test_reml_is_invariant_to_recoding_x():
    p, _ = case("lmm_moats_split_plot")
    rng = np.random.default_rng(2)
    A = rng.standard_normal((12, 12))
    other, made = fit(attrs.evolve(p, design=attrs.evolve(p.design, X=p.design.X @ A))), fit(p)
    np.testing.assert_allclose(other.theta, made.theta, rtol=1e-6)
    assert other.deviance == pytest.approx(made.deviance + 2 * np.linalg.slogdet(A)[1], abs=1e-8)
    np.testing.assert_allclose(A @ other.coef, made.coef, rtol=1e-6)


def test_variance_zero_is_the_linear_model():
    p, _ = case("lmm_dyestuff2_singular")
    made = fit(p)
    plain = fit_lm(attrs.evolve(p, design=attrs.evolve(p.design, random=None)))
    assert made.theta[0] == 0
    np.testing.assert_allclose([made.coef, made.vcov[0]], [plain.coef, plain.vcov[0]], rtol=1e-12)
    assert made.sigma == pytest.approx(plain.sigma, rel=1e-13)


def test_counts_constant_within_groups_are_repeated_groups():
    p, _ = case("lmm_sleepstudy_slope")
    design, term = p.design, p.design.random.terms[0]
    times = np.random.default_rng(4).integers(1, 4, 18)
    rows = np.concatenate([np.flatnonzero(term.group == g) for g in range(18) for _ in range(times[g])])
    group = np.repeat(np.arange(times.sum()), 10)
    repeated = problem(design.y[rows], design.X[rows], [re_term("Subject", group, term.Z[rows])])
    counted = attrs.evolve(p, design=attrs.evolve(design, freq=times[term.group].astype(float)))
    one, two = fit(counted), fit(repeated)
    assert one.deviance == pytest.approx(two.deviance, abs=1e-8)
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-6)
    np.testing.assert_allclose(one.vcov, two.vcov, rtol=1e-6)
    assert one.df_resid == two.df_resid
    assert "whole groups" in one.notes[0]


def test_counts_that_vary_within_groups_are_repeated_rows():
    p, _ = case("lmm_penicillin")
    design = p.design
    times = np.random.default_rng(5).integers(1, 4, design.n)
    rows = np.repeat(np.arange(design.n), times)
    terms = [attrs.evolve(t, group=t.group[rows], Z=t.Z[rows]) for t in design.random.terms]
    one, two = (
        fit(attrs.evolve(p, design=attrs.evolve(design, freq=times.astype(float)))),
        fit(problem(design.y[rows], design.X[rows], terms)),
    )
    assert one.deviance == pytest.approx(two.deviance, abs=1e-8)
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-6)
    assert one.df_resid == two.df_resid
    assert "repeat rows" in one.notes[0]


def test_scaling_all_weights_scales_sigma_and_theta_only():
    p, _ = case("lmm_sleepstudy_weights")
    four = fit(attrs.evolve(p, design=attrs.evolve(p.design, weights=4 * p.design.weights)))
    made = fit(p)
    np.testing.assert_allclose(four.theta, made.theta / 2, rtol=1e-6)
    assert four.deviance == pytest.approx(made.deviance, abs=1e-8)
    np.testing.assert_allclose(four.vcov, made.vcov, rtol=1e-7)


def dense_criterion(p, theta):
    """The (RE)ML criterion from n × n matrices."""
    design = p.design
    w = np.ones(design.n) if design.weights is None else design.weights
    V, start = np.diag(1 / w), 0
    for t in design.random.terms:
        T = np.zeros(t.mask.shape)
        cols, rows = np.nonzero(t.mask.T)
        T[rows, cols] = theta[start : start + len(rows)]
        start += len(rows)
        ZT = t.Z @ T
        V = V + (ZT @ ZT.T) * (t.group[:, None] == t.group)
    X, y = design.X, design.y
    n, k = X.shape
    A = X.T @ np.linalg.solve(V, X)
    r = y - X @ np.linalg.solve(A, X.T @ np.linalg.solve(V, y))
    free = n - k if p.method == "reml" else n
    value = np.linalg.slogdet(V)[1] + free * (1 + np.log(2 * np.pi * (r @ np.linalg.solve(V, r)) / free))
    return value + (np.linalg.slogdet(A)[1] if p.method == "reml" else 0)


def random_problem(seed, kind, method):
    rng = np.random.default_rng(seed)
    n = 48
    g, h = np.arange(n) % 8, rng.integers(0, 5, n)
    h[:5] = np.arange(5)
    x = rng.standard_normal(n) * 3
    X = columns(1, x, rng.standard_normal(n))
    slope = columns(1, x)
    terms = {
        "slope": [re_term("g", g, slope)],
        "apart": [re_term("g", g, slope, mask=np.eye(2, dtype=bool))],
        "crossed": [re_term("g", g, slope), re_term("h", h, columns(1.0, x)[:, :1])],
        "nested": [re_term("g", g, columns(1.0, x)[:, :1]), re_term("top", g // 2, slope)],
    }[kind]
    y = X @ rng.standard_normal(3) + rng.standard_normal(8)[g] * rng.choice([0, 1.5]) + rng.standard_normal(n)
    y += rng.standard_normal(8)[g] * x * rng.choice([0, 0.7]) + rng.standard_normal(5)[h]
    return problem(y, X, terms, method, weights=rng.uniform(0.5, 2, n) if seed % 2 else None)


RANDOM = st.tuples(st.integers(0, 10_000), st.sampled_from(["slope", "apart", "crossed", "nested"]), st.sampled_from(["reml", "ml"]))


@SETTINGS
@given(RANDOM)
def test_blocked_likelihood_equals_the_dense_one_and_is_lowest_at_the_fit(drawn):
    p = random_problem(*drawn)
    made = fit(p)
    assert made.deviance == pytest.approx(dense_criterion(p, made.theta), abs=1e-7)
    rng = np.random.default_rng(drawn[0])
    for size in (1e-3, 0.1, 1.0):
        assert dense_criterion(p, made.theta + size * rng.standard_normal(len(made.theta))) >= made.deviance - 1e-8


@pytest.mark.parametrize("seed", range(12))
def test_no_other_start_finds_a_better_optimum(seed):
    """Ten columns of T, four random starts: saddles of θ (a variance of 0, a direction of Σ that θ cannot turn) are left behind."""
    rng = np.random.default_rng(seed)
    n = 40
    g, x = rng.integers(0, 8, n), rng.standard_normal(n) + rng.choice([0, 100])
    g[:8] = np.arange(8)
    X = columns(1, x, rng.standard_normal(n))
    y = rng.standard_normal(8)[g] * rng.choice([0, 1]) + rng.standard_normal(n)
    p = problem(y, X, [re_term("g", g, X)], rng.choice(["reml", "ml"]))
    made, prepared = fit(p), lmm.prepare(p)
    for _ in range(4):
        other = minimize(prepared.evaluate, average_information, 2 * rng.standard_normal(prepared.layout.t))
        assert made.deviance <= lmm.criterion_of(prepared, other.point) + 1e-7
    assert made.outcome.status in ("ok", "boundary")


@SETTINGS
@given(RANDOM, st.booleans())
def test_gradient_equals_finite_differences(drawn, at_zero):
    prepared = lmm.prepare(random_problem(*drawn))
    theta = np.random.default_rng(drawn[0]).standard_normal(prepared.layout.t)
    if at_zero:
        theta[0] = 0.0
    slope = differences(lambda t: np.array(prepared.evaluate(t).criterion), theta, np.full(len(theta), 1e-4))
    np.testing.assert_allclose(prepared.evaluate(theta).gradient, slope, rtol=1e-5, atol=1e-5)


# lowest REML criterion of lme4 1.1-31's nloptwrap, bobyqa (rhoend 1e-9) and Nelder_Mead; they differ by up to 0.8 in six of the twenty
LME4_BEST = [
    207.19402552,
    182.53975859,
    207.93388089,
    212.82062328,
    210.79669125,
    196.44823373,
    199.52762069,
    197.39294933,
    229.09889908,
    206.00521633,
    180.7819607,
    187.04646045,
    182.92388126,
    197.70376996,
    209.22817278,
    195.09348502,
    209.0984288,
    230.11234785,
    187.13858867,
    206.6516279,
]


def test_small_singular_problems_end_no_worse_than_lme4s_best():
    """12 groups × 6 rows, no true slope variance: one-sided, for an optimiser of lme4 can stop at a worse point."""
    worst, singular = 0.0, 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        g, x = np.repeat(np.arange(12), 6), np.tile(np.linspace(-1, 1, 6), 12)
        y = rng.standard_normal(12)[g] * 0.3 + rng.standard_normal(72)
        made = fit(problem(y, columns(1, x), [re_term("g", g, columns(1, x))]))
        singular += made.outcome.status == "boundary"
        worst = max(worst, made.deviance - LME4_BEST[seed])
        assert made.outcome.status in ("ok", "boundary")
    assert worst < 1e-7
    assert singular >= 8


def test_boundary_is_named_in_plain_words():
    with pytest.warns(BoundaryWarning, match="variance of Intercept in Batch is estimated as 0"):
        made = lmm.fit_lmm(case("lmm_dyestuff2_singular")[0])
    assert made.outcome.boundary == ("variance of Intercept in Batch",)
    with pytest.warns(BoundaryWarning, match=r"correlation of Intercept and x1 in Block \(\+1\)") as caught:
        lmm.fit_lmm(case("lmm_moats_random_nitro")[0])
    assert len(caught) == 1


def test_start_in_the_users_units_is_used_and_checked():
    p, R = case("lmm_sleepstudy_slope")
    theta = list(R["theta"].values())
    assert fit(attrs.evolve(p, options=FitOptions(start=theta))).outcome.iterations <= 2
    with pytest.raises(DataError, match="start has 2 numbers"):
        fit(attrs.evolve(p, options=FitOptions(start=[1.0, 2.0])))


def test_a_state_survives_pickling():
    made = fit(case("lmm_penicillin")[0])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)).theta, made.theta)


def test_dependent_columns_of_x_are_dropped_and_said():
    p, _ = case("lmm_sleepstudy_slope")
    twice = attrs.evolve(p, design=problem(p.design.y, columns(p.design.X, p.design.X[:, 1] - 3), p.design.random.terms).design)
    made, plain = fit(twice), fit(p)
    np.testing.assert_array_equal(made.kept, [True, True, False])
    np.testing.assert_allclose(made.coef, plain.coef, rtol=1e-8)
    assert "x2" in made.notes[0]


class TestDoor:
    """What no data of this shape can estimate is refused by name."""

    y = np.random.default_rng(0).standard_normal(12)
    ones = np.ones((12, 1))

    def refused(self, terms, match, X=None):
        with pytest.raises((DataError, Refused), match=match):
            lmm.fit_lmm(problem(self.y, self.ones if X is None else X, terms))

    def test_one_level(self):
        self.refused([re_term("g", (np.zeros(12, dtype=int), ("a",)), self.ones)], "one level only")

    def test_as_many_levels_as_rows(self):
        self.refused([re_term("g", np.arange(12), self.ones)], "as many levels as rows")

    def test_more_random_effects_than_rows(self):
        self.refused([re_term("g", np.arange(12) // 2, columns(1, np.arange(12.0)))], "12 random effects for 12 rows")

    def test_duplicated_terms(self):
        g = np.arange(12) // 3
        self.refused([re_term("g", g, self.ones), re_term("g", g, self.ones)], "both hold 'Intercept'")
        self.refused([re_term("g", g, columns(1, 1.0 + 0 * self.y), names=["Intercept", "Intercept"])], "'Intercept' twice")

    def test_the_same_groups_under_two_names(self):
        g = np.arange(12) // 3
        self.refused([re_term("g", g, self.ones), re_term("h", 3 - g, self.ones)], "same groups")

    def test_a_response_without_residual(self):
        with pytest.raises(Refused, match="exactly"):
            lmm.fit_lmm(problem(np.full(12, 3.0), self.ones, [re_term("g", np.arange(12) // 3, self.ones)]))

    def test_a_slope_constant_within_groups_is_a_warning(self):
        g = np.arange(12) // 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundaryWarning)
            with pytest.warns(DataWarning, match="'x1' never varies within 'g'"):
                lmm.fit_lmm(problem(self.y, self.ones, [re_term("g", g, columns(1, g), mask=np.eye(2, dtype=bool))]))
