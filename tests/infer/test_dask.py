"""Replicates on a Dask cluster: the numbers are those of one process, also when a worker dies on the way. Needs `distributed`."""

import os
import signal
import threading

import joblib
import numpy as np
import polars as pl
import pytest

from bossa import model
from bossa.estimate.many import Shared

distributed = pytest.importorskip("distributed")
LOCAL = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}


@pytest.mark.filterwarnings("ignore")  # what the cluster says of a worker that is lost
def test_a_cluster_that_loses_a_worker_gives_the_numbers_of_one_process():
    """Two workers, one refit after another in three blocks (the shape is estimated anew); one worker is killed after half a second."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = rng.negative_binomial(1.5, 1.5 / (1.5 + np.exp(0.5 + 0.5 * x)))
    m = model("y ~ x", pl.DataFrame({"x": x, "y": y}), family="negbinomial").fit()
    asked = {"how": "boot", "n_boot": 520, "seed": 1}
    serial = m.infer(**asked)
    with distributed.LocalCluster(**LOCAL) as cluster, distributed.Client(cluster) as client, joblib.parallel_config(backend="dask"):
        pid = sorted(client.run(os.getpid).values())[0]
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        killer.start()
        spread = m.infer(**asked)
        assert not killer.is_alive(), "the work ended before the worker was killed"
    np.testing.assert_array_equal(spread.resamples["estimate"].to_numpy(), serial.resamples["estimate"].to_numpy())


class Counted(Shared):
    """Counts how often this process sends it off."""

    sent = 0

    def __reduce__(self):
        Counted.sent += 1
        return super().__reduce__()


def seen(shared, i):
    """Which process, and which opened parcel there: its own object as long as it is the same one."""
    return os.getpid(), id(shared.value[0]), shared.value[0].shape


@pytest.mark.filterwarnings("ignore")
def test_what_blocks_share_goes_to_a_cluster_once():
    """2 MB, twenty tasks: sent from here once, and each worker opens it once. Tasks that carry it along would send it twenty times."""
    shared = Counted((np.ones((50_000, 5)),))
    assert 2_000_000 < shared.__sizeof__() < 2_010_000
    Counted.sent = 0
    with distributed.LocalCluster(**LOCAL) as cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        found = joblib.Parallel()(joblib.delayed(seen)(shared, i) for i in range(20))
    assert Counted.sent <= 3  # the account of its size has none; the scheduler's copy and one for each worker at most
    assert {shape for _, _, shape in found} == {(50_000, 5)}
    assert len({(pid, where) for pid, where, _ in found}) == len({pid for pid, _, _ in found})
