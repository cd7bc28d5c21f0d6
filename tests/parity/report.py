"""The account of a run as text, as JSON, and as the page docs/parity.md."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from typing import Any

from ledger import Account, Ledger
from quantities import SETTINGS
from tolerances import BASE, KINDS, OTHER, WRONG

HEAD = ["quantity", "available", "compared", "failing", "not built", "set aside", "worst error", "of tolerance", "where"]


def small(x: float) -> str:
    return "exact" if x == 0 else "inf" if math.isinf(x) else f"{x:.1e}"


def row(name: str, a: Account) -> list[str]:
    counts = [str(n) for n in (a.available, a.compared, a.failing, a.not_built, a.set_aside)]
    if not a.compared:
        return [name, *counts, "", "", "" if a.not_built else "not compared"]
    share = "" if a.worst == 0 else "inf" if math.isinf(a.worst) else f"{a.worst:.2g}"
    return [name, *counts, small(a.worst_error), share, a.worst_at]


def table(ledger: Ledger, order: list[str]) -> list[list[str]]:
    rows = [row(name, ledger.accounts[name]) for name in order if name in ledger.accounts]
    total = ledger.total()
    counts = (total.available, total.compared, total.failing, total.not_built, total.set_aside)
    return [*rows, ["all", *map(str, counts), "", "", ""]]


def some_of(names: list[str], limit: int = 3) -> str:
    """`a, b, c and 4 more`."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def text(ledger: Ledger, order: list[str], cases: int, detail: int = 12) -> str:
    """The table, the failures grouped by what they have in common, and what was not compared."""
    rows = [HEAD, *table(ledger, order)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(HEAD))]
    right = set(range(1, 8))
    lines = [
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))).rstrip() for r in rows
    ]
    if ledger.failures:
        lines += ["", "What fails, or is not built:"]
        raised = Counter(f.message for f in ledger.failures if f.message)
        for message, _ in raised.most_common(detail):
            some = [f for f in ledger.failures if f.message == message]
            lines.append(f"  {message}  [{some_of([f.quantity for f in some])} in {some_of([f.case for f in some])}]")
        if len(raised) > detail:
            lines.append(f"  … and {len(raised) - detail} other exceptions (--json has all)")
        wrong = sorted((f for f in ledger.failures if not f.message), key=lambda f: -f.error / f.tolerance)
        lines += [
            f"  {f.case} {f.where}: {f.ours!r}, R {f.reference!r}; error {f.error:.1e}, allowed {f.tolerance:.0e}" for f in wrong[:detail]
        ]
        if len(wrong) > detail:
            lines.append(f"  … and {len(wrong) - detail} more (--json has all)")
    if ledger.unclaimed:
        lines += [
            "",
            f"{len(ledger.unclaimed)} numbers belong to no quantity, or to several:",
            *(f"  {u}" for u in ledger.unclaimed[:detail]),
        ]
    if ledger.left:
        lines += ["", "Not compared:", *(f"  {quantity}: {count}, {reason}" for (quantity, reason), count in ledger.left.items())]
    total = ledger.total()
    counts = f"{total.compared} compared, {total.failing} failing, {total.not_built} not built, {total.set_aside} set aside, "
    counts += f"{total.left} not compared."
    lines += ["", f"{cases} cases, {total.available} numbers: {counts}"]
    if ledger.unasked:
        lines += [f"{ledger.unasked} more belong to quantities that were not asked for."]
    lines += [f"{ledger.settings} more are part of the questions, not results. {sum(ledger.seconds.values()):.1f} s."]
    return "\n".join(lines)


def as_json(ledger: Ledger, order: list[str]) -> dict[str, Any]:
    """Everything, failures one by one; infinities as strings."""

    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "quantities": {n: {k: plain(v) for k, v in asdict(ledger.accounts[n]).items()} for n in order if n in ledger.accounts},
        "failures": [{k: plain(v) for k, v in asdict(f).items()} for f in ledger.failures],
        "unclaimed": ledger.unclaimed,
        "left": [{"quantity": q, "reason": reason, "numbers": n} for (q, reason), n in ledger.left.items()],
        "unasked": ledger.unasked,
        "settings": ledger.settings,
        "seconds": ledger.seconds,
    }


def inverted(reasons: dict[Any, str]) -> dict[str, list[Any]]:
    """What each reason is given for."""
    found: dict[str, list[Any]] = {}
    for key, reason in reasons.items():
        found.setdefault(reason, []).append(key)
    return found


def by_reason(reasons: dict[tuple[str, str], str], head: str) -> list[str]:
    """A table of (case, path) → reason, a row for each reason."""
    lines = ["| numbers | " + head + " |", "|---|---|"]
    for reason, keys in inverted(reasons).items():
        cases = {case: [path for name, path in keys if name == case] for case, _ in keys}
        numbers = "; ".join(f"{case} {', '.join(f'`{path}`' for path in paths)}" for case, paths in cases.items())
        lines.append(f"| {numbers} | {reason} |")
    return lines


def markdown(ledger: Ledger, order: list[str], cases: int) -> str:
    """docs/parity.md."""
    total = ledger.total()
    introduction = (
        f"{cases} models fitted by R (`lm`, `glm`, `lme4`, `lmerTest`, `emmeans`, `car`, `sandwich`, `clubSandwich`, `pbkrtest`) hold "
        f"{total.available} numbers. bossa, through its public interface alone, was compared on {total.compared} of them; "
        f"{total.failing} fail, {total.set_aside} are set aside (unstable by the corpus's own word, wrong, or answering another question), "
        f"{total.not_built} need something that bossa says is not built yet, {total.left} are not compared."
    )
    if ledger.unasked:
        introduction += f" {ledger.unasked} more belong to quantities that were not asked for."
    lines = [
        "# Parity with R",
        "",
        "Written by `python tests/parity/run.py DIR --markdown docs/parity.md`; not edited by hand.",
        "",
        introduction,
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---|" + "---:|" * 7 + "---|",
        *("| " + " | ".join(r) + " |" for r in table(ledger, order)),
        "",
        "An error is a difference over its scale; *of tolerance* is the worst error as a share of what is allowed.",
        "",
        "## Tolerances",
        "",
        "| model | tolerance | reason |",
        "|---|---|---|",
        *(f"| {kind} | {value:.0e} | {reason} |" for kind, (value, reason) in BASE.items()),
        "",
        "For mixed models the tolerance widens to ten times the case's own `ref_acc` (the accuracy of the reference) where that is more.",
        "",
        "| kind of number | scale | tolerance | reason |",
        "|---|---|---|---|",
        *(
            f"| {kind} | {scale} | {'as above' if value is None else f'{value:.0e}'} | {reason} |"
            for kind, (scale, value, reason) in KINDS.items()
        ),
        "",
        "## Wrong in the corpus",
        "",
        *by_reason(WRONG, "why"),
        "",
        "## Another question",
        "",
        *by_reason(OTHER, "how they differ"),
        "",
        "## Not compared",
        "",
        "| quantity | numbers | why |",
        "|---|---:|---|",
        *(f"| {quantity} | {count} | {reason} |" for (quantity, reason), count in ledger.left.items()),
        "",
        "## Not results",
        "",
        "| numbers | why they are not compared |",
        "|---|---|",
        *(f"| {', '.join(f'`{p}`' for p in patterns)} | {reason} |" for reason, patterns in inverted(SETTINGS).items()),
        "",
    ]
    return "\n".join(lines)
