"""Hold bossa against a corpus of reference numbers, through its public interface alone.

    python tests/parity/run.py DIR [--tag T]… [--quantity Q]… [--case ID]… [--json FILE] [--markdown FILE] [@ARGUMENTS]

DIR holds data/ and cases/; @ARGUMENTS is a file with one argument per line (built.txt asks for what is built so far). Prints, per
quantity, how many numbers there are, were compared, fail, are not built (bossa says so itself), and the worst error with its case. Exits
with 1 when anything it was asked about fails, is not built, or nothing could be compared, with 2 when asked for something unknown.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import warnings
from pathlib import Path

import readers  # noqa: F401  registers every reader
from corpus import load_cases
from ledger import Ledger
from quantities import names

import report


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__.split("\n")[0], fromfile_prefix_chars="@")
    parser.add_argument("dir", type=Path, help="corpus: data/ and cases/")
    parser.add_argument("--tag", action="append", default=[], help="only cases with this tag; several: with any of them")
    parser.add_argument("--quantity", action="append", default=[], help="only this quantity; several: any of them")
    parser.add_argument("--case", action="append", default=[], help="only this case")
    parser.add_argument("--json", type=Path, help="write the account here")
    parser.add_argument("--markdown", type=Path, help="write the page for the docs here")
    asked = parser.parse_args(argv)
    known = names()
    for quantity in asked.quantity:
        if quantity not in known:
            near = difflib.get_close_matches(quantity, known, n=1)
            parser.error(f"no quantity {quantity!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"))
    return asked


def main(argv: list[str]) -> int:
    asked = arguments(argv)
    cases = load_cases(asked.dir, asked.tag, asked.case)
    if not cases:
        print(f"no case in {asked.dir} fits what was asked", file=sys.stderr)
        return 2
    ledger = Ledger()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what bossa says about convergence or data is not what is compared here
        for case in cases:
            ledger.enter(case, set(asked.quantity))
    order = names()
    print(report.text(ledger, order, len(cases)))
    if asked.json:
        asked.json.write_text(json.dumps(report.as_json(ledger, order), indent=1), encoding="utf-8")
    if asked.markdown:
        asked.markdown.write_text(report.markdown(ledger, order, len(cases)), encoding="utf-8")
    total = ledger.total()
    return 1 if total.failing or total.not_built or ledger.unclaimed or not total.compared else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
