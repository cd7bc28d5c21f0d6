"""Pictures of what a model says: each a `Plot`, a matplotlib figure with the polars frame that it draws.

    drawing("params")(m, …)  →  Plot           one function per picture; matplotlib is imported with the first
    kind_of(m)               →  "params" …     the picture of what was done last

    coefficients.py   params, vif              estimates.py   explore, predict
    cases.py          resid, design, relationships
    spread.py         varying                  replicates.py  resamples, simulate, profile
    trajectory.py     trajectory               calibration.py  ranks of a simulation-based calibration

Nothing is computed here that a frame does not hold: what is drawn is in `.frame`, and the caption says which intervals they are.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ...errors import OptionError, UnknownOption
from ...state.inference import EffectsState, PredictionState, SimulationState
from .. import table

HOME = {
    "params": "coefficients",
    "vif": "coefficients",
    "explore": "estimates",
    "predict": "estimates",
    "resid": "cases",
    "design": "cases",
    "relationships": "cases",
    "varying": "spread",
    "resamples": "replicates",
    "simulate": "replicates",
    "profile": "replicates",
    "trajectory": "trajectory",
}


def drawing(kind: str) -> Callable[..., Any]:
    """The function that draws `kind`; an error that says what to install where matplotlib is not."""
    if kind not in HOME:
        raise UnknownOption(kind, HOME, where="plot()", kind="plot")
    return getattr(_module(HOME[kind], f"plot_{kind}()"), kind)


def of_gate(gate: Any) -> Any:
    """The ranks of a calibration, for its `GateResult.plot()`."""
    return _module("calibration", "plot()").calibration(gate)


def _module(name: str, where: str) -> Any:
    if find_spec("matplotlib") is None:
        raise OptionError("matplotlib is not installed.", where=where, do="pip install 'bossa[plot]'.")
    return import_module(f"{__name__}.{name}")


def kind_of(m: table.Readable) -> str:
    """Which picture shows what was done last: the relations in the data before a fit, the parameters after it."""
    shown = {EffectsState: "explore", PredictionState: "predict", SimulationState: "simulate"}
    if m.fit_state is None:
        return "relationships"
    if getattr(m.inference if m.focus is None else m.focus_inference, "stream", None) is not None:
        return "trajectory"
    return shown.get(type(m.focus), "params")
