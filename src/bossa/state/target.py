"""K numbers computed from the coefficients by a short pipeline of steps: the question, whatever it is.

A step is `Linear(matrix, offset)` or `Each(function)`; both know their value and their slope, so

    value(coef)     folds the steps;  coef may be (p,) or (S, p), draws at once
    jacobian(coef)  (K, p), by the chain rule

Parameters, marginal means, slopes, contrasts, ratios and predictions are all Targets; a `how` never asks which. Printing the steps is
"show your work".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from .fields import array


@frozen(kw_only=True, eq=False)
class Linear:
    """x ↦ matrix x + offset.   matrix (K, m), offset (K,) or None."""

    matrix: np.ndarray = array("K", "m")
    offset: np.ndarray | None = array("K", optional=True)
    label: str = ""

    def value(self, x: np.ndarray) -> np.ndarray:
        out = x @ self.matrix.T
        return out if self.offset is None else out + self.offset

    def push(self, x: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
        return self.matrix @ jacobian


@frozen(kw_only=True, eq=False)
class Each:
    """x ↦ function(x), elementwise, with its derivative `slope`; `inverse` where a null value has to be carried back."""

    name: str
    function: Any
    slope: Any
    inverse: Any = None

    def value(self, x: np.ndarray) -> np.ndarray:
        return self.function(x)

    def push(self, x: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
        return self.slope(x)[:, None] * jacobian


@frozen(kw_only=True, eq=False)
class Target:
    """The question: K labelled rows and the steps that compute them from the coefficients.

    labels     polars frame (K rows): what stands before the numbers in the table
    steps      pipeline; none: the coefficients themselves
    kind       "params" | "means" | "slopes" | "contrasts" | "predictions": used for defaults (adjust) and wording only
    scale      "link" | "response"
    null       the question's own null value as shown: 0, or 1 for ratios; with `back` the test is always of 0 before it unless the user says
    back       elementwise monotone map from the tested scale to the shown one (link → response, log → ratio), or None: `value` is before
               it; intervals are mapped through it, standard errors by its slope
    estimable  (K,) bool, None: all;  `reason` says which cell is empty
    family     (K,) int: rows that share multiplicity adjustment, None: one family
    group_size number of means compared in each family (Tukey), None
    notes      choices made (averaging, held values, reference level): always shown
    """

    labels: Any
    steps: tuple[Linear | Each, ...] = ()
    kind: str = "params"
    scale: str = "link"
    null: float = 0.0
    back: Each | None = None
    estimable: np.ndarray | None = array("K", optional=True)
    reason: tuple[str, ...] = ()
    family: np.ndarray | None = array("K", optional=True)
    group_size: np.ndarray | None = array("K", optional=True)
    contrast: str | None = None
    notes: tuple[str, ...] = ()
    details: dict = field(factory=dict)

    def value(self, coef: np.ndarray) -> np.ndarray:
        """coef (…, p) → (…, K)."""
        for step in self.steps:
            coef = step.value(coef)
        return coef

    def jacobian(self, coef: np.ndarray) -> np.ndarray:
        """coef (p,) → ∂value/∂coef (K, p)."""
        J = np.eye(coef.shape[-1])
        for step in self.steps:
            J, coef = step.push(coef, J), step.value(coef)
        return J

    def then(self, *steps: Linear | Each, **changes: Any) -> Target:
        return evolve(self, steps=(*self.steps, *steps), **changes)
