"""Colours of classes, and drawing over images."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

GOLDEN = 0.618034
"""Hues this far apart never come close to one another, however many there are."""


def class_colours(count: int) -> Tensor:
    """(count, 3) uint8, clearly different for neighbours, the same at every call."""
    colours = [colorsys.hsv_to_rgb(i * GOLDEN % 1, (0.9, 0.55)[i % 2], (1.0, 0.8, 0.6)[i % 3]) for i in range(count)]
    return (torch.tensor(colours).reshape(count, 3) * 255).round().to(torch.uint8)


def blend(image: Tensor, colours: Tensor, strength: float = 0.5) -> Tensor:
    """uint8 (3, h, w) under colours of the same shape."""
    mixed = (1 - strength) * image.float() + strength * colours.float()
    return mixed.round().clamp(0, 255).to(torch.uint8)


def draw_boxes(image: Tensor, boxes: Sequence[tuple[Sequence[float], str, tuple[int, ...]]]) -> Tensor:
    """uint8 (3, h, w) with frames, labels and colours."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    pen = ImageDraw.Draw(picture)
    thick = max(round(max(picture.size) / 200), 1)
    for box, label, colour in boxes:
        pen.rectangle(tuple(box), outline=colour, width=thick)
        place = (box[0] + thick, max(box[1] - 11, 0))
        pen.rectangle(pen.textbbox(place, label), fill=colour)
        pen.text(place, label, fill="white")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def draw_skeleton(
    image: Tensor, places: Mapping[int, tuple[float, float]], skeleton: Sequence[tuple[int, int]], count: int
) -> Tensor:
    """uint8 (3, h, w) with a dot for each place, coloured by its number, and lines between pairs of them."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    pen = ImageDraw.Draw(picture)
    radius = max(round(max(picture.size) / 100), 2)
    for start, stop in skeleton:
        if start in places and stop in places:
            pen.line([places[start], places[stop]], fill="white", width=max(radius // 2, 1))
    for index, (x, y) in places.items():
        colour = tuple(class_colours(count)[index].tolist())
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
