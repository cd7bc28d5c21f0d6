"""Models that learn as data arrive. Public names, resolved on first use.

from bossa.assimilate import causal_kalman
causal_kalman([0.45, 0.55, 0.50], [0.10, 0.12, 0.08]).trajectory()
"""

from __future__ import annotations

from importlib import import_module

_HOME = {
    "AssimilationResult": "result",
    "causal_kalman": "door",
    "particle_filter": "door",
    "assimilative_causal": "door",
    "assimilative_causal_particle": "door",
    "batches": "stream",
    "estimates": "stream",
    "resume": "stream",
    "student_t": "cloud",
    "combine": "marks",
    "discount": "drift",
    "fuse": "fusion",
    "hybrid": "marks",
    "least_squares": "variational",
    "nig": "solve",
    "population": "marks",
    "monitor": "monitoring",
    "alarms": "monitoring",
    "redesign": "monitoring",
    "news": "hindsight",
    "aci": "hindsight",
    "fixed_lag": "hindsight",
    "influence_range": "hindsight",
}

__all__ = sorted([*_HOME, "gates"])


def __getattr__(name: str):
    if name == "gates":  # a module of the public surface: bossa.assimilate.gates.sbc(…)
        return import_module(".gates", __name__)
    if name not in _HOME:
        raise AttributeError(f"module 'bossa.assimilate' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *_HOME])
