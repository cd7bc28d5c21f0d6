"""Equations: LaTeX that balances whatever the names, with the link written out."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossa import load_dataset, model
from bossa.errors import NotFitted, Refused, UnknownOption
from bossa.kernels.family import FAMILIES
from bossa.kernels.link import LINKS
from bossa.report import equation


def balanced(latex: str) -> bool:
    """Braces that open and close, escaped ones aside; left and right delimiters and environments in pairs."""
    depth = 0
    for token in re.findall(r"\\.|[{}]", latex, flags=re.DOTALL):
        depth += {"{": 1, "}": -1}.get(token, 0)
        if depth < 0:
            return False
    pairs = len(re.findall(r"\\left\b", latex)) == len(re.findall(r"\\right\b", latex))
    return depth == 0 and pairs and latex.count(r"\begin{") == latex.count(r"\end{")


@given(st.text(min_size=1, max_size=12))
def test_escaped_names_balance(name):
    assert balanced(equation.escape(name))


@pytest.mark.parametrize("name", ["a_b", "100% {x}", "x^2", "a\\b", "~<$>|", "g[b]:x", "größe", "#&"])
@pytest.mark.parametrize("numbers", [False, True])
def test_odd_names_in_an_equation(stub, name, numbers):
    e = equation.equation(stub(x=name), numbers=numbers)
    assert balanced(e.latex)
    bare = re.sub(r"\\.", "", e.latex)
    assert not set("$#%") & set(bare)
    assert e._repr_latex_() == f"$$\n{e.latex}\n$$"


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_has_an_equation(stub, family):
    latex = equation.equation(stub(family)).latex
    assert balanced(latex)
    assert (r"\varepsilon_i" in latex) == (family == "gaussian")


def test_every_link_is_written_out():
    assert set(equation.LINKS) == set(LINKS)


def test_numbers_are_those_of_the_fit(states):
    latex = equation.equation(states["inferred"], numbers=True).latex
    assert r"\widehat{\text{y}_i} &= 1.000 + 1.000\,\text{x}_i" in latex


def test_scientific_numbers_become_powers_of_ten():
    assert equation.number(-1.5e-12) == r"-1.5000 \times 10^{-12}"


def test_random_effects_stand_with_their_distribution(states):
    latex = equation.equation(states["mixed"]).latex
    assert balanced(latex)
    for part in (r"u_{0,\text{g}[i]}", r"u_{1,\text{g}[i]}\,\text{x}_i", r"\Sigma_{u}", r"\operatorname{diag}", r"\sigma_{w}^2"):
        assert part in latex


def test_unfitted_models_say_what_to_do(states):
    with pytest.raises(NotFitted, match=r"m\.fit\(\)"):
        equation.equation(states["unfitted"])


def test_a_mixed_model_level_by_level():
    sleep = load_dataset("sleepstudy")
    m = model("Reaction ~ Days + (Days | Subject)", sleep).fit()
    assert m.equation(form="levels").latex.split(" \\\\\n") == [
        r"\begin{aligned}" + "\n"
        r"\text{Reaction}_i &= \beta_{0,\text{Subject}[i]} + \beta_{1,\text{Subject}[i]}\,\text{Days}_i + \varepsilon_i",
        r"\varepsilon_i &\sim \mathcal{N}(0, \sigma^2)",
        r"\beta_{0,\text{Subject}[i]} &= \beta_{0} + u_{0,\text{Subject}[i]}",
        r"\beta_{1,\text{Subject}[i]} &= \beta_{1} + u_{1,\text{Subject}[i]}",
        r"\mathbf{u}_{\text{Subject}} &\sim \mathcal{N}(\mathbf{0}, \Sigma_{u})" + "\n" + r"\end{aligned}",
    ]
    numbers = m.infer().equation(numbers=True, form="levels").latex
    assert r"\beta_{1,\text{Subject}[i]} &= 10.47 + u_{1,\text{Subject}[i]}" in numbers
    slope_only = model("Reaction ~ 1 + (0 + Days | Subject)", sleep).fit().equation(form="levels").latex
    assert r"\beta_{\text{Days},\text{Subject}[i]} &= 0 + u_{0,\text{Subject}[i]}" in slope_only
    with pytest.raises(Refused, match="one level"):
        model("Reaction ~ Days", sleep).fit().equation(form="levels")
    with pytest.raises(UnknownOption, match="Did you mean 'levels'"):
        m.equation(form="level")
