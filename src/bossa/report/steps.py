"""Worked steps: what `explain()` returns, whoever asked; a frame for each, printed one under the other."""

from __future__ import annotations

from html import escape

import polars as pl
from attrs import frozen

from . import html, text


@frozen
class Step:
    """One step: a short name, what is done, and its numbers."""

    name: str
    what: str
    frame: pl.DataFrame


@frozen(repr=False)
class Explanation:
    """The worked steps; `e["name"]` is the frame of one."""

    title: str
    steps: tuple[Step, ...]

    def __getitem__(self, name: str) -> pl.DataFrame:
        return {s.name: s.frame for s in self.steps}[name]

    def __str__(self) -> str:
        lines = [self.title]
        for i, s in enumerate(self.steps, 1):
            body = text.lay_out(text.grid(s.frame, rows=8)) if s.frame.height else []
            lines += ["", f"{i}. {s.name}: {s.what}", *(f"   {line}" for line in body)]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        steps = "".join(
            f"<p><b>{i}. {escape(s.name)}</b>: {escape(s.what)}</p>{html.grid(text.grid(s.frame, rows=8)) if s.frame.height else ''}"
            for i, s in enumerate(self.steps, 1)
        )
        return html.wrap(f'<div class="title">{escape(self.title)}</div>{steps}')
