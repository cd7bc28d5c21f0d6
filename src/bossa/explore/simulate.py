"""New responses from a fitted model: y* ~ f(y | μ̂, φ̂), row by row of the data used.

Column i draws from its own stream, so the first columns do not depend on how many are asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import NotYet, OptionError, Refused, UnknownOption
from ..kernels.streams import entropy, stream
from ..state.design import Problem
from ..state.fields import conf_level
from ..state.fit import FitState
from ..state.inference import InferenceState, SimulationState

VARYING = ("fitted", "sample")


def simulate(problem: Problem, fit: FitState, nsim: int, *, seed: Any = None, varying: str = "fitted") -> SimulationState:
    """nsim responses (n, nsim), as in the data: for binomial counts the proportion of successes.

    varying  "fitted": the random effects stay as estimated;  "sample": drawn anew for every simulation (mixed models)
    """
    if isinstance(nsim, bool) or not isinstance(nsim, (int, np.integer)) or nsim < 1:
        raise OptionError(f"nsim={nsim!r} is not a whole number of at least 1.", where="simulate()")
    if varying not in VARYING:
        raise UnknownOption(varying, VARYING, where="simulate()", kind="varying")
    design, family = problem.design, problem.family
    if family.sample is None:
        raise Refused(f"family {family.name!r} has no distribution to draw from.", where="simulate()", do="Use a full family.")
    if design.random is not None and varying == "sample":
        raise NotYet("new random effects are not drawn yet.", where="simulate(varying='sample')", do="Use varying='fitted'.")
    seeds = entropy(seed, "simulate()")
    values = np.empty((design.n, nsim), order="F")
    for i in range(nsim):
        values[:, i] = family.sample(stream(seeds, i), fit.mu, fit.dispersion, design.weights)
    return SimulationState(rows=design.rows, values=values, seed=seeds, notes=(f"seed: {seeds}",))


def summarise(state: SimulationState, how: str, options: dict[str, Any]) -> InferenceState:
    """Mean, sd and equal-tailed quantiles of each row's simulations; only how="asymp" applies."""
    if how != "asymp":
        raise Refused(f"simulations have no how={how!r}.", where="infer()", do="Use .infer() for their mean, sd and quantiles.")
    unknown = [k for k in options if k != "conf_level"]
    if unknown:
        raise UnknownOption(unknown[0], ["conf_level"], where="infer() of simulations")
    level = conf_level(options.get("conf_level", 0.95))
    limits = np.quantile(state.values, [(1 - level) / 2, (1 + level) / 2], axis=1)
    sd = state.values.std(axis=1, ddof=1) if state.values.shape[1] > 1 else np.full(state.values.shape[0], np.nan)
    columns = {"mean": state.values.mean(axis=1), "sd": sd, "ci_lower": limits[0], "ci_upper": limits[1]}
    return InferenceState(how="asymp", level=level, columns=columns, notes=(f"{level:.15g} quantile range over simulations",))
