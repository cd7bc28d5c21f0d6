"""What does the null make exchangeable in this model, so that rearranging it is harmless?

    setting(problem, fit, options) → Setting        one for all rows of a question; what has no valid form is refused here, with advice

Rows of a linear model, weighted ones after multiplication by √w; their signs; rows inside blocks; whole groups. Responses where the whole
model is tested. In a mixed model rows of one group that share their random effects, or groups that are built alike.

Source: Winkler et al. (2014) §2 for blocks; Davison & Hinkley (1997) §6.3 for what is exchangeable in a regression.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve, frozen

from ..errors import OptionError, Refused
from ..kernels.sandwich import CLUSTER_KINDS, HC_KINDS, cluster_factor, cr2_rows, hc_powers
from ..kernels.streams import entropy
from ..state.design import Problem, REStructure
from ..state.fit import FitState
from .clusters import cluster_codes
from .covariance import Covariance, covariance
from .plan import expanded

if TYPE_CHECKING:
    from .permutation import Perm

SCHEMES = ("auto", "freedman-lane", "response", "sign-flip", "parametric")
ERRORS = ("iid", *HC_KINDS, "hetero", "cluster", *CLUSTER_KINDS)
WHERE = "infer(how='perm')"


@frozen(kw_only=True, eq=False)
class Basis:
    """A linear model with its counted rows written out and whitened (√w X, √w(y − offset)), in orthonormal columns: X = QR.

    residual  (n,)    of the fit
    pulls     (n, p)  Q times the factors of a robust covariance: Σ_g s_g s_gᵀ with s_g = Σ_{i∈g} pulls_i r_i; None: the classical one
    clusters  (n,)    codes of g, None: rows
    """

    Q: np.ndarray
    R: np.ndarray
    residual: np.ndarray
    pulls: np.ndarray | None
    clusters: np.ndarray | None


@frozen(kw_only=True, eq=False)
class Setting:
    """What every row shares: the problem with counted rows written out (LM: whitened), its fit, and what may change places.

    within   (n,)  codes: only rows of one code change places;  groups (n,) codes of whole groups, in `problem`'s rows
    ones     (p,)  combination of columns that is 1 in every row, None where there is none
    basis    of a linear model whose residuals are rearranged; None: replicates are refitted one model at a time
    robust   the covariance that studentizes the data as they are, None: the fit's own
    """

    problem: Problem
    fit: FitState
    scheme: str
    within: np.ndarray | None
    groups: np.ndarray | None
    ones: np.ndarray | None
    seed: Any
    basis: Basis | None
    robust: Covariance | None


def setting(problem: Problem, fit: FitState, options: Perm) -> Setting:
    """Everything that does not depend on the row asked."""
    linear = problem.family.name == "gaussian" and problem.link.name == "identity"
    plain = linear and problem.design.random is None
    scheme, robust = options.scheme, None
    blocked = options.within is not None or options.cluster is not None
    if scheme == "auto":
        scheme = "freedman-lane" if plain or (linear and blocked) else "parametric"
    _check_scheme(problem, scheme, linear, options)
    if options.errors != "iid":
        robust = _robust(problem, fit, options, plain and scheme != "parametric")
    within = None if options.within is None else cluster_codes(problem, options.within, WHERE)
    groups = None if options.cluster is None else cluster_codes(problem, options.cluster, WHERE)
    codes: Any = within if within is not None else groups
    problem, fit, codes = expanded(problem, fit, codes)
    if groups is not None and scheme != "sign-flip" and len(set(np.bincount(codes).tolist())) > 1:
        what = f"the groups of {options.cluster!r} differ in size, so they cannot change places."
        raise Refused(what, where=WHERE, do="Use scheme='sign-flip'.")
    if problem.design.random is not None and scheme != "parametric":
        way = "inside" if groups is None else "signs" if scheme == "sign-flip" else "wholes"
        _exchangeable(problem, problem.design.random, codes, way)
    ones, basis = _constant(problem), None
    if plain and scheme != "parametric":
        if not fit.df_resid > 0:
            raise Refused("no residual is left that could be rearranged.", where=WHERE, do="Use fewer terms or more rows.")
        basis = _basis(problem, fit, codes, "iid" if robust is None else robust.errors)
        problem = whitened(problem)
    return Setting(
        problem=problem,
        fit=fit,
        scheme=scheme,
        within=codes if within is not None else None,
        groups=codes if groups is not None else None,
        ones=ones,
        seed=entropy(options.seed, WHERE),
        basis=basis,
        robust=robust,
    )


def _check_scheme(problem: Problem, scheme: str, linear: bool, options: Perm) -> None:
    design = problem.design
    blocked = options.within is not None or options.cluster is not None
    if options.within is not None and options.cluster is not None:
        raise OptionError("within= and cluster= exclude each other.", where=WHERE, do="Name what is exchangeable: rows inside, or wholes.")
    if scheme == "parametric":
        if problem.family.sample is None:
            what = f"family {problem.family.name!r} has no distribution to draw from under the null."
            raise Refused(what, where=WHERE, do="Use how='boot', or how='asymp'.")
        if blocked:
            raise OptionError("draws from the null model have no blocks.", where=WHERE, do="Leave within= and cluster= out.")
        if options.n_perm == "all":
            what = "responses are drawn from the null model here, and there is no end of them."
            raise Refused(what, where="n_perm='all'", do="Use a number, e.g. n_perm=1000.")
        return
    if scheme == "sign-flip" and options.within is not None:
        raise OptionError("signs change row by row, whatever block a row is in.", where=WHERE, do="Leave within= out, or use cluster=.")
    if scheme == "response":
        if len([t for t in design.terms if t != "Intercept"]) > 1 or not problem.spec.intercept:
            raise Refused(
                "permuting the response tests the whole model at once, not one term of several.",
                where=WHERE,
                do="Use scheme='freedman-lane' (linear models) or 'parametric', which keep the other terms.",
            )
        if options.null not in (None, 0):
            raise Refused("permuting the response tests that nothing matters: null= is 0.", where=WHERE, do="Use scheme='freedman-lane'.")
        if design.random is not None or (not linear and (design.weights is not None or design.offset is not None)):
            what = "responses are not exchangeable here: rows differ by weight, offset or group."
            raise Refused(what, where=WHERE, do="Use scheme='parametric'.")
    elif not linear:
        raise Refused(
            f"residuals of a {problem.family.name} model are not exchangeable: their spread moves with the mean.",
            where=WHERE,
            do="Use scheme='parametric' (the default): draws from the null model.",
        )
    elif design.random is not None and not blocked:
        raise Refused(
            "residuals of a mixed model are not exchangeable between groups.",
            where=WHERE,
            do="Use scheme='parametric' (the default), or within= (rows inside groups), cluster= (whole groups).",
        )


def _robust(problem: Problem, fit: FitState, options: Perm, rearranged: bool) -> Covariance:
    """The covariance of `errors=`, where residuals of a linear model are rearranged."""
    if not rearranged:
        raise Refused(
            "statistics with robust errors are for rearranged residuals of linear models.",
            where=f"errors={options.errors!r}",
            do="Leave errors= out, or use how='asymp' where it is a generalized model.",
        )
    return covariance(problem, fit, options.errors, options.cluster)


def _exchangeable(problem: Problem, random: REStructure, codes: Any, way: str) -> None:
    """Refuses blocks between which the random effects are not the same, or wholes that they cut or tell apart.

    way  "inside" blocks rows change places;  "wholes" do;  "signs" of wholes change, whose errors need be symmetric only
    """
    order = np.argsort(codes, kind="stable").reshape(int(codes.max()) + 1, -1) if way == "wholes" else None
    for term in random.terms:
        pairs = len(np.unique(codes.astype(np.int64) * len(term.levels) + term.group))
        if way == "inside":
            if pairs > int(codes.max()) + 1 or term.names != ("Intercept",):
                raise Refused(
                    f"rows inside a block differ in their random effects of {term.factor!r}.",
                    where=WHERE,
                    do="Permute within its levels, with a random intercept alone; or use scheme='parametric'.",
                )
        elif pairs > len(term.levels):
            raise Refused(f"{term.factor!r} has levels in more than one group.", where=WHERE, do="Use scheme='parametric'.")
        elif order is not None and not (np.allclose(term.Z[order], term.Z[order[0]]) and _same_pattern(term.group[order])):
            raise Refused(
                f"whole groups change places where each has its own levels of {term.factor!r} and the same random-effects columns.",
                where=WHERE,
                do="Use scheme='sign-flip' for groups that are built differently, or 'parametric'.",
            )
    weights = problem.design.weights
    if weights is not None and way != "signs":
        alike = weights[np.unique(codes, return_index=True)[1]][codes] if order is None else weights[order[0]]
        if not (weights == alike if order is None else weights[order] == alike).all():
            what = "rows that would change places differ in their weights, so their residuals differ in spread."
            raise Refused(what, where=WHERE, do="Use scheme='parametric'.")


def _same_pattern(groups: np.ndarray) -> bool:
    """Whether the rows of each whole fall into levels in the same way.   groups (G, s) codes of levels"""
    first = np.array([np.unique(row, return_index=True, return_inverse=True)[1:] for row in groups], dtype=object)
    appeared = [np.asarray(index)[np.asarray(inverse).ravel()] for index, inverse in first]
    return bool((np.array(appeared) == appeared[0]).all())


def whitened(problem: Problem) -> Problem:
    """√w X and √w (y − offset): errors are then exchangeable under the model."""
    design = problem.design
    y = np.asarray(design.y) if design.offset is None else design.y - design.offset
    root = np.ones(design.n) if design.weights is None else np.sqrt(design.weights)
    return evolve(problem, design=evolve(design, X=design.X * root[:, None], y=y * root, weights=None, offset=None))


def _basis(problem: Problem, fit: FitState, groups: Any, errors: str) -> Basis:
    """Orthonormal columns of the problem with counted rows written out, before it is whitened."""
    design = problem.design
    root = np.ones(design.n) if design.weights is None else np.sqrt(design.weights)
    Q, R = np.linalg.qr(design.X * root[:, None])
    n, p = Q.shape
    pulls = None
    if errors == "CR2":
        pulls = cr2_rows(design.X, R, design.weights, groups) / root[:, None]
    elif errors in CLUSTER_KINDS:
        pulls = Q * np.sqrt(cluster_factor(errors, int(groups.max()) + 1, n, p))
    elif errors != "iid":
        powers = hc_powers(errors, np.einsum("ij,ij->i", Q, Q), n, p)
        pulls = Q * np.sqrt(np.broadcast_to(powers, (n,)))[:, None]
    clusters = groups if errors in CLUSTER_KINDS else None
    return Basis(Q=Q, R=R, residual=root * (np.asarray(design.y) - fit.mu), pulls=pulls, clusters=clusters)


def _constant(problem: Problem) -> np.ndarray | None:
    """The combination of columns (p,) that is 1 in every row, None where there is none."""
    X = problem.design.X
    ones = np.linalg.lstsq(X, np.ones(len(X)), rcond=None)[0]
    return ones if np.abs(X @ ones - 1).max() < 1e-8 else None
