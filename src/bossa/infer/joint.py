"""Does a term matter at all? One test per term of the formula, or one of all rows of a question.

    H0: Lβ = c;      W = (Lβ̂ − c)ᵀ (L V Lᵀ)⁻¹ (Lβ̂ − c);      F = W/q against F(q, df2), or χ²(q) where df2 is infinite

type 1   sequential: each term after those before it (R's anova)
type 2   each term after all that do not contain it (car's Anova)
type 3   differences between equally weighted cell means, numeric variables at their mean (emmeans' joint_tests) or at 0 (SAS, lmerTest):
         the same for every coding. Cells without data leave fewer degrees of freedom; they are said.

test="lr" compares deviances of refits under Lβ = c instead (generalized linear models).

Source: Searle (1987) ch. 12 for types 2 and 3 as hypotheses on cell means; Fai & Cornelius (1996) for df2 where every contrast has its
own df; Johansen (1980) for unequal variances.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import attrs
import numpy as np
import polars as pl
from attrs import evolve, field, frozen

from ..errors import BossaWarning, OptionError, Refused
from ..estimate import registry
from ..explore.diagnose import is_linear
from ..kernels.intervals import f_tail
from ..kernels.linalg import independent_of_earlier, triangular
from ..kernels.sandwich import CellVariances, welch_james
from ..state.design import Problem
from ..state.fields import choice, option_owner
from ..state.fit import FitState
from ..state.inference import JointTestState
from ..state.target import Target
from . import backend
from .covariance import DF_RULES, ERRORS, Covariance, MixedDf, covariance, degrees

ROMAN = {1: "I", 2: "II", 3: "III"}
SAME_DIRECTION = 1e-9  # what must be left of a unit row of L after the earlier ones
ESTIMABLE = 1e-8  # how far a unit row of L may point out of the row space of X


def _known_type(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
    if isinstance(value, bool) or value not in (1, 2, 3):
        raise OptionError(f"type={value!r} is not 1, 2 or 3.", where=option_owner(instance))


@frozen(kw_only=True)
class Joint:
    """Options of how="joint".

    type        1 sequential | 2 after all terms that do not contain it | 3 equally weighted cell means
    test        "wald" | "lr" (generalized linear models: refits)
    errors, cluster, df   as for how="asymp"
    covariates  "mean" | "zero": where type 3 holds a numeric variable while it tests terms that interact with it
    """

    type: int = field(default=3, validator=_known_type)
    test: str = choice("wald", among=("wald", "lr"))
    errors: str = choice("iid", among=ERRORS)
    cluster: Any = None
    df: str = choice("auto", among=DF_RULES)
    covariates: str = choice("mean", among=("mean", "zero"))


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


@frozen(eq=False)
class Result:
    """One test: statistic is F, or χ² where df2 is inf."""

    df1: int
    df2: float
    statistic: float
    p_value: float


NOTHING = Result(0, math.nan, math.nan, math.nan)


@backend("joint", Joint)
def joint(problem: Problem, fit: FitState, target: Target, options: Joint) -> JointTestState:
    """A test of each term, or where something was explored one of all its rows."""
    if target.kind == "predictions":
        raise Refused("predictions are not tested.", where="infer(how='joint')", do="Use .jointtest(), or explore() a contrast.")
    c = _covariance(problem, fit, options)
    if target.kind != "params":
        J, estimate = target.jacobian(fit.coef), target.value(fit.coef)
        rows = np.ones(len(J), dtype=bool) if target.estimable is None else np.asarray(target.estimable)
        null = 0.0 if target.back is not None else target.null
        if options.test == "lr":
            raise Refused("it is for the terms of a model.", where="infer(how='joint', test='lr')", do="Use test='wald'.")
        return _state([(f"{int(rows.sum())} rows", wald(c, J[rows], estimate[rows] - null))], c, "joint test of the rows", ())
    mixed = isinstance(c.parts, MixedDf)
    asked = hypotheses(problem, options.type, options.covariates, sas=mixed)
    if options.test == "lr":
        refits = Refits(problem, fit)
        tests = [(h.label, NOTHING if h.L is None else refits.test(h, options.df)) for h in asked]
    else:
        by = np.linalg.inv(triangular(problem.design.X)) if mixed else c.root
        tests = [(h.label, NOTHING if h.L is None else wald(c, *_adjusted(h, fit.coef, by, c.errors))) for h in asked]
    kind = f"type {ROMAN[options.type]}, {'likelihood ratio' if options.test == 'lr' else 'Wald'}"
    notes = [h.note for h in asked if h.note]
    if options.type == 3 and any(_numbers(pieces) for pieces in problem.encoder.pieces):
        notes.append(f"type III: numeric variables held at their {'mean' if options.covariates == 'mean' else 'zero'}")
    return _state(tests, c, kind, tuple(notes))


def _covariance(problem: Problem, fit: FitState, options: Joint) -> Covariance:
    if options.test == "lr":
        where = "infer(how='joint', test='lr')"
        if problem.design.random is not None or is_linear(problem):
            raise Refused("it is for generalized linear models; for linear ones F is it.", where=where, do="Use test='wald'.")
        if options.errors != "iid":
            raise Refused(f"a likelihood ratio has no errors={options.errors!r}.", where=where, do="Use test='wald'.")
    return covariance(problem, fit, options.errors, options.cluster, options.df)


def _state(tests: list[tuple[str, Result]], c: Covariance, kind: str, notes: tuple[str, ...]) -> JointTestState:
    finite = any(math.isfinite(t.df2) for _, t in tests)
    results = [t for _, t in tests]
    frame = pl.DataFrame(
        {
            "term": [label for label, _ in tests],
            "df1": [t.df1 for t in results],
            "df2": pl.Series([t.df2 for t in results], dtype=pl.Float64).fill_nan(None),
            "statistic": pl.Series([t.statistic for t in results], dtype=pl.Float64).fill_nan(None),
            "p_value": pl.Series([t.p_value for t in results], dtype=pl.Float64).fill_nan(None),
        }
    )
    return JointTestState(frame=frame, kind=kind, statistic_name="F" if finite else "χ²", notes=(*c.notes, *notes))


def joint_hypothesis(
    problem: Problem, fit: FitState, L: np.ndarray, null: np.ndarray, errors: str = "iid", cluster: Any = None
) -> JointTestState:
    """One joint test of Lβ = null.   L (q, p), null (q,); frame: df1, df2, statistic, p_value"""
    c = covariance(problem, fit, errors, cluster)
    state = _state([("", wald(c, L, L @ fit.coef - null))], c, "linear hypothesis", ())
    return evolve(state, frame=state.frame.drop("term"))


# ---------------------------------------------------------------- Wald
def wald(c: Covariance, L: np.ndarray, distance: np.ndarray) -> Result:
    """F or χ² test that `distance` (q,), an estimate with Jacobian L (q, p), is 0.

    Dependent rows of L count once. Where every contrast has its own degrees of freedom df2 is Fai and Cornelius's, with one variance per
    cell Johansen's, and for linear mixed models that of `infer/df.py`.
    """
    free = independent_of_earlier(L.T, SAME_DIRECTION)
    L, distance = L[free], distance[free]
    q = len(L)
    if q == 0:
        return NOTHING
    if isinstance(c.parts, MixedDf):
        df1, df2, F, p_value = c.parts.test(L, distance)
        return Result(df1, df2, F, p_value)
    A = L @ c.root
    size = np.sqrt(np.einsum("ij,ij->i", A, A))
    if not (np.isfinite(size).all() and (size > 0).all()):
        return Result(q, c.number, math.nan, math.nan)
    if not independent_of_earlier(A.T, SAME_DIRECTION).all():
        raise Refused(
            f"{q} coefficients are tested at once, and errors={c.errors!r} gives their covariance a lower rank.",
            where="infer(how='joint')",
            do="Use fewer at once, more clusters, or errors='iid'.",
        )
    R = np.linalg.qr((A / size[:, None]).T, mode="r")
    z = np.linalg.inv(R).T @ (distance / size)
    W = float(z @ z)
    if isinstance(c.parts, CellVariances):
        divisor, df2 = welch_james(A, c.parts.cell_df)
        return _result(W * q / divisor, q, df2)
    return _result(W, q, c.number if c.parts is None else _own_df(c, L, A))


def _result(W: float, q: int, df2: float) -> Result:
    return Result(q, df2, W if math.isinf(df2) else W / q, float(f_tail(W / q, q, df2)))


def _own_df(c: Covariance, L: np.ndarray, A: np.ndarray) -> float:
    """df2 of an F statistic made of q independent t² with df ν_m: its mean is Σ ν/(ν − 2)/q.

    Source: Fai & Cornelius (1996) eq. 6.
    """
    nu = degrees(c, np.linalg.svd(A, full_matrices=False)[0].T @ L)
    if len(nu) == 1 or np.ptp(nu) < 1e-8:
        return float(nu.mean())
    if (nu <= 2).any():
        return 2.0
    mean = float((nu / (nu - 2)).sum())
    return 2 * mean / (mean - len(nu))


def _adjusted(h: Hypothesis, coef: np.ndarray, root: np.ndarray, errors: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and values of h.L β̂ as the model without h.within would estimate them: Lβ̂ less its regression on Mβ̂.

    root  (p, m)  of the covariance in which it is regressed: that of the coefficients, as car; (XᵀX)⁻¹ for F tests of mixed models, as
                  lmerTest: the hypothesis then is about cell counts, and does not change with the estimated variances
    """
    L, M = h.L, h.within
    assert L is not None
    if not len(M):
        return L, L @ coef
    A, B = L @ root, M @ root
    size = np.sqrt(np.einsum("ij,ij->i", B, B))
    basis, R = np.linalg.qr((B / size[:, None]).T)
    if len(basis) < len(M) or np.abs(np.diag(R)).min() < SAME_DIRECTION:
        raise Refused(
            f"the covariance by errors={errors!r} has too low a rank for sequential tests.",
            where="infer(how='joint')",
            do="Use type=3, more clusters, or errors='iid'.",
        )
    L = L - A @ basis @ np.linalg.inv(R).T @ (M / size[:, None])
    return L, L @ coef


# ---------------------------------------------------------------- what each type tests
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
        numbers = [set(_numbers(pieces)) for pieces in problem.encoder.pieces]
        contains = [set(info.factors) < set(o.factors) and (not sas or numbers[t] == numbers[k]) for k, o in enumerate(terms)]
        others = np.asarray(design.term_of) > t if type == 1 else np.array([contains[k] for k in design.term_of], dtype=bool)
        whole = info.columns.stop - info.columns.start
        note = "" if own.sum() == whole else f"{info.label}: {whole - int(own.sum())} of {whole} columns are combinations of earlier ones"
        within = eye[:0] if sas and type == 1 else eye[others]
        out.append(Hypothesis(info.label, doolittle[own] if own.any() else None, within, note))
    return out


def _numbers(pieces: tuple) -> list:
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
    factors, numbers = _factors(pieces), _numbers(pieces)
    smaller = [
        set(_factors(other))
        for other in encoder.pieces
        if set(_numbers(other)) == set(numbers) and set(_factors(other)) < set(factors) and (numbers or other)
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
    exprs = {e for pieces in encoder.pieces for e in _numbers(pieces)}
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


# ---------------------------------------------------------------- likelihood ratio
class Refits:
    """Deviances of the model under linear constraints, each fitted once."""

    def __init__(self, problem: Problem, fit: FitState):
        self.problem, self.fit = problem, fit
        self.known: dict[bytes, FitState] = {b"": fit}

    def under(self, constraints: np.ndarray) -> FitState:
        """The fit with constraints (m, p) β = 0."""
        key = constraints.tobytes()
        if key not in self.known:
            design = self.problem.design
            basis = np.linalg.qr(constraints.T, mode="complete")[0][:, len(constraints) :]
            if (np.count_nonzero(constraints, axis=1) == 1).all():  # columns left out: keep the others as they are
                basis = np.eye(design.X.shape[1])[:, ~constraints.any(axis=0)]
            k = basis.shape[1]
            names = tuple(f"b{j}" for j in range(k))
            smaller = evolve(
                design, X=design.X @ basis, names=names, term_of=np.arange(k), terms=names, columns=names, kept=np.ones(k, dtype=bool)
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BossaWarning)
                self.known[key] = registry.fit(evolve(self.problem, design=smaller, options=evolve(self.problem.options, start=None)))[1]
        return self.known[key]

    def test(self, h: Hypothesis, df: str) -> Result:
        """Deviance lost by h.L β = 0, over the dispersion of the full model.

        Source: McCullagh & Nelder (1989) §2.3; R's anova.glm and car's Anova.
        """
        assert h.L is not None
        free = independent_of_earlier(h.L.T, SAME_DIRECTION)
        q = int(free.sum())
        larger, smaller = self.under(h.within), self.under(np.concatenate((h.within, h.L[free])))
        family, fit = self.problem.family, self.fit
        if family.free or family.dispersion == "ml":
            W = 2 * (larger.loglik - smaller.loglik)
        else:
            W = (smaller.deviance - larger.deviance) / fit.dispersion
        finite = fit.dispersion_estimated and family.dispersion == "pearson" and df != "inf"
        return _result(max(W, 0.0), q, float(fit.df_resid) if finite else math.inf)
