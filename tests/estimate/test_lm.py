"""The linear model: NIST's certified regressions, laws of counts, offsets, weights and coding, and what happens at the edges."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa import load_dataset, model
from bossa.errors import NotYet

# Least log relative error (digits) that a set must reach: coefficients, standard errors, sigma.
# R 4.2.2 (lm.fit with tol = 1e-14, summary.lm) reaches 12.5/14.1/14.1 on Norris, 13.0/14.1/14.3 on Longley, 7.2/7.0/8.1 on Filip,
# 9.8/–/– 13.6/–/– 9.3 7.5 5.5 on Wampler 1–5. Filip's powers of x are rounded to double before anyone fits: about 8 digits are left.
DIGITS = {
    "Norris": (12.5, 13, 13),
    "NoInt1": (14, 14, 14),
    "NoInt2": (14, 14, 14),
    "Filip": (7.2, 7.0, 8.1),
    "Longley": (13.0, 12, 14),
    "Wampler1": (9.8, None, None),
    "Wampler2": (12.5, None, None),
    "Wampler3": (9.3, 12.5, 14),
    "Wampler4": (9.3, 12.5, 14),
    "Wampler5": (8, 12.5, 14),
}


def digits(found, exact):
    """−log₁₀ of the largest relative error, at most 15."""
    error = np.max(np.abs(np.asarray(found) - exact) / np.abs(exact))
    return 15.0 if error < 1e-15 else -np.log10(error)


@pytest.mark.parametrize("name", DIGITS)
def test_nist_certified_regressions(golden, name):
    """Values: exact rational solutions, equal to NIST's certified ones (tests/golden/nist_strd.json)."""
    case = json.loads((golden / "nist_strd.json").read_text(encoding="utf-8"))["sets"][name]
    x = np.array(case["x"])
    data = {"y": case["y"]} | {f"x{j}": x[:, j] for j in range(x.shape[1])}
    terms = [f"I(x{j}^{k})" for j in range(x.shape[1]) for k in range(1, case["powers"] + 1)]
    m = model(f"y ~ {'1' if case['intercept'] else '0'} + {' + '.join(terms)}", data).fit()
    params, one = m.infer().params, m.diagnostics.row(0, named=True)
    assert params["estimate"].null_count() == 0
    coef, se, sigma = DIGITS[name]
    assert digits(params["estimate"], case["coef"]) >= coef
    if se is None:  # an exact fit: σ is 0, found as rounding error
        assert one["sigma"] < 1e-6
        return
    assert digits(params["se"], case["se"]) >= se
    assert digits(one["sigma"], case["sigma"]) >= sigma
    assert digits(one["rsquared"], case["r2"]) >= 10


# ---------------------------------------------------------------- laws
def rows(n=40, seed=0):
    rng = np.random.default_rng(seed)
    g = rng.choice(["a", "b", "c"], n)
    x = rng.normal(3, 2, n)
    y = 1 + 0.5 * x + (g == "b") + rng.normal(size=n)
    frame = {"y": y, "x": x, "g": g, "w": rng.uniform(0.2, 4, n), "k": rng.integers(1, 5, n), "o": rng.normal(size=n)}
    return pl.DataFrame(frame)


SUMMARY = [
    "n",
    "df_resid",
    "sigma",
    "deviance",
    "null_deviance",
    "loglik",
    "aic",
    "bic",
    "rsquared",
    "rsquared_adj",
    "fstat",
    "fstat_p_value",
]


def numbers(m):
    """Everything that .params and .diagnostics say, as one array."""
    params = m.infer().params
    return np.concatenate([params.drop("term").to_numpy().ravel(), m.diagnostics.select(SUMMARY).to_numpy().ravel().astype(float)])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), weighted=st.booleans())
def test_counts_are_rows_repeated(seed, weighted):
    """freq_weights = k: everything is as if each row stood k times, prior weights or not."""
    data, options = rows(seed=seed), {"weights": "w"} if weighted else {}
    counted = model("y ~ x * g", data, freq_weights="k", **options).fit()
    repeated = model("y ~ x * g", data.select(pl.all().repeat_by("k").explode()), **options).fit()
    np.testing.assert_allclose(numbers(counted), numbers(repeated), rtol=1e-9, atol=1e-12)


def test_offset_is_a_shifted_response():
    data = rows()
    with_offset = model("y ~ x + g", data, offset="o").fit()
    shifted = model("I(y - o) ~ x + g", data).fit()
    a, b = with_offset.infer().params.drop("term"), shifted.infer().params.drop("term")
    np.testing.assert_allclose(a.to_numpy(), b.to_numpy(), rtol=1e-12)
    one, other = (m.diagnostics.select("sigma", "deviance", "null_deviance", "loglik") for m in (with_offset, shifted))
    np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=1e-12)
    np.testing.assert_allclose(with_offset.augment()["fitted"], shifted.augment()["fitted"] + data["o"], rtol=1e-12)


def test_order_of_rows_does_not_matter():
    data = rows()
    shuffled = data.sample(fraction=1.0, shuffle=True, seed=1)
    one, other = (numbers(model("y ~ x * g", d, weights="w").fit()) for d in (data, shuffled))
    np.testing.assert_allclose(one, other, rtol=1e-10)


def test_units_of_a_predictor_go_into_its_coefficient_alone():
    data = rows()
    one = model("y ~ x + g", data).fit().infer().params
    scaled = model("y ~ x + g", data.with_columns(pl.col("x") * 1e9)).fit().infer().params
    np.testing.assert_allclose(scaled["estimate"].to_numpy() * [1, 1e9, 1, 1], one["estimate"], rtol=1e-11)
    np.testing.assert_allclose(scaled["p_value"], one["p_value"], rtol=1e-9)


def test_scale_of_prior_weights_changes_sigma_alone():
    data = rows()
    once = model("y ~ x + g", data, weights="w").fit()
    nine = model("y ~ x + g", data.with_columns(pl.col("w") * 9), weights="w").fit()
    np.testing.assert_allclose(numbers(once)[:28], numbers(nine)[:28], rtol=1e-11)
    assert nine.diagnostics["sigma"][0] == pytest.approx(3 * once.diagnostics["sigma"][0], rel=1e-12)
    assert nine.diagnostics["loglik"][0] == pytest.approx(once.diagnostics["loglik"][0], rel=1e-12)
    assert nine.diagnostics["rsquared"][0] == pytest.approx(once.diagnostics["rsquared"][0], rel=1e-12)


def test_rows_of_weight_zero_are_not_there():
    data = rows()
    contrary = data.with_columns(y=-10 * pl.col("y"), w=pl.lit(0.0))
    kept = model("y ~ x + g", data, weights="w").fit()
    padded = model("y ~ x + g", pl.concat([data, contrary]), weights="w").fit()
    np.testing.assert_allclose(numbers(padded), numbers(kept), rtol=1e-12)


@pytest.mark.parametrize("coding", ["sum", "helmert", "poly", "sequential"])
def test_recoding_a_factor_leaves_the_fit(coding):
    data = rows()
    one, other = model("y ~ x * g", data).fit(), model("y ~ x * g", data, contrasts={"g": coding}).fit()
    np.testing.assert_allclose(other.augment()["fitted"], one.augment()["fitted"], rtol=1e-11)
    np.testing.assert_allclose(
        other.diagnostics.select(SUMMARY).to_numpy().astype(float), one.diagnostics.select(SUMMARY).to_numpy().astype(float), rtol=1e-9
    )


def test_many_rows_by_the_gram_matrix_are_as_accurate_as_few_by_qr():
    """20,000 rows take the Cholesky path; numpy's SVD is the referee."""
    data = rows(20_000)
    m = model("y ~ x + g", data, weights="w").fit()
    X, w = m.designmat.to_numpy(), np.sqrt(data["w"].to_numpy())
    exact = np.linalg.lstsq(X * w[:, None], data["y"].to_numpy() * w, rcond=None)[0]
    np.testing.assert_allclose(m.params["estimate"], exact, rtol=1e-12)


# ---------------------------------------------------------------- edges
def test_dependent_columns_are_null_rows_and_named():
    data = rows().with_columns(z=2 * pl.col("x") - 1)
    m = model("y ~ x + z + g", data).fit()
    assert m.params.filter(pl.col("estimate").is_null())["term"].to_list() == ["z"]
    assert any("z" in note for note in m.fit_state.notes)
    without = model("y ~ x + g", data).fit()
    np.testing.assert_allclose(m.infer().params.drop_nulls().drop("term"), without.infer().params.drop("term"), rtol=1e-12)
    assert m.diagnostics["df_model"][0] == 3


def test_as_many_coefficients_as_rows_has_no_standard_errors_and_says_so():
    m = model("y ~ g", {"y": [1.0, 2.0, 4.0], "g": ["a", "b", "c"]}).fit()
    assert m.params["estimate"].to_list() == pytest.approx([1, 1, 3])
    assert m.convergence.status == "suspect"
    params = m.infer().params
    assert params["se"].null_count() == params["p_value"].null_count() == 3
    assert m.diagnostics["sigma"][0] is None
    assert m.diagnostics["loglik"][0] is None


def test_more_columns_than_rows_keeps_the_first():
    rng = np.random.default_rng(0)
    data = {"y": rng.normal(size=3)} | {f"x{j}": rng.normal(size=3) for j in range(5)}
    m = model("y ~ x0 + x1 + x2 + x3 + x4", data).fit()
    assert m.params["estimate"].is_null().to_list() == [False, False, False, True, True, True]
    assert m.diagnostics["df_resid"][0] == 0


def test_constant_response_is_suspect():
    m = model("y ~ x", {"y": [3.0] * 10, "x": np.arange(10.0)}).fit()
    assert m.params["estimate"].to_list() == pytest.approx([3, 0], abs=1e-14)
    assert m.convergence.status == "suspect"
    assert "constant" in m.convergence.message
    assert m.diagnostics["rsquared"][0] is None


def test_no_predictor_at_all():
    data = rows()
    m = model("y ~ 1", data).fit()
    assert m.params["estimate"][0] == pytest.approx(data["y"].mean(), rel=1e-14)
    assert m.diagnostics["rsquared"][0] == 0
    assert m.diagnostics["fstat"][0] is None


def test_what_no_estimator_takes_is_refused_by_name():
    from attrs import evolve

    from bossa.estimate import registry

    m = model("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy")).fit()
    with pytest.raises(NotYet, match="and random effects and a prior is not built yet"):
        registry.choose(evolve(m.problem, prior="normal(0, 1)"))
