"""Simulation: after a fit, and from nothing. What is simulated is what the formula says, all of it, and nothing is assumed silently."""

from __future__ import annotations

import pickle

import numpy as np
import polars as pl
import pytest

from bossa import factor, groups, load_dataset, model, negbinomial, normal, uniform, values
from bossa.design.encode import encode
from bossa.errors import BossaError, DataError, NotFitted, OptionError, Refused, UnknownColumn, UnknownOption
from bossa.kernels.streams import stream

BOTH = {"Intercept": 1, "x": 0.5, "g[b]": 0.2, "x:g[b]": 0.1}
SLOPES = {"s": {"sd": {"Intercept": 1, "x": 0.3}, "corr": 0.2}}


def mixed(seed=1, **changes):
    given = {"n": 600, "coef": BOTH, "sigma": 1, "varying": SLOPES, "x": normal(0, 1), "g": factor("a", "b"), "s": groups(30)}
    return model("y ~ x*g + (x|s)").simulate(seed=seed, **(given | changes))


# ------------------------------------------------------------------------------------------------------------ after a fit
def test_new_random_effects_give_the_covariance_of_the_model():
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()
    draws = m.simulate(4000, seed=1, varying="sample").focus.values[:10]  # the ten rows of one subject
    theta, sigma = m.fit_state.theta, m.fit_state.sigma
    T, Z = np.array([[theta[0], 0], [theta[1], theta[2]]]), np.column_stack((np.ones(10), np.arange(10)))
    S = sigma**2 * (Z @ T @ T.T @ Z.T + np.eye(10))
    # an entry of a sample covariance has standard error √((S_ii S_jj + S_ij²)/4000); 5 of them
    error = np.sqrt((np.outer(np.diag(S), np.diag(S)) + S**2) / 4000)
    assert (np.abs(np.cov(draws) - S) < 5 * error).all()
    fixed = m.design.X[:10] @ m.fit_state.coef
    assert (np.abs(draws.mean(axis=1) - fixed) < 5 * np.sqrt(np.diag(S) / 4000)).all()


def test_groups_are_drawn_independently_and_within_each_simulation_anew():
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()
    draws = m.simulate(2000, seed=2, varying="sample").focus.values
    between = np.corrcoef(draws[0], draws[10])[0, 1]
    assert abs(between) < 5 / np.sqrt(2000)
    one, two = m.simulate(1, seed=3, varying="sample"), m.simulate(3, seed=3, varying="sample")
    assert one.simulations["sim_1"].equals(two.simulations["sim_1"])


def test_new_random_effects_of_a_poisson_model_give_its_marginal_mean():
    """E y = exp(η + τ²/2): the lognormal mean over groups."""
    given = {"n": 300, "coef": {"Intercept": 1, "x": 0.3}, "x": normal(), "s": groups(30), "varying": {"s": 0.5}, "seed": 3}
    m = model("y ~ x + (1 | s)", family="poisson").simulate(**given).fit()
    tau2 = m.fit_state.theta[0] ** 2
    draws = m.simulate(3000, seed=1, varying="sample").focus.values
    expected = np.exp(m.design.X @ m.fit_state.coef + tau2 / 2)
    error = np.sqrt((expected + expected**2 * (np.exp(tau2) - 1)) / 3000)
    assert (np.abs(draws.mean(axis=1) - expected) < 5 * error).all()


def test_fitted_random_effects_stay_where_they_are():
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()
    draws = m.simulate(2000, seed=1).focus.values
    assert (np.abs(draws.mean(axis=1) - m.fit_state.mu) < 5 * m.fit_state.sigma / np.sqrt(2000)).all()


def test_cbind_gives_counts_and_weights_give_proportions_as_in_r():
    data = load_dataset("cbpp").with_columns(rate=pl.col("incidence") / pl.col("size"))
    counts = model("cbind(incidence, size - incidence) ~ period", data, family="binomial").fit().simulate(2, seed=1)
    shares = model("rate ~ period", data, family="binomial", weights="size").fit().simulate(2, seed=1)
    size = data["size"].to_numpy()
    np.testing.assert_array_equal(counts.simulations["sim_1"], np.round(shares.simulations["sim_1"].to_numpy() * size))
    assert (counts.simulations["sim_1"].to_numpy() <= size).all()
    assert counts.simulations["sim_1"].max() > 1
    assert any("counts the successes (incidence)" in note for note in counts.focus.notes)
    assert any("proportion" in note for note in shares.focus.notes)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"varying": "new"}, "varying 'new'"),
        ({"varying": "sample"}, "no random effects"),
        ({"nsim": 0}, "nsim=0"),
        ({"nsim": True}, "nsim=True"),
        ({"sed": 1}, "Did you mean 'seed'"),
        ({"sigma": 2}, "no coefficients are given"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_what_a_fit_has_no_use_for_is_refused(given, match):
    m = model("mpg ~ wt", load_dataset("mtcars")).fit()
    with pytest.raises(BossaError, match=match):
        m.simulate(**({"nsim": 1} | given))


def test_without_a_fit_and_without_coefficients_there_is_nothing_to_simulate():
    with pytest.raises(NotFitted, match=r"m = m\.fit\(\).*coef="):
        model("y ~ x").simulate()


# ------------------------------------------------------------------------------------------------------------ the same encoder
FORMULAS = {
    "y ~ x + g": {},
    "y ~ x * g * h": {},
    "y ~ poly(x, 2) + scale(z)": {},
    "y ~ I(x^2) + x:z + log(z)": {},
    "y ~ bs(x, df=4) + factor(d)": {"d": values(1, 5, 10)},
    "y ~ 0 + g:x + C(h, sum)": {},
    "y ~ g + offset(log(z))": {},
    "y ~ .": {},
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_every_column_of_the_formula_is_simulated(formula):
    """Without noise the response is Xβ + offset with the X of the fit: no coefficient of a factor, power or transform is taken as 0."""
    extra = FORMULAS[formula]
    given = {"x": normal(), "z": uniform(1, 2), "g": factor("a", "b", "c"), "h": factor("u", "v"), **extra}
    m = model(formula).simulate(n=60, coef={}, default=0.0, sigma=1e-12, seed=3, **given)
    names = m.fit().design.names
    beta = dict(zip(names, np.arange(1, len(names) + 1) / 3))
    m = model(formula).simulate(n=60, coef=beta, sigma=1e-12, seed=3, **given)
    encoder, design, _ = encode(m.spec, m.data)
    expected = design.X @ np.array([beta[n] for n in design.names])
    expected = expected if design.offset is None else expected + design.offset
    np.testing.assert_allclose(m.data["y"], expected, atol=1e-9)
    np.testing.assert_allclose(encoder.rows(m.data).X, design.X, rtol=1e-14)


def test_every_random_slope_is_drawn():
    """Groups' own least-squares lines scatter with the covariance asked for: the trap is a slope that is never drawn."""
    m = model("y ~ x + (x | s)").simulate(
        n=20_000, coef={"Intercept": 1, "x": 2}, sigma=0.01, seed=5, x=normal(), s=groups(2000), varying={"s": [[1.0, 0.3], [0.3, 0.25]]}
    )
    x, y = (m.data[c].to_numpy().reshape(2000, 10) for c in ("x", "y"))
    lines = np.array([np.polyfit(a, b, 1)[::-1] for a, b in zip(x, y)])
    S = np.array([[1.0, 0.3], [0.3, 0.25]])
    error = np.sqrt((np.outer(np.diag(S), np.diag(S)) + S**2) / 2000)
    assert (np.abs(np.cov(lines.T) - S) < 5 * error).all()
    assert (np.abs(lines.mean(axis=0) - [1, 2]) < 5 * np.sqrt(np.diag(S) / 2000)).all()


@pytest.mark.parametrize(
    "spread",
    [{"Intercept": 1, "x": 0.5, "corr": 0.6}, {"sd": {"Intercept": 1, "x": 0.5}, "corr": 0.6}, {"x": 0.5, "Intercept": 1, "corr": 0.6}],
)
def test_the_ways_to_write_a_covariance_draw_the_same(spread):
    def drawn(spread):
        m = model("y ~ x + (x | s)")
        return m.simulate(n=60, coef={"Intercept": 1, "x": 2}, sigma=1, seed=5, x=normal(), s=groups(6), varying={"s": spread}).data["y"]

    np.testing.assert_allclose(drawn(spread), drawn([[1.0, 0.3], [0.3, 0.25]]), rtol=1e-12)


def test_random_slopes_of_factors_and_nested_groups_are_drawn():
    """The covariance of all rows over 5000 simulations is that of the terms written out by hand."""
    m = model("y ~ g + (g || s) + (1 | a/b)").simulate(
        5000,
        n=24,
        coef={"Intercept": 0, "g[v]": 0},
        sigma=0.5,
        varying={"s": {"sd": {"Intercept": 1, "g[u]": 1, "g[v]": 2}, "corr": {("g[u]", "g[v]"): -0.5}}, "a": 3, "b:a": 1.5},
        g=factor("u", "v", within="s"),
        s=groups(6),
        a=groups(3),
        b=factor("p", "q"),
        seed=1,
    )
    g, s, a, b = (m.data[name].to_numpy() for name in "gsab")
    same = {name: np.equal.outer(x, x) for name, x in zip("gsab", (g, s, a, b))}
    slope = np.where(same["g"], np.where(g == "u", 1, 4)[:, None], -0.5 * 1 * 2)
    S = same["s"] * (1 + slope) + 9 * same["a"] + 2.25 * (same["a"] & same["b"]) + 0.25 * np.eye(24)
    error = np.sqrt((np.outer(np.diag(S), np.diag(S)) + S**2) / 5000)
    assert (np.abs(np.cov(m.focus.values) - S) < 5 * error).all()


# ------------------------------------------------------------------------------------------------------------ recovery
CASES = {
    "lm": ("y ~ x * g", "gaussian", {"sigma": 2.0}, BOTH),
    "logistic": ("y ~ x * g", "binomial", {}, BOTH),
    "poisson": ("y ~ x * g + offset(log(t))", "poisson", {"t": uniform(1, 3)}, BOTH),
    "gamma": ("y ~ x * g", "gamma", {"sigma": 0.5, "link": "log"}, BOTH),
    "inverse gaussian": ("y ~ x * g", "inverse_gaussian", {"sigma": 0.3, "link": "log"}, BOTH),
    "negbinomial": ("y ~ x * g", negbinomial(theta=2), {}, BOTH),
    "t": ("y ~ x * g", "t", {"sigma": 2.0}, BOTH),
    "weighted": ("y ~ x * g", "gaussian", {"sigma": 2.0, "weights": "w", "w": uniform(0.2, 5)}, BOTH),
    "trials": ("y ~ x * g", "binomial", {"weights": "size", "size": values(1, 5, 20)}, BOTH),
    "cbind": ("cbind(y, size - y) ~ x * g", "binomial", {"size": 7}, BOTH),
    "cbind of two": ("cbind(y, fail) ~ x * g", "binomial", {"trials": values(3, 9)}, BOTH),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fit_recovers_what_was_simulated(case):
    formula, family, given, coef = CASES[case]
    told = {k: given[k] for k in ("weights", "link") if k in given}
    rest = {k: v for k, v in given.items() if k not in told}
    m = model(formula, family=family, **told).simulate(n=4000, coef=coef, x=normal(), g=factor("a", "b"), seed=11, **rest)
    fit = m.fit().infer()
    z = (fit.params["estimate"].to_numpy() - np.array(list(coef.values()))) / fit.params["se"].to_numpy()
    assert (np.abs(z) < 4.5).all()  # four standard normals, for eleven cases
    if "sigma" in rest and case != "t":
        assert fit.fit_state.sigma == pytest.approx(rest["sigma"], rel=0.1)


@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_a_mixed_fit_recovers_what_was_simulated(family):
    given = {"x": normal(), "s": groups(120), "coef": {"Intercept": 0.5, "x": -0.4}, "varying": {"s": {"sd": {"Intercept": 0.8}}}}
    sigma = {"sigma": 1.0} if family == "gaussian" else {}
    m = model("y ~ x + (1 | s)", family=family).simulate(n=2400, seed=4, **given, **sigma).fit().infer(df="inf")
    z = (m.params["estimate"].to_numpy() - [0.5, -0.4]) / m.params["se"].to_numpy()
    assert (np.abs(z) < 4).all()
    sd = m.varying_spread.filter(pl.col("group") == "s")["sd"][0]
    assert sd == pytest.approx(0.8, abs=4 * 0.8 / np.sqrt(2 * 120) * 1.3)


def test_weights_divide_the_variance():
    m = model("y ~ 1", weights="w").simulate(n=20_000, coef={"Intercept": 0}, sigma=2, w=values(1, 4), seed=1)
    spread = m.data.group_by("w").agg(pl.col("y").std()).sort("w")["y"].to_numpy()
    np.testing.assert_allclose(spread, [2, 1], rtol=5 / np.sqrt(2 * 10_000))


# ------------------------------------------------------------------------------------------------------------ columns
def test_allocation_is_balanced_where_it_says_so():
    m = mixed(g=factor("a", "b", within="s"), item=groups(10, within="s"), arm=factor("t", "c", per="s"), age=normal(40, 9, per="s"))
    d = m.data
    assert d.group_by("s", "g").len()["len"].to_list() == [10] * 60  # each group has ten rows of either level
    assert d.group_by("s", "item").len()["len"].to_list() == [2] * 300  # and meets each item twice
    assert (d.group_by("s").agg(pl.col("arm").n_unique(), pl.col("age").n_unique()).select("arm", "age").to_numpy() == 1).all()
    assert sorted(d.group_by("arm").agg(pl.col("s").n_unique())["s"]) == [15, 15]
    assert d["s"].to_list() == sorted(d["s"].to_list(), key=lambda s: int(s[1:]))  # blocks of rows
    assert d["g"].dtype == pl.Enum(["a", "b"])


def test_levels_without_within_are_balanced_over_all_rows():
    m = model("y ~ g + d").simulate(n=31, coef={}, default=0, sigma=1, g=factor("b", "a", "c"), d=values(0, 2.5), seed=1)
    assert sorted(m.data["g"].value_counts()["count"]) == [10, 10, 11]
    assert m.fit().params["term"].to_list() == ["Intercept", "g[a]", "g[c]", "d"]  # the first level given is the reference
    drawn = model("y ~ g").simulate(n=10_000, coef={}, default=0, sigma=1, g=factor("a", "b", prob=[0.2, 0.8]), seed=1).data["g"]
    assert abs((drawn == "b").mean() - 0.8) < 5 * 0.4 / 100


def test_given_columns_are_taken_as_they_are():
    x = np.arange(12.0)
    m = model("y ~ x + g + k").simulate(coef={}, default=1, sigma=1, x=x, g=["u", "v"] * 6, k=[*range(11), None], seed=1)
    np.testing.assert_array_equal(m.data["x"], x)
    assert m.data["y"].null_count() == 1  # the row without k has no response, and is not lost
    assert m.data.height == 12
    frame = pl.DataFrame({"x": x, "z": x**2, "y": x})
    own = model("y ~ x").simulate(data=frame, coef={"Intercept": 0, "x": 1}, sigma=1e-9, seed=1)
    np.testing.assert_allclose(own.data["y"], x, atol=1e-7)
    assert own.data.columns == ["y", "x", "z"]
    assert frame["y"].equals(pl.Series("y", x))
    refit = model("mpg ~ wt", load_dataset("mtcars")).fit().simulate(coef={"Intercept": 0, "wt": 1}, sigma=1e-9, seed=1)
    np.testing.assert_allclose(refit.data["mpg"], refit.data["wt"], atol=1e-7)


def test_size_of_groups_says_how_many_rows():
    assert mixed(n=None, s=groups(12, size=5)).data.height == 60


def test_contrasts_and_levels_of_the_model_count():
    given = {"n": 40, "sigma": 1e-12, "g": factor("a", "b"), "seed": 1}
    m = model("y ~ g", contrasts={"g": "sum"}).simulate(coef={"Intercept": 1, "g[a]": 2}, **given)
    assert dict(m.data.group_by("g").agg(pl.col("y").mean().round(6)).iter_rows()) == {"a": 3.0, "b": -1.0}
    m = model("y ~ g", levels={"g": ["b", "a"]}).simulate(coef={"Intercept": 1, "g[a]": 2}, **given)
    assert dict(m.data.group_by("g").agg(pl.col("y").mean().round(6)).iter_rows()) == {"a": 3.0, "b": 1.0}


# ------------------------------------------------------------------------------------------------------------ the value that comes back
def test_the_model_carries_the_data_the_simulations_and_the_seed():
    m = mixed()
    assert m.data.columns == ["y", "x", "g", "s"]
    np.testing.assert_array_equal(m.data["y"], m.simulations["sim_1"])
    assert "1 simulation" in repr(m)
    assert "seed: 1" in repr(m)
    assert repr(m.data["y"][0])[:4] in repr(m)
    assert m.focus.seed == 1
    assert any("g[b] = 0.2" in note for note in m.focus.notes)
    assert m.fit().design.n == 600
    assert pickle.loads(pickle.dumps(m)).data.equals(m.data)


def test_a_seed_replays_everything_and_more_simulations_change_none():
    once, again, other = mixed(seed=7), mixed(seed=7, nsim=3), mixed(seed=8)
    assert once.data.equals(again.data)
    assert not once.data.equals(other.data)
    assert once.simulations["sim_1"].equals(again.simulations["sim_1"])
    drawn = mixed(seed=None)
    assert mixed(seed=drawn.focus.seed).data.equals(drawn.data)  # no seed: the one drawn is kept


def test_many_simulations_can_be_summarised_without_a_fit():
    m = model("y ~ x").simulate(2000, n=5, coef={"Intercept": 1, "x": 2}, sigma=1, x=normal(), seed=1)
    mean = m.infer().simulations["mean"].to_numpy()
    assert (np.abs(mean - 1 - 2 * m.data["x"].to_numpy()) < 5 / np.sqrt(2000)).all()


def test_streams_do_not_meet():
    a, b = stream(1, 0).random(3), stream(1, 1).random(3)
    assert not np.intersect1d(a, b).size


# ------------------------------------------------------------------------------------------------------------ bad input
GOOD = {"n": 20, "coef": {"Intercept": 0, "x": 1}, "sigma": 1, "x": normal()}
BAD = [
    ({"coef": {"Intercept": 0, "X": 1}}, UnknownOption, "coefficient 'X'.*Did you mean 'x'"),
    ({"coef": {"Intercept": 0}}, OptionError, "no value for x.*default=0"),
    ({"coef": {"Intercept": 0, "x": "a"}}, OptionError, "coef of 'x'='a'"),
    ({"coef": {"Intercept": 0, "x": np.nan}}, OptionError, "finite"),
    ({"coef": [0, 1]}, OptionError, "not a dict"),
    ({"sigma": None}, OptionError, "residual standard deviation is not said"),
    ({"sigma": -1}, OptionError, "sigma=-1 is not positive"),
    ({"n": 0}, OptionError, "n=0"),
    ({"n": None}, OptionError, "how many rows"),
    ({"n": [20, 30]}, OptionError, r"n=\[20, 30\].*power="),
    ({"coef": {"Intercept": 0, "x": [0, 1]}}, OptionError, "several are for power="),
    ({"x": [normal(), normal(1)]}, OptionError, "said in 2 ways"),
    ({"x": np.ones((20, 2))}, DataError, "2 axes"),
    ({"x": "normal"}, OptionError, "no column.*normal"),
    ({"x": [1.0, 2.0]}, OptionError, "numbers of rows differ: n= 20, x 2"),
    ({"z": 3}, UnknownOption, "column 'z'"),
    ({"sgma": 3}, UnknownOption, "Did you mean 'sigma'"),
    ({"y": normal()}, OptionError, "'y' is the response"),
    ({"varying": {"s": 1}}, OptionError, "no random effects"),
    ({"x": normal(per="s")}, UnknownColumn, "'s'"),
    ({"x": values(1, 2, within="w"), "w": factor("a", "b", within="x")}, OptionError, "by way of the other"),
    ({"nsim": 1.5}, OptionError, "nsim"),
    ({"how": "boot"}, OptionError, "how= is for power analysis"),
    ({"default": "a"}, OptionError, "default='a'"),
    ({"data": 3}, DataError, "not a table"),
]


@pytest.mark.parametrize(("given", "error", "match"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input_is_an_error_that_says_what_to_do(given, error, match):
    with pytest.raises(error, match=match):
        model("y ~ x").simulate(**(GOOD | given))


BAD_VARYING = [
    (None, "nothing is said of the random effects of s"),
    ({}, "nothing is said"),
    ({"t": 1}, "grouping factor 't'"),
    ({"s": 1}, "its random effects are Intercept, x"),
    ({"s": {"sd": {"Intercept": 1}}}, "no standard deviation for x"),
    ({"s": {"sd": {"Intercept": 1, "z": 1}}}, "random effect 'z'"),
    ({"s": {"sd": {"Intercept": 1, "x": -1}}}, "negative"),
    ({"s": {"sd": {"Intercept": 1, "x": 1}, "corr": 1.5}}, "between −1 and 1"),
    ({"s": {"sd": {"Intercept": 1, "x": 1}, "cor": 0.5}}, "entry 'cor'.*Did you mean 'corr'"),
    ({"s": {"corr": 0.5}}, "no 'sd'"),
    ({"s": [[1, 2], [2, 1]]}, "negative variance"),
    ({"s": [[1, 0, 0]]}, "2 × 2"),
    ({"s": {"sd": {"Intercept": 1, "x": 1}, "corr": {("Intercept", "z"): 0.5}}}, "pair of random effects"),
    (3, "not a dict of grouping factors"),
]


@pytest.mark.parametrize(("varying", "match"), BAD_VARYING, ids=[str(i) for i in range(len(BAD_VARYING))])
def test_random_effects_that_cannot_be_are_refused(varying, match):
    with pytest.raises(OptionError, match=match):
        mixed(varying=varying)


def test_correlations_that_the_formula_excludes_are_refused():
    given = {"n": 100, "coef": {"Intercept": 0, "x": 0}, "sigma": 1, "x": normal(), "s": groups(10), "varying": SLOPES}
    with pytest.raises(OptionError, match="uncorrelated"):
        model("y ~ x + (x || s)").simulate(**given)


@pytest.mark.parametrize(
    ("formula", "family", "given", "match"),
    [
        ("log(y) ~ x", "gaussian", GOOD, "the response log"),
        ("~ x", "gaussian", GOOD, "no response"),
        ("y ~ x", "quasipoisson", GOOD | {"sigma": None}, "no distribution"),
        ("y ~ x", "poisson", GOOD, "no residual standard deviation"),
        ("y ~ x", negbinomial(), GOOD | {"sigma": None}, "negbinomial"),
        ("cbind(y, f) ~ x", "binomial", GOOD | {"sigma": None}, "number of trials"),
        ("cbind(y, f) ~ x", "binomial", GOOD | {"sigma": None, "trials": 2.5}, "whole numbers"),
        ("cbind(y, f) ~ x", "poisson", GOOD | {"sigma": None, "trials": 2}, "binomial trials"),
        ("y ~ x + z", "gaussian", GOOD, "'z' has no values.*z=normal"),
        ("y ~ x + (1 | s)", "gaussian", GOOD | {"s": groups(30), "varying": {"s": 1}}, "30 groups need"),
    ],
)
def test_models_that_cannot_be_simulated_are_refused(formula, family, given, match):
    with pytest.raises(BossaError, match=match):
        model(formula, family=family).simulate(**given)


def test_a_mean_outside_the_family_is_refused():
    with pytest.raises(OptionError, match="mean of -"):
        model("y ~ x", family="poisson", link="identity").simulate(n=50, coef={"Intercept": 0, "x": 1}, x=normal(), seed=1)


@pytest.mark.parametrize(("family", "link"), [("poisson", "identity"), ("gamma", "inverse"), ("binomial", "identity"), ("poisson", "log")])
def test_random_effects_that_leave_the_family_are_refused(family, link):
    """Not drawn from a mean that does not exist: a gamma response would be negative without a word."""
    start = 40.0 if link == "log" else 0.5
    given = {"n": 60, "coef": {"Intercept": 0}, "s": groups(30), "varying": {"s": 3}, "seed": 1} | (
        {"sigma": 0.1} if family == "gamma" else {}
    )
    with pytest.raises(OptionError, match=r"(random effects|coefficients) give a mean"):
        model("y ~ 1 + (1 | s)", family=family, link=link).simulate(**given | {"coef": {"Intercept": start}})


def test_an_intercept_alone_can_be_simulated():
    assert model("y ~ 1").simulate(n=7, coef={"Intercept": 3}, sigma=1, seed=1).fit().design.n == 7


def test_counted_rows_are_refused():
    with pytest.raises(Refused, match="counts have no use"):
        model("y ~ x", freq_weights="k").simulate(**GOOD, k=3)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: normal(0, 0), "sd=0 is not positive"),
        (lambda: normal("a"), "mean='a'"),
        (lambda: uniform(2, 1), "not below"),
        (lambda: factor("a"), "two or more different"),
        (lambda: factor("a", "a"), "two or more different"),
        (lambda: factor("a", "b", prob=[0.5, 0.6]), "sum 1"),
        (lambda: factor("a", "b", prob=[0.5, 0.5], within="s"), "Give one of them"),
        (lambda: values(1, "b"), "finite number"),
        (lambda: groups(0), "count=0"),
        (lambda: groups(3, size=2.5), "size=2.5"),
        (lambda: normal(per=3), "per=3"),
    ],
)
def test_columns_that_cannot_be_are_refused(make, match):
    with pytest.raises(OptionError, match=match):
        make()
