"""Which preprocessing a training or an evaluation has, and who said so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vitrail.core.types import Preprocessing


class Given(Protocol):
    """A configuration with options of the preprocessing; None is an option that was not given."""

    @property
    def mean(self) -> tuple[float, ...] | None: ...
    @property
    def std(self) -> tuple[float, ...] | None: ...
    @property
    def crop_fraction(self) -> float | None: ...
    @property
    def interpolation(self) -> str | None: ...


def decide_preprocessing(known: Preprocessing, source: str, given: Given) -> tuple[Preprocessing, str]:
    """The preprocessing with the given options, and a sentence on its values and on their origin.

    Args:
        known: preprocessing of the weights or of the model's family.
        source: origin of ``known``.
        given: options of a configuration.

    Raises:
        ConfigError: a value that is not allowed.
    """
    used = known.changed(
        mean=given.mean, std=given.std, crop_fraction=given.crop_fraction, interpolation=given.interpolation
    )
    parts = []
    for name in ("mean", "std", "interpolation"):
        value, before = getattr(used, name), getattr(known, name)
        contradicted = f" (given; {source} has {_words(before)})" if value != before else " (given)"
        parts.append(f"{name} {_words(value)}{contradicted if getattr(given, name) is not None else ''}")
    return used, f"preprocessing of {source}: {', '.join(parts)}"


def source_of(source: str, weights: str | None) -> str:
    """The origin in words, where weights may have said nothing.

    Args:
        source: file or address that says it; "" where it is the family's.
        weights: weights that were loaded.
    """
    if source or weights is None:
        return source or "the model's family"
    return f"the model's family ({weights} says none)"


def _words(value: Sequence[float] | str) -> str:
    return value if isinstance(value, str) else " ".join(f"{number:g}" for number in value)
