"""How does a path of coefficients look through a target? Exactly where the target is linear, by its slope where it is not.

For a target g, mean g(m_t), covariance J_t V_t J_tᵀ with J_t = ∂g/∂β at m_t.
"""

from __future__ import annotations

import numpy as np

from ..kernels.intervals import t_quantile
from ..state.target import Linear, Target
from ..types import Floats


def seen_as(target: Target | None, mean: Floats, V: Floats, at: Floats | None = None) -> tuple[Floats, Floats]:
    """Means (T, K) and covariances (T, K, K) of the target; nan where the coefficients are.   at (T, k): where to linearise, None: mean"""
    if target is None:
        return mean, V
    K = len(target.labels)
    out, spread = np.full((len(mean), K), np.nan), np.full((len(mean), K, K), np.nan)
    fixed = target.jacobian(np.zeros(mean.shape[1])) if is_linear(target) else None
    for t, m in enumerate(mean):
        if np.isnan(m).any():
            continue
        where = m if at is None or np.isnan(at[t]).any() else at[t]
        J = target.jacobian(where) if fixed is None else fixed
        out[t], spread[t] = target.value(m), J @ V[t] @ J.T
    return out, spread


def is_linear(target: Target) -> bool:
    """Is the target L β + c, whatever β?"""
    return all(isinstance(step, Linear) for step in target.steps)


def row_names(target: Target) -> tuple[str, ...]:
    """One name for each row of a target, from its labels."""
    return tuple(", ".join(str(v) for v in row) for row in target.labels.iter_rows())


def inflation(df: Floats) -> Floats:
    """Standard deviation over scale of Student-t's."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isinf(df), 1.0, np.where(df > 2, np.sqrt(df / (df - 2)), np.where(np.isnan(df), np.nan, np.inf)))


def limits_of(mean: Floats, scale: Floats, df: Floats, alpha: float) -> Floats:
    """(T, k, 2)."""
    width = t_quantile(1 - alpha / 2, df)[:, None] * scale
    return np.stack((mean - width, mean + width), axis=-1)
