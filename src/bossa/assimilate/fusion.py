"""Several sources, some coefficients in common: one posterior from data sets, formulas and families that differ.

    J(β) = Σ_s α_s J_s(β_s) + ½ (β − m₀)ᵀB⁻¹(β − m₀),    J_s = −ℓ_s/φ_s

β holds the shared coefficients once and each source's own beside them; α_s is the exponent of a power prior (0.5: each row of that source
counts half). The maximum by scoring on the joint coefficients; the covariance from the observed information, Σ α_s (−ℓ_s″) + B⁻¹.
φ_s: of linear models alternates with β, one for all sources or one for each; of other families with a scale it is the source's own fit's.

Source: Ibrahim & Chen (2000) for power priors; McCullagh & Nelder (1989) §2.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..design.encode import encode
from ..errors import DataError, FitFailed, NotYet, OptionError, Refused, UnknownOption
from ..estimate import registry
from ..estimate.prior import precision_rows, resolve_prior
from ..kernels import covop
from ..kernels.irls import Point, Rows, evaluate
from ..kernels.linalg import cholesky_factor
from ..kernels.response import bend, make_response
from ..state.design import Problem
from ..state.fit import FitState
from ..state.posterior import Posterior
from ..state.provenance import Provenance, digest
from ..types import Floats
from .origin import provenance

MAX_ITER = 200
WHERE = "fuse()"


@frozen(eq=False)
class Source:
    """One data set: its rows, the places of its coefficients among the joint ones (p,), its weight α and dispersion φ."""

    name: str
    problem: Problem
    fit: FitState
    rows: Rows
    places: np.ndarray
    alpha: float
    phi: float

    @property
    def linear(self) -> bool:
        return self.rows.family.name == "gaussian" and self.rows.link.name == "identity"


def fuse(
    sources: Mapping[str, Any],
    *,
    weights: Mapping[str, float] | None = None,
    share: Iterable[str] | None = None,
    prior: Any = None,
    dispersion: str = "own",
) -> Posterior:
    """One posterior from several models.

    sources     {"trial": model("y ~ d + x", d1), "registry": model("n ~ d", d2, family="poisson")}, fitted or not
    weights     {"registry": 0.5}: exponent of each likelihood, 1 where not given
    share       coefficients that are the same number in all sources that have them; None: every name that two sources have
    prior       of the joint coefficients, as in model(); those of one source alone are named "source: term"
    dispersion  of linear models: "own" σ for each source, or "common"
    """
    if not isinstance(sources, Mapping) or not sources:
        raise OptionError("sources= is not a dict of models.", where=WHERE, do='Give {"trial": model(…), …}.')
    if dispersion not in ("own", "common"):
        raise UnknownOption(dispersion, ("own", "common"), where=WHERE, kind="dispersion")
    alpha = _weights(weights, tuple(sources))
    fitted = {name: _fitted(name, m) for name, m in sources.items()}
    shared = _shared({name: p.design.names for name, (p, _) in fitted.items()}, share)
    names = list(dict.fromkeys(n if n in shared else f"{s}: {n}" for s, (p, _) in fitted.items() for n in p.design.names))
    place = {n: i for i, n in enumerate(names)}
    made = []
    for name, (problem, fit) in fitted.items():
        design = problem.design
        rows = Rows(design.X, np.asarray(design.y), problem.family, problem.link, design.total_weights, design.offset)
        places = np.array([place[n if n in shared else f"{name}: {n}"] for n in design.names], dtype=np.intp)
        made.append(Source(name, problem, fit, rows, places, alpha[name], fit.dispersion))
    return _fused(made, tuple(names), None if prior is None else resolve_prior(prior, tuple(names)), dispersion, tuple(sorted(shared)))


def _weights(weights: Mapping[str, float] | None, names: tuple[str, ...]) -> dict[str, float]:
    alpha = dict.fromkeys(names, 1.0)
    for name, value in (weights or {}).items():
        if name not in alpha:
            raise UnknownOption(name, names, where=f"{WHERE} weights=", kind="source")
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
            raise OptionError(
                f"the weight of {name!r} is {value!r}, not a positive number.", where=WHERE, do="Leave the source out to ignore it."
            )
        alpha[name] = float(value)
    return alpha


def _fitted(name: str, m: Any) -> tuple[Problem, FitState]:
    """Problem and fit of a model, fitted here if need be."""
    spec = m.spec
    if spec.bars:
        raise NotYet(f"source {name!r} has random effects.", where=WHERE, do="Combine posteriors instead: bossa.assimilate.combine.")
    if spec.prior is not None:
        raise OptionError(f"source {name!r} has a prior of its own.", where=WHERE, do="Give prior= to fuse(), which counts it once.")
    if spec.family.free or spec.family.logpdf is None:
        raise NotYet(
            f"source {name!r} has family {spec.family.name!r}.", where=WHERE, do="Use a family with a full likelihood and no free shape."
        )
    if m.fit_state is not None:
        return m.problem, m.fit_state
    if m.data is None:
        raise DataError(f"source {name!r} has no data.", where=WHERE, do="Give model(formula, data).")
    encoder, design, used = encode(spec, m.data)
    problem = Problem(design=design, spec=spec, family=spec.family, link=spec.link, method=spec.method, encoder=encoder, data=used)
    return registry.fit(problem)


def _shared(names: dict[str, tuple[str, ...]], share: Iterable[str] | None) -> set[str]:
    counts: dict[str, int] = {}
    for own in names.values():
        for n in own:
            counts[n] = counts.get(n, 0) + 1
    if share is None:
        return {n for n, c in counts.items() if c > 1}
    asked = [share] if isinstance(share, str) else list(share)
    for n in asked:
        if n not in counts:
            raise UnknownOption(n, counts, where=f"{WHERE} share=", kind="coefficient")
        if counts[n] < 2:
            raise OptionError(f"only one source has {n!r}.", where=f"{WHERE} share=", do="Leave it out.")
    return set(asked)


def _fused(sources: list[Source], names: tuple[str, ...], prior: Posterior | None, dispersion: str, shared: tuple[str, ...]) -> Posterior:
    if prior is not None and (prior.df is not None or prior.sigma is not None):
        raise Refused("a prior that tells of σ is for one linear model.", where=WHERE, do="Use .gaussian(), and leave 'sigma' out.")
    k = len(names)
    W = np.zeros((0, k)) if prior is None else precision_rows(prior.cov)
    Lambda, centre = W.T @ W, np.zeros(k) if prior is None else prior.mean
    beta, steps = _start(sources, k), 0
    for _ in range(MAX_ITER):
        beta, taken = _search(sources, beta, Lambda, centre)
        steps += taken
        updated = _dispersions(sources, beta, dispersion)
        change = max(abs(new.phi / old.phi - 1) for new, old in zip(updated, sources))
        sources = updated
        if change < 1e-12:
            break
    H = Lambda.copy()
    for s in sources:
        response = make_response(s.rows.family, s.rows.link, s.rows.y, s.problem.design.weights, s.problem.design.freq)
        observed = bend(response, _at(s, beta).eta, s.phi).observed
        H[np.ix_(s.places, s.places)] += s.alpha * (s.rows.X.T * observed) @ s.rows.X
    told = [f"{s.name}: weight {s.alpha:g}" + (f", σ = {math.sqrt(s.phi):.6g}" if s.linear else "") for s in sources]
    return Posterior(
        names=names,
        mean=beta,
        cov=covop.from_precision(H),
        prior=prior,
        provenance=_origin(sources, steps, prior, shared),
        notes=(f"fused, sharing {', '.join(shared) or 'nothing'}; {'; '.join(told)}",),
    )


def _at(s: Source, beta: Floats) -> Point:
    point = evaluate(s.rows, beta[s.places])
    if point is None:
        raise FitFailed(f"no coefficients were found inside the range of source {s.name!r}.", where=WHERE, do="Use another link.")
    return point


def _start(sources: list[Source], k: int) -> Floats:
    """Shared coefficients at the mean of the sources' own fits; at those of the first source where that leaves a range."""
    total, count, first = np.zeros(k), np.zeros(k), np.full(k, np.nan)
    for s in sources:
        total[s.places] += s.fit.coef
        count[s.places] += 1
        first[s.places] = np.where(np.isnan(first[s.places]), s.fit.coef, first[s.places])
    mean = total / count
    return mean if all(evaluate(s.rows, mean[s.places]) is not None for s in sources) else first


def _search(sources: list[Source], beta: Floats, Lambda: Floats, centre: Floats) -> tuple[Floats, int]:
    """Scoring at fixed dispersions, halved while J would grow."""

    def objective(b: Floats) -> float:
        points = [evaluate(s.rows, b[s.places], gram=False) for s in sources]
        if any(p is None for p in points):
            return math.inf
        away = b - centre
        return sum(s.alpha * p.deviance / s.phi for s, p in zip(sources, points) if p is not None) + float(away @ Lambda @ away)

    now = objective(beta)
    steps = 0
    while steps < MAX_ITER:
        steps += 1
        H, g = Lambda.copy(), -Lambda @ (beta - centre)
        for s in sources:
            point = _at(s, beta)
            H[np.ix_(s.places, s.places)] += s.alpha / s.phi * point.information
            g[s.places] += s.alpha / s.phi * point.score
        half = np.linalg.solve(cholesky_factor(H).T, g)
        step = np.linalg.solve(cholesky_factor(H), half)
        distance = float(np.sqrt(half @ half))
        for halvings in range(30):
            moved = beta + 0.5**halvings * step
            value = objective(moved)
            if value <= now + 1e-10 * abs(now):
                break
        else:
            break
        beta, now = moved, value
        if distance < 1e-10:
            break
    return beta, steps


def _dispersions(sources: list[Source], beta: Floats, dispersion: str) -> list[Source]:
    """σ² of linear sources at these coefficients: residual sums of squares over rows less their share of the coefficients."""
    linear = [s for s in sources if s.linear]
    if not linear:
        return sources
    rss = {s.name: _at(s, beta).deviance for s in linear}
    rest = {s.name: s.problem.design.n_obs for s in linear}
    if dispersion == "common":
        alpha = {s.name: s.alpha for s in linear}
        own = len({int(i) for s in linear for i in s.places})
        free = sum(alpha[n] * rest[n] for n in rss) - own
        phi = dict.fromkeys(rss, sum(alpha[n] * rss[n] for n in rss) / free)
    else:
        phi = {s.name: rss[s.name] / (rest[s.name] - len(s.places)) for s in linear}
    return [evolve(s, phi=phi[s.name]) if s.linear else s for s in sources]


def _origin(sources: list[Source], steps: int, prior: Posterior | None, shared: tuple[str, ...]) -> Provenance:
    each = {s.name: provenance(s.problem, s.fit, "laplace") for s in sources}
    return Provenance(
        forward_model_id="bossa.fuse: " + "; ".join(f"{n} = {p.forward_model_id}" for n, p in each.items()),
        forward_model_hash=digest([sorted((n, p.forward_model_hash) for n, p in each.items()), shared]),
        obs_ops_used=tuple(each),
        n_iter=steps,
        cov_op_hash=digest(
            [None if prior is None else [prior.mean, prior.cov.whiten(np.eye(len(prior.mean)))], sorted((s.name, s.alpha) for s in sources)]
        ),
        data_hash={n: p.data_hash["data"] for n, p in each.items() if p.data_hash},
        data_columns=(),
        adapter="laplace",
    )
