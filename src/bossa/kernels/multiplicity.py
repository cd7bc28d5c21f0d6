"""How sure may one be of K statements at once: p-values and critical values adjusted alike, family by family.

`adjust(tests, method, level)` answers for every method with the same pair: an adjusted p-value per row, and the critical value c that
makes `estimate ± c·se` a simultaneous interval. Methods that step through sorted p-values (Holm, Hochberg, Hommel, BH, BY) have no
matching interval; theirs is Bonferroni's, as in emmeans, and the note says so. Simultaneous tails P(max |T| > c) are integrals:

    tukey     ∫ f(s) [1 − W(√2 c s; k)] ds, W the distribution of the range of k normals
    dunnett   the same with a product of normal probabilities, where the correlations are products λᵢλⱼ; else mvt
    mvt       spherical–radial: T = R·Au, u uniform on the sphere, so P = E_u P(R > c / maxᵢ|aᵢu|); a seeded lattice over u

Tails are integrated as tails, so small p-values keep their relative accuracy.

Source: Miller (1981) ch. 2; Dunnett (1955); Genz & Bretz (2009) §4.1 (spherical–radial); Hommel (1988); Lenth (2016) for the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

import numpy as np
from attrs import evolve, frozen

from ..errors import OptionError, UnknownOption
from ..types import Array, Floats
from .intervals import f_tail, t_quantile, t_tail
from .streams import stream

METHODS = ("none", "tukey", "bonferroni", "holm", "sidak", "hochberg", "hommel", "bh", "by", "scheffe", "dunnett", "dunnettx", "mvt")
SPELLINGS = {"fdr": "bh", "benjamini-hochberg": "bh", "hsd": "tukey", "šidák": "sidak", "scheffé": "scheffe", "single-step": "mvt"}
STEPWISE = ("holm", "hochberg", "hommel", "bh", "by")
PAIRS = ("pairwise", "revpairwise")
AUTO = {"pairwise": "tukey", "revpairwise": "tukey", "treatment": "dunnett", "sequential": "mvt", "mean_chg": "mvt"}
AUTO |= {"effect": "bh", "del_eff": "bh", "sum": "bh"}
SHOWN = {"bh": "Benjamini–Hochberg", "by": "Benjamini–Yekutieli", "mvt": "multivariate t", "dunnettx": "approximate Dunnett"}
LATTICE, SHIFTS = 8192, 12  # points per shift, random shifts


@frozen(kw_only=True, eq=False)
class Tests:
    """K tests and how they belong together.

    statistic    (K,)    t or z statistics; nan: no test in that row
    df           (K,)    inf for z
    side         "two-sided" | "less" | "greater"
    family       (K,)    code of the family of each row; None: one family
    means        (K,)    number of means compared in the row's family (Tukey); None: as many as give K pairs
    correlation  (K, K)  of the estimates (Scheffé, Dunnett, mvt); None: not known
    contrast     name of the contrast, "pairwise" …; Tukey's method is for pairs only
    seed         entropy of the mvt lattice
    """

    statistic: Floats
    df: Floats
    side: str = "two-sided"
    family: Array | None = None
    means: Array | None = None
    correlation: Floats | None = None
    contrast: str | None = None
    seed: int = 0


@frozen(kw_only=True, eq=False)
class Adjusted:
    """p_value (K,), critical (K,), the method used, what to say under the table, and the Monte-Carlo error of p (0: none)."""

    p_value: Floats
    critical: Floats
    method: str
    note: str
    error: float = 0.0


def resolve_method(method: str, contrast: str | None, where: str = "infer()") -> str:
    """The method of `adjust=`: bossa's or R's spelling, or the contrast's own for "auto"."""
    if not isinstance(method, str):
        raise OptionError(f"adjust={method!r} is not the name of a method.", where=where, do=f"Use one of auto, {', '.join(METHODS)}.")
    name = method.strip().lower()
    name = SPELLINGS.get(name, name)
    if name == "auto":
        return AUTO.get(contrast or "", "none")
    if name not in METHODS:
        raise UnknownOption(method, ["auto", *METHODS, "fdr"], where=where, kind="adjust")
    return name


def adjust(tests: Tests, method: str, level: float) -> Adjusted:
    """Adjusted p-values and critical values, family by family.

    method   one of METHODS (see resolve_method)
    level    simultaneous coverage in (0, 1)
    returns  Adjusted; rows whose statistic is nan are nan and do not count

    Source: the module docstring; rules of use as in emmeans (Lenth 2016).
    """
    family = np.zeros(len(tests.statistic), int) if tests.family is None else np.asarray(tests.family)
    method, said = _valid(tests, method)
    usable = np.isfinite(tests.df) | np.isposinf(tests.df)
    usable &= ~np.isnan(tests.statistic)
    tests = evolve(tests, statistic=np.clip(tests.statistic, -1e100, 1e100))
    p, critical = np.full(len(family), np.nan), np.full(len(family), np.nan)
    used, errors, notes = set(), [0.0], []
    for code in dict.fromkeys(family.tolist()):
        rows = np.flatnonzero((family == code) & usable)
        if len(rows):
            one = _take(tests, rows)
            chosen = "none" if len(rows) == 1 and method != "scheffe" else method
            p[rows], critical[rows], error, note = FAMILY[chosen](one, level)
            used.add(chosen)
            errors.append(error)
            notes.append(note)
    name = method if method in used else "none"
    return Adjusted(p_value=p, critical=critical, method=name, note=_note(name, notes, said), error=max(errors))


def _valid(tests: Tests, method: str) -> tuple[str, str]:
    """The method, or Šidák's where it does not apply, with what to say about that."""
    if method == "tukey" and tests.contrast not in PAIRS:
        return "sidak", "Tukey's method is for one set of pairwise comparisons; Šidák's is used."
    if method in ("tukey", "scheffe", "dunnettx") and tests.side != "two-sided":
        return "sidak", f"{_shown(method)}'s method is two-sided; Šidák's is used."
    if method in ("scheffe", "dunnett", "mvt") and tests.correlation is None:
        return "sidak", f"{_shown(method)}'s method needs the covariance of the estimates, which is not known here; Šidák's is used."
    return method, ""


def _known(tests: Tests) -> Floats:
    assert tests.correlation is not None  # _valid saw to it
    return tests.correlation


def _shown(method: str) -> str:
    return SHOWN.get(method, {"sidak": "Šidák", "scheffe": "Scheffé"}.get(method, method.capitalize()))


def _note(method: str, notes: list[str], said: str) -> str:
    if method == "none":
        return said
    families = sorted({n for n in notes if n})
    text = f"p-values and limits are adjusted by the {_shown(method)} method for {' or '.join(families)}"
    if method in STEPWISE:
        text = f"p-values are adjusted by the {_shown(method)} method and limits by Bonferroni's for {' or '.join(families)}"
    many = ", in each of several families" if len(notes) > 1 else ""
    return f"{said} {text}{many}.".strip()


def _take(tests: Tests, rows: Array) -> Tests:
    def some(x: Array | None) -> Array | None:
        return None if x is None else np.asarray(x)[rows]

    R = None if tests.correlation is None else tests.correlation[np.ix_(rows, rows)]
    return evolve(tests, statistic=tests.statistic[rows], df=tests.df[rows], means=some(tests.means), correlation=R, family=None)


# ---------------------------------------------------------------- one family: (tests, level) → p, critical, Monte-Carlo error, note
Result = tuple[Floats, Floats, float, str]


def _plain(tests: Tests) -> Floats:
    return t_tail(tests.statistic, tests.df, tests.side)


def _quantile(alpha: float, tests: Tests) -> Floats:
    """Critical value of one test at error rate alpha."""
    return -t_quantile(alpha / 2 if tests.side == "two-sided" else alpha, tests.df)


def _count(tests: Tests) -> str:
    k = len(tests.statistic)
    return f"{k} test{'s' if k > 1 else ''}"


def _none(tests: Tests, level: float) -> Result:
    return _plain(tests), _quantile(1 - level, tests), 0.0, ""


def _bonferroni(tests: Tests, level: float) -> Result:
    k = len(tests.statistic)
    return np.minimum(k * _plain(tests), 1.0), _quantile((1 - level) / k, tests), 0.0, _count(tests)


def _sidak(tests: Tests, level: float) -> Result:
    k = len(tests.statistic)
    p = -np.expm1(k * np.log1p(-np.minimum(_plain(tests), 1 - 1e-16)))
    return p, _quantile(-np.expm1(np.log(level) / k), tests), 0.0, _count(tests)


def _stepwise(tests: Tests, level: float, method: str) -> Result:
    return step_p(_plain(tests), method), _quantile((1 - level) / len(tests.statistic), tests), 0.0, _count(tests)


def step_p(p: Floats, method: str) -> Floats:
    """p-values of a step-up or step-down procedure.   p (k,), method "holm" "hochberg" "hommel" "bh" "by" → (k,)

    Source: Holm (1979); Hochberg (1988); Hommel (1988), as arranged by Wright (1992) for adjusted p; Benjamini & Yekutieli (2001).
    """
    k, order = len(p), np.argsort(p, kind="stable")
    s, i = p[order], np.arange(1, len(p) + 1)
    if method == "holm":
        out = np.maximum.accumulate((k - i + 1) * s)
    elif method == "hommel":
        out = _hommel(s)
    else:
        factor = {"hochberg": k - i + 1.0, "bh": k / i, "by": np.sum(1.0 / i) * k / i}[method]
        out = np.minimum.accumulate((factor * s)[::-1])[::-1]
    adjusted = np.empty(k)
    adjusted[order] = np.minimum(out, 1.0)
    return adjusted


def _hommel(s: Floats) -> Floats:
    """Hommel's adjusted p-values of sorted ones.   s (k,) increasing → (k,)"""
    k = len(s)
    out = np.full(k, np.min(k * s / np.arange(1, k + 1)))
    for m in range(k - 1, 1, -1):
        tail = np.min(m * s[k - m + 1 :] / np.arange(2, m + 1))
        q = np.minimum(m * s, tail)
        q[k - m + 1 :] = q[k - m]
        out = np.maximum(out, q)
    return np.maximum(out, s)


def _scheffe(tests: Tests, level: float) -> Result:
    from scipy.special import chdtri, fdtri

    r = _factor(_known(tests)).shape[1]
    finite = np.isfinite(tests.df)
    F = np.where(finite, fdtri(r, np.where(finite, tests.df, 1.0), level), chdtri(r, 1 - level) / r)
    return f_tail(tests.statistic**2 / r, r, tests.df), np.sqrt(r * F), 0.0, f"all contrasts in a space of rank {r}"


def _tukey(tests: Tests, level: float) -> Result:
    k = _means(tests)
    tail = partial(_tukey_tail, means=k)
    p = np.array([tail(abs(t), df) for t, df in zip(tests.statistic, tests.df)])
    return p, _solve_each(tail, tests, level), 0.0, f"{k:.4g} means"


def _means(tests: Tests) -> float:
    if tests.means is not None:
        return float(tests.means[0])
    return (1 + np.sqrt(1 + 8 * len(tests.statistic))) / 2


def _tukey_tail(c: float, df: float, means: float) -> float:
    return range_tail(np.sqrt(2.0) * c, means, df)


def _dunnettx(tests: Tests, level: float) -> Result:
    tail = partial(_dunnettx_tail, k=len(tests.statistic))
    p = np.array([tail(abs(t), df) for t, df in zip(tests.statistic, tests.df)])
    return p, _solve_each(tail, tests, level), 0.0, _count(tests)


def _dunnettx_tail(c: float, df: float, k: int) -> float:
    """Mixture of Tukey's and Šidák's tails that is close to Dunnett's for equal groups (emmeans' "dunnettx")."""
    tukey = range_tail(np.sqrt(2.0) * c, (1 + np.sqrt(1 + 8 * k)) / 2, df)
    sidak = -np.expm1(k * np.log1p(-min(float(t_tail(c, df)), 1 - 1e-16)))
    return (k - 1) / k * tukey + sidak / k


def _dunnett(tests: Tests, level: float) -> Result:
    loading = loadings(_known(tests))
    if loading is None:
        p, critical, error, note = _mvt(tests, level)
        return p, critical, error, f"{note}, integrated as a multivariate t because the correlations have no product form"
    sign = -1.0 if tests.side == "less" else 1.0
    tail = partial(_dunnett_tail, loading=loading, two_sided=tests.side == "two-sided")
    c = np.abs(tests.statistic) if tests.side == "two-sided" else sign * tests.statistic
    p = np.array([tail(x, df) for x, df in zip(c, tests.df)])
    return p, _solve_each(tail, tests, level), 0.0, _count(tests)


def _mvt(tests: Tests, level: float) -> Result:
    A = _factor(_known(tests))
    reach = _reach(A, tests.side, tests.seed)
    tail = partial(_radial_tail, reach=reach, rank=A.shape[1])
    c = np.abs(tests.statistic) if tests.side == "two-sided" else (-1.0 if tests.side == "less" else 1.0) * tests.statistic
    shifts = np.array([tail(x, df) for x, df in zip(c, tests.df)])
    mean = partial(_mean_tail, tail=tail)
    error = float(np.max(shifts.std(axis=1, ddof=1))) / np.sqrt(SHIFTS)
    note = f"{_count(tests)} (seed {tests.seed}, simulation error of p at most {3 * error:.0e})"
    return np.minimum(shifts.mean(axis=1), 1.0), _solve_each(mean, tests, level), error, note


def _mean_tail(c: float, df: float, tail: Callable[[float, float], Floats]) -> float:
    return float(tail(c, df).mean())


def _solve_each(tail: Callable[[float, float], float], tests: Tests, level: float) -> Floats:
    """c with tail(c, df) = 1 − level for each df; between the quantile of one test and Bonferroni's."""
    alpha, k = 1 - level, len(tests.statistic)
    low, high = _quantile(alpha, tests), _quantile(alpha / max(k, 2) / 2, tests)
    solved: dict[float, float] = {}
    for df, a, b in zip(tests.df.tolist(), low, high):
        if df not in solved:
            solved[df] = _root(partial(_log_excess, tail=tail, df=df, alpha=alpha), float(a), float(b))
    return np.array([solved[df] for df in tests.df.tolist()])


def _log_excess(c: float, tail: Callable[[float, float], float], df: float, alpha: float) -> float:
    return float(np.log(max(tail(c, df), 1e-300) / alpha))


def _root(f: Callable[[float], float], a: float, b: float) -> float:
    """Zero of a decreasing f between a and b (moved apart if needed), by regula falsi in the Illinois form.

    Source: Dowell & Jarratt (1971).
    """
    fa, fb = f(a), f(b)
    while fa < 0:
        a -= 0.5
        fa = f(a)
    while fb > 0:
        b *= 1.5
        fb = f(b)
    for _ in range(100):
        x = b - fb * (b - a) / (fb - fa) if fa != fb else 0.5 * (a + b)
        fx = f(x)
        if abs(b - a) < 1e-13 * abs(b) or fx == 0.0 or abs(fx) < 1e-14:
            return x
        if (fx < 0) == (fb < 0):
            fa *= 0.5
        else:
            a, fa = b, fb
        b, fb = x, fx
    return x


# ---------------------------------------------------------------- simultaneous tails
@cache
def _legendre(nodes: int) -> tuple[Floats, Floats]:
    return np.polynomial.legendre.leggauss(nodes)


def range_tail(q: float, k: float, df: float) -> float:
    """P(range of k independent normals / s > q), s² ~ χ²/df: the studentized range.

    q        positive;  k > 1 (need not be whole);  df > 0, inf allowed
    returns  the upper tail, relative accuracy about 1e-11

    Source: Miller (1981) §2.1; the range of normals: k ∫ φ(z) [Φ(z) − Φ(z − w)]^{k−1} dz.
    """
    return _mix(partial(_range_of_normals, k=k), q / np.sqrt(2.0), df) if q > 0 else 1.0


def _range_of_normals(c: Floats, k: float) -> Floats:
    """P(range of k normals > √2 c).   c (m,) → (m,)"""
    from scipy.special import ndtr

    w = np.sqrt(2.0) * c[:, None]
    x, weight = _legendre(128)
    z = 0.5 * w + 9.5 * x
    below = ndtr(z)
    with np.errstate(divide="ignore"):
        lost = -np.expm1((k - 1) * np.log1p(-np.minimum(ndtr(z - w) / below, 1.0)))
    return k * (np.exp(-0.5 * z**2) * below ** (k - 1) * lost) @ weight * (9.5 / np.sqrt(2 * np.pi))


def _dunnett_tail(c: float, df: float, loading: Floats, two_sided: bool) -> float:
    return _mix(partial(_one_factor, loading=loading, two_sided=two_sided), c, df)


def _one_factor(c: Floats, loading: Floats, two_sided: bool) -> Floats:
    """P(some |Zᵢ| > c) for normals with correlations λᵢλⱼ: ∫ φ(z) [1 − Πᵢ P(|Zᵢ| ≤ c | z)] dz.   c (m,), loading (k,) → (m,)"""
    from scipy.special import ndtr

    size = np.abs(c)
    half = 9.5 + min(size.max(), max(12.0, size.min())) * np.max(np.abs(loading))  # where c > 12 is beside smaller ones it adds nothing
    x, weight = _legendre(192)
    z, own = half * x, np.sqrt(1 - loading**2)
    kept = np.zeros((len(c), len(z)))
    with np.errstate(divide="ignore"):
        for own_i, loading_i in zip(own, loading):
            tail = ndtr((loading_i * z - c[:, None]) / own_i)
            if two_sided:
                tail = tail + ndtr((-loading_i * z - c[:, None]) / own_i)
            kept += np.log1p(-np.minimum(tail, 1.0))
    return (np.exp(-0.5 * z**2) * -np.expm1(kept)) @ weight * (half / np.sqrt(2 * np.pi))


def _mix(tail: Callable[[Floats], Floats], c: float, df: float) -> float:
    """∫ tail(c s) dF(s), s² ~ χ²_df / df, by the trapezoidal rule in log s: the integrand is analytic and dies off on both sides.

    tail  P(max |Z| > x) for x (m,), falling at most as fast as exp(−x²/2)

    Source: Trefethen & Weideman (2014) on the trapezoidal rule.
    """
    from scipy.special import gammaln

    if np.isinf(df):
        return min(float(tail(np.array([c]))[0]), 1.0)
    width, far = 1 / np.sqrt(2 * df), 80 / df
    left = 0.5 * np.log(df / (df + max(c, 0.0) ** 2)) - (40 / df if df < 20 else 10 * width)
    right = min(np.sqrt(far / 2), 0.5 * np.log1p(far + np.sqrt(2 * far)))
    u = np.linspace(left, right, int(np.ceil((right - left) / min(0.1, 0.5 * width))) + 1)
    density = np.exp(np.log(2.0) + 0.5 * df * np.log(0.5 * df) - gammaln(0.5 * df) + df * u - 0.5 * df * np.exp(2 * u))
    return min(float(tail(c * np.exp(u)) @ density) * (u[1] - u[0]), 1.0)


def loadings(R: Floats) -> Floats | None:
    """λ (k,) with Rᵢⱼ = λᵢλⱼ off the diagonal, or None where there is none.   R (k, k)"""
    k = len(R)
    if k == 1:
        return np.zeros(1)
    if k == 2:
        return np.sqrt(abs(R[0, 1])) * np.array([1.0, np.sign(R[0, 1])])
    off = R - np.diag(np.diag(R))
    if np.all(np.abs(off) < 1e-12):
        return np.zeros(k)
    i, j = np.unravel_index(np.argmax(np.abs(off)), off.shape)
    third = next((m for m in range(k) if m not in (i, j) and abs(R[i, m] * R[j, m]) > 1e-12), None)
    if third is None:
        return None
    square = R[i, j] * R[i, third] / R[j, third]
    if not 0 < square < 1:
        return None
    first = np.sqrt(square)
    loading = R[i] / first
    loading[i] = first
    gap = np.outer(loading, loading) - R
    np.fill_diagonal(gap, 0.0)
    return loading if np.abs(gap).max() < 1e-9 and np.abs(loading).max() < 1 else None


def _factor(R: Floats) -> Floats:
    """A (k, r) with AAᵀ = R, r its rank."""
    values, vectors = np.linalg.eigh(R)
    keep = values > 1e-9 * values[-1]
    return vectors[:, keep] * np.sqrt(values[keep])


def _reach(A: Floats, side: str, seed: int) -> Floats:
    """maxᵢ |aᵢu| (two-sided), maxᵢ aᵢu or maxᵢ −aᵢu over a randomly shifted lattice of directions u.   A (k, r) → (SHIFTS, LATTICE)

    Source: Richtmyer lattice, Genz & Bretz (2009) §4.2.2; equally spaced angles where r = 2.
    """
    from scipy.special import ndtri

    r, points = A.shape[1], np.arange(LATTICE)[:, None]
    out = np.empty((SHIFTS, LATTICE))
    for i in range(SHIFTS):
        shift = stream(seed, i).random((r,))
        if r == 2:
            angle = 2 * np.pi * (points + shift[0]) / LATTICE
            u = np.hstack((np.cos(angle), np.sin(angle)))
        else:
            x = np.modf(points * np.sqrt(_primes(r)) + shift)[0]
            u = ndtri(np.clip(x, 1e-15, 1 - 1e-15))
            u /= np.linalg.norm(u, axis=1, keepdims=True)
        along = u @ A.T
        out[i] = np.abs(along).max(axis=1) if side == "two-sided" else (-along if side == "less" else along).max(axis=1)
    return out


def _primes(n: int) -> Floats:
    found: list[int] = []
    candidate = 2
    while len(found) < n:
        if all(candidate % p for p in found):
            found.append(candidate)
        candidate += 1
    return np.array(found, float)


def _radial_tail(c: float, df: float, reach: Floats, rank: int) -> Floats:
    """P(R·reach > c), R² / rank ~ F(rank, df), averaged over each shift.   reach (SHIFTS, N) → (SHIFTS,)"""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (c / reach) ** 2 / rank
    beyond = f_tail(np.nan_to_num(ratio, nan=0.0, posinf=1e300), rank, df)
    if c >= 0:
        return np.where(reach > 0, beyond, 0.0).mean(axis=1)
    return np.where(reach >= 0, 1.0, 1.0 - beyond).mean(axis=1)


FAMILY: Mapping[str, Callable[[Tests, float], Result]] = {
    "none": _none,
    "bonferroni": _bonferroni,
    "sidak": _sidak,
    "scheffe": _scheffe,
    "tukey": _tukey,
    "dunnett": _dunnett,
    "dunnettx": _dunnettx,
    "mvt": _mvt,
} | {name: partial(_stepwise, method=name) for name in STEPWISE}
