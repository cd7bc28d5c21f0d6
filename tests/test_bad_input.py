"""Bad input: what is wrong with which value, where it came from, what to do. One row per mistake, each with its message."""

from __future__ import annotations

import re
import warnings

import numpy as np
import polars as pl
import pytest

from bossa import errors, load_dataset, model, negbinomial, t


def frame():
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "y": rng.normal(size=20),
            "x": rng.normal(size=20),
            "g": ["a", "b", "c", "d"] * 5,
            "k": [0, 1] * 10,
            "n": [5] * 20,
            "c": [1.0] * 20,
            "one": ["u"] * 20,
            "neg": [-1.0] + [1.0] * 19,
            "zero": [0.0] * 20,
            "inf": [np.inf] + [1.0] * 19,
            "gone": pl.Series([None] * 20, dtype=pl.Float64),
            "pair": [[1, 2]] * 20,
            "text": [str(i) for i in range(20)],
            "half": [0.5] * 20,
            "day": pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 1, 20), eager=True),
        }
    )


D = frame()


def fit(formula, **options):
    return model(formula, D, **options).fit()


def fitted():
    return fit("y ~ x + g")


# id: (what is done, class of the error, what its message must hold)
CASES = {
    # columns and formulas
    "column": (lambda: model("y ~ xx + g", D), "UnknownColumn", r"formula 'y ~ xx \+ g': 'xx' is not a column.*Did you mean 'x'\?"),
    "column far off": (lambda: model("y ~ flipper", D), "UnknownColumn", r"'flipper' is not a column of the data\. The data has: y, x, g"),
    "no response": (lambda: fit("~ x"), "FormulaError", r"'~ x': it has no response to fit\. Write 'y ~ x'"),
    "response": (lambda: model("yy ~ x", D), "UnknownColumn", r"'yy' is not a column.*Did you mean 'y'\?"),
    "operator": (lambda: model("y ~ x +* g", D), "FormulaError", r"'\*' cannot stand here.*\n  y ~ x \+\* g\n         \^"),
    "parenthesis": (lambda: model("y ~ (x + g", D), "FormulaError", r"never closed.*\n  y ~ \(x \+ g\n      \^"),
    "two tildes": (lambda: model("y ~ x ~ g", D), "FormulaError", r"more than one '~'"),
    "no tilde": (lambda: model("y", D), "FormulaError", r"it has no '~'\. Write 'response ~ terms'"),
    "empty formula": (lambda: model("", D), "FormulaError", r"ends where a term should follow"),
    "no right side": (lambda: model("y ~ ", D), "FormulaError", r"ends where a term should follow"),
    "formula not text": (lambda: model(3, D), "OptionError", r"formula=3 is not a string\. Write it as text"),
    "data first": (lambda: model(D, "y ~ x"), "OptionError", r"formula=a (dict|DataFrame) is not a string\. .* before the data: model\('y ~ x', data\)"),
    "response on the right": (lambda: fit("y ~ y + x"), "FormulaError", r"y is the response and a term\. Take it out"),
    "function": (lambda: model("y ~ lgo(x)", D), "FormulaError", r"'lgo' is not a function of formulas.*Did you mean 'log'\?.*env="),
    "function far off": (lambda: model("y ~ foo(x)", D), "FormulaError", r"'foo' is not a function.*Known: log, "),
    "import": (lambda: model("y ~ __import__('os')", D), "FormulaError", r"'__import__' is not a function of formulas"),
    "attribute": (lambda: model("y ~ x.__class__", D), "UnknownColumn", r"'x\.__class__' is not a column"),
    "lambda": (lambda: model("y ~ (lambda: 1)(x)", D), "FormulaError", r"formula: "),
    "reserved": (lambda: model("y ~ x + ar1(x|g)", D), "NotYet", r"ar1\(\) is reserved.*Use \(x \| g\)"),
    "sum of a factor": (lambda: fit("y ~ I(g + 1)"), "DataError", r"g is a factor, not a number.*unclass\(\)"),
    "poly": (lambda: fit("y ~ poly(x, 25)"), "DataError", r"degree=25 needs more than 25 different values; there are 20\. Use degree=19"),
    "update": (lambda: fitted().update(". ~ . + q"), "UnknownColumn", r"'q' is not a column"),
    "update syntax": (lambda: fitted().update("~ . - x +"), "FormulaError", r"ends where a term should follow"),
    "env of no function": (lambda: fit("y ~ f(x)", env={"f": 3}), "FormulaError", r"'f' is not a function of formulas"),
    "env of wrong length": (lambda: fit("y ~ f(x)", env={"f": lambda v: v[:3]}), "DataError", r"f\(x\): it gave 3 values for 20 rows"),
    # data
    "no table": (lambda: model("y ~ x", 5), "DataError", r"data: an int is not a table\. Give a polars"),
    "no data": (lambda: model("y ~ x").fit(), "DataError", r"no data to fit to\. Give model\(formula, data\)"),
    "no rows": (lambda: model("y ~ x", D.head(0)).fit(), "DataError", r"the data have no rows"),
    "nothing complete": (lambda: fit("y ~ gone"), "DataError", r"no row is complete: a value is missing in 20 of 20 rows \(gone 20\)"),
    "missing refused": (lambda: model("y ~ x", D.with_columns(x=pl.lit(None)), missing="error").fit(), "DataError", r"missing"),
    "ragged": (lambda: model("y ~ x", {"y": [1, 2], "x": [1]}), "DataError", r"different lengths: y 2, x 1"),
    "text response": (lambda: fit("text ~ x"), "DataError", r"the response text: is text, and family 'gaussian' needs numbers"),
    "date": (lambda: fit("y ~ day"), "DataError", r"column 'day' has type Date.*Turn it into a number"),
    "nested": (lambda: fit("y ~ pair"), "DataError", r"column 'pair' has type List.*Use a column of numbers"),
    "infinite predictor": (lambda: fit("y ~ inf"), "DataError", r"inf is infinite in 1 row\. Leave"),
    "infinite response": (lambda: fit("inf ~ x"), "DataError", r"the response is infinite in 1 row"),
    "huge": (lambda: model("y ~ x", D.with_columns(x=pl.col("x") * 1e300)).fit(), "DataError", r"x has values as large as .*Measure it in other units"),
    "huge response": (lambda: model("y ~ x", D.with_columns(y=pl.col("y") * 1e200)).fit(), "DataError", r"the response has values as large as"),
    "one level": (lambda: fit("y ~ one"), "DataError", r"the factor one has only the level 'u'.*two levels"),
    "one group": (lambda: fit("y ~ x + (1 | one)"), "DataError", r"only the level 'u'"),
    "unknown group": (lambda: fit("y ~ x + (1 | gg)"), "UnknownColumn", r"'gg' is not a column.*Did you mean 'g'\?"),
    "a group per row": (lambda: fit("y ~ x + (1 | text)"), "DataError", r"text"),
    "the same bar twice": (lambda: fit("y ~ x + (1 | g) + (1 | g)"), "FormulaError", r"g"),
    # family, link, method
    "family": (lambda: model("y ~ x", D, family="gausian"), "UnknownOption", r"family 'gausian' is not one of.*Did you mean 'gaussian'\?"),
    "family of no kind": (lambda: model("y ~ x", D, family=3), "OptionError", r"family=3 is neither a name nor a Family"),
    "link": (lambda: model("k ~ x", D, family="binomial", link="logitt"), "UnknownOption", r"link 'logitt'.*Did you mean 'logit'\?"),
    "link of another family": (
        lambda: fit("k ~ x", family="binomial", link="inverse_squared"),
        "OptionError",
        r"does not go with family 'binomial'\. Use one of logit",
    ),
    "method": (lambda: model("y ~ x", D, method="remll"), "UnknownOption", r"method 'remll' is not one of ols"),
    "binomial range": (lambda: fit("n ~ x", family="binomial"), "DataError", r"n is 5\.0 in row 0.*needs 0 or 1.*cbind\(success, failure\)"),
    "binomial levels": (lambda: fit("g ~ x", family="binomial"), "DataError", r"has 4 levels \(a, b, c, d\); a binomial response has two"),
    "proportion without trials": (lambda: fit("half ~ x", family="binomial"), "DataError", r"half is 0\.5 in row 0.*trials"),
    "counts below 0": (lambda: fit("neg ~ x", family="poisson"), "DataError", r"neg is -1\.0 in row 0.*counts 0, 1, 2"),
    "counts of halves": (lambda: fit("half ~ x", family="poisson"), "DataError", r"half is 0\.5.*offset\(log\(exposure\)\)"),
    "gamma at 0": (lambda: fit("zero ~ x", family="gamma"), "DataError", r"zero is 0\.0.*values > 0"),
    "inverse gaussian below 0": (lambda: fit("neg ~ x", family="inverse_gaussian"), "DataError", r"values > 0"),
    "negative trials": (lambda: fit("cbind(k, k - 3) ~ x", family="binomial"), "DataError", r"counts are negative"),
    "cbind of gaussian": (lambda: fit("cbind(k, n) ~ x"), "DataError", r"cbind\(\) counts successes and failures.*family='binomial'"),
    "df of t": (lambda: t(df=-1), "OptionError", r"df=-1 is not a positive number\. Use t\(df=4\)"),
    "theta": (lambda: negbinomial(-1), "OptionError", r"theta=-1 is not a positive number"),
    # weights, offset, coding, levels
    "negative weights": (lambda: fit("y ~ x", weights="neg"), "DataError", r"weights='neg': 1 weights are negative"),
    "weights of 0": (lambda: fit("y ~ x", weights="zero"), "DataError", r"every weight is 0"),
    "weights column": (lambda: fit("y ~ x", weights="nn"), "UnknownColumn", r"weights='nn': 'nn' is not a column"),
    "weights as an array": (lambda: fit("y ~ x", weights=np.ones(20)), "OptionError", r"takes the name of a column.*Put the values into the data"),
    "weights of text": (lambda: fit("y ~ x", weights="g"), "DataError", r"column 'g' is not numeric"),
    "counts of fractions": (lambda: fit("y ~ x", freq_weights="half"), "DataError", r"counts are whole numbers.*weights="),
    "offset": (lambda: fit("y ~ x", offset="oo"), "UnknownColumn", r"offset='oo'"),
    "missing=": (lambda: model("y ~ x", D, missing="dropp"), "UnknownOption", r"'dropp' is not one of drop, error\. Did you mean 'drop'\?"),
    "coding": (lambda: fit("y ~ g", contrasts={"g": "summ"}), "UnknownOption", r"coding 'summ' is not one of.*Did you mean 'sum'\?"),
    "coding of what": (lambda: fit("y ~ g", contrasts={"gg": "sum"}), "UnknownOption", r"factor 'gg' is not one of g"),
    "coding of a number": (lambda: fit("y ~ x", contrasts={"x": "sum"}), "OptionError", r"'x' is numeric in this formula.*factor\(x\)"),
    "coding array": (lambda: fit("y ~ g", contrasts={"g": np.eye(3)}), "OptionError", r"the array is 3 × 3, and g has 4 levels"),
    "levels short": (lambda: fit("y ~ g", levels={"g": ["a", "b"]}), "DataError", r"the levels of 'g' leave out 'c', 'd'\. .* first: a, b, c, d\."),
    "levels twice": (lambda: fit("y ~ g", levels={"g": [*"abcdd"]}), "OptionError", r"levels of 'g' name one twice"),
    "levels of what": (lambda: fit("y ~ g", levels={"h": ["a"]}), "UnknownColumn", r"levels=: 'h' is not a column"),
    # fit()
    "tol of a closed form": (lambda: model("y ~ x", D).fit(tol=1e-3), "OptionError", r"tol= has no use for a linear model"),
    "nagq of no random effects": (lambda: model("k ~ x", D, family="binomial").fit(nagq=3), "OptionError", r"nagq= has no use"),
    "max_iter": (lambda: model("k ~ x", D, family="binomial").fit(max_iter=0), "OptionError", r"max_iter=0 is not a whole number of at least 1"),
    "start": (lambda: model("k ~ x", D, family="binomial").fit(start=[1, 2, 3]), "OptionError", r"is not 2 finite numbers"),
    # asking
    "unfitted": (lambda: model("y ~ x", D).params, "NotFitted", r"not fitted yet.*m = m\.fit\(\)"),
    "no effects": (lambda: fitted().effects, "NotFitted", r"no effects yet\. Write m = m\.explore"),
    "no predictions": (lambda: fitted().predictions, "NotFitted", r"no predictions yet\. Write m = m\.predict\(\)"),
    "no resamples": (lambda: fitted().infer().resamples, "NotFitted", r"no resamples yet.*how=\"boot\""),
    "how": (lambda: fitted().infer("bot"), "UnknownOption", r"how 'bot' is not one of asymp, boot.*Did you mean 'boot'\?"),
    "option": (lambda: fitted().infer(conf_lvl=0.9), "UnknownOption", r"option 'conf_lvl' is not one of conf_level.*Did you mean 'conf_level'\?"),
    "conf_level": (lambda: fitted().infer(conf_level=1.5), "OptionError", r"conf_level=1\.5 is not a confidence level\. Use 0\.95, 95 or '95%'"),
    "errors": (lambda: fitted().infer(errors="HC9"), "UnknownOption", r"value 'HC9' is not one of iid, HC0.*Did you mean 'HC"),
    "cluster without a column": (lambda: fitted().infer(errors="cluster"), "OptionError", r"needs the column of the clusters"),
    "cluster": (lambda: fitted().infer(errors="cluster", cluster="gg"), "UnknownColumn", r"'gg' is not a column.*Did you mean 'g'\?"),
    "cluster without use": (lambda: fitted().infer(errors="HC3", cluster="g"), "OptionError", r"cluster='g' has no use here"),
    "df without use": (lambda: fitted().infer(df="satterthwaite"), "Refused", r"df='satterthwaite'.*Use df='auto'"),
    "alternative": (lambda: fitted().infer(alternative="more"), "UnknownOption", r"'more' is not one of two-sided, less, greater"),
    "null": (lambda: fitted().infer(null="zero"), "OptionError", r"null='zero' is not a finite number"),
    "interval": (lambda: fitted().infer(interval="prediction"), "Refused", r"it is for predictions\. Use \.predict"),
    "type": (lambda: fitted().infer(how="joint", type=4), "OptionError", r"type=4 is not 1, 2 or 3"),
    "new rows lack a column": (lambda: fitted().predict({"x": [1.0]}), "UnknownColumn", r"new rows: 'g' is not a column"),
    "new level": (lambda: fitted().predict({"x": [1.0], "g": ["q"]}), "UnknownLevel", r"new rows: 'g' has no level 'q'\. Its levels are: a, b"),
    "text for a number": (lambda: fitted().predict({"x": ["a"], "g": ["a"]}), "DataError", r"column 'x' is text here and was a number"),
    "type of prediction": (lambda: fitted().predict(type="resp"), "UnknownOption", r"type 'resp' is not one of response, link"),
    "hypothesis": (lambda: fitted().test("x = = 1"), "FormulaError", r"should stand here.*\n  x = = 1\n      \^"),
    "hypothesis of what": (lambda: fitted().test("xx = 1"), "FormulaError", r"'xx' is not a coefficient.*Did you mean 'x'\?"),
    "no hypothesis": (lambda: fitted().test(), "OptionError", r"no hypothesis is given"),
    "no simulations": (lambda: fitted().simulate(0), "OptionError", r"0 is not a whole number of at least 1"),
    "seed": (lambda: fitted().simulate(1, seed=-3), "OptionError", r"seed=-3 cannot seed a generator"),
    "data set": (lambda: load_dataset("penguin"), "UnknownOption", r"data set 'penguin'.*Did you mean 'penguins'\?"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_gets_its_message(case):
    mistake, kind, says = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(errors.BossaError, match=rf"(?s){says}") as caught:
            mistake()
    assert type(caught.value).__name__ == kind
    assert caught.value.what


def test_a_mistake_leaves_the_data_and_the_model_as_they_were():
    data = frame()
    m = model("y ~ x + g", data).fit().infer()
    before = repr(m)
    for bad in (lambda: m.infer(errors="HC9"), lambda: m.predict({"x": [1.0]}), lambda: m.update(". ~ . + q")):
        with pytest.raises(errors.BossaError):
            bad()
    assert repr(m) == before
    assert data.equals(frame())


# unusual, and fitted all the same: what is said instead
SAID = {
    "constant response": (lambda: fit("c ~ x"), "constant"),
    "as many coefficients as rows": (lambda: fit("y ~ poly(x, 19)"), "as many coefficients as observations"),
    "more columns than rows": (lambda: fit("y ~ poly(x, 19) + g"), "not estimable"),
    "the same column twice": (lambda: fit("y ~ x + I(x * 2)"), "not estimable, being combinations of earlier columns"),
    "not a number by the formula": (lambda: fit("y ~ log(neg)"), r"log\(neg\) not a number 1"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_is_unusual_is_said(case):
    make, says = SAID[case]
    m = make()
    page = repr(m)
    assert re.search(says, page + m.convergence.message), page
