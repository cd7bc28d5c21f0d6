"""A mixed model as a linear one that learns: the random effects join the coefficients, with a prior that the variances set.

    y = Xβ + Z T u + e,   u ~ N(0, σ² I),   b = T u          state (β, u), X* = [X, Z T]

So groups may span batches in any way, and the last state is the fit's own (fixed effects, standard errors and all), exactly, given the
relative variances θ of the fit, which are taken as known. Zero variances need no care: T may be singular. Of a generalized mixed model
the state is the joint mode of (β, u) with its curvature, as the fit's with nagq=0. Where no group spans batches, nothing of u is
carried: see `within`.

Source: Henderson (1950) for the joint equations; Bates et al. (2015) eq. 4 for u.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve, field, frozen

from ..errors import DataError, NotYet, Refused
from ..estimate.lmm import rows_and_counts
from ..kernels.linalg import upper
from ..state.design import Problem, REStructure
from ..state.fields import array
from ..state.fit import FitState
from ..state.target import Linear, Target
from ..types import Floats
from .within import Within, within_of

LARGEST = 1_000  # fixed and random effects of a stream


@frozen(kw_only=True, eq=False)
class Varying:
    """Random effects of a stream: T (k, k) of each term, groups of each, how many coefficients are fixed, and σ of the fit."""

    T: tuple[Any, ...] = field(converter=tuple)
    groups: tuple[int, ...]
    names: np.ndarray = array("q")
    fixed: int
    sigma: float = 1.0

    @property
    def q(self) -> int:
        return len(self.names)


@frozen(kw_only=True, eq=False)
class FromFit:
    """What a stream takes from a fit as known: random effects, carried or integrated out, and the shape of the family."""

    varying: Varying | None = None
    within: Within | None = None
    shape: Mapping[str, float] = field(factory=dict)


def varying_of(random: REStructure, theta: Floats, fixed: int, sigma: float, where: str) -> Varying:
    """The random effects of a fitted linear mixed model.   theta (t,) its relative variance parameters"""
    T: list[Any] = []
    names: list[str] = []
    at = 0
    for term in random.terms:
        k = len(term.names)
        free = np.asarray(term.mask)
        own = np.zeros((k, k))
        own.T[free.T] = theta[at : at + int(free.sum())]  # column by column
        at += int(free.sum())
        T.append(own)
        names += [f"{term.factor}[{level}] {name}" for level in term.levels for name in term.names]
    if fixed + len(names) > LARGEST:
        what = f"{fixed} fixed and {len(names)} random effects are more than a stream carries ({LARGEST})."
        raise NotYet(what, where=where, do="Use a factor with fewer levels, or the ordinary fit.")
    groups = tuple(len(term.levels) for term in random.terms)
    return Varying(T=T, groups=groups, names=np.array(names, dtype=object), fixed=fixed, sigma=sigma)


def known_of(problem: Problem, fit: FitState, by: str, where: str) -> FromFit:
    """What a stream whose batches have their ids in column `by` takes from a fit."""
    random, shape = problem.design.random, {k: v for k, v in fit.aux.items() if k in problem.family.aux}
    if random is None or fit.theta is None or by not in problem.data.columns:
        return FromFit(shape=shape)
    batch = problem.data.get_column(by).rank("dense").fill_null(0).to_numpy()
    whole = rows_and_counts(problem.design)[1] is not None
    within = within_of(problem.encoder, random, fit, batch, whole)
    if within is None and whole:
        what = "counts of whole groups, each copy with random effects of its own, cannot be carried where groups span batches."
        raise Refused(what, where=where, do="Repeat the rows with a group for each copy.")
    varying = varying_of(random, np.asarray(fit.theta), len(fit.coef), fit.sigma, where) if within is None else None
    return FromFit(varying=varying, within=within, shape=shape)


def joined(varying: Varying, mean: Floats, U: Floats, drift: Any, weight: float) -> tuple[tuple[str, ...], Floats, Floats, Any]:
    """Names, prior mean and root, and drift of (β, u) from those of β; u stands still.   weight: 1/sd of u"""
    k, q = len(mean), varying.q
    wider = np.zeros((k + q, k + q))
    wider[:k, :k], wider[k:, k:] = U, weight * np.eye(q)
    if isinstance(drift, np.ndarray):
        drift = np.block([[drift, np.zeros((k, q))], [np.zeros((q, k + q))]])
    return tuple(str(n) for n in varying.names), np.concatenate((mean, np.zeros(q))), wider, drift


def without_random(J: Floats, z: Floats, fixed: int) -> tuple[Floats, Floats]:
    """What (J, z) of (β, u) with u ~ N(0, I) says of β alone: (r, fixed), (r,)."""
    q = J.shape[1] - fixed
    whole = np.vstack((np.column_stack((J[:, fixed:], J[:, :fixed], z)), np.eye(q, q + fixed + 1)))
    R = upper(whole)
    return R[q : q + fixed, q : q + fixed], R[q : q + fixed, -1]


def columns(varying: Varying, parts: list[tuple[Any, Floats]], factors: tuple[str, ...]) -> Floats:
    """Z T (n, q) of new rows, group by group.   parts: codes (n,) of the groups and Z (n, k) of each term; nan where missing"""
    n = len(parts[0][0])
    out, at = np.zeros((n, varying.q)), 0
    for (codes, Z), T, G, factor in zip(parts, varying.T, varying.groups, factors):
        if (codes == -1).any():
            what = f"row {int(np.argmax(codes == -1))} (counting from 0) is of a group of {factor!r} that the stream did not begin with."
            raise DataError(what, where="a new batch", do="Begin the stream with data of every group, or leave those rows out.")
        k = Z.shape[1]
        ZT = Z @ T
        rows = np.flatnonzero(codes >= 0)
        for j in range(k):
            out[rows, at + codes[rows] * k + j] = ZT[rows, j]
        out[codes < 0] = np.nan
        at += G * k
    return out


def fixed_part(varying: Varying, target: Target | None, names: tuple[str, ...]) -> Target:
    """The target on (β, u): its own steps after the fixed effects are taken out.   target None: the fixed effects"""
    take = Linear(matrix=np.eye(varying.fixed, varying.fixed + varying.q), label="fixed effects")
    if target is None:
        return Target(labels=pl.DataFrame({"term": list(names)}), steps=(take,), kind="params")
    return evolve(target, steps=(take, *target.steps))
