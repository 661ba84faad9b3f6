"""The result of an energy measurement: a value is always kept with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

from vitrail.bench.energy.meter import ESTIMATED, SOURCES
from vitrail.core.errors import BenchError


class EnergyWindow(NamedTuple):
    """A stretch of work and the idle stretch it is compared with, in seconds since 1970.

    Attributes:
        start, end: times of the work.
        num_images: number of images that the model processed in it.
        idle_start, idle_end: times of the idle stretch of the same round.
    """

    start: float
    end: float
    num_images: int
    idle_start: float
    idle_end: float


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy of one candidate.

    Attributes:
        source: one of :data:`~vitrail.bench.energy.meter.SOURCES`; "estimated" is no measurement.
        reads: the quantity that was read, in words.
        energy_mj: millijoules an image, above idling; None if it could not be taken.
        ci95_mj: 95 % confidence interval of ``energy_mj``, by Student's t over the windows; None for fewer than two.
        power_w: mean power during work, idle power included.
        idle_power_w: mean power of the idle windows.
        windows: all windows, so that the trace of an external meter can be aligned with them.
        failure: reason why there is no value; None if there is one.
    """

    source: str
    reads: str = ""
    energy_mj: float | None = None
    ci95_mj: tuple[float, float] | None = None
    power_w: float | None = None
    idle_power_w: float | None = None
    windows: tuple[EnergyWindow, ...] = ()
    failure: str | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise BenchError(f"energy source '{self.source}' does not exist; there are {', '.join(SOURCES)}")

    @property
    def estimated(self) -> bool:
        """Whether no meter has measured it."""
        return self.source == ESTIMATED

    def text(self) -> str:
        """The value with its interval and its source; an estimate says so by a sign and by the word."""
        if self.energy_mj is None:
            return ""
        half = f" ± {(self.ci95_mj[1] - self.ci95_mj[0]) / 2:.2g}" if self.ci95_mj else ""
        sign = "≈ " if self.estimated else ""
        return f"{sign}{self.energy_mj:#.3g}{half} mJ ({self.source})"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``, also after a trip through JSON.

        Raises:
            BenchError: no source, or one that does not exist.
        """
        known = {name: values[name] for name in (field.name for field in fields(cls)) if name in values}
        if "source" not in known:
            raise BenchError("an energy value without a source; measure it again")
        if known.get("ci95_mj") is not None:
            known["ci95_mj"] = tuple(known["ci95_mj"])
        return cls(**known | {"windows": tuple(EnergyWindow(*window) for window in known.get("windows", ()))})
