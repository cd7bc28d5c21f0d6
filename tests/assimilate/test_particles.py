"""Particle filters: against the exact answers where there are some, and honest where a cloud has died."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bossa.assimilate import causal_kalman, particle_filter, student_t
from bossa.errors import BossaError, DataError, DataWarning, FitFailed, OptionError, UnknownOption
from bossa.kernels.kalman import filter_scalar

B = ([1.2, 0.9, 1.5, 1.1, 1.8, 2.0], [0.3, 0.25, 0.4, 0.2, 0.35, 0.3])
PRIOR = {"prior_mean": 0.5, "prior_var": 4.0}
DRIFT = {"process_sd": math.sqrt(0.05)}


@pytest.mark.parametrize("algorithm", ["bootstrap", "guided"])
@pytest.mark.parametrize("resampling", ["systematic", "stratified", "residual", "multinomial"])
def test_particles_agree_with_the_kalman_filter(algorithm, resampling):
    exact = causal_kalman(*B, **PRIOR, process_var=0.05)
    r = particle_filter(*B, **PRIOR, **DRIFT, n_particles=20_000, seed=1, algorithm=algorithm, resampling=resampling)
    # Monte-Carlo standard error about sd/√N × 2 = .003
    np.testing.assert_allclose(r.posterior_mean, exact.posterior_mean, atol=0.015)
    np.testing.assert_allclose(r.posterior_sd, exact.posterior_sd, atol=0.012)
    np.testing.assert_allclose(r.posterior_ci, exact.posterior_ci, atol=0.06)
    np.testing.assert_allclose(r.innovations, exact.innovations, atol=0.02)
    np.testing.assert_allclose(r.innovation_sd, exact.innovation_sd, rtol=0.03)
    assert r.log_evidence == pytest.approx(exact.log_evidence, abs=0.06)


@pytest.mark.parametrize("algorithm", ["bootstrap", "guided"])
def test_evidence_is_unbiased(algorithm):
    """Mean of Ẑ/Z over runs; specification, case B: 1.0010 ± .0046."""
    exact = causal_kalman(*B, **PRIOR, process_var=0.05).log_evidence
    runs = [particle_filter(*B, **PRIOR, **DRIFT, n_particles=300, seed=i, algorithm=algorithm).log_evidence for i in range(300)]
    ratio = np.exp(np.array(runs) - exact)
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / math.sqrt(300))
    assert ratio.std() < 0.6


def test_the_seed_replays_the_run_and_is_kept():
    one, two, other = (particle_filter(*B, **DRIFT, n_particles=400, seed=s) for s in (5, 5, 6))
    np.testing.assert_array_equal(one.posterior_mean, two.posterior_mean)
    assert (one.posterior_mean != other.posterior_mean).any()
    unseeded = particle_filter(*B, **DRIFT, n_particles=400)
    again = particle_filter(*B, **DRIFT, n_particles=400, seed=unseeded.diagnostics["seed"])
    np.testing.assert_array_equal(unseeded.posterior_mean, again.posterior_mean)


def static():
    rng = np.random.default_rng(7)
    return rng.normal(0.3, 0.1, 150), np.full(150, 0.1)


def test_a_static_effect_under_a_wide_prior_is_solved_by_tempered_moves():
    y, se = static()
    exact = causal_kalman(y, se, prior_var=1e4)
    runs = [particle_filter(y, se, prior_var=1e4, n_particles=1000, seed=i) for i in range(20)]
    error = [(r.final_mean - exact.final_mean) / exact.final_sd for r in runs]
    assert np.sqrt(np.mean(np.square(error))) < 0.08  # specification .025 for its data; 1/√1000 = .03
    logs = np.array([r.log_evidence for r in runs])
    assert logs.mean() == pytest.approx(exact.log_evidence, abs=0.25)
    assert logs.std() < 0.4  # specification .116
    first = runs[0].diagnostics
    assert first["algorithm"] == "ibis"
    assert first["unique"] > 900
    assert 0.2 < first["acceptance"] < 1


def test_the_same_by_resampling_alone_dies_and_says_so():
    y, se = static()
    exact = causal_kalman(y, se, prior_var=1e4)
    with pytest.warns(DataWarning, match="stayed different"):
        r = particle_filter(y, se, prior_var=1e4, n_particles=1000, seed=1, algorithm="bootstrap")
    assert r.diagnostics["unique"] < 20
    assert r.ess[-1] > 500  # a healthy effective size of copies
    assert any("degenerate" in note for note in r.notes)
    assert abs(r.log_evidence - exact.log_evidence) > 0.3


def test_student_t_estimates_are_quadrature_and_bear_an_outlier():
    y, se = [0.1, -0.1, 0.05, 3.0, 0.0], [0.1] * 5
    r = particle_filter(y, se, observation_log_pdf=student_t(4), n_particles=20_000, seed=3)
    grid = np.linspace(-4, 4, 40_001)
    density = stats.norm.pdf(grid) * np.prod([stats.t.pdf((v - grid) / s, 4) / s for v, s in zip(y, se)], axis=0)
    total = density.sum() * (grid[1] - grid[0])
    mean = (grid * density).sum() / density.sum()
    assert r.final_mean == pytest.approx(mean, abs=0.004)
    assert r.log_evidence == pytest.approx(math.log(total), abs=0.1)
    assert abs(causal_kalman(y, se).final_mean - 0.01) > 0.5 > 10 * abs(r.final_mean - 0.01)


def test_own_samplers_are_used():
    def prior(n, rng):
        return 0.5 + 2 * rng.standard_normal(n)

    def step(x, rng):
        return x + math.sqrt(0.05) * rng.standard_normal(len(x))

    def log_pdf(estimate, standard_error, x):
        return stats.norm.logpdf(estimate, x, standard_error)

    own = particle_filter(*B, prior_sampler=prior, transition_sampler=step, observation_log_pdf=log_pdf, n_particles=20_000, seed=2)
    exact = causal_kalman(*B, **PRIOR, process_var=0.05)
    assert own.final_mean == pytest.approx(exact.final_mean, abs=0.015)
    assert own.log_evidence == pytest.approx(exact.log_evidence, abs=0.06)


def test_rao_blackwellised_drift_and_scale_are_two_dimensional_quadrature():
    y, se = np.array(B[0]), np.array(B[1])
    r = particle_filter(*B, **PRIOR, algorithm="rao-blackwell", n_particles=4000, seed=4)
    centre = math.log(float(np.median(se**2)) / 10)
    xs, total, first, second = np.linspace(-5, 5, 61), 0.0, 0.0, 0.0
    for a in xs:
        for b in xs:
            path = filter_scalar(y, se**2 * math.exp(b), np.full(6, math.exp(centre + 1.5 * a)), 0.5, 4.0)
            w = stats.norm.pdf(a) * stats.norm.pdf(b) * math.exp(path.loglik.sum()) * (xs[1] - xs[0]) ** 2
            total, first = total + w, first + w * path.mean[-1]
            second += w * (path.var[-1] + path.mean[-1] ** 2)
    assert r.log_evidence == pytest.approx(math.log(total), abs=0.08)
    assert r.final_mean == pytest.approx(first / total, abs=0.02)
    assert r.final_sd == pytest.approx(math.sqrt(second / total - (first / total) ** 2), rel=0.05)


def broken(n, rng):
    return np.full(n, np.nan)


def impossible(estimate, standard_error, x):
    return np.full(len(x), -np.inf)


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"n_particles": 1}, OptionError, "n_particles"),
        ({"n_particles": 2.5}, OptionError, "n_particles"),
        ({"ess_resample_threshold": 1.5}, OptionError, "ess_resample_threshold"),
        ({"resampling": "systemic"}, UnknownOption, "'systematic'"),
        ({"algorithm": "ibsi"}, UnknownOption, "'ibis'"),
        ({"algorithm": "ibis", "process_sd": 1.0}, OptionError, "stands still"),
        ({"algorithm": "guided"}, OptionError, "process_sd"),
        ({"algorithm": "rao-blackwell", "process_sd": 1.0}, OptionError, "finds the drift"),
        ({"prior_sampler": broken}, DataError, "prior_sampler"),
        ({"observation_log_pdf": impossible}, FitFailed, "batch 0"),
        ({"seed": -1}, BossaError, "seed"),
    ],
    ids=str,
)
def test_bad_options_are_named(options, error, word):
    with pytest.raises(error, match=word):
        particle_filter(*B, **options)


def test_student_t_needs_positive_degrees_of_freedom():
    with pytest.raises(OptionError, match="df"):
        student_t(0)
