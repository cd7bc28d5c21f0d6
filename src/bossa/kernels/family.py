"""How the response scatters around its mean: one `Family` instance per distribution, everything about it in one table.

With mean μ, dispersion φ and weight w of a row,

    Var(y) = φ V(μ) / w           deviance(y, μ) = d,  d/φ = 2 (log f(y; y) − log f(y; μ))
    score(y, μ) = −½ ∂d/∂μ        (y − μ)/V(μ) for every family but t

all elementwise. A prior weight enters the log-density in R's sense: as a precision (gaussian, t), as the number of trials (binomial,
y being the proportion), or as a count of rows (the others). Saturated log-densities go through the remainder of Stirling's formula, so
nothing is lost to cancellation for large counts, shapes or θ.

Source: McCullagh & Nelder (1989) ch. 2 and 9; R's family(), logLik.glm; Venables & Ripley (2002) §7.4 for negbinomial; Lange, Little &
Taylor (1989) for t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..errors import DataError, OptionError, Refused, UnknownOption
from ..types import Bools, Floats, is_number
from .link import LINKS, Link


@frozen(kw_only=True, eq=False)
class Family:
    """One response distribution.

    canonical       name of the default link;  links: those that make sense with it
    natural         the link with dμ/dη = V(μ), for which a scoring step needs no slope; "" if there is none
    variance        V(μ);  variance_slope dV/dμ
    deviance        (y, mu) → d
    logpdf          (y, mu, dispersion=1, weights=None) → (n,); None: quasi-likelihood
    sample          (rng, mu, dispersion=1, weights=None) → draws of mu's shape; None: quasi-likelihood
    start           (y, weights) → a first mean inside the range, per row
    low, high       open range of μ
    dispersion      "one": φ = 1;  "pearson": X²/df;  "ml"
    weights         what a prior weight is to `logpdf`: "precision" | "trials" | "counts"
    discrete        y has point masses
    outside         (y, weights) → rows outside the support;  support and remedy say it in words
    aux             shape parameters by name (θ of negbinomial; df and scale of t); nan: to be estimated, not known yet
    free            names of the shape parameters a fit estimates
    """

    name: str
    canonical: str
    links: tuple[str, ...]
    natural: str = ""
    variance: Callable[[Floats], Floats]
    variance_slope: Callable[[Floats], Floats]
    deviance: Callable[[Floats, Floats], Floats]
    logpdf: Callable[..., Floats] | None = None
    sample: Callable[..., Floats] | None = None
    start: Callable[[Floats, Floats | None], Floats]
    low: float = -math.inf
    high: float = math.inf
    dispersion: str = "one"
    weights: str = "counts"
    discrete: bool = False
    outside: Callable[[Floats, Floats | None], Bools]
    support: str = "finite numbers"
    remedy: str = ""
    aux: Mapping[str, float] = field(factory=dict)
    free: tuple[str, ...] = ()
    own_score: Callable[[Floats, Floats], Floats] | None = None

    def __repr__(self) -> str:
        shape = ", ".join(f"{k}=estimated" if math.isnan(v) else f"{k}={v:g}" for k, v in self.aux.items())
        return f"<family {self.name}{f'({shape})' if shape else ''}>"

    def score(self, y: Floats, mu: Floats) -> Floats:
        """−½ ∂d/∂μ, so that w score/φ is the slope of a row's log-likelihood in its mean."""
        return (y - mu) / self.variance(mu) if self.own_score is None else self.own_score(y, mu)

    def fitted(self, aux: Mapping[str, float]) -> Family:
        """The same family at the shape parameters `aux` (others in it are left alone); a refit still estimates the free ones."""
        values = {name: float(aux.get(name, value)) for name, value in self.aux.items()}
        return evolve(SHAPED[self.name](**values), free=self.free) if values else self

    def check(self, y: Floats, weights: Floats | None = None, rows: np.ndarray | None = None, response: str = "the response") -> None:
        """DataError naming the first value outside the support, and its row in the user's data (from 0)."""
        bad = ~np.isfinite(y)
        bad |= self.outside(y, weights)
        if bad.any():
            i = int(np.argmax(bad))
            row = i if rows is None else int(rows[i])
            more = f" ({int(bad.sum()) - 1} more rows like it)" if bad.sum() > 1 else ""
            what = f"{response} is {float(y[i])!r} in row {row} of the data, counting from 0{more}; it needs {self.support}."
            raise DataError(what, where=f"family {self.name!r}", do=self.remedy)

    def check_link(self, link: Link, where: str = "model()") -> None:
        """OptionError for a known link that makes no sense with this family; a Link of the user's own passes."""
        if LINKS.get(link.name) is link and link.name not in self.links:
            usable = ", ".join(self.links)
            raise OptionError(f"link {link.name!r} does not go with family {self.name!r}.", where=where, do=f"Use one of {usable}.")


def loglik(family: Family, y: Floats, deviance: float, weights: Floats | None = None, freq: Floats | None = None) -> float:
    """Log-likelihood Σ f log f(y; y) − D/2φ, in R's convention: families with a free φ (t apart) at φ = D/N; nan for quasi-likelihood.

    y         (n,)
    deviance  D = Σ f w d
    weights   (n,)  prior weights, None: all 1;   freq  (n,)  counts, None: all 1
    N is Σ f, or Σ f w where a weight counts rows.  t: at its own scale.

    Source: R's binomial()$aic and its siblings, logLik.glm.
    """
    if family.logpdf is None:
        return math.nan
    dispersion = family.aux.get("scale", 1.0) ** 2
    if family.dispersion == "pearson":
        counted = [a for a in (freq, weights if family.weights == "counts" else None) if a is not None]
        dispersion = deviance / (float(np.prod(counted, axis=0).sum()) if counted else len(y))
    if dispersion == 0.0:
        return math.inf
    saturated = family.logpdf(y, y, dispersion, weights)
    return float(saturated.sum() if freq is None else freq @ saturated) - deviance / (2.0 * dispersion)


# ---------------------------------------------------------------- pieces shared by several families
def _remainder(k: Floats | float) -> Floats:
    """k log k − k − log Γ(k + 1), 0 at k = 0: the log-density of a Poisson count at its own mean.

    Source: Stirling's series from k = 16 on (next term 1e-14), log Γ below; Loader (2000).
    """
    from scipy.special import gammaln

    k = np.asarray(k, dtype=float)
    big = np.maximum(k, 16.0)
    r = 1.0 / (big * big)
    series = -0.5 * np.log(2 * math.pi * big) - (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r / 1680))) / big
    small = np.minimum(k, 16.0)
    direct = small * np.log(np.where(small > 0, small, 1.0)) - small - gammaln(small + 1.0)
    return np.where(k < 16.0, direct, series)


def _log(u: Floats, ratio: Floats) -> Floats:
    """log(1 + u) to full precision, where ratio = 1 + u is given apart: it is lost in u near −1, as u is in it near 0."""
    return np.where(u < -0.5, np.log(ratio), np.log1p(np.maximum(u, -0.5)))


def _excess(u: Floats, ratio: Floats) -> Floats:
    """u − log(1 + u) ≥ 0 to full precision: by Taylor's series below 0.01 (next term 1e-16 of the sum)."""
    series = u * u * (1 / 2 - u * (1 / 3 - u * (1 / 4 - u * (1 / 5 - u * (1 / 6 - u * (1 / 7 - u * (1 / 8 - u / 9)))))))
    return np.where(np.abs(u) < 0.01, series, u - _log(u, ratio))


def _half(y: Floats, mu: Floats, away: Floats) -> Floats:
    """y log(y/μ) − (y − μ), its limit μ at y = 0; away = μ − y."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(y > 0, y * _excess(away / y, mu / y), mu)


def _times(weights: Floats | None, x: Floats) -> Floats:
    return x if weights is None else weights * x


def _over(dispersion: Any, weights: Floats | None) -> Any:
    return dispersion if weights is None else dispersion / np.asarray(weights)


def _constant(value: float, mu: Floats) -> Floats:
    return np.full(np.shape(mu), value)


def _itself(x: Floats) -> Floats:
    return np.asarray(x, dtype=float)


def _twice(mu: Floats) -> Floats:
    return 2.0 * np.asarray(mu)


def _start_at_y(y: Floats, weights: Floats | None) -> Floats:
    return y


def _never(y: Floats, weights: Floats | None) -> Bools:
    return np.zeros(len(y), dtype=bool)


def _not_positive(y: Floats, weights: Floats | None) -> Bools:
    return y <= 0


def _negative(y: Floats, weights: Floats | None) -> Bools:
    return y < 0


def _not_count(y: Floats, weights: Floats | None) -> Bools:
    return (y < 0) | (y != np.floor(y))


# ---------------------------------------------------------------- gaussian
def _gaussian_deviance(y: Floats, mu: Floats) -> Floats:
    return np.square(y - mu)


def _gaussian_logpdf(y: Floats, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    variance = _over(dispersion, weights)
    return -0.5 * (np.log(2 * math.pi * variance) + np.square(y - mu) / variance)


def _gaussian_sample(rng: np.random.Generator, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    return mu + np.sqrt(_over(dispersion, weights)) * rng.standard_normal(np.shape(mu))


GAUSSIAN = Family(
    name="gaussian",
    canonical="identity",
    links=("identity", "log", "inverse", "sqrt"),
    natural="identity",
    variance=partial(_constant, 1.0),
    variance_slope=partial(_constant, 0.0),
    deviance=_gaussian_deviance,
    logpdf=_gaussian_logpdf,
    sample=_gaussian_sample,
    start=_start_at_y,
    dispersion="pearson",
    weights="precision",
    outside=_never,
)


# ---------------------------------------------------------------- binomial: y is a proportion, the weight its number of trials
def _binomial_variance(mu: Floats) -> Floats:
    return mu * (1.0 - mu)


def _binomial_variance_slope(mu: Floats) -> Floats:
    return 1.0 - 2.0 * np.asarray(mu)


def _binomial_deviance(y: Floats, mu: Floats) -> Floats:
    y = np.asarray(y, dtype=float)
    if ((y == 0.0) | (y == 1.0)).all():
        with np.errstate(divide="ignore"):
            return -2.0 * np.where(y > 0.0, np.log(mu), np.log1p(-np.asarray(mu)))
    away = mu - y
    return 2.0 * (_half(y, mu, away) + _half(1.0 - y, 1.0 - np.asarray(mu), -away))


def _binomial_logpdf(y: Floats, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    if weights is None:  # y is 0 or 1, and its saturated log-density 0
        return -0.5 * _binomial_deviance(y, mu)
    saturated = _remainder(weights * y) + _remainder(weights * (1.0 - y)) - _remainder(weights)
    return saturated - 0.5 * weights * _binomial_deviance(y, mu)


def _binomial_sample(rng: np.random.Generator, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    if weights is None:
        return (rng.random(np.shape(mu)) < mu).astype(float)
    trials = np.asarray(weights)
    if (trials != np.floor(trials)).any():
        raise Refused(
            "the weights are not whole numbers of trials, so there is nothing to draw.",
            where="family 'binomial'",
            do="Simulate from the unweighted model.",
        )
    return rng.binomial(trials.astype(np.int64), mu) / trials


def _binomial_start(y: Floats, weights: Floats | None) -> Floats:
    return (0.5 * y + 0.25) if weights is None else (weights * y + 0.5) / (weights + 1.0)


def _not_successes(y: Floats, weights: Floats | None) -> Bools:
    successes = _times(weights, y)
    return (y < 0) | (y > 1) | ((y > 0) & (y < 1) & (np.abs(successes - np.round(successes)) > 1e-3))


def _not_proportion(y: Floats, weights: Floats | None) -> Bools:
    return (y < 0) | (y > 1)


BINOMIAL = Family(
    name="binomial",
    canonical="logit",
    links=("logit", "probit", "cloglog", "cauchit", "log", "identity"),
    natural="logit",
    variance=_binomial_variance,
    variance_slope=_binomial_variance_slope,
    deviance=_binomial_deviance,
    logpdf=_binomial_logpdf,
    sample=_binomial_sample,
    start=_binomial_start,
    low=0.0,
    high=1.0,
    weights="trials",
    discrete=True,
    outside=_not_successes,
    support="0 or 1 (False/True, or two levels), or a proportion of the whole number of trials in weights=",
    remedy="Write cbind(success, failure), or give the trials as weights=; for a fraction that counts nothing use family='quasibinomial'.",
)

QUASIBINOMIAL = evolve(
    BINOMIAL,
    name="quasibinomial",
    logpdf=None,
    sample=None,
    dispersion="pearson",
    outside=_not_proportion,
    support="values from 0 to 1",
    remedy="Divide by the largest possible value, or use another family.",
)


# ---------------------------------------------------------------- poisson
def _poisson_deviance(y: Floats, mu: Floats) -> Floats:
    return 2.0 * _half(np.asarray(y, dtype=float), mu, mu - y)


def _poisson_logpdf(y: Floats, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    return _times(weights, _remainder(y) - 0.5 * _poisson_deviance(y, mu))


def _poisson_sample(rng: np.random.Generator, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    return rng.poisson(mu).astype(float)


def _poisson_start(y: Floats, weights: Floats | None) -> Floats:
    return y + 0.1


POISSON = Family(
    name="poisson",
    canonical="log",
    links=("log", "identity", "sqrt"),
    natural="log",
    variance=_itself,
    variance_slope=partial(_constant, 1.0),
    deviance=_poisson_deviance,
    logpdf=_poisson_logpdf,
    sample=_poisson_sample,
    start=_poisson_start,
    low=0.0,
    discrete=True,
    outside=_not_count,
    support="counts 0, 1, 2, …",
    remedy="For rates put the exposure into offset(log(exposure)); for values ≥ 0 that are no counts use family='quasipoisson' or 'gamma'.",
)

QUASIPOISSON = evolve(
    POISSON,
    name="quasipoisson",
    logpdf=None,
    sample=None,
    dispersion="pearson",
    outside=_negative,
    support="values ≥ 0",
    remedy="Use family='gaussian' for a response of both signs.",
)


# ---------------------------------------------------------------- gamma and inverse gaussian
def _gamma_deviance(y: Floats, mu: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return 2.0 * _excess((y - mu) / mu, y / mu)


def _gamma_logpdf(y: Floats, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    shape = 1.0 / np.asarray(dispersion)
    each = _remainder(shape) + np.log(shape) - np.log(y) - 0.5 * shape * _gamma_deviance(y, mu)
    return _times(weights, each)


def _gamma_sample(rng: np.random.Generator, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    variance = _over(dispersion, weights)
    return mu * variance * rng.standard_gamma(1.0 / variance, np.shape(mu))


GAMMA = Family(
    name="gamma",
    canonical="inverse",
    links=("inverse", "log", "identity"),
    variance=np.square,
    variance_slope=_twice,
    deviance=_gamma_deviance,
    logpdf=_gamma_logpdf,
    sample=_gamma_sample,
    start=_start_at_y,
    low=0.0,
    dispersion="pearson",
    outside=_not_positive,
    support="values > 0",
    remedy="Model the zeros apart (y > 0 by family='binomial'), or use family='quasipoisson', which allows them.",
)


def _cube(mu: Floats) -> Floats:
    return np.asarray(mu) ** 3


def _cube_slope(mu: Floats) -> Floats:
    return 3.0 * np.square(mu)


def _inverse_gaussian_deviance(y: Floats, mu: Floats) -> Floats:
    return np.square((y - mu) / mu) / y


def _inverse_gaussian_logpdf(y: Floats, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    each = -0.5 * (np.log(2 * math.pi * dispersion) + 3.0 * np.log(y) + _inverse_gaussian_deviance(y, mu) / dispersion)
    return _times(weights, each)


def _inverse_gaussian_sample(rng: np.random.Generator, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    return rng.wald(mu, 1.0 / _over(dispersion, weights), np.shape(mu))


INVERSE_GAUSSIAN = Family(
    name="inverse_gaussian",
    canonical="inverse_squared",
    links=("inverse_squared", "inverse", "log", "identity"),
    variance=_cube,
    variance_slope=_cube_slope,
    deviance=_inverse_gaussian_deviance,
    logpdf=_inverse_gaussian_logpdf,
    sample=_inverse_gaussian_sample,
    start=_start_at_y,
    low=0.0,
    dispersion="pearson",
    outside=_not_positive,
    support="values > 0",
    remedy="Model the zeros apart (y > 0 by family='binomial'), or use family='quasipoisson', which allows them.",
)


# ---------------------------------------------------------------- negative binomial: Var y = μ + μ²/θ
def _negbinomial_variance(theta: float, mu: Floats) -> Floats:
    return mu + np.square(mu) / theta


def _negbinomial_variance_slope(theta: float, mu: Floats) -> Floats:
    return 1.0 + 2.0 * np.asarray(mu) / theta


def _negbinomial_deviance(theta: float, y: Floats, mu: Floats) -> Floats:
    """2 (y log(y/μ) − (y + θ) log((y + θ)/(μ + θ))), arranged so that nothing large cancels.

    As y log(1 + c) − θ log(1 + b) with 1 + c = y(μ + θ)/(μ(y + θ)), 1 + b = (y + θ)/(μ + θ); near y = μ with their leading squares
    taken together.
    """
    y = np.asarray(y, dtype=float)
    total, other, away = mu + theta, y + theta, y - mu
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        a, b = away / mu, away / total
        c, ratio = a * (theta / other), (y / mu) * (total / other)
        near = theta * c * b - y * _excess(c, ratio) + theta * _excess(b, other / total)
        far = np.where(y > 0, y * _log(c, ratio), 0.0) - theta * _log(b, other / total)
        return 2.0 * np.where(np.abs(a) < 0.1, near, far)


def _negbinomial_logpdf(theta: float, y: Floats, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    y = np.asarray(y, dtype=float)
    saturated = _remainder(y) + _remainder(theta) - _remainder(y + theta) - np.log1p(y / theta)
    return _times(weights, saturated - 0.5 * _negbinomial_deviance(theta, y, mu))


def _negbinomial_sample(
    theta: float, rng: np.random.Generator, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None
) -> Floats:
    if math.isnan(theta):
        raise OptionError(
            "θ is not known, so there is nothing to draw from.", where="family 'negbinomial'", do="Give negbinomial(theta=…)."
        )
    return rng.poisson(np.asarray(mu) * rng.standard_gamma(theta, np.shape(mu)) / theta).astype(float)


def _negbinomial_start(y: Floats, weights: Floats | None) -> Floats:
    return y + (y == 0) / 6


def _negbinomial(theta: float) -> Family:
    return Family(
        name="negbinomial",
        canonical="log",
        links=("log", "identity", "sqrt"),
        variance=partial(_negbinomial_variance, theta),
        variance_slope=partial(_negbinomial_variance_slope, theta),
        deviance=partial(_negbinomial_deviance, theta),
        logpdf=partial(_negbinomial_logpdf, theta),
        sample=partial(_negbinomial_sample, theta),
        start=_negbinomial_start,
        low=0.0,
        discrete=True,
        outside=_not_count,
        support="counts 0, 1, 2, …",
        remedy="For rates put the exposure into offset(log(exposure)).",
        aux={"theta": theta},
    )


def negbinomial(theta: float | None = None) -> Family:
    """Negative binomial counts, Var y = μ + μ²/θ.

    theta  > 0, given; None: estimated by maximum likelihood

    >>> negbinomial(theta=2.0)
    <family negbinomial(theta=2)>
    """
    if theta is None:
        return evolve(_negbinomial(math.nan), free=("theta",))
    return _negbinomial(_positive(theta, "theta", "negbinomial()", "Leave it out to have it estimated."))


# ---------------------------------------------------------------- Student t around the mean, scale √φ
def _t_variance(df: float, scale: float, mu: Floats) -> Floats:
    """1/(φ V) is the Fisher information of one row about μ; the variance itself is φ df/(df − 2)."""
    return np.full(np.shape(mu), (df + 3.0) / (df + 1.0))


def _t_deviance(df: float, scale: float, y: Floats, mu: Floats) -> Floats:
    return scale**2 * (df + 1.0) * np.log1p(np.square((y - mu) / scale) / df)


def _t_score(df: float, scale: float, y: Floats, mu: Floats) -> Floats:
    r = y - mu
    return (df + 1.0) * r / (df + np.square(r / scale))


def _t_logpdf(df: float, scale: float, y: Floats, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None) -> Floats:
    from scipy.special import gammaln

    variance = _over(dispersion, weights)
    constant = gammaln(0.5 * (df + 1.0)) - gammaln(0.5 * df) - 0.5 * math.log(math.pi * df)
    return constant - 0.5 * np.log(variance) - 0.5 * (df + 1.0) * np.log1p(np.square(y - mu) / (df * variance))


def _t_sample(
    df: float, scale: float, rng: np.random.Generator, mu: Floats, dispersion: float = 1.0, weights: Floats | None = None
) -> Floats:
    if math.isnan(df):
        raise OptionError("df is not known, so there is nothing to draw from.", where="family 't'", do="Give t(df=…).")
    return mu + np.sqrt(_over(dispersion, weights)) * rng.standard_t(df, np.shape(mu))


def _t(df: float, scale: float) -> Family:
    return Family(
        name="t",
        canonical="identity",
        links=("identity", "log", "inverse", "sqrt"),
        variance=partial(_t_variance, df, scale),
        variance_slope=partial(_constant, 0.0),
        deviance=partial(_t_deviance, df, scale),
        logpdf=partial(_t_logpdf, df, scale),
        sample=partial(_t_sample, df, scale),
        start=_start_at_y,
        dispersion="ml",
        weights="precision",
        outside=_never,
        aux={"df": df, "scale": scale},
        own_score=partial(_t_score, df, scale),
    )


def t(df: float | str = 4) -> Family:
    """Student t errors around the mean, scale by maximum likelihood: a robust alternative to gaussian.

    df  > 0, given; "ml": estimated

    >>> t(df=4)
    <family t(df=4, scale=estimated)>
    """
    if isinstance(df, str) and df.lower() == "ml":
        return evolve(_t(math.nan, math.nan), free=("scale", "df"))
    return evolve(_t(_positive(df, "df", "t()", "Use t(df=4), or t(df='ml') to have it estimated."), math.nan), free=("scale",))


def _positive(value: Any, name: str, where: str, do: str) -> float:
    if not is_number(value) or not 0 < value < math.inf:
        raise OptionError(f"{name}={value!r} is not a positive number.", where=where, do=do)
    return float(value)


SHAPED: dict[str, Callable[..., Family]] = {"negbinomial": _negbinomial, "t": _t}
FAMILIES = {f.name: f for f in (GAUSSIAN, BINOMIAL, POISSON, GAMMA, INVERSE_GAUSSIAN, negbinomial(), t(), QUASIBINOMIAL, QUASIPOISSON)}
SPELLINGS = {
    "normal": "gaussian",
    "bernoulli": "binomial",
    "logistic": "binomial",
    "inversegaussian": "inverse_gaussian",
    "negative_binomial": "negbinomial",
    "negbin": "negbinomial",
    "nbinom": "negbinomial",
    "nb": "negbinomial",
    "student": "t",
    "student_t": "t",
    "quasi_binomial": "quasibinomial",
    "quasi_poisson": "quasipoisson",
}


def resolve_family(family: Any, where: str = "model()") -> Family:
    """A Family from its name in bossa's or R's spelling, from `negbinomial` or `t` themselves, or itself.

    raises  UnknownOption with the nearest name; OptionError for what is neither a name nor a Family
    """
    if isinstance(family, Family):
        return family
    if family is negbinomial or family is t:
        return family()
    if not isinstance(family, str):
        raise OptionError(f"family={family!r} is neither a name nor a Family.", where=where, do=f"Use one of {', '.join(FAMILIES)}.")
    name = family.strip().lower().replace(".", "_").replace("-", "_").replace(" ", "_")
    name = SPELLINGS.get(name, name)
    if name not in FAMILIES:
        raise UnknownOption(family, FAMILIES, where=where, kind="family")
    return FAMILIES[name]
