"""Runs of every version keep the fingerprint of their data, so what it is made of may not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitrail.data import DataConfig, load_data
from vitrail.data.records import (
    BoxedImage,
    LabelledImage,
    MaskedImage,
    MultiLabelImage,
    PosedObject,
    Record,
    ScoredImage,
)

WHERE = {"name": "a/1.jpg", "source": Path("a/1.jpg"), "part": "train"}
BOXES = {"boxes": ((1, 2.5, 3.0, 4.0),), "labels": (7,), "crowd": (False,)}


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (Record(**WHERE), "a/1.jpg\0d\n"),
        (LabelledImage(**WHERE, label=3), "a/1.jpg\x003\0d\n"),
        (
            MultiLabelImage(**WHERE, labels=(0, 2), unknown=(1,)),
            "a/1.jpg\0d\0Labels(labels=(0, 2), unknown=(1,))\n",
        ),
        (
            BoxedImage(**WHERE, **BOXES),
            "a/1.jpg\0d\0Objects(boxes=((1, 2.5, 3.0, 4.0),), labels=(7,), crowd=(False,))\n",
        ),
        (
            BoxedImage(**WHERE, **BOXES, shapes=([[1, 2, 3]],)),
            "a/1.jpg\0d\0Objects(boxes=((1, 2.5, 3.0, 4.0),), labels=(7,), crowd=(False,))\n([[1, 2, 3]],)",
        ),
        (
            MaskedImage(**WHERE, mask_name="1.png", read_mask=lambda: np.zeros((1, 1)), mask_digest="m"),
            "a/1.jpg\0d\0m\n",
        ),
        (
            PosedObject(**WHERE, image="a/1.jpg", box=(0, 0, 2.0, 3), keypoints=((1.0, 2.0, 1.0),), area=6.0),
            "a/1.jpg\0d\0Instance(box=(0, 0, 2.0, 3), keypoints=((1.0, 2.0, 1.0),), area=6.0)\n",
        ),
        (ScoredImage(**WHERE, score=2.5, votes=(1.0, 3.0)), "a/1.jpg\0d\0Opinion(score=2.5, votes=(1.0, 3.0))\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Record) else "",
)
def test_lines_of_the_fingerprint(record: Record, line: str) -> None:
    assert record.fingerprint_line("d") == line


def test_the_fingerprint_of_the_sample_is_that_of_version_0_1_0() -> None:
    assert load_data(DataConfig()).fingerprint == "67ec65b6e3befb15c2eea9dd2eca0e31572f2d7b5e2c0c4c88a3575f408fb61e"
