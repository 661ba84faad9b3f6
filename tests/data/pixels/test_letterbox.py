from __future__ import annotations

import torch

from vitrail.core.types import Preprocessing
from vitrail.data import Letterbox


def test_letterbox_keeps_the_whole_picture() -> None:
    box = Letterbox.of((100, 50), (64, 64))
    assert (box.inner, box.scale) == ((64, 32), (0.64, 0.64))
    assert Letterbox.of((1, 1000), (32, 32)).inner == (1, 32)
    framed = box.image(torch.full((3, 100, 50), 200, dtype=torch.uint8), Preprocessing(image_size=(64, 64)))
    assert (framed[:, :, :32] == 200).all()
    assert framed[:, 0, 40].tolist() == [124, 116, 104]  # the mean, which becomes zero
