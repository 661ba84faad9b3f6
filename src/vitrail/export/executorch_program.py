"""ExecuTorch: PyTorch's runtime for phones and microcontrollers, computing through XNNPACK where it can."""

from __future__ import annotations

import json
from pathlib import Path

from vitrail.export.one_image import one_image_program
from vitrail.export.source import Source

METHOD = "vitrail"
"""Besides ``forward``, a program has a method of this name, which returns preprocessing and classes as JSON."""


def write(source: Source, file: Path) -> None:
    """Write a ``.pte`` program for one image at a time.

    Raises:
        ExportError: the model cannot be captured.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(
        one_image_program(source.model, source.images),
        partitioner=[XnnpackPartitioner()],
        constant_methods={METHOD: json.dumps(source.facts)},
    )
    with file.open("wb") as opened:
        lowered.to_executorch().write_to_file(opened)
