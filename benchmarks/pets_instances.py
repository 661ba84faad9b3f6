"""Masks of objects from the trimaps of Oxford-IIIT Pet: what docs/results/dense.md trains Mask R-CNN on.

    python benchmarks/pets_instances.py PETS OUT

PETS has `{train,val,test}/images/*.jpg`, `{train,val,test}/masks/*.png` (1 pet, 2 background, 3 border) and `index.csv`
with the breed of each. OUT gets COCO JSON beside copies of the images: one object a picture, pet and border together,
its class the breed. The data set is under CC BY-SA 4.0 (Parkhi et al., CVPR 2012) and is not part of this repository.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitrail.device.outputs import run_lengths

BACKGROUND = 2


def describe(rows: list[dict[str, str]], source: Path, classes: list[str]) -> dict[str, Any]:
    values: dict[str, list[Any]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(classes)],
    }
    for number, row in enumerate(rows, 1):
        name = row["image"]
        mask = np.array(Image.open(source / row["split"] / "masks" / name.replace(".jpg", ".png"))) != BACKGROUND
        height, width = mask.shape
        columns, lines = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        box = [columns[0], lines[0], columns[-1] + 1 - columns[0], lines[-1] + 1 - lines[0]]
        values["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        values["annotations"].append(
            {
                "id": number,
                "image_id": number,
                "category_id": classes.index(row["breed"]) + 1,
                "bbox": [int(value) for value in box],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": run_lengths(mask)},
            }
        )
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pets", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    with (given.pets / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["breed"] for row in rows})
    (given.out / "annotations").mkdir(parents=True)
    for part in ("train", "val", "test"):
        values = describe([row for row in rows if row["split"] == part], given.pets, classes)
        (given.out / "annotations" / f"{part}.json").write_text(json.dumps(values), encoding="utf-8")
        shutil.copytree(given.pets / part / "images", given.out / part)
        print(f"{part}: {len(values['images'])} images")


if __name__ == "__main__":
    main()
