"""Several models side by side, for a paper: Markdown, LaTeX, Typst, or a great_tables object.

    table(m1, m2)             ModelTable; a notebook shows it
    table(m1, m2).latex()     .markdown() .typst() .gt() .frame

One row per coefficient, its standard error in parentheses under it, then the numbers of each model. No stars.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import polars as pl
from attrs import frozen

from ..errors import OptionError, UnknownOption, one
from ..state.spec import Spec
from .display import cell, row_decimals
from .html import grid, wrap
from .text import Grid, heading

BELOW = ("se", "ci", "p", "statistic", "none")
STATS = {"n": "n", "rsquared": "R²", "rsquared_adj": "adjusted R²", "sigma": "σ", "loglik": "log-likelihood", "aic": "AIC", "bic": "BIC"}
STATS |= {"deviance": "deviance", "df_resid": "residual df", "icc": "ICC", "rsquared_marginal": "marginal R²"}
STATS |= {"rsquared_conditional": "conditional R²"}
DEFAULT_STATS = ("n", "rsquared", "aic")

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"}
_LATEX |= {c: f"\\{c}" for c in "&%$#_{}"} | {"|": r"\textbar{}", "²": "$^2$", "σ": r"$\sigma$", "–": "--", "≤": r"$\le$"}


@frozen(repr=False)
class ModelTable:
    """Rows of text cells: a heading row, coefficients, and from row `rule` on the numbers of the models.

    frame  polars, all strings: " " (row names) and one column per model
    """

    frame: pl.DataFrame
    rule: int
    notes: tuple[str, ...] = ()

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        return list(self.frame.iter_rows())

    def markdown(self) -> str:
        """A pipe table; notes below."""
        names = [_markdown(c) or " " for c in self.frame.columns]
        lines = [_pipe(names), _pipe(["---", *["---:"] * (len(names) - 1)])]
        lines += [_pipe([_markdown(c) or " " for c in row]) for row in self._rows]
        return "\n".join([*lines, *(["", *map(_markdown, self.notes)] if self.notes else [])])

    def latex(self) -> str:
        """A tabular in booktabs style (\\usepackage{booktabs})."""
        rows = [" & ".join(map(_latex, row)) + r" \\" for row in self._rows]
        rows.insert(self.rule, r"\midrule")
        head = " & ".join(map(_latex, self.frame.columns)) + r" \\"
        lines = [rf"\begin{{tabular}}{{l{'r' * (self.frame.width - 1)}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
        lines += [rf"\multicolumn{{{self.frame.width}}}{{l}}{{\footnotesize {_latex(n)}}} \\" for n in self.notes]
        return "\n".join([*lines, r"\end{tabular}"])

    def typst(self) -> str:
        """A Typst #table, notes below it."""
        lines = ["#table(", f"  columns: {self.frame.width},", f"  align: (left, {'right, ' * (self.frame.width - 1)}),", "  stroke: none,"]
        lines += ["  table.hline(),", f"  table.header({_bracketed(self.frame.columns)}),", "  table.hline(),"]
        rows = [f"  {_bracketed(row)}," for row in self._rows]
        rows.insert(self.rule, "  table.hline(),")
        return "\n".join([*lines, *rows, "  table.hline(),", ")", *map(_typst, self.notes)])

    def gt(self) -> Any:
        """A great_tables object (`pip install "bossa[tables]"`)."""
        if find_spec("great_tables") is None:
            raise OptionError("great_tables is not installed.", where="table(…).gt()", do="pip install 'bossa[tables]'.")
        GT = import_module("great_tables").GT
        made = GT(self.frame).cols_align("right", columns=self.frame.columns[1:])
        for note in self.notes:
            made = made.tab_source_note(note)
        return made

    def __str__(self) -> str:
        return self.markdown()

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def _repr_html_(self) -> str:
        names = self.frame.columns
        shown = Grid(
            "", tuple(names), tuple(tuple(self.frame[c]) for c in names), (False, *[True] * (len(names) - 1)), rule=self.rule, aligned=False
        )
        return wrap(grid(shown) + "".join(f"<div>{escape(n)}</div>" for n in self.notes))


def table(*models: Any, names: Sequence[str] | None = None, below: str = "se", stats: Sequence[str] = DEFAULT_STATS) -> ModelTable:
    """Fitted models side by side.

    names  of the columns; None: (1), (2), …
    below  what stands under each estimate: "se" | "ci" | "p" | "statistic" | "none"
    stats  rows below: columns of `.diagnostics`; those that no model has are left out
    """
    where = "table()"
    if not models:
        raise OptionError("there is no model to show.", where=where, do="Write table(m1, m2).")
    for model in models:
        if not isinstance(getattr(model, "spec", None), Spec):
            raise OptionError(f"{one(model)} is not a model.", where=where, do="Write table(m1, m2).")
    if below not in BELOW:
        raise UnknownOption(below, BELOW, where=where, kind="below")
    for stat in stats:
        if stat not in STATS:
            raise UnknownOption(stat, STATS, where=where, kind="stats")
    names = [f"({i})" for i in range(1, len(models) + 1)] if names is None else list(names)
    if len(names) != len(models) or len(set(names)) < len(names):
        raise OptionError(f"names={names!r} does not name {len(models)} models apart.", where=where)
    columns = [_coefficients(m, below) for m in models]
    terms = list(dict.fromkeys(term for column in columns for term in column))
    rows = [["", *(str(m.spec.response) for m in models)]]
    for term in terms:
        for line in range(2 if any(term in c and c[term][1] for c in columns) else 1):
            rows.append(["" if line else term, *(c.get(term, ("", ""))[line] for c in columns)])
    rule = len(rows)
    rows += _stats([m.diagnostics for m in models], stats)
    frame = pl.DataFrame(rows, schema=[" ", *names], orient="row")
    return ModelTable(frame, rule, tuple(_notes(models, names, below)))


def _coefficients(m: Any, below: str) -> dict[str, tuple[str, str]]:
    """term → (estimate, what stands below it)."""
    out = {}
    for row in m.params.iter_rows(named=True):
        decimals = row_decimals(row.get("se"))
        out[row["term"]] = (cell(row["estimate"], "estimate", decimals), _under(row, below, decimals))
    return out


def _under(row: Mapping[str, Any], below: str, decimals: int | None) -> str:
    if below == "ci" and row.get("ci_lower") is not None:
        return f"[{cell(row['ci_lower'], 'estimate', decimals)}, {cell(row['ci_upper'], 'estimate', decimals)}]"
    name, format = {"se": ("se", "estimate"), "p": ("p_value", "p"), "statistic": ("statistic", "statistic")}.get(below, ("", ""))
    return "" if row.get(name) is None else f"({cell(row[name], format, decimals)})"


def _stats(frames: Sequence[pl.DataFrame], stats: Sequence[str]) -> list[list[str]]:
    rows = []
    for stat in stats:
        values = [f[stat][0] if stat in f.columns else None for f in frames]
        if any(v is not None for v in values):
            rows.append([STATS[stat], *("" if v is None else cell(v, "df" if stat in ("n", "df_resid") else "number") for v in values)])
    return rows


def _notes(models: Sequence[Any], names: Sequence[str], below: str) -> list[str]:
    """What stands in parentheses, and how each model's was found."""
    what = {"se": "Standard errors", "ci": "Intervals", "p": "p-values", "statistic": "Statistics"}.get(below)
    how = {name: "none inferred" if m.inference is None else heading(m.inference) for name, m in zip(names, models)}
    if what is None:
        return []
    if len(set(how.values())) == 1:
        return [f"{what} under the estimates: {next(iter(how.values()))}."]
    return [f"{what} under the estimates: {'; '.join(f'{k} {v}' for k, v in how.items())}."]


def _pipe(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*_<`])", r"\\\1", text)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def _typst(text: str) -> str:
    return re.sub(r"([\\#$*_`<>@\[\]~=+/-])", r"\\\1", text)


def _bracketed(cells: Sequence[str]) -> str:
    return ", ".join(f"[{_typst(c)}]" for c in cells)
