"""May a fast answer stand in for a slow one? Checks that return what they measured, and raise only when told to.

    posterior_agreement(fast, oracle)      two posteriors: means, spreads, whole covariances
    forward_agreement(fast, oracle, X)     two models of the mean, on the same rows
    adjoint_calibrated(fast, oracle)       two linear maps (Jacobians, influence matrices dβ̂/dy), by operator norm
    sbc(model, prior)                      does a fit with this prior know how sure it is? simulation-based calibration
    calibrated(draw, posterior)            the same for anything that can be simulated and fitted

    gate(…).require()                      raises FitFailed, with the worst number, where the gate is closed

`bossa.cycle.promote` climbs a ladder of fast answers by them.

The bands of a calibration are Kolmogorov's: one width throughout, exact for ranks that are spread at random within their bins. Those of
Säilynoja, Bürkner & Vehtari (2022) are narrower in the tails, and are not what is computed.

Source: Talts et al. (2018) for simulation-based calibration; Modrák et al. (2023) for the log-likelihood among the quantities; Golub &
Van Loan (2013) §8.2 for norms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from attrs import evolve, field, frozen

from .. import lazy
from ..design.encode import encode
from ..errors import DataError, FitFailed, OptionError, Refused, UnknownOption
from ..estimate.prior import resolve_prior
from ..kernels.streams import entropy, stream
from ..state.posterior import Posterior
from ..state.spec import Name
from ..types import Floats, is_whole

if TYPE_CHECKING:
    from ..report import plot as drawings
else:  # a gate's result is held without a Model, and is asked for its picture
    drawings = lazy.module("report.plot")

LEVEL = 0.01  # of all tests of one calibration together
BINS = 10
QUANTITIES = ("params", "loglik")


@frozen(kw_only=True, eq=False)
class GateResult:
    """What a gate found.

    passed     did everything stay inside its limit?
    statistic  the number nearest to (or furthest beyond) its limit, threshold: that limit;  worst says which it is
    table      every number: polars frame
    ranks      of a calibration: quantity → (n,) ranks of the truth among the draws;  draws: ranks are 0 … draws;  strata (n,) labels
    """

    name: str
    passed: bool
    statistic: float
    threshold: float
    worst: str
    table: pl.DataFrame
    ranks: Mapping[str, np.ndarray] = field(factory=dict)
    draws: int = 0
    strata: tuple[Any, ...] = ()

    def plot(self) -> Any:
        """Of a calibration: histogram of the ranks, and their ECDF less the uniform's with Kolmogorov's band, by quantity, stratum."""
        if not self.ranks:
            raise Refused(f"gate {self.name!r} has no ranks.", where="plot()", do="Read .table.")
        return drawings.of_gate(self)

    def require(self) -> GateResult:
        """Itself, if passed."""
        if self.passed:
            return self
        raise FitFailed(
            f"{self.worst} is {self.statistic:.4g}, its limit {self.threshold:.4g}.",
            where=f"gate {self.name!r}",
            do="Use the slower answer, or mend the fast one; .table has every number.",
        )

    def __repr__(self) -> str:
        verdict = "passed" if self.passed else "closed"
        return f"GateResult({self.name}: {verdict}; {self.worst} {self.statistic:.4g}, limit {self.threshold:.4g})"


def _judged(name: str, rows: list[tuple[str, float, float, float]]) -> GateResult:
    """rows  (what, value, low, high); a value is inside when low ≤ value ≤ high."""
    table = pl.DataFrame(rows, schema=["quantity", "value", "low", "high"], orient="row")
    table = table.with_columns(passed=(pl.col("value") >= pl.col("low")) & (pl.col("value") <= pl.col("high")))

    def use(row: tuple[str, float, float, float]) -> float:
        """Share of the room that is used; on the log scale where the limits are ratios."""
        _, value, low, high = row
        if not math.isfinite(value):
            return math.inf
        if low > 0:
            return abs(math.log(value)) / math.log(high) if value > 0 else math.inf
        return abs(value) / high

    worst = max((r for r in rows if math.isfinite(r[3])), key=use)
    threshold = worst[2] if worst[2] > 0 and worst[1] < 1 else worst[3]
    return GateResult(name=name, passed=bool(table["passed"].all()), statistic=worst[1], threshold=threshold, worst=worst[0], table=table)


# ---------------------------------------------------------------- two answers
def posterior_agreement(fast: Posterior, oracle: Posterior, *, tol_sigma: float = 1.0, cv_ratio: float = 2.0) -> GateResult:
    """Do two posteriors of the same numbers agree?

    tol_sigma  largest distance of means, in the oracle's standard deviations
    cv_ratio   largest ratio of standard deviations, either way; eigenvalues of P_oracle⁻¹P_fast within its square

    The table also has KL(fast ‖ oracle), KL(oracle ‖ fast) and the largest difference of correlations, without limits.
    """
    for value, name in ((tol_sigma, "tol_sigma"), (cv_ratio - 1, "cv_ratio − 1")):
        if not value > 0:
            raise OptionError(f"{name}={value!r} is not positive.", where="posterior_agreement()")
    a, b = fast.gaussian(), oracle.gaussian().marginal(fast.names)
    if b.cov.rank < b.cov.size:
        raise Refused("the oracle's covariance is singular.", where="posterior_agreement()", do="Compare a .marginal() of full rank.")
    rows = [(f"mean of {n}", float(d), -math.inf, tol_sigma) for n, d in zip(a.names, np.abs(a.mean - b.mean) / b.sd())]
    rows += [(f"sd of {n}", float(r), 1 / cv_ratio, cv_ratio) for n, r in zip(a.names, a.sd() / b.sd())]
    half = b.cov.whiten(a.cov.sqrt_mv(np.eye(a.cov.width)))
    values = np.linalg.eigvalsh(half @ half.T)
    rows += [
        (f"eigenvalue, {which}", float(v), cv_ratio**-2, cv_ratio**2) for which, v in (("smallest", values[0]), ("largest", values[-1]))
    ]
    if a.cov.rank == a.cov.size:
        rows += [("KL(fast ‖ oracle)", a.kl(b), -math.inf, math.inf), ("KL(oracle ‖ fast)", b.kl(a), -math.inf, math.inf)]
    if len(a.names) > 1:
        apart = np.abs(_correlation(a) - _correlation(b)).max()
        rows.append(("correlations, largest difference", float(apart), -math.inf, math.inf))
    return _judged("posterior_agreement", rows)


def _correlation(post: Posterior) -> Floats:
    P = post.cov.dense()
    sd = np.sqrt(np.diag(P))
    return P / np.outer(sd, sd)


def forward_agreement(fast: Any, oracle: Any, X: Any = None, *, eps: float = 0.01) -> GateResult:
    """Do two models of the mean agree on the same rows? ‖f − o‖ / ‖o‖ ≤ eps, column by column.

    fast, oracle  X ↦ (n,) or (n, c), or such arrays
    """
    f, o = (np.asarray(g(X) if callable(g) else g, dtype=float) for g in (fast, oracle))
    if f.shape != o.shape or f.ndim not in (1, 2):
        raise DataError(
            f"they have shapes {f.shape} and {o.shape}.", where="forward_agreement()", do="Give (n,) or (n, c) of the same rows."
        )
    f, o = f.reshape(len(f), -1), o.reshape(len(o), -1)
    size = np.linalg.norm(o, axis=0)
    if (size == 0).any():
        raise Refused(
            "the oracle is 0 on every row.", where="forward_agreement()", do="Use other rows: there is nothing to be relative to."
        )
    rows = [(f"output {j}", float(d), -math.inf, eps) for j, d in enumerate(np.linalg.norm(f - o, axis=0) / size)]
    return _judged("forward_agreement", rows)


def adjoint_calibrated(fast: Any, oracle: Any, *, rel: float = 0.05, n_probes: int = 5, seed: Any = 0) -> GateResult:
    """Do two linear maps agree? ‖J_fast − J_oracle‖₂ / ‖J_oracle‖₂ ≤ rel, by power iteration on EᵀE.

    fast, oracle  (m, n) arrays, or (mv, rmv, n): v ↦ J v, u ↦ Jᵀ u and the number of columns
    n_probes      random directions, whose relative errors the table shows too: they miss what the norm finds
    """
    a, b = _linear_map(fast), _linear_map(oracle)
    if a[2] != b[2]:
        raise DataError(f"they have {a[2]} and {b[2]} columns.", where="adjoint_calibrated()")
    n, rng = a[2], stream(entropy(seed), 0)

    def apart(v: Floats) -> Floats:
        return a[0](v) - b[0](v)

    def apart_t(u: Floats) -> Floats:
        return a[1](u) - b[1](u)

    size = operator_norm(b[0], b[1], n, rng)
    if size == 0:
        raise Refused("the oracle is 0.", where="adjoint_calibrated()", do="There is nothing to be relative to.")
    rows = [("operator norm of the difference", operator_norm(apart, apart_t, n, rng) / size, -math.inf, rel)]
    for i in range(n_probes):
        v = rng.standard_normal(n)
        rows.append((f"probe {i}", float(np.linalg.norm(apart(v)) / np.linalg.norm(b[0](v))), -math.inf, math.inf))
    return _judged("adjoint_calibrated", rows)


def _linear_map(J: Any) -> tuple[Callable, Callable, int]:
    if isinstance(J, tuple) and len(J) == 3:
        return J
    A = np.asarray(J, dtype=float)
    if A.ndim != 2:
        raise DataError(f"it has {A.ndim} axes, not 2.", where="adjoint_calibrated()", do="Give (m, n), or (mv, rmv, n).")
    return A.__matmul__, A.T.__matmul__, A.shape[1]


def operator_norm(mv: Callable, rmv: Callable, n: int, rng: np.random.Generator, tol: float = 1e-10, max_iter: int = 5000) -> float:
    """Largest singular value of a map given by its products, from below.   mv (n,) → (m,), rmv (m,) → (n,)

    Three starts in one block, so that none of them can sit on an invariant subspace.
    """
    V = np.linalg.qr(rng.standard_normal((n, min(3, n))))[0]
    before = 0.0
    for _ in range(max_iter):
        W = np.column_stack([rmv(np.asarray(mv(v))) for v in V.T])
        value = float(np.linalg.norm(V.T @ W, 2))
        if value <= 0 or abs(value - before) <= tol * value:
            break
        before = value
        V = np.linalg.qr(W)[0]
    return math.sqrt(max(value, 0.0))


# ---------------------------------------------------------------- calibration
def calibrated(
    draw: Callable[[np.random.Generator], Any],
    posterior: Callable[[Any, np.random.Generator], Any],
    *,
    n_sims: int = 1000,
    draws: int = 99,
    loglik: Callable[[Any, Floats], Floats] | None = None,
    stratum: Callable[[Any], Any] | None = None,
    names: Sequence[str] | None = None,
    seed: Any = None,
) -> GateResult:
    """Simulation-based calibration: the truth's rank among draws of its posterior is uniform, if truth and data come from the prior.

    draw       rng ↦ (truth (k,), data)
    posterior  (data, rng) ↦ Posterior, or draws (≥ draws, k), independent
    draws      of each posterior; ranks are 0 … draws
    loglik     (data, values (S, k)) ↦ (S,): one more quantity, which sees what marginals do not
    stratum    data ↦ a label: every stratum is judged on its own
    """
    for value, name in ((n_sims, "n_sims"), (draws, "draws")):
        if not is_whole(value) or value < 1:
            raise OptionError(f"{name}={value!r} is not a whole number of at least 1.", where="calibrated()")
    start = entropy(seed)
    ranks, labels = [], []
    for i in range(n_sims):
        rng = stream(start, i)
        truth, data = draw(rng)
        truth = np.atleast_1d(np.asarray(truth, dtype=float))
        made = posterior(data, rng)
        values = made.sample(draws, rng) if isinstance(made, Posterior) else np.asarray(made, dtype=float).reshape(-1, len(truth))[:draws]
        if len(values) < draws or not np.isfinite(values).all():
            raise DataError(f"simulation {i} gave {len(values)} draws, or some that are not finite.", where="calibrated()")
        if loglik is not None:
            both = np.asarray(loglik(data, np.vstack((truth, values))))
            truth, values = np.append(truth, both[0]), np.column_stack((values, both[1:]))
        ranks.append((values < truth).sum(axis=0) + rng.integers(0, (values == truth).sum(axis=0) + 1))
        labels.append(None if stratum is None else stratum(data))
    table = np.array(ranks)
    k = table.shape[1] - (loglik is not None)
    columns = [*(names or [f"theta[{j}]" for j in range(k)]), *(["loglik"] if loglik is not None else [])]
    return _calibration(table, columns, labels, draws, stream(start, n_sims))


def _calibration(ranks: np.ndarray, names: list[str], labels: list[Any], draws: int, rng: np.random.Generator) -> GateResult:
    """χ² of the histogram and Kolmogorov's distance of the randomised ranks, for every quantity in every stratum."""
    from scipy.stats import kstwo

    strata = list(dict.fromkeys(labels))
    bins = min(BINS, draws + 1)
    level = LEVEL / (len(names) * len(strata))
    rows = []
    for label in strata:
        own = np.array([x == label for x in labels])
        n = int(own.sum())
        for j, name in enumerate(names):
            u = (ranks[own, j] + rng.random(n)) / (draws + 1)
            counts = np.histogram(u, bins=bins, range=(0, 1))[0]
            chi2 = float(((counts - n / bins) ** 2).sum() * bins / n)
            p_value = _chi2_tail(chi2, bins - 1)
            ordered = np.sort(u)
            far = float(max((np.arange(1, n + 1) / n - ordered).max(), (ordered - np.arange(n) / n).max()))
            band = float(kstwo.ppf(1 - level, n))
            rows.append((name, None if label is None else str(label), n, chi2, p_value, far, band, p_value >= level and far <= band))
    columns = ["quantity", "stratum", "n", "chi2", "p_value", "ecdf_distance", "ecdf_band", "passed"]
    frame = pl.DataFrame(rows, schema=columns, orient="row", schema_overrides={"stratum": pl.String})
    worst = min(rows, key=lambda r: r[4])
    where = worst[0] if worst[1] is None else f"{worst[0]} in stratum {worst[1]}"
    closed = [r for r in rows if not r[7]]
    said: dict[str, Any] = {"statistic": worst[4], "threshold": level, "worst": f"p-value of {where}"}
    if closed and worst[7]:
        worst = closed[0]
        said = {"statistic": worst[5], "threshold": worst[6], "worst": f"distance of {worst[0]}'s ranks"}
    by_name = {name: ranks[:, j] for j, name in enumerate(names)}
    return GateResult(name="sbc", passed=not closed, table=frame, ranks=by_name, draws=draws, strata=tuple(labels), **said)


def _chi2_tail(x: float, df: int) -> float:
    from scipy.special import chdtrc

    return float(chdtrc(df, x))


def sbc(
    m: Any,
    prior: Any,
    *,
    n_sims: int = 1000,
    draws: int = 99,
    quantities: Sequence[str] = QUANTITIES,
    sizes: Sequence[int] | None = None,
    adapter: str = "auto",
    seed: Any = None,
) -> GateResult:
    """Is a model fitted with a prior calibrated? Coefficients from the prior, responses from the model, ranks in the fits' posteriors.

    m           a model with data, whose covariates are used; its own response is not
    prior       proper about every coefficient; of a linear model with "sigma"
    quantities  "params": every coefficient;  "loglik": of the data at the coefficients
    sizes       strata: so many of the rows, drawn anew in every simulation; None: all rows
    adapter     of infer(how="posterior")

    >>> from bossa import load_dataset, model, normal
    >>> from bossa.assimilate.gates import sbc
    >>> prior = {"Intercept": normal(20, 5), "wt": normal(-4, 2), "sigma": (2.5, 8.0)}
    >>> sbc(model("mpg ~ wt", load_dataset("mtcars")), prior, n_sims=100, seed=1).passed
    True
    """
    unknown = [q for q in quantities if q not in QUANTITIES]
    if unknown:
        raise UnknownOption(unknown[0], QUANTITIES, where="sbc()", kind="quantity")
    study = Study.of(m, prior, adapter, None if sizes is None else tuple(sizes))
    return calibrated(
        study.draw,
        study.posterior,
        n_sims=n_sims,
        draws=draws,
        loglik=study.loglik if "loglik" in quantities else None,
        stratum=None if sizes is None else study.size,
        names=study.prior.names,
        seed=seed,
    )


@frozen(eq=False)
class Study:
    """Simulates a model's responses from its prior, and fits them."""

    m: Any
    prior: Posterior
    frame: pl.DataFrame
    X: Floats
    offset: Any
    weights: Any
    adapter: str
    sizes: tuple[int, ...] | None

    @classmethod
    def of(cls, m: Any, prior: Any, adapter: str, sizes: tuple[int, ...] | None) -> Study:
        where, spec = "sbc()", m.spec
        if m.data is None or not isinstance(spec.response, Name) or spec.bars or spec.freq_weights is not None:
            what = "it needs data, a response that is one column, no random effects and no counts."
            raise Refused(what, where=where, do="Write your own draw and posterior for gates.calibrated().")
        if spec.family.sample is None or spec.family.free:
            raise Refused(f"family {spec.family.name!r} cannot be simulated from its mean.", where=where, do="Use another family.")
        _, design, used = encode(spec, m.data)
        before = resolve_prior(prior, tuple(design.names))
        if not np.isfinite(before.cov.diag()).all():
            raise Refused(
                "the prior is flat about some coefficients: nothing can be drawn from it.", where=where, do="Name every coefficient."
            )
        if spec.family.dispersion != "one" and before.sigma is None:
            raise Refused("the prior does not say what σ is.", where=where, do="Add 'sigma': 2.0, or 'sigma': (2.0, 5.0), to prior=.")
        return cls(evolve(m, spec=evolve(spec, prior=prior)), before, used, design.X, design.offset, design.weights, adapter, sizes)

    def draw(self, rng: np.random.Generator) -> tuple[Floats, tuple[pl.DataFrame, np.ndarray]]:
        """Coefficients from the prior and a frame with a response from them."""
        sigma, beta = self.prior.sigma or 1.0, self.prior.cov.sqrt_mv(rng.standard_normal(self.prior.cov.width))
        if self.prior.df is not None:
            stretch = math.sqrt(self.prior.df / rng.chisquare(self.prior.df))
            sigma, beta = sigma * stretch, beta * stretch
        beta = self.prior.mean + beta
        n = len(self.X)
        index = np.arange(n) if self.sizes is None else np.sort(rng.choice(n, size=int(rng.choice(self.sizes)), replace=False))
        eta = self.X[index] @ beta + (0.0 if self.offset is None else self.offset[index])
        weights = None if self.weights is None else self.weights[index]
        y = self.m.spec.family.sample(rng, self.m.spec.link.inverse(eta), sigma**2, weights)
        name = self.m.spec.response.id
        return beta, (self.frame[index].with_columns(pl.Series(name, y)), index)

    def posterior(self, data: tuple[pl.DataFrame, np.ndarray], rng: np.random.Generator) -> Posterior:
        options = {"seed": int(rng.integers(2**31)), "n_draws": 500} if self.adapter in ("samples", "ensemble") else {}
        fitted = evolve(self.m, data=data[0]).fit().infer(how="posterior", adapter=self.adapter, **options)
        post = fitted.posterior
        if post.names != self.prior.names:
            raise DataError("some coefficients are not estimable from so few rows.", where="sbc(sizes=…)", do="Use more rows.")
        return post

    def loglik(self, data: tuple[pl.DataFrame, np.ndarray], coef: Floats) -> Floats:
        """Of the data at coefficients (S, p), a linear model's at the prior's guess of σ."""
        frame, index = data
        spec = self.m.spec
        eta = coef @ self.X[index].T + (0.0 if self.offset is None else self.offset[index])
        weights = None if self.weights is None else self.weights[index]
        y = frame[spec.response.id].to_numpy().astype(float)
        with np.errstate(all="ignore"):
            return spec.family.logpdf(y, spec.link.inverse(eta), (self.prior.sigma or 1.0) ** 2, weights).sum(axis=1)

    def size(self, data: tuple[pl.DataFrame, np.ndarray]) -> int:
        return len(data[1])
