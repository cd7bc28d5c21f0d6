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

MAX_STEPS = 100
ARRIVED = 1e-20  # squared length of a step, in standard deviations of the modes: the step is not worth taking
NEARLY = 1e-9  # a Newton step of this squared length leaves an error of its square: it is the last
HALVINGS = 25


@frozen(eq=False)
class Mixed:
    """A generalized linear mixed model as arrays, rows in the order of its system.

    system  OneFactor or Blocked
    XT      (p, n)
    offset  (n,)
    nearly  squared length of a Newton step that is the last
    still   the u given is the mode as it is: for differences around one, see `mode_slopes`
    """

    system: Any
    response: Response
    XT: Floats
    offset: Floats
    nearly: float = NEARLY
    still: bool = False

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
    factor: Any
    mover: Any
    arrived: Any
    steps: int


@frozen(eq=False)
class Marginal:
    """D (…,) at one point and its mode; gradient by (β, θ, γ) as far as each is a parameter: (…, p + t + 1)."""

    deviance: Any
    mode: Mode
    gradient: Floats


# ---------------------------------------------------------------- modes
@frozen(eq=False)
class Place:
    """A trial: u, b = Λu, β, Xβ and Zb as rows, what the response says there, −2ℓ + |u|²."""

    u: Floats
    b: Floats
    beta: Floats
    shift: Floats
    random: Floats
    at: Bend
    objective: Any


def _place(model: Mixed, phi: float, u: Floats, b: Floats, beta: Floats, shift: Floats, random: Floats) -> Place:
    at = bend(model.response, model.offset + shift + random, phi)
    return Place(u, b, beta, shift, random, at, -2.0 * model.system.total(at.loglik) + model.system.dot(u, u))


def find_mode(model: Mixed, beta: Floats, theta: Floats, u: Floats, phi: float = 1.0, joint: bool = False) -> Mode:
    """Penalised IRLS from u by Newton steps, halved while they fail; where M is not positive definite with the observed information,
    the expected takes its place in the rows where that is negative.

    beta   (…, p);  joint: where to start, then moved with u
    theta  (…, t)
    """
    s, natural = model.system, model.response.natural
    T = s.T_of(theta)
    b = s.scale(T, u)
    here = _place(model, phi, u, b, beta, beta @ model.XT, s.times_Z(b))
    arrived, last = np.zeros(np.shape(here.objective), dtype=bool), False
    for steps in range(1, MAX_STEPS + 1):  # noqa: B007
        at = here.at
        w, factor, newton = at.observed, s.factor(at.observed, T), True
        if not natural and (not np.all(np.isfinite(factor.logdet)) or (joint and (w < 0.0).any())):
            w, newton = np.where(at.observed > 0.0, at.observed, at.expected), False
            factor = s.factor(w, T)
        if last or model.still:
            break
        new_beta, shift = here.beta, here.shift
        target = w * here.random + at.score
        if joint:
            target = target + w * here.shift
            new_beta = _joint_beta(model, factor, target)
            shift = new_beta @ model.XT
            target = target - w * shift
        u, b = factor.solve(s.times_Zt(target))
        random = s.times_Z(b)
        change = random - here.random + (shift - here.shift if joint else 0.0)
        step = u - here.u
        size = s.total(w * change * change) + s.dot(step, step)
        arrived = size < ARRIVED
        if arrived.all():
            break
        new = _place(model, phi, u, b, new_beta, shift, random)
        if not np.all(_lower(new.objective, here.objective)):
            new, t = _halved(model, phi, here, new)
            size = np.where(t < 1.0, np.inf, size)
            if (t == 0.0).all():
                break
        here = new
        arrived = size < model.nearly
        last = newton and bool(np.all(arrived))
    return _arrival(model, T, here, factor, arrived | model.still, steps)


def _arrival(model: Mixed, T: tuple[Floats, ...], here: Place, factor: Any, arrived: Any, steps: int) -> Mode:
    s, at = model.system, here.at
    mover = factor
    if factor.w is not at.observed:
        mover = s.factor(at.observed, T)
    factor = mover if model.observed or model.response.natural else s.factor(at.expected, T)
    eta = model.offset + here.shift + here.random
    return Mode(here.u, here.b, here.beta, eta, at, here.objective, factor, mover, arrived, steps)


def mode_slopes(model: Mixed, mode: Mode, phi: float = 1.0, shaped: bool = False) -> Any:
    """∂û/∂(β, θ, γ): a list of vectors, γ last where `shaped`; one parameter set.

    M ∂û = −ΛᵀZᵀI (X ∂β + Z ∂Λ û) + ∂ΛᵀZᵀs + ΛᵀZᵀ∂s. A difference around x of anything computed at û ± h ∂û instead of at the modes
    themselves loses nothing to the order h²: what is missed is even in h.
    """
    s, factor, at = model.system, mode.mover, mode.at
    scores = s.times_Zt(at.score)
    out = [-factor.solve(s.times_Zt(factor.w * x))[0] for x in model.XT]
    by_theta: dict[int, Floats] = {}
    for number, g in enumerate(s.lay.groupings):
        for a, b, index in zip(g.rows, g.cols, g.index):
            moved = factor.w * s.times_Z(s.entry(number, a, b, mode.u))
            by_theta[int(index)] = factor.solve_u(s.entry(number, b, a, scores)) - factor.solve(s.times_Zt(moved))[0]
    out += [by_theta[index] for index in sorted(by_theta)]
    if shaped:
        out.append(factor.solve(s.times_Zt(shape_slopes(model.response, mode.eta, at, phi)[1]))[0])
    return out


def _lower(new: Any, old: Any) -> Any:
    """new ≤ old up to rounding."""
    return new <= old + 1e-10 * (1.0 + abs(old))


def _halved(model: Mixed, phi: float, here: Place, new: Place) -> tuple[Place, Floats]:
    """The first of the whole step, ½, ¼ … that is lower, and how far (…,) it goes; 0 where none is."""
    t = np.ones(np.shape(here.objective))
    for halving in range(HALVINGS + 1):
        f = t[..., None]
        parts = ((x + f * (y - x)) for x, y in _pairs(here, new))
        moved = _place(model, phi, *parts)
        bad = ~(np.asarray(_lower(moved.objective, here.objective)))
        if not bad.any():
            return moved, t
        t = np.where(bad, 0.5 * t if halving < HALVINGS - 1 else 0.0, t)
    return here, np.zeros_like(t)


def _pairs(here: Place, new: Place) -> Any:
    for name in ("u", "b", "beta", "shift", "random"):
        yield getattr(here, name), getattr(new, name)


def _joint_beta(model: Mixed, factor: Any, target: Floats) -> Floats:
    """β of the penalised least squares problem whose working response times its weights is `target` (…, n); nan where undetermined."""
    s = model.system
    _, b = factor.solve(s.times_Zt(target))
    right = s.each(target - factor.w * s.times_Z(b)) @ model.XT.T
    try:
        return np.linalg.solve(factor.reduced(model.XT), right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return np.full_like(right, np.nan)


# ---------------------------------------------------------------- Laplace
def laplace(model: Mixed, beta: Floats, theta: Floats, u: Floats, shape: float | None = None, joint: bool = False) -> Marginal:
    """D at (β, θ, γ) and its gradient.

    beta   (…, p)   fixed part; joint (nagq = 0): where to start
    theta  (…, t)   lme4's order
    u               where to start the modes
    shape           γ, None: not a parameter
    returns Marginal; gradient (…, p + t + 1), without β for joint, without γ for shape None
    """
    model, phi = at_x(model, shape)
    with np.errstate(all="ignore"):
        mode = find_mode(model, beta, theta, u, phi, joint)
        deviance = mode.objective + mode.factor.logdet
        deviance = np.where(np.isfinite(deviance) & np.isfinite(mode.mover.logdet), deviance, np.inf)
        h, logdet_T = mode.factor.spread()
        gradient = _gradient(model, mode, h, logdet_T, phi, joint, shape is not None)
    return Marginal(deviance, mode, gradient)


def at_x(model: Mixed, shape: float | None) -> tuple[Mixed, float]:
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
        t_beta = _joint_beta(model, mode.mover, v)
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
    model, phi = at_x(model, shape)
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
