"""Published values from a CSV or YAML file, shown beside measured ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.core.errors import ConfigError
from vitrail.core.files import read_text, read_yaml

COSTS = ("latency_ms", "energy_mj", "size_mb")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A published result.

    Attributes:
        label: name of the result, e.g. "EdgeViT-XXS, paper, iPhone 12".
        accuracy: top-1 as a share.
        latency_ms, energy_mj, size_mb: latency and energy of one image, size of the file; None if not published.
        source: publication with the values.
    """

    label: str
    accuracy: float
    latency_ms: float | None = None
    energy_mj: float | None = None
    size_mb: float | None = None
    source: str = ""


def read_references(path: Path) -> list[Reference]:
    """Rows of ``label``, ``accuracy`` (a share, or percent if above 1), any of the costs, and ``source``.

    Raises:
        ConfigError: the file cannot be read, or a row lacks a label or an accuracy, or has a bad or an unknown value.
    """
    if path.suffix in (".yaml", ".yml"):
        rows = read_yaml(path, title="reference points", error=ConfigError)
    else:
        try:
            rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"reference points {path} cannot be read: {reason}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"reference points {path} are no list of rows with label and accuracy")
    return [_reference(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def _reference(row: Mapping[Any, Any], place: str) -> Reference:
    known = {"label", "accuracy", "source", *COSTS}
    if unknown := [str(key) for key in row if key not in known]:
        raise ConfigError(f"{place} has '{unknown[0]}'; known are {', '.join(sorted(known))}")
    accuracy = _number(row, "accuracy", place)
    if accuracy is None or not str(row.get("label") or "").strip():
        raise ConfigError(f"{place} needs a label and an accuracy")
    return Reference(
        label=str(row["label"]).strip(),
        accuracy=accuracy / 100 if accuracy > 1 else accuracy,
        source=str(row.get("source") or ""),
        **{name: _number(row, name, place) for name in COSTS},
    )


def _number(row: Mapping[Any, Any], name: str, place: str) -> float | None:
    text = row.get(name)
    if text is None or text == "":
        return None
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 < value < 1e12 or (name == "accuracy" and value > 100):
        raise ConfigError(f"{place}: {name}='{text}' is no positive number" + (" up to 100" * (name == "accuracy")))
    return value
