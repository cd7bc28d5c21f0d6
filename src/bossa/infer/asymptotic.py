"""How sure, by the curvature of the fit: estimates are nearly normal with covariance J V Jᵀ.

    se² = diag(J V Jᵀ),   J = ∂target/∂coef;      statistic = (estimate − null)/se  against t (or z);      estimate ± t se

Works for any Target: parameters, means, contrasts, slopes, predictions. Where the target has a `back` map (link → response, log → ratio)
it is tested before the map; limits are carried through it, and the standard error shown is by the delta method.

Source: Wald (1943); van der Vaart (1998) ch. 3 for the delta method. The covariances and degrees of freedom: `covariance.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..errors import NotYet, OptionError, Refused
from ..explore.diagnose import is_linear
from ..kernels import multiplicity
from ..kernels.intervals import t_limits, t_tail
from ..state.design import Problem
from ..state.fields import choice
from ..state.fit import FitState
from ..state.inference import InferenceState
from ..state.target import Target
from ..types import is_number
from . import Common, backend, prediction
from .covariance import DF_RULES, ERRORS, Covariance, covariance, degrees, standard_errors

LARGEST_VCOV = 1_000  # rows of a target whose K × K covariance is kept
FLIP = {"two-sided": "two-sided", "less": "greater", "greater": "less"}


def _margin(instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and not (is_number(value) and np.isfinite(value) and value > 0):
        raise OptionError(f"delta={value!r} is not a positive number.", where="infer(how='asymp')", do="Give the margin, delta=0.5 say.")


@frozen(kw_only=True)
class Asymp(Common):
    """Options of how="asymp".

    errors    "iid" as the model assumes | "HC0" … "HC4" | "hetero" (HC3; GLM: HC0) | "unequal_var" (one variance per cell) |
              "CR0" "CR1" "CR1S" "CR2" | "cluster" (CR2; GLM: CR1)
    cluster   column of the clusters, for the CR kinds
    df        "auto" | "residual" | "satterthwaite" | "kenward-roger" | "inf"
    interval  "confidence" | "prediction" (of a new response)
    adjust    multiplicity: "auto" (as emmeans) | "none" | "tukey" | "holm" …
    delta     margin, on the scale tested: "two-sided" is then a test of equivalence (is the distance to the null below delta?), "greater"
              of non-inferiority (is the estimate above null − delta?), "less" of non-superiority (below null + delta?)
    seed      of the responses that a prediction interval of a generalized model simulates
    """

    errors: str = choice("iid", among=ERRORS)
    cluster: Any = None
    df: str = choice("auto", among=DF_RULES)
    interval: str = choice("confidence", among=("confidence", "prediction"))
    adjust: str = "auto"
    seed: Any = None
    delta: float | None = field(default=None, validator=_margin)


@backend("asymp", Asymp)
def asymptotic(problem: Problem, fit: FitState, target: Target, options: Asymp) -> InferenceState:
    """Standard errors, tests and intervals of the target's rows from the covariance of the coefficients."""
    chosen = covariance(problem, fit, options.errors, options.cluster, options.df)
    simulates = options.interval == "prediction" and not is_linear(problem)
    if options.seed is not None and not simulates:
        raise OptionError("seed= has no use here: nothing is drawn.", where="infer(how='asymp')", do="Leave it out.")
    estimate, J = target.value_and_jacobian(fit.coef)
    whole = prediction.mixed_se(problem, fit, target, J, options.interval == "prediction")
    if whole is None:
        se, df = standard_errors(chosen, J), degrees(chosen, J)
    else:
        se, df, chosen = whole, np.full(len(J), np.inf), _with_groups(chosen, options)
    gone = np.zeros(len(se), dtype=bool) if target.estimable is None else ~target.estimable
    for values in (estimate := estimate.copy(), se, df):
        values[gone] = np.nan
    shown_null, null, side = null_values(target, options, estimate)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = (estimate - null) / se
    spread, said = _spread(problem, fit, target, options, se)
    interval = t_limits(estimate, spread, df, options.conf_level, side)
    root = _root(problem, fit, target, J, chosen)
    normal = bool(np.isinf(df[~np.isnan(df)]).all()) and chosen.rule == "inf"
    state = InferenceState(
        how="asymp",
        level=options.conf_level,
        se=se,
        statistic=statistic,
        statistic_name="z" if normal else "t",
        df=df,
        p_value=t_tail(statistic, df, side),
        interval=interval,
        null=shown_null,
        side=options.alternative,
        vcov=_vcov(root, gone),
        notes=(*chosen.notes, _reference(chosen, df), *said),
        options={"errors": chosen.errors, "cluster": options.cluster, "df": chosen.rule},
    )
    if options.delta is not None:
        state = _carried(_within_margin(state, (estimate, null, se, side), options), target, estimate)
    else:
        state = _carried(_adjusted(state, target, (estimate, spread, side), options.adjust, root), target, estimate)
    if simulates:
        limits, seed = prediction.simulated(problem, fit, target, chosen.root, options)
        drawn = f"interval: for a new response of weight 1, from {prediction.DRAWS:,} simulated, parameters drawn too, seed {seed}"
        state = evolve(state, interval=limits, notes=(*state.notes, drawn))
    return state


def _with_groups(chosen: Covariance, options: Asymp) -> Covariance:
    """The covariance's notes for rows whose random effects are uncertain too: no df are defined for these, so z."""
    if options.df not in ("auto", "inf"):
        raise Refused(f"df={options.df!r} is not defined for predictions with random effects.", where="infer()", do="Use df='inf'.")
    notes = (*chosen.notes, "se: of fixed and random effects together, at the estimated variances")
    return evolve(chosen, rule="inf", notes=notes)


def null_values(target: Target, options: Common, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Null values as shown (K,) and as tested (K,), and the side on the tested scale."""
    back, K = target.back, len(estimate)
    if back is None:
        null = np.full(K, target.null if options.null is None else float(options.null))
        return null, null, options.alternative
    if options.null is None:
        tested = np.zeros(K)
    elif back.inverse is None:
        raise Refused(f"{back.name} has no inverse here to carry it back.", where=f"null={options.null!r}", do="Ask with scale='link'.")
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            tested = np.asarray(back.inverse(np.full(K, float(options.null))))
        if not np.isfinite(tested).all():
            raise OptionError(f"null={options.null!r} is outside the range of the estimate.", where="infer()", do="Use a value inside it.")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        falling = bool((np.asarray(back.slope(estimate)) < 0).any())
        shown = np.asarray(back.function(tested))
    return shown, tested, FLIP[options.alternative] if falling else options.alternative


def _spread(problem: Problem, fit: FitState, target: Target, options: Asymp, se: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """What the interval is built from: se, or √(se² + σ²) for a new response of weight 1."""
    if options.interval == "confidence":
        return se, ()
    prediction.check(problem, target, options.errors)
    if not is_linear(problem):
        return se, ()  # simulated on the scale of the response
    said = "interval: for a new response"
    return np.sqrt(se**2 + fit.dispersion), (said if problem.design.weights is None else f"{said}, of weight 1",)


def _reference(c: Covariance, df: np.ndarray) -> str:
    """The distribution that statistics are referred to, in words."""
    known = df[np.isfinite(df)]
    if c.rule == "inf":
        return "reference: z (normal)"
    if len(df) == 0:
        return "reference: none, there is nothing to test"
    if len(known) == 0:
        return "reference: none, no degree of freedom is left"
    name = {"clusters": "clusters − 1", "residual": "residual", "satterthwaite": "Satterthwaite", "kenward-roger": "Kenward–Roger"}.get(
        c.rule, c.rule
    )
    low, high = f"{known.min():.4g}", f"{known.max():.4g}"
    number = low if low == high else f"{low} to {high}"
    return f"reference: t with {number} df ({name})"


def _root(problem: Problem, fit: FitState, target: Target, J: np.ndarray, c: Covariance) -> np.ndarray | None:
    """A (K, m) with A Aᵀ the covariance of the rows, the random effects of a new group included; None where it is not kept."""
    if len(J) > LARGEST_VCOV or "random" in target.details:
        return None
    own = prediction.new_group_root(problem, fit, target)
    return J @ c.root if own is None else np.hstack((J @ c.root, own))


def _vcov(root: np.ndarray | None, gone: np.ndarray) -> np.ndarray | None:
    if root is None:
        return None
    A = np.where(gone[:, None], np.nan, root)
    return A @ A.T


def _carried(state: InferenceState, target: Target, estimate: np.ndarray) -> InferenceState:
    """The state on the scale shown: limits through `back` (swapped where it falls), se by its slope."""
    back = target.back
    if back is None:
        return state
    assert state.interval is not None
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        ends = np.stack([np.asarray(back.function(row)) for row in state.interval])
        slope = np.asarray(back.slope(estimate))
    falling = slope < 0
    ends[:, falling] = ends[::-1, falling]
    note = f"tests and limits: before {back.name}; limits are carried through it, se by the delta method"
    return evolve(state, interval=ends, se=np.abs(slope) * state.se, vcov=None, notes=(*state.notes, note))


def _within_margin(state: InferenceState, tested: tuple, options: Asymp) -> InferenceState:
    """Statistic and p-value against a margin; limits stay as they are.

        equivalence      t = (|estimate − null| − δ)/se, small is evidence;   non-inferiority  t = (estimate − null + δ)/se

    Source: Schuirmann (1987); Lenth's emmeans, test(delta =).
    """
    if not isinstance(options.adjust, str) or options.adjust.lower() not in ("auto", "none"):
        where = f"infer(delta={options.delta!r})"
        raise NotYet("tests against a margin are not adjusted for their number.", where=where, do="Leave adjust= out.")
    estimate, null, se, side = tested
    assert state.df is not None
    distance, delta = estimate - null, options.delta
    with np.errstate(divide="ignore", invalid="ignore"):
        if side == "two-sided":
            kind, tail, statistic = "equivalence", "less", (np.abs(distance) - delta) / se
        elif side == "greater":
            kind, tail, statistic = "non-inferiority", "greater", (distance + delta) / se
        else:
            kind, tail, statistic = "non-superiority", "less", (distance - delta) / se
    note = f"test of {kind} with margin {delta:.6g} on the scale tested; p-values are not adjusted, limits do not know the margin"
    changes = {"delta": delta}
    return evolve(
        state, statistic=statistic, p_value=t_tail(statistic, state.df, tail), notes=(*state.notes, note), options=state.options | changes
    )


def _adjusted(state: InferenceState, target: Target, tested: tuple, asked: Any, root: np.ndarray | None) -> InferenceState:
    """The state with p-values and limits corrected for the number of tests.

    tested  estimate (K,), spread (K,) and side on the tested scale; limits are estimate ± critical value × spread
    root    (K, m)  of the covariance of the rows, None where it is not kept
    """
    estimate, spread, side = tested
    plain = isinstance(asked, str) and (asked.lower() == "none" or (asked.lower() == "auto" and target.contrast is None))
    if plain:
        return state
    method = multiplicity.resolve_method(asked, target.contrast)
    if method == "none" or len(estimate) == 0:
        return state
    assert state.statistic is not None
    assert state.df is not None
    assert state.level is not None
    correlation = None
    if method in ("scheffe", "dunnett", "mvt") and root is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = root / np.sqrt(np.einsum("ij,ij->i", root, root))[:, None]
        correlation = unit @ unit.T
    tests = multiplicity.Tests(
        statistic=state.statistic,
        df=state.df,
        side=side,
        family=target.family,
        means=target.group_size,
        correlation=correlation,
        contrast=target.contrast,
    )
    found = multiplicity.adjust(tests, method, state.level)
    lower = estimate - found.critical * spread if side != "less" else np.full_like(spread, -np.inf)
    upper = estimate + found.critical * spread if side != "greater" else np.full_like(spread, np.inf)
    options = state.options | {"adjust": found.method}
    return evolve(state, p_value=found.p_value, interval=np.stack((lower, upper)), notes=(*state.notes, found.note), options=options)
