"""Generalized linear mixed models against lme4 (golden cases), glmmTMB and TMB, and their laws; what is refused, and how an end is said."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bossa import model
from bossa.errors import (
    BossaError,
    BossaWarning,
    BoundaryWarning,
    ConvergenceWarning,
    DataError,
    NotYet,
    OptionError,
    Refused,
    SeparationWarning,
)
from bossa.estimate.glmm import fit_glmm
from bossa.estimate.lockstep import glmm_many
from bossa.estimate.many import _one_by_one
from bossa.kernels.family import BINOMIAL, GAMMA, GAUSSIAN, INVERSE_GAUSSIAN, POISSON, QUASIPOISSON, negbinomial, t
from bossa.kernels.link import resolve_link
from bossa.state.design import FitOptions
from bossa.state.plan import Replicates
from mixed_cases import GOLDEN, codes, columns, frame, re_term, treatment
from mixed_cases import problem as linear

CASES = [
    "glmm_arabidopsis",
    "glmm_cbpp",
    "glmm_cbpp_agq0",
    "glmm_cbpp_agq25",
    "glmm_cbpp_agq9",
    "glmm_cbpp_obs_level",
    "glmm_cbpp_poisson_offset",
    "glmm_cbpp_probit",
    "glmm_cbpp_prop_weights",
    "glmm_cbpp_sum",
    "glmm_grouseticks",
    "glmm_grouseticks_scale",
    "glmm_infert_stratum",
    "glmm_verbagg",
    "glmm_verbagg_slopes",
]


def load(name: str) -> pl.DataFrame:
    """A golden data set, factors as Enum so that their order is R's."""
    meta = json.loads((GOLDEN / "data" / f"{name}.json").read_text(encoding="utf-8"))
    made = pl.read_csv(GOLDEN / "data" / f"{name}.csv", infer_schema=False)
    kinds = {"float": pl.Float64, "int": pl.Int64, "str": pl.String}
    return made.select(pl.col(c["name"]).cast(pl.Enum(c["levels"]) if "levels" in c else kinds[c["type"]]) for c in meta["columns"])


def problem(family, link, y, X, terms, *, weights=None, freq=None, offset=None, **options):
    made = linear(y, X, terms, "ml", weights=weights, freq=freq, offset=offset, options=FitOptions(**options))
    spec = made.spec
    spec.response, spec.fixed = "y", ()
    return evolve(made, family=family, link=resolve_link(link), spec=spec)


def fit(p, warns=None):
    """The fit; `warns`: the one warning it gives."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = fit_glmm(p)
    assert [w.category for w in said] == ([] if warns is None else [warns])
    return made


# ---------------------------------------------------------------- outside references
@pytest.mark.parametrize("name", CASES)
def test_golden_case_agrees_with_lme4(name):
    """lme4 1.1.31 at PIRLS to rounding, polished by Newton steps (`ref_acc` ≤ 1e-9 standard errors): estimates to 1e-7 of a standard error,
    their covariance, which differences a gradient here and a deviance there, to 5e-6."""
    case = json.loads((GOLDEN / "cases" / f"{name}.json").read_text(encoding="utf-8"))
    R = case["results"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        asked = {name: case.get(name) for name in ("family", "link", "weights", "contrasts")}
        m = model(case["formula"], load(case["data"]), **asked).fit(nagq=case["nAGQ"])
    made = m.fit_state
    se = np.array([row["se"] for row in R["coef"]])
    unit = np.outer(se, se)
    np.testing.assert_allclose((made.coef - [row["estimate"] for row in R["coef"]]) / se, 0, atol=1e-7)
    np.testing.assert_allclose(made.theta, list(R["theta"].values()), atol=1e-8)
    np.testing.assert_allclose(made.vcov / unit, np.array(R["vcov"]["matrix"]) / unit, atol=5e-6)
    np.testing.assert_allclose(made.engine.vcov_rx / unit, np.array(R["vcov_rx"]["matrix"]) / unit, atol=1e-7)
    assert made.loglik == pytest.approx(R.get("loglik_full", R["loglik"]), rel=1e-11)
    assert made.deviance == pytest.approx(R["deviance"], rel=1e-9)
    assert (made.npar, made.df_resid) == (R["npar"], R["df_resid"])
    np.testing.assert_allclose(made.eta[:10], R["linear_predictor"], atol=1e-7)
    np.testing.assert_allclose(made.mu[:10], R["fitted"], rtol=1e-7)
    assert made.outcome.status == ("boundary" if R["isSingular"] else "ok")
    start = 0
    for term in m.design.random.terms:
        G, k = len(term.levels), len(term.names)
        values = {}
        for kind, all_values in (("matrix", made.b), ("condSD", made.engine.sd)):
            values[kind] = all_values[start : start + G * k].reshape(G, k)
        start += G * k
        R_term = R["ranef"][term.factor]
        at = [term.levels.index(level) for level in R_term["levels"]]
        np.testing.assert_allclose(values["matrix"][at], R_term["matrix"], atol=1e-7)
        np.testing.assert_allclose(values["condSD"][at], np.array(R_term["condSD"], dtype=float), atol=1e-8)


def ticks():
    d = frame("grouseticks")
    return d["TICKS"].astype(float), columns(1, treatment(d["YEAR"]), d["cHEIGHT"]), d


def sleep(divisor=100.0):
    d = frame("sleepstudy")
    return d["Reaction"] / divisor, columns(1, d["Days"]), [re_term("Subject", codes(d["Subject"]), np.ones(180))], d


def cbpp(link="logit", family=BINOMIAL, **more):
    d = frame("cbpp")
    X, herd = columns(1, treatment(d["period"])), [re_term("herd", codes(d["herd"]), np.ones(56))]
    if family is BINOMIAL:
        return problem(family, link, d["incidence"] / d["size"], X, herd, weights=d["size"].astype(float), **more)
    return problem(family, link, d["incidence"], X, herd, offset=np.log(d["size"]), **more)


def with_dispersion(name):
    y, X, S, d = sleep()
    slopes = [re_term("Subject", codes(d["Subject"]), X)]
    if name == "negbinomial, crossed":
        counts, Xt, g = ticks()
        terms = [re_term("BROOD", codes(g["BROOD"]), np.ones(403)), re_term("LOCATION", codes(g["LOCATION"]), np.ones(403))]
        return problem(negbinomial(), "log", counts, Xt, terms)
    return {
        "negbinomial": lambda: cbpp("log", negbinomial()),
        "gamma, log, slope": lambda: problem(GAMMA, "log", 100 * y, X, slopes),
        "gamma, inverse": lambda: problem(GAMMA, "inverse", y, X, S),
        "gamma, log, counts": lambda: problem(GAMMA, "log", y, X, S, freq=d["w"].astype(float)),
        "gaussian, log": lambda: problem(GAUSSIAN, "log", y, X, S),
        "gaussian, log, counts": lambda: problem(GAUSSIAN, "log", y, X, S, freq=d["w"].astype(float)),
        "inverse gaussian, log": lambda: problem(INVERSE_GAUSSIAN, "log", y, X, S),
    }[name]()


# glmmTMB 1.1.5 polished by Newton steps on its own gradient (largest slope 4e-11); inverse gaussian: a template of TMB 1.9.2, the same
# way. loglik, β, log sd of the (first) random effect, log dispersion parameter (glmmTMB's: θ of negbinomial, 1/φ of gamma, φ of gaussian)
# and Var(β̂). Their weights are counts.
TMB = {
    "negbinomial": (
        -87.4070685965091,
        [-1.53273768020131, -1.00321448975008, -1.03667919577948, -1.57924535316606],
        -1.62574645206426,
        0.809983593972571,
        [0.0548283833083925, 0.148807929966832, 0.158787350820542, 0.248994177500872],
    ),
    "negbinomial, crossed": (
        -888.908425890013,
        [0.523714842618914, 1.16717232260873, -0.988247366082116, -0.0236784074508956],
        -0.359582655717498,
        1.19180047623268,
        [0.0379275735933095, 0.0542396669332115, 0.066103023783317, 1.23091985028897e-05],
    ),
    "gamma, log, slope": (
        -866.01834309116,
        [5.53251818820643, 0.0338499844042367],
        -2.29404545534114,
        5.03024950862938,
        [0.000690440439736123, 2.14233934131275e-05],
    ),
    "gamma, inverse": (
        -50.1390032487201,
        [0.395985899556186, -0.0116012655511096],
        -3.09958408008394,
        4.74435035032218,
        [0.000135264496579727, 6.52484015224176e-07],
    ),
    "gaussian, log": (
        -60.7503306710405,
        [0.915661834970783, 0.0364665308005961],
        -2.04935491387726,
        -2.45297289870097,
        [0.00114914532846622, 6.54314274161293e-06],
    ),
    "inverse gaussian, log": (
        -53.6897462230841,
        [0.9341634345591789, 0.0325871911364519],
        -2.0981179348678802,
        -5.75531896024992,
        [1.00130150644e-03, 6.25755241049e-06],
    ),
}


@pytest.mark.parametrize("name", TMB)
def test_families_with_a_dispersion_parameter_agree_with_glmmtmb(name):
    """Estimates and log-likelihood to 1e-8 of a standard error or relative; variances by two programs' differences, 1e-6."""
    loglik, beta, log_sd, dispersion, variances = TMB[name]
    p = with_dispersion(name)
    made = fit(p)
    se = np.sqrt(variances)
    assert made.loglik == pytest.approx(loglik, rel=1e-11)
    np.testing.assert_allclose((made.coef - beta) / se, 0, atol=1e-8)
    np.testing.assert_allclose(np.diag(made.vcov), variances, rtol=2e-6)
    assert np.log(made.sigma * made.theta[0]) == pytest.approx(log_sd, abs=1e-8)
    ours = made.aux["theta"] if p.family.free else 1 / made.dispersion if p.family is GAMMA else made.dispersion
    assert np.log(ours) == pytest.approx(dispersion, abs=1e-8)
    assert made.npar == len(beta) + len(made.theta) + 1
    assert made.dispersion_estimated != bool(p.family.free)


def test_spread_of_random_effects_is_shown_on_the_scale_of_the_predictor():
    """θ is relative to σ, as everywhere; the table has glmmTMB's standard deviation of the gamma model's intercepts."""
    m = model("Reaction ~ Days + (Days | Subject)", load("sleepstudy"), family="gamma", link="log").fit()
    table = m.varying_spread
    assert np.log(table["sd"][0]) == pytest.approx(TMB["gamma, log, slope"][2], abs=1e-8)
    assert table["group"].to_list() == ["Subject"] * 3 + ["Residual"]


def test_a_saddle_of_the_likelihood_is_left():
    """Twelve groups of five equal outcomes, half of them 1: at β = 0 Laplace's likelihood is a saddle.

    lme4 1.1.31 (tolPwrss = 1e-10) leaves it too: log-likelihood −9.560939, θ = 59.09779, β = 12.40331."""
    g = np.repeat(np.arange(12), 5)
    made = fit(problem(BINOMIAL, "logit", g % 2, np.ones((60, 1)), [re_term("g", g, np.ones(60))]), ConvergenceWarning)
    assert made.loglik == pytest.approx(-9.560939, abs=1e-6)
    assert made.theta[0] == pytest.approx(59.098, abs=0.01)
    assert abs(made.coef[0]) == pytest.approx(12.42, abs=0.1)
    assert made.outcome.status == "suspect"
    assert "one outcome" in made.outcome.message


# ---------------------------------------------------------------- laws
def simulated(seed=0, n=240, G=12):
    rng = np.random.default_rng(seed)
    g, h, x = rng.integers(0, G, n), rng.integers(0, 5, n), rng.standard_normal(n)
    g[:G], h[:5] = np.arange(G), np.arange(5)
    eta = 0.3 + 0.5 * x + 0.8 * rng.standard_normal(G)[g] + 0.5 * rng.standard_normal(5)[h]
    return rng, g, h, x, eta


@pytest.mark.parametrize("family", ["binomial", "poisson", "gamma"])
@pytest.mark.parametrize("crossed", [False, True])
def test_names_of_groups_and_order_of_rows_do_not_matter(family, crossed):
    rng, g, h, x, eta = simulated()
    y = {
        "binomial": rng.random(240) < 1 / (1 + np.exp(-eta)),
        "poisson": rng.poisson(np.exp(eta)),
        "gamma": np.exp(eta) * rng.gamma(3, 1, 240),
    }
    kinds = {"binomial": (BINOMIAL, "logit"), "poisson": (POISSON, "log"), "gamma": (GAMMA, "log")}

    def one(rows, names):
        terms = [re_term("g", names[g[rows]], np.ones(240))] + [re_term("h", h[rows], np.ones(240))] * crossed
        return fit(problem(*kinds[family], y[family][rows].astype(float), columns(1, x[rows]), terms))

    plain, shuffled, names = one(np.arange(240), np.arange(12)), rng.permutation(240), rng.permutation(12)
    other = one(shuffled, names)
    assert other.loglik == pytest.approx(plain.loglik, rel=1e-12)
    np.testing.assert_allclose(other.coef, plain.coef, atol=1e-8)
    np.testing.assert_allclose(other.vcov, plain.vcov, rtol=1e-5)
    np.testing.assert_allclose(other.eta, plain.eta[shuffled], atol=1e-8)
    np.testing.assert_allclose(other.b[:12][names], plain.b[:12], atol=1e-8)


def agree(a, b):
    assert a.loglik == pytest.approx(b.loglik, rel=1e-11)
    np.testing.assert_allclose(a.coef, b.coef, atol=1e-8)
    np.testing.assert_allclose(a.theta, b.theta, atol=1e-7)
    np.testing.assert_allclose(a.vcov, b.vcov, rtol=1e-5)
    assert a.df_resid == b.df_resid
    assert a.deviance == pytest.approx(b.deviance, rel=1e-9)


@pytest.mark.parametrize("family", [BINOMIAL, POISSON, GAMMA, GAUSSIAN, INVERSE_GAUSSIAN, negbinomial()], ids=str)
@pytest.mark.parametrize("crossed", [False, True])
def test_counts_are_rows_repeated(family, crossed):
    rng, g, h, x, eta = simulated(1)
    mu = np.exp(eta)
    draws = {"binomial": rng.random(240) < 0.5, "gamma": mu * rng.gamma(3, 1, 240), "inverse_gaussian": rng.wald(mu, 9)}
    y = draws.get(family.name, rng.poisson(mu) + (family.name == "gaussian")).astype(float)
    counts = rng.integers(1, 4, 240).astype(float)
    link = "logit" if family is BINOMIAL else "log"

    def one(rows, freq):
        terms = [re_term("g", g[rows], np.ones(len(rows)))] + [re_term("h", h[rows], np.ones(len(rows)))] * crossed
        p = problem(family, link, y[rows], columns(1, x[rows]), terms, freq=freq)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BossaWarning)
            return fit_glmm(p)

    agree(one(np.arange(240), counts), one(np.repeat(np.arange(240), counts.astype(int)), None))


@pytest.mark.parametrize("nagq", [0, 1, 5])
def test_counts_constant_within_groups_are_groups_repeated(nagq):
    rng, g, _, x, eta = simulated(2)
    y, counts = rng.poisson(np.exp(eta)).astype(float), rng.integers(1, 4, 12)
    counted = fit(problem(POISSON, "log", y, columns(1, x), [re_term("g", g, np.ones(240))], freq=counts[g].astype(float), nagq=nagq))
    rows = np.concatenate([np.flatnonzero(g == k) for k in range(12) for _ in range(counts[k])])
    label = np.concatenate([np.full((g == k).sum(), 10 * k + c) for k in range(12) for c in range(counts[k])])
    group = np.unique(label, return_inverse=True)[1]
    agree(counted, fit(problem(POISSON, "log", y[rows], columns(1, x[rows]), [re_term("g", group, np.ones(len(rows)))], nagq=nagq)))
    assert any("whole groups" in note for note in counted.notes)


def test_trials_are_rows_of_zeros_and_ones():
    """cbind(successes, failures) = the same outcomes one by one, but for the constant of the likelihood."""
    d = frame("cbpp")
    together = fit(cbpp())
    rows = np.repeat(np.arange(56), d["size"])
    y = np.concatenate([np.r_[np.ones(a), np.zeros(b - a)] for a, b in zip(d["incidence"], d["size"])])
    apart = fit(
        problem(BINOMIAL, "logit", y, columns(1, treatment(d["period"]))[rows], [re_term("herd", codes(d["herd"][rows]), np.ones(842))])
    )
    np.testing.assert_allclose(apart.coef, together.coef, atol=1e-8)
    np.testing.assert_allclose(apart.vcov, together.vcov, rtol=1e-5)


def test_recoding_x_changes_nothing_but_its_coefficients():
    """A badly scaled, far from centred basis of the same columns."""
    p = cbpp()
    M = np.array([[1, 1e3, 0, 0], [0, 1e-2, 1, 0], [0, 0, 50, 1], [0, 0, 0, 1.0]])
    a, b = fit(p), fit(evolve(p, design=evolve(p.design, X=p.design.X @ M)))
    assert b.loglik == pytest.approx(a.loglik, rel=1e-12)
    np.testing.assert_allclose(M @ b.coef, a.coef, atol=1e-7)
    np.testing.assert_allclose(M @ b.vcov @ M.T, a.vcov, rtol=1e-4)


def test_more_nodes_converge():
    """Likelihoods by 1, 5, 15, 40 nodes approach one another; one node is Laplace."""
    logliks = [fit(cbpp(nagq=k)).loglik for k in (1, 5, 15, 40)]
    steps = np.abs(np.diff(logliks))
    assert steps[0] > 50 * steps[1] > 2500 * steps[2]


def test_uncorrelated_slopes_are_two_terms():
    rng, g, _, x, eta = simulated(3)
    y = rng.poisson(np.exp(eta)).astype(float)
    Z = columns(1, x)
    one = fit(problem(POISSON, "log", y, Z, [re_term("g", g, Z, mask=np.eye(2, dtype=bool))]), BoundaryWarning)
    two = fit(problem(POISSON, "log", y, Z, [re_term("g", g, np.ones(240)), re_term("g", g, x, names=["x"])]), BoundaryWarning)
    agree(one, two)


def test_the_dispersion_of_a_negative_binomial_may_be_given():
    free = fit(cbpp("log", negbinomial()))
    given_theta = fit(cbpp("log", negbinomial(free.aux["theta"])))
    assert given_theta.loglik == pytest.approx(free.loglik, rel=1e-11)
    np.testing.assert_allclose(given_theta.coef, free.coef, atol=1e-7)
    assert given_theta.npar == free.npar - 1


# ---------------------------------------------------------------- refits
@pytest.mark.parametrize("nagq", [0, 1, 7])
def test_a_refit_from_the_fit_is_the_fit_and_quicker(nagq):
    p = cbpp(nagq=nagq)
    once = fit(p)
    again = fit(evolve(p, options=FitOptions(nagq=nagq, start=pickle.loads(pickle.dumps(once)))))
    agree(again, once)
    assert again.outcome.iterations < once.outcome.iterations


def test_a_start_may_be_given():
    agree(fit(cbpp(start=[0.3])), fit(cbpp()))
    agree(fit(cbpp(start={"theta": [0.3], "coef": [-1, 0, 0, 0]})), fit(cbpp()))
    for bad in ([0.3, 0.2], {"sd": 1}, "theta", {"theta": [np.nan]}):
        with pytest.raises(OptionError, match="start="):
            fit_glmm(cbpp(start=bad))


def same_draws(many, single):
    """Refits one by one, and those of the batch that reached their end in it; separated replicates are not among these."""
    fine = many.code == 0
    assert fine.mean() > 0.8
    assert (single.code[fine] == 0).all()
    for name, rtol in (("coef", 1e-7), ("theta", 1e-7), ("loglik", 1e-10), ("se", 1e-5), ("sigma", 0.0)):
        np.testing.assert_allclose(getattr(many, name)[fine], getattr(single, name)[fine], rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("family", ["binomial", "poisson", "slope"])
@pytest.mark.parametrize("unit", ["response", "group"])
def test_refits_in_lock_step_are_refits_one_by_one(family, unit):
    rng = np.random.default_rng(4)
    if family == "slope":
        _, g, _, x, eta = simulated(5)
        y = (rng.random(240) < 1 / (1 + np.exp(-eta - x * rng.standard_normal(12)[g]))).astype(float)
        p = problem(BINOMIAL, "probit", y, columns(1, x), [re_term("g", g, columns(1, x))])
    else:
        p = cbpp() if family == "binomial" else cbpp("log", POISSON)
    once = fit(p)
    group, n = p.design.random.terms[0].group, p.design.n
    if unit == "group":
        G = int(group.max()) + 1
        replicates = Replicates(freq=rng.multinomial(G, np.ones(G) / G, size=12).astype(float)[:, group])
    elif family == "poisson":
        replicates = Replicates(y=rng.poisson(once.mu, (12, n)).astype(float))
    else:
        trials = np.ones(n) if p.design.weights is None else p.design.weights
        replicates = Replicates(y=rng.binomial(trials.astype(int), once.mu, (12, n)) / trials)
    same_draws(glmm_many(p, once, replicates), _one_by_one(p, once, replicates))


def test_a_separated_replicate_is_left_to_a_fit_of_its_own():
    p = cbpp()
    y = np.tile(p.design.y, (3, 1))
    y[1, p.design.X[:, 3] == 1] = 0.0
    made = glmm_many(p, fit(p), Replicates(y=y))
    assert made.code[0] == made.code[2] == 0
    assert made.code[1] != 0
    np.testing.assert_allclose(made.coef[0], fit(p).coef, rtol=1e-8)


def test_what_has_no_batched_form_is_fitted_one_by_one():
    p, n = cbpp(), 56
    once = fit(p)
    uneven = Replicates(freq=1.0 + (np.arange(n) % 2)[None])
    assert glmm_many(p, once, uneven) is None
    for other in (cbpp(nagq=0), cbpp(nagq=5), cbpp("log", negbinomial())):
        assert glmm_many(other, fit(other), Replicates(y=np.tile(other.design.y, (2, 1)))) is None


# ---------------------------------------------------------------- ends, said once
def test_a_variance_of_zero_is_said_and_is_the_model_without_it():
    rng = np.random.default_rng(5)
    g, x = np.repeat(np.arange(10), 12), rng.standard_normal(120)
    y = (rng.random(120) < 0.5).astype(float)
    X = columns(1, x)
    made = fit(problem(BINOMIAL, "logit", y, X, [re_term("g", g, np.ones(120))]), BoundaryWarning)
    plain = model("y ~ x", {"y": y, "x": x}, family="binomial").fit().fit_state
    assert made.theta[0] == 0.0
    np.testing.assert_array_equal(made.b, 0.0)
    np.testing.assert_allclose(made.coef, plain.coef, atol=1e-9)
    np.testing.assert_allclose(made.vcov, plain.vcov, rtol=1e-6)
    assert made.loglik == pytest.approx(plain.loglik, rel=1e-12)
    assert made.outcome.boundary == ("variance of Intercept in g",)
    assert "estimated as 0" in made.outcome.message


def test_perfectly_correlated_slopes_are_said():
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(30), 8), rng.standard_normal(240)
    u = 0.8 * rng.standard_normal(30)
    y = rng.poisson(np.exp(0.2 + (u[g]) * (1 + 0.7 * x))).astype(float)
    made = fit(problem(POISSON, "log", y, columns(1, x), [re_term("g", g, columns(1, x))]), BoundaryWarning)
    assert made.outcome.boundary == ("correlation of Intercept and x1 in g (+1)",)
    assert made.theta[2] == 0.0
    assert (np.diag(made.vcov) > 0).all()


def test_counts_no_more_dispersed_than_poisson_are_said():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(10), 8)
    y = rng.binomial(6, 0.5, 80) + 2.0 * (g > 4)
    p = problem(negbinomial(), "log", y, np.ones((80, 1)), [re_term("g", g, np.ones(80))])
    made, poisson = fit(p, BoundaryWarning), fit(evolve(p, family=POISSON))
    assert "Poisson" in made.outcome.message
    assert made.loglik == pytest.approx(poisson.loglik, rel=1e-12)
    np.testing.assert_allclose(made.vcov, poisson.vcov, rtol=1e-5)
    assert made.npar == poisson.npar + 1
    agree(fit(evolve(p, options=FitOptions(start=made)), BoundaryWarning), made)


def test_separation_is_named():
    p = cbpp()
    y = np.where(p.design.X[:, 3] == 1, 0.0, p.design.y)
    made = fit(evolve(p, design=evolve(p.design, y=y)), SeparationWarning)
    assert made.outcome.status == "suspect"
    assert "x3" in made.outcome.message
    rest = p.design.X[:, 3] == 0
    others = fit(
        problem(BINOMIAL, "logit", y[rest], p.design.X[rest, :3], [re_term("h", codes(frame("cbpp")["herd"][rest]), np.ones(rest.sum()))],
                weights=p.design.weights[rest])
    )  # fmt: skip
    np.testing.assert_allclose(made.coef[:3], others.coef, atol=1e-4)


def test_a_search_cut_short_says_so():
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        made = fit_glmm(cbpp(max_iter=1))
    assert made.outcome.status == "suspect"


def test_notes_name_the_approximation():
    assert fit(cbpp()).notes == ("Laplace approximation of the likelihood",)
    assert "expected information" in fit(cbpp("probit")).notes[0]
    assert "observed information" in fit(cbpp("log", negbinomial())).notes[0]
    assert "9 nodes" in fit(cbpp(nagq=9)).notes[0]
    assert "known variances" in fit(cbpp(nagq=0)).notes[0]


def test_an_effect_per_row_is_legal_where_the_family_has_no_scale():
    y, rows = np.array([0, 2, 5, 1, 0, 9, 3, 4, 1, 30.0]), np.arange(10)
    made = fit(problem(POISSON, "log", y, np.ones((10, 1)), [re_term("row", rows, np.ones(10))]))
    assert made.theta[0] > 0.3
    for family in (GAMMA, negbinomial(), INVERSE_GAUSSIAN):
        with pytest.raises(DataError, match="as many levels as rows"):
            fit_glmm(problem(family, "log", y + 1, np.ones((10, 1)), [re_term("row", rows, np.ones(10))]))


# ---------------------------------------------------------------- refusals
def test_what_is_refused_says_what_to_do():
    p = cbpp("log", POISSON)
    with pytest.raises(Refused, match="negbinomial"):
        fit_glmm(evolve(p, family=QUASIPOISSON))
    with pytest.raises(NotYet, match="'t'"):
        fit_glmm(evolve(p, family=t(4), link=resolve_link("identity")))
    with pytest.raises(NotYet, match="mine"):
        fit_glmm(evolve(p, link=evolve(p.link, name="mine")))
    for nagq in (-1, 1.5, True, 101):
        with pytest.raises(OptionError, match="nagq="):
            fit_glmm(cbpp(nagq=nagq))
    with pytest.raises(OptionError, match="tol="):
        fit_glmm(cbpp(tol=2))
    y, X, terms, d = sleep()
    with pytest.raises(Refused, match=r"one random effect per group, and this model has \(1 \+ x1 \| Subject\)"):
        fit_glmm(problem(GAMMA, "log", y, X, [re_term("Subject", codes(d["Subject"]), X)], nagq=5))
    with pytest.raises(Refused, match="one random effect per group"):
        fit_glmm(problem(GAMMA, "log", y, X, [*terms, re_term("Days", codes(d["Days"]), np.ones(180))], nagq=5))
    with pytest.raises(DataError, match="one level"):
        fit_glmm(problem(POISSON, "log", np.ones(5), np.ones((5, 1)), [re_term("g", np.zeros(5, dtype=int), np.ones(5))]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 10_000),
    st.sampled_from(
        [(BINOMIAL, "logit"), (BINOMIAL, "cloglog"), (POISSON, "log"), (POISSON, "identity"), (GAMMA, "inverse"), (GAUSSIAN, "log")]
    ),
    st.sampled_from(["one", "slope", "crossed"]),
)
def test_hard_data_end_in_numbers_or_in_an_error_of_ours(seed, kind, structure):
    """Few rows, tiny groups, constant or separated outcomes: no LinAlgError, at most one warning, finite numbers."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(12, 40))
    g, h, x = rng.integers(0, 5, n), rng.integers(0, 3, n), rng.standard_normal(n) * 10.0 ** rng.integers(-2, 3)
    g[:5], h[:3] = np.arange(5), np.arange(3)
    family, link = kind
    y = {"binomial": rng.random(n) < rng.choice([0.1, 0.5]), "poisson": rng.poisson(rng.choice([0.3, 5.0]), n)}.get(
        family.name, rng.gamma(rng.choice([0.5, 20.0]), 1.0, n) + 1e-3
    )
    terms = [re_term("g", g, columns(1, x) if structure == "slope" else np.ones(n))]
    terms += [re_term("h", h, np.ones(n))] * (structure == "crossed")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            made = fit_glmm(problem(family, link, y.astype(float), columns(1, x), terms))
        except BossaError:
            return
    assert len(said) <= 1
    assert all(issubclass(w.category, BossaWarning) for w in said)
    assert np.isfinite(made.coef).all()
    assert np.isfinite(made.loglik)
    assert (made.outcome.status == "ok") == (not said)


def test_the_golden_cases_are_all_here():
    assert sorted(p.stem for p in Path(GOLDEN / "cases").glob("glmm_*.json")) == CASES
