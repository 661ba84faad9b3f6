"""One Markdown table a model from the JSON lines of the quantisation benchmarks, ours and the peers'.

    python benchmarks/quantization_table.py ours.jsonl peers.jsonl

Every line is a result: model, method, bits, seed, top1, n, executed, size_bytes, seconds; agreement and sqnr_db if they
were measured; or model, method, seed, error. What was simulated stands in a table of its own, below what a runtime
executed, and the float model is what drops are counted from.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

Row = dict[str, Any]

HEADER = "| method | bits | top-1 | drop | 95 % interval | agreement | size | seconds | seeds |"
Z = 1.959964
"""Two-sided 95 % of the normal distribution."""


def interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n images; it says nothing of the choice of calibration images."""
    centre, scale = share + Z * Z / (2 * n), 1 + Z * Z / n
    width = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (centre - width) / scale, (centre + width) / scale


def tables(rows: Iterable[Row]) -> str:
    """Markdown: for every model what was executed, then what was simulated, then what failed."""
    models: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        models[row["model"]].append(row)
    parts = []
    for model, found in models.items():
        reference = next((row for row in found if row.get("bits") == "float"), None)
        measured = [row for row in found if "top1" in row]
        for title, executed in (("executed", True), ("simulated", False)):
            some = [row for row in measured if bool(row["executed"]) is executed]
            if some:
                parts.append(f"### {model}: {title}\n\n{_table(some, reference)}")
        failures = {(row["method"], row["error"]) for row in found if "error" in row}
        parts += [f"{model}: {method} failed: {error}" for method, error in sorted(failures)]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row], reference: Row | None) -> str:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["method"], row["bits"]].append(row)
    lines = [HEADER, "|---|---|---|---|---|---|---|---|---|"]
    return "\n".join(lines + [_line(method, bits, group, reference) for (method, bits), group in groups.items()])


def _line(method: str, bits: str, group: Sequence[Row], reference: Row | None) -> str:
    shares = [100 * row["top1"] for row in group]
    top1 = mean(shares)
    spread = f" ({min(shares):.2f} to {max(shares):.2f})" if len(group) > 1 else ""
    low, high = (100 * end for end in interval(top1 / 100, group[0]["n"]))
    drop = f"{100 * reference['top1'] - top1:+.2f}" if reference else ""
    agreement = [row["agreement"] for row in group if "agreement" in row]
    sizes = [row["size_bytes"] for row in group if row["size_bytes"]]  # what is simulated has no file
    size = f"{mean(sizes) / reference['size_bytes']:.2f}x" if reference and sizes else ""
    cells = (
        method,
        bits,
        f"{top1:.2f}{spread}",
        drop,
        f"{low:.1f} to {high:.1f}",
        f"{100 * mean(agreement):.2f}" if agreement else "",
        size,
        f"{mean(row['seconds'] for row in group):.0f}",
        str(len(group)),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+")
    options = parser.parse_args()
    lines = [line for path in options.rows for line in path.read_text(encoding="utf-8").splitlines()]
    print(tables(json.loads(line) for line in lines), end="")


if __name__ == "__main__":
    main()
