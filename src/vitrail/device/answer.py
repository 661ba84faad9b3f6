"""From pixels to an answer with a file in any runtime: what ``vitrail predict`` does, without PyTorch::

    facts = read_facts(session.get_modelmeta().custom_metadata_map)
    pixels = read_image("cat.jpg", facts["preprocessing"])
    answer(lambda batch: session.run(None, {"image": batch})[0], pixels, facts)

Shapes: b images, h x w pixels, c classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vitrail.device.outputs import (
    best_classes,
    enlarge,
    find_keypoints,
    find_objects,
    named_classes,
    paste_mask,
    rate,
    run_lengths,
    softmax,
)
from vitrail.device.pixels import Array, Size, fit, letterbox, letterbox_size, normalise, size_of, view, view_of

RunFile = Callable[[Array], Array]
"""A file in its runtime: normalised float32 images (b, 3, h, w) to its output (b, ...)."""
RunOutputs = Callable[[Array], Sequence[Array]]
"""The same for a file with several outputs: to a list or tuple of all of them, in the file's order."""
Facts = Mapping[str, Any]

FACTS = ("preprocessing", "classes", "task")
SMALLEST_SIDE = 0.5
"""Pixels of the picture; a box with a shorter side shows nothing."""
WINDOW_OVERLAP = 1 / 3
"""Share of a window that overlaps with the next one."""
SLIDE_ABOVE = 1.5
"""Factor of shrinking above which ``inference="auto"`` moves a window over the picture."""
BAND = 64
"""Rows of a large picture that are labelled at a time."""


def read_facts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of its input and its output: ``preprocessing``, ``classes`` and ``task``.

    Args:
        metadata: strings of JSON as files hold them (``vitrail.preprocessing``, ...), or the contents of
            ``<file>.json``.

    Raises:
        ValueError: one of them is missing, as in files of earlier versions.
    """
    held = {name: metadata.get(f"vitrail.{name}", metadata.get(name)) for name in FACTS}
    if missing := [name for name, value in held.items() if value is None]:
        raise ValueError(f"the file does not say its {missing[0]}; export it again with: vitrail export RUN")
    return {name: json.loads(value) if isinstance(value, str) else value for name, value in held.items()}


def answer(
    run: RunFile | RunOutputs, pixels: Array, facts: Facts, *, top_k: int | None = None, **options: Any
) -> dict[str, Any]:
    """What ``vitrail predict RUN IMAGE --json`` says of an image; of a segmentation ``labels`` (h, w) too. Of a file
    with an outlier score it says ``outlier_score`` and ``unusual``, where ``run`` gives all outputs.

    Args:
        run: the file in its runtime.
        pixels: the image, uint8 (h, w, 3).
        facts: what the file says, see :func:`read_facts`.
        top_k: largest number of things that the answer names; the task's own number by default.
        options: ``min_confidence`` of objects or classes, in place of the file's; ``box`` (left, top, right, bottom) of
            the object that has keypoints, in place of the whole picture.

    Raises:
        ValueError: the task has no answer here, or the output does not fit the classes.
    """
    name = facts["task"]["name"]
    if name not in _ANSWERS:
        raise ValueError(f"answers of the task '{name}' are not known here; known: {', '.join(_ANSWERS)}")
    return _ANSWERS[name](run, pixels, facts, top_k, **options)


def _classes(run: RunFile | RunOutputs, pixels: Array, facts: Facts, top_k: int | None) -> dict[str, Any]:
    how, second = facts["preprocessing"], facts["task"].get("outlier_score")
    found = run(normalise(fit(pixels, how), how))
    logits, *others = found if isinstance(found, (list, tuple)) else [found]
    result: dict[str, Any] = {"classes": best_classes(logits[0], facts["classes"], top_k or 1)}
    if second and others:
        score = float(others[0][0])
        result |= {"outlier_score": score, "unusual": score > second["unusual_above"]}
    return result


def _labels(
    run: RunFile, pixels: Array, facts: Facts, top_k: int | None, min_confidence: float | None = None
) -> dict[str, Any]:
    how, classes, least = facts["preprocessing"], facts["classes"], facts["task"]["min_confidences"]
    least = least if min_confidence is None else [min_confidence] * len(classes)
    return {"classes": named_classes(run(normalise(fit(pixels, how), how))[0], classes, least)[:top_k]}


def _scores(run: RunFile, pixels: Array, facts: Facts, _: int | None) -> dict[str, Any]:
    how, scale = facts["preprocessing"], facts["task"]["scale"]
    shares = run(normalise(fit(pixels, how), how))[0]
    score, deviation = rate(shares, scale)
    names = [f"{one:g}" for one in scale]
    return {"score": score, "deviation": deviation, "distribution": dict(zip(names, shares.tolist(), strict=True))}


def _objects(
    run: RunFile, pixels: Array, facts: Facts, top_k: int | None, min_confidence: float | None = None
) -> dict[str, Any]:
    how, task, classes = facts["preprocessing"], facts["task"], facts["classes"]
    size = size_of(pixels)
    found = objects_in_picture(
        run(normalise(letterbox(pixels, how), how))[0],
        len(classes),
        size,
        how["image_size"],
        min_confidence=task["min_confidence"] if min_confidence is None else min_confidence,
        nms_threshold=task["nms_threshold"],
        max_objects=top_k or task["max_objects"],
    )
    rows = zip(*(found[name].tolist() for name in ("labels", "scores", "boxes")), strict=True)
    objects: list[dict[str, Any]] = [
        {"label": classes[index], "index": index, "probability": score, "box": box} for index, score, box in rows
    ]
    if task["name"] == "instances":
        for one, grid in zip(objects, found["grids"], strict=True):
            one["mask"] = {"size": list(size), "counts": run_lengths(paste_mask(grid, one["box"], size))}
    return {"objects": objects}


def objects_in_picture(values: Array, num_classes: int, size: Size, frame: Size, **limits: Any) -> dict[str, Array]:
    """:func:`~vitrail.device.outputs.find_objects`, with boxes in pixels of a picture that
    :func:`~vitrail.device.pixels.letterbox` put into the frame."""
    inner = letterbox_size(size, frame)
    scale = np.array([frame[1] / (inner[1] / size[1]), frame[0] / (inner[0] / size[0])], np.float32)
    ends = (inner[1] / frame[1], inner[0] / frame[0])
    found = find_objects(values, num_classes, limit=ends, least=(SMALLEST_SIDE / scale).tolist(), **limits)
    corner = np.array([size[1], size[0]] * 2, np.float32)
    return found | {"boxes": np.minimum(found["boxes"] * np.tile(scale, 2), corner)}


def _keypoints(
    run: RunFile, pixels: Array, facts: Facts, top_k: int | None, box: Sequence[float] | None = None
) -> dict[str, Any]:
    how, task = facts["preprocessing"], facts["task"]
    box = box or (0, 0, pixels.shape[1], pixels.shape[0])
    batch = normalise(view(pixels, box, how), how)
    places, scores = find_keypoints(mean_maps(run, batch, task), task["sigma"])
    rows = zip(facts["classes"], places_in_picture(places[0], box, how["image_size"]), scores[0].tolist(), strict=True)
    found = [
        {"label": label, "index": index, "x": x, "y": y, "score": score}
        for index, (label, (x, y), score) in enumerate(rows)
    ]
    return {"keypoints": found if top_k is None else sorted(found, key=lambda one: -one["score"])[:top_k]}


def mean_maps(run: RunFile, batch: Array, task: Facts) -> Array:
    """Heat maps of a batch; their mean with those of its mirror image, where ``flip_test`` and the ``mirror`` order of
    the keypoints say so."""
    maps = run(batch)
    if not (task["flip_test"] and task["mirror"]):
        return maps
    mirrored = run(np.ascontiguousarray(batch[..., ::-1]))[..., ::-1]
    return (maps + mirrored[:, list(task["mirror"])]) / 2


def places_in_picture(places: Array, box: Sequence[float], frame: Size) -> list[list[float]]:
    """Places (j, 2: x, y), shares of the frame of :func:`~vitrail.device.pixels.view`, in pixels of the picture."""
    centre, scale = view_of(box, frame)
    inside: list[list[float]] = ((places - 0.5) * [frame[1], frame[0]] / scale + centre).tolist()
    return inside


def _segments(run: RunFile, pixels: Array, facts: Facts, top_k: int | None) -> dict[str, Any]:
    labels = label_pixels(run, pixels, facts["preprocessing"], facts["task"]["inference"])
    shares = class_shares(labels, facts["classes"])[:top_k]
    return {"classes": [{"label": name, "index": index, "share": share} for name, index, share in shares]} | {
        "labels": labels
    }


def class_shares(labels: Array, classes: Sequence[str]) -> list[tuple[str, int, float]]:
    """(name, index, share of the pixels) of every class that occurs in labels (h, w), the largest first."""
    counts = np.bincount(labels.reshape(-1), minlength=len(classes))[: len(classes)]
    order = [index for index in np.argsort(-counts, kind="stable").tolist() if counts[index]]
    return [(classes[index], index, float(np.float32(counts[index] / labels.size))) for index in order]


def label_pixels(run: RunFile, pixels: Array, how: Facts, inference: str) -> Array:
    """The most probable class of every pixel, uint8 (h, w): of the whole picture in the frame ("fit"), or of the mean
    over windows of the frame's size ("slide"); "auto" takes windows for pictures more than 1.5 times too large."""
    size, frame = size_of(pixels), how["image_size"]
    inner = letterbox_size(size, frame)
    shrinks = min(inner[0] / size[0], inner[1] / size[1]) * SLIDE_ABOVE < 1
    if inference == "slide" or (inference == "auto" and shrinks):
        return _slide(run, pixels, how).argmax(0).astype(np.uint8)
    shares = _shares(run, pixels, how)
    bands = [range(top, min(top + BAND, size[0])) for top in range(0, size[0], BAND)]
    return np.concatenate([enlarge(shares, size, rows).argmax(0) for rows in bands]).astype(np.uint8)


def _shares(run: RunFile, pixels: Array, how: Facts) -> Array:
    """Probabilities (c, h, w) of the whole picture, as large as it is in the frame."""
    inner = letterbox_size(size_of(pixels), how["image_size"])
    logits = run(normalise(letterbox(pixels, how), how))[0]
    return softmax(logits[:, : inner[0], : inner[1]])


def _slide(run: RunFile, pixels: Array, how: Facts) -> Array:
    """Mean probabilities (c, h, w) of overlapping windows at the picture's own scale."""
    (height, width), size = how["image_size"], size_of(pixels)
    total: Array = np.zeros(1, np.float32)
    count = np.zeros(size, np.float32)
    for top, left in windows(size, (height, width)):
        part = pixels[top : top + height, left : left + width]  # smaller than the window only where the picture is
        shares = enlarge(_shares(run, part, how), size_of(part))
        total = total if total.ndim == 3 else np.zeros((len(shares), *size), np.float32)
        total[:, top : top + height, left : left + width] += shares
        count[top : top + height, left : left + width] += 1
    return total / count


def windows(size: Size, window: Size) -> Iterator[tuple[int, int]]:
    """Top left corners of overlapping windows that cover a picture; one smaller than a window needs one."""
    for top in _starts(size[0], window[0]):
        for left in _starts(size[1], window[1]):
            yield top, left


def _starts(length: int, window: int) -> list[int]:
    last = max(length - window, 0)
    count = -(-last // max(round(window * (1 - WINDOW_OVERLAP)), 1)) + 1
    return [round(last * i / max(count - 1, 1)) for i in range(count)]


def make_picture(run: RunFile, facts: Facts, noise: Array, label: int = 0) -> Array:
    """A picture (h, w, 3) of a generator.

    Args:
        run: the file in its runtime.
        facts: what the file says.
        noise: normal random numbers (``latent_dim`` of the task,).
        label: number of the class, where the generator has classes.
    """
    codes = np.arange(facts["task"]["num_labels"]) == label
    made = run(np.concatenate([noise, codes]).astype(np.float32)[None, :, None, None])[0]
    return np.clip(np.rint((made + 1) * 127.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)


_ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {
    "classification": _classes,
    "multilabel": _labels,
    "segmentation": _segments,
    "detection": _objects,
    "instances": _objects,
    "pose": _keypoints,
    "aesthetics": _scores,
}
