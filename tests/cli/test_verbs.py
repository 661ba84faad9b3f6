"""Verbs on a real, tiny run: what they print, for people and for scripts."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from vitrail.cli.main import main
from vitrail.core.files import file_hash
from vitrail.runs.run import Run
from vitrail.tasks import TASKS

Capture = pytest.CaptureFixture[str]

FIELDS = {"embed_dims": [8, 16], "depths": [1, 1], "head_dim": 8, "sr_ratios": [2, 1], "strides": [4, 2]}
"""Two blocks: a conversion to ONNX takes a few seconds, of the whole model half a minute."""

TRAINING = {"model": "edgevit_nano_stride2", "image_size": 32, "epochs": 1, "warmup_epochs": 0.0, "batch_size": 16}
QUICK = [
    "--calibration",
    "16",
    "--min-runs",
    "2",
    "--min-seconds",
    "0",
    "--warmup-runs",
    "1",
    "--no-memory",
    "--runtimes",
    "torch",
    "onnxruntime",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that colour tells apart, 16 images each."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for channel, name in enumerate(("blue", "red")):
        (folder / name).mkdir()
        for index in range(16):
            pixels = random.integers(0, 120, (40, 40, 3), dtype=np.uint8)
            pixels[..., 2 * (1 - channel)] += 120
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a training of seconds."""
    file = tmp_path_factory.mktemp("configuration") / "train.yaml"
    file.write_text(yaml.safe_dump(TRAINING | {"model_fields": FIELDS, "num_workers": 0}))
    return ["--config", str(file)]


@pytest.fixture(scope="module")
def tiny_way(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The same for the whole way."""
    file = tmp_path_factory.mktemp("configuration") / "run.yaml"
    file.write_text(yaml.safe_dump({"train": TRAINING | {"model_fields": FIELDS, "num_workers": 0}}))
    return ["--config", str(file)]


@pytest.fixture(scope="module")
def run(photos: Path, tiny_way: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole way, once."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["run", "--data", str(photos), "--run", str(folder), "--quiet", *tiny_way, *QUICK]) == 0
    return folder


def result(capsys: Capture, words: list[str], status: int = 0) -> Any:
    """What a verb prints with ``--json``: one document and nothing else."""
    capsys.readouterr()
    assert main([*words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def error_line(capsys: Capture, words: list[str]) -> str:
    """The one line of a mistake."""
    capsys.readouterr()
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_whole_way_leaves_every_artefact(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    wanted = "run.json model.safetensors metrics.csv evaluation.json quantization.json model.onnx model.int8.onnx "
    assert set((wanted + "model.onnx.json model.int8.onnx.json bench.jsonl figures report.html").split()) <= names
    assert {path.name for path in (run / "figures").iterdir()} >= {"confusion.png", "reliability.png"}
    stages = json.loads((run / "run.json").read_text())["stages"]
    assert list(stages) == ["Train", "Quantize", "Export", "Evaluate", "Bench", "Report"]


def test_every_file_of_the_whole_way_is_known_to_the_run(run: Path) -> None:
    """Overwriting deletes what the run knows, and nothing else."""
    assert {path for path in run.rglob("*") if path.is_file()} == set(Run(run).artefacts())


def test_whole_way_goes_on_where_it_stopped(run: Path, photos: Path, tiny_way: list[str], capsys: Capture) -> None:
    report, onnx = run / "report.html", run / "model.onnx"
    description = json.loads((run / "run.json").read_text())
    del description["stages"]["Report"]
    (run / "run.json").write_text(json.dumps(description))
    report.unlink()
    before = onnx.stat().st_mtime_ns
    facts = result(capsys, ["run", "--data", str(photos), "--run", str(run), "--resume", *tiny_way, *QUICK])
    assert report.exists()
    assert onnx.stat().st_mtime_ns == before
    assert {(row["file"], row["runtime"]) for row in facts["files"]} == {
        ("model.safetensors", "torch"),
        ("model.onnx", "onnxruntime"),
        ("model.int8.onnx", "onnxruntime"),
    }
    for row in facts["files"]:
        assert 0 <= row["top1"] <= 1
        assert row["size_bytes"] == (run / row["file"]).stat().st_size
        assert row["latency_ms"] > 0


def test_whole_way_does_not_replace_a_run_unasked(
    run: Path, photos: Path, tiny_way: list[str], capsys: Capture
) -> None:
    line = error_line(capsys, ["run", "--quiet", "--data", str(photos), "--run", str(run), *tiny_way, *QUICK])
    assert "--overwrite" in line


def test_stages_have_headings_and_seconds(run: Path, photos: Path, tiny_way: list[str], capsys: Capture) -> None:
    capsys.readouterr()
    assert main(["run", "--data", str(photos), "--run", str(run), "--resume", *tiny_way, *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "1/6 Train" in printed
    assert "Bench: done before, in" in printed
    assert "What you have now" in printed
    assert str(run / "report.html") in printed


def test_evaluate_a_run(run: Path, capsys: Capture) -> None:
    values = result(capsys, ["evaluate", str(run)])
    assert set(values["reports"]) == {"torch-float", "onnx-float", "onnx-int8", "openvino-float", "openvino-int8"}
    assert values["reports"]["onnx-float"]["top1"] == values["reports"]["torch-float"]["top1"]
    assert main(["evaluate", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "top-1" in printed
    assert "onnx-int8" in printed


def test_evaluate_elsewhere_leaves_the_run_alone(run: Path, photos: Path, capsys: Capture) -> None:
    before = (run / "evaluation.json").read_bytes()
    values = result(capsys, ["evaluate", str(run), "--data", str(photos)])
    assert values["num_images"] == 32
    assert (run / "evaluation.json").read_bytes() == before


def test_evaluate_takes_all_parts_of_another_folder_or_one(
    run: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    for part, count in (("train", 5), ("val", 2), ("test", 1)):
        for name in ("blue", "red"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(count):
                shutil.copy(photos / name / f"{index}.png", tmp_path / part / name / f"{part}{index}.png")
    (tmp_path / "test" / "blue" / "test0.png").unlink()
    (tmp_path / "test" / "blue" / "a.heic").write_bytes(b"")
    words = ["evaluate", str(run), "--data", str(tmp_path)]
    assert result(capsys, words)["num_images"] == 15
    for part, count in (("train", 10), ("val", 4), ("test", 1)):
        assert result(capsys, [*words, "--part", part])["num_images"] == count
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "has the parts 10 train, 4 val, 1 test; measured: all" in shown
    assert "skipped test/blue/a.heic: is a .heic file" in shown
    assert "images are in more than one part of the data" in shown
    shutil.rmtree(tmp_path / "train")
    shutil.rmtree(tmp_path / "val")
    assert result(capsys, words)["num_images"] == 1, "one class, and an empty folder of the other"
    assert main([*words, "--part", "val"]) == 2
    assert "has no part 'val'; it has test (1 images)" in capsys.readouterr().err


def test_training_begins_with_a_line_on_what_is_learnt(
    photos: Path, tmp_path: Path, tiny: list[str], capsys: Capture
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "red" / "a.heic").write_bytes(b"")
    words = ["train", "--data", str(tmp_path / "photos"), *tiny]
    assert main([*words, "--run", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("preprocessing of the model's family") == 1
    opening, left_out = printed.err.splitlines()[:2]
    assert opening.startswith(
        "Task: classification, 2 classes (blue, red); images: 28 train, 4 val, 1 left out; device: "
    )
    for fact in ("1 x cpu", "model: edgevit_nano_stride2, ", "weights: random", "1 epoch,", "of 16 images of 32x32"):
        assert fact in opening
    assert left_out.startswith("Left out: 1 (red/a.heic: is a .heic file")
    assert main([*words, "--run", str(tmp_path / "quiet"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["data"]["skipped"][0].startswith("red/a.heic: is a .heic file")
    assert "pixel_range" not in described["preprocessing"]


def test_deep_grey_images_have_one_range_from_training_to_answer(
    tmp_path: Path, tiny: list[str], capsys: Capture
) -> None:
    random = np.random.default_rng(0)
    for label, low in (("cold", 290), ("warm", 295)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(8):
            pixels = random.uniform(low, low + 5, (40, 40)).astype(np.float32)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{index}.tif")
    run = str(tmp_path / "run")
    words = ["train", "--data", str(tmp_path / "photos"), "--run", run, *tiny]
    assert main(words) == 0
    assert "--pixel-range 290" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--pixel-range", "290", "300"]) == 0
    assert "--pixel-range" not in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["preprocessing"]["pixel_range"] == [290.0, 300.0]
    (tmp_path / "other" / "warm").mkdir(parents=True)
    shutil.copy(tmp_path / "photos" / "warm" / "0.tif", tmp_path / "other" / "warm")
    found = result(capsys, ["predict", run, str(tmp_path / "other"), "--top-k", "2"])["predictions"][0]["classes"]
    report = result(capsys, ["evaluate", run, "--data", str(tmp_path / "other")])
    (probability,) = (one["probability"] for one in found if one["label"] == "warm")
    assert report["loss"] == pytest.approx(-np.log(probability), abs=1e-3)


def test_evaluate_weights_that_no_run_belongs_to(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    trained = str(tmp_path / "run")
    settings = ["--image-size", "32", "--epochs", "1", "--num-workers", "0"]
    assert main(["train", *settings, "--data", str(photos), "--model", "poolformer_nano", "--run", trained]) == 0
    words = ["--model", "poolformer_nano", "--weights", f"{trained}/model.safetensors", "--data", str(photos)]
    by_run = result(capsys, ["evaluate", trained, "--data", str(photos)])
    by_file = result(capsys, ["evaluate", *words, "--image-size", "32"])
    assert by_file["top1"] == by_run["top1"]
    assert by_file["loss"] == pytest.approx(by_run["loss"], rel=1e-5)
    shifted = result(capsys, ["evaluate", *words, "--image-size", "32", "--mean", "0.9", "--std", "0.1", "0.2", "0.3"])
    assert shifted["loss"] != pytest.approx(by_run["loss"], rel=1e-3)


def test_predict_prints_json_csv_and_a_table(run: Path, photos: Path, capsys: Capture) -> None:
    image = str(photos / "red" / "0.png")
    values = result(capsys, ["predict", str(run), image, "--top-k", "2"])
    classes = values["predictions"][0]["classes"]
    assert {row["label"] for row in classes} == {"blue", "red"}
    assert classes[0]["probability"] >= classes[1]["probability"]
    assert main(["predict", str(run), str(photos / "red"), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 16
    assert set(rows[0]) == {"image", "rank", "class", "probability"}
    assert main(["predict", str(run), image]) == 0
    assert image in capsys.readouterr().out


def test_predict_reads_paths_from_standard_input(
    run: Path, photos: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(photos / "red" / "1.png"), str(photos / "blue" / "2.png")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(paths) + "\n\n"))
    values = result(capsys, ["predict", str(run), "-"])
    assert [row["image"] for row in values["predictions"]] == paths


def test_predict_goes_on_past_broken_images(run: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    (broken := tmp_path / "broken.png").write_bytes(b"")
    values = result(capsys, ["predict", str(run), str(broken), str(photos / "red" / "0.png")])
    assert [row["image"] for row in values["skipped"]] == [str(broken)]
    assert len(values["predictions"]) == 1
    assert "0 bytes" in error_line(capsys, ["predict", str(run), str(broken)])
    assert "no images given" in error_line(capsys, ["predict", str(run)])


@pytest.mark.slow
def test_quantize_and_export_can_be_repeated(run: Path, tmp_path: Path, capsys: Capture) -> None:
    plan = result(capsys, ["quantize", str(run), "--calibration", "8", "--preset", "min_max"])
    assert plan["num_images"] == 8
    before, after = (held_out := plan.pop("held_out"))["float"], held_out["codes"]
    assert (before["agreement"], before["num_images"]) == (1.0, after["num_images"])
    assert after["loss"] != before["loss"]  # it is the codes that were measured
    hashed = {"weights_hash": file_hash(run / "model.safetensors")}
    assert json.loads((run / "quantization.json").read_text()) == plan | hashed
    records = result(capsys, ["export", str(run)])
    assert [record["variant"] for record in records] == ["float", "int8"]


@pytest.mark.slow
def test_codes_that_no_runtime_executes_are_not_exported(run: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    assert main(["quantize", str(copy), "--calibration", "8", "--preset", "fast", "--activation-bits", "6"]) == 0
    assert "simulated:" in capsys.readouterr().out
    assert (copy / "figures" / "quantization_noise.png").exists()
    assert main(["export", str(copy), "--num-images", "4"]) == 0
    assert "simulated only and was not exported" in " ".join(capsys.readouterr().out.split())
    assert (copy / "model.onnx").exists()
    assert not (copy / "model.int8.onnx").exists()


def test_export_takes_formats_with_commas_or_spaces(
    run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("vitrail.cli.export.export_run", lambda *_, **options: asked.append(options) or [])
    for words in (["--format", "onnx,litert"], ["--formats", "onnx", "litert"], ["--dynamic-size"]):
        assert result(capsys, ["export", str(run), *words]) == []
    usual = {"outlier_score": False, "progress": False}
    both = {"formats": ("onnx", "litert"), "dynamic_size": False} | usual
    assert asked == [both, both, {"formats": ("onnx",), "dynamic_size": True} | usual]


def test_export_writes_the_formats_it_was_asked_for(run: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    for name in ("quantization.json", "model.onnx"):
        (copy / name).unlink()
    records = result(capsys, ["export", str(copy), "--num-images", "4", "--format", "torch-export,openvino"])
    assert [(record["path"], record["variant"]) for record in records] == [
        ("model.pt2", "float"),
        ("model.xml", "float"),
    ]
    assert all(record["verified"] and (copy / record["path"]).exists() for record in records)
    assert not (copy / "model.onnx").exists()


def test_bench_and_report(run: Path, capsys: Capture) -> None:
    words = ["--min-runs", "2", "--min-seconds", "0", "--warmup-runs", "1", "--no-memory", "--runtimes", "onnxruntime"]
    rows = result(capsys, ["bench", str(run), *words])
    assert [row["name"] for row in rows] == ["onnxruntime float", "onnxruntime int8"]
    assert result(capsys, ["report", str(run)])["report"] == str(run / "report.html")


def test_bench_tells_energy_its_source_and_its_baseline(run: Path, capsys: Capture) -> None:
    words = ["--min-runs", "2", "--min-seconds", "0", "--warmup-runs", "1", "--no-memory", "--runtimes", "onnxruntime"]
    words += ["--energy", "estimate:6", "--energy-rounds", "6", "--energy-seconds", "0.03", "--threads", "1", "2"]
    rows = result(capsys, ["bench", str(run), *words, "--baseline", "onnxruntime int8"])
    assert [(row["name"], row["threads"]) for row in rows] == [
        (name, threads) for name in ("onnxruntime float", "onnxruntime int8") for threads in (1, 2)
    ]
    assert {row["baseline"] for row in rows} == {"onnxruntime int8"}
    assert {row["energy"]["source"] for row in rows} == {"estimated"}
    assert main(["bench", str(run), *words]) == 0
    printed = capsys.readouterr().out
    assert "(estimated)" in printed
    assert "nothing measured it" in printed
    assert "onnxruntime int8, threads 2" in printed


def test_pareto_and_recommend(run: Path, tmp_path: Path, capsys: Capture) -> None:
    files = result(capsys, ["pareto", str(run), "--out", str(tmp_path / "out"), "--device", "this machine"])["files"]
    assert {Path(file).suffix for file in files} == {".html", ".csv", ".svg", ".png"}
    assert all(Path(file).stat().st_size > 500 for file in files)
    found = result(capsys, ["recommend", str(run), "--max-size-mb", "1000"])
    assert found["best"]["run"] == "whole"
    assert found["num_fitting"] == found["num_considered"] >= 3
    line = error_line(capsys, ["recommend", str(run), "--max-latency-ms", "0.0001"])
    assert "--max-latency-ms 0.0001 excludes all" in line
    assert main(["recommend", str(run)]) == 0
    assert "- next best is whole/" in capsys.readouterr().out


def test_bench_draws_what_pareto_draws(run: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["--min-runs", "2", "--min-seconds", "0", "--warmup-runs", "1", "--no-memory", "--runtime", "onnxruntime"]
    published = tmp_path / "published.csv"
    published.write_text("label,accuracy,latency_ms\nsomebody's,0.9,3\n")
    drawn, again = tmp_path / "bench", tmp_path / "pareto"
    rows = result(capsys, ["bench", str(run), *words, "--plot", str(drawn), "--references", str(published)])
    assert {row["runtime"] for row in rows} == {"onnxruntime"}
    result(capsys, ["pareto", str(run), "--out", str(again), "--references", str(published)])
    assert {path.name for path in drawn.iterdir()} == {path.name for path in again.iterdir()}
    assert (drawn / "pareto.csv").read_text() == (again / "pareto.csv").read_text()
    latency = (drawn / "latency-this-machine.svg").read_text()
    assert "somebody" in latency
    assert latency == (again / "latency-this-machine.svg").read_text()


def test_what_cannot_be_plotted_is_told_before_the_measurement(run: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "evaluation.json").unlink()
    (copy / "bench.jsonl").unlink(missing_ok=True)
    line = error_line(capsys, ["bench", str(copy), "--plot", str(tmp_path / "out")])
    assert f"evaluation.json is missing; make it with: vitrail evaluate {copy}" in line
    line = error_line(capsys, ["bench", str(copy), "--references", "published.csv"])
    assert "--references is for the plots; add --plot FOLDER" in line
    assert not (copy / "bench.jsonl").exists()


def test_models_table_and_card(capsys: Capture) -> None:
    rows = {row["name"]: row for row in result(capsys, ["models", "edgevit_*s"])}
    assert rows["edgevit_xxs"]["params"] == 4_067_704
    assert "vit_tiny_patch16" not in rows
    card = result(capsys, ["models", "edgevit_xxs"])
    assert card["stages"][-1] == {"name": "stages.3", "channels": 288, "stride": 32, "map": "7x7"}
    assert "saic-fi" in card["checkpoint_layouts"]
    assert main(["models", "edgevit_xxs"]) == 0
    printed = capsys.readouterr().out
    assert "arXiv:2205.03436" in printed
    assert "Apache-2.0" in printed


def test_the_list_of_models_counts_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Counting all of them would take a quarter of a minute."""
    monkeypatch.setattr("vitrail.models.complexity.count_variant", None)
    assert len(result(capsys, ["models"])) > 60


def test_models_tell_where_weights_are(capsys: Capture) -> None:
    card = result(capsys, ["models", "mobilevit_xxs"])
    assert card["tasks"] == list(TASKS)
    assert [(w["tag"], w["top1"], w["repository"]) for w in card["weights"]] == [
        ("cvnets_in1k", 69.0, "timm/mobilevit_xxs.cvnets_in1k")
    ]
    assert main(["models", "mobilevit_xxs"]) == 0
    assert "pretrained:cvnets_in1k" in capsys.readouterr().out
    assert main(["models", "edgevit_xxs"]) == 0
    assert "never published any (https://github.com/saic-fi/edgevit)" in capsys.readouterr().out


def test_quiet_prints_nothing(run: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert main(["report", str(run), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("verb", ["train", "run", "demo"])
def test_printed_configuration_is_accepted_again(verb: str, tmp_path: Path, capsys: Capture) -> None:
    words = [verb, "--epochs", "3", "--image-size", "64", "--warmup-epochs", "0.5", "--print-config"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    (file := tmp_path / "config.yaml").write_text(printed)
    assert main([verb, "--config", str(file), "--print-config"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --model edgevit_xss", "did you mean edgevit_xs"),
        ("train --model edgevit_xxs --image-size 50", "nearest legal sizes: 32x32 or 64x64"),
        ("train --data nowhere", "data folder nowhere does not exist"),
        ("train --epochs 0", "--epochs 0 is not allowed"),
        ("train --config nowhere.yaml", "cannot read configuration nowhere.yaml"),
        ("evaluate", "give either a run folder, or all of --model, --weights and --data"),
        ("evaluate --model vit_tiny_patch16", "give either a run folder"),
        ("evaluate --model vit_tiny_patch16 --weights none.pth --data sample", "weights file none.pth does not exist"),
        ("evaluate runs/none", "run folder runs/none does not exist; make one with: vitrail train --run runs/none"),
        ("evaluate runs/none --std 0", "--std 0 must be above 0"),
        ("predict runs/none x.jpg", "run folder runs/none does not exist"),
        ("predict runs/none x.jpg --csv --json", "exclude each other"),
        ("quantize runs/none --calibration 0", "--calibration 0 is below 1"),
        ("export runs/none --num-images 1", "--num-images 1 is below 2"),
        ("predict runs/none x.jpg --top-k 1.5", "not a whole number"),
        ("export runs/none --num-images 2.5", "not a whole number"),
        ("bench runs/none --energy wattmeter", "run folder runs/none does not exist"),
        ("bench runs/none --threads 0", "--threads 0 is not allowed"),
        ("recommend runs/none", "run folder runs/none does not exist"),
        ("recommend runs/none --min-accuracy 90", "--min-accuracy 90 is above 1"),
        ("pareto runs/none", "run folder runs/none does not exist"),
        ("export runs/none --format onnx,openvina", '--format: "openvina" is not one of onnx, openvino'),
        ("export runs/none --format openvino --dynamic-size", "dynamic_size is for ONNX files"),
        ("report a_file", "run folder a_file is a file"),
        ("report runs/none", "run folder runs/none does not exist"),
        ("run --quiet --data nowhere", "data folder nowhere does not exist"),
    ],
)
def test_bad_input_gets_one_line(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    assert message in error_line(capsys, words.split())
    assert not list(tmp_path.rglob("*.safetensors")), "nothing half-written is left"


def test_incomplete_run_says_which_verb_makes_the_missing_part(tmp_path: Path, capsys: Capture) -> None:
    assert f"make it with: vitrail train --run {tmp_path}" in error_line(capsys, ["evaluate", str(tmp_path)])


def test_an_interrupted_training_says_how_to_finish_it_and_has_a_report(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    for name in ("run.json", "metrics.csv"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert main(["evaluate", str(tmp_path)]) == 2
    assert f"finish it with: vitrail train --run {tmp_path} --resume" in capsys.readouterr().err
    assert result(capsys, ["report", str(tmp_path)])["report"] == str(tmp_path / "report.html")


def test_train_shows_the_epoch_that_became_the_model(
    run: Path, photos: Path, tmp_path: Path, tiny: list[str], capsys: Capture
) -> None:
    """Among equal scores the lowest loss, as training itself chooses; the epoch is a whole number."""
    for name in ("run.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "metrics.csv").write_text("epoch,val_loss,val_top1\n1,0.5,1.0\n2,0.3,1.0\n3,0.4,1.0\n")
    words = ["train", "--data", str(photos), "--run", str(tmp_path), "--resume", *tiny]
    assert str(result(capsys, words)["epoch"]) == "2"
