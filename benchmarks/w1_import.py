"""W1: what importing costs, each time in a fresh interpreter, in turn.   python benchmarks/w1_import.py [--rounds 9]

Times are those of the whole process less a bare interpreter's; ratios are to `import polars` and `import statsmodels.api` of the same run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

FIT = "model('y ~ x', {'x': [1., 2, 3, 4, 5, 6], 'y': [1., 3, 2, 5, 4, 6]}).fit().infer().params"
COMMANDS = {
    "bare interpreter": "pass",
    "import bossa": "import bossa",
    "from bossa import model": "from bossa import model",
    "import numpy, polars, attrs": "import numpy, polars, attrs",
    "import polars": "import polars",
    "import statsmodels.api": "import statsmodels.api",
    "bossa: first model, fit and table": f"from bossa import model; {FIT}",
}
# (what, beside what, largest ratio)
GOALS = [
    ("import bossa", "import numpy, polars, attrs", 1.2),
    ("from bossa import model", "import numpy, polars, attrs", 1.2),
    ("from bossa import model", "import statsmodels.api", 0.25),
]
FIRST_FIT = 0.5  # seconds, after `import bossa`


def once(code: str) -> float:
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **one_thread}, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for r in range(rounds + 1):
        for name, code in COMMANDS.items():
            took = once(code)
            if r:  # the first round warms the file cache
                seconds[name].append(took)
    bare = statistics.median(seconds["bare interpreter"])
    net = {name: statistics.median(values) - bare for name, values in seconds.items()}
    print(f"medians of {rounds}, alternating; a bare interpreter takes {bare * 1e3:.0f} ms, which is taken off")
    for name in list(COMMANDS)[1:]:
        beside = [f"{net[name] / net[peer]:6.2f} × {peer}" for peer in ("import polars", "import statsmodels.api")]
        print(f"  {name:<34} {net[name] * 1e3:8.0f} ms   {'   '.join(beside)}")
    for what, peer, limit in GOALS:
        ratio = net[what] / net[peer]
        print(f"  → {what}: {ratio:.2f} × {peer}, goal ≤ {limit}: {'met' if ratio <= limit else 'MISSED'}")
    first = net["bossa: first model, fit and table"] - net["import bossa"]
    print(f"  → first fit after import bossa: {first:.2f} s, goal ≤ {FIRST_FIT}: {'met' if first <= FIRST_FIT else 'MISSED'}")


if __name__ == "__main__":
    main()
