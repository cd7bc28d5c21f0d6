"""The linear model: coefficients by weighted least squares, and R's conventions for everything that follows from them.

    β̂ = argmin Σ f_i w_i (y_i − o_i − x_iᵀβ)²,      σ̂² = RSS / (N − r),      V = σ̂² (XᵀWX)⁻¹,  W = diag(f w)

w prior weights (Var y_i = σ²/w_i), f counts (row i stands for f_i rows, N = Σ f), o offset, r the rank.

Source: R's lm, summary.lm and logLik.lm; Seber & Lee (2003) ch. 3.
"""

from __future__ import annotations

import math

import numpy as np

from ..kernels.linalg import inverse_factored, lstsq, row_blocks
from ..state.design import Design, Problem
from ..state.fit import FitState, Outcome
from .batched import lm_many
from .registry import estimator


def accepts(problem: Problem) -> bool:
    return problem.design.random is None and problem.prior is None and problem.family.name == "gaussian" and problem.link.name == "identity"


@estimator("lm", accepts=accepts, many=lm_many)
def fit_lm(problem: Problem) -> FitState:
    """Least squares on the problem's design; σ is nan where no residual degree of freedom is left."""
    design = problem.design
    assert design.y is not None
    W = design.total_weights
    y = design.y if design.offset is None else design.y - design.offset
    solution = lstsq(design.X, y, W)
    rank = len(solution.coef)
    rss = sum_of_squares(solution.residual, W)
    fitted = np.subtract(y, solution.residual, out=solution.residual)  # in its place: nothing asks for the residuals again
    df_resid = design.n_obs - rank
    variance = rss / df_resid if df_resid > 0 else math.nan
    eta = fitted if design.offset is None else fitted + design.offset
    null = about_mean(y, W) if problem.spec.intercept else sum_of_squares(y, W)
    return FitState(
        estimator="lm",
        coef=solution.coef,
        vcov=variance * inverse_factored(solution.R),
        kept=solution.kept,
        sigma=math.sqrt(variance),
        dispersion=variance,
        dispersion_estimated=True,
        eta=eta,
        mu=eta,
        working=W,
        loglik=gaussian_loglik(design, rss) if df_resid > 0 else math.nan,
        deviance=rss,
        null_deviance=null,
        npar=rank + 1,
        df_resid=df_resid,
        outcome=_outcome(design, fitted, variance, null),
        notes=dropped_note(design, solution.kept),
        engine=solution.R,
    )


def sum_of_squares(x: np.ndarray, weights: np.ndarray | None) -> float:
    """Σ w_i x_i²."""
    return float(x @ x) if weights is None else float(x @ (weights * x))


def about_mean(y: np.ndarray, weights: np.ndarray | None) -> float:
    """Σ w_i (y_i − ȳ)², ȳ the weighted mean, without a copy of y."""
    mean, total = np.average(y, weights=weights), 0.0
    for rows in row_blocks(len(y), 1):
        total += sum_of_squares(y[rows] - mean, None if weights is None else weights[rows])
    return total


def gaussian_loglik(design: Design, rss: float) -> float:
    """Log-likelihood at σ² = RSS/N: ½ Σ f log w − N/2 (log 2π + 1 + log(RSS/N)).

    Source: R's logLik.lm, with counts.
    """
    n = design.n_obs
    log_weights = 0.0
    if design.weights is not None:
        log_weights = float(np.log(design.weights).sum() if design.freq is None else design.freq @ np.log(design.weights))
    log_variance = math.log(rss / n) if rss > 0 else -math.inf
    return 0.5 * log_weights - 0.5 * n * (math.log(2 * math.pi) + 1 + log_variance)


def dropped_note(design: Design, kept: np.ndarray) -> tuple[str, ...]:
    """Names the coefficients that rank does not allow."""
    dropped = [name for name, k in zip(design.names, kept) if not k]
    if not dropped:
        return ()
    some = f"{', '.join(dropped[:8])}{f' and {len(dropped) - 8} more' if len(dropped) > 8 else ''}"
    return (f"not estimable, being combinations of earlier columns (or beyond the number of rows): {some}",)


def _outcome(design: Design, fitted: np.ndarray, variance: float, null: float) -> Outcome:
    """Suspect where the residual variance is not there, or only rounding."""
    if math.isnan(variance):
        return Outcome(
            status="suspect",
            message="There are as many coefficients as observations: every point is hit and nothing is left to estimate σ from.",
            advice="Use fewer terms or more rows; estimates have no standard errors.",
        )
    if variance <= 1e-30 * sum_of_squares(fitted, design.total_weights) / design.n:
        what = "The response is constant" if np.ptp(np.asarray(design.y)) == 0 else "Every point is hit up to rounding"
        return Outcome(
            status="suspect",
            message=f"{what}: σ and all tests are rounding error.",
            advice="Check that the response is not computed from the predictors.",
        )
    return Outcome()
