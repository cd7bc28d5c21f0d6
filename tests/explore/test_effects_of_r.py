"""Marginal means, contrasts, slopes and averages against R: the golden cases (R 4.2.2, emmeans 1.8.4-1, their own data), names and order
of rows included, and numbers of emmeans for empty cells and for averaging weights."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bossa import model

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = [
    *("lm_penguins_species", "lm_penguins_factorial_ancova", "lm_penguins_coding_mixed", "lm_toothgrowth_factorial"),
    "lm_toothgrowth_types",
    *("lm_pigs_log", "lm_mtcars_factor_by_numeric", "lm_mtcars_poly", "lm_mtcars_three_factor", "lm_mtcars_conf90", "lm_mtcars_offset"),
    *("lm_moats_blocks", "lm_mtcars_weights", "lm_airquality_missing", "lm_cars_bs", "lm_cars_ns", "lm_mtcars_no_intercept_mixed"),
    *("glm_cbpp_cbind", "glm_cbpp_poisson_offset", "glm_infert", "glm_infert_interaction", "glm_warpbreaks_poisson", "glm_insectsprays"),
    *("glm_pigs_gamma_inverse", "glm_warpbreaks_quasipoisson", "glm_cbpp_prop_weights", "glm_mtcars_cloglog"),
]
METHOD = {"t": "residual", "asymptotic": "inf"}
COMPARE = {"ratio": "ratio", "odds.ratio": "odds_ratio"}


def load(name):
    meta = json.loads((GOLDEN / "data" / f"{name}.json").read_text(encoding="utf-8"))
    frame = pl.read_csv(GOLDEN / "data" / f"{name}.csv", infer_schema=False)
    kinds = {"float": pl.Float64, "int": pl.Int64, "str": pl.String}
    columns = []
    for c in meta["columns"]:
        kind = pl.Enum(c["levels"]) if "levels" in c and c["type"] in ("factor", "ordered") else kinds.get(c["type"])
        columns.append((frame[c["name"]] == "TRUE").alias(c["name"]) if c["type"] == "bool" else frame[c["name"]].cast(kind))
    return pl.DataFrame(columns)


@lru_cache(maxsize=64)
def fitted(case):
    r = json.loads((GOLDEN / "cases" / f"{case}.json").read_text(encoding="utf-8"))
    data = load(r["data"])
    options = {k: r[k] for k in ("weights", "offset") if r.get(k)}
    options |= {"family": r["family"], "link": r["link"]} if r["fit"] == "glm" else {}
    codings = {g: c for g, c in (r.get("contrasts_used") or {}).items() if g in data.columns}
    return r, model(r["formula"], data, contrasts=codings or None, **options).fit()


def having(part):
    return [c for c in CASES if part in json.loads((GOLDEN / "cases" / f"{c}.json").read_text(encoding="utf-8"))["results"]]


def number(x):
    return math.nan if x is None else float(x)


def close(frame, table, p_abs=1e-15, limits=1e-7):
    """Every number of emmeans' rows, in its order: to 1e-7 of a standard error; p relatively, as far as 1 − (1 − p) can hold it in R."""
    assert frame.height == len(table)
    for ours, R in zip(frame.iter_rows(named=True), table):
        se = number(R["se"])
        assert ours["estimate"] == pytest.approx(number(R["estimate"]), abs=1e-7 * se, rel=1e-12)
        assert ours["se"] == pytest.approx(se, rel=1e-7)
        if "df" in R:
            assert ours["df"] == pytest.approx(number(R["df"]), rel=1e-12)
        if R.get("statistic") is not None:
            assert ours["statistic"] == pytest.approx(number(R["statistic"]), abs=1e-6, rel=1e-7)
        assert ours["p_value"] == pytest.approx(number(R["p"]), rel=1e-6, abs=p_abs)
        for column, key in (("ci_lower", "lower"), ("ci_upper", "upper")):
            assert ours[column] == pytest.approx(number(R[key]), abs=limits * se, rel=1e-12)


def labelled(frame, table):
    """Levels, values and names of contrasts are emmeans', row by row."""
    for ours, R in zip(frame.iter_rows(named=True), table):
        for name, wanted in R["level"].items():
            if name in ours:
                same = isinstance(wanted, (int, float)) and float(ours[name]) == float(wanted)
                assert same or str(ours[name]) == str(wanted), (ours, R["level"])


def held(entry):
    return {k: v if isinstance(v, list) else [v] for k, v in (entry["at"] or {}).items()} or None


def term(entry):
    return ":".join(f"`{name}`" for name in entry["spec"]) or "1"


@pytest.mark.parametrize("case", CASES)
def test_means(case):
    r, m = fitted(case)
    for e in r["results"].get("emm", []):
        if e.get("vcov") or e.get("cov_reduce"):
            continue
        scale = "regrid" if e.get("regrid") else e["type"]
        m2 = m.explore(term(e), by=e["by"] or None, at=held(e), scale=scale, weights=e["weights"])
        frame = m2.infer(conf_level=r["conf_level"], adjust="none", df=METHOD[e["method"]]).effects
        close(frame, e["table"])
        labelled(frame, e["table"])


# R's ptukey and qtukey are good to about 1e-9 and 1e-8 here, emmeans finds the dunnettx quantile to 5e-4, mvtnorm draws
ACCURACY = {"tukey": (1e-9, 1e-6), "dunnettx": (1e-9, 1e-3), "mvt": (1e-3, 5e-3)}


@pytest.mark.parametrize("case", CASES)
def test_contrasts(case):
    r, m = fitted(case)
    for c in r["results"].get("contrasts", []):
        emm = r["results"]["emm"][c["index"] - 1]
        if emm.get("vcov"):
            continue
        spec, by, kind = term(c), c["by"] or None, c["contrast"]
        query = f"{kind}({spec})"
        if kind == "custom":
            query = "species[Gentoo - (Adelie + Chinstrap), Chinstrap - Adelie]"
        elif kind == "interaction":
            query, by = ":".join(f"{word}(`{v}`)" for word, v in zip(c["interaction"], [*c["spec"], *c["by"]])), None
        elif (c.get("args") or {}).get("ref"):
            query = f'{kind}({spec}, ref="{emm["grid"][c["spec"][0]][c["args"]["ref"] - 1]}")'
        compare = COMPARE.get(c["estimate_name"], "difference")
        scale = "auto" if compare != "difference" or not emm.get("regrid") else "response"
        m2 = m.explore(query, by=by, at=held(c), scale=scale, compare=compare, weights=emm["weights"])
        frame = m2.infer(conf_level=r["conf_level"], adjust=c["adjust"], df=METHOD[c["method"]]).effects
        close(frame, c["table"], *ACCURACY.get(c["adjust"], ()))
        if kind not in ("custom", "interaction"):
            labelled(frame, c["table"])
        if kind == "interaction":
            wanted = [list(row["level"].values()) for row in c["table"]]
            assert [list(row)[: len(wanted[0])] for row in frame.iter_rows()] == wanted


@pytest.mark.parametrize("case", having("trends"))
def test_slopes(case):
    r, m = fitted(case)
    for t in r["results"]["trends"]:
        over = " ~ " + " + ".join(f"`{name}`" for name in t["spec"]) if t["spec"] else ""
        options = {"conf_level": r["conf_level"], "df": METHOD[t["method"]]}
        table = t["table"] if isinstance(t["table"], list) else [t["table"]]
        frame = m.explore(f"slope(`{t['var']}`){over}", by=t["by"] or None, at=held(t)).infer(adjust="none", **options).effects
        close(frame, table)
        labelled(frame, table)
        for c in t.get("contrasts", []):
            query = f"slope(`{t['var']}`) ~ {c['contrast']}({term(t)})"
            frame = m.explore(query, at=held(t)).infer(adjust=c["adjust"], **options).effects
            close(frame, c["table"], *ACCURACY.get(c["adjust"], ()))
            labelled(frame, c["table"])


@pytest.mark.parametrize("case", having("marginal_effects"))
def test_averages_over_the_data(case):
    """avg_predictions, avg_slopes, avg_comparisons with exact derivatives (README of the golden corpus), symmetric normal limits."""
    r, m = fitted(case)
    options = {"average": "observed", "scale": "auto" if r["fit"] == "lm" else "regrid"}
    infer = {"conf_level": r["conf_level"], "df": "inf", "adjust": "none"}
    me = r["results"]["marginal_effects"]

    def close_to(query, rows, by=(), **more):
        frame = m.explore(query, by=list(by) or None, **(options | more)).infer(**infer).effects
        wanted = [row["by"] for row in rows] if by else []
        for name in by:
            assert list(map(text, frame[name])) == [text(w[name]) for w in wanted]
        close(frame, rows)

    def text(value):
        return f"{value:g}" if isinstance(value, (int, float)) else str(value)

    def grouped(rows, key):
        out = {}
        for row in rows:
            out.setdefault(key(row), []).append(row)
        return out

    for by, rows in grouped(me.get("avg_predictions", []), lambda row: tuple(row["by"])).items():
        close_to("1", rows, by)
    for (v, by), rows in grouped(me.get("avg_slopes", []), lambda row: (row["variable"], tuple(row["by"]))).items():
        close_to(f"slope(`{v}`)", rows, by)
    for (v, step), rows in grouped(me.get("avg_comparisons", []), lambda row: (row["variable"], row["contrast"].count("/"))).items():
        if rows[0]["contrast"].startswith("(x"):
            close_to(f"change(`{v}`, 1{', centered' if step else ''})", rows)
        else:
            close_to(f"treatment(`{v}`)", rows)
    for row in me.get("slopes_at_mean", []):
        close_to(f"slope(`{row['variable']}`)", [row], average="grid", at=row["at"])
    for v, rows in grouped(me.get("avg_lnratios", []), lambda row: row["variable"]).items():
        frame = m.explore(f"treatment(`{v}`)", average="observed", compare="ratio").infer(**infer).effects
        np.testing.assert_allclose(np.log(frame["estimate"]), [row["estimate"] for row in rows], rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(np.log(frame["ci_upper"]), [row["upper"] for row in rows], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(frame["p_value"], [row["p"] for row in rows], rtol=1e-5)


# ---------------------------------------------------------------- emmeans 1.8.4-1 under R 4.2.2, run for these tests
@pytest.fixture(scope="module")
def empty_cell():
    """warpbreaks without wool B at tension H; lm(breaks ~ wool * tension)."""
    data = load("warpbreaks").filter(~((pl.col("wool") == "B") & (pl.col("tension") == "H")))
    return model("breaks ~ wool * tension", data).fit()


def test_what_rests_on_an_empty_cell_is_named_and_not_made_up(empty_cell):
    wool = empty_cell.explore("wool").infer()
    assert wool.effects["estimate"].to_list() == [pytest.approx(31.037037037037038), None]
    assert wool.effects["se"].to_list() == [pytest.approx(2.267637773093147), None]
    assert wool.effects["p_value"][1] is None
    assert wool.focus.target.reason == ("", "no rows of the data have wool = B, tension = H")
    assert any("wool = B, tension = H" in note for note in wool.focus.target.notes)
    cells = empty_cell.explore("wool ~ tension").effects["estimate"].to_list()
    assert [x is None for x in cells] == [False] * 5 + [True]
    pairs = empty_cell.explore("pairwise(tension)").infer().effects
    assert pairs["estimate"].to_list() == [pytest.approx(10.0), None, None]
    assert empty_cell.explore("wool", scale="response", average="observed").effects["estimate"].to_list()[1] is None


def test_an_empty_cell_leaves_what_does_not_rest_on_it(empty_cell):
    """B within L and M only: emmeans(m, ~ wool, weights = "cells") gives 28.5, se 2.777277732769674."""
    for weights in ("cells", "flat"):
        frame = empty_cell.explore("wool", weights=weights).infer().effects
        np.testing.assert_allclose(frame["estimate"], [31.037037037037038, 28.5])
        np.testing.assert_allclose(frame["se"], [2.267637773093147, 2.777277732769674])


# lm(mpg ~ factor(cyl) + factor(gear) * wt + am, mtcars); with weights = hp: lm(mpg ~ factor(cyl) + factor(gear) + vs, …): estimate, SE
WEIGHTS = {
    "equal": [(16.92514601928, 1.596987380619), (18.72796158597, 1.18842154479), (20.0783957647, 1.872448324125)],
    "proportional": [(17.14263705452, 1.382203993428), (18.94545262121, 1.197011286552), (20.29588679995, 1.978030204094)],
    "outer": [(17.14263705452, 1.382203993428), (18.94545262121, 1.197011286552), (20.29588679995, 1.978030204094)],
    "cells": [(17.7257088046, 0.8294427931084), (19.21769832934, 1.461680618893), (17.89328185023, 1.476186277626)],
    "flat": [(19.08933855431, 0.9167987965354), (19.66246400156, 1.100673495897), (17.91420322967, 1.486392657375)],
}
WEIGHTED = {
    "proportional": [(17.64720793098, 0.8226083280139), (18.16890649272, 1.503607044035), (18.63534874556, 1.212482183397)],
    "cells": [(15.4771006813, 0.7009937484938), (23.30288640596, 1.099457410619), (18.85981595092, 1.152155571146)],
    "flat": [(19.74913192326, 1.179063841852), (21.85148740366, 1.175398696817), (22.40793233098, 1.362431651548)],
}


@pytest.mark.parametrize("weights", WEIGHTS)
def test_averaging_weights(weights):
    frame = model("mpg ~ factor(cyl) + factor(gear) * wt + am", load("mtcars")).fit().explore("gear", weights=weights).infer().effects
    np.testing.assert_allclose(frame.select("estimate", "se").to_numpy(), WEIGHTS[weights], rtol=1e-10)


@pytest.mark.parametrize("weights", WEIGHTED)
def test_averaging_weights_of_a_weighted_model(weights):
    m = model("mpg ~ factor(cyl) + factor(gear) + vs", load("mtcars"), weights="hp").fit()
    frame = m.explore("gear", weights=weights).infer().effects
    np.testing.assert_allclose(frame.select("estimate", "se").to_numpy(), WEIGHTED[weights], rtol=1e-10)
