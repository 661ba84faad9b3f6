"""What can be measured: a model in a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something to measure.

    Attributes:
        runtime: a name in :data:`~vitrail.runtimes.table.MEASURED`.
        variant: "float", "int8", ...; candidates of one run and variant are one model, and must give the same answers.
        source: the model, as :func:`~vitrail.runtimes.open_session` takes it; memory is measured for files and folders.
        file: the file that a user would ship, for its name and size; None if there is none.
        run: name of the run that it belongs to, where several are compared.
        image_shape: shape (c, h, w) of the images, where it is not the same for all candidates.
        row_parts: number of channels of each part of an output row, where the outputs are sets of rows; else empty.
        failure: why it cannot be measured; its row has this reason, and nothing is loaded. None if it can.
    """

    runtime: str
    variant: str
    source: Any
    file: Path | None = None
    run: str = ""
    image_shape: tuple[int, int, int] | None = None
    row_parts: tuple[int, ...] = ()
    failure: str | None = None

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.variant}"

    @property
    def label(self) -> str:
        """The name, with the run where there are several."""
        return f"{self.run}/{self.name}" if self.run else self.name
