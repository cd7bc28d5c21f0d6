"""Which covariance of the coefficients, and which degrees of freedom of a contrast of them, does `errors=` mean?

    covariance(problem, fit, errors, cluster, df) → Covariance        V = root rootᵀ
    standard_errors(c, J), degrees(c, J)                              of the rows J (K, p) of any Target's Jacobian

One place for what every how that uses a covariance shares (asymp, joint). What is not defined for a model is refused here, with advice.

Source: the sandwich and clubSandwich literature named in `kernels.sandwich`; decisions on defaults: robust tests are t for linear models,
z for generalized ones; "hetero" is HC3 and HC0, "cluster" CR2 and CR1.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np
from attrs import field, frozen

from ..errors import OptionError, Refused
from ..explore import diagnose
from ..kernels import sandwich
from ..kernels.linalg import cholesky_factor, row_blocks
from ..state.design import Problem
from ..state.fit import FitState
from .clusters import cluster_codes

ERRORS = ("iid", *sandwich.HC_KINDS, "hetero", "unequal_var", "cluster", *sandwich.CLUSTER_KINDS)
DF_RULES = ("auto", "residual", "satterthwaite", "kenward-roger", "inf")
LARGEST_CLUSTER = 4_000  # CR2 of a GLM decomposes an n_g × n_g matrix per cluster


@frozen(eq=False)
class MixedDf:
    """Degrees of freedom of a linear mixed model's contrasts, by `infer/df.py`: imported when first asked for.

    rule  "satterthwaite" | "kenward-roger"
    """

    problem: Problem
    fit: FitState
    rule: str

    def df(self, rows: np.ndarray) -> np.ndarray:
        module = import_module(f"{__package__}.df")
        if self.rule == "satterthwaite":
            return module.satterthwaite(self.problem, self.fit, rows)
        return module.kenward_roger(self.problem, self.fit, rows)[1]

    def root(self) -> np.ndarray:
        """Root of the covariance: the fit's own, or Kenward and Roger's."""
        if self.rule == "satterthwaite":
            return _root(self.fit)
        nothing = np.empty((0, len(self.fit.coef)))
        return cholesky_factor(import_module(f"{__package__}.df").kenward_roger(self.problem, self.fit, nothing)[0]).T

    def test(self, L: np.ndarray, distance: np.ndarray) -> tuple[int, float, float, float]:
        """df1, df2, F and p of the hypothesis that `distance` (q,), with Jacobian L (q, p), is 0."""
        module = import_module(f"{__package__}.df")
        found = (module.satterthwaite_test if self.rule == "satterthwaite" else module.kenward_roger_test)(
            self.problem, self.fit, L, distance
        )
        return found.df1, found.df2, found.F, found.p_value


@frozen(kw_only=True, eq=False)
class Covariance:
    """Covariance of the coefficients as a root (p, m), and where degrees of freedom come from.

    errors  resolved: "iid", "HC3", "CR2", …        rule  resolved: "residual", "clusters", "satterthwaite", "inf"
    number  degrees of freedom of every contrast, unless `parts` knows each one's own
    notes   what was chosen, one sentence each
    """

    root: np.ndarray
    errors: str
    rule: str
    number: float
    parts: Any = None
    notes: tuple[str, ...] = field(default=())

    @property
    def vcov(self) -> np.ndarray:
        return self.root @ self.root.T


def standard_errors(c: Covariance, J: np.ndarray) -> np.ndarray:
    """√diag(J V Jᵀ), by row blocks.   J (K, p) → (K,)"""
    se = np.empty(len(J))
    for rows in row_blocks(*J.shape):
        A = J[rows] @ c.root
        se[rows] = np.sqrt(np.einsum("ij,ij->i", A, A))
    return se


def degrees(c: Covariance, J: np.ndarray) -> np.ndarray:
    """Degrees of freedom of each row of J (K, p); inf: z.   → (K,)"""
    return np.full(len(J), c.number) if c.parts is None else c.parts.df(J)


def covariance(problem: Problem, fit: FitState, errors: str, cluster: Any = None, df: str = "auto") -> Covariance:
    """The covariance that `errors` names, checked against the model.

    errors  one of ERRORS;  cluster  column name, for the cluster kinds only;  df  one of DF_RULES
    raises  Refused with advice where it is not defined; OptionError where options contradict each other
    """
    where = f"errors={errors!r}"
    kind = _resolved(problem, errors)
    clustered = kind in sandwich.CLUSTER_KINDS
    if clustered and cluster is None:
        raise OptionError("it needs the column of the clusters.", where=where, do="Give cluster='school' or the like.")
    if not clustered and cluster is not None:
        raise OptionError(f"cluster={cluster!r} has no use here.", where=where, do="Use errors='cluster'.")
    if kind != "iid" and fit.prior is not None:
        do = "Use errors='iid', or fit without prior=."
        raise Refused("it judges estimates without a prior; these have a posterior.", where=where, do=do)
    if kind != "iid" and problem.design.random is not None:
        raise Refused("it is for models without random effects.", where=where, do="Use errors='iid': the random effects model the groups.")
    if kind != "iid" and not fit.df_resid > 0:
        raise Refused("no residual degree of freedom is left to estimate it from.", where=where, do="Use fewer terms or more rows.")
    if kind == "iid":
        return _model_based(problem, fit, df)
    if kind == "unequal_var":
        return _unequal(problem, fit, df)
    if clustered:
        return _clustered(problem, fit, kind, cluster, df)
    return _heteroskedastic(problem, fit, kind, df)


def _resolved(problem: Problem, errors: str) -> str:
    linear = diagnose.is_linear(problem)
    return {"hetero": "HC3" if linear else "HC0", "cluster": "CR2" if linear else "CR1"}.get(errors, errors)


def _number(problem: Problem, fit: FitState, df: str, auto: str, errors: str) -> tuple[str, float]:
    """Rule and degrees of freedom for the rules that give every contrast the same."""
    rule = auto if df == "auto" else df
    if rule == "inf":
        return rule, math.inf
    if rule == "residual":
        return rule, float(fit.df_resid) if fit.df_resid > 0 else math.nan
    known = "errors='CR2', errors='unequal_var' and linear mixed models" if rule == "satterthwaite" else "linear mixed models"
    raise Refused(
        f"it is for {known}; here errors={errors!r} of {_kind(problem)}.",
        where=f"df={rule!r}",
        do=f"Use df='auto', which is {auto!r} here.",
    )


def _kind(problem: Problem) -> str:
    mixed = " mixed" if problem.design.random is not None else ""
    return f"a{' ' if diagnose.is_linear(problem) else ' generalized '}linear{mixed} model"


def _model_based(problem: Problem, fit: FitState, df: str) -> Covariance:
    mixed = problem.design.random is not None
    linear_mixed = mixed and diagnose.is_linear(problem)
    if linear_mixed and df in ("auto", "satterthwaite", "kenward-roger"):
        parts = MixedDf(problem, fit, "satterthwaite" if df == "auto" else df)
        return Covariance(root=parts.root(), errors="iid", rule=parts.rule, number=math.nan, parts=parts)
    auto = "residual" if fit.dispersion_estimated and not mixed else "inf"
    rule, number = _number(problem, fit, df, auto, "iid")
    return Covariance(root=_root(fit), errors="iid", rule=rule, number=number, notes=("errors: as the model assumes (iid)",))


def _root(fit: FitState) -> np.ndarray:
    """C with C Cᵀ = vcov: from the factor of XᵀWX where the fit has one, which keeps twice the digits."""
    if fit.estimator in ("lm", "glm") and isinstance(fit.engine, np.ndarray):
        return fit.sigma * np.linalg.inv(fit.engine)
    if not np.isfinite(fit.vcov).all():
        return np.full_like(fit.vcov, np.nan)
    return cholesky_factor(fit.vcov).T


def _heteroskedastic(problem: Problem, fit: FitState, kind: str, df: str) -> Covariance:
    design = problem.design
    h = diagnose.leverage(problem, fit)
    if kind in ("HC2", "HC3", "HC4") and h.max(initial=0.0) > 1 - diagnose.FITTED_EXACTLY:
        row = int(design.rows[int(h.argmax())])
        raise Refused(
            f"row {row} of the data is fitted exactly (leverage 1), and {kind} divides by 1 − leverage.",
            where=f"errors={kind!r}",
            do="Use errors='HC1', or leave out the term that only this row determines.",
        )
    root = sandwich.hc_root(design.X, diagnose.factor(problem, fit), diagnose.scores(problem, fit), h, kind, design.freq)
    rule, number = _number(problem, fit, df, "residual" if diagnose.is_linear(problem) else "inf", kind)
    return Covariance(root=root, errors=kind, rule=rule, number=number, notes=(f"errors: {kind}, consistent under unequal variances",))


def _clustered(problem: Problem, fit: FitState, kind: str, cluster: Any, df: str) -> Covariance:
    design = problem.design
    codes = cluster_codes(problem, cluster, where=f"errors={kind!r}")
    groups = int(codes.max()) + 1
    note = f"errors: {kind}, {groups} clusters by {cluster if isinstance(cluster, str) else cluster[0]}"
    if kind == "CR2" and df in ("auto", "satterthwaite"):
        parts = _cr2(problem, fit, codes)
        return Covariance(root=parts.root, errors=kind, rule="satterthwaite", number=math.nan, parts=parts, notes=(note,))
    linear = diagnose.is_linear(problem)
    rule, number = ("clusters", groups - 1.0) if df == "auto" and linear else _number(problem, fit, df, "inf", kind)
    if kind == "CR2":
        root = _cr2(problem, fit, codes).root
    else:
        scores = diagnose.scores(problem, fit)
        root = sandwich.cluster_root(design.X, diagnose.factor(problem, fit), scores, codes, kind, design.freq)
    return Covariance(root=root, errors=kind, rule=rule, number=number, notes=(note,))


def _cr2(problem: Problem, fit: FitState, codes: np.ndarray) -> sandwich.BellMcCaffrey:
    """CR2 with rows written out as often as their counts say; the working covariance is the GLM's own, 1 for a linear model."""
    design, R = problem.design, diagnose.factor(problem, fit)
    X, y, mu, weights, eta = design.X, np.asarray(design.y), fit.mu, design.weights, fit.eta
    if design.freq is not None:
        if (design.freq != np.round(design.freq)).any():
            raise Refused("freq_weights are not whole numbers.", where="errors='CR2'", do="Use errors='CR1'.")
        index = np.repeat(np.arange(design.n), design.freq.astype(np.intp))
        X, y, mu, eta, codes = X[index], y[index], mu[index], eta[index], codes[index]
        weights = None if weights is None else weights[index]
    if diagnose.is_linear(problem):
        return sandwich.cr2(X, R, y - mu, weights, codes)
    largest = int(np.bincount(codes).max())
    if largest > LARGEST_CLUSTER:
        raise Refused(
            f"the largest cluster has {largest} rows, and CR2 of a generalized linear model takes its square in memory.",
            where="errors='CR2'",
            do="Use errors='CR1': with clusters that large they differ little.",
        )
    family, slope = problem.family.fitted(fit.aux), problem.link.slope(eta)
    precision = (1.0 if weights is None else weights) / family.variance(mu)
    residuals = family.score(y, mu) * family.variance(mu)
    return sandwich.cr2(slope[:, None] * X, R, residuals, precision, codes, phi=1.0 / precision)


def _unequal(problem: Problem, fit: FitState, df: str) -> Covariance:
    """One variance per cell; the cells are the distinct rows of X, which a saturated model has as many of as coefficients."""
    where = "errors='unequal_var'"
    if not diagnose.is_linear(problem):
        raise Refused("it is for linear models: a family has its own variance function.", where=where, do="Use errors='HC3'.")
    design = problem.design
    cells, codes = distinct_rows(design.X[:4096])
    if len(cells) <= len(fit.coef):
        cells, codes = distinct_rows(design.X)
    if len(cells) != len(fit.coef):
        raise Refused(
            "it needs a model with one mean per cell of its factors, all interactions included and no numeric covariate.",
            where=where,
            do="Use errors='HC3', or write y ~ a * b.",
        )
    parts = sandwich.cell_variances(cells, codes, design.y - fit.mu, design.weights, design.freq)
    if (parts.cell_df <= 0).any():
        raise Refused(
            f"{int((parts.cell_df <= 0).sum())} of {len(cells)} cells have a single observation, so their variance is unknown.",
            where=where,
            do="Use errors='iid', or leave out or merge those cells.",
        )
    notes = (f"errors: one variance in each of {len(cells)} cells",)
    if df in ("auto", "satterthwaite"):
        return Covariance(root=parts.root, errors="unequal_var", rule="satterthwaite", number=math.nan, parts=parts, notes=notes)
    rule, number = _number(problem, fit, df, "satterthwaite", "unequal_var")
    return Covariance(root=parts.root, errors="unequal_var", rule=rule, number=number, notes=notes)


def distinct_rows(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of X (n, p), and which of them each row is (n,); by one number per row, checked."""
    key = np.zeros(len(X))
    for j, multiple in enumerate(np.random.default_rng(0).random((X.shape[1],))):
        key += multiple * X[:, j]
    _, first, codes = np.unique(key, return_index=True, return_inverse=True)
    rows = X[first]
    if (rows[codes] == X).all():
        return rows, codes
    rows, codes = np.unique(X, axis=0, return_inverse=True)
    return rows, codes.ravel()
