"""Export every family's smallest variant to every format, and write down how far each file is from PyTorch.

    python benchmarks/export_matrix.py                                  # everything that is installed
    python benchmarks/export_matrix.py --formats litert --families vit  # some cells; the others stay as they are

Updates docs/results/export_matrix.json and the table that docs/exporting.md has of it. Weights are random, and lively:
with the initial ones of some papers hardly anything reaches the logits. Images are photographs of the sample.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.bench import environment
from vitrail.core.errors import ExportError, MissingDependencyError
from vitrail.core.files import write_json, write_text
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, calibration_images, load_data
from vitrail.export import FORMATS, export_model
from vitrail.models import FAMILIES, Backbone, create_model
from vitrail.runs.run import Run

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "export_matrix.json"
PAGE = ROOT / "docs" / "exporting.md"
BEGIN, END = "<!-- matrix: begin -->\n", "<!-- matrix: end -->\n"
Cell = dict[str, Any]
"""family, variant, format, runtime, max_relative_error (None where nothing ran the file), reason (of a failure)."""


def smallest(family: str) -> str:
    """The family's variant for small images."""
    return next(name for name in FAMILIES[family].ours if "nano" in name)


def lively(name: str) -> Backbone:
    """A model whose output depends on all of it."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=10)
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval()


def photographs(model: Backbone, count: int = 4) -> Tensor:
    """Images of the sample as the model expects them."""
    return calibration_images(load_data(DataConfig()).held_out, _preprocessing(model), count, 0)


def export_cell(family: str, format: str) -> Cell:
    """Export, verify at 1e-3, and say how it went.

    Raises:
        MissingDependencyError: the format's extra is not installed.
    """
    name = smallest(family)
    model = lively(name)
    cell: Cell = {"family": family, "variant": name, "format": format}
    with tempfile.TemporaryDirectory() as folder:
        try:
            record = export_model(
                model,
                Run(Path(folder)).exported(format),
                format=format,
                preprocessing=_preprocessing(model),
                classes=[f"sign {index}" for index in range(10)],
                images=photographs(model),
                tolerance=1e-3,
            )
        except MissingDependencyError:
            raise
        except ExportError as failure:
            return cell | {"runtime": None, "max_relative_error": None, "reason": str(failure)}
    return cell | {"runtime": record.runtime, "max_relative_error": record.max_relative_error, "reason": None}


def table(results: dict[str, Any]) -> str:
    """The Markdown between the marks of docs/exporting.md."""
    cells = {(cell["family"], cell["format"]): cell for cell in results["cells"]}
    formats = [format for format in FORMATS if any(key[1] == format for key in cells)]
    lines = [
        "| Smallest variant | " + " | ".join(FORMATS[format].title for format in formats) + " |",
        "|---|" + "---|" * len(formats),
    ]
    for family in FAMILIES:
        row = [_shown(cells.get((family, format))) for format in formats]
        lines.append(f"| `{smallest(family)}` | " + " | ".join(row) + " |")
    failed = [cell for cell in results["cells"] if cell["reason"]]
    reasons = [f"- `{cell['variant']}`, {FORMATS[cell['format']].title}: {cell['reason']}" for cell in failed]
    runtimes = sorted({cell["runtime"] for cell in results["cells"] if cell["runtime"]})
    lines += ["", *(["Not supported, with the runtime's reason:", "", *reasons, ""] if reasons else [])]
    lines += [
        f"(`python benchmarks/export_matrix.py` on {results['machine']}, {results['date']}; {', '.join(runtimes)}.)"
    ]
    return "\n".join(lines) + "\n"


def page_with(text: str, results: dict[str, Any]) -> str:
    """docs/exporting.md with the table of these results."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table(results) + END + rest.split(END)[1]


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return "not tried"
    if cell["reason"]:
        return "**no**"
    return "converted" if cell["max_relative_error"] is None else f"{cell['max_relative_error']:.1e}"


def _preprocessing(model: Backbone) -> Preprocessing:
    return Preprocessing(image_size=model.config.image_size, crop_fraction=1.0)


def _record(cell: Cell, machine: str) -> None:
    """Put a cell in its place; another process may be adding others."""
    known = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else []
    place = {(family, format): i for i, (family, format) in enumerate(itertools.product(FAMILIES, FORMATS))}
    cells = {place[c["family"], c["format"]]: c for c in [*known, cell]}
    results = {
        "machine": machine,
        "date": str(datetime.now(UTC).date()),
        "cells": [cells[index] for index in sorted(cells)],
    }
    write_json(RESULTS, results)
    write_text(PAGE, page_with(PAGE.read_text(), results))


def _this_machine() -> str:
    place = environment()
    return f"{place['cpu']}, {place['cores']} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--machine", default=_this_machine(), help="how the page calls this machine")
    parser.add_argument("--skip-known", action="store_true", help="leave cells alone that the file has")
    options = parser.parse_args()
    for format in options.formats.split(","):
        for family in options.families.split(","):
            known = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else []
            if options.skip_known and any((c["family"], c["format"]) == (family, format) for c in known):
                continue
            try:
                cell = export_cell(family, format)
            except MissingDependencyError as missing:
                print(f"{format}: {missing}")
                break
            _record(cell, options.machine)
            print(f"{family:12} {format:12} {cell['reason'] or cell['max_relative_error']}", flush=True)


if __name__ == "__main__":
    main()
