"""The model that a training starts from where nobody names one: the smallest whose public weights can be had."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import try_to_load_from_cache

from vitrail.core.errors import CheckpointError, ConfigError
from vitrail.models.complexity import variant_complexity
from vitrail.models.hub import fetch_from_hub
from vitrail.models.pretrained import PREFIX, PretrainedWeights, parse_pretrained
from vitrail.models.registry import FAMILIES
from vitrail.models.weights_source import fields_of_run, run_of

LOG = logging.getLogger(__name__)

FALLBACK = "edgevit_xxs"
"""The model where no weights can be had."""


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """A model and its weights.

    Attributes:
        model: name of the model.
        weights: as :func:`vitrail.create_model` takes them; None for random ones.
        sentence: what was chosen, and why.
        fields: fields of the configuration that differ from the variant's, because the run of the weights has them.
    """

    model: str
    weights: str | None
    sentence: str
    fields: dict[str, Any] = field(default_factory=dict)


def find_starting_point(weights: str | None = None) -> StartingPoint:
    """Choose a model, by the weights where they are given.

    Weights in the hub's cache come first, since they need no network; then the smallest on the hub.

    Args:
        weights: None, "pretrained", "pretrained:TAG", or the folder or file of a run.

    Raises:
        ConfigError: the weights do not tell their model.
        CheckpointError: public weights were asked for and cannot be had.
    """
    tag = "" if weights is None else parse_pretrained(weights)
    if weights is not None and tag is None:
        model, _ = run_of(weights)
        if not model:
            raise ConfigError("do not tell which model they are of; give --model too", weights=weights)
        fields = fields_of_run(weights)
        with_fields = f" with {', '.join(f'{name}={value!r}' for name, value in fields.items())}" if fields else ""
        sentence = f"Model: {model}{with_fields}, as {weights} tells."
        return StartingPoint(model=model, weights=weights, sentence=sentence, fields=fields)
    known = sorted(_public(tag or ""), key=lambda one: variant_complexity(one[0]).params)
    if not known:
        raise CheckpointError(f"no model has public weights with the tag '{tag}'; 'vitrail models NAME' lists the tags")
    for model, entry in known:
        if isinstance(try_to_load_from_cache(entry.hub_id, entry.file, revision=entry.revision), str):
            return _chosen(model, entry, "the smallest whose public weights are in the cache")
    model, entry = known[0]
    try:
        fetch_from_hub(entry.hub_id, entry.file, entry.revision, entry.sha256)
    except CheckpointError as error:
        if weights is not None:
            raise
        LOG.debug("%s", error)
        return StartingPoint(
            model=FALLBACK,
            weights=None,
            sentence=f"WARNING: {FALLBACK} starts from RANDOM weights, because no pretrained ones can be had here "
            f"({error}). A few hundred images then teach little: give --weights FILE and --model, or connect.",
        )
    return _chosen(model, entry, "the smallest with public weights")


def _chosen(model: str, entry: PretrainedWeights, why: str) -> StartingPoint:
    sentence = f"Model: {model}, {why} ({entry.hub_id}); --model NAME takes another."
    return StartingPoint(model=model, weights=f"{PREFIX}:{entry.tag}", sentence=sentence)


def _public(tag: str) -> Iterator[tuple[str, PretrainedWeights]]:
    """Every model with its first entry of that tag."""
    for family in FAMILIES.values():
        for model, entries in family.weights.items():
            fitting = [entry for entry in entries if tag in ("", entry.tag)]
            if fitting:
                yield model, fitting[0]
