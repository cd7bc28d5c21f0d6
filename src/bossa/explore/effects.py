"""Effects of a fit: a query becomes a Target."""

from __future__ import annotations

from typing import Any

from ..errors import NotYet
from ..state.design import Problem
from ..state.fit import FitState
from ..state.inference import EffectsState


def explore(problem: Problem, fit: FitState, query: str, **options: Any) -> EffectsState:
    raise NotYet("effects are being built.", where="explore()", do="Use .params.")
