"""The Model as a value: verbs return new models, nothing stale survives, everything pickles."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest

from bossa import load_dataset, model
from bossa.errors import BossaError, BossaWarning, FormulaError, NotFitted, NotYet, Refused, UnknownOption

MTCARS = load_dataset("mtcars")
VERBS = {
    "fit": lambda m: m.fit(),
    "infer": lambda m: m.infer(),
    "robust": lambda m: m.infer(errors="HC3"),
    "joint": lambda m: m.infer(how="joint"),
    "explore": lambda m: m.explore("pairwise(cyl)"),
    "predict": lambda m: m.predict(MTCARS.head(3)),
    "simulate": lambda m: m.simulate(2, seed=1),
    "update": lambda m: m.update(". ~ . - hp"),
}
RESULTS = ("params", "effects", "predictions", "simulations", "diagnostics", "vcov", "convergence", "designmat", "metadata")


def start():
    return model("mpg ~ wt + factor(cyl) + hp", MTCARS)


def snapshot(m):
    """Every result a model shows, as text; the name of the error where it has none."""
    shown = {"repr": repr(m), "html": m._repr_html_()}
    for name in RESULTS:
        try:
            value = getattr(m, name)
            shown[name] = value.write_json() if name != "convergence" else str(value)
        except NotFitted as error:
            shown[name] = str(error)
    return shown


def said(m, verb):
    """The model after the verb; the same one where the verb does not apply (no fit yet, a joint test of predictions …)."""
    try:
        return VERBS[verb](m)
    except NotYet:
        raise
    except NotFitted:
        assert m.fit_state is None
    except (Refused, UnknownOption):
        assert m.focus is not None
    except FormulaError:
        assert verb == "update"
        assert "hp" not in m.spec.formula
    return m


@pytest.mark.parametrize("first", VERBS)
def test_no_verb_changes_the_model_it_is_called_on_and_every_state_can_be_shown(first):
    for sequence in itertools.product([first], VERBS, VERBS):
        m = start().fit()
        for verb in sequence:
            before = snapshot(m)
            m, asked = said(m, verb), m
            assert snapshot(asked) == before


@pytest.mark.parametrize("sequence", list(itertools.product(VERBS, repeat=2)), ids="-".join)
def test_a_refit_leaves_nothing_of_what_was_inferred_before(sequence):
    m = start().fit()
    for verb in sequence:
        m = said(m, verb)
    again = m.fit()
    assert snapshot(again) == snapshot(model(m.spec.formula, MTCARS).fit())


def test_inference_of_the_parameters_survives_a_later_question():
    m = start().fit().infer(errors="HC3")
    assert m.explore("pairwise(cyl)").infer().params.equals(m.params)
    assert m.predict(MTCARS.head(2)).params.equals(m.params)


def test_a_new_question_drops_the_inference_of_the_one_before():
    m = start().fit().explore("pairwise(cyl)").infer()
    assert "se" in m.effects.columns
    assert "se" not in m.explore("cyl").effects.columns


def test_asking_an_unfitted_model_says_what_to_write():
    m = start()
    m.fit()  # not assigned: m stays unfitted
    with pytest.raises(NotFitted, match=r"not fitted yet, so it has no params.*m = m\.fit\(\)"):
        _ = m.params
    with pytest.raises(NotFitted, match=r"no effects yet.*explore"):
        _ = start().fit().effects


SHOWN = [(), ("fit",), ("fit", "robust"), ("fit", "explore", "infer"), ("fit", "predict", "infer"), ("fit", "simulate")]


@pytest.mark.parametrize("verbs", SHOWN)
def test_models_pickle_with_all_they_show(verbs):
    m = start()
    for verb in verbs:
        m = VERBS[verb](m)
    assert snapshot(pickle.loads(pickle.dumps(m))) == snapshot(m)


def test_a_model_unpickles_in_a_fresh_process(tmp_path):
    m = start().fit().infer()
    (tmp_path / "m.pickle").write_bytes(pickle.dumps(m))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).params['se'].sum())"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.pickle")], capture_output=True, text=True, check=True)
    assert float(done.stdout) == m.params["se"].sum()


def test_arrays_of_a_fit_are_read_only():
    m = start().fit()
    for values in (m.fit_state.coef, m.design.X, m.design.y):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0


def test_the_data_of_the_user_are_never_changed():
    frame = MTCARS.to_pandas()
    before = frame.copy(deep=True)
    model("mpg ~ scale(wt) + factor(cyl)", frame).fit().infer().augment()
    assert frame.equals(before)


def test_update_keeps_family_weights_and_coding():
    data = MTCARS.with_columns(g=MTCARS["cyl"].cast(str), w=MTCARS["wt"])
    m = model("am ~ g + hp", data, family="binomial", link="probit", contrasts={"g": "sum"})
    kept = m.update(". ~ . - hp").spec
    assert (kept.family.name, kept.link.name, dict(kept.contrasts)) == ("binomial", "probit", {"g": "sum"})
    plain = model("am ~ g", data, contrasts={"g": "sum"}).fit().params["term"].to_list()
    assert m.update(". ~ . - hp").fit().params["term"].to_list() == plain


def test_simulations_replay_by_seed_and_do_not_depend_on_how_many():
    m = start().fit()
    few, many = m.simulate(2, seed=5).simulations, m.simulate(4, seed=5).simulations
    np.testing.assert_array_equal(few["sim_2"], many["sim_2"])
    wide = m.simulate(4000, seed=1).infer().simulations
    fitted = m.fit_state.mu
    # mean of 4000 draws: within 5 standard errors for each of 32 rows
    assert np.abs(wide["mean"].to_numpy() - fitted).max() < 5 * m.fit_state.sigma / np.sqrt(4000)


@pytest.mark.parametrize("level", [1.5, 0, 1, 100, -0.1, "abc", None, True, "120%"])
def test_a_confidence_level_that_is_none_is_refused(level):
    with pytest.raises(BossaError, match="conf_level"):
        start().fit().infer(conf_level=level)


def test_every_spelling_of_a_level_means_the_same():
    m = start().fit()
    assert m.infer(conf_level=90).params.equals(m.infer(conf_level="90%").params)
    assert m.infer(conf_level=90).params.equals(m.infer(conf_level=0.9).params)


def test_update_keeps_the_method_of_a_mixed_model():
    """lme4's update() keeps REML = FALSE; without random effects there is only one method."""
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"), method="ml")
    assert m.update(". ~ . - Days").spec.method == "ml"
    assert m.update(". ~ . - (Days | Subject)").spec.method == "ols"
    assert m.update(". ~ . - (Days | Subject)").update(". ~ . + (1 | Subject)").spec.method == "reml"


def test_one_new_row_can_be_written_plainly():
    m = model("mpg ~ wt + factor(cyl)", MTCARS).fit()
    plain = m.predict({"wt": 3, "cyl": 4}).predictions
    assert plain.equals(m.predict({"wt": [3], "cyl": [4]}).predictions)


def test_a_warning_points_at_the_users_own_line():
    dyes = {"y": [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "g": ["a", "a", "b", "b", "c", "c"]}  # groups with one mean: a variance of 0
    outcomes = {"y": [0] * 5 + [1] * 5, "x": list(range(10))}
    for formula, data, family in (("y ~ 1 + (1 | g)", dyes, "gaussian"), ("y ~ x", outcomes, "binomial")):
        with pytest.warns(BossaWarning) as said:
            model(formula, data, family=family).fit()
        assert [w.filename for w in said] == [__file__]
