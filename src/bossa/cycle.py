"""From exact to fast, one gate at a time: an answer takes the place of the one before when every gate between them is open.

    exact = ….infer(how="posterior", adapter="samples").posterior
    mode = promote(….infer(how="posterior").posterior, exact).require()        samples → mode → sequential Laplace → anything amortized

The gates are those of `bossa.assimilate.gates`, or functions of one's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from .assimilate.gates import GateResult, posterior_agreement
from .errors import OptionError


@frozen(kw_only=True, eq=False)
class Promotion:
    """May the candidate take the oracle's place? results: of every gate, none left out."""

    candidate: Any
    results: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        return all(r.passed for r in self.results)

    def require(self) -> Any:
        """The candidate, if every gate is open."""
        for result in self.results:
            result.require()
        return self.candidate

    def __repr__(self) -> str:
        verdict = "promoted" if self.passed else "not promoted"
        return "\n".join(
            [f"Promotion: {verdict}, {sum(r.passed for r in self.results)} of {len(self.results)} gates passed"]
            + [f"  {r}" for r in self.results]
        )


def promote(candidate: Any, oracle: Any, gates: Sequence[Any] = (posterior_agreement,)) -> Promotion:
    """Judge a faster answer by the one it is to replace, at every gate; each step of a ladder is judged by the step before.

    candidate, oracle  what the gates compare: two posteriors, two models of the mean, two Jacobians …
    gates              functions (candidate, oracle) ↦ GateResult, or GateResults found already, of sbc() say

    >>> from bossa import load_dataset, model, normal
    >>> from bossa.cycle import promote
    >>> m = model("am ~ wt", load_dataset("mtcars"), family="binomial", prior=normal(0, 2)).fit()
    >>> exact = m.infer(how="posterior", adapter="samples", n_draws=4000, seed=1).posterior
    >>> mode = promote(m.infer(how="posterior", adapter="laplace").posterior, exact).require()
    >>> promote(m.infer(how="posterior", adapter="gauss_newton").posterior, mode).passed
    True
    """
    if not len(gates):
        raise OptionError("there are no gates.", where="promote()", do="Give at least one: gates=[posterior_agreement].")
    results = []
    for i, gate in enumerate(gates):
        found = gate if isinstance(gate, GateResult) else gate(candidate, oracle) if callable(gate) else None
        if not isinstance(found, GateResult):
            what = f"gate {i} is {type(gate).__name__}, or does not return a GateResult."
            raise OptionError(what, where="promote()", do="Give functions of (candidate, oracle), such as posterior_agreement.")
        results.append(found)
    return Promotion(candidate=candidate, results=tuple(results))
