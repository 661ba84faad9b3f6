"""Models to start from, as a table for Python."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitrail.data import DataConfig
from vitrail.report.rows import Columns, Rows
from vitrail.report.written import megabytes, number
from vitrail.runs.model_choice import choose_models
from vitrail.runs.model_rows import ModelChoiceConfig, ModelRow
from vitrail.runs.settings import configured

COLUMNS: Columns = {
    "model": lambda row: row.model,
    "weights": lambda row: row.place,
    "pixels": lambda row: "x".join(map(str, row.image_size)),
    "size": lambda row: megabytes(row.size_bytes),
    "ms": lambda row: number(row.latency_ms) + "*" * row.contended,
    "timed": lambda row: row.timed or "no",
    "why": lambda row: row.why,
}


def recommend_models(data: str | Path | DataConfig, **settings: Any) -> Rows[ModelRow]:
    """Name models to start from, for images and limits, before anything is trained.

    Args:
        data: folder of images, or a whole configuration of the data.
        **settings: options of ``vitrail models --recommend``, such as ``max_latency_ms`` or ``measure``; fields of
            :class:`~vitrail.runs.model_rows.ModelChoiceConfig` and :class:`vitrail.DataConfig`.

    Returns:
        a row for each model, the one to start with first; the last of ``notes`` is the command that trains it.

    Raises:
        VitrailError: the images are unusable, or no model is within the limits.
    """
    source = asdict(data) if isinstance(data, DataConfig) else {"path": os.fspath(data)}
    config = configured(ModelChoiceConfig, settings, {"data": source})
    choice = choose_models(config, progress=sys.stderr is not None and sys.stderr.isatty())
    return Rows(choice.rows, COLUMNS, [*choice.notes, f"Next: {choice.next_command}"])
