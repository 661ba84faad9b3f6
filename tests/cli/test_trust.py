"""``vitrail trust`` and ``vitrail drift`` on a tiny run: what they print, write, and refuse."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from docs.blocks import code_blocks
from PIL import Image
from torch import Tensor

import vitrail
from vitrail.cli.main import main
from vitrail.core.errors import ConfigError, DataError, ExportError, RunError
from vitrail.core.files import read_json, write_json
from vitrail.device.answer import answer, read_facts
from vitrail.device.pixels import read_image
from vitrail.export.outlier_output import WithOutlierScore
from vitrail.runs.export import export_run, stale_reason
from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.runs.seen_images import recorded
from vitrail.runs.trust import TrustConfig, _class_notes
from vitrail.runs.trust_file import read_trust
from vitrail.runtimes import FORMATS, open_session

Capture = pytest.CaptureFixture[str]

FIELDS = {"embed_dims": [8, 16], "depths": [1, 1], "head_dim": 8, "sr_ratios": [2, 1], "strides": [4, 2]}


def write_images(folder: Path, count: int, seed: int, *, light: int = 0, side: int = 24) -> Path:
    """Bluish and reddish noise of two classes, in folders with odd names."""
    random = np.random.default_rng(seed)
    for channel, name in enumerate(("blau <b>", "rot, é")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = random.integers(60, 160, (side, side, 3))
            pixels[..., 2 * (1 - channel)] += random.integers(0, 60)
            pixels = np.clip(pixels + light, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index} ü.png")
    return folder


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("photos"), 40, 0)


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a second, half of whose images validate it."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    file = run.parent / "train.yaml"
    training = {"model": "edgevit_nano_stride2", "image_size": 16, "epochs": 2, "warmup_epochs": 0.0, "num_workers": 0}
    file.write_text(yaml.safe_dump(training | {"model_fields": FIELDS, "batch_size": 16}))
    words = ["train", "--data", str(photos), "--run", str(run), "--config", str(file), "--val-fraction", "0.5"]
    assert main([*words, "--quiet"]) == 0
    return run


@pytest.fixture(scope="module")
def trusted(trained: Path) -> Path:
    assert main(["trust", str(trained), "--quiet"]) == 0
    return trained


@pytest.fixture
def run(trusted: Path, tmp_path: Path) -> Run:
    """A copy of the run, to change."""
    return Run(Path(shutil.copytree(trusted, tmp_path / "run")))


def error_line(capsys: Capture, words: list[str]) -> str:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("vitrail: error: ")
    return told


def test_trust_tells_what_it_fitted_and_where_it_was_checked(trained: Path, capsys: Capture) -> None:
    assert main(["trust", str(trained), "--coverage", "0.8"]) == 0
    text = capsys.readouterr().out
    assert "fitted on 40 validation images; calibration error" in text
    assert "asked for 80.0 %, right in" in text
    assert "of 40 validation images, in turns" in text
    assert "5 % of the 40 validation images are above" in text
    assert "40 validation images are few" in text
    assert "vitrail trust" in text
    assert (trained / "figures/trust.png").exists()
    assert main(["trust", str(trained), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["classes"]["checked_on"] == "folds"
    assert values["classes"]["sets"]["lac"]["coverage"] == pytest.approx(0.9, abs=0.12)
    run = Run(trained)
    assert main(["report", str(trained), "--quiet"]) == 0
    page = run.report_page.read_text()
    assert "How far to trust it" in page
    assert "Sets of classes at a coverage of 90.0 %" in page
    assert {run.trust, run.trust_arrays, run.figures / "trust.png"} <= set(run.artefacts())


@pytest.mark.parametrize(("top1", "told"), [(0.96, True), (0.85, False)])
def test_sets_that_cover_more_than_was_asked_say_why(top1: float, told: bool) -> None:
    checked = {"checked_on": "test", "method": "raps", "coverage": 0.9, "top1": top1, "sets": {"lac": {"empty": 0.1}}}
    assert any("alone is right in 96.0 %" in note for note in _class_notes(checked)) is told


def test_answers_have_sets_and_scores(trusted: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    dark = write_images(tmp_path / "dark", 2, 1, light=-120)
    words = ["predict", str(trusted), str(photos), str(dark), "--coverage", "0.9", "--outlier-score"]
    assert main([*words, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["predictions"]
    known, strange = answers[:80], answers[80:]
    label = [one["image"].split("/")[-2] in one["set"] for one in known]
    assert np.mean(label) > 0.7
    assert np.mean([one["unusual"] for one in known]) < 0.3
    threshold = read_trust(Run(trusted)).file.outlier.threshold
    assert [one["unusual"] for one in answers] == [one["outlier_score"] > threshold for one in answers]
    assert np.mean([one["outlier_score"] for one in strange]) != np.mean([one["outlier_score"] for one in known])
    assert main([*words, "--csv", "--batch-size", "7"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["set"].split("; ") for row in rows] == [one["set"] or [""] for one in answers]
    assert float(rows[0]["outlier score"]) == pytest.approx(answers[0]["outlier_score"], rel=1e-4)
    pixels = np.asarray(Image.open(next(photos.glob("*/*.png"))))
    found = vitrail.open_run(trusted).predict([pixels, pixels], coverage=0.99, outlier_score=True)
    assert found[0].trust == found[1].trust
    assert found[0].trust is not None


@pytest.mark.slow
def test_the_page_does_what_it_says(run: Run, photos: Path, tmp_path: Path, monkeypatch: Any, capsys: Capture) -> None:
    """docs/trust.md, every block of it."""
    (tmp_path / "runs").mkdir()
    run.folder.rename(tmp_path / "runs/photos")
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    shell = [line for block in code_blocks("docs/trust.md", "sh") for line in block.code.splitlines()]
    assert len(shell) == 6
    for line in shell:
        assert main(shlex.split(line)[1:]) == 0, line
    (python,) = code_blocks("docs/trust.md", "python")
    exec(python.code, {})  # our own page
    assert "No drift" in capsys.readouterr().out


def test_what_is_recorded_is_what_the_task_answers(trusted: Path) -> None:
    import torch

    task, images = load_task(trusted), torch.randn(3, 3, 16, 16)
    task.temperature = 2.0
    with torch.inference_mode():
        expected = task(images)
        with recorded(task) as seen:
            assert torch.equal(task(images), expected)
        assert torch.equal(task(images), expected)
        features = task.backbone.forward_head(task.backbone.forward_features(images), pre_logits=True)
    assert np.array_equal(seen.outputs, expected.double().numpy())
    assert np.array_equal(seen.features, features.numpy())


@pytest.mark.slow  # it exports
def test_a_temperature_is_used_only_if_asked_for(run: Run, photos: Path) -> None:
    assert load_task(run).temperature == 1.0
    plain = _first(run, photos).probability
    assert main(["trust", str(run.folder), "--use-temperature", "--quiet"]) == 0
    fitted = read_trust(run).file.classes
    assert fitted is not None
    assert load_task(run).temperature == fitted.temperature != 1.0
    assert _first(run, photos).probability != plain
    export_run(run, 8)  # which compares the file with the task
    assert stale_reason(run, run.onnx("float")) is None
    facts = read_json(run.folder / "model.onnx.json")
    assert facts["task"]["temperature"] == facts["record"]["temperature"] == fitted.temperature
    assert main(["trust", str(run.folder), "--quiet"]) == 0  # fitted again, and still used
    assert load_task(run).temperature == fitted.temperature
    assert main(["trust", str(run.folder), "--no-use-temperature", "--quiet"]) == 0
    assert _first(run, photos).probability == plain
    assert "and the run by 1; make it again with: vitrail export" in (stale_reason(run, run.onnx("float")) or "")


def _first(run: Run, photos: Path) -> Any:
    return vitrail.open_run(run).predict(next(iter(sorted(photos.glob("*/*.png")))), top_k=1)[0].answer[0]


def test_other_weights_need_another_fit(run: Run, photos: Path, capsys: Capture, caplog: Any) -> None:
    assert main(["trust", str(run.folder), "--use-temperature", "--quiet"]) == 0
    weights = bytearray(run.weights.read_bytes())
    weights[-4] ^= 1
    run.weights.write_bytes(weights)
    told = error_line(capsys, ["predict", str(run.folder), str(photos), "--coverage", "0.9", "--quiet"])
    assert "was made from other weights; make it again with: vitrail trust" in told
    assert load_task(run).temperature == 1.0
    assert "is not used; fit it again with" in caplog.text


def test_new_images_like_the_old_ones_show_no_drift(trusted: Path, tmp_path: Path, capsys: Capture) -> None:
    new, out = write_images(tmp_path / "new", 20, 5), tmp_path / "out"
    assert main(["drift", str(trusted), str(new), "--out", str(out), "--strict"]) == 0
    assert "No drift: 40 new images differ from 40 validation images by no more than chance" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["drift.csv", "drift.html", "drift.json"]
    page = (out / "drift.html").read_text()
    assert "<script" not in page
    assert "blau &lt;b&gt;" in page
    with (out / "drift.csv").open(newline="") as file:
        scores = [float(row["outlier_score"]) for row in csv.DictReader(file)]
    assert scores == sorted(scores, reverse=True)


def test_darker_images_are_a_drift_without_the_training_images(run: Run, tmp_path: Path, capsys: Capture) -> None:
    dark = write_images(tmp_path / "dark", 10, 6, light=-55)
    (dark / "broken.png").write_bytes(b"no image")
    run.update(data={"path": "gone/"})
    words = ["drift", str(run.folder), str(dark), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "The 20 new images differ from the 40 validation images (p" in text
    assert "They are darker (median 0." in text
    assert "broken.png cannot be decoded" in text
    assert "differ from the 40" in error_line(capsys, [*words, "--strict", "--quiet"])
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["found"] is True


def test_python_has_it_too(trusted: Path, photos: Path) -> None:
    found = vitrail.measure_drift(str(trusted), next(photos.glob("*/*.png")))
    assert "1 new image is too few to tell a difference from chance; it takes 10" in found.verdict
    assert not found.found
    with pytest.raises(DataError, match="too few"):
        found.require_none()
    everything = vitrail.measure_drift(trusted, photos)
    assert "40 of them are training images of the run" in " ".join(everything.sentences)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trust", "{run}", "--coverage", "1.5"], "--coverage 1.5 is outside (0, 1)"),
        (["trust", "{run}", "--num-images", "1"], "--num-images 1 is below 2"),
        (["trust", "{run}/nowhere"], "does not exist"),
        (["predict", "{run}", "{photos}", "--coverage", "0"], "coverage"),
        (["predict", "{bare}", "{photos}", "--coverage", "0.9"], "trust.json is missing; make it with: vitrail trust"),
        (["drift", "{bare}", "{photos}"], "trust.json is missing; make it with: vitrail trust"),
        (["drift", "{run}"], "no images given"),
        (["drift", "{run}", "{empty}"], "has no images"),
        (["drift", "{run}", "{photos}", "--out", "{run}/run.json"], "is a file"),
        (["drift", "{run}", "{broken}"], "none of the 1 images can be decoded"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: list[str], message: str, trusted: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(trusted, bare, ignore=shutil.ignore_patterns("trust*"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"")
    places = {"run": trusted, "bare": bare, "photos": photos, "empty": tmp_path / "empty"}
    places["broken"] = tmp_path / "broken.png"
    assert message in error_line(capsys, [word.format(**places) for word in words] + ["--quiet"])


def test_damaged_files_are_named(run: Run) -> None:
    run.trust_arrays.write_bytes(run.trust_arrays.read_bytes()[:-9])
    with pytest.raises(RunError, match=r"trust\.safetensors is missing, damaged"):
        read_trust(run)
    values = read_json(run.trust)
    write_json(run.trust, values | {"classes": {"temperature": -1}})
    with pytest.raises(RunError, match=r"trust\.json"):
        read_trust(run)
    run.trust.unlink()
    with pytest.raises(RunError, match="vitrail trust"):
        read_trust(run)


def test_three_images_say_that_they_are_few(run: Run, photos: Path, tmp_path: Path) -> None:
    """Most validation images are gone."""
    kept = tmp_path / "kept"
    shutil.copytree(photos, kept)
    lines = run.images.read_text().splitlines()
    for line in [line for line in lines if line.startswith("val,")][3:]:
        (kept / next(csv.reader([line]))[1]).unlink()
    description = read_json(run.description)
    description["training"]["data"]["path"] = str(kept)
    write_json(run.description, description)
    found = vitrail.fit_trust(run, TrustConfig(coverage=0.9))
    told = " ".join(found.notes)
    assert "3 validation images are too few for a coverage of 90.0 %: every set has all classes; it takes 9" in told
    assert "nothing could be checked" in told
    assert "too few to tell" in vitrail.measure_drift(run, photos).verdict


def test_configurations_refuse_what_is_unknown() -> None:
    with pytest.raises(ConfigError, match="sets"):
        TrustConfig(sets="aps")  # type: ignore[arg-type]


@pytest.mark.slow  # it exports
def test_files_have_the_outlier_score_as_a_second_output(run: Run, photos: Path, tmp_path: Path) -> None:
    dark = write_images(tmp_path / "dark", 1, 1, light=-120)
    assert main(["trust", str(run.folder), "--use-temperature", "--quiet"]) == 0
    wanted = {
        str(one.path): one.trust for one in vitrail.open_run(run.folder).predict([photos, dark], outlier_score=True)
    }
    assert {trust.unusual for trust in wanted.values()} == {True, False}
    records = export_run(run, 40, formats=("onnx", "openvino", "torch-export"), outlier_score=True)
    for record in records:
        assert record.outlier_score_error is not None
        assert record.outlier_score_error < 1e-5
        assert not any(check.failure for check in record.checks)
        session = open_session(record.path, FORMATS[record.format].runtime)
        assert session.outputs is not None
        facts = read_facts(read_json(record.path.with_name(record.path.name + ".json")))
        for path, trust in wanted.items():
            pixels = read_image(path, facts["preprocessing"])
            found = answer(lambda batch, named=session.outputs: list(named(batch).values()), pixels, facts)
            assert found["outlier_score"] == pytest.approx(trust.outlier_score, abs=1e-3)
            assert found["unusual"] is trust.unusual
            alone = answer(session, pixels, facts)
            assert alone == {"classes": found["classes"]}, "who takes the first output gets what it got"
    assert "second output, outlier_score" in read_json(run.folder / "model.onnx.json")["rule"]


@pytest.mark.slow  # it exports
def test_a_file_with_wrong_scores_is_not_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    export_run(run, 4, variants=("float",))
    before = run.onnx("float").read_bytes()
    right = WithOutlierScore.forward

    def wrong(self: WithOutlierScore, images: Tensor) -> dict[str, Tensor]:
        found = right(self, images)
        return found | {"outlier_score": found["outlier_score"] * 1.01}

    monkeypatch.setattr(WithOutlierScore, "forward", wrong)
    with pytest.raises(ExportError, match="the outlier scores of the exported model disagree"):
        export_run(run, 4, variants=("float",), outlier_score=True)
    assert run.onnx("float").read_bytes() == before


def test_an_outlier_score_that_cannot_be_written_is_refused_in_a_line(run: Run, capsys: Capture) -> None:
    words = ["export", str(run.folder), "--outlier-score"]
    assert "is for float files of onnx, openvino, torch-export" in error_line(capsys, [*words, "--format", "aoti"])
    run.trust.unlink()
    assert "vitrail trust" in error_line(capsys, words)
