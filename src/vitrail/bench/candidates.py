"""What can be measured: a source in a runtime, and everything that a run has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitrail.bench.session import FILE_FORMATS
from vitrail.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something to measure.

    Attributes:
        runtime: a name in :data:`~vitrail.bench.session.RUNTIMES`.
        variant: "float", "int8", ...
        source: what :func:`~vitrail.bench.session.open_session` takes; memory is measured only for paths.
        file: the file that a user would ship, for its name and size; None if there is none.
        run: the run that it belongs to, where several are compared.
        image_shape: (c, h, w) of the images, where it is not the same for all candidates.
    """

    runtime: str
    variant: str
    source: Any
    file: Path | None = None
    run: str = ""
    image_shape: tuple[int, int, int] | None = None

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.variant}"

    @property
    def label(self) -> str:
        """The name, with the run where there are several."""
        return f"{self.run}/{self.name}" if self.run else self.name


def run_candidates(run: Run, runtimes: Sequence[str]) -> list[Candidate]:
    """The candidates of a run: runtimes times the files that each of them takes."""
    candidates = []
    for runtime in runtimes:
        if runtime in FILE_FORMATS:
            format = FILE_FORMATS[runtime]
            variants = onnx_variants(run) if format == "onnx" else ["float"]
            files = {variant: run.exported(format, variant) for variant in variants}
            candidates += [Candidate(runtime=runtime, variant=v, source=file, file=file) for v, file in files.items()]
        else:
            candidates.append(Candidate(runtime=runtime, variant="float", source=run.folder, file=run.weights))
    return [replace(candidate, image_shape=input_shape(run)) for candidate in candidates]


def input_shape(run: Run) -> tuple[int, int, int]:
    """(c, h, w) of what the run's files take; for nearly all tasks, an image."""
    description = run.read()
    channels, height, width = description.get("input_shape") or (3, *description["preprocessing"]["image_size"])
    return channels, height, width


def onnx_variants(run: Run) -> list[str]:
    """Float and int8 (``"float"``, ``"int8"``), and any other variant that the run has a file of."""
    others = sorted(path.name.removeprefix("model.").removesuffix(".onnx") for path in run.folder.glob("model.*.onnx"))
    return ["float", "int8", *(name for name in others if name != "int8")]
