"""Pictures and counts of a run's images, for ``evaluation.json``."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitrail.core.types import Preprocessing
from vitrail.data import DataSplits, ImageSet, Samples
from vitrail.tasks import Task, answers_of
from vitrail.tasks.findings.findings import Findings

PICTURE_SIDE = 112
"""Longer side in pixels of pictures in the page; a few kilobytes each."""

DRAWN_SIDE = 320
"""Longer side in pixels of pictures with boxes, borders or skeletons."""


BEST_SHARE = 0.25
"""Share of the examples with the fewest mistakes; the others have the most."""


def drawn_examples(
    task: Task, held_out: Samples, preprocessing: Preprocessing, count: int, findings: Findings | None = None
) -> list[dict[str, Any]]:
    """``count`` of the held-out images with answers, and with truth and mistakes if the task can draw them.

    Args:
        task: the trained task.
        held_out: annotated images.
        preprocessing: what the task expects.
        count: number of examples, fewer if there are fewer images.
        findings: what was found in all of them: the worst and the best images are taken, in this order; without it a
            sample by name.
    """
    facts: list[dict[str, Any]]
    if findings is None:
        chosen, facts = held_out.sample(count, 0), [{}] * count
    else:
        places, facts = _worst_and_best(findings, count)
        chosen = held_out.subset(places)
    answers, examples = answers_of(task), []
    for index, name in enumerate(chosen.names):
        image, target = chosen[index]
        name = name if task.takes_images else f"made picture {index + 1}"  # a made picture has no file
        answer = answers.predict_sample(image, target, preprocessing)
        drawn = answers.draw(image, answer)
        if drawn is None:
            continue
        examples.append({"name": name, "jpeg_base64": picture(drawn, DRAWN_SIDE)} | facts[index])
        if (truth := answers.truth(target)) is not None and (shown := answers.draw(image, truth)) is not None:
            examples[-1]["truth_base64"] = picture(shown, DRAWN_SIDE)
        if (mistakes := answers.draw_difference(image, answer, target)) is not None:
            examples[-1]["difference_base64"] = picture(mistakes, DRAWN_SIDE)
    return examples


def _worst_and_best(findings: Findings, count: int) -> tuple[list[int], list[dict[str, Any]]]:
    """Indices of images, the worst first, and what is said of each."""
    order, notes = findings.errors().argsort(descending=True, stable=True).tolist(), findings.notes()
    best = min(round(count * BEST_SHARE), max(len(order) - count, 0))
    places = order[: count - best] + order[len(order) - best :]
    groups = ["worst"] * (len(places) - best) + ["best"] * best
    return places, [{"note": notes[place], "group": group} for place, group in zip(places, groups, strict=True)]


def class_examples(images: ImageSet, logits: Tensor, classes: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """The most confident wrong answers, then right answers over the whole range of confidence."""
    confidence, predicted = logits.softmax(1).max(1)
    order = confidence.argsort(descending=True, stable=True).tolist()
    wrong = [i for i in order if predicted[i] != images.labels[i]]
    right = [i for i in order if predicted[i] == images.labels[i]]
    if len(right) > count:
        right = [right[round(k * (len(right) - 1) / max(count - 1, 1))] for k in range(count)]
    return [
        {
            "name": images.names[i],
            "label": classes[int(images.labels[i])],
            "predicted": classes[int(predicted[i])],
            "probability": round(float(confidence[i]), 4),
            "jpeg_base64": picture(images[i][0]),
        }
        for i in wrong[:count] + right
    ]


def describe_data(data: DataSplits[Any]) -> dict[str, Any]:
    """Source, classes and number of images of each part."""
    parts = {"train": data.train, "val": data.val} | ({} if data.test is None else {"test": data.test})
    return {
        "source": data.source,
        "fingerprint": data.fingerprint,
        "classes": list(data.classes),
        "counts": None,
        "totals": {name: len(part) for name, part in parts.items()},
        "skipped": list(data.skipped),
        "remarks": list(data.remarks),
        "samples": [],
    }


def describe_classes(data: DataSplits[ImageSet], num_samples: int) -> dict[str, Any]:
    """As :func:`describe_data`, with counts per class instead of totals, and pictures of some images."""
    facts = describe_data(data)
    parts = {name: getattr(data, name) for name in facts.pop("totals")}
    shown = data.train if len(data.train) else data.held_out
    return facts | {
        "counts": {
            name: torch.bincount(part.labels, minlength=len(data.classes)).tolist() for name, part in parts.items()
        },
        "samples": [
            {
                "name": shown.names[i],
                "label": data.classes[int(shown.labels[i])],
                "jpeg_base64": picture(shown[i][0]),
            }
            for i in round_robin(shown.labels, num_samples)
        ],
    }


def round_robin(labels: Tensor, count: int) -> list[int]:
    """Indices of ``count`` images: the first of every class, then the second of every class, and so on."""
    seen: dict[int, int] = {}
    ranks = []
    for index, label in enumerate(labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        ranks.append((seen[label], label, index))
    return [index for _, _, index in sorted(ranks)[:count]]


def picture(image: Tensor, side: int = PICTURE_SIDE) -> str:
    """A uint8 RGB image (3, h, w) as base64 of a small JPEG, at most ``side`` pixels a side."""
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    pixels.thumbnail((side, side))
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
