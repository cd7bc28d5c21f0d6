"""The page of `text.py` for a browser: no script, no fixed colours, so it reads on light and on dark.

Lines are drawn in the colour of the text around them; the information is that of the plain-text page, cell by cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from . import table
from .display import align
from .text import Grid, page

STYLE = """
.bossa{color:inherit;background:transparent;font-size:.92em;line-height:1.45;max-width:100%}
.bossa .title{font-weight:600;font-size:1.08em;margin:0 0 .35em}
.bossa dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1.1em;margin:0}
.bossa dl dt{opacity:.7;font-weight:400;margin:0}
.bossa dl dd{margin:0;overflow-wrap:anywhere}
.bossa .scroll{overflow-x:auto;margin:.8em 0 0}
.bossa table{color:inherit;background:transparent;border-collapse:collapse;border:0;margin:0;font-size:1em}
.bossa caption{caption-side:top;text-align:left;color:inherit;opacity:.8;padding:0 0 .25em}
.bossa tr,.bossa tbody tr:nth-child(even),.bossa tbody tr:nth-child(odd){background:transparent}
.bossa th,.bossa td{color:inherit;border:0;padding:.16em .7em;text-align:left;font-weight:400;vertical-align:baseline}
.bossa thead th{font-weight:600;border-bottom:1px solid currentColor}
.bossa tbody tr:last-child>*{border-bottom:1px solid currentColor}
.bossa tbody tr.rule>*{border-top:1px solid currentColor}
.bossa .n{text-align:right;white-space:pre;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.bossa thead .n{font-family:inherit}
.bossa .rest{opacity:.7;padding-top:.2em}
.bossa ul{margin:.7em 0 0;padding-left:1.2em;opacity:.85}
"""


def html(m: table.Readable) -> str:
    """The page as one self-contained <div>."""
    p = page(m)
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in p.facts)
    notes = f"<ul>{''.join(f'<li>{escape(n)}</li>' for n in p.notes)}</ul>" if p.notes else ""
    return wrap(f'<div class="title">{escape(p.title)}</div><dl>{facts}</dl>{"".join(map(grid, p.tables))}{notes}')


def wrap(body: str) -> str:
    """A <div> that brings its own style."""
    return f'<div class="bossa"><style>{STYLE}</style>{body}</div>'


def grid(t: Grid) -> str:
    """A table, scrolling where the page is narrow."""
    caption = f"<caption>{escape(t.title)}</caption>" if t.title else ""
    head = "".join(f'<th scope="col"{_numeric(n)}>{escape(name)}</th>' for name, n in zip(t.names, t.numeric))
    columns = [align(c) if n and t.aligned else c for c, n in zip(t.columns, t.numeric)]
    ruled = ["<tr>" if i != t.rule else '<tr class="rule">' for i in range(max(map(len, t.columns), default=0))]
    rows = "".join(f"{tr}{_row(row, t.numeric)}</tr>" for tr, row in zip(ruled, zip(*columns)))
    rest = f'<div class="rest">… {escape(t.rest)}</div>' if t.rest else ""
    return f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{rest}</div>'


def _row(row: Sequence[str], numeric: Sequence[bool]) -> str:
    """Cells of a row; the first is its heading when it is text."""
    first = f'<th scope="row">{escape(row[0])}</th>' if not numeric[0] else f'<td class="n">{escape(row[0])}</td>'
    return first + "".join(f"<td{_numeric(n)}>{escape(s)}</td>" for s, n in zip(row[1:], numeric[1:]))


def _numeric(numeric: bool) -> str:
    return ' class="n"' if numeric else ""
