"""Model tables: every number of every model, in a markup that reads whatever the names."""

from __future__ import annotations

import importlib.util
import re

import polars as pl
import pytest
from attrs import frozen

from bossa.errors import OptionError, UnknownOption
from bossa.report import table as frames
from bossa.report.export import table


@frozen(eq=False)
class Shown:
    """A stub with the properties of a Model that `table` reads."""

    stub: object
    stats: dict

    @property
    def spec(self):
        return self.stub.spec

    @property
    def inference(self):
        return self.stub.inference

    @property
    def params(self):
        return frames.params_frame(self.stub)

    @property
    def diagnostics(self):
        return pl.DataFrame({k: [v] for k, v in self.stats.items()})


@pytest.fixture
def pair(states, stub):
    one = Shown(states["inferred"], {"n": 5.0, "rsquared": 0.87654, "aic": 14.0})
    return one, Shown(stub(x="a_b|c&d*#"), {"n": 5.0, "aic": 15.5})


def test_estimates_with_errors_below_then_the_models_numbers(pair):
    made = table(*pair, names=["A", "B"])
    assert made.frame.columns == [" ", "A", "B"]
    rows = {row[0] or f"below {i}": row[1:] for i, row in enumerate(made.frame.iter_rows())}
    assert rows["Intercept"] == ("1.000", "1.0000")
    assert rows["below 0"] == ("y", "y")
    assert rows["below 2"] == ("(0.123)", "")
    assert rows["a_b|c&d*#"] == ("", "1.0000")
    assert rows["x2"] == ("–", "")
    assert rows["n"] == ("5", "5")
    assert rows["R²"] == ("0.87654", "")
    assert made.rule == made.frame.height - 3


@pytest.mark.parametrize(("below", "shown"), [("ci", "[0.753, 1.247]"), ("p", "(3.2e-310)"), ("statistic", "(8.10)")])
def test_what_stands_below(pair, below, shown):
    made = table(pair[0], below=below)
    assert shown in made.frame["(1)"].to_list()
    assert shown not in table(pair[0], below="none").frame["(1)"].to_list()


def test_markdown_has_one_cell_per_column_whatever_the_names(pair):
    lines = [line for line in table(*pair).markdown().split("\n") if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}
    assert r"a\_b\|c&d\*#" in table(*pair).markdown()


def test_latex_is_balanced_and_escaped(pair):
    latex = table(*pair).latex()
    assert latex.count("{") == latex.count("}")
    assert r"a\_b\textbar{}c\&d*\#" in latex
    body = [line for line in latex.split("\n") if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {2}
    assert latex.index(r"\midrule", latex.index("Intercept")) < latex.index("n & 5 & 5")


def test_typst_escapes_markup(pair):
    typst = table(*pair).typst()
    assert r"[a\_b|c&d\*\#]" in typst
    bare = re.sub(r"\\.", "", typst)
    assert bare.count("[") == bare.count("]")
    assert bare.count("(") == bare.count(")")


def test_notebook_shows_it(pair):
    assert 'class="rule"' in table(*pair)._repr_html_()
    assert table(*pair)._repr_markdown_() == str(table(*pair))


def test_wrong_arguments_are_named(pair):
    with pytest.raises(OptionError, match="no model"):
        table()
    with pytest.raises(OptionError, match="a list is not a model"):
        table([*pair])
    with pytest.raises(UnknownOption, match="Did you mean 'se'"):
        table(pair[0], below="sse")
    with pytest.raises(UnknownOption, match="Did you mean 'rsquared'"):
        table(pair[0], stats=["rsquare"])
    with pytest.raises(OptionError, match="names"):
        table(*pair, names=["A"])


def test_great_tables_where_it_is_installed(pair):
    if importlib.util.find_spec("great_tables") is None:
        with pytest.raises(OptionError, match=r"bossa\[tables\]"):
            table(*pair).gt()
    else:
        assert "Intercept" in table(*pair).gt().as_raw_html()
