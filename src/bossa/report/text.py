"""What a model says of itself when it is printed: one page for text and HTML alike.

    page(m)  →  Page(title, facts, tables, notes)      text(m) lays it out in columns; html.html(m) does the same for a browser

Every state has a page: not fitted, fitted, inferred, explored, predicted, simulated. Everything that changed a number stands in it.
"""

from __future__ import annotations

import math
from typing import Any

import polars as pl
from attrs import frozen

from ..state.inference import EffectsState, InferenceState, JointTestState, PredictionState, SimulationState
from ..state.target import Target
from . import table
from .display import align, cell, cells

ROWS, COLUMNS = 30, 14  # of a table, before it is shortened
_LEVELS = 12  # of a factor, likewise
_NUMERIC = ("estimate", "number", "statistic", "df", "p")


@frozen
class Grid:
    """A table ready to be laid out: cells as text, decimal points not yet aligned.

    rest  what was left out, in words; empty when nothing was
    rule  a line is drawn above this row; None: nowhere
    aligned  False: numbers stand to the right, their points where they fall
    """

    title: str
    names: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    rest: str = ""
    rule: int | None = None
    aligned: bool = True


@frozen
class Page:
    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Grid, ...]
    notes: tuple[str, ...]


# ------------------------------------------------------------------ content
def kind(spec: Any) -> str:
    """ "linear model", "generalized linear mixed model" …"""
    plain = spec.family is None or (spec.family.name == "gaussian" and spec.link.name == "identity")
    return f"{'' if plain else 'generalized '}linear {'mixed ' if spec.bars else ''}model"


def page(m: table.Readable) -> Page:
    """The whole content of a model's printout."""
    title = kind(m.spec)
    title = f"{title[0].upper()}{title[1:]}, {stage(m)}"
    return Page(title, tuple(_facts(m)), tuple(_tables(m)), notes(m))


def stage(m: table.Readable) -> str:
    """What was done last."""
    if isinstance(m.focus, EffectsState):
        return f"explored: {m.focus.query}"
    if isinstance(m.focus, PredictionState):
        return f"predictions ({m.focus.type})"
    if isinstance(m.focus, SimulationState):
        return f"{m.focus.values.shape[1]} simulation{'s' * (m.focus.values.shape[1] > 1)}"
    return "not fitted" if m.fit_state is None else "fitted"


def _facts(m: table.Readable) -> list[tuple[str, str]]:
    """Name and value of each line of the header."""
    spec = m.spec
    facts = [("formula", spec.formula)]
    if spec.family is not None:
        facts.append(("family", f"{spec.family.name} ({spec.link.name} link)"))
    facts += [
        (k.replace("_", " "), v) for k, v in (("weights", spec.weights), ("freq_weights", spec.freq_weights), ("offset", spec.offset)) if v
    ]
    if m.fit_state is None:
        return [
            *facts,
            ("data", "none given" if m.data is None else f"{m.data.height} rows"),
            ("next", "m = m.fit()" if m.data is not None else "give model(formula, data)"),
        ]
    facts.append(("rows", rows_used(m)))
    facts += levels(m)
    groups = dict.fromkeys(f"{t.factor}: {len(t.levels)}" for t in _random_terms(m))
    facts += [("groups", ", ".join(groups))] if groups else []
    facts.append(("method", method(m)))
    facts.append(("fit", str(table.convergence(m.fit_state.outcome))))
    return [*facts, *_scale(m.fit_state)]


def method(m: table.Readable) -> str:
    """ "OLS", "REML" …; "MAP": the most probable coefficients given a prior."""
    return str(m.spec.method).upper() if m.fit_state.prior is None else "MAP, most probable coefficients given the prior"


def _scale(fit: Any) -> list[tuple[str, str]]:
    """The residual standard deviation, or the dispersion, where it is estimated; other parameters beside the coefficients."""
    out = [(name, cell(value)) for name, value in fit.aux.items() if isinstance(value, float)]
    if fit.dispersion_estimated:
        name, value = ("sigma", fit.sigma) if fit.estimator in ("lm", "lmm", "prior") else ("dispersion", fit.dispersion)
        on = f"{cell(fit.df_resid, 'df')} residual degrees of freedom"
        out.append((name, f"not estimable on {on}" if math.isnan(value) else f"{cell(value)} on {on}"))
    elif fit.prior is not None and fit.prior.sigma is not None:
        out.append(("sigma", f"{cell(fit.sigma)}, taken as known"))
    return out


def rows_used(m: table.Readable) -> str:
    """ "342 of 344 used"."""
    design = m.problem.design
    counts = "" if design.freq is None else f" ({design.n_obs:g} observations by freq_weights)"
    return (f"{design.n} of {design.n_data} used" if design.n < design.n_data else f"all {design.n} used") + counts


def levels(m: table.Readable) -> list[tuple[str, str]]:
    """A line for each factor: its levels in order, the reference between brackets, or the name of another coding."""
    out = []
    last = max((i for i, p in enumerate(table.codings(m).values()) if p.coding == "treatment"), default=-1)
    for i, (name, piece) in enumerate(table.codings(m).items()):
        reference = [piece.coding == "treatment" and not row.any() for row in piece.matrix]
        shown = " ".join(f"[{label}*]" if r else label for label, r in zip(piece.labels[:_LEVELS], reference))
        more = f" … {len(reference) - _LEVELS} more" if len(reference) > _LEVELS else ""
        how = {"treatment": "", "levels": "   (one coefficient each)"}.get(piece.coding, f"   ({piece.coding} coding)")
        out.append(("levels", f"{name}: {shown}{more}{how}{'   (* = reference)' if i == last else ''}"))
    return out


def _random_terms(m: table.Readable) -> tuple:
    random = m.problem.design.random
    return () if random is None else random.terms


def _tables(m: table.Readable) -> list[Grid]:
    """The tables of what was asked last."""
    if m.fit_state is None and not isinstance(m.focus, SimulationState):
        return []
    title = heading(m.focus_inference)
    if isinstance(m.focus, EffectsState):
        return [grid(table.effects_frame(m), title)]
    if isinstance(m.focus, PredictionState):
        return [grid(table.predictions_frame(m), title, rows=10)]
    if isinstance(m.focus, SimulationState):
        return [grid(table.simulations_frame(m), title, rows=10)]
    tests = [] if m.joint is None else [grid(m.joint.frame, heading(m.joint))]
    params = [] if tests and m.inference is None else [grid(table.params_frame(m), heading(m.inference))]
    return [*params, *tests, *varying(m)]


def varying(m: table.Readable) -> list[Grid]:
    """Variances and correlations of the random effects; nothing for a model without any."""
    if m.problem.design.random is None:
        return []
    return [grid(table.varying_frame(m, "spread", m.problem, m.fit_state), "random effects")]


def notes(m: table.Readable) -> tuple[str, ...]:
    """Every choice that changed a number of what is shown, once."""
    if m.fit_state is None:
        return m.focus.notes if isinstance(m.focus, SimulationState) else ()
    said = [*m.problem.design.notes, *m.fit_state.notes]
    if isinstance(m.focus, EffectsState):
        said += [*m.focus.target.notes, *_unsaid(m.focus.target)]
    elif isinstance(m.focus, PredictionState):
        said += [*m.focus.target.notes, *_unsaid(m.focus.target), *m.focus.notes]
    elif isinstance(m.focus, SimulationState):
        said += m.focus.notes
    state = m.inference if m.focus is None else m.focus_inference
    said += [] if state is None else state.notes
    if m.focus is None and m.joint is not None:
        said += [n if m.inference is None else f"tests: {n}" for n in m.joint.notes]
    return tuple(dict.fromkeys(n for n in said if n))


def _unsaid(target: Target) -> list[str]:
    """Why rows are not estimable, where no note of the target says it."""
    return [reason for reason in target.reason if not any(reason in note for note in target.notes)]


def heading(state: InferenceState | JointTestState | None) -> str:
    """The line above a table: how its uncertainty was found."""
    if state is None:
        return ""
    if isinstance(state, JointTestState):
        return f"tests: {state.kind}, {state.statistic_name}"
    parts = [state.how]
    if state.interval is not None and state.level is not None:
        parts.append(f"{100 * state.level:.10g}% intervals")
    if state.statistic is not None:
        parts.append(f"{state.statistic_name} tests")
    if state.side != "two-sided":
        parts.append(f"one-sided ({state.side})")
    parts += [f"{k}={_short(v)}" for k, v in state.options.items() if v is not None]
    return ", ".join(parts)


def _short(value: Any) -> str:
    """An option's value in one short line."""
    line = " ".join(str(value).split())
    return line if len(line) <= 40 else f"{line[:39]}…"


def grid(frame: pl.DataFrame, title: str = "", *, rows: int = ROWS) -> Grid:
    """A frame as text cells: its first `rows` rows and at most COLUMNS columns, the last ones always."""
    head = frame.head(rows)
    left_out = [f"{frame.height - rows} more row{'s' * (frame.height - rows > 1)}"] if frame.height > rows else []
    names = frame.columns
    if len(names) > COLUMNS:
        hidden = names[COLUMNS // 2 : len(names) - COLUMNS // 2]
        head = head.drop(hidden)
        left_out.append(f"{len(hidden)} more columns: {', '.join(hidden[:6])}{' …' if len(hidden) > 6 else ''}")
    formats = table.formats(head.columns)
    text = cells(head, formats)
    numeric = tuple(formats[c] in _NUMERIC or head[c].dtype.is_numeric() for c in head.columns)
    return Grid(title, tuple(head.columns), tuple(tuple(c) for c in text.values()), numeric, "; ".join(left_out))


# ------------------------------------------------------------------ layout
def text(m: table.Readable) -> str:
    """The page in plain text."""
    p = page(m)
    width = max(len(k) for k, _ in p.facts)
    lines = [p.title, *(f"  {k:<{width}}  {v}" for k, v in p.facts)]
    for t in p.tables:
        lines += ["", *lay_out(t)]
    if p.notes:
        lines += ["", *(f"- {n}" for n in p.notes)]
    return "\n".join(lines)


def lay_out(t: Grid) -> list[str]:
    """A table as lines: text to the left, numbers by their decimal points."""
    blocks = []
    for name, column, numeric in zip(t.names, t.columns, t.numeric):
        body = align(column) if numeric else list(column)
        width = max([len(name), *(len(s) for s in body)])
        blocks.append([s.rjust(width) if numeric else s.ljust(width) for s in (name, *body)])
    lines = ["  ".join(row).rstrip() for row in zip(*blocks)]
    return [*([t.title] if t.title else []), *lines, *([f"… {t.rest}"] if t.rest else [])]
