"""From frozen backbones to a run: what is compared, what is chosen, and what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vitrail.core.errors import CheckpointError, ConfigError, DataError, RunError, UnknownNameError
from vitrail.data import DataConfig
from vitrail.evaluation import Interval
from vitrail.models import create_model, hub
from vitrail.report.probe_page import accuracy_text
from vitrail.runs import probe as module, probe_candidates
from vitrail.runs.evaluate import evaluate_run
from vitrail.runs.load import load_task
from vitrail.runs.probe import ProbeConfig, probe
from vitrail.runs.probe_candidates import find_sources
from vitrail.runs.probe_results import ProbeReport, ProbeRow, advice, choose, score_interval
from vitrail.runs.run import Run
from vitrail.training import cross_validation
from vitrail.training.cross_validation import CrossValidation, CurvePoint, Trend

MODEL = "vitae_plain_nano_patch4"


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_validation, "NESTED_UP_TO", 0)
        quick = replace(module.TIMING, min_runs=2, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0)
        patch.setattr(module, "TIMING", quick)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark to the left, dark to the right; names with blanks and accents."""
    folder, draw = tmp_path_factory.mktemp("daten"), np.random.default_rng(0)
    for side in ("links é", "rechts <b>"):
        (folder / side).mkdir()
        for index in range(14):
            ramp = np.linspace(20, 200, 16)[None, :, None] + draw.integers(-20, 20, (16, 16, 3))
            pixels = np.clip(ramp if side[0] == "l" else ramp[:, ::-1], 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / side / f"{index} ü.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "some, weights.safetensors"
    save_file(create_model(MODEL, num_classes=5, image_size=16).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def config(folder: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> ProbeConfig:
    return ProbeConfig(
        data=DataConfig(path=str(folder), val_fraction=0.25),
        model=(f"{MODEL}={weights}",),
        image_size=16,
        num_workers=0,
        cache=str(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture(scope="module")
def probed(config: ProbeConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, ProbeReport]:
    run = Run(tmp_path_factory.mktemp("runs") / "erste sonde")
    return run, probe(config, run=run, progress=False)


def test_the_best_probe_is_a_run(probed: tuple[Run, ProbeReport], weights: Path) -> None:
    run, report = probed
    description = run.read()
    assert description.status == "trained"
    assert description.trained is not None
    assert description.trained.keep == "probe"
    assert description.data.num_train == sum(report.counts)
    assert any("the backbone is frozen" in one for one in description.weights_remarks)
    evaluation = evaluate_run(run)
    assert evaluation["reports"]["torch-float"]["top1"] == pytest.approx(report.best.val_top1)
    backbone, given = load_task(run).backbone, create_model(MODEL, num_classes=5, image_size=16, weights=weights)
    for name, value in given.state_dict().items():
        assert name.startswith("head.") or torch.equal(backbone.state_dict()[name], value)
    assert run.probe in run.artefacts()


def test_what_is_told_is_plain_values(probed: tuple[Run, ProbeReport]) -> None:
    run, report = probed
    values = json.loads(run.probe.read_text())
    (row,) = values["backbones"]
    assert row["linear"]["low"] <= row["linear"]["mean"] <= row["linear"]["high"]
    assert row["latency_ms"] > 0
    assert row["size_bytes"] == 4 * row["num_params"]
    assert len(values["images"]) == sum(values["counts"])
    assert {one["label"] for one in values["images"]} == {"links é", "rechts <b>"}
    assert values["next_command"].startswith("vitrail train --data ")
    assert report.majority[1] == pytest.approx(max(report.counts) / sum(report.counts))


def test_a_run_is_a_backbone_too_and_what_cannot_be_had_is_told(
    probed: tuple[Run, ProbeReport], config: ProbeConfig, tmp_path: Path
) -> None:
    words = (str(probed[0].folder), f"{MODEL}=/nowhere.pth", "reswin_nano_patch2", config.model[0])
    report = probe(replace(config, model=words), run=tmp_path / "two", progress=False)
    assert [row.label for row in report.rows] == [f"erste sonde ({MODEL})", f"{MODEL} (some, weights.safetensors)"]
    assert report.rows[0].linear == report.rows[1].linear
    assert "/nowhere.pth does not exist" in report.notes[0]
    assert "no public weights of reswin_nano_patch2" in report.notes[1]


def test_without_weights_there_is_no_probe(config: ProbeConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"needs a backbone with weights, and none can be had.*NAME=FILE"):
        probe(replace(config, model=("reswin_nano_patch2",)), run=tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()


def test_the_hub_is_asked_once_when_it_is_silent(
    config: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hub, "_ask_hub", asked.append)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(probe_candidates, "cached_file", lambda *_: None)
    with pytest.raises(CheckpointError, match="hub cannot be reached"):
        probe(replace(config, model=()), run=tmp_path / "none", progress=False)
    assert len(asked) == 1


def test_a_folder_that_holds_a_run_is_kept(probed: tuple[Run, ProbeReport], config: ProbeConfig) -> None:
    run, _ = probed
    before = run.weights_hash
    with pytest.raises(RunError, match="already trained; choose another folder, or pass --overwrite"):
        probe(config, run=run, progress=False)
    probe(config, run=run, overwrite=True, progress=False)
    assert run.weights_hash == before


def test_fewer_images_are_told(config: ProbeConfig, tmp_path: Path) -> None:
    report = probe(replace(config, num_images=9), run=tmp_path / "few", progress=False)
    assert report.counts == (4, 4)
    assert report.notes == (f"{sum(report.counts)} of 20 training images are probed (num_images=9)",)


def test_one_image_of_a_class_is_measured_on_validation_alone(
    folder: Path, config: ProbeConfig, tmp_path: Path
) -> None:
    for part, count in (("train", 1), ("val", 4)):
        for side in ("links é", "rechts <b>"):
            (tmp_path / "data" / part / side).mkdir(parents=True)
            for index in range(count):
                source = folder / side / f"{index + 5 * (part == 'val')} ü.png"
                (tmp_path / "data" / part / side / f"{index}.png").write_bytes(source.read_bytes())
    data = DataConfig(path=str(tmp_path / "data"))
    report = probe(replace(config, data=data), run=tmp_path / "run", progress=False)
    assert report.best.linear is None
    assert report.best.val_top1 is not None
    assert any("nothing can be cross-validated" in note for note in report.notes)
    assert "Twice the labels: unknown" in report.advice[1] or "always answering" in report.advice[1]


def test_equal_images_and_other_tasks_are_refused(config: ProbeConfig, tmp_path: Path) -> None:
    for side, count in (("a", 3), ("b", 3)):
        (tmp_path / "same" / side).mkdir(parents=True)
        for index in range(count):
            path = tmp_path / "same" / side / f"{index}.bmp"
            Image.new("RGB", (16, 16), "red").save(path)
            path.write_bytes(path.read_bytes() + bytes([index + 3 * (side == "b")]))  # other files, the same picture
    with pytest.raises(DataError, match="have the same features, as equal images have"):
        probe(replace(config, data=DataConfig(path=str(tmp_path / "same"))), run=tmp_path / "run", progress=False)
    with pytest.raises(ConfigError, match="cannot do the task 'detection'"):
        probe(replace(config, task="detection"), run=tmp_path / "run", progress=False)


def test_words_that_name_no_backbone(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not say its model; write --model NAME="):
        find_sources([str(weights)])
    with pytest.raises(UnknownNameError, match="did you mean vit_tiny_patch16"):
        find_sources(["vit_tiny_patch61"])
    with pytest.raises(UnknownNameError, match="unknown model 'vit_none'"):
        find_sources(["vit_none=x.pth"])
    with pytest.raises(RunError, match="runs/none does not exist"):
        find_sources(["runs/none"])
    with pytest.raises(RunError, match=r"run\.json is missing"):
        find_sources([str(tmp_path)])
    with pytest.raises(ConfigError, match="needs one --model"):
        find_sources([], "x.pth")
    assert find_sources([MODEL], str(weights))[0].weights == str(weights)
    assert [one.label for one in find_sources([f"{MODEL}={weights}"] * 2)][1].endswith(" #2")


def row(label: str, share: float, cpu_ms: float) -> ProbeRow:
    return ProbeRow(
        label=label,
        model=label,
        weights="w",
        linear=Interval(mean=share, low=share - 0.05, high=share + 0.05),
        nearest=None,
        neighbours=1,
        val_top1=None,
        latency_ms=cpu_ms,
        cpu_ms=cpu_ms,
        num_params=10,
        image_size=(16, 16),
        strength=1.0,
        curve=(CurvePoint(per_class=5, num_images=10, top1=(share, share)),),
        trend=Trend(gain=0.04, low=0.01, high=0.07),
        seconds=1.0,
    )


def answers(share: float) -> CrossValidation:
    labels = np.zeros(100, dtype=np.int64)
    given = (np.arange(100) >= round(100 * share)).astype(np.int64)[None]
    return CrossValidation(labels=labels, linear=given, nearest=given, neighbours=1, confidence=np.ones(100))


@pytest.mark.parametrize(
    ("shares", "times", "chosen", "words"),
    [
        ((0.9, 0.5), (10, 1), 0, "right on 90.0 % of images that it has not seen, and b on 50.0 %"),
        ((0.9, 0.89), (10, 5), 1, "cannot confirm, and takes 2.0 times as long"),
        ((0.9, 0.89), (10, 9), 0, "cannot confirm that b is worse"),
        ((0.9,), (10,), 0, "no other backbone was compared"),
    ],
)
def test_the_fastest_of_equals_is_chosen(
    shares: tuple[float, ...], times: tuple[float, ...], chosen: int, words: str
) -> None:
    rows = [row(name, share, ms) for name, share, ms in zip("ab", shares, times, strict=False)]
    index, why = choose(rows, [answers(share) for share in shares])
    assert index == chosen
    assert words in why


def test_advice_is_no_surer_than_the_measurement() -> None:
    good, why = row("a", 0.8, 1), "Fine-tune a: because."
    assert "about +4 points" in advice(why, ("x", 0.5), good)[1]
    nearly = replace(good, curve=(replace(good.curve[0], top1=(0.98,)),))
    assert "about +2 points" in advice(why, ("x", 0.5), nearly)[1]
    flat = replace(good, trend=Trend(gain=0.01, low=-0.01, high=0.03))
    assert "no clear gain" in advice(why, ("x", 0.5), flat)[1]
    assert "unknown" in advice(why, ("x", 0.5), replace(good, trend=None))[1]
    best, doubt = advice(why, ("x", 0.78), good)
    assert best == "The best one here is a: because."
    assert "not clearly better than always answering 'x' (78.0 %)" in doubt


def test_all_right_leaves_some_doubt() -> None:
    found = SimpleNamespace(right=lambda _: np.ones((3, 20)))  # three repetitions are no more images
    interval = score_interval(found, None)  # type: ignore[arg-type]
    assert interval is not None
    assert accuracy_text(interval) == "100.0 % ± 16.1"
