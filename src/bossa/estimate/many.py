"""Refit one problem over a plan of replicates: the only refit path there is.

    refit(problem, fit, plan) → Draws

Bootstrap, jackknife, cross-validation, permutation, parametric bootstrap and power all come here, so weights, counts, offsets, links and
random effects cannot be lost on the way. An estimator with a batched way (`Estimator.many`) refits a block at once; any other is fitted
replicate by replicate. Blocks run under whatever joblib backend the user has configured; block i has its own stream, so nothing but the
time depends on it. A failed replicate is a row of nan with a code.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any
from uuid import uuid4

import numpy as np
from attrs import evolve

from ..errors import BossaError, BossaWarning
from ..kernels.gram import NOT_CONVERGED, OUT_OF_RANGE
from ..kernels.seam import chosen, engine
from ..kernels.threads import one_thread
from ..state.design import FitOptions, Problem
from ..state.fields import arrays_of
from ..state.fit import FitState
from ..state.plan import Draws, Plan, Replicates
from . import registry

CHANCES = 5  # times that a cluster may lose what the blocks share
Then = Callable[[Problem, FitState, Replicates, Draws], Draws]
REASONS = {
    0: "usable",
    1: "rank deficient in the replicate",
    2: "did not converge, or has no maximum",
    3: "left the range of the family",
    4: "could not be fitted",
}


def refit(
    problem: Problem,
    fit: FitState,
    plan: Plan,
    *,
    n_jobs: int | None = None,
    tick: Callable[[int], None] | None = None,
    then: Then | None = None,
) -> Draws:
    """Every replicate of `plan` refitted.

    n_jobs   joblib's; None: one worker, or what the active `joblib.parallel_config` says
    tick     called with the number of replicates done, for a progress bar
    then     what else to find out of a block while its replicates are there: adds to its Draws; must pickle
    returns  Draws, B = plan.n; fewer when interrupted by Ctrl-C (`planned` keeps the number asked for)
    """
    done: list[Draws] = []
    try:
        for block in _blocks(problem, fit, plan, n_jobs, then):
            done.append(block)
            if tick is not None:
                tick(len(block.code))
    except KeyboardInterrupt:
        if not done:
            raise
    return _joined(done, plan.n)


def _blocks(problem: Problem, fit: FitState, plan: Plan, n_jobs: int | None, then: Then | None) -> Iterator[Draws]:
    common = (evolve(problem, data=None, encoder=None), fit, plan, then)
    name = chosen()  # here: joblib may ask for the later tasks in a thread of its own
    done = lost = 0
    while done < plan.blocks:
        shared = Shared(common)
        tasks = ((_on_engine, (name, _block, shared, i)) for i in range(done, plan.blocks))
        try:
            for block in _results(tasks, n_jobs):
                yield block
                done += 1
        except CancelledError:  # the only worker that had what the blocks share is gone: from the next block on, with a parcel of its own
            lost += 1
            if lost == CHANCES:
                raise


def _results(tasks: Iterable[tuple[Callable[..., Any], tuple]], n_jobs: int | None) -> Iterator[Any]:
    """What each (function, arguments) gives, in order, under the user's joblib backend: the only place that knows joblib.

    Who has not imported it has chosen no backend, and one worker does not wait for it to load.
    """
    if n_jobs in (None, 1) and "joblib" not in sys.modules:
        yield from (function(*args) for function, args in tasks)
        return
    from joblib import Parallel, delayed

    yield from Parallel(n_jobs=n_jobs, return_as="generator")(delayed(function)(*args) for function, args in tasks)


class Shared:
    """What the tasks of one call have in common, taken to each worker once and opened there once.

    joblib writes large arrays to a file that its processes map, each array once; a Dask cluster takes once to each worker what says that
    it is large. A worker that meets the same key again goes on with what it has.
    """

    def __init__(self, value: Any, key: str | None = None):
        self.value, self.key = value, uuid4().hex if key is None else key

    def __sizeof__(self) -> int:
        buffers: list[pickle.PickleBuffer] = []
        rest = pickle.dumps(self.value, protocol=5, buffer_callback=buffers.append)
        return len(rest) + sum(b.raw().nbytes for b in buffers)

    def __reduce__(self) -> tuple[Callable, tuple[str, Any]]:
        return _opened, (self.key, self.value)


OPENED: dict[str, Shared] = {}  # the last one of this worker


def _opened(key: str, value: Any) -> Shared:
    known = OPENED.get(key)
    if known is None:
        OPENED.clear()
        known = OPENED[key] = Shared(value, key)
    return known


def _block(shared: Shared, i: int) -> Draws:
    problem, fit, plan, then = shared.value
    return refit_block(problem, fit, plan, i, then)


def _on_engine(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """function(*args) in a worker, on the engine of the process that asked and on one BLAS thread."""
    with engine(name), one_thread():
        return function(*args)


def refit_block(problem: Problem, fit: FitState, plan: Plan, i: int, then: Then | None = None) -> Draws:
    """Block i of the plan."""
    replicates = plan.block(i)
    draws = _refitted(problem, fit, replicates)
    return draws if then is None else then(problem, fit, replicates, draws)


def _refitted(problem: Problem, fit: FitState, replicates: Replicates) -> Draws:
    """Batched where the estimator can, else one by one; what the batch could not finish gets a fit of its own."""
    many = registry.named(fit.estimator).many
    draws = None if many is None else many(problem, fit, replicates)
    if draws is None:
        return _one_by_one(problem, fit, replicates)
    again = np.flatnonzero((draws.code == NOT_CONVERGED) | (draws.code == OUT_OF_RANGE))
    return _replaced(draws, again, _one_by_one(problem, fit, _some(replicates, again))) if len(again) else draws


def _some(replicates: Replicates, index: np.ndarray) -> Replicates:
    return Replicates(**{f: None if getattr(replicates, f) is None else getattr(replicates, f)[index] for f in arrays_of(Replicates)})


def _replaced(draws: Draws, index: np.ndarray, by: Draws) -> Draws:
    changes = {}
    for name in arrays_of(Draws):
        column, new = getattr(draws, name), getattr(by, name)
        if column is not None and new is not None:
            changes[name] = column.copy()
            changes[name][index] = new
    return evolve(draws, **changes)


def _one_by_one(problem: Problem, fit: FitState, replicates: Replicates) -> Draws:
    estimator = registry.named(fit.estimator)
    rows = [_one(estimator, replicate, len(fit.coef)) for replicate in _problems(problem, fit, replicates)]
    coef, sigma, code, se, theta, loglik = (list(column) for column in zip(*rows))
    t = 0 if fit.theta is None else len(fit.theta)
    thetas = None if t == 0 else np.array([np.full(t, np.nan) if x is None else x for x in theta])
    return Draws(coef=np.array(coef), sigma=np.array(sigma), code=np.array(code), se=np.array(se), theta=thetas, loglik=np.array(loglik))


def _problems(problem: Problem, fit: FitState, replicates: Replicates) -> Iterator[Problem]:
    """The problem of each replicate, as its own weighted or re-answered design; the search starts at the full fit."""
    design = problem.design
    given = problem.options
    start = fit if "start" in registry.named(fit.estimator).takes and problem.prior is None else None
    options = FitOptions(nagq=given.nagq, optimizer=given.optimizer, max_iter=given.max_iter, start=start)
    for i in range(replicates.size):
        if replicates.y is not None:
            replaced = evolve(design, y=replicates.y[i])
        else:
            counts = np.asarray(replicates.freq)[i]
            replaced = design.take(counts if design.freq is None else counts * design.freq)
        yield evolve(problem, design=replaced, options=options)


def _one(estimator: registry.Estimator, problem: Problem, p: int) -> tuple[Any, ...]:
    failed = (np.full(p, np.nan), np.nan, 4, np.full(p, np.nan), None, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)  # counted by code instead of repeated
        try:
            state = estimator.fit(problem)
        except BossaError:
            return failed
    if not state.kept.all():
        return (*failed[:2], 1, *failed[3:])
    if state.outcome.status in ("failed", "suspect"):  # a separation, for one, has no maximum to record
        return (*failed[:2], 2, *failed[3:])
    return state.coef, state.sigma, 0, np.sqrt(np.diag(state.vcov)), state.theta, state.loglik


def _joined(blocks: list[Draws], planned: int) -> Draws:
    def stack(parts: list[Any]) -> Any:
        return None if parts[0] is None else np.concatenate(parts)

    columns = {f: stack([getattr(b, f) for b in blocks]) for f in arrays_of(Draws)}
    return Draws(**columns, planned=planned)


def failures(code: np.ndarray) -> dict[str, int]:
    """How many replicates failed, by reason.   code (B,)"""
    codes, counts = np.unique(code[code != 0], return_counts=True)
    return {REASONS[int(c)]: int(k) for c, k in zip(codes, counts)}


def each(function: Callable[[Any], Any], items: Iterable[Any], n_jobs: int | None = None) -> Iterator[Any]:
    """function(item) of every item, in order, under the user's joblib backend; both must pickle."""
    name = chosen()
    yield from _results(((_on_engine, (name, function, item)) for item in items), n_jobs)
