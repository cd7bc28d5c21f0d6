"""Columns, terms, groups and order are those of R's model.matrix and lme4's lFormula.

corpus.json: the design blocks of the golden corpus (R 4.2.2, lme4 1.1-31). columns.json: made by make.R beside it, same versions,
splines and MASS. Sums against 1 and cos(1), …, cos(n) see every element and every exchange of columns or rows; the tolerance is
rounding of a sum of n terms relative to the length of the column.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bossa.design.encode import encode
from bossa.design.formula import make_spec, update_formula
from bossa.design.terms import read

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
CORPUS = json.loads((GOLDEN / "design" / "corpus.json").read_text(encoding="utf-8"))
R = json.loads((GOLDEN / "design" / "columns.json").read_text(encoding="utf-8"))
TYPES = {"float": pl.Float64, "int": pl.Int64, "str": pl.String}


@lru_cache(maxsize=1)
def corpus_frame(name):
    meta = json.loads((GOLDEN / "data" / f"{name}.json").read_text(encoding="utf-8"))
    frame = pl.read_csv(GOLDEN / "data" / f"{name}.csv", infer_schema=False)
    columns = []
    for c in meta["columns"]:
        values = frame[c["name"]]
        columns.append(
            values == "TRUE" if c["type"] == "bool" else values.cast(TYPES[c["type"]] if c["type"] in TYPES else pl.Enum(c["levels"]))
        )
    return pl.DataFrame(columns)


@pytest.fixture(scope="module")
def frame():
    return pl.read_csv(GOLDEN / "design" / "data.csv").with_columns(pl.col("g").cast(pl.Enum(["lo", "mid", "hi"])))


def same_columns(X, expected, names):
    assert X.shape[1] == len(expected["columns"]), (names, expected["columns"])
    if not X.shape[1]:
        return
    length = np.maximum(np.sqrt((X**2).sum(axis=0)), 1e-300)
    weights = np.cos(np.arange(1, len(X) + 1))
    for ours, theirs in [(X.sum(axis=0), "colsums"), (weights @ X, "colsum_cos")]:
        np.testing.assert_allclose(ours / length, expected[theirs] / length, atol=1e-12 * len(X) ** 0.5, err_msg=str(names))
    np.testing.assert_allclose((X**2).sum(axis=0), expected["colsumsq"], rtol=1e-11)
    head = np.array(expected["head"])
    np.testing.assert_allclose(X[: len(head)], head, rtol=1e-10, atol=1e-13)


def bare(label):
    return label.replace(" ", "").replace("`", "")


@pytest.mark.parametrize("case", CORPUS, ids=lambda c: c["id"])
def test_design_of_the_corpus(case):
    spec = make_spec(case["formula"], weights=case["weights"], offset=case["offset"], contrasts=case["contrasts"])
    frame = corpus_frame(case["data"])
    _, design, used = encode(spec, frame)
    same_columns(design.X, case["design"], design.names)
    assert frame.height - design.n == frame.height - used.height == case["n_dropped"]
    if "groups" in case:
        ours = {t.factor: t for t in design.random.terms}
        assert {name: len(t.levels) for name, t in ours.items()} == case["ngrps"]
        for name, group in case["groups"].items():
            assert list(ours[name].levels) == group["levels"]
            assert len(ours[name].names) == len(group["columns"])


@pytest.mark.parametrize("case", R["fixed"], ids=lambda c: c["formula"])
def test_columns_terms_and_their_order(case, frame):
    formula = "y ~ . - s" if ". - y" in case["formula"] else "y " + case["formula"]
    _, design, _ = encode(make_spec(formula), frame)
    same_columns(design.X, case, design.names)
    intercept = design.terms[:1] == ("Intercept",)
    assert [t + (not intercept) for t in design.term_of] == case["assign"]
    assert [bare(t) for t in design.terms if t != "Intercept"] == [bare(t) for t in case["terms"]]


@pytest.mark.parametrize("case", R["contrasts"], ids=lambda c: f"{c['formula']} {list(c['contrasts'].values())}")
def test_codings(case, frame):
    contrasts = {k: v if isinstance(v, str) else np.array(v) for k, v in case["contrasts"].items()}
    _, design, _ = encode(make_spec("y " + case["formula"], contrasts=contrasts), frame)
    same_columns(design.X, case, design.names)


@pytest.mark.parametrize("case", R["random"], ids=lambda c: c["formula"])
def test_random_terms(case, frame):
    """Same groups, same columns of Z; R's terms on one grouping factor are ours side by side under one mask."""
    _, design, _ = encode(make_spec(case["formula"]), frame)
    names = [case["names"]] if isinstance(case["names"], str) else case["names"]
    theirs = {}
    for name, columns, sums in zip(names, case["cnms"], case["Zcos"]):
        theirs.setdefault(name.replace("(", "").replace(")", ""), []).append((columns, np.reshape(sums, (-1, len(columns)))))
    assert {t.factor for t in design.random.terms} == set(theirs)
    weights = np.cos(np.arange(1, frame.height + 1))
    for term in design.random.terms:
        sums = np.zeros((len(term.levels), len(term.names)))
        np.add.at(sums, term.group, weights[:, None] * term.Z)
        np.testing.assert_allclose(sums, np.hstack([s for _, s in theirs[term.factor]]), atol=1e-12)
        assert term.mask.sum() == sum(len(c) * (len(c) + 1) // 2 for c, _ in theirs[term.factor])
    q = [len(t.levels) * len(t.names) for t in design.random.terms]
    assert q == sorted(q, reverse=True)


@pytest.mark.parametrize("case", R["predicted"], ids=lambda c: c["formula"])
def test_new_rows_use_what_was_learnt(case, frame):
    """Also beyond the boundary, where bs() goes on as a polynomial and ns() as a line."""
    encoder, _, _ = encode(make_spec("y " + case["formula"]), frame)
    X = encoder.rows(pl.DataFrame(R["new_rows"])).X
    np.testing.assert_allclose(X, case["X"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", R["updated"], ids=lambda c: f"{c['old']} by {c['new']}")
def test_update_of_a_formula(case):
    ours = update_formula(case["old"], case["new"])
    assert read(ours) == read(case["result"])
    assert ours == case["result"] or "- 1" in case["result"]  # ours writes 0 +
