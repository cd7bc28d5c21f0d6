"""What each batch changed, what later batches made of it, and what it weighs in the end: news, fixed lags, ACI, weights.

The functions here read a result; its methods of the same names call them.

Source: Bańbura & Modugno (2014) for news; Anderson & Moore (1979) §7.3 for fixed lags.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from ..errors import NotYet, OptionError, Refused
from ..kernels.monitors import surprise
from ..types import Floats
from .monitoring import table
from .seen import seen_as
from .weighing import last_weights


def news(result: Any) -> pl.DataFrame:
    """What each batch changed: batch, term, source, innovation, weight, news; news adds up over sources to the revision of the term.

    weight  (V_t Λ_b)_{term, source}: how much the term moves for a unit of surprise about the source

    Source: Bańbura & Modugno (2014) §3.
    """
    if result.solution is None:
        innovation, weight = table(result.innovations, True), table(result.gain, True)
        weights = weight[:, :, None]
        sources = result.names
    else:
        p = result.solution.path
        if isinstance(result.state.options.drift, str) and result.state.options.drift == "bayes":
            raise Refused("with drift integrated out no single gain exists.", where="news()", do="Use drift='ml'.")
        innovation, sources = p.own - p.mean_f, result.state.names
        weights = np.array([V @ _inverse(own) for V, own in zip(p.V, p.own_V)]).reshape(len(p.V), len(sources), len(sources))
        if result.target is not None:
            weights = np.array([_jacobian(result.target, m) @ W for m, W in zip(p.mean, weights)])
    frames = []
    for t, b in enumerate(result.batch):
        for i, term in enumerate(result.names):
            w = weights[t, i]
            numbers = {"innovation": innovation[t], "weight": w, "news": w * innovation[t]}
            made = {name: pl.Series(v, dtype=pl.Float64).fill_nan(None) for name, v in numbers.items()}
            frames.append(pl.DataFrame({"batch": [b] * len(w), "term": [term] * len(w), "source": list(sources), **made}))
    return pl.concat(frames) if frames else pl.DataFrame()


def _inverse(V: Floats) -> Floats:
    return np.asarray(np.full(V.shape, np.nan) if np.isnan(V).any() else np.linalg.inv(V))


def _jacobian(target: Any, mean: Floats) -> Floats:
    return target.jacobian(np.zeros(len(mean)) if np.isnan(mean).any() else mean)


def fixed_lag(result: Any, lag: int) -> tuple[Floats, Floats]:
    """Each state given the batches up to `lag` later: mean (T, K), covariance (T, K, K).

    G_t = V_t V_{f,t+1}⁻¹, applied from t + lag back to t.

    Source: Anderson & Moore (1979) §7.3.
    """
    if isinstance(lag, bool) or not isinstance(lag, (int, np.integer)) or lag < 0:
        raise OptionError(f"lag={lag!r} is not a whole number of at least 0.", where="fixed_lag()")
    m, V, m_f, V_f = filtered_moments(result)
    T = len(m)
    out, spread = m.copy(), V.copy()
    G = [V[t] @ _inverse(V_f[t + 1]) for t in range(T - 1)]
    for t in range(T):
        end = min(t + lag, T - 1)
        mean, P = m[end], V[end]
        for s in range(end - 1, t - 1, -1):
            mean, P = m[s] + G[s] @ (mean - m_f[s + 1]), V[s] + G[s] @ (P - V_f[s + 1]) @ G[s].T
        out[t], spread[t] = mean, P
    return seen_as(result.target, out, spread)


def filtered_moments(result: Any) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, covariance after and before each batch, of one scale throughout (σ² at its last estimate)."""
    if result.solution is None:
        if result.gain is None:
            raise Refused("particles keep no covariances.", where="fixed_lag()", do="Use a Kalman method.")
        V = result.posterior_sd**2
        with np.errstate(invalid="ignore", divide="ignore"):
            V_f = np.where(result.gain < 1, V / (1 - result.gain), np.inf)
            m_f = result.posterior_mean - np.where(result.gain > 0, result.gain * result.innovations, 0.0)
        return result.posterior_mean[:, None], V[:, None, None], m_f[:, None], V_f[:, None, None]
    if isinstance(result.state.options.drift, str) and result.state.options.drift == "bayes":
        raise Refused("with drift integrated out no single smoother exists.", where="fixed_lag()", do="Use drift='ml'.")
    p = result.solution.path
    s2 = float(p.s2[-1]) if len(p.s2) else 1.0
    return p.mean, p.V * s2, p.mean_f, p.V_f * s2


def influence_range(result: Any) -> pl.DataFrame:
    """For how long later batches keep rewriting each state: batch, range (batches), most (nats).

    D(L) = KL(state given all ‖ state given those up to L later), M its maximum; range = (1/M) ∫ D(L) dL, the objective one.
    """
    if result.target is not None:
        raise NotYet("it is built for coefficients.", where="influence_range()", do="Ask the stream of the coefficients.")
    m, V, _, _ = filtered_moments(result)
    T = len(m)
    full, full_V = fixed_lag(result, T)
    D = np.zeros((T, T))
    for lag in range(T):
        some, some_V = fixed_lag(result, lag)
        for t in range(T):
            D[t, lag] = math.nan if np.isnan(V[t]).any() else sum(surprise(some[t], some_V[t], full[t], full_V[t]))
    most = D.max(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        length = np.where(most > 1e-12, (D.sum(axis=1) - 0.5 * (D[:, 0] + D[:, -1])) / most, 0.0)
    return pl.DataFrame({"batch": list(result.batch), "range": pl.Series(length).fill_nan(None), "most": pl.Series(most).fill_nan(None)})


def aci(result: Any) -> pl.DataFrame:
    """ACI diagnostic: how much later batches rewrote each state. batch, aci, signal, dispersion (nats); no claim about causes.

    ACI_t = KL(state given all batches ‖ state given those up to t): 0 at the last, 0 throughout only if later batches told nothing new.
    """
    if result.smoothed_mean is None:
        raise Refused("there is no smoothed path.", where="aci()", do="Use a Kalman method with batches that determine the coefficients.")
    if result.covariance is None:
        V, V_s = result.posterior_sd[:, None, None] ** 2, result.smoothed_sd[:, None, None] ** 2
    else:
        V, V_s = result.covariance, result.smoothed_covariance
    m, m_s = table(result.posterior_mean, result.scalar), table(result.smoothed_mean, result.scalar)
    T = len(m)
    if T and result.target is not None:  # rows of a question may be combinations of others
        values, vectors = np.linalg.eigh(V[-1])
        Q = vectors[:, values > 1e-10 * values[-1]]
        m, m_s, V, V_s = m @ Q, m_s @ Q, Q.T @ V @ Q, Q.T @ V_s @ Q
    pairs = [surprise(m[t], V[t], m_s[t], V_s[t]) if not np.isnan(V[t]).any() else (math.nan, math.nan) for t in range(T)]
    signal, dispersion = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    numbers = {"aci": signal + dispersion, "signal": signal, "dispersion": dispersion}
    return pl.DataFrame({"batch": list(result.batch), **{k: pl.Series(v, dtype=pl.Float64).fill_nan(None) for k, v in numbers.items()}})


def weights(result: Any) -> pl.DataFrame:
    """Weight of each batch in the last mean of a coefficient, and that of the prior (batch null): they sum to 1.

    Counted along the direction in which the other coefficients go with it (`weighing`), so they do not depend on how the others are
    coded. Of an effect: the weights of the coefficients behind it; of a mixed model: of its fixed effects.
    """
    if result.solution is None:
        left = np.cumprod((1 - result.gain)[::-1])[::-1]
        w = (result.gain * np.append(left[1:], 1.0))[:, None]
        prior = np.array([left[0] if len(left) else 1.0])
    else:
        w, prior = _information_weights(result)
    K, T = w.shape[1], len(w)
    names = list(result.names if result.solution is None else result.state.names)
    if result.state is not None and result.state.varying is not None:
        K = result.state.varying.fixed
        w, prior, names = w[:, :K], prior[:K], names[:K]
    batch = [None] * K + [b for b in result.batch for _ in range(K)]
    return pl.DataFrame({"batch": batch, "term": names * (T + 1), "weight": np.concatenate((prior[None], w)).reshape(-1)})


def _information_weights(result: Any) -> tuple[Floats, Floats]:
    solution, options = result.solution, result.state.options
    if solution.path.last.rank < solution.start.k:
        raise Refused("the batches do not determine every coefficient.", where="weights()", do="Give a proper prior=.")
    told = solution.sites, solution.start
    if isinstance(options.drift, str) and options.drift == "bayes" and len(solution.sites):
        shares, nodes = result.diagnostics["q_weights"], result.diagnostics["q_nodes"]
        W = sum(share * last_weights(*told, solution.motion.scaled(float(q)), solution.dt, None) for share, q in zip(shares, nodes))
    else:
        W = last_weights(*told, solution.motion, solution.dt, solution.path.last.V)
    return W[1:], W[0]
