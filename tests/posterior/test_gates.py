"""Gates open for what is right and close for what is wrong, by about as much as it is wrong."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model, normal
from bossa.assimilate import batches, gates
from bossa.cycle import promote
from bossa.errors import BossaError, FitFailed, Refused
from bossa.kernels import covop
from bossa.kernels.kalman import filter_scalar
from bossa.state.posterior import Posterior


def gaussian(mean=(0.0, 1.0), P=((1.0, 0.3), (0.3, 2.0))):
    return Posterior(names=("a", "b"), mean=np.array(mean), cov=covop.from_matrix(P))


def test_a_posterior_agrees_with_itself_and_with_a_near_one():
    same = gates.posterior_agreement(gaussian(), gaussian())
    assert same.passed
    assert same.table.filter(same.table["quantity"].str.starts_with("KL"))["value"].abs().max() < 1e-12
    assert same.require() is same
    assert gates.posterior_agreement(gaussian((0.5, 1.0)), gaussian()).statistic == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("fast", "worst", "value"),
    [
        (gaussian((1.5, 1.0)), "mean of a", 1.5),
        (gaussian(P=((5.0, 0.0), (0.0, 2.0))), "sd of a", 5**0.5),
        (gaussian(P=((0.2, 0.0), (0.0, 2.0))), "sd of a", 0.2**0.5),
        (gaussian(P=((1.0, -1.35), (-1.35, 2.0))), "eigenvalue, smallest", None),  # right sds, wrong correlation
    ],
)
def test_a_posterior_that_is_off_is_stopped_and_named(fast, worst, value):
    found = gates.posterior_agreement(fast, gaussian())
    assert not found.passed
    beyond = {row["quantity"]: row["value"] for row in found.table.rows(named=True) if not row["passed"]}
    assert worst in beyond
    if value is not None:
        assert beyond[worst] == pytest.approx(value)
    with pytest.raises(FitFailed) as caught:
        found.require()
    assert found.worst in str(caught.value)
    assert found.worst in beyond


def test_generalised_eigenvalues_are_scipys():
    from scipy.linalg import eigh

    rng = np.random.default_rng(0)
    A, B = (M @ M.T for M in rng.standard_normal((2, 2, 2)) + 2 * np.eye(2))
    table = gates.posterior_agreement(gaussian(P=A), gaussian(P=B)).table
    values = table.filter(table["quantity"].str.starts_with("eigenvalue"))["value"].to_numpy()
    np.testing.assert_allclose(values, eigh(A, B, eigvals_only=True), rtol=1e-10)


def test_laplace_and_samples_of_a_logistic_fit_pass():
    m = model("am ~ wt", load_dataset("mtcars"), family="binomial", prior=normal(0, 2)).fit()
    oracle = m.infer(how="posterior", adapter="samples", n_draws=4000, seed=1).posterior
    assert gates.posterior_agreement(m.infer(how="posterior").posterior, oracle).passed


def test_forward_agreement():
    X = np.linspace(0, 1, 50)
    assert gates.forward_agreement(np.exp, lambda x: np.exp(x) * 1.005, X).passed
    found = gates.forward_agreement(np.exp(X) * 1.02, np.exp(X))
    assert not found.passed
    assert found.statistic == pytest.approx(0.02)


# ---------------------------------------------------------------- operators
@pytest.mark.parametrize("seed", range(3))
def test_the_operator_norm_is_the_largest_singular_value(seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((30, 20))
    assert gates.operator_norm(A.__matmul__, A.T.__matmul__, 20, rng) == pytest.approx(np.linalg.norm(A, 2), rel=1e-8)


def test_one_wrong_direction_is_found_that_probes_miss():
    """An influence matrix dβ̂/dy that is wrong in one direction of a thousand rows."""
    rng = np.random.default_rng(0)
    n, k = 1000, 3
    X = rng.standard_normal((n, k))
    exact = np.linalg.solve(X.T @ X, X.T)
    u, v = rng.standard_normal(k), rng.standard_normal(n)
    wrong = exact + 0.3 * np.linalg.norm(exact, 2) * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    found = gates.adjoint_calibrated(wrong, exact)
    assert found.statistic == pytest.approx(0.3, rel=1e-6)
    assert not found.passed
    by_products = gates.adjoint_calibrated((wrong.__matmul__, wrong.T.__matmul__, n), exact)
    assert by_products.statistic == pytest.approx(found.statistic, rel=1e-6)
    assert gates.adjoint_calibrated(exact * 1.04, exact).passed


def test_the_influence_of_a_fit_is_its_jacobian():
    """dβ̂/dy of a ridge fit by refitting to perturbed responses, against the formula."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(25)
    y = 1 + x + rng.standard_normal(25)
    prior = {"Intercept": normal(0, 1), "x": normal(0, 1), "sigma": 1.0}

    def coef(response):
        return model("y ~ x", {"y": response, "x": x}, prior=prior).fit().fit_state.coef

    base = coef(y)
    refits = np.column_stack([(coef(y + 1e-3 * e) - base) / 1e-3 for e in np.eye(25)])
    X = np.column_stack((np.ones(25), x))
    found = gates.adjoint_calibrated(refits, np.linalg.solve(X.T @ X + np.eye(2), X.T))
    assert found.statistic < 1e-8


# ---------------------------------------------------------------- calibration
def stream_study(used):
    """Local level of eight estimates, true process variance 0.2; fitted with `used`."""
    T, Q, se2, m0, P0 = 8, 0.2, 0.3, 0.0, 1.0

    def draw(rng):
        theta = m0 + np.sqrt(P0) * rng.standard_normal() + np.cumsum(np.sqrt(Q) * rng.standard_normal(T))
        return theta[-1:], theta + np.sqrt(se2) * rng.standard_normal(T)

    def posterior(y, rng):
        path = filter_scalar(y, np.full(T, se2), np.full(T, used), m0, P0)
        return path.mean[-1] + np.sqrt(path.var[-1]) * rng.standard_normal((99, 1))

    return gates.calibrated(draw, posterior, n_sims=2000, seed=27)


def test_the_right_process_variance_is_calibrated_and_none_is_not():
    """Property 27: right Q passes; Q wrongly 0 gives ranks at both ends."""
    right, wrong = stream_study(0.2), stream_study(0.0)
    assert right.passed
    assert right.statistic > 0.01
    assert not wrong.passed
    assert wrong.statistic < 1e-12
    counts = np.bincount(wrong.ranks["theta[0]"] // 10, minlength=10)
    assert min(counts[0], counts[-1]) > 2.5 * counts[3:7].max()
    with pytest.raises(FitFailed, match="p-value of theta"):
        wrong.require()


def model_study(used):
    """A slope that walks (Q = 0.1 per batch), eight batches of six rows, assimilated by the model's own rows with Q = `used`."""
    T, n, Q, week = 8, 6, 0.1, np.repeat(np.arange(8), 6)

    def draw(rng):
        start, x = rng.standard_normal(2), rng.standard_normal(T * n)
        slope = start[1] + np.cumsum(np.sqrt(Q) * rng.standard_normal(T))
        y = start[0] + slope[week] * x + 0.5 * rng.standard_normal(T * n)
        return np.array([start[0], slope[-1]]), pl.DataFrame({"y": y, "x": x, "week": week})

    def posterior(data, rng):
        return batches("y ~ x", data, by="week", prior=normal(0, 1), sigma=0.5, drift={"x": used}).posterior

    return gates.calibrated(draw, posterior, n_sims=250, names=["Intercept", "x"], seed=27)


def test_streams_of_rows_are_calibrated_with_the_right_drift_and_not_with_none():
    """Property 27 on the level of the model: right Q, p large; Q wrongly 0, p about 0, for the coefficient that moves."""
    right, wrong = model_study(0.1), model_study(0.0)
    assert right.passed
    assert right.table["p_value"].min() > 0.05
    p = dict(zip(wrong.table["quantity"], wrong.table["p_value"]))
    assert p["x"] < 1e-10
    assert not wrong.passed


def test_ranks_have_a_picture_by_quantity_and_stratum():
    found = gates.sbc(model("y ~ x", covariates()), {**PRIOR, "sigma": 1.0}, n_sims=60, sizes=(5, 25), seed=3)
    drawn = found.plot()
    assert len(drawn.axes) == 2 * found.table.height
    one = drawn.frame.filter((pl.col("quantity") == "x") & (pl.col("stratum") == "5"))
    ranks = found.ranks["x"][np.array(found.strata) == 5]
    np.testing.assert_allclose(one["ecdf"], [(ranks <= r).mean() for r in range(100)])
    far = np.abs(one["ecdf"] - one["share"]).max()
    assert far == pytest.approx(found.table.filter((pl.col("quantity") == "x") & (pl.col("stratum") == "5"))["ecdf_distance"][0], abs=0.02)
    assert stream_study(0.0).plot().kind == "calibration"
    with pytest.raises(Refused, match="no ranks"):
        gates.posterior_agreement(gaussian(), gaussian()).plot()


def test_a_ladder_promotes_what_passes_every_gate():
    near, far = gaussian((0.1, 1.0)), gaussian((3.0, 1.0))
    assert promote(near, gaussian()).require() is near
    step = promote(far, gaussian(), [gates.posterior_agreement, right := gates.forward_agreement(np.ones(3), np.ones(3))])
    assert not step.passed
    assert step.results[1] is right
    assert "not promoted, 1 of 2 gates passed" in repr(step)
    with pytest.raises(FitFailed, match="mean of a"):
        step.require()
    exact, fast = promote(gaussian(), gaussian()).require(), gaussian((0.2, 1.1))
    assert promote(fast, exact, [gates.posterior_agreement]).passed


def test_strata_are_judged_on_their_own():
    """Right for odd, wrong for even sizes: together half wrong, apart one stratum is fine."""

    def draw(rng):
        theta, n = rng.standard_normal(), int(rng.integers(1, 5))
        return theta, (theta + rng.standard_normal(n), n)

    def posterior(data, rng):
        y, n = data
        sd = (1 + n) ** -0.5 * (1.0 if n % 2 else 0.5)
        return y.sum() / (1 + n) + sd * rng.standard_normal((99, 1))

    found = gates.calibrated(draw, posterior, n_sims=1500, stratum=lambda data: data[1] % 2, seed=1)
    passed = dict(zip(found.table["stratum"], found.table["passed"]))
    assert passed == {"1": True, "0": False}


def test_the_likelihood_sees_a_posterior_that_is_the_prior():
    """Draws from the prior, whatever the data: every coefficient's ranks are uniform, the log-likelihood's are not."""

    def draw(rng):
        theta = rng.standard_normal()
        return theta, theta + 0.5 * rng.standard_normal(5)

    def ignorant(y, rng):
        return rng.standard_normal((99, 1))

    def loglik(y, values):
        return -2 * ((y - values) ** 2).sum(axis=1)

    blind = gates.calibrated(draw, ignorant, n_sims=600, seed=2)
    sees = gates.calibrated(draw, ignorant, n_sims=600, loglik=loglik, seed=2)
    assert blind.passed
    assert not sees.passed
    assert dict(zip(sees.table["quantity"], sees.table["passed"])) == {"theta[0]": True, "loglik": False}


PRIOR = {"Intercept": normal(0, 1), "x": normal(0, 1)}


def covariates(n=30):
    rng = np.random.default_rng(0)
    return {"y": np.zeros(n), "x": rng.standard_normal(n)}


@pytest.mark.parametrize("sigma", [1.0, (0.8, 6.0)])
def test_linear_models_are_calibrated(sigma):
    found = gates.sbc(model("y ~ x", covariates()), {**PRIOR, "sigma": sigma}, n_sims=300, sizes=(5, 25), seed=3)
    assert found.passed
    assert set(found.table["stratum"]) == {"5", "25"}
    assert set(found.table["quantity"]) == {"Intercept", "x", "loglik"}


def test_a_logistic_model_is_calibrated_by_its_samples():
    found = gates.sbc(model("y ~ x", covariates(60), family="binomial"), PRIOR, n_sims=100, adapter="samples", seed=4)
    assert found.passed


def test_the_wrong_prior_of_the_fit_is_found():
    """Coefficients twice as far out as the fit believes."""
    study = gates.Study.of(model("y ~ x", covariates(5)), {**PRIOR, "sigma": 1.0}, "auto", None)
    wide = gates.Study.of(model("y ~ x", covariates(5)), {"Intercept": normal(0, 2), "x": normal(0, 2), "sigma": 1.0}, "auto", None)
    found = gates.calibrated(wide.draw, study.posterior, n_sims=200, seed=5)
    assert not found.passed


MISTAKES = [
    (lambda: gates.sbc(model("y ~ x", covariates()), PRIOR), "does not say what σ is"),
    (lambda: gates.sbc(model("y ~ x", covariates()), {"x": normal(0, 1), "sigma": 1.0}), "Name every coefficient"),
    (lambda: gates.sbc(model("y ~ x", covariates()), PRIOR, quantities=["parms"]), "Did you mean 'params'"),
    (lambda: gates.calibrated(None, None, n_sims=0), "n_sims=0"),
    (lambda: gates.forward_agreement(np.ones(3), np.ones(4)), "shapes (3,) and (4,)"),
    (lambda: gates.adjoint_calibrated(np.ones((2, 3)), np.zeros((2, 3))), "nothing to be relative to"),
    (lambda: gates.posterior_agreement(gaussian(), gaussian(), cv_ratio=1.0), "cv_ratio"),
    (lambda: promote(gaussian(), gaussian(), []), "there are no gates"),
    (lambda: promote(gaussian(), gaussian(), [3]), "gate 0 is int"),
    (lambda: promote(gaussian(), gaussian(), [lambda a, b: True]), "does not return a GateResult"),
]


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_mistakes_say_what_to_do(case):
    act, text = MISTAKES[case]
    with pytest.raises(BossaError) as caught:
        act()
    assert text in str(caught.value)
