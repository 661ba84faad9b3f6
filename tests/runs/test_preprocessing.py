"""Which pixels a training and an evaluation give to a model, and who said so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitrail import create_model
from vitrail.core.errors import ConfigError, UnknownNameError
from vitrail.core.files import read_json, write_json
from vitrail.core.types import HALF, IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vitrail.runs.elsewhere import EvaluateConfig, evaluate_elsewhere
from vitrail.runs.load import load_task
from vitrail.runs.preprocessing import decide_preprocessing
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.training import TrainConfig


@pytest.fixture(scope="module")
def started(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose weights expect other pixels than the family's."""
    once = replace(config, epochs=1, mean=(0.5,), std=HALF, interpolation="bilinear")
    return train(once, run=tmp_path_factory.mktemp("runs") / "first", progress=False)


def test_options_are_used_and_kept(started: Run) -> None:
    description = started.read()
    assert description.preprocessing.mean == description.preprocessing.std == HALF
    assert description.preprocessing.interpolation == "bilinear"
    assert description.weights_remarks == (
        (
            "preprocessing of the model's family: mean 0.5 0.5 0.5 (given; the model's family has 0.485 0.456 0.406), "
            "std 0.5 0.5 0.5 (given; the model's family has 0.229 0.224 0.225), "
            "interpolation bilinear (given; the model's family has bicubic)"
        ),
    )


def test_weights_of_a_run_bring_its_preprocessing(started: Run, config: TrainConfig, tmp_path: Path) -> None:
    once = replace(config, epochs=1, weights=str(started.folder), std=(0.25,))
    used = train(once, run=tmp_path / "second", progress=False).read()
    assert (used.preprocessing.mean, used.preprocessing.std) == (HALF, (0.25,) * 3)
    assert used.preprocessing.interpolation == "bilinear"
    source = started.folder / "run.json"
    assert used.weights_remarks == (
        (
            f"preprocessing of {source}: mean 0.5 0.5 0.5, std 0.25 0.25 0.25 (given; {source} has 0.5 0.5 0.5), "
            "interpolation bilinear"
        ),
    )


def test_a_file_that_says_nothing_is_told(
    config: TrainConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "w.pth"
    torch.save(create_model("edgevit_test", num_classes=2).state_dict(), file)
    train(replace(config, epochs=1, weights=str(file)), run=tmp_path / "run", progress=True)
    run = read_json(tmp_path / "run" / "run.json")
    assert (run["preprocessing"]["mean"], run["preprocessing"]["std"]) == (list(IMAGENET_MEAN), list(IMAGENET_STD))
    (remark,) = run["weights_remarks"]
    assert remark.startswith(f"preprocessing of the model's family ({file} says none): mean 0.485 0.456 0.406, std")
    assert " ".join(remark.split()) in " ".join(capfd.readouterr().err.split())


def test_a_resumed_run_keeps_its_preprocessing(started: Run, config: TrainConfig, tmp_path: Path) -> None:
    """The run that its weights are from has been trained anew in the meantime, with other pixels."""
    source = Run(tmp_path / "source")
    source.folder.mkdir()
    source.weights.write_bytes(started.weights.read_bytes())
    write_json(source.description, read_json(started.description))
    once = replace(config, epochs=1, weights=str(source.folder))
    run = train(once, run=tmp_path / "run", progress=False)
    run.weights.unlink()
    source.update(preprocessing=read_json(source.description)["preprocessing"] | {"mean": [0.1, 0.1, 0.1]})
    train(once, run=run, resume=True, progress=False)
    assert run.read().preprocessing.mean == HALF


def test_a_layouts_head_is_kept_in_the_run(config: TrainConfig, tmp_path: Path) -> None:
    fields = {"embed_dims": [8, 16], "depths": [1, 1], "strides": [4, 2], "head_dim": 8}
    trained = create_model(
        "poolformer_nano",
        num_classes=2,
        image_size=16,
        **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()},
    )
    state = {
        name.replace("layer_scale1", "layer_scale1.scale")
        .replace("layer_scale2", "layer_scale2.scale")
        .replace("stem.", "stem.conv.")
        .replace("downsample.", "downsample.conv."): tensor
        for name, tensor in trained.state_dict().items()
    }
    state = {
        {"norm": "head.norm", "head": "head.fc"}.get(n.split(".")[0], n.split(".")[0]) + n[n.index(".") :]: t
        for n, t in state.items()
    }
    torch.save(state, tmp_path / "timm.pth")
    once = replace(config, epochs=1, model="poolformer_nano", model_fields=fields, image_size=16)
    run = train(replace(once, weights=str(tmp_path / "timm.pth")), run=tmp_path / "run", progress=False)
    assert run.read().model.fields["head"] == "timm"
    assert load_task(run).backbone.config.head == "timm"
    again = train(replace(once, weights=str(run.folder)), run=tmp_path / "again", progress=False)
    assert load_task(again).backbone.config.head == "timm"


def test_an_evaluation_says_which_pixels_it_took(started: Run, images: Path) -> None:
    config = EvaluateConfig(data=str(images), mean=(0.4,))
    _, report, _ = evaluate_elsewhere(config, started)
    assert report["preprocessing"]["mean"] == (0.4,) * 3
    assert report["preprocessing"]["std"] == HALF
    assert "mean 0.4 0.4 0.4 (given; " in report["remarks"][-1]
    config = EvaluateConfig(data=str(images), model="edgevit_test", weights=str(started.folder))
    _, report, _ = evaluate_elsewhere(config, None)
    assert report["preprocessing"]["interpolation"] == "bilinear"
    assert report["remarks"] == [
        f"preprocessing of {started.folder / 'run.json'}: mean 0.5 0.5 0.5, std 0.5 0.5 0.5, interpolation bilinear"
    ]


@pytest.mark.parametrize("kind", [TrainConfig, EvaluateConfig])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mean", (0.5, 0.5), "one number, or three"),
        ("mean", (), "one number, or three"),
        ("mean", (float("nan"),), "not finite"),
        ("std", (0.0,), "above 0"),
        ("std", (0.5, -0.5, 0.5), "above 0"),
        ("std", (float("inf"),), "not finite"),
        ("interpolation", "lanczos", "choose nearest"),
    ],
)
def test_values_that_are_not_allowed(kind: type, field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        kind(**{field: value})
    assert field in str(error.value)


def test_a_given_value_without_contradiction_is_said_so() -> None:
    used, sentence = decide_preprocessing(Preprocessing(), "w.pth", EvaluateConfig(mean=IMAGENET_MEAN))
    assert used == Preprocessing()
    assert sentence.startswith("preprocessing of w.pth: mean 0.485 0.456 0.406 (given), std 0.229")


@pytest.mark.parametrize("in_chans", [1, 4])
def test_images_have_three_channels(in_chans: int) -> None:
    with pytest.raises(ConfigError, match=rf"in_chans={in_chans}; images are always read as 3 channels .*leave it out"):
        TrainConfig(model_fields={"in_chans": in_chans})
    TrainConfig(model_fields={"in_chans": 3})


def test_an_unknown_task_is_no_fault_of_the_devices(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'dreaming'") as error:
        train(replace(config, task="dreaming"), run=tmp_path / "run", progress=False)
    assert "accelerator" not in str(error.value)
