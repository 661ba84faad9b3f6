"""What a frozen backbone makes of images: the features that its own classifier reads, computed once and kept."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vitrail.core.errors import CheckpointError, VitrailError
from vitrail.core.files import atomic_path, json_text, open_regular, read_bytes
from vitrail.core.progress import track
from vitrail.core.types import Preprocessing
from vitrail.data import Samples, eval_loader
from vitrail.models import Backbone

LOG = logging.getLogger(__name__)

FEATURES_VERSION = 1
"""Changes when the same weights and images give other features."""

WRITE_EVERY = 2048
"""Images after which the file is written; an interruption loses no more."""

MOST_ROWS = 200_000
"""Images that a file keeps; the oldest are dropped."""

WITHOUT_EFFECT = ("num_classes", "drop_rate", "drop_path_rate")
"""Fields of a configuration that do not change features."""

Features = NDArray[np.float32]
"""(images, num_features)"""


def embed(
    backbone: Backbone,
    samples: Samples,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    cache: Path | None = None,
    progress: bool = False,
) -> Features:
    """The pooled features of images, which the backbone's classifier reads; nothing is learnt.

    With a cache, an image is computed once for the same weights and preprocessing, whatever it is called and wherever
    it lies. A file that is damaged is computed anew; a folder that cannot be written costs time, nothing else.

    Args:
        backbone: any; it computes on its own device and is left in evaluation mode.
        samples: images.
        preprocessing: conversion of an image to the input of the backbone.
        batch_size: number of images at once.
        num_workers: number of processes that decode; 0 decodes here.
        cache: folder of features that are known. Default: nothing is read or kept.
        progress: show a bar with the time left.

    Returns:
        float32 (images, num_features), in the order of the samples.

    Raises:
        DataError: there are no images, or one cannot be decoded.
        CheckpointError: the features are not finite.
    """
    backbone.eval()
    marks = [_image_mark(samples, index) for index in range(len(samples))]
    file = None if cache is None else cache / f"{_features_key(backbone, samples, preprocessing)}.safetensors"
    known = {} if file is None else _read(file, backbone.num_features)
    missing = {mark: index for index, mark in reversed(list(enumerate(marks))) if mark not in known}
    wanted = sorted(missing.values())
    if wanted or not marks:
        loader = eval_loader(samples.subset(wanted), preprocessing, batch_size=batch_size, num_workers=num_workers)
        device, done, written = next(backbone.parameters()).device, 0, 0
        for batch in track(loader, "Computing features", progress=progress):
            with torch.inference_mode():
                inputs = preprocessing.normalize(batch.images.to(device))
                pooled = backbone.forward_head(backbone.forward_features(inputs), pre_logits=True)
                rows = pooled.float().cpu().numpy()
            names = [samples.names[index] for index in wanted[done : done + len(rows)]]
            _require_finite(rows, names)
            for index, row in zip(wanted[done : done + len(rows)], rows, strict=True):
                known[marks[index]] = row
            done += len(rows)
            if file is not None and (done - written >= WRITE_EVERY or done == len(wanted)):
                _write(file, known)
                written = done
    return np.stack([known[mark] for mark in marks])


def _require_finite(rows: Features, names: list[str]) -> None:
    good = np.isfinite(rows).all(axis=1)
    if not good.all():
        raise CheckpointError(
            f"the backbone gives features of {names[int(np.argmin(good))]} that are not finite; use other weights, or "
            "the preprocessing that these were trained with"
        )


def _image_mark(samples: Samples, index: int) -> bytes:
    """What identifies an image and the way in which it is decoded."""
    record = samples.records[index]
    digest = record.digest
    if not digest and isinstance(record.source, bytes):
        digest = hashlib.sha256(record.source).hexdigest()
    elif not digest:
        with open_regular(Path(str(record.source))) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    careful = record.files[0] in samples.damaged
    return hashlib.sha256(f"{digest}\0{careful}".encode()).digest()


def _features_key(backbone: Backbone, samples: Samples, preprocessing: Preprocessing) -> str:
    """What identifies a backbone and its input: weights, architecture, preprocessing, version."""
    config = {name: value for name, value in asdict(backbone.config).items() if name not in WITHOUT_EFFECT}
    facts = {
        "version": [FEATURES_VERSION, version("vitrail")],
        "family": type(backbone).__qualname__,
        "config": repr(sorted(config.items())),
        "preprocessing": preprocessing.to_dict(),
        "pixel_range": preprocessing.pixel_range or samples.pixel_range,
    }
    digest = hashlib.sha256(json_text(facts).encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        if not name.startswith("head."):
            digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _read(file: Path, width: int) -> dict[bytes, NDArray[np.float32]]:
    """The rows of a file by their marks; none where it is missing or damaged."""
    try:
        arrays = load(read_bytes(file))
        marks, rows, seal = arrays["marks"], arrays["features"], arrays["seal"]
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        LOG.info("%s is damaged (%s); the features are computed anew", file, error)
        return {}
    shapes = marks.shape == (len(rows), 32) and rows.shape == (len(marks), width) and rows.dtype == np.float32
    if not shapes or seal.tobytes() != _seal(marks, rows):
        LOG.info("%s is damaged; the features are computed anew", file)
        return {}
    return {mark.tobytes(): row for mark, row in zip(marks, rows, strict=True)}


def _write(file: Path, known: Mapping[bytes, NDArray[np.float32]]) -> None:
    kept = list(known.items())[-MOST_ROWS:]
    marks = np.frombuffer(b"".join(mark for mark, _ in kept), dtype=np.uint8).reshape(-1, 32)
    rows = np.stack([row for _, row in kept])
    seal = np.frombuffer(_seal(marks, rows), dtype=np.uint8)
    try:
        with atomic_path(file) as temporary:
            temporary.write_bytes(save({"marks": marks, "features": rows, "seal": seal}))
    except VitrailError as error:
        LOG.info("the features are not kept: %s", error)


def _seal(marks: NDArray[np.uint8], rows: Features) -> bytes:
    """A hash of the contents: a bit that fell over would be a wrong feature that nobody notices."""
    return hashlib.sha256(marks.tobytes() + rows.tobytes()).digest()
