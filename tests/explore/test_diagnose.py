"""Leverage, residuals and influence against refits without the row; variance inflation against statsmodels; edges."""

import numpy as np
import polars as pl
import pytest
from statsmodels.stats.outliers_influence import variance_inflation_factor

from bossa import model
from bossa.errors import Refused


def rows(n=30, seed=0):
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=n), rng.choice(["a", "b"], n)
    y = 1 + x + (g == "b") + rng.normal(size=n)
    return pl.DataFrame(
        {"y": y, "x": x, "z": x + rng.normal(size=n), "g": g, "w": rng.uniform(0.3, 3, n), "k": rng.integers(1, 4, n), "hit": y > 1}
    )


def test_influence_is_what_leaving_the_row_out_does():
    """sigma, Cook's distance and dffits of a weighted fit, by n refits."""
    data = rows()
    m = model("y ~ x + g", data, weights="w").fit()
    case, b, V = m.augment(), m.fit_state.coef, m.fit_state.vcov
    X = m.designmat.to_numpy()
    for i in (0, 7, 29):
        without = model("y ~ x + g", data.filter(pl.int_range(pl.len()) != i), weights="w").fit().fit_state
        assert case["sigma"][i] == pytest.approx(without.sigma, rel=1e-10)
        moved = b - without.coef
        assert case["cooksd"][i] == pytest.approx(moved @ np.linalg.solve(V, moved) / 3, rel=1e-9)
        se = without.sigma * np.sqrt(case["hat"][i] / data["w"][i])
        assert case["dffits"][i] == pytest.approx(X[i] @ moved / se, rel=1e-9)
        own = (data["y"][i] - X[i] @ without.coef) * np.sqrt(data["w"][i])
        expected = own * (1 - case["hat"][i]) / (without.sigma * np.sqrt(1 - case["hat"][i]))
        assert case["student_resid"][i] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("response", ["y", "hit"])
def test_a_counted_row_is_described_as_one_of_its_copies(response):
    data = rows()
    family = {"family": "binomial"} if response == "hit" else {}
    counted = model(f"{response} ~ x", data, freq_weights="k", **family).fit().augment()
    long = data.with_row_index("i").select(pl.all().repeat_by("k").explode())
    repeated = model(f"{response} ~ x", long, **family).fit().augment().unique("i", keep="first").sort("i")
    for column in ("fitted", "resid", "hat", "sigma", "cooksd", "std_resid", "student_resid", "dffits"):
        np.testing.assert_allclose(counted[column], repeated[column], rtol=1e-6, err_msg=column)


def test_leverage_sums_to_the_rank_and_needs_no_square_matrix():
    n = 200_000  # a hat matrix would take 320 GB
    rng = np.random.default_rng(0)
    m = model("y ~ x", {"y": rng.normal(size=n), "x": rng.normal(size=n)}).fit()
    assert m.augment()["hat"].sum() == pytest.approx(2, rel=1e-12)


def test_rows_not_used_are_null_in_augment():
    data = rows().with_columns(pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("x").alias("x"))
    case = model("y ~ x", data).fit().augment()
    assert case.height == 30
    assert case["cooksd"].is_null().to_list() == [i == 3 for i in range(30)]


def test_a_row_fitted_exactly_has_leverage_one_and_no_scaled_residual():
    data = rows().with_columns(own=(pl.int_range(pl.len()) == 4).cast(pl.Float64))
    case = model("y ~ x + own", data).fit().augment()
    assert case["hat"][4] == pytest.approx(1, rel=1e-12)
    assert case["std_resid"][4] is None
    assert case["std_resid"].null_count() == 1


def test_vif_of_numeric_terms_equals_statsmodels():
    m = model("y ~ x + z + w", rows()).fit()
    X = m.designmat.to_numpy()
    assert m.vif()["gvif"].to_list() == pytest.approx([variance_inflation_factor(X, j) for j in (1, 2, 3)], rel=1e-9)


def test_gvif_of_a_factor_does_not_depend_on_its_coding():
    data = rows().with_columns(h=pl.Series(np.random.default_rng(1).choice(["u", "v", "w"], 30)))
    one, other = (model("y ~ x + h", data, contrasts=c).fit().vif() for c in ({}, {"h": "helmert"}))
    np.testing.assert_allclose(other["gvif"], one["gvif"], rtol=1e-10)
    assert one["df"].to_list() == [1, 2]
    assert one["gvif_scaled"][1] == pytest.approx(one["gvif"][1] ** 0.25, rel=1e-12)


def test_vif_is_refused_where_it_means_nothing():
    with pytest.raises(Refused, match="fewer than two"):
        model("y ~ x", rows()).fit().vif()
    with pytest.raises(Refused, match="not estimable"):
        model("y ~ x + z + I(2 * x)", rows()).fit().vif()
