"""One translator for every configuration: plain values in, a configuration or one line out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from vitrail import BenchConfig, BrowserConfig, DataConfig, Limits, RobustnessConfig, TrainConfig, WholeWayConfig
from vitrail.core.config import choices, convert_fields, differing_fields, typed
from vitrail.core.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Crop:
    share: float = 0.5
    modes: tuple[Literal["near", "far"], ...] = ()

    def __post_init__(self) -> None:
        convert_fields(self)
        if self.share > 1:
            raise DataError("is above 1", share=self.share)


@dataclass(frozen=True, kw_only=True)
class Settings:
    epochs: int = 3
    size: int | tuple[int, int] | None = None
    keep: Literal["best", "last"] | None = None
    crop: Crop = field(default_factory=Crop)

    def __post_init__(self) -> None:
        if self.epochs > 9 and self.crop.share > 0.9:
            raise ConfigError("are too much together", epochs=self.epochs, **{"crop.share": self.crop.share})


def test_plain_values_become_a_configuration() -> None:
    values = json.loads('{"epochs": "7", "size": [4, 5], "crop": {"share": 1, "modes": ["far"]}}')
    assert typed(Settings, values) == Settings(epochs=7, size=(4, 5), crop=Crop(share=1.0, modes=("far",)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "unknown field epoch; did you mean epochs?"),
        ({"crop": {"shares": 1}}, "unknown field crop.shares; did you mean crop.share?"),
        ({"crop": {"x": 1}}, "unknown field crop.x; known ones are share, modes"),
        ({"crop": "photos"}, "crop='photos' is not a table of fields and values"),
        ({"epochs": "many"}, "epochs='many' is not allowed: input should be a valid integer"),
        ({"size": [1, 2, "x"]}, "size=[1, 2, 'x'] is not allowed: input should be a valid integer"),
        ({"keep": "worst"}, "keep='worst' is not allowed; choose best or last"),
        ({"crop": {"modes": ["near", "there"]}}, "crop.modes=['near', 'there'] is not allowed; choose near or far"),
        ({"crop": {"share": 2}}, "crop.share=2.0 is above 1"),
        ({"epochs": 10, "crop": {"share": 1}}, "epochs=10, crop.share=1.0: are too much together"),
    ],
)
def test_a_wrong_value_is_one_line_about_its_field(values: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        typed(Settings, values)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_check_keeps_its_kind_of_error() -> None:
    with pytest.raises(DataError) as caught:
        typed(Settings, {"crop": {"share": 2}})
    assert caught.value.values == {"crop.share": 2.0}
    assert caught.value.told(lambda name, value: f"--{name} {value}") == "--crop.share 2.0 is above 1"


def test_choices_are_those_of_literals_wherever_they_are() -> None:
    assert choices(tuple[Literal["near", "far"], ...] | None) == ("near", "far")
    assert choices(int | str) == ()
    with pytest.raises(ConfigError, match="modes=\\('there',\\) is not allowed; choose near or far"):
        Crop(modes=("there",))  # type: ignore[arg-type]  # what a caller without a type checker may write


def test_differing_fields_are_found_at_any_depth() -> None:
    old = {"epochs": 100, "image_size": (32, 32), "data": {"seed": 0, "path": "x"}}
    assert differing_fields(old, json.loads(json.dumps(old))) == []
    changed = old | {"epochs": 3, "data": {"seed": 1, "path": "x"}}
    assert differing_fields(old, changed) == ["data.seed 0 -> 1", "epochs 100 -> 3"]


class Folder:
    def __fspath__(self) -> str:
        return "photos"


@pytest.mark.parametrize("data", ["photos", Path("photos"), Folder(), {"path": "photos"}, DataConfig(path="photos")])
def test_a_folder_stands_for_its_configuration(data: Any) -> None:
    assert TrainConfig(data=data).data == DataConfig(path="photos")
    assert TrainConfig.from_dict({"data": data}).data == DataConfig(path="photos")
    assert DataConfig(path=data if isinstance(data, str | Path) else "photos").path == "photos"


@pytest.mark.parametrize("epochs", ["5", 5, 5.0, np.int64(5), torch.tensor(5)])
def test_numbers_are_taken_in_every_form(epochs: Any) -> None:
    config = TrainConfig(epochs=epochs, learning_rate=str(1e-3), image_size=["32", 48], weights=Path("w.pth"))
    assert (config.epochs, config.learning_rate, config.image_size, config.weights) == (5, 1e-3, (32, 48), "w.pth")
    assert type(config.epochs) is int


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainConfig(epochs="many"), "epochs='many' is not allowed: input should be a valid integer"),
        (lambda: TrainConfig(epochs=5.5), "epochs=5.5 is not allowed: "),
        (lambda: TrainConfig(epochs="0"), "epochs=0 is not allowed; it must be at least 1"),
        (lambda: TrainConfig(data=3), "data=3 is not a table of fields and values, nor DataConfig(...)"),
        (lambda: TrainConfig(data={"pth": "x"}), "unknown field pth; did you mean path?"),
        (
            lambda: TrainConfig(augment="strong"),
            "augment='strong' is not a table of fields and values, nor Augment",
        ),
        (lambda: TrainConfig(keep="first"), "keep='first' is not allowed; choose best or last"),
        (lambda: DataConfig(val_fraction="half"), "val_fraction='half' is not allowed: input should be a valid number"),
        (lambda: BenchConfig(runtimes=("onnx",)), "runtimes=('onnx',) is not allowed; choose torch"),
        (lambda: BrowserConfig(port="http"), "port='http' is not allowed"),
        (lambda: Limits(max_latency_ms="fast"), "max_latency_ms='fast' is not allowed"),
        (lambda: RobustnessConfig(groups="all"), "groups='all' is not allowed"),
        (
            lambda: WholeWayConfig(train="photos"),
            "train='photos' is not a table of fields and values, nor Train",
        ),
    ],
)
def test_what_is_wanted_is_said(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(message)
