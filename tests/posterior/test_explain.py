"""explain() of posteriors and streams says what was assumed, and its numbers are those of the formulas it names; pictures of results."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from bossa import model, normal
from bossa.assimilate import batches, causal_kalman, discount, estimates, nig, particle_filter, resume, student_t
from bossa.errors import NotFitted, OptionError, Refused


def weeks(T=5, n=20, seed=1):
    rng = np.random.default_rng(seed)
    week, x = np.repeat(np.arange(T), n), rng.normal(size=T * n)
    return pl.DataFrame({"y": 1 + 0.5 * x + rng.normal(size=T * n), "x": x, "week": week})


def assumed(e):
    return dict(zip(e["assumptions"]["about"], e["assumptions"]["assumed"]))


@pytest.mark.parametrize(
    ("options", "about", "words"),
    [
        ({}, "prior", "flat: the batches alone decide"),
        ({"prior": normal(0, 1)}, "prior", "normal, of every number"),
        ({"prior": {"x": normal(0, 1)}}, "prior", "normal, of 1 of 2 numbers"),
        ({}, "sigma", "unknown, learnt from the rows: Student-t intervals"),
        ({"sigma": 2.0}, "sigma", "known, 2"),
        ({"sigma": "reml"}, "sigma", "then taken as known"),
        ({"sigma": nig(2, 8)}, "sigma", "a guess of 2 worth 4 rows"),
        ({}, "drift", "none: the numbers stand still"),
        ({"drift": discount(0.9)}, "drift", "counts 0.9 times as much"),
        ({"drift": 0.1, "sigma": 1.0}, "drift", "a variance that was given"),
        ({"drift": "ml"}, "drift", "estimated, then taken as known"),
        ({"drift": "bayes"}, "drift", "averaged over"),
        ({}, "order", "late ones are put where they belong"),
        ({"order": "append"}, "order", "as they came"),
        ({}, "numbers", "exact"),
    ],
    ids=str,
)
def test_what_was_assumed_is_said(options, about, words):
    assert words in assumed(batches("y ~ x", weeks(), by="week", **options).explain())[about]


def test_what_is_approximate_is_said():
    data = weeks().with_columns(y=pl.col("y") > 1)
    assert "approximate" in assumed(batches("y ~ x", data, by="week", family="binomial").explain())["numbers"]
    assert "particles, seed 1" in assumed(particle_filter([0.1, 0.2], [0.1, 0.1], seed=1).explain())["numbers"]
    robust = assumed(estimates([0.1, 0.2], [0.1, 0.1], prior=normal(0, 1), obs=student_t(4)).explain())
    assert "outliers count less" in robust["errors"]
    assert "approximate" in robust["numbers"]


@pytest.mark.parametrize("query", [None, "slope(x)"])
def test_the_last_batch_is_told_step_by_step(query):
    """Forecast and batch alone are the streams without and of it; for one number gain × innovation is the revision."""
    data = weeks()
    m = model("y ~ x", data).fit()
    m = m if query is None else m.explore(query)
    e = m.infer(how="assim", by="week", sigma=1.0).explain()
    before, alone = (
        batches("y ~ x", data.filter(where), by="week", sigma=1.0).params.filter(pl.lit(query is None) | (pl.col("term") == "x"))
        for where in (pl.col("week") < 4, pl.col("week") == 4)
    )
    np.testing.assert_allclose(e["forecast"].select("forecast", "forecast_sd"), before.select("estimate", "sd"), rtol=1e-10)
    np.testing.assert_allclose(e["batch alone"].select("batch_alone", "batch_sd"), alone.select("estimate", "sd"), rtol=1e-10)
    np.testing.assert_allclose(e["surprise"]["innovation"], alone["estimate"] - before["estimate"], rtol=1e-10)
    np.testing.assert_allclose(e["surprise"]["innovation_sd"], np.hypot(alone["sd"], before["sd"]), rtol=1e-10)
    one = causal_kalman([0.45, 0.55], [0.10, 0.12]).explain()
    moved = one["surprise"]["innovation"][0] * one["update"]["gain"][0]
    assert moved == pytest.approx(0.4881029987 - 0.4455445545, abs=1e-9)


def test_alarms_and_missing_e_values_are_told():
    y = np.r_[np.zeros(10), 3.0]
    e = causal_kalman(y, np.full(11, 0.1)).explain()
    assert {"z", "cusum", "nis"} <= set(e["disagreement"]["kind"])
    assert "no batch was off" in str(causal_kalman([0.1, 0.2], [0.1, 0.1]).explain())
    assert "e-values: none: the prior is flat" in str(batches("y ~ x", weeks(), by="week").explain())
    assert "e-values" not in str(batches("y ~ x", weeks(), by="week", prior=normal(0, 1), sigma=1.0).explain())


def test_an_empty_stream_explains_its_prior():
    for r in (causal_kalman([], [], prior_mean=1.0, prior_var=4.0), estimates([], [], prior=normal(1, 2))):
        e = r.explain()
        assert e["prior"].row(0)[1:] == (1.0, 2.0)
        assert [s.name for s in e.steps] == ["assumptions", "prior"]
        with pytest.raises(Refused, match="no batch"):
            r.plot()


def test_a_posterior_tells_prior_and_data_apart():
    data = weeks()
    post = model("y ~ x", data, prior={"x": normal(0.2, 0.1)}).fit().infer().posterior
    e = post.explain()
    plain = model("y ~ x", data).fit().infer().params
    np.testing.assert_allclose(e["data alone"]["estimate"], plain["estimate"], rtol=1e-9)
    assert e["prior"]["sd"].to_list() == [math.inf, pytest.approx(0.1)]
    np.testing.assert_allclose(e["share"]["share"], post.information().share)
    np.testing.assert_allclose(e["now"].select("ci_lower", "ci_upper").to_numpy().T, post.interval(), rtol=1e-12)
    assert "normal, flat about some numbers" in assumed(e)["prior"]
    assert "Student-t with 98 df" in assumed(e)["form"]
    text = str(model("y ~ x", data).fit().infer(how="posterior", adapter="samples", seed=1).explain())
    assert "draws alone" in text
    assert "flat: the data alone decide" in text
    scaled = model("y ~ x", data.with_columns(y=pl.col("y") > 1), family="binomial").fit().explore("x@[0, 1]", scale="response").infer()
    assert "limits through" in str(scaled.posterior.explain())
    assert "<b>" in e._repr_html_()


def test_results_have_pictures_of_their_own():
    r = batches("y ~ x", weeks(), by="week")
    for drawn, T in ((r.plot(), 5), (r.plot(smoothed=True), 5), (causal_kalman([0.1, 0.2], [0.1, 0.1]).plot(), 2)):
        assert drawn.kind == "trajectory"
        assert len(drawn.axes[0].lines[0].get_xdata()) == T
    s = model("y ~ x", weeks()).fit().infer(how="assim", by="week")
    assert s.plot().kind == s.plot_trajectory().kind == "trajectory"
    assert s.explore("slope(x)").infer(how="assim", by="week").plot().kind == "trajectory"
    assert resume(r.to_json()).plot().frame.equals(r.plot().frame)


def test_fixed_lag_paths_run_from_filter_to_smoother():
    r = batches("y ~ x", weeks(), by="week", drift=0.05, sigma=1.0)
    assert r.trajectory(lag=0).select("posterior_mean", "ci_lower").equals(r.trajectory().select("posterior_mean", "ci_lower"))
    numbers = ["posterior_mean", "posterior_sd", "ci_lower", "ci_upper"]
    np.testing.assert_allclose(r.trajectory(lag=9).select(numbers), r.trajectory(smoothed=True).select(numbers), rtol=1e-9)
    part = batches("y ~ x", weeks().filter(pl.col("week") < 3), by="week", drift=0.05, sigma=1.0).trajectory(smoothed=True)
    lagged = r.trajectory(lag=1).filter(pl.col("batch") == 1).select(numbers)
    np.testing.assert_allclose(lagged, part.filter(pl.col("batch") == 1).select(numbers), rtol=1e-9)
    s = model("y ~ x", weeks()).fit().explore("slope(x)").infer(how="assim", by="week", drift=0.05, sigma=1.0)
    np.testing.assert_allclose(s.trajectory(lag=1)["posterior_mean"], r.trajectory(lag=1).filter(pl.col("term") == "x")["posterior_mean"])
    with pytest.raises(OptionError, match="Give one"):
        r.trajectory(smoothed=True, lag=1)
    with pytest.raises(OptionError, match="lag=-1"):
        r.trajectory(lag=-1)


def test_a_model_hands_out_its_stream():
    s = model("y ~ x", weeks()).fit().infer(how="assim", by="week")
    assert s.stream.weights()["weight"].sum() == pytest.approx(2.0)
    with pytest.raises(NotFitted, match="how='assim'"):
        model("y ~ x", weeks()).fit().infer().stream.news()
