"""Hand-made states in the shape of a Model: report must present them without any other part of the library."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from attrs import evolve, frozen

from bossa.kernels.family import resolve_family
from bossa.kernels.link import resolve_link
from bossa.state.design import Design, Problem, REStructure, RETerm
from bossa.state.fit import FitState, Outcome
from bossa.state.inference import EffectsState, InferenceState, JointTestState, PredictionState, SimulationState
from bossa.state.spec import Name, Spec, Term
from bossa.state.target import Linear, Target


@frozen(kw_only=True, eq=False)
class Stub:
    """What report reads of a Model."""

    spec: Any
    data: Any = None
    problem: Any = None
    fit_state: Any = None
    inference: Any = None
    joint: Any = None
    focus: Any = None
    focus_inference: Any = None


DATA = pl.DataFrame({"y": [1.0, 2.5, None, 2.0, 4.5, 5.0], "x": [0.0, 1.0, 2.0, 2.0, 3.0, 4.0], "estimate": ["a", "b", "a", "b", "a", "b"]})
USED = np.array([0, 1, 3, 4, 5])


def make_spec(family: str = "gaussian", link: str | None = None, x: str = "x") -> Spec:
    family = resolve_family(family)
    link = resolve_link(link or family.canonical)
    fixed = (Term(()), Term((Name(x),)), Term((Name(f"{x}2"),)))
    return Spec(formula=f"y ~ {x} + {x}2", response=Name("y"), fixed=fixed, family=family, link=link)


def make_fitted(family: str = "gaussian", x: str = "x", random: REStructure | None = None) -> Stub:
    """y on x and a copy of x, which rank drops; least squares by hand."""
    spec = make_spec(family, x=x)
    X = np.column_stack([np.ones(5), DATA["x"].to_numpy()[USED]])
    y = DATA["y"].to_numpy()[USED]
    coef, rss = np.linalg.lstsq(X, y, rcond=None)[:2]
    design = Design(
        X=X,
        y=y,
        names=("Intercept", x),
        term_of=np.array([0, 1]),
        terms=("Intercept", x, f"{x}2"),
        columns=("Intercept", x, f"{x}2"),
        kept=np.array([True, True, False]),
        rows=USED,
        n_data=6,
        random=random,
        notes=("1 of 6 rows left out: y missing in 1",),
    )
    problem = Problem(design=design, spec=spec, family=spec.family, link=spec.link, method=spec.method)
    fit = FitState(
        estimator="lm" if family == "gaussian" else "glm",
        coef=coef,
        vcov=rss[0] / 3 * np.linalg.inv(X.T @ X),
        kept=design.kept,
        sigma=np.sqrt(rss[0] / 3),
        dispersion=rss[0] / 3,
        dispersion_estimated=True,
        eta=X @ coef,
        mu=X @ coef,
        working=None if family == "gaussian" else np.ones(5),
        loglik=-4.0,
        deviance=rss[0],
        npar=3,
        df_resid=3,
        theta=None if random is None else np.ones(sum(int(t.mask.sum()) for t in random.terms)),
        notes=("not estimable: a copy",),
        outcome=Outcome(status="suspect", message="It wobbles.", advice="Look again."),
    )
    return Stub(spec=spec, data=DATA, problem=problem, fit_state=fit)


def make_inference(estimate: np.ndarray, **changes: Any) -> InferenceState:
    K = len(estimate)
    se = np.full(K, 0.123456)
    return InferenceState(
        how="asymp",
        se=se,
        statistic=estimate / se,
        df=np.full(K, 3.0),
        p_value=np.full(K, 3.2e-310),
        interval=np.array([estimate - 2 * se, estimate + 2 * se]),
        notes=("errors: a note on se",),
        **changes,
    )


@pytest.fixture(scope="session")
def stub():
    """make(family=…, x=…, random=…) → a fitted stub."""
    return make_fitted


@pytest.fixture(scope="session")
def random_terms() -> REStructure:
    """(1 + x | g) and an uncorrelated (x || h:k)."""
    group = np.array([0, 0, 1, 1, 1])
    Z = np.column_stack([np.ones(5), np.arange(5.0)])
    full = RETerm(factor="g", names=("Intercept", "x"), levels=("a", "b"), group=group, Z=Z, mask=np.tril(np.ones((2, 2), bool)))
    single = RETerm(factor="h:k", names=("x_1",), levels=("a", "b"), group=group, Z=Z[:, 1:], mask=np.ones((1, 1), bool))
    return REStructure(terms=(full, evolve(full, factor="k", mask=np.eye(2, dtype=bool)), single))


@pytest.fixture(scope="session")
def states(random_terms) -> dict[str, Stub]:
    """One stub per state that a Model can be in."""
    fitted = make_fitted()
    inferred = evolve(fitted, inference=make_inference(fitted.fit_state.coef))
    tests = pl.DataFrame({"term": ["x"], "df1": [1.0], "df2": [3.0], "statistic": [9.5], "p_value": [0.05]})
    joint = JointTestState(frame=tests, kind="type 3", statistic_name="F", notes=("type 3: a note",))
    L = np.array([[1.0, 0.0], [1.0, 2.0], [1.0, 9.0]])
    target = Target(
        labels=pl.DataFrame({"estimate": ["a", "b", "c"]}),
        steps=(Linear(matrix=L),),
        kind="means",
        notes=("averaged over nothing",),
        estimable=np.array([True, True, False]),
        reason=("c: its cell is empty",),
    )
    values = L @ fitted.fit_state.coef
    explored = evolve(fitted, focus=EffectsState(query="estimate", target=target, estimate=values))
    rows = pl.DataFrame({"x": [1.0, None, 3.0]})
    ahead = PredictionState(
        newdata=rows, target=evolve(target, kind="predictions"), fitted=np.array([1.0, np.nan, 3.0]), notes=("a null row",)
    )
    predicted = evolve(fitted, focus=ahead)
    drawn = SimulationState(rows=USED, values=np.ones((5, 2)), seed=3, notes=("seed: 3",))
    summarised = InferenceState(how="asymp", columns={"mean": np.ones(5), "sd": np.zeros(5)}, notes=("quantiles",))
    return {
        "empty": Stub(spec=make_spec()),
        "unfitted": Stub(spec=make_spec("binomial"), data=DATA),
        "fitted": fitted,
        "poisson": make_fitted("poisson"),
        "mixed": make_fitted(random=random_terms),
        "inferred": inferred,
        "joint": evolve(fitted, joint=joint),
        "both": evolve(inferred, joint=joint),
        "explored": explored,
        "explored inferred": evolve(explored, focus_inference=make_inference(values)),
        "explored joint": evolve(explored, focus_inference=joint),
        "predicted": predicted,
        "predicted inferred": evolve(predicted, focus_inference=make_inference(np.array([1.0, np.nan, 3.0]))),
        "simulated": evolve(fitted, focus=drawn),
        "simulated inferred": evolve(fitted, focus=drawn, focus_inference=summarised),
    }
