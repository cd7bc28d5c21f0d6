"""What tables, summaries and pictures say of posteriors and streams: one meaning for `estimate`, every column in the glossary."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model, normal
from bossa.report.table import COLUMNS


def weeks(T=6, n=30, seed=1):
    rng = np.random.default_rng(seed)
    week = np.repeat(np.arange(T), n)
    t, g = rng.integers(0, 2, T * n), rng.choice(["a", "b", "c"], T * n)
    return pl.DataFrame({"y": 1 + 0.5 * t + (g == "b") + rng.normal(size=T * n), "t": t, "g": g, "week": week})


@pytest.mark.parametrize("query", [None, "pairwise(g)", "slope(t)"])
@pytest.mark.parametrize("drift", [0, "ml"])
def test_the_estimate_of_a_stream_is_its_posterior_mean(query, drift):
    data = weeks()
    m = model("y ~ t + g", data.filter(pl.col("week") < 5)).fit()
    fit = m.params["estimate"].to_list()
    m = m if query is None else m.explore(query)
    s = m.infer(how="assim", by="week", drift=drift).assimilate(data.filter(pl.col("week") == 5))
    frame = s.params if query is None else s.effects
    np.testing.assert_allclose(frame["estimate"], s.posterior.mean, rtol=0)
    np.testing.assert_allclose(frame["estimate"], s.trajectory().filter(pl.col("batch") == 5)["posterior_mean"], rtol=0)
    assert (frame["ci_lower"] < frame["estimate"]).all()
    text = str(s)
    assert "estimate: the posterior mean after the last batch, not the fit's" in text
    assert "the stream has seen 180 rows, the fit 150" in text
    assert m.params["estimate"].to_list() == fit  # the fit is as it was


def test_the_covariance_shown_is_the_streams():
    s = model("y ~ t", weeks()).fit().infer(how="assim", by="week", prior=normal(0, 1), sigma=1.0)
    np.testing.assert_allclose(np.sqrt(np.diag(s.vcov.drop("term").to_numpy())), s.params["posterior_sd"], rtol=1e-12)


@pytest.mark.parametrize("adapter", ["samples", "ensemble"])
def test_the_estimate_of_a_posterior_is_its_mean(adapter):
    cars = load_dataset("mtcars")
    m = model("am ~ wt", cars, family="poisson", prior=normal(0, 1)).fit()
    some = m.infer(how="posterior", adapter=adapter, n_draws=50, seed=1)
    np.testing.assert_allclose(some.params["estimate"], some.posterior.mean, rtol=0)
    shown = m.explore("wt@[2, 3]", scale="response").infer(how="posterior", adapter=adapter, n_draws=50, seed=1)
    assert (shown.effects["ci_lower"] < shown.effects["estimate"]).all()
    np.testing.assert_allclose(shown.effects["estimate"], np.exp(shown.posterior.mean), rtol=1e-12)
    rows = m.predict(cars[:3]).infer(how="posterior", adapter=adapter, n_draws=50, seed=1)
    np.testing.assert_allclose(rows.predictions["fitted"], np.exp(rows.posterior.mean), rtol=1e-12)


def test_every_column_of_streams_and_power_is_explained():
    s = model("y ~ t", weeks()).fit().infer(how="assim", by="week", prior=normal(0, 1))
    r = s.inference.stream
    frames = [s.params, s.trajectory(), s.monitor(), r.news(), r.weights(), r.aci(), r.params]
    frames.append(model("y ~ x").simulate(n=20, coef={"Intercept": 0, "x": 1}, sigma=1, x=normal(), power=5, seed=1))
    unknown = {c for frame in frames for c in frame.columns if c not in COLUMNS}
    assert not unknown


def test_a_linear_model_with_a_prior_is_summed_up_as_one():
    cars = load_dataset("mtcars")
    text = str(model("mpg ~ wt", cars, prior=normal(0, 10)).fit().infer().summary())
    for words in ("Residuals:", "Residual standard error:", "on 30 degrees of freedom", "R²:", "MAP"):
        assert words in text
    for words in ("Deviance", "Dispersion", "AIC", "F statistic", "OLS"):
        assert words not in text
    known = model("mpg ~ wt", cars, prior={"wt": normal(0, 1), "sigma": 2.5}).fit()
    assert "2.5000 (taken as known)" in str(known.summary())
    assert "sigma    2.5000, taken as known" in str(known)
    assert "σ is taken as known" in str(known.explain())
    assert "Residual deviance" in str(model("am ~ wt", cars, family="binomial", prior=normal(0, 1)).fit().summary())
