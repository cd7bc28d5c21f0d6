"""On which scale is a question answered? Links as steps of a Target, and the links that a transformed response stands for.

A model of log(y) has means on the scale of y through exp, as a log link has; `response_link` says which transforms can be undone so.
`RATIO` and `LIFT` show differences of logs as what they are about.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from ..errors import Refused
from ..kernels.link import IDENTITY, LINKS, LOG, Link
from ..state.design import Problem
from ..state.spec import Call, Name
from ..state.target import Each
from ..types import Floats


@frozen
class LinkSlope:
    """dη/dμ of a link, as a function of μ."""

    link: Link

    def __call__(self, mu: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 / np.asarray(self.link.slope(self.link.link(mu)))


RATIO = Each(name="exp", function=np.exp, slope=np.exp, inverse=LOG.link)
LIFT = Each(name="exp − 1", function=np.expm1, slope=np.exp, inverse=np.log1p)
LOGS = {"log": 1.0, "log2": float(np.log(2.0)), "log10": float(np.log(10.0))}  # natural logs in one unit of the scale


def through(link: Link) -> Each | None:
    """The map from the linear predictor to the mean; None for the identity."""
    if link.name == "identity":
        return None
    return Each(name=f"the inverse {link.name}", function=link.inverse, slope=link.slope, inverse=link.link)


def _exp10(x: Floats) -> Floats:
    return np.power(10.0, x)


def _slope2(x: Floats) -> Floats:
    return np.log(2.0) * np.exp2(x)


def _curve2(x: Floats) -> Floats:
    return np.log(2.0) ** 2 * np.exp2(x)


def _slope10(x: Floats) -> Floats:
    return np.log(10.0) * _exp10(x)


def _curve10(x: Floats) -> Floats:
    return np.log(10.0) ** 2 * _exp10(x)


RESPONSES = {
    "log": LOG,
    "sqrt": LINKS["sqrt"],
    "log1p": Link(name="log1p", link=np.log1p, inverse=np.expm1, slope=np.exp, curve=np.exp),
    "log2": Link(name="log2", link=np.log2, inverse=np.exp2, slope=_slope2, curve=_curve2),
    "log10": Link(name="log10", link=np.log10, inverse=_exp10, slope=_slope10, curve=_curve10),
}


def response_link(problem: Problem) -> Link:
    """The transform of the response as a link, where the formula names one that can be undone; else the identity."""
    response = problem.spec.response
    if isinstance(response, Call) and response.function in RESPONSES and len(response.args) == 1 and not response.kwargs:
        return RESPONSES[response.function]
    return IDENTITY


def own_scale(problem: Problem) -> list[str]:
    """What a response other than a column is measured in, for a note; nothing where a link says it."""
    response = problem.spec.response
    plain = isinstance(response, Name) or (isinstance(response, Call) and response.function == "cbind")
    return [f"on the scale of {response}"] if not plain and problem.link.name == "identity" else []


def untold_transform(problem: Problem) -> None:
    """A response made by something that cannot be undone has no response scale but its own."""
    response = problem.spec.response
    if isinstance(response, Call) and response.function not in ("cbind", "I") and problem.link.name == "identity":
        raise Refused(f"{response} cannot be undone here.", where="explore(scale='response')", do="Use scale='link'.")
