"""The models that come into question for some images and limits, and their times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from huggingface_hub import constants

from vitrail.core.errors import CheckpointError, ConfigError, ImageSizeError
from vitrail.core.paths import user_path
from vitrail.core.progress import Work
from vitrail.core.types import as_image_size
from vitrail.models import find_family, list_models
from vitrail.models.complexity import variant_complexity
from vitrail.models.hub import cached_file
from vitrail.models.measured_times import measured_times
from vitrail.models.pretrained import PREFIX
from vitrail.runs.model_rows import Candidate, LeftOut, ModelChoiceConfig, ModelRow
from vitrail.runs.model_timing import time_model
from vitrail.runs.probe_candidates import ProbeSource, find_sources
from vitrail.tasks import Task, TaskKind, TaskSpec

MOST_SHOWN = 5
"""Models that are named."""

MOST_MEASURED = 6
"""Models that are measured here; each takes some seconds."""

HOPELESS = 1.3
"""A model is not measured if its expected time is longer than the limit by this factor."""

WIDEST_HEAD = 1001 * 2048
"""More parameters than the classifier of any variant has in the table of counts."""


def find_candidates(config: ModelChoiceConfig, *, needs_weights: bool) -> tuple[list[Candidate], list[str]]:
    """Models in the order in which they are preferred, and sentences on those that are none.

    Raises:
        UnknownNameError: nothing has a name of the pattern.
        CheckpointError: weights that were named do not exist.
    """
    names = list_models(config.pattern)
    if not names:
        find_family(config.pattern)  # raises with the nearest names
    given = [_given(source, config) for source in (find_sources(config.weights) if config.weights else ())]
    public = [candidate for name in names if (candidate := _public(name, config)) is not None]
    without, notes = [name for name in names if not find_family(name).weights.get(name)], []
    if constants.HF_HUB_OFFLINE and (far := [one for one in public if one.row.place == "hub"]):
        public = [one for one in public if one.row.place != "hub"]
        notes.append(f"{len(far)} models are left out: HF_HUB_OFFLINE is set, and their weights are not in the cache.")
    blank = [] if needs_weights else [_blank(name, config) for name in without]
    if needs_weights and without:
        notes.append(f"{len(without)} models without public weights are left out.")

    def order(candidates: Sequence[Candidate]) -> list[Candidate]:
        return sorted(candidates, key=_macs, reverse=config.limited)

    return [*order(given), *order(public), *order(blank)], notes


def _blank(name: str, config: ModelChoiceConfig) -> Candidate:
    own = find_family(name).variants[name].image_size
    size = own if config.image_size is None else as_image_size(config.image_size)
    macs, params = variant_complexity(name).macs, variant_complexity(name).params
    row = ModelRow(model=name, weights=None, place="random", image_size=size, num_params=params, macs=macs)
    return Candidate(source=None, row=row)


def _public(name: str, config: ModelChoiceConfig) -> Candidate | None:
    """A model with its public weights; None without them."""
    row, family = _blank(name, config).row, find_family(name)
    if not family.weights.get(name):
        return None
    entry = family.find_weights(name, "", row.image_size)
    here = cached_file(entry.hub_id, entry.file, entry.revision) is not None
    size = entry.image_size if config.image_size is None else row.image_size
    row = replace(row, weights=PREFIX, place="cache" if here else "hub", image_size=size, top1=entry.top1)
    return Candidate(source=ProbeSource(label=name, model=name, weights=PREFIX), row=row)


def _given(source: ProbeSource, config: ModelChoiceConfig) -> Candidate:
    """A model with weights that the user named.

    Raises:
        CheckpointError: they do not exist.
    """
    if source.public is not None:
        return _public(source.model, config) or _blank(source.model, config)
    if "://" not in source.weights and not user_path(source.weights).exists():
        raise CheckpointError(f"weights {source.weights} of {source.label} do not exist; check the path")
    place = "file" if "://" in source.weights else "run" if user_path(source.weights).is_dir() else "file"
    return Candidate(source=source, row=replace(_blank(source.model, config).row, weights=source.weights, place=place))


def _built(candidate: Candidate, kind: TaskKind, spec: TaskSpec, *, device: str) -> Task:
    row = candidate.row
    with torch.device(device):
        backbone = kind.make_backbone(
            row.model, num_classes=kind.num_outputs(spec), image_size=row.image_size, **candidate.fields
        )
        return kind.create(backbone, spec)


def _within_size(
    candidates: Sequence[Candidate], config: ModelChoiceConfig, kind: TaskKind, spec: TaskSpec, left: LeftOut
) -> Iterator[Candidate]:
    """Candidates that can be built for the task and keep to the size, with their exact number of parameters."""
    limit = math.inf if config.max_size_mb is None else config.max_size_mb * 1e6
    for candidate in candidates:
        if 4 * (candidate.row.num_params - WIDEST_HEAD) > limit:  # without building it
            left.large.append(candidate.row)
            continue
        try:
            task = _built(candidate, kind, spec, device="meta")
        except (ConfigError, ImageSizeError):
            left.unfit += 1
            continue
        row = replace(candidate.row, num_params=sum(parameter.numel() for parameter in task.parameters()))
        if row.size_bytes > limit:
            left.large.append(row)
            continue
        yield replace(candidate, row=row)


def looked_up(
    candidates: Sequence[Candidate],
    config: ModelChoiceConfig,
    kind: TaskKind,
    spec: TaskSpec,
    left: LeftOut,
    progress: bool,  # noqa: ARG001 (the measurement shows one)
) -> list[Candidate]:
    """The first models within the limits, with times of the table."""
    limit, possible = config.max_latency_ms, []
    for candidate in candidates:
        row = candidate.row
        known = measured_times().of(row.model, row.image_size) if not candidate.fields else None
        row = replace(row, latency_ms=known, timed="" if known is None else "table")
        if limit is not None and known is None:
            left.unknown += 1
        elif limit is not None and known is not None and known > limit:
            left.slow.append(row)
        else:
            possible.append(replace(candidate, row=row))
    rows: list[Candidate] = []
    for candidate in _within_size(possible, config, kind, spec, left):
        rows.append(candidate)
        if len(rows) == MOST_SHOWN:
            break
    return rows


def measured(
    candidates: Sequence[Candidate],
    config: ModelChoiceConfig,
    kind: TaskKind,
    spec: TaskSpec,
    left: LeftOut,
    progress: bool,
) -> list[Candidate]:
    """The first models within the limits, measured here; that with the least computation is measured before all others,
    since it tells which are hopeless.

    Raises:
        BenchError: a model does not run.
    """
    limit = config.max_latency_ms or math.inf
    least = next(_within_size(sorted(candidates, key=_macs), config, kind, spec, LeftOut()), None)
    known: dict[tuple[str, str | None], Candidate] = {}
    rows: list[Candidate] = []
    work = Work("Measuring models", min(MOST_MEASURED, len(candidates)), progress=progress)

    def time(candidate: Candidate) -> None:
        found = time_model(_built(candidate, kind, spec, device="cpu").eval(), candidate.row.image_size)
        row = replace(candidate.row, latency_ms=found.milliseconds, timed="here", contended=found.contended)
        known[candidate.name] = replace(candidate, row=replace(row, runtime=found.runtime))
        work.advance(note=candidate.row.model)

    try:
        if least is not None:
            time(least)
        for place, candidate in enumerate(candidates):
            if len(rows) == MOST_SHOWN or len(known) == MOST_MEASURED:
                left.unmeasured += len(candidates) - place
                break
            if candidate.name not in known:
                if _expected(candidate, [one.row for one in known.values()]) > HOPELESS * limit:
                    left.unmeasured += 1
                    continue
                for one in _within_size([candidate], config, kind, spec, left):
                    time(one)
            if (found := known.get(candidate.name)) is not None and (found.row.latency_ms or 0.0) <= limit:
                rows.append(found)
            elif found is not None:
                left.slow.append(found.row)
    finally:
        work.end()
    return rows


def _macs(candidate: Candidate) -> int:
    return candidate.row.macs


def _expected(candidate: Candidate, known: Sequence[ModelRow]) -> float:
    """Milliseconds by the measured model with the most similar computation; 0 where nothing was measured."""
    nearest = min(known, key=lambda row: abs(math.log(row.macs / candidate.row.macs)), default=None)
    return 0.0 if nearest is None else (nearest.latency_ms or 0.0) * candidate.row.macs / nearest.macs
