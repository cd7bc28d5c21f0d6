"""What a stream is told before its first batch, checked against the model and resolved: prior, σ and its unit, drift, order, particles.

`begin` makes an empty `AssimState` of what was `Asked` and what a fit to the first data left (`FromFit`); `stream` feeds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..errors import NotYet, OptionError, Refused, UnknownOption
from ..estimate.prior import resolve_prior
from ..kernels.streams import entropy
from ..state.posterior import Posterior
from ..types import is_whole
from .door import variance
from .drift import Discount, read_drift
from .mixed import FromFit, Varying, joined
from .sites import scaled
from .solve import AssimState, InverseGamma, Options, read_prior, read_sigma

BACKENDS = ("auto", "kalman", "sqrt", "information", "laplace", "iekf", "ibis", "particle")
ORDERS = ("replay", "append")
PARTICLES = 1000  # of backend="ibis", unless told


@frozen(kw_only=True, eq=False)
class Asked:
    """A stream as it was asked for; `bossa.assimilate.batches` says what each word means.   where: the door, for errors"""

    by: str
    time: str | None = None
    prior: Any = None
    sigma: Any = "nig"
    sigma0: Any = None
    drift: Any = 0
    order: str = "replay"
    sweeps: int = 0
    keep_rows: bool = False
    backend: str = "auto"
    n_particles: int = PARTICLES
    seed: Any = None
    alpha: float = 0.05
    where: str


def begin(encoder: Any, kept: Any, asked: Asked, fitted: FromFit) -> AssimState:
    """An empty stream of a model's batches.

    encoder  of the model;  kept (P,): columns that rank allows
    fitted   what a fit left: random effects and shape of the family, taken as known
    """
    spec, where, varying = encoder.spec, asked.where, fitted.varying
    plain = spec.family.name == "gaussian" and spec.link.name == "identity"
    if fitted.shape:
        spec = evolve(spec, family=evolve(spec.family.fitted(fitted.shape), free=()))
        encoder = evolve(encoder, spec=spec)
    backend = _backend(asked.backend, plain, where)
    loose = plain or scaled(spec.family)
    if spec.bars:
        _check_mixed(spec, asked.drift, varying, where)
    _check_asked(asked, spec.family, plain, loose)
    names = tuple(n for n, k in zip(encoder.columns, kept) if k)
    asked = _settled(asked, names, plain, fitted)
    mean, U, flat = read_prior(asked.prior, names, where)
    drift = asked.drift
    if varying is not None:
        unit = asked.sigma0 if isinstance(asked.sigma, (str, InverseGamma)) else asked.sigma
        more, mean, U, drift = joined(varying, mean, U, drift, 1 / unit if loose else 1.0)
        names = (*names, *more)
    options = Options(
        mean=mean,
        U=U,
        flat=flat,
        sigma=read_sigma(asked.sigma, where) if loose else 1.0,
        sigma0=None if asked.sigma0 is None else float(asked.sigma0),
        drift=drift,
        order=asked.order,
        timed=asked.time is not None,
        sweeps=int(asked.sweeps),
        keep_rows=asked.keep_rows or (backend == "ibis" and not plain),
        backend=backend,
        n_particles=int(asked.n_particles),
        seed=entropy(asked.seed, where) if backend == "ibis" else None,
        alpha=asked.alpha,
    )
    _check_particles(options, asked, bool(spec.bars) and not (plain and fitted.within), loose)
    if loose and not plain:
        _check_quasi(options, spec.family, where)
    return AssimState(
        parent_hash=asked.prior.hash if isinstance(asked.prior, Posterior) else None,
        kind="lm" if plain else "glm",
        names=names,
        options=options,
        encoder=encoder,
        kept=np.asarray(kept),
        by=asked.by,
        time=asked.time,
        varying=varying,
        within=fitted.within,
    )


def _settled(asked: Asked, names: tuple[str, ...], plain: bool, fitted: FromFit) -> Asked:
    """The same with the drift read, and σ and its unit as the prior and the random effects leave them."""
    prior, sigma, sigma0 = asked.prior, asked.sigma, asked.sigma0
    random = fitted.varying or fitted.within
    if plain and isinstance(prior, Mapping) and "sigma" in prior and "sigma" not in names:
        prior = resolve_prior(prior, names)
    if isinstance(prior, Posterior) and prior.sigma is not None and isinstance(sigma, str) and sigma == "nig":
        if prior.df is not None:  # conjugate: σ is known as it left off
            sigma, sigma0 = InverseGamma(prior.df / 2, prior.df / 2 * prior.sigma**2), prior.sigma
        elif plain:
            sigma = prior.sigma  # the posterior before took it as known
    drift = read_drift(asked.drift, names, asked.where)
    if plain and random is not None and isinstance(drift, np.ndarray) and isinstance(sigma, (str, InverseGamma)):
        sigma = random.sigma  # a drift in the response's units needs a number, and variances are the fit's here
    if plain and random is not None and sigma0 is None:  # the random effects' prior is in units of σ by itself
        sigma0 = math.sqrt(sigma.b / sigma.a) if isinstance(sigma, InverseGamma) else random.sigma
    return evolve(asked, prior=prior, sigma=sigma, sigma0=sigma0, drift=drift)


def check_order(order: Any, where: str) -> None:
    """Is it a way to count batches?"""
    if order not in ORDERS:
        raise UnknownOption(order, ORDERS, where=where, kind="order")


def _check_asked(asked: Asked, family: Any, plain: bool, loose: bool) -> None:
    """Is each word one that this kind of model has a use for?"""
    where, sweeps, sigma0 = asked.where, asked.sweeps, asked.sigma0
    if not loose and not (isinstance(asked.sigma, str) and asked.sigma == "nig"):
        raise OptionError(f"sigma= is for families with a dispersion; {family.name} has none.", where=where, do="Leave it out.")
    check_order(asked.order, where)
    if not is_whole(sweeps) or sweeps < 0:
        raise OptionError(f"sweeps={sweeps!r} is not a whole number of at least 0.", where=where)
    if plain and sweeps:
        raise OptionError("sweeps= is for generalized linear models; a linear model is exact as it is.", where=where, do="Leave it out.")
    if asked.keep_rows and plain:
        raise OptionError("keep_rows= is for generalized linear models; a linear model needs no rows.", where=where, do="Leave it out.")
    if sigma0 is not None and not loose:
        raise OptionError(f"sigma0= is for families with a dispersion; {family.name} has none.", where=where, do="Leave it out.")
    if sigma0 is not None and variance(sigma0, "sigma0", where) == 0:
        raise OptionError("sigma0=0 is not a residual sd.", where=where)
    if not is_whole(asked.n_particles) or asked.n_particles < 2:
        raise OptionError(f"n_particles={asked.n_particles!r} is not a whole number of at least 2.", where=where)


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


def _check_particles(options: Options, asked: Asked, random: bool, loose: bool) -> None:
    """What particles of coefficients need; nothing of it is asked elsewhere."""
    where = asked.where
    if options.backend == "auto":
        for name, given in (("seed", asked.seed is not None), ("n_particles", asked.n_particles != PARTICLES)):
            if given:
                raise OptionError(f"{name}= is for backend='ibis'; nothing else is drawn.", where=where, do="Leave it out.")
        return
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
