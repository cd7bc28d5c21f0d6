"""Resampling schemes: what a replicate of the data looks like, and for which models it is valid.

Each scheme is a small frozen object, `draw(rng, start, b) → (b, n)`, made from the problem and its fit by a maker registered with

    @scheme("case", unit="row")
    def case(problem, fit, groups) -> Draw

`unit` says what is drawn: "row" and "group" give factors on the counts of the rows, "response" gives new responses. A maker refuses the
models for which its replicates would not look like new data.

Source: Davison & Hinkley (1997) §3, 6.2; Cameron, Gelbach & Miller (2008) for the clustered wild bootstrap; Rubin (1981) for "bayes".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen

from ..errors import Refused, UnknownOption
from ..kernels.linalg import leverage, triangular
from ..kernels.streams import entropy
from ..state.design import Problem
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
    """Register a maker; `said` completes the sentence "Each replicate …"."""

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
    return Plan(scheme=name, unit=chosen.unit, n=n, rows=problem.design.n, seed=seeds, draw=draw, said=chosen.said)


# ---------------------------------------------------------------- frequencies
@frozen(eq=False)
class CaseDraw:
    """Multinomial counts of n rows with equal probability, or of N counted rows by their counts."""

    n: int
    freq: np.ndarray | None

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        if self.freq is not None:
            total = round(self.freq.sum())
            return rng.multinomial(total, self.freq / self.freq.sum(), size=b) / self.freq
        dtype = np.uint16 if self.n <= 65_535 else np.uint32
        index = rng.integers(0, self.n, size=(b, self.n), dtype=dtype).astype(np.intp)
        index += np.arange(b)[:, None] * self.n
        return np.bincount(index.ravel(), minlength=b * self.n).reshape(b, self.n).astype(float)


@frozen(eq=False)
class GroupDraw:
    """Whole groups with replacement: every row counts as often as its group was drawn."""

    groups: np.ndarray

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        counts = CaseDraw(int(self.groups.max()) + 1, None)(rng, start, b)
        return counts[:, self.groups]


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
    """Replicate i leaves out the rows of fold i: 0/1 factors, nothing random."""

    folds: np.ndarray

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        return (self.folds[None, :] != np.arange(start, start + b)[:, None]).astype(float)


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
        v = self.values[rng.integers(0, len(self.values), size=(b, units))]
        return self.mu + self.residual * (v if self.groups is None else v[:, self.groups])


@frozen(eq=False)
class ParametricDraw:
    """y* from the fitted distribution of every row."""

    family: Any
    mu: np.ndarray
    dispersion: float
    weights: np.ndarray | None

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        return np.stack([self.family.sample(rng, self.mu, self.dispersion, self.weights) for _ in range(b)])


@frozen(eq=False)
class PermuteDraw:
    """base + permuted part; within blocks where `within` (n,) is given; a sign flip of it where `signs`."""

    base: np.ndarray
    part: np.ndarray
    within: np.ndarray | None = None
    signs: bool = False

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        n = len(self.part)
        if self.signs:
            return self.base + self.part * rng.choice([-1.0, 1.0], size=(b, n))
        out = np.empty((b, n))
        for i in range(b):
            if self.within is None:
                out[i] = self.part[rng.permutation(n)]
            else:
                out[i, np.argsort(self.within, kind="stable")] = self.part[np.lexsort((rng.random(n), self.within))]
        return self.base + out


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
    if groups is not None:
        return groups
    random = problem.design.random
    if random is None:
        raise Refused("scheme='group' needs to know the groups.", where="infer()", do="Name their column: cluster='g'.")
    if len({t.factor for t in random.terms}) > 1:
        factors = ", ".join(sorted({t.factor for t in random.terms}))
        raise Refused(f"whole groups cannot be drawn when factors cross: {factors}.", where="infer()", do="Use scheme='parametric'.")
    return random.terms[0].group


@scheme("case", unit="row", said="draws rows with replacement")
def case(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    _independent_rows(problem, "case")
    return CaseDraw(problem.design.n, problem.design.freq) if groups is None else GroupDraw(groups)


@scheme("group", unit="group", said="draws whole groups with replacement")
def group(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    return GroupDraw(_group_codes(problem, groups))


@scheme("bayes", unit="row", said="weighs rows by a flat Dirichlet draw")
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


@scheme("wild", unit="response", said="flips or scales each residual at random, row by row or group by group")
def wild(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    _linear(problem, "wild")
    few = groups is not None and int(groups.max()) + 1 < 12
    size = problem.design.y - fit.mu
    if groups is None:
        size = size / np.sqrt(np.maximum(1 - _leverage(problem), 1e-12))
    return WildDraw(fit.mu, size, groups, WEBB if few else np.array([-1.0, 1.0]))


@scheme("parametric", unit="response", said="draws every response from the fitted distribution")
def parametric(problem: Problem, fit: FitState, groups: np.ndarray | None) -> Draw:
    if problem.family.sample is None:
        raise Refused(f"family {problem.family.name!r} has no distribution to draw from.", where="infer()", do="Use scheme='case'.")
    return ParametricDraw(problem.family, fit.mu, fit.dispersion, problem.design.weights)
