"""What a stream of batches has taught so far: one row per batch (and coefficient), readable as a frame.

A one-parameter stream holds (T,) arrays, one of k coefficients (T, k); T batches in the order in which they count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import polars as pl
from attrs import field, frozen

from .. import lazy
from ..errors import OptionError, Refused
from . import hindsight, monitoring
from .seen import inflation, limits_of

if TYPE_CHECKING:
    from ..report import plot as drawings
    from ..report import streams as words
else:  # a result is held without a Model, and is asked for its picture and its words
    drawings, words = lazy.module("report.plot"), lazy.module("report.streams")


def _read_only(values: Any) -> Any:
    if values is None:
        return None
    view = np.asarray(values).view()
    view.flags.writeable = False
    return view


def path(optional: bool = False) -> Any:
    """A read-only array along the batches."""
    return attrs.field(default=None if optional else attrs.NOTHING, converter=_read_only)


@frozen(kw_only=True, eq=False)
class AssimilationResult:
    """A filtered stream.

    posterior_mean, posterior_sd   (T,) or (T, k)  after each batch (inf: a Student-t of at most 2 df)
    posterior_ci    (T, 2) or (T, k, 2), equal-tailed, level 1 − alpha
    innovations     estimate of the batch minus its forecast;  innovation_sd  its forecast standard deviation
    gain            weight of the batch in the new mean;  ess  posterior precision in units of a typical batch (the median of those seen
                    so far);  ess_kish  (Σw)²/Σw² of the weights of the batches;  for particles ess is Kish's number of particles
    nis, nis_df     (T,)  v'S⁻¹v, χ² with nis_df degrees of freedom (F where σ is estimated: p_nis says)
    log_evidences   (T,)  log p(batches so far); nan until the prior is proper;  log_evidence  the last
    smoothed_mean, smoothed_sd     each state given all batches
    final_*         the state after the last batch: the prior, where there was none
    method          "kalman" | "particle" | …;  diagnostics: what was chosen and how well it went;  notes: in words
    covariance      (T, k, k) after each batch (Student-t: the scale matrix), smoothed_covariance given all;  df (T,)
    posterior       of the last state, None while something is undetermined;  target: the effect that is read, None: the coefficients
    solution, state what was computed, and what the stream needs for its next batch;  extend: how it takes it
    """

    posterior_mean: np.ndarray = path()
    posterior_sd: np.ndarray = path()
    posterior_ci: np.ndarray = path()
    innovations: np.ndarray = path()
    innovation_sd: np.ndarray = path()
    gain: np.ndarray | None = path(optional=True)
    ess: np.ndarray = path()
    _ess_kish: np.ndarray | None = path(optional=True)
    nis: np.ndarray = path()
    nis_df: np.ndarray = path()
    p_nis: np.ndarray = path()
    log_evidences: np.ndarray = path()
    smoothed_mean: np.ndarray | None = path(optional=True)
    smoothed_sd: np.ndarray | None = path(optional=True)
    smoothed_ci: np.ndarray | None = path(optional=True)
    final_mean: Any
    final_sd: Any
    final_ci: Any
    log_evidence: float
    method: str
    names: tuple[str, ...] = ("theta",)
    batch: tuple[Any, ...]
    time: tuple[Any, ...] | None = None
    n: np.ndarray | None = path(optional=True)
    alpha: float = 0.05
    diagnostics: dict = field(factory=dict)
    notes: tuple[str, ...] = ()
    df: np.ndarray | None = path(optional=True)
    covariance: np.ndarray | None = path(optional=True)
    smoothed_covariance: np.ndarray | None = path(optional=True)
    solution: Any = None
    state: Any = None
    target: Any = None
    posterior: Any = None
    extend: Any = field(default=None, repr=False)

    @property
    def ess_kish(self) -> np.ndarray | None:
        """(Σw)²/Σw² of the weights of the batches, found when it is first asked for; None where they are not followed."""
        if self._ess_kish is not None or self.solution is None or self.target is not None or self.solution.path.kish is None:
            return self._ess_kish
        kish = _read_only(self.solution.path.kish)
        return kish[:, 0] if self.scalar else kish

    @property
    def scalar(self) -> bool:
        """Is the stream of one number?"""
        return self.posterior_mean.ndim == 1

    def trajectory(self, *, smoothed: bool = False, lag: int | None = None) -> pl.DataFrame:
        """One row per batch and coefficient; nulls where nothing is determined yet, or nothing was seen.

        Effects are shown as in `.effects`: probabilities, ratios, with sd by the slope; what comes after their limits is on the link scale.

        smoothed  True: mean, sd and limits given all batches instead of those so far
        lag       3: given those up to three batches later (fixed-lag smoothing; 0: those so far)
        """
        mean, sd, ci = self.posterior_mean, self.posterior_sd, self.posterior_ci
        if lag is not None:
            if smoothed:
                raise OptionError("smoothed=True is given all batches, lag= is given some.", where="trajectory()", do="Give one of them.")
            mean, sd, ci = self._lagged(lag)
        if smoothed:
            if self.smoothed_mean is None or self.smoothed_sd is None or self.smoothed_ci is None:
                raise Refused(
                    f"method {self.method!r} keeps no smoothed path.", where="trajectory(smoothed=True)", do="Use a Kalman method."
                )
            mean, sd, ci = self.smoothed_mean, self.smoothed_sd, self.smoothed_ci
        if self.target is not None and self.target.back is not None and len(mean):
            mean, sd, ci = _through(self.target.back, mean, sd, ci)
        k = 1 if self.scalar else mean.shape[1]
        T = len(mean)

        def each(values: Any) -> Any:
            """(T,), (T, k) or a list of T → T × k, batches slowest."""
            if isinstance(values, np.ndarray):
                values = values if values.ndim == 2 and not self.scalar else np.repeat(values, k)
                return pl.Series(values.reshape(-1)).fill_nan(None) if values.dtype.kind == "f" else pl.Series(values.reshape(-1))
            return pl.Series([value for value in values for _ in range(k)])

        columns: dict[str, Any] = {"t": np.arange(T)} if self.scalar else {"batch": self.batch}
        if not self.scalar:
            columns |= {} if self.time is None else {"time": self.time}
            columns |= {} if self.n is None else {"n": self.n}
            columns["term"] = None
        columns |= {"posterior_mean": mean, "posterior_sd": sd, "ci_lower": ci[..., 0], "ci_upper": ci[..., 1]}
        columns["innovation"] = self.innovations
        if self.scalar:
            columns |= {"ess": self.ess, "batch": self.batch}
            columns |= {} if self.time is None else {"time": self.time}
            columns |= {} if self.n is None else {"n": self.n}
        columns |= {"innovation_sd": self.innovation_sd, "z": self.z, "nis": self.nis, "p_nis": self.p_nis}
        columns |= {} if self.gain is None else {"gain": self.gain}
        columns |= {} if self.scalar else {"ess": self.ess}
        columns |= {} if self.ess_kish is None else {"ess_kish": self.ess_kish}
        columns |= {"log_evidence": self.log_evidences, "alarm": None}
        alarm = pl.Series(monitoring.default_alarms(self), dtype=pl.String)
        columns |= {"alarm": alarm} | ({} if self.scalar else {"term": pl.Series(list(self.names) * T, dtype=pl.String)})
        return pl.DataFrame({name: v if isinstance(v, pl.Series) else each(v) for name, v in columns.items()})

    def _lagged(self, lag: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, sd and limits of each state given the batches up to `lag` later."""
        mean, V = hindsight.fixed_lag(self, lag)
        scale = np.sqrt(np.einsum("tii->ti", V))
        end = np.minimum(np.arange(len(mean)) + lag, len(mean) - 1)  # σ² too is that of the batches up to there
        df = np.full(len(mean), np.inf) if self.df is None else self.df[end]
        if self.solution is not None and len(mean):
            s2 = self.solution.path.s2
            scale = scale * np.sqrt(s2[end] / s2[-1])[:, None]
        sd, ci = scale * inflation(df)[:, None], limits_of(mean, scale, df, self.alpha)
        return (mean[:, 0], sd[:, 0], ci[:, 0]) if self.scalar else (mean, sd, ci)

    def update(self, batch: Any, id: Any = None, time: Any = None) -> AssimilationResult:
        """A new result with one more batch: a frame with the model's columns and the batch's id, or (estimate, standard error).

        id, time  where the frame does not have them
        """
        if self.extend is None:
            raise Refused(
                f"a result of method {self.method!r} keeps no state.",
                where="update()",
                do="Use bossa.assimilate.estimates() or batches().",
            )
        return self.extend(self, batch, id, time)

    def to_json(self) -> str:
        """Its state's: the stream as text that `bossa.assimilate.resume` takes up again, to the last bit."""
        if self.state is None:
            raise Refused(f"a result of method {self.method!r} keeps no state.", where="to_json()", do="Use bossa.assimilate.estimates().")
        return str(self.state.to_json())

    def monitor(
        self, *, z_limit: float = 3.0, k: float = 0.5, h: float = 5.0, null: float = 0.0, mixture_sd: float | None = None
    ) -> pl.DataFrame:
        """Standardised innovations, CUSUM, NIS, any-time-valid e-values and confidence sequences, alarms; see `monitoring.monitor`."""
        return monitoring.monitor(self, z_limit=z_limit, k=k, h=h, null=null, mixture_sd=mixture_sd)

    @property
    def alarms(self) -> tuple[monitoring.Alarm, ...]:
        """What the model did not expect."""
        return monitoring.alarms(self)

    def redesign(self, target_sd: float, *, horizon: int | None = None, ess_floor: float | None = None) -> tuple[monitoring.Redesign, ...]:
        """Is `target_sd` reached, how many rows are missing, or will no amount of data do?"""
        return monitoring.redesign(self, target_sd, horizon=horizon, ess_floor=ess_floor)

    def news(self) -> pl.DataFrame:
        """What each batch changed, by source of surprise."""
        return hindsight.news(self)

    def weights(self) -> pl.DataFrame:
        """Weight of each batch, and of the prior, in the last state."""
        return hindsight.weights(self)

    def aci(self) -> pl.DataFrame:
        """ACI diagnostic: how much later batches rewrote each state."""
        return hindsight.aci(self)

    def compare(self, other: AssimilationResult) -> float:
        """log Bayes factor of this stream's model against another's on the same batches."""
        if not isinstance(other, AssimilationResult):
            raise OptionError(f"{type(other).__name__} is not a stream.", where="compare()", do="Compare two results of the same batches.")
        for r in (self, other):
            loose = r.state is not None and (r.state.options.flat or monitoring.sigma_is_improper(r))
            if loose and self.names != other.names:
                what = "where a prior is flat the evidence has no scale of its own, and these streams have different coefficients."
                raise Refused(what, where="compare()", do="Give both prior=bossa.normal(0, 2.5), say, and sigma=nig(a, b) or a number.")
        if not (np.isfinite(self.log_evidence) and np.isfinite(other.log_evidence)):
            raise Refused("one of them has no evidence yet.", where="compare()", do="Give both proper priors, and batches of full rank.")
        if self.batch != other.batch or not _same_data(self.state, other.state):
            what = "they have not seen the same batches, or not the same response, rows and weights of them."
            raise Refused(what, where="compare()", do="Feed both the same.")
        return self.log_evidence - other.log_evidence

    @property
    def z(self) -> np.ndarray:
        """Standardised innovations: the batch against its forecast, in forecast standard deviations."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.innovations / self.innovation_sd

    @property
    def params(self) -> pl.DataFrame:
        """The last state: term, estimate, sd, ci_lower, ci_upper."""
        ci = np.asarray(self.final_ci, dtype=float).reshape(-1, 2)
        numbers = {"estimate": self.final_mean, "sd": self.final_sd, "ci_lower": ci[:, 0], "ci_upper": ci[:, 1]}
        made = {name: pl.Series(np.asarray(v, dtype=float).reshape(-1)).fill_nan(None) for name, v in numbers.items()}
        return pl.DataFrame({"term": list(self.names), **made})

    def summary(self) -> str:
        """The last state in words."""
        T = len(self.posterior_mean)
        lines = [f"Assimilation by {self.method}: {T} {'batch' if T == 1 else 'batches'}"]
        if not T:
            lines.append("no batch has been seen: this is the prior")
        for row in self.params.iter_rows():
            name, mean, sd, low, high = (v if isinstance(v, str) else "not determined" if v is None else f"{v:.6g}" for v in row)
            lines.append(f"  {name}: {mean} (sd {sd}), {100 * (1 - self.alpha):.15g}% interval [{low}, {high}]")
        if np.isfinite(self.log_evidence):
            lines.append(f"log-evidence {self.log_evidence:.6g}")
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        return self.summary()

    def plot(self, *, smoothed: bool = False) -> Any:
        """Every number after each batch, with its interval and the alarms (smoothed: given all batches), as a `Plot`."""
        if not len(self.batch):
            raise Refused("no batch has been seen.", where="plot()", do="Feed the stream; .summary() shows its prior.")
        drawn = drawings.drawing("trajectory")
        about = "estimates" if self.state is None or self.state.encoder is None else self.state.encoder.spec.formula
        return drawn(self.trajectory(smoothed=smoothed), about, 1 - self.alpha, smoothed)

    def explain(self) -> Any:
        """What was assumed, what was known before, how the last batch changed it, and where the stream disagreed: in words and frames.

        >>> from bossa.assimilate import causal_kalman
        >>> causal_kalman([0.45, 0.55], [0.10, 0.12]).explain()["now"]["estimate"].round(4).to_list()
        [0.4881]
        """
        return words.of_stream(self)


def _through(back: Any, mean: np.ndarray, sd: np.ndarray, ci: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, sd (by the slope) and limits on the scale that is shown; `back` goes over the last axis, one number for each row."""
    flat = mean.reshape(len(mean), -1)
    slope = np.abs([np.asarray(back.slope(row)) for row in flat]).reshape(mean.shape)
    ends = np.array([[np.asarray(back.function(side)) for side in row.T] for row in ci.reshape(*flat.shape, 2)])
    shown = np.array([np.asarray(back.function(row)) for row in flat]).reshape(mean.shape)
    return shown, sd * slope, np.sort(ends.transpose(0, 2, 1), axis=2).reshape(ci.shape)


def _same_data(one: Any, other: Any) -> bool:
    """Are the batches of two states of the same response? As far as they can tell: its name, the rows, their weights and Σ wy²."""
    if one is None or other is None:
        return True
    pairs = [({s.batch: s for s in state.sites}, state.encoder) for state in (one, other)]
    (a, first), (b, second) = pairs
    if first is None or second is None:
        return first is second and all(a[batch].hash == b[batch].hash for batch in a)
    specs = first.spec, second.spec
    told = [(str(s.response), s.weights, s.freq_weights) for s in specs]
    if told[0] != told[1] or any(a[batch].n != b[batch].n for batch in a):
        return False
    if any(state.kind != "lm" or state.within is not None for state in (one, other)) or any(s.offset or s.offsets for s in specs):
        return True
    squares = [np.array([float(sites[batch].z @ sites[batch].z) + sites[batch].rss for batch in a]) for sites in (a, b)]
    return bool(np.allclose(squares[0], squares[1], rtol=1e-8))
