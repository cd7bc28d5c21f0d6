"""What do statistics of rearranged data say of the one observed: p, its Monte Carlo error, limits, and when they say little.

    judged(question, answer, level, seed) → Verdict

    random arrangements   p = (b + 1)/(m + 1), b of m at least as extreme, with error √(p(1 − p)/m)
    all arrangements      p = b/m, the observed one among them; no error

A replicate without a statistic (a refit that failed, 0/0) counts as at least as extreme: p is then rather too large.

Source: Phipson & Smyth (2010).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen

from ..kernels.resample import monte_carlo_se, permutation_p
from .bootstrap import warn_of_failures
from .shown import Question

STANDS_STILL = 1e-6  # a statistic that varies by less, relative to its size, is not moved by any arrangement
OFF_CENTRE = 2.0  # standard deviations that rearranged statistics are from 0 where much of the effect stays in place, and at least 1
TOO_LARGE = "they count as at least as extreme, so p is rather too large than too small"
NOTHING_LEFT = 1e8  # statistics beyond are ties: no residual is left to judge by


@frozen(kw_only=True, eq=False)
class Answer:
    """Of the K rows: statistic (K,), draws (B, K) with nan below those of shorter plans, how many each has (K,), whether these are all."""

    observed: np.ndarray
    draws: np.ndarray
    code: np.ndarray
    done: np.ndarray
    planned: np.ndarray
    every: np.ndarray


@frozen(kw_only=True, eq=False)
class Verdict:
    """p_value, p_mc_se (K,), limits (2, K) of the statistics when the null is true, failures by reason, and notes."""

    p_value: np.ndarray
    p_mc_se: np.ndarray
    limits: np.ndarray
    failed: dict[str, int]
    notes: tuple[str, ...]


def judged(asked: Question, answer: Answer, level: float, seed: Any) -> Verdict:
    """The verdict on every row; nan where nothing can be said, and the notes say why."""
    K = len(answer.observed)
    p_value, mc_se, limits = np.full(K, np.nan), np.full(K, np.nan), np.full((2, K), np.nan)
    still: list[int] = []
    off_centre: list[int] = []
    empty: list[int] = []
    undefined = 0
    for k in np.flatnonzero(~np.isnan(answer.observed)).tolist():
        m, every = int(answer.done[k]), bool(answer.every[k])
        draws = answer.draws[:m, k]
        usable = np.clip(draws[~np.isnan(draws)], -NOTHING_LEFT, NOTHING_LEFT)
        if m and not len(usable):
            empty.append(k)
        if not len(usable) or (every and m < answer.planned[k]):
            continue
        undefined = max(undefined, int((np.isnan(draws) & (answer.code[:m] == 0)).sum()))
        counted = np.concatenate((usable, np.full(m - len(usable), -np.inf if asked.side == "less" else np.inf)))
        observed = np.clip(answer.observed[k : k + 1], -NOTHING_LEFT, NOTHING_LEFT)
        p_value[k] = permutation_p(observed, counted[:, None], asked.side, every=every)[0]
        mc_se[k] = 0.0 if every else monte_carlo_se(p_value[k : k + 1], m)[0]
        limits[:, k] = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
        if np.ptp(usable) <= STANDS_STILL * max(1.0, float(np.abs(usable).max())):
            still.append(k)
        elif abs(usable.mean()) > max(1.0, OFF_CENTRE * usable.std()):
            off_centre.append(k)
    failed = warn_of_failures(answer.code, "rearranged data sets", TOO_LARGE)
    if undefined:
        failed["without a statistic, 0/0"] = undefined
    notes = _how_judged(answer, level, seed)
    if still:
        notes.append(f"{_named(asked, still)}: p = 1 says nothing, no arrangement changes what is constant where rows move")
    if off_centre:
        notes.append(f"{_named(asked, off_centre)}: little power, much of what is tested stays in place whatever the arrangement")
    if empty:
        notes.append(f"{_named(asked, empty)}: no p, the null leaves no residual that could be rearranged")
    if failed:
        notes.append("counted as at least as extreme: " + ", ".join(f"{n} {reason}" for reason, n in failed.items()))
    return Verdict(p_value=p_value, p_mc_se=mc_se, limits=limits, failed=failed, notes=tuple(notes))


def _named(asked: Question, rows: list[int]) -> str:
    """The rows by what stands before their numbers in the table."""
    names = [", ".join(str(value) for value in asked.target.labels.row(k)) for k in rows]
    return "; ".join(names[:4]) + (f" and {len(names) - 4} more rows" if len(names) > 4 else "")


def _how_judged(answer: Answer, level: float, seed: Any) -> list[str]:
    """How p comes of the arrangements, and what an interruption left, in words."""
    every, random = answer.every.any(), (~answer.every & (answer.planned > 0)).any()
    said = ["exact p = share of all arrangements at least as extreme, without Monte Carlo error"] if every else []
    said += [f"p = (b + 1)/(m + 1), null limits hold {level:.15g} of the statistics; seed {seed}"] if random else []
    said += [f"null limits hold {level:.15g} of the statistics"] if not random else []
    short = np.flatnonzero(answer.done < answer.planned)
    if len(short):
        k = short[0]
        said.append(f"partial: interrupted after {answer.done[k]} of {answer.planned[k]}")
        if answer.every[k]:
            said.append("no p of the interrupted rows: arrangements come in order, and the first of them are no sample")
    return said
