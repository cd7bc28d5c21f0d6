"""The door of infer(): hows, options and their values, each mistake with the nearest right one."""

import re

import numpy as np
import pytest

from bossa import infer as package
from bossa import model
from bossa.errors import BossaError, NotYet, OptionError, UnknownColumn, UnknownOption


@pytest.fixture(scope="module")
def m():
    data = {"y": [1.0, 2, 4, 3, 6, 5], "x": [1.0, 2, 3, 4, 5, 6.5], "g": ["a", "b"] * 3, "h": ["u", None] * 3}
    return model("y ~ x", data).fit()


MISTAKES = {
    "how": (("asym", {}), UnknownOption, "Did you mean 'asymp'?"),
    "how is no name": ((3, {}), UnknownOption, "how 3 is not one of"),
    "option": (("asymp", {"eror": "HC3"}), UnknownOption, "Did you mean 'errors'?"),
    "option of another how": (("joint", {"conf_level": 0.9}), UnknownOption, "option 'conf_level' is not one of type"),
    "errors": (("asymp", {"errors": "HC5"}), UnknownOption, "Did you mean 'HC"),
    "errors is no name": (("asymp", {"errors": 3}), UnknownOption, "is not one of iid"),
    "df": (("asymp", {"df": "kenward"}), UnknownOption, "Did you mean 'kenward-roger'?"),
    "df of mixed models": (("asymp", {"df": "satterthwaite"}), BossaError, "Use df='auto', which is 'residual' here"),
    "alternative": (("asymp", {"alternative": "greatr"}), UnknownOption, "Did you mean 'greater'?"),
    "conf_level": (("asymp", {"conf_level": 100}), OptionError, "Use 0.95, 95 or '95%'"),
    "null": (("asymp", {"null": "zero"}), OptionError, "null='zero' is not a finite number"),
    "null is nan": (("asymp", {"null": float("nan")}), OptionError, "not a finite number"),
    "interval": (("asymp", {"interval": "predict"}), UnknownOption, "Did you mean 'prediction'?"),
    "prediction interval of parameters": (("asymp", {"interval": "prediction"}), BossaError, ".predict(new_rows)"),
    "cluster missing": (("asymp", {"errors": "CR2"}), OptionError, "Give cluster="),
    "cluster without cluster errors": (("asymp", {"cluster": "g"}), OptionError, "Use errors='cluster'"),
    "cluster unknown": (("asymp", {"errors": "cluster", "cluster": "G"}), UnknownColumn, "Did you mean 'g'?"),
    "cluster missing values": (("asymp", {"errors": "cluster", "cluster": "h"}), BossaError, "'h' is missing in row 1 and 2 more"),
    "two clusters": (("asymp", {"errors": "cluster", "cluster": ["g", "x"]}), NotYet, "Use the coarsest column"),
    "unequal_var of a slope": (("asymp", {"errors": "unequal_var"}), BossaError, "Use errors='HC3'"),
    "adjust": (("asymp", {"adjust": "tuckey"}), UnknownOption, "Did you mean 'tukey'?"),
    "type": (("joint", {"type": 4}), OptionError, "type=4 is not 1, 2 or 3"),
    "lr of a linear model": (("joint", {"test": "lr"}), BossaError, "Use test='wald'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named_with_what_to_do(m, case):
    (how, options), error, text = MISTAKES[case]
    with pytest.raises(error) as caught:
        m.infer(how, **options)
    assert text in str(caught.value)


def test_words_of_options_may_be_in_any_case(m):
    assert m.infer(errors="hc3").inference.options["errors"] == "HC3"


def test_confidence_levels_in_every_form(m):
    widths = [m.infer(conf_level=level).inference.interval for level in (0.9, 90, "90%", "0.9")]
    for other in widths[1:]:
        assert (other == widths[0]).all()


def test_a_planned_how_without_a_module_is_refused_by_name(m, monkeypatch):
    monkeypatch.setitem(package.MODULES, "later", "module_to_come")
    with pytest.raises(NotYet, match="how='later' is not built yet"):
        m.infer("later")


@pytest.mark.parametrize("how_and_option", [("perm", "n_perm", "all"), ("cv", "k", "loo")], ids=lambda x: x[1])
@pytest.mark.parametrize("wrong", ["al", "", True, 2.0, 0, -1, None])
def test_an_option_that_is_a_number_or_a_word_takes_nothing_else(how_and_option, wrong):
    how, option, word = how_and_option
    with pytest.raises(OptionError, match=rf"{option}={re.escape(repr(wrong))} is neither a whole number of at least \d nor '{word}'"):
        package.read_options(how, {option: wrong})
    assert getattr(package.read_options(how, {option: word}), option) == word
    assert getattr(package.read_options(how, {option: np.int64(5)}), option) == 5
