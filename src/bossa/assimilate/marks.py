"""Many analyses, one question: what do their posteriors say together, each having used the same prior or its own?

A posterior is prior × likelihood. Adding posteriors counts the prior once per group; what may be added are the likelihood parts,

    Λ_j = P_j⁻¹ − B_j⁻¹,    η_j = P_j⁻¹m_j − B_j⁻¹m_j0        (natural form; Λ_j may be singular)

combine      Λ = Σ P_j⁻¹ − (J − 1) B⁻¹: the posterior of all data from posteriors of parts that had the same prior
population   θ_j ~ N(Z_j g, Ω):  g by generalised least squares with weights (I + Λ_jΩ)⁻¹Λ_j, Ω by REML

Source: Scott et al. (2016) for combine (exact for Gaussians and Normal–inverse-gammas); Lindley & Smith (1972); DerSimonian & Laird (1986)
and Viechtbauer (2005) for the population's variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve, frozen

from ..design.encode import encode
from ..design.formula import make_spec, resolve
from ..errors import DataError, OptionError, Refused
from ..estimate.prior import resolve_prior
from ..kernels import covop
from ..kernels.family import GAUSSIAN
from ..kernels.link import IDENTITY
from ..state.fields import array
from ..state.posterior import Likelihood, Posterior
from ..types import Floats

HIDDEN = "theta_of_the_group"  # response that a one-sided formula is given


# ---------------------------------------------------------------- posteriors of parts
def combine(posteriors: Iterable[Posterior], prior: Any = None) -> Posterior:
    """The posterior given all data, from posteriors of parts of them.

    posteriors  each with the same prior; about the same names, in any order
    prior       that prior, for parts that do not say what theirs was: bossa.normal(…), {"x": bossa.normal(…)} or a Posterior
    returns     Gaussian; Student-t where all parts are Student-t's of linear models with a common σ

    >>> from bossa import load_dataset, model
    >>> from bossa.assimilate import combine
    >>> cars = load_dataset("mtcars")
    >>> parts = [model("mpg ~ wt", cars[i : i + 16]).fit().infer().posterior for i in (0, 16)]
    >>> bool(abs(combine(parts).mean - model("mpg ~ wt", cars).fit().fit_state.coef).max() < 1e-9)
    True
    """
    parts = list(posteriors)
    where = "combine()"
    if not parts:
        raise DataError("there are no posteriors.", where=where, do="Give at least one.")
    names = parts[0].names
    for i, part in enumerate(parts):
        if set(part.names) != set(names):
            raise DataError(
                f"part {i} is about {', '.join(part.names)}, part 0 about {', '.join(names)}.", where=where, do="Use .marginal([…])."
            )
        if part.cov is None:
            raise Refused(f"part {i} has draws alone.", where=where, do="Use .gaussian().")
    parts = [p.marginal(names) for p in parts]
    before = _prior_of(parts, None if prior is None else resolve_prior(prior, names))
    if all(p.kind == "student_t" for p in parts):
        return _combined_t(parts, before)
    if any(p.kind == "student_t" for p in parts):
        raise Refused("some parts are Student-t's and some are not.", where=where, do="Use .gaussian() of those.")
    k, extra = len(names), len(parts) - 1
    H, shift = np.zeros((k, k)), np.zeros(k)
    for part in parts:
        H, shift = H + part.cov.solve(np.eye(k)), shift + part.cov.solve(part.mean)
    if before is not None:
        H, shift = H - extra * before.cov.solve(np.eye(k)), shift - extra * before.cov.solve(before.mean)
    op = _precision(H, where)
    return Posterior(
        names=names, mean=op.mv(shift), cov=op, prior=before, notes=(f"combined from {len(parts)} posteriors, their prior counted once",)
    )


def _prior_of(parts: list[Posterior], given: Posterior | None) -> Posterior | None:
    """The prior that all parts had: their own, or the one given where they do not say."""
    own = [p.prior for p in parts]
    known = given if given is not None else own[0]
    if all(_alike(known, one) for one in own if given is None or one is not None):
        return known
    if all(p.kind == "student_t" for p in parts) and all(p is None or p.df is None for p in (known, *own)):
        do = "Give the parts a prior that says what is known of σ ({'x': bossa.normal(0, 1), 'sigma': (2.0, 4.0)}), or use .gaussian()."
        raise Refused("a prior told in units of each part's own σ is not the same prior.", where="combine()", do=do)
    what = "the parts had different priors." if given is None else "prior= is not the prior that the parts had."
    raise DataError(what, where="combine()", do="Fit the parts with one prior; for groups that differ use population().")


def _alike(a: Posterior | None, b: Posterior | None) -> bool:
    """Do two priors say the same?"""
    if a is None or b is None:
        return a is b
    one, other = ((p.cov.solve(np.eye(len(p.mean))), p.mean, p.sigma or 0.0, p.df or 0.0) for p in (a, b))
    return all(np.allclose(x, y, rtol=1e-9, atol=0) for x, y in zip(one, other))


def _precision(H: Floats, where: str) -> covop.PrecisionChol:
    try:
        return covop.from_precision((H + H.T) / 2)
    except np.linalg.LinAlgError:
        raise DataError(
            "the precision left is not positive definite.", where=where, do="Is prior= the prior that every part was given?"
        ) from None


def _combined_t(parts: list[Posterior], before: Posterior | None) -> Posterior:
    """Normal–inverse-gammas: V⁻¹, V⁻¹m, ν + k and νs² + mᵀV⁻¹m add up; the prior's, counted once too often per part, are taken off."""
    where, k = "combine()", len(parts[0].names)
    told = before is not None
    if any(p.sigma is None for p in parts) or (told and before.sigma is None):  # type: ignore[union-attr]
        do = "Give the parts a prior that says what is known of σ ({'x': bossa.normal(0, 1), 'sigma': (2.0, 4.0)}), or use .gaussian()."
        raise Refused("a prior told in units of each part's own σ is not the same prior.", where=where, do=do)
    H, shift, weight, square = np.zeros((k, k)), np.zeros(k), 0.0, 0.0
    signed = [(1.0, p) for p in parts] + ([(1.0 - len(parts), before)] if before is not None else [])
    for sign, p in signed:
        s2 = p.sigma**2  # type: ignore[operator]
        precision, moved = s2 * p.cov.solve(np.eye(k)), s2 * p.cov.solve(p.mean)
        rank = k if sign == 1.0 else int(np.isfinite(p.cov.diag()).sum())
        H, shift = H + sign * precision, shift + sign * moved
        weight += sign * ((p.df or 0.0) + rank)
        square += sign * ((p.df or 0.0) * s2 + float(p.mean @ moved))
    op = _precision(H, where)
    mean, df = op.mv(shift), weight - k
    s2 = (square - float(mean @ shift)) / df
    note = (f"combined from {len(parts)} posteriors, their prior counted once; Student-t with {df:.6g} df",)
    return Posterior(
        names=parts[0].names, mean=mean, cov=op.scaled(s2), kind="student_t", df=df, sigma=math.sqrt(s2), prior=before, notes=note
    )


def hybrid(prior: Any, ensemble: Posterior, weight: float) -> Posterior:
    """A prior whose covariance is partly told and partly learnt, B_h = (1 − w) B + w P, about the told mean.

    prior     bossa.normal(…), {"x": bossa.normal(…)} or a Posterior, proper
    ensemble  whose covariance P is mixed in;  weight  w in [0, 1]
    """
    if isinstance(weight, bool) or not isinstance(weight, (int, float, np.number)) or not 0 <= weight <= 1:
        raise OptionError(f"weight={weight!r} is not between 0 and 1.", where="hybrid()", do="0 leaves the prior as it is.")
    told, drawn = resolve_prior(prior, ensemble.names), ensemble.gaussian()
    B, P = told.cov, drawn.cov
    if told.df is not None or not np.isfinite(B.diag()).all():
        raise Refused("the prior is not a proper normal.", where="hybrid()", do="Name every coefficient, or use .gaussian().")
    if weight == 0 or weight == 1:
        cov = B if weight == 0 else P
    elif isinstance(B, covop.Diag):
        cov = covop.lowrank((1 - weight) * B.d, math.sqrt(weight) * P.sqrt_mv(np.eye(P.width)))
    else:
        cov = covop.from_matrix((1 - weight) * B.dense() + weight * P.dense())
    note = f"hybrid prior: {1 - weight:g} of the told covariance, {weight:g} of an ensemble's"
    return Posterior(names=told.names, mean=told.mean, cov=cov, sigma=told.sigma, notes=(note,))


# ---------------------------------------------------------------- groups that differ
@frozen(kw_only=True, eq=False)
class Population:
    """What groups have in common.

    posterior  of g, named "term" for one coefficient per group, "term:coefficient" for several
    omega      (k, k)  covariance of the groups' coefficients about Z g;  names (k,)
    groups     Posterior of each group's coefficients given g and Ω
    loglik     restricted log-likelihood, up to a constant
    """

    posterior: Posterior
    omega: np.ndarray = array("k", "k2")
    names: tuple[str, ...]
    groups: tuple[Posterior, ...]
    loglik: float


def population(marks: Sequence[Any], formula: str = "~ 1", *, omega: Any = None) -> Population:
    """Regress the groups' coefficients on their covariates: θ_j ~ N(Z_j g, Ω), by the groups' likelihood parts.

    marks    of `post.to_mark(z=…)`, covariates in event_metadata; every group may have had its own prior
    formula  "~ z": covariates of the groups
    omega    None: by REML; or known: a number or (k, k)
    """
    parts = [_likelihood(mark, i) for i, mark in enumerate(marks)]
    if not parts:
        raise DataError("there are no marks.", where="population()", do="Give at least one per coefficient of the formula.")
    names = parts[0].names
    for i, part in enumerate(parts):
        if part.names != names:
            raise DataError(f"mark {i} is about {', '.join(part.names)}, mark 0 about {', '.join(names)}.", where="population()")
    terms, Z = _covariates([dict(m["event_metadata"]) for m in marks], formula)
    k, rank = len(names), int(np.linalg.matrix_rank(Z))
    if rank < Z.shape[1]:
        what = f"{len(parts)} groups do not tell the covariates ({', '.join(terms)}) apart."
        raise DataError(what, where=f"population({formula!r})", do="Leave one of them out.")
    if omega is None and len(parts) <= rank:
        what = f"{len(parts)} groups and {rank} coefficients of covariates leave nothing to estimate the groups' variance from."
        raise DataError(what, where=f"population({formula!r})", do="Give more groups, or omega=.")
    A = [np.kron(z[None, :], np.eye(k)) for z in Z]  # θ_j = A_j g, g by term, then by coefficient
    if omega is None:
        omega = _reml(parts, A)
    elif np.ndim(omega) == 0:
        omega = float(omega) * np.eye(k)
    omega = covop.from_matrix(omega, where="population(omega=…)").dense()
    H, shift, loglik = _normal_equations(parts, A, omega)
    op = _precision(H, "population()")
    mean = op.mv(shift)
    labels = terms if k == 1 else tuple(f"{t}:{n}" for t in terms for n in names)
    groups = tuple(_group(part, a @ mean, omega) for part, a in zip(parts, A))
    note = (f"{len(parts)} groups, each by its likelihood alone: no prior is counted",)
    post = Posterior(names=labels, mean=mean, cov=op, notes=note)
    return Population(posterior=post, omega=omega, names=names, groups=groups, loglik=loglik)


def _likelihood(mark: Any, i: int) -> Likelihood:
    if not isinstance(mark, Mapping) or not {"likelihood", "names", "event_metadata"} <= set(mark):
        raise DataError(f"item {i} is not a mark.", where="population()", do="Use post.to_mark(z=…).")
    part = mark["likelihood"]
    if part is None:
        raise Refused(f"mark {i} has draws alone.", where="population()", do="Make marks of post.gaussian().")
    precision, shift = np.asarray(part["precision"], dtype=float), np.asarray(part["shift"], dtype=float)
    k = len(mark["names"])
    if precision.shape != (k, k) or shift.shape != (k,) or not (np.isfinite(precision).all() and np.isfinite(shift).all()):
        raise DataError(f"the likelihood of mark {i} is not ({k}, {k}) and ({k},) finite numbers.", where="population()")
    return Likelihood(names=tuple(mark["names"]), precision=precision, shift=shift)


def _covariates(rows: list[dict[str, Any]], formula: str) -> tuple[tuple[str, ...], Floats]:
    """Names (c,) and Z (J, c) of a one-sided formula."""
    if not formula.strip().startswith("~"):
        raise OptionError(f"{formula!r} is not one-sided.", where="population()", do='Write "~ z".')
    frame = pl.DataFrame(rows).with_columns(pl.Series(HIDDEN, np.zeros(len(rows))))
    spec = resolve(make_spec(f"{HIDDEN} {formula.strip()}"), frame)
    encoder, design, _ = encode(evolve(spec, family=GAUSSIAN, link=IDENTITY), frame)
    if design.n < len(rows) or encoder.varying:
        what = "a covariate is missing in some groups" if design.n < len(rows) else "random effects of groups are what population() adds"
        raise DataError(f"{what}.", where=f"population({formula!r})", do="Leave those groups, or the bar, out.")
    return tuple(design.names), np.asarray(design.X, dtype=float)


def _normal_equations(parts: list[Likelihood], A: list[Floats], omega: Floats) -> tuple[Floats, Floats, float]:
    """Information and shift of g, and the restricted log-likelihood of Ω up to a constant."""
    m, k = A[0].shape[1], len(omega)
    H, shift, square, volume = np.zeros((m, m)), np.zeros(m), 0.0, 0.0
    for part, a in zip(parts, A):
        mixed = np.eye(k) + part.precision @ omega
        H += a.T @ np.linalg.solve(mixed, part.precision) @ a
        weighted = np.linalg.solve(mixed, part.shift)
        shift += a.T @ weighted
        square -= float(part.shift @ omega @ weighted)  # η'(Λ⁻¹ + Ω)⁻¹-form, less what does not depend on Ω
        volume += float(np.linalg.slogdet(mixed)[1])
    fitted = float(shift @ np.linalg.lstsq(H, shift, rcond=None)[0])
    return H, shift, -0.5 * (volume + square + float(np.linalg.slogdet(H)[1])) + 0.5 * fitted


def _reml(parts: list[Likelihood], A: list[Floats]) -> Floats:
    """Ω (k, k) that maximises the restricted likelihood, through its Cholesky factor in units of the groups' own spread."""
    from scipy.optimize import minimize

    k = len(parts[0].shift)
    unit = 1.0 / np.sqrt(np.mean([np.diag(p.precision) for p in parts], axis=0))
    lower = np.tril_indices(k)

    def factor(x: Floats) -> Floats:
        L = np.zeros((k, k))
        L[lower] = x
        return unit[:, None] * L

    def lost(x: Floats) -> float:
        L = factor(x)
        return -_normal_equations(parts, A, L @ L.T)[2]

    found = [minimize(lost, size * np.eye(k)[lower], method="BFGS", options={"gtol": 1e-9}) for size in (0.1, 1.0, 5.0)]
    L = factor(min(found, key=lambda f: f.fun).x)
    best = L @ L.T
    return np.zeros((k, k)) if lost(np.zeros(len(lower[0]))) <= min(f.fun for f in found) + 1e-12 else best


def _group(part: Likelihood, centre: Floats, omega: Floats) -> Posterior:
    """One group's coefficients given the others: N(centre, Ω) × its likelihood; Ω may be singular."""
    k = len(centre)
    P = np.linalg.solve(np.eye(k) + omega @ part.precision, omega)
    mean = centre + P @ (part.shift - part.precision @ centre)
    return Posterior(names=part.names, mean=mean, cov=covop.from_matrix((P + P.T) / 2))
