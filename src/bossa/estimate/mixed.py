"""A generalized linear mixed problem as the arrays of its search, and what its fit hands on to later questions."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from ..kernels import blocks
from ..kernels.pirls import Mixed
from ..kernels.response import make_response
from ..kernels.systems import system
from ..state.design import Problem
from ..types import Bools, Floats
from .glm import _coordinates
from .lmm import rows_and_counts


@frozen(eq=False)
class MixedEngine:
    """What later questions and refits need of a generalized mixed fit.

    x        (m,)   (β, θ, γ) of the search: θ here is σT, γ the log dispersion parameter; for nagq = 0 without β
    hessian  (m, m) of D in x
    vcov_rx  (p, p) covariance of β̂ at known θ
    sd       (q,)   conditional standard deviations, in the order of FitState.b
    """

    x: Floats
    hessian: Floats
    vcov_rx: Floats
    sd: Floats
    nagq: int


@frozen(eq=False)
class Prepared:
    """A problem as arrays: kept (P,) columns of X; the search's columns are X basis, None: X itself."""

    model: Mixed
    kept: Bools
    basis: Floats | None
    notes: tuple[str, ...]


def prepare(problem: Problem) -> Prepared:
    """Rows in the order of the random-effects system, X's columns as far as rank allows."""
    design = problem.design
    assert design.random is not None
    assert design.y is not None
    kept, basis = _coordinates(design.X)
    X = design.X if kept.all() else design.X[:, kept]
    X = X if basis is None else X @ basis
    _, count, notes = rows_and_counts(design)
    s = system(blocks.layout(design.random.terms), count)
    response = make_response(problem.family, problem.link, design.y, design.weights, None if count is not None else design.freq)
    offset = np.zeros(design.n) if design.offset is None else np.asarray(design.offset)
    model = Mixed(s, response.rows(s.order), np.ascontiguousarray(X[s.order].T), offset[s.order])
    return Prepared(model, kept, basis, notes)
