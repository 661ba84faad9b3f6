"""Core ML, which only Macs have."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import coremltools
from numpy.typing import NDArray

from vitrail.runtimes.session import Images, Session


def load(source: Path, *, threads: int) -> Session:
    """An ``.mlpackage`` for one image at a time; Core ML itself chooses the number of threads."""
    model = coremltools.models.MLModel(str(source))

    def run(images: Images) -> NDArray[Any]:
        answer: NDArray[Any] = next(iter(model.predict({"image": images}).values()))
        return answer

    return Session(runtime="coreml", version=version("coremltools"), threads=threads, run=run)
