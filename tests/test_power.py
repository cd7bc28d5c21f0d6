"""Power by simulation: rates against the noncentral t and the nominal level, one number for any path, worker or sweep."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from bossa import factor, groups, model, normal, values
from bossa.errors import BossaError, ConvergenceWarning, OptionError, Refused, UnknownOption
from bossa.generate import Recipe, covariates, population
from bossa.kernels.streams import stream
from bossa.power import Settings, Work, gathered, refitted, wilson

TEST = {"coef": {"Intercept": 0, "g[b]": 0.8}, "sigma": 1, "g": factor("a", "b")}


def power(formula="y ~ g", family="gaussian", replicates=400, seed=1, **given):
    return model(formula, family=family).simulate(power=replicates, seed=seed, **given)


def term(frame, name):
    return frame.filter(pl.col("term") == name)


def noncentral_t(n, effect, alpha=0.05):
    """Power of the two-sided two-sample t test with n rows in all: P(|T| > t), T ~ t(n − 2, effect √n / 2)."""
    t = stats.t.ppf(1 - alpha / 2, n - 2)
    return stats.nct.sf(t, n - 2, effect * math.sqrt(n) / 2) + stats.nct.cdf(-t, n - 2, effect * math.sqrt(n) / 2)


# ------------------------------------------------------------------------------------------------------------ known answers
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_power_of_a_t_test_is_the_noncentral_t(alpha):
    found = power(
        **TEST | {"n": [20, 40, 60], "coef": {"Intercept": 0, "g[b]": [0, 0.4, 0.8]}}, replicates=4000, alpha=alpha, design="fixed"
    )
    rows = term(found, "g[b]")
    assert rows.height == 9
    for n, effect, rate in rows.select("n", "true", "power").iter_rows():
        exact = noncentral_t(n, effect, alpha)
        assert abs(rate - exact) < 4 * math.sqrt(exact * (1 - exact) / 4000)  # Monte Carlo error


def test_wilson_limits_hold_the_true_power_as_often_as_they_say():
    """Limits from 300 studies of 50 replicates: 95 % hold the exact power, give or take the error of 300 (and Wilson's own, below 2 %)."""
    exact = noncentral_t(20, 0.8)
    rng = np.random.default_rng(1)
    low, high = wilson(rng.binomial(50, exact, 300), 50)
    held = ((low <= exact) & (exact <= high)).mean()
    assert abs(held - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 300) + 0.02
    # Newcombe (1998), Table I, method 3: 81 of 263 and 0 of 20
    np.testing.assert_allclose(np.ravel(wilson(np.array([81]), 263)), [0.2553, 0.3662], atol=5e-5)
    np.testing.assert_allclose(np.ravel(wilson(np.array([0]), 20)), [0.0, 0.1611], atol=5e-5)


@pytest.mark.parametrize(
    ("formula", "family", "given"),
    [
        ("y ~ x", "gaussian", {"sigma": 2, "n": 30}),
        ("y ~ x", "poisson", {"n": 80}),
        ("y ~ x + (1 | s)", "gaussian", {"sigma": 1, "n": 120, "s": groups(20), "varying": {"s": 0.5}}),
    ],
)
def test_type_one_error_and_coverage_are_nominal_under_the_null(formula, family, given):
    """The trap: power reported for an effect that was not simulated. With no effect it must be alpha."""
    replicates = 300 if "s" in given else 1000
    row = term(power(formula, family, replicates, x=normal(), coef={"Intercept": 1, "x": 0}, **given), "x")
    error = math.sqrt(0.05 * 0.95 / replicates)
    assert abs(row["power"][0] - 0.05) < 4 * error
    assert abs(row["coverage"][0] - 0.95) < 4 * error
    assert abs(row["bias"][0]) < 4 * row["sd"][0] / math.sqrt(replicates)
    assert row["mean_se"][0] == pytest.approx(row["sd"][0], rel=0.15)


def test_power_is_that_of_the_effect_simulated():
    """A random slope lowers the power of its fixed effect: with 30 groups, sd 0.5 and hardly any noise, about t(29) of 0.25/(0.5/√30)."""
    given = {"n": 600, "sigma": 0.2, "x": normal(), "s": groups(30), "coef": {"Intercept": 0, "x": 0.25}}
    slopes = power("y ~ x + (x | s)", replicates=150, varying={"s": {"sd": {"Intercept": 0.1, "x": 0.5}}}, **given)
    rate = term(slopes, "x")["power"][0]
    se = 0.5 / math.sqrt(30)
    exact = stats.nct.sf(stats.t.ppf(0.975, 29), 29, 0.25 / se)
    assert abs(rate - exact) < 4 * math.sqrt(exact * (1 - exact) / 150) + 0.02
    assert term(slopes, "x")["sd"][0] == pytest.approx(se, rel=0.25)


# ------------------------------------------------------------------------------------------------------------ one number for any path
@pytest.mark.parametrize(
    ("formula", "family", "given"),
    [
        ("y ~ x + g", "gaussian", {"sigma": 1}),
        ("y ~ x + g", "binomial", {}),
        ("y ~ x + g", "gamma", {"sigma": 0.3, "link": "log"}),
        ("cbind(y, k - y) ~ x + g", "binomial", {"k": 5}),
    ],
)
def test_the_batch_of_one_design_is_the_loop_over_its_replicates(formula, family, given):
    link = given.pop("link", None)
    m = model(formula, family=family, link=link)
    told = {
        "n": 60,
        "coef": {"Intercept": 0.3, "x": 0.5, "g[b]": 0.2},
        "x": normal(),
        "g": factor("a", "b"),
        "power": 60,
        "seed": 2,
    } | given
    batch = m.simulate(design="fixed", **told)
    loop = m.simulate(design="fixed", options={"errors": "iid", "df": "auto", "adjust": "none"}, **told)  # adjust= takes the long way
    for column in ("power", "bias", "sd", "mean_se", "coverage"):
        np.testing.assert_allclose(batch[column], loop[column], rtol=1e-6, atol=1e-8)
    assert batch["replicates"].to_list() == loop["replicates"].to_list()


MIXED = {
    "slopes": ("y ~ x + (x | s)", "reml", {"s": groups(15)}, {"s": {"sd": {"Intercept": 0.8, "x": 0.5}, "corr": 0.3}}),
    "ml": ("y ~ x + (1 | s)", "ml", {"s": groups(15)}, {"s": 0.7}),
    "at the boundary": ("y ~ x + (x | s)", "reml", {"s": groups(10)}, {"s": {"sd": {"Intercept": 0.5, "x": 0.1}}}),
    "crossed": ("y ~ x + (1 | s) + (1 | i)", "reml", {"s": groups(15), "i": groups(6, within="s")}, {"s": 0.7, "i": 0.5}),
}


@pytest.mark.parametrize("df", ["satterthwaite", "inf"])
@pytest.mark.parametrize("name", MIXED)
def test_the_batch_of_one_mixed_design_is_the_loop_over_its_replicates(name, df):
    """Estimates, standard errors, Satterthwaite's df and their p-values, replicate by replicate."""
    formula, method, described, varying = MIXED[name]
    coef = {"Intercept": 0.3, "x": 0.5}
    recipe = Recipe(
        spec=model(formula, method=method).spec, coef=coef, sigma=1, varying=varying, columns={"x": normal(), **described}, n=90
    )
    people = population(recipe, covariates(recipe, stream(4, 0)))
    settings = Settings(power=30, options={"df": df})
    batch = refitted(people, settings, {"df": df}, 4)
    loop = gathered(Work(recipe=recipe, people=people, how="asymp", options={"df": df}, seed=4)(range(30)), ("Intercept", "x"))
    assert batch is not None
    assert batch.names == loop.names
    assert batch.reasons == loop.reasons == ("",) * 30
    np.testing.assert_allclose(batch.estimate, loop.estimate, atol=1e-5)
    np.testing.assert_allclose(batch.se, loop.se, rtol=1e-4)
    np.testing.assert_allclose(batch.p, loop.p, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(batch.lower, loop.lower, atol=1e-3)


def test_a_replicate_is_the_simulation_of_the_same_seed():
    told = {"n": 25, "coef": {"Intercept": 1, "x": 2}, "sigma": 1, "x": normal(), "seed": 5}
    m = model("y ~ x").simulate(8, **told)
    slopes = [np.polyfit(m.data["x"], y, 1)[0] for y in m.focus.values.T]
    row = term(model("y ~ x").simulate(power=8, design="fixed", **told), "x")
    assert row["bias"][0] == pytest.approx(np.mean(slopes) - 2, abs=1e-12)
    assert row["sd"][0] == pytest.approx(np.std(slopes, ddof=1), rel=1e-10)


@pytest.mark.parametrize("design", ["new", "fixed"])
def test_workers_and_other_cells_change_no_number(design):
    told = TEST | {"n": 24, "design": design, "replicates": 45}
    alone = power(**told)
    assert power(**told, n_jobs=2).equals(alone)
    assert power(**told | {"n": [12, 24]}).filter(pl.col("n") == 24).equals(alone)
    assert not power(**told, seed=2).drop("seed").equals(alone.drop("seed"))
    assert power(**told | {"replicates": 20}, seed=3).drop("seed").equals(power(**told | {"replicates": 20}, seed=[3]).drop("seed"))


def test_the_seed_that_was_drawn_is_kept():
    found = power(**TEST, n=20, replicates=10, seed=None)
    assert power(**TEST, n=20, replicates=10, seed=int(found["seed"][0])).equals(found)


# ------------------------------------------------------------------------------------------------------------ sweeps and hows
def test_lists_are_gone_through_in_every_combination():
    found = power(
        "y ~ x + (1 | s)",
        replicates=3,
        n=[40, 80],
        sigma=[1, 2],
        coef={"Intercept": 0, "x": [0, 0.5]},
        x=normal(),
        s=[groups(4), groups(8)],
        varying={"s": 1},
        options={"df": "inf"},
    )
    assert found.height == 2 * 2 * 2 * 2 * 2
    assert found.columns[:5] == ["n", "s", "sigma", "coef_x", "term"]
    assert found.select("n", "s", "sigma", "coef_x").unique().height == 16
    assert (term(found, "x")["true"] == term(found, "x")["coef_x"]).all()
    sized = power(
        "y ~ x + (1 | s)",
        replicates=2,
        sigma=1,
        coef={"Intercept": 0, "x": 0},
        x=normal(),
        s=[groups(4, size=5), groups(8, size=5)],
        varying={"s": 1},
    )
    assert term(sized, "x").select("n", "s").rows() == [(20, 4), (40, 8)]


def test_power_grows_with_rows_and_effects():
    found = term(power(**TEST | {"n": [20, 40, 80], "coef": {"Intercept": 0, "g[b]": [0.2, 0.5, 0.8]}}, design="fixed"), "g[b]")
    table = found["power"].to_numpy().reshape(3, 3)
    assert (np.diff(table, axis=0) > 0).all()
    assert (np.diff(table, axis=1) > 0).all()


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ("boot", {"n_boot": 50}),
        ("perm", {"n_perm": 50}),
        ("joint", {}),
        ("asymp", {"errors": "HC3"}),
        ("asymp", {"alternative": "greater"}),
    ],
)
def test_any_how_can_judge(how, options):
    told = TEST | {"n": 30, "replicates": 12, "how": how, "options": options}
    found = power(**told)
    assert found["replicates"].to_list() == [12] * found.height
    assert ((found["power_lower"] <= found["power"]) & (found["power"] <= found["power_upper"])).all()
    assert power(**told).equals(found)


def test_a_joint_test_has_the_power_of_its_f():
    """One factor of three levels, F(2, 27) with noncentrality n/3 Σ(μ − μ̄)²."""
    found = power(coef={"Intercept": 0, "g[b]": 0, "g[c]": 1.2}, n=30, sigma=1, g=factor("a", "b", "c"), how="joint", replicates=500)
    exact = stats.ncf.sf(stats.f.ppf(0.95, 2, 27), 2, 27, 10 * (2 * 0.4**2 + 0.8**2))
    assert found["term"].to_list() == ["g"]
    assert found["true"][0] is None
    assert abs(found["power"][0] - exact) < 4 * math.sqrt(exact * (1 - exact) / 500)


def test_a_null_other_than_zero():
    """Testing the true value rejects at the level; the coverage does not depend on the null."""
    told = TEST | {"n": 30, "replicates": 1000, "design": "fixed"}
    row = term(power(**told, options={"null": 0.8}), "g[b]")
    assert abs(row["power"][0] - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 1000)
    assert row["coverage"][0] == term(power(**told), "g[b]")["coverage"][0]


# ------------------------------------------------------------------------------------------------------------ failures
def test_replicates_that_fail_are_counted_by_reason():
    told = {"n": 8, "coef": {"Intercept": 0, "x": 3}, "x": normal(), "replicates": 40}
    with pytest.warns(ConvergenceWarning, match=r"% of the replicates of the design failed \(.*can be fitted"):
        found = power("y ~ x", "binomial", **told)
    assert found["failed"][0] > 4
    assert found["failed"][0] + found["replicates"][0] == 40
    assert "no maximum" in found["reasons"][0]


def test_a_level_that_does_not_occur_is_a_failure_not_a_crash():
    g = factor("a", "b", "c", prob=[0.6, 0.3, 0.1])
    with pytest.warns(ConvergenceWarning, match="a level did not occur"):
        found = power(coef={"Intercept": 0, "g[b]": 1, "g[c]": 1}, n=14, sigma=1, g=g, replicates=60, seed=3)
    assert found["failed"][0] > 6
    assert found["term"].to_list() == ["Intercept", "g[b]", "g[c]"]


BAD = [
    ({"replicates": 0}, OptionError, "power=0"),
    ({"replicates": 2.5}, OptionError, "power=2.5"),
    ({"alpha": 5}, OptionError, "alpha=5"),
    ({"alpha": True}, OptionError, "alpha=True"),
    ({"how": "bot"}, UnknownOption, "Did you mean 'boot'"),
    ({"how": "boot", "options": {"nboot": 3}}, UnknownOption, "Did you mean 'n_boot'"),
    ({"options": 3}, OptionError, "not a dict"),
    ({"options": {"seed": 1}}, OptionError, "belong to simulate"),
    ({"options": {"errors": "HC9"}}, UnknownOption, "HC9"),
    ({"design": "old"}, UnknownOption, "old"),
    ({"n": []}, OptionError, "empty list"),
    ({"n": [20, 0]}, OptionError, "n=0"),
    ({"coef": {"Intercept": 0, "g[z]": [0, 1]}}, UnknownOption, r"coefficient 'g\[z\]'"),
    ({"coef": {"Intercept": 0, "g[b]": ["a"]}}, OptionError, "finite number"),
    ({"sigma": [1, -1]}, OptionError, "not positive"),
    ({"g": [factor("a", "b"), 3]}, BossaError, "a list of descriptions"),
    ({"options": {"errors": "cluster"}}, OptionError, "cluster="),
]


@pytest.mark.parametrize(("given", "error", "match"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input_is_an_error_that_says_what_to_do(given, error, match):
    with pytest.raises(error, match=match):
        power(**(TEST | {"n": 20, "replicates": 5} | given))


def test_a_how_that_is_not_for_the_model_is_refused_not_counted_as_a_failure():
    with pytest.raises(Refused, match="without random effects"):
        power(
            "y ~ d + (1 | s)",
            replicates=3,
            n=40,
            coef={"Intercept": 0, "d": 0},
            sigma=1,
            d=values(0, 1),
            s=groups(8),
            varying={"s": 1},
            options={"errors": "HC3"},
        )


def test_an_interrupted_study_returns_what_is_done(monkeypatch):
    from bossa.power import Work

    one = Work.replicate

    def stopped(self, i):
        if i == 50:
            raise KeyboardInterrupt
        return one(self, i)

    monkeypatch.setattr(Work, "replicate", stopped)
    found = power(**TEST | {"n": [12, 24], "replicates": 90})
    assert found["n"].unique().to_list() == [12]  # the second cell was not begun
    assert found["replicates"].to_list() == [40, 40]  # whole chunks of 20
