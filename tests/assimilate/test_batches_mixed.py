"""Mixed models batch by batch: equal to generalized least squares, or to the fit's mode, given the fit's relative variances."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from bossa import load_dataset, model
from bossa.assimilate import batches, discount, nig, resume
from bossa.assimilate.arriving import taken
from bossa.assimilate.begin import Asked, begin
from bossa.assimilate.mixed import FromFit, varying_of
from bossa.assimilate.stream import followed
from bossa.errors import DataError, NotYet, Refused
from bossa.state.distributions import normal

GROUPS = 60


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(GROUPS), 8)
    n, x = len(g), rng.normal(size=len(g))
    u, v = rng.normal(size=GROUPS) * 0.8, rng.normal(size=GROUPS) * 0.4
    frame = {"g": [f"s{i:02}" for i in g], "x": x, "y": 1 + 0.5 * x + u[g] + v[g] * x + 0.7 * rng.normal(size=n)}
    frame |= {"b": (rng.random(n) < 1 / (1 + np.exp(-(-0.3 + 0.6 * x + u[g])))).astype(int)}
    frame |= {"c": rng.poisson(np.exp(0.3 + 0.4 * x + 0.5 * u[g])), "inside": g // 6, "across": np.arange(n) % 7}
    frame["y"] = frame["y"] + rng.normal(size=GROUPS)[g // 3]
    return pl.DataFrame(frame | {"h": [f"h{i}" for i in g // 3], "w": rng.uniform(0.5, 2, n)})


@pytest.fixture(scope="module")
def slopes(data):
    return model("y ~ x + (x | g)", data, weights="w").fit()


def gls(m, sigma, prior_sd=math.inf):
    """Posterior mean, covariance and log-evidence by the dense marginal covariance."""
    X, y, terms = m.design.X, m.design.y, m.design.random.terms
    at, V = 0, np.diag(1 / np.ones(len(y)) if m.design.weights is None else 1 / m.design.weights)
    for term in terms:
        k = len(term.names)
        T = np.zeros((k, k))
        count = int(np.asarray(term.mask).sum())
        T.T[np.asarray(term.mask).T] = m.fit_state.theta[at : at + count]
        at += count
        Z = np.zeros((len(y), len(term.levels), k))
        Z[np.arange(len(y)), term.group] = term.Z @ T
        V = V + np.einsum("iga,jga->ij", Z, Z)
    V = sigma**2 * V
    W = np.linalg.solve(V, X)
    P = np.linalg.inv(X.T @ W + np.eye(X.shape[1]) / prior_sd**2)
    evidence = None if math.isinf(prior_sd) else stats.multivariate_normal(np.zeros(len(y)), V + prior_sd**2 * X @ X.T).logpdf(y)
    return P @ (W.T @ y), P, evidence


@pytest.mark.parametrize("by", ["inside", "across"])
def test_linear_mixed_batches_are_generalized_least_squares(slopes, by):
    mean, V, _ = gls(slopes, 0.7)
    r = slopes.infer(how="assim", by=by, sigma=0.7).inference.stream
    np.testing.assert_allclose(r.final_mean, mean, atol=1e-12)
    np.testing.assert_allclose(r.covariance[-1], V, rtol=1e-10)
    mean, V, evidence = gls(slopes, 0.7, 0.3)
    r = slopes.infer(how="assim", by=by, sigma=0.7, prior=normal(0, 0.3))
    np.testing.assert_allclose(r.inference.stream.final_mean, mean, atol=1e-12)
    np.testing.assert_allclose(r.inference.stream.covariance[-1], V, rtol=1e-10)
    assert r.inference.stream.log_evidence == pytest.approx(evidence, abs=1e-9)
    assert any(("lie inside" if by == "inside" else "span") in note for note in r.inference.notes)
    assert "taken as known" in r.inference.notes[0]


def test_both_ways_are_one_posterior(data, slopes):
    """σ unknown with a prior, after every batch: random effects integrated out, or carried with the coefficients."""
    options = {"prior": normal(0, 1), "sigma": nig(3, 2), "sigma0": 0.8}
    inside = slopes.infer(how="assim", by="inside", **options).inference.stream
    fit = slopes.fit_state
    asked = Asked(by="inside", where="here", **options)
    varying = FromFit(varying=varying_of(slopes.design.random, fit.theta, 2, fit.sigma, "here"))
    carried = followed(taken(begin(slopes.encoder, slopes.design.kept, asked, varying), data), None)
    assert inside.state.within is not None
    np.testing.assert_allclose(carried.posterior_mean, inside.posterior_mean, atol=1e-11)
    np.testing.assert_allclose(carried.posterior_sd, inside.posterior_sd, rtol=1e-10)
    np.testing.assert_allclose(carried.log_evidences, inside.log_evidences, atol=1e-9)


@pytest.mark.parametrize("formula", ["y ~ x + (1 | h) + (1 | g)", "y ~ x + (1 | h/g)", "y ~ x + (1 | g) + (0 + x | g)"])
def test_nested_and_crossed_groups_inside_batches(data, formula):
    m = model(formula, data).fit()
    r = m.infer(how="assim", by="inside", sigma=0.7).inference.stream
    assert r.state.within is not None
    mean, V, _ = gls(m, 0.7)
    np.testing.assert_allclose(r.final_mean, mean, atol=1e-12)
    np.testing.assert_allclose(r.covariance[-1], V, rtol=1e-10)


@pytest.mark.parametrize("by", ["inside", "across"])
def test_drift_of_mixed_models_is_the_dense_joint_gaussian(data, by):
    small = data.filter(pl.col("inside") < 3)
    m = model("y ~ x + (1 | g)", small).fit()
    r = m.infer(how="assim", by=by, sigma=0.7, prior=normal(0, 2), drift={"x": 0.2}).inference.stream
    batch = small[by].rank("dense").to_numpy().astype(int)
    X, y, term, theta = m.design.X, m.design.y, m.design.random.terms[0], float(m.fit_state.theta[0])
    T = batch.max()
    H = np.zeros((len(y), T * 2))
    for i, t in enumerate(batch):
        H[i, 2 * (t - 1) : 2 * t] = X[i]
    when = np.arange(1, T + 1)
    prior = np.kron(np.ones((T, T)), 4 * np.eye(2)) + np.kron(np.minimum.outer(when, when), np.diag([0.0, 0.2]))
    same = term.group[:, None] == term.group
    S = H @ prior @ H.T + 0.49 * (np.eye(len(y)) + theta**2 * same)
    mean = prior @ H.T @ np.linalg.solve(S, y)
    V = prior - prior @ H.T @ np.linalg.solve(S, H @ prior)
    np.testing.assert_allclose(r.final_mean, mean[-2:], atol=1e-10)
    np.testing.assert_allclose(r.covariance[-1], V[-2:, -2:], atol=1e-10)
    assert r.log_evidence == pytest.approx(stats.multivariate_normal(np.zeros(len(y)), S).logpdf(y), abs=1e-9)
    np.testing.assert_allclose(r.smoothed_mean.ravel(), mean, atol=1e-9)


@pytest.mark.parametrize("drift", ["ml", "bayes"])
def test_unknown_drift_of_mixed_models(data, drift):
    """The same data, integrated out or carried: the unit of q and the evidence agree where every batch has its own groups."""
    m = model("y ~ x + (1 | g)", data).fit()
    r = m.infer(how="assim", by="inside", sigma=0.7, drift=drift).inference.stream
    assert np.isfinite(r.log_evidence)
    later = model("y ~ x + (1 | g)", data.filter(pl.col("inside") < 4)).fit()
    carried = later.infer(how="assim", by="across", sigma=0.7, drift=drift).inference.stream
    still = later.infer(how="assim", by="across", sigma=0.7).inference.stream
    assert (carried.final_sd >= still.final_sd * (1 - 1e-9)).all()
    assert len(carried.diagnostics["Q"]) == 2 + 24
    np.testing.assert_array_equal(carried.diagnostics["Q"][2:], 0.0)


@pytest.mark.parametrize(("response", "family"), [("b", "binomial"), ("c", "poisson"), ("c", "negbinomial")])
def test_generalized_mixed_batches_sweep_to_the_fits_laplace_mode(data, response, family):
    m = model(f"{response} ~ x + (1 | g)", data, family=family).fit()
    fitted, se = np.asarray(m.fit_state.coef), np.sqrt(np.diag(m.fit_state.vcov))
    errors = []
    for sweeps in (0, 1, 2, 4, 8):
        r = m.infer(how="assim", by="inside", sweeps=sweeps).inference.stream
        errors.append(np.abs((r.final_mean - fitted) / se).max())
    assert errors[0] < 0.3  # measured .05 and less
    assert errors[1] < 0.01
    assert errors[2] < 2e-4
    assert errors[4] < 1e-8  # where the fit's own search ends
    np.testing.assert_allclose(r.final_sd, se, rtol=0.06)  # the fit's has the variances unknown
    assert any("Laplace" in note and "random effects" in note for note in r.notes)


@pytest.mark.parametrize(("response", "family"), [("b", "binomial"), ("c", "poisson")])
def test_generalized_mixed_batches_that_share_groups_sweep_to_the_joint_mode(data, response, family):
    m = model(f"{response} ~ x + (1 | g)", data, family=family).fit(nagq=0)
    r = m.infer(how="assim", by="across", sweeps=7).inference.stream
    np.testing.assert_allclose(r.final_mean, m.fit_state.coef, atol=1e-9)
    np.testing.assert_allclose(r.final_sd, np.sqrt(np.diag(m.fit_state.vcov)), rtol=1e-7)
    assert any("nagq=0" in note for note in r.notes)


def test_new_groups_may_come_where_old_ones_may_not(data):
    early, late = data.filter(pl.col("inside") < 7), data.filter(pl.col("inside") >= 7)
    m = model("y ~ x + (x | g)", early).fit()
    part = resume(m.infer(how="assim", by="inside", sigma=0.7).inference.stream.to_json())
    whole = part.update(late)
    # the same variances, all the data
    mean, V, _ = gls_of(m, data, 0.7)
    np.testing.assert_allclose(whole.final_mean, mean, atol=1e-12)
    np.testing.assert_allclose(whole.covariance[-1], V, rtol=1e-10)
    assert whole.update(late.filter(pl.col("inside") == 8)).final_mean.tolist() == whole.final_mean.tolist()
    with pytest.raises(DataError, match="'s03'"):
        part.update(data.filter(pl.col("g") == "s03").with_columns(inside=pl.lit(50).cast(pl.Int64)))


def gls_of(m, data, sigma):
    """`gls` with the variances of one fit on other data."""

    class Other:
        design, fit_state = model("y ~ x + (x | g)", data).fit().design, m.fit_state

    return gls(Other, sigma)


def test_thousands_of_groups_are_no_burden():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(3000), 3)
    x = rng.normal(size=9000)
    big = pl.DataFrame({"g": g, "x": x, "y": x + rng.normal(size=3000)[g] + rng.normal(size=9000), "week": g // 100})
    m = model("y ~ x + (1 | g)", big).fit()
    s = m.infer(how="assim", by="week")
    np.testing.assert_allclose(s.posterior.mean, m.fit_state.coef, rtol=1e-9)
    np.testing.assert_allclose(s.posterior.scale(), np.sqrt(np.diag(m.fit_state.vcov)), rtol=1e-7)


def test_what_mixed_streams_cannot_do_says_so(data, slopes):
    with pytest.raises(Refused, match="discount"):
        slopes.infer(how="assim", by="across", drift=discount(0.9))
    assert slopes.infer(how="assim", by="inside", drift=discount(0.9)).params["posterior_sd"].is_finite().all()
    with pytest.raises(NotYet, match="random effects"):
        slopes.infer(how="assim", by="across", prior=normal(0, 1), sigma=1.0, backend="ibis")
    gamma = model("p ~ x + (1 | g)", data.with_columns(p=pl.col("y").exp()), family="gamma", link="log").fit()
    with pytest.raises(NotYet, match="gamma"):
        gamma.infer(how="assim", by="inside")


def test_particles_of_a_mixed_model_whose_groups_lie_inside_batches(slopes):
    exact = slopes.infer(how="assim", by="inside", prior=normal(0, 1), sigma=0.7)
    cloud = slopes.infer(how="assim", by="inside", prior=normal(0, 1), sigma=0.7, backend="ibis", seed=1)
    sd = exact.params["posterior_sd"].to_numpy()
    np.testing.assert_allclose(cloud.params["estimate"], exact.params["estimate"], atol=0.15 * sd.max())
    assert cloud.inference.stream.log_evidence == pytest.approx(exact.inference.stream.log_evidence, abs=0.4)


def test_sleepstudy_by_subject_is_the_fit():
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()
    s = m.infer(how="assim", by="Subject", sigma=m.fit_state.sigma)
    np.testing.assert_allclose(s.posterior.mean, m.fit_state.coef, rtol=1e-12)
    assert s.inference.stream.log_evidence == pytest.approx(m.fit_state.loglik, abs=1e-7)  # lme4's REML criterion, halved
    assert s.inference.stream.state.within is not None


@pytest.mark.parametrize("by", ["inside", "across"])
def test_a_drift_in_the_responses_units_takes_the_fits_sigma(data, slopes, by):
    said, given = (slopes.infer(how="assim", by=by, drift=0.01, **more) for more in ({}, {"sigma": slopes.fit_state.sigma}))
    assert any("the fit's where none is given" in note for note in said.inference.notes)
    np.testing.assert_array_equal(said.params["posterior_mean"], given.params["posterior_mean"])


def test_a_prior_is_told_in_units_of_the_fits_sigma_both_ways(slopes):
    for by in ("inside", "across"):
        notes = slopes.infer(how="assim", by=by, prior=normal(0, 1)).inference.notes
        assert any(f"V0 = sd²/{slopes.fit_state.sigma:.6g}²" in note for note in notes)


@pytest.mark.parametrize(("formula", "family"), [("y ~ x + (1 | g)", "gaussian"), ("b ~ x + (1 | g)", "binomial")])
@pytest.mark.parametrize("unit", ["rows", "groups"])
def test_counts_are_what_the_fit_took_them_for(data, formula, family, unit):
    """Copies of rows share their group's random effects; counts that are constant within groups copy whole groups."""
    rng = np.random.default_rng(0)
    k = rng.integers(1, 4, data.height) if unit == "rows" else rng.integers(1, 4, GROUPS)[np.repeat(np.arange(GROUPS), 8)]
    counted = data.with_columns(k=pl.Series(k))
    m = model(formula, counted, family=family, freq_weights="k").fit()
    options = {"how": "assim", "by": "inside"} | ({} if family == "gaussian" else {"sweeps": 8})
    s = m.infer(**options)
    np.testing.assert_allclose(s.params["posterior_mean"], m.fit_state.coef, atol=1e-9)
    np.testing.assert_allclose(s.posterior.scale(), np.sqrt(np.diag(m.fit_state.vcov)), rtol=1e-9 if family == "gaussian" else 0.06)
    assert s.inference.stream.diagnostics["n"] == k.sum()
    if unit == "groups":
        with pytest.raises(Refused, match="whole groups"):
            m.infer(how="assim", by="across")
        new = data.head(8).with_columns(g=pl.lit("new"), inside=pl.lit(99).cast(pl.Int64), k=pl.Series([1, 2] * 4))
        with pytest.raises(DataError, match="counts differ"):
            s.assimilate(new)


@pytest.mark.parametrize("by", ["inside", "across"])
def test_generalized_mixed_streams_are_stored_fed_and_asked_for_effects(data, by):
    early, late = data.filter(pl.col(by) < 5), data.filter(pl.col(by) >= 5)
    m = model("b ~ x + (1 | g)", early, family="binomial").fit()
    s = m.infer(how="assim", by=by, sweeps=6, keep_rows=True)
    stored = resume(s.inference.stream.to_json())
    np.testing.assert_array_equal(stored.final_mean, s.inference.stream.final_mean)
    np.testing.assert_array_equal(stored.update(late).final_mean, s.assimilate(late).inference.stream.final_mean)
    e = m.explore("x").infer(how="assim", by=by, sweeps=6)
    assert e.effects["posterior_mean"][0] == pytest.approx(s.params["posterior_mean"][1], rel=1e-12)


@pytest.mark.parametrize("by", ["inside", "across"])
@pytest.mark.parametrize(("formula", "family"), [("y ~ x + (x | g)", "gaussian"), ("b ~ x + (1 | g)", "binomial")])
def test_one_call_fits_the_variances_itself(data, formula, family, by):
    one = batches(formula, data, by=by, family=family)
    two = model(formula, data, family=family).fit().infer(how="assim", by=by).inference.stream
    np.testing.assert_array_equal(one.final_mean, two.final_mean)
    np.testing.assert_array_equal(one.covariance, two.covariance)
    assert one.params["term"].to_list() == ["Intercept", "x"]
    assert one.notes == two.notes


@pytest.mark.parametrize("by", ["inside", "across"])
def test_incomplete_rows_of_mixed_streams_are_left_out(data, by):
    some = data.with_columns(y=pl.when(pl.col("x") > 1).then(None).otherwise(pl.col("y")))
    m = model("y ~ x + (1 | g)", some).fit()
    r = m.infer(how="assim", by=by)
    np.testing.assert_allclose(r.params["estimate"], m.fit_state.coef, atol=1e-10)
    assert any(("lie inside" if by == "inside" else "span") in note for note in r.inference.notes)
