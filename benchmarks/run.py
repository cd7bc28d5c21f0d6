"""Speed and memory beside other programs, in one run that alternates A B A B: only ratios within a run mean anything.

    python benchmarks/run.py [W2 W3 W4] [--rounds 7] [--budget 90] [--no-r] [--out FILE]

Every entrant is a process of its own with one thread, holds its data, and is asked in turn. Prints the median of each, its ratio to bossa,
the peak memory over the loaded data, the largest disagreement of the answers, and whether the goals are met.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import workloads

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")


def peak() -> float:
    """Largest resident memory of this process so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(s for s in status.read_text().split("\n") if s.startswith("VmHWM"))
        return float(line.split()[1]) / 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024**2 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Start the account of peak memory anew, where the system can."""
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def serve() -> None:
    """A worker: `setup NAME`, `run`, `quit` on stdin; a run is repeated until it has taken 0.2 s."""
    run: workloads.Run = list
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        if word == "quit":
            return
        if word == "setup":
            run = workloads.ENTRANTS[name]()
            forget_peak()
            answer = {"peak": peak()}
        else:
            began, n = time.perf_counter(), 0
            while n == 0 or time.perf_counter() - began < 0.2:
                coef = run()
                n += 1
            answer = {"seconds": (time.perf_counter() - began) / n, "peak": peak(), "coef": coef}
        print(json.dumps(answer), flush=True)


class Worker:
    """One entrant in its own process."""

    def __init__(self, name: str):
        self.name, self.seconds, self.memory = name, [], 0.0
        environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "BENCH_DATA": str(workloads.DATA)}
        here = Path(__file__)
        in_r = name in workloads.IN_R
        command = ["Rscript", "--vanilla", str(here.with_name("peers.R"))] if in_r else [sys.executable, str(here), "--serve"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        self.loaded = self.ask(f"setup {name}")["peak"]
        self.first = self.ask("run")
        self.memory = self.first["peak"] - self.loaded

    def ask(self, line: str) -> dict:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        while answer and not answer.startswith("{"):
            answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended during {line!r}")
        return json.loads(answer)

    def time(self) -> None:
        self.seconds.append(self.ask("run")["seconds"])

    def close(self) -> None:
        self.process.stdin.write("quit\n")
        self.process.stdin.close()
        self.process.wait(20)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def difference(ours: list[float], theirs: list[float]) -> float:
    """Largest disagreement of two sets of coefficients; programs order them differently."""
    return max(abs(a - b) for a, b in zip(sorted(ours), sorted(theirs), strict=True))


def measure(workload: str, rounds: int, budget: float, with_r: bool) -> dict:
    """One workload, all entrants in turn."""
    workloads.file(workloads.FILES[workload])
    workers, absent = [], {}
    for name in workloads.available(workload, with_r):
        try:
            workers.append(Worker(name))
        except RuntimeError as problem:
            absent[name] = str(problem)
    began = time.perf_counter()
    for r in range(rounds):
        if r >= 3 and time.perf_counter() - began > budget:
            break
        for worker in workers:
            worker.time()
    for worker in workers:
        worker.close()
    ours = workers[0]
    rows = [
        {
            "entrant": w.name,
            "median_s": w.median,
            "first_s": w.first["seconds"],
            "ratio": ours.median / w.median,
            "memory_mb": w.memory,
            "largest_difference": difference(ours.first["coef"], w.first["coef"]),
        }
        for w in workers
    ]
    return {"workload": workload, "title": workloads.TITLES[workload], "rounds": len(ours.seconds), "rows": rows, "absent": absent}


def judged(result: dict) -> list[str]:
    """Each goal, what was reached, and whether it is met."""
    rows = {row["entrant"]: row for row in result["rows"]}
    out = []
    for entrant, peer, limit in workloads.GOALS[result["workload"]]:
        peers = [r for e, r in rows.items() if "bossa" not in e] if peer == "best peer" else [rows[peer]] if peer in rows else []
        if entrant in rows and peers:
            best = min(peers, key=lambda r: r["median_s"])
            ratio = rows[entrant]["median_s"] / best["median_s"]
            out.append(f"{entrant}: {ratio:.2f} × {best['entrant']}, goal ≤ {limit}: {'met' if ratio <= limit else 'MISSED'}")
    for entrant, limit in workloads.MEMORY.items():
        if entrant in rows:
            used = rows[entrant]["memory_mb"]
            out.append(f"{entrant}: {used:+.0f} MB over the data, goal ≤ {limit:.0f}: {'met' if used <= limit else 'MISSED'}")
    return out


def show(result: dict) -> str:
    lines = [f"{result['workload']}: {result['title']}, medians of {result['rounds']}, alternating"]
    for row in result["rows"]:
        lines.append(
            f"  {row['entrant']:<20} {row['median_s'] * 1e3:10.2f} ms   bossa takes {row['ratio']:6.3f} of it   {row['memory_mb']:+7.0f} MB"
            f"   first {row['first_s'] * 1e3:8.1f} ms   answers within {row['largest_difference']:.0e}"
        )
    lines += [f"  {name}: {why}" for name, why in result["absent"].items()]
    return "\n".join([*lines, *(f"  → {line}" for line in judged(result))])


def main() -> None:
    if "--serve" in sys.argv:
        serve()
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workloads", nargs="*", default=list(workloads.FILES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=90.0, help="seconds per workload after three rounds")
    parser.add_argument("--no-r", action="store_true", help="leave R out")
    parser.add_argument("--out", type=Path, help="append one line of JSON per workload")
    asked = parser.parse_args()
    with_r = not asked.no_r and shutil.which("Rscript") is not None
    for workload in asked.workloads:
        result = measure(workload, asked.rounds, asked.budget, with_r)
        print(show(result), flush=True)
        if asked.out:
            with asked.out.open("a", encoding="utf-8") as out:
                out.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
