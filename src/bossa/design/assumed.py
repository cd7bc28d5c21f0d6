"""What do assumed parameters say? `coef=` and `varying=` of a simulation → coefficients (P,), and a root of each covariance (k, k).

Names are those of the design: a name that it does not have is an error with the nearest one, a name left out is an error that lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import OptionError, UnknownOption, listing
from ..kernels.scatter import lower_root
from ..state.design import RETerm
from ..types import Floats, is_number
from .draw import WHERE


def finite_number(value: Any, name: str) -> float:
    if not is_number(value) or not np.isfinite(value):
        do = "Give one number; several are for power=." if np.ndim(value) else ""
        raise OptionError(f"{name}={value!r} is not a finite number.", where=WHERE, do=do)
    return float(value)


def coefficients(names: tuple[str, ...], given: Mapping[str, float], default: float | None) -> Floats:
    """The coefficients (P,) by name.   raises  UnknownOption with the nearest name; OptionError listing those that are missing"""
    for name in given:
        if name not in names:
            raise UnknownOption(name, names, where="simulate(coef=)", kind="coefficient")
    missing = [name for name in names if name not in given]
    if missing and default is None:
        raise OptionError(f"no value for {listing(missing)}.", where="simulate(coef=)", do="Name them all, or give default=0 for the rest.")
    return np.array([float(given.get(name, default)) for name in names])  # type: ignore[arg-type]


def term_roots(terms: tuple[RETerm, ...], varying: Mapping[str, Any] | None) -> tuple[Floats, ...]:
    """L (k, k) of each term from `varying=`."""
    given = {} if varying is None else varying
    if not isinstance(given, Mapping):
        do = "Write varying={'s': {'sd': {'Intercept': 1, 'x': 0.5}, 'corr': 0.2}}."
        raise OptionError(f"varying={varying!r:.60} is not a dict of grouping factors.", where=WHERE, do=do)
    if given and not terms:
        raise OptionError("the formula has no random effects.", where="simulate(varying=)", do="Leave it out, or write (1 | g).")
    for name in given:
        if name not in [t.factor for t in terms]:
            raise UnknownOption(name, [t.factor for t in terms], where="simulate(varying=)", kind="grouping factor")
    missing = [t.factor for t in terms if t.factor not in given]
    if missing:
        names = ", ".join(f"{n!r}: …" for n in next(t for t in terms if t.factor == missing[0]).names)
        do = f"Give varying={{{missing[0]!r}: {{'sd': {{{names}}}}}}}."
        raise OptionError(f"nothing is said of the random effects of {listing(missing)}.", where="simulate(varying=)", do=do)
    return tuple(lower_root(covariance(t, given[t.factor])) for t in terms)


def covariance(term: RETerm, given: Any) -> Floats:
    """Σ (k, k) of one term from {"sd": …, "corr": …}, standard deviations by name, a covariance matrix, or one standard deviation."""
    where, k = f"simulate(varying=) of {term.factor!r}", len(term.names)
    if isinstance(given, Mapping):
        if "sd" not in given and any(name in term.names for name in given):  # {"Intercept": 1, "x": 0.3, "corr": 0.2}
            given = {"sd": {name: sd for name, sd in given.items() if name != "corr"}, "corr": given.get("corr")}
        for name in given:
            if name not in ("sd", "corr"):
                raise UnknownOption(name, ("sd", "corr"), where=where, kind="entry")
        if "sd" not in given:
            raise OptionError("it has no 'sd'.", where=where, do=f"Give a standard deviation for {listing(term.names)}.")
        sd = _spreads(term, given["sd"], where)
        S = sd[:, None] * _correlations(term, given.get("corr"), where) * sd
    elif np.ndim(given) == 0:
        S = np.diag(_spreads(term, given, where) ** 2)
    else:
        S = _matrix(given, k, where)
    unlinked = ~(term.mask | term.mask.T)
    if (np.abs(S[unlinked]) > 0).any():
        raise OptionError(
            "the formula keeps some of its random effects uncorrelated (||).", where=where, do="Give no correlation, or write |."
        )
    values = np.linalg.eigvalsh(S)
    if values[0] < -1e-10 * max(values[-1], 1e-300):
        raise OptionError("these variances and correlations are no covariance matrix: a combination has a negative variance.", where=where)
    return S


def _spreads(term: RETerm, sd: Any, where: str) -> Floats:
    """Standard deviations (k,) by name, or one number for a single effect."""
    if not isinstance(sd, Mapping):
        if np.ndim(sd) != 0 or len(term.names) > 1:
            raise OptionError(
                f"its random effects are {listing(term.names)}.", where=where, do="Give 'sd' as a dict with one number for each."
            )
        sd = {term.names[0]: sd}
    for name in sd:
        if name not in term.names:
            raise UnknownOption(name, term.names, where=where, kind="random effect")
    missing = [name for name in term.names if name not in sd]
    if missing:
        raise OptionError(f"no standard deviation for {listing(missing)}.", where=where, do="Name them all; 0 is allowed.")
    out = np.array([finite_number(sd[name], f"sd of {name!r}") for name in term.names])
    if (out < 0).any():
        raise OptionError("a standard deviation is negative.", where=where)
    return out


def _correlations(term: RETerm, corr: Any, where: str) -> Floats:
    """Correlation matrix (k, k): None is none; one number for two effects; {("Intercept", "x"): r}; or the matrix."""
    k, R = len(term.names), np.eye(len(term.names))
    if corr is None:
        return R
    if np.ndim(corr) == 0 and not isinstance(corr, Mapping):
        if k != 2:
            do = "Give {('Intercept', 'x'): r, …} or a matrix." if k > 2 else "Leave it out."
            raise OptionError(f"one correlation is for two random effects, here are {k}.", where=where, do=do)
        corr = {term.names: corr}
    if isinstance(corr, Mapping):
        for pair, r in corr.items():
            if not isinstance(pair, tuple) or len(pair) != 2 or pair[0] == pair[1] or not {*pair} <= {*term.names}:
                raise UnknownOption(pair, term.names, where=where, kind="pair of random effects")
            i, j = (term.names.index(name) for name in pair)
            R[i, j] = R[j, i] = finite_number(r, f"corr of {pair!r}")
    else:
        R = _matrix(corr, k, where)
    if not np.allclose(np.diag(R), 1.0) or np.abs(R).max() > 1 + 1e-12:
        raise OptionError("a correlation is not between −1 and 1.", where=where)
    return R


def _matrix(given: Any, k: int, where: str) -> Floats:
    try:
        M = np.array(given, dtype=float)
    except (TypeError, ValueError):
        raise OptionError("it is not a matrix of numbers.", where=where) from None
    if M.shape != (k, k) or not np.isfinite(M).all() or not np.allclose(M, M.T):
        raise OptionError(f"it is not a symmetric matrix of {k} × {k} finite numbers.", where=where)
    return M
