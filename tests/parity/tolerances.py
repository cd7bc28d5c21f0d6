"""How close is close enough, and why: the one table of tolerances.

An error is a difference divided by a scale; it must not exceed the tolerance of its kind for the model at hand.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

from corpus import Case

# Of a standard error (estimates, limits) or relative (everything else), by kind of model.
BASE = {
    "lm": (1e-9, "closed form: both sides carry only rounding, a few epsilon times the condition number"),
    "glm": (1e-7, "both iterate to rounding of the score; R's reference is polished by Newton steps"),
    "lmer": (1e-6, "the optimum is found by an optimizer on both sides; R's is polished, `ref_acc` says how well"),
    "glmer": (1e-5, "as lmer, with an inner optimization per group"),
    "compare": (1e-6, "statistics of two fits; differences of deviances lose digits"),
}

# kind: (scale of the error, absolute tolerance that replaces BASE or None, reason)
KINDS = {
    "estimate": ("its standard error", None, "what a difference in an estimate or limit means is set by its standard error"),
    "relative": ("the reference", None, "numbers of one sign and size: standard errors, degrees of freedom, likelihoods, sums of squares"),
    "scaled": (
        "the unit it is measured in",
        None,
        "numbers that may be 0: covariances √(VᵢᵢVⱼⱼ), residuals σ, statistics max(1, |t|), columns their norm",
    ),
    "p": (
        "the reference, down to 1e-300",
        None,
        "below 1e-300 both sides underflow and both must be; mixed models: times max(1, 2 |ln p|), what the tolerance of t makes of p",
    ),
    "multiplicity": ("1", 1e-9, "R integrates numerically for these p-values; Šidák's it takes as 1 − (1 − p)ᵏ, which is 0 below 1e-17"),
    "simulated": ("1", 1e-3, "R simulates (mvt): good to about 1e-3"),
    "quantile": (
        "its standard error",
        4e-7,
        "R's qtukey stops early: 3.0e-7 from the root of its own ptukey at worst (2 to 12 means), 1.7e-7 for 3 means and 23 df",
    ),
    "rough_quantile": ("its standard error", 1e-3, "emmeans solves for Dunnett's quantile to 5e-4"),
    "simulated_limit": ("its standard error", 5e-3, "a quantile of R's simulation"),
    "digits7": ("the reference", 1e-6, "the reference is a difference quotient, good to about 1e-7"),
    "resampled": ("its Monte Carlo error", 4.5, "both sides, or ours, are drawn: 4.5 standard errors of their difference, seeded"),
    "estimate7": ("its standard error", 1e-6, "the reference is the root of a profile, good to about 1e-7"),
}

FLOOR = 1e-300

# Numbers of the corpus that are wrong, found by running R again: (case, dotted path or pattern) → why. Set aside and counted, like
# unstable ones.
WEIGHTED_KR = ("coef_kenward_roger.*", "anova.typeII_kenward_roger.*", "anova.typeIII_kenward_roger.*", "trends.2.*", "joint_tests.2.*")
WRONG = {
    (
        "glm_cbpp_poisson_offset",
        "null_deviance",
    ): "R's own glm() gives 133.66356: the polishing refit stopped the null model after one step",
    ("glm_cbpp_poisson_offset", "anova.typeI.0.resid_dev"): "the same null deviance",
    ("glm_cbpp_poisson_offset", "anova.typeI.1.deviance"): "its difference to that null deviance",
    ("glm_cbpp_poisson_offset", "anova.typeI.1.p"): "the p-value of that difference",
    **{
        ("lmm_sleepstudy_weights", pattern): "pbkrtest 0.5.2 takes the residual covariance as σ²I although the fit is weighted"
        for pattern in WEIGHTED_KR
    },
    **{
        (
            f"glm_esoph_{kind}",
            "cv.mean_deviance",
        ): "without one row the rest is separated: its deviance is infinite, R's is where it stopped"
        for kind in ("ordered", "ordered_full")
    },
    (
        "glm_pigs_gamma_inverse",
        "profile.exact.*",
    ): "its scoring loses the sign of dμ/dη < 0 and stops at once; R's `mass` is where bossa is",
}


# Numbers of the corpus that answer another question than bossa does, settled with R: (case, pattern) → how they differ. Set aside too.
MINIMUM = (
    "emmeans takes the least df of the rows of L after a QR decomposition, which changes with their order (Diet of lmm_chickweight_slopes: "
    "45.58 or 45.09), and its F lacks Kenward and Roger's scaling; bossa's F, df and p are those of lmerTest's contestMD() for the same "
    "hypothesis (45.387)"
)
UNSCALED = "lmerTest shows σ² times F before Kenward and Roger's scaling; its F, which is scaled, df and p are compared"
SEVERAL_ROWS = {
    "lmm_chickweight_poly": ("1.table.1", "1.table.2"),
    "lmm_chickweight_slopes": ("1.table.1", "1.table.2", "2.table.1", "2.table.2"),
    "lmm_grouseticks_log": ("1.table.0", "1.table.2", "2.table.0", "2.table.2"),
}
MEAN_SQUARES = {
    "lmm_chickweight_slopes": (1, 2),
    "lmm_grouseticks_log": (0, 2),
    "lmm_sleepstudy_poly": (0,),
}
OTHER = {
    **{
        (case, f"joint_tests.{row}.{key}"): MINIMUM
        for case, rows in SEVERAL_ROWS.items()
        for row in rows
        for key in (("df2", "p", "F") if row.startswith("2") else ("df2", "p"))
    },
    **{
        (case, f"anova.type{kind}_kenward_roger.{row}.{key}"): UNSCALED
        for case, rows in MEAN_SQUARES.items()
        for row in rows
        for kind in ("II", "III")
        for key in ("sumsq", "meansq")
    },
    ("lmm_chickweight_poly", "anova.typeII_satterthwaite.1.*"): (
        "lmerTest takes the matrix poly(Time, 2) for a factor when it asks which terms contain Diet; with its two columns as covariates "
        "it gives bossa's F = 3.66798"
    ),
}


def set_aside(case: str, path: str) -> bool:
    """Whether the reference number at a dotted path is known to be wrong, or answers another question."""
    return any(case == name and fnmatchcase(path, pattern) for name, pattern in (*WRONG, *OTHER))


def tolerance(case: Case, kind: str, reference: float) -> float:
    """What an error of `kind` may be at most in this case."""
    fixed = KINDS[kind][1]
    base = BASE[case.kind][0]
    accuracy = case.record.get("ref_acc") if case.mixed else None  # of the reference itself, in standard errors
    allowed = max(base, 10 * accuracy) if accuracy else base
    if fixed is not None:  # neither better than R's integration nor, for a mixed model, than the optima that go into it
        return max(fixed, allowed) if case.mixed else fixed
    if kind == "p" and case.mixed and reference > 0:  # a statistic that is off by ε relatively moves ln p by up to 2 |ln p| ε
        allowed *= max(1.0, 2 * abs(math.log(reference)))
    return allowed


def error(kind: str, ours: float | None, reference: float, scale: float | None) -> float:
    """The difference on the scale of its kind; inf where one side has no number."""
    if ours is None or math.isnan(ours):
        return math.inf
    if ours == reference:
        return 0.0
    if math.isinf(ours) or math.isinf(reference):
        return math.inf
    if kind == "p":
        if max(ours, reference) < FLOOR:
            return 0.0
        scale = max(abs(reference), FLOOR)
    elif kind in ("relative", "digits7"):
        scale = abs(reference)
    elif kind in ("multiplicity", "simulated"):
        scale = 1.0
    if not scale or math.isnan(scale):
        scale = abs(reference) or 1.0
    return abs(ours - reference) / scale
