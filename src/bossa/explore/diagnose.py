"""How does each row bear on the fit, and how good is the fit in one row of numbers?

Leverage and residuals come from the factor of XᵀWX by row blocks, never from a hat matrix. A row with a count stands for that many
equal rows: what is said of it (leverage, residual, Cook's distance) is said of one of them.

Source: R's lm.influence, influence.measures, summary.lm; Cook & Weisberg (1982); Fox & Monette (1992) for GVIF.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import Refused
from ..kernels import linalg
from ..kernels.intervals import f_tail
from ..state.design import Problem
from ..state.fit import FitState

FITTED_EXACTLY = 1e-10  # 1 − leverage below this: the row is reproduced whatever its response


def factor(problem: Problem, fit: FitState) -> np.ndarray:
    """R (p, p), upper triangular, with RᵀR = XᵀWX at the fit's final weights (prior weights and counts included)."""
    if isinstance(fit.engine, np.ndarray):
        return fit.engine
    return linalg.triangular(problem.design.X, fit.working)


def leverage(problem: Problem, fit: FitState) -> np.ndarray:
    """Leverage of each row (n,), of one copy where rows have counts; of a linear mixed model, on its own conditional fit (as lme4).

    Source: Hodges & Sargent (2001) for the mixed model: h = w c A⁻¹ cᵀ/σ², A the mixed-model equations and c the row of [X Z].
    """
    design = problem.design
    if design.random is not None:
        if not is_linear(problem):
            raise Refused("the leverage of a generalized mixed model is not defined.", where="leverage", do="Use the residuals.")
        from . import varying  # here: no other model waits for it

        h = varying.own_variances(problem, fit)
        return h if design.weights is None else h * design.weights
    h = linalg.leverage(problem.design.X, factor(problem, fit), fit.working)
    return h if problem.design.freq is None else h / problem.design.freq


def scores(problem: Problem, fit: FitState) -> np.ndarray:
    """Each row's score in its linear predictor (n,), dispersion left out and of one copy: w (y − μ)/V(μ) · dμ/dη."""
    design = problem.design
    family = problem.family.fitted(fit.aux)
    e = family.score(design.y, fit.mu) * problem.link.slope(fit.eta)
    return e if design.weights is None else e * design.weights


def is_linear(problem: Problem) -> bool:
    """Gaussian with identity link: exact t and F distributions, R's lm conventions."""
    return problem.family.name == "gaussian" and problem.link.name == "identity"


def pearson_residuals(problem: Problem, fit: FitState) -> np.ndarray:
    """(y − μ) √(w / V(μ))   (n,)"""
    design = problem.design
    r = (design.y - fit.mu) / np.sqrt(problem.family.fitted(fit.aux).variance(fit.mu))
    return r if design.weights is None else r * np.sqrt(design.weights)


def deviance_residuals(problem: Problem, fit: FitState) -> np.ndarray:
    """sign(y − μ) √(w d(y, μ))   (n,); for a linear model √w (y − μ)"""
    design = problem.design
    d = np.maximum(problem.family.fitted(fit.aux).deviance(design.y, fit.mu), 0.0)
    return np.sign(design.y - fit.mu) * np.sqrt(d if design.weights is None else d * design.weights)


def casewise(problem: Problem, fit: FitState) -> dict[str, np.ndarray]:
    """fitted, resid, hat, sigma, cooksd, std_resid, student_resid, dffits of every row used, (n,) each.

    resid          y − μ;  GLM also pearson_resid, deviance_resid, working_resid
    hat            leverage;  sigma: residual standard deviation without the row
    std_resid      √w (y − μ) / √(φ (1 − h)), for a GLM of the deviance residual
    student_resid  with sigma in place of √φ (GLM: Williams's approximation, as R)
    cooksd         Cook's distance;  dffits: scaled change of the row's own fit
    nan where the row is fitted exactly (h = 1) or no residual degree of freedom is left

    Source: R's rstandard, rstudent, cooks.distance, dffits; Williams (1987) for the GLM forms.
    """
    linear = is_linear(problem)
    if problem.design.random is not None:
        return _casewise_mixed(problem, fit)
    h = leverage(problem, fit)
    rank = len(fit.coef)
    deviance, pearson = deviance_residuals(problem, fit), pearson_residuals(problem, fit)
    exact = 1 - h < FITTED_EXACTLY
    left = np.where(exact, np.nan, 1 - h)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = fit.deviance if linear else _total(problem, deviance)
        others = np.maximum(without - np.where(exact, 0.0, deviance**2 / left), 0.0)
        sigma = np.sqrt(others / (fit.df_resid - 1)) if fit.df_resid > 1 else np.full(len(h), np.nan)
        std = deviance / np.sqrt(fit.dispersion * left)
        if linear:
            stud = deviance / (sigma * np.sqrt(left))
        else:
            stud = np.sign(deviance) * np.sqrt(deviance**2 + h * pearson**2 / left)
            stud = stud / sigma if fit.dispersion_estimated else stud
        cooks = (pearson / left) ** 2 * h / (fit.dispersion * rank)
        dffits = deviance * np.sqrt(h) / (sigma * left)
    resid = problem.design.y - fit.mu
    residuals = {"resid": resid}
    if not linear:
        with np.errstate(divide="ignore", invalid="ignore"):
            working = resid / problem.link.slope(fit.eta)
        residuals |= {"pearson_resid": pearson, "deviance_resid": deviance, "working_resid": working}
    return {
        "fitted": fit.mu,
        **residuals,
        "hat": h,
        "sigma": sigma,
        "cooksd": cooks,
        "std_resid": std,
        "student_resid": stud,
        "dffits": dffits,
    }


def _casewise_mixed(problem: Problem, fit: FitState) -> dict[str, np.ndarray]:
    """fitted (random effects included), resid, and hat of a linear mixed model or the GLM residuals; deletion diagnostics need refits."""
    out = {"fitted": fit.mu, "resid": problem.design.y - fit.mu}
    if is_linear(problem):
        return out | {"hat": leverage(problem, fit)}
    return out | {"pearson_resid": pearson_residuals(problem, fit), "deviance_resid": deviance_residuals(problem, fit)}


def _total(problem: Problem, residuals: np.ndarray) -> float:
    freq = problem.design.freq
    return float(residuals @ residuals if freq is None else residuals @ (freq * residuals))


def casewise_residuals(problem: Problem, fit: FitState) -> np.ndarray:
    """The residuals that a summary describes: √w (y − μ) for a linear model, deviance residuals otherwise.   (n,)"""
    return deviance_residuals(problem, fit)


def diagnostics(problem: Problem, fit: FitState) -> dict[str, float | int | None]:
    """The fit in one row: n, df_model, df_resid, sigma, deviance, null_deviance, loglik, aic, aicc, bic, and

    LM   rsquared, rsquared_adj, fstat, fstat_df1, fstat_df2, fstat_p_value  (weighted; about the mean only with an intercept, as R)
    LMM, GLMM  dispersion, pearson_chisq, rsquared_marginal, rsquared_conditional, icc, reml_criterion (Nakagawa's; see varying.shares)
    GLM  df_null, dispersion, pearson_chisq, rsquared_deviance = 1 − deviance/null_deviance (for a 0/1 response it is McFadden's)
    """
    n = problem.design.n_obs
    rank = len(fit.coef)
    intercept = int(problem.spec.intercept)
    row: dict[str, float | int | None] = {
        "n": int(n) if float(n).is_integer() else n,
        "df_model": rank - intercept,
        "df_resid": fit.df_resid,
        "sigma": fit.sigma,
        "deviance": fit.deviance,
        "null_deviance": fit.null_deviance,
        "loglik": fit.loglik,
        "npar": fit.npar,
        "aic": -2 * fit.loglik + 2 * fit.npar,
        "aicc": _aicc(fit, n),
        "bic": -2 * fit.loglik + math.log(n) * fit.npar,
    }
    if is_linear(problem) and problem.design.random is None:
        return row | _explained(problem, fit, n, rank, intercept)
    pearson = pearson_residuals(problem, fit)
    if problem.design.random is not None:
        from . import varying

        return row | {"dispersion": fit.dispersion, "pearson_chisq": _total(problem, pearson)} | varying.shares(problem, fit)
    row |= {"df_null": n - intercept, "dispersion": fit.dispersion, "pearson_chisq": _total(problem, pearson)}
    if fit.null_deviance:
        row["rsquared_deviance"] = 1 - fit.deviance / fit.null_deviance
    return row


def _aicc(fit: FitState, n: float) -> float | None:
    """AIC corrected for few observations, None where there are too few.   Source: Hurvich & Tsai (1989)."""
    k = fit.npar
    return -2 * fit.loglik + 2 * k + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else None


def _explained(problem: Problem, fit: FitState, n: float, rank: int, intercept: int) -> dict[str, float | int | None]:
    """R² and the F statistic of all coefficients but the intercept; fitted values include an offset, as in R 4.2's summary.lm."""
    W = problem.design.total_weights
    moved = fit.mu - np.average(fit.mu, weights=W) if intercept else fit.mu
    explained, size = (float(v @ (v if W is None else W * v)) for v in (moved, fit.mu))
    df1, df2 = rank - intercept, fit.df_resid
    total = explained + fit.deviance
    varies = total > 1e-28 * size
    if df1 == 0 or not varies:
        rsquared = 0.0 if varies else math.nan
        return {"rsquared": rsquared, "rsquared_adj": rsquared} | dict.fromkeys(("fstat", "fstat_df1", "fstat_df2", "fstat_p_value"))
    rsquared = explained / total
    if df2 <= 0 or fit.prior is not None:  # F compares least-squares fits, which one with a prior is not
        return {
            "rsquared": rsquared,
            "rsquared_adj": 1 - (1 - rsquared) * (n - intercept) / df2 if df2 > 0 else math.nan,
            "fstat": math.nan,
            "fstat_df1": df1,
            "fstat_df2": df2,
            "fstat_p_value": math.nan,
        }
    statistic = explained / df1 / fit.dispersion
    return {
        "rsquared": rsquared,
        "rsquared_adj": 1 - (1 - rsquared) * (n - intercept) / df2,
        "fstat": statistic,
        "fstat_df1": df1,
        "fstat_df2": df2,
        "fstat_p_value": float(f_tail(statistic, df1, df2)),
    }


def vif(problem: Problem, fit: FitState) -> dict[str, list]:
    """Generalised variance inflation: term, df, gvif, gvif_scaled = gvif^(1/(2 df)).

    gvif = det(C_tt) det(C_rr) / det(C), C the correlation matrix of the estimates without the intercept, t the term's columns, r the rest;
    without an intercept every column counts. For terms of one column it is the usual VIF, gvif_scaled its square root.

    Source: Fox & Monette (1992) eq. 9.
    """
    design = problem.design
    where = f"vif() of model({problem.spec.formula!r})"
    if len(design.names) < len(design.columns):
        raise Refused("some coefficients are not estimable.", where=where, do="Leave out the terms that the fit's note names.")
    slopes = np.array([design.terms[t] != "Intercept" for t in design.term_of], dtype=bool)
    term_of = design.term_of[slopes]
    terms = list(dict.fromkeys(term_of.tolist()))
    if len(terms) < 2:
        raise Refused("it compares terms, and the model has fewer than two.", where=where, do="Add a predictor.")
    # a root of the covariance of the estimates, up to the scale of its rows
    whole_root = np.linalg.cholesky(fit.vcov) if design.random is not None else np.linalg.inv(factor(problem, fit))
    rows = whole_root[slopes]
    rows = rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    whole = _log_volume(rows)
    out: dict[str, list] = {"term": [], "df": [], "gvif": [], "gvif_scaled": []}
    for t in terms:
        own = term_of == t
        gvif = math.exp(_log_volume(rows[own]) + _log_volume(rows[~own]) - whole)
        df = int(own.sum())
        for name, value in zip(out, (design.terms[t], df, gvif, gvif ** (1 / (2 * df)))):
            out[name].append(value)
    return out


def _log_volume(rows: np.ndarray) -> float:
    """log det(rows rowsᵀ)."""
    return 2 * float(np.log(np.abs(np.diag(np.linalg.qr(rows.T, mode="r")))).sum())
