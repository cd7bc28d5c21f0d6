"""The same model with one question answered in advance: rotated so that ℓᵀβ is a coefficient, and fitted with that held at a value.

    Xβ = X̃γ,   γ_j = ℓᵀβ for the column j where ℓ is largest, γ_i = β_i for the others;   held: γ_j = c goes to the offset

So a profile, a null distribution and a constrained refit need no solver of their own: weights, links and random effects come along.
"""

from __future__ import annotations

import numpy as np
from attrs import evolve

from ..state.design import FitOptions, Problem
from ..types import Floats


def pivot(row: Floats) -> int:
    """The coefficient that ℓᵀβ takes the place of."""
    return int(np.argmax(np.abs(row)))


def rotated(problem: Problem, row: Floats) -> Problem:
    """The problem with the coefficient `pivot(row)` replaced by ℓᵀβ.   row ℓ (p,)"""
    design, j = problem.design, pivot(row)
    if row[j] == 1.0 and np.count_nonzero(row) == 1:
        return problem
    X = design.X - np.outer(design.X[:, j], row / row[j])
    X[:, j] = design.X[:, j] / row[j]
    return evolve(problem, design=evolve(design, X=X))


def held(problem: Problem, row: Floats, value: float) -> Problem:
    """The problem with ℓᵀβ = value: one column less, its part in the offset."""
    design, j = rotated(problem, row).design, pivot(row)
    others = np.arange(design.X.shape[1]) != j
    offset = design.X[:, j] * value
    options = FitOptions(nagq=problem.options.nagq, optimizer=problem.options.optimizer, max_iter=problem.options.max_iter)
    smaller = evolve(
        design,
        X=design.X[:, others],
        names=tuple(name for name, k in zip(design.names, others) if k),
        term_of=design.term_of[others],
        columns=tuple(name for name, k in zip(design.names, others) if k),
        kept=np.ones(int(others.sum()), dtype=bool),
        offset=offset if design.offset is None else design.offset + offset,
    )
    return evolve(problem, design=smaller, options=options)
