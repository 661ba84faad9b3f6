"""The Python face does what the command line does, and its results show themselves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitrail
from vitrail.core.errors import ConfigError, DataError, RunError
from vitrail.core.files import read_json
from vitrail.data import load_data
from vitrail.runs.load import load_task, task_of
from vitrail.runs.quantize import CalibrationConfig
from vitrail.runs.run import Run
from vitrail.runs.settings import configured


@pytest.fixture
def run(old_run: Run) -> vitrail.TrainedRun:
    return vitrail.open_run(old_run.folder)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return load_data(vitrail.DataConfig()).val[0][0]


def test_training_is_one_call(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = {"epochs": 1, "warmup_epochs": 0, "num_workers": 0, "batch_size": 64, "val_fraction": 0.5}
    fields = {"embed_dims": (8, 16), "depths": (1, 1), "head_dim": 8, "sr_ratios": (2, 1), "strides": (4, 2)}
    run = vitrail.train(
        "sample", model="edgevit_nano_stride2", model_fields=fields, run=tmp_path / "run", mixup_alpha=0.1, **settings
    )
    assert capfd.readouterr().out == ""
    training = run.read().training
    assert (training.data.val_fraction, training.augment.mixup_alpha, training.epochs) == (0.5, 0.1, 1)
    assert repr(run) == f"TrainedRun({str(run.folder)!r}: edgevit_nano_stride2, classification, trained)"
    assert run.task(torch.zeros(1, 3, 48, 48)).shape == (1, 10)
    with pytest.raises(RunError, match="already trained"):
        vitrail.train("sample", model="edgevit_nano_stride2", run=run.folder)


def test_mistakes_are_told_by_the_names_that_were_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"epoch.*did you mean epochs"):
        vitrail.train("sample", epoch=3, run=tmp_path / "run")
    for setting, meant in {
        "lr": "learning_rate",
        "bs": "batch_size",
        "fliplr": "hflip",
        "mixup": "mixup_alpha",
    }.items():
        with pytest.raises(ConfigError, match=f"unknown setting {setting}; did you mean {meant}"):
            vitrail.train("sample", run=tmp_path / "run", **{setting: 3})
    with pytest.raises(ConfigError, match="'many'"):
        vitrail.train("sample", epochs="many", run=tmp_path / "run")
    with pytest.raises(ConfigError, match="put them into the configuration"):
        vitrail.train(vitrail.TrainConfig(), epochs=3, run=tmp_path / "run")
    with pytest.raises(RunError, match="does not exist"):
        vitrail.open_run(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_options_find_their_place_in_nested_configurations() -> None:
    config = configured(CalibrationConfig, {"bits": 4, "calibration": 16, "preset": "fast", "calibration_seed": 3})
    assert (config.num_images, config.calibration_seed) == (16, 3)
    assert (config.quantization.weight_bits, config.quantization.preset) == (4, "fast")
    training = configured(
        vitrail.TrainConfig, {"split_seed": 7, "seed": 1, "option": {"head": "fcn"}}, {"data": {"path": "x"}}
    )
    assert (training.data.seed, training.seed, training.options) == (7, 1, {"head": "fcn"})  # as on the command line


def test_every_kind_of_image_gets_the_same_answer(
    run: vitrail.TrainedRun, pixels: torch.Tensor, tmp_path: Path
) -> None:
    array = pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    picture.save(tmp_path / "one.png")
    (wanted,) = run.predict(tmp_path / "one.png")
    sources = [str(tmp_path / "one.png"), picture, array, pixels, picture.convert("RGBA")]
    for found in (*(run.predict(source)[0] for source in sources), *run.predict(sources), *run.predict(tmp_path)):
        assert found.answer[0].label == wanted.answer[0].label
        assert found.answer[0].probability == pytest.approx(wanted.answer[0].probability, rel=1e-5)
    grey = np.asarray(picture.convert("L"))
    assert run.predict(grey)[0].answer == run.predict(grey[..., None])[0].answer
    with pytest.raises(DataError, match="uint8"):
        run.predict(array.astype(np.float32))
    with pytest.raises(ConfigError, match="no images"):
        run.predict([])


@pytest.mark.slow
def test_the_verbs_are_methods(run: vitrail.TrainedRun) -> None:
    plan = run.quantize(bits=8, calibration=8, preset="min_max")
    assert plan.config.preset == "min_max"
    assert re.fullmatch(r"QuantizationPlan\(EdgeViT: \d+ operands, weights 8 bits, activations 8 bits\)", repr(plan))
    assert [record.path.name for record in run.export("onnx", num_images=4)] == ["model.onnx", "model.int8.onnx"]
    reports = run.evaluate()
    names = ["torch-float", "onnx-float", "onnx-int8", "openvino-float", "openvino-int8"]
    assert [report["name"] for report in reports] == names
    assert reports[0]["top1"] == read_json(run.evaluation)["reports"]["torch-float"]["top1"]
    rows = run.bench(runtimes=("onnxruntime",), min_runs=2, min_seconds=0, warmup_seconds=0, memory=False)
    assert [(row.variant, row.failure) for row in rows] == [("float", None), ("int8", None)]
    assert run.report().is_file()


def test_results_show_themselves(run: vitrail.TrainedRun, pixels: torch.Tensor, tmp_path: Path) -> None:
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "<b>.png")
    found = run.predict(tmp_path, top_k=2)
    assert repr(found).splitlines()[0].split() == ["image", "answer"]
    assert "%" in repr(found)
    html = found._repr_html_()
    assert "data:image/jpeg;base64," in html
    assert "<b>.png" not in html
    assert "&lt;b&gt;.png" in html
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert "broken.png" in repr(run.predict(tmp_path))
    shown = run._repr_html_()
    assert all(words in shown for words in ("edgevit_nano_stride2", "15.0 %", "onnx-int8"))
    assert "15.0 %" in repr(run)


def test_text_and_paths_are_taken_everywhere(run: vitrail.TrainedRun, pixels: torch.Tensor) -> None:
    folder = run.folder
    for given in (str(folder), folder, Run(str(folder)), run):
        assert vitrail.open_run(given).folder == folder
        assert task_of(given).name == load_task(given).name == "classification"
    assert len(vitrail.load_data("sample").train) == len(vitrail.load_data(Path("sample")).train)
    assert len(run.predict(pixels, top_k="2", batch_size="1")[0].answer) == 2  # type: ignore[arg-type]


def test_what_is_no_path_or_number_is_told(run: vitrail.TrainedRun, pixels: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="7 is no path; give a text"):
        vitrail.open_run(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="7 is no path"):
        Run(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="top_k='few' is not allowed: input should be a valid integer"):
        run.predict(pixels, top_k="few")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size='big' is not allowed"):
        run.evaluate(batch_size="big")  # type: ignore[arg-type]
