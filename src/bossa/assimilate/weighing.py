"""How much of each coefficient's mean is owed to each batch, and how much to the prior.

m_t = Σ_j P A_{t,j} β̂_j + P A_{t,0} m_0,   A_{t,j} = B Λ_j,   B the product of the steps (I + ΛQ)⁻¹ since j. The weights of all batches'
estimates in the mean of coefficient c make up matrices that sum to I; in the direction p = P c, in which the other coefficients go
along with c as far as all the data know, they are numbers that sum to 1 and do not depend on how the others are coded:

    w_j = pᵀ A_{t,j} p / cᵀ P c;   with one coefficient K_j Π (1 − K);   where nothing moves the share of batch j in the precision

Source: Koopman & Harvey (2003) for weights of filtered states; Kish (1965) for (Σw)²/Σw².
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from attrs import frozen

from ..kernels.kalman import running_kish
from ..kernels.threads import one_thread
from ..types import Floats
from .sites import Site
from .track import Motion, Start, tracked

KISH_SIZE = 20  # coefficients up to which the weights of batches are followed: their fourth moments take 8 k⁴ bytes
FAINT = 1e-6  # a motion of less weight than this, at every batch, does not count


@frozen(kw_only=True, eq=False)
class Weighing:
    """Σ w and Σ w² of all batches, without keeping the weights.

    after   (T, N)  weights of N motions after each batch, over which the numbers are averaged; None: there is one
    """

    sites: Sequence[Site]
    start: Start
    motions: Sequence[Motion]
    dt: Floats
    after: Floats | None = None

    def found(self, V: Floats) -> tuple[Floats, Floats]:
        """Kish's (Σw)²/Σw² of the batches, and the prior's weight (T, k).   V (T, k, k)"""
        T, k = len(self.sites), self.start.k
        if k == 1 and self.after is None:
            return self._of_one(V[:, 0, 0])
        with one_thread():  # small products, many of them
            return self._alone(self.motions[0], V, T) if self.after is None else self._averaged(self.after, T)

    def _averaged(self, after: Floats, T: int) -> tuple[Floats, Floats]:
        k = self.start.k
        kish, prior = np.zeros((T, k)), np.zeros((T, k))
        counted = np.where(after.max(axis=0) > FAINT, after, 0.0)
        counted = counted / counted.sum(axis=1, keepdims=True)
        for motion, weights in zip(self.motions, counted.T):
            some = np.flatnonzero(weights > FAINT**2)  # what comes after the last of them does not count
            end = int(some[-1]) + 1 if len(some) else 0
            if end:
                own = tracked(self.sites[:end], self.start, [motion], self.dt[:end])[0].V[:, 0]
                left = self._of_one(own[:, 0, 0]) if k == 1 else self._alone(motion, own, end)
                kish[:end] += weights[:end, None] * left[0]
                prior[:end] += weights[:end, None] * left[1]
        return kish, prior

    def _of_one(self, variance: Floats) -> tuple[Floats, Floats]:
        """`_alone` of one coefficient, by its gains K = Λ_j P.   variance (T,) after each batch"""
        told = np.array([float(site.J[:, 0] @ site.J[:, 0]) for site in self.sites[: len(variance)]])
        kish, prior = running_kish(np.where(np.isnan(variance), 0.0, told * variance))
        prior = prior if self.start.U.any() else np.zeros(len(prior))
        return kish[:, None], np.where(np.isnan(variance), np.nan, prior)[:, None]

    def _alone(self, motion: Motion, V: Floats, T: int) -> tuple[Floats, Floats]:
        k = self.start.k
        fourth, own = np.zeros((k, k, k, k)), self.start.U.T @ self.start.U  # Σ A ⊗ A; the prior's A
        Lambda = own
        kish, prior = np.full((T, k), np.nan), np.full((T, k), np.nan)
        for t, site in enumerate(self.sites[:T]):
            B = backward(Lambda, motion, float(self.dt[t]))
            if isinstance(B, float):
                fourth, own, Lambda = (fourth, own, Lambda) if B == 1.0 else (fourth * B**2, own * B, Lambda * B)
            else:
                moved = B @ (B @ fourth.reshape(k, k**3)).reshape(k**2, k, k)
                fourth, own, Lambda = moved.reshape(k, k, k, k), B @ own, B @ Lambda
            told = site.J.T @ site.J
            Lambda = Lambda + told
            fourth = fourth + told[:, :, None, None] * told
            P = V[t]
            if np.isnan(P).any():
                continue
            variance = np.diag(P)
            prior[t] = ((own @ P) * P).sum(axis=0) / variance
            pp = (P.T[:, :, None] * P.T[:, None, :]).reshape(k, k * k)
            second = ((pp @ fourth.reshape(k * k, k * k)) * pp).sum(axis=1) / variance**2
            with np.errstate(divide="ignore", invalid="ignore"):
                kish[t] = np.where(second > 0, (1 - prior[t]) ** 2 / second, np.nan)
        return kish, prior


def last_weights(sites: Sequence[Site], start: Start, motion: Motion, dt: Floats, V: Floats | None) -> Floats:
    """Weights (T + 1, k) of the prior and of each batch in the last mean.   V: covariance of the last state at σ = 1, where it is known."""
    told = [start.U.T @ start.U, *(site.J.T @ site.J for site in sites)]
    steps, Lambda = [], told[0]
    for part, gap in zip(told[1:], dt):
        steps.append(backward(Lambda, motion, float(gap)))
        Lambda = (steps[-1] * Lambda if isinstance(steps[-1], float) else steps[-1] @ Lambda) + part
    P = np.linalg.inv(Lambda) if V is None else V
    M = P
    out = np.empty((len(told), len(Lambda)))
    for t in range(len(told) - 1, -1, -1):
        out[t] = ((M @ told[t]) * P.T).sum(axis=1) / np.diag(P)
        if t:
            M = M * steps[t - 1] if isinstance(steps[t - 1], float) else M @ steps[t - 1]
    return out


def backward(Lambda: Floats, motion: Motion, dt: float) -> Floats | float:
    """B = (I + ΛQ)⁻¹, what a step does to Λ and Λm: (k, k), or a number."""
    if motion.still or dt == 0:
        return 1.0
    if motion.discount is not None:
        return motion.discount**dt
    assert motion.root is not None
    G = motion.root * math.sqrt(dt)
    LG = Lambda @ G
    return np.eye(len(Lambda)) - LG @ np.linalg.solve(np.eye(G.shape[1]) + G.T @ LG, G.T)
