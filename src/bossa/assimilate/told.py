"""A solved stream as a result: the coefficients, or any differentiable function of them, after each batch."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from attrs import frozen

from ..design.formula import data_names
from ..errors import FitFailed
from ..kernels import covop
from ..kernels.intervals import f_tail
from ..kernels.kalman import running_median, walk
from ..state.posterior import Posterior
from ..state.provenance import Provenance, digest
from ..state.target import Target
from ..types import Floats
from .drift import PRIOR_MEAN, PRIOR_SD
from .result import AssimilationResult
from .seen import inflation, limits_of, row_names, seen_as
from .solve import AssimState, InverseGamma, Solution, solve


@frozen(kw_only=True, eq=False)
class Shown:
    """The path of T batches as the target's K numbers show it; V is a scale matrix where limits are Student's.

    mean, V, mean_f, own    (T, K), (T, K, K)  after each batch, its forecast, the batch on its own
    innovation_sd, gain, ess (T, K)
    smoothed, smoothed_V    (T, K), (T, K, K)  None: undetermined
    limits                  (T, K, 2)  of particles, None: by the sd
    """

    mean: Floats
    V: Floats
    mean_f: Floats
    own: Floats
    innovation_sd: Floats
    gain: Floats
    ess: Floats
    smoothed: Floats | None
    smoothed_V: Floats | None
    limits: Floats | None


def shown(solution: Solution, target: Target | None, alpha: float) -> Shown:
    """A solved stream through a target; None: the coefficients."""
    p, T, clouds, limits = solution.path, len(solution.sites), solution.clouds, None
    mean, V = seen_as(target, p.mean, p.V * _by(p.s2))
    mean_f, V_f = seen_as(target, p.mean_f, p.V_f * _by(p.s2_f), at=p.mean)
    own, own_V = seen_as(target, p.own, p.own_V * _by(p.s2_f), at=p.mean)
    smoothed = smoothed_V = None
    if p.smoothed is not None and p.smoothed_V is not None:
        smoothed, smoothed_V = seen_as(target, p.smoothed, p.smoothed_V * (p.s2[-1] if T else 1.0))
    if clouds is not None:
        at = clouds.x if target is None else np.array([target.value(x) for x in clouds.x])
        (mean_all, V_all), limits = clouds.moments(at), clouds.limits(at, alpha)[1:]
        mean, V, mean_f, V_f = mean_all[1:], V_all[1:], mean_all[:-1], V_all[:-1]
    variance = _diagonal(V)
    with np.errstate(invalid="ignore", divide="ignore"):
        ahead = _diagonal(seen_as(target, p.mean_f, p.V_f * _by(p.s2), at=p.mean)[1])  # in the same σ² as V
        now = _diagonal(seen_as(target, p.own, p.own_V * _by(p.s2), at=p.mean)[1])
        return Shown(
            mean=mean,
            V=V,
            mean_f=mean_f,
            own=own,
            innovation_sd=np.sqrt(_diagonal(V_f) + _diagonal(own_V)),
            gain=np.where(np.isnan(variance), np.nan, 1 - variance / np.where(np.isnan(ahead), np.inf, ahead)),
            ess=(np.column_stack([running_median(column) for column in now.T]) if T else now) / variance,
            smoothed=smoothed,
            smoothed_V=smoothed_V,
            limits=limits,
        )


def told(state: AssimState, target: Target | None, extend: Any) -> AssimilationResult:
    """Solve the state and write the result.   target: None: the coefficients;  extend: how the result takes a further batch"""
    solution = solve(state)
    p, T = solution.path, len(solution.sites)
    names = state.names if target is None else row_names(target)
    seen = shown(solution, target, state.options.alpha)
    scale, limits = np.sqrt(_diagonal(seen.V)), seen.limits
    nis = np.where(p.nis_df > 0, p.nis / p.s2_f, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        p_nis = f_tail(nis / np.maximum(p.nis_df, 1), np.maximum(p.nis_df, 1), np.where(np.isnan(p.df_f), 1.0, p.df_f))
    widen = inflation(p.df)
    scalar = len(names) == 1
    last = _last(state, solution, target, names)
    if limits is not None:
        last |= {"mean": seen.mean[-1], "sd": scale[-1], "ci": limits[-1]}
    shape = _squeezed if scalar else _same
    return AssimilationResult(
        posterior_mean=shape(seen.mean),
        posterior_sd=shape(scale * widen[:, None]),
        posterior_ci=shape(limits_of(seen.mean, scale, p.df, state.options.alpha) if limits is None else limits),
        innovations=shape(seen.own - seen.mean_f),
        innovation_sd=shape(seen.innovation_sd),
        gain=shape(seen.gain),
        ess=shape(seen.ess),
        nis=nis,
        nis_df=p.nis_df,
        p_nis=np.where(p.nis_df > 0, p_nis, np.nan),
        log_evidences=p.evidence,
        **_smoothed(seen, p.df, state.options.alpha, shape),
        final_mean=float(last["mean"][0]) if scalar else last["mean"],
        final_sd=float(last["sd"][0]) if scalar else last["sd"],
        final_ci=last["ci"][0] if scalar else last["ci"],
        log_evidence=float(p.evidence[-1]) if T else 0.0,
        method="ibis" if solution.clouds is not None else "kalman" if state.kind != "glm" else "laplace",
        names=names,
        batch=tuple(s.batch for s in solution.sites),
        time=tuple(s.time for s in solution.sites) if state.options.timed else None,
        n=np.array([s.n for s in solution.sites]),
        alpha=state.options.alpha,
        diagnostics=solution.chosen | {"n_batches": T, "n": float(sum(s.n for s in solution.sites)), "chain": state.chain},
        notes=(*solution.notes, *_left_out(state), *_as_text(state), *_behind(target)),
        df=p.df,
        covariance=seen.V,
        smoothed_covariance=seen.smoothed_V,
        solution=solution,
        state=state,
        target=target,
        posterior=last["posterior"],
        extend=extend,
    )


def _left_out(state: AssimState) -> tuple[str, ...]:
    rows = "1 row that was" if state.left_out == 1 else f"{state.left_out} rows that were"
    return (f"{rows} incomplete, or of weight 0, left out",) if state.left_out else ()


def _behind(target: Target | None) -> tuple[str, ...]:
    """Where the numbers shown are not those followed."""
    if target is None or target.back is None:
        return ()
    return (f"followed before {target.back.name}: trajectory() shows mean, sd and limits after it, all else is before it",)


def _as_text(state: AssimState) -> tuple[str, ...]:
    """Where the order of batches counts, and ids with numbers in them are out of the numbers' order."""
    options, ids = state.options, sorted(s.batch for s in state.sites if isinstance(s.batch, str))
    still = isinstance(options.drift, str) and options.drift == "none"
    if still or options.timed or options.order == "append" or state.ids or len(ids) < len(state.sites):
        return ()
    natural = sorted(ids, key=lambda text: [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", text))])
    odd = next(((a, b) for a, b in zip(ids, natural) if a != b), None)
    if odd is None:
        return ()
    return (f"batches are in the order of their ids as text: {odd[0]!r} before {odd[1]!r}; number them, or give time=",)


def _same(x: Any) -> Any:
    return x


def _squeezed(x: Any) -> Any:
    return x[:, 0]


def _by(s2: Floats) -> Floats:
    return s2[:, None, None]


def _diagonal(V: Any) -> Floats:
    return np.einsum("tii->ti", V)


def _smoothed(seen: Shown, df: Floats, alpha: float, shape: Any) -> dict[str, Any]:
    """Mean, sd and limits of each state given all batches; of particles, which stand still, the last limits throughout."""
    if seen.smoothed is None or seen.smoothed_V is None:
        return {}
    scale = np.sqrt(_diagonal(seen.smoothed_V))
    if seen.limits is None:
        limits = limits_of(seen.smoothed, scale, df[-1:], alpha)
    else:
        limits = np.repeat(seen.limits[-1:], len(seen.limits), axis=0)
    sd = scale * (inflation(df[-1:])[0] if len(df) else 1.0)
    return {"smoothed_mean": shape(seen.smoothed), "smoothed_sd": shape(sd), "smoothed_ci": shape(limits)}


def _last(state: AssimState, solution: Solution, target: Target | None, names: tuple[str, ...]) -> dict[str, Any]:
    """The last state (the prior, where no batch was seen) and its posterior."""
    p, options = solution.path, state.options
    T, k = len(solution.sites), len(state.names)
    s2, df = (p.s2[-1], p.df[-1]) if T else (_prior_scale(options.sigma))
    mean, V = p.last.mean, p.last.V * s2
    if target is not None:
        mean, V = (a[0] for a in seen_as(target, mean[None], V[None]))
    scale = np.sqrt(np.diag(V))
    dfs = np.array([df])
    out: dict[str, Any] = {"mean": mean, "sd": scale * inflation(dfs)[0], "ci": limits_of(mean[None], scale[None], dfs, options.alpha)[0]}
    out["posterior"] = None
    if np.isnan(V).any() or not k:
        return out
    student = math.isfinite(df)
    if solution.clouds is not None:
        draws = solution.clouds.draws()
        draws = draws if target is None else np.asarray(target.value(draws))
        moments: dict[str, Any] = {"mean": draws.mean(axis=0), "samples": draws, "kind": "samples"}
    else:
        moments = {"mean": mean, "cov": covop.from_matrix((V + V.T) / 2), "kind": "student_t" if student else "gaussian"}
    out["posterior"] = Posterior(
        names=names,
        **moments,
        df=float(df) if student else None,
        sigma=_sigma_of(state, p, student) if target is None else None,
        prior=prior_of_last(state, solution, target, names),
        log_evidence=float(p.evidence[-1]) if T and options.flat == 0 and math.isfinite(p.evidence[-1]) else None,
        provenance=_provenance(state, solution),
        back=None if target is None else target.back,
        notes=solution.notes,
    )
    return out


def _sigma_of(state: AssimState, path: Any, student: bool) -> float | None:
    """σ of a linear model: its estimate, or the number that was told; None where a fit's or a pooled one was taken."""
    if student:
        return math.sqrt(path.b / path.a)
    told = state.options.sigma
    return told if state.kind == "lm" and isinstance(told, float) and state.varying is None and state.within is None else None


def prior_of_last(state: AssimState, solution: Solution, target: Target | None, names: tuple[str, ...]) -> Posterior | None:
    """What was known of the last state before any batch was seen, N(m₀, P₀ + what it may have drifted); None: nothing.

    With drift integrated out Q is its prior mean; nonlinear targets are linearised where the stream stands.
    """
    options, start, motion = state.options, solution.start, solution.motion
    if not start.U.any() or (state.varying is not None and options.flat == state.varying.fixed):
        return None
    U, passed = start.U, float(solution.dt.sum())
    if motion.discount is not None:
        U = U * motion.discount ** (passed / 2)
    elif motion.root is not None:
        integrated = isinstance(options.drift, str) and options.drift == "bayes"
        q = math.exp(PRIOR_MEAN + PRIOR_SD**2 / 2) if integrated else 1.0
        U = walk(U, start.d, motion.root * math.sqrt(q * passed))[0]
    size = float(np.abs(start.U).max() / np.abs(options.U).max())  # the σ in whose units the prior was told
    root = U[(U != 0).any(axis=1)] / size
    cov = covop.Flat(root) if options.flat else covop.from_root(np.linalg.inv(root))
    p, told = solution.path, options.sigma
    known: dict[str, Any] = {}
    if isinstance(told, InverseGamma):
        cov, known = cov.scaled(told.b / told.a / size**2), {"sigma": math.sqrt(told.b / told.a), "kind": "student_t", "df": 2 * told.a}
    elif len(p.df) and math.isfinite(p.df[-1]):
        known = {"sigma": size}
    elif told == "reml":
        cov = cov.scaled(p.b / p.a / size**2)
    prior = Posterior(names=state.names, mean=options.mean, cov=cov, **known)
    if target is None:
        return prior
    at = solution.path.last.mean
    J, value = target.jacobian(at), target.value(at)
    return prior.image(J, names, value - J @ at)


def _prior_scale(sigma: Any) -> tuple[float, float]:
    """σ² and degrees of freedom before any batch; nan where nothing is known of σ."""
    if isinstance(sigma, float):
        return 1.0, math.inf
    if isinstance(sigma, str):
        return math.nan, math.nan
    return sigma.b / sigma.a, 2 * sigma.a


def columns_read(encoder: Any) -> tuple[str, ...]:
    """The columns of the data that a model reads: response, terms, weights, counts, offset."""
    spec = encoder.spec
    names = [str(n) for n in data_names(spec.response)] if spec.response is not None else []
    names += list(encoder.variables)
    names += [n for n in (spec.weights, spec.freq_weights, spec.offset) if n is not None]
    return tuple(dict.fromkeys(names))


def _provenance(state: AssimState, solution: Solution) -> Provenance:
    encoder = state.encoder
    if encoder is None:
        model, identity = "bossa.assimilate/estimates", digest(list(state.names))
        read: tuple[str, ...] = ()
    else:
        spec = encoder.spec
        kind = f"bossa.{state.kind}/{spec.family.name}-{spec.link.name}"
        model = f"{kind}: {spec.formula}"
        read = columns_read(encoder)
        identity = digest([kind, spec.formula, list(encoder.columns), [bool(x) for x in state.kept], list(read)])
    options = state.options
    drift = options.drift if isinstance(options.drift, (str, np.ndarray)) else repr(options.drift)
    J = -float(solution.path.evidence[-1]) if solution.sites and not math.isnan(solution.path.evidence[-1]) else None
    return Provenance(
        forward_model_id=model,
        forward_model_hash=identity,
        obs_ops_used=tuple(str(s.batch) for s in solution.sites),
        n_iter=len(solution.sites),
        J_star=J,
        cov_op_hash=digest(
            [options.mean, options.U, options.sigma if isinstance(options.sigma, (str, float)) else repr(options.sigma), drift]
        ),
        data_hash={str(s.batch): s.hash for s in solution.sites},
        data_columns=read,
        adapter="assim",
        parent_hash=state.parent_hash,
    )


def require_posterior(result: AssimilationResult) -> Posterior:
    """The posterior, or an error that says what is undetermined."""
    if result.posterior is None:
        raise FitFailed(
            "the batches so far do not determine every coefficient.", where="posterior", do="Give a proper prior=, or more batches."
        )
    return result.posterior
