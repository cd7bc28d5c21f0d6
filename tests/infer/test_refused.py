"""What a first-time user runs into: too few rows, too few replicates, workers that are none, priors, nulls that cannot be."""

import numpy as np
import polars as pl
import pytest

import bossa
from bossa import compare, load_dataset, model
from bossa.errors import OptionError, Refused
from bossa.power import wilson

CARS = load_dataset("mtcars")


def notes(m):
    return m.inference.notes


@pytest.mark.parametrize("n_jobs", [0, "two", 1.5, True])
@pytest.mark.parametrize("how", ["boot", "perm", "cv"])
def test_workers_that_are_no_number(how, n_jobs):
    with pytest.raises(OptionError, match=r"is not a number of workers\. Use 1, 2"):
        model("mpg ~ wt", CARS).fit().infer(how=how, n_jobs=n_jobs)


def test_workers_that_are_no_number_elsewhere():
    m = model("mpg ~ wt", CARS).fit()
    with pytest.raises(OptionError, match=r"compare.*n_jobs=0"):
        compare(model("mpg ~ 1", CARS).fit(), m, how="boot", n_jobs=0)
    with pytest.raises(OptionError, match=r"power.*n_jobs=0"):
        model("y ~ x").simulate(n=10, coef={"Intercept": 0, "x": 1}, sigma=1, x=bossa.normal(), power=2, n_jobs=0)


@pytest.mark.parametrize("family", ["gaussian", "gamma"])
def test_as_many_coefficients_as_rows(family):
    """R's boot.ci has no interval of constant replicates, and confint divides by zero."""
    m = model("mpg ~ wt", CARS[1:3], family=family).fit()
    for options in ({"how": "boot"}, {"how": "boot", "scheme": "jackknife"}, {"how": "boot", "scheme": "parametric"}):
        with pytest.raises(Refused, match="as many coefficients as observations"):
            m.infer(**options)
    with pytest.raises(Refused, match="no degree of freedom"):
        m.infer(how="profile")


def test_a_saturated_model_of_counts_can_be_drawn_from():
    d = pl.DataFrame({"k": [20, 35, 28], "g": ["a", "b", "c"]})
    m = model("k ~ g", d, family="poisson").fit()
    with pytest.raises(Refused, match="gives the same estimates"):
        m.infer(how="boot", seed=1)
    assert (m.infer(how="boot", scheme="parametric", n_boot=60, seed=1).params["se"] > 0.1).all()


def test_a_prior_moves_new_responses_twice():
    """Drawn about shrunken estimates and shrunk again: the percentile limits of wt, −0.85 to 0.08, would not hold its estimate, −1.49."""
    m = model("mpg ~ wt + hp", CARS, prior={"wt": bossa.normal(0, 0.5)}).fit()
    for scheme in ("parametric", "residual", "wild"):
        with pytest.raises(Refused, match="prior has moved already"):
            m.infer(how="boot", scheme=scheme)
    row = m.infer(how="boot", n_boot=200, seed=1).params.row(1, named=True)
    assert row["ci_lower"] < row["estimate"] < row["ci_upper"]


@pytest.mark.parametrize(
    ("n_boot", "level", "side", "said"),
    [(100, 0.95, "two-sided", False), (38, 0.95, "two-sided", True), (38, 0.95, "less", False), (500, 0.999, "two-sided", True)],
)
def test_limits_beyond_the_replicates_are_said(n_boot, level, side, said):
    m = model("mpg ~ wt", CARS).fit().infer(how="boot", n_boot=n_boot, conf_level=level, alternative=side, seed=1, ci_type="percentile")
    assert any("do not reach so far out" in note for note in notes(m)) == said
    if said:
        replicates = m.resamples.filter(term="wt")["estimate"]
        assert m.params["ci_upper"][1] == replicates.max()
        assert m.params["ci_lower"][1] == replicates.min()


def test_notes_say_what_was_done_to_these_data():
    m = model("mpg ~ wt", CARS).fit()
    assert "leaves out one row" in notes(m.infer(how="boot", scheme="jackknife"))[0]
    assert "leaves out one group" in notes(m.infer(how="boot", scheme="jackknife", cluster="carb"))[0]
    assert "weighs rows by" in notes(m.infer(how="boot", scheme="bayes", n_boot=50, seed=1))[0]
    assert "at random, row by row;" in notes(m.infer(how="boot", scheme="wild", n_boot=50, seed=1))[0]
    assert "at random, group by group;" in notes(m.infer(how="boot", scheme="wild", n_boot=50, cluster="carb", seed=1))[0]
    counts = model("carb ~ wt", CARS, family="negbinomial")
    with pytest.warns(bossa.errors.BoundaryWarning):
        counts = counts.fit()
    assert "errors are deviances at the theta of the fit to all rows" in notes(counts.infer(how="cv", k=2, seed=1))


def test_one_null_that_cannot_be_leaves_the_others():
    """μ = 1/η: with an intercept of 0 some mean would be negative wherever the slope goes."""
    d = CARS.with_columns(centred=CARS["wt"] - CARS["wt"].mean())
    m = model("mpg ~ centred", d, family="gamma").fit().infer(how="perm", n_perm=40, seed=1)
    assert m.params["p_value"][0] is None
    assert m.params["p_value"][1] == pytest.approx(1 / 41)
    assert "left out: 1 row under whose null no model can be fitted" in notes(m)


def test_limits_of_a_rate_that_is_all_or_nothing():
    lower, upper = wilson(np.array([0, 10]), 10)
    z2 = 1.959963984540054**2
    assert lower.tolist() == [0, pytest.approx(10 / (10 + z2))]
    assert upper.tolist() == [pytest.approx(z2 / (10 + z2)), 1]


def test_the_level_of_a_power_study_is_said_once():
    study = {"n": 10, "coef": {"Intercept": 0, "x": 1}, "sigma": 1, "x": bossa.normal()}
    with pytest.raises(OptionError, match=r"level 1 - alpha\. Give simulate\(alpha=\)"):
        model("y ~ x").simulate(**study, power=3, options={"conf_level": 0.9})


def test_draws_from_few_groups_are_said():
    """Two clusters: half of the replicates are the data themselves, and the BCa interval begins at the estimate."""
    m = model("mpg ~ wt", CARS).fit()
    few = "groups are few to draw from"
    assert any(f"2 {few}" in note for note in notes(m.infer(how="boot", cluster="am", n_boot=100, seed=1)))
    sleep = model("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy")).fit()
    assert any(f"18 {few}" in note for note in notes(sleep.infer(how="boot", scheme="group", n_boot=20, seed=1)))
    for options in ({}, {"cluster": "am", "scheme": "wild"}, {"cluster": "am", "ci_type": "studentized"}, {"cluster": "row"}):
        many = model("mpg ~ wt", CARS.with_row_index("row")).fit().infer(how="boot", n_boot=100, seed=1, **options)
        assert not any(few in note for note in notes(many))
    assert not any(few in note for note in notes(sleep.infer(how="boot", n_boot=20, seed=1)))


def test_a_perfect_fit_has_no_profile_and_a_permutation_without_a_fuss():
    d = CARS.with_columns(y=2 * CARS["wt"])
    m = model("y ~ wt", d).fit()
    with pytest.raises(Refused, match="perfect up to rounding"):
        m.infer(how="profile")
    p = m.infer(how="perm", n_perm=50, seed=1)
    assert p.params["p_value"][1] == pytest.approx(1 / 51)
    assert not any("says nothing" in note for note in notes(p))


def test_a_counted_row_is_left_out_with_all_it_counts_for():
    d = CARS.with_columns(k=CARS["gear"])
    m = model("mpg ~ wt", d, freq_weights="k").fit()
    one = m.predict().infer(how="cv", k="loo").predictions["cv_fitted"][0]
    rest = model("mpg ~ wt", d[1:], freq_weights="k").fit().predict({"wt": d["wt"][0]}).predictions["fitted"][0]
    assert one == pytest.approx(rest, rel=1e-10)
    assert "a row that counts for several is left out with all of them" in notes(m.infer(how="cv", k="loo"))
