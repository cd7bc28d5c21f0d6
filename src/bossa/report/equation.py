"""A model as LaTeX: the formula a statistician would write for it, in symbols or with the estimates.

    equation(m).latex      one `aligned` environment; a notebook shows it set (`_repr_latex_`)

Gaussian models with the identity link are written y = Xβ + ε; all others as a distribution of the response and the link of its mean.
Random effects stand after the fixed part, one letter per grouping term, each with its distribution.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from math import isfinite
from typing import Any

from attrs import frozen

from ..errors import NotFitted, Refused, UnknownOption
from ..state.design import RETerm
from ..state.spec import Call, Operation
from .display import cell, row_decimals
from .table import Readable

SPECIAL = {
    "_": r"\_",
    "$": r"\$",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "{": r"\{",
    "}": r"\}",
    "^": r"{}^{\wedge}",
    "~": r"{\sim}",
    "\\": r"\backslash ",
    "<": "{<}",
    ">": "{>}",
    "|": r"{\vert}",
    ":": r"{:}",
}
LINKS = {
    "identity": r"\mu_i",
    "log": r"\log(\mu_i)",
    "logit": r"\log\left(\frac{\mu_i}{1-\mu_i}\right)",
    "probit": r"\Phi^{-1}(\mu_i)",
    "cloglog": r"\log(-\log(1-\mu_i))",
    "cauchit": r"\tan\left(\pi\left(\mu_i-\tfrac{1}{2}\right)\right)",
    "inverse": r"\frac{1}{\mu_i}",
    "inverse_squared": r"\frac{1}{\mu_i^2}",
    "sqrt": r"\sqrt{\mu_i}",
}
FAMILIES = {
    "gaussian": r"\mathcal{N}(\mu_i, \sigma^2)",
    "poisson": r"\operatorname{Poisson}(\mu_i)",
    "gamma": r"\operatorname{Gamma}(\text{mean } \mu_i,\ \text{variance } \phi\,\mu_i^2)",
    "inverse_gaussian": r"\operatorname{InverseGaussian}(\text{mean } \mu_i,\ \text{variance } \phi\,\mu_i^3)",
    "negbinomial": r"\operatorname{NegBinomial}(\text{mean } \mu_i,\ \text{variance } \mu_i+\mu_i^2/\theta)",
    "t": r"t_{\nu}(\mu_i, \sigma)",
    "quasibinomial": r"\left(\text{mean } \mu_i,\ \text{variance } \phi\,\mu_i(1-\mu_i)\right)",
    "quasipoisson": r"\left(\text{mean } \mu_i,\ \text{variance } \phi\,\mu_i\right)",
}
FORMS = ("bars", "levels")
LETTERS = "uvwabcdefgh"
LINE = 70  # characters of a line, about


@frozen(repr=False)
class Equation:
    """LaTeX source; a notebook sets it."""

    latex: str

    def __str__(self) -> str:
        return self.latex

    __repr__ = __str__

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex}\n$$"


def escape(name: str) -> str:
    """A name as LaTeX for math mode: runs of ordinary characters in \\text{}, special ones as symbols (also right in MathJax)."""
    out, run = [], ""
    for character in name:
        if character not in SPECIAL:
            run += character
            continue
        out += [rf"\text{{{run}}}" if run else "", SPECIAL[character]]
        run = ""
    out += [rf"\text{{{run}}}" if run else ""]
    return out[0] if len(out) == 1 else f"{{{''.join(out)}}}"


def equation(m: Readable, *, numbers: bool = False, form: str = "bars") -> Equation:
    """The fitted model in symbols, or with its estimates in their place (`numbers=True`).

    form  "bars": random effects stand after the fixed part;  "levels": the first line has each group's own coefficients, and a line for
          each of them says what it is made of (mixed models)
    """
    if form not in FORMS:
        raise UnknownOption(form, FORMS, where="equation()", kind="form")
    if m.fit_state is None:
        raise NotFitted("the equation needs the columns of a fitted model.", where="equation()", do="Write m = m.fit() and ask that.")
    gaussian = m.spec.family.name == "gaussian" and m.spec.link.name == "identity"
    if form == "levels" and not _random(m):
        raise Refused("a model without random effects has one level.", where="equation(form='levels')", do="Leave form= out.")
    lines = _gaussian(m, numbers, form) if gaussian else _generalized(m, numbers, form)
    lines += _second_level(m, numbers) if form == "levels" else []
    lines += [line for j, term in enumerate(_random(m)) for line in _distribution(LETTERS[j % len(LETTERS)], term)]
    body = " \\\\\n".join(lines)
    return Equation(f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}")


def _gaussian(m: Readable, numbers: bool, form: str) -> list[str]:
    y = f"{escape(str(m.spec.response))}_i"
    variance = r"\sigma^2" if m.problem.design.weights is None else r"\sigma^2/w_i"
    if numbers:
        return [rf"\widehat{{{y}}} &= {_sum(m, numbers, form)}", rf"\widehat{{\sigma}} &= {number(m.fit_state.sigma)}"]
    return [rf"{y} &= {_sum(m, numbers, form)} + \varepsilon_i", rf"\varepsilon_i &\sim \mathcal{{N}}(0, {variance})"]


def _generalized(m: Readable, numbers: bool, form: str) -> list[str]:
    family, link = m.spec.family.name, m.spec.link.name
    y, trials = _response(m)
    law = FAMILIES.get(family, rf"\operatorname{{{family}}}(\mu_i)")
    if family == "binomial":
        law = r"\operatorname{Bernoulli}(\mu_i)" if trials is None else rf"\operatorname{{Binomial}}({trials}, \mu_i)"
    left = LINKS.get(link, rf"{escape(link)}(\mu_i)")
    if numbers:
        left = left.replace(r"\mu_i", r"\widehat{\mu}_i")
    return [rf"{y} &\sim {law}", rf"{left} &= {_sum(m, numbers, form)}"]


def _response(m: Readable) -> tuple[str, str | None]:
    """The response, and the number of trials of a binomial count (None: one each)."""
    response = m.spec.response
    if isinstance(response, Call) and response.function == "cbind" and len(response.args) == 2:
        success, failure = response.args
        y = f"{escape(str(success))}_i"
        if isinstance(failure, Operation) and failure.op == "-" and failure.args[1:] == (success,):  # cbind(k, n - k): n trials
            return y, f"{escape(str(failure.args[0]))}_i"
        return y, f"{y} + {escape(str(failure))}_i"
    y = f"{escape(str(response))}_i"
    if m.spec.family.name == "binomial" and m.spec.weights:
        n = f"{escape(m.spec.weights)}_i"
        return f"{n}\\,{y}", n
    return y, None


def _sum(m: Readable, numbers: bool, form: str) -> str:
    """β₀ + β₁ x₁ + … broken into lines."""
    if form == "levels":
        return _lines([*_first_level(m, numbers), *_offsets(m)])
    parts = [*_fixed(m, numbers), *_offsets(m)]
    parts += [p for j, term in enumerate(_random(m)) for p in _effects(LETTERS[j % len(LETTERS)], term)]
    return _lines(parts)


def _lines(parts: list[str]) -> str:
    """The parts as a sum, broken where a line is full."""
    out, width = "", 0
    for i, part in enumerate(parts):
        sign, size = ("-", part[1:]) if part.startswith("-") else ("+", part)
        own = len(re.sub(r"\\[a-z]+|[{}\\]", "", part)) + 3
        width += own
        if i and width > LINE:
            out, width = out + " \\\\\n&\\quad", own
        out += (f" {sign} " if i else sign.replace("+", "")) + size
    return out or "0"


def _fixed(m: Readable, numbers: bool) -> Iterator[str]:
    for column, symbol in zip(_columns(m), _symbols(m, numbers)):
        yield rf"{symbol}\,{column}" if column else symbol


def _symbols(m: Readable, numbers: bool) -> list[str]:
    """β₀, β₁ … or the estimates, of the columns kept."""
    design, fit = m.problem.design, m.fit_state
    first = 0 if design.names[:1] == ("Intercept",) else 1
    errors = [None] * len(design.names) if m.inference is None or m.inference.se is None else m.inference.se
    return [number(coef, se) if numbers else rf"\beta_{{{j + first}}}" for j, (coef, se) in enumerate(zip(fit.coef, errors))]


def _columns(m: Readable) -> list[str]:
    """The columns kept: "" for the intercept, products of their pieces' columns for the others."""
    encoder, kept = m.problem.encoder, m.problem.design.kept
    if encoder is None:
        return ["" if name == "Intercept" else f"{escape(name)}_i" for name in m.problem.design.names]
    out = []
    for pieces in encoder.pieces:
        for choice in product(*(p.names for p in pieces[::-1])):
            out.append(r" \times ".join(f"{escape(name)}_i" for name in choice[::-1]))
    return [column for column, k in zip(out, kept) if k]


def _offsets(m: Readable) -> Iterator[str]:
    names = [str(e) for e in m.spec.offsets] + ([m.spec.offset] if m.spec.offset else [])
    return (f"{escape(name)}_i" for name in names)


def number(x: float, se: Any = None) -> str:
    """A number in LaTeX, to the precision of its standard error where that is known."""
    text = cell(float(x), "estimate", row_decimals(se))
    if not isfinite(x):
        return rf"\text{{{text}}}"
    mantissa, _, exponent = text.partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if exponent else mantissa


# ------------------------------------------------------------------ random effects
def _random(m: Readable) -> tuple[RETerm, ...]:
    random = m.problem.design.random
    return () if random is None else random.terms


def _effects(letter: str, term: RETerm) -> Iterator[str]:
    """u_{0,g[i]} + u_{1,g[i]} x_i"""
    group = f"{escape(term.factor)}[i]"
    for k, name in enumerate(term.names):
        effect = f"{letter}_{{{k},{group}}}"
        yield effect if name == "Intercept" else rf"{effect}\,{escape(name)}_i"


def _varying(m: Readable) -> dict[str, list[tuple[str, str]]]:
    """Name of a column → its random effects, as (group index, effect)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for j, term in enumerate(_random(m)):
        group = f"{escape(term.factor)}[i]"
        for k, name in enumerate(term.names):
            found.setdefault(name, []).append((group, f"{LETTERS[j % len(LETTERS)]}_{{{k},{group}}}"))
    return found


def _own(m: Readable, name: str, groups: str) -> str:
    """The coefficient of one column in the groups of a row: β_{1,g[i]}; a column without a fixed part is named."""
    names = m.problem.design.names
    first = 0 if names[:1] == ("Intercept",) else 1
    return rf"\beta_{{{names.index(name) + first if name in names else escape(name)},{groups}}}"


def _first_level(m: Readable, numbers: bool) -> Iterator[str]:
    """The sum with each group's own coefficients."""
    varying, names = _varying(m), m.problem.design.names
    for name, column, symbol in zip(names, _columns(m), _symbols(m, numbers)):
        own = _own(m, name, ",".join(g for g, _ in varying[name])) if name in varying else symbol
        yield rf"{own}\,{column}" if column else own
    for name in varying:
        if name not in names:
            own = _own(m, name, ",".join(g for g, _ in varying[name]))
            yield own if name == "Intercept" else rf"{own}\,{escape(name)}_i"


def _second_level(m: Readable, numbers: bool) -> list[str]:
    """β_{1,g[i]} = β₁ + u_{1,g[i]} for every coefficient that varies."""
    fixed = dict(zip(m.problem.design.names, _symbols(m, numbers)))
    return [
        rf"{_own(m, name, ','.join(g for g, _ in effects))} &= {' + '.join([fixed.get(name, '0'), *(e for _, e in effects)])}"
        for name, effects in _varying(m).items()
    ]


def _distribution(letter: str, term: RETerm) -> Iterator[str]:
    """The law of one group's effects: diagonal where the term is uncorrelated."""
    group = escape(term.factor)
    if len(term.names) == 1:
        yield rf"{letter}_{{0,{group}}} &\sim \mathcal{{N}}(0, \sigma_{{{letter}}}^2)"
        return
    free = term.mask.sum() > len(term.names)
    cov = (
        rf"\Sigma_{{{letter}}}"
        if free
        else rf"\operatorname{{diag}}(\sigma_{{{letter}0}}^2, \ldots, \sigma_{{{letter}{len(term.names) - 1}}}^2)"
    )
    yield rf"\mathbf{{{letter}}}_{{{group}}} &\sim \mathcal{{N}}(\mathbf{{0}}, {cov})"
