"""The tables of a comparison: CSV, LaTeX, and text cells for the page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence

from vitrail.compare.collect import CellResult, Comparison, Difference, deviation
from vitrail.tasks import Score

LATEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}"} | {c: f"\\{c}" for c in "&%$#_"}
LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "–": "--"}

COMPUTED_BY = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "simulated": "simulated"}

Text = Callable[[CellResult], str]
"""Function from a cell to its text in a column."""


def csv_table(comparison: Comparison) -> str:
    """One row per cell and seed, with raw numbers, for other programs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    measured = ("latency_ms", "cpu_ms", "peak_memory_mb", "energy_mj")
    own = ("collapse", "consistency", "shifted_top1")
    writer.writerow(
        ["cell", "model", "seed", comparison.score.name, "mcnemar_p", "mcnemar_p_to_float", *own]
        + ["quantization", "computed_by", "weight_bits", "activation_bits", "size_bytes", "params", "macs"]
        + [f"{name}_{runtime}" for runtime in comparison.runtimes for name in measured]
    )
    for cell in comparison.cells:
        named = "" if cell.quantization is None else cell.quantization["name"]
        facts = [named, cell.computed_by, cell.weight_bits, cell.activation_bits, cell.size_bytes]
        facts += [cell.params, cell.macs, *(value for name in comparison.runtimes for value in _measured(cell, name))]
        tests = [() if one is None else one.p_values for one in (cell.difference, cell.float_difference)]
        columns_ = (cell.scores, *tests, *(getattr(cell, name) for name in own))
        for index, seed in enumerate(comparison.seeds):
            writer.writerow([cell.name, cell.model, seed, *(_at(values, index) for values in columns_), *facts])
    return out.getvalue()


def _measured(cell: CellResult, runtime: str) -> list[float | None]:
    row = cell.measured_in(runtime)
    if row is None:
        return [None] * 4
    energy = row.energy.energy_mj if row.energy else None
    return [row.latency_ms_median, row.cpu_ms_median, row.peak_memory_mb, energy]


def _at(values: Sequence[float], index: int) -> float | str:
    return values[index] if values else ""


def columns(comparison: Comparison) -> list[str]:
    """Headings of :func:`rows`."""
    return [heading for heading, _ in _columns(comparison)]


def rows(comparison: Comparison) -> list[list[str]]:
    """One row of texts per cell; see :func:`columns`."""
    texts = [text for _, text in _columns(comparison)]
    return [[text(cell) for text in texts] for cell in comparison.cells]


def _columns(comparison: Comparison) -> list[tuple[str, Text]]:
    cells, score = comparison.cells, comparison.score
    factor, digits = scale_of(score)
    found: list[tuple[str, Text]] = [
        ("model", lambda cell: cell.label),
        (heading_of(score), lambda cell: spread(cell.scores, factor, digits)),
        *([("computed by", lambda cell: COMPUTED_BY[cell.computed_by])] if comparison.quantized else []),
        *_difference_columns(comparison, "", lambda cell: cell.difference),
    ]
    if comparison.quantized:
        found += _difference_columns(comparison, " to float", lambda cell: cell.float_difference)
        found += [
            ("bits W/A", lambda cell: f"{cell.weight_bits:.3g}/{cell.activation_bits:.3g}"),
            ("file MB", lambda cell: _number(cell.size_bytes, 1e-6, ".3f")),
        ]
    found += [
        ("parameters", lambda cell: f"{cell.params / 1e6:.3f} M"),
        ("MACs", lambda cell: f"{cell.macs / 1e6:.1f} M"),
    ]
    if any(cell.collapse for cell in cells):
        found.append(("token similarity", lambda cell: spread(cell.collapse, 1, 3)))
    if any(cell.consistency for cell in cells):
        found.append(("top-1, shifted (%)", lambda cell: spread(cell.shifted_top1, 100, 1)))
        found.append(("consistency (%)", lambda cell: spread(cell.consistency, 100, 1)))
    for runtime in comparison.runtimes:
        found += _measured_columns(comparison, runtime)
    found.append(("on the front of", lambda cell: _fronts(comparison, cell)))
    return found


def _difference_columns(
    comparison: Comparison, to: str, difference: Callable[[CellResult], Difference | None]
) -> list[tuple[str, Text]]:
    factor, digits = scale_of(comparison.score)
    unit = " (points)" if comparison.score.percent else ""

    def tests(cell: CellResult) -> str:
        one = difference(cell)
        return "–" if one is None else ", ".join(f"{p:.2g}" for p in one.p_values)

    spread_known = comparison.per_image or len(comparison.seeds) > 1
    found: list[tuple[str, Text]] = [
        (f"difference{to}{unit}", lambda cell: _interval(difference(cell), factor, digits, spread_known))
    ]
    return [*found, (f"McNemar p{to}", tests)] if comparison.per_image else found


def _measured_columns(comparison: Comparison, runtime: str) -> list[tuple[str, Text]]:
    def value(cell: CellResult, index: int, form: str) -> str:
        return _number(_measured(cell, runtime)[index], 1, form)

    found: list[tuple[str, Text]] = [
        (f"CPU ms, {runtime}", lambda cell: value(cell, 1, ".2f")),
        (f"memory MB, {runtime}", lambda cell: value(cell, 2, ".0f")),
    ]
    measured = [row for cell in comparison.cells if (row := cell.measured_in(runtime)) is not None]
    sources = sorted({row.energy.source for row in measured if row.energy})
    if sources:
        found.append((f"energy mJ, {runtime} ({', '.join(sources)})", lambda cell: value(cell, 3, ".3g")))
    return found


def _number(value: float | None, factor: float, form: str) -> str:
    return "–" if value is None else format(factor * value, form)


def _fronts(comparison: Comparison, cell: CellResult) -> str:
    words = {"params": "parameters", "macs": "MACs", "size_bytes": "size"}
    won = [cost for cost, front in comparison.fronts.items() if cell.name in front]
    return ", ".join(words.get(cost, cost.replace("cpu_ms", "CPU")) for cost in won) or "–"


def scale_of(score: Score) -> tuple[float, int]:
    """Factor and number of digits of a displayed score."""
    return (100, 1) if score.percent else (1, 3)


def heading_of(score: Score) -> str:
    """Title of a score with its unit."""
    return f"{score.title} (%)" if score.percent else score.title


def spread(values: Sequence[float], factor: float, digits: int) -> str:
    """Mean ± standard deviation over the seeds; one seed has no deviation, and no value is a dash."""
    if not values:
        return "–"
    mean, sd = factor * sum(values) / len(values), factor * deviation(values)
    return f"{mean:.{digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{digits}f}")


def _interval(difference: Difference | None, factor: float, digits: int, spread_known: bool) -> str:
    if difference is None:
        return "–"
    found = difference.interval
    mean, low, high = (f"{factor * value:+.{digits}f}" for value in (found.mean, found.low, found.high))
    return (f"{mean} [{low}, {high}]" if spread_known else mean).replace("-", "−")


def latex_table(comparison: Comparison) -> str:
    """A ``tabular`` with the rules of booktabs; text is escaped."""
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
