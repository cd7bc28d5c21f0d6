"""Real models in every state: they print, what they print is what they hold, and the worked steps lead to the estimates."""

from __future__ import annotations

import datetime
import warnings

import numpy as np
import polars as pl
import pytest

from bossa import model
from bossa.errors import BossaWarning
from bossa.report import table, text
from bossa.report.display import cell

RNG = np.random.default_rng(5)
N = 40
DATA = pl.DataFrame(
    {
        "y": RNG.gamma(4.0, size=N),
        "k": RNG.poisson(3.0, size=N),
        "s": RNG.random(N) < 0.5,
        "x": [None, float("nan"), *RNG.normal(size=N - 2)],
        "g": np.array(["b", "a", "c"])[np.arange(N) % 3],
        "h": np.arange(N) % 2 == 0,
        "w": [0.0, 1.0, 0.0, *RNG.random(N - 3)],
        "n": [*([0] * 5), *RNG.integers(1, 4, size=N - 5)],
        "day": [datetime.date(2020, 1, 1)] * N,
        "list": [[1, 2]] * N,
    }
)
FITS = {
    "lm": {"formula": "y ~ x * g + h"},
    "weights": {"formula": "y ~ x + g", "weights": "w"},
    "counts": {"formula": "y ~ x + g", "freq_weights": "n"},
    "offset": {"formula": "y ~ g + offset(x)"},
    "sum": {"formula": "y ~ g + C(h, sum)", "contrasts": {"g": "sum"}},
    "cells": {"formula": "y ~ 0 + g:h"},
    "nothing": {"formula": "y ~ 0"},
    "mean": {"formula": "y ~ 1"},
    "collinear": {"formula": "y ~ x + I(2 * x) + poly(x, 2)"},
    "binomial": {"formula": "s ~ x + g", "family": "binomial"},
    "counts of poisson": {"formula": "k ~ x + offset(x)", "family": "poisson", "freq_weights": "n"},
    "probit": {"formula": "s ~ x", "family": "binomial", "link": "probit"},
    "gamma": {"formula": "y ~ x + g", "family": "gamma", "link": "log"},
    "inverse gaussian": {"formula": "y ~ g", "family": "inverse_gaussian", "link": "log", "weights": "w"},
    "negbinomial": {"formula": "k ~ x", "family": "negbinomial"},
    "t": {"formula": "y ~ x + g", "family": "t"},
    "quasi": {"formula": "k ~ x + g", "family": "quasipoisson"},
}


def fitted(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        return model(data=DATA, **FITS[name]).fit()


def explored(m):
    """A mean, a contrast and a slope, as far as the model has the variables for them."""
    if "g" in m.encoder.variables:
        yield m.explore("g")
        yield m.explore("pairwise(g)")
    if "x" in m.encoder.variables and m.problem.design.offset is None:
        yield m.explore("slope(x)", average="observed")


def every_state(m):
    yield from (m, m.infer(), m.infer(how="joint"), m.infer(alternative="less").infer(how="joint"))
    yield from (m.predict(), m.predict(DATA.head(3)).infer(), m.predict(DATA.head(0)))
    yield from (e for query in explored(m) for e in (query, query.infer()))
    if m.spec.family.sample is not None and not m.spec.family.free:
        yield from (m.simulate(2, seed=1), m.simulate(2, seed=1).infer())


@pytest.mark.parametrize("name", FITS)
def test_every_state_prints_and_explains(name):
    m = fitted(name)
    for state in every_state(m):
        assert m.spec.formula in repr(state)
        assert "<table>" in state._repr_html_()
        for note in (*m.problem.design.notes, *m.fit_state.notes):
            assert note in repr(state)
        assert str(state.explain())
    for shown in (m.infer().summary(), m.equation(), m.equation(numbers=True)):
        assert str(shown)


@pytest.mark.parametrize("name", [n for n in FITS if n != "nothing"])
def test_worked_steps_lead_to_the_estimates(name):
    """The normal equations shown, solved, give the coefficients of the fit, for every family, weights, counts and offset."""
    e = fitted(name).explain()
    XtX = e["XtX"].drop("term").to_numpy()
    # poly() beside x is as ill-conditioned as these get: 1e-6 leaves room for a condition number of 1e8
    np.testing.assert_allclose(np.linalg.solve(XtX, e["Xty"]["Xty"]), e["estimates"]["estimate"], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(e["errors"]["se"], fitted(name).infer(df="inf").params["se"].drop_nulls(), rtol=1e-8)


@pytest.mark.parametrize("name", ["lm", "binomial", "offset"])
def test_worked_steps_of_predictions_lead_to_fitted_and_se(name):
    m = fitted(name).predict(DATA.tail(4)).infer()
    e = m.explain()
    last = e["shown"] if "shown" in [s.name for s in e.steps] else e["estimates"]
    np.testing.assert_allclose(last["estimate"], m.predictions["fitted"], rtol=1e-12)
    np.testing.assert_allclose(last["se"], m.predictions["se"], rtol=1e-8)


@pytest.mark.parametrize("name", ["lm", "binomial", "gamma", "counts"])
def test_worked_steps_of_a_question_lead_to_its_effects(name):
    for m in explored(fitted(name)):
        m = m.infer(adjust="none")
        e = m.explain()
        last = e["shown"] if "shown" in [s.name for s in e.steps] else e["estimates"]
        np.testing.assert_allclose(last["estimate"], m.effects["estimate"], rtol=1e-12)
        np.testing.assert_allclose(last["se"], m.effects["se"], rtol=1e-8)
        V = m.vcov.drop("term").to_numpy()
        L = e["L"].select(m.design.names).to_numpy()
        np.testing.assert_allclose(np.sqrt(np.diag(L @ V @ L.T)), e["estimates"]["se"], rtol=1e-8)


@pytest.mark.parametrize("name", FITS)
def test_every_column_that_is_added_is_in_the_glossary(name):
    m = fitted(name).infer()
    frames = [m.params, m.diagnostics, m.glance(), m.tidy(), m.augment(), m.metadata, m.predict().infer().predictions, m.jointtest()]
    if name in ("lm", "weights", "binomial"):
        frames.append(m.vif())
    frames += [e.infer().effects for e in explored(m)]
    for frame in frames:
        added = {c.removesuffix("_bossa") for c in frame.columns if c not in DATA.columns}
        assert added <= set(table.COLUMNS)


def test_rows_not_used_have_a_reason():
    m = fitted("weights")
    reasons = m.metadata.filter(~pl.col("used"))
    assert dict(zip(reasons["row"], reasons["reason"])) == {0: "missing: x", 1: "missing: x", 2: "w is 0"}
    assert m.metadata["reason"].null_count() == N - 3
    assert fitted("counts").metadata["reason"].to_list()[:5] == ["missing: x", "missing: x", "n is 0", "n is 0", "n is 0"]
    logged = model("y ~ log(x)", DATA).fit().metadata.filter(~pl.col("used"))["reason"]
    assert set(logged) == {"missing: x", "a term has no value"}


def test_augment_returns_every_row_in_its_order():
    frame = fitted("lm").augment()
    assert frame.select(DATA.columns).equals(DATA)
    assert frame["fitted"].is_null().to_list() == [True, True] + [False] * (N - 2)
    np.testing.assert_allclose((frame["fitted"] + frame["resid"] - frame["y"]).drop_nulls(), 0, atol=1e-12)


def test_levels_and_reference_are_shown():
    assert "g: [a*] b c" in repr(fitted("lm"))
    assert "h: [FALSE*] TRUE   (* = reference)" in repr(fitted("lm"))
    assert "g: a b c   (sum coding)" in repr(fitted("sum"))
    assert "g: a b c   (one coefficient each)" in repr(fitted("cells"))
    reordered = model("y ~ g", DATA, levels={"g": ["c", "a", "b"]}).fit()
    assert "g: [c*] a b" in repr(reordered)
    many = model("y ~ factor(row)", {"y": DATA["y"], "row": [i // 2 for i in range(N)]}).fit()
    assert "… 8 more" in repr(many)


def test_printed_numbers_are_the_frames():
    m = fitted("lm").infer()
    shown = text.grid(m.params)
    for name, column in zip(shown.names, shown.columns):
        values = m.params[name].to_list()
        for value, printed in zip(values, column):
            assert printed == value if name == "term" else float(printed) == pytest.approx(value, abs=0.006 * max(m.params["se"]))
    assert all(c in repr(m) for column in shown.columns for c in column)


@pytest.mark.parametrize("name", ["lm", "gamma"])
def test_summary_shows_the_models_numbers(name):
    m = fitted(name).infer()
    said, d = str(m.summary()), m.diagnostics.row(0, named=True)
    keys = ["sigma", "rsquared", "rsquared_adj", "fstat"] if name == "lm" else ["null_deviance", "deviance", "aic", "dispersion"]
    for key in keys:
        assert cell(float(d[key])) in said
    assert m.spec.formula in said
    quantiles = np.quantile(m.augment()["resid" if name == "lm" else "deviance_resid"].drop_nulls(), [0, 0.25, 0.5, 0.75, 1])
    for value in quantiles:
        assert cell(float(value)) in said


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (x || g) + (1 | h)", "s ~ x + (1 | g)"])
def test_mixed_models_print_with_their_variances(formula):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        m = model(formula, DATA, family="binomial" if formula.startswith("s") else "gaussian").fit()
    assert "mixed model, fitted" in repr(m)
    assert "g: 3" in repr(m)
    for column in text.grid(m.varying_spread).columns:
        assert all(c in repr(m) and c in str(m.summary()) for c in column)
    assert str(m.explain())
    assert m.equation().latex.count(r"\mathcal{N}") >= 1
    for frame in (m.varying_spread, m.varying_offsets, m.varying_params):
        assert set(frame.columns) <= set(table.COLUMNS)


def test_trials_of_a_binomial_count_are_named():
    data = {"a": [1.0, 3, 4, 2], "b": [4.0, 2, 3, 3], "n": [5, 5, 7, 5], "x": [1.0, 2, 3, 5]}
    latex = [model(f, data, family="binomial").fit().equation().latex for f in ("cbind(a, n - a) ~ x", "cbind(a, b) ~ x")]
    assert r"\text{a}_i &\sim \operatorname{Binomial}(\text{n}_i, \mu_i)" in latex[0]
    assert r"\text{a}_i &\sim \operatorname{Binomial}(\text{a}_i + \text{b}_i, \mu_i)" in latex[1]


NAMES = ["two words", "<i>", "a_b", "100%", "größe", "x&y", "{", "\\frac", "$"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_print_everywhere(name):
    data = pl.DataFrame({"y": DATA["y"], name: DATA["k"].cast(pl.Float64)})
    quoted = name.replace("\\", "\\\\")  # a backslash escapes between backticks, as in R
    m = model(f"y ~ `{quoted}`", data).fit().infer()
    assert name in repr(m)
    assert str(m.summary())
    assert str(m.explain())
    assert m.equation().latex.count(r"\begin") == m.equation().latex.count(r"\end")
    assert m._repr_html_()


def test_columns_that_clash_keep_the_users():
    data = DATA.select("y", pl.col("k").alias("fitted"))
    m = model("y ~ fitted", data).fit()
    assert m.augment().columns[:3] == ["y", "fitted", "fitted_bossa"]
    assert m.predict().infer().predictions.columns == ["y", "fitted", "fitted_bossa", "se", "ci_lower", "ci_upper"]


def test_a_saturated_fit_prints_nulls_for_what_has_no_number():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        m = model("y ~ factor(row)", {"y": [1.0, 2.0, 4.0], "row": [0, 1, 2]}).fit().infer()
    assert m.params["se"].null_count() == 3
    for shown in (m.summary(), m.equation(numbers=True), m.explain(), m.predict().infer(), m.infer(how="joint")):
        assert str(shown)
    assert "suspect" in repr(m)
    assert "NaN" not in repr(m.params)


def test_many_rows_cost_no_time_to_print():
    """repr of a model shows a few rows: it must not format a million."""
    big = model("y ~ x", {"y": np.arange(200_000.0) % 7, "x": np.arange(200_000.0)}).fit().predict()
    import time

    start = time.perf_counter()
    assert "199990 more rows" in repr(big)
    assert time.perf_counter() - start < 1.0
