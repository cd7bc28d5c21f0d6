"""How sure, batch by batch: the model learns from one batch of rows after the other and keeps what each step knew.

The data of the fit are split by `by=`; the prior is flat unless given (the fit itself has seen the data). The table shows the last state:
`estimate` and `posterior_mean` are its mean, not the fit's; `posterior_sd` and limits. `.trajectory()` shows every state, `.monitor()`
what to make of them; `.assimilate(batch)` goes on from there.

Source: assimilate/ (begin, solve, told, monitoring).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve, field, fields, frozen

from ..assimilate.arriving import rows_with_ids, taken
from ..assimilate.begin import BACKENDS, ORDERS, PARTICLES, Asked, begin
from ..assimilate.mixed import known_of
from ..assimilate.result import AssimilationResult
from ..assimilate.stream import followed
from ..errors import NotFitted, OptionError, Refused
from ..estimate.prior import resolve_prior
from ..state.design import Problem
from ..state.fields import choice, conf_level, flag, integer
from ..state.fit import FitState
from ..state.inference import InferenceState, JointTestState
from ..state.posterior import Posterior
from ..state.target import Target
from . import backend
from .posterior import NewRows


@frozen(kw_only=True)
class Assim:
    """Options of how="assim".

    by       column of the batches' ids, in the formula or not;  time: column of when, for drift and order
    prior    bossa.normal(0, 2.5), {"x": bossa.normal(0, 1)} or a Posterior; None: the model's own, else flat
    sigma    "nig" (unknown) | "reml" (its estimate taken as known) | a number | bossa.assimilate.nig(a, b)
    sigma0   residual sd in whose units a prior is told when σ is unknown; None: the first batch's
    drift    0 | Q | {"x": Q} | "ml" | "bayes" (or True) | bossa.assimilate.discount(0.95)
    order    "replay" | "append": where a late batch goes
    sweeps   of a generalized linear model: how often all batches are linearised again;  keep_rows: so that later batches can do it too
    backend  "auto": exact, or Laplace's method | "ibis": n_particles particles of coefficients that stand still, drawn with `seed`
    """

    by: Any = None
    time: str | None = None
    prior: Any = None
    sigma: Any = "nig"
    sigma0: float | None = None
    drift: Any = 0
    order: str = choice("replay", among=ORDERS)
    sweeps: int = integer(0, minimum=0)
    keep_rows: bool = flag(False)
    backend: str = choice("auto", among=BACKENDS)
    n_particles: int = integer(PARTICLES, minimum=2)
    seed: Any = None
    conf_level: float = field(default=0.95, converter=conf_level)


@backend("assim", Assim)
def assimilate(problem: Problem, fit: FitState, target: Target, options: Assim) -> InferenceState:
    """The target's rows after the last batch; the whole stream is in `.stream`."""
    where = "infer(how='assim')"
    if not isinstance(options.by, str):
        raise OptionError(f"by={options.by!r} is not a column.", where=where, do="Name the column that tells the batches apart: by='week'.")
    if target.kind == "predictions":
        raise Refused("predictions are not followed over batches.", where=where, do="Ask .infer(how='assim').posterior.predict(new_rows).")
    if problem.data is None:
        raise Refused("the model has no data with it.", where=where, do="Fit it to data first.")
    told = {f.name: getattr(options, f.name) for f in fields(Assim) if f.name not in ("prior", "conf_level")}
    prior = told_prior(problem, fit) if options.prior is None else options.prior
    asked = Asked(**told, prior=prior, alpha=1 - options.conf_level, where=where)
    state = begin(problem.encoder, problem.design.kept, asked, known_of(problem, fit, options.by, where))
    whole = problem.data if problem.source is None else problem.source
    result = followed(taken(state, *rows_with_ids(whole, problem.design.rows, options.by)), target if target.steps else None)
    return inference(problem, target, result)


def told_prior(problem: Problem, fit: FitState) -> Posterior | None:
    """The model's prior; σ in it is what was told of it, not the unit that the fit found for it."""
    if fit.prior is None or fit.prior.df is not None:
        return fit.prior
    return evolve(fit.prior, sigma=resolve_prior(problem.prior, fit.prior.names).sigma)


def inference(problem: Problem, target: Target, result: AssimilationResult) -> InferenceState:
    """The last state of a stream as the inference of a target."""
    post = result.posterior
    if post is None:
        raise Refused("the batches do not determine every coefficient.", where="infer(how='assim')", do="Give prior=bossa.normal(0, 2.5).")
    if not target.steps:
        post = evolve(post, rows=NewRows(problem.encoder, problem.design.kept, problem.link))
    gone = np.zeros(len(post.mean), dtype=bool) if target.estimable is None else ~target.estimable
    mean, sd, scale = post.mean.copy(), post.sd(), post.scale()
    interval = post.interval(1 - result.alpha)
    if post.back is not None:
        slope = np.abs(np.asarray(post.back.slope(mean)))
        mean, sd, scale = np.asarray(post.back.function(mean)), sd * slope, scale * slope
    for values in (mean, sd, scale):
        values[gone] = np.nan
    interval[:, gone] = np.nan
    df = np.full(len(mean), np.inf if post.df is None else post.df)
    state = result.state
    drift = state.options.drift
    own = len(state.names) if state.varying is None else state.varying.fixed
    prior = "flat" if state.options.flat == own else "given"
    moves = "no drift" if isinstance(drift, str) and drift == "none" else "drifting"
    if state.varying is not None or state.within is not None:
        prior = f"{prior}; relative variances of the random effects: the fit's, taken as known"
    told, fitted = float(result.diagnostics["n"]), problem.design.n_obs
    notes = (
        f"assimilated {len(result.batch)} batches by {state.by!r}; prior: {prior}; {moves}",
        "estimate: the posterior mean after the last batch, not the fit's",
        *(() if told == fitted else (f"the stream has seen {told:g} rows, the fit {fitted:g}: the fit's own numbers are of those",)),
    )
    return InferenceState(
        how="assim",
        level=1 - result.alpha,
        estimate=mean,
        interval=interval,
        df=df,
        columns={"posterior_mean": mean, "posterior_sd": sd},
        vcov=None if target.steps else covariance_of(post),
        notes=(*notes, *result.notes),
        options={"by": state.by, "time": state.time, "drift": drift, "order": state.options.order},
        extra=post,
        stream=result,
    )


def covariance_of(post: Posterior) -> np.ndarray | None:
    """Covariance (k, k) of a posterior: a Student-t's is df/(df − 2) times its scale, and not there up to two degrees of freedom."""
    return None if post.df is not None and post.df <= 2 else post.gaussian().cov.dense()


def stream_of(state: InferenceState | JointTestState | None, asked: str) -> AssimilationResult:
    """The stream behind an inference; NotFitted where there is none."""
    if not isinstance(state, InferenceState) or not isinstance(state.stream, AssimilationResult):
        raise NotFitted(f"nothing was assimilated, so there is no {asked}.", where="Model", do="Write m = m.infer(how='assim', by='week').")
    return state.stream


def further(problem: Problem, target: Target, state: InferenceState | JointTestState | None, batch: Any) -> InferenceState:
    """The inference after one more batch."""
    return inference(problem, target, stream_of(state, "stream to feed").update(batch))
