"""Resampling schemes: what a replicate of the data looks like, and for which models it is valid.

Each scheme is a small frozen object, `draw(rng, start, b) → (b, n)`, made from the problem and its fit by a maker registered with

    @scheme("case", unit="row")
    def case(problem, fit, groups) -> Draw

`unit` says what is drawn: "row" and "group" give factors on the counts of the rows, "response" gives new responses. A maker refuses the
models for which its replicates would not look like new data.

Source: Davison & Hinkley (1997) §3, 6.2; Cameron, Gelbach & Miller (2008) for the clustered wild bootstrap; Rubin (1981) for "bayes".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..errors import Refused, UnknownOption
from ..estimate import registry
from ..estimate.random import term_factors
from ..kernels.counts import row_counts
from ..kernels.linalg import leverage, triangular
from ..kernels.sandwich import cluster_residuals
from ..kernels.streams import entropy
from ..state.design import Problem, RETerm
from ..state.fit import FitState
from ..state.plan import Plan

Draw = Callable[[np.random.Generator, int, int], np.ndarray]


@frozen
class Scheme:
    name: str
    unit: str
    make: Callable[[Problem, FitState, np.ndarray | None], Draw]
    said: str


SCHEMES: dict[str, Scheme] = {}


def scheme(name: str, *, unit: str, said: str) -> Callable:
    """Register a maker; `said` completes the sentence "Each replicate …", with {unit} for "row" or "group", {units} for many of them."""

    def register(make: Callable[[Problem, FitState, np.ndarray | None], Draw]) -> Callable:
        SCHEMES[name] = Scheme(name, unit, make, said)
        return make

    return register


def plan(problem: Problem, fit: FitState, name: str, n: int, seed: Any, groups: np.ndarray | None = None) -> Plan:
    """The plan of `n` replicates by the scheme `name`; groups (n,) integer codes of whole groups, None: rows on their own."""
    if name not in SCHEMES:
        raise UnknownOption(name, SCHEMES, where="infer()", kind="scheme")
    chosen = SCHEMES[name]
    draw = chosen.make(problem, fit, groups)
    seeds = entropy(seed, "infer()")
    whole = groups is not None or problem.design.random is not None
    said = chosen.said.format(unit="group" if whole else "row", units="whole groups" if whole else "rows")
    cell = 1 if isinstance(draw, (CaseDraw, GroupDraw)) else 8
    made = Plan(scheme=name, unit=chosen.unit, n=n, rows=problem.design.n, seed=seeds, draw=draw, said=said, cell=cell)
    return evolve(made, block_size=min(made.block_size, IN_TURN)) if _in_turn(problem, fit) else made


IN_TURN = 16  # replicates of a block that is refitted one by one: what Ctrl-C loses, and what a worker takes at a time


def _in_turn(problem: Problem, fit: FitState) -> bool:
    """Are replicates refitted one after another, whatever they are?"""
    random = problem.design.random
    several = random is not None and len({t.factor for t in random.terms}) > 1
    return several or bool(fit.aux) or registry.named(fit.estimator).many is None


# ---------------------------------------------------------------- frequencies
@frozen(eq=False)
class CaseDraw:
    """Multinomial counts of n rows with equal probability, one byte each."""

    n: int

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        return row_counts(rng, self.n, b)


@frozen(eq=False)
class CountedDraw:
    """Multinomial counts of Σ freq draws from rows that have counts, as multiples of these."""

    freq: np.ndarray

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        return rng.multinomial(round(self.freq.sum()), self.freq / self.freq.sum(), size=b) / self.freq


@frozen(eq=False)
class GroupDraw:
    """Whole groups with replacement: every row counts as often as its group was drawn."""

    groups: np.ndarray

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        return row_counts(rng, int(self.groups.max()) + 1, b)[:, self.groups]


@frozen(eq=False)
class BayesDraw:
    """Dirichlet(1, …, 1) weights times n; of groups where groups are given; a counted row gets Gamma(count)/count."""

    n: int
    freq: np.ndarray | None
    groups: np.ndarray | None

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        if self.groups is not None:
            weight = rng.standard_exponential((b, int(self.groups.max()) + 1))[:, self.groups]
        elif self.freq is not None:
            weight = rng.standard_gamma(self.freq, size=(b, self.n)) / self.freq
        else:
            weight = rng.standard_exponential((b, self.n))
        counts = np.ones(self.n) if self.freq is None else self.freq
        return weight * (counts.sum() / (weight @ counts))[:, None]


@frozen(eq=False)
class LeaveOut:
    """Replicate i leaves out the rows of fold i (0/1 factors, nothing random), or one copy of a row that has a count."""

    folds: np.ndarray
    freq: np.ndarray | None = None

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        out = self.folds[None, :] == np.arange(start, start + b)[:, None]
        return 1.0 - (out if self.freq is None else out / self.freq)


# ---------------------------------------------------------------- responses
@frozen(eq=False)
class ResidualDraw:
    """μ̂ + s ∘ (a resampled standardised residual): s_i = 1/√w_i."""

    mu: np.ndarray
    residual: np.ndarray
    scale: np.ndarray | None

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        drawn = self.residual[rng.integers(0, len(self.residual), size=(b, len(self.mu)))]
        return self.mu + (drawn if self.scale is None else drawn * self.scale)


WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])


@frozen(eq=False)
class WildDraw:
    """μ̂ + ê v: v = ±1 (Rademacher), or Webb's six points where few groups share a v."""

    mu: np.ndarray
    residual: np.ndarray
    groups: np.ndarray | None
    values: np.ndarray

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        units = len(self.mu) if self.groups is None else int(self.groups.max()) + 1
        v = self.values[rng.integers(0, len(self.values), size=(b, units), dtype=np.uint8)]
        return self.mu + self.residual * (v if self.groups is None else v[:, self.groups])


@frozen(eq=False)
class ParametricDraw:
    """y* from the fitted distribution of every row; new random effects b = σTu for every group, as bootMer.

    eta    (n,)  linear predictor of the fixed part, offset included (mixed models), else unused
    terms  ((group (n,), Z (n, k), σT (k, k)), …)
    """

    family: Any
    link: Any
    mu: np.ndarray
    dispersion: float
    weights: np.ndarray | None
    eta: np.ndarray | None = None
    terms: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...] = ()

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        return np.stack([y for y, _ in self.each(rng, b)])

    def each(self, rng: np.random.Generator, b: int) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """b responses (n,), each with the random effects that were drawn for it, (G, k) of each term."""
        for _ in range(b):
            effects, eta, mu = [], self.eta, self.mu
            for group, Z, T in self.terms:
                effects.append(rng.standard_normal((int(group.max()) + 1, len(T))) @ T.T)
                eta = eta + np.einsum("nk,nk->n", Z, effects[-1][group])
            if self.terms:
                mu = np.asarray(self.link.inverse(eta))
            yield self.family.sample(rng, mu, self.dispersion, self.weights), effects


# ---------------------------------------------------------------- makers
def _independent_rows(problem: Problem, name: str) -> None:
    if problem.design.random is not None:
        groups = ", ".join(t.factor for t in problem.design.random.terms)
        raise Refused(
            f"scheme={name!r} resamples rows on their own, and this model groups them by {groups}.",
            where="infer()",
            do="Use scheme='parametric', or scheme='group' with one grouping factor.",
        )


def _linear(problem: Problem, name: str) -> None:
    _independent_rows(problem, name)
    if problem.family.name != "gaussian" or problem.link.name != "identity":
        raise Refused(
            f"scheme={name!r} moves residuals between rows, which needs a linear model; this is {problem.family.name}.",
            where="infer()",
            do="Use scheme='case', 'bayes' or 'parametric'.",
        )


def _group_codes(problem: Problem, groups: np.ndarray | None) -> np.ndarray:
    """Code of each row's group: the clusters named, or the one grouping factor of a mixed model."""
    random = problem.design.random
    if random is None:
        if groups is None:
            raise Refused("scheme='group' needs to know the groups.", where="infer()", do="Name their column: cluster='g'.")
        return groups
    if len({t.factor for t in random.terms}) > 1:
        factors = ", ".join(sorted({t.factor for t in random.terms}))
        raise Refused(
            f"whole groups cannot be drawn with several grouping factors: {factors}.", where="infer()", do="Use scheme='parametric'."
        )
    own = random.terms[0].group
    if groups is None:
        return own
    if len(np.unique(own.astype(np.int64) * (int(groups.max()) + 1) + groups)) > len(random.terms[0].levels):
        raise Refused(f"the clusters cut through the levels of {random.terms[0].factor!r}.", where="infer()", do="Leave cluster= out.")
    return groups


@scheme("case", unit="row", said="draws rows with replacement")
def case(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    _independent_rows(problem, "case")
    freq = problem.design.freq
    return CaseDraw(problem.design.n) if freq is None else CountedDraw(freq)


@scheme("group", unit="group", said="draws whole groups with replacement")
def group(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    return GroupDraw(_group_codes(problem, groups))


@scheme("bayes", unit="row", said="weighs {units} by a flat Dirichlet draw")
def bayes(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    if problem.design.random is not None:
        groups = _group_codes(problem, groups)
    return BayesDraw(problem.design.n, problem.design.freq, groups)


def _leverage(problem: Problem) -> np.ndarray:
    design = problem.design
    return leverage(design.X, triangular(design.X, design.total_weights), design.total_weights)


def _scaled_residuals(problem: Problem, fit: FitState) -> np.ndarray:
    """√w (y − μ̂)/√(1 − h), on one common variance."""
    raw = problem.design.y - fit.mu
    if problem.design.weights is not None:
        raw = raw * np.sqrt(problem.design.weights)
    return raw / np.sqrt(np.maximum(1 - _leverage(problem), 1e-12))


@scheme("residual", unit="response", said="adds a resampled standardised residual to each fitted value")
def residual(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    _linear(problem, "residual")
    if groups is not None:
        raise Refused("scheme='residual' takes residuals as independent.", where="infer()", do="Use scheme='wild' with cluster=.")
    standard = _scaled_residuals(problem, fit)
    weights = problem.design.weights
    return ResidualDraw(fit.mu, standard - standard.mean(), None if weights is None else 1 / np.sqrt(weights))


@scheme("wild", unit="response", said="flips or scales each residual at random, {unit} by {unit}")
def wild(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    _linear(problem, "wild")
    design, few = problem.design, groups is not None and int(groups.max()) + 1 < 12
    if groups is None:
        size = (design.y - fit.mu) / np.sqrt(np.maximum(1 - _leverage(problem), 1e-12))
    else:
        root = np.ones((design.n, 1)) if design.weights is None else np.sqrt(design.weights)[:, None]
        Q = root * design.X @ np.linalg.inv(triangular(design.X, design.total_weights))
        size = cluster_residuals(Q, root[:, 0] * (design.y - fit.mu), groups) / root[:, 0]
    return WildDraw(fit.mu, size, groups, WEBB if few else np.array([-1.0, 1.0]))


@scheme("parametric", unit="response", said="draws every response from the fitted distribution")
def parametric(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    design, family = problem.design, problem.family
    if family.sample is None:
        raise Refused(f"family {family.name!r} has no distribution to draw from.", where="infer()", do="Use scheme='case'.")
    if design.weights is not None and family.name in ("poisson", "negbinomial"):
        what = f"prior weights make a {family.name} response neither {family.name} nor anything else that could be drawn."
        raise Refused(what, where="infer()", do="Use scheme='case', or freq_weights= where the weights are counts.")
    if groups is not None:
        raise Refused("scheme='parametric' draws as the model says: it has no clusters.", where="infer()", do="Leave cluster= out.")
    if design.random is None:
        return ParametricDraw(family, problem.link, fit.mu, fit.dispersion, design.weights)
    fixed = design.X @ fit.coef
    return ParametricDraw(
        family,
        problem.link,
        fit.mu,
        fit.dispersion,
        design.weights,
        fixed if design.offset is None else fixed + design.offset,
        tuple((t.group, t.Z, fit.sigma * T) for t, T in zip(design.random.terms, term_factors(design.random, fit.theta))),
    )


@scheme("jackknife", unit="row", said="leaves out one {unit}")
def jackknife(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    if groups is not None or problem.design.random is not None:
        return LeaveOut(_group_codes(problem, groups))
    return LeaveOut(np.arange(problem.design.n), problem.design.freq)


def expanded(problem: Problem, fit: FitState, groups: np.ndarray | None) -> tuple[Problem, FitState, np.ndarray | None]:
    """Counted rows written out: a row of count 3 then has three of its own, a counted group three groups like it."""
    design = problem.design
    if design.freq is None:
        return problem, fit, groups
    counts = design.freq.astype(int)
    index = np.repeat(np.arange(design.n), counts)
    copy = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)

    def some(x: np.ndarray | None) -> np.ndarray | None:
        return None if x is None else x[index]

    random = design.random
    if random is not None:
        from ..estimate.lmm import rows_and_counts  # here: no other model waits for it

        whole = rows_and_counts(design)[1] is not None
        random = evolve(random, terms=tuple(_repeated(t, index, copy if whole else None) for t in random.terms))
    changes: dict[str, Any] = {"y": some(design.y), "weights": some(design.weights), "offset": some(design.offset)}
    long = evolve(design, X=design.X[index], freq=None, random=random, rows=design.rows[index], **changes)
    working = None if fit.working is None else (fit.working / design.freq)[index]
    fit = evolve(fit, eta=fit.eta[index], mu=fit.mu[index], working=working)
    return evolve(problem, design=long, data=None), fit, some(groups)


def _repeated(term: RETerm, index: np.ndarray, copy: np.ndarray | None) -> RETerm:
    """The term on repeated rows; `copy` (n,) says which copy of its group a row belongs to, None: the same group."""
    group = term.group[index]
    if copy is None:
        return evolve(term, group=group, Z=term.Z[index])
    pairs, group = np.unique(np.stack((group, copy)), axis=1, return_inverse=True)
    return evolve(term, levels=tuple(f"{term.levels[g]}.{c}" for g, c in pairs.T), group=group.reshape(-1), Z=term.Z[index])
