"""how="assim" of models: the same stream as `bossa.assimilate.batches`, of coefficients and of effects, one batch further at a time."""

from __future__ import annotations

import pickle

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.assimilate import batches, resume
from bossa.errors import DataError, NotFitted, OptionError, Refused, UnknownOption
from bossa.state.distributions import normal
from bossa.state.provenance import verify_chain


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(2)
    n = 240
    g, x = rng.choice(["a", "b", "c"], size=n), rng.normal(size=n)
    y = 1 + 0.5 * x + (g == "b") + rng.normal(size=n)
    return pl.DataFrame({"y": y, "x": x, "g": g, "week": np.repeat(np.arange(8), 30)})


@pytest.fixture(scope="module")
def fitted(data):
    return model("y ~ x + g", data).fit()


def test_flat_prior_and_no_drift_is_the_models_own_inference(fitted):
    m, asymp = fitted.infer(how="assim", by="week"), fitted.infer()
    np.testing.assert_allclose(m.params["posterior_mean"], asymp.params["estimate"], rtol=1e-13)
    np.testing.assert_allclose(m.params.select("ci_lower", "ci_upper"), asymp.params.select("ci_lower", "ci_upper"), rtol=1e-12)
    np.testing.assert_allclose(m.posterior.scale(), asymp.params["se"], rtol=1e-12)
    assert m.posterior.df == 236
    wide = fitted.infer(how="assim", by="week", conf_level=0.99)
    assert (wide.params["ci_upper"] > m.params["ci_upper"]).all()


def test_it_is_the_one_call_form(data, fitted):
    m = fitted.infer(how="assim", by="week", prior=normal(0, 2), drift="bayes", sigma=1.0)
    r = batches("y ~ x + g", data, by="week", prior=normal(0, 2), drift="bayes", sigma=1.0)
    assert m.trajectory().equals(r.trajectory())
    assert m.trajectory(smoothed=True).equals(r.trajectory(smoothed=True))


def test_an_effect_is_followed_as_the_contrast_of_the_coefficients(fitted):
    e = fitted.explore("pairwise(g)").infer(how="assim", by="week", drift=0.01, sigma=1.0)
    m = fitted.infer(how="assim", by="week", drift=0.01, sigma=1.0)
    path = e.trajectory().filter(pl.col("term") == "b - c")
    coef = m.inference.stream
    L = np.array([0, 0, 1, -1.0])
    np.testing.assert_allclose(path["posterior_mean"], coef.posterior_mean @ L, rtol=1e-12)
    np.testing.assert_allclose(path["posterior_sd"], np.sqrt(coef.covariance @ L @ L), rtol=1e-12)
    assert e.effects["posterior_mean"][2] == pytest.approx(float(coef.final_mean @ L), rel=1e-12)
    assert e.posterior.names == ("a - b", "a - c", "b - c")
    asymp = fitted.explore("pairwise(g)").infer(adjust="none").effects
    flat = fitted.explore("pairwise(g)").infer(how="assim", by="week").effects
    np.testing.assert_allclose(flat.select("ci_lower", "ci_upper"), asymp.select("ci_lower", "ci_upper"), rtol=1e-11)


def test_response_scale_limits_are_carried_through_the_link(data):
    m = model("b ~ x", data.with_columns(b=pl.col("y") > 1), family="binomial").fit()
    e = m.explore("x@[0, 1]", scale="response").infer(how="assim", by="week", sweeps=6)
    asymp = m.explore("x@[0, 1]", scale="response").infer().effects
    np.testing.assert_allclose(e.effects.select("ci_lower", "ci_upper"), asymp.select("ci_lower", "ci_upper"), rtol=1e-8)
    np.testing.assert_allclose(e.effects["posterior_sd"], asymp["se"], rtol=1e-8)


@pytest.mark.parametrize("query", [None, "pairwise(g)"])
def test_one_batch_further_is_all_batches_at_once(data, fitted, query):
    early = model("y ~ x + g", data.filter(pl.col("week") < 6)).fit()
    if query is not None:
        early, fitted = early.explore(query), fitted.explore(query)
    before = early.infer(how="assim", by="week")
    m = before.assimilate(data.filter(pl.col("week") == 6)).assimilate(data.filter(pl.col("week") == 7))
    whole = fitted.infer(how="assim", by="week")
    assert m.trajectory().equals(whole.trajectory())
    assert before.trajectory().height * 4 == whole.trajectory().height * 3  # the first model is as it was
    np.testing.assert_allclose(m.posterior.mean, whole.posterior.mean, rtol=0)


def test_a_posterior_is_the_next_prior(data):
    first = model("y ~ x + g", data.filter(pl.col("week") < 4)).fit().infer(how="assim", by="week")
    second = model("y ~ x + g", data.filter(pl.col("week") >= 4)).fit().infer(how="assim", by="week", prior=first.posterior)
    whole = model("y ~ x + g", data).fit().infer(how="assim", by="week")
    np.testing.assert_allclose(second.posterior.mean, whole.posterior.mean, rtol=1e-11)
    np.testing.assert_allclose(second.posterior.cov.dense(), whole.posterior.cov.dense(), rtol=1e-10)
    assert second.posterior.df == pytest.approx(whole.posterior.df)


def test_provenance_knows_each_batch(data, fitted):
    m = fitted.infer(how="assim", by="week")
    origin = m.posterior.provenance
    assert origin.obs_ops_used == tuple(str(w) for w in range(8))
    assert origin.verify(data.filter(pl.col("week") == 3), batch="3")
    assert not origin.verify(data.filter(pl.col("week") == 3).with_columns(y=pl.col("y") + 1e-12), batch="3")


def test_states_chain_by_their_hashes(data, fitted):
    early = model("y ~ x + g", data.filter(pl.col("week") < 6)).fit().infer(how="assim", by="week")
    later = early.assimilate(data.filter(pl.col("week") == 6))
    latest = later.assimilate(data.filter(pl.col("week") == 7))
    assert verify_chain([early.posterior, later.posterior, latest.posterior])
    with pytest.raises(DataError, match="does not build on"):
        verify_chain([latest.posterior, later.posterior])


def test_assimilated_models_pickle(fitted, data):
    m = pickle.loads(pickle.dumps(fitted.infer(how="assim", by="week")))
    assert m.trajectory().height == 32


@pytest.mark.parametrize("bars", ["(Days | Subject)", "(Days || Subject)", "(1 | Subject)", "(1 | Subject) + (0 + Days | Subject)"])
@pytest.mark.parametrize("by", ["Days", "Subject", "half"])
def test_mixed_models_end_at_the_fit_whether_groups_span_batches_or_not(bars, by):
    """Given the fit's variances the last state is its fixed effects, their standard errors and its restricted likelihood."""
    sleep = load_dataset("sleepstudy").with_columns(half=pl.int_range(180) % 2)
    m = model(f"Reaction ~ Days + {bars}", sleep).fit()
    s = m.infer(how="assim", by=by)
    np.testing.assert_allclose(s.posterior.mean, m.fit_state.coef, rtol=1e-9)
    np.testing.assert_allclose(s.posterior.scale(), np.sqrt(np.diag(m.fit_state.vcov)), rtol=1e-7)
    known = m.infer(how="assim", by=by, sigma=m.fit_state.sigma)
    assert known.inference.stream.log_evidence == pytest.approx(m.fit_state.loglik, abs=1e-6)
    assert s.params["term"].to_list() == ["Intercept", "Days"]
    modes = s.inference.stream.solution.path.last.mean[2:]
    assert np.isfinite(modes).all()


def test_mixed_streams_go_on_and_are_stored():
    sleep = load_dataset("sleepstudy")
    m = model("Reaction ~ Days + (Days | Subject)", sleep).fit()
    whole = m.infer(how="assim", by="Days").inference.stream
    again = resume(whole.to_json())
    np.testing.assert_array_equal(again.final_mean, whole.final_mean)
    more = sleep.filter(pl.col("Days") == 9).with_columns(Days=pl.lit(10))
    assert again.update(more).diagnostics["n"] == 198
    with pytest.raises(DataError, match="Subject"):
        again.update(more.with_columns(Days=pl.lit(11), Subject=pl.lit("new")))


def test_what_cannot_be_done_says_so(data, fitted):
    with pytest.raises(OptionError, match="by='week'"):
        fitted.infer(how="assim")
    with pytest.raises(DataError, match="'week'"):
        fitted.infer(how="assim", by="weak")
    with pytest.raises(UnknownOption, match="'drift'"):
        fitted.infer(how="assim", by="week", drft=1)
    with pytest.raises(UnknownOption, match="alternative"):
        fitted.infer(how="assim", by="week", alternative="less")
    with pytest.raises(NotFitted, match="how='assim'"):
        fitted.infer().assimilate(data)
    with pytest.raises(NotFitted, match="how='assim'"):
        fitted.trajectory()
    with pytest.raises(Refused, match="predictions"):
        fitted.predict(data).infer(how="assim", by="week")
    m = fitted.infer(how="assim", by="week")
    with pytest.raises(DataError, match="'week'"):
        m.assimilate(data.drop("week"))
    with pytest.raises(DataError, match="'x'"):
        m.assimilate(data.drop("x").with_columns(week=99))
