"""What answers say beside scores: values by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from vitrail.core.files import write_json
from vitrail.evaluation import describe_findings
from vitrail.report import write_report
from vitrail.runs.schema import read_evaluation
from vitrail.tasks.findings.class_findings import ClassFindings
from vitrail.tasks.findings.findings import MOST_POINTS, thinned
from vitrail.tasks.findings.keypoint_findings import KeypointFindings
from vitrail.tasks.findings.object_findings import CONFUSED, FOUND, INVENTED, ObjectFindings, judge_objects
from vitrail.tasks.findings.pixel_findings import PixelFindings
from vitrail.tasks.findings.plain_words import amount, of_hundred, out_of
from vitrail.tasks.findings.rating_findings import RatingFindings

HERE, THERE, AWAY = [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9], [0.4, 0.1, 0.5, 0.2]


@pytest.mark.parametrize(
    ("right", "of", "text"),
    [
        (29, 30, "29 of 30"),
        (0, 3, "0 of 3"),
        (100, 100, "100 of 100"),
        (291, 300, "97 of 100"),
        (999, 1000, "more than 99 of 100"),
        (1000, 1000, "all 1,000"),
        (1, 1000, "fewer than 1 of 100"),
        (0, 300, "none of 300"),
        (994, 1000, "99 of 100"),
    ],
)
def test_a_rounded_share_never_says_all_or_none(right, of, text):
    assert out_of(right, of) == text


def test_intervals_are_rounded_outwards():
    assert of_hundred(0.839, 0.981) == "from 83 to 99 of 100"
    assert of_hundred(-0.0, 1.0000001) == "from 0 to 100 of 100"
    assert (amount(1, "image"), amount(1200, "image")) == ("1 image", "1,200 images")


def test_long_lines_are_thinned_from_end_to_end():
    points = [(k / 999, 0.5) for k in range(1000)]
    kept = thinned(points)
    assert len(kept) == MOST_POINTS
    assert (kept[0], kept[-1]) == ((0.0, 0.5), (1.0, 0.5))


def two_classes() -> ClassFindings:
    """Ten images, three of them bad; the two least sure answers are wrong."""
    findings = ClassFindings(("good", "bad"))
    probability = torch.tensor([0.01, 0.05, 0.12, 0.15, 0.2, 0.3, 0.55, 0.45, 0.92, 0.95])
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    for part in (slice(0, 6), slice(6, 10)):
        findings.update(torch.stack([1 - probability[part], probability[part]], 1).log(), labels[part])
    return findings


def test_a_person_takes_the_images_that_the_model_is_unsure_of():
    (answered, both), (unsure, table) = two_classes().curves(), two_classes().tables()
    assert answered.lines["the model"][-1] == (1.0, 0.8)
    assert (0.8, 1.0) in answered.lines["the model"]
    assert answered.note == (
        "If a person looks at the 2 images of 10 that the model is least sure of, 8 of 8 of the others are right."
    )
    assert [row for row in unsure.rows if row[0] == 0.9] == [[0.9, 0.4, 1.0, 0]]
    assert set(both.lines) == {"precision", "recall"}
    assert [row for row in table.rows if row[0] == 0.5] == [[0.5, 3, pytest.approx(2 / 3), pytest.approx(2 / 3)]]
    assert "“bad”" in table.title  # the rarer one


def test_equal_confidences_are_answered_together_or_not_at_all():
    findings = ClassFindings(("a", "b", "c"))
    findings.update(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    assert findings.curves()[0].lines["the model"] == [(1.0, 0.5)]
    assert findings.curves()[0].note == ""


def test_always_one_class_is_the_trivial_answer():
    trivial = two_classes().trivial()
    assert trivial.answer == "always answering “good”"
    assert trivial.scores == {"top1": 0.7, "top5": 1.0, "balanced": 0.5}
    assert two_classes().numbers()["balanced"] == pytest.approx((6 / 7 + 2 / 3) / 2)


def test_one_class_alone_has_no_two_class_chart():
    findings = ClassFindings(("a", "b"))
    findings.update(torch.eye(2)[[0, 0]], torch.tensor([0, 0]))
    assert len(findings.curves()) == len(findings.tables()) == 1


def test_pixels_are_scored_as_the_metric_does():
    output, truth = torch.randn(4, 3, 5, 6), torch.randint(3, (4, 5, 6))
    truth[:, 0] = 255
    findings = PixelFindings(("sky", "road", "car"), 255)
    findings.update(output[:3], truth[:3])
    findings.update(output[3:], truth[3:])
    known = MulticlassJaccardIndex(num_classes=3, average="macro", ignore_index=255)
    assert findings.rescored(torch.arange(4))["miou"] == pytest.approx(float(known(output, truth)))
    right, counted = findings.shares()
    assert counted.tolist() == [24] * 4
    assert right.sum() == ((output.argmax(1) == truth) & (truth != 255)).sum()


def test_background_everywhere_is_the_trivial_mask():
    findings = PixelFindings(("background", "cat", "never"), 255)
    truth = torch.zeros(2, 4, 5, dtype=torch.int64)
    truth[1, 0] = 1  # 5 of 40
    perfect = torch.nn.functional.one_hot(truth, 3).permute(0, 3, 1, 2).float()
    perfect[1, :, 0] = torch.tensor([1.0, 0.0, 0.0]).unsqueeze(1)  # the cat is not seen
    findings.update(perfect, truth)
    trivial = findings.trivial()
    assert trivial.answer == "calling every pixel “background”"
    assert trivial.scores == {"pixel_accuracy": 0.875, "miou": 0.4375}
    assert findings.errors().tolist() == [0.0, pytest.approx(1 - 0.75 / 2)]
    assert findings.notes()[1] == "25 % of the pixels wrong, mean IoU 38 %"
    assert findings.tables()[1].rows == [["cat", "background", 1.0]]
    assert [row[0] for row in findings.tables()[0].rows] == ["background", "cat"]


def test_an_image_without_a_labelled_pixel_is_not_wrong():
    findings = PixelFindings(("a", "b"), 255)
    findings.update(torch.randn(1, 2, 3, 3), torch.full((1, 3, 3), 255))
    assert findings.errors().tolist() == [0.0]
    values = describe_findings(findings)
    assert (values["right"]["of"], values["right"]["low"], values["right"]["high"]) == (0, 0, 1)


def found(*objects: tuple[float, int, list[float]]) -> dict[str, Tensor]:
    return {
        "scores": torch.tensor([score for score, _, _ in objects]),
        "labels": torch.tensor([label for _, label, _ in objects], dtype=torch.int64),
        "boxes": torch.tensor([box for _, _, box in objects]).reshape(-1, 4),
    }


def given(*objects: tuple[int, list[float]], crowd: tuple[int, ...] = ()) -> dict[str, Tensor]:
    return {
        "labels": torch.tensor([label for label, _ in objects], dtype=torch.int64),
        "boxes": torch.tensor([box for _, box in objects]).reshape(-1, 4),
        "iscrowd": torch.tensor([index in crowd for index in range(len(objects))], dtype=torch.bool),
    }


def objects(answers: list[dict[str, Tensor]], targets: list[dict[str, Tensor]], least: float = 0.3) -> ObjectFindings:
    findings = ObjectFindings(lambda _: answers, ("cat", "dog"), least=least, size=(100, 200))
    findings.update(torch.zeros(len(answers)), targets)
    return findings


def test_objects_are_found_confused_or_invented():
    one = judge_objects(found((0.9, 0, HERE), (0.8, 0, THERE), (0.7, 1, AWAY)), given((0, HERE), (1, THERE)))
    assert one.kinds.tolist() == [FOUND, CONFUSED, INVENTED]
    assert one.missed == []


def test_an_unsure_right_answer_does_not_hide_a_sure_wrong_one():
    """The dog is called a cat with 0.9 and a dog with 0.1, which no answer names."""
    findings = objects([found((0.9, 0, THERE), (0.1, 1, THERE))], [given((1, THERE))])
    assert findings.named[0].kinds.tolist() == [CONFUSED]
    assert findings.notes() == ["0 of 1 found, 1 of another class"]
    assert findings.matrices()[0].counts == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong():
    findings = objects([found((0.9, 0, HERE))], [given((0, HERE), (1, THERE), crowd=(0,))])
    assert findings.numbers()["named"] == 0
    assert findings.named[0].missed == [0]
    assert findings.shares()[1].tolist() == [1]


def test_counts_by_class_and_by_size():
    findings = objects(
        [found((0.9, 0, HERE), (0.8, 1, AWAY)), found((0.2, 1, THERE))],
        [given((0, HERE)), given((1, THERE), (1, HERE))],
    )
    assert findings.tables()[0].rows == [["cat", 1, 1, 0, 0, 0], ["dog", 2, 0, 2, 0, 1]]
    small, medium, large = findings.tables()[1].rows  # sides are 28, 42 and 28 of 32 and 96 pixels
    assert [small[1:3], medium[1:3], large[1:]] == [[2, 1], [1, 0], [0, 0, None]]
    assert findings.errors().tolist() == [1, 2]
    assert findings.shares()[0].tolist() == [1, 0]


def test_precision_over_recall_counts_what_answers_do_not_name():
    findings = objects([found((0.9, 0, HERE), (0.2, 0, AWAY), (0.1, 0, THERE))], [given((0, HERE), (0, THERE))])
    (curve,) = findings.curves()
    assert curve.lines == {"cat": [(0.5, 1.0), (0.5, 0.5), (1.0, round(2 / 3, 4))]}


@pytest.mark.parametrize("answers", [[found()], [found((0.9, 1, HERE))]])
def test_images_without_objects_can_be_described(answers):
    values = describe_findings(objects(answers, [given()]))
    assert values["right"]["of"] == 0
    assert values["curves"] == []


def keypoints(places: Tensor, truth: Tensor) -> KeypointFindings:
    findings = KeypointFindings(lambda _: (places, torch.ones(places.shape[:2])), ("nose", "tail"))
    count = len(truth)
    targets = {"keypoints": truth, "side": torch.full((count,), 0.5), "area": torch.full((count,), 0.25)}
    findings.update(torch.zeros(count, 2, 10, 20), targets)
    return findings


def test_keypoints_are_right_within_a_tenth_of_the_object():
    truth = torch.tensor([[[0.5, 0.5, 1], [0.2, 0.2, 1]], [[0.5, 0.5, 1], [0.9, 0.9, 0]]])
    places = truth[..., :2].clone()
    places[0, 0, 0] += 0.04  # 0.8 of 10 pixels: right
    places[1, 0, 1] += 0.2  # 2 of 10 pixels: wrong
    findings = keypoints(places, truth)
    right, labelled = findings.shares()
    assert (right.tolist(), labelled.tolist()) == ([2, 0], [2, 1])
    assert findings.errors().tolist() == pytest.approx([0.04, 0.2], abs=1e-6)
    assert findings.notes()[1] == "0 of 1 right, off by 20 % of the object's size on average"
    assert findings.tables()[0].rows[0][:3] == ["nose", 2, 0.5]


def test_the_mean_pose_does_not_know_the_image_itself():
    """Equal poses: the mean of the others is right. One pose alone: there are no others."""
    truth = torch.tensor([[[0.5, 0.5, 1], [0.2, 0.2, 1.0]]])
    assert keypoints(truth[..., :2].repeat(3, 1, 1), truth.repeat(3, 1, 1)).trivial().scores == {"pck": 1.0}
    assert keypoints(truth[..., :2], truth).trivial().scores == {"pck": 0.0}


def test_pairs_of_ratings():
    findings = RatingFindings(torch.tensor([1.0, 2.0, 3.0]), 2.0)
    shares = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0]])
    findings.update(shares, {"score": torch.tensor([1.0, 2.0, 3.0, 3.0])})
    right, counted = findings.shares()
    assert (float(right.sum()) / 2, float(counted.sum()) / 2) == (3, 5)
    assert findings.errors().argmax() == 1
    trivial = findings.trivial()
    assert trivial.scores == {"srcc": 0.0, "plcc": 0.0, "accuracy": 0.5, "mean_error": 0.75}
    values = describe_findings(findings)
    assert values["right"]["low"] <= 0.6 <= values["right"]["high"]
    assert set(values["intervals"]) == {"srcc", "plcc", "accuracy", "mean_error"}


def test_thirty_right_of_thirty_are_not_certainty():
    findings = ClassFindings(("a", "b", "c"))
    labels = torch.arange(30) % 3
    findings.update(20 * torch.eye(3)[labels], labels)
    values = describe_findings(findings)
    assert values["right"]["high"] == 1
    assert values["right"]["low"] == pytest.approx(0.8865, abs=1e-3)  # Wilson
    assert values["intervals"]["top1"][0] == pytest.approx(values["right"]["low"], abs=1e-5)


def test_a_model_that_answers_no_numbers_is_described_without_them(bare_run):
    """What is written can be read again."""
    labels, value = torch.arange(6) % 2, float("nan")
    classes = ClassFindings(("good", "bad"))
    classes.update(torch.full((6, 2), value), labels)
    ratings = RatingFindings(torch.tensor([1.0, 2.0]), 1.5)
    ratings.update(torch.full((6, 2), value), {"score": labels + 1.0})
    for findings in (classes, ratings):
        values = {"split": "test", "findings": describe_findings(findings), "reports": {"torch-float": {}}}
        write_json(bare_run.evaluation, values)
        assert read_evaluation(bare_run)["findings"]["trivial"]
        assert write_report(bare_run).exists()


def test_names_of_classes_in_charts_are_only_names(bare_run):
    names = ("_hidden 猫", "$x^2$ & <b>")
    findings = objects([found((0.9, 0, HERE))], [given((0, HERE), (1, THERE))])
    findings.classes = names
    values = {"split": "test", "findings": describe_findings(findings), "reports": {"torch-float": {}}}
    bare_run.update(task="detection", classes=names)
    write_json(bare_run.evaluation, values)
    page = write_report(bare_run).read_text(encoding="utf-8")
    assert "_hidden 猫</text>" in page
    assert ">$x^2$ &amp; &lt;b&gt;</text>" in page
