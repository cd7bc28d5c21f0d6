"""Run a notebook's cells in order and store what they show, without Jupyter:   python notebooks/execute.py notebooks/first-look.ipynb

Shown are printed text and the value of a cell's last expression, as text and, where it has one, as HTML. An error ends the run.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run_cell(source: str, space: dict[str, Any]) -> tuple[str, Any]:
    """(printed text, value of the last expression or None)"""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), space)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), space) if last else None
    return printed.getvalue(), value


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def shown(value: Any) -> dict[str, list[str]]:
    """The representations of a value by MIME type."""
    data = {"text/plain": lines(repr(value))}
    to_html = getattr(value, "_repr_html_", None)
    return data | ({"text/html": lines(to_html())} if to_html else {})


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of every code cell made anew."""
    space: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        printed, value = run_cell("".join(cell["source"]), space)
        cell["execution_count"], cell["outputs"] = count, []
        if printed:
            cell["outputs"].append({"name": "stdout", "output_type": "stream", "text": lines(printed)})
        if value is not None:
            result = {"data": shown(value), "execution_count": count, "metadata": {}, "output_type": "execute_result"}
            cell["outputs"].append(result)
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        done = execute(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
