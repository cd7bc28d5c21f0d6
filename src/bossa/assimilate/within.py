"""Random effects that live inside one batch (its own subjects, schools, litters): integrated out, so that only coefficients are carried.

    y = Xβ + ZTu + e,   u ~ N(0, σ²I)        given the relative variances θ of a fit, which are taken as known

Linear: exactly. Of the triangular factor of [[ZT, X, y], [I, 0, 0]] the rows below the random effects are those of (I + ZTTᵀZᵀ)^{-½}[X, y],
and its first diagonal is half of log|I + ZTTᵀZᵀ|. Other families: Laplace's approximation of ∫ p(y|β, u) N(u; 0, I) du with its exact
slope in β (`kernels.pirls`). Groups are told apart by their labels, so new ones may come; a group in two batches is an error.

Source: Bates, Mächler, Bolker & Walker (2015) §2; Pinheiro & Bates (1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from attrs import field, frozen

from ..errors import DataError
from ..kernels import blocks
from ..kernels.linalg import upper
from ..kernels.pirls import Mixed, laplace
from ..kernels.response import constants, make_response
from ..kernels.systems import system
from ..state.design import REStructure, RETerm
from ..state.fields import array
from ..state.fit import FitState
from ..state.spec import Call
from ..types import Floats, Ints


@frozen(kw_only=True, eq=False)
class Within:
    """The random-effects terms of a stream whose groups lie inside batches.

    theta  (t,) relative variance parameters;  factors, names, masks, columns: of each term, the columns of the data that make its groups
    seen   factor and label of every group so far, and its batch;  sigma: of the fit
    whole  counts are of whole groups, each copy with random effects of its own; else of rows within their group
    """

    theta: np.ndarray = array("t")
    factors: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    masks: tuple[Any, ...]
    columns: tuple[tuple[str, ...], ...]
    seen: dict = field(factory=dict)
    sigma: float = 1.0
    whole: bool = False


@frozen(kw_only=True, eq=False)
class Grouped:
    """Random effects of the rows of one batch: terms with their groups, theta (t,), whole as in `Within`."""

    terms: tuple[RETerm, ...]
    theta: np.ndarray = array("t")
    whole: bool = False


def within_of(encoder: Any, random: REStructure, fit: FitState, batch: Ints, whole: bool) -> Within | None:
    """The terms, where every group lies inside one batch and is told by columns of the data; else None.

    batch (n,): of each row;  whole: counts are of whole groups
    """
    columns = tuple(tuple(column_of(part) for part in term.parts) for term in encoder.varying)
    if any(name not in encoder.variables for names in columns for name in names):
        return None
    for term in random.terms:
        low, high = np.full(len(term.levels), np.inf), np.full(len(term.levels), -np.inf)
        np.minimum.at(low, term.group, batch)
        np.maximum.at(high, term.group, batch)
        if (low != high).any():
            return None
    names, masks = tuple(t.names for t in random.terms), tuple(np.asarray(t.mask) for t in random.terms)
    factors, theta = tuple(t.factor for t in random.terms), np.asarray(fit.theta)
    return Within(theta=theta, factors=factors, names=names, masks=masks, columns=columns, sigma=fit.sigma, whole=whole)


def column_of(part: Any) -> str:
    """The column whose values are the groups of one factor: itself, or numbers taken for a factor."""
    if isinstance(part, Call) and part.function == "factor" and len(part.args) == 1 and not part.kwargs:
        return str(part.args[0])
    return str(part)


def labels_of(within: Within, frame: pl.DataFrame) -> list[np.ndarray]:
    """The group (n,) of each row as text, for each term."""
    made = []
    for names in within.columns:
        text = frame.select(pl.concat_str([pl.col(n).cast(pl.String) for n in names], separator=":").alias("g"))
        made.append(text.get_column("g").to_numpy().astype(object))
    return made


def grouped(within: Within, labels: Sequence[np.ndarray], Z: Sequence[Floats], rows: Ints) -> Grouped:
    """The random effects of some rows."""
    terms = []
    for factor, names, mask, text, z in zip(within.factors, within.names, within.masks, labels, Z):
        levels, group = np.unique(text[rows].astype(str), return_inverse=True)
        terms.append(
            RETerm(factor=factor, names=names, levels=tuple(levels.tolist()), group=group, Z=np.ascontiguousarray(z[rows]), mask=mask)
        )
    return Grouped(terms=tuple(terms), theta=within.theta, whole=within.whole)


def met(within: Within, batch: Any, found: Grouped) -> dict:
    """The groups seen, with those of a new batch; DataError for a group that an earlier batch had."""
    seen = dict(within.seen)
    for term in found.terms:
        for level in term.levels:
            key = f"{term.factor}={level}"
            if key in seen:
                what = f"group {level!r} of {term.factor!r} was in batch {seen[key]!r}, and its random effect was integrated out with it."
                do = "Begin the stream with data in which groups span batches: they are then carried."
                raise DataError(what, where=f"batch {batch!r}", do=do)
            seen[key] = batch
    return seen


def counts_of(found: Grouped, freq: Floats, batch: Any) -> Floats:
    """How often each group of the first term counts (G,); DataError where the counts are not of whole groups."""
    term = found.terms[0]
    count = np.zeros(len(term.levels))
    count[term.group] = freq
    if (count[term.group] != freq).any():
        what = "counts differ within a group, and the stream began with counts of whole groups."
        raise DataError(what, where=f"batch {batch!r}", do="Repeat the rows instead of counting them.")
    return count


def components(terms: Sequence[RETerm]) -> Ints:
    """A code (n,) for rows that share groups, directly or through others."""
    code, before = np.asarray(terms[0].group), None
    while before is None or (code != before).any():
        before = code
        for term in terms:
            low = np.full(len(term.levels), len(code))
            np.minimum.at(low, term.group, code)
            code = low[term.group]
    return code


def integrated(found: Grouped, A: Floats, count: Floats | None = None) -> tuple[Floats, float]:
    """Triangular factor of (I + ZTTᵀZᵀ)^{-½} A and ½ log|I + ZTTᵀZᵀ|.   A (n, m): rows in units of their own sd, Z with them

    found  its Z multiplied by the same;  count (G,)  copies of each group, each with random effects of its own
    """
    T = term_factors(found)
    code = components(found.terms)
    left, logdet = [np.zeros((0, A.shape[1]))], 0.0
    for c in np.unique(code):
        rows = np.flatnonzero(code == c)
        random = [_spread_out(term.group[rows], term.Z[rows] @ t) for term, t in zip(found.terms, T)]
        ZT = np.hstack(random)
        q = ZT.shape[1]
        R = upper(np.vstack((np.hstack((ZT, A[rows])), np.eye(q, q + A.shape[1]))))
        copies = 1.0 if count is None else float(count[found.terms[0].group[rows[0]]])
        logdet += copies * float(np.log(np.abs(np.diag(R)[:q])).sum())
        left.append(math.sqrt(copies) * R[q:, q:])
    return upper(np.vstack(left)), logdet


def _spread_out(group: Ints, Z: Floats) -> Floats:
    """Z (n, k) as (n, G k), a block of columns for each group there."""
    levels, code = np.unique(group, return_inverse=True)
    out = np.zeros((len(Z), len(levels), Z.shape[1]))
    out[np.arange(len(Z)), code] = Z
    return out.reshape(len(Z), -1)


def term_factors(found: Grouped) -> list[Floats]:
    """T (k, k) of each term."""
    made, at = [], 0
    for term in found.terms:
        free = np.asarray(term.mask)
        T = np.zeros(free.shape)
        T.T[free.T] = found.theta[at : at + int(free.sum())]  # column by column
        at += int(free.sum())
        made.append(T)
    return made


def marginal(rows: Any, family: Any, link: Any, beta: Floats) -> tuple[float, Floats, Floats]:
    """Laplace's log-likelihood of β with the random effects integrated out, its slope (k,), and J (k, k), JᵀJ the expected information."""
    found: Grouped = rows.grouped
    count = counts_of(found, rows.freq, rows.batch) if found.whole else None
    s = system(blocks.layout(found.terms), count)
    response = make_response(family, link, rows.y, rows.weights, None if found.whole else rows.freq).rows(s.order)
    offset = np.zeros(len(rows.y)) if rows.offset is None else rows.offset
    model = Mixed(s, response, np.ascontiguousarray(rows.X[s.order].T), offset[s.order])
    with np.errstate(all="ignore"):
        made = laplace(model, beta, found.theta, s.zero())
        value = float(s.total(constants(response))) - 0.5 * float(made.deviance)
        information = made.mode.factor.reduced(model.XT)
    k = len(beta)
    if not (math.isfinite(value) and made.mode.arrived.all() and np.isfinite(information).all()):
        return -math.inf, np.full(k, np.nan), np.full((k, k), np.nan)
    values, vectors = np.linalg.eigh(information)
    return value, -0.5 * made.gradient[:k], (vectors * np.sqrt(np.maximum(values, 0.0))).T
