"""What would the data look like, if the world were as I assume? Data from a formula and assumed parameters.

    Recipe → covariates(recipe, rng)  frame  → population(recipe, frame)  → draw(population, rng)  (n,)

The columns are made first (`design.draw`), then encoded by the same `Encoder` as real data, so that every factor, transform, power,
interaction and random slope of the formula is what it is in a fit:

    η = Xβ + offset + Zb,   b_g ~ N(0, Σ),   y ~ f(y | g⁻¹(η), σ²)

Nothing is assumed silently: a coefficient without a value is an error, unless `default=` gives one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve, frozen

from .design.assumed import coefficients, finite_number, term_roots
from .design.draw import WHERE, draw_frame, is_given, row_count
from .design.encode import encode
from .design.encoder import Encoder
from .design.formula import data_names, resolve
from .design.terms import DOT
from .errors import DataError, NotFitted, OptionError, Refused, UnknownColumn, UnknownOption
from .kernels.scatter import impossible, scattered
from .kernels.streams import entropy, stream
from .state.design import Design, Problem
from .state.distributions import Column
from .state.fields import array, check_axes
from .state.inference import SimulationState
from .state.spec import Call, Expr, Name, Operation, Spec
from .types import Floats


@frozen(kw_only=True, eq=False)
class Recipe:
    """What the user assumes.

    A list where one value belongs is gone through by `power`.

    coef     {name: value} by coefficient name;  default: of those not named (None: an error)
    sigma    residual standard deviation, √φ; None where the family has none
    varying  {grouping factor: standard deviations and correlations, or a covariance matrix}
    columns  {name: normal(…), factor(…), groups(…), an array, a number};  data: frame that has the others;  n: rows
    """

    spec: Spec
    coef: Mapping[str, Any]
    default: float | None = None
    sigma: Any = None
    varying: Mapping[str, Any] | None = None
    columns: Mapping[str, Any]
    data: pl.DataFrame | None = None
    n: Any = None


@frozen(kw_only=True, eq=False)
class Population:
    """The rows and the distribution of their response.

    design  of the rows that can be used, its weights holding the trials;  data: their frame;  coef (P,) of its columns
    eta     (n,)  fixed part with offset;  roots: L (k, k) of each random-effects term, Cov(b) = LLᵀ
    """

    spec: Spec
    encoder: Encoder
    design: Design
    data: pl.DataFrame
    coef: np.ndarray = array("P")
    eta: np.ndarray = array("n")
    roots: tuple[np.ndarray, ...] = ()
    dispersion: float = 1.0

    __attrs_post_init__ = check_axes


def generated(recipe: Recipe, nsim: int, seed: Any) -> tuple[pl.DataFrame, SimulationState]:
    """A frame with its first simulated response, and all nsim responses; the covariates are the same for all.

    Stream 0 draws the covariates, stream i the i-th response.
    """
    check(recipe)
    seeds = entropy(seed, WHERE)
    frame = covariates(recipe, stream(seeds, 0))
    people = population(recipe, frame)
    values = np.empty((people.design.n, nsim), order="F")
    for i in range(nsim):
        values[:, i] = draw(people, stream(seeds, i + 1))
    full = with_response(people, frame, values[:, 0])
    trials = _trials(recipe.spec)
    if trials is not None:
        values = np.round(values * np.asarray(people.design.weights)[:, None])
    notes = (f"seed: {seeds}", *_said(recipe, people), *people.design.notes)
    return full, SimulationState(rows=people.design.rows, values=values, seed=seeds, notes=notes)


def _said(recipe: Recipe, people: Population) -> Iterator[str]:
    yield "simulated with " + ", ".join(f"{name} = {b:.6g}" for name, b in zip(people.design.columns, people.coef))
    if recipe.sigma is not None:
        yield f"sigma = {recipe.sigma:.6g}"
    for term, L in zip(() if people.design.random is None else people.design.random.terms, people.roots):
        sd = np.sqrt((L**2).sum(axis=1))
        said = ", ".join(f"{name} = {s:.6g}" for name, s in zip(term.names, sd))
        pairs = [(i, j) for j in range(len(sd)) for i in range(j + 1, len(sd)) if L[i] @ L[j] != 0.0]
        corr = ", ".join(f"{term.names[j]}, {term.names[i]} = {L[i] @ L[j] / (sd[i] * sd[j]):.6g}" for i, j in pairs)
        yield f"random effects of {term.factor}: sd {said}" + (f"; corr {corr}" if corr else "")


# ---------------------------------------------------------------- at the door
def refuse_parts(spec: Spec, given: Mapping[str, Any], fit: Any) -> None:
    """Without coef= only a fit can be simulated from, and what belongs to data from nothing has no use."""
    wanted = [name for name, value in given.items() if value is not None]
    where = f"model({spec.formula!r}).simulate()"
    if wanted and fit is not None and wanted[0] not in OPTIONS:
        raise UnknownOption(wanted[0], ("nsim", "seed", "varying"), where="simulate() of a fit")
    if wanted:
        what = f"{wanted[0]}= is for data from nothing, and no coefficients are given."
        raise OptionError(what, where=where, do="Give coef={…}; of a fit, only nsim, seed and varying can be said.")
    if fit is None:
        do = "Write m = m.fit() and ask that, or give coef={…} to simulate from nothing."
        raise NotFitted("this model is not fitted yet, so there is nothing to simulate from.", where=where, do=do)


def check(recipe: Recipe) -> None:
    """All that can be known to be wrong before a row is drawn."""
    spec = recipe.spec
    names = response_names(spec)
    if spec.family.sample is None:
        raise Refused(f"family {spec.family.name!r} has no distribution to draw from.", where=WHERE, do="Use a full family.")
    spec.family.check_link(spec.link, WHERE)
    if spec.freq_weights is not None:
        raise Refused("simulated rows are drawn one by one, so counts have no use.", where=f"{WHERE} freq_weights=", do="Leave them out.")
    if not isinstance(recipe.coef, Mapping):
        raise OptionError(
            f"coef={recipe.coef!r:.60} is not a dict of coefficients.", where=WHERE, do="Write coef={'Intercept': 0, 'x': 0.5}."
        )
    for name, value in [*recipe.coef.items(), *([] if recipe.default is None else [("default", recipe.default)])]:
        finite_number(value, f"coef of {name!r}" if name != "default" else "default")
    _check_sigma(recipe)
    for name in names:
        if name in recipe.columns:
            raise OptionError(f"{name!r} is the response, which is what is simulated.", where=WHERE, do="Leave it out.")
    _check_columns(recipe)


def _check_sigma(recipe: Recipe) -> None:
    family, sigma = recipe.spec.family, recipe.sigma
    if family.dispersion == "one":
        if sigma is not None:
            raise OptionError(
                f"family {family.name!r} has no residual standard deviation.", where=f"simulate(sigma={sigma!r})", do="Leave it out."
            )
    elif sigma is None:
        what = "the residual standard deviation" if family.name == "gaussian" else "the root of the dispersion"
        raise OptionError(f"{what} is not said.", where=WHERE, do="Give sigma=.")
    elif not finite_number(sigma, "sigma") > 0:
        raise OptionError(f"sigma={sigma!r} is not positive.", where=WHERE)


def _check_columns(recipe: Recipe) -> None:
    """Every column that the formula reads is described; what is described and not read is a column, not a typo."""
    there = [*recipe.columns, *(() if recipe.data is None else recipe.data.columns)]
    read = list(dict.fromkeys(columns_read(recipe.spec)))
    for name in read:
        if name not in there:
            what = f"{name!r} has no values." if name != "trials" else "the number of trials of each row is not said."
            raise OptionError(what, where=WHERE, do=f"Give {name}=normal(0, 1), factor('a', 'b'), groups(20), an array, or a number.")
    dotted = any(DOT in term.factors for term in recipe.spec.fixed)
    for name, what in recipe.columns.items():
        if isinstance(what, (list, tuple)) and any(isinstance(w, Column) for w in what):
            raise OptionError(f"{name!r} is said in {len(what)} ways.", where=WHERE, do="Give one; for power= a list of descriptions.")
        if name not in read and not dotted and not isinstance(what, Column) and not is_given(what):
            raise UnknownOption(name, [*read, *OPTIONS], where=WHERE, kind="column")


OPTIONS = ("nsim", "data", "n", "coef", "default", "sigma", "varying", "seed", "power", "how", "alpha", "options", "design", "n_jobs")


def columns_read(spec: Spec) -> Iterator[str]:
    """Names of the columns that the right side, weights, offsets and trials read, in order."""
    exprs: list[Expr] = [f for term in spec.fixed for f in term.factors if f != DOT]
    exprs += [
        *spec.offsets,
        *(f for bar in spec.bars for term in bar.lhs for f in term.factors),
        *(f for bar in spec.bars for f in bar.factor),
    ]
    for expr in exprs:
        yield from (name for name in data_names(expr) if name not in spec.env)
    yield from (name for name in (spec.weights, spec.offset, _trials(spec)) if name is not None)


# ---------------------------------------------------------------- the response
def response_names(spec: Spec) -> tuple[str, ...]:
    """Columns that the response is made of.   raises  Refused for a response that is computed from others"""
    expr = spec.response
    if isinstance(expr, Name):
        return (expr.id,)
    if expr is None:
        raise OptionError(f"formula {spec.formula!r} has no response to simulate.", where=WHERE, do="Write 'y ~ …'.")
    if isinstance(expr, Call) and expr.function == "cbind" and len(expr.args) == 2:
        success, other = expr.args
        if not isinstance(success, Name):
            raise _computed(expr)
        if spec.weights is not None or spec.family.weights != "trials":
            do = "Use family='binomial' without weights=."
            raise Refused("cbind() counts successes and failures of binomial trials.", where=WHERE, do=do)
        if isinstance(other, Name):
            return (success.id, other.id)
        if isinstance(other, Operation) and other.op == "-" and isinstance(other.args[0], Name) and other.args[1:] == (success,):
            return (success.id,)
    raise _computed(expr)


def _computed(expr: Expr) -> Refused:
    return Refused(
        f"the response {expr} is computed from a column, which a draw does not give back.",
        where=WHERE,
        do="Simulate a plain response and transform it, or write cbind(y, size - y).",
    )


def _trials(spec: Spec) -> str | None:
    """Column of the trials of a cbind() response: the one named there, or "trials"."""
    if not isinstance(spec.response, Call):
        return None
    other = spec.response.args[1]
    return str(other.args[0]) if isinstance(other, Operation) else "trials"


def response_columns(people: Population, y: Floats) -> list[pl.Series]:
    """The response y (n,) as the column(s) of the formula: counts where it counts, successes and failures of cbind()."""
    spec, weights = people.spec, people.design.weights
    names = response_names(spec)
    if _trials(spec) is not None:
        assert weights is not None
        successes = np.round(y * weights)
        return [pl.Series(name, x.astype(np.int64)) for name, x in zip(names, (successes, weights - successes))]
    proportion = spec.family.weights == "trials" and weights is not None
    return [pl.Series(names[0], y.astype(np.int64) if spec.family.discrete and not proportion else y)]


def with_response(people: Population, frame: pl.DataFrame, y: Floats) -> pl.DataFrame:
    """The frame with the response as its first column(s), null in rows that could not be used."""
    made = response_columns(people, y)
    if people.design.n < frame.height:
        place = np.full(frame.height, len(y))
        place[people.design.rows] = np.arange(len(y))
        made = [s.extend_constant(None, 1).gather(place) for s in made]
    names = [s.name for s in made]
    return pl.DataFrame([*made, *(s for s in frame.get_columns() if s.name not in names)])


# ---------------------------------------------------------------- rows and parameters
def covariates(recipe: Recipe, rng: np.random.Generator) -> pl.DataFrame:
    """The frame without the response."""
    names = response_names(recipe.spec)
    data = None if recipe.data is None else recipe.data.drop(names, strict=False)
    return draw_frame(recipe.columns, row_count(recipe.columns, recipe.n, data), rng, data)


def population(recipe: Recipe, frame: pl.DataFrame) -> Population:
    """The rows of a frame with the parameters assumed.   raises  for parameters that do not fit the formula's columns"""
    spec = resolve(evolve(recipe.spec, response=None), frame)
    encoder, design, used = encode(spec, frame)
    spec = evolve(spec, response=recipe.spec.response)
    coef = coefficients(design.columns, recipe.coef, recipe.default)
    trials = _trials(spec)
    if trials is not None:
        design = evolve(design, weights=_whole(used, trials))
    roots = term_roots(() if design.random is None else design.random.terms, recipe.varying)
    eta = design.X @ coef
    people = Population(
        spec=spec,
        encoder=encoder,
        design=design,
        data=used,
        coef=coef,
        eta=eta if design.offset is None else eta + design.offset,
        roots=roots,
        dispersion=1.0 if recipe.sigma is None else float(recipe.sigma) ** 2,
    )
    _mean(people, people.eta, "coefficients")
    return people


def _whole(frame: pl.DataFrame, name: str) -> Floats:
    if name not in frame.columns:
        raise UnknownColumn(name, frame.columns, where=WHERE)
    trials = frame.get_column(name).cast(pl.Float64, strict=False).to_numpy()
    if not np.isfinite(trials).all() or (trials < 1).any() or (trials != np.floor(trials)).any():
        raise DataError(f"{name!r} holds the trials of each row, which are whole numbers of at least 1.", where=WHERE)
    return trials


def _mean(people: Population, eta: Floats, whose: str) -> Floats:
    """g⁻¹(η), η (…, n).   raises  OptionError where the family cannot have it"""
    family, link = people.spec.family, people.spec.link
    with np.errstate(all="ignore"):
        mu = np.asarray(link.inverse(eta))
    wrong = impossible(family, mu) | (eta <= link.eta_low)
    if wrong.any():
        bad, rows = mu.flat[np.argmax(wrong)], f"{int(wrong.sum())} of {mu.size} rows"
        what = f"the {whose} give a mean of {bad:.4g} in {rows}, which {family.name!r} cannot have."
        raise OptionError(what, where=WHERE, do="Change them, or use another link.")
    return mu


# ---------------------------------------------------------------- draws
def draw(people: Population, rng: np.random.Generator) -> Floats:
    """One response (n,), a proportion where rows hold several trials: random effects first, then the rows."""
    return draws(people, [rng])[0]


def draws(people: Population, rngs: Sequence[np.random.Generator]) -> Floats:
    """A response from each generator (b, n)."""
    eta, random = np.tile(people.eta, (len(rngs), 1)), people.design.random
    if random is not None:
        for row, rng in zip(eta, rngs):
            row += scattered(rng, random.terms, people.roots)
    mu = _mean(people, eta, "random effects")
    family, weights = people.spec.family, people.design.weights
    return np.stack([family.sample(rng, row, people.dispersion, weights) for rng, row in zip(rngs, mu)])


def problem(people: Population, y: Floats) -> Problem:
    """The fitting problem that this response would be, without encoding the rows again."""
    spec = people.spec
    return Problem(
        design=evolve(people.design, y=y),
        spec=spec,
        family=spec.family,
        link=spec.link,
        method=spec.method,
        encoder=evolve(people.encoder, spec=spec),
        data=people.data.with_columns(response_columns(people, y)),
    )
