"""The workloads: seeded data, the formula, who runs it, and the goals (ratios to a peer, memory over the loaded data).

Data are csv files NAME.csv in BENCH_DATA, or made here once under benchmarks/data. Values are rounded, so every program reads the same
doubles. An entrant is a function of a folder that loads its data and returns a function to be timed, which returns the coefficients.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl

DATA = Path(os.environ.get("BENCH_DATA", Path(__file__).parent / "data"))
SMALL = "y ~ x1 + x2 + g"
BIG = "y ~ x1 + x2 + x3 + x4 + x5 + x6 + g"
LOGIT = "y ~ " + " + ".join(f"x{j}" for j in range(1, 18)) + " + g"

Run = Callable[[], list[float]]


# ------------------------------------------------------------------------------------------------------------ data
def small_lm() -> pl.DataFrame:
    """200 rows, p = 4."""
    rng, n = np.random.default_rng(2), 200
    x1, x2 = (np.round(rng.standard_normal(n), 5) for _ in range(2))
    g = rng.integers(0, 2, n)
    y = np.round(1 + 0.5 * x1 - 0.3 * x2 + 0.4 * g + rng.standard_normal(n), 5)
    return pl.DataFrame({"y": y, "x1": x1, "x2": x2, "g": np.array(["a", "b"])[g]})


def big_lm() -> pl.DataFrame:
    """10⁶ rows, p = 10: six numbers and a factor of four levels, as text."""
    rng, n = np.random.default_rng(3), 1_000_000
    X, g = np.round(rng.standard_normal((n, 6)), 4), rng.integers(0, 4, n)
    y = np.round(1 + X @ np.linspace(-0.5, 0.5, 6) + np.array([0, 0.2, -0.1, 0.4])[g] + rng.standard_normal(n), 4)
    return pl.DataFrame({"y": y, **{f"x{j + 1}": X[:, j] for j in range(6)}, "g": np.array(list("abcd"))[g]})


def logistic() -> pl.DataFrame:
    """10⁵ rows, p = 20."""
    rng, n = np.random.default_rng(4), 100_000
    X, g = np.round(rng.standard_normal((n, 17)), 5), rng.integers(0, 3, n)
    eta = -0.5 + X @ np.linspace(-0.4, 0.4, 17) + np.array([0, 0.3, -0.2])[g]
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
    return pl.DataFrame({"y": y, **{f"x{j + 1}": X[:, j] for j in range(17)}, "g": np.array(list("abc"))[g]})


MAKERS = {"w02_lm_small": small_lm, "w03_lm_big": big_lm, "w04_logit": logistic}


def file(name: str) -> Path:
    """The csv of a workload, made if it is not there."""
    path = DATA / f"{name}.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        MAKERS[name]().write_csv(path)
    return path


# ------------------------------------------------------------------------------------------------------------ entrants
def bossa(name: str, formula: str, infer: bool = False, **options: str) -> Run:
    from bossa import model

    data = pl.read_csv(file(name))

    def run() -> list[float]:
        m = model(formula, data, **options).fit()
        return (m.infer() if infer else m).params["estimate"].to_list()

    return run


def statsmodels(name: str, formula: str, family: bool = False) -> Run:
    import pandas as pd
    import statsmodels.api as sm
    import statsmodels.formula.api as smf

    data = pd.read_csv(file(name))
    if family:
        return lambda: smf.glm(formula, data, family=sm.families.Binomial()).fit().params.tolist()
    return lambda: smf.ols(formula, data).fit().params.tolist()


def glum(name: str) -> Run:
    import pandas as pd
    from glum import GeneralizedLinearRegressor

    data = pd.read_csv(file(name))
    data["g"] = data["g"].astype("category")
    right = LOGIT.split("~")[1]

    def run() -> list[float]:
        m = GeneralizedLinearRegressor(family="binomial", alpha=0, formula=right, drop_first=True, gradient_tol=1e-8)
        m.fit(data, data["y"])
        return [float(m.intercept_), *map(float, m.coef_)]

    return run


def pyfixest(name: str, formula: str) -> Run:
    import pandas as pd
    import pyfixest as pf

    data = pd.read_csv(file(name))
    return lambda: pf.feols(formula, data).coef().tolist()


# name → (label of the workload, make the timed function); R entrants stand in peers.R under the same names
ENTRANTS: dict[str, Callable[[], Run]] = {
    "W2/bossa": lambda: bossa("w02_lm_small", SMALL),
    "W2/bossa + infer": lambda: bossa("w02_lm_small", SMALL, infer=True),
    "W2/statsmodels": lambda: statsmodels("w02_lm_small", SMALL),
    "W3/bossa": lambda: bossa("w03_lm_big", BIG),
    "W3/statsmodels": lambda: statsmodels("w03_lm_big", BIG),
    "W3/pyfixest": lambda: pyfixest("w03_lm_big", BIG),
    "W4/bossa": lambda: bossa("w04_logit", LOGIT, family="binomial"),
    "W4/statsmodels": lambda: statsmodels("w04_logit", LOGIT, family=True),
    "W4/glum": lambda: glum("w04_logit"),
}
IN_R = ["W2/R lm", "W2/R lm + summary", "W3/R lm", "W3/R .lm.fit", "W4/R glm"]
NEEDS = {"statsmodels": "statsmodels", "pyfixest": "pyfixest", "glum": "glum"}
FILES = {"W2": "w02_lm_small", "W3": "w03_lm_big", "W4": "w04_logit"}
TITLES = {"W2": "linear model, 200 × 4", "W3": "linear model, 10⁶ × 10, a text factor", "W4": "logistic, 10⁵ × 20"}

# (entrant, peer or "best peer", largest ratio), and memory in MB over the loaded data
GOALS: dict[str, list[tuple[str, str, float]]] = {
    "W2": [("W2/bossa", "W2/R lm", 1.0)],
    "W3": [("W3/bossa", "best peer", 0.25)],
    "W4": [("W4/bossa", "W4/glum", 0.6), ("W4/bossa", "W4/R glm", 0.15)],
}
MEMORY = {"W3/bossa": 100.0, "W4/bossa": 60.0}


def available(workload: str, with_r: bool) -> list[str]:
    """The entrants that can run here."""
    python = [e for e in ENTRANTS if e.startswith(workload) and (e.split("/")[1] not in NEEDS or find_spec(NEEDS[e.split("/")[1]]))]
    return python + ([e for e in IN_R if e.startswith(workload)] if with_r else [])
