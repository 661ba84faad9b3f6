"""The sentences for whoever decides: never more than the run holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report.pretend import PIXEL, row

from vitrail.bench import append_results
from vitrail.core.errors import RunError
from vitrail.core.files import file_hash, read_json, write_json
from vitrail.evaluation import wilson
from vitrail.report import write_report
from vitrail.report.first_screen import first_screen, share_in_words
from vitrail.report.rows import run_html
from vitrail.runs.run import Run
from vitrail.runs.too_early import too_early


def change(run: Run, **values: Any) -> None:
    write_json(run.evaluation, read_json(run.evaluation) | values)


def evaluated(run: Run, task: str, findings: dict[str, Any], split: str = "test", **report: Any) -> str:
    """The first sentence of a run of another task."""
    run.update(task=task)
    known = {"num_images": 40, "per_class": [], **report}
    write_json(run.evaluation, {"split": split, "reports": {"torch-float": known}, "findings": findings})
    return first_screen(run).sentences[0]


def test_a_full_run_in_two_sentences(full_run):
    first, second = first_screen(full_run).sentences
    assert first == (
        "On 12 images it has not seen, 9 of 12 are right. "
        "So few images leave doubt: on others like them, expect from 46 to 92 of 100."
    )
    assert second == (
        "The 8-bit file is 28 % of the size (1.10 MB), answers in 2.00 ms and is 5.0 points worse in top-1."
    )


def test_the_page_the_notebook_and_the_terminal_say_the_same(full_run, capsys):
    from vitrail.cli.report import report

    report(full_run.folder)
    printed = " ".join("".join(capsys.readouterr()).split())
    page, notebook = full_run.report_page.read_text(encoding="utf-8"), str(run_html(full_run))
    for line in first_screen(full_run).lines:
        assert f">{line}</p>" in page
        assert f"<p>{line}</p>" in notebook
        assert line in printed


def test_many_images_leave_no_doubt(full_run):
    reports = read_json(full_run.evaluation)["reports"]
    reports["torch-float"] |= {"num_images": 1000, "top1": 0.97}
    change(full_run, reports=reports)
    assert first_screen(full_run).sentences[0] == "On 1,000 images it has not seen, 97 of 100 are right."


def test_validation_images_that_chose_the_epoch_are_not_called_unseen(full_run):
    change(full_run, split="val")
    assert "it was not trained on, 9 of 12" in first_screen(full_run).sentences[0]
    full_run.update(trained={"keep": "best", "epoch": 2, "num_epochs": 2})
    assert "it was not trained on but that chose the epoch, 9 of 12" in first_screen(full_run).sentences[0]


def test_images_that_were_trained_on_are_told(full_run):
    rows = ["part,name,image,target", "train,a.jpg,aa,1", "train,b.jpg,bb,1", "test,c.jpg,aa,1", "test,d.jpg,cc,1"]
    full_run.images.write_text("\n".join(rows) + "\n")
    sentence = first_screen(full_run).sentences[0]
    assert "On 12 images (1 of them are training images too), 9 of 12" in sentence
    assert "not seen" not in sentence


def test_without_an_evaluation_nothing_is_claimed(full_run):
    full_run.evaluation.unlink()
    first, second = first_screen(full_run).sentences
    assert first.startswith("How good it is has not been measured on images it has not seen; do so with: vitrail eval")
    assert first.endswith("In training, top-1 80.0 % was reached on the validation images.")
    assert second == "The 8-bit file is 28 % of the size (1.10 MB) and answers in 2.00 ms."


def test_other_weights_than_the_evaluated_ones_get_no_praise(full_run):
    reports = read_json(full_run.evaluation)["reports"]
    reports["torch-float"]["file_hash"] = "0" * 64
    change(full_run, reports=reports)
    assert "have changed since they were evaluated" in first_screen(full_run).sentences[0]
    reports["torch-float"]["file_hash"] = file_hash(full_run.weights)
    change(full_run, reports=reports)
    assert "9 of 12" in first_screen(full_run).sentences[0]


def test_a_run_that_trains_says_so(bare_run):
    bare_run.update(status="training")
    assert first_screen(bare_run).lines == ("The training is not finished.",)


def test_a_measurement_of_an_earlier_file_is_not_that_of_this_one(full_run):
    full_run.bench_rows.unlink()
    timed = {"file": "model.int8.onnx", "file_hash": "other"}
    append_results(full_run.bench_rows, [row("onnxruntime int8", 2.0, **timed), row("torch float", 9.0)])
    assert "ms" not in first_screen(full_run).sentences[1]
    timed["file_hash"] = file_hash(full_run.onnx("int8"))
    append_results(full_run.bench_rows, [row("onnxruntime int8", 2.0, **timed)])
    assert "answers in 2.00 ms" in first_screen(full_run).sentences[1]


def test_a_float_file_alone_has_a_size(full_run):
    full_run.onnx("int8").unlink()
    assert first_screen(full_run).sentences[1] == "The ONNX file has 4.00 MB and answers in 4.00 ms."
    full_run.onnx("float").unlink()
    assert first_screen(full_run).sentences[1] == "It answers in 2.00 ms."


def test_fractions():
    texts = [share_in_words(share) for share in (0.52, 0.34, 0.26, 0.29, 0.2)]
    assert texts == ["half", "a third of", "a quarter of", "29 % of", "a fifth of"]


TRIVIAL = {"answer": "always answering “good”", "scores": {"top1": 0.6}}


@pytest.mark.parametrize(("low", "worse"), [(0.59, True), (0.61, False)])
def test_what_is_no_better_than_trivial_is_marked(full_run, low, worse):
    right = {"count": 9, "of": 12, "low": low, "high": 0.9}
    change(full_run, findings={"right": right, "trivial": TRIVIAL, "intervals": {"top1": [low, 0.9]}})
    said = "This is no better than always answering “good” (top-1 60.0 %)."
    assert (said in first_screen(full_run).warnings) is worse
    page = write_report(full_run).read_text(encoding="utf-8")
    assert ("no better than always answering “good”." in page) is worse
    assert '<tr class="trivial"><th scope="row">always answering “good”</th><td>60.0 %</td>' in page


def test_every_task_has_its_own_words(bare_run):
    right = {"count": 230, "of": 300, "low": 0.74, "high": 0.8}
    numbers = {"named": 250, "invented": 15, "confused": 5}
    sentence = evaluated(bare_run, "detection", {"right": right, "numbers": numbers}, map=0.4, map_50=0.7)
    assert sentence == (
        "On 40 images it has not seen, it finds 77 of 100 objects. "
        "Of those that it names, 8 of 100 are wrong (false alarms, or another class)."
    )
    sentence = evaluated(bare_run, "segmentation", {}, miou=0.44, pixel_accuracy=0.9999)
    assert "more than 99 of 100 pixels get the right class" in sentence
    assert "by 44 % on average" in sentence
    assert "77 of 100 keypoints are in the right place" in evaluated(bare_run, "pose", {"right": right}, pck=0.77)
    pairs = {"count": 460, "of": 600, "low": 0.7, "high": 0.77}
    sentence = evaluated(bare_run, "aesthetics", {"right": pairs}, mean_error=0.61, srcc=0.5)
    assert "puts the better of two images first in 77 of 100 pairs, and its scores are off by 0.61" in sentence
    sentence = evaluated(bare_run, "generation", {}, frechet=0.41)
    assert "Fréchet distance of 0.41 from 40 images it has not seen" in sentence
    sentence = evaluated(bare_run, "pretraining", {}, masked_loss=0.52)
    assert "loss on hidden patches is 0.52 (lower is better)" in sentence
    assert "--weights RUN" in sentence


@pytest.mark.parametrize(("task", "score"), [("detection", "map"), ("instances", "mask_map"), ("pose", "pck")])
def test_an_evaluation_of_an_earlier_version_says_less(bare_run, task, score):
    bare_run.update(skeleton=[], mirror=[])
    title = {"map": "mAP", "mask_map": "mask mAP", "pck": "PCK at 0.1"}[score]
    sentence = evaluated(bare_run, task, {}, **{score: 0.312})
    assert sentence == f"On 40 images it has not seen, {title} is 31.2 %."
    assert write_report(bare_run).exists()


def test_pictures_of_mistakes_have_names_and_notes(bare_run):
    evaluated(bare_run, "detection", {}, map=0.3)
    old = {"name": "a <b>.jpg", "jpeg_base64": PIXEL, "truth_base64": PIXEL}
    change(bare_run, examples=[old])
    page = write_report(bare_run).read_text(encoding="utf-8")
    assert "First the answer, then the annotation." in page
    assert '<span class="file">a &lt;b&gt;.jpg</span></li>' in page
    new = old | {"difference_base64": PIXEL, "note": "1 of 2 found, 1 missed"}
    examples = [new | {"group": "worst"}, new | {"group": "best"}]
    change(bare_run, examples=examples, difference="green: found")
    page = write_report(bare_run).read_text(encoding="utf-8")
    assert "First what is right and wrong (green: found), then the answer, then the annotation." in page
    assert page.index("The worst, worst first") < page.index("1 of 2 found, 1 missed") < page.index("The best")
    assert page.count("What is right and wrong in the answer to a &lt;b&gt;.jpg") == 2


@pytest.mark.parametrize(
    "findings",
    [
        {"tables": [{"title": "t", "columns": {"class": "text"}, "rows": [["a", "b"]]}]},
        {"tables": [{"title": "t", "columns": {"class": "count"}, "rows": [["a"]]}]},
        {"matrices": [{"title": "t", "rows": ["a"], "columns": ["a"], "counts": []}]},
        {"curves": [{"name": 'x" y', "title": "", "x": "", "y": "", "lines": {}}]},
        {"right": {"count": -1, "of": 2, "low": 0, "high": 1}},
    ],
)
def test_edited_findings_are_refused_with_the_remedy(full_run, findings):
    change(full_run, findings=findings)
    with pytest.raises(RunError, match="vitrail evaluate"):
        write_report(full_run)


def test_a_long_table_is_cut_and_says_so(full_run):
    table = {"title": "Classes", "columns": {"class": "text", "objects": "count"}, "rows": [["a", 1]] * 41}
    change(full_run, findings={"tables": [table]})
    assert "Classes, the first 40 of 41 rows" in write_report(full_run).read_text(encoding="utf-8")


def test_nothing_found_says_nothing_found(bare_run):
    right = {"count": 0, "of": 300, "low": 0, "high": 0.02}
    sentence = evaluated(bare_run, "detection", {"right": right, "numbers": {"named": 0}}, map=0.0)
    assert sentence == "On 40 images it has not seen, it finds none of 300 objects: it names none."


def train_for(run: Run, losses: list[float], **training: Any) -> str | None:
    lines = ["epoch,train_loss,val_loss", *(f"{k},{loss},{loss}" for k, loss in enumerate(losses, start=1))]
    run.metrics.write_text("\n".join(lines) + "\n")
    run.update(training={"epochs": len(losses), **training})
    return too_early(run)


def test_too_early_means_few_steps_and_a_loss_that_still_falls(bare_run):
    early = train_for(bare_run, [2.0, 1.5, 1.0])
    assert early == (
        "Too early: 3 epochs of training, where 100 are usual for classification; "
        "the loss still fell by 33 % in the last one."
    )
    assert train_for(bare_run, [2.0, 1.01, 1.0]) is None  # it has ended
    assert train_for(bare_run, [2.0, 1.0, 1.2]) is None
    assert train_for(bare_run, [2.0]) == "Too early: 1 epoch of training, where 100 are usual for classification."
    assert train_for(bare_run, [2.0 - 0.03 * k for k in range(50)]) is None  # half of the usual epochs
    assert train_for(bare_run, [2.0 - 0.2 * k for k in range(8)], weights="pretrained") is not None
    assert train_for(bare_run, [2.0 - 0.15 * k for k in range(10)], weights="pretrained") is None
    bare_run.update(data={"num_train": 100_000})
    assert train_for(bare_run, [2.0, 1.0], batch_size=64) is None  # steps enough


def test_a_run_that_is_not_trained_is_not_early(bare_run):
    assert too_early(bare_run) is None  # no metrics
    bare_run.update(status="training")
    assert train_for(bare_run, [2.0, 1.0]) is None


def test_wilson():
    found = wilson(29, 30)
    assert (found.low, found.high) == (pytest.approx(0.8333, abs=1e-3), pytest.approx(0.9941, abs=1e-3))


def test_a_run_of_version_0_1_0_has_its_sentences(old_run: Run, tmp_path: Path):
    lines = first_screen(old_run).lines
    assert lines
    assert all(line.endswith(".") for line in lines)
