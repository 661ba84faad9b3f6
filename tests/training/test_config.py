from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from vitrail.core.errors import ConfigError
from vitrail.data import AugmentConfig, DataConfig
from vitrail.training import TrainConfig, demo_config


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        demo_config(),
        TrainConfig(
            image_size=(64, 48), devices="auto", data=DataConfig(path="x"), augment=AugmentConfig(hflip=0.0), seed=3
        ),
    ],
)
def test_survives_json_and_yaml(config: TrainConfig) -> None:
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    plain = json.loads(json.dumps(config.to_dict()))
    assert TrainConfig.from_dict(yaml.safe_load(yaml.safe_dump(plain))) == config


def test_missing_fields_take_their_defaults() -> None:
    config = TrainConfig.from_dict({"epochs": 7, "data": {"seed": 4}})
    assert config == TrainConfig(epochs=7, data=DataConfig(seed=4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, r"unknown field epoch; did you mean epochs\?"),
        ({"data": {"pth": "x"}}, r"unknown field data.pth; did you mean data.path\?"),
        ({"data": 5}, r"data=5 is not a table of fields"),
        ({"epochs": "many"}, r"epochs='many' is not allowed: .*integer"),
        ({"epochs": 0}, r"epochs=0 is not allowed; it must be at least 1"),
        ({"augment": {"hflip": 2}}, r"hflip=2(\.0)? is not a probability"),
        ({"keep": "worst"}, r"keep='worst' is not allowed"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        TrainConfig.from_dict(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"weight_decay": -0.1},
        {"ema_decay": 1.0},
        {"layer_decay": 0.0},
        {"drop_path_rate": 1.0},
        {"warmup_epochs": -1.0},
        {"num_workers": -1},
        {"crop_fraction": 0.0},
        {"num_nodes": 0},
    ],
)
def test_values_out_of_range(values: dict[str, Any]) -> None:
    name, value = next(iter(values.items()))
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        TrainConfig(**values)


def test_fields_of_the_model_that_have_options_of_their_own_are_refused() -> None:
    with pytest.raises(ConfigError, match="model_fields has image_size"):
        TrainConfig(model_fields={"image_size": 32})
