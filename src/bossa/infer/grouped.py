"""How wrong is a prediction that holds the random effects of its group? By parametric bootstrap of the error of prediction.

Every replicate draws new random effects b*, responses y* from them, and refits. What it predicts for a group is then held against what was
drawn for that group:

    e* = x(β̂* − β̂) + z(b̂* − b*),        replicate of the prediction: ŷ − e*

so the uncertainty of β̂, of the variances and of b̂ given the data is in it, and the limits are about this group's own ŷ. (bootMer's
replicates of predict(re.form = NULL), xβ̂* + zb̂*, are other groups each time: their spread is that between groups.) A group that the fit
does not know, and the one new group of explore(varying="include"), has b̂* = 0 and a b* of its own. All before the inverse link.

Source: Henderson (1975) for the error of prediction; Davison & Hinkley (1997) §6.3.3 for its bootstrap; Bates et al. (2015) for the modes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import frozen

from ..errors import NotYet, Refused
from ..estimate.random import term_factors
from ..kernels.streams import stream
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import Draws, Plan, Replicates
from ..state.target import Target
from ..types import Floats, Ints

WHERE = "infer(how='boot')"
SAID = "random effects: drawn anew in every replicate, its predictions held against what was drawn; the error is that of xβ̂ + z(b̂ − b)"


@frozen(eq=False)
class Effects:
    """The random part of a question's rows.

    rows   for each term the codes (K,) of the groups, negative where unknown, and Z (K, k)
    index  (m,)  the random effects asked for, as places of FitState.b;   starts  (terms,) where each term begins there
    new    the rows are of one new group, the same in all of them
    """

    rows: tuple[tuple[Ints, Floats], ...]
    index: Ints
    starts: Ints
    new: bool

    def __call__(self, problem: Problem, fit: FitState, replicates: Replicates, draws: Draws) -> Draws:
        """What `many.refit` is to find out of a block: the random effects of its refits."""
        from ..estimate.modes import with_effects  # brings the mixed-model kernels, which other bootstraps do not need

        return with_effects(problem, fit, replicates, draws, self.index)

    def part(self, b: Floats) -> Floats:
        """z b (B, K) of the known groups, b (B, m)."""
        out = np.zeros((len(b), len(self.rows[0][0])))
        for (codes, Z), start in zip(self.rows, self.starts):
            known = np.flatnonzero(codes >= 0)
            places = np.searchsorted(self.index, start + codes[known] * Z.shape[1])  # its columns stand side by side
            for a, z in enumerate(Z[known].T):
                out[:, known] += z * b[:, places + a]
        return out


def effects_of(problem: Problem, target: Target, scheme: str) -> Effects | None:
    """The random part of a target's rows, None where it has none; refused where its bootstrap would not know what was drawn."""
    new = target.details.get("new_group")
    rows = target.details.get("random") if new is None else [(np.full(len(Z), -1), Z) for Z in new]
    if rows is None:
        return None
    if scheme != "parametric":
        raise Refused(
            f"scheme={scheme!r} does not draw random effects that a prediction of them could be held against.",
            where=WHERE,
            do="Use scheme='parametric', or .predict(…, varying='exclude').",
        )
    if problem.design.freq is not None:
        raise NotYet(
            "the random effects of counted rows or groups are not built.", where=WHERE, do="Write the rows out, or use varying='exclude'."
        )
    if problem.family.free:
        raise NotYet(
            f"the random effects of replicates of family {problem.family.name!r} are not built.", where=WHERE, do="Use varying='exclude'."
        )
    sizes = [len(t.levels) * len(t.names) for t in problem.design.random.terms]  # type: ignore[union-attr]
    starts = np.cumsum([0, *sizes])[:-1]
    asked = [s + codes[codes >= 0, None] * Z.shape[1] + np.arange(Z.shape[1]) for s, (codes, Z) in zip(starts, rows)]
    index = np.unique(np.concatenate([a.ravel() for a in asked]))
    return Effects(tuple((np.asarray(codes), np.asarray(Z)) for codes, Z in rows), index, starts, new is not None)


def errors(problem: Problem, fit: FitState, plan: Plan, effects: Effects, draws: Draws) -> Floats:
    """z(b̂* − b*) of every row in every replicate (B, K); the plan is drawn once more for its b*."""
    assert draws.b is not None
    drawn = np.array([b for _, b in zip(draws.code, _drawn(plan, effects.index))])
    out = effects.part(draws.b - drawn)
    rng = stream(plan.seed, plan.blocks)  # after those of the blocks
    for (codes, Z), T in zip(effects.rows, term_factors(problem.design.random, fit.theta)):
        unknown = np.flatnonzero(codes < 0)
        for error in out if len(unknown) else ():
            b = fit.sigma * rng.standard_normal((1 if effects.new else len(unknown), T.shape[0])) @ T.T
            error[unknown] -= (Z[unknown] * b).sum(axis=1)
    return out


def _drawn(plan: Plan, index: Ints) -> Iterator[Floats]:
    """The random effects at `index` that replicate 0, 1, … of the plan drew."""
    draw: Any = plan.draw
    for i in range(plan.blocks):
        for _, drawn in draw.each(stream(plan.seed, i), min(plan.block_size, plan.n - i * plan.block_size)):
            yield np.concatenate([b.ravel() for b in drawn])[index]
