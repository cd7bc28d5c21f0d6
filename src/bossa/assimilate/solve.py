"""What do the batches so far say? From a stream's state to its result: prior, σ, drift, filter, sweeps, mixture.

Nothing here knows formulas or frames. `solve(state)` filters all sites again from the prior, in the order that counts, so a stream that is
fed batch by batch, stored and taken up again, or told of a late batch, gives to the last bit what one run over everything gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..errors import DataError, OptionError, Refused, UnknownOption
from ..estimate.prior import resolve_prior
from ..kernels.pooling import between_variance
from ..kernels.threads import one_thread
from ..state.distributions import Normal
from ..state.fields import array
from ..state.posterior import Posterior
from ..types import Floats, is_number
from .codec import to_json
from .drift import Discount, root_of
from .engine import Path, Scale, gaps, run
from .mixture import unknown_drift
from .sites import Rows, Site, laplace_site, rescaled, robust_site, scaled, site_at
from .tempered import Clouds, Conjugate, Likelihood, tempered
from .track import Motion, Start


@frozen
class InverseGamma:
    """σ² ~ IG(a, b): a prior worth 2a rows with variance b/a."""

    a: float
    b: float


def nig(a: float, b: float) -> InverseGamma:
    """A prior of σ²: sigma=nig(a, b) is worth 2a rows of variance b/a.

    >>> nig(2, 8)
    InverseGamma(a=2.0, b=8.0)
    """
    for name, value in (("a", a), ("b", b)):
        if not is_number(value) or not math.isfinite(value) or value <= 0:
            raise OptionError(f"{name}={value!r} is not a positive number.", where="nig()")
    return InverseGamma(float(a), float(b))


@frozen(kw_only=True, eq=False)
class Options:
    """What a stream was told, resolved. See `bossa.assimilate.batches`.

    mean, U   prior Uβ = U mean + e, of variances as given (U = 0 rows: flat);  flat: how many coefficients are
    sigma     "nig" | "reml" | a number | InverseGamma;  sigma0: what a prior's sd is told in units of, None: from the first batch
    drift     "none" | "ml" | "bayes" | Discount | Q (k, k)
    obs_df    of Student-t errors of estimates, None: normal
    order     "replay" | "append";  timed: `Site.time` is a time, not a place
    backend   "auto" (exact, or Laplace's) | "ibis": particles, n_particles of them, seed its entropy
    """

    mean: np.ndarray = array("k")
    U: np.ndarray = array("k", "k")
    flat: int
    sigma: Any = "nig"
    sigma0: float | None = None
    drift: Any = "none"
    order: str = "replay"
    timed: bool = False
    sweeps: int = 0
    keep_rows: bool = False
    between: Any = 0.0
    obs_df: float | None = None
    alpha: float = 0.05
    backend: str = "auto"
    n_particles: int = 1000
    seed: Any = None


@frozen(kw_only=True, eq=False)
class AssimState:
    """A stream so far: everything that a later batch needs.

    kind     "lm" | "glm" | "estimates";  names (k,)
    sites    in order of arrival;  rows: of each site, where they are kept
    varying  of a mixed model: its random effects, which are part of the state (names are then of both)
    within   of a mixed model whose groups lie inside batches: its random effects, which are integrated out
    encoder, kept   how new rows become X;  by, time: columns of the batch's id and time;  response in the encoder's spec
    chain    hash of all that has been told, each batch's on the last;  parent_hash: of the posterior before the last batches
    left_out rows that were incomplete, or had weight 0
    ids      of an ordered factor, in its order; empty: ids are ordered by themselves
    """

    kind: str
    names: tuple[str, ...]
    options: Options
    sites: tuple[Site, ...] = ()
    rows: tuple[Rows, ...] = ()
    encoder: Any = None
    kept: Any = None
    varying: Any = None
    within: Any = None
    by: str | None = None
    time: str | None = None
    chain: str = ""
    parent_hash: str | None = None
    left_out: int = 0
    ids: tuple[str, ...] = ()
    schema: str = "bossa.assimilate/1"

    def to_json(self) -> str:
        """The stream as text that `bossa.assimilate.resume` takes up again, to the last bit."""
        return to_json(self)


@frozen(kw_only=True, eq=False)
class Solution:
    """The path of a state, its sites in the order that counts with the time dt (T,) before each, and what was chosen on the way.

    motion  of drift integrated out: the base that q multiplies
    clouds  of backend="ibis": the particles, the prior's first
    """

    path: Path
    sites: tuple[Site, ...]
    start: Start
    motion: Motion
    dt: np.ndarray = array("T")
    chosen: dict = field(factory=dict)
    notes: tuple[str, ...] = ()
    clouds: Clouds | None = None


def read_prior(prior: Any, names: tuple[str, ...], where: str) -> tuple[Floats, Floats, int]:
    """Mean (k,), U (k, k) with UᵀU the prior precision, and how many coefficients are flat.

    prior  None (flat) | normal(mean, sd) for every coefficient | {"x": normal(0, 1)} the others flat | a Posterior of some of them
    """
    k = len(names)
    if isinstance(prior, Posterior):
        post, U = resolve_prior(prior.gaussian() if prior.cov is None else prior, names), np.zeros((k, k))
        W = post.cov.whiten(np.eye(k))
        U[: len(W)] = W
        return np.asarray(post.mean), U, int((np.abs(W).max(axis=0, initial=0.0) == 0).sum())
    if prior is None:
        return np.zeros(k), np.zeros((k, k)), k
    if isinstance(prior, Normal):
        prior = dict.fromkeys(names, prior)
    if isinstance(prior, Mapping):
        mean, U = np.zeros(k), np.zeros((k, k))
        for name, one in prior.items():
            if name not in names:
                raise UnknownOption(name, names, where=f"{where} prior=", kind="coefficient")
            if not isinstance(one, Normal) or one.per is not None:
                raise OptionError(f"the prior of {name!r} is {one!r}.", where=where, do="Use bossa.normal(mean, sd).")
            at = names.index(name)
            mean[at], U[at, at] = one.mean, 1 / one.sd
        return mean, U, k - len(prior)
    raise OptionError(
        f"prior={prior!r} is not a prior.", where=where, do="Use bossa.normal(0, 2.5), {'x': bossa.normal(0, 1)} or a posterior."
    )


def read_sigma(sigma: Any, where: str) -> Any:
    """ "nig" | "reml" | number | InverseGamma, checked."""
    if isinstance(sigma, InverseGamma):
        return sigma
    if isinstance(sigma, str):
        if sigma.lower() not in ("nig", "reml"):
            raise UnknownOption(sigma, ("nig", "reml"), where=where, kind="sigma")
        return sigma.lower()
    if not is_number(sigma) or not math.isfinite(sigma) or sigma <= 0:
        raise OptionError(
            f"sigma={sigma!r} is not a positive number.", where=where, do="Use 'nig' (unknown), 'reml', nig(a, b) or a number."
        )
    return float(sigma)


def ordered(state: AssimState) -> list[int]:
    """Places of the sites in the order that counts: by time (or id) with order="replay", of arrival with "append"."""
    index = list(range(len(state.sites)))
    if state.options.order == "append":
        return index
    if state.options.timed:
        return sorted(index, key=lambda i: state.sites[i].time)
    ids = [s.batch for s in state.sites]
    if state.ids:
        place = {name: i for i, name in enumerate(state.ids)}
        return sorted(index, key=lambda i: place[ids[i]])
    sortable = all(isinstance(b, str) for b in ids) or all(isinstance(b, (int, float)) for b in ids)
    return sorted(index, key=ids.__getitem__) if sortable else index


@one_thread()  # small products, many of them
def solve(state: AssimState) -> Solution:
    """Filter everything that the state holds."""
    order, options = ordered(state), state.options
    raw = [state.sites[i] for i in order]
    steps = gaps(raw) if options.timed else np.ones(len(raw))
    notes: list[str] = []
    chosen: dict[str, Any] = {}
    clouds = None
    raw = _spread(raw, options, chosen, notes)
    sigma = _sigma(raw, options, notes)
    mixed = state.varying
    own = mixed.fixed if mixed else len(options.mean)
    start, scale = _start(raw, options, sigma, [] if options.flat == own else notes, own)
    notes.extend(_random_notes(state))
    sites = [rescaled(s, scale.known) for s in raw] if scale.known is not None else raw
    unit = float(np.median(steps[1:])) if len(steps) > 1 and np.median(steps[1:]) > 0 else 1.0
    sources = None if options.obs_df is None else [partial(robust_site, options.obs_df, s) for s in sites]
    if isinstance(options.drift, str) and options.drift in ("ml", "bayes") and len(sites):
        steps[0] = unit
        steps = steps / unit
        path, motion = unknown_drift(sites, start, scale, steps, options.drift, chosen, notes, own, sources)
    else:
        motion = motion_of(options.drift)
        path, sites = run(sources or sites, start, motion, scale, steps)
    if options.obs_df is not None and sites:
        notes.append(f"approximate: Student-t errors with {options.obs_df:g} df, each estimate weighted at the mode")
    elif options.backend == "ibis" and sites:
        if not all(s.exact for s in sites):
            notes.append("innovations are against Laplace's forecast of each batch")
        path, clouds = tempered(_static(state, order, sites, start, scale), path, options.n_particles, options.seed, chosen, notes)
    elif sites and not all(s.exact for s in sites):
        notes.append(
            "approximate: each batch by Laplace's method" + (f", {options.sweeps} sweeps" if options.sweeps else " at its arrival")
        )
    notes.extend(_shape_notes(state, path, scale))
    return Solution(path=path, sites=tuple(sites), start=start, motion=motion, dt=steps, chosen=chosen, notes=tuple(notes), clouds=clouds)


def _shape_notes(state: AssimState, path: Path, scale: Scale) -> list[str]:
    """What was taken for the dispersion and shape of a generalized linear model's family."""
    if state.kind != "glm":
        return []
    family, notes = state.encoder.spec.family, []
    if family.aux:
        told = ", ".join(f"{name} = {value:.6g}" for name, value in family.aux.items())
        notes.append(f"{family.name}: {told}, taken as known")
    if scaled(family) and len(path.s2) and scale.known is None and state.options.backend == "auto":
        notes.append(f"dispersion {path.s2[-1]:.6g}: Pearson's statistic of the batches over its degrees of freedom; there is no evidence")
    return notes


def _random_notes(state: AssimState) -> list[str]:
    """What became of the random effects."""
    if state.within is None and state.varying is None:
        return []
    exact, notes = state.kind == "lm", []
    if state.within is not None:
        how = "exactly" if exact else "by Laplace's method"
        notes.append(f"random effects: the groups lie inside batches, and are integrated out {how} given the fit's relative variances")
    else:
        how = "exactly" if exact else "as the joint mode with the coefficients (the fit's nagq=0, which is not its Laplace estimate)"
        notes.append(f"random effects: groups span batches, and are carried {how} given the fit's relative variances")
    if exact and isinstance(state.options.drift, np.ndarray):
        notes.append(f"σ = {state.options.sigma:.6g}, the fit's where none is given, taken as known: the drift is in the response's units")
    return notes


def _static(state: AssimState, order: list[int], sites: list[Site], start: Start, scale: Scale) -> Conjugate | Likelihood:
    """The model whose particles are moved: by sufficient statistics where they are, else by the rows."""
    if state.kind == "lm":
        return Conjugate.of(sites, start, scale)
    spec = state.encoder.spec
    return Likelihood(tuple(state.rows[i] for i in order), spec.family, spec.link, Conjugate.of((), start, scale))


def motion_of(drift: Any) -> Motion:
    """The motion of a drift that is given."""
    if isinstance(drift, Discount):
        return Motion(discount=drift.factor)
    return Motion(root=root_of(drift)) if isinstance(drift, np.ndarray) else Motion()


def _spread(sites: list[Site], options: Options, chosen: dict, notes: list[str]) -> list[Site]:
    """The sites with the variance between batches added (scalar estimates)."""
    if isinstance(options.between, float) and options.between == 0.0:
        return sites
    seen = [s for s in sites if len(s.z)]
    v = np.array([1 / s.J[0, 0] ** 2 for s in seen])
    y = np.array([s.z[0] / s.J[0, 0] for s in seen])
    tau2 = options.between if isinstance(options.between, float) else between_variance(y, v, options.between)
    chosen["tau2"] = tau2
    notes.append(f"between batches: variance {tau2:.6g} added to each estimate's own")
    out = []
    for s in sites:
        if len(s.z):
            J = s.J / math.sqrt(1 + tau2 * s.J[0, 0] ** 2)
            s = evolve(s, J=J, z=J[:, 0] * (s.z[0] / s.J[0, 0]), logc=s.logc + math.log(J[0, 0] / s.J[0, 0]))
        out.append(s)
    return out


def _sigma(sites: list[Site], options: Options, notes: list[str]) -> Any:
    """σ as the engine takes it; a drift in absolute units needs a number."""
    sigma = options.sigma
    if isinstance(options.drift, np.ndarray) and not isinstance(sigma, float):
        rss, df = sum(s.rss for s in sites), sum(s.n - s.estimate.rank for s in sites)
        if not sites:
            return 1.0
        if df <= 0 or rss <= 0:
            what = "no batch has more rows than coefficients, so σ cannot be told from the drift."
            raise Refused(what, where="drift=", do="Give sigma= a number, or use drift='bayes' or discount().")
        sigma = math.sqrt(rss / df)
        notes.append(
            f"σ = {sigma:.6g}, pooled within batches ({df:.0f} df), taken as known because the drift is given in the response's units"
        )
    return sigma


def _start(sites: list[Site], options: Options, sigma: Any, notes: list[str], own: int) -> tuple[Start, Scale]:
    """Prior and scale at σ = 1.   own: how many of the numbers are coefficients, the others random effects"""
    k = len(options.mean)
    size = 1.0
    if isinstance(sigma, float):
        scale = Scale(known=sigma)
    else:
        told = sigma if isinstance(sigma, InverseGamma) else InverseGamma((options.flat - own) / 2, 0.0)
        scale = Scale(a=told.a, b=told.b, plug=sigma == "reml")
        if options.flat < k:
            size = _sigma0(sites, options, sigma)
            notes.append(f"σ is unknown: the prior's variance is told in units of it, V0 = sd²/{size:.6g}²")
    U = options.U * size
    proper = options.U.any(axis=0)
    logdet = 0.0
    if options.flat < k:
        logdet = float(np.linalg.slogdet((U.T @ U)[np.ix_(proper, proper)])[1])
    return Start(U=U, d=U @ options.mean, flat=options.flat, logdet=logdet), scale


def _sigma0(sites: list[Site], options: Options, sigma: Any) -> float:
    if options.sigma0 is not None:
        return options.sigma0
    if isinstance(sigma, InverseGamma):
        return math.sqrt(sigma.b / sigma.a)
    for s in sites:
        df = s.n - s.estimate.rank
        if df > 0 and s.rss > 0:
            return math.sqrt(s.rss / df)
    if not sites:
        return 1.0
    raise Refused(
        "no batch has more rows than coefficients.", where="prior= with sigma='nig'", do="Give sigma0=, the residual sd you expect."
    )


# ---------------------------------------------------------------- generalized linear models
def linearised(rows: Sequence[Rows], state: AssimState, sites: Sequence[Site] = ()) -> AssimState:
    """The state with the sites of new rows, each linearised where the stream stood when it came, then swept.

    rows   of new batches, in order;  state: before them (its own sites stay as they are unless swept)
    """
    family, link = state.encoder.spec.family, state.encoder.spec.link
    options = state.options if state.sites or not scaled(family) else _with_sigma0(rows, state.options, family, link)
    state = evolve(state, options=options)
    size = options.sigma if isinstance(options.sigma, float) else options.sigma0 or 1.0  # sites are at φ = 1
    start, scale = _start([], evolve(options, U=options.U * size), 1.0, [], len(options.mean))
    motion = motion_of(options.drift / size**2 if isinstance(options.drift, np.ndarray) else options.drift)
    made: list[Any] = [*state.sites, *(partial(laplace_site, r, family, link) for r in rows)]
    dt = gaps([*state.sites, *rows]) if options.timed else np.ones(len(made))
    _, found = run(made, start, motion, scale, dt, smooth=False)
    kept = (*state.rows, *rows) if options.keep_rows or options.sweeps else ()
    state = evolve(state, sites=tuple(found), rows=kept)
    for _ in range(options.sweeps):
        if len(state.rows) < len(state.sites):
            raise DataError("the rows of earlier batches are gone.", where="sweeps=", do="Start the stream with keep_rows=True.")
        state = evolve(state, sites=tuple(swept(state, family, link)))
    return state if options.keep_rows else evolve(state, rows=())


def _with_sigma0(rows: Sequence[Rows], options: Options, family: Any, link: Any) -> Options:
    """The options with √φ of the first batch, where a prior or a drift needs a first idea of it."""
    needed = options.flat < len(options.mean) or isinstance(options.drift, np.ndarray)
    if not needed or options.sigma0 is not None or isinstance(options.sigma, (float, InverseGamma)):
        return options
    k = len(options.mean)
    site = laplace_site(rows[0], family, link, np.zeros((k, k)), np.zeros(k))
    return evolve(options, sigma0=_sigma0([site], options, options.sigma))


def swept(state: AssimState, family: Any, link: Any) -> list[Site]:
    """Every batch linearised again where all batches together place it."""
    solution = solve(state)
    path = solution.path.smoothed
    if path is None:
        raise Refused("the batches do not determine all coefficients.", where="sweeps=", do="Give a proper prior=.")
    sites: list[Any] = [None] * len(state.sites)
    for place, i in enumerate(ordered(state)):
        sites[i] = site_at(state.rows[i], family, link, path[place])
    return sites
