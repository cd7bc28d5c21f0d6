"""Would the study find it? Simulate, fit and infer again and again, for every n, effect and number of groups in question.

    power_frame(recipe, settings, seed) → one row for each cell and coefficient

Replicate i has a stream of its own, the same in every cell: nothing but time depends on `n_jobs` or on which other cells are asked for,
and differences between cells are sharper than their intervals say. Where all replicates share one design they are one `Plan` of
responses, refitted by `estimate.many` like any bootstrap; else each is drawn, encoded and fitted on its own.

Source: Wilson (1927) for the intervals of rates; Morris, White & Crowther (2019) for the quantities reported.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from statistics import NormalDist
from typing import Any

import attrs
import numpy as np
import polars as pl
from attrs import evolve, field, frozen

from .errors import BossaWarning, ConvergenceWarning, DataError, FitFailed, OptionError, Refused, warn
from .estimate import registry
from .estimate.many import REASONS, each, refit
from .generate import WHERE, Population, Recipe, check, covariates, draw, draws, population, problem
from .infer import find_backend, infer, read_options
from .infer.covariance import covariance
from .infer.progress import progress_bar
from .kernels.intervals import t_limits, t_tail
from .kernels.streams import entropy, stream
from .state.design import Problem
from .state.distributions import Column, Factor
from .state.fields import choice, integer, workers
from .state.fit import FitState
from .state.inference import InferenceState
from .state.plan import Plan
from .state.target import Target
from .types import Floats

Seed = int | tuple[int, ...]
Tick = Callable[[int], None] | None
CHUNK = 20  # replicates that a worker takes at a time
PLAIN = {"conf_level", "null", "alternative", "errors", "df"}  # options of asymp that need no more of a refit than estimate and se


def _level(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)) or not 0 < value < 1:
        raise OptionError(f"alpha={value!r} is not between 0 and 1.", where="simulate(power=…)")


@frozen(kw_only=True)
class Settings:
    """replicates of each cell;  how, options: of infer();  alpha;  design "new" columns in every replicate, or one "fixed";  n_jobs."""

    owner = "simulate(power=…)"
    power: int = integer(200, 1)
    how: str = "asymp"
    alpha: float = field(default=0.05, validator=_level)
    options: Mapping[str, Any] = field(factory=dict)
    design: str = choice("new", among=("new", "fixed"))
    n_jobs: int | None = workers()


@frozen(kw_only=True, eq=False)
class Results:
    """What R replicates said of K coefficients or tests, NaN where one failed.   estimate, se, p, lower, upper (R, K); reasons (R,)"""

    names: tuple[str, ...]
    estimate: np.ndarray
    se: np.ndarray
    p: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    reasons: tuple[str, ...]


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings from arguments of `simulate()`, None meaning the default.   raises  OptionError for those without `power=`"""
    said = {name: value for name, value in given.items() if value is not None}
    if said and "power" not in said:
        raise OptionError(f"{next(iter(said))}= is for power analysis.", where=WHERE, do="Give power=200, the number of replicates.")
    if not isinstance(said.get("options", {}), Mapping):
        raise OptionError(f"options={said['options']!r} is not a dict.", where=WHERE, do="Write options={'errors': 'HC3'}.")
    return Settings(**said)


def power_frame(recipe: Recipe, settings: Settings, seed: Any) -> pl.DataFrame:
    """One row for each cell and coefficient (how="joint": each term): power with its 95 % Wilson limits, bias, coverage and failures."""
    seeds = entropy(seed, WHERE)
    options = _options(settings)
    cells = list(swept(recipe))
    for _, cell in cells:
        check(cell)
    frames = []
    with progress_bar("auto", settings.power * len(cells), "power") as tick:
        for labels, cell in cells:
            results, truth, rows = replicated(cell, settings, options, seeds, tick)
            frames.append(summary(labels, rows, results, truth, settings, seeds))
            if len(results.reasons) < settings.power:  # Ctrl-C: what is done so far, its `replicates` says how much
                break
    return pl.concat(frames, how="vertical_relaxed")


def _options(settings: Settings) -> dict[str, Any]:
    """Options of the how, checked once, with the level that alpha implies."""
    options = dict(settings.options)
    known = {f.name for f in attrs.fields(find_backend(settings.how).options)}
    if "seed" in options or "n_jobs" in options:
        raise OptionError("seed and n_jobs belong to simulate().", where="simulate(options=)", do="Give them there.")
    if "conf_level" in options:
        raise OptionError("intervals have level 1 - alpha.", where="simulate(options=) conf_level=", do="Give simulate(alpha=).")
    if "conf_level" in known:
        options["conf_level"] = 1 - settings.alpha
    if "progress" in known:
        options.setdefault("progress", False)
    read_options(settings.how, options)
    return options


def swept(recipe: Recipe) -> Iterator[tuple[dict[str, Any], Recipe]]:
    """(labels, recipe) of every cell: all combinations of what was given as a list, in the order n, columns, sigma, coef."""
    axes: list[list[tuple[str, str, str, Any]]] = [[("n", "n", "", v) for v in recipe.n]] if _is_list(recipe.n) else []
    for name, value in recipe.columns.items():
        if isinstance(value, (list, tuple)) and value and all(isinstance(v, Column) for v in value):
            axes.append([(name, "columns", name, v) for v in value])
    axes += [[("sigma", "sigma", "", v) for v in recipe.sigma]] if _is_list(recipe.sigma) else []
    if isinstance(recipe.coef, Mapping):
        axes += [[(f"coef_{name}", "coef", name, v) for v in value] for name, value in recipe.coef.items() if _is_list(value)]
    if any(not axis for axis in axes):
        raise OptionError("an empty list has nothing to go through.", where=WHERE)
    for choices in product(*axes):
        cell, labels = recipe, {}
        for label, part, name, value in choices:
            labels[label] = getattr(value, "count", repr(value)) if isinstance(value, Column) else value
            changed: dict[str, Any] = {part: value if not name else {**getattr(cell, part), name: value}}
            cell = evolve(cell, **changed)
        yield labels, cell


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, range, np.ndarray))


# ---------------------------------------------------------------- replicates
@frozen(eq=False)
class PopulationDraw:
    """Responses of one population for a `Plan`: replicate i from its own stream, whatever the blocks."""

    people: Population
    seed: Seed

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> Floats:
        return draws(self.people, [stream(self.seed, i + 1) for i in range(start, start + b)])


def replicated(recipe: Recipe, settings: Settings, options: dict[str, Any], seed: Seed, tick: Tick = None) -> tuple[Results, Floats, int]:
    """All replicates of one cell, the true coefficients (K,) and the number of rows."""
    frame = covariates(recipe, stream(seed, 0))
    people = population(recipe, frame)
    fixed = settings.design == "fixed" or not any(isinstance(what, Column) for what in recipe.columns.values())
    if fixed and settings.how == "asymp" and set(options) <= PLAIN and options.get("errors", "iid") == "iid":
        results = refitted(people, settings, options, seed, tick)
        if results is not None:
            return results, people.coef, frame.height
    work = Work(recipe=recipe, people=people if fixed else None, how=settings.how, options=options, seed=seed)
    indices = [range(i, min(i + CHUNK, settings.power)) for i in range(0, settings.power, CHUNK)]
    rows: list[Row] = []
    try:
        for chunk in each(work, indices, settings.n_jobs):
            rows += chunk
            if tick is not None:
                tick(len(chunk))
    except KeyboardInterrupt:
        if not rows:
            raise
    return gathered(rows, people.design.columns), people.coef, frame.height


def refitted(people: Population, settings: Settings, options: dict[str, Any], seed: Seed, tick: Tick = None) -> Results | None:
    """Wald tests of every replicate of one design by one refit of a plan; None where they need more of a fit than that keeps."""
    plan = Plan(
        scheme="power",
        unit="response",
        n=settings.power,
        rows=people.design.n,
        seed=seed,
        draw=PopulationDraw(people, seed),
        said="draws every response from the assumed distribution",
    )
    start = _first_fit(people, settings.power, seed)
    if start is None:
        return None
    fitted, fit = start
    reference = covariance(fitted, fit, "iid", None, options.get("df", "auto"))
    own = reference.rule == "satterthwaite"  # df differ from replicate to replicate
    if (reference.parts is not None and not own) or not fit.kept.all():
        return None
    then = None
    if own:
        from .infer.df import with_satterthwaite  # brings the mixed-model kernels, which other designs do not need

        then = with_satterthwaite
    draws = refit(fitted, fit, plan, n_jobs=settings.n_jobs, tick=tick, then=then)
    if draws.se is None:
        return None
    chosen = read_options("asymp", options)
    null, side = 0.0 if chosen.null is None else chosen.null, chosen.alternative
    good = draws.code == 0
    estimate, se = (np.where(good[:, None], x, np.nan) for x in (draws.coef, draws.se))
    df = np.full(estimate.shape, reference.number) if draws.df is None else draws.df
    with np.errstate(divide="ignore", invalid="ignore"):
        p = t_tail((estimate - null) / se, df, side)
        lower, upper = t_limits(estimate.ravel(), se.ravel(), df.ravel(), chosen.conf_level, side).reshape(2, *estimate.shape)
    reasons = tuple("" if g else REASONS[int(c)] for g, c in zip(good, draws.code))
    return Results(names=fitted.design.names, estimate=estimate, se=se, p=p, lower=lower, upper=upper, reasons=reasons)


def _first_fit(people: Population, replicates: int, seed: Seed) -> tuple[Problem, FitState] | None:
    """The first replicate that can be fitted, among the first few hundred: where the refits start."""
    for i in range(min(replicates, 256)):
        try:
            fitted, fit = _fit(problem(people, draw(people, stream(seed, i + 1))))
        except (FitFailed, DataError):
            continue
        if fit.outcome.status not in ("failed", "suspect"):
            return fitted, fit
    return None


def _fit(asked: Problem) -> tuple[Problem, FitState]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)  # failures are counted instead
        return registry.fit(asked)


Row = tuple[str, tuple[str, ...], dict[str, Floats]]


@frozen(kw_only=True, eq=False)
class Work:
    """One cell's replicates, each simulated, fitted and inferred on its own; pickles, so workers can take it.

    people  the one design of all replicates; None: new columns for each
    """

    recipe: Recipe
    people: Population | None
    how: str
    options: Mapping[str, Any]
    seed: Seed

    def __call__(self, indices: range) -> list[Row]:
        return [self.replicate(i) for i in indices]

    def replicate(self, i: int) -> Row:
        """(reason why it failed or "", names, numbers by name)."""
        rng, people = stream(self.seed, i + 1), self.people
        if people is None:
            frame = covariates(self.recipe, rng)
            if lacking(self.recipe, frame):
                return "a level did not occur", (), {}
            people = population(self.recipe, frame)
        asked = problem(people, draw(people, rng))
        try:
            fitted, fit = _fit(asked)
        except (FitFailed, DataError) as error:
            return error.what.split(":")[0].rstrip("."), (), {}
        if not fit.kept.all():
            return REASONS[1], (), {}
        if fit.outcome.status in ("failed", "suspect"):
            return REASONS[2], (), {}
        return "", *self.inferred(fitted, fit, rng)

    def inferred(self, fitted: Problem, fit: FitState, rng: np.random.Generator) -> tuple[tuple[str, ...], dict[str, Floats]]:
        options = dict(self.options)
        if self.how != "asymp" and "seed" in {f.name for f in attrs.fields(find_backend(self.how).options)}:
            options["seed"] = int(rng.integers(2**63))
        target = Target(labels=pl.DataFrame({"term": list(fitted.design.names)}), kind="params")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BossaWarning)
            state = infer(fitted, fit, target, self.how, options)
        if not isinstance(state, InferenceState):  # joint tests: of terms, which have no one coefficient
            return tuple(state.frame["term"]), {"p": state.frame["p_value"].to_numpy()}
        if state.p_value is None and state.interval is None:
            raise Refused(f"how={self.how!r} tests nothing.", where="simulate(power=…)", do="Use how='asymp', 'boot', 'perm' or 'joint'.")
        found = {"estimate": fit.coef, "se": state.se, "p": state.p_value}
        if state.interval is not None:
            found |= {"lower": state.interval[0], "upper": state.interval[1]}
        return fitted.design.names, {k: np.asarray(v) for k, v in found.items() if v is not None}


def lacking(recipe: Recipe, frame: pl.DataFrame) -> bool:
    """Does a level of some factor not occur?"""
    factors = [(name, what) for name, what in recipe.columns.items() if isinstance(what, Factor)]
    return any(frame.get_column(name).n_unique() < len(what.levels) for name, what in factors)


def gathered(rows: list[Row], columns: tuple[str, ...]) -> Results:
    """The replicates' rows as arrays (R, K)."""
    names = next((names for reason, names, _ in rows if not reason), columns)
    nothing = np.full(len(names), np.nan)
    stacked = {part: np.array([found.get(part, nothing) for _, _, found in rows]) for part in ("estimate", "se", "p", "lower", "upper")}
    return Results(names=names, reasons=tuple(reason for reason, _, _ in rows), **stacked)


# ---------------------------------------------------------------- what they say
def summary(labels: dict[str, Any], rows: int, results: Results, truth: Floats, settings: Settings, seed: Seed) -> pl.DataFrame:
    """The frame of one cell."""
    good = np.array([not reason for reason in results.reasons])
    R, K = int(good.sum()), len(results.names)
    failed = Counter(reason for reason in results.reasons if reason)
    _warn(failed, len(results.reasons), labels)
    estimate, se, p, lower, upper = (x[good] for x in (results.estimate, results.se, results.p, results.lower, results.upper))
    true = truth if len(truth) == K and settings.how != "joint" else np.full(K, np.nan)
    null = settings.options.get("null") or 0.0
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing: null in the frame
        beyond = (lower > null) | (upper < null)
        hits = np.where(np.isnan(p), beyond, p < settings.alpha).sum(axis=0)
        known = ~(np.isnan(lower) | np.isnan(upper)).all(axis=0)
        covered = ((lower <= true) & (true <= upper)).mean(axis=0)
        low, high = wilson(hits, R)
        numbers = {
            "true": true,
            "power": hits / R if R else np.full(K, np.nan),
            "power_lower": low,
            "power_upper": high,
            "bias": estimate.mean(axis=0) - true,
            "sd": estimate.std(axis=0, ddof=1) if R > 1 else np.full(K, np.nan),
            "mean_se": se.mean(axis=0),
            "coverage": np.where(known & np.isfinite(true), covered, np.nan),
        }
    frame = pl.DataFrame({"n": [rows] * K} | {name: [value] * K for name, value in labels.items()})
    reasons = "; ".join(f"{count} {reason}" for reason, count in failed.most_common())
    return frame.with_columns(
        pl.Series("term", results.names, dtype=pl.String),
        *(pl.Series(name, np.asarray(x, dtype=float), nan_to_null=True) for name, x in numbers.items()),
        replicates=pl.lit(R, dtype=pl.Int64),
        failed=pl.lit(sum(failed.values()), dtype=pl.Int64),
        reasons=pl.lit(reasons),
        seed=pl.lit(str(seed)),
    )


def wilson(hits: np.ndarray, n: int) -> tuple[Floats, Floats]:
    """95 % limits of a rate from `hits` (K,) of n trials: those rates from which the observed one is no further than z standard errors.

    Source: Wilson (1927).
    """
    if not n:
        return np.full(len(hits), np.nan), np.full(len(hits), np.nan)
    z, rate = NormalDist().inv_cdf(0.975), hits / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    lower, upper = np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)
    return np.where(hits == 0, 0.0, lower), np.where(hits == n, 1.0, upper)  # exactly, which rounding misses


def _warn(failed: Counter[str], replicates: int, labels: Mapping[str, Any]) -> None:
    share = sum(failed.values()) / replicates
    if share > 0.1:
        where = ", ".join(f"{name} {value}" for name, value in labels.items()) or "the design"
        reasons = ", ".join(f"{count} {reason}" for reason, count in failed.most_common())
        warn(
            f"{share:.0%} of the replicates of {where} failed ({reasons}); the rates describe only the data that can be fitted.",
            ConvergenceWarning,
        )
