"""Alarms, any-time-valid inference, redesign, news and the ACI diagnostic: laws, and the figures of the specification."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from bossa import model
from bossa.assimilate import batches, causal_kalman, discount, estimates, fixed_lag, influence_range, nig, resume
from bossa.assimilate.monitoring import why_no_e_values
from bossa.errors import OptionError, Refused
from bossa.kernels.monitors import cusum, ljung_box, log_e_value, rows_needed, sequence_radius, surprise
from bossa.state.distributions import normal


@pytest.mark.parametrize("q", [0.0, 0.01])
def test_a_jump_of_ten_standard_errors_is_found_at_once(q):
    """|z| > 3 and CUSUM at the batch of the jump, whether drift is allowed for or not."""
    for seed in range(5):
        y = np.random.default_rng(seed).normal(0, 0.1, 40)
        y[20:] += 1.0
        r = causal_kalman(y, np.full(40, 0.1), process_var=q)
        kinds = {a.kind for a in r.alarms if a.batch == 20}
        assert {"z", "cusum", "nis"} <= kinds
        assert "z" in r.trajectory()["alarm"][20]
        early = [a for a in r.alarms if a.kind == "cusum" and a.batch < 20]
        assert not early


def test_cusum_false_alarms_and_delay():
    """Specification: false alarm in 100 steps .175 at k = .5, h = 5; a shift of 1 se found within 30 batches in 82%, median delay 8."""
    rng = np.random.default_rng(1)
    false = np.mean([cusum(rng.normal(size=100))[2].any() for _ in range(2000)])
    assert false == pytest.approx(0.175, abs=0.03)
    z = rng.normal(size=(1000, 200)) + 1
    delays = np.array([np.argmax(cusum(row)[2]) for row in z])
    assert np.median(delays) == pytest.approx(8, abs=2)


def test_cusum_passes_over_what_was_not_seen():
    up, down, alarm = cusum(np.array([2.0, math.nan, 3.0, -9.0]))
    np.testing.assert_allclose(up, [1.5, 1.5, 4.0, 0.0])
    np.testing.assert_allclose(down, [0.0, 0.0, 0.0, 8.5])
    assert alarm.tolist() == [False, False, False, True]


def test_ljung_box_is_statsmodels_about_zero():
    from statsmodels.stats.diagnostic import acorr_ljungbox

    z = np.random.default_rng(2).normal(size=100)
    z -= z.mean()  # statsmodels centres
    reference = acorr_ljungbox(z, lags=[5])
    Q, p = ljung_box(z, 5)
    assert pytest.approx(reference["lb_stat"].iloc[0], rel=1e-12) == Q
    assert p == pytest.approx(reference["lb_pvalue"].iloc[0], rel=1e-10)


def test_innovations_remember_when_drift_is_denied():
    rng = np.random.default_rng(3)
    y = np.cumsum(rng.normal(0, 0.3, 80)) + rng.normal(0, 0.1, 80)
    denied, allowed = (causal_kalman(y, np.full(80, 0.1), process_var=q) for q in (0.0, 0.09))
    assert any(a.kind == "whiteness" for a in denied.alarms)
    assert not any(a.kind == "whiteness" for a in allowed.alarms)


# ---------------------------------------------------------------- any-time validity
def test_e_value_is_the_ratio_of_prior_to_posterior_density_and_of_evidences():
    rng = np.random.default_rng(4)
    y, se = rng.normal(0.2, 0.3, 25), rng.uniform(0.1, 0.4, 25)
    r = causal_kalman(y, se, prior_var=0.5)
    e = r.monitor()["e_value"].to_numpy()
    savage_dickey = stats.norm.pdf(0, 0, math.sqrt(0.5)) / stats.norm.pdf(0, r.posterior_mean, r.posterior_sd)
    np.testing.assert_allclose(e, savage_dickey, rtol=1e-10)
    null = stats.norm.logpdf(y, 0, se).sum()
    assert math.log(e[-1]) == pytest.approx(r.log_evidence - null, abs=1e-11)
    point = estimates(y, se, prior=normal(0, 1e-9))
    other = estimates(y, se, prior=normal(0, math.sqrt(0.5)))
    assert other.compare(point) == pytest.approx(math.log(e[-1]), abs=1e-6)


def test_rejecting_by_the_e_value_is_leaving_the_confidence_sequence():
    rng = np.random.default_rng(5)
    for _ in range(30):
        y = rng.normal(rng.choice([0, 0.3]), 1, 60)
        m = causal_kalman(y, np.ones(60), prior_var=0.4).monitor()
        outside = (m["cs_lower"] > 0) | (m["cs_upper"] < 0)
        assert (outside == (m["e_value"] >= 20)).all()
    # Robbins: |θ̂| > √((I + h) log((I + h)/(h α²)))/I
    information, h = np.arange(1.0, 61), 2.5
    radius = np.sqrt((information + h) * np.log((information + h) / (h * 0.05**2))) / information
    np.testing.assert_allclose(sequence_radius(information, h, 0.05), radius, rtol=1e-14)
    np.testing.assert_allclose(np.exp(log_e_value(radius, information, h)), 20, rtol=1e-12)


def test_error_over_two_hundred_looks():
    """Specification: z .429, posterior interval .360, e-value ≥ 20 .024 (at most .05 by Ville's inequality)."""
    rng = np.random.default_rng(6)
    sims, T, h = 1500, 200, 1.0
    y = rng.normal(size=(sims, T))
    information = np.arange(1.0, T + 1)
    mean = np.cumsum(y, axis=1) / information
    z = np.abs(mean) * np.sqrt(information) > 1.959963984540054
    posterior = np.abs(mean * information / (information + h)) * np.sqrt(information + h) > 1.959963984540054
    e = log_e_value(mean, information, h) >= math.log(20)
    found = [float(rejected.any(axis=1).mean()) for rejected in (z, posterior, e)]
    assert found[0] == pytest.approx(0.429, abs=0.04)
    assert found[1] == pytest.approx(0.360, abs=0.04)
    assert found[2] == pytest.approx(0.024, abs=0.015)


def test_e_values_need_a_still_effect_and_a_prior():
    y, se = [0.1, 0.2, 0.3], [0.1] * 3
    assert estimates(y, se).monitor()["e_value"].is_null().all()
    assert estimates(y, se, prior=normal(0, 1), drift=0.1).monitor()["e_value"].is_null().all()
    mixed = estimates(y, se).monitor(mixture_sd=1.0)["e_value"]
    own = estimates(y, se, prior=normal(0, 1)).monitor()["e_value"]
    np.testing.assert_allclose(mixed, own, rtol=1e-12)


def weeks(seed=0, T=8):
    rng = np.random.default_rng(seed)
    n = 30 * T
    week = np.repeat(np.arange(T), 30)
    x = rng.normal(size=n)
    return pl.DataFrame({"x": x, "week": week, "y": 1 + (2 + 0.1 * week) * x + rng.normal(size=n)})


def test_e_values_of_unknown_sigma_are_ratios_of_marginal_likelihoods():
    """By quadrature over σ of the normal densities of y, coefficients of other terms flat, σ² ~ 1/σ²."""
    data = weeks(T=3).with_columns(z=pl.Series(np.random.default_rng(7).normal(size=90)))
    r = batches("y ~ x + z", data, by="week", prior={"z": normal(0, 0.5)}, sigma0=0.8)
    X, y, tau = np.column_stack((np.ones(90), data["x"], data["z"])), data["y"].to_numpy(), 0.5 / 0.8
    Z = X[:, :2]
    residual = np.eye(90) - Z @ np.linalg.solve(Z.T @ Z, Z.T)
    basis = np.linalg.svd(residual)[0][:, :88]  # what flat coefficients leave of y
    u, w = basis.T @ y, basis.T @ X[:, 2]
    log_s = np.linspace(-3, 3, 4001)
    marginal = [
        sum(stats.multivariate_normal(np.zeros(88), np.exp(2 * s) * (np.eye(88) + t2 * np.outer(w, w))).pdf(u) for s in log_s[::20])
        for t2 in (tau**2, 0.0)
    ]
    m = r.monitor().filter(pl.col("term") == "z")
    assert m["e_value"][2] == pytest.approx(marginal[0] / marginal[1], rel=1e-8)
    assert r.monitor().filter(pl.col("term") == "x")["e_value"].is_null().all()  # flat about it
    some = r.monitor(mixture_sd=tau).filter(pl.col("term") == "z")
    np.testing.assert_allclose(some["e_value"], m["e_value"], rtol=1e-13)
    for edge in ("cs_lower", "cs_upper"):
        at = [r.monitor(null=null)["e_value"].to_numpy().reshape(3, 3)[t, 2] for t, null in enumerate(m[edge])]
        np.testing.assert_allclose(at, 20, rtol=1e-8)


def test_with_many_rows_unknown_sigma_is_known_sigma():
    rng = np.random.default_rng(3)
    data = pl.DataFrame({"y": 0.02 + rng.normal(size=40_000), "week": np.repeat(np.arange(4), 10_000)})
    sigma = data["y"].std()
    learnt, known = (batches("y ~ 1", data, by="week", prior=normal(0, 0.1), **o).monitor() for o in ({"sigma0": sigma}, {"sigma": sigma}))
    assert math.log(learnt["e_value"][-1]) == pytest.approx(math.log(known["e_value"][-1]), rel=1e-3)
    np.testing.assert_allclose(learnt["cs_lower"][-1], known["cs_lower"][-1], rtol=1e-3)


def test_e_values_hold_whatever_sigma_and_the_other_coefficients_are():
    """No effect of x, σ and the level far from what the prior expects: 20 is passed at any of 20 looks in at most 5% of streams."""
    rng, passed, sims = np.random.default_rng(8), 0, 150
    for _ in range(sims):
        x = rng.normal(size=120)
        data = pl.DataFrame({"y": 30 + 4 * rng.normal(size=120), "x": x, "week": np.repeat(np.arange(20), 6)})
        r = batches("y ~ x", data, by="week", prior=normal(0, 1), sigma0=1.0)
        passed += (r.monitor().filter(pl.col("term") == "x")["e_value"].drop_nulls() >= 20).any()
    assert passed / sims <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / sims)
    strong = data.with_columns(y=pl.col("y") + 4 * pl.col("x"))
    assert batches("y ~ x", strong, by="week", prior=normal(0, 1), sigma0=1.0).monitor()["e_value"][-1] > 1000


def test_a_prior_of_other_coefficients_does_not_move_the_e_value():
    data = weeks()
    for sigma in (1.0, "nig"):
        one, other = (
            batches("y ~ x", data, by="week", sigma=sigma, sigma0=1.0, prior={"Intercept": normal(mean, 0.1), "x": normal(0, 1)})
            for mean in (0, 50)
        )
        a, b = (r.monitor().filter(pl.col("term") == "x")["e_value"] for r in (one, other))
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_effects_have_e_values_too():
    data = weeks(T=5)
    m = model("y ~ x", data).fit().explore("slope(x)").infer(how="assim", by="week", sigma=1.0, prior=normal(0, 1))
    coef = batches("y ~ x", data, by="week", sigma=1.0, prior=normal(0, 1))
    np.testing.assert_allclose(m.monitor()["e_value"], coef.monitor().filter(pl.col("term") == "x")["e_value"], rtol=1e-10)


def test_why_there_are_no_e_values_is_said():
    y, se = [0.1, 0.2, 0.3], [0.1] * 3
    data = weeks(T=3)
    for r, word in (
        (estimates(y, se), "mixture_sd"),
        (estimates(y, se, prior=normal(0, 1), drift=0.1), "stand still"),
        (estimates(y, se, prior=normal(0, 1), between="dl"), "known beforehand"),
        (causal_kalman(y, se, prior_var=math.inf), "mixture_sd"),
        (causal_kalman(y, se, prior_var=0.0), "a point"),
        (batches("y ~ x", data, by="week"), "flat"),
        (batches("y ~ x", data, by="week", prior=normal(0, 1)), "sigma0="),
    ):
        assert r.monitor()["e_value"].is_null().all()
        assert word in why_no_e_values(r)
    assert not why_no_e_values(batches("y ~ x", data, by="week", prior=normal(0, 1), sigma=nig(2, 2)))


# ---------------------------------------------------------------- how the weight is spread
def test_weights_sum_to_one_and_give_the_mean():
    y, se = [1.2, 0.9, 1.5, 1.1, 1.8, 2.0], [0.3, 0.25, 0.4, 0.2, 0.35, 0.3]
    for r in (
        causal_kalman(y, se, prior_mean=0.5, process_var=0.05),
        estimates(y, se, prior=normal(0.5, 1), drift=0.05),
        estimates(y, se, prior=normal(0.5, 1), drift=discount(0.8)),
        estimates(y, se, prior=normal(0.5, 1), drift="ml"),
        estimates(y, se, prior=normal(0.5, 1), drift="bayes"),
    ):
        w = r.weights()["weight"].to_numpy()
        assert w.sum() == pytest.approx(1.0, abs=1e-14)
        assert w @ np.array([0.5, *y]) == pytest.approx(float(r.final_mean), abs=1e-13)
        if "q_weights" not in r.diagnostics:  # integrated over the drift, the number of batches is an average of numbers
            assert r.ess_kish[-1] == pytest.approx((1 - w[0]) ** 2 / (w[1:] @ w[1:]), rel=1e-12)


def vectors(seed=0, T=8, **options):
    return batches("y ~ x", weeks(seed, T), by="week", **options)


def test_weights_of_a_vector_with_drift_integrated_out_sum_to_one():
    w = vectors(drift="bayes").weights()
    np.testing.assert_allclose(w.group_by("term").agg(pl.col("weight").sum())["weight"], 1.0, rtol=1e-9)
    assert w.filter(pl.col("term") == "x")["weight"].tail(8).is_sorted()  # the latest count most


def test_kish_of_a_vector_is_that_of_its_weights():
    for options in ({"drift": 0.02, "sigma": 1.0}, {"drift": discount(0.8)}, {}, {"prior": normal(0, 1), "sigma": nig(2, 2)}):
        r = vectors(**options)
        w = r.weights().filter(pl.col("term") == "x")["weight"].to_numpy()
        assert w.sum() == pytest.approx(1.0, abs=1e-12)
        assert r.ess_kish[-1, 1] == pytest.approx((1 - w[0]) ** 2 / (w[1:] @ w[1:]), rel=1e-10)


@pytest.mark.parametrize("drift", [0, discount(0.8)])
def test_weights_of_batches_do_not_depend_on_how_other_coefficients_are_coded(drift):
    """The slope of x and of x − 190 is one number: what a batch weighs in it is one too, and batches that are alike weigh alike."""
    data = weeks(3, 8)
    here, there = (batches(f, data, by="week", drift=drift) for f in ("y ~ x", "y ~ I(x - 190)"))
    np.testing.assert_allclose(here.ess_kish[:, 1], there.ess_kish[:, 1], rtol=1e-5)
    w, v = (r.weights()["weight"].to_numpy().reshape(-1, 2) for r in (here, there))
    np.testing.assert_allclose(w[:, 1], v[:, 1], rtol=1e-5, atol=1e-12)
    assert (there.ess_kish[1:] > 0.999).all()  # the intercept, far from the data, included
    assert (there.ess_kish <= np.arange(1, 9)[:, None] + 1e-9).all() or drift != 0


def test_weights_of_a_still_vector_are_shares_of_the_variance():
    """w_j = the variance that batch j's errors give the last mean, over the whole: with P = (Σ XᵀX)⁻¹, (P X_jᵀX_j P)_cc / P_cc."""
    data = weeks(4, 6)
    r = batches("y ~ x", data, by="week", sigma=1.0)
    X = np.column_stack((np.ones(data.height), data["x"]))
    P = np.linalg.inv(X.T @ X)
    own = [X[(data["week"] == week).to_numpy()] for week in data["week"].unique(maintain_order=True)]
    expected = [np.diag(P @ part.T @ part @ P) / np.diag(P) for part in own]
    np.testing.assert_allclose(r.weights()["weight"].to_numpy().reshape(-1, 2)[1:], expected, rtol=1e-10)


def test_effective_sizes_never_look_ahead():
    whole, part = (estimates([1.0, 2.0, 1.5, 1.2][:T], [0.5, 0.1, 0.9, 0.2][:T], prior=normal(0, 1), drift=0.1) for T in (4, 2))
    np.testing.assert_array_equal(whole.ess[:2], part.ess)
    np.testing.assert_array_equal(whole.ess_kish[:2], part.ess_kish)


# ---------------------------------------------------------------- redesign
def test_rows_needed_reach_the_target():
    r = vectors(sigma=1.0)
    target = float(r.posterior_sd[-1, 1]) / 2
    found = r.redesign(target)[1]
    assert (found.reached, found.trigger) == (False, "")
    assert found.rows == pytest.approx(rows_needed(1.0, r.covariance[-1, 1, 1], target), rel=0.25)  # one row's variance is a median
    assert r.redesign(1.0)[1].reached
    assert r.redesign(1.0)[1].rows == 0
    assert r.redesign(target, horizon=2)[1].trigger == "horizon"
    assert r.redesign(1.0, ess_floor=100)[1].trigger == "ess"


def test_no_amount_of_data_will_do():
    q, v = 0.04, 0.25
    r = causal_kalman(np.zeros(50), np.full(50, math.sqrt(v)), process_var=q)
    limit = math.sqrt((-q + math.sqrt(q**2 + 4 * q * v)) / 2)
    found = r.redesign(0.9 * limit)[0]
    assert found.trigger == "never"
    assert found.limit_sd == pytest.approx(limit, rel=1e-12)
    assert "No number of batches" in found.message
    assert r.redesign(1.1 * limit)[0].reached
    forgetting = estimates(np.zeros(200), np.ones(200), drift=discount(0.9))
    assert forgetting.redesign(0.1)[0].limit_sd == pytest.approx(forgetting.final_sd, rel=1e-6)
    with pytest.raises(OptionError, match="target_sd"):
        r.redesign(-1)
    with pytest.raises(Refused, match="no batch"):
        causal_kalman([], []).redesign(1)


# ---------------------------------------------------------------- news and surprise
def test_news_adds_up_to_the_revision():
    r = vectors(drift=0.02, sigma=1.0, prior=normal(0, 3))
    news = r.news().group_by(["batch", "term"], maintain_order=True).agg(pl.col("news").sum())
    revision = r.posterior_mean - r.solution.path.mean_f
    np.testing.assert_allclose(news["news"].to_numpy().reshape(-1, 2), revision, atol=1e-12)
    scalar = causal_kalman([1.0, 2.0], [0.5, 0.5])
    np.testing.assert_allclose(scalar.news()["news"], np.diff(scalar.posterior_mean, prepend=0.0), rtol=1e-13)


def test_aci_is_never_negative_ends_at_zero_and_is_largest_at_the_jump():
    for seed in range(5):
        y = np.random.default_rng(seed).normal(0, 0.1, 30)
        y[18:] += 1.0
        aci = causal_kalman(y, np.full(30, 0.1), process_var=0.01).aci()
        assert (aci["aci"] >= 0).all()
        assert aci["aci"][-1] == pytest.approx(0.0, abs=1e-12)
        assert int(np.argmax(aci["aci"])) == 17  # the last state before it
        np.testing.assert_allclose(aci["aci"], aci["signal"] + aci["dispersion"])
    assert vectors(drift="ml").aci()["aci"][-1] == pytest.approx(0.0, abs=1e-10)


def grouped(T=6):
    rng = np.random.default_rng(5)
    g, s = np.tile(["a", "b", "c"], 10 * T), np.arange(30 * T) % 15
    y = rng.normal(size=30 * T) + (g == "b") + rng.normal(size=15)[s]
    return pl.DataFrame({"y": y, "g": g, "s": s.astype(str), "week": np.repeat(np.arange(T), 30)})


def test_aci_of_rows_that_are_combinations_of_others_is_that_of_the_independent_ones():
    m = model("y ~ g", grouped()).fit()
    both, all_three = (
        m.explore(q).infer(how="assim", by="week", drift=0.05, sigma=1.0).stream.aci() for q in ("treatment(g)", "pairwise(g)")
    )
    np.testing.assert_allclose(all_three["aci"], both["aci"], rtol=1e-8, atol=1e-12)
    assert all_three["aci"][0] > 0


def test_questions_about_streams_of_mixed_models():
    data = grouped()
    m = model("y ~ g + (1 | s)", data).fit().infer(how="assim", by="week")
    w = m.stream.weights()
    assert set(w["term"]) == {"Intercept", "g[b]", "g[c]"}
    found = m.stream.redesign(0.01)[1]
    assert not found.reached
    sd = m.stream.posterior_sd[-1, 1]
    assert found.rows == pytest.approx(180 * (sd / 0.01) ** 2, rel=0.1)  # rows in proportion to precision
    flat = m.monitor(mixture_sd=0.5).filter(pl.col("term") == "g[b]")["e_value"]
    assert flat.is_not_null().all()


def test_surprise_is_the_kullback_leibler_divergence():
    P, Q = np.array([[2.0, 0.3], [0.3, 1.0]]), np.array([[1.0, 0.1], [0.1, 0.6]])
    m, s = np.array([0.5, -1.0]), np.array([0.1, 0.2])
    draws = np.random.default_rng(1).multivariate_normal(s, Q, 200_000)
    kl = np.mean(stats.multivariate_normal(s, Q).logpdf(draws) - stats.multivariate_normal(m, P).logpdf(draws))
    assert sum(surprise(m, P, s, Q)) == pytest.approx(kl, abs=0.01)


def test_forecasts_of_unknown_sigma_are_student_t():
    """p-values of NIS are uniform although σ is estimated from few rows."""
    p, z = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        data = pl.DataFrame({"y": rng.normal(size=9), "x": rng.normal(size=9), "week": np.repeat([0, 1, 2], 3)})
        r = batches("y ~ x", data, by="week")
        p.append(r.p_nis[-1])
        z.append(r.monitor()["z"][-1])
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert stats.kstest(z, "norm").pvalue > 0.001


@pytest.mark.parametrize("drift", [0.05, 0.0])
def test_fixed_lag_runs_from_filter_to_smoother(drift):
    for r in (vectors(drift=drift, sigma=1.0, prior=normal(0, 3)), causal_kalman([1.0, 0.5, 1.5, 0.2], [0.4] * 4, process_var=drift)):
        filtered, smoothed = (np.asarray(m).reshape(len(m), -1) for m in (r.posterior_mean, r.smoothed_mean))
        np.testing.assert_array_equal(fixed_lag(r, 0)[0], filtered)
        np.testing.assert_allclose(fixed_lag(r, 99)[0], smoothed, atol=1e-11)
        sd = np.sqrt(np.einsum("tii->ti", fixed_lag(r, 99)[1]))
        np.testing.assert_allclose(sd, np.asarray(r.smoothed_sd).reshape(sd.shape), rtol=1e-8)
    part = vectors(drift=drift, sigma=1.0, prior=normal(0, 3))
    short = resume(part.to_json())
    assert short.final_mean.tolist() == part.final_mean.tolist()


def test_influence_lasts_longer_where_the_state_moves_less():
    y = np.random.default_rng(2).normal(size=25)
    slow, fast = (influence_range(causal_kalman(y, np.ones(25), process_var=q)) for q in (0.05, 2.0))
    assert slow["range"].head(12).mean() > 2 * fast["range"].head(12).mean()
    assert slow["range"][-1] == 0.0
    assert (slow["most"] >= 0).all()
    r = causal_kalman(y, np.ones(25), process_var=0.5)
    assert (influence_range(r)["most"] >= r.aci()["aci"] - 1e-12).all()  # ACI is D at lag 0


# ---------------------------------------------------------------- bad input
MISTAKES = [
    (lambda r: r.monitor(null="a"), OptionError, "null='a'"),
    (lambda r: r.monitor(mixture_sd=-1), OptionError, "mixture_sd=-1"),
    (lambda r: r.monitor(z_limit=0), OptionError, "z_limit=0"),
    (lambda r: r.monitor(k=math.nan), OptionError, "k=nan"),
    (lambda r: r.redesign(0.1, horizon=1.5), OptionError, "horizon=1.5"),
    (lambda r: r.redesign("a"), OptionError, "target_sd='a'"),
    (lambda r: r.compare(3), OptionError, "int is not a stream"),
    (lambda r: r.compare(vectors(T=4)), Refused, "same batches"),
    (lambda r: r.compare(batches("y ~ 1", weeks(), by="week")), Refused, "no scale of its own"),
]


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_mistakes_say_what_is_wrong(case):
    act, error, words = MISTAKES[case]
    with pytest.raises(error, match=words):
        act(vectors())


def test_models_are_compared_where_their_priors_are_proper():
    data = weeks()
    one, other = (batches(f, data, by="week", prior=normal(0, 2), sigma=1.0) for f in ("y ~ x", "y ~ 1"))
    X, y = np.column_stack((np.ones(240), data["x"])), data["y"].to_numpy()
    logs = [stats.multivariate_normal(np.zeros(240), np.eye(240) + 4 * A @ A.T).logpdf(y) for A in (X, X[:, :1])]
    assert one.compare(other) == pytest.approx(logs[0] - logs[1], rel=1e-9)
    assert vectors(drift="ml").compare(vectors()) == pytest.approx(
        vectors(drift="ml").diagnostics["lr"] / 2, abs=1e-8
    )  # the same flat prior
