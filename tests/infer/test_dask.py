"""Replicates on a Dask cluster: the numbers are those of one process, also when a worker dies on the way. Needs `distributed`."""

import os
import signal
import threading

import joblib
import numpy as np
import pytest

from bossa import load_dataset, model

distributed = pytest.importorskip("distributed")


@pytest.mark.filterwarnings("ignore")  # what the cluster says of a worker that is lost
def test_a_cluster_that_loses_a_worker_gives_the_numbers_of_one_process():
    """Two workers, whole groups drawn, one refit after another in five blocks; one worker is killed after half a second."""
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()
    asked = {"how": "boot", "scheme": "group", "n_boot": 1200, "seed": 1}
    serial = m.infer(**asked)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client, joblib.parallel_config(backend="dask"):
        pid = sorted(client.run(os.getpid).values())[0]
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        killer.start()
        spread = m.infer(**asked)
        assert not killer.is_alive(), "the work ended before the worker was killed"
    np.testing.assert_array_equal(spread.resamples["estimate"].to_numpy(), serial.resamples["estimate"].to_numpy())
