"""The table of a comparison: one row per model by its number of parameters, its criteria, and its test against the model above.

Source: Akaike (1974); Burnham & Anderson (2002) §2.4 for AICc and §2.9 for weights; Judd, McClelland & Ryan (2017) for PRE.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import attrs
import numpy as np
import polars as pl
from attrs import field, frozen

from ..errors import OptionError, Refused, UnknownOption
from ..state.fields import choice, integer, workers
from .bootstrap import bootstrap_test
from .crossval import CrossValidation, crossvalidated
from .drop import without_each
from .likelihood import one_kind
from .nesting import WHERE, Candidate, Step, check_same_data, check_same_family, step
from .tests import Verdict, by_moments, contrast_test, f_test, likelihood_ratio, refuse_f, score_test

HOWS = ("auto", "lrt", "f", "rao", "aic", "boot", "cv")
DF_RULES = ("auto", "residual", "satterthwaite", "kenward-roger", "inf")
USES = {
    "df": ("f",),
    "refit": ("lrt", "aic"),
    "n_boot": ("boot",),
    "seed": ("boot", "cv"),
    "n_jobs": ("boot", "cv"),
    "k": ("cv",),
    "holdout_group": ("cv",),
}


def _true_false_or_none(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
    if value not in (None, True, False):
        raise OptionError(f"{attribute.name}={value!r} is none of True, False, None.", where=WHERE)


@frozen(kw_only=True)
class Options:
    """Options of `bossa.compare`; None: the default of the how."""

    owner = WHERE
    how: str = choice("auto", among=HOWS)
    refit: bool | None = field(default=None, validator=_true_false_or_none)
    df: str = choice("auto", among=DF_RULES)
    drop: str | None = None
    n_boot: int | None = integer(None, minimum=1, optional=True)
    seed: Any = None
    n_jobs: int | None = workers()
    k: Any = integer(None, minimum=2, optional=True, word="loo")
    holdout_group: str | None = None


@frozen(kw_only=True, eq=False)
class ComparisonState:
    """frame: one row per model;  how, statistic_name: of its tests, "" where there are none;  notes: every choice that changed a number."""

    frame: pl.DataFrame
    how: str
    statistic_name: str
    notes: tuple[str, ...] = ()


def compare_fits(candidates: list[Candidate], options: Options) -> ComparisonState:
    """Compare fits of the same data, smallest first; with drop="varying" one fit with itself without each random-effects term."""
    dropping = options.drop is not None
    models = _dropped(candidates, options) if dropping else sorted(candidates, key=lambda c: c.fit.npar)
    if len(models) < 2:
        raise OptionError("there is nothing to compare.", where=WHERE, do="Write compare(m1, m2), or compare(m, drop='varying').")
    for c in models:
        if c.problem.prior is not None:
            do = "Fit without prior=, or compare posteriors."
            raise Refused(f"{c.name!r} has a prior: it is not where its likelihood is largest.", where=WHERE, do=do)
    check_same_data(models)
    how = _how(models, options, dropping)
    if how != "aic":
        check_same_family(models)
    if how == "cv":
        return _predicting(models, options)
    _check_nodes(models)
    notes: tuple[str, ...] = ()
    if how in ("lrt", "aic", "boot"):
        keep = options.refit is None and dropping and how != "boot"
        models, notes = one_kind(models, False if keep else options.refit)
    pairs = [(m, models[0]) for m in models[1:]] if dropping else list(pairwise(models))
    steps = [] if how == "aic" else [step(*pair) for pair in pairs]
    largest = models[0] if dropping else models[-1]
    verdicts, said = _verdicts(how, [(*p, s) for p, s in zip(pairs, steps)], largest, options)
    frame = _frame(models, verdicts, how)
    name = "" if not verdicts else "F" if any(math.isfinite(v.df2) for v in verdicts) else "χ²"
    return ComparisonState(frame=frame, how=how, statistic_name=name, notes=(*notes, *said))


def _predicting(models: list[Candidate], options: Options) -> ComparisonState:
    how = CrossValidation(k=options.k or 10, holdout_group=options.holdout_group, seed=options.seed, n_jobs=options.n_jobs)
    columns, notes = crossvalidated(models, how)
    named = {"model": [c.name for c in models], "npar": [int(c.fit.npar) for c in models]}
    return ComparisonState(frame=_without_nan(named | columns), how="cv", statistic_name="", notes=tuple(notes))


def _dropped(candidates: list[Candidate], options: Options) -> list[Candidate]:
    if options.drop != "varying":
        raise UnknownOption(options.drop, ["varying"], where=WHERE, kind="drop")
    if len(candidates) != 1:
        what = f"drop= takes one model apart, and {len(candidates)} were given."
        raise OptionError(what, where=WHERE, do="Write compare(m, drop='varying').")
    return [*candidates, *without_each(candidates[0])]


def _how(models: list[Candidate], options: Options, dropping: bool) -> str:
    """The how, "auto" resolved, and refused where it has no meaning; so is an option that it has no use for."""
    how, mixed = options.how, any(c.mixed for c in models)
    if how == "auto":
        moments = models[0].linear or by_moments(models[0])
        how = "f" if moments and not mixed else "lrt"
    for name, hows in USES.items():
        if getattr(options, name) not in (None, "auto") and how not in hows:
            raise OptionError(f"{name}= has no use for how={how!r}.", where=WHERE, do="Leave it out.")
    if how == "f" and not mixed and models[0].problem.family.dispersion == "one":
        raise refuse_f(models[0])
    if how in ("f", "rao") and mixed and (how == "rao" or not models[0].linear or dropping):
        raise Refused(
            f"how={how!r} is for {'linear models and fixed effects of linear mixed' if how == 'f' else 'generalized linear'} models.",
            where=WHERE,
            do="Use how='lrt'.",
        )
    if how == "aic":
        _check_densities(models)
    if options.refit is not None and not any(c.mixed and c.linear for c in models):
        raise OptionError("refit= is for linear mixed models, which have two likelihoods.", where=WHERE, do="Leave it out.")
    return how


def _check_densities(models: list[Candidate]) -> None:
    """Refused where some model has no likelihood, or where probabilities of values would meet densities."""
    for c in models:
        if c.problem.family.logpdf is None:
            do = "Use how='f' with models one within the other."
            raise Refused(f"family {c.problem.family.name!r} has no likelihood, so no AIC.", where="compare(how='aic')", do=do)
    if len({c.problem.family.discrete for c in models}) > 1:
        what = "probabilities of a discrete response and densities of a continuous one cannot be compared."
        raise Refused(what, where="compare(how='aic')", do="Compare models of one kind.")


def _check_nodes(models: list[Candidate]) -> None:
    nodes = {1 if c.problem.options.nagq is None else c.problem.options.nagq for c in models if c.mixed and not c.linear}
    if len(nodes) > 1:
        raise Refused(
            f"the likelihoods are approximated differently (nagq {' and '.join(map(str, sorted(nodes)))}).",
            where=WHERE,
            do="Fit all with the same nagq=.",
        )


# ---------------------------------------------------------------- tests
def _verdicts(
    how: str, pairs: list[tuple[Candidate, Candidate, Step]], largest: Candidate, options: Options
) -> tuple[list[Verdict], tuple[str, ...]]:
    """The test of each (smaller, larger, step), and what must be said of them."""
    if how == "aic":
        return [], ()
    if how == "boot":
        made = [bootstrap_test(a, b, s, options.n_boot or 1000, options.seed, options.n_jobs) for a, b, s in pairs]
        return [v for v, _ in made], tuple(dict.fromkeys(note for _, notes in made for note in notes))
    if how == "f" and largest.mixed:
        return _f_of_mixed(pairs, options.df)
    if how == "f":
        df2 = _df2(largest, options.df)
        scale = "σ²" if largest.linear else "the dispersion"
        said = f"{'χ²' if math.isinf(df2) else 'F'}: the drop in {'residual sum of squares' if largest.linear else 'deviance'} over {scale}"
        return [f_test(a, b, largest, df2) for a, b, _ in pairs], (f"{said} of the largest model",)
    if how == "rao":
        return [score_test(a, b, largest) for a, b, _ in pairs], ("score tests: the slope of the larger likelihood at the smaller fit",)
    notes = ["deviances in units of the dispersion of the largest model"] if by_moments(largest) else []
    return [likelihood_ratio(a, b, largest, s) for a, b, s in pairs], (*notes, *_of_variances(pairs))


def _of_variances(pairs: list[tuple[Candidate, Candidate, Step]]) -> list[str]:
    """What testing variances does to a likelihood ratio."""
    notes = []
    if any(s.variances == 1 for _, _, s in pairs):
        notes.append("p_boundary: ½ χ²(df − 1) + ½ χ²(df), for a variance cannot be negative")
        notes.append("p_value is too large where there is a p_boundary; with few groups that is still a little large")
    several = [b.name for _, b, s in pairs if s.variances > 1]
    if several:
        notes.append(f"{', '.join(several)}: several variances are tested at once, and p_value is too large; how='boot' would not be")
    return notes


def _df2(largest: Candidate, df: str) -> float:
    if df in ("satterthwaite", "kenward-roger"):
        raise Refused(f"df={df!r} is for linear mixed models.", where=WHERE, do="Use df='residual'.")
    return math.inf if df == "inf" else largest.fit.df_resid


def _f_of_mixed(pairs: list[tuple[Candidate, Candidate, Step]], df: str) -> tuple[list[Verdict], tuple[str, ...]]:
    """F tests of fixed effects, each in the larger model of its pair."""
    for a, b, s in pairs:
        if s.parameters != s.fixed or s.variances or a.mixed != b.mixed:
            what = f"how='f' tests fixed effects, and {a.name!r} and {b.name!r} differ in their random effects."
            raise Refused(what, where=WHERE, do="Use how='lrt'.")
    if df == "auto":
        df = "kenward-roger" if all(b.problem.method == "reml" for _, b, _ in pairs) else "satterthwaite"
    words = {"kenward-roger": "Kenward–Roger", "satterthwaite": "Satterthwaite"}.get(df, df)
    return [contrast_test(a, b, df) for a, b, _ in pairs], (f"degrees of freedom: {words}, each test in the larger of its two models",)


# ---------------------------------------------------------------- the table
def _frame(models: list[Candidate], verdicts: list[Verdict], how: str) -> pl.DataFrame:
    """model, npar, deviance, loglik and criteria (not for F tests of mixed models), then the columns of the tests."""
    mixed = any(c.mixed for c in models)
    columns: dict[str, Any] = {"model": [c.name for c in models], "npar": [int(c.fit.npar) for c in models]}
    if not (mixed and how == "f"):  # restricted likelihoods of different fixed parts
        columns |= _criteria(models, mixed)
    if not verdicts:
        return _without_nan(columns)
    for name in ("df1", "df2", "statistic", "p_value", "p_boundary", "p_mc_se"):
        values = [math.nan, *(getattr(v, name) for v in verdicts)]
        if name in ("df1", "statistic", "p_value") or not np.isnan([v for v in values if not math.isinf(v)]).all():
            columns[name] = values
    if not mixed:
        lost = [c.fit.deviance for c in models]
        columns["pre"] = [math.nan, *(1 - b / a if a > 0 else math.nan for a, b in pairwise(lost))]
    return _without_nan(columns)


def _criteria(models: list[Candidate], mixed: bool) -> dict[str, Any]:
    k, l = (np.array([getattr(c.fit, name) for c in models], dtype=float) for name in ("npar", "loglik"))
    n = np.array([c.problem.design.n_obs for c in models])
    aic = 2 * k - 2 * l
    with np.errstate(divide="ignore", invalid="ignore"):
        aicc = np.where(n - k - 1 > 0, aic + 2 * k * (k + 1) / (n - k - 1), np.nan)
    best = np.nanmin(aic) if not np.isnan(aic).all() else math.nan
    weight = np.exp(-(aic - best) / 2)
    deviance = {} if mixed else {"deviance": [c.fit.deviance for c in models]}
    criteria = {"loglik": l, "aic": aic, "aicc": aicc, "bic": np.log(n) * k - 2 * l}
    return {**deviance, **criteria, "aic_delta": aic - best, "aic_weight": weight / np.nansum(weight)}


def _without_nan(columns: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(columns).with_columns(pl.selectors.float().fill_nan(None))
