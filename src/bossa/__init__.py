"""bossa: statistical questions in one sentence.

    from bossa import model, load_dataset
    model("y ~ x", data).fit().infer().params

Public names are resolved on first use, so `import bossa` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .datasets import load_dataset, show_datasets
    from .fluent import Model, model
    from .kernels.family import negbinomial, t
    from .kernels.seam import engine
    from .report.comparison import compare
    from .report.export import table
    from .state.distributions import factor, groups, normal, uniform, values

__version__ = "0.1.0"

_HOME = {
    "model": "fluent",
    "Model": "fluent",
    "load_dataset": "datasets",
    "show_datasets": "datasets",
    "negbinomial": "kernels.family",
    "t": "kernels.family",
    "engine": "kernels.seam",
    "table": "report.export",
    "compare": "report.comparison",
    "factor": "state.distributions",
    "groups": "state.distributions",
    "normal": "state.distributions",
    "uniform": "state.distributions",
    "values": "state.distributions",
}

__all__ = [
    "Model",
    "compare",
    "engine",
    "factor",
    "groups",
    "load_dataset",
    "model",
    "negbinomial",
    "normal",
    "show_datasets",
    "t",
    "table",
    "uniform",
    "values",
]


def __getattr__(name: str):
    if name in ("assimilate", "cycle", "datasets"):  # modules of the public surface: bossa.cycle.promote(…), bossa.datasets.about(…)
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module 'bossa' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *_HOME])
