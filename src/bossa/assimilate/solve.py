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
from ..kernels.kalman import Known, filter_scalars, smooth_scalar
from ..kernels.pooling import between_variance
from ..kernels.threads import one_thread
from ..state.distributions import Normal
from ..state.fields import array
from ..state.posterior import Posterior
from ..types import Floats, is_number
from .codec import to_json
from .drift import NODES, SCALAR_NODES, Discount, mixed_evidence, mixed_moments, most_likely, nodes, placed, posterior_weights, root_of
from .engine import Alone, Path, Scale, estimated, evidences, gaps, run, summed
from .mixed import without_random
from .sites import Rows, Site, laplace_site, rescaled, robust_site, scaled, site_at
from .tempered import Clouds, Conjugate, Likelihood, tempered
from .track import Motion, Start, Track, covariances, tracked
from .weighing import KISH_SIZE, Weighing


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
        path, motion = _unknown_drift(sites, start, scale, steps, options.drift, chosen, notes, own, sources)
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


def typical_variances(sites: Sequence[Site], alone: Alone) -> Floats:
    """Median variance (k,) of each coefficient over the batches that determine it; over all together where none does."""
    seen = np.array([len(s.z) > 0 for s in sites])
    each = np.einsum("tii->ti", alone.V)[seen]
    v = np.full(each.shape[1], np.nan)
    for j in range(len(v)):
        some = each[~np.isnan(each[:, j]), j]
        if len(some):
            v[j] = np.median(some)
    if np.isnan(v).any():
        mean = sum(s.J.T @ s.J for s in sites) / max(len(each), 1)
        together = np.diag(np.linalg.pinv(mean))
        v = np.where(np.isnan(v), together, v)
    return v


def _coefficient_variances(sites: Sequence[Site], k: int, own: int) -> Floats:
    """`typical_variances` of coefficients that share the state with random effects, and 0 for these."""
    marginal = [evolve(s, J=J, z=z) for s in sites for J, z in [without_random(s.J, s.z, own)]]
    return np.concatenate((typical_variances(marginal, estimated(marginal, own)), np.zeros(k - own)))


def _unknown_drift(
    sites: list[Site], start: Start, scale: Scale, dt: Floats, how: str, chosen: dict, notes: list[str], own: int, sources: Any
) -> tuple[Path, Motion]:
    """The path with q estimated or integrated out.

    own      how many of the numbers are coefficients; random effects stand still
    sources  functions of the forecast that make a site, None: the sites are what they are
    """
    alone = estimated(sites, start.k)
    v = typical_variances(sites, alone) if own == start.k else _coefficient_variances(sites, start.k, own)
    base = Motion(root=np.diag(np.sqrt(v)))

    def evidence(q: Floats) -> Floats:
        if sources:
            tried = [run(sources, start, base.scaled(value), scale, dt, smooth=False)[0] for value in q.tolist()]
            return np.array([path.evidence[-1] for path in tried])
        if one_number(start, scale):
            return scalar_nodes(sites, start, v[0] * q, dt)["evidence"][-1]
        return evidences(sites, start, [base.scaled(value) for value in q.tolist()], scale, dt)

    if how == "ml":
        if np.isnan(evidence(np.ones(1))).any():
            raise Refused(
                "the batches do not determine all coefficients yet.", where="drift='ml'", do="Give a proper prior=, or more batches."
            )
        q, _, ratio, p = most_likely(evidence)
        chosen |= {"q": q, "Q": q * v, "lr": ratio, "lr_p": p}
        notes.append(
            f"drift by maximum likelihood: Q = {q:.6g} × a batch's variance, taken as known; LR against none {ratio:.4g}, p {p:.4g}"
        )
        motion = base.scaled(q)
        return (run(sources, start, motion, scale, dt) if sources else run(sites, start, motion, scale, dt, alone=alone))[0], motion
    values, prior = placed(evidence, *nodes(SCALAR_NODES if one_number(start, scale) and not sources else NODES))
    if sources:
        path, weights = _remade_mixture(sources, start, scale, base, values, prior, dt)
    else:
        path, weights = mixture(sites, start, scale, base, v, values, prior, dt, alone)
    mean_q = float(weights[-1] @ values)
    chosen |= {"q": mean_q, "Q": mean_q * v, "q_weights": weights[-1], "q_nodes": values}
    notes.append(
        f"drift integrated out: log Q ~ N(log(a batch's variance/10), 1.5²), {len(values)} nodes; "
        f"posterior mean Q = {mean_q:.4g} × a batch's variance"
    )
    return path, base


def one_number(start: Start, scale: Scale) -> bool:
    """A single coefficient with a proper prior and known σ: all process variances are filtered in one pass."""
    return start.k == 1 and scale.known is not None and start.flat == 0


def scalar_nodes(sites: list[Site], start: Start, Q: Floats, dt: Floats) -> dict[str, Floats]:
    """Paths of one number for many process variances at once.   Q (nodes,) → arrays (T, nodes)"""
    y = np.array([s.z[0] / s.J[0, 0] if len(s.z) else np.nan for s in sites])
    v = np.array([1 / s.J[0, 0] ** 2 if len(s.z) else 1.0 for s in sites])
    U = float(start.U[0, 0])
    path = filter_scalars(y[:, None], v[:, None], dt[:, None] * Q, float(start.d[0]) / U if U else 0.0, 1 / U**2 if U else math.inf)
    smoothed, smoothed_var, _ = smooth_scalar(path)
    made = {"mean": path.mean, "V": path.var, "mean_f": path.mean_f, "V_f": path.var_f, "smoothed": smoothed, "smoothed_V": smoothed_var}
    return made | {"gain": path.gain, "evidence": np.cumsum(path.loglik, axis=0)}


def mixture(
    sites: list[Site], start: Start, scale: Scale, base: Motion, v: Floats, q: Floats, prior: Floats, dt: Floats, alone: Alone
) -> tuple[Path, Floats]:
    """The path averaged over q, and the weights (T, nodes) of the nodes after each batch."""
    if one_number(start, scale):
        return _scalar_mixture(sites, start, v, q, prior, dt, alone)
    motions = [base.scaled(value) for value in q.tolist()]
    track, _ = tracked(sites, start, motions, dt)
    sums, k = summed(track, sites, start, scale), start.k
    after = posterior_weights(prior, sums.evidence)
    before = np.concatenate((prior[None], after[:-1]))
    mean, V = mixed_moments(after, track.mean, track.V, sums.s2)
    mean_f, V_f = _mixed_forecasts(track, before, np.nan_to_num(sums.s2_f, nan=1.0))
    smoothed, smoothed_V = _mixed_smoother(track, after[-1], sums.s2[-1])
    typical = (before * sums.s2_f).sum(axis=1)
    last = Known(mean[-1], V[-1], int(track.rank[-1]), np.full((k, k), np.nan), np.full(k, np.nan))
    path = Path(
        mean=mean,
        V=V,
        mean_f=mean_f,
        V_f=V_f,
        own=alone.mean,
        own_V=alone.V * np.where(np.isnan(typical), 1.0, typical)[:, None, None],
        seen=np.array([s.n > 0 for s in sites], dtype=bool),
        nis=(before * track.nis / sums.s2_f).sum(axis=1),
        nis_df=(alone.rank + track.rank_f - track.rank).astype(float),
        s2=np.where(np.isnan(sums.s2[:, 0]), np.nan, 1.0),
        s2_f=np.where(np.isnan(sums.s2_f[:, 0]), np.nan, 1.0),
        df=sums.df,
        df_f=sums.df_f,
        evidence=mixed_evidence(prior, sums.evidence),
        last=last,
        a=float(sums.a[-1]),
        b=float(after[-1] @ sums.b[-1]),
        smoothed=smoothed,
        smoothed_V=smoothed_V,
        weighing=Weighing(sites=sites, start=start, motions=motions, dt=dt, after=after) if k <= KISH_SIZE else None,
    )
    return path, after


def _remade_mixture(sources: Any, start: Start, scale: Scale, base: Motion, q: Floats, prior: Floats, dt: Floats) -> tuple[Path, Floats]:
    """`mixture` of sites that the forecast makes: each node has its own; batches on their own and weights are of the likeliest node."""
    paths = [run(sources, start, base.scaled(value), scale, dt)[0] for value in q.tolist()]

    def each(name: str) -> Floats:
        return np.stack([getattr(path, name) for path in paths], axis=1)

    evidence = each("evidence")
    after = posterior_weights(prior, evidence)
    before = np.concatenate((prior[None], after[:-1]))
    final, best = np.broadcast_to(after[-1:], after.shape), paths[int(np.argmax(after[-1]))]
    changes: dict[str, Any] = {"nis": (before * each("nis")).sum(axis=1), "evidence": mixed_evidence(prior, evidence), "lag_V": None}
    changes["mean"], changes["V"] = mixed_moments(after, each("mean"), each("V"))
    changes["mean_f"], changes["V_f"] = mixed_moments(before, each("mean_f"), each("V_f"))
    if best.smoothed is not None:
        changes["smoothed"], changes["smoothed_V"] = mixed_moments(final, each("smoothed"), each("smoothed_V"))
    k = start.k
    last = Known(changes["mean"][-1], changes["V"][-1], best.last.rank, np.full((k, k), np.nan), np.full(k, np.nan))
    return evolve(best, **changes, last=last), after


def _mixed_forecasts(track: Track, weights: Floats, s2: Floats) -> tuple[Floats, Floats]:
    """Moments of the forecasts, averaged over the nodes: beyond the head V_f = V_{t−1} + dt Q.   weights, s2 (T, nodes)"""
    h = track.head + 1
    mean, V = mixed_moments(weights[:h], track.mean_f[:h], track.forecasts(slice(0, h)), s2[:h])
    if h >= len(weights):
        return mean, V
    later, within = mixed_moments(weights[h:], track.mean_f[h:], track.V[h - 1 : -1], s2[h:])
    within += track.dt[h:, None, None] * np.tensordot(weights[h:] * s2[h:], covariances(track.motions), axes=1)
    return np.concatenate((mean, later)), np.concatenate((V, within))


def _mixed_smoother(track: Track, weights: Floats, s2: Floats) -> tuple[Floats | None, Floats | None]:
    """Moments given all batches, averaged over the nodes that count.   weights, s2 (nodes,) after the last batch"""
    some = np.flatnonzero(weights > 1e-18)
    found = track.smoothed(some.tolist())
    if found is None:
        return None, None
    T = len(found[0])
    final, scale = (np.broadcast_to(x[some], (T, len(some))) for x in (weights, s2))
    return mixed_moments(final, found[0], found[1], scale)


def _scalar_mixture(sites: list[Site], start: Start, v: Floats, q: Floats, prior: Floats, dt: Floats, alone: Alone) -> tuple[Path, Floats]:
    """`mixture` of one number with known σ: all nodes in one pass."""
    p = scalar_nodes(sites, start, v[0] * q, dt)
    path, _ = run(sites, start, Motion(), Scale(known=1.0), dt, smooth=False, alone=alone)
    after = posterior_weights(prior, p["evidence"])
    before = np.concatenate((prior[None], after[:-1]))
    final = np.broadcast_to(after[-1:], after.shape)

    def both(w: Floats, mean: str, variance: str) -> tuple[Floats, Floats]:
        return mixed_moments(w, p[mean][:, :, None], p[variance][:, :, None, None])

    mean, V = both(after, "mean", "V")
    mean_f, V_f = both(before, "mean_f", "V_f")
    smoothed, smoothed_V = both(final, "smoothed", "smoothed_V")
    own = path.own
    S = p["V_f"] + path.own_V[:, 0]
    changes: dict[str, Any] = {"mean": mean, "V": V, "mean_f": mean_f, "V_f": V_f, "smoothed": smoothed, "smoothed_V": smoothed_V}
    changes["nis"] = np.where(path.seen, (before * (own - p["mean_f"]) ** 2 / S).sum(axis=1), 0.0)
    changes["evidence"] = mixed_evidence(prior, p["evidence"])
    motions = [Motion(root=np.sqrt(v * value)[:, None]) for value in q.tolist()]
    changes["weighing"] = Weighing(sites=sites, start=start, motions=motions, dt=dt, after=after)
    last = Known(mean[-1], V[-1], 1, np.full((1, 1), np.nan), np.full(1, np.nan))
    return evolve(path, **changes, last=last), after


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
