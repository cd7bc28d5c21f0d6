"""Models fed batch by batch: what is exact equals the fit to all the data, and the order, the split and a pause do not matter."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bossa import load_dataset, model
from bossa.assimilate import batches, causal_kalman, discount, estimates, nig, particle_filter, resume, student_t, track
from bossa.assimilate.engine import Scale, evidences, summed
from bossa.assimilate.sites import gaussian_site
from bossa.assimilate.track import Motion, Start, tracked
from bossa.errors import BossaError, DataError, DataWarning, FitFailed, OptionError, Refused, UnknownOption
from bossa.kernels.kalman import filter_scalars
from bossa.kernels.linalg import triangulars
from bossa.state.distributions import normal
from bossa.state.provenance import hash_columns, hash_parts

B_Y, B_SE = [1.2, 0.9, 1.5, 1.1, 1.8, 2.0], [0.3, 0.25, 0.4, 0.2, 0.35, 0.3]
B = {"prior": normal(0.5, 2), "drift": 0.05}


def weeks(n=120, T=8, seed=0, slope=0.0):
    rng = np.random.default_rng(seed)
    week = np.sort(rng.integers(0, T, n))
    x, g = rng.normal(size=n), rng.choice(["a", "b"], size=n)
    y = 1 + (2 + slope * week) * x + 0.5 * (g == "b") + rng.normal(size=n)
    return pl.DataFrame({"y": y, "x": x, "g": g, "week": week})


def design(frame):
    m = model("y ~ x + g", frame).fit()
    return m.design.X, m.design.y, m


# ---------------------------------------------------------------- static linear models
def test_known_sigma_and_a_prior_is_ridge_on_all_data():
    data = weeks()
    X, y, _ = design(data)
    r = batches("y ~ x + g", data, by="week", sigma=1.5, prior=normal(0, 2))
    P = np.linalg.inv(X.T @ X / 2.25 + np.eye(3) / 4)
    np.testing.assert_allclose(r.final_mean, P @ X.T @ y / 2.25, rtol=5e-15)
    np.testing.assert_allclose(r.covariance[-1], P, rtol=1e-13)
    direct = stats.multivariate_normal(np.zeros(len(y)), 4 * X @ X.T + 2.25 * np.eye(len(y))).logpdf(y)
    assert r.log_evidence == pytest.approx(direct, abs=1e-10)


def test_no_prior_is_the_fitted_linear_model_with_its_t_intervals():
    data = weeks()
    _, _, m = design(data)
    r = batches("y ~ x + g", data, by="week")
    fitted = m.infer().params
    np.testing.assert_allclose(r.final_mean, fitted["estimate"], rtol=2e-14)
    np.testing.assert_allclose(np.sqrt(np.diag(r.covariance[-1])), fitted["se"], rtol=2e-14)
    np.testing.assert_allclose(r.final_ci, fitted.select("ci_lower", "ci_upper"), rtol=1e-13)
    reml = -0.5 * (117 * math.log(2 * math.pi) + np.linalg.slogdet(m.design.X.T @ m.design.X)[1])
    known = batches("y ~ x + g", data, by="week", sigma=1.0)
    assert known.log_evidence == pytest.approx(reml - 0.5 * m.fit_state.deviance, abs=1e-10)


def test_estimates_with_their_covariances_are_the_same_as_the_rows():
    data = weeks()
    parts = [design(p)[2].fit_state for p in data.partition_by("week", maintain_order=True)]
    V = [np.asarray(f.vcov) / f.sigma**2 * 2.25 for f in parts]
    pairs = estimates([f.coef for f in parts], vcovs=V, prior=normal(0, 2))
    rows = batches("y ~ x + g", data, by="week", sigma=1.5, prior=normal(0, 2))
    np.testing.assert_allclose(pairs.final_mean, rows.final_mean, rtol=2e-13)
    np.testing.assert_allclose(pairs.covariance[-1], rows.covariance[-1], rtol=1e-12)


def test_unknown_sigma_is_the_conjugate_model_and_its_evidence_a_student_t():
    data = weeks()
    X, y, _ = design(data)
    r = batches("y ~ x + g", data, by="week", sigma=nig(3, 5), sigma0=1.3, prior=normal(0.5, 2))
    V0 = 4 / 1.3**2
    direct = stats.multivariate_t(X @ np.full(3, 0.5), 5 / 3 * (V0 * X @ X.T + np.eye(len(y))), df=6).logpdf(y)
    assert r.log_evidence == pytest.approx(direct, abs=1e-10)
    V = np.linalg.inv(X.T @ X + np.eye(3) / V0)
    mean = V @ (X.T @ y + 0.5 / V0)
    b = 5 + 0.5 * (y @ y + 3 * 0.25 / V0 - mean @ np.linalg.solve(V, mean))
    np.testing.assert_allclose(r.final_mean, mean, rtol=1e-14)
    np.testing.assert_allclose(r.covariance[-1], V * b / (3 + 60), rtol=1e-13)
    assert r.posterior.df == 126
    once = batches("y ~ x + g", data.with_columns(week=0), by="week", sigma=nig(3, 5), sigma0=1.3, prior=normal(0.5, 2))
    assert r.log_evidence == pytest.approx(once.log_evidence, abs=1e-10)


@given(st.integers(0, 1000), st.integers(2, 30))
@settings(max_examples=15, deadline=None)
def test_order_and_split_do_not_matter_when_nothing_drifts(seed, T):
    data = weeks(seed=3)
    rng = np.random.default_rng(seed)
    other = data.with_columns(week=pl.Series(rng.integers(0, T, data.height)))
    one, two = (batches("y ~ x + g", d, by="week", sigma=1.2, prior=normal(0, 3)) for d in (data, other))
    np.testing.assert_allclose(one.final_mean, two.final_mean, rtol=1e-13, atol=1e-14)
    assert one.log_evidence == pytest.approx(two.log_evidence, abs=5e-12)


def test_batches_that_know_one_level_each_are_ordinary_least_squares():
    rng = np.random.default_rng(5)
    data = pl.DataFrame({"g": np.repeat(["a", "b", "c"], 9), "week": np.repeat([0, 1, 2], 9), "y": rng.normal(size=27)})
    r = batches("y ~ 0 + g", data, by="week")
    m = model("y ~ 0 + g", data).fit()
    np.testing.assert_allclose(r.final_mean, m.params["estimate"], rtol=2e-15, atol=2e-15)
    t = r.trajectory()
    assert t.filter(pl.col("batch") == 0)["posterior_mean"].is_null().to_list() == [False, True, True]
    assert r.trajectory(smoothed=True)["posterior_mean"].null_count() == 0
    np.testing.assert_allclose(np.sqrt(np.diag(r.covariance[-1])), m.infer().params["se"], rtol=1e-14)
    fewer = batches("y ~ g", data.filter(pl.col("week") < 2).with_columns(week=pl.int_range(18)), by="week")
    np.testing.assert_allclose(fewer.final_mean, model("y ~ g", data.filter(pl.col("week") < 2)).fit().params["estimate"], rtol=1e-13)


def test_weights_counts_and_offsets_are_the_fits():
    data = load_dataset("mtcars").with_columns(k=pl.col("gear") - 2, o=pl.col("hp") / 100)
    options = {"weights": "wt", "freq_weights": "k", "offset": "o"}
    m = model("mpg ~ qsec", data, **options).fit().infer().params
    r = batches("mpg ~ qsec", data, by="carb", **options)
    np.testing.assert_allclose(r.final_mean, m["estimate"], rtol=1e-12)
    np.testing.assert_allclose(r.final_ci, m.select("ci_lower", "ci_upper"), rtol=1e-12)


def test_a_discount_is_exponentially_weighted_least_squares():
    data = weeks()
    X, y, _ = design(data)
    r = batches("y ~ x + g", data, by="week", sigma=1.0, drift=discount(0.9))
    w = 0.9 ** (7 - data["week"].to_numpy())
    np.testing.assert_allclose(r.final_mean, np.linalg.solve(X.T @ (w[:, None] * X), X.T @ (w * y)), atol=5e-15)
    np.testing.assert_allclose(r.covariance[-1], np.linalg.inv(X.T @ (w[:, None] * X)), rtol=1e-13)


# ---------------------------------------------------------------- drift
def test_the_estimates_stream_is_the_door():
    r, door = estimates(B_Y, B_SE, **B), causal_kalman(B_Y, B_SE, prior_mean=0.5, prior_var=4, process_var=0.05)
    for name in (
        "posterior_mean",
        "posterior_sd",
        "posterior_ci",
        "innovations",
        "ess",
        "ess_kish",
        "smoothed_mean",
        "smoothed_sd",
        "gain",
    ):
        np.testing.assert_allclose(getattr(r, name), getattr(door, name), rtol=1e-12, atol=1e-14, err_msg=name)
    assert r.log_evidence == pytest.approx(door.log_evidence, abs=1e-12)
    assert r.trajectory().columns[:7] == ["t", "posterior_mean", "posterior_sd", "ci_lower", "ci_upper", "innovation", "ess"]


def test_late_batches_are_put_where_they_belong():
    late = [0, 1, 3, 4, 5, 2]
    y, se = [B_Y[i] for i in late], [B_SE[i] for i in late]
    replayed = estimates(y, se, time=late, batch=late, **B)
    assert replayed.final_mean == estimates(B_Y, B_SE, **B).final_mean
    assert replayed.final_sd == estimates(B_Y, B_SE, **B).final_sd
    # retrodiction: the late look's effect on the last state through Cov(θ_5, θ_2 | the others)
    without = estimates([*B_Y[:2], math.nan, *B_Y[3:]], [*B_SE[:2], math.nan, *B_SE[3:]], missing="skip", **B)
    assert (without.final_mean, without.final_sd) == pytest.approx((1.6971637623, 0.2170469825), abs=5e-11)
    prior = 4.0 + 0.05 * np.minimum.outer(np.arange(1, 7), np.arange(1, 7))
    seen = np.array([0, 1, 3, 4, 5])
    R = np.diag(np.array(B_SE)[seen] ** 2)
    P = prior - prior[:, seen] @ np.linalg.solve(prior[np.ix_(seen, seen)] + R, prior[seen])
    S = P[2, 2] + B_SE[2] ** 2
    one_shot = without.final_mean + P[5, 2] / S * (1.5 - without.smoothed_mean[2])
    assert one_shot == pytest.approx(replayed.final_mean, abs=1e-13)
    # the specification's naive append
    naive = estimates(y, se, time=late, order="append", **B)
    assert (naive.final_mean, naive.final_sd) == pytest.approx((1.6523166167, 0.1907716545), abs=5e-11)


def test_irregular_times_are_as_many_steps():
    long = estimates([1.0, math.nan, math.nan, 2.0], [0.3] * 4, missing="skip", **B)
    short = estimates([1.0, 2.0], [0.3, 0.3], time=[0, 3], **B)
    assert short.final_mean == pytest.approx(long.final_mean, rel=1e-14)
    assert short.log_evidence == pytest.approx(long.log_evidence, rel=1e-13)


def test_drift_of_one_coefficient_is_the_dense_joint_gaussian():
    data = weeks(T=4, n=60)
    X, y, _ = design(data)
    T, k, Q = 4, 3, np.diag([0.0, 0.2, 0.0])
    r = batches("y ~ x + g", data, by="week", sigma=1.0, prior=normal(0, 2), drift={"x": 0.2})
    prior = np.kron(np.ones((T, T)), 4 * np.eye(k)) + np.kron(np.minimum.outer(np.arange(1, T + 1), np.arange(1, T + 1)), Q)
    H = np.zeros((len(y), T * k))
    for i, t in enumerate(data["week"]):
        H[i, t * k : (t + 1) * k] = X[i]
    S = H @ prior @ H.T + np.eye(len(y))
    m, P = prior @ H.T @ np.linalg.solve(S, y), prior - prior @ H.T @ np.linalg.solve(S, H @ prior)
    np.testing.assert_allclose(r.smoothed_mean.ravel(), m, atol=2e-13)
    np.testing.assert_allclose(r.smoothed_covariance[1], P[3:6, 3:6], atol=2e-13)
    assert r.log_evidence == pytest.approx(stats.multivariate_normal(np.zeros(len(y)), S).logpdf(y), abs=1e-10)
    flat = batches("y ~ x + g", data, by="week", sigma=1.0, drift={"x": 0.2})
    vague = batches("y ~ x + g", data, by="week", sigma=1.0, drift={"x": 0.2}, prior=normal(0, 1e5))
    np.testing.assert_allclose(flat.smoothed_mean, vague.smoothed_mean, atol=1e-7)
    # a flat prior's evidence is the restricted likelihood: N(0, v I)'s density at 0 apart
    assert flat.log_evidence == pytest.approx(vague.log_evidence + 1.5 * math.log(2 * math.pi * 1e10), abs=1e-6)


def statsmodels_walk(y, v, m0, P0):
    from statsmodels.tsa.statespace.mlemodel import MLEModel

    class Walk(MLEModel):
        def __init__(self):
            super().__init__(np.asarray(y), k_states=1, initialization="known", initial_state=[m0], initial_state_cov=[[P0]])
            self["design", 0, 0] = self["transition", 0, 0] = self["selection", 0, 0] = 1.0
            self["obs_cov"] = np.asarray(v)[None, None, :]

        @property
        def start_params(self):
            return [0.01]

        def update(self, params, **kwargs):
            params = super().update(params, **kwargs)
            self["state_cov", 0, 0] = params[0]
            self.ssm.initialize_known(np.array([m0]), np.array([[P0 + params[0]]]))

    return Walk()


def test_drift_by_maximum_likelihood_is_statsmodels():
    from scipy.optimize import minimize_scalar

    walk = statsmodels_walk(B_Y, np.array(B_SE) ** 2, 0.5, 4.0)
    best = minimize_scalar(lambda q: -walk.loglike([q]), bounds=(1e-4, 1), method="bounded", options={"xatol": 1e-10})
    r = estimates(B_Y, B_SE, prior=normal(0.5, 2), drift="ml")
    assert r.diagnostics["Q"][0] == pytest.approx(best.x, rel=1e-5)  # flat to second order at the top
    assert r.log_evidence == pytest.approx(-best.fun, abs=1e-10)
    smoothed = walk.smooth([r.diagnostics["Q"][0]])
    np.testing.assert_allclose(r.smoothed_mean, smoothed.smoothed_state[0], atol=1e-9)
    np.testing.assert_allclose(r.smoothed_sd**2, smoothed.smoothed_state_cov[0, 0], atol=1e-9)
    assert r.diagnostics["lr"] == pytest.approx(2 * (r.log_evidence - walk.loglike([0.0])), abs=1e-9)


def test_drift_integrated_out_is_a_dense_grid():
    r = estimates(B_Y, B_SE, prior=normal(0.5, 2), drift="bayes")
    v = float(np.median(np.array(B_SE) ** 2))
    x = np.linspace(-9, 9, 2001)
    w = stats.norm.pdf(x)
    found = [causal_kalman(B_Y, B_SE, prior_mean=0.5, prior_var=4, process_var=0.1 * v * math.exp(1.5 * s)) for s in x]
    like = w * np.exp([f.log_evidence for f in found])
    assert r.log_evidence == pytest.approx(math.log(like.sum() * (x[1] - x[0])), abs=1e-10)
    means, variances = np.array([f.final_mean for f in found]), np.array([f.final_sd**2 for f in found])
    p = like / like.sum()
    assert r.final_mean == pytest.approx(p @ means, abs=1e-10)
    assert r.final_sd == pytest.approx(math.sqrt(p @ variances + p @ (means - p @ means) ** 2), abs=2e-10)
    # the path so far never looks ahead: a stream cut short has the same beginning (the unit of q is a median, here the same)
    again = estimates(B_Y, B_SE, prior=normal(0.5, 2), drift=True)
    np.testing.assert_array_equal(again.posterior_mean, r.posterior_mean)


@pytest.mark.parametrize("T", [60, 400])
def test_drift_integrated_out_of_many_batches_is_a_dense_grid(T):
    """The posterior of log q is then far narrower than the distance of the prior's nodes."""
    rng = np.random.default_rng(35)
    x, week = rng.normal(size=20 * T), np.repeat(np.arange(T), 20)
    y = np.cumsum(rng.normal(0, 0.1, T))[week] + 0.5 * x + rng.normal(size=20 * T)
    r = batches("y ~ x", pl.DataFrame({"y": y, "x": x, "week": week}), by="week", drift="bayes", sigma=1.0, prior=normal(0, 1))
    sites, start, dt = r.solution.sites, r.solution.start, r.solution.dt
    u = np.linspace(-6, 6, 1201)
    grid = np.exp(math.log(0.1) + 1.5 * u)
    found = evidences(sites, start, [r.solution.motion.scaled(q) for q in grid], Scale(known=1.0), dt)
    w = stats.norm.pdf(u) * np.exp(found - found.max())
    assert r.log_evidence == pytest.approx(found.max() + math.log(w.sum() * (u[1] - u[0])), abs=1e-7)
    w /= w.sum()
    assert r.diagnostics["q"] == pytest.approx(w @ grid, rel=1e-7)
    kept = np.flatnonzero(w > 1e-12)
    track, _ = tracked(sites, start, [r.solution.motion.scaled(q) for q in grid[kept]], dt)
    mean, V, w = track.mean[-1], track.V[-1], w[kept] / w[kept].sum()
    apart = mean - w @ mean
    np.testing.assert_allclose(r.final_mean, w @ mean, rtol=1e-8)
    np.testing.assert_allclose(r.covariance[-1], np.tensordot(w, V, 1) + (apart.T * w) @ apart, rtol=1e-7)


def test_the_mixture_over_q_is_one_code_for_vectors_and_numbers():
    """A prior of sd 1e4 takes the way of single numbers, a flat one that of vectors, with fewer nodes."""
    numbers, vectors = (estimates(B_Y, B_SE, prior=p, drift="bayes") for p in (normal(0.5, 1e4), None))
    for name, tol in (("posterior_mean", 1e-5), ("posterior_sd", 1e-4), ("smoothed_mean", 1e-5), ("smoothed_sd", 1e-4)):
        np.testing.assert_allclose(getattr(vectors, name), getattr(numbers, name), rtol=tol, err_msg=name)
    np.testing.assert_allclose(vectors.nis[1:], numbers.nis[1:], rtol=1e-4)
    np.testing.assert_allclose(vectors.ess_kish[1:], numbers.ess_kish[1:], rtol=1e-4)
    np.testing.assert_allclose(np.diff(vectors.log_evidences), np.diff(numbers.log_evidences), atol=1e-5)


def test_between_batch_variance_is_random_effects_meta_analysis():
    # specification, case B; statsmodels 0.14 combine_effects: DL .1036795414, PM .1006164761 (its iteration stops 2e-9 early)
    from statsmodels.stats.meta_analysis import combine_effects

    v = np.array(B_SE) ** 2
    for method, tau2 in (("dl", 0.1036795414), ("pm", 0.1006164761)):
        r = estimates(B_Y, B_SE, between=method)
        assert r.diagnostics["tau2"] == pytest.approx(tau2, abs=5e-9)
    reference = combine_effects(np.array(B_Y), v, method_re="dl").summary_frame().loc["random effect"]
    dl = estimates(B_Y, B_SE, between="dl")
    assert dl.final_mean == pytest.approx(reference["eff"], abs=1e-10)
    assert dl.final_sd == pytest.approx(reference["sd_eff"], abs=1e-10)
    direct = stats.multivariate_normal(np.full(6, 0.5), np.diag(v + 0.3) + 4.0).logpdf(B_Y)
    assert estimates(B_Y, B_SE, between=0.3, prior=normal(0.5, 2)).log_evidence == pytest.approx(direct, abs=1e-11)


def test_the_evidence_alone_is_that_of_the_whole_path():
    """What "ml" searches over, with a flat prior and batches that know one level each."""
    rng = np.random.default_rng(5)
    data = pl.DataFrame({"g": np.repeat(["a", "b", "c"], 9), "week": np.repeat([0, 1, 2], 9), "y": rng.normal(size=27)})
    for r in (batches("y ~ 0 + g", data, by="week", drift=0.1, sigma=1.0), batches("y ~ x + g", weeks(), by="week", drift="ml")):
        s, scale = r.solution, Scale(known=1.0) if r.state.options.sigma == 1.0 else Scale()
        assert evidences(s.sites, s.start, [s.motion], scale, s.dt)[0] == pytest.approx(r.log_evidence, abs=1e-9)


def kinds(motion, seed, k=3, T=14):
    """Sites of k coefficients with a batch missing and one of deficient rank; times that are not even; a motion of each kind."""
    rng = np.random.default_rng(seed)
    sites = []
    for t in range(T):
        n = 0 if t == 5 else 2 if t == 8 else 12
        sites.append(gaussian_site(t, float(t), rng.normal(size=(n, k)), 3 + rng.normal(size=n)))
    root = np.diag([0.3, 0.0, 0.1])
    motions = {
        "still": [Motion()],
        "discount": [Motion(discount=0.9)],
        "walk": [Motion(root=root)],
        "walks": [Motion(root=root).scaled(q) for q in (1e-3, 1.0, 50.0)],
    }[motion]
    return sites, motions, rng.integers(0, 3, T).astype(float)


@pytest.mark.parametrize("prior", [0.0, 1.0, 1e-6], ids=["flat", "proper", "vague"])
@pytest.mark.parametrize("motion", ["still", "discount", "walk", "walks"])
def test_all_batches_at_once_are_one_after_the_other(motion, prior, monkeypatch):
    """The path of the definition to twelve digits: filter, smoother, evidence, σ² and weights."""
    sites, motions, dt = kinds(motion, 31)
    start = Start(U=np.eye(3) * prior, d=np.full(3, prior), flat=0 if prior else 3, logdet=6 * math.log(prior) if prior else 0.0)
    quick, _ = tracked(sites, start, motions, dt)
    assert quick.head == (0 if prior else 1)
    sums, smoothed = summed(quick, sites, start, Scale(a=1.0, b=2.0)), quick.smoothed(range(len(motions)))
    forecasts = quick.forecasts(slice(None))
    monkeypatch.setattr(track, "INFLATION", 0.0)
    plain, _ = tracked(sites, start, motions, dt)
    assert plain.head == len(sites)
    for name in ("mean", "V", "mean_f", "nis", "logdet", "lost", "rank", "rank_f"):
        np.testing.assert_allclose(getattr(quick, name), getattr(plain, name), rtol=1e-12, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(forecasts, plain.forecasts(slice(None)), rtol=1e-12, atol=1e-12)
    for found, defined in zip(smoothed, plain.smoothed(range(len(motions)))):
        np.testing.assert_allclose(found, defined, rtol=1e-12, atol=1e-12)
    defined_sums = summed(plain, sites, start, Scale(a=1.0, b=2.0))
    for name in ("s2", "s2_f", "evidence", "b"):
        np.testing.assert_allclose(getattr(sums, name), getattr(defined_sums, name), rtol=1e-12, err_msg=name)


def test_streams_of_bad_condition_are_filtered_by_definition():
    """Columns that are almost the same: no precision is formed, and the answer is least squares' to its digits."""
    rng = np.random.default_rng(32)
    x = rng.normal(size=200)
    data = pl.DataFrame({"x": x, "w": x + 1e-6 * rng.normal(size=200), "y": rng.normal(size=200), "week": np.repeat(range(10), 20)})
    r = batches("y ~ x + w", data, by="week")
    assert tracked(r.solution.sites, r.solution.start, [Motion()], r.solution.dt)[0].head == 10
    np.testing.assert_allclose(r.final_mean, model("y ~ x + w", data).fit().params["estimate"], rtol=1e-8)


def test_forgetting_over_uneven_times_is_smoothed_as_over_even_ones():
    long = estimates([1.0, math.nan, math.nan, 2.0], [0.3] * 4, missing="skip", prior=normal(0.5, 2), drift=discount(0.8))
    short = estimates([1.0, 2.0], [0.3, 0.3], time=[0, 3], prior=normal(0.5, 2), drift=discount(0.8))
    np.testing.assert_allclose(short.smoothed_mean, long.smoothed_mean[[0, 3]], rtol=1e-13)
    np.testing.assert_allclose(short.smoothed_sd, long.smoothed_sd[[0, 3]], rtol=1e-13)


def test_batches_hash_and_factor_together_as_alone():
    rng = np.random.default_rng(33)
    data = {
        "x": np.where(rng.random(90) < 0.1, np.nan, rng.normal(size=90)),
        "g": rng.choice(["a", "ü"], 90).astype(object),
        "k": np.arange(90) % 7,
    }
    parts = [np.flatnonzero(rng.integers(0, 4, 90) == j) for j in range(3)] + [np.zeros(0, dtype=int)]
    assert hash_parts(data, parts) == [hash_columns({n: v[i] for n, v in data.items()}) for i in parts]
    blocks = [rng.normal(size=(n, 4)) for n in (30, 30, 3, 0, 5)]
    blocks.append(np.column_stack((blocks[0], blocks[0] @ np.ones(4)))[:, [0, 1, 2, 4]] * [1, 1e6, 1, 1])
    blocks.append(np.column_stack((blocks[1][:, :3], blocks[1][:, 0])))  # a column twice
    for block, R in zip(blocks, triangulars(blocks)):
        np.testing.assert_allclose(R.T @ R, block.T @ block, rtol=1e-12, atol=1e-12 * np.abs(block).max(initial=0.0))
        np.testing.assert_array_equal(R, triangulars([block])[0])


# ---------------------------------------------------------------- pauses and repeats
@pytest.mark.parametrize("drift", [0, 0.02, "ml", "bayes", discount(0.9)], ids=str)
def test_a_stream_taken_up_again_is_bit_identical(drift):
    data = weeks()
    whole = batches("y ~ x + g", data, by="week", drift=drift)
    part = batches("y ~ x + g", data.filter(pl.col("week") < 5), by="week", drift=drift)
    json.loads(part.to_json())
    for week in (5, 6, 7):
        part = resume(part.to_json()).update(data.filter(pl.col("week") == week))
    np.testing.assert_array_equal(part.final_mean, whole.final_mean)
    np.testing.assert_array_equal(part.covariance, whole.covariance)
    assert part.log_evidence == whole.log_evidence
    assert part.diagnostics["chain"] == whole.diagnostics["chain"]
    assert resume(whole.to_json()).to_json() == whole.to_json()


def test_a_stored_stream_that_was_changed_is_refused():
    text = batches("y ~ x + g", weeks(), by="week").to_json()
    assert resume(text).log_evidence
    for changed in (text.replace('"n": 1', '"n": 2', 1), text.replace('"week"', '"weak"', 1)):
        assert changed != text
        with pytest.raises(DataError, match="changed since"):
            resume(changed)
    with pytest.raises(DataError, match="cannot be read"):
        resume("not json")


def test_memory_does_not_grow_with_the_rows():
    sizes = [len(batches("y ~ x + g", weeks(n=n), by="week").to_json()) for n in (200, 20_000)]
    assert sizes[1] < 1.05 * sizes[0]


def test_a_stream_that_is_fed_keeps_a_few_numbers_of_each_batch():
    """Traced memory after 20 more batches: the same whether each has 50 rows or 5000, and linear in the batches."""
    import gc
    import tracemalloc

    held = {}
    for n in (50, 5000):
        rng = np.random.default_rng(34)
        r = batches("y ~ x + g", weeks(T=2), by="week")
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for week in range(2, 23):
            x, g = rng.normal(size=n), rng.choice(["a", "b"], n)
            r = r.update(pl.DataFrame({"y": x + rng.normal(size=n), "x": x, "g": g, "week": [week] * n}))
            if week in (12, 22):
                del x, g
                gc.collect()
                held[n, week] = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert held[5000, 22] < 1.2 * held[50, 22]
    assert held[50, 22] < 2.5 * held[50, 12]
    assert held[50, 22] < 20 * 5_000  # 5 kB for three coefficients: estimates, covariances, weights, hashes


def test_the_same_batch_twice_changes_nothing_and_another_under_its_id_is_an_error():
    data = weeks()
    r = batches("y ~ x + g", data, by="week")
    again = r.update(data.filter(pl.col("week") == 3))
    np.testing.assert_array_equal(again.final_mean, r.final_mean)
    with pytest.raises(DataError, match="batch 3"):
        r.update(data.filter(pl.col("week") == 3).with_columns(y=pl.col("y") + 1))
    e = estimates(B_Y, B_SE, batch=list("abcdef"))
    assert e.update((0.9, 0.25), id="b", time=1).final_mean == e.final_mean
    with pytest.raises(DataError, match="'b'"):
        e.update((0.8, 0.25), id="b", time=1)


def test_transforms_and_levels_are_fixed_when_the_stream_begins():
    data = weeks()
    early, late = data.filter(pl.col("week") < 4), data.filter(pl.col("week") >= 4)
    r = batches("y ~ scale(x) + g", early, by="week")
    more = resume(r.to_json()).update(late)
    m = model("y ~ I((x - a) / s) + g", data, env={"a": early["x"].mean(), "s": early["x"].std()}).fit()
    np.testing.assert_allclose(more.final_mean, m.params["estimate"], rtol=1e-12)
    with pytest.raises(DataError, match="'c'"):
        r.update(late.filter(pl.col("week") == 4).with_columns(g=pl.lit("c")))


def test_batches_without_a_complete_row_are_steps_of_the_drift_all_the_same():
    rng = np.random.default_rng(4)
    data = weeks().with_columns(
        y=pl.when((pl.col("week") == 3) | (pl.col("x") > 1.2)).then(None).otherwise(pl.col("y")),
        g=pl.when(pl.col("week") == 3).then(pl.lit("never seen")).otherwise(pl.col("g")),
        k=pl.Series(rng.integers(0, 4, 120)),
        w=pl.Series(rng.uniform(0.5, 2, 120)),
    )
    columns = {"freq_weights": "k", "weights": "w"}
    once = batches("y ~ x + g", data, by="week", drift=0.1, sigma=1.0, **columns)
    early = batches("y ~ x + g", data.filter(pl.col("week") < 3), by="week", drift=0.1, sigma=1.0, **columns)
    later = early.update(data.filter(pl.col("week") >= 3).with_columns(g=pl.col("g").replace("never seen", "a")))
    fitted = model("y ~ x + g", data, **columns).fit().infer(how="assim", by="week", drift=0.1, sigma=1.0).stream
    for r in (later, fitted):
        np.testing.assert_array_equal(r.final_mean, once.final_mean)
        assert r.batch == once.batch == tuple(range(8))
    complete = data.filter(pl.col("y").is_not_null() & (pl.col("k") > 0)).height
    assert any(f"{data.height - complete} rows" in note for note in once.notes)
    assert once.update(data.filter(pl.col("week") == 5)).diagnostics["chain"] == once.diagnostics["chain"]


def test_levels_of_an_ordered_factor_order_the_batches():
    months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug"]
    text = weeks(slope=0.2).with_columns(month=pl.col("week").replace_strict(dict(enumerate(months))))
    data = text.with_columns(pl.col("month").cast(pl.Enum([*months, "sep"])))
    r, known = (batches("y ~ x", data, by=by, drift=0.1) for by in ("month", "week"))
    assert r.batch == tuple(months)
    np.testing.assert_array_equal(r.posterior_mean, known.posterior_mean)
    early = batches("y ~ x", data.filter(pl.col("week") != 2), by="month", drift=0.1)
    late = resume(early.to_json()).update(text.filter(pl.col("week") == 2))
    np.testing.assert_array_equal(late.final_mean, r.final_mean)
    with pytest.raises(DataError, match=r"'march'.*jan, feb"):
        r.update(text.head(3).with_columns(month=pl.lit("march")))


def test_numbers_in_texts_out_of_their_order_are_said_where_it_matters():
    data = weeks(T=12).with_columns(name=pl.format("week {}", pl.col("week")))
    assert any("'week 10' before 'week 2'" in note for note in batches("y ~ x", data, by="name", drift=0.1).notes)
    assert not any("as text" in note for note in batches("y ~ x", data, by="name").notes)
    padded = data.with_columns(name=pl.format("week {}", pl.col("week") + 10))
    assert not any("as text" in note for note in batches("y ~ x", padded, by="name", drift=0.1).notes)


def test_what_a_prior_tells_of_sigma_holds_in_streams():
    data = weeks()
    told = {"Intercept": normal(0, 2), "x": normal(1, 1), "g[b]": normal(0, 1)}
    for sigma in (0.8, (0.8, 5.0)):
        m = model("y ~ x + g", data, prior=told | {"sigma": sigma}).fit()
        fit, s = m.infer().params, m.infer(how="assim", by="week").params
        one = batches("y ~ x + g", data, by="week", prior=told | {"sigma": sigma}).params
        for column in ("estimate", "ci_lower", "ci_upper"):
            np.testing.assert_allclose(s[column], fit[column], rtol=1e-11)
            np.testing.assert_allclose(one[column], fit[column], rtol=1e-11)
        first = batches("y ~ x + g", data.filter(pl.col("week") < 4), by="week", prior=told | {"sigma": sigma}).posterior
        second = batches("y ~ x + g", data.filter(pl.col("week") >= 4), by="week", prior=first).params
        np.testing.assert_allclose(second["ci_lower"], fit["ci_lower"], rtol=1e-10)


@pytest.mark.parametrize("drift", [0, "ml", discount(0.9)])
def test_a_lag_of_nothing_is_the_filter_where_sigma_is_learnt(drift):
    r = batches("y ~ x + g", weeks(), by="week", drift=drift)
    none, all_, plain = r.trajectory(lag=0), r.trajectory(lag=99), r.trajectory()
    for column in ("posterior_mean", "posterior_sd", "ci_lower", "ci_upper"):
        np.testing.assert_allclose(none[column].drop_nulls(), plain[column].drop_nulls(), rtol=1e-11)
        np.testing.assert_allclose(all_[column].drop_nulls(), r.trajectory(smoothed=True)[column].drop_nulls(), rtol=1e-9)


def test_a_posterior_about_some_coefficients_is_a_prior_of_the_others_too():
    data = weeks()
    before = batches("y ~ x", data.filter(pl.col("week") < 4), by="week", sigma=1.0).posterior
    r = batches("y ~ x + g", data.filter(pl.col("week") >= 4), by="week", prior=before)
    fit = model("y ~ x + g", data.filter(pl.col("week") >= 4), prior=before).fit().infer().params
    np.testing.assert_allclose(r.final_mean, fit["estimate"], rtol=1e-10)
    np.testing.assert_allclose(r.final_sd, fit["se"], rtol=1e-10)
    with pytest.raises(UnknownOption, match="'x'"):
        batches("y ~ g", data, by="week", prior=before)


def test_an_id_is_told_once():
    r = batches("y ~ x", weeks(), by="week", drift=0.1)
    assert r.update(weeks(seed=1).drop("week").head(9), id=20).batch[-1] == 20
    with pytest.raises(OptionError, match="'week', which says the same"):
        r.update(weeks(seed=1).head(9), id=20)
    with pytest.raises(OptionError, match="no time= column"):
        r.update(weeks(seed=1).drop("week").head(9), id=20, time=3.0)


def test_evidences_of_other_data_are_not_compared():
    data, options = weeks(), {"by": "week", "prior": normal(0, 1), "sigma": 1.0}
    one = batches("y ~ x", data, **options)
    assert math.isfinite(one.compare(batches("y ~ 1", data, **options)))
    others = (
        batches("x ~ 1", data, **options),
        batches("y ~ 1", data.with_columns(pl.col("y") * 2), **options),
        batches("I(y * 2) ~ 1", data, **options),
        batches("y ~ 1", data.filter(pl.col("x") < 2), **options),
    )
    for other in others:
        with pytest.raises(Refused, match="same response"):
            one.compare(other)
    with pytest.raises(Refused, match="same response"):
        estimates(B_Y, B_SE, **B).compare(estimates(B_Y[::-1], B_SE, **B))
    assert one.posterior.provenance.verify(data.filter(pl.col("week") == 7), batch=7)
    with pytest.raises(DataError, match="'x'"):
        one.posterior.provenance.verify(data.drop("x"))
    with pytest.raises(UnknownOption, match="batch '70'"):
        one.posterior.provenance.verify(data, batch=70)


def test_dates_order_batches_and_measure_time():
    from datetime import date, timedelta

    data = weeks().with_columns(day=pl.Series([date(2024, 1, 1) + timedelta(days=int(7 * w)) for w in weeks()["week"]]))
    dated = batches("y ~ x", data, by="day", time="day", sigma=1.0, drift=0.01)
    numbered = batches("y ~ x", data, by="week", sigma=1.0, drift=0.07)
    np.testing.assert_allclose(dated.final_mean, numbered.final_mean, rtol=1e-12)
    assert dated.batch[0] == "2024-01-01"


# ---------------------------------------------------------------- generalized linear models
def logistic(n=400, T=20, seed=4):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    p = 1 / (1 + np.exp(-(-0.5 + 1.0 * x)))
    return pl.DataFrame({"y": (rng.random(n) < p).astype(int), "x": x, "week": np.arange(n) * T // n})


def full_map(data, prior_sd):
    m = model("y ~ x", data, family="binomial").fit()
    X, y, beta = m.design.X, m.design.y, np.asarray(m.fit_state.coef)
    for _ in range(50):
        mu = 1 / (1 + np.exp(-X @ beta))
        H = X.T @ ((mu * (1 - mu))[:, None] * X) + np.eye(2) / prior_sd**2
        beta = beta + np.linalg.solve(H, X.T @ (y - mu) - beta / prior_sd**2)
    return beta, np.linalg.inv(H), float(np.sum(y * np.log(mu) + (1 - y) * np.log1p(-mu)))


def test_logistic_batches_come_close_and_sweeps_reach_the_full_data_mode():
    data = logistic()
    beta, V, loglik = full_map(data, 2.5)
    sd = np.sqrt(np.diag(V))
    errors = []
    for sweeps in (0, 1, 2, 3, 4):
        r = batches("y ~ x", data, by="week", family="binomial", prior=normal(0, 2.5), sweeps=sweeps)
        errors.append(np.abs((r.final_mean - beta) / sd).max())
    assert errors[0] < 0.5  # specification: .21 of a standard deviation with 20 batches, for its data
    assert errors[1] < 5e-3
    assert errors[2] < 1e-6
    assert errors[4] < 1e-12
    np.testing.assert_allclose(r.covariance[-1], V, rtol=1e-9)
    prior = stats.multivariate_normal([0, 0], 6.25 * np.eye(2)).logpdf(beta)
    assert r.log_evidence == pytest.approx(loglik + prior + math.log(2 * math.pi) + 0.5 * np.linalg.slogdet(V)[1], abs=1e-8)
    assert any("approximate" in note for note in r.notes)


def test_logistic_batches_without_a_prior_sweep_to_the_fit():
    data = logistic(T=5)
    m = model("y ~ x", data, family="binomial").fit().infer().params
    r = batches("y ~ x", data, by="week", family="binomial", sweeps=6)
    np.testing.assert_allclose(r.final_mean, m["estimate"], rtol=1e-10)
    np.testing.assert_allclose(r.posterior_sd[-1], m["se"], rtol=1e-6)


def test_a_separated_batch_needs_a_prior():
    data = pl.DataFrame({"y": [0, 0, 1, 1, 0, 1, 0, 1], "x": [-2.0, -1.0, 1.0, 2.0, 0.3, 0.1, -0.2, 0.5], "week": [0] * 4 + [1] * 4})
    with pytest.raises(FitFailed, match="prior=normal"):
        batches("y ~ x", data, by="week", family="binomial")
    with pytest.raises(FitFailed, match="batch 0"):
        batches("y ~ x", data.with_columns(y=1), by="week", family="binomial")
    beta, V, _ = full_map(data, 2.5)
    r = batches("y ~ x", data, by="week", family="binomial", prior=normal(0, 2.5), sweeps=8)
    np.testing.assert_allclose(r.final_mean, beta, rtol=1e-8)
    np.testing.assert_allclose(r.covariance[-1], V, rtol=1e-6)


@pytest.mark.parametrize(("question", "options"), [("g", {}), ("pairwise(g)", {"compare": "odds_ratio"})])
def test_effects_over_time_are_on_the_scale_of_the_effects(question, options):
    rng = np.random.default_rng(8)
    data = weeks(400).with_columns(b=pl.Series((rng.random(400) < 0.4).astype(int)))
    s = model("b ~ x + g", data, family="binomial").fit().explore(question, **options).infer(how="assim", by="week", sweeps=6)
    for path in (s.trajectory(), s.trajectory(smoothed=True), s.trajectory(lag=2)):
        for column in ("posterior_mean", "posterior_sd", "ci_lower", "ci_upper"):
            np.testing.assert_allclose(path[column].tail(len(s.effects)), s.effects[column], rtol=1e-9)
        assert (path["ci_lower"].drop_nulls() > 0).all()
    assert any("before it" in note for note in s.stream.notes)


def test_poisson_counts_and_a_pause_between_batches():
    rng = np.random.default_rng(8)
    x, e = rng.normal(size=200), rng.uniform(1, 3, 200)
    data = pl.DataFrame({"y": rng.poisson(e * np.exp(0.3 + 0.4 * x)), "x": x, "e": e, "week": np.repeat(np.arange(10), 20)})
    options = {"by": "week", "family": "poisson", "sweeps": 5, "keep_rows": True}
    whole = batches("y ~ x + offset(log(e))", data, **options)
    m = model("y ~ x + offset(log(e))", data, family="poisson").fit().params
    np.testing.assert_allclose(whole.final_mean, m["estimate"], rtol=1e-10)
    part = resume(batches("y ~ x + offset(log(e))", data.filter(pl.col("week") < 6), **options).to_json())
    part = part.update(data.filter(pl.col("week") >= 6))
    np.testing.assert_allclose(part.final_mean, whole.final_mean, rtol=1e-10)
    with pytest.raises(DataError, match="keep_rows"):
        batches("y ~ x", data, by="week", family="poisson", sweeps=1).update(data.head(20).with_columns(week=99))


# ---------------------------------------------------------------- dispersions and shapes
def positive(n=600, T=20, seed=3):
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=n), rng.choice(["a", "b"], n)
    mu = np.exp(0.5 + 0.4 * x + 0.3 * (g == "b"))
    frame = {"y": mu * rng.gamma(3, 1 / 3, n), "ig": rng.wald(mu, 4), "c": rng.poisson(mu * rng.gamma(2, 0.5, n))}
    frame |= {"l": mu + 0.3 * rng.normal(size=n), "t": x + rng.standard_t(4, n), "k": rng.integers(1, 4, n)}
    return pl.DataFrame(frame | {"x": x, "g": g, "week": np.arange(n) * T // n})


@pytest.mark.parametrize(
    ("response", "family", "link"),
    [("y", "gamma", "log"), ("ig", "inverse_gaussian", "log"), ("c", "quasipoisson", "log"), ("l", "gaussian", "log")],
)
@pytest.mark.parametrize("freq", [None, "k"])
def test_a_dispersion_is_pearsons_over_all_batches_and_sweeps_reach_the_fit(response, family, link, freq):
    """Estimates, standard errors, dispersion and degrees of freedom of the fit to all rows."""
    m = model(f"{response} ~ x + g", positive(), family=family, link=link, freq_weights=freq).fit()
    fitted = m.infer().params
    once, swept = (m.infer(how="assim", by="week", sweeps=k) for k in (0, 12))
    se = fitted["se"].to_numpy()
    assert np.abs((once.params["posterior_mean"] - fitted["estimate"]) / se).max() < 1.0  # inverse Gaussian .29 and .85, others < .15
    np.testing.assert_allclose(swept.params["posterior_mean"], fitted["estimate"], atol=1e-8 * se.max())
    np.testing.assert_allclose(swept.posterior.scale(), se, rtol=1e-8)
    assert swept.posterior.df == fitted["df"][0]
    assert swept.posterior.sigma**2 == pytest.approx(m.fit_state.dispersion, rel=1e-8)
    assert math.isnan(swept.inference.stream.log_evidence)
    assert any("Pearson" in note for note in swept.inference.notes)


def test_a_dispersion_given_or_with_a_prior_is_told():
    data, options = positive(), {"by": "week", "family": "gamma", "link": "log", "sweeps": 8}
    known = batches("y ~ x + g", data, **options, sigma=0.6)
    m = model("y ~ x + g", data, family="gamma", link="log").fit()
    se = m.infer().params["se"].to_numpy() * 0.6 / math.sqrt(m.fit_state.dispersion)
    np.testing.assert_allclose(known.final_mean, m.fit_state.coef, atol=1e-9)
    np.testing.assert_allclose(known.final_sd, se, rtol=1e-8)
    # a prior with φ known: the mode of deviance/(2φ) + ½ Σ β²/τ², by its own score equations
    ridge = batches("y ~ x + g", data, **options, sigma=0.6, prior=normal(0, 0.1))
    mu = np.exp(m.design.X @ ridge.final_mean)
    score = m.design.X.T @ ((m.design.y - mu) / mu) / 0.36
    np.testing.assert_allclose(score, ridge.final_mean / 0.01, rtol=1e-7)
    unknown = batches("y ~ x + g", data, **options, prior=normal(0, 2.5))
    first = model("y ~ x + g", data.filter(pl.col("week") == 0), family="gamma", link="log").fit().fit_state.dispersion
    assert any(f"V0 = sd²/{math.sqrt(first):.6g}²" in note for note in unknown.notes)
    assert resume(unknown.to_json()).final_mean == pytest.approx(unknown.final_mean, rel=0, abs=0)
    moved = batches("y ~ x + g", data, **options, drift=0.01)
    assert any("pooled within batches" in note for note in moved.notes)
    assert (moved.final_sd > 2 * known.final_sd).all()
    assert np.isfinite(batches("y ~ x + g", data, **options, drift=discount(0.9)).final_sd).all()


@pytest.mark.parametrize(("response", "family"), [("c", "negbinomial"), ("t", "t")])
def test_a_shape_is_the_fits_and_sweeps_reach_it(response, family):
    m = model(f"{response} ~ x + g", positive(), family=family).fit()
    s = m.infer(how="assim", by="week", sweeps=10)
    fitted = m.infer().params
    np.testing.assert_allclose(s.params["posterior_mean"], fitted["estimate"], atol=1e-9)
    np.testing.assert_allclose(s.params["posterior_sd"], fitted["se"], rtol=1e-8)
    assert any("taken as known" in note for note in s.inference.notes)
    again = resume(s.inference.stream.to_json())
    np.testing.assert_array_equal(again.final_mean, s.inference.stream.final_mean)
    one_call = batches(f"{response} ~ x + g", positive(), by="week", family=family, sweeps=10)
    np.testing.assert_array_equal(one_call.final_mean, s.inference.stream.final_mean)


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"by": "weak"}, BossaError, "'week'"),
        ({"family": "gamma", "drift": "ml"}, Refused, "gamma"),
        ({"family": "gamma", "backend": "ibis", "prior": normal(0, 1)}, Refused, "dispersion"),
        ({"family": "quasipoisson", "backend": "ibis", "prior": normal(0, 1), "sigma": 1.0}, Refused, "density"),
        ({"family": "poisson", "sigma": 2.0}, OptionError, "poisson"),
        ({"drift": -1}, OptionError, "negative"),
        ({"drift": "bayse"}, UnknownOption, "'bayes'"),
        ({"drift": {"z": 1}}, UnknownOption, "'z'"),
        ({"drift": math.nan}, OptionError, "nan"),
        ({"sigma": -1}, OptionError, "sigma"),
        ({"sigma": "ng"}, UnknownOption, "'nig'"),
        ({"prior": 3}, OptionError, "prior"),
        ({"prior": {"z": normal(0, 1)}}, UnknownOption, "'z'"),
        ({"alpha": 2}, OptionError, "alpha"),
        ({"order": "replays"}, UnknownOption, "'replay'"),
        ({"sweeps": 1}, OptionError, "sweeps"),
        ({"keep_rows": True}, OptionError, "keep_rows"),
        ({"n_particles": 50}, OptionError, "n_particles"),
        ({"family": "poisson", "sigma0": 2.0}, OptionError, "sigma0"),
        ({"time": "g"}, DataError, "'g'"),
    ],
    ids=str,
)
def test_bad_options_are_named(change, error, word):
    options = {"formula": "y ~ x + g", "data": weeks().with_columns(y=pl.col("y").abs() + 1), "by": "week"} | change
    with pytest.raises(error, match=word):
        batches(options.pop("formula"), options.pop("data"), **options)


def test_bad_estimates_name_the_batch():
    with pytest.raises(DataError, match="batch 1"):
        estimates([1.0, math.nan], [0.1, 0.1])
    with pytest.raises(DataError, match="batch 0"):
        estimates([1.0, 2.0], [0.0, 0.1], missing="skip")
    with pytest.raises(DataError, match="positive definite"):
        estimates([[1.0, 2.0]], vcovs=[[[1.0, 2.0], [2.0, 1.0]]])
    with pytest.raises(DataError, match="shape"):
        estimates([[1.0, 2.0]], vcovs=[[1.0, 2.0]])
    with pytest.raises(OptionError, match="one of the two"):
        estimates([1.0], [0.1], vcovs=[[[1.0]]])
    with pytest.raises(DataError, match=r"stored stream|cannot be read"):
        resume("{}")
    with pytest.raises(DataError, match="pair"):
        estimates([1.0], [0.1]).update(3.0)


def test_few_rows_per_batch_are_said():
    with pytest.warns(DataWarning, match="taken as known"):
        estimates([1.0, 1.1], [0.2, 0.2], n=[10, 10])


def test_empty_streams_are_their_prior():
    r = estimates([], [], prior=normal(1, 2))
    assert (r.final_mean, r.final_sd) == (1.0, 2.0)
    assert "prior" in r.summary()
    assert r.update((1.0, 2.0)).final_mean == pytest.approx(1.0, rel=1e-15)
    empty = batches("y ~ x", weeks(), by="week", sigma=1.0, prior=normal(0, 1)).state
    assert len(empty.sites) == 8


@pytest.mark.slow
def test_coverage_of_the_last_state_under_drift():
    """True Q = .002, se = .2, 40 batches, 1000 streams (nominal .95).

    Specification: no drift assumed .291, the right Q .950, ML plugged in .824, integrated out .943. Binomial standard error .007.
    """
    rng = np.random.default_rng(11)
    held, sims = {"ml": 0, "bayes": 0, 0.002: 0, 0: 0}, 1000
    for _ in range(sims):
        theta = np.cumsum(rng.normal(0, math.sqrt(0.002), 40))
        y = theta + rng.normal(0, 0.2, 40)
        for drift in held:
            low, high = estimates(y, np.full(40, 0.2), prior=normal(0, 1), drift=drift).final_ci
            held[drift] += low <= theta[-1] <= high
    share = {k: v / sims for k, v in held.items()}
    assert share["bayes"] >= 0.93
    assert share[0.002] == pytest.approx(0.95, abs=0.02)
    assert share["ml"] == pytest.approx(0.824, abs=0.035)
    assert share[0] == pytest.approx(0.291, abs=0.05)


@pytest.mark.slow
def test_likelihood_ratio_of_no_drift_under_no_drift():
    rng = np.random.default_rng(12)
    ratios = [estimates(rng.normal(0, 0.2, 40), np.full(40, 0.2), prior=normal(0, 1), drift="ml").diagnostics["lr"] for _ in range(150)]
    assert np.mean(np.array(ratios) > 2.706) < 0.11  # nominal .05, standard error .018
    assert 0.5 < np.mean(np.array(ratios) < 1e-6) < 0.82  # the specification's 120 streams: .67


# ---------------------------------------------------------------- robust, calibrated
def test_student_t_errors_bear_an_outlier_and_become_normal():
    y, se = [0.1, -0.1, 0.05, 3.0, 0.0], [0.1] * 5
    robust, plain = estimates(y, se, prior=normal(0, 1), obs=student_t(4)), estimates(y, se, prior=normal(0, 1))
    assert abs(robust.final_mean) < 0.08 < 0.5 < plain.final_mean
    nearly = estimates(y[:3], se[:3], prior=normal(0, 1), obs=student_t(1e6))
    np.testing.assert_allclose(nearly.posterior_mean, causal_kalman(y[:3], se[:3]).posterior_mean, atol=1e-6)
    assert nearly.log_evidence == pytest.approx(causal_kalman(y[:3], se[:3]).log_evidence, abs=1e-5)
    # one estimate: the mode of prior × likelihood, and Laplace's evidence with the curvature (df + 1)/(df + z²)
    one = estimates([3.0], [0.5], prior=normal(0, 1), obs=student_t(3))
    grid = np.linspace(-2, 4, 600_001)
    assert one.final_mean == pytest.approx(grid[np.argmax(stats.norm.logpdf(grid) + stats.t.logpdf((3 - grid) / 0.5, 3))], abs=1e-5)
    with pytest.raises(OptionError, match="obs"):
        estimates(y, se, obs="student")
    again = resume(robust.to_json())
    assert again.final_mean == robust.final_mean


def test_student_t_errors_of_several_parameters_are_the_mode():
    """One batch of two parameters: scipy's mode of prior × multivariate t, and Laplace's evidence with the expected weight."""
    from scipy.optimize import minimize

    y, V, df = np.array([3.0, -1.0]), np.array([[0.5, 0.2], [0.2, 0.3]]), 3
    t = stats.multivariate_t(shape=V, df=df)
    prior = stats.multivariate_normal(np.zeros(2), np.eye(2))
    best = minimize(lambda b: -prior.logpdf(b) - t.logpdf(y - b), np.zeros(2), tol=1e-12)
    one = estimates([y], vcovs=[V], prior=normal(0, 1), obs=student_t(df))
    np.testing.assert_allclose(one.final_mean, best.x, atol=1e-6)
    q = (y - best.x) @ np.linalg.solve(V, y - best.x)
    P = np.linalg.inv(np.eye(2) + (df + 2) / (df + q) * np.linalg.inv(V))
    np.testing.assert_allclose(one.covariance[-1], P, rtol=1e-6)
    assert one.log_evidence == pytest.approx(-best.fun + math.log(2 * math.pi) + 0.5 * np.linalg.slogdet(P)[1], abs=1e-6)  # scipy's mode
    far = {"vcovs": [V], "prior": normal(0, 1)}
    robust, plain = estimates([4 * y], **far, obs=student_t(df)), estimates([4 * y], **far)
    assert np.linalg.norm(robust.final_mean) < 0.4 * np.linalg.norm(plain.final_mean)


@pytest.mark.parametrize("drift", ["ml", "bayes"])
@pytest.mark.parametrize("prior", [normal(0.5, 2), None], ids=["proper", "flat"])
def test_student_t_errors_while_the_drift_is_unknown(drift, prior):
    nearly = estimates(B_Y, B_SE, prior=prior, drift=drift, obs=student_t(1e7))
    exact = estimates(B_Y, B_SE, prior=prior, drift=drift)
    np.testing.assert_allclose(nearly.posterior_mean, exact.posterior_mean, atol=2e-6)
    np.testing.assert_allclose(nearly.smoothed_sd, exact.smoothed_sd, atol=1e-5)
    assert nearly.log_evidence == pytest.approx(exact.log_evidence, abs=1e-5)
    with_outlier = [*B_Y, 9.0], [*B_SE, 0.3]
    robust = estimates(*with_outlier, prior=normal(0.5, 2), drift=drift, obs=student_t(4))
    plain = estimates(*with_outlier, prior=normal(0.5, 2), drift=drift)
    assert plain.final_mean > 8 > 4 > robust.final_mean
    assert robust.diagnostics["q"] < plain.diagnostics["q"] / 10
    again = resume(robust.to_json())
    assert again.final_mean == robust.final_mean


def test_student_t_errors_of_a_drifting_number_are_near_the_particles():
    y, se = np.array([0.1, -0.1, 0.05, 1.2, 0.1, 0.2]), np.full(6, 0.15)
    r = estimates(y, se, prior=normal(0, 1), drift=0.01, obs=student_t(4))
    cloud = particle_filter(y, se, process_sd=0.1, observation_log_pdf=student_t(4), n_particles=40_000, seed=1)
    np.testing.assert_allclose(
        r.posterior_mean, cloud.posterior_mean, atol=0.6 * cloud.posterior_sd.max()
    )  # Laplace: skewness at the outlier
    assert r.log_evidence == pytest.approx(cloud.log_evidence, abs=0.4)


def test_filtered_states_are_calibrated_when_the_drift_is_right_and_not_when_it_is_denied():
    """Rank of the true last state in its posterior: uniform with the right Q, heaped at both ends with Q = 0."""
    rng = np.random.default_rng(21)
    sims, T, q = 2000, 30, 0.05
    theta = rng.normal(size=sims) + np.cumsum(rng.normal(0, math.sqrt(q), (T, sims)), axis=0)
    y = theta + rng.normal(0, 0.4, (T, sims))
    right, wrong = (filter_scalars(y, np.full((T, 1), 0.16), np.full((T, 1), v), 0.0, 1.0) for v in (q, 0.0))
    u = stats.norm.cdf((theta[-1] - right.mean[-1]) / np.sqrt(right.var[-1]))
    assert stats.kstest(u, "uniform").pvalue > 0.01
    counts = np.histogram(stats.norm.cdf((theta[-1] - wrong.mean[-1]) / np.sqrt(wrong.var[-1])), bins=10, range=(0, 1))[0]
    assert counts[[0, -1]].sum() > 0.4 * sims
    assert stats.chisquare(counts).pvalue < 1e-10


@pytest.mark.slow
def test_plugged_in_standard_errors_are_too_small_and_pooled_ones_are_not():
    """Coverage of nominal .95 with 5 rows per batch: specification .683 (10: .877) plugged in, .949 with σ unknown and pooled."""
    rng = np.random.default_rng(22)
    sims, T = 400, 20
    held = {5: [0, 0], 10: [0, 0]}
    for rows, counts in held.items():
        for _ in range(sims):
            y = rng.normal(size=(T, rows))
            low, high = causal_kalman(y.mean(axis=1), y.std(axis=1, ddof=1) / math.sqrt(rows), prior_var=math.inf).final_ci
            counts[0] += low <= 0 <= high
            frame = pl.DataFrame({"y": y.reshape(-1), "week": np.repeat(np.arange(T), rows)})
            (low, high), *_ = batches("y ~ 1", frame, by="week").final_ci.reshape(-1, 2)
            counts[1] += low <= 0 <= high
    # binomial standard errors .023 and .011
    assert held[5][0] / sims == pytest.approx(0.683, abs=0.08)
    assert held[10][0] / sims == pytest.approx(0.877, abs=0.06)
    for counts in held.values():
        assert counts[1] / sims == pytest.approx(0.95, abs=0.035)
