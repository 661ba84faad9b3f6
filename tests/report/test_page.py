from __future__ import annotations

import re
import shlex
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from report.pretend import HOSTILE, row

from vitrail.bench import Energy, append_results
from vitrail.cli.main import build_app
from vitrail.cli.signatures import stand_in
from vitrail.core.errors import VitrailError
from vitrail.core.files import read_json, write_json
from vitrail.report import write_report
from vitrail.report.page import commands
from vitrail.report.written import megabytes, number, percent, points
from vitrail.runs.run import Run

SECTIONS = ("data", "training", "accuracy", "examples", "explanation", "robustness", "quantisation", "speed")
SECTIONS = (*SECTIONS, "environment", "reproduce")
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements, whether they nest, and the text of every section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.section = ""
        self.texts: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs)["id"]

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts[self.section] = self.texts.get(self.section, "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(run: Run) -> Page:
    parsed = Page(write_report(run).read_text(encoding="utf-8"))
    assert parsed.open == []
    return parsed


def test_a_full_run_has_every_section_and_no_reminder(full_run):
    parsed = page(full_run)
    assert tuple(section["id"] for section in parsed.all("section")) == SECTIONS
    assert not [a for _, a in parsed.elements if a.get("class") == "missing"]
    assert len(parsed.all("svg")) == 1 + 3 + 1 + 1  # the band, curves, reliability, Pareto


def test_a_bare_run_says_which_verb_makes_what(bare_run):
    texts, folder = page(bare_run).texts, bare_run.folder
    expected = {"data": "evaluate", "training": "train --run", "accuracy": "evaluate", "examples": "evaluate"}
    expected |= {"quantisation": "quantize", "speed": "export", "explanation": "explain", "robustness": "evaluate"}
    for section, verb in expected.items():
        assert f"vitrail {verb} {folder}" in texts[section]
    assert f"vitrail evaluate {folder} --robustness" in texts["robustness"]
    assert f"vitrail bench {folder}" in texts["speed"]
    assert "torch" in texts["environment"]


@pytest.mark.parametrize("folder", ["signs", "my runs/it's mine", "/tmp/runs/a b"])
def test_every_command_of_the_page_can_be_pasted(bare_run, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / folder if not folder.startswith("/") else tmp_path / "absolute" / "a b"
    place.parent.mkdir(parents=True, exist_ok=True)
    bare_run.folder.rename(place)
    given = place if folder.startswith("/") else place.relative_to(tmp_path)
    write_report(Run(given))
    found = [
        unescape(text) for text in re.findall(r"<code>(vitrail [^<]+)</code>", (place / "report.html").read_text())
    ]
    assert len(found) > 10
    for words in (shlex.split(text) for text in found):
        assert build_app(words[1], stand_in(words[1]))(words[1:], print_error=False, exit_on_error=False)
        assert str(given) in words


def test_a_task_without_classes_is_offered_what_it_can_do(bare_run):
    bare_run.update(task="detection", classes=["cat", "dog"])
    assert "vitrail evaluate" in page(bare_run).texts["data"]
    scores = {"map": 0.5, "loss": 1.0, "num_images": 3, "per_class": [{"name": "cat"}, {"name": "dog"}]}
    scores |= {score.name: 0.5 for score in bare_run.read().kind.scores}
    data = {"source": "photos", "fingerprint": "abc", "classes": ["cat", "dog"], "skipped": [], "samples": []}
    write_json(
        bare_run.evaluation,
        {"split": "val", "scores": [], "reports": {"torch-float": scores}, "examples": [], "data": data},
    )
    parsed = page(bare_run)
    assert "vitrail" not in parsed.texts["data"]
    assert "robustness" not in parsed.texts
    assert not [a for a in parsed.all("a") if a["href"] == "#robustness"]


@pytest.mark.parametrize(
    ("artefact", "sections"),
    [
        ("evaluation", {"data", "accuracy", "examples"}),
        ("metrics", {"training"}),
        ("quantization", {"quantisation"}),
        ("robustness", {"robustness"}),
        ("bench_rows", {"speed"}),
    ],
)
def test_only_the_sections_of_a_missing_artefact_are_missing(full_run, artefact, sections):
    getattr(full_run, artefact).unlink()
    html = write_report(full_run).read_text(encoding="utf-8")
    parts = re.split(r'<section id="(\w+)">', html)[1:]
    assert {name for name, text in zip(parts[::2], parts[1::2], strict=True) if 'class="missing"' in text} == sections


def test_what_the_user_named_is_escaped_everywhere(full_run):
    html = write_report(full_run).read_text(encoding="utf-8")
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 9  # classes, source, skipped, examples, confusions, failure, command
    assert "dog &amp; &#39;co&#39;" in html
    parsed = Page(html)
    assert not parsed.all("script")
    assert HOSTILE in {a.get("title") for a in parsed.all("th")}  # attributes too, undamaged


def test_the_page_loads_nothing(full_run):
    html = write_report(full_run).read_text(encoding="utf-8")
    parsed = Page(html)
    for tag, attributes in parsed.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "data", "poster", "srcset", "action"}:
                assert value.startswith((*(f"data:image/{kind};base64," for kind in ("jpeg", "png", "svg+xml")), "#"))
    assert not re.search(r"url\((?!#)|@import", html)
    assert "http://" not in html
    assert "https://" not in html
    (policy,) = [a["content"] for a in parsed.all("meta") if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def test_it_can_be_read_without_seeing(full_run):
    html = write_report(full_run).read_text(encoding="utf-8")
    parsed = Page(html)
    assert all(image["alt"] for image in parsed.all("img"))
    assert all(svg.get("aria-hidden") or svg["aria-label"] for svg in parsed.all("svg"))
    assert html.count("<caption>") == len(parsed.all("table"))
    assert all(cell.get("scope") for cell in parsed.all("th"))
    assert parsed.all("html") == [{"lang": "en"}]


def test_ids_are_unique(full_run):
    ids = [a["id"] for _, a in page(full_run).elements if "id" in a]
    assert len(ids) == len(set(ids))
    html = full_run.report_page.read_text(encoding="utf-8")
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', html)) <= set(ids)


def test_figures_are_the_measured_ones(full_run):
    parsed = page(full_run)
    head = parsed.texts[""]
    assert "75.0 %" in head
    assert "\u22125.0 points against float" in head
    assert "2.00 ms" in head
    assert "5.0× as fast as PyTorch" in head
    assert "1.10 MB" in head
    assert "no C++ compiler" in parsed.texts["speed"]
    assert "0.500" in parsed.texts["speed"]  # OpenVINO int8 over PyTorch


def test_the_front_is_marked(full_run):
    html = write_report(full_run).read_text(encoding="utf-8")
    front = re.findall(r'<tr class="front"><th scope="row">([^<]+)', html)
    # int8 in ONNX Runtime is cheapest, float in ONNX Runtime is more accurate; the others cost more for the same
    assert front == ["ONNX Runtime, float", "ONNX Runtime, int8"]
    assert "On the Pareto front: ONNX Runtime, float, ONNX Runtime, int8." in html


def test_energy_carries_its_source_and_an_estimate_says_so_twice(full_run):
    measured = Energy(source="rapl", energy_mj=12.5, ci95_mj=(12.0, 13.0))
    append_results(full_run.bench_rows, [row("onnxruntime int8", 2.0, energy=measured)])
    texts = page(full_run).texts
    assert "12.5 ± 0.5 mJ (rapl)" in texts["speed"]
    assert "estimate" not in texts["speed"]
    append_results(full_run.bench_rows, [row("onnxruntime float", 4.0, energy=replace(measured, source="estimated"))])
    texts = page(full_run).texts
    assert "≈ 12.5 ± 0.5 mJ (estimated)" in texts["speed"]
    assert "Values marked ≈ are estimates" in texts["speed"]


def test_rows_with_several_numbers_of_threads_have_names_of_their_own(full_run):
    append_results(full_run.bench_rows, [row("onnxruntime int8", 1.5, threads=4)])
    texts = page(full_run).texts
    assert "ONNX Runtime, int8, threads 1" in texts["speed"]
    assert "ONNX Runtime, int8, threads 4" in texts["speed"]
    assert "1 or 4 threads" in texts["speed"]


def test_a_contended_measurement_is_shown_by_processor_time(full_run):
    append_results(full_run.bench_rows, [row("onnxruntime int8", 2.0, contended=True)])
    texts = page(full_run).texts
    assert "ONNX Runtime, int8*" in texts["speed"]
    assert "Other programs disturbed" in texts["speed"]


def test_charts_take_their_colours_from_the_page(full_run):
    html = write_report(full_run).read_text(encoding="utf-8")
    charts = "".join(re.findall(r"<svg role.*?</svg>", html, flags=re.DOTALL))
    assert charts
    assert not re.search(r"#[0-9a-f]{6}\b", charts)
    assert "stroke: var(--glass-1)" in html


def test_the_same_run_gives_the_same_page(full_run):
    first = write_report(full_run).read_bytes()
    assert write_report(full_run).read_bytes() == first


def test_a_damaged_artefact_is_an_error_and_leaves_the_old_page(full_run):
    old = write_report(full_run).read_bytes()
    full_run.evaluation.write_text('{"split":')
    with pytest.raises(VitrailError, match=r"evaluation\.json is not JSON"):
        write_report(full_run)
    assert full_run.report_page.read_bytes() == old


def test_commands_hide_where_the_program_lies(bare_run):
    first, *rest = commands(bare_run, bare_run.read())
    assert first.startswith("vitrail train --run signs")
    assert rest == [
        f"vitrail {verb} {bare_run.folder}" for verb in ("quantize", "export", "evaluate", "bench", "report")
    ]
    assert commands(bare_run, bare_run.read().model_copy(update={"command": "vitrail demo"})) == ["vitrail demo"]


def test_numbers():
    assert [number(v) for v in (None, 0, 0.12345, 12.345, 123.4, 12345.6, 1e-6)] == [
        "–", "0", "0.123", "12.3", "123", "12\u202f346", "1.0e-06",
    ]  # fmt: skip
    assert [points(v) for v in (0.0, -0.0004, 0.0123, -0.05)] == [
        "±0.0 points", "±0.0 points", "+1.2 points", "\u22125.0 points",
    ]  # fmt: skip
    assert (percent(0.8734), megabytes(1_234_567), megabytes(None)) == ("87.3 %", "1.23 MB", "–")


def test_pictures_of_other_verbs_are_in_the_page(full_run):
    parsed = page(full_run)
    drawings = {image["alt"]: image["src"] for image in parsed.all("img") if image.get("class") == "drawing"}
    assert len(drawings) == 3
    assert any(source.startswith("data:image/svg+xml;base64,") for source in drawings.values())
    assert "87.5" in parsed.texts["robustness"]
    assert "62.5" in parsed.texts["robustness"]


def test_words_fit_the_numbers(full_run):
    full_run.update(trained={"keep": "last", "epoch": 1, "num_epochs": 1, "seconds": 60})
    plan = {"config": {"weight_bits": 8, "activation_bits": 8, "observer": None, "preset": "fast"}, "num_images": 1}
    write_json(full_run.quantization, plan | {"operands": [], "skipped": [], "notes": []})
    texts = page(full_run).texts
    assert "trained for 1 epoch in" in texts[""]
    assert "ranges from 1 training image (hessian)" in texts["quantisation"]


def test_an_accuracy_stands_beside_that_of_always_the_same_answer(full_run):
    evaluation = read_json(full_run.evaluation)
    for support, row_ in zip((9, 2, 1), evaluation["reports"]["torch-float"]["per_class"], strict=True):
        row_["support"] = support
    write_json(full_run.evaluation, evaluation)
    assert "on 12 images; always “cat” reaches 75.0 %" in page(full_run).texts[""]


def test_a_score_that_cannot_differ_is_not_shown(full_run):
    assert "top-5" not in page(full_run).texts["accuracy"] + page(full_run).texts["training"]
    evaluation = read_json(full_run.evaluation)
    for report in evaluation["reports"].values():
        report["per_class"] = [{"name": str(i), "precision": 1, "recall": 1, "f1": 1, "support": 1} for i in range(6)]
        report["confusion"] = [[0] * 6] * 6
    write_json(full_run.evaluation, evaluation)
    assert "top-5" in page(full_run).texts["accuracy"]


def test_pictures_have_the_names_of_their_files(full_run):
    html = write_report(full_run).read_text(encoding="utf-8")
    assert html.count('<span class="note file">&lt;script&gt;') == 2


@pytest.mark.parametrize("dark", [False, True])
def test_counts_can_be_read_on_every_cell_of_the_confusion_matrix(full_run, dark):
    """Contrast of at least 4.5 (WCAG AA) at the deepest colours of wrong and right answers."""
    style = write_report(full_run).read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", style.split("@media (prefers-color-scheme: dark)")[dark]))
    (wrong,) = re.findall(r"glass-2\) min\(calc\(var\(--v\) \* [\d.]+%\), (\d+)%\)", style)
    (right,) = re.findall(r"glass-1\) calc\(var\(--v\) \* ([\d.]+)%\)", style)
    for glass, share in (("glass-2", int(wrong) / 100), ("glass-1", float(right))):
        mixed = [share * a + (1 - share) * b for a, b in zip(rgb(colours[glass]), rgb(colours["card"]), strict=True)]
        levels = sorted((luminance(mixed), luminance(rgb(colours["ink"]))))
        assert (levels[1] + 0.05) / (levels[0] + 0.05) >= 4.5


def rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def luminance(channels: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
