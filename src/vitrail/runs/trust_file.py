"""``trust.json`` and ``trust.safetensors``: what was fitted after a training on its validation images, and is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vitrail.core.checked import Count, FileModel, Number, Share
from vitrail.core.errors import RunError
from vitrail.core.files import atomic_path, file_hash, read_bytes, write_json
from vitrail.core.paths import typed_path
from vitrail.evaluation.trust.class_sets import SetMethod
from vitrail.evaluation.trust.data_drift import Seen
from vitrail.evaluation.trust.outlier_score import OutlierScore
from vitrail.runs.run import Run
from vitrail.runs.schema import BinEntry, read_file

VERSION = 1

SEEN, OUTLIER, MISFITS = "seen.", "outlier.", "misfits."
"""Beginnings of names of arrays."""

Arrays = dict[str, NDArray[Any]]


class IntervalEntry(FileModel):
    """A figure with its 95 % interval."""

    mean: Number
    low: Number
    high: Number


class CalibrationEntry(FileModel):
    """How near confidence is to accuracy, on images that the temperature was not fitted to."""

    ece: IntervalEntry
    loss: Number
    bins: tuple[BinEntry, ...]


class SetEntry(FileModel):
    """Sets of one method on images that their bound was not taken from, see
    :class:`~vitrail.evaluation.trust.class_sets.SetCheck`."""

    coverage: Share
    mean_size: Number
    empty: Share
    sizes: tuple[Count, ...]
    num_images: Count


class ClassesEntry(FileModel):
    """What is fitted for classifiers.

    Attributes:
        temperature: what makes the labels of the validation images most probable.
        coverage: share of images whose set holds the right class, as it was asked for.
        method: how sets are made, where nobody says otherwise.
        low, high: coverages between which 95 % of draws of so many validation images lie.
        top1: accuracy on the images of the check.
        checked_on: "test", or "folds" of the validation images; "" where there were too few.
        before, after: with the logits as they are, and over the temperature; None where nothing was checked.
        sets: method -> sets at the coverage; empty where nothing was checked.
    """

    temperature: Annotated[float, Field(gt=0, lt=1e6)]
    coverage: Share
    method: SetMethod
    low: Share
    high: Share
    top1: Share | None = None
    checked_on: Literal["test", "folds", ""] = ""
    before: CalibrationEntry | None = None
    after: CalibrationEntry | None = None
    sets: dict[SetMethod, SetEntry] = {}


class OutlierEntry(FileModel):
    """The outlier score.

    Attributes:
        threshold: score that 5 % of the validation images exceed.
        num_train: number of training images that it was fitted to.
        test_above: share of the test images above the threshold; None without test images.
    """

    threshold: Number
    num_train: Count
    test_above: Share | None = None


class TrustFile(FileModel):
    """The contents of ``trust.json``.

    Attributes:
        weights_hash, arrays_hash: hashes of the weights that it was made from, and of ``trust.safetensors``.
        num_val: number of validation images.
        classes: None where the task does not choose one class an image.
        outlier: the outlier score.
        notes: sentences on what is weak.
    """

    version: int = VERSION
    weights_hash: str
    arrays_hash: str
    num_val: Count
    classes: ClassesEntry | None = None
    outlier: OutlierEntry
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Trust:
    """What a run knows of how far its answers can be trusted.

    Attributes:
        file: figures and sentences.
        outlier_score: from features to a score.
        seen: statistics of validation images.
        misfits: method -> misfits of the right classes of the validation images.
    """

    file: TrustFile
    outlier_score: OutlierScore
    seen: Seen
    misfits: dict[str, NDArray[np.float64]]


def write_trust(run: Run, values: dict[str, Any], arrays: Arrays) -> TrustFile:
    """Write both files; the JSON comes last and has the hash of the other.

    Raises:
        VitrailError: the folder cannot be written.
    """
    with atomic_path(run.trust_arrays) as temporary:
        temporary.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
    values |= {"version": VERSION, "weights_hash": run.weights_hash, "arrays_hash": file_hash(run.trust_arrays)}
    write_json(run.trust, values)
    return read_trust_file(run)


def read_trust_file(run: Run) -> TrustFile:
    """``trust.json``, whatever weights it was made from.

    Raises:
        RunError: a field is missing or wrong.
        VitrailError: the file is missing or is not JSON.
    """
    return read_file(TrustFile, run.trust, _remedy(run))


def read_trust(run: Run) -> Trust:
    """What was fitted for the run's present weights.

    Raises:
        RunError: nothing was fitted, or it was for other weights, or a file is damaged; the message has the remedy.
    """
    run = Run.open(run.folder, needs=("description", "weights", "trust"))
    file = read_trust_file(run)
    if file.weights_hash != run.weights_hash:
        raise RunError(f"{run.trust} was made from other weights; {_remedy(run)}")
    damaged = f"{run.trust_arrays} is missing, damaged or not of {run.trust.name}; {_remedy(run)}"
    try:
        if file_hash(run.trust_arrays) != file.arrays_hash:
            raise RunError(damaged)
        arrays = load(read_bytes(run.trust_arrays))
        return Trust(
            file=file,
            outlier_score=OutlierScore.from_arrays(_named(arrays, OUTLIER)),
            seen=_seen_from(_named(arrays, SEEN)),
            misfits=_named(arrays, MISFITS),
        )
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(damaged) from error


def seen_arrays(seen: Seen) -> Arrays:
    """Statistics of images as arrays with names."""
    arrays: Arrays = {f"{SEEN}number.{name}": values for name, values in seen.numbers.items()}
    arrays[f"{SEEN}features"] = seen.features.astype(np.float32)
    return arrays | ({} if seen.answers is None else {f"{SEEN}answers": seen.answers})


def _seen_from(arrays: Arrays) -> Seen:
    return Seen(features=arrays["features"], numbers=_named(arrays, "number."), answers=arrays.get("answers"))


def _named(arrays: Arrays, beginning: str) -> Arrays:
    return {name.removeprefix(beginning): array for name, array in arrays.items() if name.startswith(beginning)}


def _remedy(run: Run) -> str:
    return f"make it again with: vitrail trust {typed_path(run.folder)}"
