"""Every notebook runs from top to bottom, and its stored outputs are there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent.parent / "notebooks"
NOTEBOOKS = sorted(HOME.glob("*.ipynb"))


def executor():
    spec = importlib.util.spec_from_file_location("execute", HOME / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_and_shows_what_it_stored(path):
    """Outputs made now are those in the file, cell by cell, in number and kind."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    kinds = [[o["output_type"] for o in c["outputs"]] for c in stored["cells"] if c["cell_type"] == "code"]
    made = executor().execute(stored)
    assert kinds == [[o["output_type"] for o in c["outputs"]] for c in made["cells"] if c["cell_type"] == "code"]
    assert any(kinds)


def test_an_error_in_a_cell_is_not_swallowed():
    notebook = {"cells": [{"cell_type": "code", "source": ["1 / 0"]}]}
    with pytest.raises(ZeroDivisionError):
        executor().execute(notebook)
