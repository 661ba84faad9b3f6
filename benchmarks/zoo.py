"""The table of all models: what they cost, what they were published with, what they take here.

    python benchmarks/zoo.py                                   # from what was counted and measured before
    python benchmarks/latency.py --name zoo --models NAME ...  # times of more models, on a quiet machine
    python benchmarks/zoo.py --latency zoo                     # with these times

Writes docs/results/models.json and docs/models.md. Parameters and MACs are counted, weights and published accuracies
are those of the families' files, times are those of docs/results/latency.json (--latency for another file), and 8-bit
files those of docs/results/integer-speed.md. What was not measured stays empty.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from vitrail.core.files import read_json, write_json, write_text
from vitrail.models import FAMILIES
from vitrail.models.complexity import variant_complexity

DOCS = Path(__file__).parents[1] / "docs"
RUNTIMES = ("torch", "onnxruntime", "openvino")


def integer_files(text: str) -> dict[str, dict[str, float]]:
    """Variant -> megabytes of its 8-bit file, and milliseconds in each runtime, from the page of that measurement.

    Args:
        text: tables of ``runtime | file | ms | of float32 | MB | of float32`` under headings of variant and size.
    """
    found: dict[str, dict[str, float]] = {}
    for heading, table in re.findall(r"^### (\w+)\n\n((?:\|.*\n)+)", text, re.MULTILINE):
        name, _, size = heading.rpartition("_")
        cells = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in table.splitlines()]
        if not size.isdigit() or cells[0][:5] != ["runtime", "file", "ms", "of float32", "MB"]:
            continue
        rows = {row[0]: row for row in cells if row[1] == "int8"}
        found[name] = {"mb": float(rows["onnxruntime"][4])} | {one: float(row[2]) for one, row in rows.items()}
    return found


def rows_of(latency: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each variant, the families in the order of the registry.

    Args:
        latency: the contents of a file that ``benchmarks/latency.py`` wrote.
    """
    integers = integer_files((DOCS / "results" / "integer-speed.md").read_text(encoding="utf-8"))
    times = {(row["model"], row["runtime"]): row["cpu_ms"] for row in latency["rows"] if not row["failure"]}
    rows = []
    for family in FAMILIES.values():
        for name, config in family.variants.items():
            cost = variant_complexity(name)
            best = max(
                (one for one in family.weights.get(name, ()) if one.top1), key=lambda one: one.top1, default=None
            )
            rows.append(
                {
                    "name": name,
                    "family": family.name,
                    "paper": family.publication(name).place,
                    "ours": name in family.ours,
                    "image_size": list(config.image_size),
                    "params": cost.params,
                    "macs": cost.macs,
                    "weights": [one.hub_id for one in family.weights.get(name, ())],
                    "top1": best.top1 if best else None,
                    "top1_size": list(best.image_size) if best else None,
                    "top1_source": best.source if best else "",
                    "cpu_ms": {runtime: times.get((name, runtime)) for runtime in RUNTIMES},
                    "int8": integers.get(name),
                }
            )
    return rows


def page(results: dict[str, Any]) -> str:
    """The page of the table."""
    rows = results["rows"]
    published = [row for row in rows if not row["ours"]]
    families = len({row["family"] for row in rows})
    with_weights = sum(bool(row["weights"]) for row in rows)
    lines = [
        "# Models",
        "",
        f"{len(rows)} variants of {families} families. {with_weights} of them have public weights.",
        "`--weights pretrained` downloads them.",
        "`vitrail models NAME` shows paper, code, licence and every file of weights.",
        "",
        *("## Published variants", "", *_table(published)),
        "",
        *(
            "## Vitrail's own",
            "",
            "Variants that no paper published; the narrow ones train on a processor in minutes.",
            "",
        ),
        *_table([row for row in rows if row["ours"]]),
        "",
        *("## What the columns say", ""),
        "- **MACs**: multiply-accumulates (10^9) for one image of the native size.",
        "- **weights**: number of files on the Hugging Face hub.",
        "- **top-1**: ImageNet-1K accuracy in percent of public weights, as the paper or the authors' model zoo states",
        "  it, and the image size if it is not the native one. Of several the best is given. It is not measured here.",
        "- **torch, ONNX Runtime, OpenVINO**: milliseconds of processor time for one image of the native size in",
        f"  float32, one thread, on {results['machine']}, {results['date']} ([how](results/latency.md)).",
        "- **int8**: the 8-bit ONNX file of `vitrail quantize`, and milliseconds in ONNX Runtime / OpenVINO, measured",
        "  [beside its float file](results/integer-speed.md).",
        "",
        "An empty cell is not known or was not measured. What 8 bits cost in accuracy is measured for",
        "[a few of them](results/quantization.md).",
        "",
        f"(`python benchmarks/zoo.py`, times by `{results['command']}`.)",
    ]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    names = ("Variant", "Size", "Parameters (10^6)", "MACs (10^9)", "Weights", "Top-1")
    head = (*names, "torch", "ONNX Runtime", "OpenVINO", "int8")
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *map(_line, rows)]


def _line(row: dict[str, Any]) -> str:
    height, width = row["image_size"]
    top1 = "" if row["top1"] is None else f"{row['top1']:.1f}"
    if top1 and row["top1_size"] != row["image_size"]:
        top1 += f" at {row['top1_size'][0]}"
    times = ["" if row["cpu_ms"][name] is None else f"{row['cpu_ms'][name]:.1f}" for name in RUNTIMES]
    int8 = row["int8"]
    times.append("" if not int8 else f"{int8['mb']:.1f} MB, {int8['onnxruntime']:.1f} / {int8['openvino']:.1f} ms")
    size = f"{height}" if height == width else f"{height}x{width}"
    cells = [f"`{row['name']}`", size, f"{row['params'] / 1e6:.2f}", f"{row['macs'] / 1e9:.2f}"]
    return f"| {' | '.join([*cells, str(len(row['weights']) or ''), top1, *times])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", default="latency", help="name of a file in docs/results, without .json")
    given = parser.parse_args()
    latency = read_json(DOCS / "results" / f"{given.latency}.json")
    facts = {name: latency[name] for name in ("command", "machine", "date", "versions")}
    results = facts | {"rows": rows_of(latency)}
    write_json(DOCS / "results" / "models.json", results)
    write_text(DOCS / "models.md", page(results))


if __name__ == "__main__":
    main()
