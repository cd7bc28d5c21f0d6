"""How does the cost of a fit grow? Time against rows, groups and crossing, one thread, on log–log axes with the slope of each line.

    OPENBLAS_NUM_THREADS=1 POLARS_MAX_THREADS=1 python benchmarks/growth.py [--rounds 3] [--out benchmarks]      → growth.png, growth.json

Every family of points doubles one size and holds the others; points are timed in turn and the median is taken. The slope is that of a
least-squares line through the largest three points: 1 means that twice the size takes twice the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import polars as pl
import workloads

from bossa import model

Point = tuple[str, pl.DataFrame, dict]


def linear(n: int) -> Point:
    return workloads.BIG, workloads.big_lm().head(n), {}


def logistic(n: int) -> Point:
    return workloads.LOGIT, workloads.logistic().head(n), {"family": "binomial"}


def rows(n: int) -> Point:
    return workloads.SLOPES, workloads.slopes(n, 1_000), {}


def groups(G: int) -> Point:
    return workloads.SLOPES, workloads.slopes(80_000, G), {}


def crossing(levels: int) -> Point:
    """`levels` of the smaller factor, three times as many of the larger, 50,000 rows."""
    return workloads.CROSSED, workloads.crossed(50_000, 3 * levels, levels), {"method": "ml"}


def laplace(n: int) -> Point:
    return workloads.GROUPED, workloads.grouped_logistic(n, n // 20), {"family": "binomial"}


FAMILIES = {
    "linear model: rows": (linear, [62_500, 125_000, 250_000, 500_000, 1_000_000]),
    "logistic: rows": (logistic, [12_500, 25_000, 50_000, 100_000]),
    "lmm with a slope, 1,000 groups: rows": (rows, [12_500, 25_000, 50_000, 100_000, 200_000]),
    "lmm with a slope, 80,000 rows: groups": (groups, [625, 1_250, 2_500, 5_000, 10_000]),
    "lmm, crossed, 50,000 rows: levels of the smaller factor": (crossing, [75, 150, 300, 600, 1_200]),
    "logistic mixed, 20 rows a group: rows": (laplace, [2_500, 5_000, 10_000, 20_000, 40_000]),
}


def seconds(point: Point) -> float:
    formula, data, options = point
    began = time.perf_counter()
    model(formula, data, **options).fit()
    return time.perf_counter() - began


def measured(rounds: int) -> dict[str, dict]:
    out = {}
    for name, (make, sizes) in FAMILIES.items():
        points = [make(size) for size in sizes]
        seconds(points[0])
        took = [[seconds(p) for p in points] for _ in range(rounds)]
        medians = [statistics.median(column) for column in zip(*took)]
        slope = float(np.polyfit(np.log(sizes[-3:]), np.log(medians[-3:]), 1)[0])
        out[name] = {"sizes": sizes, "seconds": medians, "slope": slope}
        print(f"{name:<58} slope {slope:5.2f}   " + "  ".join(f"{s:,}: {t * 1e3:.1f} ms" for s, t in zip(sizes, medians)), flush=True)
    return out


def draw(result: dict[str, dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    for axes, (name, line) in zip(figure.subplots(2, 3, sharey=True).flat, result.items()):
        what, _, size = name.partition(": ")
        axes.loglog(line["sizes"], line["seconds"], "o-", color="#1f5a99")
        linear = np.array(line["sizes"]) / line["sizes"][-1] * line["seconds"][-1]
        axes.loglog(line["sizes"], linear, ":", color="#888888", label="in proportion")
        axes.set(title=what, xlabel=size)
        axes.text(0.05, 0.88, f"slope {line['slope']:.2f}", transform=axes.transAxes)
        axes.grid(alpha=0.3, linewidth=0.4)
        axes.set_xticks(line["sizes"], [f"{size:,}" for size in line["sizes"]], fontsize=7)
        axes.minorticks_off()
    figure.axes[0].legend(frameon=False, loc="lower right")
    figure.supylabel("seconds, one fit from formula and frame")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    asked = parser.parse_args()
    result = measured(asked.rounds)
    asked.out.joinpath("growth.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result, asked.out / "growth.png")


if __name__ == "__main__":
    main()
