"""Which linear hypothesis does a test of a term mean, by types 1, 2 and 3?

    hypotheses(problem, type) → one Hypothesis per term but the intercept: Lβ = 0 within Mβ = 0

type 1   sequential: each term after those before it (R's anova)
type 2   each term after all that do not contain it (car's Anova)
type 3   differences between equally weighted cell means, numeric variables at their mean (emmeans' joint_tests) or at 0 (SAS, lmerTest):
         the same for every coding. Cells without data leave fewer degrees of freedom; they are said.

Source: Searle (1987) ch. 12.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import numpy as np
import polars as pl
from attrs import frozen

from ..errors import Refused
from ..kernels.linalg import independent_of_earlier, triangular
from ..state.design import Problem

SAME_DIRECTION = 1e-9  # what must be left of a unit row of L after the earlier ones
ESTIMABLE = 1e-8  # how far a unit row of L may point out of the row space of X


@frozen(eq=False)
class Hypothesis:
    """Lβ = 0 within Mβ = 0: a term's test, and the terms that are left out on both sides (types 1 and 2).

    label    the term
    L        (q, p)  None: nothing of the term can be estimated
    within   (m, p)  constraints of the larger model
    note     what is not estimable; empty: all is
    """

    label: str
    L: np.ndarray | None
    within: np.ndarray
    note: str = ""


def hypotheses(problem: Problem, type: int, covariates: str = "mean", sas: bool = False) -> list[Hypothesis]:
    """One hypothesis per term but the intercept, on the coefficients kept.

    sas  as SAS and lmerTest: in type 2 a term is contained in another only if both have the same numeric variables, not in every term that
         has all its variables (car); type 1 takes its rows from the Doolittle factor of XᵀX, which a df2 made of single rows' df sees
    """
    design, terms = problem.design, problem.encoder.terms
    p = design.X.shape[1]
    eye = np.eye(p)
    doolittle = triangular(design.X) if sas and type == 1 else eye
    doolittle = doolittle / np.diag(doolittle)[:, None]
    out = []
    for t, info in enumerate(terms):
        if not info.factors:
            continue
        own = np.asarray(design.term_of) == t
        if type == 3:
            out.append(_type3(problem, t, covariates))
            continue
        numbers = [set(numeric_pieces(pieces)) for pieces in problem.encoder.pieces]
        contains = [set(info.factors) < set(o.factors) and (not sas or numbers[t] == numbers[k]) for k, o in enumerate(terms)]
        others = np.asarray(design.term_of) > t if type == 1 else np.array([contains[k] for k in design.term_of], dtype=bool)
        whole = info.columns.stop - info.columns.start
        note = "" if own.sum() == whole else f"{info.label}: {whole - int(own.sum())} of {whole} columns are combinations of earlier ones"
        within = eye[:0] if sas and type == 1 else eye[others]
        out.append(Hypothesis(info.label, doolittle[own] if own.any() else None, within, note))
    return out


def numeric_pieces(pieces: tuple) -> list:
    return [piece.expr for piece in pieces if piece.matrix is None]


def _factors(pieces: tuple) -> list:
    return [piece.expr for piece in pieces if piece.matrix is not None]


def _type3(problem: Problem, t: int, covariates: str) -> Hypothesis:
    """The components of the cell means that term t brings into the model, all columns of its numbers.

    A component is a set of factors: differences over their levels, equal weights over the levels of all other factors. Term t owns those
    of its components that no smaller term has (so g in 0 + g, and b within a in a + a:b, are tested whole).
    """
    encoder, design = problem.encoder, problem.design
    pieces = encoder.pieces[t]
    factors, numbers = _factors(pieces), numeric_pieces(pieces)
    smaller = [
        set(_factors(other))
        for other in encoder.pieces
        if set(numeric_pieces(other)) == set(numbers) and set(_factors(other)) < set(factors) and (numbers or other)
    ]
    held = _held_values(problem) if covariates == "mean" else {}
    rows = [
        row
        for size in range(0 if numbers else 1, len(factors) + 1)
        for component in combinations(factors, size)
        if not any(set(component) <= other for other in smaller)
        for row in _component_rows(encoder, component, pieces, held)
    ]
    L = np.array(rows).reshape(len(rows), len(encoder.columns))
    label = encoder.terms[t].label
    estimable = L if design.kept.all() else _estimable_part(problem, L)
    none = np.empty((0, design.X.shape[1]))
    if not len(estimable):
        return Hypothesis(label, None, none, f"{label}: not estimable, for lack of data in some cells")
    lost = int(independent_of_earlier(L.T, SAME_DIRECTION).sum()) - len(estimable) if not design.kept.all() else 0
    note = f"{label}: {lost} of {lost + len(estimable)} differences are not estimable, for lack of data in some cells" if lost > 0 else ""
    return Hypothesis(label, estimable[:, design.kept], none, note)


def _component_rows(encoder: Any, component: tuple, own: tuple, held: dict) -> Iterator[np.ndarray]:
    """Rows (P,) of the contrasts of one component: over the levels of its factors, and every column of the term's numbers."""
    sizes = {piece.expr: len(piece.names) if piece.matrix is None else len(piece.matrix) - 1 for piece in own}
    varying = [piece.expr for piece in own if piece.matrix is None or piece.expr in component]
    for choice_ in product(*(range(sizes[e]) for e in varying)):
        at = dict(zip(varying, choice_))
        row = np.zeros(len(encoder.columns))
        for info, pieces in zip(encoder.terms, encoder.pieces):
            if not set(at) <= {piece.expr for piece in pieces}:
                continue
            block = np.ones(1)
            for piece in pieces:
                block = np.kron(_lent(piece, at, held), block)
            row[info.columns] = block
        yield row


def _lent(piece: Any, at: dict, held: dict) -> np.ndarray:
    """What one piece of a term contributes to a contrast, by its columns."""
    if piece.matrix is None:
        if piece.expr in at:
            return np.eye(len(piece.names))[at[piece.expr]]
        return held.get(piece.expr, np.zeros(len(piece.names)))
    if piece.expr in at:
        return piece.matrix[at[piece.expr] + 1] - piece.matrix[0]
    return piece.matrix.mean(axis=0)


def _held_values(problem: Problem) -> dict:
    """The columns (m,) of each numeric piece with every variable at its mean."""
    encoder = problem.encoder
    row = pl.DataFrame({v.name: [v.levels[0] if v.mean is None else v.mean] for v in encoder.variables.values()})
    columns = encoder.values(row)
    exprs = {e for pieces in encoder.pieces for e in numeric_pieces(pieces)}
    return {e: np.atleast_1d(np.squeeze(columns(e).values)) for e in exprs}


def _estimable_part(problem: Problem, L: np.ndarray) -> np.ndarray:
    """A basis of the combinations of rows of L (q, P) that the data determine: those orthogonal to what X (n, P) sends to 0."""
    design = problem.design
    if problem.data is None:
        raise Refused(
            "some coefficients are not estimable, and without the data it is not known which contrasts are.",
            where="infer(how='joint')",
            do="Save the model with data=True, or use type=2.",
        )
    X = triangular(problem.encoder.rows(problem.data, offset=False).X)
    size = np.sqrt(np.einsum("ij,ij->j", X, X))
    size[size == 0] = 1.0
    solution = np.linalg.lstsq(X[:, design.kept] / size[design.kept], X[:, ~design.kept] / size[~design.kept], rcond=None)[0]
    null = np.zeros((X.shape[1], int((~design.kept).sum())))
    null[design.kept] = -solution
    null[~design.kept] = np.eye(null.shape[1])
    null /= size[:, None]
    L = L[independent_of_earlier(L.T, SAME_DIRECTION)]
    out = L @ null
    scale = np.sqrt(np.einsum("ij,ij->i", L, L))[:, None] * np.sqrt(np.einsum("ij,ij->j", null, null))
    left, value, _ = np.linalg.svd(out / scale.max(initial=1e-300), full_matrices=True)
    rank = int((value > ESTIMABLE).sum())
    return left[:, rank:].T @ L
