"""The fit as R's `summary()` lays it out: call, residuals, coefficients, then the numbers of the whole model.

summary(m, numbers, residuals)  →  Summary; its `str` is the text
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from math import isfinite
from typing import Any

import numpy as np
import polars as pl
from attrs import frozen

from ..explore.diagnose import is_linear
from . import table, text
from .display import cell, degrees, probability
from .table import Readable


@frozen(repr=False)
class Summary:
    """Text of a fit; `print` it."""

    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text)}</pre>"


def summary(m: Readable, numbers: Mapping[str, Any], residuals: np.ndarray) -> Summary:
    """R-like text.   numbers: the model's diagnostics;  residuals (n,): response (LM) or deviance residuals"""
    blocks = [
        [f"Call: {m.spec.formula}", *_call(m)],
        _residuals(m, residuals),
        [f"Coefficients:{_how(m)}", *text.lay_out(text.grid(table.params_frame(m), rows=1000))],
        *(text.lay_out(t) for t in text.varying(m)),
        _model_lines(m, numbers),
        [f"- {n}" for n in text.notes(m)],
    ]
    return Summary("\n\n".join("\n".join(b) for b in blocks if b))


def _call(m: Readable) -> list[str]:
    spec = m.spec
    return [f"      {text.kind(spec)}, family {spec.family.name}, {spec.link.name} link, {text.method(m)}"]


def _how(m: Readable) -> str:
    return " (no standard errors yet: use m.infer())" if m.inference is None else f" ({text.heading(m.inference)})"


def _residuals(m: Readable, residuals: np.ndarray) -> list[str]:
    """Five numbers, or every residual where there are no more."""
    name = "Residuals:" if is_linear(m.problem) else "Deviance residuals:"
    finite = residuals[np.isfinite(residuals)]
    if len(finite) == 0:
        return []
    quantiles = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1])
    frame = pl.DataFrame({k: [cell(float(v))] for k, v in zip(("Min", "1Q", "Median", "3Q", "Max"), quantiles)})
    return [name, *text.lay_out(text.Grid("", tuple(frame.columns), tuple(tuple(frame[c]) for c in frame.columns), (True,) * 5))]


def _model_lines(m: Readable, numbers: Mapping[str, Any]) -> list[str]:
    """The numbers of the whole model, as R words them."""
    d = {k: float(v) for k, v in numbers.items() if v is not None and isfinite(v)}
    lines = (_linear(m, d) if m.problem.design.random is None else _mixed(d)) if is_linear(m.problem) else _generalized(m, d)
    return [*lines, f"Rows: {text.rows_used(m)}", f"Convergence {table.convergence(m.fit_state.outcome)}"]


def _mixed(d: Mapping[str, float]) -> list[str]:
    names = {"reml_criterion": "REML criterion", "loglik": "Log-likelihood", "aic": "AIC", "rsquared_marginal": "Marginal R²"}
    names |= {"rsquared_conditional": "Conditional R²", "icc": "ICC"}
    return [f"{words}: {cell(d[key])}" for key, words in names.items() if key in d]


def _linear(m: Readable, d: Mapping[str, float]) -> list[str]:
    lines = []
    if "sigma" in d:
        on = f"on {degrees(d['df_resid'])} degrees of freedom" if m.fit_state.dispersion_estimated else "(taken as known)"
        lines.append(f"Residual standard error: {cell(d['sigma'])} {on}")
    if "rsquared" in d:
        adjusted = f", adjusted R²: {cell(d['rsquared_adj'])}" if "rsquared_adj" in d else ""
        lines.append(f"R²: {cell(d['rsquared'])}{adjusted}")
    if "fstat" in d:
        dfs = f" on {degrees(d['fstat_df1'])} and {degrees(d['fstat_df2'])} degrees of freedom" if "fstat_df1" in d else ""
        p = f", p-value: {probability(d['fstat_p_value'])}" if "fstat_p_value" in d else ""
        lines.append(f"F statistic: {cell(d['fstat'])}{dfs}{p}")
    return lines


def _generalized(m: Readable, d: Mapping[str, float]) -> list[str]:
    fit = m.fit_state
    how = "estimated" if fit.dispersion_estimated else "fixed"
    lines = [f"Dispersion of the {m.spec.family.name} family: {cell(fit.dispersion)} ({how})"]
    if "null_deviance" in d:
        on = f" on {degrees(d['df_null'])} degrees of freedom" if "df_null" in d else ""
        lines.append(f"Null deviance:     {cell(d['null_deviance'])}{on}")
    if "deviance" in d:
        lines.append(f"Residual deviance: {cell(d['deviance'])} on {degrees(fit.df_resid)} degrees of freedom")
    if "aic" in d:
        lines.append(f"AIC: {cell(d['aic'])}")
    lines += [f"{name}: {cell(float(value))}" for name, value in fit.aux.items() if np.ndim(value) == 0]
    return [*lines, f"Iterations: {fit.outcome.iterations}"]
