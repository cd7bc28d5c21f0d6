"""Frames: every row of the data, every coefficient of the formula, names that the glossary explains."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bossa.errors import Refused
from bossa.report import table


def test_dropped_coefficients_are_null_rows_in_their_place(states):
    frame = table.params_frame(states["inferred"])
    assert frame["term"].to_list() == ["Intercept", "x", "x2"]
    assert frame.row(2) == ("x2", *[None] * 7)
    assert frame.drop("term").head(2).null_count().sum_horizontal().item() == 0


def test_vcov_is_labelled_and_null_where_dropped(states):
    frame = table.vcov_frame(states["fitted"])
    V = frame.drop("term").to_numpy()
    np.testing.assert_array_equal(V[:2, :2], states["fitted"].fit_state.vcov)
    assert frame.columns == ["term", *frame["term"]]
    assert frame["x2"].null_count() == 3
    assert frame.row(2) == ("x2", None, None, None)


def test_augment_has_every_row_and_nulls_where_unused(states):
    m = states["fitted"]
    frame = table.augment(m, {"fitted": m.fit_state.mu, "x": m.fit_state.mu})
    assert frame.columns == [*m.data.columns, "fitted", "x_bossa"]
    assert frame.height == m.data.height
    np.testing.assert_array_equal(frame["fitted"].drop_nulls(), m.fit_state.mu)
    assert frame["fitted"].is_null().to_list() == [False, False, True, False, False, False]


def test_frames_hold_null_for_what_is_not_there_and_never_nan(states):
    assert table.predictions_frame(states["predicted"])["fitted"].to_list() == [1.0, None, 3.0]
    explored = table.effects_frame(states["explored inferred"])
    assert explored["estimate"].to_list() == ["a", "b", "c"]
    assert explored.row(2)[1:] == (None,) * 7


def test_frames_keep_full_precision(states):
    m = states["inferred"]
    np.testing.assert_array_equal(table.params_frame(m)["estimate"].head(2), m.fit_state.coef)
    np.testing.assert_array_equal(table.params_frame(m)["p_value"].head(2), m.inference.p_value)


def test_tidy_renames_and_changes_nothing(states):
    params, tidy = table.params_frame(states["inferred"]), table.tidy(states["inferred"])
    assert tidy.columns == ["term", "estimate", "std_error", "conf_low", "conf_high", "statistic", "df", "p_value"]
    assert tidy.rows() == params.rows()
    assert table.tidy(states["explored inferred"]).columns[:3] == ["estimate", "estimate_bossa", "std_error"]


def test_predictions_show_no_tests(states):
    assert table.predictions_frame(states["predicted inferred"]).columns == ["x", "fitted", "se", "ci_lower", "ci_upper"]


def test_joint_tests_of_effects_are_their_frame(states):
    assert table.effects_frame(states["explored joint"]) is states["joint"].joint.frame


def test_metadata_names_the_rows_used(states):
    frame = table.metadata_frame(states["fitted"])
    assert frame["used"].to_list() == [True, True, False, True, True, True]


def test_random_effects_of_a_model_without_any_are_refused(states):
    m = states["fitted"]
    with pytest.raises(Refused, match="no random effects"):
        table.varying_frame(m, "offsets", m.problem, m.fit_state)


def test_every_column_that_report_adds_is_in_the_glossary(states):
    for state, m in states.items():
        if m.fit_state is None:
            continue
        frames = [table.params_frame(m), table.tidy(m), table.metadata_frame(m)]
        known = set(m.data.columns) | {"sim_1", "sim_2"}
        if m.focus is not None and "explored" in state:
            frames.append(table.effects_frame(m))
        for frame in frames:
            assert {c.removesuffix("_bossa") for c in frame.columns} <= set(table.COLUMNS) | known, state


def test_every_format_of_the_glossary_exists():
    from bossa.report.display import FORMATS

    assert {c.format for c in table.COLUMNS.values()} <= {*FORMATS, "estimate"}


def test_glossary_page_is_the_table(root):
    """docs/glossary.md is `bossa.report.table.glossary()`; write it anew when this fails."""
    assert (root / "docs" / "glossary.md").read_text(encoding="utf-8") == table.glossary()


def test_convergence_is_a_sentence(states):
    c = table.convergence(states["fitted"].fit_state.outcome)
    assert c.status == "suspect"
    assert str(c) == "suspect: It wobbles. Look again."


def test_frames_are_polars(states):
    assert isinstance(table.designmat_frame(states["fitted"]), pl.DataFrame)
    assert table.designmat_frame(states["fitted"]).columns == ["Intercept", "x"]
