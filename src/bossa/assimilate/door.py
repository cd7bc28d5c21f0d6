"""Someone hands over estimates and standard errors: where is the effect now, and how sure is that?

    θ_t = θ_{t−1} + w_t,  w_t ~ N(0, process_var);      estimate_t ~ N(θ_t, standard_error_t²);      θ_0 ~ N(prior_mean, prior_var)

The step comes before the first estimate too. Names, arguments and the first columns are fixed. The standard errors are taken as known:
with few rows per batch they are not, and intervals are then too narrow (batches of five rows: 95% intervals hold the truth in 68%);
`bossa.assimilate.batches` takes the data themselves and has no such limit.

Source: Kalman (1960); Gordon, Salmond & Smith (1993) for the particle filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..errors import DataError, OptionError, UnknownOption
from ..kernels.intervals import f_tail, t_quantile
from ..kernels.kalman import ScalarPath, filter_scalar, running_kish, running_median, smooth_scalar
from ..kernels.particles import RESAMPLING
from ..kernels.streams import entropy, stream
from ..types import Floats, is_number, is_whole
from .cloud import Cloud, CloudPath, blackwellised, degenerate, drifting, still
from .result import AssimilationResult

ALGORITHMS = ("auto", "bootstrap", "guided", "ibis", "rao-blackwell")
PARTICLE_OPTIONS = (
    *("prior_sampler", "transition_sampler", "process_sd", "observation_log_pdf", "n_particles", "ess_resample_threshold", "seed"),
    *("algorithm", "resampling"),
)


def causal_kalman(
    estimates: Any, standard_errors: Any, *, prior_mean: float = 0.0, prior_var: float = 1.0, process_var: float = 0.0, alpha: float = 0.05
) -> AssimilationResult:
    """The effect after each of a series of estimates, by the Kalman filter.

    estimates, standard_errors  (T,)
    prior_mean, prior_var       before the first; prior_var=inf: nothing is known
    process_var                 variance by which the effect moves between estimates; 0: it stands still
    alpha                       intervals hold 1 − alpha
    raises                      DataError naming the first batch that cannot be used

    >>> from bossa.assimilate import causal_kalman
    >>> round(causal_kalman([0.45, 0.55], [0.10, 0.12], prior_var=float("inf")).final_mean, 6)
    0.490984
    """
    where = "causal_kalman()"
    y, se = read_estimates(estimates, standard_errors, where)
    m0, P0 = number(prior_mean, "prior_mean", where), variance(prior_var, "prior_var", where, infinite=True)
    q, alpha = variance(process_var, "process_var", where), share(alpha, where)
    path = filter_scalar(y, se**2, np.full(len(y), q), m0, P0)
    return scalar_result(path, y, se**2, alpha, (m0, P0), {"prior_mean": m0, "prior_var": P0, "process_var": q})


def particle_filter(
    estimates: Any,
    standard_errors: Any,
    *,
    prior_sampler: Callable | None = None,
    prior_mean: float = 0.0,
    prior_var: float = 1.0,
    transition_sampler: Callable | None = None,
    process_sd: float = 0.0,
    observation_log_pdf: Callable | None = None,
    n_particles: int = 2000,
    ess_resample_threshold: float = 0.5,
    alpha: float = 0.05,
    seed: Any = None,
    algorithm: str = "auto",
    resampling: str = "systematic",
) -> AssimilationResult:
    """The effect after each of a series of estimates, by particles: any prior, any step, any distribution of the estimates.

    prior_sampler        (n, rng) → (n,) particles;  None: normal with prior_mean, prior_var
    transition_sampler   (particles, rng) → (n,) moved;  None: a normal step of sd process_sd
    observation_log_pdf  (estimate, standard_error, particles) → (n,);  None: normal
    ess_resample_threshold  resample when Kish's effective number falls below this share of n_particles
    algorithm            "bootstrap" | "guided" (Gaussian steps and estimates) | "ibis" (an effect that stands still) | "auto": ibis where
                         the effect stands still and its prior is normal, else bootstrap;  "rao-blackwell": drift and the scale of the
                         standard errors are unknown, and integrated out (process_sd= is not used)
    resampling           "systematic" | "stratified" | "residual" | "multinomial"
    seed                 whatever numpy's default_rng takes; diagnostics["seed"] replays the run

    >>> from bossa.assimilate import particle_filter
    >>> r = particle_filter([0.45, 0.55], [0.10, 0.12], seed=1)
    >>> abs(r.final_mean - 0.488) < 0.02
    True
    """
    where = "particle_filter()"
    y, se = read_estimates(estimates, standard_errors, where)
    m0, P0 = number(prior_mean, "prior_mean", where), variance(prior_var, "prior_var", where)
    if not is_whole(n_particles) or n_particles < 2:
        raise OptionError(f"n_particles={n_particles!r} is not a whole number of at least 2.", where=where)
    if not 0 <= number(ess_resample_threshold, "ess_resample_threshold", where) <= 1:
        raise OptionError(f"ess_resample_threshold={ess_resample_threshold!r} is not between 0 and 1.", where=where)
    if resampling not in RESAMPLING:
        raise UnknownOption(resampling, RESAMPLING, where=where, kind="resampling")
    started = entropy(seed, where)
    cloud = Cloud(
        N=int(n_particles),
        rng=stream(started, 0),
        threshold=float(ess_resample_threshold),
        resampling=resampling,
        algorithm=algorithm,
        m0=m0,
        P0=P0,
        q_sd=_sd(process_sd, where),
        alpha=share(alpha, where),
        prior_sampler=prior_sampler,
        transition_sampler=transition_sampler,
        log_pdf=observation_log_pdf,
    )
    chosen = _algorithm(algorithm, cloud, where)
    if chosen == "rao-blackwell":
        path = blackwellised(y, se, cloud)
    else:
        path = still(y, se, cloud) if chosen == "ibis" else drifting(y, se, cloud, guided=chosen == "guided")
    told: dict[str, Any] = {"algorithm": chosen, "seed": started}
    told |= {"prior_mean": m0, "prior_var": P0} if prior_sampler is None else {}
    told |= {"process_sd": cloud.q_sd} if transition_sampler is None and chosen != "rao-blackwell" else {}
    return _cloud_result(path, y, se, cloud, told)


def _sd(value: Any, where: str) -> float:
    if number(value, "process_sd", where) < 0:
        raise OptionError(f"process_sd={value!r} is negative.", where=where, do="A standard deviation is at least 0.")
    return float(value)


def _algorithm(asked: str, cloud: Cloud, where: str) -> str:
    if asked not in ALGORITHMS:
        raise UnknownOption(asked, ALGORITHMS, where=where, kind="algorithm")
    static = not cloud.q_sd and cloud.transition_sampler is None
    if asked == "auto":
        return "ibis" if static and cloud.prior_sampler is None and cloud.P0 > 0 else "bootstrap"
    if asked == "ibis" and not (static and cloud.prior_sampler is None and cloud.P0 > 0):
        what = "algorithm='ibis' is for an effect that stands still and has a normal prior with prior_var > 0."
        raise OptionError(what, where=where, do="Use algorithm='bootstrap'.")
    if asked == "rao-blackwell" and (cloud.q_sd or cloud.transition_sampler or cloud.prior_sampler or cloud.log_pdf):
        what = "algorithm='rao-blackwell' finds the drift itself, and is for normal priors, steps and estimates."
        raise OptionError(what, where=where, do="Leave process_sd and the samplers out.")
    if asked == "guided" and not (cloud.q_sd and cloud.transition_sampler is None and cloud.log_pdf is None):
        raise OptionError(
            "algorithm='guided' is for normal steps (process_sd > 0) and normal estimates.", where=where, do="Use 'bootstrap'."
        )
    return asked


def assimilative_causal(
    batches: Iterable[Any],
    estimator: Callable[[Any], tuple[float, float]],
    *,
    prior_mean: float = 0.0,
    prior_var: float = 1.0,
    process_var: float = 0.0,
    alpha: float = 0.05,
    backend: str = "kalman",
    **particle_options: Any,
) -> AssimilationResult:
    """Estimate each batch, then assimilate the estimates.

    estimator         batch → (estimate, standard error)
    backend           "kalman" | "particle"; with "particle", the options of `particle_filter` (process_sd is √process_var)
    """
    where = "assimilative_causal()"
    if backend not in ("kalman", "particle"):
        raise UnknownOption(backend, ("kalman", "particle"), where=where, kind="backend")
    if not isinstance(batches, Iterable):
        raise DataError(f"batches={batches!r} is not a series of batches.", where=where, do="Give a list of frames, or a generator.")
    pairs = [_estimated(estimator, batch, i, where) for i, batch in enumerate(batches)]
    estimates, errors = [p[0] for p in pairs], [p[1] for p in pairs]
    if backend == "kalman":
        if particle_options:
            raise UnknownOption(next(iter(particle_options)), ("prior_mean", "prior_var", "process_var", "alpha", "backend"), where=where)
        return causal_kalman(estimates, errors, prior_mean=prior_mean, prior_var=prior_var, process_var=process_var, alpha=alpha)
    unknown = [name for name in particle_options if name not in PARTICLE_OPTIONS]
    if unknown:
        raise UnknownOption(unknown[0], PARTICLE_OPTIONS, where=where)
    if "process_sd" in particle_options and process_var:
        raise OptionError("process_var= and process_sd= say the same.", where=where, do="Give one of them.")
    options = {"process_sd": math.sqrt(variance(process_var, "process_var", where))} | particle_options
    return particle_filter(estimates, errors, prior_mean=prior_mean, prior_var=prior_var, alpha=alpha, **options)


def assimilative_causal_particle(
    batches: Iterable[Any], estimator: Callable[[Any], tuple[float, float]], **options: Any
) -> AssimilationResult:
    """`assimilative_causal` with backend="particle"; options as there."""
    known = ("prior_mean", "prior_var", "process_var", "alpha", *PARTICLE_OPTIONS)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UnknownOption(unknown[0], known, where="assimilative_causal_particle()")
    return assimilative_causal(batches, estimator, backend="particle", **options)


def _estimated(estimator: Callable[[Any], tuple[float, float]], batch: Any, i: int, where: str) -> tuple[Any, Any]:
    pair = estimator(batch)
    try:
        estimate, error = pair
    except (TypeError, ValueError):
        what = f"the estimator returned {pair!r} for batch {i} (counting from 0)."
        raise DataError(what, where=where, do="It must return (estimate, standard error).") from None
    return estimate, error


# ---------------------------------------------------------------- checks at the door
def read_estimates(estimates: Any, standard_errors: Any, where: str, skip: bool = False) -> tuple[Floats, Floats]:
    """Both as (T,) floats, checked; `skip`: a nan in either is a batch that was not seen (both nan)."""
    y, se = vector(estimates, "estimates", where), vector(standard_errors, "standard_errors", where)
    if len(y) != len(se):
        raise DataError(f"{len(y)} estimates and {len(se)} standard errors.", where=where, do="Give one standard error for each estimate.")
    if skip:
        gone = np.isnan(y) | np.isnan(se)
        y, se = np.where(gone, np.nan, y), np.where(gone, np.nan, se)
    for name, values, bad in (
        ("estimate", y, ~np.isfinite(y)),
        ("standard error", se, ~(np.isfinite(se) & (np.nan_to_num(se) > 0))),
    ):
        bad = bad & ~np.isnan(values) if skip else bad
        if bad.any():
            i = int(np.argmax(bad))
            do = (
                "Leave the batch out, or use bossa.assimilate.estimates(…, missing='skip')."
                if np.isnan(values[i])
                else ("It must be finite and positive." if name == "standard error" else "It must be finite.")
            )
            raise DataError(f"the {name} of batch {i} (counting from 0) is {float(values[i])!r}.", where=where, do=do)
    return y, se


def vector(values: Any, name: str, where: str) -> Floats:
    """One number for each batch (T,)."""
    try:
        array = np.asarray(list(values) if not isinstance(values, np.ndarray) else values, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"{name} are not numbers.", where=where, do="Give one number for each batch.") from None
    if array.ndim != 1:
        raise DataError(f"{name} have {array.ndim} axes, not one.", where=where, do="Give one number for each batch.")
    return array


def number(value: Any, name: str, where: str) -> float:
    """A finite number."""
    if not is_number(value) or not math.isfinite(value):
        raise OptionError(f"{name}={value!r} is not a finite number.", where=where)
    return float(value)


def variance(value: Any, name: str, where: str, infinite: bool = False) -> float:
    """A number ≥ 0; inf where that has a meaning."""
    if infinite and isinstance(value, (float, np.floating)) and value == math.inf:
        return math.inf
    if number(value, name, where) < 0:
        raise OptionError(f"{name}={value!r} is negative.", where=where, do="A variance is at least 0.")
    return float(value)


def share(alpha: Any, where: str) -> float:
    """alpha in (0, 1)."""
    if not 0 < number(alpha, "alpha", where) < 1:
        raise OptionError(f"alpha={alpha!r} is not between 0 and 1.", where=where, do="alpha=0.05 gives 95% intervals.")
    return float(alpha)


# ---------------------------------------------------------------- results
def limits(mean: Any, sd: Any, alpha: float, df: Any = np.inf) -> Floats:
    """Equal-tailed limits (…, 2) of normal (or t) posteriors."""
    width = t_quantile(1 - alpha / 2, np.asarray(df, dtype=float)) * sd
    return np.stack((mean - width, mean + width), axis=-1)


def scalar_result(path: ScalarPath, y: Floats, v: Floats, alpha: float, prior: tuple[float, float], chosen: dict) -> AssimilationResult:
    """The result of one Kalman-filtered number.   prior: mean and variance;  chosen: what goes into diagnostics"""
    sd, T = np.sqrt(path.var), len(y)
    S = path.var_f + v
    moved = y - path.mean_f
    flat = np.isinf(S)
    with np.errstate(invalid="ignore", divide="ignore"):
        nis = np.where(flat, np.nan, moved**2 / S)
        ess = running_median(v) / path.var  # inf: a prior that is a point
    smoothed, smoothed_var, _ = smooth_scalar(path)
    kish, left = running_kish(path.gain)
    evidence = np.cumsum(path.loglik)
    seen = ~np.isnan(nis)
    total = float(nis[seen].sum())
    last_mean, last_sd = (path.mean[-1], sd[-1]) if T else (np.float64(prior[0]), np.float64(math.sqrt(prior[1])))
    chosen = chosen | {"nis_sum": total, "nis_p": float(f_tail(total / max(seen.sum(), 1), max(seen.sum(), 1), np.inf))}
    return AssimilationResult(
        posterior_mean=path.mean,
        posterior_sd=sd,
        posterior_ci=limits(path.mean, sd, alpha),
        innovations=moved,
        innovation_sd=np.where(flat, np.nan, np.sqrt(S)),
        gain=path.gain,
        ess=ess,
        ess_kish=kish,
        nis=nis,
        nis_df=np.where(seen, 1.0, 0.0),
        p_nis=f_tail(nis, 1.0, np.inf),
        log_evidences=evidence,
        smoothed_mean=smoothed,
        smoothed_sd=np.sqrt(smoothed_var),
        smoothed_ci=limits(smoothed, np.sqrt(smoothed_var), alpha),
        final_mean=float(last_mean),
        final_sd=float(last_sd),
        final_ci=limits(last_mean, last_sd, alpha),
        log_evidence=float(evidence[-1]) if T else 0.0,
        method="kalman",
        batch=tuple(range(T)),
        alpha=alpha,
        diagnostics=chosen | {"n_batches": T, "prior_weight": float(left[-1]) if T else 1.0},
    )


def _cloud_result(path: CloudPath, y: Floats, se: Floats, cloud: Cloud, chosen: dict) -> AssimilationResult:
    """The result of one number filtered by particles; says when too few different particles are left."""
    T = len(y)
    S_root = np.hypot(path.sd_f, se)
    evidence = np.cumsum(path.loglik)
    left = int(path.unique.min()) if T else cloud.N
    notes = degenerate(left, cloud.N)
    last = cloud.m0, math.sqrt(cloud.P0)
    if T:
        last, last_ci = (path.mean[-1], path.sd[-1]), path.ci[-1]
    else:
        last_ci = limits(np.float64(last[0]), np.float64(last[1]), cloud.alpha)
    chosen = chosen | {
        "n_batches": T,
        "n_particles": cloud.N,
        "resampling": cloud.resampling,
        "resampled": path.resampled,
        "tempering_steps": path.tempering,
        "acceptance": path.acceptance,
        "unique": left,
        "min_ess": float(path.ess.min()) if T else float(cloud.N),
    }
    nis = ((y - path.mean_f) / S_root) ** 2
    return AssimilationResult(
        posterior_mean=path.mean,
        posterior_sd=path.sd,
        posterior_ci=path.ci,
        innovations=y - path.mean_f,
        innovation_sd=S_root,
        ess=path.ess,
        nis=nis,
        nis_df=np.ones(T),
        p_nis=f_tail(nis, 1.0, np.inf),
        log_evidences=evidence,
        final_mean=float(last[0]),
        final_sd=float(last[1]),
        final_ci=last_ci,
        log_evidence=float(evidence[-1]) if T else 0.0,
        method="particle",
        batch=tuple(range(T)),
        alpha=cloud.alpha,
        diagnostics=chosen,
        notes=notes,
    )
