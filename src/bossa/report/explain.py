"""Show your work: the steps from the data to the numbers of the last result, each with its frame.

    e = m.explain();  print(e);  e["XtX"]      every step by its name

Parameters: coding → sizes → design → XᵀWX, XᵀWy → β̂ → σ̂² → standard errors. An explored or predicted question: the steps of its Target,
the map L they amount to at β̂, Lβ̂ and √(L V Lᵀ). The estimates are those of the fit (found by a QR decomposition, which loses less to
rounding than the normal equations shown).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from ..explore.diagnose import is_linear, scores
from ..state.inference import InferenceState, SimulationState
from ..state.target import Each, Linear, Target
from . import streams, table, text
from .steps import Explanation, Step
from .table import Readable


def explain(m: Readable) -> Explanation:
    """The steps of the question asked last, or of the parameters; of a stream, how its batches led to it."""
    state = m.inference if m.focus is None else m.focus_inference
    stream = getattr(state, "stream", None)
    if stream is not None:
        title = f"How the numbers of {m.spec.formula} were learnt batch by batch"
        return Explanation(title if m.focus is None else f"{title}: {text.stage(m)}", tuple(streams.stream_steps(stream)))
    if m.focus is None or isinstance(m.focus, SimulationState):
        return Explanation(f"How the coefficients of {m.spec.formula} were found", tuple(_params(m)))
    return Explanation(f"How the numbers of this question were found: {text.stage(m)}, {m.spec.formula}", tuple(_target(m, m.focus.target)))


# ------------------------------------------------------------------ parameters
def _params(m: Readable) -> Iterator[Step]:
    design, fit = m.problem.design, m.fit_state
    yield from _codings(m)
    yield Step(
        "sizes",
        "observations, estimated coefficients, residual degrees of freedom",
        pl.DataFrame({"n": [design.n_obs], "p": [len(fit.coef)], "df_resid": [fit.df_resid]}),
    )
    z, symbol = _response(m)
    yield Step("design", f"first rows of X, with {symbol}" + ("" if fit.working is None else " and the weights W"), _head(m, z, symbol))
    if design.random is None:
        X = design.X
        WX = X if fit.working is None else X * fit.working[:, None]
        W = "" if fit.working is None else "W"
        yield Step("XtX", f"Xᵀ{W}X", _square(X.T @ WX, design.names))
        yield Step("Xty", f"Xᵀ{W}{symbol}", pl.DataFrame({"term": list(design.names), "Xty": WX.T @ z}))
        if fit.prior is None:
            yield Step("estimates", f"β̂ = (Xᵀ{W}X)⁻¹ Xᵀ{W}{symbol}", _coefficients(m))
        else:
            spread = pl.DataFrame({"term": list(design.names), "mean": fit.prior.mean, "sd": np.sqrt(fit.prior.cov.diag())})
            yield Step("prior", "mean m₀ and standard deviation of the prior, of covariance B; inf: flat", spread)
            yield Step("estimates", f"β̂ = (Xᵀ{W}X + σ²B⁻¹)⁻¹ (Xᵀ{W}{symbol} + σ²B⁻¹m₀)", _coefficients(m))
    else:
        spread = table.varying_frame(m, "spread", m.problem, fit)
        yield Step("random effects", "variances and correlations that maximise the criterion", spread)
        how = "β̂ = (XᵀΣ⁻¹X)⁻¹ XᵀΣ⁻¹y, Σ the covariance they imply" if fit.estimator == "lmm" else "β̂ where the likelihood is largest"
        yield Step("estimates", how, _coefficients(m))
    yield _scale(m)
    yield Step("errors", "se = √ of the diagonal of V, the model's covariance of β̂", _errors(m))
    if m.inference is not None:
        yield Step("inference", text.heading(m.inference), table.params_frame(m))
        yield from _posterior(m.inference)


def _coefficients(m: Readable) -> pl.DataFrame:
    return pl.DataFrame({"term": list(m.problem.design.names), "estimate": m.fit_state.coef})


def _codings(m: Readable) -> Iterator[Step]:
    for name, piece in table.codings(m).items():
        how = "one column per level" if piece.coding == "levels" else f"{piece.coding} coding"
        columns = {c: piece.matrix[:, j] for j, c in enumerate(piece.names)}
        yield Step(f"coding of {name}", f"{how}: what a level becomes", table.beside(pl.DataFrame({"level": list(piece.labels)}), columns))


def _response(m: Readable) -> tuple[np.ndarray, str]:
    """What the (last) least-squares problem regresses on X: y, or the working response η + W⁻¹ score of a generalized linear model."""
    design, fit = m.problem.design, m.fit_state
    offset = 0.0 if design.offset is None else design.offset
    if fit.estimator == "lm" or fit.working is None or design.random is not None:
        return design.y - offset, "y" if design.offset is None else "(y − offset)"
    score = scores(m.problem, fit) * (1.0 if design.freq is None else design.freq)
    step = np.divide(score, fit.working, out=np.zeros(design.n), where=np.asarray(fit.working) > 0)
    return fit.eta - offset + step, "z"


def _head(m: Readable, z: np.ndarray, symbol: str, rows: int = 5) -> pl.DataFrame:
    design, working = m.problem.design, m.fit_state.working
    left = pl.DataFrame({"row": design.rows[:rows], symbol: z[:rows]} | ({} if working is None else {"W": working[:rows]}))
    return table.beside(left, {name: design.X[:rows, j] for j, name in enumerate(design.names)})


def _scale(m: Readable) -> Step:
    fit = m.fit_state
    if fit.prior is not None and is_linear(m.problem):
        frame = pl.DataFrame({"variance": [fit.dispersion], "sigma": [fit.sigma]})
        how = f"{fit.df_resid:g} degrees of freedom: residuals, the distance from the prior's mean, and what was told of σ"
        return Step("sigma", f"σ̂² on {how}" if fit.dispersion_estimated else "σ is taken as known", frame)
    if not fit.dispersion_estimated:
        return Step("dispersion", f"φ is 1 for the {m.spec.family.name} family", pl.DataFrame({"dispersion": [fit.dispersion]}))
    if fit.estimator == "lm":
        frame = pl.DataFrame({"rss": [fit.deviance], "df_resid": [fit.df_resid], "variance": [fit.dispersion], "sigma": [fit.sigma]})
        return Step("sigma", "σ̂² = residual sum of squares / residual degrees of freedom", frame)
    if fit.estimator == "lmm":
        return Step("sigma", "residual standard deviation", pl.DataFrame({"variance": [fit.dispersion], "sigma": [fit.sigma]}))
    return Step("dispersion", "the estimated scale φ̂", pl.DataFrame({"dispersion": [fit.dispersion], "sigma": [fit.sigma]}))


def _errors(m: Readable) -> pl.DataFrame:
    variance = np.diag(m.fit_state.vcov)
    return pl.DataFrame({"term": list(m.problem.design.names), "variance": variance, "se": np.sqrt(variance)})


def _square(matrix: np.ndarray, names: tuple[str, ...]) -> pl.DataFrame:
    return table.beside(pl.DataFrame({"term": list(names)}), {name: matrix[:, j] for j, name in enumerate(names)})


# ------------------------------------------------------------------ a question
def _target(m: Readable, target: Target) -> Iterator[Step]:
    for name, value in target.details.items():
        if isinstance(value, pl.DataFrame):
            yield Step(name, "what the question is asked at" if name == "grid" else f"{name} of the question", value)
    if all(s.matrix.shape[1] == len(m.fit_state.coef) for s in target.steps[:1] if isinstance(s, Linear)):
        yield from _pipeline(m, target)
    if m.focus_inference is not None:
        frame = table.effects_frame(m) if target.kind != "predictions" else table.predictions_frame(m)
        yield Step("inference", text.heading(m.focus_inference), frame)
        yield from _posterior(m.focus_inference)


def _posterior(state: Any) -> Iterator[Step]:
    """Of how="posterior": what it rests on, and what of it is data."""
    if isinstance(state, InferenceState) and state.how == "posterior":
        yield from (Step(f"posterior, {s.name}", s.what, s.frame) for s in streams.posterior_steps(state.extra))


def _pipeline(m: Readable, target: Target) -> Iterator[Step]:
    """Each step with its weights and what comes out of it; then the whole map, Lβ̂ and √(L V Lᵀ)."""
    fit, names = m.fit_state, m.problem.design.names
    value, inputs = fit.coef, names
    for i, step in enumerate(target.steps, 1):
        value = step.value(value)
        columns: dict[str, np.ndarray] = {}
        if isinstance(step, Linear):
            what = f"{step.label or 'weights'}; each row makes one number, Σ weight × input"
            columns = {name: step.matrix[:, j] for j, name in enumerate(inputs)} | ({} if step.offset is None else {"offset": step.offset})
        elif isinstance(step, Each):
            what = f"each number through {step.name}"
        else:
            what = step.label or "mean over the rows of each cell"
        yield Step(f"step {i}", what, table.beside(pl.DataFrame(columns), {"value": value}))
        inputs = tuple(f"input {j + 1}" for j in range(len(value)))
    L = target.jacobian(fit.coef)
    linear = all(isinstance(s, Linear) for s in target.steps)
    se = np.sqrt(np.einsum("kp,pq,kq->k", L, fit.vcov, L))
    numbers = {"estimate": value, "se": se}
    if target.estimable is not None:
        numbers = {k: np.where(target.estimable, v, np.nan) for k, v in numbers.items()}
    yield Step("L", _map(linear), table.beside(target.labels, {name: L[:, j] for j, name in enumerate(names)}))
    estimates = f"{'Lβ̂' if linear else 'the last value'}, and se = √ of the diagonal of L V Lᵀ, V the model's own covariance"
    yield Step("estimates", estimates, table.beside(target.labels, numbers))
    if target.back is not None:
        shown = np.asarray(target.back.function(numbers["estimate"]))
        slope = np.abs(np.asarray(target.back.slope(numbers["estimate"])))
        frame = table.beside(target.labels, {"estimate": shown, "slope": slope, "se": slope * numbers["se"]})
        yield Step("shown", f"each number through {target.back.name}; se × slope (delta method)", frame)


def _map(linear: bool) -> str:
    return "the steps in one: weight of each coefficient" if linear else "slope of the whole pipeline at β̂, by the chain rule"
