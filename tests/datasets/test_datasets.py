"""The embedded data sets: complete, typed, said where from, and equal to their published totals."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import polars as pl
import pytest

from bossa import load_dataset, show_datasets
from bossa.datasets import about
from bossa.errors import UnknownOption

NAMES = show_datasets()["name"].to_list()


@pytest.mark.parametrize("name", NAMES)
def test_table_and_codebook_agree(name):
    data, book = load_dataset(name), about(name)
    assert data.height == book.rows
    assert data.columns == [c.name for c in book.columns]
    assert data.dtypes == [c.dtype for c in book.columns]
    assert all(c.about for c in book.columns)
    assert book.source
    assert book.licence.startswith(("CC0", "Public domain", "Published measurements"))
    assert book.title in repr(book)
    for column in book.columns:
        if column.type == "factor":  # every level occurs: a table with empty levels would surprise
            assert set(data[column.name].drop_nulls().unique()) == set(column.levels)


def test_the_promised_sets_are_there():
    wanted = {"sleepstudy", "penguins", "mtcars", "titanic", "warpbreaks", "pigs", "cbpp", "cake", "chickweight", "insteval_sim"}
    assert wanted <= set(NAMES)


def test_all_files_together_are_small(root):
    assert sum(f.stat().st_size for f in (root / "src/bossa/datasets/files").iterdir()) < 1_000_000


def test_case_does_not_count():
    assert load_dataset("ChickWeight").equals(load_dataset("chickweight"))


@pytest.mark.parametrize(
    ("wrong", "near"), [("pengiuns", "penguins"), ("sleep_study", "sleepstudy"), ("InstEval", "insteval_sim"), (3, "penguins")]
)
def test_unknown_name_is_told_the_nearest(wrong, near):
    with pytest.raises(UnknownOption, match=near):
        load_dataset(wrong)


def test_titanic_is_the_published_table():
    """Dawson (1995), table 1: 2201 people, 711 survivors; by class 203/325, 118/285, 178/706, 212/885; children 57/109; women 344/470."""
    data = load_dataset("titanic")
    for column, expected in {
        "pclass": {"1st": (203, 325), "2nd": (118, 285), "3rd": (178, 706), "crew": (212, 885)},
        "age": {"adult": (654, 2092), "child": (57, 109)},
        "sex": {"female": (344, 470), "male": (367, 1731)},
    }.items():
        table = data.group_by(column).agg(pl.col("survived").sum(), pl.len()).rows()
        assert {level: (yes, n) for level, yes, n in table} == expected


# Published totals or means: Henderson & Velleman (1981) mean mpg 20.09; Student (1908) mean gains 0.75 and 2.33 hours.
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mtcars", pl.col("mpg").mean(), 20.090625),
        ("sleep", pl.col("extra").filter(pl.col("group") == "1").mean(), 0.75),
        ("sleep", pl.col("extra").filter(pl.col("group") == "2").mean(), 2.33),
        ("penguins", pl.col("sex").null_count(), 11),
        ("sleepstudy", pl.col("Subject").n_unique(), 18),
        ("cbpp", pl.col("herd").n_unique(), 15),
    ],
)
def test_known_totals(name, value, expected):
    assert load_dataset(name).select(value).item() == pytest.approx(expected, rel=1e-12)


def test_simulated_ratings_come_out_of_their_recipe():
    path = Path(__file__).with_name("recipe_insteval_sim.py")
    spec = importlib.util.spec_from_file_location("recipe_insteval_sim", path)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    made, shipped = recipe.insteval_sim(), load_dataset("insteval_sim")
    assert made.with_columns(pl.col("studage", "lectage", "service").cast(pl.String)).equals(shipped.cast({pl.Enum: pl.String}))
