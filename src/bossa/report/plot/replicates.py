"""Many answers to one question: resampled estimates, simulated responses, likelihood profiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.ticker import MaxNLocator

from ...errors import NotFitted
from ...state.inference import InferenceState, ProfileState, ResamplesState
from .. import table
from .figure import COLOURS, SOFT, Plot, canvas, dashed, finish, labelled, styled, thin, uncertainty_said

PANELS = 12
OUTLINES = 30  # simulated responses drawn


@styled
def resamples(m: table.Readable) -> Plot:
    """The replicates of the last bootstrap or permutation: a histogram per estimate, with what was observed and its interval."""
    frame = table.resamples_frame(m)
    inference: InferenceState = m.inference if m.focus is None else m.focus_inference
    state: ResamplesState = inference.extra
    K = len(state.observed)
    labels = [", ".join(labelled(row)) for row in frame.head(K).drop("replicate", "estimate", "code").rows()]
    shown = list(range(K))[:PANELS]
    frame = frame.filter(pl.col("code") == 0)
    if len(shown) < K:
        frame = frame.filter(pl.int_range(pl.len()) % K < PANELS)
    across = min(len(shown), 3)
    down = -(-len(shown) // across)
    figure, axes = canvas(max(5.5, 3.1 * across), 1.2 + 2.2 * down, down, across)
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < len(shown))
    for k, ax in zip(shown, axes.flat):
        _histogram(ax, np.asarray(frame["estimate"])[k :: len(shown)], state.observed[k])
        if inference.interval is not None:
            ax.axvspan(*inference.interval[:, k], color=COLOURS[0], alpha=0.12, linewidth=0)
        ax.set_title(labels[k])
        if k % across == 0:
            ax.set_ylabel("replicates")
    said = ["Orange line: the estimate itself", f"shaded: {uncertainty_said(inference)}" if inference.interval is not None else ""]
    said += [f"the first {PANELS} of {K} estimates" if len(shown) < K else "", *(f"{k} {why}" for why, k in state.failed.items())]
    return finish(figure, frame, "resamples", f"{len(state.code)} replicates ({state.scheme}) of {m.spec.formula}", said)


def _histogram(ax: Any, values: np.ndarray, observed: float) -> None:
    values = values[np.isfinite(values)]
    ax.hist(values, bins=min(40, max(10, len(values) // 25)), color=COLOURS[0], alpha=0.7)
    ax.axvline(observed, color=COLOURS[1], linewidth=1.8)
    thin(ax, "y")


@styled
def simulate(m: table.Readable) -> Plot:
    """The distribution of the response in the data beside those simulated from the model: do they look alike?"""
    state = m.focus
    y, sims = np.asarray(m.problem.design.y), np.asarray(state.values)[:, :OUTLINES]
    low, high = float(min(y.min(), sims.min())), float(max(y.max(), sims.max()))
    whole = m.problem.family.discrete and high - low <= 60 and (y == np.round(y)).all()
    edges = np.arange(low - 0.5, high + 1.5) if whole else np.linspace(low, high, 31)
    names = ["observed", *(f"sim_{i + 1}" for i in range(sims.shape[1]))]
    counts = {name: np.histogram(v, edges)[0] for name, v in zip(names, [y, *sims.T])}
    frame = pl.DataFrame({"from": edges[:-1], "to": edges[1:], **counts})
    figure, axes = canvas(6.5, 4.2)
    ax = axes[0, 0]
    for name in names[1:]:
        ax.stairs(counts[name], edges, color=SOFT, alpha=0.35, linewidth=0.9)
    ax.stairs(counts["observed"], edges, color=COLOURS[1], linewidth=2)
    ax.set(xlabel=str(m.spec.response), ylabel="rows")
    if whole:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    thin(ax, "y")
    caption = [f"Orange: the data; grey: {sims.shape[1]} responses simulated from the fitted model", *state.notes]
    return finish(figure, frame, "simulate", f"Simulated from {m.spec.formula}", caption)


@styled
def profile(m: table.Readable) -> Plot:
    """ζ along each parameter: a straight line where the likelihood is quadratic, so that ± standard errors would do."""
    inference: InferenceState = m.inference if m.focus is None else m.focus_inference
    state = getattr(inference, "extra", None)
    if not isinstance(state, ProfileState):
        raise NotFitted("there are no profiles yet.", where="plot_profile()", do='Write m = m.infer(how="profile") and ask that.')
    curves = [(label, np.asarray(psi), np.asarray(zeta)) for label, (psi, zeta) in state.curves.items() if len(psi)][:PANELS]
    if not curves:
        raise NotFitted("the curves were not kept.", where="plot_profile()", do='Write m = m.infer(how="profile", n_steps=20).')
    limits = _profile_limits(inference, state)
    frame = pl.concat(pl.DataFrame({"term": [label] * len(psi), "value": psi, "zeta": zeta}) for label, psi, zeta in curves)
    across = min(len(curves), 3)
    down = -(-len(curves) // across)
    figure, axes = canvas(max(5.5, 3.1 * across), 1.2 + 2.3 * down, down, across)
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < len(curves))
    for i, (ax, (label, psi, zeta)) in enumerate(zip(axes.flat, curves)):
        ax.plot(psi, zeta, color=COLOURS[0], linewidth=1.8, marker="o", markersize=3)
        dashed(ax, 0, "y")
        if label in limits:
            lower, upper = np.clip(limits[label], psi.min(), psi.max())
            ax.axvspan(lower, upper, color=COLOURS[0], alpha=0.12, linewidth=0)
        ax.set_title(label)
        thin(ax, "both")
        if i % across == 0:
            ax.set_ylabel("ζ (signed root of the deviance)")
    more = f"the first {PANELS} of {len(state.curves)} curves" if len(state.curves) > PANELS else ""
    caption = [f"Shaded: {uncertainty_said(inference)}", "a straight line: standard errors say all", more]
    return finish(figure, frame, "profile", f"Likelihood profiles of {m.spec.formula}", caption)


def _profile_limits(inference: InferenceState, state: ProfileState) -> dict[str, tuple[float, float]]:
    """Limits by label: of the rows asked about first, then of the random effects' spread, in the order of the curves."""
    found = [] if inference.interval is None else [tuple(pair) for pair in np.asarray(inference.interval).T if np.isfinite(pair).any()]
    if state.spread is not None:
        found += [(float(low), float(high)) for low, high in zip(state.spread.lower, state.spread.upper)]
    return dict(zip(state.curves, found)) if len(found) == len(state.curves) else {}
