"""What is done to the pictures, and how strongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError

Group = Literal["translation", "rotation", "scale", "corruption", "resolution"]
GROUPS: tuple[Group, ...] = get_args(Group)

Border = Literal["reflect", "circular"]


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """
    Attributes:
        groups: kinds of change; see :data:`GROUPS`.
        num_images: largest number of held-out images, chosen by seed.
        shifts: shifts of the picture, as shares of its side; each in both directions along rows, columns and the
            diagonal.
        border: filling of the border: the mirrored picture, or the part that moved out on the other side.
        angles: angles in degrees, each in both directions.
        zooms: factors of scale; below 1 the picture shrinks, and its mirrored surroundings appear.
        severities: strengths of the corruptions, 1 to 5.
        resolutions: factors of the image size; tables of positions are resized, and sizes that the model cannot take
            are left out.
        seed: random seed of the noise and of the choice of images.
        batch_size: number of images at once; changes speed, never the pictures.
    """

    groups: tuple[Group, ...] = GROUPS
    num_images: int = 1000
    shifts: tuple[float, ...] = (1 / 16, 1 / 8, 3 / 16, 1 / 4)
    border: Border = "reflect"
    angles: tuple[float, ...] = (10, 20, 30)
    zooms: tuple[float, ...] = (0.6, 0.8, 1.25, 1.5)
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    resolutions: tuple[float, ...] = (0.5, 0.75, 1.25, 1.5, 2.0)
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        convert_fields(self)
        if not self.groups:
            raise ConfigError(f"is empty; there are {', '.join(GROUPS)}", groups=self.groups)
        for name in ("num_images", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError("is below 1", **{name: getattr(self, name)})
        if not all(0 < value < 1 for value in self.shifts):
            raise ConfigError("are not shares of a side between 0 and 1", shifts=self.shifts)
        if not all(0 < value <= 180 for value in self.angles):
            raise ConfigError("are not degrees above 0 and up to 180", angles=self.angles)
        for name in ("zooms", "resolutions"):
            if not all(1 / 8 <= value <= 8 for value in getattr(self, name)):
                raise ConfigError("are not factors from 1/8 to 8", **{name: getattr(self, name)})
        if not all(1 <= value <= 5 for value in self.severities):
            raise ConfigError("are not between 1 and 5", severities=self.severities)
