"""Could the data be this strange if the null were true? Statistics of rearranged data, under which the null makes rearrangement harmless.

For a row ℓᵀβ = c of the question in a linear model (Freedman & Lane 1983):

    reduced fit under the constraint → residuals e; y* = fitted + permuted e; refit the full model; t* = (ℓᵀβ* − c)/se*

The statistic is studentized, so unequal spread is forgiven (DiCiccio & Romano 2017). Where the reduced model has no constant, permuting
would be meaningless, and signs are flipped instead. `within=` permutes only inside its levels. p = (b + 1)/(m + 1), never 0.

Source: Freedman & Lane (1983); Winkler et al. (2014) §2; DiCiccio & Romano (2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import field, frozen

from ..errors import Refused
from ..kernels.gram import ols_responses
from ..kernels.linalg import inverse_factored, triangular
from ..kernels.resample import monte_carlo_se, permutation_p
from ..kernels.streams import entropy
from ..state.design import Problem
from ..state.fields import choice, integer
from ..state.fit import FitState
from ..state.inference import InferenceState, ResamplesState
from ..state.plan import Plan
from ..state.target import Each, Target
from . import Common, backend
from .clusters import cluster_codes
from .plan import PermuteDraw
from .progress import progress_bar

SCHEMES = ("auto", "freedman-lane", "response", "sign-flip")


@frozen(kw_only=True)
class Perm(Common):
    """Options of how="perm".

    n_perm    rearrangements
    scheme    "auto": Freedman–Lane for every row; "response": permute y, for a model whose only question is the whole model;
              "sign-flip": symmetric errors instead of exchangeable ones
    within    column inside whose levels rows are exchangeable
    seed      whatever numpy's default_rng takes; the result keeps the entropy
    """

    n_perm: int = integer(1000, minimum=1)
    scheme: str = choice("auto", among=SCHEMES)
    within: str | None = None
    seed: Any = None
    n_jobs: int | None = None
    progress: Any = field(default="auto")


@backend("perm", Perm)
def permutation(problem: Problem, fit: FitState, target: Target, options: Perm) -> InferenceState:
    """Statistic, p-value with its Monte Carlo error, and the 2.5 and 97.5 % points of the statistic under the null."""
    _valid(problem, target, options)
    L = target.jacobian(fit.coef)
    null = np.broadcast_to(np.asarray(target.null if options.null is None else options.null, dtype=float), (len(L),))
    shift = target.value(fit.coef) - L @ fit.coef
    X, y = whitened(problem)
    R = triangular(X)
    V0 = inverse_factored(R)
    blocks = None if options.within is None else cluster_codes(problem, options.within)
    seeds = entropy(options.seed, "infer(how='perm')")
    observed = np.full(len(L), np.nan)
    p_value = np.full(len(L), np.nan)
    limits = np.full((2, len(L)), np.nan)
    draws = np.full((options.n_perm, len(L)), np.nan)
    flipped: list[int] = []
    with progress_bar(options.progress, options.n_perm * len(L), "permutation") as tick:
        for k, row in enumerate(L):
            if target.estimable is not None and not target.estimable[k]:
                continue
            c = null[k] - shift[k]
            base, residual, constant = reduced(X, y, V0, row, c, fit.coef)
            signs = options.scheme == "sign-flip" or not constant
            flipped += [k] if signs else []
            draw = PermuteDraw(base, residual, blocks, signs)
            plan = Plan(scheme="freedman-lane", unit="response", n=options.n_perm, rows=len(y), seed=seeds, draw=draw)
            observed[k] = statistics(X, R, V0, row, c, y[None])[0]
            draws[:, k] = np.concatenate([statistics(X, R, V0, row, c, np.asarray(plan.block(i).y)) for i in range(plan.blocks)])
            if tick is not None:
                tick(options.n_perm)
    asked = ~np.isnan(observed)
    p_value[asked] = permutation_p(observed[asked], draws[:, asked], options.alternative)
    tail = (1 - options.conf_level) / 2
    limits[:, asked] = np.quantile(draws[:, asked], [tail, 1 - tail], axis=0)
    state = ResamplesState(
        values=draws, observed=observed, code=np.zeros(options.n_perm, int), scheme=options.scheme, seed=seeds, planned=options.n_perm
    )
    return InferenceState(
        how="perm",
        level=options.conf_level,
        statistic=observed,
        statistic_name="t",
        p_value=p_value,
        null=null,
        side=options.alternative,
        columns={"p_mc_se": monte_carlo_se(p_value, options.n_perm), "null_lower": limits[0], "null_upper": limits[1]},
        notes=_notes(options, seeds, flipped, len(L)),
        options={"n_perm": options.n_perm, "scheme": options.scheme, "within": options.within, "seed": seeds},
        extra=state,
    )


def whitened(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """√w X and √w (y − offset), counted rows written out: errors are then exchangeable under the model."""
    design = problem.design
    y = np.asarray(design.y) if design.offset is None else design.y - design.offset
    X = design.X
    if design.weights is not None:
        root = np.sqrt(design.weights)
        X, y = X * root[:, None], y * root
    if design.freq is not None:
        index = np.repeat(np.arange(design.n), design.freq.astype(int))
        X, y = X[index], y[index]
    return X, y


def reduced(
    X: np.ndarray, y: np.ndarray, V0: np.ndarray, row: np.ndarray, c: float, coef: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Least squares under rowᵀβ = c: fitted values, residuals, and whether the constrained space still holds a constant direction.

    β_c = β̂ − V₀ℓ (ℓᵀV₀ℓ)⁻¹ (ℓᵀβ̂ − c)
    """
    direction = V0 @ row
    constrained = coef - direction * (row @ coef - c) / (row @ direction)
    fitted = X @ constrained
    ones = np.linalg.lstsq(X, np.ones(len(y)), rcond=None)[0]
    constant = bool(np.abs(X @ ones - 1).max() < 1e-8 and abs(row @ ones) < 1e-8 * max(1.0, np.abs(row).max() * np.abs(ones).max()))
    return fitted, y - fitted, constant


def statistics(X: np.ndarray, R: np.ndarray, V0: np.ndarray, row: np.ndarray, c: float, Y: np.ndarray) -> np.ndarray:
    """t = (ℓᵀβ − c)/√(σ² ℓᵀV₀ℓ) of every response.   Y (b, n) → (b,)"""
    coef, rss = ols_responses(X, R, None, Y)
    return (coef @ row - c) / np.sqrt(np.maximum(rss, 0) / (X.shape[0] - X.shape[1]) * (row @ V0 @ row))


def _valid(problem: Problem, target: Target, options: Perm) -> None:
    where = "infer(how='perm')"
    if problem.design.random is not None:
        raise Refused(
            "residuals of a mixed model are not exchangeable between groups.",
            where=where,
            do="Use how='boot' (parametric) or how='asymp' with Satterthwaite or Kenward–Roger df.",
        )
    if problem.family.name != "gaussian" or problem.link.name != "identity":
        raise Refused(
            f"permuting is not valid for single questions of a {problem.family.name} model: its spread moves with the mean.",
            where=where,
            do="Use how='boot', or how='joint' with test='lr'.",
        )
    if any(isinstance(step, Each) for step in target.steps):
        raise Refused("the question is not linear in the coefficients.", where=where, do="Ask it on the link scale, or use how='boot'.")
    if options.scheme == "response" and len([t for t in problem.design.terms if t != "Intercept"]) > 1:
        raise Refused(
            "permuting the response tests the whole model at once, not one term of several.",
            where=where,
            do="Use scheme='freedman-lane', which keeps the other terms.",
        )


def _notes(options: Perm, seeds: Any, flipped: list[int], K: int) -> tuple[str, ...]:
    kind = "signs of residuals flipped" if len(flipped) == K else "Freedman–Lane: residuals under each row's null permuted"
    inside = f" within {options.within}" if options.within else ""
    notes = [f"permutation: {kind}{inside}, {options.n_perm} times, studentized; p = (b + 1)/(m + 1); seed {seeds}"]
    if flipped and len(flipped) < K:
        notes.append("rows whose null removes the constant (the intercept): signs flipped instead of permuted")
    return tuple(notes)
