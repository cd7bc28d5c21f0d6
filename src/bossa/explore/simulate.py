"""New responses from a fitted model: y* ~ f(y | μ̂, φ̂), row by row of the data used.

A response comes back as R's `simulate` gives it: numbers as they are, the count of successes where the formula says
cbind(success, failure), the proportion where weights= holds the trials. Column i draws from its own stream, so the first columns do not
depend on how many are asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import OptionError, Refused, UnknownOption
from ..estimate.random import term_factors
from ..kernels.scatter import impossible, scattered
from ..kernels.streams import entropy, stream
from ..state.design import Problem
from ..state.fields import conf_level
from ..state.fit import FitState
from ..state.inference import InferenceState, SimulationState
from ..state.spec import Call
from ..types import Floats, is_whole

VARYING = ("fitted", "sample")


def simulate(problem: Problem, fit: FitState, nsim: int, *, seed: Any = None, varying: str = "fitted") -> SimulationState:
    """nsim responses (n, nsim), each in the units of the response of the formula.

    varying  "fitted": the random effects stay as estimated;  "sample": drawn anew for every simulation (mixed models)
    """
    check_nsim(nsim)
    if not isinstance(varying, str) or varying not in VARYING:
        raise UnknownOption(varying, VARYING, where="simulate()", kind="varying")
    design, family = problem.design, problem.family
    if family.sample is None:
        raise Refused(f"family {family.name!r} has no distribution to draw from.", where="simulate()", do="Use a full family.")
    if design.weights is not None and family.name in ("poisson", "negbinomial"):
        what = f"prior weights make a {family.name} response neither {family.name} nor anything else that could be drawn."
        raise Refused(what, where="simulate()", do="Use freq_weights= where the weights are counts.")
    if varying == "sample" and design.random is None:
        raise OptionError("the model has no random effects to draw.", where="simulate(varying='sample')", do="Leave varying= out.")
    seeds = entropy(seed, "simulate()")
    trials, said = units(problem)
    values = np.empty((design.n, nsim), order="F")
    for i in range(nsim):
        rng = stream(seeds, i)
        mu = fit.mu if varying == "fitted" else resampled_mean(problem, fit, rng)
        values[:, i] = family.sample(rng, mu, fit.dispersion, design.weights)
    if trials is not None:
        values = np.round(values * trials[:, None])
    return SimulationState(rows=design.rows, values=values, seed=seeds, notes=(f"seed: {seeds}", *_groups(problem, varying), *said))


def check_nsim(nsim: Any) -> None:
    if not is_whole(nsim) or nsim < 1:
        raise OptionError(f"nsim={nsim!r} is not a whole number of at least 1.", where="simulate()")


def resampled_mean(problem: Problem, fit: FitState, rng: np.random.Generator) -> Floats:
    """g⁻¹(Xβ̂ + offset + Zb*), b* ~ N(0, σ̂²TTᵀ): the mean of other groups from the same population, (n,)."""
    design = problem.design
    roots = [fit.sigma * T for T in term_factors(design.random, fit.theta)]
    eta = design.X @ fit.coef + scattered(rng, design.random.terms, roots)  # type: ignore[union-attr]
    with np.errstate(all="ignore"):
        mu = np.asarray(problem.link.inverse(eta if design.offset is None else eta + design.offset))
    if impossible(problem.family, mu).any():
        what = f"new random effects carry the mean where {problem.family.name!r} cannot have it."
        raise Refused(what, where="simulate(varying='sample')", do="Use a log or logit link, or varying='fitted'.")
    return mu


def units(problem: Problem) -> tuple[Floats | None, tuple[str, ...]]:
    """Trials (n,) by which a simulated proportion becomes a count (None: it stays as it is), and what to say of the units."""
    expr, weights = problem.spec.response, problem.design.weights
    said = () if problem.design.freq is None else ("a row that counts several times is drawn once",)
    if isinstance(expr, Call) and expr.function == "cbind":
        if problem.spec.weights is not None:
            raise Refused(
                "weights= on top of cbind() leave no whole number of trials to draw from.",
                where="simulate()",
                do="Fit without weights= first.",
            )
        return weights, (f"sim_i counts the successes ({expr.args[0]}); the trials of each row stay as they were", *said)
    if problem.family.weights == "trials" and weights is not None:
        said = (f"sim_i is the proportion of successes in the {problem.spec.weights} trials of the row", *said)
    elif problem.encoder is not None and problem.encoder.success is not None:
        said = (f"sim_i is 1 for {problem.encoder.success.labels[1]}, 0 for {problem.encoder.success.labels[0]}", *said)
    return None, said


def _groups(problem: Problem, varying: str) -> tuple[str, ...]:
    if problem.design.random is None:
        return ()
    return ("random effects: " + ("as estimated" if varying == "fitted" else "drawn anew in every simulation"),)


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
