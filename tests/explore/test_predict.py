"""Predictions of rows and of queries: rows are never lost, names never clash, limits stay where the response can be."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.errors import OptionError, UnknownColumn, UnknownLevel, UnknownOption

CARS = load_dataset("mtcars")
M = model("mpg ~ wt * factor(cyl) + log(hp)", CARS).fit()


def test_a_query_stands_for_rows():
    """Its variables at their values, the first fastest; other numbers at their mean, other factors at their first level."""
    found = M.predict("wt@[2, 3] ~ cyl").predictions
    assert found["wt"].to_list() == [2, 3] * 3
    assert found["cyl"].to_list() == [4, 4, 6, 6, 8, 8]
    np.testing.assert_allclose(found["hp"], CARS["hp"].mean())
    rows = M.predict(found.select("wt", "cyl", "hp")).predictions["fitted"]
    np.testing.assert_array_equal(found["fitted"], rows)


def test_a_number_without_values_runs_over_its_range():
    found = M.predict("wt", n_points=7).predictions
    np.testing.assert_allclose(found["wt"], np.linspace(CARS["wt"].min(), CARS["wt"].max(), 7))
    assert found["cyl"].to_list() == [4] * 7
    assert M.predict("cyl ~ wt").predictions["wt"].to_list() == [pytest.approx(CARS["wt"].mean())] * 3
    assert M.predict("wt").predictions.height == 50


def test_predictions_are_the_means_of_their_cell():
    a = M.predict("wt@[2, 3] ~ cyl").infer().predictions
    b = M.explore("wt@[2, 3]:cyl").infer().effects
    np.testing.assert_allclose(
        a.select("fitted", "se", "ci_lower", "ci_upper"), b.select("estimate", "se", "ci_lower", "ci_upper"), rtol=1e-10
    )


def test_a_missing_value_gives_a_null_row():
    new = pl.DataFrame({"wt": [2.5, None, 3.0, float("nan")], "cyl": [4, 6, None, 8], "hp": [100.0] * 4})
    found = M.predict(new).infer(interval="prediction").predictions
    assert [v is None for v in found["fitted"]] == [False, True, True, True]
    assert [v is None for v in found["ci_lower"]] == [False, True, True, True]
    assert any("3 rows have a missing value" in n for n in M.predict(new).focus.notes)


def test_columns_that_clash_get_a_suffix():
    new = CARS.head(3).with_columns(fitted=pl.lit(1.0), se=pl.lit("mine"))
    found = M.predict(new).infer().predictions
    assert found["fitted"].to_list() == [1.0] * 3
    np.testing.assert_array_equal(found["fitted_bossa"], M.predict(CARS.head(3)).predictions["fitted"])
    assert "se_bossa" in found.columns


def test_new_rows_need_only_what_the_question_needs():
    assert M.predict(CARS.select("wt", "cyl", "hp").head(2)).predictions.height == 2
    with pytest.raises(UnknownColumn, match="hp"):
        M.predict(CARS.select("wt", "cyl"))
    with pytest.raises(UnknownLevel, match="cyl"):
        M.predict(pl.DataFrame({"wt": [2.0], "cyl": [5], "hp": [100.0]}))


def test_no_data_are_the_data():
    np.testing.assert_allclose(M.predict().predictions["fitted"], M.fit_state.mu, rtol=1e-12)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
def test_limits_of_probabilities_stay_between_0_and_1(link):
    m = model("am ~ wt", CARS, family="binomial", link=link).fit()
    found = m.predict(pl.DataFrame({"wt": [0.5, 3.0, 9.0]})).infer(conf_level=0.9999).predictions
    assert ((found["ci_lower"] >= 0) & (found["ci_upper"] <= 1) & (found["ci_lower"] <= found["fitted"])).all()
    eta = m.predict(pl.DataFrame({"wt": [0.5, 3.0, 9.0]}), type="link").infer(conf_level=0.9999).predictions
    np.testing.assert_allclose(m.spec.link.inverse(eta["ci_upper"].to_numpy()), found["ci_upper"], rtol=1e-12)


def test_offsets_are_part_of_a_prediction():
    data = CARS.with_columns(exposure=pl.col("qsec"))
    m = model("carb ~ wt + offset(log(exposure))", data, family="poisson").fit()
    once, twice = (m.predict(pl.DataFrame({"wt": [3.0], "exposure": [e]})).predictions["fitted"][0] for e in (1.0, 2.0))
    assert twice == pytest.approx(2 * once)
    by_column = model("carb ~ wt", data.with_columns(pl.col("exposure").log()), family="poisson", offset="exposure").fit()
    assert by_column.predict(pl.DataFrame({"wt": [3.0], "exposure": [0.0]})).predictions["fitted"][0] == pytest.approx(once, rel=1e-9)


def test_predictions_of_a_transformed_response_name_their_scale():
    """R's predict() gives these numbers, on the scale of log(mpg), without a word."""
    for formula in ("log(mpg) ~ wt", "scale(mpg) ~ wt", "I(1/mpg) ~ wt"):
        m = model(formula, CARS).fit()
        assert f"- on the scale of {m.spec.response}" in repr(m.predict("wt"))
    assert "- on the scale of scale(mpg)" in repr(model("scale(mpg) ~ wt", CARS).fit().explore("wt@[2, 3]"))
    assert "on the scale" not in repr(model("mpg ~ wt", CARS).fit().predict("wt"))


def test_rows_that_the_data_do_not_determine_are_null():
    data = load_dataset("mtcars").filter(~((pl.col("cyl") == 8) & (pl.col("gear") == 5)))
    m = model("mpg ~ factor(cyl) * factor(gear)", data).fit()
    found = m.predict(pl.DataFrame({"cyl": [4, 8, 8], "gear": [5, 4, 3]}))
    assert [v is None for v in found.predictions["fitted"]] == [False, True, False]
    assert any("1 row is not determined by the data" in n for n in found.focus.notes)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"type": "respons"}, UnknownOption, "Did you mean 'response'?"),
        ({"varying": "yes"}, UnknownOption, "varying 'yes'"),
        ({"new_levels": "sampled"}, UnknownOption, "Did you mean 'sample'?"),
        ({"n_points": 0}, OptionError, "n_points=0"),
        ({"n_points": 2.5}, OptionError, "n_points=2.5"),
    ],
)
def test_options_are_checked(options, error, said):
    with pytest.raises(error) as caught:
        M.predict("wt", **options)
    assert said in str(caught.value)
