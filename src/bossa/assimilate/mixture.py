"""The path of a stream whose drift is not known: q estimated, or integrated out.

The sites are filtered under each process variance q · diag(v); integrated out, each state is a mixture over the nodes of `drift`, weighted
by the evidence of the batches so far, and is told by its moments.

Source: West & Harrison (1997) ch. 12 for mixtures of filters; `drift` for the prior of q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import evolve

from ..errors import Refused
from ..kernels.kalman import Known, filter_scalars, smooth_scalar
from ..types import Floats
from .drift import NODES, SCALAR_NODES, mixed_evidence, mixed_moments, most_likely, nodes, placed, posterior_weights
from .engine import Alone, Path, Scale, estimated, evidences, run, summed
from .mixed import without_random
from .sites import Site
from .track import Motion, Start, Track, covariances, tracked
from .weighing import KISH_SIZE, Weighing


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


def unknown_drift(
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
