"""The marginal likelihood of a generalized linear mixed model, by Laplace or adaptive Gauss–Hermite quadrature, and its exact gradient.

    η = Xβ + o + ZΛu,  u ~ N(0, I),      û = argmin −2ℓ(η) + |u|²  (penalised IRLS),      M = ΛᵀZᵀWZΛ + I at û

    Laplace, D(β, θ, γ) = −2ℓ(η̂) + |û|² + log|M|                    −2 log-likelihood but for `response.constants`
    nagq = 0, D(θ, γ)   the same, at the β that minimises −2ℓ + |u|² jointly with u
    nagq = m > 1        ∫ of each group by m nodes at û_g + M_g^{-½}z_k: one scalar random effect only

W holds the expected information of each row for binomial and poisson (as lme4) and the observed one where a dispersion parameter
γ = log φ (or log θ of the negative binomial) belongs to the model (as glmmTMB); with a natural link the two are the same.

Gradient. With s = ℓ′, I = −ℓ″, h_i = z_iᵀΛM⁻¹Λᵀz_i, v = W′h and H the matrix that moves the modes (M with I for W; for nagq = 0
bordered by X), t = H⁻¹(Xᵀv, ΛᵀZᵀv), r = rows of t, e = −2s + v − I r:

    ∂D/∂β = Xᵀe      ∂D/∂T = Σ_g (Z_gᵀe) u_gᵀ + (Z_gᵀs) t_gᵀ + ∂log|M|/∂T      ∂D/∂γ = −2∂ℓ/∂γ + hᵀ∂W/∂γ + rᵀ∂s/∂γ

Axes "…" are parameter sets evaluated together (OneFactor systems). Failure is a value: D = inf.

Source: Breslow & Clayton (1993); Pinheiro & Bates (1995); Bates et al. (2015) §5; Kristensen et al. (2016) for the implicit gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..types import Floats
from .response import Bend, Response, at_shape, bend, bend_slopes, shape_slopes
from .systems import Blocked, BlockFactor, GroupFactor, OneFactor

MAX_STEPS = 100
ARRIVED = 1e-20  # squared length of a step, in standard deviations of the modes: the step is not worth taking
NEARLY = 1e-9  # a Newton step of this squared length leaves an error of its square: it is the last
HALVINGS = 25


@frozen(eq=False)
class Mixed:
    """A generalized linear mixed model as arrays, rows in the order of its system.

    XT      (p, n)
    offset  (n,)
    nearly  squared length of a Newton step that is the last.  Derivatives by central differences around a mode may take a coarse one:
            what one step leaves is even in the difference
    """

    system: OneFactor | Blocked
    response: Response
    XT: Floats
    offset: Floats
    nearly: float = NEARLY

    @property
    def observed(self) -> bool:
        """The determinant takes the observed information."""
        return self.response.family.name not in ("binomial", "poisson")


@frozen(eq=False)
class Mode:
    """Where −2ℓ + |u|² is smallest.

    u, b      modes and Λu;  beta (…, p) moved only by nagq = 0
    eta, at   (…, n) and its `bend`
    objective −2ℓ + |u|²  (…,)
    factor    of M with the weights of the determinant;  mover: with the observed information
    arrived   (…,) bool;  steps
    """

    u: Floats
    b: Floats
    beta: Floats
    eta: Floats
    at: Bend
    objective: Floats
    factor: GroupFactor | BlockFactor
    mover: GroupFactor | BlockFactor
    arrived: Floats
    steps: int


@frozen(eq=False)
class Marginal:
    """D (…,) at one point and its mode; gradient by (β, θ, γ) as far as each is a parameter: (…, p + t + 1)."""

    deviance: Floats
    mode: Mode
    gradient: Floats | None = None


# ---------------------------------------------------------------- modes
def find_mode(model: Mixed, beta: Floats, theta: Floats, u: Floats, phi: float = 1.0, joint: bool = False) -> Mode:
    """Penalised IRLS from u, by Newton steps (the expected information where the observed is not positive), halved while they fail.

    beta   (…, p);  joint: where to start, then moved with u
    theta  (…, t)
    """
    s, response = model.system, model.response
    T = s.T_of(theta)
    b = s.scale(T, u)
    shift, random = beta @ model.XT, s.times_Z(b)
    eta = model.offset + shift + random
    at = bend(response, eta, phi)
    objective = _objective(s, at, u)
    arrived, last = np.zeros(np.shape(objective), dtype=bool), False
    for steps in range(1, MAX_STEPS + 1):  # noqa: B007
        w = at.observed if response.natural else np.where(at.observed > 0.0, at.observed, at.expected)
        factor = s.factor(w, T)
        if last:
            break
        target = w * (random + shift if joint else random) + at.score
        new_beta = _joint_beta(model, factor, w, target) if joint else beta
        new_shift = new_beta @ model.XT if joint else shift
        new_u, new_b = factor.solve(s.times_Zt(target - w * new_shift if joint else target))
        new_random = s.times_Z(new_b)
        change = new_random + new_shift - random - shift if joint else new_random - random
        size = s.total(w * change * change) + s.dot(new_u - u, new_u - u)
        arrived = size < ARRIVED
        if arrived.all():
            break
        new_eta = model.offset + new_shift + new_random
        new_at = bend(response, new_eta, phi)
        new_objective = _objective(s, new_at, new_u)
        if not _lower(new_objective, objective).all():
            t = _halve(model, (shift + random, change, u, new_u - u, objective), phi)
            far = t[..., None]
            new_u, new_b = u + far * (new_u - u), b + far * (new_b - b)
            new_beta, new_shift = beta + far * (new_beta - beta), shift + far * (new_shift - shift)
            new_random, size = random + far * (new_random - random), np.where(t < 1.0, np.inf, size)
            new_at = bend(response, model.offset + new_shift + new_random, phi)
            new_objective = _objective(s, new_at, new_u)
            if (t == 0.0).all():
                break
        last = bool((size < (model.nearly if response.natural else ARRIVED)).all())
        arrived = size < model.nearly
        u, b, beta, shift, random, at, objective = new_u, new_b, new_beta, new_shift, new_random, new_at, new_objective
    return _mode(model, T, u, b, beta, model.offset + shift + random, at, objective, factor, arrived, steps)


def _mode(model, T, u, b, beta, eta, at, objective, factor, arrived, steps) -> Mode:
    if model.response.natural:
        return Mode(u, b, beta, eta, at, objective, factor, factor, arrived, steps)
    mover = model.system.factor(at.observed, T)
    return Mode(
        u, b, beta, eta, at, objective, mover if model.observed else model.system.factor(at.expected, T), mover, arrived, steps
    )


def _objective(s: OneFactor | Blocked, at: Bend, u: Floats) -> Floats:
    return -2.0 * s.total(at.loglik) + s.dot(u, u)


def _lower(new: Floats, old: Floats) -> Any:
    """new ≤ old up to rounding."""
    return new <= old + 1e-10 * (1.0 + abs(old))


def _halve(model: Mixed, line: tuple, phi: float) -> Floats:
    """How far (…,) to go along a step: 1, ½, ¼ …; 0 where nothing is lower."""
    start, change, u, step, objective = line
    t = np.ones(np.shape(objective))
    for _ in range(HALVINGS):
        far = t[..., None]
        at = bend(model.response, model.offset + start + far * change, phi)
        bad = ~_lower(_objective(model.system, at, u + far * step), objective)
        if not bad.any():
            return t
        t = np.where(bad, 0.5 * t, t)
    return np.where(bad, 0.0, t)


def _joint_beta(model: Mixed, factor: GroupFactor | BlockFactor, w: Floats, target: Floats) -> Floats:
    """β of the penalised least squares problem whose working response times w is `target` (…, n)."""
    XT = model.XT
    p = len(XT)
    column = target / w
    F = np.concatenate((np.broadcast_to(XT.reshape(p, *[1] * (w.ndim - 1), -1), (p, *w.shape)), column[None]))
    R = factor.reduced(F)
    return np.linalg.solve(R[..., :p, :p], R[..., :p, p:])[..., 0]


# ---------------------------------------------------------------- Laplace
def laplace(
    model: Mixed, beta: Floats, theta: Floats, u: Floats, shape: float | None = None, joint: bool = False, slopes: bool = True
) -> Marginal:
    """D at (β, θ, γ) and its gradient.

    beta   (…, p)   fixed part; joint (nagq = 0): where to start
    theta  (…, t)   lme4's order
    u               where to start the modes
    shape           γ, None: not a parameter
    returns Marginal; gradient (…, p + t + 1), without β for joint, without γ for shape None
    """
    model, phi = _at_shape(model, shape)
    with np.errstate(all="ignore"):
        mode = find_mode(model, beta, theta, u, phi, joint)
        deviance = mode.objective + mode.factor.logdet
        deviance = np.where(np.isfinite(deviance) & np.isfinite(mode.mover.logdet), deviance, np.inf)
        if not slopes:
            return Marginal(deviance, mode)
        h, logdet_T = mode.factor.spread()
        gradient = _gradient(model, mode, h, logdet_T, phi, joint, shape is not None)
    return Marginal(deviance, mode, gradient)


def _at_shape(model: Mixed, shape: float | None) -> tuple[Mixed, float]:
    if shape is None:
        return model, 1.0
    response, phi = at_shape(model.response, float(shape))
    return evolve(model, response=response), phi


def _gradient(model: Mixed, mode: Mode, h: Floats, logdet_T: tuple, phi: float, joint: bool, shaped: bool) -> Floats:
    s, at = model.system, mode.at
    d_observed, d_expected = bend_slopes(model.response, mode.eta, at, phi)
    v = (d_observed if model.observed else d_expected) * h
    rows_t: Floats | float = 0.0
    rhs = v
    if joint:
        t_beta = _joint_beta(model, mode.mover, mode.mover.w, v)
        rows_t = t_beta @ model.XT
        rhs = v - mode.mover.w * rows_t
    t, Lt = mode.mover.solve(s.times_Zt(rhs))
    rows_t = rows_t + s.times_Z(Lt)
    e = -2.0 * at.score + v - at.observed * rows_t
    parts = zip(s.outer(s.times_Zt(e), mode.u), s.outer(s.times_Zt(at.score), t), logdet_T)
    pieces = [] if joint else [s.each(e) @ model.XT.T]
    pieces.append(s.theta_of(tuple(a + b + c for a, b, c in parts)))
    if shaped:
        d_loglik, d_score, d_weight = shape_slopes(model.response, mode.eta, at, phi)
        pieces.append(np.asarray(s.total(-2.0 * d_loglik + h * d_weight + rows_t * d_score))[..., None])
    return np.concatenate(pieces, axis=-1)


# ---------------------------------------------------------------- adaptive Gauss–Hermite
def quadrature(model: Mixed, beta: Floats, theta: Floats, u: Floats, nodes: tuple[Floats, Floats], shape: float | None = None) -> Marginal:
    """D by m nodes per group, and its gradient by (β, θ, γ); one scalar random effect.

    beta   (p,);  theta (1,)
    nodes  z (m,) and weights (m,) of ∫ f(z) φ(z) dz ≈ Σ w_k f(z_k)

    Nodes move with û_g and σ_g = M_g^{-½}: with π the nodes' shares of the integral and f the log integrand,
    P = Σ π f′, Q = Σ π z f′, the gradient is Laplace's with v, ∂log|M|/∂T weighted by 1 + Qσ, −2P added to ΛᵀZᵀv and the score
    averaged over π.

    Source: Pinheiro & Bates (1995) §2.4; Liu & Pierce (1994).
    """
    model, phi = _at_shape(model, shape)
    s, (z, weight) = model.system, nodes
    T = float(theta[0])
    with np.errstate(all="ignore"):
        mode = find_mode(model, beta, theta, u, phi)
        sigma = np.sqrt(mode.factor.inverse[0, 0])
        at_nodes = mode.u[0] + sigma * z[:, None]  # (m, G)
        eta = mode.eta + s.times_Z((at_nodes - mode.u[0])[None] * T)
        rows = bend(model.response, eta, phi)
        log_each = np.add.reduceat(rows.loglik, s.starts, axis=-1) - 0.5 * np.square(at_nodes)
        log_each = log_each + (np.log(weight) + 0.5 * z * z)[:, None]
        top = log_each.max(axis=0)
        share = np.exp(log_each - top)
        total = share.sum(axis=0)
        deviance = -2.0 * s.groups_total(np.log(sigma) + top + np.log(total))
        gradient = _quadrature_gradient(model, mode, T, (z, sigma, at_nodes, share / total, eta, rows), phi, shape is not None)
    return Marginal(np.where(np.isfinite(deviance), deviance, np.inf), mode, gradient)


def _quadrature_gradient(model: Mixed, mode: Mode, T: float, at_nodes: tuple, phi: float, shaped: bool) -> Floats:
    s, at = model.system, mode.at
    z, sigma, places, share, eta, rows = at_nodes
    slope = T * s.times_Zt(rows.score)[0] - places  # f′ (m, G)
    P, Q = (share * slope).sum(axis=0), (share * z[:, None] * slope).sum(axis=0)
    each = 1.0 + Q * sigma
    h, logdet_T = mode.factor.spread(each)
    d_observed, d_expected = bend_slopes(model.response, mode.eta, at, phi)
    v = (d_observed if model.observed else d_expected) * h * each[s.code]
    t = mode.mover.solve_u(T * s.times_Zt(v) - 2.0 * P[None])
    rows_t = s.times_Z(T * t)
    around = v - at.observed * rows_t
    row_share = share[:, s.code]
    score = (row_share * rows.score).sum(axis=0)
    by_place = s.times_Zt((row_share * places[:, s.code] * rows.score).sum(axis=0))
    by_T = -2.0 * s.groups_total(by_place[0]) + s.dot(s.times_Zt(around), mode.u) + s.dot(s.times_Zt(at.score), t) + logdet_T[0][0, 0]
    pieces = [s.each(around - 2.0 * score) @ model.XT.T, np.array([by_T])]
    if shaped:
        d_score, d_weight = shape_slopes(model.response, mode.eta, at, phi)[1:]
        d_loglik = (row_share * shape_slopes(model.response, eta, rows, phi)[0]).sum(axis=0)
        pieces.append(np.array([s.total(-2.0 * d_loglik + h * each[s.code] * d_weight + rows_t * d_score)]))
    return np.concatenate(pieces)


def hermite(m: int) -> tuple[Floats, Floats]:
    """Nodes and weights (m,) of ∫ f(z) φ(z) dz, φ the standard normal density."""
    z, w = np.polynomial.hermite_e.hermegauss(m)
    return z, w / w.sum()
