"""States as polars frames: what every property of a Model shows.

Every function takes the model `m` (anything `Readable`) and returns a frame in full float64 precision; what is not there is null, never
NaN. Nothing is computed here. COLUMNS says once what each column means and how it is displayed; the glossary of the docs is made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import polars as pl
from attrs import frozen

from ..design.formula import data_names
from ..errors import NotFitted, Refused
from ..state.inference import CVState, EffectsState, InferenceState, JointTestState, ProfileState, ResamplesState


class Readable(Protocol):
    """What report reads of a Model."""

    @property
    def spec(self) -> Any: ...
    @property
    def data(self) -> Any: ...
    @property
    def problem(self) -> Any: ...
    @property
    def fit_state(self) -> Any: ...
    @property
    def inference(self) -> Any: ...
    @property
    def joint(self) -> Any: ...
    @property
    def focus(self) -> Any: ...
    @property
    def focus_inference(self) -> Any: ...


@frozen
class Column:
    """What a column means, and its display format (see `display.FORMATS`; "estimate": the precision of its row's standard error)."""

    meaning: str
    format: str = "number"


_TERM = Column("Name of the coefficient, or of the term that is tested.", "plain")
COLUMNS: dict[str, Column] = {
    # estimates and what is known of them
    "term": _TERM,
    "contrast": Column("The comparison of a row: which means are subtracted or divided.", "plain"),
    "slope": Column("The variable whose slope a row is.", "plain"),
    "estimate": Column("The number asked for, on the scale named in the notes.", "estimate"),
    "se": Column("Standard error: estimated standard deviation of the estimate over repeated samples.", "estimate"),
    "ci_lower": Column("Lower limit of the interval; the header says its level and kind.", "estimate"),
    "ci_upper": Column("Upper limit of the interval.", "estimate"),
    "statistic": Column(
        "Test statistic of the hypothesis that the estimate equals its null value: t, z, F or χ², named in the header.", "statistic"
    ),
    "df": Column("Degrees of freedom of the reference distribution, inf: the normal one; in `vif`: coefficients of the term.", "df"),
    "p_value": Column("Probability, if the null value were true, of a statistic at least this extreme. Never clipped.", "p"),
    "p_mc_se": Column("Monte-Carlo standard error of a simulated p-value: how far another seed would move it.", "p"),
    "null_lower": Column("Lower limit of the interval that holds the statistic when the null is true (permutation).", "statistic"),
    "null_upper": Column("Upper limit of the same interval.", "statistic"),
    "pre": Column("Proportional reduction of error: of cross-validated error by a term; of deviance by a model (`compare`)."),
    "pre_sd": Column("Standard deviation of `pre` over folds."),
    "replicate": Column("Number of the resample, from 1.", "plain"),
    "code": Column("0: the refit is usable; otherwise why it is not.", "plain"),
    "df1": Column("Numerator degrees of freedom: how many coefficients are tested at once.", "df"),
    "df2": Column("Denominator degrees of freedom; inf: a χ² test.", "df"),
    # comparisons of models
    "model": Column("Formula of the model, or the name it was given.", "plain"),
    "aicc": Column("AIC corrected for few observations: aic + 2 npar (npar + 1) / (n − npar − 1)."),
    "aic_delta": Column("`aic` less the smallest of the models compared."),
    "aic_weight": Column("exp(−aic_delta / 2), scaled to sum 1: how much of the evidence speaks for the model, among those compared."),
    "p_boundary": Column("p-value of a variance, which cannot be negative: ½ χ²(df1 − 1) + ½ χ²(df1).", "p"),
    # predictions and rows
    "fitted": Column("Predicted value: the mean response, unless type= said another scale.", "estimate"),
    "resid": Column("Residual: response minus fitted value."),
    "pearson_resid": Column("Residual divided by the standard deviation that its mean implies."),
    "deviance_resid": Column("Signed root of the row's share of the deviance."),
    "working_resid": Column("Residual on the scale of the linear predictor."),
    "hat": Column("Leverage: weight of the row's own response in its fitted value."),
    "std_resid": Column("Residual (deviance residual for generalized linear models) divided by its standard error."),
    "student_resid": Column("The same with `sigma` estimated without the row: t-distributed in linear models."),
    "cooksd": Column("Cook's distance: how far all fitted values move when the row is left out."),
    "dffits": Column("How far the row's own fitted value moves when it is left out, in standard errors."),
    "cv_fitted": Column("Predicted value by the model fitted without the row's fold."),
    "cv_residual": Column("Response minus `cv_fitted`."),
    "cv_fold": Column("Fold of the row.", "plain"),
    "row": Column("Position of the row in the data, from 0.", "plain"),
    "used": Column("Whether the fit used the row.", "plain"),
    "reason": Column("Why the row was not used.", "plain"),
    "mean": Column("Mean over simulations."),
    # one row per model
    "n": Column("Observations used: rows, or the sum of their frequency weights.", "df"),
    "df_model": Column("Coefficients estimated, the intercept not counted.", "df"),
    "df_resid": Column("Residual degrees of freedom.", "df"),
    "sigma": Column("Residual standard deviation (√dispersion for generalized linear models); in `augment`: without the row."),
    "dispersion": Column(
        "Variance of the response relative to what the family's variance function says; in `aci`: how much the spread moved."
    ),
    "deviance": Column("Twice the log-likelihood lost against a model that fits every row; the residual sum of squares for linear models."),
    "null_deviance": Column("Deviance of the model with an intercept (and the offset) alone."),
    "df_null": Column("Residual degrees of freedom of that model.", "df"),
    "loglik": Column("Maximised log-likelihood."),
    "npar": Column("Parameters counted by AIC, the scale included where it is estimated.", "df"),
    "aic": Column("Akaike's criterion: 2 npar − 2 loglik; smaller is better."),
    "bic": Column("Bayesian information criterion: log(n) npar − 2 loglik."),
    "rsquared": Column("Share of the response's variance that the fitted values carry."),
    "rsquared_adj": Column("The same, corrected for the number of coefficients."),
    "rsquared_deviance": Column("1 − deviance / null_deviance."),
    "fstat": Column("F statistic of the whole model against its intercept alone.", "statistic"),
    "fstat_df1": Column("Its numerator degrees of freedom.", "df"),
    "fstat_df2": Column("Its denominator degrees of freedom.", "df"),
    "fstat_p_value": Column("Its p-value.", "p"),
    "pearson_chisq": Column("Sum of squared Pearson residuals."),
    "cv_rmse": Column("Root mean squared error of cross-validated predictions."),
    "cv_delta": Column("Mean error of a row out of fold, less that of the best model."),
    "cv_delta_se": Column("Standard error of `cv_delta`: of the difference fold by fold."),
    "cv_mae": Column("Mean absolute error of cross-validated predictions."),
    "cv_rsquared": Column("Share of the response's variance that cross-validated predictions explain."),
    "cv_deviance": Column("Deviance of cross-validated predictions."),
    "cv_accuracy": Column("Share of cross-validated predictions on the right side of one half."),
    "cv_auc": Column("Area under the ROC curve of cross-validated predictions."),
    # collinearity
    "gvif": Column("Generalized variance inflation: how much the other terms widen the term's confidence region."),
    "gvif_scaled": Column("gvif^(1/(2 df)): comparable between terms of different df; its square compares to an ordinary VIF."),
    # random effects
    "group": Column("Grouping factor.", "plain"),
    "level": Column("Level of the grouping factor.", "plain"),
    "term1": Column("First random-effect column of a variance or covariance.", "plain"),
    "term2": Column("Second column; null for a variance.", "plain"),
    "variance": Column("Variance (or covariance) of the random effects."),
    "sd": Column("Standard deviation."),
    "corr": Column("Correlation of two random effects."),
    "method": Column("How the limits of the row (and `se`) were found; they are of its `sd`, or of its `corr`.", "plain"),
    "boundary": Column("Whether the variance is estimated as 0 or the correlation as ±1.", "plain"),
    "rsquared_marginal": Column("Share of the variance that the fixed effects carry."),
    "rsquared_conditional": Column("Share of the variance that fixed and random effects carry."),
    "icc": Column("Share of the variance left by the fixed effects that lies between groups."),
    "reml_criterion": Column("−2 times the restricted log-likelihood."),
    # streams
    "batch": Column("Id of the batch; in `weights` null: the prior.", "plain"),
    "t": Column("Place of the batch in the stream, from 0.", "plain"),
    "time": Column("When the batch was made; dates count in days.", "plain"),
    "posterior_mean": Column("Mean of what is known after the batch, given the batches so far (smoothed: given all).", "estimate"),
    "posterior_sd": Column("Its standard deviation.", "estimate"),
    "innovation": Column("What the batch alone says, less what was forecast of it.", "estimate"),
    "innovation_sd": Column("Standard deviation that the forecast gave to the innovation.", "estimate"),
    "z": Column("innovation / innovation_sd; in `monitor` as a normal score where sigma is estimated. Beyond ±3 is an alarm.", "statistic"),
    "nis": Column("Squared distance of the whole batch from its forecast; near the number of coefficients if the model holds."),
    "p_nis": Column("Probability of a nis at least as large, if the model holds.", "p"),
    "gain": Column("Share of the forecast's variance that the batch took away; 1: the past counts for nothing."),
    "ess": Column("How many typical batches the posterior is worth (median variance of those so far); of particles: how many count."),
    "ess_kish": Column("Effective number of batches in the mean, (Σw)² / Σw² of their weights (up to 20 coefficients)."),
    "log_evidence": Column("Log-probability of all batches so far: differences between models are log Bayes factors."),
    "alarm": Column("What was off in the batch: z, cusum, or both.", "plain"),
    "cusum_up": Column("Sum of what exceeded the forecast, Page's; beyond 5 the number has shifted upwards."),
    "cusum_down": Column("The same of what fell short."),
    "e_value": Column("Evidence against the null value, valid however often one looks: 20 rejects at 5%."),
    "cs_lower": Column("Lower limit of the confidence sequence: it holds at every look at once.", "estimate"),
    "cs_upper": Column("Upper limit of the same.", "estimate"),
    "source": Column("The coefficient about which the batch was a surprise.", "plain"),
    "weight": Column("In `weights`: share of the batch in the last mean; in `news`: how far the term moves for a unit of surprise."),
    "news": Column("How far the batch moved the term by that surprise; adds up to the revision."),
    "aci": Column("How much later batches rewrote the state, in nats: `signal` + `dispersion`. It says nothing of causes."),
    "signal": Column("The part of `aci` by which the mean moved."),
    "range": Column("For how many later batches the state keeps being rewritten."),
    "most": Column("The largest divergence (nats) between the state given all batches and given some."),
    "forecast": Column("In `explain()`: what was expected of the batch, from those before it.", "estimate"),
    "forecast_sd": Column("Its standard deviation.", "estimate"),
    "batch_alone": Column("In `explain()`: what the batch says without the others.", "estimate"),
    "batch_sd": Column("Its standard deviation.", "estimate"),
    # priors and data
    "share": Column("Share of the number that is data, the rest is prior: diagonal of the averaging kernel."),
    "prior_sd": Column("Standard deviation before the data; inf: nothing was known.", "estimate"),
    # power
    "true": Column("Value that the data were simulated with."),
    "power": Column("Share of simulated data sets in which the null was rejected."),
    "power_lower": Column("Lower limit of that share's interval, given so many replicates."),
    "power_upper": Column("Upper limit of the same."),
    "bias": Column("Mean estimate less the true value."),
    "mean_se": Column("Mean standard error over replicates."),
    "coverage": Column("Share of intervals that held the true value."),
    "replicates": Column("Simulated data sets that were fitted.", "df"),
    "failed": Column("Simulated data sets that were not usable.", "df"),
    "reasons": Column("Why they were not.", "plain"),
    "seed": Column("Replays the study.", "plain"),
    # broom's names
    "std_error": Column("`se` under broom's name (`tidy`).", "estimate"),
    "conf_low": Column("`ci_lower` under broom's name.", "estimate"),
    "conf_high": Column("`ci_upper` under broom's name.", "estimate"),
    "r_squared": Column("`rsquared` under broom's name (`glance`)."),
    "adj_r_squared": Column("`rsquared_adj` under broom's name."),
    "log_lik": Column("`loglik` under broom's name."),
    "df_residual": Column("`df_resid` under broom's name.", "df"),
    "nobs": Column("`n` under broom's name.", "df"),
}

TIDY = {"se": "std_error", "ci_lower": "conf_low", "ci_upper": "conf_high"}
GLANCE = {
    "rsquared": "r_squared",
    "rsquared_adj": "adj_r_squared",
    "fstat": "statistic",
    "fstat_p_value": "p_value",
    "df_model": "df",
    "loglik": "log_lik",
    "df_resid": "df_residual",
    "n": "nobs",
}


def formats(names: Iterable[str]) -> dict[str, str]:
    """Display format of each column; columns of the user's data are plain."""
    return {name: COLUMNS[name].format if name in COLUMNS else "plain" for name in names}


def glossary() -> str:
    """COLUMNS as a Markdown page."""
    lines = [
        "# What the columns mean",
        "",
        "Every column that bossa adds to a frame. This page is made from `bossa.report.table.COLUMNS`.",
        "",
    ]
    lines += ["| column | meaning |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {c.meaning} |" for name, c in COLUMNS.items())]) + "\n"


# ------------------------------------------------------------------ building frames
def series(values: Any) -> pl.Series:
    """Values as a column: NaN, which marks what an array does not have, becomes null."""
    out = pl.Series(values)
    return out.fill_nan(None) if out.dtype.is_float() else out


def beside(left: pl.DataFrame, columns: Mapping[str, Any]) -> pl.DataFrame:
    """`left` with more columns; a name that `left` already has gets the suffix _bossa."""
    if not columns:
        return left
    made = [series(v).alias(f"{k}_bossa" if k in left.columns else k) for k, v in columns.items()]
    return left.with_columns(made) if left.columns else pl.DataFrame(made)


def shown(fitted: np.ndarray, inference: Any) -> np.ndarray:
    """The numbers of a table: the fit's, or those that the inference puts in their place (the mean of a posterior)."""
    own = inference.estimate if isinstance(inference, InferenceState) else None
    return fitted if own is None else own


def uncertainty(inference: InferenceState | None, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The columns of an inference in table order; `names` restricts the standard ones."""
    if inference is None:
        return {}
    lower, upper = (None, None) if inference.interval is None else inference.interval
    standard = {
        "se": inference.se,
        "ci_lower": lower,
        "ci_upper": upper,
        "statistic": inference.statistic,
        "df": inference.df,
        "p_value": inference.p_value,
    }
    return {k: v for k, v in standard.items() if v is not None and (names is None or k in names)} | inference.columns


def _take(frame: pl.DataFrame, index: np.ndarray) -> pl.DataFrame:
    """Rows of `frame` by position; -1 gives a row of nulls."""
    at = pl.Series(index, dtype=pl.Int64)
    return frame.select(pl.all().gather(at.set(at < 0, None)))


def _positions(kept: np.ndarray) -> np.ndarray:
    """Index among the kept of each entry of `kept` (P,), -1 where dropped."""
    return np.where(kept, np.cumsum(kept) - 1, -1)


# ------------------------------------------------------------------ results
def params_frame(m: Readable) -> pl.DataFrame:
    """term, estimate, inference columns; coefficients that rank dropped are null rows in their place."""
    design = m.problem.design
    numbers = beside(pl.DataFrame({"estimate": shown(m.fit_state.coef, m.inference)}), uncertainty(m.inference))
    numbers = numbers if design.kept.all() else _take(numbers, _positions(design.kept))
    return numbers.insert_column(0, pl.Series("term", design.columns))


def vcov_frame(m: Readable) -> pl.DataFrame:
    """Covariance of the coefficients: of the last inference that made one, else the model's own. Dropped coefficients are null."""
    design = m.problem.design
    V = m.fit_state.vcov if m.inference is None or m.inference.vcov is None else m.inference.vcov
    at = _positions(design.kept)
    full = np.where((at[:, None] < 0) | (at < 0), np.nan, V[np.ix_(at, at)])
    return beside(pl.DataFrame({"term": list(design.columns)}), {name: full[:, i] for i, name in enumerate(design.columns)})


def effects_frame(m: Readable) -> pl.DataFrame:
    """The labels of the question, estimate, inference columns; rows that are not estimable have nulls."""
    if isinstance(m.focus_inference, JointTestState):
        return m.focus_inference.frame
    target = m.focus.target
    columns = {"estimate": shown(m.focus.estimate, m.focus_inference), **uncertainty(m.focus_inference)}
    if target.estimable is not None:
        numbers = _take(
            pl.DataFrame({k: series(v) for k, v in columns.items()}), np.where(target.estimable, np.arange(len(target.estimable)), -1)
        )
        columns = {k: numbers[k] for k in columns}
    return beside(target.labels, columns)


def predictions_frame(m: Readable) -> pl.DataFrame:
    """The rows asked for, fitted, and se and limits after `.infer()`."""
    fitted = shown(m.focus.fitted, m.focus_inference)
    return beside(m.focus.newdata, {"fitted": fitted, **uncertainty(m.focus_inference, ("se", "ci_lower", "ci_upper"))})


def simulations_frame(m: Readable) -> pl.DataFrame:
    """sim_1, sim_2, …, or after `.infer()` what they say of each row."""
    if m.focus_inference is not None:
        return pl.DataFrame({k: series(v) for k, v in uncertainty(m.focus_inference).items()})
    return pl.DataFrame({f"sim_{i + 1}": m.focus.values[:, i] for i in range(m.focus.values.shape[1])})


def resamples_frame(m: Readable) -> pl.DataFrame:
    """replicate, what was estimated, estimate, code (0: usable) of the last resampling; for permutations the statistics."""
    inference = m.inference if m.focus is None else m.focus_inference
    state = getattr(inference, "extra", None)
    if not isinstance(state, ResamplesState):
        raise NotFitted("there are no resamples yet.", where=".resamples", do='Write m = m.infer(how="boot") and ask that.')
    if state.values is None:
        raise NotFitted("the replicates were not kept (save_resamples=False).", where=".resamples", do="Leave save_resamples=True.")
    labels = pl.DataFrame({"term": list(m.problem.design.names)}) if m.focus is None else m.focus.target.labels
    B, K = state.values.shape
    frame = pl.DataFrame({"replicate": np.repeat(np.arange(1, B + 1), K)})
    repeated = labels[np.tile(np.arange(K), B)]
    return frame.hstack(repeated.get_columns()).with_columns(
        estimate=pl.Series(state.values.ravel(), nan_to_null=True), code=np.repeat(state.code, K)
    )


def diagnostics_frame(m: Readable, numbers: Mapping[str, Any]) -> pl.DataFrame:
    """One row of the model's summary numbers, and those of the last cross-validation."""
    for inference in (m.inference, m.focus_inference):
        extra = getattr(inference, "extra", None)
        if isinstance(extra, CVState):
            numbers = {**numbers, **extra.numbers}
    absent = {k: pl.Float64 for k, v in numbers.items() if isinstance(v, float) and np.isnan(v)}
    return pl.DataFrame([{**numbers, **dict.fromkeys(absent)}], schema_overrides=absent)


def designmat_frame(m: Readable) -> pl.DataFrame:
    """The design matrix of the rows used, by column name."""
    design = m.problem.design
    return pl.DataFrame({name: design.X[:, i] for i, name in enumerate(design.names)})


def vif_frame(numbers: Mapping[str, Any]) -> pl.DataFrame:
    """Variance inflation: one row per term."""
    return pl.DataFrame({k: series(v) for k, v in numbers.items()})


def varying_frame(m: Readable, part: str, problem: Any, fit: Any) -> pl.DataFrame:
    """Random effects of a mixed model.   part: "spread" | "offsets" | "params" """
    from ..explore import varying  # brings the mixed-model kernels, which other models do not need

    if problem.design.random is None:
        raise Refused("this model has no random effects.", where=f".varying_{part}", do="Add a term such as (1 | g) to the formula.")
    frames = {"spread": varying.spread, "offsets": varying.offsets, "params": varying.params}
    frame = frames[part](problem, fit)
    extra = None if m.inference is None else m.inference.extra
    limits = extra.spread if part == "spread" and isinstance(extra, (ProfileState, ResamplesState)) else None
    if limits is not None:
        columns = {"se": limits.se, "ci_lower": limits.lower, "ci_upper": limits.upper}
        frame = beside(frame, {k: v for k, v in columns.items() if v is not None}).with_columns(method=pl.lit(limits.method))
    return frame.with_columns(pl.selectors.float().fill_nan(None))


# ------------------------------------------------------------------ broom's names
def tidy(m: Readable) -> pl.DataFrame:
    """`.effects` after `.explore()`, else `.params`, under broom's names."""
    frame = effects_frame(m) if isinstance(m.focus, EffectsState) else params_frame(m)
    return frame.rename({k: v for k, v in TIDY.items() if k in frame.columns})


def glance(m: Readable, numbers: Mapping[str, Any]) -> pl.DataFrame:
    """`.diagnostics` under broom's names."""
    return diagnostics_frame(m, {GLANCE.get(k, k): v for k, v in numbers.items()})


def augment(m: Readable, casewise: Mapping[str, Any]) -> pl.DataFrame:
    """Every row of the data with the numbers of its case; rows that were not used have nulls.   casewise: name → (n,)"""
    design = m.problem.design
    at = np.full(design.n_data, -1)
    at[design.rows] = np.arange(design.n)
    numbers = _take(pl.DataFrame({k: series(v) for k, v in casewise.items()}), at)
    return beside(_data(m), {k: numbers[k] for k in numbers.columns})


def augment_new(m: Readable) -> pl.DataFrame:
    """The new rows with fitted values, under broom's names."""
    frame = predictions_frame(m)
    return frame.rename({k: v for k, v in TIDY.items() if k in frame.columns})


def _data(m: Readable) -> pl.DataFrame:
    """The user's data, or the row numbers alone where a loaded model has no data."""
    return pl.DataFrame({"row": np.arange(m.problem.design.n_data)}) if m.data is None else m.data


# ------------------------------------------------------------------ how the fit came about
@frozen
class Convergence:
    """How the search ended: status ("ok" | "boundary" | "suspect" | "failed"), one sentence, what to do."""

    status: str
    message: str
    advice: str
    method: str
    iterations: int
    gradient: float
    boundary: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.status}: {self.message} {self.advice}".rstrip()


def convergence(outcome: Any) -> Convergence:
    """The outcome of a fit in words."""
    return Convergence(
        outcome.status, outcome.message, outcome.advice, outcome.method, outcome.iterations, outcome.gradient, outcome.boundary
    )


def metadata_frame(m: Readable) -> pl.DataFrame:
    """row, used, reason: which rows of the data the fit used, and why not the others."""
    design = m.problem.design
    used = np.zeros(design.n_data, dtype=bool)
    used[design.rows] = True
    reason: list[str | None] = [None] * design.n_data
    for i, row in zip(np.flatnonzero(~used).tolist(), _data(m).filter(~used).iter_rows(named=True)):
        reason[i] = _why_not(row, m.spec)
    return pl.DataFrame({"row": np.arange(design.n_data), "used": used, "reason": pl.Series(reason, dtype=pl.String)})


def _why_not(row: Mapping[str, Any], spec: Any) -> str:
    """Why a row was left out: which of the columns the model reads are missing, or a weight of 0."""
    exprs = [spec.response, *spec.offsets, *(f for t in spec.fixed for f in t.factors)]
    for bar in spec.bars:
        exprs += [*bar.factor, *(f for t in bar.lhs for f in t.factors)]
    names = [name for e in exprs if e is not None for name in data_names(e)]
    names += [name for name in (spec.weights, spec.freq_weights, spec.offset) if name]
    gone = [name for name in dict.fromkeys(names) if name in row and (row[name] is None or row[name] != row[name])]
    if gone:
        return f"missing: {', '.join(gone)}"
    zero = [name for name in (spec.weights, spec.freq_weights) if name and row.get(name) == 0]
    return f"{zero[0]} is 0" if zero else "a term has no value"


def codings(m: Readable) -> dict[str, Any]:
    """The `Piece` of each factor of the fixed part, by name; the one coded by contrasts where there are two."""
    found: dict[str, Any] = {}
    for piece in () if m.problem.encoder is None else (p for pieces in m.problem.encoder.pieces for p in pieces):
        if piece.matrix is not None and (str(piece.expr) not in found or found[str(piece.expr)].coding == "levels"):
            found[str(piece.expr)] = piece
    return found
