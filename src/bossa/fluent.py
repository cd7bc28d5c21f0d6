"""`model()` and the one object a user holds: an immutable `Model` whose verbs return new Models.

Wiring only: every verb hands states to the layer that knows (design, estimate, explore, infer) and every property asks `report` for a
frame. `_then` is the only place that knows what becomes stale when a stage changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl
from attrs import evolve, frozen

from . import lazy
from .design.data import as_frame
from .design.encode import encode
from .design.formula import make_spec, resolve, update_formula
from .errors import DataError, FormulaError, NotFitted, OptionError, Refused, UnknownOption, listing
from .estimate import registry
from .infer import further, infer, posterior_of, stream_of
from .kernels.family import resolve_family
from .kernels.link import resolve_link
from .state.design import FitOptions, Problem
from .state.fit import FitState
from .state.inference import EffectsState, InferenceState, JointTestState, PredictionState, SimulationState
from .state.posterior import Posterior
from .state.spec import Spec
from .state.target import Target

if TYPE_CHECKING:
    from . import generate
    from . import power as powers
    from .explore import diagnose, effects, hypothesis, predict, simulate
    from .infer import joint
    from .report import equation, explain, html, plot, summary, table, text
else:  # the same modules, run when first used: a first fit does not wait for them
    generate, powers = lazy.module("generate"), lazy.module("power")
    diagnose, effects, hypothesis = (lazy.module(f"explore.{name}") for name in ("diagnose", "effects", "hypothesis"))
    predict, simulate = lazy.module("explore.predict"), lazy.module("explore.simulate")
    joint = lazy.module("infer.joint")
    equation, explain, html = (lazy.module(f"report.{name}") for name in ("equation", "explain", "html"))
    plot, summary, table, text = (lazy.module(f"report.{name}") for name in ("plot", "summary", "table", "text"))

Focus = EffectsState | PredictionState | SimulationState


def model(
    formula: str,
    data: Any = None,
    *,
    family: Any = "gaussian",
    link: Any = None,
    weights: str | None = None,
    freq_weights: str | None = None,
    offset: str | None = None,
    contrasts: dict | None = None,
    levels: dict | None = None,
    method: str | None = None,
    missing: str = "drop",
    prior: Any = None,
    env: dict | None = None,
) -> Model:
    """A model of `data` by an R / lme4 formula; `.fit()` estimates it.

    formula       "y ~ x * g + (1 | subject)"; data, never code to evaluate
    data          polars, pandas, pyarrow or any Narwhals frame, or a dict of columns; never changed
    family, link  names in R's or Python's spelling, or Family / Link objects; link None: the family's usual one
    weights       column of prior weights (binomial proportion: trials);  freq_weights: column of counts;  offset: column
    contrasts     {"g": "treatment" | "sum" | "helmert" | "poly" | "sequential" | array (levels, columns)}
    levels        {"g": ["b", "a"]}: order, the first is the reference
    method        "ols" (LM), "reml" | "ml" (LMM), "ml" (GLM, GLMM); None: the first of these that applies
    prior         bossa.normal(0, 2.5), {"x": bossa.normal(0, 1)} or the .posterior of another fit; `.fit()` then gives the most probable
                  coefficients and their posterior standard errors
    missing       "drop": rows with a missing value in any column used are left out, and said; "error": refused
    env           {"name": function or value} that the formula may use

    >>> from bossa import model, load_dataset
    >>> model("mpg ~ wt", load_dataset("mtcars")).fit().params.columns
    ['term', 'estimate']
    """
    spec = make_spec(
        formula,
        weights=weights,
        freq_weights=freq_weights,
        offset=offset,
        contrasts=contrasts,
        levels=levels,
        missing=missing,
        env=env,
    )
    family = resolve_family(family)
    link = resolve_link(family.canonical if link is None else link)
    spec = evolve(spec, family=family, link=link, method=_method(method, spec, family, link), prior=prior)
    if data is None:
        return Model(spec=spec)
    frame = as_frame(data)
    return Model(spec=resolve(spec, frame), data=frame)


def _method(method: str | None, spec: Spec, family: Any, link: Any) -> str:
    """The estimation method that the model kind takes, checked."""
    gaussian = family.name == "gaussian" and link.name == "identity"
    allowed = (("reml", "ml") if spec.bars else ("ols",)) if gaussian else ("ml",)
    if method is None:
        return allowed[0]
    if not isinstance(method, str) or method.lower() not in allowed:
        kind = "a linear" if gaussian else "a generalized linear"
        raise UnknownOption(method, allowed, where=f"{kind} {'mixed ' if spec.bars else ''}model", kind="method")
    return method.lower()


def _prior_stays(prior: Any, names: tuple[str, ...], formula: str) -> None:
    """Is every coefficient that a prior names still there?"""
    told = prior.names if isinstance(prior, Posterior) else [n for n in prior if n != "sigma"] if isinstance(prior, Mapping) else ()
    gone = [name for name in told if name not in names]
    if gone:
        what = f"the model's prior names {listing(gone)}, which {formula!r} does not have."
        do = "Write model(formula, data, prior=…) anew, with a prior of the coefficients that stay (of a posterior its .marginal([…]))."
        raise OptionError(what, where="update()", do=do)


@frozen(kw_only=True, eq=False, repr=False)
class Model:
    """A model, its fit, and the last question asked of it. Verbs return new Models; nothing changes in place."""

    spec: Spec
    data: pl.DataFrame | None = None
    problem: Problem | None = None
    fit_state: FitState | None = None
    inference: InferenceState | None = None
    joint: JointTestState | None = None
    focus: Focus | None = None
    focus_inference: InferenceState | JointTestState | None = None

    # ---------------------------------------------------------------- stages
    def _then(self, **new: Any) -> Model:
        """The next value of the model: what depends on a changed stage is dropped, what was given is kept."""
        stale: dict[str, Any] = {}
        if "spec" in new or "data" in new:
            stale |= {"problem": None, "fit_state": None}
        if stale or "fit_state" in new:
            stale |= {"inference": None, "joint": None, "focus": None}
        if "focus" in (stale | new):
            stale |= {"focus_inference": None}
        return evolve(self, **(stale | new))

    def _fitted(self, asked: str) -> tuple[Problem, FitState]:
        if self.problem is None or self.fit_state is None:
            raise NotFitted(
                f"this model is not fitted yet, so it has no {asked}.",
                where=f"model({self.spec.formula!r})",
                do="Verbs return new models: write m = m.fit() and ask that.",
            )
        return self.problem, self.fit_state

    def _focus(self, kind: type, asked: str, verb: str) -> Any:
        self._fitted(asked)
        if not isinstance(self.focus, kind):
            raise NotFitted(f"there are no {asked} yet.", where=f"model({self.spec.formula!r})", do=f"Write m = m.{verb} and ask that.")
        return self.focus

    @property
    def design(self):
        """The `Design` of the fitted model."""
        return self._fitted("design")[0].design

    @property
    def encoder(self):
        """The `Encoder` that turns new rows into the same columns."""
        return self._fitted("encoder")[0].encoder

    # ---------------------------------------------------------------- verbs
    def fit(
        self,
        *,
        method: str | None = None,
        nagq: int | None = None,
        optimizer: str | None = None,
        max_iter: int | None = None,
        tol: float | None = None,
        start: Any = None,
        solver: Any = None,
    ) -> Model:
        """Estimate the coefficients.

        method     as in model();  nagq 0 fast, 1 Laplace, > 1 adaptive Gauss–Hermite (mixed models)
        max_iter, tol, start   of the search; None: the estimator's own
        solver     none: a formula's model is solved by its estimator, residuals of one's own by bossa.assimilate.least_squares
        raises     DataError for data the model cannot be fitted to
        """
        if solver is not None:
            what, do = f"solver={solver!r} is not for a formula: each kind of model has one way to be solved.", "Leave it out"
            do = f"{do}, or give residuals of your own to bossa.assimilate.least_squares(residual, jacobian, start, solver=…)."
            raise Refused(what, where="fit()", do=do)
        if self.data is None:
            raise DataError("there are no data to fit to.", where=f"model({self.spec.formula!r})", do="Give model(formula, data).")
        if self.spec.response is None:
            text = self.spec.formula
            raise FormulaError("it has no response to fit.", text=text, do=f"Write 'y {text.strip()}'.")
        spec = self.spec if method is None else evolve(self.spec, method=_method(method, self.spec, self.spec.family, self.spec.link))
        encoder, design, used = encode(spec, self.data)
        options = FitOptions(nagq=nagq, optimizer=optimizer, max_iter=max_iter, tol=tol, start=start)
        problem = Problem(
            design=design,
            spec=spec,
            family=spec.family,
            link=spec.link,
            method=spec.method,
            encoder=encoder,
            data=used,
            source=None if used is self.data else self.data,
            prior=spec.prior,
            options=options,
        )
        problem, fit = registry.fit(problem)
        return self._then(spec=spec, problem=problem, fit_state=fit)

    def infer(self, how: str = "asymp", **options: Any) -> Model:
        """How uncertain is what was asked last: the parameters, or the effects, predictions or simulations of this value.

        how      "asymp" | "boot" | "perm" | "cv" | "profile" | "joint" | "posterior" | "assim"
        options  conf_level=0.95, null=None, alternative="two-sided" and those of the how; an unknown one is an error with the nearest name
        """
        if isinstance(self.focus, SimulationState):
            return self._then(focus=self.focus, focus_inference=simulate.summarise(self.focus, how, options))
        problem, fit = self._fitted("inference")
        if self.focus is None:
            result = infer(problem, fit, self._params_target(), how, options)
            return self._then(joint=result) if isinstance(result, JointTestState) else self._then(inference=result)
        return self._then(focus_inference=infer(problem, fit, self.focus.target, how, options))

    def explore(
        self,
        query: str,
        *,
        at: dict | None = None,
        by: Any = None,
        average: str | None = None,
        weights: str = "equal",
        scale: str = "auto",
        compare: str = "difference",
        varying: str = "exclude",
        inverse_transforms: bool = True,
    ) -> Model:
        """Ask the fit for marginal means, slopes or contrasts: "g", "pairwise(g) ~ h", "slope(x) ~ g", "x@[1, 2]:g" …

        "information": how much of each coefficient is data, how much its prior

        at        {"x": [1, 2]}: values held;  by: column(s) within which to answer
        average   "grid" (balanced reference grid) | "observed" (over the rows);  weights of the grid's cells
        scale     "auto" | "link" | "response";  compare: "difference" | "ratio" | "odds_ratio" | "lift"
        """
        problem, fit = self._fitted("effects")
        state = effects.explore(
            problem,
            fit,
            query,
            at=at,
            by=by,
            average=average,
            weights=weights,
            scale=scale,
            compare=compare,
            varying=varying,
            inverse_transforms=inverse_transforms,
        )
        return self._then(focus=state)

    def predict(
        self, newdata: Any = None, *, type: str = "response", varying: str = "include", new_levels: str = "error", n_points: int = 50
    ) -> Model:
        """Predicted values for the rows of `newdata` (None: the data; {"x": 1, "g": "a"}: one row), or of a query: "wt ~ cyl@[4, 6]"."""
        problem, fit = self._fitted("predictions")
        if isinstance(newdata, dict) and newdata and all(isinstance(v, (str, int, float)) for v in newdata.values()):
            newdata = {name: [value] for name, value in newdata.items()}  # one new row, written plainly
        rows = self.data if newdata is None else newdata if isinstance(newdata, str) else as_frame(newdata)
        state = predict.predict(problem, fit, rows, type=type, varying=varying, new_levels=new_levels, n_points=n_points)
        return self._then(focus=state)

    def simulate(
        self,
        nsim: int = 1,
        *,
        seed: Any = None,
        varying: Any = None,
        data: Any = None,
        n: Any = None,
        coef: dict | None = None,
        sigma: Any = None,
        default: float | None = None,
        power: int | None = None,
        how: str | None = None,
        alpha: float | None = None,
        options: dict | None = None,
        design: str | None = None,
        n_jobs: int | None = None,
        **columns: Any,
    ) -> Any:
        """New responses: from the fit, or with `coef=` from nothing: data as the formula and the assumed parameters would have them.

        nsim     responses, one column each in `.simulations`;  seed: as `numpy.random.default_rng` takes it
        varying  after a fit "fitted" (default) or "sample" random effects; from nothing {"s": {"sd": {"Intercept": 1, "x": 0.5}}}
        n, coef, sigma, default   rows, {coefficient: value}, residual standard deviation, value of coefficients not named
        columns  x=normal(0, 1), g=factor("a", "b"), s=groups(30), an array, a number
        data     a frame that has the other columns; None: the model's own, if it has one
        power    replicates: returns a frame of rejection rates, bias and coverage by coefficient, one block of rows for each combination
                 of what is a list in n, coef, sigma, columns; tested by `how`, `options` as in infer() at level `alpha`;
                 design "new" (default): columns drawn anew in every replicate, or "fixed"

        >>> from bossa import model, normal
        >>> model("y ~ x").simulate(n=50, coef={"Intercept": 0, "x": 0.5}, sigma=1, x=normal(), seed=1).fit().params.height
        2
        """
        study = {"power": power, "how": how, "alpha": alpha, "options": options, "design": design, "n_jobs": n_jobs}
        settings = powers.settings_of(study)
        if coef is None:
            given = {"data": data, "n": n, "sigma": sigma, "default": default, "power": power, **columns}
            generate.refuse_parts(self.spec, given, self.fit_state)
            problem, fit = self._fitted("simulations")
            kind = "fitted" if varying is None else varying
            return self._then(focus=simulate.simulate(problem, fit, nsim, seed=seed, varying=kind))
        rows = self.data if data is None else as_frame(data)
        recipe = generate.Recipe(spec=self.spec, coef=coef, default=default, sigma=sigma, varying=varying, columns=columns, data=rows, n=n)
        if power is not None:
            return powers.power_frame(recipe, settings, seed)
        simulate.check_nsim(nsim)
        frame, state = generate.generated(recipe, nsim, seed)
        return self._then(spec=resolve(self.spec, frame), data=frame, focus=state)

    def assimilate(self, batch: Any) -> Model:
        """One more batch into a model inferred with how="assim": a frame with the formula's columns and the batch's id (`by=`).

        The fit stays what it was; the inference, `.posterior` and `.trajectory()` go on.
        """
        problem, _ = self._fitted("assimilate()")
        if self.focus is None:
            return self._then(inference=further(problem, self._params_target(), self.inference, batch))
        if isinstance(self.focus, SimulationState):
            raise Refused("simulations are not assimilated.", where="assimilate()", do="Ask the model before .simulate().")
        return self._then(focus_inference=further(problem, self.focus.target, self.focus_inference, batch))

    def update(self, formula: str) -> Model:
        """A new, unfitted model by an edited formula: `m.update(". ~ . - x")`.

        The prior stays; one that names a coefficient that leaves is an error.
        """
        changed = make_spec(
            update_formula(self.spec.formula, formula),
            weights=self.spec.weights,
            freq_weights=self.spec.freq_weights,
            offset=self.spec.offset,
            contrasts=dict(self.spec.contrasts),
            levels=dict(self.spec.levels),
            missing=self.spec.missing,
            env=dict(self.spec.env),
        )
        changed = evolve(changed, family=self.spec.family, link=self.spec.link, prior=self.spec.prior)
        same_kind = bool(changed.bars) == bool(self.spec.bars)  # a mixed model asked for by ML stays so
        changed = evolve(changed, method=_method(self.spec.method if same_kind else None, changed, changed.family, changed.link))
        if self.data is None:
            return self._then(spec=changed)
        changed = resolve(changed, self.data)
        if self.spec.prior is not None:
            _prior_stays(self.spec.prior, encode(changed, self.data)[1].names, changed.formula)
        return self._then(spec=changed)

    def test(self, *hypotheses: str, errors: str = "iid", cluster: str | None = None, df: str = "auto") -> pl.DataFrame:
        """A joint test of linear hypotheses in words: m.test("x1 - x2 = 0", "x3 = 1"). One row: df1, df2, statistic, p_value."""
        problem, fit = self._fitted("tests")
        L, null = hypothesis.parse_hypotheses(hypotheses, problem.design.names)
        return joint.joint_hypothesis(problem, fit, L, null, errors=errors, cluster=cluster, df=df).frame

    def _params_target(self) -> Target:
        return Target(labels=pl.DataFrame({"term": list(self.design.names)}), kind="params")

    # ---------------------------------------------------------------- results
    @property
    def params(self) -> pl.DataFrame:
        """term, estimate, and the columns of the last `.infer()` of the parameters."""
        self._fitted("params")
        return table.params_frame(self)

    @property
    def effects(self) -> pl.DataFrame:
        """What `.explore()` asked for, or the tests of `.infer(how="joint")`."""
        if self.focus is None and self.joint is not None:
            return self.joint.frame
        self._focus(EffectsState, "effects", 'explore("…")')
        return table.effects_frame(self)

    @property
    def predictions(self) -> pl.DataFrame:
        """The rows asked for, `fitted`, and the columns of `.infer()`."""
        self._focus(PredictionState, "predictions", "predict()")
        return table.predictions_frame(self)

    @property
    def simulations(self) -> pl.DataFrame:
        """sim_1, sim_2, …; after `.infer()`: mean, sd and quantiles of each row."""
        if not isinstance(self.focus, SimulationState):
            self._focus(SimulationState, "simulations", "simulate()")
        return table.simulations_frame(self)

    @property
    def diagnostics(self) -> pl.DataFrame:
        """One row: n, df, sigma, deviance, log-likelihood, AIC, BIC, R² …"""
        return table.diagnostics_frame(self, diagnose.diagnostics(*self._fitted("diagnostics")))

    @property
    def vcov(self) -> pl.DataFrame:
        """Covariance of the coefficients: by the last `.infer(errors=…)` of the parameters, else the model's own."""
        self._fitted("vcov")
        return table.vcov_frame(self)

    @property
    def convergence(self):
        """How the search ended: status, one sentence, what to do."""
        return table.convergence(self._fitted("convergence")[1].outcome)

    @property
    def designmat(self) -> pl.DataFrame:
        """The design matrix by column name."""
        self._fitted("designmat")
        return table.designmat_frame(self)

    @property
    def metadata(self) -> pl.DataFrame:
        """Which rows of the data were used, and why the others were not."""
        self._fitted("metadata")
        return table.metadata_frame(self)

    @property
    def varying_offsets(self) -> pl.DataFrame:
        """Random effects: group, level, term, estimate, se."""
        return table.varying_frame(self, "offsets", *self._fitted("varying_offsets"))

    @property
    def varying_params(self) -> pl.DataFrame:
        """Each group's own coefficients: fixed part plus random effect."""
        return table.varying_frame(self, "params", *self._fitted("varying_params"))

    @property
    def varying_spread(self) -> pl.DataFrame:
        """Variances, standard deviations and correlations of the random effects, and the residual row."""
        return table.varying_frame(self, "spread", *self._fitted("varying_spread"))

    @property
    def posterior(self):
        """What is known of the parameters, effects or predictions asked last, as a `Posterior`: after any `.infer()`."""
        problem, fit = self._fitted("posterior")
        state = (self.inference or self.joint) if self.focus is None else self.focus_inference
        if state is None:
            raise NotFitted("nothing was inferred yet.", where=".posterior", do="Write m = m.infer() and ask that.")
        target: Any = self._params_target() if self.focus is None else getattr(self.focus, "target", None)
        return posterior_of(problem, fit, self.focus, target, state)

    @property
    def resamples(self) -> pl.DataFrame:
        """Every replicate of the last bootstrap or permutation: replicate, term, estimate, code (0 usable)."""
        self._fitted("resamples")
        return table.resamples_frame(self)

    @property
    def stream(self):
        """After .infer(how="assim"): the `AssimilationResult`, with news(), weights(), aci(), redesign(), compare(), to_json()."""
        self._fitted("stream")
        return stream_of(self.inference if self.focus is None else self.focus_inference, "stream")

    def trajectory(self, *, smoothed: bool = False, lag: int | None = None) -> pl.DataFrame:
        """After .infer(how="assim"): the parameters or effects after each batch (smoothed: each given all batches, or `lag` more)."""
        return self.stream.trajectory(smoothed=smoothed, lag=lag)

    def plot_trajectory(self, *, smoothed: bool = False):
        """After .infer(how="assim"): each number after each batch, with its interval and the alarms."""
        return self.stream.plot(smoothed=smoothed)

    def monitor(
        self, *, z_limit: float = 3.0, k: float = 0.5, h: float = 5.0, null: float = 0.0, mixture_sd: float | None = None
    ) -> pl.DataFrame:
        """After .infer(how="assim"): does the stream still agree with the model? Options as `bossa.assimilate.monitor`."""
        return self.stream.monitor(z_limit=z_limit, k=k, h=h, null=null, mixture_sd=mixture_sd)

    # ---------------------------------------------------------------- reading
    def tidy(self) -> pl.DataFrame:
        """`.params` (or `.effects`) under broom's names."""
        self._fitted("tidy()")
        return table.tidy(self)

    def glance(self) -> pl.DataFrame:
        """`.diagnostics` under broom's names."""
        return table.glance(self, diagnose.diagnostics(*self._fitted("glance()")))

    def augment(self, new: Any = None) -> pl.DataFrame:
        """Every row of the data with fitted value, residual, leverage …; rows not used have nulls. `new`: other rows, fitted only."""
        problem, fit = self._fitted("augment()")
        if new is None:
            return table.augment(self, diagnose.casewise(problem, fit))
        return table.augment_new(self.predict(new).infer())

    def vif(self) -> pl.DataFrame:
        """Variance inflation: GVIF per term."""
        return table.vif_frame(diagnose.vif(*self._fitted("vif()")))

    def jointtest(self, **options: Any) -> pl.DataFrame:
        """One test per term: type=1, 2 or 3 (default), test="wald" or "lr", any errors=."""
        if not options and self.joint is not None:
            return self.joint.frame
        return self._then(focus=None).infer(how="joint", **options).effects

    def summary(self):
        """R-like text of the fit."""
        problem, fit = self._fitted("summary()")
        shown = self if self.inference is not None else self._then(focus=None).infer()
        return summary.summary(shown, diagnose.diagnostics(problem, fit), diagnose.casewise_residuals(problem, fit))

    def equation(self, *, numbers: bool = False, form: str = "bars"):
        """The model as LaTeX, with symbols or with the estimates; form="levels": a mixed model level by level."""
        return equation.equation(self, numbers=numbers, form=form)

    def explain(self):
        """The worked steps of the last result."""
        self._fitted("explain()")
        return explain.explain(self)

    # ---------------------------------------------------------------- pictures
    def plot(self, kind: str | None = None):
        """The picture of what was done last, or of `kind`: "params", "resid" … A `Plot` has `.figure`, `.axes`, `.frame`, `.save(path)`."""
        kind = plot.kind_of(self) if kind is None else kind
        plot.drawing(kind)
        return getattr(self, f"plot_{kind}")()

    def plot_params(self, *, intercept: bool = False):
        """Coefficients with their intervals; by the model's own standard errors where nothing was inferred."""
        self._fitted("plot_params()")
        shown = self if self.inference is not None else self._then(focus=None).infer()
        return plot.drawing("params")(shown, intercept=intercept)

    def plot_resid(self):
        """Residuals against fitted values, normal quantiles, their spread, leverage."""
        return plot.drawing("resid")(self, diagnose.casewise(*self._fitted("plot_resid()")))

    def plot_varying(self):
        """Every group's random effect with its interval."""
        self._fitted("plot_varying()")
        return plot.drawing("varying")(self)

    def plot_explore(self):
        """What `.explore()` asked for, with intervals."""
        self._focus(EffectsState, "effects", 'explore("…")')
        return plot.drawing("explore")(self if self.focus_inference is not None else self.infer())

    def plot_predict(self):
        """Predictions over what varies in the new rows; those of the data against what was observed."""
        self._focus(PredictionState, "predictions", "predict()")
        return plot.drawing("predict")(self)

    def plot_simulate(self):
        """The response as it is and as it is simulated from the model."""
        self._focus(SimulationState, "simulations", "simulate()")
        return plot.drawing("simulate")(self)

    def plot_design(self):
        """The design matrix as a picture."""
        self._fitted("plot_design()")
        return plot.drawing("design")(self)

    def plot_vif(self):
        """How much the other terms widen each term's interval."""
        return plot.drawing("vif")(self, self.vif())

    def plot_relationships(self):
        """The response and the variables of the formula, two by two; before a fit, too."""
        return plot.drawing("relationships")(self)

    def plot_resamples(self):
        """The replicates of the last bootstrap or permutation."""
        self._fitted("plot_resamples()")
        return plot.drawing("resamples")(self)

    def plot_profile(self):
        """The likelihood along each parameter, after `.infer(how="profile")`."""
        self._fitted("plot_profile()")
        return plot.drawing("profile")(self)

    def __repr__(self) -> str:
        return text.text(self)

    def _repr_html_(self) -> str:
        return html.html(self)
