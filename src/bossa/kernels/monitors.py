"""Does a stream still agree with its model? Statistics of standardised innovations z (T,), nan where there is none (it is passed over).

Under the model z are independent N(0, 1). `cusum` adds up small shifts, `ljung_box` finds memory; `log_e_value` and `sequence_radius`
(with _t: σ unknown) hold at every look at once, whatever the stopping rule; `surprise` measures how later data rewrote a state.

Source: Page (1954); Ljung & Box (1978); Robbins (1970); Howard et al. (2021) §3; Andreou, Chen & Bollt (2024) for the surprise.
"""

from __future__ import annotations

import math

import numpy as np

from ..types import Floats


def cusum(z: Floats, k: float = 0.5, h: float = 5.0) -> tuple[Floats, Floats, np.ndarray]:
    """Page's two cumulative sums C⁺ = max(0, C⁺ + z − k), C⁻ = max(0, C⁻ − z − k), and where either passes h.

    z (T,);  k  half the shift to be found, in standard deviations;  h  limit
    returns  up (T,), down (T,), alarm (T,) bool
    """
    up, down = np.zeros(len(z)), np.zeros(len(z))
    above = below = 0.0
    for t, value in enumerate(z.tolist()):
        if value == value:
            above, below = max(0.0, above + value - k), max(0.0, below - value - k)
        up[t], down[t] = above, below
    return up, down, (up > h) | (down > h)


def ljung_box(z: Floats, lags: int) -> tuple[float, float]:
    """Q = T(T + 2) Σ_l r_l²/(T − l) over the first `lags` autocorrelations about 0, and its χ² tail."""
    from scipy.special import chdtrc

    z = z[~np.isnan(z)]
    T = len(z)
    if lags + 1 >= T:
        return math.nan, math.nan
    total = float(z @ z)
    r = np.array([float(z[lag:] @ z[:-lag]) / total for lag in range(1, lags + 1)])
    Q = T * (T + 2) * float((r**2 / (T - np.arange(1, lags + 1))).sum())
    return Q, float(chdtrc(lags, Q))


def log_e_value(estimate: Floats, information: Floats, h: float, null: float = 0.0) -> Floats:
    """log of N(estimate; null, 1/I + 1/h) / N(estimate; null, 1/I): the Bayes factor of a normal effect about the null against the null.

    estimate, information I  (T,)  of the data so far;  h  prior precision
    Equal to the ratio of prior to posterior density at the null (Savage–Dickey).
    """
    gap = information * (estimate - null)
    return 0.5 * np.log(h / (information + h)) + 0.5 * gap**2 / (information + h)


def sequence_radius(information: Floats, h: float, alpha: float) -> Floats:
    """Half-width of Robbins' normal-mixture confidence sequence: √((I + h) log((I + h)/(h α²)))/I; inf while I = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        width = np.sqrt((information + h) * np.log((information + h) / (h * alpha**2))) / information
    return np.where(information > 0, width, np.inf)


def log_e_value_t(estimate: Floats, v: Floats, rss: Floats, m: Floats, tau2: float, null: float = 0.0) -> Floats:
    """The same where σ is unknown: log of √(v/s) [(rss + d²/v)/(rss + d²/s)]^(m/2), d = estimate − null, s = v + τ².

    The effect is N(null, σ²τ²) or null; all other coefficients are flat and σ² ~ 1/σ², which makes it a test martingale whatever σ is.

    estimate, v  (T,)  least-squares estimate of the data so far, and its variance over σ²
    rss, m       (T,)  residual sum of squares;  rows less coefficients, plus one
    Source: Pérez-Ortiz, Lardy, de Heide & Grünwald (2024); Lindon, Ham, Tingley & Bojinov (2022) for regression.
    """
    d2, s = (estimate - null) ** 2, v + tau2
    top, bottom = rss + d2 / v, rss + d2 / s
    ratio = np.divide(top, bottom, out=np.ones_like(top), where=bottom > 0)
    return 0.5 * np.log(v / s) + 0.5 * m * np.log(ratio)


def sequence_radius_t(v: Floats, rss: Floats, m: Floats, tau2: float, alpha: float) -> Floats:
    """Half-width of the confidence sequence of those e-values: d² = (R − 1) rss / (1/v − R/s), R = (s/(v α²))^(1/m); inf while R ≥ s/v."""
    s = v + tau2
    R = (s / (v * alpha**2)) ** (1 / m)
    room = 1 / v - R / s
    return np.where(room > 0, np.sqrt((R - 1) * rss / np.where(room > 0, room, 1.0)), np.inf)


def surprise(m: Floats, P: Floats, m_s: Floats, P_s: Floats) -> tuple[float, float]:
    """KL(N(m_s, P_s) ‖ N(m, P)) as signal ½ dᵀP⁻¹d and dispersion ½ [tr(P_s P⁻¹) − k − log|P_s P⁻¹|].

    m, P  what was known at the time;  m_s, P_s  what is known now
    """
    d = m_s - m
    ratio = np.linalg.solve(P, P_s)
    sign, logdet = np.linalg.slogdet(ratio)
    dispersion = 0.5 * (float(np.trace(ratio)) - len(m) - float(logdet)) if sign > 0 else math.nan
    return 0.5 * float(d @ np.linalg.solve(P, d)), max(dispersion, 0.0)


def rows_needed(row_variance: float, variance: float, target_sd: float) -> float:
    """Rows still to come until a static estimate's sd is `target_sd`: n* = v_row (1/target² − 1/P), at least 0."""
    return max(0.0, row_variance * (1 / target_sd**2 - 1 / variance))
