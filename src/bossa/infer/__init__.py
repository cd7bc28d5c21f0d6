"""How sure can one be of K numbers? One file per answer (`how=`), all with one signature:

    @backend("boot", Boot)
    def bootstrap(problem, fit, target, options) -> InferenceState

`infer` finds the backend by name, imports its module when it is first asked for, and checks the options at the door: an option that the
how does not have is an error with the nearest name, never ignored. A how never asks what kind of question its Target is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import attrs
from attrs import frozen

from ..errors import NotYet, OptionError, Refused, UnknownOption
from ..state.design import Problem
from ..state.fields import choice, conf_level, option_owner
from ..state.fit import FitState
from ..state.inference import InferenceState, JointTestState
from ..state.target import Target
from ..types import is_number

# where each how lives; one whose module does not exist yet is refused by name
MODULES = {
    "asymp": "asymptotic",
    "boot": "bootstrap",
    "perm": "permutation",
    "cv": "crossval",
    "profile": "profile",
    "joint": "joint",
    "posterior": "posterior",
    "assim": "assimilate",
}
BY_LIKELIHOOD = ("perm", "profile")  # hows that have no use for a prior
SIDES = ("two-sided", "less", "greater")


def _number_or_none(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
    if value is not None and not (is_number(value) and math.isfinite(value)):
        raise OptionError(f"{attribute.name}={value!r} is not a finite number.", where=option_owner(instance), do="Use e.g. null=0.")


@frozen(kw_only=True)
class Common:
    """Options of every how that gives intervals and tests.

    conf_level   0.95, 95 or "95%"
    null         value tested, in the units of the estimate shown; None: the question's own (0, or 1 for ratios)
    alternative  "two-sided" | "less" | "greater": than the null
    """

    conf_level: float = attrs.field(default=0.95, converter=conf_level)
    null: float | None = attrs.field(default=None, validator=_number_or_none)
    alternative: str = choice("two-sided", among=SIDES)


@frozen
class Backend:
    """A registered how: `run(problem, fit, target, options)` and the class of its options."""

    run: Callable[..., InferenceState | JointTestState]
    options: type


BACKENDS: dict[str, Backend] = {}


def backend(how: str, options: type) -> Callable:
    """Register the decorated function as `how=`, with its class of options."""

    def register(run: Callable) -> Callable:
        options.owner = f"infer(how={how!r})"  # type: ignore[attr-defined]
        BACKENDS[how] = Backend(run, options)
        return run

    return register


def find_backend(how: Any) -> Backend:
    """The backend of a name, its module imported when first asked for."""
    if not isinstance(how, str) or (how not in BACKENDS and how not in MODULES):
        raise UnknownOption(how, dict.fromkeys([*MODULES, *BACKENDS]), where="infer()", kind="how")
    if how not in BACKENDS:
        module = f"{__package__}.{MODULES[how]}"
        if find_spec(module) is None:
            raise NotYet(f"how={how!r} is not built yet.", where="infer()", do="Use how='asymp'.")
        import_module(module)
    return BACKENDS[how]


def read_options(how: str, options: dict[str, Any]) -> Any:
    """The options object of a how; an unknown name or value is an error with the nearest one."""
    cls = find_backend(how).options
    known = [f.name for f in attrs.fields(cls)]
    for name in options:
        if name not in known:
            raise UnknownOption(name, known, where=f"infer(how={how!r})")
    return cls(**options)


def infer(problem: Problem, fit: FitState, target: Target, how: str, options: dict[str, Any]) -> InferenceState | JointTestState:
    """Uncertainty of `target` by `how`.   options: as the user gave them"""
    chosen = find_backend(how)
    if target.kind == "information":
        what = "shares of data and prior are a property of the fit, not an estimate with an error."
        raise Refused(what, where=f"infer(how={how!r})", do="Read .effects, or ask the coefficients.")
    if fit.prior is not None and how in BY_LIKELIHOOD:
        what = "it refits under a null by the likelihood alone, and this fit has a prior."
        raise Refused(what, where=f"infer(how={how!r})", do="Use how='posterior' or 'asymp', or fit without prior=.")
    return chosen.run(problem, fit, target, read_options(how, options))


def posterior_of(problem: Problem, fit: FitState, focus: Any, target: Target, state: Any) -> Any:
    """The `Posterior` that an inference of any kind leaves."""
    find_backend("posterior")
    return import_module(f"{__package__}.posterior").posterior_of(problem, fit, focus, target, state)


def stream_of(state: Any, asked: str) -> Any:
    """The stream behind an inference by how="assim"; NotFitted where there is none."""
    find_backend("assim")
    return import_module(f"{__package__}.assimilate").stream_of(state, asked)


def further(problem: Problem, target: Target, state: Any, batch: Any) -> Any:
    """The inference of how="assim" after one more batch."""
    find_backend("assim")
    return import_module(f"{__package__}.assimilate").further(problem, target, state, batch)
