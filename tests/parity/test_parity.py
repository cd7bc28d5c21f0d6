"""The parity runner passes on the corpus kept here, and can fail: a wrong number, a lost row and an unknown number are all found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("run.py")
SMALL = "lm_mtcars_conf90"
BUILT = f"@{RUNNER.with_name('built.txt')}"  # what is built so far


def run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(RUNNER), *map(str, arguments)], capture_output=True, text=True, timeout=600, env={**os.environ}
    )


@pytest.fixture
def corpus(golden, tmp_path):
    """A copy of one case, free to be spoilt."""
    for part in ("data", "cases"):
        (tmp_path / part).mkdir()
    shutil.copy(golden / "cases" / f"{SMALL}.json", tmp_path / "cases")
    for suffix in ("csv", "json"):
        shutil.copy(golden / "data" / f"mtcars.{suffix}", tmp_path / "data")
    return tmp_path


def spoil(corpus: Path, edit) -> None:
    file = corpus / "cases" / f"{SMALL}.json"
    case = json.loads(file.read_text(encoding="utf-8"))
    edit(case)
    file.write_text(json.dumps(case), encoding="utf-8")


def test_everything_kept_here_agrees_with_r(golden, tmp_path):
    done = run(golden, BUILT, "--json", tmp_path / "account.json")
    assert done.returncode == 0, done.stdout + done.stderr
    account = json.loads((tmp_path / "account.json").read_text(encoding="utf-8"))
    assert account["failures"] == account["unclaimed"] == []
    assert account["quantities"]["estimate"]["compared"] == account["quantities"]["estimate"]["available"] > 80


def test_an_untouched_copy_passes(corpus):
    assert run(corpus, "--quantity", "estimate", "--quantity", "aic").returncode == 0


@pytest.mark.parametrize(
    ("quantity", "path"),
    [
        ("estimate", ("coef", 1, "estimate")),
        ("se", ("coef", 0, "se")),
        ("p", ("coef", 1, "p")),
        ("vcov", ("vcov", "matrix", 0, 1)),
        ("aic", ("aic",)),
        ("HC3", ("robust", "HC3", 2, "ci_upper")),
        ("design", ("design", "colsum_cos", 1)),
        ("anova_II", ("anova", "typeII", 0, "F")),
        ("emm", ("emm", 0, "table", 0, "se")),
        ("contrasts", ("contrasts", 0, "table", 0, "estimate")),
        ("trends", ("trends", 0, "table", 0, "upper")),
        ("joint_tests", ("joint_tests", 0, "table", 0, "p")),
    ],
)
def test_a_planted_number_is_found(corpus, quantity, path):
    """A millionth off, relative to the number: far above every tolerance of a linear model."""

    def edit(case):
        here = case["results"]
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] *= 1 + 1e-6

    spoil(corpus, edit)
    done = run(corpus, "--quantity", quantity)
    assert done.returncode == 1
    assert ".".join(map(str, path)) in done.stdout
    assert "1 failing" in done.stdout


def test_a_lost_coefficient_is_found(corpus):
    spoil(corpus, lambda case: case["results"]["coef"].pop())
    done = run(corpus, "--quantity", "estimate")
    assert done.returncode == 1
    assert "AssertionError" in done.stdout


def test_a_number_that_no_quantity_claims_is_found(corpus):
    spoil(corpus, lambda case: case["results"].update(surprise={"x": 1.5}))
    done = run(corpus, "--quantity", "aic")
    assert done.returncode == 1
    assert "surprise.x" in done.stdout


def test_what_is_not_compared_or_not_asked_for_is_counted(corpus):
    spoil(corpus, lambda case: case["results"].update(vcov_rx={"matrix": [[1.0]]}) or case.update(fit="glmer"))
    done = run(corpus, "--quantity", "vcov_rx")
    assert done.returncode == 1, "a run that compares nothing shows nothing"
    assert "1 not compared" in done.stdout
    assert "takes θ as known" in done.stdout
    assert "more belong to quantities that were not asked for" in done.stdout


def test_an_exception_is_a_failure(corpus):
    spoil(corpus, lambda case: case.update(formula="mpg ~ no_such_column"))
    done = run(corpus, "--quantity", "estimate")
    assert done.returncode == 1
    assert "UnknownColumn" in done.stdout


def test_unstable_numbers_are_skipped_and_counted(corpus):
    def edit(case):
        case["results"]["coef"][0]["estimate"] += 1
        case["unstable"] = ["coef"]

    spoil(corpus, edit)
    assert "0 compared" in run(corpus, "--quantity", "estimate").stdout
    done = run(corpus, "--quantity", "estimate", "--quantity", "aic")
    assert done.returncode == 0
    assert "4 set aside" in done.stdout


@pytest.mark.parametrize(("arguments", "says"), [(["--quantity", "estimat"], "estimate"), (["--case", "nothing"], "no case")])
def test_asking_for_the_unknown_is_an_error(golden, arguments, says):
    done = run(golden, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
