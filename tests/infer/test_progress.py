"""The progress bar: where there is a terminal and tqdm, and nowhere else."""

import sys
from types import SimpleNamespace

import pytest

from bossa import load_dataset, model
from bossa.errors import OptionError
from bossa.infer import progress


class Bar:
    """A stand-in for tqdm: remembers what it was told."""

    made: list = []  # noqa: RUF012

    def __init__(self, **options):
        self.options, self.done = options, 0
        Bar.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def update(self, k):
        self.done += k


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(Bar, "made", [])
    monkeypatch.setattr(progress, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    return Bar.made


@pytest.fixture(scope="module")
def fitted():
    return model("mpg ~ wt", load_dataset("mtcars")).fit()


@pytest.mark.parametrize(
    ("terminal", "asked", "shown"), [(True, "auto", True), (False, "auto", False), (False, True, True), (True, False, False)]
)
def test_a_bar_is_shown_on_a_terminal_or_when_asked_for(bars, fitted, monkeypatch, terminal, asked, shown):
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: terminal, write=len, flush=list))
    fitted.infer(how="boot", n_boot=600, seed=1, progress=asked)
    fitted.infer(how="perm", n_perm=600, seed=1, progress=asked)
    assert len(bars) == (2 if shown else 0)
    if shown:
        assert [bar.options["total"] for bar in bars] == [bar.done for bar in bars]
        assert bars[0].options["total"] == 600
        assert bars[0].options["delay"] > 0  # short work shows none


def test_nothing_is_written_without_a_terminal(fitted, capfd):
    fitted.infer(how="boot", n_boot=600, seed=1)
    assert capfd.readouterr() == ("", "")


def test_without_tqdm_there_is_no_bar_and_no_error(bars, fitted, monkeypatch):
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    fitted.infer(how="boot", n_boot=20, seed=1, progress=True)
    assert not bars


def test_another_word_is_refused(fitted):
    with pytest.raises(OptionError, match=r"progress='yes' is none of True, False, 'auto'"):
        fitted.infer(how="boot", n_boot=20, seed=1, progress="yes")
