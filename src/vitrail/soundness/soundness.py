"""What was understood of a data set, and what was found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError
from vitrail.data.check.problems import readable

Source = Path | bytes


@dataclass(frozen=True, kw_only=True)
class Example:
    """One case of a finding.

    Attributes:
        files: images that belong to it, paths inside the data folder; the second is what the first is compared with.
        note: what is to be seen.
        box: left, top, right, bottom in pixels of the first image, where the case is an object.
    """

    files: tuple[str, ...]
    note: str = ""
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong with the data, or that is worth a look.

    Attributes:
        name: what kind of finding it is, such as "copies-across-parts".
        serious: whether scores become wrong or a training cannot begin; ``strict`` refuses such data.
        title: a few words, with the number of cases.
        text: what follows from it, and what mends it.
        count: number of cases.
        examples: the cases, the worst first.
    """

    name: str
    serious: bool
    title: str
    text: str
    count: int
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """An image whose label may be wrong.

    Attributes:
        file: path inside the data folder.
        part: "train", "val" or "test"; "" where the data names no part.
        label: the given class; of images with several classes "not NAME" too, where the image lacks the class.
        suggested: the class that the other images speak for, or "not NAME".
        score: probability of the given class minus that of the suggested one, from -1 (surely wrong) to 0.
    """

    file: str
    part: str
    label: str
    suggested: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Understood:
    """What was understood of the folder.

    Attributes:
        num_images: image files.
        parts: part -> number of images; "" where the data names no part.
        classes: name -> part -> number of images, objects or labelled keypoints of that class.
        counted: what ``classes`` counts: "images", "objects" or "keypoints"; "" where there are no classes.
        folders: folder -> number of images in it, as many as :data:`~vitrail.soundness.overview.MOST_FOLDERS`.
        sizes: "WIDTHxHEIGHT" -> number of images, the most frequent first.
        num_sizes: number of different sizes.
        smallest, median, largest: (width, height) by the number of pixels.
        kinds: "JPEG RGB" and the like -> number of images.
        notes: further sentences, such as the range of scores.
    """

    num_images: int
    parts: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    counted: str = ""
    folders: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    num_sizes: int = 0
    smallest: tuple[int, int] = (0, 0)
    median: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)
    kinds: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Soundness:
    """The result of a check.

    Attributes:
        data: path as it was given.
        task: what the folder was read for.
        others: further tasks that it may be meant for.
        understood: parts, classes, sizes and formats.
        findings: serious ones first.
        relabel: images whose label may be wrong, the most doubtful first.
        labels_judged: whether labels were judged, so that an empty list says that none is doubtful.
        unchecked: sentences on what was not looked for, and what it needs.
        sources: image -> file or bytes, for pictures.
    """

    data: str
    task: str
    others: tuple[str, ...] = ()
    understood: Understood
    findings: tuple[Finding, ...] = ()
    relabel: tuple[Doubt, ...] = ()
    labels_judged: bool = False
    unchecked: tuple[str, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False, compare=False)

    @property
    def serious(self) -> tuple[Finding, ...]:
        """Findings that make scores wrong or a training impossible."""
        return tuple(finding for finding in self.findings if finding.serious)

    def require_sound(self) -> None:
        """
        Raises:
            DataError: something serious was found.
        """
        if self.serious:
            titles = "; ".join(finding.title for finding in self.serious)
            raise DataError(
                f"{self.data} is not sound ({titles}); mend it, or check without strict, which allows no such thing"
            )

    def find(self, name: str) -> Finding | None:
        """The finding of that name, or None."""
        return next((finding for finding in self.findings if finding.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; names of files are text that JSON can hold."""
        fields = asdict(self)
        del fields["sources"]
        found: dict[str, Any] = _readable(fields)
        return found


def amount(count: int, one: str, several: str) -> str:
    """A number with the words that fit it: "1 picture is", "2 pictures are"."""
    return f"{count} {one if count == 1 else several}"


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, Mapping):
        return {_readable(key): _readable(inner) for key, inner in value.items()}
    return [_readable(inner) for inner in value] if isinstance(value, list | tuple) else value
