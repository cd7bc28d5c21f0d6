"""What a mean and a covariance operator say: densities, distances between two of them, and what data added to a prior.

    mean m (k,), covariance (or, with df, scale matrix) P a `covop.CovOp`

Source: Mardia, Kent & Bibby (1979) §2.5, §3.2; Kullback & Leibler (1951); Rodgers (2000) §2.4 for the averaging kernel and the degrees
of freedom for signal; Ledoit & Wolf (2004); Gaspari & Cohn (1999) eq. 4.10.
"""

from __future__ import annotations

import math

import numpy as np

from ..types import Floats
from .covop import CovOp, Diag


def log_density(x: Floats, mean: Floats, op: CovOp, df: float | None = None) -> Floats:
    """log N(x; m, P), or log t_df(x; m, P).   x (…, k) → (…,).  P of rank r < k: the density on its range."""
    rows = np.atleast_2d(x) - mean
    z = op.whiten(rows.T)
    square = np.einsum("ij,ij->j", z, z)
    r = op.rank
    if df is None:
        out = -0.5 * (r * math.log(2 * math.pi) + op.logdet() + square)
    else:
        constant = math.lgamma((df + r) / 2) - math.lgamma(df / 2) - 0.5 * (r * math.log(df * math.pi) + op.logdet())
        out = constant - 0.5 * (df + r) * np.log1p(square / df)
    return out[0] if np.ndim(x) == 1 else out


def kl_normal(mean: Floats, op: CovOp, other_mean: Floats, other: CovOp) -> float:
    """KL(N(m, P) ‖ N(m′, P′)) = ½ [tr P′⁻¹P + (m′−m)ᵀP′⁻¹(m′−m) − k + log|P′| − log|P|]; both of full rank."""
    distance = other.whiten(other_mean - mean)
    if isinstance(op, Diag) and isinstance(other, Diag):
        trace = float((op.d / other.d).sum())
    else:
        half = other.whiten(op.sqrt_mv(np.eye(op.width)))
        trace = float(np.einsum("ij,ij->", half, half))
    return 0.5 * (trace + float(distance @ distance) - op.size + other.logdet() - op.logdet())


def shortest_interval(draws: Floats, level: float) -> Floats:
    """The narrowest interval that holds `level` of each column's draws.   draws (S, K) → (2, K)

    Source: Chen & Shao (1999).
    """
    ordered = np.sort(draws, axis=0)
    S = len(ordered)
    held = min(max(math.ceil(level * S), 1), S)
    widths = ordered[held - 1 :] - ordered[: S - held + 1]
    start = widths.argmin(axis=0)
    columns = np.arange(draws.shape[1])
    return np.stack((ordered[start, columns], ordered[start + held - 1, columns]))


def averaging_kernel(op: CovOp, prior: CovOp) -> Floats:
    """A = P Xᵀ R⁻¹ X = I − P B⁻¹ (k, k): how much of each coefficient is data and not prior."""
    identity = np.eye(op.size)
    return identity - op.mv(prior.solve(identity))


def ledoit_wolf(deviations: Floats) -> tuple[float, float]:
    """Shrinkage weight δ and level μ of (1 − δ) S + δ μ I, S = DᵀD/M.   deviations D (M, k), of mean 0

    Source: Ledoit & Wolf (2004) §3.2.
    """
    M, k = deviations.shape
    small = deviations.T @ deviations if k <= M else deviations @ deviations.T  # the same non-zero eigenvalues
    squares = float(np.einsum("ij,ij->", small, small)) / M**2
    mu = float(np.einsum("ij,ij->", deviations, deviations)) / (M * k)
    spread = squares / k - mu**2
    fourth = float((np.einsum("ij,ij->i", deviations, deviations) ** 2).sum())
    noise = min((fourth / M - squares) / (M * k), spread)
    return (noise / spread if spread > 0 else 1.0), mu


def gaspari_cohn(distance: Floats, radius: float) -> Floats:
    """Correlation that falls from 1 to exactly 0 at 2 · radius, positive semidefinite on a line.   elementwise

    Source: Gaspari & Cohn (1999) eq. 4.10.
    """
    r = np.abs(distance) / radius
    near = 1 - r**2 * (5 / 3 - r * (5 / 8 + r * (1 / 2 - r / 4)))
    s = np.clip(r, 1.0, 2.0)
    far = 4 - 5 * s + 5 / 3 * s**2 + 5 / 8 * s**3 - s**4 / 2 + s**5 / 12 - 2 / (3 * s)
    return np.where(r <= 1, near, np.where(r < 2, far, 0.0))
