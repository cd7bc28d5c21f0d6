"""What one batch says about the coefficients, in a form that does not grow with its rows.

A site is the batch's likelihood up to a constant: log L(β) = logc − ½ (rss + |z − Jβ|²), in units of σ = 1, J (r, k) with r ≤ k + 1.
For a linear model it is exact (J, z and rss are the triangular factor of [X y]); for other families it is Laplace's approximation at
the mode of forecast × likelihood. Sites that are not seen have no rows.

Source: Golub & Van Loan (2013) §5.3 for the factor; Tierney & Kadane (1986) for Laplace.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..errors import DataError, FitFailed
from ..kernels.kalman import LOG_2PI, Known, known, look
from ..kernels.linalg import triangulars, upper
from ..state.fields import array, check_axes
from ..types import Floats
from .within import Grouped, counts_of, integrated, marginal


@frozen(kw_only=True, eq=False)
class Site:
    """One batch.

    batch   its id;  time: when (a number), or its place;  n: rows (counts included);  hash: of its numbers
    J, z    (r, k), (r,);  rss: what no β can meet;  logc: log-constant at σ = 1, −½(n log 2π + log|R|) for Gaussian rows
    exact   False: Laplace's approximation
    """

    batch: Any
    time: float
    n: float
    J: np.ndarray = array("r", "k")
    z: np.ndarray = array("r")
    rss: float
    logc: float
    hash: str
    exact: bool = True

    __attrs_post_init__ = check_axes

    @property
    def estimate(self) -> Known:
        """The batch on its own: estimate and covariance at σ = 1, as far as it goes."""
        r, k = self.J.shape
        if r == k:
            return known(self.J, self.z)
        U, d, _ = look(np.zeros((k, k)), np.zeros(k), self.J, self.z)
        return known(U, d)


def fingerprint(*arrays: Any) -> str:
    """sha256 of arrays of numbers, to the last bit; None is told from 0."""
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(b"-" if values is None else np.ascontiguousarray(values, dtype=float).tobytes())
        digest.update(b"|")
    return digest.hexdigest()


def gaussian_site(
    batch: Any,
    time: float,
    X: Floats,
    y: Floats,
    weights: Floats | None = None,
    freq: Floats | None = None,
    hash: str | None = None,
    grouped: Grouped | None = None,
) -> Site:
    """The exact site of rows y ~ N(Xβ, σ²/w), counted freq times.

    X (n, k), y (n,) with the offset taken off, weights and freq (n,) or None;  hash: of the data, None: of these arrays
    grouped  random effects of this batch alone, to be integrated out
    """
    rows = Rows(
        batch=batch, time=time, X=X, y=y, weights=weights, freq=freq, hash=hash or fingerprint(X, y, weights, freq), grouped=grouped
    )
    return gaussian_sites([rows])[0]


def gaussian_sites(batches: Sequence[Rows]) -> list[Site]:
    """The exact sites of batches of a linear model; offsets are taken off."""
    whole = [r.grouped is not None and r.grouped.whole for r in batches]
    rows = [None if by_group else r.freq for r, by_group in zip(batches, whole)]  # counts of whole groups are not of rows
    totals = [r.weights if freq is None else freq if r.weights is None else r.weights * freq for r, freq in zip(batches, rows)]
    blocks = []
    for r, W in zip(batches, totals):
        block = np.column_stack((r.X, r.y if r.offset is None else r.y - r.offset))
        blocks.append(block if W is None else block * np.sqrt(W)[:, None])
    factors = iter(triangulars([block for r, block in zip(batches, blocks) if r.grouped is None]))
    out = []
    for r, W, block in zip(batches, totals, blocks):
        half = 0.0
        if r.grouped is None:
            R = next(factors)
        elif len(block):
            root = np.ones((len(block), 1)) if W is None else np.sqrt(W)[:, None]
            found = evolve(r.grouped, terms=tuple(evolve(term, Z=term.Z * root) for term in r.grouped.terms))
            R, half = integrated(found, block, counts_of(found, r.freq, r.batch) if found.whole and r.freq is not None else None)
        else:
            R = block
        k = block.shape[1] - 1
        log_weights = 0.0 if r.weights is None else float(np.log(r.weights).sum() if r.freq is None else r.freq @ np.log(r.weights))
        rss = float(R[k, k] ** 2) if len(R) > k else 0.0
        logc = 0.5 * (log_weights - r.n * LOG_2PI) - half
        out.append(Site(batch=r.batch, time=r.time, n=r.n, J=R[:k, :k], z=R[:k, k], rss=rss, logc=logc, hash=r.hash))
    return out


def estimate_sites(batches: Sequence[Any], times: Floats, estimates: Floats, vcovs: Floats, n: Floats) -> list[Site]:
    """The site of each estimate (k,) with covariance (k, k), taken as known; nan in the estimate: not seen.

    batches  ids;  times, n (T,);  estimates (T, k);  vcovs (T, k, k)
    """
    T, k = estimates.shape
    seen = np.asarray(~np.isnan(estimates).any(axis=1))
    V = np.where(seen[:, None, None], vcovs, np.eye(k))
    L, wrong = _lower(V)
    if wrong is not None:
        what = "its covariance is not symmetric and positive definite."
        raise DataError(what, where=f"batch {batches[wrong]!r}", do="Leave out parameters that are combinations of others.")
    J = np.linalg.inv(L)
    z = (J @ estimates[:, :, None])[:, :, 0]
    logc = -0.5 * k * LOG_2PI - np.log(np.einsum("tii->ti", L)).sum(axis=1)
    empty, out = (np.zeros((0, k)), np.zeros(0)), []
    for t in range(T):
        told: dict[str, Any] = {"batch": batches[t], "time": float(times[t]), "rss": 0.0, "hash": fingerprint(estimates[t], vcovs[t])}
        if seen[t]:
            out.append(Site(**told, n=float(n[t]), J=J[t], z=z[t], logc=float(logc[t])))
        else:
            out.append(Site(**told, n=0.0, J=empty[0], z=empty[1], logc=0.0))
    return out


def _lower(V: Floats) -> tuple[Floats, int | None]:
    """Cholesky factors (T, k, k), and the first place whose matrix has none."""
    turned = V.transpose(0, 2, 1)
    close = (np.isfinite(V) & (np.abs(V - turned) <= 1e-8 * np.abs(turned))).all(axis=(1, 2))
    if not close.all():
        return V, int(np.argmin(close))
    try:
        return np.asarray(np.linalg.cholesky(V), dtype=float), None
    except np.linalg.LinAlgError:
        return V, int(np.argmin([np.linalg.eigvalsh(one)[0] > 0 for one in V]))


def robust_site(df: float, site: Site, U: Floats, d: Floats) -> Site:
    """An estimate whose error is (multivariate) Student-t, as the Gaussian site that meets it at the mode: its weight is (df + k)/(df + q).

    site  of the estimate with its stated covariance, q = |z − Jβ|²;  U (k, k), d (k,)  the forecast

    Source: Lange, Little & Taylor (1989) §3; West (1984) for filters.
    """
    k = len(site.z)
    if not k:
        return site
    forecast, m = known(U, d), np.linalg.solve(site.J, site.z)
    m = np.where(np.isnan(forecast.mean), m, forecast.mean)
    size = 1 / np.abs(site.J).max()
    for _ in range(200):
        before, away = m, site.z - site.J @ m
        root = math.sqrt((df + k) / (df + float(away @ away)))
        m = np.linalg.lstsq(np.vstack((U, root * site.J)), np.concatenate((d, root * site.z)), rcond=None)[0]
        if np.abs(m - before).max() < 1e-14 * (np.abs(m).max() + size):
            break
    away = site.z - site.J @ m
    q = float(away @ away)
    w = (df + k) / (df + q)
    constant = math.lgamma((df + k) / 2) - math.lgamma(df / 2) - 0.5 * k * math.log(math.pi * df) + float(np.linalg.slogdet(site.J)[1])
    logc = constant - (df + k) / 2 * math.log1p(q / df) + 0.5 * w * q
    return evolve(site, J=math.sqrt(w) * site.J, z=math.sqrt(w) * site.z, logc=logc, exact=False)


def rescaled(site: Site, sigma: float) -> Site:
    """The site in units where a known σ is 1."""
    if sigma == 1.0:
        return site
    return Site(
        batch=site.batch,
        time=site.time,
        n=site.n,
        J=site.J / sigma,
        z=site.z / sigma,
        rss=site.rss / sigma**2,
        logc=site.logc - site.n * math.log(sigma),
        hash=site.hash,
        exact=site.exact,
    )


@frozen(kw_only=True, eq=False)
class Rows:
    """Rows of one batch of a generalized linear model, kept while they may still be linearised again.

    grouped  its random effects, where they are integrated out
    """

    batch: Any
    time: float
    X: np.ndarray = array("n", "k")
    y: np.ndarray = array("n")
    offset: np.ndarray | None = array("n", optional=True)
    weights: np.ndarray | None = array("n", optional=True)
    freq: np.ndarray | None = array("n", optional=True)
    grouped: Grouped | None = None
    hash: str = ""

    __attrs_post_init__ = check_axes

    @property
    def n(self) -> float:
        return float(len(self.y) if self.freq is None else self.freq.sum())


def scaled(family: Any) -> bool:
    """Does Pearson's statistic estimate the family's dispersion φ? Its sites are then at φ = 1, as those of a linear model at σ = 1."""
    return bool(family.dispersion == "pearson")


def unit(family: Any) -> float:
    """φ of a family that has it as a shape (Student-t's squared scale), else 1."""
    return float(family.aux.get("scale", 1.0)) ** 2


def loglik_of(rows: Rows, family: Any, link: Any, beta: Floats) -> float:
    """Σ f log p(y | β), of a family with a dispersion −½ its deviance; -inf where β is out of the link's or family's range."""
    if rows.grouped is not None:
        return marginal(rows, family, link, beta)[0]
    eta = rows.X @ beta if rows.offset is None else rows.X @ beta + rows.offset
    if not (eta > link.eta_low).all():
        return -math.inf
    mu = link.inverse(eta)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if scaled(family):
            each = -0.5 * family.deviance(rows.y, mu) * (1.0 if rows.weights is None else rows.weights)
        else:
            each = family.logpdf(rows.y, mu, unit(family), rows.weights)
    total = float(each.sum() if rows.freq is None else rows.freq @ each)
    return total if math.isfinite(total) else -math.inf


def laplace_site(rows: Rows, family: Any, link: Any, U: Floats, d: Floats, start: Floats | None = None) -> Site:
    """Laplace's site at the mode of exp(−½|Uβ − d|²) × likelihood, by Fisher scoring with step halving.

        Λ_b = XᵀWX,  W = w (dμ/dη)²/V(μ);    η_b = Λ_b m + Xᵀ(w (y − μ) dμ/dη / V(μ))

    U (k, k), d (k,)  the forecast in square-root information form
    returns  the site, its constant such that it meets the log-likelihood at the mode
    raises   FitFailed where the mode is not found (a diffuse prior and a batch that separates)
    """
    k = rows.X.shape[1]
    beta = _start(rows, U, d, family, link) if start is None else start

    def objective(b: Floats) -> float:
        gap = U @ b - d
        return loglik_of(rows, family, link, b) - 0.5 * float(gap @ gap)

    value, settled = objective(beta), False
    for _ in range(100):
        J, score = _scored(rows, family, link, beta)
        R = upper(np.vstack((U, J)))[:k]
        gap = U.T @ (d - U @ beta) + score
        if not (np.isfinite(R).all() and np.isfinite(gap).all()):
            break
        step = np.linalg.lstsq(R, np.linalg.lstsq(R.T, gap, rcond=1e-12)[0], rcond=1e-12)[0]
        settled = bool(np.abs(step).max(initial=0.0) < 1e-6 * (1 + np.abs(beta).max(initial=0.0)))
        if settled and abs(float(gap @ step)) < 1e-20 * (1 + abs(value)):
            break
        size, better = 1.0, objective(beta + step)
        while better < value - 1e-12 * abs(value) and size > 1e-6:
            size /= 2
            better = objective(beta + size * step)
        if better < value - 1e-12 * abs(value):
            break
        gain, beta, value = abs(better - value), beta + size * step, better
        if settled and gain < 1e-13 * (1 + abs(value)):
            break
    if not settled or not math.isfinite(value):
        what = "the batch and what came before do not determine the coefficients (an outcome is separated, say)."
        raise FitFailed(what, where=f"batch {rows.batch!r}", do="Give a proper prior: prior=normal(0, 2.5), or use larger batches.")
    return _at(rows, family, link, beta, *_scored(rows, family, link, beta))


def site_at(rows: Rows, family: Any, link: Any, beta: Floats) -> Site:
    """The Gaussian site that has the value, slope and (expected) curvature of the log-likelihood at β: one relinearisation."""
    return _at(rows, family, link, beta, *_scored(rows, family, link, beta))


def _at(rows: Rows, family: Any, link: Any, beta: Floats, J: Floats, score: Floats) -> Site:
    """Site with Λ = JᵀJ, Λ β + score = Jᵀz, meeting the log-likelihood at β.

    With a dispersion: rss + |z − Jβ|² is Pearson's statistic there, and there is no constant (logc nan): quasi-likelihood has no evidence.
    """
    if scaled(family):
        return _quasi_site(rows, family, link, beta)
    k = len(beta)
    R = upper(J) if len(J) else np.zeros((0, k))
    extra = np.linalg.lstsq(R.T, score, rcond=1e-11)[0] if len(R) else np.zeros(0)
    gap = float(extra @ extra)
    logc = loglik_of(rows, family, link, beta) + 0.5 * gap
    return Site(batch=rows.batch, time=rows.time, n=rows.n, J=R, z=R @ beta + extra, rss=0.0, logc=logc, hash=rows.hash, exact=False)


def _quasi_site(rows: Rows, family: Any, link: Any, beta: Floats) -> Site:
    """The site of the working linear model, z_i = x_iᵀβ + (y − μ)/μ′ with weights W.

    Source: McCullagh & Nelder (1989) §2.5, §9.2.
    """
    eta = rows.X @ beta if rows.offset is None else rows.X @ beta + rows.offset
    mu, slope = link.inverse(eta), link.slope(eta)
    w = np.ones(len(rows.y)) if rows.weights is None else rows.weights
    w = w if rows.freq is None else w * rows.freq
    some = slope != 0
    W = (w * slope**2)[some] / family.variance(mu)[some]
    work = rows.X[some] @ beta + (rows.y - mu)[some] / slope[some]
    made = gaussian_site(rows.batch, rows.time, rows.X[some], work, W, hash=rows.hash)
    return evolve(made, n=rows.n, logc=math.nan, exact=False)


def _scored(rows: Rows, family: Any, link: Any, beta: Floats) -> tuple[Floats, Floats]:
    """√W X (n, k), or (k, k) with the same square, and the score Xᵀ(…) (k,) at β."""
    if rows.grouped is not None:
        _, score, root = marginal(rows, family, link, beta)
        return root, score
    eta = rows.X @ beta if rows.offset is None else rows.X @ beta + rows.offset
    mu, slope = link.inverse(eta), link.slope(eta)
    V = family.variance(mu) * unit(family)
    w = np.ones(len(rows.y)) if rows.weights is None else rows.weights
    w = w if rows.freq is None else w * rows.freq
    with np.errstate(divide="ignore", invalid="ignore"):
        W = np.where(slope == 0, 0.0, w * slope**2 / V)
        pull = np.where(slope == 0, 0.0, w * family.score(rows.y, mu) * slope / unit(family))
        return rows.X * np.sqrt(W)[:, None], rows.X.T @ pull  # a step too far has weights that are not finite: the caller stops there


def _start(rows: Rows, U: Floats, d: Floats, family: Any, link: Any) -> Floats:
    """The first of these that is inside the link's range: the forecast mean where it is proper; a fit to the family's starting means, then
    one weighted as scoring would; the response's mean in every row; 0.
    """
    found = known(U, d)
    if found.rank == len(d) and math.isfinite(loglik_of(rows, family, link, found.mean)):
        return found.mean
    mu = family.start(rows.y, rows.weights)
    offset = 0.0 if rows.offset is None else rows.offset
    eta = link.link(mu) - offset
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.nan_to_num(np.abs(link.slope(eta + offset)) / np.sqrt(family.variance(mu)), posinf=0.0)
    level = link.link(np.full(len(mu), np.mean(mu))) - offset
    even = np.ones(len(mu))
    for w, prior, shift, aim in ((even, U, d, eta), (root, U, d, eta), (even, U[:0], d[:0], level)):
        beta = np.linalg.lstsq(np.vstack((prior, rows.X * w[:, None])), np.concatenate((shift, w * aim)), rcond=1e-10)[0]
        if math.isfinite(loglik_of(rows, family, link, beta)):
            return beta
    return np.zeros(len(d))
