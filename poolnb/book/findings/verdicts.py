"""Every verdict of the book, with the numbers and the rules that it rests on, pinned in one file.

    python -m poolnb.book.findings.verdicts

writes `book/experiments/verdicts.json` from the records. A test computes it anew and compares, so that no record,
margin or rule changes unnoticed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from poolnb.book.findings import advice, evidence, facts, ledger, tdgs
from poolnb.lab import analysis
from poolnb.lab.provenance import BOOK
from poolnb.lab.statistics import Interval

PINNED = BOOK / "experiments" / "verdicts.json"


def computed(ids: Iterable[str] | None = None) -> dict[str, Any]:
    """The rules, the verdict on each claim (default: all) with its parts, and each comparison of many poolers."""
    wanted = [claim for claim in ledger.claims() if ids is None or claim.id in set(ids)]
    return {
        "rules": rules(),
        "claims": {claim.id: _claim(ledger.judge(claim)) for claim in wanted},
        "comparisons": {name: _comparison(found) for name, found in comparisons().items()} if ids is None else {},
    }


def rules() -> dict[str, Any]:
    """The numbers that the rules use."""
    return {
        "probability of any wrong interval in a study": analysis.ALPHA,
        "margin in points": analysis.MARGIN,
        "seeds for a verdict": analysis.ENOUGH,
        "looks": list(analysis.LOOKS),
        "looks at a backbone": list(ledger.BACKBONE_LOOKS),
        "small overhead in percent": ledger.SMALL,
        "collapse in points": ledger.COLLAPSE,
        "training succeeds above percent": ledger.TRAINS,
        "a larger learning rate is by the factor": ledger.LARGER,
        "nearly the maximum from percent": facts.NEARLY,
        "points claimed for tdgs": dict(tdgs.CLAIMED),
    }


def comparisons() -> dict[str, analysis.Comparison | None]:
    """The studies that compare many poolers with one."""
    found = {f"{title}, against max": one for title, one in advice.studies().items()}
    found["ResNet-20, CIFAR-10, second look, against max"] = ledger.second_look()
    found["ResNet-20, CIFAR-10, replication, against max"] = ledger.replication()
    found["300 digits, against avg"] = evidence.compared(evidence.few_digits(), baseline="avg")
    for dataset, title in tdgs.TITLES.items():
        found[f"{title}, recipe"] = tdgs.against_max(dataset)
    return found


def _claim(row: ledger.Row) -> dict[str, Any]:
    parts = [
        {"what": one.what, **_numbers(one.interval), "unit": one.unit, "found": one.word, "verdict": one.verdict}
        for one in row.findings
    ]
    return {"verdict": row.verdict, "beside": list(row.beside), "findings": parts}


def _comparison(found: analysis.Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    rows = {str(name): {**_numbers(one), "verdict": one.verdict} for name, one in found.intervals.items()}
    return {"against": str(found.baseline), "residual sd": _rounded(found.sd), "df": found.df, "poolers": rows}


def _numbers(one: Interval | None) -> dict[str, Any]:
    return {} if one is None else {**{k: _rounded(getattr(one, k)) for k in ("mean", "low", "high")}, "n": one.n}


def _rounded(value: float) -> float | None:
    """To four decimals: the last digits of sums are not the same on every CPU."""
    return None if math.isnan(value) else round(value, 4) + 0.0


def text() -> str:
    """What the file holds if the records are as they are."""
    return json.dumps(computed(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file."""
    PINNED.write_text(text(), encoding="utf-8")
    print(f"written: {PINNED.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
