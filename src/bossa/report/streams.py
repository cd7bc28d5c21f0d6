"""How a posterior, or a stream, came to say what it says: in words, with the numbers of each step.

    of_stream(result) → Explanation       what was assumed; before the first batch; the last batch step by step; where it disagreed
    of_posterior(post) → Explanation      what it is; its prior; what the data alone say; what is known now; where it came from

What was assumed is said first, because it decides: σ, prior, drift, order, and whether the numbers are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from ..assimilate.drift import Discount
from ..assimilate.monitoring import why_no_e_values
from ..assimilate.seen import seen_as
from ..assimilate.solve import InverseGamma
from ..kernels import covop
from . import table
from .steps import Explanation, Step

SHOWN = 20  # numbers whose steps are shown


def of_stream(r: Any) -> Explanation:
    """The steps of an `AssimilationResult`."""
    return Explanation(f"What {len(r.batch)} batches have taught", tuple(stream_steps(r)))


def of_posterior(post: Any) -> Explanation:
    """The steps of a `Posterior`."""
    return Explanation(f"What is known of {len(post.names)} numbers", tuple(posterior_steps(post)))


def _facts(facts: list[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(facts, schema=["about", "assumed"], orient="row")


def _frame(columns: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame({name: v if name in ("term", "batch") else table.series(v) for name, v in columns.items()})


# ---------------------------------------------------------------- streams
def stream_steps(r: Any) -> Iterator[Step]:
    """See the module."""
    yield Step("assumptions", "what the numbers rest on", _facts(_assumed(r)))
    yield Step("prior", "mean and standard deviation before the first batch; inf: nothing was known", _before(r))
    if not len(r.batch):
        return
    yield from _last_batch(r)
    level = f"{100 * (1 - r.alpha):.10g}%"
    yield Step("now", f"mean, standard deviation and {level} interval after the last batch", r.params)
    alarms = r.alarms
    frame = pl.DataFrame(
        [(a.batch, a.term, a.kind, a.value, a.limit, a.message) for a in alarms],
        schema=["batch", "term", "kind", "value", "limit", "message"],
        orient="row",
        strict=False,
    )
    what = f"{len(alarms)} alarm{'s' * (len(alarms) != 1)}: batches that the stream did not expect" if alarms else "no batch was off"
    yield Step("disagreement", what, frame)
    why = why_no_e_values(r)
    if why:
        yield Step("e-values", f"none: {why}", pl.DataFrame())


def _assumed(r: Any) -> list[tuple[str, str]]:
    if r.state is None:
        return _door_assumed(r)
    options, kind = r.state.options, r.state.kind
    facts = [("model", "estimates with standard errors" if r.state.encoder is None else r.state.encoder.spec.formula)]
    facts.append(("prior", _prior_said(options, r.state)))
    if kind == "estimates":
        errors = "standard errors are taken as known"
        facts.append(
            ("errors", errors if options.obs_df is None else f"{errors}; Student-t with {options.obs_df:g} df: outliers count less")
        )
    elif kind == "lm" or r.state.encoder.spec.family.dispersion != "one":
        facts.append(("sigma", _sigma_said(options)))
    facts += [("drift", _drift_said(options.drift)), ("order", _order_said(options))]
    facts += [("between batches", f"variance {r.diagnostics['tau2']:.6g} beyond their errors")] if "tau2" in r.diagnostics else []
    facts.append(("numbers", _exactness(r)))
    return [*facts, *(("note", n) for n in r.notes if not n.startswith("approximate"))]


def _door_assumed(r: Any) -> list[tuple[str, str]]:
    chosen = r.diagnostics
    q = chosen.get("process_var")
    facts = [("model", "estimates with standard errors"), ("errors", "standard errors are taken as known, with few rows they are not")]
    if "prior_var" in chosen:
        flat = math.isinf(chosen["prior_var"])
        facts.append(("prior", "flat" if flat else f"normal, mean {chosen['prior_mean']:g}, sd {math.sqrt(chosen['prior_var']):.6g}"))
    if q is not None:
        facts.append(("drift", _drift_said("none" if q == 0 else np.array([[q]]))))
    elif r.method == "particle":
        facts.append(
            (
                "drift",
                "as the functions given have it"
                if "process_sd" not in chosen
                else _drift_said("none" if not chosen["process_sd"] else np.eye(1)),
            )
        )
    facts.append(("numbers", _exactness(r)))
    return facts


def _prior_said(options: Any, state: Any) -> str:
    k = len(options.mean) if state.varying is None else state.varying.fixed
    flat = options.flat
    said = (
        "flat: the batches alone decide"
        if flat == k
        else "normal, of every number"
        if not flat
        else f"normal, of {k - flat} of {k} numbers"
    )
    return said if state.varying is None else f"{said}; variances of the random effects as in the fit, taken as known"


def _sigma_said(options: Any) -> str:
    sigma = options.sigma
    if isinstance(sigma, float):
        return f"known, {sigma:g}: normal intervals"
    if isinstance(sigma, InverseGamma):
        return f"unknown, a guess of {math.sqrt(sigma.b / sigma.a):.4g} worth {2 * sigma.a:g} rows: Student-t intervals"
    if sigma == "reml":
        return "estimated, then taken as known: intervals somewhat too narrow while rows are few"
    return "unknown, learnt from the rows: Student-t intervals"


def _drift_said(drift: Any) -> str:
    if isinstance(drift, Discount):
        return f"what is known counts {drift.factor:g} times as much after each unit of time"
    if isinstance(drift, np.ndarray):
        return "each number moves between batches, by a variance that was given"
    return {
        "none": "none: the numbers stand still, and the order of batches does not matter",
        "ml": "each number moves; by how much is estimated, then taken as known: intervals somewhat too narrow",
        "bayes": "each number moves; by how much is not known, and averaged over",
    }[drift]


def _order_said(options: Any) -> str:
    by = "time" if options.timed else "their ids"
    return f"batches count in the order of {by}; late ones are put where they belong" if options.order == "replay" else "as they came"


def _exactness(r: Any) -> str:
    if r.method in ("particle", "ibis"):
        return f"approximate: particles, seed {r.diagnostics.get('seed')}"
    if r.method == "laplace" or any(n.startswith("approximate") for n in r.notes):
        return "; ".join(n for n in r.notes if n.startswith("approximate")) or "approximate, by Laplace's method"
    mixed = r.state is not None and isinstance(r.state.options.drift, str) and r.state.options.drift == "bayes"
    return "mean and sd exact up to quadrature; limits as of a normal (or t)" if mixed else "exact"


def _before(r: Any) -> pl.DataFrame:
    """Prior mean and sd of the numbers that are followed."""
    if r.state is None:
        mean, sd = r.diagnostics.get("prior_mean"), r.diagnostics.get("prior_var")
        return _frame({"term": list(r.names), "mean": [mean], "sd": [None if sd is None else math.sqrt(sd)]})
    options, target = r.state.options, r.target
    names = list(r.names)
    rows = options.U[(options.U != 0).any(axis=1)]
    if not len(rows) or (target is not None and options.flat):
        return _frame({"term": names, "mean": [None] * len(names), "sd": np.full(len(names), np.inf)})
    op = covop.Flat(rows) if options.flat else covop.from_root(np.linalg.inv(rows))
    if target is None:
        sd = np.sqrt(op.diag())
        return _frame({"term": names, "mean": np.where(np.isinf(sd), np.nan, options.mean), "sd": sd})
    mean, V = seen_as(target, options.mean[None], op.dense()[None])
    return _frame({"term": names, "mean": mean[0], "sd": np.sqrt(np.diag(V[0]))})


def _last_batch(r: Any) -> Iterator[Step]:
    """What was forecast of the last batch, what it said, and what was made of both."""
    names, batch = list(r.names)[:SHOWN], r.batch[-1]
    last = {name: np.atleast_1d(values[-1])[:SHOWN] for name, values in (("mean", r.posterior_mean), ("sd", r.posterior_sd))}
    if r.solution is not None and r.solution.clouds is None:
        p = r.solution.path
        with np.errstate(invalid="ignore"):
            at, s2 = p.mean[-1:], p.s2_f[-1]
            seen = [seen_as(r.target, m[-1:], V[-1:] * s2, at=at) for m, V in ((p.mean_f, p.V_f), (p.own, p.own_V))]
            (m_f, sd_f), (own, own_sd) = ((m[0][:SHOWN], np.sqrt(np.diag(V[0]))[:SHOWN]) for m, V in seen)
        yield Step(
            "forecast", f"of batch {batch!r}, from the batches before it", _frame({"term": names, "forecast": m_f, "forecast_sd": sd_f})
        )
        what = f"what its {r.n[-1]:g} rows say without the others" if r.n is not None and r.n[-1] > 1 else "what it says on its own"
        yield Step(
            "batch alone", f"{what}; null: not determined by it alone", _frame({"term": names, "batch_alone": own, "batch_sd": own_sd})
        )
    surprise = {"innovation": r.innovations[-1], "innovation_sd": r.innovation_sd[-1], "z": r.z[-1]}
    columns = {"term": names} | {name: np.atleast_1d(v)[:SHOWN] for name, v in surprise.items()}
    yield Step("surprise", "innovation = batch alone − forecast; z in standard deviations of what was expected", _frame(columns))
    gain = {} if r.gain is None else {"gain": np.atleast_1d(r.gain[-1])[:SHOWN]}
    said = "precisions (1/sd²) of forecast and batch add up; the mean is theirs, weighted by them"
    said = "particles count by how well they agree with the batch" if r.method in ("particle", "ibis") else said
    said = said if len(r.names) == 1 or r.solution is None else f"{said}, jointly: a batch also moves what is correlated with what it saw"
    yield Step("update", said, _frame({"term": names, **gain, "posterior_mean": last["mean"], "posterior_sd": last["sd"]}))


# ---------------------------------------------------------------- posteriors
def posterior_steps(post: Any) -> Iterator[Step]:
    """See the module."""
    yield Step("assumptions", "what the numbers rest on", _facts(_posterior_assumed(post)))
    names = list(post.names)
    if post.prior is not None and post.cov is not None:
        before = post.prior.marginal(post.names)
        sd = before.sd() if before.df is None else before.scale()
        yield Step(
            "prior",
            "mean and standard deviation before the data; inf: nothing was known",
            _frame({"term": names, "mean": before.mean, "sd": sd}),
        )
        if post.cov.rank == post.cov.size:
            yield from _data_alone(post)
    limits = post.interval(0.95)
    shown = "" if post.back is None else f", limits through {post.back.name}"
    columns = {"term": names, "mean": post.mean, "sd": post.sd(), "ci_lower": limits[0], "ci_upper": limits[1]}
    yield Step("now", f"mean, standard deviation and 95% interval{shown}", _frame(columns))
    if post.provenance is not None:
        origin = post.provenance
        facts = [("model", origin.forward_model_id), ("data", ", ".join(origin.obs_ops_used)), ("covariance", origin.adapter)]
        facts += [] if origin.parent_hash is None else [("builds on", f"posterior {origin.parent_hash[:12]}…")]
        yield Step("origin", "where it came from; provenance.verify(data) checks", _facts(facts))


def _posterior_assumed(post: Any) -> list[tuple[str, str]]:
    kinds = {
        "gaussian": "normal",
        "student_t": f"Student-t with {post.df:.6g} df: σ is estimated" if post.df is not None else "",
        "ensemble": "the moments of draws",
        "samples": "draws alone",
    }
    facts = [("form", kinds[post.kind])]
    flat = post.prior is None
    some = not flat and post.cov is not None and np.isinf(post.prior.marginal(post.names).cov.diag()).any()
    name = "flat" if flat else {"gaussian": "normal", "student_t": "Student-t"}.get(post.prior.kind, post.prior.kind)
    facts.append(
        ("prior", "flat: the data alone decide" if flat else f"{name}, flat about some numbers" if some else f"{name}, of every number")
    )
    return [*facts, *((f"note {i}", note) for i, note in enumerate(post.notes, 1))]


def _data_alone(post: Any) -> Iterator[Step]:
    part, information = post.likelihood_part(), post.information()
    scale = np.sqrt(np.maximum(np.diag(part.precision), np.finfo(float).tiny))
    unit = part.precision / np.outer(scale, scale)
    if np.linalg.eigvalsh(unit)[0] > 1e-10:
        V = np.linalg.inv(part.precision)
        columns = {"term": list(post.names), "estimate": V @ part.shift, "se": np.sqrt(np.diag(V))}
        yield Step("data alone", "the posterior divided by its prior: precision P⁻¹ − B⁻¹", _frame(columns))
    reduced = "" if math.isinf(information.entropy) else f"; entropy lowered by {information.entropy:.4g} nats"
    what = f"share of each number that is data, the rest is prior; {information.dfs:.4g} of {len(post.names)} degrees of freedom{reduced}"
    yield Step("share", what, _frame({"term": list(post.names), "share": information.share}))
