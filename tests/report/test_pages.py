"""Every state has a page, in text and in HTML, and nothing that changed a number is missing from it."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
from attrs import evolve

from bossa import model
from bossa.report import explain, html, table, text
from bossa.state.inference import InferenceState

STATES = [
    "empty", "unfitted", "fitted", "poisson", "mixed", "inferred", "joint", "both", "explored", "explored inferred", "explored joint",
    "predicted", "predicted inferred", "simulated", "simulated inferred",
]  # fmt: skip
VOID = {"br", "hr", "img", "col"}


class Reader(HTMLParser):
    """The text of every element, and whether tags nest."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] != "style":
            self.words.append(data)


def read(source: str) -> str:
    reader = Reader()
    reader.feed(source)
    assert reader.open == []
    return "\n".join(reader.words)


def test_there_is_a_page_for_every_state(states):
    assert sorted(states) == sorted(STATES)


@pytest.mark.parametrize("state", STATES)
def test_text_and_html_say_the_same(states, state):
    m = states[state]
    shown, plain = read(html.html(m)), text.text(m)
    p = text.page(m)
    for word in [p.title, *(v for _, v in p.facts), *p.notes, *(c.strip() for t in p.tables for column in t.columns for c in column)]:
        assert word in shown
        assert word in plain


@pytest.mark.parametrize("state", STATES)
def test_every_note_of_every_state_read_is_shown(states, state):
    m = states[state]
    if m.fit_state is None:
        return
    plain = text.text(m)
    sources = [m.problem.design, m.fit_state]
    sources += [m.inference, m.joint] if m.focus is None else [m.focus, getattr(m.focus, "target", None), m.focus_inference]
    for source in sources:
        for note in getattr(source, "notes", ()):
            assert note in plain


def test_header_says_what_a_reader_needs(states):
    plain = text.text(states["inferred"])
    facts = ["Linear model, fitted", "y ~ x + x2", "gaussian (identity link)", "5 of 6 used", "suspect: It wobbles. Look again."]
    for fact in [*facts, "95% intervals"]:
        assert fact in plain


def test_unfitted_model_says_what_to_do_next(states):
    assert "m = m.fit()" in text.text(states["unfitted"])
    assert "model(formula, data)" in text.text(states["empty"])


def test_small_p_values_are_not_clipped(states):
    assert "3.2e-310" in text.text(states["inferred"])


def test_text_numbers_equal_the_frame_to_the_digits_shown(states):
    m = states["inferred"]
    frame = table.params_frame(m)
    shown = text.grid(frame)
    for name, column in zip(shown.names[1:], shown.columns[1:]):
        for value, cell in zip(frame[name], column):
            if value is None:
                assert cell == "–"
                continue
            places = len(cell.partition("e")[0].partition(".")[2])
            exponent = int(cell.partition("e")[2] or 0)
            assert abs(float(cell) - value) <= 0.5000001 * 10.0 ** (exponent - places)


def test_markup_in_names_is_escaped(stub):
    m = stub(x="<b>&x")
    assert "<b>&x" in read(html.html(m))


def test_long_and_wide_tables_say_what_is_left_out(states):
    wide = table.beside(table.params_frame(states["fitted"]), {f"c{i}": [1.0, 2.0, 3.0] for i in range(40)})
    shown = text.grid(wide, rows=2)
    assert len(shown.columns[0]) == 2
    assert shown.rest.startswith("1 more row; 28 more columns: c5, ")


@pytest.mark.parametrize("state", [s for s in STATES if s not in ("empty", "unfitted")])
def test_every_step_of_every_explanation_is_a_frame(states, state):
    e = explain.explain(states[state])
    for step in e.steps:
        assert e[step.name] is step.frame
        assert step.name in str(e)
    read(e._repr_html_())


def test_one_sided_and_open_intervals_are_shown(states):
    m = states["fitted"]
    k = len(m.fit_state.coef)
    one_sided = InferenceState(how="asymp", interval=np.array([[-np.inf] * k, [1.0] * k]), side="less", level=0.9)
    plain = text.text(evolve(m, inference=one_sided))
    assert "-inf" in plain
    assert "one-sided (less)" in plain
    assert "90% intervals" in plain


def test_nothing_is_said_twice_and_what_is_not_estimable_has_no_number():
    y = [1.0, 2.0, 4.0, 3.0, 5.0, 7.0]
    cells = model("y ~ g * h", {"y": y, "g": ["a", "a", "b", "b", "b", "b"], "h": ["u", "u", "u", "u", "v", "v"]}).fit()
    page = repr(cells.explore("g").infer())
    assert page.count("no rows of the data have g = a, h = v") == 1
    saturated = repr(model("y ~ x", {"y": [1.0, 2.0], "x": [1.0, 3.0]}).fit())
    assert "sigma    not estimable on 0 residual degrees of freedom" in saturated
