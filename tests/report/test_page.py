from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report.pretend import HOSTILE, row

from vitrail.bench import Energy, append_results
from vitrail.core.errors import VitrailError
from vitrail.report import write_report
from vitrail.report.page import commands, megabytes, number, percent, points
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
    texts = page(bare_run).texts
    expected = {"data": "evaluate", "training": "train --run", "accuracy": "evaluate", "examples": "evaluate"}
    expected |= {"quantisation": "quantize", "speed": "export", "explanation": "explain"}
    expected |= {"robustness": "evaluate --robustness"}
    for section, verb in expected.items():
        assert f"vitrail {verb} signs" in texts[section]
    assert "vitrail bench signs" in texts["speed"]
    assert "torch" in texts["environment"]


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
    assert [line.split()[1] for line in rest] == ["quantize", "export", "evaluate", "bench", "report"]
    assert all(line.endswith(" signs") for line in rest)
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
