"""``python -m vitrail.integrations.ultralytics``: check a model file, write one, convert data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from vitrail.core.errors import VitrailError
from vitrail.data import DataConfig
from vitrail.integrations.ultralytics.build import build, stay_offline
from vitrail.integrations.ultralytics.dataset import write_dataset
from vitrail.integrations.ultralytics.model_file import list_model_files, write_model_file

app = App(name="python -m vitrail.integrations.ultralytics", help="Vitrail's backbones in ultralytics' YOLO.")


@app.command
def check(*, cfg: str) -> None:
    """Build a YOLO and print its layer table.

    Args:
        cfg: the name of a model file of Vitrail's, or the path of any.
    """
    stay_offline()
    build(cfg, verbose=True)


@app.command(name="list")
def list_() -> None:
    """Names of the model files that come with Vitrail."""
    print("\n".join(list_model_files()))


@app.command
def write(path: Path, /, *, model: str, image_size: int | None = None) -> None:
    """Write a model file for any variant of a pyramid family.

    Args:
        path: e.g. yolov5s-poolformer_s12.yaml; n, s, m, l or x after yolov5 is the size of neck and head.
        model: the variant.
        image_size: what it is built for, where that matters (ReMViT, MaxViT).
    """
    write_model_file(path, model, image_size)
    print(path)


@app.command
def data(
    source: str,
    folder: Path,
    /,
    *,
    bad_annotations: Annotated[Literal["refuse", "skip"], Parameter(show_choices=True)] = "refuse",
) -> None:
    """Convert boxes (COCO JSON, YOLO text, or Pascal VOC's XML) into a folder for ultralytics, checked.

    Args:
        source: folder of images and annotations.
        folder: a new one.
        bad_annotations: what to do about those that are wrong.
    """
    print(write_dataset(DataConfig(path=source, bad_annotations=bad_annotations), folder))


def main(tokens: Sequence[str]) -> int:
    """0, or 2 after one line about bad input."""
    try:
        app(tokens, result_action="return_value")
    except VitrailError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
