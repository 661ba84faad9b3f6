"""What may vary, and what is refused before anything is trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from vitrail.core.errors import ConfigError
from vitrail.training import TrainConfig
from vitrail.training.recipes import Facts, resolve
from vitrail.tuning.default_space import default_space
from vitrail.tuning.space import Axis, num_combinations, read_space, value_at, with_values

CONFIG = TrainConfig(model="edgevit_xxs")


def test_texts_and_files_mean_the_same(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "learning_rate: {low: 1e-5, high: 0.01, log: true}\nepochs: '2:8'\nmixup_alpha: [0, 0.2]\n"
        "random-resized-crop-scale: [[0.4, 1], [0.6, 1]]\nfreeze: [null, backbone]\nmodel_fields.mlp_ratio: [2, 4]\n"
    )
    texts = (
        "learning_rate=1e-5:1e-2:log",
        "--epochs=2:8",
        "augment.mixup_alpha=0,0.2",
        "random_resized_crop_scale=0.4 1,0.6 1",
        "freeze=none, backbone",
        "model_fields.mlp_ratio=2,4",
    )
    space = read_space(None, texts, CONFIG)
    assert space == read_space(file, (), CONFIG)
    assert space == read_space({axis.name: axis.definition for axis in space}, (), CONFIG)
    assert space[0] == Axis(path=("learning_rate",), low=1e-5, high=1e-2, log=True)
    assert space[1] == Axis(path=("epochs",), low=2, high=8, whole=True)
    assert space[3].choices == ((0.4, 1.0), (0.6, 1.0))
    assert space[4].choices == (None, "backbone")
    assert num_combinations(space[1:]) == 7 * 2**4
    assert num_combinations(space) == math.inf
    assert read_space(file, ("epochs=3:4",), CONFIG)[1].low == 3


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("lerning_rate=1:2", "unknown setting lerning_rate; did you mean learning_rate"),
        ("lr=1e-5:1e-3", "did you mean learning_rate"),
        ("augment.epochs=1,2", "did you mean epochs"),
        ("learning_rate=-1:1", "learning_rate=-1.0 is not allowed; it must be more than 0"),
        ("learning_rate=0:1:log", "has no logarithm; begin above 0"),
        ("weight_decay=0:1:log", "has no logarithm; begin above 0"),
        ("drop_path_rate=0:1", "drop_path_rate=1.0 is not allowed; it must be at least 0 and below 1"),
        ("random_erasing=0,2", "augment.random_erasing=2.0 is not a probability"),
        ("learning_rate=1e-3", "nothing varies"),
        ("learning_rate=1:1", "nothing varies"),
        ("learning_rate=2:1", "low end is above"),
        ("learning_rate=1:2:3", "no range LOW:HIGH"),
        ("learning_rate=a:b", "no range LOW:HIGH"),
        ("learning_rate=nan:1", "no range LOW:HIGH"),
        ("epochs=1.5:3", "is a whole number"),
        ("epochs=0:3", "epochs=0 is not allowed; it must be at least 1"),
        ("class_weights=a,b", "class_weights='a'"),
        ("lora=0,0", "twice"),
        ("seed=0,1", "decides what is measured"),
        ("val_fraction=0.1:0.2", "decides what is measured"),
        ("keep_score=top1,macro_f1", "decides what is measured"),
        ("num_workers=0:4", "not what is learnt"),
        ("minutes=1:4", "not what is learnt"),
        ("augment=1,2", "has settings of its own: "),
        ("model_fields=1,2", "model_fields.NAME"),
        ("model_fields.image_size=1,2", "model_fields has image_size"),
        ("learning_rate", "is not NAME=VALUES"),
        ("=1:2", "is not NAME=VALUES"),
        ("epochs=", "is not NAME=VALUES"),
    ],
)
def test_what_cannot_vary_is_one_line(row: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_space(None, (row,), CONFIG)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"low": 1, "hi": 2}, "has 'hi'"),
        ({"low": 1}, "is no range"),
        ({"low": 1, "high": 2, "log": "yes"}, "is no range"),
        ({"low": True, "high": 2}, "is no range"),
        (3, "nothing varies"),
        ([], "nothing varies"),
    ],
)
def test_wrong_rows_of_a_file(row: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_space({"epochs": row}, (), CONFIG)
    with pytest.raises(ConfigError, match="is no number"):
        read_space({"freeze_epochs": {"low": 0, "high": 1}, "loss": {"low": 0, "high": 1}}, (), CONFIG)


def test_a_file_without_rows_and_a_row_twice(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("- learning_rate\n")
    with pytest.raises(ConfigError, match="has no rows"):
        read_space(tmp_path / "s.yaml", (), CONFIG)
    with pytest.raises(ConfigError, match="cannot read space"):
        read_space(tmp_path / "none.yaml", (), CONFIG)
    with pytest.raises(ConfigError, match="has epochs twice"):
        read_space(None, ("epochs=1:2", "epochs=3:4"), CONFIG)


def test_a_value_that_the_rest_forbids_is_refused() -> None:
    with pytest.raises(ConfigError, match="freezes the backbone to the end"):
        read_space(None, ("lora=0,8",), TrainConfig(model="edgevit_xxs", freeze="backbone"))


def test_values_of_the_space_are_kept_exactly() -> None:
    low, crops = read_space(None, ("epochs=2:8", "random_resized_crop_scale=0.4 1,0.6 1"), CONFIG)
    assert [low.nearest(value) for value in (1, 5, 100, None)] == [2, 5, 8, 2]
    assert crops.nearest((0.6, 1.0)) == (0.6, 1.0)
    assert crops.value_of(crops.stored((0.6, 1.0))) == (0.6, 1.0)
    assert crops.nearest((0.1, 1.0)) == (0.4, 1.0)
    changed = with_values(CONFIG, {low.path: 5, crops.path: (0.6, 1.0)})
    assert (changed.epochs, changed.augment.random_resized_crop_scale) == (5, (0.6, 1.0))
    assert value_at(changed, ("model_fields", "x")) is None


@pytest.mark.parametrize("num_images", [10, 300, 20_000])
@pytest.mark.parametrize("weights", ["random", "labelled"])
def test_the_default_space_has_the_recipes_own_values(num_images: int, weights: Any) -> None:
    facts = Facts(task="classification", num_images=num_images, num_layers=14, weights=weights)
    decided = resolve(CONFIG, facts)
    space = read_space(default_space(CONFIG, decided, per_image=True), (), CONFIG)
    for axis in space:
        own = value_at(decided.config, axis.path)
        assert axis.stored(axis.nearest(own)) == axis.stored(own), axis
    names = {axis.name for axis in space}
    assert ("layer_decay" in names) == ("epochs" in names) == (weights == "labelled")
    asked = TrainConfig(model="edgevit_xxs", learning_rate=1e-3, weight_decay=0.1)
    assert not {"learning_rate", "weight_decay"} & set(default_space(asked, resolve(asked, facts), per_image=True))


def test_a_probe_has_nothing_to_tune() -> None:
    asked = TrainConfig(model="edgevit_xxs", recipe="probe")
    decided = resolve(asked, Facts(task="classification", num_images=10))
    with pytest.raises(ConfigError, match="name settings with --vary"):
        default_space(asked, decided, per_image=True)
