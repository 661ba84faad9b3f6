"""Colours of classes, and drawing over images."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_keypoints, draw_segmentation_masks

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


def _colours(count: int) -> list[tuple[int, int, int]]:
    return [(red, green, blue) for red, green, blue in class_colours(count).tolist()]
