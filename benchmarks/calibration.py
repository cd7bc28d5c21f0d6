"""Are the p-values and intervals what they say? How often they are wrong about simulated data whose truth is known.

    OPENBLAS_NUM_THREADS=1 POLARS_MAX_THREADS=1 python benchmarks/calibration.py --out runs.jsonl [--cells TEXT …] [--sims N] [--jobs N]
    python benchmarks/calibration.py --out runs.jsonl --draw docs          → docs/calibration.json, docs/calibration-*.png

A cell is a scenario (how data come about, and the model fitted to them) × a way to infer. Data set i of a scenario has its own stream, the
same for all its cells; the null tested is the truth, so every rejection at 5 % and every 95 % interval without the truth is an error.
The row asked for is the one after the intercept, `x`; of "sd: …" the standard deviation of the groups. Each finished chunk is a line of
--out: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from attrs import field, frozen
from scipy.special import ndtri

from bossa import model
from bossa.errors import BossaWarning, FitFailed

CHUNK = 50
Make = Callable[[np.random.Generator], dict[str, Any]]


# ---------------------------------------------------------------- how data come about
def correlated(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """x and z with correlation 0.8."""
    z = rng.normal(size=n)
    return z + 0.75 * rng.normal(size=n), z


def partial(rng: np.random.Generator) -> dict[str, Any]:
    x, z = correlated(rng, 24)
    return {"x": x, "z": z, "y": 2 * z + rng.normal(size=24)}


def shifted(rng: np.random.Generator) -> dict[str, Any]:
    x = rng.normal(size=24)
    return {"x": x, "y": 2 * x + rng.normal(size=24)}


def tiny(rng: np.random.Generator) -> dict[str, Any]:
    return {"x": rng.normal(size=10), "y": rng.normal(size=10)}


def skewed(rng: np.random.Generator) -> dict[str, Any]:
    x = rng.exponential(size=40)
    return {"x": x, "z": x + rng.exponential(size=40), "y": rng.exponential(size=40)}


def unequal(rng: np.random.Generator) -> dict[str, Any]:
    x, z = correlated(rng, 60)
    return {"x": x, "z": z, "y": x + z + (0.3 + np.abs(x)) * rng.normal(size=60)}


def two_groups(rng: np.random.Generator) -> dict[str, Any]:
    few = np.repeat([True, False], [6, 18])
    return {"x": np.where(few, "few", "many"), "y": rng.normal(size=24) * np.where(few, 3.0, 1.0)}


def clusters(rng: np.random.Generator, G: int, size: int) -> dict[str, Any]:
    """x differs between clusters alone, which share an error as large as the rows' own."""
    c = np.repeat(np.arange(G), size)
    return {"c": c, "x": rng.normal(size=G)[c], "y": rng.normal(size=G)[c] + rng.normal(size=G * size)}


def many_clusters(rng: np.random.Generator) -> dict[str, Any]:
    return clusters(rng, 30, 5)


def few_clusters(rng: np.random.Generator) -> dict[str, Any]:
    return clusters(rng, 10, 5)


def blocks(rng: np.random.Generator) -> dict[str, Any]:
    """Six blocks whose levels of y and of x go together; inside a block x says nothing about y."""
    c, level = np.repeat(np.arange(6), 6), rng.normal(size=6)
    return {"c": c, "x": level[c] + rng.normal(size=36), "y": 2 * level[c] + rng.normal(size=36)}


def logistic(rng: np.random.Generator) -> dict[str, Any]:
    x, z = correlated(rng, 80)
    return {"x": x, "z": z, "y": (rng.random(80) < 1 / (1 + np.exp(-z))).astype(int)}


def whole(rng: np.random.Generator) -> dict[str, Any]:
    return {"x": rng.normal(size=24), "y": (rng.random(24) < 0.5).astype(int)}


def counts(rng: np.random.Generator) -> dict[str, Any]:
    x = rng.normal(size=30)
    return {"x": x, "y": rng.poisson(np.exp(0.5 + 0.5 * x))}


def overdispersed(rng: np.random.Generator) -> dict[str, Any]:
    x, z = correlated(rng, 100)
    return {"x": x, "z": z, "y": rng.poisson(np.exp(1 + 0.3 * z) * rng.gamma(1.0, 1.0, size=100))}


def clustered_logistic(rng: np.random.Generator) -> dict[str, Any]:
    c = np.repeat(np.arange(40), 8)
    return {"c": c, "x": rng.normal(size=40)[c], "y": (rng.random(320) < 1 / (1 + np.exp(-rng.normal(size=40)[c]))).astype(int)}


def mixed(rng: np.random.Generator) -> dict[str, Any]:
    """Twelve groups of five; x and z inside groups."""
    c = np.repeat(np.arange(12), 5)
    x, z = correlated(rng, 60)
    return {"c": c, "x": x, "z": z, "y": z + rng.normal(size=12)[c] + rng.normal(size=60)}


def mixed_between(rng: np.random.Generator) -> dict[str, Any]:
    return clusters(rng, 12, 5)


def mixed_slopes(rng: np.random.Generator) -> dict[str, Any]:
    c, x = np.repeat(np.arange(10), 8), np.tile(np.linspace(-1, 1, 8), 10)
    return {"c": c, "x": x, "y": rng.normal(size=10)[c] + (1 + 0.7 * rng.normal(size=10)[c]) * x + rng.normal(size=80)}


def mixed_rough(rng: np.random.Generator) -> dict[str, Any]:
    """Skewed group effects, and errors whose spread grows with x: not the model's distribution."""
    c, x = np.repeat(np.arange(20), 5), rng.normal(size=100)
    return {"c": c, "x": x, "y": x + rng.exponential(size=20)[c] + (0.3 + np.abs(x)) * rng.normal(size=100)}


def mixed_logistic(rng: np.random.Generator) -> dict[str, Any]:
    c, x = np.repeat(np.arange(20), 6), rng.normal(size=120)
    return {"c": c, "x": x, "y": (rng.random(120) < 1 / (1 + np.exp(-(x + rng.normal(size=20)[c])))).astype(int)}


def mixed_counts(rng: np.random.Generator) -> dict[str, Any]:
    c = np.repeat(np.arange(15), 4)
    x = rng.normal(size=15)[c]
    return {"c": c, "x": x, "y": rng.poisson(np.exp(0.5 + 0.5 * x + 0.6 * rng.normal(size=15)[c]))}


@frozen
class Scenario:
    """truth: of the row x;  sd: of the groups' standard deviation, where it is asked for."""

    kind: str
    make: Make
    said: str
    formula: str = "y ~ x"
    options: dict[str, Any] = field(factory=dict)
    truth: float = 0.0
    sd: float = 1.0


SCENARIOS = {
    "lm partial": Scenario("lm", partial, "x beside a predictor it goes with (r = 0.8), n = 24", "y ~ x + z"),
    "lm null 2": Scenario("lm", shifted, "true slope 2, null = 2, n = 24", truth=2.0),
    "lm tiny": Scenario("lm", tiny, "n = 10"),
    "lm skewed": Scenario("lm", skewed, "exponential errors and predictors, n = 40", "y ~ x + z"),
    "lm unequal": Scenario("lm", unequal, "errors that grow with |x|, n = 60, null = 1", "y ~ x + z", truth=1.0),
    "lm two groups": Scenario("lm", two_groups, "6 rows of sd 3 against 18 of sd 1"),
    "lm 30 clusters": Scenario("lm", many_clusters, "x between 30 clusters of 5"),
    "lm 10 clusters": Scenario("lm", few_clusters, "x between 10 clusters of 5"),
    "lm blocks": Scenario("lm", blocks, "6 blocks of 6, x and y move together between blocks"),
    "glm logistic": Scenario("glm", logistic, "logistic, x beside z (r = 0.8), n = 80", "y ~ x + z", {"family": "binomial"}),
    "glm whole": Scenario("glm", whole, "logistic, x alone, n = 24", options={"family": "binomial"}),
    "glm counts": Scenario("glm", counts, "Poisson, null = 0.5, n = 30", options={"family": "poisson"}, truth=0.5),
    "glm overdispersed": Scenario(
        "glm", overdispersed, "counts with twice and more the Poisson variance, n = 100", "y ~ x + z", {"family": "poisson"}
    ),
    "glm clusters": Scenario("glm", clustered_logistic, "logistic, x between 40 clusters of 8", options={"family": "binomial"}),
    "lmm within": Scenario("lmm", mixed, "x inside 12 groups of 5, beside z (r = 0.8)", "y ~ x + z + (1 | c)"),
    "lmm between": Scenario("lmm", mixed_between, "x between 12 groups of 5", "y ~ x + (1 | c)"),
    "lmm slopes": Scenario("lmm", mixed_slopes, "a slope of its own in each of 10 groups of 8, null = 1", "y ~ x + (x | c)", truth=1.0),
    "lmm rough": Scenario("lmm", mixed_rough, "skewed groups, unequal errors: 20 groups of 5, null = 1", "y ~ x + (1 | c)", truth=1.0),
    "glmm logistic": Scenario("glmm", mixed_logistic, "logistic, 20 groups of 6, null = 1", "y ~ x + (1 | c)", {"family": "binomial"}, 1.0),
    "glmm counts": Scenario(
        "glmm", mixed_counts, "Poisson, x between 15 groups of 4, null = 0.5", "y ~ x + (1 | c)", {"family": "poisson"}, 0.5, 0.6
    ),
}


# ---------------------------------------------------------------- ways to infer
def boot(scheme: str, ci_type: str = "auto", **more: Any) -> tuple[str, dict[str, Any]]:
    return "boot", {"scheme": scheme, "ci_type": ci_type, **more}


def perm(**options: Any) -> tuple[str, dict[str, Any]]:
    return "perm", options


C = {"cluster": "c"}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "asymp": ("asymp", {}),
    "asymp, hetero": ("asymp", {"errors": "hetero"}),
    "asymp, HC3": ("asymp", {"errors": "HC3"}),
    "asymp, unequal_var": ("asymp", {"errors": "unequal_var"}),
    "asymp, cluster": ("asymp", {"errors": "cluster", **C}),
    "asymp, CR1": ("asymp", {"errors": "CR1", **C}),
    "asymp, CR2": ("asymp", {"errors": "CR2", **C}),
    "asymp, Kenward–Roger": ("asymp", {"df": "kenward-roger"}),
    "asymp, z": ("asymp", {"df": "inf"}),
    "boot case, percentile": boot("case", "percentile"),
    "boot case, basic": boot("case", "basic"),
    "boot case, BCa": boot("case", "bca"),
    "boot case, studentized": boot("case", "studentized"),
    "boot bayes": boot("bayes"),
    "boot residual, percentile": boot("residual"),
    "boot residual, studentized": boot("residual", "studentized"),
    "boot wild, percentile": boot("wild"),
    "boot wild, basic": boot("wild", "basic"),
    "boot wild, studentized": boot("wild", "studentized"),
    "boot parametric, percentile": boot("parametric"),
    "boot parametric, basic": boot("parametric", "basic"),
    "boot parametric, studentized": boot("parametric", "studentized"),
    "boot jackknife": boot("jackknife"),
    "boot group, percentile": boot("group", "percentile", **C),
    "boot group, BCa": boot("group", "bca", **C),
    "boot group, studentized": boot("group", "studentized", **C),
    "boot bayes of groups": boot("bayes", **C),
    "boot wild of groups, percentile": boot("wild", "percentile", **C),
    "boot wild of groups, studentized": boot("wild", "studentized", **C),
    "boot jackknife of groups": boot("jackknife", **C),
    "perm Freedman–Lane": perm(scheme="freedman-lane"),
    "perm response": perm(scheme="response"),
    "perm Freedman–Lane, HC3": perm(scheme="freedman-lane", errors="hetero"),
    "perm sign-flip": perm(scheme="sign-flip"),
    "perm sign-flip, HC3": perm(scheme="sign-flip", errors="hetero"),
    "perm draws from the null": perm(scheme="parametric"),
    "perm within blocks": perm(within="c"),
    "perm whole groups": perm(**C),
    "perm sign-flip of groups": perm(scheme="sign-flip", **C),
    "perm sign-flip of groups, CR2": perm(scheme="sign-flip", errors="cluster", **C),
    "profile": ("profile", {"n_steps": 0}),
    "sd: boot parametric": boot("parametric"),
    "sd: boot group": boot("group"),
    "sd: profile": ("profile", {"n_steps": 0}),
}

# What is claimed of a way in a scenario: the range in which its true error rate must lie when 5 % is aimed at.
#   exact   by theory, at any n                     close   corrected for small samples
#   large   right as n grows; the range is what is granted at the n of these scenarios, and conservative is no fault
#   few     right as n grows, and these n are too few for it                          none    a mistake that is easily made
CLAIMS = {"exact": (0.045, 0.055), "close": (0.03, 0.075), "large": (0.0, 0.12), "few": (0.0, 0.20), "none": (0.0, 1.0)}
ROWS = (
    "boot case, percentile",
    "boot case, basic",
    "boot case, BCa",
    "boot case, studentized",
    "boot bayes",
    "boot wild, percentile",
    "boot wild, basic",
    "boot wild, studentized",
    "boot jackknife",
)
SAME = (
    "boot residual, percentile",
    "boot residual, studentized",
    "boot parametric, percentile",
    "boot parametric, studentized",
)
OF_GROUPS = (
    "boot group, percentile",
    "boot group, BCa",
    "boot group, studentized",
    "boot bayes of groups",
    "boot wild of groups, percentile",
    "boot wild of groups, studentized",
    "boot jackknife of groups",
)
OF_GLM = (
    "asymp",
    "boot case, percentile",
    "boot case, basic",
    "boot case, BCa",
    "boot case, studentized",
    "boot bayes",
    "boot parametric, percentile",
    "boot parametric, studentized",
    "boot jackknife",
)
OF_MIXED = ("boot parametric, percentile", "boot parametric, basic", "boot group, percentile", "boot bayes of groups", "profile")
SOME = tuple(way for way in OF_MIXED if "bayes" not in way)
LINEAR = ("asymp, z", "asymp", "asymp, Kenward–Roger")
FEW = ("boot case, percentile", "boot case, basic", "boot case, BCa", "boot bayes", "boot wild, percentile", "boot wild, basic")
REST = tuple(way for way in ROWS if way not in FEW)
PERMUTED = ("perm Freedman–Lane", "perm Freedman–Lane, HC3", "perm sign-flip", "perm sign-flip, HC3", "perm draws from the null")
TABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "lm partial": {"exact": ("asymp", "profile"), "close": ("asymp, hetero", *PERMUTED), "large": ROWS + SAME},
    "lm null 2": {"exact": ("asymp", "profile"), "close": ("asymp, hetero", *PERMUTED), "large": ROWS + SAME},
    "lm tiny": {
        "exact": ("asymp", "perm response"),
        "close": ("asymp, hetero", *PERMUTED, "boot residual, studentized", "boot parametric, studentized"),
        "large": (*REST, "boot residual, percentile", "boot parametric, percentile"),
        "few": FEW,
    },
    "lm skewed": {"close": ("asymp", "asymp, hetero", *PERMUTED[:2]), "large": ROWS + SAME},
    "lm unequal": {
        "close": ("asymp, hetero", *PERMUTED[1:4]),
        "large": ROWS,
        "none": ("asymp", "perm Freedman–Lane", *SAME),
    },
    "lm two groups": {
        "close": ("asymp, unequal_var",),
        "large": ("asymp, hetero", *PERMUTED[1:4], *REST),
        "few": FEW,
        "none": ("asymp", "perm Freedman–Lane"),
    },
    "lm 30 clusters": {
        "close": ("asymp, cluster", "asymp, CR1", "perm whole groups", "perm sign-flip of groups", "perm sign-flip of groups, CR2"),
        "large": OF_GROUPS,
        "none": ("asymp", "boot case, BCa", "boot wild, percentile", "perm Freedman–Lane"),
    },
    "lm 10 clusters": {
        "close": ("asymp, cluster", "perm whole groups", "perm sign-flip of groups", "perm sign-flip of groups, CR2"),
        "large": ("boot group, percentile", "boot group, BCa", "boot group, studentized", *OF_GROUPS[5:]),
        "few": ("asymp, CR1", "boot bayes of groups", "boot wild of groups, percentile"),
    },
    "lm blocks": {"exact": ("perm within blocks",), "none": ("asymp", "boot case, BCa", "perm Freedman–Lane")},
    "glm logistic": {"close": ("perm draws from the null", "profile"), "large": OF_GLM},
    "glm whole": {"exact": ("perm response",), "close": ("perm draws from the null", "profile"), "large": OF_GLM[:1]},
    "glm counts": {"close": ("perm draws from the null", "profile"), "large": OF_GLM},
    "glm overdispersed": {
        "large": (
            "asymp, hetero",
            "asymp, HC3",
            "boot case, percentile",
            "boot case, BCa",
            "boot case, studentized",
            "boot bayes",
            "boot jackknife",
        ),
        "none": ("asymp", "boot parametric, percentile", "perm draws from the null", "profile"),
    },
    "glm clusters": {
        "close": ("asymp, CR2",),
        "large": ("asymp, cluster", *(way for way in OF_GROUPS if "wild" not in way)),
        "none": ("asymp", "boot case, BCa"),
    },
    "lmm within": {
        "close": (*LINEAR, "perm draws from the null", "perm within blocks"),
        "large": (*SOME, "boot parametric, studentized", "boot jackknife of groups", "sd: profile"),
        "few": ("boot bayes of groups", "sd: boot parametric"),
    },
    "lmm between": {
        "close": (*LINEAR[1:], "perm draws from the null", "perm whole groups", "perm sign-flip of groups"),
        "large": ("asymp, z", *SOME, "boot parametric, studentized", "boot jackknife of groups"),
        "few": ("boot bayes of groups",),
    },
    "lmm slopes": {
        "close": (*LINEAR[1:], "perm draws from the null"),
        "large": ("asymp, z", *OF_MIXED, "boot parametric, studentized"),
    },
    "lmm rough": {
        "large": ("boot group, percentile", "boot bayes of groups", "boot jackknife of groups"),
        "none": ("asymp", "boot parametric, percentile"),
    },
    "glmm logistic": {"close": ("perm draws from the null",), "large": ("asymp", *OF_MIXED, "sd: profile")},
    "glmm counts": {"close": ("perm draws from the null",), "large": ("asymp", *OF_MIXED)},
}
COST = {"lm": (1000, 499), "glm": (1000, 499), "lmm": (600, 299), "glmm": (200, 199)}  # data sets and replicates of a cell by kind
CHEAP = 2000  # data sets where nothing is resampled


@frozen
class Cell:
    scenario: str
    way: str
    claim: str

    @property
    def name(self) -> str:
        return f"{self.scenario}: {self.way}"

    @property
    def kind(self) -> str:
        return SCENARIOS[self.scenario].kind

    @property
    def sims(self) -> int:
        return CHEAP if self.way.startswith("asymp") else COST[self.kind][0]

    def errors(self, i: int) -> tuple[bool | None, bool | None, bool | None]:
        """Of data set i: was the truth rejected, is it below the interval, above it?   None: not asked"""
        scenario, (how, options) = SCENARIOS[self.scenario], WAYS[self.way]
        data = pl.DataFrame(scenario.make(np.random.default_rng([zlib.crc32(self.scenario.encode()), i])))
        m = model(scenario.formula, data, **scenario.options).fit()
        of_sd = self.way.startswith("sd:")
        asked: dict[str, Any] = dict(options)
        if how in ("boot", "perm") and asked.get("scheme") != "jackknife":
            asked |= {"seed": i, "n_" + how: COST[scenario.kind][1]}
        if how != "profile" and not of_sd:
            asked["null"] = scenario.truth
        if how == "perm" and asked.get("scheme") == "response":
            del asked["null"]
        if scenario.kind != "lm" and how == "perm":  # of one row: each has a null model of its own
            row = m.explore("slope(x)", scale="link").infer(how=how, **asked).effects.row(0, named=True)
        elif of_sd:
            row = m.infer(how=how, **asked).varying_spread.row(0, named=True)
        else:
            row = m.infer(how=how, **asked).params.row(1, named=True)
        truth, p = scenario.sd if of_sd else scenario.truth, None if of_sd else row.get("p_value")
        rejected = None if p is None else bool(p <= 0.05)
        if how == "perm":
            return rejected, None, None
        low, high = (row[end] if row[end] is not None else side for end, side in (("ci_lower", -np.inf), ("ci_upper", np.inf)))
        return rejected, bool(truth < low), bool(truth > high)


CELLS = tuple(Cell(s, way, claim) for s, claims in TABLE.items() for claim, ways in claims.items() for way in ways)


# ---------------------------------------------------------------- running them
def chunk(cell: Cell, start: int, stop: int) -> dict[str, Any]:
    """Counts of data sets start … stop − 1."""
    began, found, failed = time.process_time(), [], 0
    for i in range(start, stop):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BossaWarning)
            try:
                found.append(cell.errors(i))
            except FitFailed:
                failed += 1
    rejected, below, above = (None if not found or column[0] is None else sum(column) for column in zip(*(found or [(None,) * 3])))
    return {
        "cell": cell.name,
        "start": start,
        "stop": stop,
        "failed": failed,
        "rejected": rejected,
        "below": below,
        "above": above,
        "seconds": round(time.process_time() - began, 2),
    }


def run(cells: Iterable[Cell], sims: int | None, jobs: int, out: Path) -> None:
    """Every chunk that `out` does not hold yet."""
    from joblib import Parallel, delayed

    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    done = {(line["cell"], line["start"]) for line in lines}
    for cell in cells:
        starts = [s for s in range(0, sims or cell.sims, CHUNK) if (cell.name, s) not in done]
        work = Parallel(n_jobs=jobs, return_as="generator")(delayed(chunk)(cell, s, s + CHUNK) for s in starts)
        with out.open("a", encoding="utf-8") as file:
            for line in work:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
        if starts:
            print(said(summary([line for line in read(out) if line["cell"] == cell.name])[0]), flush=True)


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def wilson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Limits of a rate.   Source: Wilson (1927)."""
    z, rate = ndtri((1 + level) / 2), hits / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def said(record: dict[str, Any]) -> str:
    n, missed = record["data_sets"], None if record["below"] is None else record["below"] + record["above"]
    rates = "  ".join(
        f"{what} {hits / n:6.1%}" for what, hits in (("rejected", record["rejected"]), ("missed", missed)) if hits is not None
    )
    name = f"{record['scenario']:<20}{record['way']:<36}{record['claim']:<7}"
    return f"{name}{rates:<36} {n} sets, {record['failed']} failed, {record['seconds']} s"


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record per cell, in the order of CELLS."""
    out = []
    for cell in CELLS:
        own = [line for line in lines if line["cell"] == cell.name]
        if not own:
            continue
        n = sum(line["stop"] - line["start"] - line["failed"] for line in own)

        def total(name: str, own: list[dict[str, Any]] = own) -> int | None:
            return None if all(line[name] is None for line in own) else sum(line[name] or 0 for line in own)

        record = {"scenario": cell.scenario, "way": cell.way, "claim": cell.claim, "data_sets": n}
        record |= {name: total(name) for name in ("failed", "rejected", "below", "above")}
        record["seconds"] = round(sum(line["seconds"] for line in own))
        out.append(record)
    return out


# ---------------------------------------------------------------- the pictures
TITLES = {
    "lm": "Linear models",
    "glm": "Generalized linear models",
    "lmm": "Linear mixed models",
    "glmm": "Generalized linear mixed models",
}
CLAIMED, SMALL, MISTAKEN = "#0072B2", "#8C8C8C", "#D55E00"  # blue and vermilion of Okabe and Ito: apart for every kind of colour vision
COLOURS = {"exact": CLAIMED, "close": CLAIMED, "large": CLAIMED, "few": SMALL, "none": MISTAKEN}
TICKS = (1, 2, 5, 10, 20, 50, 100)


def draw(records: list[dict[str, Any]], folder: Path) -> None:
    """One figure per kind of model: a panel per scenario, a line per way, on a logarithmic axis of error rates."""
    from matplotlib.figure import Figure

    for kind, title in TITLES.items():
        panels = {s: [r for r in records if r["scenario"] == s] for s in SCENARIOS if SCENARIOS[s].kind == kind}
        panels = {s: rows for s, rows in panels.items() if rows}
        if not panels:
            continue
        columns: list[list[str]] = [[], []]
        heights = [0.0, 0.0]
        for s in panels:
            j = int(heights[1] < heights[0])
            columns[j].append(s)
            heights[j] += len(panels[s]) + 2.7
        inches = 0.19 * max(heights) + 0.5
        figure = Figure(figsize=(10, inches))
        for j, column in enumerate(columns):
            top = 1 - 0.5 / inches
            for s in column:
                unit = 0.19 / inches
                axes = figure.add_axes((0.215 + 0.5 * j, top - unit * (len(panels[s]) + 1.2), 0.265, unit * len(panels[s])))
                panel(axes, s, panels[s])
                top -= unit * (len(panels[s]) + 2.7)
        legend(figure, title)
        figure.savefig(folder / f"calibration-{kind}.png", dpi=110)


def panel(axes: Any, scenario: str, rows: list[dict[str, Any]]) -> None:
    axes.axvline(5, color="#555555", linewidth=0.8)
    for y, r in enumerate(rows):
        colour = COLOURS[r["claim"]]
        missed = None if r["below"] is None else r["below"] + r["above"]
        both = r["rejected"] is not None and missed is not None
        for hits, shift, marker, fill in ((r["rejected"], -0.17, "o", colour), (missed, 0.17, "s", "white")):
            if hits is None:
                continue
            low, high = wilson(hits, r["data_sets"])
            at = y + (shift if both else 0)
            axes.plot([max(100 * low, 0.5), 100 * high], [at, at], color=colour, linewidth=1.1, zorder=2)
            axes.plot(max(100 * hits / r["data_sets"], 0.8), at, marker, color=colour, markerfacecolor=fill, markersize=3.6, zorder=3)
    axes.set(xscale="log", xlim=(0.8, 110), ylim=(len(rows) - 0.4, -0.6))
    axes.set_xticks(TICKS, [f"{t} %" for t in TICKS], fontsize=7)
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [r["way"] for r in rows], fontsize=7.5)
    axes.set_title(SCENARIOS[scenario].said, fontsize=8.5, loc="right", pad=3)
    axes.grid(axis="x", alpha=0.35, linewidth=0.4)
    axes.tick_params(length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def legend(figure: Any, title: str) -> None:
    from matplotlib.lines import Line2D

    figure.text(0.01, 1 - 0.2 / figure.get_figheight(), title, fontsize=10.5, weight="bold", va="center")
    kinds = (
        ("the truth rejected at 5 %", "#333333", "o", "#333333"),
        ("the truth outside the 95 % interval", "#333333", "s", "white"),
        ("valid", CLAIMED, "_", CLAIMED),
        ("too few data for it", SMALL, "_", SMALL),
        ("a mistake", MISTAKEN, "_", MISTAKEN),
    )
    handles = [
        Line2D([], [], linestyle="", marker=m, color=c, markerfacecolor=f, markersize=6, markeredgewidth=1.5) for _, c, m, f in kinds
    ]
    figure.legend(
        handles, [k[0] for k in kinds], loc="upper right", ncols=5, frameon=False, fontsize=8, columnspacing=1.2, handletextpad=0.2
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", nargs="*", default=[""], help="only cells whose name contains one of these")
    parser.add_argument("--sims", type=int, help="data sets of a cell; as many as the table says where left out")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draw", type=Path, help="folder for the summary and the figures; runs nothing")
    asked = parser.parse_args()
    if asked.draw is None:
        run([c for c in CELLS if any(text in c.name for text in asked.cells)], asked.sims, asked.jobs, asked.out)
    else:
        records = summary(read(asked.out))
        asked.draw.joinpath("calibration.json").write_text(
            "[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\n]\n", encoding="utf-8"
        )
        draw(records, asked.draw)


if __name__ == "__main__":
    main()
