"""A comparison as a table: once as text cells, for CSV, LaTeX and the page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from vitrail.compare.collect import CellResult, Comparison, deviation

LATEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}"} | {c: f"\\{c}" for c in "&%$#_"}
LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "–": "--"}


def csv_table(comparison: Comparison) -> str:
    """One row a cell and seed, with raw numbers, for other programs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    runtimes = [row.runtime for row in comparison.cells[0].measurements]
    measured = [f"{name}_{runtime}" for runtime in runtimes for name in ("latency_ms", "cpu_ms", "peak_memory_mb")]
    own = ("collapse", "consistency", "shifted_top1")
    writer.writerow(["cell", "model", "seed", "top1", "mcnemar_p", *own, "params", "macs", *measured])
    for cell in comparison.cells:
        numbers = [
            value
            for row in cell.measurements
            for value in (row.latency_ms_median, row.cpu_ms_median, row.peak_memory_mb)
        ]
        for index, seed in enumerate(comparison.seeds):
            values = [_at(getattr(cell, name), index) for name in ("top1", "p_values", *own)]
            writer.writerow([cell.name, cell.model, seed, *values, cell.params, cell.macs, *numbers])
    return out.getvalue()


def _at(values: Sequence[float], index: int) -> float | str:
    return values[index] if values else ""


def columns(comparison: Comparison) -> list[str]:
    """Headings of :func:`rows`."""
    first = comparison.cells[0]
    names = ["model", "top-1 (%)", "difference (points)", "McNemar p", "parameters", "MACs"]
    names += ["token similarity"] if first.collapse else []
    names += ["top-1, shifted (%)", "consistency (%)"] if first.consistency else []
    for row in first.measurements:
        names += [f"CPU ms, {row.runtime}", f"memory MB, {row.runtime}"]
        names += [f"energy mJ, {row.runtime} ({row.energy.source})"] if row.energy else []
    return names


def rows(comparison: Comparison) -> list[list[str]]:
    """A row of text a cell; see :func:`columns`."""
    return [_row(cell) for cell in comparison.cells]


def _row(cell: CellResult) -> list[str]:
    texts = [cell.name, spread(cell.top1, 100, 1), _difference(cell)]
    texts.append(", ".join(f"{p:.2g}" for p in cell.p_values) or "–")
    texts += [f"{cell.params / 1e6:.3f} M", f"{cell.macs / 1e6:.1f} M"]
    texts += [spread(cell.collapse, 1, 3)] if cell.collapse else []
    texts += [spread(cell.shifted_top1, 100, 1), spread(cell.consistency, 100, 1)] if cell.consistency else []
    for row in cell.measurements:
        texts.append("–" if row.cpu_ms_median is None else f"{row.cpu_ms_median:.2f}")
        texts.append("–" if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f}")
        if row.energy:
            texts.append("–" if row.energy.energy_mj is None else f"{row.energy.energy_mj:.3g}")
    return texts


def spread(values: Sequence[float], factor: float, digits: int) -> str:
    """Mean ± standard deviation over the seeds; one seed has no deviation."""
    mean, sd = factor * sum(values) / len(values), factor * deviation(values)
    return f"{mean:.{digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{digits}f}")


def _difference(cell: CellResult) -> str:
    if cell.difference is None:
        return "–"
    mean, low, high = (100 * value for value in (cell.difference.mean, cell.difference.low, cell.difference.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")


def latex_table(comparison: Comparison) -> str:
    """A `tabular` with booktabs' rules; text is escaped."""
    head = columns(comparison)
    lines = [
        f"% {comparison.question}",
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        "\\toprule",
        _latex_row(head),
        "\\midrule",
        *(_latex_row(row) for row in rows(comparison)),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(texts: Sequence[str]) -> str:
    escaped = ("".join(LATEX.get(character, character) for character in text) for text in texts)
    return " & ".join(escaped) + r" \\"
