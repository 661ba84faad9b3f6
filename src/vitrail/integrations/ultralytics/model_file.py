"""YOLO model files: the ones that come with Vitrail, and new ones for any pyramid variant.

The neck and the head are those of YOLOv5 v6.0 (three scales, C3 blocks), in the format of ultralytics' model files.
"""

from __future__ import annotations

from pathlib import Path

from vitrail.core.errors import ConfigError, UnknownNameError
from vitrail.core.files import write_text
from vitrail.integrations.ultralytics.backbone import VitrailBackbone

SCALES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
"""Depth and width of neck and head, as multiples."""

FOLDER = Path(__file__).parent / "models"

TEMPLATE = """\
# YOLOv5{scale} with {variant} (strides {strides}); needs vitrail.integrations.ultralytics.register(), see docs/yolo.md
nc: 80 # number of classes; the data's own take its place in training
depth_multiple: {depth}
width_multiple: {width}

backbone:
  # [from, number, module, arguments]
  - [-1, 1, VitrailBackbone, [{arguments}]] # 0, three maps
  - [0, 1, Index, [{fine}, 0]] # 1, P3
  - [0, 1, Index, [{middle}, 1]] # 2, P4
  - [0, 1, Index, [{coarse}, 2]] # 3, P5
  - [-1, 1, SPPF, [1024, 5]] # 4

head:
  - [-1, 1, Conv, [512, 1, 1]] # 5
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 2], 1, Concat, [1]]
  - [-1, 3, C3, [512, False]] # 8

  - [-1, 1, Conv, [256, 1, 1]] # 9
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 1], 1, Concat, [1]]
  - [-1, 3, C3, [256, False]] # 12, small objects

  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 9], 1, Concat, [1]]
  - [-1, 3, C3, [512, False]] # 15, medium

  - [-1, 1, Conv, [512, 3, 2]]
  - [[-1, 5], 1, Concat, [1]]
  - [-1, 3, C3, [1024, False]] # 18, large

  - [[12, 15, 18], 1, Detect, [nc]]
"""


def model_file_text(variant: str, scale: str = "n", image_size: int | None = None) -> str:
    """The text of a YOLO model file.

    Args:
        variant: name of a variant of a pyramid family.
        scale: size of neck and head: n, s, m, l or x.
        image_size: size that the backbone is built for, where it matters (ReMViT: one size; MaxViT: its windows).

    Raises:
        ConfigError: the scale does not exist, or the variant has fewer than three strides.
        UnknownNameError: there is no such variant.
    """
    if scale not in SCALES:
        raise ConfigError(f"scale '{scale}' does not exist; YOLOv5 has {', '.join(SCALES)}")
    module = VitrailBackbone(variant, image_size)
    fine, middle, coarse = module.channels
    depth, width = SCALES[scale]
    return TEMPLATE.format(
        variant=variant,
        scale=scale,
        strides=", ".join(map(str, module.strides)),
        depth=depth,
        width=width,
        arguments=variant if image_size is None else f"{variant}, {image_size}",
        fine=fine,
        middle=middle,
        coarse=coarse,
    )


def list_model_files() -> list[str]:
    """Names of the model files that come with Vitrail."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_model_file(name: str) -> Path:
    """The model file of that name (``yolov5n-edgevit_xxs``), or that path.

    Raises:
        UnknownNameError: neither exists; the message lists the names that do.
    """
    for path in (Path(name), FOLDER / name, FOLDER / f"{name}.yaml"):
        if path.is_file():
            return path
    raise UnknownNameError(f"there is no model file '{name}'; Vitrail has {', '.join(list_model_files())}")


def write_model_file(path: Path, variant: str, image_size: int | None = None) -> None:
    """Write a model file; ultralytics and this function read its scale from its name.

    Raises:
        ConfigError: the name does not start with yolov5 and a scale, or as :func:`model_file_text`.
    """
    start, scale = path.name[:6], path.name[6:7]
    if start != "yolov5" or path.suffix != ".yaml":
        raise ConfigError(f"'{path.name}' is no name for a model file; call it e.g. yolov5n-{variant}.yaml")
    write_text(path, model_file_text(variant, scale, image_size))
