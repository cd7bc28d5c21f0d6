"""Pictures draw what their frames hold, in every state of a model, and say which intervals they are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.errors import NotFitted, OptionError, Refused, UnknownOption
from bossa.report import plot as plots

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def penguins():
    return load_dataset("penguins")


@pytest.fixture(scope="module")
def lm(penguins):
    return model("body_mass_g ~ species * sex + flipper_length_mm", penguins).fit()


@pytest.fixture(scope="module")
def lmm():
    return model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()


@pytest.fixture(scope="module")
def glm():
    return model("am ~ wt + hp", load_dataset("mtcars"), family="binomial").fit()


def points(ax, marker=None):
    """(x, y) of every marked line of an axes, together."""
    lines = [line for line in ax.lines if line.get_marker() not in ("None", None, "") and (marker is None or line.get_marker() == marker)]
    return np.concatenate([line.get_xydata() for line in lines])


def segments(ax):
    """Ends of every drawn interval (K, 2, 2)."""
    return np.concatenate([np.array(c.get_segments()) for c in ax.collections if c.__class__.__name__ == "LineCollection"])


def words(p):
    """Everything written in a figure."""
    from matplotlib.text import Text

    return " ".join(t.get_text().replace("\n", " ") for t in p.figure.findobj(Text))


# ---------------------------------------------------------------- what is drawn is what the frame holds
def test_parameters(lm):
    m = lm.infer(errors="HC3")
    p = m.plot_params()
    assert p.frame.equals(m.params.filter(pl.col("term") != "Intercept"))
    np.testing.assert_array_equal(points(p.axes[0])[:, 0], p.frame["estimate"])
    np.testing.assert_array_equal(segments(p.axes[0])[:, :, 0], p.frame["ci_lower", "ci_upper"].to_numpy())
    assert "95% intervals (asymp, errors=HC3)" in words(p)
    assert m.plot_params(intercept=True).frame.equals(m.params)


def test_parameters_without_inference_have_the_models_own(lm):
    assert lm.plot_params(intercept=True).frame.equals(lm.infer().params)


def test_levels(lm):
    m = lm.explore("species:sex").infer()
    p = m.plot()
    assert p.frame.equals(m.effects)
    assert [line.get_label() for line in p.axes[0].lines] == ["female", "male"]
    np.testing.assert_array_equal(points(p.axes[0])[:, 1], p.frame["estimate"])
    np.testing.assert_array_equal(segments(p.axes[0])[:, :, 1], p.frame["ci_lower", "ci_upper"].to_numpy())
    assert "mean of body_mass_g" in words(p)


def test_lines_with_ribbons(lm):
    m = lm.explore("flipper_length_mm@range(5) ~ species").infer(conf_level=0.9)
    p = m.plot_explore()
    drawn = np.concatenate([line.get_xydata() for line in p.axes[0].lines])
    np.testing.assert_array_equal(drawn, m.effects["flipper_length_mm", "estimate"].to_numpy())
    ribbon = p.axes[0].collections[0].get_paths()[0].vertices
    rows = m.effects.filter(pl.col("species") == "Adelie")
    for x, lower, upper in rows["flipper_length_mm", "ci_lower", "ci_upper"].rows():
        at = ribbon[ribbon[:, 0] == x, 1]
        assert {at.min(), at.max()} == {lower, upper}
    assert "90% intervals" in words(p)


def test_contrasts(lm):
    m = lm.explore("pairwise(species) ~ sex").infer()
    p = m.plot()
    drawn = np.concatenate([points(ax)[:, 0] for ax in p.axes])
    np.testing.assert_array_equal(drawn, m.effects["estimate"])
    assert [ax.get_title(loc="left") for ax in p.axes] == ["female", "male"]
    assert "adjusted: tukey" in words(p)


def test_ratios_stand_on_a_log_scale(penguins):
    m = model("sex ~ species + body_mass_g", penguins.with_columns(sex=pl.col("sex") == "male"), family="binomial").fit()
    p = m.explore("pairwise(species)", compare="odds_ratio").plot()
    assert p.axes[0].get_xscale() == "log"
    assert p.axes[0].lines[0].get_xdata()[0] == 1


def test_a_slope_has_a_zero_to_be_judged_by(lm):
    p = lm.explore("slope(flipper_length_mm) ~ species").plot()
    assert any(np.array_equal(line.get_ydata(), [0, 0]) for line in p.axes[0].lines)
    assert "per unit of flipper_length_mm" in words(p)


def test_predictions_over_what_varies(lm):
    m = lm.predict("flipper_length_mm@range(20) ~ species").infer(interval="prediction")
    p = m.plot()
    drawn = np.concatenate([line.get_xydata() for line in p.axes[0].lines])
    np.testing.assert_array_equal(drawn, m.predictions["flipper_length_mm", "fitted"].to_numpy())
    assert "interval: for a new response" in words(p)


def test_predictions_of_the_data_stand_against_them(lm):
    p = lm.predict().plot()
    np.testing.assert_array_equal(points(p.axes[0]), p.frame.to_numpy())
    np.testing.assert_array_equal(p.frame["observed"], lm.design.y)
    np.testing.assert_allclose(p.frame["predicted"], lm.fit_state.mu, rtol=1e-12)


def test_rows_that_are_no_grid_are_drawn_by_position():
    cars = load_dataset("mtcars")
    m = model("mpg ~ wt + hp + disp", cars).fit().predict(cars.head(12)).infer()
    p = m.plot()
    np.testing.assert_array_equal(points(p.axes[0]), np.column_stack((np.arange(12), m.predictions["fitted"])))


def test_residuals(lm):
    p = lm.plot_resid()
    rows = lm.augment().with_row_index("row").filter(pl.col("fitted").is_not_null())
    for ours, theirs in (("row", "row"), ("fitted", "fitted"), ("residual", "resid"), ("std_resid", "std_resid"), ("hat", "hat")):
        np.testing.assert_array_equal(p.frame[ours], rows[theirs])
    np.testing.assert_array_equal(points(p.axes[0]), p.frame["fitted", "residual"].to_numpy())
    np.testing.assert_array_equal(points(p.axes[1]), p.frame["normal_quantile", "std_resid"].to_numpy())
    np.testing.assert_array_equal(points(p.axes[3]), p.frame["hat", "std_resid"].to_numpy())
    order = p.frame.sort("std_resid", maintain_order=True)
    assert order["normal_quantile"].is_sorted()
    assert str(p.frame.sort("cooksd")["row"][-1]) in words(p).split()


def test_residuals_of_mixed_models(lmm):
    p = lmm.plot_resid()
    np.testing.assert_allclose(p.frame["std_resid"] * lmm.fit_state.sigma, p.frame["residual"], rtol=1e-12)


def test_random_effects_in_order(lmm):
    p = lmm.plot_varying()
    assert p.frame.drop("position", "ci_lower", "ci_upper").sort("term", "level").equals(lmm.varying_offsets.sort("term", "level"))
    for ax, (_, part) in zip(p.axes, p.frame.group_by("term", maintain_order=True)):
        np.testing.assert_array_equal(points(ax)[:, 0], part["estimate"])
        assert part["estimate"].is_sorted()
        assert [t.get_text() for t in ax.get_yticklabels()] == part["level"].to_list()


def test_design(lm):
    p = lm.plot_design()
    X = lm.designmat.to_numpy()
    assert p.frame.equals(lm.designmat)
    np.testing.assert_allclose(np.asarray(p.axes[0].images[0].get_array()), X / np.abs(X).max(axis=0), rtol=1e-14)


def test_variance_inflation(lm):
    p = lm.plot_vif()
    assert p.frame.drop("vif").equals(lm.vif())
    np.testing.assert_array_equal(points(p.axes[0])[:, 0], lm.vif()["gvif_scaled"] ** 2)


def test_relationships_before_and_after_a_fit(lm, penguins):
    p = lm.plot_relationships()
    assert p.frame.columns == ["body_mass_g", "species", "sex", "flipper_length_mm"]
    assert p.frame.height == lm.design.n
    scatter = p.axes[12]
    np.testing.assert_array_equal(points(scatter), p.frame["body_mass_g", "flipper_length_mm"].to_numpy())
    r = np.corrcoef(p.frame["body_mass_g"], p.frame["flipper_length_mm"])[0, 1]
    assert f"r = {r:.2f}" in words(p)
    assert model("body_mass_g ~ flipper_length_mm", penguins).plot().kind == "relationships"


def test_resamples(lm):
    m = lm.infer(how="boot", n_boot=60, seed=1)
    p = m.plot_resamples()
    assert p.frame.equals(m.resamples.filter(pl.col("code") == 0))
    for ax, (term,) in zip(p.axes, m.params.select("term").rows()):
        values = p.frame.filter(pl.col("term") == term)["estimate"]
        heights, edges = [b.get_height() for b in ax.patches if b.get_height() >= 0][:10], np.linspace(values.min(), values.max(), 11)
        assert ax.get_title(loc="left") == term
        np.testing.assert_array_equal(heights, np.histogram(values, edges)[0])
        assert ax.lines[0].get_xdata()[0] == m.params.filter(pl.col("term") == term)["estimate"][0]


def test_simulations(glm):
    m = glm.simulate(5, seed=1)
    p = m.plot()
    assert p.frame["observed"].to_list() == [19, 13]
    assert p.frame["sim_3"].to_list() == [int((m.simulations["sim_3"] == v).sum()) for v in (0, 1)]


def test_profiles(lmm):
    m = lmm.infer(how="profile", n_steps=6)
    p = m.plot_profile()
    for ax, (label, part) in zip(p.axes, p.frame.group_by("term", maintain_order=True)):
        assert ax.get_title(loc="left") == label[0]
        np.testing.assert_array_equal(points(ax), part["value", "zeta"].to_numpy())
    assert p.frame["term"].unique(maintain_order=True).to_list()[:2] == m.params["term"].to_list()


# ---------------------------------------------------------------- every state
def states(lm, lmm, glm):
    new = load_dataset("penguins").head(3)
    crossed = model("mpg ~ factor(cyl) * wt", load_dataset("mtcars")).fit()
    return {
        "unfitted": model("mpg ~ wt", load_dataset("mtcars")),
        "fitted": lm,
        "one-sided": lm.infer(alternative="less"),
        "permuted": lm.infer(how="perm", n_perm=50, seed=1),
        "joint": lm.infer(how="joint"),
        "posterior": lm.infer(how="posterior"),
        "assimilated": lm.infer(how="assim", by="species"),
        "explored": lm.explore("species"),
        "explored joint": lm.explore("pairwise(species)").infer(how="joint"),
        "explored one-sided": lm.explore("pairwise(species)").infer(alternative="greater"),
        "one slope": crossed.explore("wt"),
        "interaction": crossed.explore("pairwise(cyl):pairwise(wt@[2, 3])"),
        "bracket": lm.explore("species[Gentoo - (Adelie + Chinstrap)] ~ sex"),
        "two numbers": crossed.explore("wt@[2, 3] ~ cyl"),
        "predicted rows": lm.predict(new),
        "predicted": lm.predict("species"),
        "simulated": lm.simulate(3, seed=1),
        "simulated inferred": lm.simulate(3, seed=1).infer(),
        "glm explored": glm.explore("wt@range(7)"),
        "glm link": glm.explore("wt@range(7)", scale="link"),
        "mixed": lmm,
        "mixed explored": lmm.explore("Days"),
        "intercept alone": model("mpg ~ 1", load_dataset("mtcars")).fit(),
        "intercept predicted": model("mpg ~ 1", load_dataset("mtcars")).fit().predict(load_dataset("mtcars").head(3)),
        "dropped": model("mpg ~ wt + I(2 * wt)", load_dataset("mtcars")).fit(),
        "clash": model("y ~ estimate", pl.DataFrame({"y": [1.0, 3, 2, 5, 4, 6], "estimate": list("aabbcc")})).fit().explore("estimate"),
    }


@pytest.mark.filterwarnings("ignore::bossa.errors.BossaWarning")
def test_every_state_has_a_picture(lm, lmm, glm):
    for name, m in states(lm, lmm, glm).items():
        p = m.plot()
        assert p._repr_png_().startswith(b"\x89PNG"), name
        assert p.frame.height > 0, name
        assert p.kind in repr(p)


@pytest.mark.parametrize("kind", ["resid", "design", "varying", "relationships"])
def test_every_kind_of_model_has_these(lm, lmm, glm, kind):
    glmm = model("incidence ~ period + (1 | herd)", load_dataset("cbpp"), family="poisson").fit()
    for m in (lm, lmm, glm, glmm):
        if kind == "varying" and m.design.random is None:
            with pytest.raises(Refused, match="no random effects"):
                m.plot(kind)
        else:
            assert m.plot(kind)._repr_png_()


def test_many_rows_are_counted_not_piled_up():
    rng = np.random.default_rng(0)
    x = rng.normal(size=30_000)
    m = model("y ~ x", pl.DataFrame({"x": x, "y": x + rng.normal(size=30_000)})).fit()
    p = m.plot_resid()
    assert int(p.axes[0].collections[0].get_array().sum()) == 30_000
    assert p.frame.height == 30_000


def test_saving(lm, tmp_path):
    p = lm.plot_params()
    p.save(tmp_path / "a.png")
    p.save(tmp_path / "a.svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_drawing_leaves_the_users_settings_alone(lm):
    import matplotlib

    before = dict(matplotlib.rcParams)
    lm.plot_params()._repr_png_()
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


# ---------------------------------------------------------------- what cannot be drawn
def test_asked_too_early(lm, penguins):
    unfitted = model("body_mass_g ~ sex", penguins)
    for kind in ("params", "resid", "varying", "explore", "predict", "design", "vif", "resamples", "profile", "simulate"):
        with pytest.raises(NotFitted, match="not fitted"):
            unfitted.plot(kind)
    for kind in ("explore", "predict", "simulate", "resamples", "profile"):
        write = {"resamples": "boot"}.get(kind, kind)
        with pytest.raises(NotFitted, match=write):
            lm.plot(kind)
    with pytest.raises(NotFitted, match="no data"):
        model("y ~ x").plot()


def test_a_misspelt_picture_is_named(lm):
    with pytest.raises(UnknownOption, match="'resid'"):
        lm.plot("residual")


def test_without_matplotlib_it_says_what_to_install(lm, monkeypatch):
    monkeypatch.setattr(plots, "find_spec", {}.get)
    with pytest.raises(OptionError, match=r"pip install 'bossa\[plot\]'"):
        lm.plot()


def test_matplotlib_is_loaded_by_the_first_picture_only():
    code = "from bossa import model, load_dataset; import sys; model('mpg ~ wt', load_dataset('mtcars')).fit().infer().summary()"
    done = subprocess.run([sys.executable, "-c", f"{code}; print('matplotlib' in sys.modules)"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_stream_batch_by_batch():
    rng = np.random.default_rng(5)
    week = np.repeat(np.arange(12), 60)
    x = rng.normal(size=week.size)
    data = pl.DataFrame({"y": 1 + x * np.where(week < 8, 1.0, -1.0) + rng.normal(size=week.size), "x": x, "week": week})
    m = model("y ~ x", data).fit().infer(how="assim", by="week")
    drawn = m.plot_trajectory()
    assert drawn.frame.equals(m.trajectory())
    line = drawn.axes[1].lines[0].get_ydata()
    own = m.trajectory().filter(pl.col("term") == "x")
    np.testing.assert_allclose(line, own["posterior_mean"].to_numpy())
    assert len(drawn.axes[1].lines[1].get_ydata()) == own["alarm"].is_not_null().sum() > 0
    smooth = m.explore("x").infer(how="assim", by="week").plot_trajectory(smoothed=True)
    assert len(smooth.axes) == 1
    with pytest.raises(NotFitted):
        model("y ~ x", data).fit().infer().plot_trajectory()
