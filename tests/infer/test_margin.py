"""Equivalence, non-inferiority and non-superiority, against emmeans 1.8.4.1 `test(contrast(…), delta = 8, side = …, adjust = "none")`."""

from __future__ import annotations

import numpy as np
import pytest

from bossa import load_dataset, model
from bossa.errors import NotYet, OptionError

# R 4.2.2: lm(breaks ~ wool + tension, warpbreaks), pairwise(tension)
R = {
    "two-sided": ([0.516478552003678, 1.735941799790144, -0.846450960228252], [0.696101449325490, 0.955633289718350, 0.200667162945347]),
    "greater": ([4.64830696803311, 5.86777021581958, 3.28537745580118], [1.23661947192626e-05, 1.75533816093410e-07, 9.32683893549377e-04]),
    "less": ([0.516478552003678, 1.735941799790144, -0.846450960228252], [0.696101449325490, 0.955633289718350, 0.200667162945347]),
}


@pytest.fixture(scope="module")
def tension():
    return model("breaks ~ wool + tension", load_dataset("warpbreaks")).fit().explore("pairwise(tension)")


@pytest.mark.parametrize("side", R)
def test_tests_against_a_margin_are_emmeans(tension, side):
    found = tension.infer(delta=8, alternative=side).effects
    np.testing.assert_allclose(found["statistic"].to_numpy(), R[side][0], rtol=1e-12)
    np.testing.assert_allclose(found["p_value"].to_numpy(), R[side][1], rtol=1e-9)
    assert "margin 8" in repr(tension.infer(delta=8, alternative=side))


def test_equivalence_is_two_one_sided_tests(tension):
    """The larger p of the tests that the difference is above −δ and below δ (Schuirmann 1987)."""
    lower = tension.infer(null=-8, alternative="greater", adjust="none").effects["p_value"].to_numpy()
    upper = tension.infer(null=8, alternative="less", adjust="none").effects["p_value"].to_numpy()
    np.testing.assert_allclose(tension.infer(delta=8).effects["p_value"].to_numpy(), np.maximum(lower, upper), rtol=1e-12)


def test_bad_margins(tension):
    with pytest.raises(OptionError, match=r"delta=-1 is not a positive number"):
        tension.infer(delta=-1)
    with pytest.raises(NotYet, match="not adjusted for their number"):
        tension.infer(delta=1, adjust="tukey")
