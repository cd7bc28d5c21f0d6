"""Which estimator fits a problem, and the fit itself.

An estimator is one function `fit(problem) -> FitState`, registered by

    @estimator("lm", accepts=predicate)

Modules are imported in the order of PLAIN, or MIXED where there are random effects, until one accepts: a linear model never loads the
others. `many(problem, plan)` refits a whole plan of replicates at once, where an estimator has a faster way than one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import import_module
from typing import Any

from attrs import evolve, fields, frozen

from ..errors import NotYet, OptionError
from ..kernels.threads import one_thread
from ..state.design import Design, FitOptions, Problem
from ..state.fit import FitState

KINDS = {
    "lm": "a linear model",
    "glm": "a generalized linear model",
    "lmm": "a linear mixed model",
    "glmm": "a generalized linear mixed model",
    "prior": "a model with a prior",
}
SHARED, MANY_COLUMNS, MANY_EFFECTS = 10_000, 256, 2000
PLAIN, MIXED = ("lm", "glm", "prior"), ("lmm", "glmm")


@frozen
class Estimator:
    """A registered way of fitting: `accepts(problem)` says which problems are its own, `takes` which options of `.fit()` mean something."""

    name: str
    fit: Callable[[Problem], FitState]
    accepts: Callable[[Problem], bool]
    many: Callable[..., Any] | None = None
    takes: tuple[str, ...] = ()


ESTIMATORS: dict[str, Estimator] = {}


def estimator(
    name: str, *, accepts: Callable[[Problem], bool], many: Callable[..., Any] | None = None, takes: tuple[str, ...] = ()
) -> Callable:
    """Register the decorated `fit(problem) -> FitState` under `name`; `takes`: the options of `.fit()` that it has a use for."""

    def register(fit: Callable[[Problem], FitState]) -> Callable[[Problem], FitState]:
        ESTIMATORS[name] = Estimator(name, fit, accepts, many, takes)
        return fit

    return register


def _estimators(problem: Problem) -> Iterator[Estimator]:
    """Those already registered first; then the modules not yet imported."""
    seen: set[str] = set()
    for module in (None, *(PLAIN if problem.design.random is None else MIXED)):
        if module is not None:
            import_module(f"{__package__}.{module}")
        for name in [n for n in ESTIMATORS if n not in seen]:
            seen.add(name)
            yield ESTIMATORS[name]


def named(name: str) -> Estimator:
    """The estimator of a fit, its module imported if need be (a worker process starts without it)."""
    if name not in ESTIMATORS:
        import_module(f"{__package__}.{name}")
    return ESTIMATORS[name]


def choose(problem: Problem) -> Estimator:
    """The estimator that accepts the problem; NotYet, by name, where none does."""
    for candidate in _estimators(problem):
        if candidate.accepts(problem):
            return candidate
    what = f"family {problem.family.name!r} with link {problem.link.name!r}"
    if problem.design.random is not None:
        what += " and random effects"
    if problem.prior is not None:
        what += " and a prior"
    do = "" if problem.prior is None else "Fit it without prior=."
    raise NotYet(f"{what} is not built yet.", where=f"model({problem.spec.formula!r})", do=do)


def _check_options(chosen: Estimator, problem: Problem) -> None:
    """An option that this kind of model has no use for is an error, never ignored."""
    for option in fields(FitOptions):
        if option.name not in chosen.takes and getattr(problem.options, option.name) is not None:
            has = f"It takes {', '.join(chosen.takes)}." if chosen.takes else "Leave it out: the fit has a closed form."
            raise OptionError(f"{option.name}= has no use for {KINDS.get(chosen.name, chosen.name)}.", where="fit()", do=has)


def _better_alone(design: Design) -> bool:
    """Whether one BLAS thread is faster: where there are rows to share at all, but few columns, and few effects beside the largest term."""
    n, p = design.X.shape
    beside = [] if design.random is None else sorted(len(t.levels) * len(t.names) for t in design.random.terms)[:-1]
    return n * p > SHARED and p < MANY_COLUMNS and sum(beside) < MANY_EFFECTS


def fit(problem: Problem) -> tuple[Problem, FitState]:
    """Fit, and the problem as fitted: only the columns that rank allows, the family with its estimated shape."""
    chosen = choose(problem)
    _check_options(chosen, problem)
    with one_thread() if _better_alone(problem.design) else nullcontext():
        state = chosen.fit(problem)
    # the family with its estimated shape (θ of a negative binomial, df of t); `free` is kept, so refits estimate it anew
    family = problem.family.fitted(state.aux) if state.aux else problem.family
    return evolve(problem, design=problem.design.keep(state.kept), family=family), state
