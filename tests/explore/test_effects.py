"""Laws of marginal means, slopes and contrasts, each of which some library breaks: they are averages of predictions, whatever the coding,
the names of the levels, the transforms and the rows they are averaged over."""

from __future__ import annotations

import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from bossa import model
from bossa.errors import Refused


def frame(n=90, seed=1, g=("a", "b", "c"), h=("u", "v")):
    rng = np.random.default_rng(seed)
    gi, hi = rng.choice(len(g), n, p=[0.5, 0.3, 0.2]), rng.choice(len(h), n, p=[0.7, 0.3])
    gi[: 2 * len(g)], hi[: 2 * len(g)] = np.tile(np.arange(len(g)), 2), np.repeat([0, 1], len(g))  # every cell occurs
    x, z = rng.uniform(1, 6, n), rng.normal(2, 1, n)
    on = rng.random(n) < 0.4
    eta = 0.3 * gi - 0.2 * hi * gi + 0.2 * x - 0.1 * z * x + 0.4 * on
    return pl.DataFrame(
        {
            "g": np.array(g)[gi],
            "h": np.array(h)[hi],
            "on": on,
            "k": 2 * rng.integers(1, 4, n),
            "two": rng.integers(0, 2, n),
            "x": x,
            "z": z,
            "w": rng.uniform(0.5, 2, n),
            "times": rng.integers(1, 4, n),
            "expo": rng.uniform(0.5, 3, n),
            "y": eta + rng.normal(size=n),
            "yes": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
            "count": rng.poisson(np.exp(0.3 * eta)),
            "pos": np.exp(0.2 * eta + 0.3 * rng.normal(size=n)),
        }
    )


DATA = frame()
CODINGS = ["treatment", "sum", "helmert", "poly", "sequential", np.array([[1.0, 0.0], [0.3, -2.0], [5.0, 1.0]])]
FORMULAS = [
    "y ~ g * h + x",
    "y ~ g + h + x * z",  # an interaction that does not involve the factor asked about
    "y ~ h + g:x + poly(x, 2) * h",
    "y ~ g * log(x) + on + factor(k) + two",
    "y ~ g / h + I(x^2) + bs(z, df = 4)",
    "y ~ 0 + g + h:on + scale(x) * ns(z, df = 2)",
]
QUERIES = ["g", "g ~ h", "g:h", "x@[2, 3.5]", "x@range(3):g", "1", "1 ~ g", "z@quantile(3) ~ h"]


def stated(m, query, row):
    """Σ weight × prediction over the rows of the grid that belong to a row of the result."""
    grid = m.explore(query).focus.target.details["grid"] if isinstance(query, str) else query
    for name, value in row.items():
        if name in grid.columns and value is not None:
            grid = grid.filter(pl.col(name) == value)
    fitted = m.predict(grid.drop("weight_bossa"), type="link").predictions["fitted"]
    assert grid["weight_bossa"].sum() == pytest.approx(1.0)
    return float(fitted @ grid["weight_bossa"])


@given(
    st.sampled_from(FORMULAS),
    st.integers(0, len(CODINGS) - 1),
    st.sampled_from(QUERIES),
    st.sampled_from(["equal", "proportional", "cells"]),
)
@settings(max_examples=60, deadline=None)
def test_every_row_is_the_stated_average_of_predictions(formula, coding, query, weights):
    variables = {v for v in ("g", "h", "x", "z") if v in formula.replace("scale", "").replace("log", "")}
    if not set(query.replace("range", "").replace("quantile", "")) & set("ghxz") <= variables:
        reject()
    m = model(formula, DATA, contrasts={"g": CODINGS[coding]}).fit()
    e = m.explore(query, weights=weights)
    grid = e.focus.target.details["grid"]
    for row in e.effects.iter_rows(named=True):
        if row["estimate"] is not None:
            assert row["estimate"] == pytest.approx(stated(m, grid, row), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("formula", FORMULAS[:3])
@pytest.mark.parametrize("query", ["g ~ h", "pairwise(g)", "slope(x) ~ g", "poly(g) ~ h", "change(x, 2) ~ h", "g[a - (b + c)] ~ h[u - v]"])
def test_no_coding_changes_an_answer(formula, query):
    answers = []
    for coding in CODINGS:
        m = model(formula, DATA, contrasts={"g": coding}).fit()
        answers.append(m.explore(query).infer(adjust="none").effects.select("estimate", "se", "ci_lower", "p_value").to_numpy())
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("names", [("a[1]", "g[b]", "a:b"), ("x - y", "TRUE", "1e3"), ("", "`q`", "ümlaut")])
def test_names_of_levels_do_not_matter(names):
    """Brackets, colons, minus signs and numbers in the names of levels are names, not syntax."""
    ours = frame(g=names)
    order = {"g": list(names)}
    renamed, plain = (model("y ~ g * h + x", d, levels=o).fit() for d, o in ((ours, order), (DATA, {"g": ["a", "b", "c"]})))
    for query in (
        "g ~ h",
        "pairwise(g)",
        "treatment(g)",
        "g@['{1}', '{0}']".replace("'{0}'", repr(names[0])).replace("'{1}'", repr(names[1])),
    ):
        plain_query = "g@[b, a]" if "@" in query else query
        got, wanted = renamed.explore(query).infer().effects, plain.explore(plain_query).infer().effects
        np.testing.assert_allclose(got["estimate"], wanted["estimate"], rtol=1e-9)
        np.testing.assert_allclose(got["p_value"], wanted["p_value"], rtol=1e-7)


def test_shifting_a_covariate_that_interacts_elsewhere_changes_nothing():
    """y ~ g + x * z: the means of g are the same whether x and z are centred or not."""
    moved = DATA.with_columns(pl.col("x") + 100, pl.col("z") - 50)
    for query in ("g", "pairwise(g)"):
        a, b = (model("y ~ g + x * z", d).fit().explore(query).infer().effects for d in (DATA, moved))
        np.testing.assert_allclose(a["estimate"], b["estimate"], rtol=1e-7)
        np.testing.assert_allclose(a["se"], b["se"], rtol=1e-6)


def test_means_of_a_saturated_model_average_cells_equally():
    """The balanced grid: each cell counts once, however many rows it has."""
    cells = DATA.group_by("g", "h").agg(pl.col("y").mean()).sort("g", "h")
    wanted = cells.group_by("g", maintain_order=True).agg(pl.col("y").mean())["y"]
    m = model("y ~ g * h", DATA).fit()
    np.testing.assert_allclose(m.explore("g").effects["estimate"], wanted, rtol=1e-12)
    by_rows = DATA.group_by("g", maintain_order=False).agg(pl.col("y").mean()).sort("g")["y"]
    np.testing.assert_allclose(m.explore("g", weights="cells").effects["estimate"], by_rows, rtol=1e-12)


def test_by_answers_within_each_level():
    m = model("y ~ g * h + x", DATA).fit()
    by = m.explore("pairwise(g)", by="h").infer().effects
    assert by.columns[:2] == ["contrast", "h"]
    assert by.equals(m.explore("pairwise(g) ~ h").infer().effects)
    for level in ("u", "v"):
        one = m.explore("pairwise(g)", at={"h": level}).infer(adjust="tukey").effects
        np.testing.assert_allclose(by.filter(pl.col("h") == level)["estimate"], one["estimate"], rtol=1e-12)
        np.testing.assert_allclose(by.filter(pl.col("h") == level)["p_value"], one["p_value"], rtol=1e-9)  # a family per level


@pytest.mark.parametrize("adjust", ["auto", "tukey", "bonferroni", "sidak", "scheffe", "mvt", "none"])
def test_intervals_and_p_values_are_adjusted_alike(adjust):
    frame = model("y ~ g * h + x", DATA).fit().explore("pairwise(g:h)").infer(adjust=adjust).effects
    outside = (frame["ci_lower"] > 0) | (frame["ci_upper"] < 0)
    assert (outside == (frame["p_value"] < 0.05)).all()


# ---------------------------------------------------------------- directions and names
def test_directions_of_contrasts():
    m = model("y ~ g", DATA).fit()
    a, b, c = m.explore("g").effects["estimate"]
    wanted = {
        "pairwise(g)": [("a - b", a - b), ("a - c", a - c), ("b - c", b - c)],
        "revpairwise(g)": [("b - a", b - a), ("c - a", c - a), ("c - b", c - b)],
        "sequential(g)": [("b - a", b - a), ("c - b", c - b)],
        "treatment(g)": [("b - a", b - a), ("c - a", c - a)],
        "treatment(g, ref=b)": [("a - b", a - b), ("c - b", c - b)],
        "trt.vs.ctrlk(g)": [("a - c", a - c), ("b - c", b - c)],
        "effect(g)": [(f"{n} effect", v - (a + b + c) / 3) for n, v in zip("abc", (a, b, c))],
        "del_eff(g)": [("a effect", a - (b + c) / 2), ("b effect", b - (a + c) / 2), ("c effect", c - (a + b) / 2)],
        "sum(g)": [("a effect", a - (a + b + c) / 3), ("b effect", b - (a + b + c) / 3)],
        "sum(g, omit=a)": [("b effect", b - (a + b + c) / 3), ("c effect", c - (a + b + c) / 3)],
        "mean_chg(g)": [("a|b", (b + c) / 2 - a), ("b|c", c - (a + b) / 2)],
        "helmert(g)": [("b - a", b - a), ("c - (a + b)", c - (a + b) / 2)],
        "poly(g)": [("linear", c - a), ("quadratic", a - 2 * b + c)],
        "g[c - *, (a + b) - c]": [("c - *", c - (a + b) / 2), ("(a + b) - c", (a + b) / 2 - c)],
    }
    for query, rows in wanted.items():
        found = m.explore(query).effects
        assert found["contrast"].to_list() == [name for name, _ in rows]
        np.testing.assert_allclose(found["estimate"], [value for _, value in rows], atol=1e-12)


def test_brackets_as_conditions_are_interaction_contrasts():
    m = model("y ~ g * h + x:h", DATA).fit()
    cell = {(r["g"], r["h"]): r["estimate"] for r in m.explore("g:h").effects.iter_rows(named=True)}
    found = m.explore("g[a - (b + c)] ~ h[u - v]").effects
    wanted = (cell["a", "u"] - (cell["b", "u"] + cell["c", "u"]) / 2) - (cell["a", "v"] - (cell["b", "v"] + cell["c", "v"]) / 2)
    assert found["estimate"].to_list() == [pytest.approx(wanted)]
    assert found.columns[:2] == ["g_custom", "h_custom"]
    u, v = m.explore("slope(x) ~ h").effects["estimate"]
    assert m.explore("slope(x) ~ h[u - v]").effects["estimate"].to_list() == [pytest.approx(u - v)]


def test_a_number_asks_for_its_slope_and_its_values_for_means():
    m = model("y ~ x * g + two", DATA).fit()
    assert m.explore("x").effects.equals(m.explore("slope(x)").effects)
    assert m.explore("x ~ g").effects.columns[:2] == ["slope", "g"]
    assert m.explore("x@4").focus.target.kind == "means"
    assert m.explore("x", at={"x": [1, 2]}).effects["x"].to_list() == [1, 2]
    assert m.explore("1 ~ two").effects["two"].to_list() == [0, 1]  # two values: both, as integers


def test_an_effect_that_the_model_cannot_have_is_zero():
    """An additive model has no interaction: 0 with no error, and no p-value made of rounding."""
    frame = model("y ~ g + h + x", DATA, contrasts={"g": "helmert"}).fit().explore("pairwise(g):pairwise(h)").infer().effects
    assert frame["estimate"].to_list() == [0.0] * 3
    assert frame["p_value"].to_list() == [None] * 3


# ---------------------------------------------------------------- slopes
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ g * poly(x, 3)",
        "y ~ I(x^2) + log(x):h + sqrt(x)",
        "y ~ bs(x, df = 5) * z",
        "y ~ ns(x, df = 3) + exp(x / 4)",
        "y ~ scale(x) * center(z)",
    ],
)
def test_a_slope_is_the_derivative_of_the_prediction(formula):
    """Against differences of order 8 of predictions, whose own error is about 1e-11."""
    m = model(formula, DATA).fit()
    for at in (1.7, 3.01, 5.2):
        found = m.explore("slope(x)", at={"x": at}).effects["estimate"][0]
        h = 1e-2
        weights = [1 / 280, -4 / 105, 1 / 5, -4 / 5, 4 / 5, -1 / 5, 4 / 105, -1 / 280]
        steps = [k * h for k in (-4, -3, -2, -1, 1, 2, 3, 4)]
        values = [m.explore(f"x@{at + s!r}").effects["estimate"][0] for s in steps]
        assert found == pytest.approx(np.dot(weights, values) / h, rel=1e-8, abs=1e-9)


def test_the_slope_of_a_square_is_exact():
    m = model("y ~ x + I(x^2)", DATA).fit()
    b = dict(zip(m.params["term"], m.params["estimate"]))
    found = m.explore("slope(x) ~ x@[0, 2, 5]").effects["estimate"]
    np.testing.assert_allclose(found, [b["x"] + 2 * b["I(x^2)"] * v for v in (0, 2, 5)], rtol=1e-12)


def test_a_function_of_env_has_a_slope_and_what_jumps_has_none():
    m = model("y ~ wave(x)", DATA, env={"wave": np.sin}).fit()
    b = m.params["estimate"][1]
    np.testing.assert_allclose(m.explore("slope(x) ~ x@[2, 4]").effects["estimate"], b * np.cos([2.0, 4.0]), rtol=1e-10)
    with pytest.raises(Refused, match="jumps"):
        model("y ~ rank(x)", DATA).fit().explore("slope(x)")


def test_values_and_slopes_of_a_transform():
    """inverse_transforms=False speaks of center(x) and log(x) themselves."""
    m = model("y ~ center(x) + log(z2)", DATA.with_columns(z2=pl.col("z") ** 2 + 1)).fit()
    mean = DATA["x"].mean()
    raw, own = m.explore(f"x@[{mean!r}, {mean + 1!r}]").effects, m.explore("x@[0, 1]", inverse_transforms=False).effects
    np.testing.assert_allclose(own["estimate"], raw["estimate"], rtol=1e-12)
    assert m.explore("slope(z2)", inverse_transforms=False).effects["estimate"][0] == pytest.approx(m.params["estimate"][2])


# ---------------------------------------------------------------- scales
GLM = {
    "logit": model("yes ~ g * h + x", DATA, family="binomial").fit(),
    "log": model("count ~ g + x * h", DATA, family="poisson", offset="expo").fit(),
    "inverse": model("pos ~ g + x", DATA, family="gamma").fit(),
}


@pytest.mark.parametrize("name", GLM)
@pytest.mark.parametrize("average", ["grid", "observed"])
def test_limits_of_means_stay_in_the_range_of_the_response(name, average):
    frame = GLM[name].explore("g", average=average).infer(conf_level=0.999999).effects
    assert (frame["ci_lower"] > 0).all()
    assert (frame["ci_lower"] < frame["estimate"]).all()
    if name == "logit":
        assert (frame["ci_upper"] < 1).all()


def test_scales_of_means_agree_with_each_other():
    m = GLM["logit"]
    eta, mu, plain = (m.explore("g", scale=s).infer().effects for s in ("link", "response", "regrid"))
    np.testing.assert_allclose(mu["estimate"], 1 / (1 + np.exp(-eta["estimate"].to_numpy())), rtol=1e-12)
    np.testing.assert_allclose(mu["ci_upper"], 1 / (1 + np.exp(-eta["ci_upper"].to_numpy())), rtol=1e-12)
    np.testing.assert_allclose(mu["p_value"], eta["p_value"], rtol=1e-12)
    np.testing.assert_allclose(plain["estimate"], mu["estimate"], rtol=1e-12)
    np.testing.assert_allclose(plain["se"], mu["se"], rtol=1e-12)
    half = (plain["ci_upper"] - plain["ci_lower"]).to_numpy() / 2
    np.testing.assert_allclose(plain["ci_upper"], plain["estimate"].to_numpy() + half, rtol=1e-12)


@pytest.mark.parametrize("average", ["grid", "observed"])
@pytest.mark.parametrize("name", ["logit", "log", "inverse"])
def test_comparisons_are_what_their_name_says(name, average):
    m = GLM[name]
    mean = m.explore("g", average=average, scale="response").effects["estimate"].to_numpy()
    pairs = [(0, 1), (0, 2), (1, 2)]
    if name == "log" or average == "observed" or name == "inverse":
        ratio = m.explore("pairwise(g)", average=average, compare="ratio").infer(adjust="none").effects
        np.testing.assert_allclose(ratio["estimate"], [mean[i] / mean[j] for i, j in pairs], rtol=1e-10)
        assert ratio["contrast"].to_list() == ["a / b", "a / c", "b / c"]
        assert (ratio["ci_lower"] > 0).all()
        lift = m.explore("pairwise(g)", average=average, compare="lift").infer(adjust="none").effects
        np.testing.assert_allclose(lift["estimate"], ratio["estimate"].to_numpy() - 1, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(lift["p_value"], ratio["p_value"], rtol=1e-10)
    difference = m.explore("pairwise(g)", average=average, scale="response").effects["estimate"]
    np.testing.assert_allclose(difference, [mean[i] - mean[j] for i, j in pairs], rtol=1e-9, atol=1e-12)


def test_the_odds_ratio_of_a_coefficient():
    m = model("yes ~ g + x", DATA, family="binomial").fit()
    row = m.explore("treatment(g)", compare="odds_ratio").infer(adjust="none").effects
    p = m.infer().params
    np.testing.assert_allclose(row["estimate"], np.exp(p["estimate"][1:3].to_numpy()), rtol=1e-12)
    np.testing.assert_allclose(row["ci_upper"], np.exp(p["ci_upper"][1:3].to_numpy()), rtol=1e-12)
    np.testing.assert_allclose(row["p_value"], p["p_value"][1:3], rtol=1e-10)
    assert m.explore("treatment(g)", compare="odds_ratio").focus.target.null == 1.0


def test_a_transformed_response_goes_back_when_asked():
    m = model("log(pos) ~ g + x", DATA).fit()
    np.testing.assert_allclose(m.explore("g", scale="response").effects["estimate"], np.exp(m.explore("g").effects["estimate"].to_numpy()))
    with pytest.raises(Refused, match="cannot be undone"):
        model("exp(pos) ~ g", DATA).fit().explore("g", scale="response")


def test_the_offset_counts():
    """At its mean on the grid (as emmeans), row by row over the data; asked about, at the values asked."""
    m = model("count ~ g + x + offset(log(expo))", DATA, family="poisson").fit()
    rate = m.explore("g", scale="link").effects["estimate"].to_numpy()
    shifted = model("count ~ g + x + offset(log(expo) + 1)", DATA, family="poisson").fit().explore("g", scale="link").effects["estimate"]
    np.testing.assert_allclose(rate, shifted, rtol=1e-8)  # the intercept takes up what the offset loses
    one, two = (m.explore(f"g ~ expo@{v}", scale="link").effects["estimate"].to_numpy() for v in (1, 2))
    np.testing.assert_allclose(two - one, np.log(2), rtol=1e-10)
    np.testing.assert_allclose(rate - one, np.log(DATA["expo"].to_numpy()).mean(), rtol=1e-9)
    total = m.explore("1", average="observed").effects["estimate"][0]
    assert total == pytest.approx(m.predict(DATA).predictions["fitted"].mean())


# ---------------------------------------------------------------- averages over the data
def test_averages_over_the_data_by_hand():
    m = GLM["logit"]
    for row in m.explore("g ~ h", average="observed").effects.iter_rows(named=True):
        people = DATA.filter(pl.col("h") == row["h"]).with_columns(g=pl.lit(row["g"]))
        assert row["estimate"] == pytest.approx(m.predict(people).predictions["fitted"].mean(), rel=1e-12)
    for row in m.explore("1", by="k", average="observed").effects.iter_rows(named=True):  # k is no part of the model
        assert row["estimate"] == pytest.approx(m.predict(DATA.filter(pl.col("k") == row["k"])).predictions["fitted"].mean(), rel=1e-12)
    change = m.explore("change(x, 2)", average="observed", scale="response").effects["estimate"][0]
    more = m.predict(DATA.with_columns(pl.col("x") + 2)).predictions["fitted"].mean() - m.predict(DATA).predictions["fitted"].mean()
    assert change == pytest.approx(more, rel=1e-10)
    set_to = m.explore("1", at={"x": 3}, average="observed").effects["estimate"][0]
    assert set_to == pytest.approx(m.predict(DATA.with_columns(x=pl.lit(3.0))).predictions["fitted"].mean(), rel=1e-12)


@pytest.mark.parametrize("query", ["g", "slope(x)", "pairwise(g) ~ h", "1 ~ h"])
@pytest.mark.parametrize("average", ["grid", "observed"])
def test_a_count_of_rows_is_as_many_rows(query, average):
    """freq_weights: the same effects as with the rows repeated, averages over the rows included."""
    formula, options = "yes ~ g * h + x", {"family": "binomial"}
    counted = model(formula, DATA, freq_weights="times", **options).fit()
    repeated = model(formula, DATA.select(pl.all().repeat_by("times").explode()), **options).fit()
    a, b = (m.explore(query, average=average, scale="response").infer().effects for m in (counted, repeated))
    np.testing.assert_allclose(a.select("estimate", "se").to_numpy(), b.select("estimate", "se").to_numpy(), rtol=1e-7)


def test_blocks_of_rows_add_up():
    """70,000 rows are read in three blocks; nothing depends on where they are cut."""
    rng = np.random.default_rng(5)
    n = 70_000
    data = pl.DataFrame({"x": rng.normal(size=n), "g": rng.choice(["a", "b"], n), "by": rng.integers(0, 3, n)})
    eta = 0.5 * data["x"].to_numpy() + 0.3 * (data["g"] == "b").to_numpy()
    data = data.with_columns(yes=(rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int))
    m = model("yes ~ x * g", data, family="binomial").fit()
    b = m.params["estimate"].to_numpy()
    found = m.explore("slope(x)", by="by", average="observed", scale="response").infer().effects
    on, x = (data["g"] == "b").to_numpy().astype(float), data["x"].to_numpy()
    X = np.column_stack([np.ones(n), x, on, x * on])
    mu = 1 / (1 + np.exp(-X @ b))
    delta, f = b[1] + b[3] * on, mu * (1 - mu)
    D = np.column_stack([0 * x, 1 + 0 * x, 0 * x, on])
    for j, row in enumerate(found.iter_rows(named=True)):
        here = (data["by"] == j).to_numpy()
        gradient = ((f * (1 - 2 * mu) * delta)[:, None] * X + f[:, None] * D)[here].mean(axis=0)
        assert row["estimate"] == pytest.approx((f * delta)[here].mean(), rel=1e-10)
        assert row["se"] == pytest.approx(np.sqrt(gradient @ m.fit_state.vcov @ gradient), rel=1e-8)


# ---------------------------------------------------------------- targets
TARGETS = [
    ("logit", "g ~ h", {}),
    ("logit", "pairwise(g)", {"scale": "response"}),
    ("logit", "slope(x) ~ g", {"scale": "response"}),
    ("logit", "g", {"average": "observed"}),
    ("logit", "pairwise(g) ~ h", {"average": "observed", "compare": "odds_ratio"}),
    ("log", "slope(x) ~ pairwise(h)", {"average": "observed", "scale": "response"}),
    ("log", "pairwise(g)", {"compare": "ratio"}),
    ("inverse", "pairwise(g)", {"compare": "lift"}),
    ("inverse", "g", {"scale": "regrid"}),
]


@pytest.mark.parametrize(("name", "query", "options"), TARGETS, ids=[f"{n} {q} {o}" for n, q, o in TARGETS])
def test_targets_know_their_derivative_and_many_draws_at_once(name, query, options):
    m = GLM[name]
    target, coef = m.explore(query, **options).focus.target, m.fit_state.coef
    h = 1e-5
    numeric = np.column_stack([(target.value(coef + h * e) - target.value(coef - h * e)) / (2 * h) for e in np.eye(len(coef))])
    np.testing.assert_allclose(target.jacobian(coef), numeric, rtol=1e-6, atol=1e-8)
    draws = coef + 0.01 * np.random.default_rng(0).normal(size=(3, len(coef)))
    np.testing.assert_allclose(target.value(draws), np.array([target.value(d) for d in draws]), rtol=1e-12)
    again = pickle.loads(pickle.dumps(m.explore(query, **options).focus))
    np.testing.assert_array_equal(again.target.value(coef), target.value(coef))


def test_families_of_tests_and_their_sizes():
    m = model("y ~ g * h + x", DATA).fit()
    pairs = m.explore("pairwise(g) ~ h").focus.target
    assert pairs.family.tolist() == [0, 0, 0, 1, 1, 1]
    assert pairs.group_size.tolist() == [3] * 6
    assert (pairs.kind, pairs.contrast) == ("contrasts", "pairwise")
    both = m.explore("pairwise(g):pairwise(h)").focus.target
    assert both.family is None
    assert both.contrast == "interaction"
    assert m.explore("slope(x) ~ g").focus.target.family is None


def test_every_choice_is_said():
    notes = " | ".join(model("yes ~ g * h + x", DATA, family="binomial").fit().explore("g").focus.target.notes)
    for part in ("averaged over h (equal weights)", "held at x = ", "on the response scale"):
        assert part in notes


def test_collinear_columns_do_not_stop_what_they_do_not_touch():
    """A covariate given twice: its own slope is not determined, differences of the factor are."""
    m = model("y ~ g + x + x2", DATA.with_columns(x2=2 * pl.col("x"))).fit()
    plain = model("y ~ g + x", DATA).fit()
    np.testing.assert_allclose(m.explore("pairwise(g)").effects["estimate"], plain.explore("pairwise(g)").effects["estimate"], rtol=1e-9)
    np.testing.assert_allclose(m.explore("g").effects["estimate"], plain.explore("g").effects["estimate"], rtol=1e-9)
    slope = m.explore("slope(x)")
    assert slope.effects["estimate"].to_list() == [None]
    assert slope.focus.target.reason == ("its coefficients are not determined by the data",)


def test_a_value_outside_the_domain_of_a_transform_is_a_null_row():
    m = model("y ~ log(x)", DATA).fit()
    frame = m.explore("x@[1, 0]").infer().effects
    assert frame["estimate"][0] is not None
    assert frame["estimate"][1] is None
    assert frame["se"][1] is None
    assert m.explore("x[2 - 0]").infer().effects["estimate"].to_list() == [None]
    assert m.explore("change(x, 100, centered)", average="observed").effects["estimate"].to_list() == [None]
