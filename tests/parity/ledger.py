"""The account of a run: for every quantity how many numbers there are, were compared, fail, and which one is worst.

Every number of a case is entered once. It is compared, set aside (the corpus calls it unstable, it is wrong, or it answers another
question), or not compared (no reader yet, or the reader passed it by, and why). An exception in a reader fails every number it had still to
deliver; where it is bossa's own "not built yet", they are counted apart.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from corpus import Case, Path_, leaves
from quantities import Home, Reader, homes, reason_left
from tolerances import error, set_aside, tolerance


@dataclass
class Account:
    """One quantity."""

    available: int = 0
    compared: int = 0
    failing: int = 0
    not_built: int = 0
    set_aside: int = 0
    worst: float = 0.0  # error over tolerance
    worst_error: float = 0.0
    worst_at: str = ""

    @property
    def left(self) -> int:
        return self.available - self.compared - self.not_built - self.set_aside

    def add(self, other: Account) -> None:
        self.available += other.available
        self.compared += other.compared
        self.failing += other.failing
        self.not_built += other.not_built
        self.set_aside += other.set_aside
        if other.worst > self.worst:
            self.worst, self.worst_error, self.worst_at = other.worst, other.worst_error, other.worst_at


@dataclass
class Failure:
    """One number that is wrong, or one exception and the numbers it cost."""

    case: str
    quantity: str
    where: str
    ours: float | None
    reference: float | None
    error: float
    tolerance: float
    message: str = ""
    numbers: int = 1


@dataclass
class Ledger:
    accounts: dict[str, Account] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    unclaimed: list[str] = field(default_factory=list)  # numbers that no quantity, or more than one, claims
    settings: int = 0
    unasked: int = 0  # numbers of quantities that were not asked for
    left: Counter[tuple[str, str]] = field(default_factory=Counter)  # (quantity, why) of what is not compared
    seconds: dict[str, float] = field(default_factory=dict)

    def account(self, quantity: str) -> Account:
        return self.accounts.setdefault(quantity, Account())

    def enter(self, case: Case, wanted: set[str]) -> None:
        """Count the numbers of one case, and compare those of the wanted quantities (empty: all)."""
        began = time.perf_counter()
        open_: dict[Path_, Home] = {}
        for path, _ in leaves(case.results):
            claimed = homes(case.kind, path)
            if len(claimed) != 1:
                self.unclaimed.append(f"{case.id} {dotted(path)}: {len(claimed)} quantities")
                continue
            home = claimed[0]
            if home.quantity is None:
                self.settings += 1
            elif wanted and home.quantity not in wanted:
                self.unasked += 1
            else:
                account = self.account(home.quantity)
                account.available += 1
                if case.is_unstable(path) or set_aside(case.id, dotted(path)):
                    account.set_aside += 1
                else:
                    open_[path] = home
        for reader in unique(home.reader for home in open_.values() if home.reader):
            self._read(case, reader, open_)
        self.left.update((home.quantity or "", reason_left(path)) for path, home in open_.items())
        self.seconds[case.id] = time.perf_counter() - began

    def _read(self, case: Case, reader: Reader, open_: dict[Path_, Home]) -> None:
        try:
            for found in reader.read(case):
                if found.path in open_ and open_[found.path].reader is reader:
                    self._compare(case, open_.pop(found.path).quantity, found)
        except Exception as problem:  # noqa: BLE001  an exception is a failure of everything the reader had still to say
            lost = [path for path, home in open_.items() if home.reader is reader]
            for quantity in unique(open_[path].quantity for path in lost):
                self._raised(case, quantity, [path for path in lost if open_[path].quantity == quantity], problem)
            for path in lost:
                del open_[path]

    def _raised(self, case: Case, quantity: str, paths: list[Path_], problem: Exception) -> None:
        account, kind = self.account(quantity), type(problem).__name__
        if kind == "NotYet":
            account.not_built += len(paths)
        else:
            account.compared += len(paths)
            account.failing += len(paths)
            if account.worst != math.inf:
                account.worst, account.worst_error, account.worst_at = math.inf, math.inf, f"{case.id}: {kind}"
        text = f"{kind}: {problem}".split("\n")[0]
        self.failures.append(Failure(case.id, quantity, dotted(paths[0]), None, None, math.inf, 0.0, text, len(paths)))

    def _compare(self, case: Case, quantity: str, found: Any) -> None:
        account, reference = self.account(quantity), case.reference(found.path)
        off, limit = error(found.kind, found.ours, reference, found.scale), tolerance(case, found.kind, reference)
        account.compared += 1
        if off / limit > account.worst:
            account.worst, account.worst_error, account.worst_at = off / limit, off, f"{case.id} {dotted(found.path)}"
        if not off <= limit:
            account.failing += 1
            self.failures.append(Failure(case.id, quantity, dotted(found.path), found.ours, reference, off, limit))

    def total(self) -> Account:
        total = Account()
        for account in self.accounts.values():
            total.add(account)
        return total


def unique(items: Any) -> list[Any]:
    out: list[Any] = []
    for item in items:
        if item not in out:
            out.append(item)
    return out


def dotted(path: Path_) -> str:
    return ".".join(str(part) for part in path)
