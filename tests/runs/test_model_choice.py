"""Models for images and limits, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import vitrail
from vitrail.core.errors import CheckpointError, ConfigError, ExportError
from vitrail.data import DataConfig
from vitrail.models import create_model
from vitrail.models.measured_times import MeasuredTimes, measured_times
from vitrail.runs import model_candidates, model_choice, model_timing
from vitrail.runs.model_choice import choose_models
from vitrail.runs.model_rows import ModelChoiceConfig
from vitrail.runs.model_timing import Timed
from vitrail.tasks import Task

TINY = "vit_tiny_patch16"
NANO = "vitae_plain_nano_patch4"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meine photos")
    for value, name in enumerate(("a b", "ü")):
        (folder / name).mkdir()
        for index in range(4):
            Image.fromarray(np.full((20, 30, 3), 90 * value + index, np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(autouse=True)
def _times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table, and nothing in the hub's cache."""
    rows = {TINY: ((224, 224), 17.0), "vit_small_patch32": ((224, 224), 19.0), "mobilevit_xxs": ((256, 256), 9.0)}
    table = MeasuredTimes(place="a machine elsewhere", rows=rows)
    for module in (model_candidates, model_choice):
        monkeypatch.setattr(module, "measured_times", lambda: table)
    monkeypatch.setattr(model_candidates, "cached_file", lambda *_: None)
    monkeypatch.setattr(model_candidates.constants, "HF_HUB_OFFLINE", False)


def wishes(photos: Path, pattern: str = "*", **changes: object) -> ModelChoiceConfig:
    return ModelChoiceConfig(data=DataConfig(path=str(photos)), pattern=pattern, **changes)  # type: ignore[arg-type]


def test_within_a_latency_the_most_computation_comes_first(photos: Path) -> None:
    found = choose_models(wishes(photos, max_latency_ms=18), progress=False)
    assert [row.model for row in found.rows] == [TINY, "mobilevit_xxs"]
    first = found.rows[0]
    assert (first.latency_ms, first.timed, first.place, first.image_size) == (17.0, "table", "hub", (224, 224))
    assert first.num_params == sum(one.numel() for one in create_model(TINY, num_classes=2).parameters())
    text = "\n".join(found.notes)
    assert "so few need weights" in text
    assert "30x20 pixels" in text
    assert "measured on a machine elsewhere" in text
    assert "times are not known" in text
    assert found.next_command == f"vitrail train --data '{photos}' --model {TINY} --weights pretrained"
    assert found.probe_command.startswith(f"vitrail probe '{photos}' --model {TINY} mobilevit_xxs")


def test_limits_that_leave_nothing_name_the_nearest(photos: Path) -> None:
    for changes, told in (
        ({"max_latency_ms": 1}, "mobilevit_xxs, takes 9 ms on a machine elsewhere"),
        ({"max_latency_ms": 50, "image_size": 96, "pattern": "vit_tiny*"}, "add --measure"),
        ({"max_size_mb": 0.1, "pattern": "mobilevit*"}, "the smallest one, mobilevit_xxs"),
        ({"image_size": 97, "pattern": "vit_tiny_patch16"}, "takes images of this size"),
    ):
        with pytest.raises(ConfigError, match=told):
            choose_models(wishes(photos, **changes), progress=False)


def test_few_images_need_weights(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"3 a class.*--weights NAME=FILE"):
        choose_models(wishes(photos, "reswin*"), progress=False)
    monkeypatch.setattr(model_choice, "FEW_A_CLASS", 2)
    found = choose_models(wishes(photos, "reswin_nano*"), progress=False)
    assert [(row.model, row.weights, row.place) for row in found.rows] == [("reswin_nano_patch2", None, "random")]
    assert "--weights" not in found.next_command
    monkeypatch.setattr(model_candidates.constants, "HF_HUB_OFFLINE", True)
    file = tmp_path / "my w.safetensors"
    save_file(create_model(NANO, num_classes=3).state_dict(), file)
    found = choose_models(wishes(photos, TINY, weights=(f"{NANO}={file}",)), progress=False)
    assert [(row.model, row.place) for row in found.rows] == [(NANO, "file")]
    assert any("HF_HUB_OFFLINE" in note for note in found.notes)
    assert f"--weights '{file}'" in found.next_command


def test_a_run_with_fields_of_its_own_is_trained_on_with_them(photos: Path, tmp_path: Path) -> None:
    fields, name = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8}, "vit_nano_patch4"
    config = vitrail.TrainConfig(
        data=str(photos), model=name, model_fields=fields, epochs=1, batch_size=4, num_workers=0, warmup_epochs=0
    )
    run = vitrail.train(config, run=tmp_path / "run", progress=False)
    found = choose_models(wishes(photos, TINY, weights=(str(run.folder),)), progress=False)
    assert (found.rows[0].place, found.rows[0].model) == ("run", name)
    assert found.next_command == f"vitrail train --data '{photos}' --weights {run.folder}"
    again = vitrail.train(
        photos, weights=str(run.folder), recipe="scratch", epochs=1, num_workers=0, run=tmp_path / "two", progress=False
    )
    assert again.read().training.model_fields == fields
    assert again.task.backbone.config.embed_dim == 16


def test_measuring_skips_what_is_hopeless(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def time_model(task: Task, image_size: tuple[int, int]) -> Timed:
        asked.append(type(task.backbone).__name__)
        milliseconds = sum(one.numel() for one in task.parameters()) / 1e6
        return Timed(milliseconds=milliseconds, contended=len(asked) == 1, runtime="ONNX Runtime")

    monkeypatch.setattr(model_candidates, "time_model", time_model)
    found = choose_models(wishes(photos, "mobilevit*", measure=True, max_latency_ms=2.5), progress=False)
    assert [row.model for row in found.rows] == ["mobilevit_xs", "mobilevit_xxs"]
    assert [row.timed for row in found.rows] == ["here", "here"]
    assert len(asked) == 2  # the large one is not even built
    assert any("not measured" in note for note in found.notes)
    assert any(note.startswith("* Other programs") for note in found.notes)
    rows = vitrail.recommend_models(photos, pattern="mobilevit_xxs", measure=True)
    assert "mobilevit_xxs" in repr(rows)
    assert "Next: vitrail train" in repr(rows)


@pytest.mark.slow
def test_a_model_is_measured_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = vitrail.BenchConfig(min_runs=2, min_seconds=0, warmup_runs=1, warmup_seconds=0, memory=False)
    monkeypatch.setattr(model_timing, "TIMING", quick)
    model = create_model(NANO, num_classes=2, image_size=16).eval()
    found = model_timing.time_model(model, (16, 16))  # type: ignore[arg-type]
    assert found.milliseconds > 0
    assert found.runtime == "ONNX Runtime"

    def refuse(_: object) -> bytes:
        raise ExportError("no")

    monkeypatch.setattr(model_timing, "onnx_bytes", refuse)
    assert model_timing.time_model(model, (16, 16)).runtime == "PyTorch"  # type: ignore[arg-type]


def test_the_table_of_the_package_is_what_was_measured() -> None:
    times = measured_times()
    assert times.of(TINY, (224, 224)) == 17.6
    assert times.of(TINY, (96, 96)) is None
