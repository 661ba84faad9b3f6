"""All checks of a data set, one after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vitrail.data.check.near_copies import NearCopy
from vitrail.soundness.balance import find_imbalance, find_small_parts
from vitrail.soundness.by_features import (
    features_of,
    find_neighbours,
    find_outliers,
    find_wrong_labels,
    find_zooms,
    open_backbone,
)
from vitrail.soundness.config import CheckConfig
from vitrail.soundness.objects import find_odd_objects
from vitrail.soundness.overview import understand
from vitrail.soundness.picture_quality import find_odd_pictures
from vitrail.soundness.reading import DataUnderCheck, read_for_check
from vitrail.soundness.same_images import find_same_images
from vitrail.soundness.soundness import Doubt, Example, Finding, Soundness, amount

NEEDS_WEIGHTS = (
    "Wrong labels and outliers were not looked for: that needs a trained backbone; name its weights, such as --weights "
    "pretrained, or a file with --model and --weights"
)


def check_data(path: str | os.PathLike[str], config: CheckConfig, *, progress: bool = False) -> Soundness:
    """Look through a data set of any task.

    Args:
        path: folder of the data, or "sample".
        config: what is checked.
        progress: show bars with the time that is left.

    Raises:
        DataError: nothing of the folder can be used.
        VitrailError: the model or its weights cannot be used.
    """
    model = open_backbone(config) if config.weights is not None else None  # a wrong name is told before the long part
    data = read_for_check(os.fspath(path), config, progress=progress)
    understood = understand(data)
    by_features: list[Finding] = []
    relabel: list[Doubt] | None = None
    zooms: list[NearCopy] = []
    if model is not None:
        features = features_of(data, model, config, progress=progress)
        wrong, relabel = find_wrong_labels(data, features, config)
        near = find_neighbours(features)
        zooms, by_features = find_zooms(data, near), [*wrong, *find_outliers(data, near)]
    findings = [
        *_unusable(data),
        *find_same_images(data, zooms),
        *by_features,
        *find_odd_objects(data),
        *find_odd_pictures(data.looks),
        *find_imbalance(understood),
        *find_small_parts(understood),
        *_left_out(data),
    ]
    return Soundness(
        data=data.path,
        task=data.task,
        others=data.others,
        understood=understood,
        findings=tuple(sorted(findings, key=lambda finding: not finding.serious)),
        relabel=tuple(relabel or ()),
        labels_judged=relabel is not None,
        unchecked=(NEEDS_WEIGHTS,) if model is None else (),
        sources={name: record.source for name, record in data.images.items()},
    )


def _unusable(data: DataUnderCheck) -> list[Finding]:
    """What a training refuses or leaves out, and what looks wrong to it."""
    splits, found = data.splits, []
    if data.refused:
        found.append(
            Finding(name="refused", serious=True, title="A training refuses this data", text=data.refused, count=1)
        )
    broken, wrong = splits.undecodable, splits.wrong_annotations
    groups = [
        (
            "broken-files",
            amount(len(broken), "image cannot be decoded", "images cannot be decoded"),
            "Copy them again, or delete them.",
            broken,
        ),
        (
            "wrong-annotations",
            amount(len(wrong), "annotation is wrong", "annotations are wrong"),
            "Mend them, or leave them out with --bad-annotations skip.",
            wrong,
        ),
    ]
    found += [_listing(name, title, text, rows, serious=True) for name, title, text, rows in groups if rows]
    if damaged := sorted(data.samples.damaged):
        found.append(
            Finding(
                name="damaged-files",
                serious=False,
                title=amount(len(damaged), "JPEG file is damaged inside", "JPEG files are damaged inside"),
                text="They are used as they decode, often with a grey area; copy them again or delete them.",
                count=len(damaged),
                examples=tuple(Example(files=(name,)) for name in damaged),
            )
        )
    return found


def _left_out(data: DataUnderCheck) -> list[Finding]:
    """Files that look like images and are no samples."""
    known = {*data.splits.undecodable, *data.splits.wrong_annotations}
    rows = [text for text in data.splits.skipped if text not in known]
    count = data.splits.num_skipped - len(known)
    if not rows:
        return []
    return [
        _listing(
            "left-out",
            amount(count, "file is left out", "files are left out"),
            "They belong to no sample.",
            rows,
            serious=False,
        )
    ]


def _listing(name: str, title: str, text: str, rows: Sequence[str], *, serious: bool) -> Finding:
    """A finding whose cases are sentences "path: reason"."""
    return Finding(
        name=name,
        serious=serious,
        title=title,
        text=text,
        count=len(rows),
        examples=tuple(Example(files=(), note=row) for row in rows),
    )
