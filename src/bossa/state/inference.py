"""Uncertainty of K numbers, whatever produced it. Made by one backend, read by report."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import field, frozen

from .fields import array, check_axes


@frozen(kw_only=True, eq=False)
class InferenceState:
    """One inference for one target.

    how        "asymp" | "boot" | …
    level      coverage of the interval
    se         (K,)    standard errors; None where the how has none
    estimate   (K,)    as shown, where the how has its own (a posterior's mean); None: the fit's
    statistic  (K,)    with `statistic_name` "t", "z", "F" …
    df         (K,)    inf for z
    p_value    (K,)
    interval   (2, K)  lower row, upper row; ±inf on the open side of a one-sided interval
    null       (K,)    value tested
    side       "two-sided" | "less" | "greater"
    columns    extra columns of the table, by name, (K,) each
    notes      every choice that changed a number, one sentence each
    options    resolved options as a dict, for display and replay
    """

    how: str
    level: float | None = 0.95
    estimate: np.ndarray | None = array("K", optional=True)
    se: np.ndarray | None = array("K", optional=True)
    statistic: np.ndarray | None = array("K", optional=True)
    statistic_name: str = "t"
    df: np.ndarray | None = array("K", optional=True)
    p_value: np.ndarray | None = array("K", optional=True)
    interval: np.ndarray | None = array("bound", "K", optional=True)
    null: np.ndarray | None = array("K", optional=True)
    side: str = "two-sided"
    columns: dict[str, Any] = field(factory=dict)
    vcov: np.ndarray | None = array("K", "K2", optional=True)
    notes: tuple[str, ...] = ()
    options: dict[str, Any] = field(factory=dict)
    extra: Any = None  # ResamplesState, CVState, ProfileState, Posterior
    stream: Any = None  # AssimilationResult, of how="assim"

    __attrs_post_init__ = check_axes


@frozen(kw_only=True, eq=False)
class JointTestState:
    """One test per term (or one of all rows): frame of term, df1, df2, statistic, p_value."""

    frame: Any
    kind: str
    statistic_name: str
    notes: tuple[str, ...] = ()


@frozen(kw_only=True, eq=False)
class EffectsState:
    """An explored question: the query as asked, its Target, its estimate (K,)."""

    query: str
    target: Any
    estimate: np.ndarray = array("K")


@frozen(kw_only=True, eq=False)
class PredictionState:
    """Predictions for new rows: the rows, their Target, the fitted values (n_new,)."""

    newdata: Any
    target: Any
    fitted: np.ndarray = array("K")
    type: str = "response"
    varying: str = "include"
    notes: tuple[str, ...] = ()


@frozen(kw_only=True, eq=False)
class SimulationState:
    """Simulated responses (n, nsim)."""

    rows: Any
    values: np.ndarray = array("n", "nsim")
    seed: Any = None
    notes: tuple[str, ...] = ()


@frozen(kw_only=True, eq=False)
class ResamplesState:
    """Replicates of K numbers, one row each; code 0 is usable.

    values (B, K) or None when not kept;  observed (K,);  seed replays the run;  partial: it was interrupted
    """

    values: np.ndarray | None = array("B", "K", optional=True)
    observed: np.ndarray = array("K")
    code: np.ndarray = array("B")
    scheme: str
    seed: Any
    planned: int
    failed: dict[str, int] = field(factory=dict)
    spread: SpreadState | None = None

    __attrs_post_init__ = check_axes

    @property
    def partial(self) -> bool:
        return len(self.code) < self.planned


@frozen(kw_only=True, eq=False)
class SpreadState:
    """Limits of the R rows of `varying_spread`: of standard deviations, and of correlations where a row has one; how they were found.

    se  (R,)  standard errors of the same, where resampling gives them
    """

    lower: np.ndarray = array("R")
    upper: np.ndarray = array("R")
    se: np.ndarray | None = array("R", optional=True)
    method: str

    __attrs_post_init__ = check_axes


@frozen(kw_only=True, eq=False)
class ProfileState:
    """ζ-curves by label: ψ (m,) and ζ(ψ) (m,); `spread`: limits of the random effects' standard deviations and correlations."""

    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    spread: SpreadState | None = None


@frozen(kw_only=True, eq=False)
class CVState:
    """Out-of-fold predictions of the rows used (n,), nan where there is none, their residuals and folds, and how good they are by name."""

    fitted: np.ndarray = array("n")
    residual: np.ndarray = array("n")
    fold: np.ndarray = array("n")
    numbers: dict[str, float]

    __attrs_post_init__ = check_axes
