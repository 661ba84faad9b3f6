"""The backbones that a probe compares: their weights are a run, a file, in the hub's cache, or on the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vitrail.core.errors import CheckpointError, ConfigError, VitrailError
from vitrail.core.import_code import imported_code
from vitrail.core.paths import typed_path, user_path
from vitrail.models import Backbone, create_model, find_family
from vitrail.models.hub import cached_file
from vitrail.models.pretrained import PREFIX, PretrainedWeights
from vitrail.models.registry import FAMILIES, is_model
from vitrail.models.weights_source import fields_of_run
from vitrail.runs.run import Run

SMALL = ("vit_tiny_patch16", "mobilevit_s", "poolformer_s12")
"""Models that are tried where none is named: small ones of different kinds, with public weights."""

MOST = 6
"""Models that are tried where none is named."""

REMEDY = (
    "name weights that are here: --model NAME=FILE for a weights file (such as vit_tiny_patch16=vit.safetensors), or "
    "a run folder; 'vitrail models' lists the names"
)


@dataclass(frozen=True, kw_only=True)
class ProbeSource:
    """A backbone that is to be probed.

    Attributes:
        label: its name in tables.
        model: name that ``vitrail models`` lists.
        weights: weights as :func:`~vitrail.models.create_model` takes them.
        fields: fields of the configuration that differ from the variant's.
        public: entry of the table of public weights, if they are from the hub.
    """

    label: str
    model: str
    weights: str
    fields: dict[str, Any] = field(default_factory=dict)
    public: PretrainedWeights | None = None

    def typed(self) -> str:
        """The options of ``vitrail train`` that start from it; a run tells its model, with all fields."""
        weights = self.weights if self.weights.startswith(PREFIX) else typed_path(self.weights)
        return f"--weights {weights}" if self.fields else f"--model {self.model} --weights {weights}"

    def word(self) -> str:
        """The word of ``vitrail probe --model`` that names it."""
        if user_path(self.weights).is_dir():
            return typed_path(self.weights)
        return self.model if self.weights == PREFIX else typed_path(f"{self.model}={self.weights}")

    def create(self, num_classes: int, image_size: int | tuple[int, int] | None) -> Backbone:
        """The backbone with its weights, and a new classifier.

        Raises:
            VitrailError: the weights cannot be had or do not fit.
        """
        return create_model(
            self.model,
            num_classes=num_classes,
            image_size=image_size,
            weights=self.weights,
            replace_head=True,
            **self.fields,
        )


def find_sources(words: Sequence[str], weights: str | None = None) -> list[ProbeSource]:
    """The backbones that words name: a model, ``NAME=WEIGHTS``, or a run folder. Without words, models whose public
    weights are in the cache, and a few small ones.

    Args:
        words: the words.
        weights: weights of the only word, which then is the name of a model.

    Raises:
        ConfigError: weights are given for none or for several words, or a weights file without its model.
        UnknownNameError: there is no such model; the message has the nearest names.
        RunError: the folder is no finished run.
    """
    if weights is not None:
        if len(words) != 1 or "=" in words[0]:
            raise ConfigError("--weights needs one --model; for several write --model NAME=FILE NAME=FILE")
        words = [f"{words[0]}={weights}"]
    if not words:
        return list(_usual())
    found = [_source(word) for word in words]
    models = [source.model for source in found if source.label == source.model]
    sources: list[ProbeSource] = []
    for source in found:
        plain = source.label == source.model
        label = source.label
        if plain and models.count(source.model) > 1:  # several weights of one model
            label = f"{label} ({Path(source.weights).name})"
        alike = sum(one.label.partition(" #")[0] == label for one in sources)
        sources.append(replace(source, label=f"{label} #{alike + 1}" if alike else label))
    return sources


def _source(word: str) -> ProbeSource:
    path = user_path(word)
    if path.is_dir():
        return _of_run(path)
    name, equals, given = word.partition("=")
    if equals and is_model(name):
        if (user_path(given) / "run.json").is_file():
            return _of_run(user_path(given))
        return ProbeSource(label=name, model=name, weights=_weights(given))
    if path.is_file():
        raise ConfigError(f"{word} is a weights file, which does not say its model; write --model NAME={word}")
    if "/" in word and not equals:
        return _of_run(path)  # raises, since there is no such folder
    find_family(name)  # raises with the nearest names
    return ProbeSource(label=word, model=word, weights=PREFIX, public=_public(word))


def _weights(given: str) -> str:
    """Weights as they were typed; an address stays as it is."""
    if not given:
        raise ConfigError("--model NAME= has no weights; write --model NAME=FILE, or NAME alone for public weights")
    return given if "://" in given or given.startswith(PREFIX) else str(user_path(given))


def _public(name: str) -> PretrainedWeights | None:
    """The public weights of a model; None without them, which loading tells."""
    family = find_family(name)
    try:
        return family.find_weights(name, "", family.variants[name].image_size)
    except CheckpointError:
        return None


def _of_run(folder: Path) -> ProbeSource:
    run = Run.open(folder)
    description = run.read()
    if description.input_shape:
        raise ConfigError(f"run {folder} takes no images, and has no backbone; name the run of a classifier")
    model, fields = description.model.name, fields_of_run(str(folder))
    return ProbeSource(label=f"{folder.resolve().name} ({model})", model=model, weights=str(folder), fields=fields)


def _usual() -> Iterator[ProbeSource]:
    """Models of the cache, the smallest files first, then the small ones that are not among them."""
    here = []
    for name in (name for family in FAMILIES.values() for name in family.weights):
        public = _public(name)
        path = cached_file(public.hub_id, public.file, public.revision) if public is not None else None
        if public is not None and path is not None and path.is_file():
            here.append((path.stat().st_size, name))
    names = [name for _, name in sorted(here)]
    for name in list(dict.fromkeys([*names[: MOST - 1], *SMALL]))[:MOST]:
        yield ProbeSource(label=name, model=name, weights=PREFIX, public=_public(name))


class Availability:
    """Which sources could not be had, and whether the hub is worth asking again.

    Attributes:
        notes: a sentence on each source that is left out.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._silent = False

    def worth_trying(self, source: ProbeSource) -> bool:
        """Whether to try a source; where the hub was silent, its files are taken from the cache alone."""
        public = source.public
        if not self._silent or public is None or cached_file(public.hub_id, public.file, public.revision):
            return True
        self.notes.append(
            f"{source.label} is left out: the hub cannot be reached, and its weights are not in the cache"
        )
        return False

    def lost(self, source: ProbeSource, error: VitrailError) -> None:
        """Note why a source is left out."""
        self._silent |= "the hub cannot be reached" in str(error)
        self.notes.append(f"{source.label} is left out: {error}")

    def nothing_left(self) -> CheckpointError:
        """The error that no source could be had."""
        first = f" ({self.notes[0].partition(';')[0]})" if self.notes else ""
        return CheckpointError(f"a probe needs a backbone with weights, and none can be had{first}; {REMEDY}")


def typed_size(image_size: int | tuple[int, int] | None) -> str:
    """The option of an image size; "" for the model's own."""
    if image_size is None:
        return ""
    return f" --image-size {image_size if isinstance(image_size, int) else ' '.join(map(str, image_size))}"


def typed_imports() -> str:
    """The options of the own code that a model may need; "" without any."""
    return "".join(f" --import {typed_path(code)}" for code in imported_code())
