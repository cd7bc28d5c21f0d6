"""Modules that run when they are first used, so that a first fit does not wait for the questions that may follow it."""

from __future__ import annotations

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType


def module(name: str) -> ModuleType:
    """The module `bossa.<name>`, executed on the first use of an attribute; a module that is already there as it is."""
    full = f"bossa.{name}"
    if full in sys.modules:
        return sys.modules[full]
    spec = find_spec(full)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {full!r}", name=full)
    spec.loader = LazyLoader(spec.loader)
    made = module_from_spec(spec)
    sys.modules[full] = made
    spec.loader.exec_module(made)
    return made
