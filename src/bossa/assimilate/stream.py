"""Feed a model batch by batch: `batches` from a frame, `estimates` from numbers, `resume` from what was stored, `extend` by one more.

Columns, levels and what transforms learnt are fixed when the stream begins; a level that appears later is an error unless it was declared
(`levels=`). What a stream is told is checked in `begin`, how rows become batches is in `arriving`, what they say together in `solve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve

from ..design.data import as_frame
from ..design.encode import encode
from ..design.formula import make_spec, resolve
from ..errors import DataError, DataWarning, NotYet, OptionError, Refused, UnknownColumn, UnknownOption, warn
from ..estimate import registry
from ..kernels.family import resolve_family
from ..kernels.linalg import independent_columns
from ..kernels.link import resolve_link
from ..kernels.pooling import METHODS
from ..state.design import Problem
from ..state.target import Target
from ..types import Floats
from .arriving import added, plain_id, rows_with_ids, taken
from .begin import PARTICLES, Asked, begin, check_order
from .cloud import StudentT
from .codec import from_json
from .door import number, share, variance, vector
from .drift import read_drift
from .mixed import FromFit, fixed_part, known_of
from .result import AssimilationResult
from .sites import estimate_sites
from .solve import AssimState, Options, read_prior
from .told import told

FEW_ROWS = 30  # below this, plug-in standard errors are said to be too small


def batches(
    formula: str,
    data: Any,
    *,
    by: str,
    time: str | None = None,
    family: Any = "gaussian",
    link: Any = None,
    weights: str | None = None,
    freq_weights: str | None = None,
    offset: str | None = None,
    contrasts: dict | None = None,
    levels: dict | None = None,
    missing: str = "drop",
    prior: Any = None,
    sigma: Any = "nig",
    sigma0: float | None = None,
    drift: Any = 0,
    order: str = "replay",
    sweeps: int = 0,
    keep_rows: bool = False,
    backend: str = "auto",
    n_particles: int = PARTICLES,
    seed: Any = None,
    alpha: float = 0.05,
) -> AssimilationResult:
    """A model of `data`, learnt batch by batch.

    Variances of random effects and shapes of families are those of a fit to `data`, taken as known.

    by      column of the batch's id; batches count in its order, or in that of `time`
    time    column of when: a number, or a date (in days); drift is then per unit of it
    missing "drop": incomplete rows are left out, and said; "error": refused
    prior   None: nothing is known; bossa.normal(0, 2.5), or by coefficient {"x": bossa.normal(0, 1)}
    sigma   √dispersion: "nig": unknown, Student-t posteriors; "reml": its estimate taken as known; nig(a, b); or a number
    sigma0  the residual sd in whose units the prior is told when sigma is unknown; None: from the first batch that has one
    drift   0 | process variance | {"x": 0.01} | "ml" | "bayes" (also True) | discount(0.95)
    order   "replay": a late batch is put where it belongs; "append": batches count as they come
    sweeps, keep_rows   generalized linear models: how often all batches are linearised again; rows kept for that
    backend  "auto": exact in square-root information form ("kalman", "sqrt", "information" are the same numbers), or "laplace" for
            generalized linear models | "ibis": n_particles particles of coefficients that stand still, from a proper prior;
            seed: whatever numpy's default_rng takes, diagnostics["seed"] replays the run

    >>> from bossa import load_dataset
    >>> from bossa.assimilate import batches
    >>> batches("mpg ~ wt", load_dataset("mtcars"), by="gear").params["term"].to_list()
    ['Intercept', 'wt']
    """
    where = "bossa.assimilate.batches()"
    columns_of: dict[str, Any] = {"weights": weights, "freq_weights": freq_weights, "offset": offset}
    fixed = make_spec(formula, contrasts=contrasts, levels=levels, missing=missing, **columns_of)
    family = resolve_family(family)
    spec = evolve(fixed, family=family, link=resolve_link(family.canonical if link is None else link))
    frame = as_frame(data)
    spec = resolve(spec, frame)
    encoder, design, used = encode(spec, frame)
    fitted = FromFit()
    if spec.bars or family.free:
        method = "reml" if spec.bars and (family.name, spec.link.name) == ("gaussian", "identity") else "ml"
        problem = Problem(design=design, spec=spec, family=family, link=spec.link, method=method, encoder=encoder, data=used)
        problem, fit = registry.fit(problem)
        fitted, kept = known_of(problem, fit, by, where), problem.design.kept
    else:
        kept = independent_columns(design.X, design.total_weights)
    asked = Asked(
        by=by,
        time=time,
        prior=prior,
        sigma=sigma,
        sigma0=sigma0,
        drift=drift,
        order=order,
        sweeps=sweeps,
        keep_rows=keep_rows,
        backend=backend,
        n_particles=n_particles,
        seed=seed,
        alpha=share(alpha, where),
        where=where,
    )
    state = begin(encoder, kept, asked, fitted)
    return followed(taken(state, *rows_with_ids(frame, design.rows, by)), None)


def estimates(
    estimates: Any,
    standard_errors: Any = None,
    *,
    vcovs: Any = None,
    names: Sequence[str] | None = None,
    batch: Sequence[Any] | None = None,
    time: Sequence[float] | None = None,
    n: Sequence[float] | None = None,
    prior: Any = None,
    drift: Any = 0,
    between: Any = 0,
    obs: Any = "gaussian",
    missing: str = "error",
    order: str = "replay",
    alpha: float = 0.05,
) -> AssimilationResult:
    """Assimilate estimates of one parameter (T,) with standard errors, or of k parameters (T, k) with covariances vcovs (T, k, k).

    batch    ids, None: 0, 1, …;  time: when each was made, in any order
    n        rows behind each: with few, their standard errors are not known well enough to be taken as known, and that is said
    between  variance between batches beyond their errors: a number, "dl", "pm", "ml" or "reml" (random effects; one parameter)
    obs      "gaussian", or student_t(4): estimates with heavier tails, each weighted at the mode, deterministic; of several parameters
             multivariate, one weight for a batch
    missing  "error", or "skip": nan is a batch that was not seen
    others   as in `batches`

    >>> from bossa.assimilate import estimates
    >>> round(estimates([0.45, 0.55], [0.10, 0.12]).final_mean, 6)
    0.490984
    """
    where = "bossa.assimilate.estimates()"
    if missing not in ("error", "skip"):
        raise UnknownOption(missing, ("error", "skip"), where=where, kind="missing")
    y, V = _estimates_read(estimates, standard_errors, vcovs, missing == "skip", where)
    T, k = y.shape
    names = tuple(names) if names is not None else ("theta",) if k == 1 else tuple(f"theta[{i}]" for i in range(k))
    if len(names) != k:
        raise OptionError(f"{len(names)} names for {k} parameters.", where=where)
    ids = list(range(T)) if batch is None else [plain_id(b, where) for b in batch]
    times = list(range(T)) if time is None else [number(t, "time", where) for t in time]
    if len(ids) != T or len(times) != T:
        raise DataError(f"{T} estimates, {len(ids)} batch ids and {len(times)} times.", where=where, do="Give one of each.")
    rows = np.ones(T) if n is None else vector(n, "n", where)
    if rows.shape != (T,) or not (rows > 0).all():
        raise DataError(f"n= does not have one positive number for each of {T} batches.", where=where)
    if n is not None and T and np.median(rows) < FEW_ROWS:
        what = f"batches have {np.median(rows):g} rows (median), and their standard errors are taken as known: intervals are too narrow"
        do = "Use bossa.assimilate.batches() on the rows themselves."
        warn(f"{what} (with 5 rows 95% intervals hold 68%, with 10 88%). {do}", DataWarning)
    mean, U, flat = read_prior(prior, names, where)
    options = Options(
        mean=mean,
        U=U,
        flat=flat,
        sigma=1.0,
        drift=read_drift(drift, names, where),
        order=order,
        timed=True,
        between=_between(between, k, where),
        obs_df=_obs(obs, where),
        alpha=share(alpha, where),
    )
    check_order(order, where)
    state = AssimState(kind="estimates", names=names, options=options)
    sites = estimate_sites(ids, np.asarray(times, dtype=float), y, V, rows)
    return told(added(state, sites), None, extend)


def _between(value: Any, k: int, where: str) -> Any:
    known = (*METHODS, "ml", "reml")
    if isinstance(value, str):
        if value.lower() not in known:
            raise UnknownOption(value, known, where=where, kind="between")
        value = value.lower()
    else:
        value = variance(value, "between", where)
    if value and k > 1:
        raise NotYet("between= is built for one parameter.", where=where, do="Assimilate the parameters one by one.")
    return value


def _obs(value: Any, where: str) -> float | None:
    """Degrees of freedom of Student-t errors, None: normal."""
    if isinstance(value, str) and value.lower() == "gaussian":
        return None
    if not isinstance(value, StudentT):
        raise OptionError(f"obs={value!r} is neither 'gaussian' nor student_t(df).", where=where)
    return value.df


def _estimates_read(y: Any, se: Any, vcovs: Any, skip: bool, where: str) -> tuple[Floats, Floats]:
    """Estimates (T, k) and covariances (T, k, k), checked; nan rows where not seen."""
    from_se = vcovs is None
    if from_se == (se is None):
        raise OptionError("give standard_errors= or vcovs=, one of the two.", where=where)
    try:
        array, spread = np.asarray(y, dtype=float), np.asarray(se if from_se else vcovs, dtype=float)
    except (TypeError, ValueError):
        raise DataError("estimates and their errors must be numbers.", where=where, do="Give one for each batch, of one length.") from None
    if array.ndim == 1:
        array = array[:, None]
    if from_se and spread.ndim == 1:
        spread = spread[:, None]
    T, k = array.shape if array.ndim == 2 else (0, 0)
    expected = (T, k) if from_se else (T, k, k)
    if array.ndim != 2 or spread.shape != expected:
        raise DataError(
            f"estimates have shape {np.shape(y)} and their errors {spread.shape}.", where=where, do="Give one of each for each batch."
        )
    rest = tuple(range(1, spread.ndim))
    gone = np.isnan(array).any(axis=1) | np.isnan(spread).any(axis=rest)
    if not skip or not gone.any():
        gone = np.zeros(T, dtype=bool)
    bad_y, bad_s = ~np.isfinite(array).all(axis=1) & ~gone, ~np.isfinite(spread).all(axis=rest) & ~gone
    if from_se:
        bad_s |= (~(np.nan_to_num(spread) > 0)).any(axis=1) & ~gone
    for what, bad, values in (("estimate", bad_y, array), ("standard error" if from_se else "covariance", bad_s, spread)):
        if bad.any():
            i = int(np.argmax(bad))
            finite = "It must be finite." if what == "estimate" else "It must be finite and positive."
            do = "Leave the batch out, or missing='skip' for nan." if np.isnan(values[i]).any() else finite
            raise DataError(f"the {what} of batch {i} (counting from 0) is {values[i].tolist()!r}.", where=where, do=do)
    array = np.where(gone[:, None], np.nan, array)
    if not from_se:
        return array, spread
    V = np.zeros((T, k, k))
    V[:, np.arange(k), np.arange(k)] = spread**2
    return array, V


def extend(result: AssimilationResult, batch: Any, id: Any = None, time: Any = None) -> AssimilationResult:
    """The result with one more batch: a frame with the formula's columns and the id's, or (estimate, standard error or covariance).

    id, time  for a frame without those columns, and for estimates
    """
    state = result.state
    if state is None:
        raise Refused(
            f"a result of {result.method!r} keeps no state.", where="update()", do="Use bossa.assimilate.estimates() or batches()."
        )
    if result.posterior is not None:
        state = evolve(state, parent_hash=result.posterior.hash)
    if state.kind == "estimates":
        return told(_estimate_added(state, batch, id, time), result.target, extend)
    frame = as_frame(batch)
    for name, given, column in (("id", id, state.by), ("time", time, state.time)):
        if given is not None and (column is None or column in frame.columns):
            why = "the stream has no time= column" if column is None else f"the batch has a column {column!r}, which says the same"
            raise OptionError(f"{name}={given!r}: {why}.", where="update()", do="Leave it out.")
    if id is not None and state.by not in frame.columns:
        frame = frame.with_columns(pl.lit(id).alias(state.by))
    if time is not None and state.time is not None and state.time not in frame.columns:
        frame = frame.with_columns(pl.lit(time).alias(state.time))
    if state.by not in frame.columns:
        raise UnknownColumn(str(state.by), frame.columns, where="assimilate(): the batch's id")
    return told(taken(state, frame), result.target, extend)


def _estimate_added(state: AssimState, batch: Any, id: Any, time: Any) -> AssimState:
    where = "update()"
    try:
        estimate, spread = batch
    except (TypeError, ValueError):
        raise DataError("the batch is not a pair.", where=where, do="Give (estimate, standard error) or (estimates, covariance).") from None
    k = len(state.names)
    y, s = np.asarray(estimate, dtype=float).reshape(1, -1), np.asarray(spread, dtype=float)
    y, V = _estimates_read(y, None if s.ndim == 2 else s.reshape(1, -1), s[None] if s.ndim == 2 else None, False, where)
    if y.shape[1] != k:
        raise DataError(f"{y.shape[1]} estimates for {k} parameters.", where=where)
    last = max((s.time for s in state.sites), default=-1.0)
    when = last + 1.0 if time is None else number(time, "time", where)
    ids = [len(state.sites) if id is None else plain_id(id)]
    return added(state, estimate_sites(ids, np.array([when]), y, V, np.ones(1)))


def resume(text: str) -> AssimilationResult:
    """Take a stream up again from `result.to_json()`: the same to the last bit.

    >>> from bossa.assimilate import estimates, resume
    >>> r = estimates([0.45], [0.10])
    >>> resume(r.to_json()).update((0.55, 0.12)).final_mean == r.update((0.55, 0.12)).final_mean
    True
    """
    state = from_json(text)
    if not isinstance(state, AssimState):
        raise DataError("this is not a stored stream.", where="resume()", do="Give the text that .to_json() returned.")
    return followed(state, None)


def followed(state: AssimState, target: Target | None) -> AssimilationResult:
    """The stream read as the target of the fixed effects; None: the coefficients (of a mixed model: the fixed ones)."""
    if state.varying is not None:
        fixed = tuple(state.names[: state.varying.fixed])
        target = fixed_part(state.varying, target, fixed)
    return told(state, target, extend)
