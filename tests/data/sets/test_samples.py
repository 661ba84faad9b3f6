from __future__ import annotations

from pathlib import Path

import torch

from vitrail.data import ImageSet, KeypointSet, LabelledImage, PictureSet, Samples, ScoreSet, draw_order
from vitrail.data.records import PosedObject, ScoredImage

NAMES = [f"{number}.jpg" for number in range(6)]
SETTINGS = {"max_pixels": 77, "mirrored_alike": False}


def every_kind() -> list[Samples]:
    where = [{"name": name, "source": Path(name)} for name in NAMES]
    labelled = [LabelledImage(**one, label=label) for label, one in enumerate(where)]
    scored = [ScoredImage(**one, score=float(number)) for number, one in enumerate(where)]
    posed = [PosedObject(**one, image="", box=(0, 0, 1, 1), keypoints=((0, 0, 1),), area=1.0) for one in where]
    return [
        ImageSet(records=labelled, **SETTINGS),
        PictureSet(records=labelled, crops=True, **SETTINGS),
        ScoreSet(records=scored, scale=(0.0, 5.0), **SETTINGS),
        KeypointSet(records=posed, skeleton=(), places=(0,), mirror=(0,), **SETTINGS),
    ]


def test_a_subset_is_cut_as_a_whole() -> None:
    for samples in every_kind():
        assert samples.names == NAMES
        part = samples.subset([4, 1])
        assert type(part) is type(samples)
        assert part.names == ["4.jpg", "1.jpg"]
        assert part.records == [samples.records[4], samples.records[1]]
        assert (part.max_pixels, part.mirrored_alike) == (77, False)
        assert vars(part).keys() - {"names", "labels"} == vars(samples).keys() - {"names", "labels"}
        assert samples.sample(3, seed=8).names == [NAMES[i] for i in draw_order(NAMES, 8)[:3]]


def test_what_is_computed_from_the_records_follows_them() -> None:
    images = every_kind()[0]
    assert isinstance(images, ImageSet)
    assert images.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert images.subset([5, 0]).labels.tolist() == [5, 0]
    turned = images.renumber(torch.tensor([5, 4, 3, 2, 1, 0]))
    assert turned.labels.tolist() == [5, 4, 3, 2, 1, 0]
    assert images.labels.tolist() == [0, 1, 2, 3, 4, 5]
