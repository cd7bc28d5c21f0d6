"""Feed a model batch by batch: `batches` from a frame, `estimates` from numbers, `resume` from what was stored, `extend` by one more.

Columns, levels and what transforms learnt are fixed when the stream begins; a level that appears later is an error unless it was declared
(`levels=`). A batch is known by its id: the same rows again change nothing, other rows under the same id are an error.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve

from ..design.data import as_frame
from ..design.encode import encode
from ..design.formula import make_spec, resolve
from ..errors import DataError, DataWarning, NotYet, OptionError, Refused, UnknownColumn, UnknownOption, warn
from ..estimate import registry
from ..estimate.prior import resolve_prior
from ..kernels.family import resolve_family
from ..kernels.linalg import independent_columns
from ..kernels.link import resolve_link
from ..kernels.pooling import METHODS
from ..kernels.streams import entropy
from ..state.design import Problem
from ..state.posterior import Posterior
from ..state.provenance import hash_parts
from ..state.target import Target
from ..types import Bools, Floats, Ints, is_whole
from .cloud import StudentT
from .codec import from_json
from .door import number, share, variance, vector
from .drift import Discount, read_drift
from .mixed import Varying, columns, fixed_part, joined, known_of
from .result import AssimilationResult
from .sites import Rows, Site, estimate_sites, gaussian_sites, scaled
from .solve import AssimState, InverseGamma, Options, linearised, read_prior, read_sigma
from .told import columns_read, told
from .within import Within, grouped, labels_of, met

BACKENDS = ("auto", "kalman", "sqrt", "information", "laplace", "iekf", "ibis", "particle")
PARTICLES = 1000  # of backend="ibis", unless told
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
    known: dict[str, Any] = {}
    if spec.bars or family.free:
        method = "reml" if spec.bars and (family.name, spec.link.name) == ("gaussian", "identity") else "ml"
        problem = Problem(design=design, spec=spec, family=family, link=spec.link, method=method, encoder=encoder, data=used)
        problem, fit = registry.fit(problem)
        known, kept = known_of(problem, fit, by, where), problem.design.kept
    else:
        kept = independent_columns(design.X, design.total_weights)
    state = begin(
        encoder,
        kept,
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
        **known,
    )
    return followed(taken(state, *rows_with_ids(frame, design.rows, by)), None)


def begin(
    encoder: Any,
    kept: Any,
    *,
    by: str,
    time: str | None,
    prior: Any,
    sigma: Any,
    sigma0: Any,
    drift: Any,
    order: str,
    sweeps: int,
    keep_rows: bool,
    alpha: float,
    where: str,
    varying: Varying | None = None,
    within: Within | None = None,
    backend: str = "auto",
    n_particles: int = PARTICLES,
    seed: Any = None,
    shape: Mapping[str, float] | None = None,
) -> AssimState:
    """An empty stream of a model's batches.

    encoder: of the model;  kept (P,): columns that rank allows;  varying, within: random effects, carried or integrated out
    shape: of the family, as the fit found it
    """
    spec = encoder.spec
    plain = spec.family.name == "gaussian" and spec.link.name == "identity"
    if shape:
        spec = evolve(spec, family=evolve(spec.family.fitted(shape), free=()))
        encoder = evolve(encoder, spec=spec)
    backend = _backend(backend, plain, where)
    loose = plain or scaled(spec.family)
    if spec.bars:
        _check_mixed(spec, drift, varying, where)
    if not loose and not (isinstance(sigma, str) and sigma == "nig"):
        raise OptionError(f"sigma= is for families with a dispersion; {spec.family.name} has none.", where=where, do="Leave it out.")
    if order not in ("replay", "append"):
        raise UnknownOption(order, ("replay", "append"), where=where, kind="order")
    if not is_whole(sweeps) or sweeps < 0:
        raise OptionError(f"sweeps={sweeps!r} is not a whole number of at least 0.", where=where)
    if plain and sweeps:
        raise OptionError("sweeps= is for generalized linear models; a linear model is exact as it is.", where=where, do="Leave it out.")
    if keep_rows and plain:
        raise OptionError("keep_rows= is for generalized linear models; a linear model needs no rows.", where=where, do="Leave it out.")
    if sigma0 is not None and not loose:
        raise OptionError(f"sigma0= is for families with a dispersion; {spec.family.name} has none.", where=where, do="Leave it out.")
    if sigma0 is not None and variance(sigma0, "sigma0", where) == 0:
        raise OptionError("sigma0=0 is not a residual sd.", where=where)
    names = tuple(n for n, k in zip(encoder.columns, kept) if k)
    if plain and isinstance(prior, Mapping) and "sigma" in prior and "sigma" not in names:
        prior = resolve_prior(prior, names)
    mean, U, flat = read_prior(prior, names, where)
    if isinstance(prior, Posterior) and prior.df is not None and prior.sigma is not None and isinstance(sigma, str) and sigma == "nig":
        sigma, sigma0 = InverseGamma(prior.df / 2, prior.df / 2 * prior.sigma**2), prior.sigma  # conjugate: σ is known as it left off
    elif plain and isinstance(prior, Posterior) and prior.sigma is not None and isinstance(sigma, str) and sigma == "nig":
        sigma = prior.sigma  # the posterior before took it as known
    drift = read_drift(drift, names, where)
    random = varying or within
    if plain and random is not None and isinstance(drift, np.ndarray) and isinstance(sigma, (str, InverseGamma)):
        sigma = random.sigma  # a drift in the response's units needs a number, and variances are the fit's here
    if plain and random is not None and sigma0 is None:  # the random effects' prior is in units of σ by itself
        sigma0 = math.sqrt(sigma.b / sigma.a) if isinstance(sigma, InverseGamma) else random.sigma
    if varying is not None:
        unit = sigma0 if isinstance(sigma, (str, InverseGamma)) else sigma
        more, mean, U, drift = joined(varying, mean, U, drift, 1 / unit if loose else 1.0)
        names = (*names, *more)
    options = Options(
        mean=mean,
        U=U,
        flat=flat,
        sigma=read_sigma(sigma, where) if loose else 1.0,
        sigma0=None if sigma0 is None else float(sigma0),
        drift=drift,
        order=order,
        timed=time is not None,
        sweeps=int(sweeps),
        keep_rows=keep_rows or (backend == "ibis" and not plain),
        backend=backend,
        n_particles=int(n_particles),
        seed=entropy(seed, where) if backend == "ibis" else None,
        alpha=alpha,
    )
    _check_backend(options, n_particles, seed, bool(spec.bars) and not (plain and within), loose, where)
    if loose and not plain:
        _check_quasi(options, spec.family, where)
    kind = "lm" if plain else "glm"
    kept = np.asarray(kept)
    parent = prior.hash if isinstance(prior, Posterior) else None
    return AssimState(
        parent_hash=parent,
        kind=kind,
        names=names,
        options=options,
        encoder=encoder,
        kept=kept,
        by=by,
        time=time,
        varying=varying,
        within=within,
    )


def _check_mixed(spec: Any, drift: Any, varying: Varying | None, where: str) -> None:
    """What is not built of random effects."""
    if scaled(spec.family) and not (spec.family.name == "gaussian" and spec.link.name == "identity"):
        what = f"batches of mixed models of family {spec.family.name!r} ({spec.link.name} link) are not built: it has a dispersion."
        raise NotYet(what, where=where, do="Leave the random effects out, or add the group as a factor.")
    if varying is not None and isinstance(drift, Discount):
        what = "a discount would forget the variances of the random effects that are carried."
        raise Refused(what, where=where, do="Give drift= a variance, 'ml' or 'bayes'.")


def _check_quasi(options: Options, family: Any, where: str) -> None:
    """What needs the evidence of a stream, which a dispersion by Pearson's statistic does not give."""
    if isinstance(options.drift, str) and options.drift != "none":
        what = f"the dispersion of family {family.name!r} comes from Pearson's statistic, which has no evidence to choose a drift by."
        raise Refused(what, where=where, do="Give drift= a number, or discount(0.95).")
    if options.backend != "auto" and family.logpdf is None:
        what = f"family {family.name!r} is a quasi-likelihood: it has no density for particles."
        raise Refused(what, where=where, do="Leave backend= out.")


def _backend(asked: Any, plain: bool, where: str) -> str:
    """ "auto" | "ibis": the forms of the Kalman filter differ in rounding alone, and the most stable one is used."""
    if asked not in BACKENDS:
        raise UnknownOption(asked, BACKENDS, where=where, kind="backend")
    if asked in ("auto", "ibis"):
        return str(asked)
    if asked == "particle":
        what = "particles of many coefficients that move are not built."
        raise NotYet(what, where=where, do="Use backend='ibis' where they stand still, or particle_filter() of one number.")
    if asked == "iekf":
        raise Refused("it is what sweeps= does, for every batch.", where=where, do="Use backend='laplace', sweeps=3.")
    if plain == (asked == "laplace"):
        what = "a linear model needs no approximation." if plain else f"backend={asked!r} is for linear models."
        raise OptionError(what, where=where, do="Leave backend= out.")
    return "auto"


def _check_backend(options: Options, n_particles: Any, seed: Any, random: bool, loose: bool, where: str) -> None:
    """What particles of coefficients need; nothing of it is asked elsewhere."""
    if options.backend == "auto":
        for name, given in (("seed", seed is not None), ("n_particles", n_particles != PARTICLES)):
            if given:
                raise OptionError(f"{name}= is for backend='ibis'; nothing else is drawn.", where=where, do="Leave it out.")
        return
    if not is_whole(n_particles) or n_particles < 2:
        raise OptionError(f"n_particles={n_particles!r} is not a whole number of at least 2.", where=where)
    what = "backend='ibis' is for coefficients that stand still"
    if not (isinstance(options.drift, str) and options.drift == "none"):
        raise NotYet(f"{what}.", where=where, do="Leave drift= out, or backend=.")
    if random:
        what = f"{what}, and for random effects only of a linear model whose groups lie inside batches"
        raise NotYet(f"{what}.", where=where, do="Leave backend= out.")
    if options.sweeps:
        raise OptionError("sweeps= is for backend='auto'; particles need none.", where=where, do="Leave one of them out.")
    if options.flat:
        raise Refused(f"{what}, drawn from their prior, which is flat.", where=where, do="Give prior=bossa.normal(0, 2.5), say.")
    if loose and not isinstance(options.sigma, (float, InverseGamma)):
        raise Refused("σ (√dispersion) is drawn from its prior, which is flat.", where=where, do="Give sigma=nig(a, b), or a number.")


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
    if order not in ("replay", "append"):
        raise UnknownOption(order, ("replay", "append"), where=where, kind="order")
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
    V = np.array([np.diag(s**2) for s in spread]).reshape(T, k, k) if from_se else spread
    return array, V


# ---------------------------------------------------------------- taking batches in
def rows_with_ids(frame: pl.DataFrame, used: Ints, by: str) -> tuple[pl.DataFrame, Bools | None]:
    """The rows of a frame that a stream begins with, and which of them (None: none) are incomplete: their batches count, they do not.

    used  (n,) places of the complete rows;  incomplete rows without an id are left out
    """
    if len(used) == frame.height or by not in frame.columns:
        return frame, None
    blank = np.ones(frame.height, dtype=bool)
    blank[used] = False
    rows = np.flatnonzero(~(blank & frame.get_column(by).is_null().to_numpy()))
    return frame[rows], blank[rows]


def taken(state: AssimState, frame: pl.DataFrame, blank: Bools | None = None) -> AssimState:
    """The state with the batches of a frame taken in.   blank (n,): rows that the model cannot use, whatever is in them"""
    assert state.by is not None
    parts = split(frame, state.by, state.time)
    kind = frame.schema[state.by]
    if isinstance(kind, pl.Enum) and not state.sites:
        state = evolve(state, ids=tuple(kind.categories.to_list()))
    strange = next((id_ for id_, _, _ in parts if state.ids and id_ not in state.ids), None)
    if strange is not None:
        what = f"{state.by!r} began as an ordered factor without this level; it has {', '.join(state.ids)}."
        raise DataError(what, where=f"batch {strange!r}", do="Declare all levels at the beginning, or give time=.")
    rows, known = encoded(state, frame, parts, blank), _hashes(state)
    lost = sum(len(index) - len(r.y) for (_, _, index), r in zip(parts, rows) if r.batch not in known)
    state = evolve(state, left_out=state.left_out + lost)
    if state.within is not None:
        known = _hashes(state)
        new = [r for r in rows if not _told_before(known, r.batch, r.hash)]
        for r in new:
            state = evolve(state, within=evolve(state.within, seen=met(state.within, r.batch, r.grouped)))  # type: ignore[arg-type]
    if state.kind == "lm":
        return added(state, gaussian_sites(rows))
    family = state.encoder.spec.family
    for r in rows:
        family.check(r.y, r.weights, response=f"the response of batch {r.batch!r}")
    known = _hashes(state)
    rows = [r for r in rows if not _told_before(known, r.batch, r.hash)]
    return added(linearised(rows, state), [], [r.hash for r in rows]) if rows else state


def added(state: AssimState, sites: Iterable[Site], hashes: Sequence[str] = ()) -> AssimState:
    """The state with sites appended: ids checked, the chain carried on."""
    chain, kept, known = state.chain, list(state.sites), _hashes(state)
    for site in sites:
        if not _told_before(known, site.batch, site.hash):
            kept.append(site)
            known[site.batch] = site.hash
            chain = hashlib.sha256(f"{chain}{site.batch!r}{site.hash}".encode()).hexdigest()
    for h in hashes:
        chain = hashlib.sha256(f"{chain}{h}".encode()).hexdigest()
    return evolve(state, sites=tuple(kept), chain=chain)


def _hashes(state: AssimState) -> dict[Any, str]:
    """The hash of each batch, by its id."""
    return {site.batch: site.hash for site in state.sites}


def _told_before(known: dict[Any, str], batch: Any, hash_: str) -> bool:
    if batch not in known:
        one = next(iter(known), batch)
        if isinstance(one, str) != isinstance(batch, str):
            kind = "numbers and this is text" if isinstance(batch, str) else "text and this is a number"
            raise DataError(f"ids were {kind}.", where=f"batch {batch!r}", do=f"Write ids like {one!r}, so that batches have an order.")
        return False
    if known[batch] == hash_:
        return True
    what = "this batch was taken in before, with other rows."
    raise DataError(what, where=f"batch {batch!r}", do="Give it an id of its own; a corrected batch needs the stream to begin again.")


def plain_id(value: Any, where: str = "batch") -> Any:
    """A batch's id as a number, a string or a bool: what JSON can hold; dates in ISO form."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if value is None:
        raise DataError("the id of a batch is missing.", where=where, do="Leave those rows out, or give them an id.")
    return str(value)


def split(frame: pl.DataFrame, by: str, time: str | None) -> list[tuple[Any, float, Ints]]:
    """(id, time, places of its rows) of each batch, in the order of `by`, or of `time`; a batch's time is its earliest."""
    where = f"by={by!r}"
    for column in (by, time):
        if column is not None and column not in frame.columns:
            raise UnknownColumn(column, frame.columns, where="by=" if column == by else "time=")
    lost = frame.get_column(by).null_count() + (int(frame.get_column(by).is_nan().sum()) if frame.schema[by].is_float() else 0)
    if lost:
        raise DataError(f"{lost} rows have no value.", where=where, do="Leave them out, or give them a batch.")
    places = frame.select(pl.col(by).alias("id")).with_row_index("row").group_by("id", maintain_order=True).agg("row").sort("id")
    index = [rows.to_numpy().astype(np.intp) for rows in places["row"]]
    ids = [plain_id(value, where) for value in places["id"].to_list()]
    if time is None:
        return [(id_, float(place), rows) for place, (id_, rows) in enumerate(zip(ids, index))]
    times = _times(frame, time)
    return sorted(((id_, float(times[rows].min()), rows) for id_, rows in zip(ids, index)), key=lambda part: part[1])


def _times(frame: pl.DataFrame, time: str) -> Floats:
    """The time column as numbers; dates and datetimes in days."""
    series = frame.get_column(time)
    if series.dtype == pl.Date:
        values = series.cast(pl.Int32).cast(pl.Float64)
    elif series.dtype == pl.Datetime:
        values = series.cast(pl.Datetime("us")).cast(pl.Int64).cast(pl.Float64) / 86_400e6
    elif series.dtype.is_numeric():
        values = series.cast(pl.Float64)
    else:
        raise DataError(f"column {time!r} has type {series.dtype}.", where=f"time={time!r}", do="Use a number, a date or a datetime.")
    out = values.to_numpy()
    if not np.isfinite(out).all():
        raise DataError(f"{int((~np.isfinite(out)).sum())} rows have no time.", where=f"time={time!r}")
    return out


def encoded(state: AssimState, frame: pl.DataFrame, parts: Sequence[tuple[Any, float, Ints]], blank: Bools | None = None) -> list[Rows]:
    """The complete rows of each batch as arrays; the whole frame is encoded once.   blank: as in `taken`"""
    encoder = state.encoder
    read = {name: frame.get_column(name).to_numpy() for name in columns_read(encoder) if name in frame.columns}
    if blank is not None:
        frame = frame.with_columns(pl.when(~pl.Series(blank)).then(pl.col(name)).otherwise(None).alias(name) for name in read)
    made = encoder.rows(frame)
    y, weights = encoder.response(frame), encoder.prior_weights(frame)
    counts = encoder.spec.freq_weights
    freq = None if counts is None else frame.get_column(counts).cast(pl.Float64).to_numpy()
    ok = made.ok & ~np.isnan(y)
    gone = ~ok
    for values in (weights, freq):
        if values is not None:
            ok &= np.nan_to_num(values) > 0
    X = np.ascontiguousarray(made.X if all(state.kept) else made.X[:, state.kept])
    if state.varying is not None:
        X = np.hstack((X, columns(state.varying, encoder.random(frame), tuple(term.group for term in encoder.varying))))
        ok &= ~np.isnan(X).any(axis=1)
    Z: list[Floats] = []
    if state.within is not None:
        labels, random = labels_of(state.within, frame), encoder.random(frame)
        Z = [z for _, z in random]
        for (codes, z), text in zip(random, labels):
            ok &= (codes != -2) & ~np.isnan(z).any(axis=1) & (text != None)  # noqa: E711
    infinite = ok & ~(np.isfinite(X).all(axis=1) & np.isfinite(y))
    for bad, what in ((infinite, "infinite"), (gone & (encoder.spec.missing == "error"), "missing, and missing='error'")):
        if bad.any():
            batch = next(batch for batch, _, index in parts if bad[index].any())
            raise DataError(f"a value is {what}.", where=f"batch {batch!r}", do="Leave those rows out.")
    out = []
    hashes = hash_parts(read, [index for _, _, index in parts])
    for (batch, when, index), hashed in zip(parts, hashes):
        used = index[ok[index]]
        some = {n: None if v is None else v[used] for n, v in (("offset", made.offset), ("weights", weights), ("freq", freq))}
        random_part = None if state.within is None else grouped(state.within, labels, Z, used)
        out.append(Rows(batch=batch, time=when, X=X[used], y=y[used], hash=hashed, grouped=random_part, **some))
    return out


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
