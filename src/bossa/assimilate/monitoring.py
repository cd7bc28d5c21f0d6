"""Is anything wrong with the stream, and will it ever be precise enough?

Innovations are brought to normal scores first where σ is estimated (Student-t forecasts). An alarm is an `Alarm`: which batch, which
coefficient, what was seen, what it means. The functions here read a result; its methods of the same names call them.

Source: West & Harrison (1997) §11.3; Page (1954); Robbins (1970); see kernels/monitors.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from attrs import frozen
from scipy.special import ndtri

from ..errors import OptionError, Refused
from ..kernels import covop
from ..kernels.intervals import t_tail
from ..kernels.kalman import known as known_of
from ..kernels.kalman import look, steady_variance
from ..kernels.monitors import (
    cusum,
    ljung_box,
    log_e_value,
    log_e_value_t,
    rows_needed,
    sequence_radius,
    sequence_radius_t,
)
from ..types import Floats
from .drift import Discount
from .seen import is_linear, seen_as
from .solve import InverseGamma


@frozen(kw_only=True)
class Alarm:
    """Something in the stream that the model does not expect: kind "z" | "cusum" | "nis" | "whiteness", the value and its limit."""

    batch: Any
    term: str
    kind: str
    value: float
    limit: float
    message: str


@frozen(kw_only=True)
class Redesign:
    """Will the stream reach the precision wanted?

    reached         it has
    rows            still needed if nothing moves; None where it drifts
    projected_sd    after `horizon` more batches like those seen
    limit_sd        where a drifting effect's sd settles, however long one waits; 0 where nothing drifts
    trigger         "" | "ess" | "horizon" | "never";  message  in words
    """

    term: str
    sd: float
    target_sd: float
    reached: bool
    rows: float | None
    projected_sd: float | None
    limit_sd: float
    trigger: str
    message: str


def table(values: Any, scalar: bool) -> Floats:
    """(T, K) whatever the stream."""
    values = np.asarray(values, dtype=float)
    return values[:, None] if scalar else values


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and math.isfinite(value)


def scores(result: Any) -> Floats:
    """Standardised innovations (T, K) as normal scores; nan where there is none."""
    z = table(result.z, result.scalar)
    df = None if result.solution is None else result.solution.path.df_f
    if df is None or np.isinf(df).all():
        return z
    df = np.where(np.isnan(df), np.inf, df)[:, None]
    return np.asarray(np.where(np.isinf(df), z, np.sign(z) * -ndtri(t_tail(np.abs(z), df, "greater"))))


def monitor(
    result: Any, *, z_limit: float = 3.0, k: float = 0.5, h: float = 5.0, null: float = 0.0, mixture_sd: float | None = None
) -> pl.DataFrame:
    """One row per batch and coefficient: z, cusum_up, cusum_down, nis, p_nis, e_value, cs_lower, cs_upper, alarm.

    z_limit     |z| beyond it is an alarm;  k, h  of the CUSUM (about 17% false alarms in 100 batches at 0.5, 5)
    null        value that the e-value tests;  e_value ≥ 1/alpha rejects it, at any look and however often one looked
    mixture_sd  sd of the effects the e-value expects, in units of σ where σ is unknown; None: the prior's
    null where something drifts, or nothing was said beforehand: `why_no_e_values` (and .explain()) say what is missing
    """
    for name, value in (("z_limit", z_limit), ("h", h), ("mixture_sd", 1.0 if mixture_sd is None else mixture_sd)):
        if not _is_number(value) or value <= 0:
            raise OptionError(f"{name}={value!r} is not a positive number.", where="monitor()")
    for name, value in (("k", k), ("null", null)):
        if not _is_number(value):
            raise OptionError(f"{name}={value!r} is not a finite number.", where="monitor()")
    z = scores(result)
    T, K = z.shape
    e, low, high = sequences(result, null, mixture_sd)
    columns: dict[str, Any] = {"batch": [b for b in result.batch for _ in range(K)], "term": list(result.names) * T}
    up, down = np.zeros((T, K)), np.zeros((T, K))
    for j in range(K):
        up[:, j], down[:, j], _ = cusum(z[:, j], k, h)
    told = alarm_words(z, up, down, z_limit, h)
    numbers = {"z": z, "cusum_up": up, "cusum_down": down, "nis": np.repeat(result.nis, K), "p_nis": np.repeat(result.p_nis, K)}
    numbers |= {"e_value": e, "cs_lower": low, "cs_upper": high}
    made = {name: pl.Series(v.reshape(-1)).fill_nan(None) for name, v in numbers.items()}
    return pl.DataFrame(columns).with_columns(**made, alarm=pl.Series(told, dtype=pl.String))


def alarm_words(z: Floats, up: Floats, down: Floats, z_limit: float, h: float) -> list[str | None]:
    """ "z", "cusum", "z, cusum" or None, T × K."""
    out: list[str | None] = []
    for a, b, c in zip(z.reshape(-1), up.reshape(-1), down.reshape(-1)):
        words = [word for word, yes in (("z", abs(a) > z_limit), ("cusum", max(b, c) > h)) if yes]
        out.append(", ".join(words) or None)
    return out


def default_alarms(result: Any) -> list[str | None]:
    """The `alarm` column of the trajectory."""
    z = scores(result)
    sums = [cusum(column) for column in z.T]
    up, down = (np.column_stack([s[i] for s in sums]) if sums else z for i in (0, 1))
    return alarm_words(z, up, down, 3.0, 5.0)


def alarms(
    result: Any, *, z_limit: float = 3.0, k: float = 0.5, h: float = 5.0, p_limit: float = 0.001, lags: int = 5
) -> tuple[Alarm, ...]:
    """Every alarm: single batches off their forecast, whole batches (NIS), shifts (first batch of each CUSUM crossing), memory."""
    z, out = scores(result), []
    for j, term in enumerate(result.names):
        for t in np.flatnonzero(np.abs(z[:, j]) > z_limit):
            message = f"{term} is {z[t, j]:+.1f} forecast standard deviations off in batch {result.batch[t]!r}"
            out.append(Alarm(batch=result.batch[t], term=term, kind="z", value=float(z[t, j]), limit=z_limit, message=message))
        up, down, over = cusum(z[:, j], k, h)
        for t in np.flatnonzero(over & ~np.concatenate(([False], over[:-1]))):
            side = "upwards" if up[t] > h else "downwards"
            message = f"{term} has shifted {side}; seen by batch {result.batch[t]!r}"
            out.append(Alarm(batch=result.batch[t], term=term, kind="cusum", value=float(max(up[t], down[t])), limit=h, message=message))
        Q, p = ljung_box(z[:, j], lags)
        if p < p_limit:
            message = f"innovations of {term} remember each other (Ljung–Box {Q:.1f}, {lags} lags): the drift is mis-stated"
            out.append(Alarm(batch=None, term=term, kind="whiteness", value=p, limit=p_limit, message=message))
    for t in np.flatnonzero(np.nan_to_num(result.p_nis, nan=1.0) < p_limit):
        message = f"batch {result.batch[t]!r} as a whole disagrees with its forecast (p {result.p_nis[t]:.2g})"
        out.append(Alarm(batch=result.batch[t], term="(all)", kind="nis", value=float(result.p_nis[t]), limit=p_limit, message=message))
    return tuple(out)


def sequences(result: Any, null: float = 0.0, mixture_sd: float | None = None) -> tuple[Floats, Floats, Floats]:
    """e-values and confidence sequences (T, K) of effects that stand still; nan where `why_no_e_values`.

    By the data alone, so they hold whatever the other coefficients and σ are; the mixing prior is normal about each value tested, so the
    sequence is θ̂ ± a radius: the values whose e_value stays below 1/alpha.
    """
    told = table(result.posterior_mean, result.scalar)
    e, low, high = (np.full(told.shape, np.nan) for _ in range(3))
    if why_no_e_values(result, mixture_sd):
        return e, low, high
    tau2 = mixing_variance(result) if mixture_sd is None else np.full(told.shape[1], mixture_sd**2)
    estimate, v, rss, m = data_alone(result)
    for j in np.flatnonzero(np.isfinite(tau2) & (tau2 > 0)):
        theta, w = estimate[:, j], v[:, j]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            if m is None:
                e[:, j] = np.exp(log_e_value(theta, 1 / w, 1 / tau2[j], null))
                radius = sequence_radius(1 / w, 1 / tau2[j], result.alpha)
            else:
                e[:, j] = np.exp(log_e_value_t(theta, w, rss, m, tau2[j], null))
                radius = sequence_radius_t(w, rss, m, tau2[j], result.alpha)
        low[:, j], high[:, j] = theta - radius, theta + radius
    return e, low, high


def why_no_e_values(result: Any, mixture_sd: float | None = None) -> str:
    """Why there are no e-values, and what to do about it; empty where there are."""
    chosen = result.diagnostics
    proper = "or give the sd of the effects expected: monitor(mixture_sd=…)"
    if result.state is None:
        if result.method != "kalman":
            return "particles have none; use causal_kalman() or estimates()"
        if chosen["process_var"] != 0:
            return "they are for effects that stand still"
        if chosen["prior_var"] == 0:
            return "the prior is a point"
        return "" if mixture_sd is not None or math.isfinite(chosen["prior_var"]) else f"the prior is flat: use a proper one, {proper}"
    options = result.state.options
    if not (isinstance(options.drift, str) and options.drift == "none"):
        return "they are for effects that stand still"
    if options.obs_df is not None or isinstance(options.between, str):
        return "they are for normal errors that are known beforehand"
    if result.state.kind == "glm" and len(result.df) and not np.isinf(result.df).all():
        return "the dispersion is estimated"
    if result.target is not None and not is_linear(result.target):
        return "the effect is not a linear function of the coefficients"
    if mixture_sd is not None:
        return ""
    if not (np.isfinite(mixing_variance(result)) & (mixing_variance(result) > 0)).any():
        return f"the prior is flat: use a proper one, {proper}"
    if sigma_is_learnt(result) and not isinstance(options.sigma, InverseGamma) and options.sigma0 is None:
        return f"σ is unknown and nothing was said of it beforehand: give sigma0=, {proper}, in units of σ"
    return ""


def sigma_is_learnt(result: Any) -> bool:
    """Is σ of a linear model estimated from the batches?"""
    return result.state is not None and result.state.kind == "lm" and not isinstance(result.state.options.sigma, float)


def sigma_is_improper(result: Any) -> bool:
    """Is nothing said of a σ that is learnt?"""
    return sigma_is_learnt(result) and not isinstance(result.state.options.sigma, InverseGamma)


def mixing_variance(result: Any) -> Floats:
    """Prior variance (K,) of the numbers followed, over σ² where that is learnt; inf: flat."""
    if result.state is None:
        return np.array([result.diagnostics["prior_var"]])
    options, target = result.state.options, result.target
    unit = 1.0
    if sigma_is_learnt(result):
        told = options.sigma
        unit = math.sqrt(told.b / told.a) if isinstance(told, InverseGamma) and options.sigma0 is None else options.sigma0 or 1.0
    rows = options.U[(options.U != 0).any(axis=1)]
    op: covop.CovOp | None = covop.Flat(rows) if len(rows) else None
    if op is not None and target is not None:
        op = covop.image(op, target.jacobian(np.zeros(op.size)))
    return np.full(len(result.names), np.inf) if op is None else op.diag() / unit**2


def data_alone(result: Any) -> tuple[Floats, Floats, Any, Any]:
    """Estimates (T, K) by the batches so far without any prior, their variances (over σ² where that is learnt), and then the residual sum
    of squares (T,) and rows less coefficients plus one (T,), None where σ is known; nan while undetermined.
    """
    if result.state is None:
        known = 1 / result.diagnostics["prior_var"]
        information = 1 / result.posterior_sd**2 - known
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate = (result.posterior_mean / result.posterior_sd**2 - result.diagnostics["prior_mean"] * known) / information
            return estimate[:, None], 1 / information[:, None], None, None
    state, sites = result.state, result.solution.sites
    k, fixed = len(state.names), len(state.names) if state.varying is None else state.varying.fixed
    n = np.cumsum([site.n for site in sites])
    mean, V, rss = _one_number(sites) if k == 1 else _many_numbers(sites, result.solution.start.U, fixed)
    estimate, spread = seen_as(result.target, mean, V)
    learnt = sigma_is_learnt(result)
    return estimate, np.einsum("tii->ti", spread), rss if learnt else None, np.maximum(n - fixed + 1, 1) if learnt else None


def _one_number(sites: Any) -> tuple[Floats, Floats, Floats]:
    J = np.array([float(s.J[0, 0]) if len(s.z) else 0.0 for s in sites])
    z = np.array([float(s.z[0]) if len(s.z) else 0.0 for s in sites])
    A, c = np.cumsum(J * J), np.cumsum(J * z)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, before = c / A, np.append(0.0, A[:-1])
        off = np.where(before > 0, (z - J * np.append(0.0, mean[:-1])) ** 2 / (1 + J * J / before), 0.0)
        return mean[:, None], (1 / A)[:, None, None], np.cumsum(off + [s.rss for s in sites])


def _many_numbers(sites: Any, start: Floats, fixed: int) -> tuple[Floats, Floats, Floats]:
    k = len(start)
    U, d = np.zeros((k, k)), np.zeros(k)
    U[fixed:, fixed:] = start[fixed:, fixed:]  # random effects are part of the model, not a prior
    mean, V, rss = np.full((len(sites), k), np.nan), np.full((len(sites), k, k), np.nan), np.zeros(len(sites))
    left = 0.0
    for t, site in enumerate(sites):
        U, d, rho2 = look(U, d, site.J, site.z) if len(site.z) else (U, d, 0.0)
        now = known_of(U, d)
        left += site.rss + rho2
        if now.rank == k:
            mean[t], V[t], rss[t] = now.mean, now.V, left + now.rest
    return mean, V, rss


def redesign(result: Any, target_sd: float, *, horizon: int | None = None, ess_floor: float | None = None) -> tuple[Redesign, ...]:
    """For each coefficient: is the sd wanted reached, how many rows are missing, or will no amount of data do?

    target_sd  the sd wanted;  horizon  further batches one is ready to wait for;  ess_floor  least effective number of batches
    """
    for name, value in (("target_sd", target_sd), ("horizon", 1 if horizon is None else horizon)):
        if not _is_number(value) or value <= 0:
            raise OptionError(f"{name}={value!r} is not a positive number.", where="redesign()")
    if horizon is not None and horizon != int(horizon):
        raise OptionError(f"horizon={horizon!r} is not a whole number of batches.", where="redesign()")
    sd = table(result.posterior_sd, result.scalar)
    if not len(sd):
        raise Refused("no batch has been seen.", where="redesign()", do="Plan from the prior: its sd is in .final_sd.")
    R, rows = batch_variances(result)
    Q, factor = process_variances(result)
    kish = None if result.ess_kish is None else table(result.ess_kish, result.scalar)[-1]
    out = []
    for j, term in enumerate(result.names):
        P, static = float(sd[-1, j] ** 2), not Q[j] and factor == 1.0
        limit = 0.0 if static else math.sqrt(steady_variance(Q[j], R[j]) if factor == 1.0 else (1 - factor) * R[j])
        needed = float(rows_needed(R[j] * rows, P, target_sd)) if static else None
        projected = None if horizon is None else projected_sd(P, Q[j], R[j], factor, int(horizon))
        reached = math.sqrt(P) <= target_sd
        trigger, message = "", f"{term}: sd {math.sqrt(P):.4g} is within {target_sd:g}"
        if not reached:
            message = f"{term}: sd {math.sqrt(P):.4g}, {target_sd:g} wanted"
            unit = "rows" if result.n is not None and (result.n > 1).any() else "batches like these"
            message += f"; {math.ceil(needed * (1 - 1e-12))} more {unit}" if needed is not None else f"; it settles at {limit:.4g}"
        if kish is not None and ess_floor is not None and kish[j] < ess_floor:
            trigger, message = "ess", f"{message}; only {kish[j]:.3g} batches count"
        if not reached and projected is not None and projected > target_sd:
            trigger, message = "horizon", f"{message}; {projected:.4g} after {horizon} more batches"
        if not reached and limit > target_sd:
            trigger, message = "never", f"{message}. No number of batches like these will do: use larger ones, or another design"
        out.append(
            Redesign(
                term=term,
                sd=math.sqrt(P),
                target_sd=float(target_sd),
                reached=reached,
                rows=needed,
                projected_sd=projected,
                limit_sd=limit,
                trigger=trigger,
                message=message,
            )
        )
    return tuple(out)


def batch_variances(result: Any) -> tuple[Floats, float]:
    """Median variance (K,) of a batch's own estimate, and the median number of rows."""
    S, K = table(result.innovation_sd, result.scalar) ** 2, len(result.names)
    gain = table(result.gain, result.scalar)
    with np.errstate(invalid="ignore"):
        own = S * (1 - gain)  # R = S (1 − K)
    if result.solution is not None and result.target is None:
        p = result.solution.path
        own = np.einsum("tii->ti", p.own_V) * p.s2[:, None]
    known = [own[~np.isnan(own[:, j]), j] for j in range(K)]
    rows = 1.0 if result.n is None else float(np.median(result.n[result.n > 0]))
    all_together = table(result.posterior_sd, result.scalar)[-1] ** 2 * len(own)  # where no batch alone determines it: an average one
    return np.array([np.median(v) if len(v) else one for v, one in zip(known, all_together)]), rows


def process_variances(result: Any) -> tuple[Floats, float]:
    """Process variance (K,) per batch, and the discount (1: none)."""
    K, chosen = len(result.names), result.diagnostics
    if result.state is None:
        return np.full(K, float(chosen.get("process_var", 0.0))), 1.0
    drift = result.state.options.drift
    if isinstance(drift, Discount):
        return np.zeros(K), drift.factor
    Q = np.zeros((len(result.state.names),) * 2)
    if isinstance(drift, np.ndarray):
        Q = drift
    elif "Q" in chosen:
        Q = np.diag(np.asarray(chosen["Q"]) * float(result.solution.path.s2[-1]))
    if result.target is None:
        return np.diag(Q).copy(), 1.0
    J = result.target.jacobian(result.solution.path.mean[-1])
    return np.einsum("ij,jk,ik->i", J, Q, J), 1.0


def projected_sd(P: float, Q: float, R: float, factor: float, horizon: int) -> float:
    """sd after `horizon` more batches of variance R."""
    for _ in range(horizon):
        ahead = P / factor + Q
        P = ahead * R / (ahead + R)
    return math.sqrt(P)
