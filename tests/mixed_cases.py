"""Golden mixed-model cases as Problems whose design is written out by hand, so that estimators are tested without the formula layer."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl

from bossa.kernels.family import GAUSSIAN
from bossa.kernels.link import IDENTITY
from bossa.state.design import Design, FitOptions, Problem, REStructure, RETerm

GOLDEN = Path(__file__).resolve().parent / "golden"


def codes(*columns):
    """Level codes and labels of a factor, or of the interaction of several, in sorted order."""
    label = np.array([":".join(map(str, row)) for row in zip(*columns)])
    levels, group = np.unique(label, return_inverse=True)
    return group, tuple(map(str, levels))


def re_term(factor, groups, Z, names=None, mask=None):
    """groups: (codes, labels) or codes."""
    group, levels = groups if isinstance(groups, tuple) else (groups, tuple(map(str, range(int(np.max(groups)) + 1))))
    Z = np.atleast_2d(np.asarray(Z, dtype=float).T).T
    k = Z.shape[1]
    mask = np.tril(np.ones((k, k), dtype=bool)) if mask is None else mask
    names = tuple(names or (["Intercept"] + [f"x{i}" for i in range(1, k)]))
    return RETerm(factor=factor, names=names, levels=levels, group=group, Z=Z, mask=mask)


def problem(y, X, terms, method="reml", *, weights=None, freq=None, offset=None, names=None, options=None):
    n, p = X.shape
    names = tuple(names or [f"x{i}" for i in range(p)])
    design = Design(
        X=X,
        y=np.asarray(y, dtype=float),
        weights=weights,
        freq=freq,
        offset=offset,
        names=names,
        term_of=np.arange(p),
        terms=names,
        columns=names,
        kept=np.ones(p, dtype=bool),
        rows=np.arange(n),
        n_data=n,
        random=REStructure(terms=tuple(terms)) if terms else None,
    )
    spec = SimpleNamespace(formula="y ~ …", intercept=True)
    return Problem(design=design, spec=spec, family=GAUSSIAN, link=IDENTITY, method=method, options=options or FitOptions())


def treatment(column, levels=None):
    """Indicator columns of all levels but the first."""
    column = np.asarray(column).astype(str)
    levels = np.unique(column) if levels is None else levels
    return np.column_stack([column == level for level in levels[1:]]).astype(float)


def columns(*parts):
    n = next(len(p) for p in parts if np.ndim(p))
    return np.column_stack([np.full(n, float(p)) if np.ndim(p) == 0 else np.asarray(p, dtype=float) for p in parts])


def frame(name):
    return {c: s.to_numpy() for c, s in pl.read_csv(GOLDEN / "data" / f"{name}.csv").to_dict(as_series=True).items()}


def case(name):
    """(problem, case) of a golden case; KeyError where it is not written out here."""
    loaded = json.loads((GOLDEN / "cases" / f"{name}.json").read_text(encoding="utf-8"))
    d = frame(loaded["data"])
    method = "reml" if loaded["REML"] else "ml"
    y, X, terms, more = _PARTS[name](d)
    return problem(y, X, terms, method, **more), loaded["results"]


def _sleep(d, X=None, Z=None, y=None, **more):
    X = columns(1, d["Days"]) if X is None else X
    Z = columns(1, d["Days"]) if Z is None else Z
    terms = [re_term("Subject", codes(d["Subject"]), z) for z in (Z if isinstance(Z, list) else [Z])]
    return d["Reaction"] if y is None else y, X, terms, more


def _intercepts(y, X, **groups):
    return y, X, [re_term(name.replace("__", ":"), g, np.ones(len(y))) for name, g in groups.items()], {}


def _two_terms(d):
    y, X, terms, more = _sleep(d, Z=[columns(1.0, d["Days"])[:, :1]])
    return y, X, [*terms, re_term("Subject", codes(d["Subject"]), d["Days"], names=["Days"])], more


def _chick(d):
    Diet = treatment(d["Diet"])
    X = columns(1, d["Time"], Diet, d["Time"][:, None] * Diet)
    return d["weight"], X, [re_term("Chick", codes(d["Chick"]), columns(1, d["Time"]))], {}


def _random_nitro(d):
    block, plot = codes(d["Block"]), codes(d["Block"], d["Variety"])
    terms = [re_term("Block:Variety", plot, np.ones(72)), re_term("Block", block, columns(1, d["nitro"]))]
    return d["yield"], columns(1, d["nitro"]), terms, {}


def _insteval(d):
    return _intercepts(d["y"], columns(1, d["service"]), s=codes(d["s"]), d=codes(d["d"]), dept__service=codes(d["dept"], d["service"]))


def _split_plot(d):
    V, N = treatment(d["Variety"]), treatment(d["nitroF"])
    X = columns(1, V, N, *(V[:, [i]] * N[:, [j]] for j in range(3) for i in range(2)))
    return _intercepts(d["yield"], X, Block__Variety=codes(d["Variety"], d["Block"]), Block=codes(d["Block"]))


_PARTS = {
    "lmm_sleepstudy_slope": _sleep,
    "lmm_sleepstudy_slope_ml": _sleep,
    "lmm_sleepstudy_intercept": lambda d: _sleep(d, Z=columns(1.0, d["Days"])[:, :1]),
    "lmm_sleepstudy_two_terms": _two_terms,
    "lmm_sleepstudy_weights": lambda d: _sleep(d, weights=d["w"].astype(float)),
    "lmm_sleepstudy_offset": lambda d: _sleep(d, Z=columns(1.0, d["Days"])[:, :1], offset=d["off"]),
    "lmm_sleepstudy_log_centered": lambda d: _sleep(
        d, X=columns(1, d["Days"] - 4.5), Z=columns(1, d["Days"] - 4.5), y=np.log(d["Reaction"])
    ),
    "lmm_dyestuff": lambda d: _intercepts(d["Yield"], np.ones((30, 1)), Batch=codes(d["Batch"])),
    "lmm_dyestuff_ml": lambda d: _intercepts(d["Yield"], np.ones((30, 1)), Batch=codes(d["Batch"])),
    "lmm_dyestuff2_singular": lambda d: _intercepts(d["Yield"], np.ones((30, 1)), Batch=codes(d["Batch"])),
    "lmm_penicillin": lambda d: _intercepts(d["diameter"], np.ones((144, 1)), plate=codes(d["plate"]), sample=codes(d["sample"])),
    "lmm_pastes_nested": lambda d: _intercepts(
        d["strength"], np.ones((60, 1)), cask__batch=codes(d["cask"], d["batch"]), batch=codes(d["batch"])
    ),
    "lmm_chickweight_slopes": _chick,
    "lmm_oranges_crossed": lambda d: _intercepts(
        d["sales1"], columns(1, d["price1"], d["price2"]), store=codes(d["store"]), day=codes(d["day"])
    ),
    "lmm_moats_split_plot": _split_plot,
    "lmm_moats_random_nitro": _random_nitro,
    "lmm_insteval_subset": _insteval,
}
CASES = list(_PARTS)
