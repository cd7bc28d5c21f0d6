"""Which random-effects terms are needed? The model without each of them in turn.

    without_each(candidate) → candidates      one per term that can go: (x | g) loses its slopes before its intercept

Source: Kuznetsova, Brockhoff & Christensen (2017), ranova.
"""

from __future__ import annotations

import numpy as np
from attrs import evolve

from ..design.encoder import Varying, piece_names
from ..errors import Refused
from ..state.design import FitOptions, REStructure, RETerm
from .likelihood import quiet_fit
from .nesting import WHERE, Candidate


def without_each(c: Candidate) -> list[Candidate]:
    """The model refitted without each term that no other term of its block contains."""
    random = c.problem.design.random
    if random is None:
        raise Refused(f"{c.name!r} has no random effects to leave out.", where=WHERE, do="Give two or more models.")
    made = []
    for i, term in enumerate(random.terms):
        varying = next(v for v in c.problem.encoder.varying if v.group == term.factor)
        for label, columns in droppable(varying):
            rest = [t for t in (*random.terms[:i], _less(term, columns), *random.terms[i + 1 :]) if t is not None]
            rest.sort(key=lambda t: -len(t.levels) * len(t.names))
            design = evolve(c.problem.design, random=REStructure(terms=tuple(rest)) if rest else None)
            options = evolve(c.problem.options, start=None) if rest else FitOptions()  # those of a mixed model mean nothing without one
            problem = evolve(c.problem, design=design, options=options)
            made.append(Candidate(f"without {label}", *quiet_fit(problem)))
    return made


def droppable(varying: Varying) -> list[tuple[str, np.ndarray]]:
    """(label, columns) of the terms of one grouping factor that are in no other term of their block."""
    sizes = [len(piece_names(pieces)) for pieces in varying.terms]
    stops = np.cumsum(sizes)
    block_stops = np.cumsum(varying.blocks)
    home = np.searchsorted(block_stops, stops)  # block of each term
    sets = [{p.expr for p in pieces} for pieces in varying.terms]
    found = []
    for t, pieces in enumerate(varying.terms):
        mates = [o for o in range(len(sizes)) if home[o] == home[t] and o != t]
        if any(sets[t] < sets[o] for o in mates):
            continue
        own = ":".join(str(p.expr) for p in pieces) or "1"
        inside = " + ".join(":".join(str(p.expr) for p in varying.terms[o]) or "1" for o in range(len(sizes)) if home[o] == home[t])
        label = f"{own} in ({inside} | {varying.group})" if mates else f"({own if own == '1' else f'0 + {own}'} | {varying.group})"
        found.append((label, np.arange(stops[t] - sizes[t], stops[t])))
    return found


def _less(term: RETerm, columns: np.ndarray) -> RETerm | None:
    keep = np.setdiff1d(np.arange(len(term.names)), columns)
    if not len(keep):
        return None
    return evolve(term, names=tuple(term.names[i] for i in keep), Z=term.Z[:, keep], mask=term.mask[np.ix_(keep, keep)])
