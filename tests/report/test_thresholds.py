"""The slider of a least confidence."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape

import pytest
import torch
from report.test_page import page

from vitrail.core.files import read_json, write_json
from vitrail.evaluation import describe_findings
from vitrail.report import write_report
from vitrail.report.thresholds import counted, read_slider
from vitrail.runs.findings_schema import FindingsEntry
from vitrail.runs.run import Run
from vitrail.tasks.findings.class_findings import ClassFindings
from vitrail.tasks.findings.object_findings import ObjectFindings


@pytest.fixture(scope="module")
def findings() -> ClassFindings:
    """Confidences 0.9, 0.8 and 0.6 right, 0.7 wrong."""
    findings = ClassFindings(["a", "b"])
    shares = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    findings.update(shares.log(), torch.tensor([0, 1, 1, 1]))
    return findings


def test_counts_are_those_of_each_least_confidence(findings: ClassFindings) -> None:
    (found,) = findings.thresholds()
    names = ("answered", "right", "wrong", "left")
    at = {share: tuple(found.counts[name][round(200 * share)] for name in names) for share in (0, 0.65, 0.75, 0.85, 1)}
    assert at == {0: (4, 3, 1, 0), 0.65: (3, 2, 1, 1), 0.75: (2, 2, 0, 2), 0.85: (1, 1, 0, 3), 1: (0, 0, 0, 4)}
    FindingsEntry.model_validate(describe_findings(findings))


def test_objects_have_precision_and_recall() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.0, 0.6, 0.2, 0.8]])
    answer = {"boxes": boxes, "scores": torch.tensor([0.9, 0.5, 0.3]), "labels": torch.tensor([0, 0, 0])}
    target = {"boxes": boxes[:2], "labels": torch.tensor([0, 0]), "iscrowd": torch.zeros(2, dtype=torch.bool)}
    findings = ObjectFindings(lambda _: [answer], ["x"], least=0.4, size=(64, 64))
    findings.update(torch.zeros(1), [target])
    (found,) = findings.thresholds()
    assert found.start == 0.4
    assert [found.counts[name][80] for name in ("objects", "named", "found", "wrong", "missed")] == [2, 2, 2, 0, 0]
    assert [found.counts[name][0] for name in ("named", "found", "wrong", "missed")] == [3, 2, 1, 0]
    assert [found.counts[name][150] for name in ("named", "found", "missed")] == [1, 1, 1]


def test_the_page_has_one_script_that_its_policy_names(full_run: Run, findings: ClassFindings) -> None:
    values = read_json(full_run.evaluation)
    write_json(full_run.evaluation, values | {"findings": describe_findings(findings)})
    html = write_report(full_run).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    policy = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{policy}'" in html
    assert "runs no script" not in html
    parsed = page(full_run)
    (slider,) = parsed.all("input")
    assert (slider["type"], slider["max"], slider["value"]) == ("range", "200", "100")
    numbers = json.loads(unescape(re.search(r'data-numbers="([^"]*)"', html)[1]))  # type: ignore[index]
    assert [len(row["n"]) for row in numbers] == [201] * 4
    assert numbers[0]["of"] == 4
    assert "4 of 4 (100.0 %)" in parsed.texts["accuracy"]  # where no script runs


def test_what_the_slider_says_first(findings: ClassFindings) -> None:
    slider = read_slider(describe_findings(findings)["thresholds"][0])
    assert slider.rows[1] == ("right among these", "3 of 4 (75.0 %)")
    assert counted(1200, None) == "1,200"
    assert counted(0, 0) == "0 of 0"
