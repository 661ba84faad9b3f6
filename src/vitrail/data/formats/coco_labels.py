"""Classes of whole images from COCO's JSON: an image has every class of which it has an annotation."""

from __future__ import annotations

from pathlib import Path

from vitrail.data.check.problems import Problems
from vitrail.data.formats.coco import read_parts, shown
from vitrail.data.records import MultiLabelImage


def read_coco_labels(root: Path, problems: Problems) -> tuple[tuple[str, ...], list[MultiLabelImage]]:
    """Names of the classes, and images in the order of their names. Boxes and masks are not looked at, and need not be
    there.

    Raises:
        DataError: no annotations, or files that are no COCO JSON.
    """
    parts, categories = read_parts(root, "instances", problems)
    records = {}
    for part in parts:
        if part.part == "test" and not part.lists["annotations"] and len(parts) > 1:
            problems.remark(f"Images of {part.title}, none with an annotation, are left out: {len(part.images)}")
            continue
        labels: dict[str, set[int]] = {image.name: set() for image in part.images.values()}
        for number, annotation in part.lists["annotations"].items():
            where = f"{part.title} annotations[{number}]"
            image = part.images.get(annotation.get("image_id", ""))
            label = part.labels.get(annotation.get("category_id", ""))
            if image is None:
                problems.add(where, f"there is no image {shown(annotation.get('image_id'))}")
            elif label is None:
                problems.add(where, f"there is no category {shown(annotation.get('category_id'))}")
            else:
                labels[image.name].add(label)
        for image in part.images.values():
            records[image.name] = MultiLabelImage(
                name=image.name, source=image.path, part=part.part, labels=tuple(sorted(labels[image.name]))
            )
    return tuple(entry["name"] for entry in categories), [records[name] for name in sorted(records)]
