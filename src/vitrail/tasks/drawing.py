"""Colours of classes, and drawing over images."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_keypoints, draw_segmentation_masks

Place = Sequence[float]

VERDICTS = {"found": (0, 170, 80), "missed": (230, 30, 40), "invented": (255, 150, 0), "confused": (150, 70, 220)}
"""Verdict on an object -> colour."""

DASH = 4
"""Length of a dash, in widths of the line."""

READABLE = 320
"""Longer side in pixels of an image with words below it, at least."""

GOLDEN = 0.618034
"""Hues this far apart never come close to one another, however many there are."""


def class_colours(count: int) -> Tensor:
    """(count, 3) uint8, clearly different for neighbours, the same at every call."""
    colours = [colorsys.hsv_to_rgb(i * GOLDEN % 1, (0.9, 0.55)[i % 2], (1.0, 0.8, 0.6)[i % 3]) for i in range(count)]
    return (torch.tensor(colours).reshape(count, 3) * 255).round().to(torch.uint8)


def draw_masks(image: Tensor, masks: Sequence[tuple[Tensor, int]], count: int) -> Tensor:
    """uint8 (3, h, w) under transparent masks (h, w), each with the number of its class, of ``count``."""
    colours = _colours(count)
    for mask, index in masks:  # one by one: torchvision blackens what lies under two masks of a call
        image = draw_segmentation_masks(image, mask, alpha=0.5, colors=colours[index])
    return image


def draw_boxes(image: Tensor, boxes: Sequence[tuple[Sequence[float], int]], classes: Sequence[str]) -> Tensor:
    """uint8 (3, h, w) with frames (left, top, right, bottom), each labelled and coloured by the number of its class."""
    if not boxes:
        return image
    colours = _colours(len(classes))
    return draw_bounding_boxes(
        image,
        torch.tensor([box for box, _ in boxes]),
        [classes[index] for _, index in boxes],
        colors=[colours[index] for _, index in boxes],
        width=max(round(max(image.shape[-2:]) / 200), 1),
        label_colors="white",
        fill_labels=True,
    )


def draw_skeleton(
    image: Tensor, places: Mapping[int, tuple[float, float]], skeleton: Sequence[tuple[int, int]], count: int
) -> Tensor:
    """uint8 (3, h, w) with a dot for each place, coloured by its number, and white lines between pairs of them."""
    radius = max(round(max(image.shape[-2:]) / 100), 2)
    every = torch.tensor([[places.get(index, (0.0, 0.0)) for index in range(count)]])
    visible = torch.tensor([[index in places for index in range(count)]])
    width = max(radius // 2, 1)
    image = draw_keypoints(image, every, list(skeleton), "white", radius, width, visible)
    for index, colour in enumerate(_colours(count)):  # torchvision draws all dots of a call in one colour
        if index in places:
            image = draw_keypoints(image, every[:, index, None], colors=colour, radius=radius)
    return image


def draw_verdicts(image: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """uint8 (3, h, w) under transparent green where ``right`` (h, w), under red where ``wrong``."""
    image = draw_segmentation_masks(image, right, alpha=0.2, colors=VERDICTS["found"])
    return draw_segmentation_masks(image, wrong, alpha=0.6, colors=VERDICTS["missed"])


def draw_judged(image: Tensor, boxes: Sequence[tuple[Sequence[float], str, str]]) -> Tensor:
    """uint8 (3, h, w) with frames (left, top, right, bottom), each with a label and a verdict of :data:`VERDICTS`.

    What was missed is dashed, and found objects have no label, so that mistakes catch the eye.
    """
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    pen, side = ImageDraw.Draw(picture), max(image.shape[-2:])
    width, font = max(round(side / 200), 1), ImageFont.load_default(max(round(side / 32), 9))
    for box, label, verdict in sorted(boxes, key=lambda one: list(VERDICTS).index(one[2])):
        left, top, right, bottom = box
        colour = VERDICTS[verdict]
        if verdict == "missed":
            for start, end in pairwise([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]):
                _dash(pen, start, end, colour, width)
        else:
            pen.rectangle((min(left, right), min(top, bottom), max(left, right), max(top, bottom)), None, colour, width)
        if verdict != "found":
            text = pen.textbbox((left + width, top + width), label, font=font)
            pen.rectangle(text, fill=colour)
            pen.text((left + width, top + width), label, font=font, fill=(255, 255, 255))
    return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())


def draw_labels(image: Tensor, labels: Sequence[tuple[str, str]]) -> Tensor:
    """uint8 (3, h, w) with a line below for each (text, verdict of :data:`VERDICTS` or ""); small images are enlarged,
    so that words can be read."""
    scale = max(READABLE / max(image.shape[-2:]), 1.0)
    width, height = (max(round(side * scale), 1) for side in (image.shape[-1], image.shape[-2]))
    size = max(round(max(width, height) / 16), 12)
    font, lines = ImageFont.load_default(size), labels or [("no class", "")]
    picture = Image.new("RGB", (max(width, READABLE // 2), height + round(1.5 * size) * len(lines)), "white")
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    picture.paste(pixels.resize((width, height)) if scale > 1 else pixels, (0, 0))
    pen = ImageDraw.Draw(picture)
    for number, (text, verdict) in enumerate(lines):
        top = height + round(1.5 * size) * number
        pen.rectangle((0, top, size // 2, top + round(1.5 * size) - 2), VERDICTS.get(verdict, (150, 150, 150)))
        pen.text((size, top), text, font=font, fill=(20, 20, 20))
    return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())


def _dash(pen: ImageDraw.ImageDraw, start: Place, end: Place, colour: tuple[int, int, int], width: int) -> None:
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    count = max(int(length / (DASH * width)), 1)
    places = [tuple(a + (b - a) * k / count for a, b in zip(start, end, strict=True)) for k in range(count + 1)]
    for first, second in list(pairwise(places))[::2]:
        pen.line((*first, *second), colour, width)


def draw_offsets(image: Tensor, lines: Sequence[tuple[int, Sequence[float], Sequence[float]]], count: int) -> Tensor:
    """uint8 (3, h, w) with a dot at each first place and a line to the second, coloured by number, of ``count``."""
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    pen, radius, colours = ImageDraw.Draw(picture), max(round(max(image.shape[-2:]) / 100), 2), _colours(count)
    for index, (x, y), truth in lines:
        pen.line((x, y, *truth), (255, 255, 255), radius + 2)
        pen.line((x, y, *truth), colours[index], max(radius // 2, 1))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), colours[index])
    return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())


def _colours(count: int) -> list[tuple[int, int, int]]:
    return [(red, green, blue) for red, green, blue in class_colours(count).tolist()]
