"""Tasks that answer for every place of an image, in the formats of phones: what docs/exporting.md says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract.test_dense_heads import build
from export.installed import where_installed

from vitrail.core.errors import ExportError
from vitrail.core.types import Preprocessing
from vitrail.export import ExportRecord, export_model
from vitrail.runs.run import Run

pytestmark = pytest.mark.filterwarnings("ignore")  # of the converters

WORKS = [
    where_installed(format, head, slow=True)
    for format in ("openvino", "executorch", "litert")
    for head in ("semantic_fpn", "pose", "retinanet")
    if (format, head) not in (("litert", "retinanet"), ("executorch", "semantic_fpn"))
] + [where_installed(format, head, slow=True) for format in ("openvino", "aoti") for head in ("fasterrcnn", "dfine")]
FAILS = [
    where_installed("litert", "retinanet", "disagrees with the PyTorch model", slow=True),
    where_installed("executorch", "fasterrcnn", "operation torchvision::roi_align has no ExecuTorch", slow=True),
    where_installed("executorch", "dfine", "cannot run the exported model at batch size 1", slow=True),
    where_installed("litert", "fasterrcnn", "operation torchvision.roi_align.default has no LiteRT", slow=True),
]


def export(format: str, head: str, folder: Path) -> ExportRecord:
    task, images, _ = build("edgevit", head)
    about = {"preprocessing": Preprocessing(image_size=task.backbone.config.image_size), "classes": task.classes}
    path = Run(folder).exported(format)
    return export_model(task.eval(), path, format=format, images=images, tolerance=1e-3, **about)


@pytest.mark.parametrize(("format", "head"), WORKS)
def test_a_dense_task_agrees(format: str, head: str, tmp_path: Path) -> None:
    assert (export(format, head, tmp_path).max_relative_error or 1) <= 1e-3


@pytest.mark.parametrize(("format", "head", "reason"), FAILS)
def test_what_fails_says_why_and_leaves_nothing(format: str, head: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=reason):
        export(format, head, tmp_path)
    assert list(tmp_path.iterdir()) == []
