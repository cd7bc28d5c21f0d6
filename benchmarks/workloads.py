"""The workloads: seeded data, the formula, who runs it, and the goals (ratios to a peer, memory over the loaded data).

Data are csv files NAME.csv in BENCH_DATA, or made here once under benchmarks/data. Values are rounded, so every program reads the same
doubles. An entrant is a function of a folder that loads its data and returns a function to be timed, which returns the coefficients.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

DATA = Path(os.environ.get("BENCH_DATA", Path(__file__).parent / "data"))
SMALL = "y ~ x1 + x2 + g"
BIG = "y ~ x1 + x2 + x3 + x4 + x5 + x6 + g"
LOGIT = "y ~ " + " + ".join(f"x{j}" for j in range(1, 18)) + " + g"
SLEEP = "Reaction ~ Days + (Days | Subject)"
CROSSED = "y ~ service + (1 | s) + (1 | d)"
SLOPES = "y ~ x + z + (x | g)"
HERDS = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
GROUPED = "y ~ x1 + x2 + (1 | g)"
FIVE = "y ~ x1 + x2 + x3 + x4 + x5"

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


def five(n: int, binary: bool = False) -> pl.DataFrame:
    """n rows, p = 6."""
    rng = np.random.default_rng(n)
    X = np.round(rng.standard_normal((n, 5)), 5)
    eta = 0.2 + X @ np.array([0.5, -0.3, 0.2, 0.0, 0.1])
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int) if binary else np.round(eta + rng.standard_normal(n), 5)
    return pl.DataFrame({"y": y, **{f"x{j + 1}": X[:, j] for j in range(5)}})


def study(name: str, **prefix: str) -> pl.DataFrame:
    """A data set of the library; codes of groups get a letter, so that every program reads text."""
    from bossa import load_dataset

    return load_dataset(name).with_columns(pl.format(letter + "{}", column).alias(column) for column, letter in prefix.items())


def crossed(n: int = 73_421, students: int = 2_972, lecturers: int = 1_128) -> pl.DataFrame:
    """The size of lme4's InstEval: ratings crossed by students and lecturers, the lecturers unequally busy."""
    rng = np.random.default_rng(6)
    s, d = rng.integers(0, students, n), (lecturers * rng.random(n) ** 1.3).astype(int)
    service = rng.integers(0, 2, n)
    a, b = 0.33 * rng.standard_normal(students), 0.52 * rng.standard_normal(lecturers)
    y = np.clip(np.round(3.25 - 0.07 * service + a[s] + b[d] + 1.18 * rng.standard_normal(n)), 1, 5)
    return pl.DataFrame({"y": y, "service": [f"service{v}" for v in service], "s": [f"s{v}" for v in s], "d": [f"d{v}" for v in d]})


def slopes(n: int = 100_000, groups: int = 5_000) -> pl.DataFrame:
    """Unbalanced groups, each with an intercept and a slope of its own, correlated."""
    rng = np.random.default_rng(7)
    g, x, z = rng.integers(0, groups, n), *(np.round(rng.standard_normal(n), 5) for _ in range(2))
    b = rng.multivariate_normal([0, 0], [[0.64, 0.096], [0.096, 0.16]], groups)
    y = np.round(2 + 0.5 * x - 0.3 * z + b[g, 0] + b[g, 1] * x + rng.standard_normal(n), 5)
    return pl.DataFrame({"y": y, "x": x, "z": z, "g": [f"g{v}" for v in g]})


def grouped_logistic(n: int = 10_000, groups: int = 500) -> pl.DataFrame:
    """0/1 responses, a random intercept."""
    rng = np.random.default_rng(8)
    g, x1, x2 = rng.integers(0, groups, n), *(np.round(rng.standard_normal(n), 5) for _ in range(2))
    eta = -0.3 + 0.6 * x1 - 0.4 * x2 + (0.9 * rng.standard_normal(groups))[g]
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
    return pl.DataFrame({"y": y, "x1": x1, "x2": x2, "g": [f"g{v}" for v in g]})


def looks(n: int = 1_000) -> pl.DataFrame:
    """10³ estimates of a number that drifts, each with standard error ½."""
    rng = np.random.default_rng(19)
    return pl.DataFrame({"y": np.round(np.cumsum(rng.normal(0, 0.2, n)) + rng.normal(0, 0.5, n), 5)})


def visits(groups: int = 30, each: int = 10) -> pl.DataFrame:
    """The columns of a study to be planned: groups measured at the same ten doses."""
    dose = np.round(np.linspace(-1, 1, each), 5)
    return pl.DataFrame({"x": np.tile(dose, groups), "g": [f"g{j}" for j in range(groups) for _ in range(each)]})


def numbers(T: int = 100_000) -> pl.DataFrame:
    """A number that walks (variance .1 a step), looked at with variance 1."""
    rng = np.random.default_rng(19)
    return pl.DataFrame({"y": np.round(np.cumsum(np.sqrt(0.1) * rng.standard_normal(T)) + rng.standard_normal(T), 5)})


def weeks(T: int, p: int) -> pl.DataFrame:
    """T batches of 100 rows, p coefficients, the first of which walks."""
    rng, n = np.random.default_rng(p), 100 * T
    X, week = np.round(rng.standard_normal((n, p - 1)), 4), np.repeat(np.arange(T), 100)
    level = np.cumsum(0.02 * rng.standard_normal(T))[week]
    y = np.round(level + X @ np.linspace(-0.5, 0.5, p - 1) + rng.standard_normal(n), 4)
    return pl.DataFrame({"y": y, **{f"x{j + 1}": X[:, j] for j in range(p - 1)}, "week": week})


MAKERS = {
    "w19_numbers": numbers,
    "w19_weeks": lambda: weeks(1000, 20),
    "w19_few": lambda: weeks(200, 5),
    "w02_lm_small": small_lm,
    "w03_lm_big": big_lm,
    "w04_logit": logistic,
    "w05_sleepstudy": lambda: study("sleepstudy", Subject="S"),
    "w06_crossed": crossed,
    "w07_slopes": slopes,
    "w08_cbpp": lambda: study("cbpp", herd="h", period="p"),
    "w08_glmm": grouped_logistic,
    "w09_lm": lambda: five(1000),
    "w10_logit": lambda: five(2000, binary=True),
    "w14_lm": lambda: five(2000),
    "w18_power": visits,
    "w19_looks": looks,
}


def file(name: str) -> Path:
    """The csv of a workload, made if it is not there."""
    path = DATA / f"{name}.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        MAKERS[name]().write_csv(path)
    return path


# ------------------------------------------------------------------------------------------------------------ entrants
def bossa(name: str, formula: str, infer: bool = False, nagq: int | None = None, **options: str) -> Run:
    from bossa import model

    data = pl.read_csv(file(name))

    def run() -> list[float]:
        m = model(formula, data, **options).fit(nagq=nagq)
        return (m.infer() if infer else m).params["estimate"].to_list()

    return run


def fitted(name: str, formula: str, ask: Callable[[Any], list[float]], **options: str) -> Run:
    """A question to a model that is already fitted."""
    from bossa import model

    m = model(formula, pl.read_csv(file(name)), **options).fit()
    return lambda: ask(m)


def means(m: Any) -> list[float]:
    frame = m.explore("g").infer().effects
    return [*frame["estimate"], *frame["se"]]


def average_slopes(m: Any) -> list[float]:
    frames = [m.explore(f"slope(x{j})", average="observed", scale="response").infer().effects for j in range(1, 18)]
    return [*(f["estimate"][0] for f in frames), *(f["se"][0] for f in frames)]


def satterthwaite(m: Any) -> list[float]:
    return m.infer(df="satterthwaite").params["df"].to_list()


def resampled(m: Any, **options: Any) -> list[float]:
    """Standard errors of the bootstrap, which agree to Monte Carlo error."""
    return m.infer(how="boot", seed=1, **options).params["se"].to_list()


def permuted(m: Any) -> list[float]:
    return m.infer(how="perm", n_perm=10_000, seed=1).params["p_value"].to_list()[1:]


def left_out(m: Any, k: Any) -> list[float]:
    return [m.predict().infer(how="cv", k=k, seed=1).diagnostics["cv_rmse"][0]]


def profiled(m: Any) -> list[float]:
    limits = m.infer(how="profile", n_steps=20)
    return [*limits.params["ci_lower"], *limits.params["ci_upper"]]


def power_of_a_slope(df: str) -> Run:
    """The rate at which 500 simulated studies reject x = 0."""
    from bossa import model

    data = pl.read_csv(file("w18_power"))
    assumed = {"coef": {"Intercept": 0.0, "x": 0.15}, "sigma": 1.0, "varying": {"g": {"sd": {"Intercept": 0.5, "x": 0.3}, "corr": 0.2}}}

    def run() -> list[float]:
        found = model("y ~ x + (x | g)").simulate(data=data, **assumed, power=500, options={"df": df}, seed=1)
        return found["power"].to_list()[1:]

    return run


def particles_of_a_drift() -> Run:
    """Every hundredth state of a bootstrap filter with 10⁴ particles."""
    from bossa.assimilate import particle_filter

    y = pl.read_csv(file("w19_looks"))["y"].to_numpy()

    def run() -> list[float]:
        found = particle_filter(y, np.full(len(y), 0.5), process_sd=0.2, n_particles=10_000, seed=1)
        return found.posterior_mean[99::100].tolist()

    return run


def particles_by_hand() -> Run:
    """The textbook's filter: means alone, resampled by a comb at every step, no limits, no forecast, no degeneracy report."""
    y, N = pl.read_csv(file("w19_looks"))["y"].to_numpy(), 10_000

    def run() -> list[float]:
        rng = np.random.default_rng(1)
        x, means = rng.standard_normal(N), []
        for look in y:
            x = x + 0.2 * rng.standard_normal(N)
            log_w = -0.5 * ((look - x) / 0.5) ** 2
            w = np.exp(log_w - log_w.max())
            w /= w.sum()
            means.append(float(w @ x))
            x = x[np.minimum(np.searchsorted(np.cumsum(w), (np.arange(N) + rng.random()) / N), N - 1)]
        return means[99::100]

    return run


def statsmodels_slopes() -> Run:
    import pandas as pd
    import statsmodels.formula.api as smf

    fit = smf.logit(LOGIT, pd.read_csv(file("w04_logit"))).fit(disp=0)

    def run() -> list[float]:
        frame = fit.get_margeff(at="overall").summary_frame()
        frame = frame[[str(name).startswith("x") for name in frame.index]]
        return [*frame["dy/dx"], *frame["Std. Err."]]

    return run


def statsmodels_mixed(name: str, formula: str, groups: str, slope: str) -> Run:
    import pandas as pd
    import statsmodels.formula.api as smf

    data = pd.read_csv(file(name))
    return lambda: smf.mixedlm(formula, data, groups=groups, re_formula=f"~{slope}").fit().fe_params.tolist()


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


# ------------------------------------------------------------------------------------------------------------ streams
WALK = 0.01  # process variance of every coefficient


def filtered(engine: str) -> Run:
    """The scalar filter, whole path: states, variances, gains, log-likelihoods."""
    from bossa import engine as chosen
    from bossa.kernels.kalman import filter_scalar

    y = pl.read_csv(file("w19_numbers"))["y"].to_numpy()
    v, q = np.ones(len(y)), np.full(len(y), 0.1)

    def run() -> list[float]:
        with chosen(engine):
            path = filter_scalar(y, v, q, 0.0, 1.0)
        return [float(path.mean[-1]), float(path.mean.mean())]

    return run


def door() -> Run:
    """The same with smoother, intervals, effective sample sizes and p-values."""
    from bossa.assimilate import causal_kalman

    y = pl.read_csv(file("w19_numbers"))["y"].to_numpy()

    def run() -> list[float]:
        r = causal_kalman(y, np.ones(len(y)), process_var=0.1)
        return [r.final_mean, float(r.posterior_mean.mean())]

    return run


def statsmodels_filter() -> Run:
    from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

    y = pl.read_csv(file("w19_numbers"))["y"].to_numpy()
    one = KalmanFilter(k_endog=1, k_states=1, design=[[1.0]], transition=[[1.0]], selection=[[1.0]], obs_cov=[[1.0]], state_cov=[[0.1]])
    one.bind(y.copy())
    one.initialize_known(np.zeros(1), np.array([[1.1]]))

    def run() -> list[float]:
        m = one.filter().filtered_state[0]
        return [float(m[-1]), float(m.mean())]

    return run


def stream(name: str, p: int, **options: Any) -> Run:
    """The whole door: frame in, path with covariances, smoother, monitoring and provenance out; N(0, 1) priors, σ = 1."""
    from bossa.assimilate import batches
    from bossa.state.distributions import normal

    data, formula = pl.read_csv(file(name)), "y ~ " + " + ".join(f"x{j}" for j in range(1, p))
    return lambda: batches(formula, data, by="week", sigma=1.0, prior=normal(0, 1), **options).final_mean.tolist()


def stream_and_back(name: str, p: int, **options: Any) -> Run:
    """The last and the first state of `stream`."""
    from bossa.assimilate import batches
    from bossa.state.distributions import normal

    data, formula = pl.read_csv(file(name)), "y ~ " + " + ".join(f"x{j}" for j in range(1, p))

    def run() -> list[float]:
        r = batches(formula, data, by="week", sigma=1.0, prior=normal(0, 1), **options)
        return [*r.final_mean, *r.smoothed_mean[0]]

    return run


def rows_of(name: str, p: int) -> tuple[Any, Any]:
    """X (T, 100, p) and y (T, 100)."""
    data = pl.read_csv(file(name))
    X = np.column_stack((np.ones(len(data)), data.select(f"x{j}" for j in range(1, p)).to_numpy()))
    return X.reshape(-1, 100, p), data["y"].to_numpy().reshape(-1, 100)


def learnt(engine: str) -> Run:
    """From rows as arrays: states and covariances after each batch."""
    from bossa import engine as chosen
    from bossa.kernels.kalman import still
    from bossa.kernels.linalg import triangulars

    rows = list(np.concatenate([a if a.ndim == 3 else a[:, :, None] for a in rows_of("w19_weeks", 20)], axis=2))

    def run() -> list[float]:
        with chosen(engine):
            R = np.array(triangulars(rows))
            mean, _, _ = still(R[:, :20, :20], R[:, :20, 20], np.zeros(20), np.eye(20), np.ones(len(R)))
        return mean[-1].tolist()

    return run


def numpy_loop(covariances: bool) -> Run:
    """The same by running sums of XᵀX and Xᵀy and a solution after each batch."""
    X, y = rows_of("w19_weeks", 20)

    def run() -> list[float]:
        G, right, out = np.eye(20), np.zeros(20), []
        for A, b in zip(X, y):
            G, right = G + A.T @ A, right + A.T @ b
            if covariances:
                V = np.linalg.inv(G)
                out.append((V @ right, V))
            else:
                out.append((np.linalg.solve(G, right), None))
        return out[-1][0].tolist()

    return run


def path(engine: str) -> Run:
    """From sufficient statistics: filter, evidence and smoother of coefficients that walk."""
    from bossa import engine as chosen
    from bossa.assimilate.engine import Scale, run
    from bossa.assimilate.sites import gaussian_site
    from bossa.assimilate.track import Motion, Start

    sites = [gaussian_site(t, t, X, y) for t, (X, y) in enumerate(zip(*rows_of("w19_weeks", 20)))]
    start, motion = Start(U=np.eye(20), d=np.zeros(20), flat=0, logdet=0.0), Motion(root=np.sqrt(WALK) * np.eye(20))

    def ask() -> list[float]:
        with chosen(engine):
            found = run(sites, start, motion, Scale(known=1.0), np.ones(len(sites)))[0]
        return [*found.mean[-1], *found.smoothed[0]]

    return ask


def statsmodels_state_space(name: str, p: int) -> Any:
    """Statsmodels' smoother of the same sufficient statistics z = Jβ + e, e ~ N(0, I)."""
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    X, y = rows_of(name, p)
    R = np.linalg.qr(np.concatenate((X, y[:, :, None]), axis=2), mode="r")
    eye = np.eye(p)
    one = KalmanSmoother(k_endog=p, k_states=p, transition=eye, selection=eye, obs_cov=eye, state_cov=WALK * eye)
    one.bind(np.ascontiguousarray(R[:, :p, p]))
    one["design"] = np.asfortranarray(R[:, :p, :p].transpose(1, 2, 0))
    one.initialize_known(np.zeros(p), (1 + WALK) * eye)
    return one, R


def statsmodels_path() -> Run:
    one, _ = statsmodels_state_space("w19_weeks", 20)

    def run() -> list[float]:
        found = one.smooth()
        return [*found.filtered_state[:, -1], *found.smoothed_state[:, 0]]

    return run


def statsmodels_nodes() -> Run:
    """Drift integrated out by hand: statsmodels' filter at each of bossa's 31 nodes."""
    from bossa.assimilate.drift import NODES, nodes

    one, R = statsmodels_state_space("w19_few", 5)
    v = np.median([np.diag(np.linalg.inv(J.T @ J)) for J in R[:, :5, :5]], axis=0)
    values, prior = nodes(NODES)

    def run() -> list[float]:
        logs, means = [], []
        for q in values:
            one["state_cov"] = np.diag(q * v)
            one.initialize_known(np.zeros(5), np.eye(5) + np.diag(q * v))
            found = one.filter()
            logs.append(found.llf)
            means.append(found.filtered_state[:, -1])
        w = prior * np.exp(np.array(logs) - max(logs))
        return (w / w.sum() @ np.array(means)).tolist()

    return run


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
    "W5/bossa": lambda: bossa("w05_sleepstudy", SLEEP),
    "W5/statsmodels": lambda: statsmodels_mixed("w05_sleepstudy", "Reaction ~ Days", "Subject", "Days"),
    "W6/bossa": lambda: bossa("w06_crossed", CROSSED, method="ml"),
    "W7/bossa": lambda: bossa("w07_slopes", SLOPES),
    "W8a0/bossa": lambda: bossa("w08_cbpp", HERDS, nagq=0, family="binomial"),
    "W8a1/bossa": lambda: bossa("w08_cbpp", HERDS, nagq=1, family="binomial"),
    "W8b0/bossa": lambda: bossa("w08_glmm", GROUPED, nagq=0, family="binomial"),
    "W8b1/bossa": lambda: bossa("w08_glmm", GROUPED, nagq=1, family="binomial"),
    "W9/bossa": lambda: fitted("w09_lm", FIVE, partial(resampled, n_boot=10_000, ci_type="percentile")),
    "W9b/bossa": lambda: fitted("w09_lm", FIVE, partial(resampled, n_boot=10_000)),
    "W10/bossa": lambda: fitted("w10_logit", FIVE, partial(resampled, n_boot=1000, ci_type="percentile"), family="binomial"),
    "W11/bossa": lambda: fitted("w09_lm", FIVE, permuted),
    "W12/bossa": lambda: fitted("w05_sleepstudy", SLEEP, partial(resampled, n_boot=1000)),
    "W13/bossa": lambda: fitted("w08_cbpp", HERDS, partial(resampled, n_boot=200), family="binomial"),
    "W14a/bossa": lambda: fitted("w14_lm", FIVE, partial(left_out, k="loo")),
    "W14b/bossa": lambda: fitted("w14_lm", FIVE, partial(left_out, k=10)),
    "W14c/bossa": lambda: fitted("w05_sleepstudy", SLEEP, partial(left_out, k="loo")),
    "W15/bossa": lambda: fitted("w05_sleepstudy", SLEEP, profiled),
    "W16/bossa": lambda: fitted("w04_logit", LOGIT, means, family="binomial"),
    "W16b/bossa": lambda: fitted("w04_logit", LOGIT, average_slopes, family="binomial"),
    "W16b/statsmodels": statsmodels_slopes,
    "W17a/bossa": lambda: fitted("w05_sleepstudy", SLEEP, satterthwaite),
    "W17b/bossa": lambda: fitted("w07_slopes", SLOPES, satterthwaite),
    "W19a/bossa numba": lambda: filtered("numba"),
    "W19a/bossa": lambda: filtered("numpy"),
    "W19a/bossa door": door,
    "W19a/statsmodels": statsmodels_filter,
    "W19b/bossa": lambda: stream("w19_weeks", 20),
    "W19b/bossa kernel": lambda: learnt("numpy"),
    "W19b/bossa kernel numba": lambda: learnt("numba"),
    "W19b/numpy loop": lambda: numpy_loop(False),
    "W19b/numpy loop + V": lambda: numpy_loop(True),
    "W19b2/bossa": lambda: path("numpy"),
    "W19b2/bossa numba": lambda: path("numba"),
    "W19b2/bossa door": lambda: stream_and_back("w19_weeks", 20, drift=WALK),
    "W19b2/statsmodels": statsmodels_path,
    "W19c/bossa": lambda: stream("w19_few", 5, drift="bayes"),
    "W19c/statsmodels": statsmodels_nodes,
    "W18a/bossa": lambda: power_of_a_slope("inf"),
    "W18b/bossa": lambda: power_of_a_slope("satterthwaite"),
    "W19d/bossa": particles_of_a_drift,
    "W19d/NumPy loop": particles_by_hand,
}
IN_R = ["W2/R lm", "W2/R lm + summary", "W3/R lm", "W3/R .lm.fit", "W4/R glm"]
IN_R += [f"{w}/lme4" for w in ("W5", "W6", "W7", "W8a0", "W8a1", "W8b0", "W8b1")]
IN_R += ["W9/boot + .lm.fit", "W9b/boot + .lm.fit", "W10/boot + glm.fit", "W11/.lm.fit loop", "W12/bootMer", "W13/bootMer"]
IN_R += ["W14a/hat identity", "W14b/cv.glm", "W14c/lmer loop", "W15/confint"]
IN_R += ["W19a/KalmanRun", "W19a/KalmanRun + KalmanSmooth", "W19b/R loop"]
IN_R += ["W16/emmeans", "W16b/R by hand", "W17a/lmerTest", "W17b/lmerTest", "W18a/refit loop", "W18b/lmerTest loop"]
NEEDS = {"statsmodels": "statsmodels", "pyfixest": "pyfixest", "glum": "glum"}
FILES = {
    "W2": "w02_lm_small",
    "W3": "w03_lm_big",
    "W4": "w04_logit",
    "W5": "w05_sleepstudy",
    "W6": "w06_crossed",
    "W7": "w07_slopes",
    "W8a0": "w08_cbpp",
    "W8a1": "w08_cbpp",
    "W8b0": "w08_glmm",
    "W8b1": "w08_glmm",
    "W9": "w09_lm",
    "W9b": "w09_lm",
    "W10": "w10_logit",
    "W11": "w09_lm",
    "W12": "w05_sleepstudy",
    "W13": "w08_cbpp",
    "W14a": "w14_lm",
    "W14b": "w14_lm",
    "W14c": "w05_sleepstudy",
    "W15": "w05_sleepstudy",
    "W16": "w04_logit",
    "W16b": "w04_logit",
    "W17a": "w05_sleepstudy",
    "W17b": "w07_slopes",
    "W18a": "w18_power",
    "W18b": "w18_power",
    "W19d": "w19_looks",
    "W19a": "w19_numbers",
    "W19b": "w19_weeks",
    "W19b2": "w19_weeks",
    "W19c": "w19_few",
}
TITLES = {
    "W2": "linear model, 200 × 4",
    "W3": "linear model, 10⁶ × 10, a text factor",
    "W4": "logistic, 10⁵ × 20",
    "W5": "sleepstudy, (Days | Subject), REML",
    "W6": "crossed, 73,421 rows, 2,972 + 1,128 levels, ML",
    "W7": "10⁵ rows, 5,000 groups with a slope, REML",
    "W8a0": "cbpp, joint modes (nagq 0)",
    "W8a1": "cbpp, Laplace",
    "W8b0": "logistic, 10⁴ rows, 500 groups, joint modes (nagq 0)",
    "W8b1": "logistic, 10⁴ rows, 500 groups, Laplace",
    "W9": "bootstrap of a linear model, 10,000 × (1000 × 6), percentile",
    "W9b": "the same with BCa limits (R: percentile)",
    "W10": "bootstrap of a logistic model, 1000 × (2000 × 6)",
    "W11": "Freedman–Lane tests of all terms, 10,000 × (1000 × 6); R permutes y once for all",
    "W12": "parametric bootstrap, sleepstudy, 1000",
    "W13": "parametric bootstrap, cbpp, 200",
    "W14a": "leave one out, linear model 2000 × 6",
    "W14b": "ten folds, the same",
    "W14c": "leave one subject out, sleepstudy",
    "W15": "profile limits with curves, sleepstudy, all parameters",
    "W16": "marginal means of a logistic fit, 10⁵ × 20",
    "W16b": "average slopes of 17 variables and their errors, the same fit",
    "W17a": "Satterthwaite df, sleepstudy",
    "W17b": "Satterthwaite df, W7",
    "W19a": "Kalman filter of 10⁵ numbers (door: with smoother, limits, tests)",
    "W19b": "10³ batches of 100 rows, 20 coefficients that stand still (bossa: from a frame; the others from arrays)",
    "W19b2": "the same, drifting: filter, evidence and smoother of sufficient statistics (door: from a frame)",
    "W19c": "drift integrated out, 200 batches of 100 rows, 5 coefficients (bossa: from a frame, with smoother; statsmodels: 31 filters)",
    "W18a": "power of a slope, 500 simulated studies of 30 × 10, (x | g), z tests",
    "W18b": "the same with Satterthwaite df",
    "W19d": "bootstrap particle filter, 10³ steps × 10⁴ particles; the loop gives means alone",
}

# (entrant, peer or "best peer", largest ratio), and memory in MB over the loaded data
GOALS: dict[str, list[tuple[str, str, float]]] = {
    "W2": [("W2/bossa", "W2/R lm", 1.0)],
    "W3": [("W3/bossa", "best peer", 0.25)],
    "W4": [("W4/bossa", "W4/glum", 0.6), ("W4/bossa", "W4/R glm", 0.15)],
    "W5": [("W5/bossa", "W5/lme4", 0.12)],
    "W6": [("W6/bossa", "W6/lme4", 0.25)],
    "W7": [("W7/bossa", "W7/lme4", 0.03)],
    "W8a0": [("W8a0/bossa", "W8a0/lme4", 0.2)],
    "W8a1": [("W8a1/bossa", "W8a1/lme4", 0.05)],
    "W8b0": [("W8b0/bossa", "W8b0/lme4", 0.2)],
    "W8b1": [("W8b1/bossa", "W8b1/lme4", 0.04)],
    "W9": [("W9/bossa", "W9/boot + .lm.fit", 0.06)],
    "W9b": [("W9b/bossa", "W9b/boot + .lm.fit", 0.08)],
    "W10": [("W10/bossa", "W10/boot + glm.fit", 0.04)],
    "W11": [("W11/bossa", "W11/.lm.fit loop", 0.5)],
    "W12": [("W12/bossa", "W12/bootMer", 0.01)],
    "W13": [("W13/bossa", "W13/bootMer", 0.005)],
    "W14a": [("W14a/bossa", "W14a/hat identity", 1.0)],
    "W14b": [("W14b/bossa", "W14b/cv.glm", 0.1)],
    "W14c": [("W14c/bossa", "W14c/lmer loop", 0.02)],
    "W15": [("W15/bossa", "W15/confint", 0.1)],
    "W16": [("W16/bossa", "W16/emmeans", 0.1)],
    "W16b": [("W16b/bossa", "W16b/R by hand", 0.1), ("W16b/bossa", "W16b/statsmodels", 0.01)],
    "W17a": [("W17a/bossa", "W17a/lmerTest", 0.05)],
    "W17b": [("W17b/bossa", "W17b/lmerTest", 0.02)],
    "W19a": [("W19a/bossa numba", "W19a/KalmanRun", 0.5)],
    "W19b": [("W19b/bossa kernel numba", "W19b/numpy loop + V", 0.6)],
    "W19b2": [("W19b2/bossa numba", "W19b2/statsmodels", 1.0)],
    "W19c": [],
    "W18a": [("W18a/bossa", "W18a/refit loop", 0.01)],
    "W18b": [("W18b/bossa", "W18b/lmerTest loop", 0.01)],
    "W19d": [("W19d/bossa", "W19d/NumPy loop", 1.0)],
}
MEMORY = {"W9/bossa": 60.0, "W3/bossa": 100.0, "W4/bossa": 60.0, "W6/bossa": 100.0, "W16b/bossa": 20.0}


def available(workload: str, with_r: bool) -> list[str]:
    """The entrants that can run here."""
    python = [e for e in ENTRANTS if e.startswith(f"{workload}/") and (e.split("/")[1] not in NEEDS or find_spec(NEEDS[e.split("/")[1]]))]
    return python + ([e for e in IN_R if e.startswith(f"{workload}/")] if with_r else [])
