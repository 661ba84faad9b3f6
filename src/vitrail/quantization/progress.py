"""What is rounded and trained already, on disk, so that a long quantisation goes on after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vitrail.core.errors import VitrailError
from vitrail.core.files import read_json, write_json
from vitrail.quantization.config import QuantizationConfig
from vitrail.quantization.plan import Rounded
from vitrail.quantization.reconstruction import Tuned


@dataclass
class Saved:
    """What is known already.

    Attributes:
        path: of the file; None keeps nothing.
        key: tells whether a file belongs to the same model and choices.
        rounded: weight operand -> its codes.
        tuned: first node of a segment -> what its training decided.
    """

    path: Path | None
    key: dict[str, Any]
    rounded: dict[str, Rounded] = field(default_factory=dict)
    tuned: dict[str, Tuned] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def open(cls, path: Path | None, fingerprint: str, config: QuantizationConfig) -> Iterator[Saved]:
        """Go on from ``path`` if it belongs to the same model and choices; remove it when all is done."""
        values = asdict(config)
        saved = cls(path, {"fingerprint": fingerprint, "config": values | {"keep_float": list(config.keep_float)}})
        if path is not None and path.exists():
            saved.rounded, saved.tuned = _read(path, saved.key)
        yield saved
        if path is not None:
            path.unlink(missing_ok=True)

    def add(self, name: str, rounded: Rounded) -> None:
        """Keep one more rounded weight."""
        self.rounded[name] = rounded
        self._write()

    def add_tuned(self, name: str, tuned: Tuned) -> None:
        """Keep one more trained segment."""
        self.tuned[name] = tuned
        self._write()

    def _write(self) -> None:
        if self.path is not None:
            rounded = {name: each.to_dict() for name, each in self.rounded.items()}
            tuned = {name: each.to_dict() for name, each in self.tuned.items()}
            write_json(self.path, self.key | {"rounded": rounded, "tuned": tuned})


def _read(path: Path, key: dict[str, Any]) -> tuple[dict[str, Rounded], dict[str, Tuned]]:
    """Nothing, if the file is of another model or choice, or damaged: then it is made again."""
    try:
        values = read_json(path)
        if {name: values.get(name) for name in key} != key:
            return {}, {}
        rounded = {name: Rounded.from_dict(row) for name, row in values["rounded"].items()}
        return rounded, {name: Tuned.from_dict(row) for name, row in values["tuned"].items()}
    except (VitrailError, AttributeError, KeyError, TypeError):
        return {}, {}
