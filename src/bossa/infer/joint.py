"""Does a term matter at all? One test per term of the formula, or one of all rows of a question.

    H0: Lβ = c;      W = (Lβ̂ − c)ᵀ (L V Lᵀ)⁻¹ (Lβ̂ − c);      F = W/q against F(q, df2), or χ²(q) where df2 is infinite

What the types test stands in `terms.py`. test="lr" compares deviances of refits under Lβ = c instead (generalized linear models).

Source: Fai & Cornelius (1996) for df2 where every contrast has its own df; Johansen (1980) for unequal variances.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import attrs
import numpy as np
import polars as pl
from attrs import evolve, field, frozen

from ..design.levels import rows_text
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
from .terms import SAME_DIRECTION, Hypothesis, hypotheses, numeric_pieces

ROMAN = {1: "I", 2: "II", 3: "III"}


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
        return _state([(rows_text(int(rows.sum())), wald(c, J[rows], estimate[rows] - null))], c, "joint test of the rows", ())
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
    if options.type == 3 and any(numeric_pieces(pieces) for pieces in problem.encoder.pieces):
        notes.append(f"type III: numeric variables held at their {'mean' if options.covariates == 'mean' else 'zero'}")
    return _state(tests, c, kind, tuple(notes))


def _covariance(problem: Problem, fit: FitState, options: Joint) -> Covariance:
    if options.test == "lr":
        where = "infer(how='joint', test='lr')"
        if problem.design.random is not None or is_linear(problem):
            raise Refused("it is for generalized linear models; for linear ones F is it.", where=where, do="Use test='wald'.")
        if fit.prior is not None:
            raise Refused("the fit has a prior: it is not where its likelihood is largest.", where=where, do="Use test='wald'.")
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
    problem: Problem, fit: FitState, L: np.ndarray, null: np.ndarray, errors: str = "iid", cluster: Any = None, df: str = "auto"
) -> JointTestState:
    """One joint test of Lβ = null.   L (q, p), null (q,); frame: df1, df2, statistic, p_value"""
    c = covariance(problem, fit, errors, cluster, df)
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
