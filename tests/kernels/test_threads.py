"""Refits run on one BLAS thread and leave the threads as they were."""

from threading import Thread

import numpy as np
import pytest
import scipy.linalg  # noqa: F401  brings a BLAS of its own

from bossa import model
from bossa.estimate import many
from bossa.kernels.threads import one_thread

threadpoolctl = pytest.importorskip("threadpoolctl")


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def two_threads():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("this BLAS cannot run on two threads")
        yield


def test_the_threads_come_back(two_threads):
    with one_thread():
        assert threads() == {1}
        with one_thread():
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == {2}
    with pytest.raises(ZeroDivisionError), one_thread():
        _ = 1 / 0
    assert threads() == {2}


def test_other_threads_of_the_program_do_not_change_the_setting(two_threads):
    seen: list[set[int]] = []

    def work():
        with one_thread():
            seen.append(threads())

    worker = Thread(target=work)
    worker.start()
    worker.join()
    assert seen == [{2}]
    assert threads() == {2}


def test_refits_run_on_one(two_threads, monkeypatch):
    seen: list[set[int]] = []
    x = np.arange(20.0)
    fitted = model("y ~ x", {"x": x, "y": np.sin(x)}).fit()
    refit_block = many.refit_block

    def watched(*args):
        seen.append(threads())
        return refit_block(*args)

    monkeypatch.setattr(many, "refit_block", watched)
    fitted.infer(how="boot", n_boot=50, seed=1)
    assert seen
    assert all(now == {1} for now in seen)
    assert threads() == {2}
