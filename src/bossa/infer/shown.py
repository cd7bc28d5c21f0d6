"""A question on two scales: as tested, and as shown after the target's `back` map (link → response, log → ratio).

Resampling hows find limits and p-values on the tested scale and show them on the other; rows that are not estimable stay nan.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attrs import evolve, frozen

from ..state.target import Target
from . import Common
from .asymptotic import null_values


def linear_rows(target: Target, coef: np.ndarray) -> np.ndarray | None:
    """ℓ (K, p) of a question that is linear in the coefficients; None where it is not."""
    with np.errstate(all="ignore"):
        L, other = target.jacobian(coef), target.jacobian(0.5 * coef + 0.1)
    return L if np.allclose(L, other, rtol=1e-8, atol=1e-10) else None


@frozen(kw_only=True, eq=False)
class Question:
    """What is asked of replicates.

    observed    (K,)  on the scale tested
    null        (K,)  there;  null_shown (K,) as shown
    side        the alternative on the scale tested
    """

    target: Target
    observed: np.ndarray
    null: np.ndarray
    null_shown: np.ndarray
    side: str

    def of(self, coef: np.ndarray) -> np.ndarray:
        """Values of the coefficients of replicates, coef (B, p) → (B, K), on the scale tested."""
        with np.errstate(all="ignore"):  # the log of a mean that is negative in a replicate, say
            return self.blank(self.target.value(coef))

    def cut(self, size: int) -> Iterator[tuple[slice, Question]]:
        """The same of `size` rows at a time, where the target can be cut."""
        for rows, target in self.target.cut(size):
            yield rows, evolve(self, target=target, observed=self.observed[rows], null=self.null[rows], null_shown=self.null_shown[rows])

    def blank(self, values: np.ndarray) -> np.ndarray:
        """nan (…, K) where a row is not estimable or has no value."""
        return np.where(np.isfinite(self.observed), values, np.nan)

    def show(self, values: np.ndarray) -> np.ndarray:
        """Values (…, K) carried to the scale shown."""
        if self.target.back is None:
            return values
        with np.errstate(all="ignore"):
            return np.asarray(self.target.back.function(values))

    def carried(self, interval: np.ndarray) -> np.ndarray:
        """Limits (2, K) on the scale shown, swapped where `back` falls."""
        interval = self.blank(interval)
        if self.target.back is None:
            return interval
        ends = self.show(interval)
        with np.errstate(all="ignore"):
            falling = np.asarray(self.target.back.slope(self.observed)) < 0
        ends[:, falling] = ends[::-1, falling]
        return ends

    def kept(self, values: np.ndarray, code: np.ndarray) -> np.ndarray:
        """Values of the usable replicates as shown, in a row of their own each; nan rows for the others."""
        out = np.full((len(code), values.shape[1]), np.nan)
        out[code == 0] = self.show(values)
        return out


def question(target: Target, coef: np.ndarray, options: Common) -> Question:
    """The question about coefficients (p,) with its null values."""
    with np.errstate(all="ignore"):
        observed = target.value(coef)
    shown, null, side = null_values(target, options, observed)
    if target.estimable is not None:
        observed = np.where(target.estimable, observed, np.nan)
    return Question(target=target, observed=observed, null=null, null_shown=shown, side=side)
