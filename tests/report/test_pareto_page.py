from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.figure import Figure
from PIL import Image
from report.pretend import report, row

from vitrail.bench import Energy, append_results
from vitrail.core.errors import ConfigError, RunError
from vitrail.core.files import read_json, write_json
from vitrail.report.charts import PRINT
from vitrail.report.fronts import ParetoPoint, _plot, save_pareto_plot, with_fronts
from vitrail.report.pareto import find_fronts, write_pareto
from vitrail.report.references import Reference, read_references
from vitrail.runs.file_results import read_file_results
from vitrail.runs.run import Run


@pytest.fixture
def runs(full_run, tmp_path) -> list[Run]:
    """One run as it is; one that is more accurate and slower, with energies, one of them an estimate."""
    other = Run(tmp_path / "other")
    other.update(**read_json(full_run.description) | {"model": {"name": "<b>large</b>", "fields": {}}})
    reports = {name: report(0.6, 0.9) for name in ("onnx-int8", "openvino-int8")}
    write_json(other.evaluation, {"reports": {"onnx-float": report(0.95, 1.0)} | reports})
    append_results(
        other.bench_rows,
        [
            row("onnxruntime float", 40.0, file="model.onnx", energy=Energy(source="rapl", energy_mj=80.0)),
            row("onnxruntime int8", 20.0, file="model.int8.onnx", energy=Energy(source="estimated", energy_mj=30.0)),
            row("openvino int8", 19.0, file="model.int8.onnx"),
            row("onnxruntime-web int8", 70.0, file="model.int8.onnx", device="Pixel 8"),
            row("onnxruntime float", 5.0, file="model.onnx", batch_size=8),
        ],
    )
    return [full_run, other]


def labels(points, **wanted):
    return {p.label for p in points if all(getattr(p, k) == v for k, v in wanted.items())}


def test_each_device_and_cost_has_a_front_of_its_own(runs):
    fronts = {(f.device, f.cost.key): f for f in find_fronts(read_file_results(runs))}
    assert set(fronts) == {
        ("this machine", "latency"),
        ("this machine", "energy"),
        ("this machine", "size"),
        ("Pixel 8", "latency"),
        ("Pixel 8", "size"),
    }
    latency = fronts["this machine", "latency"].points
    assert "other/onnxruntime float" in labels(latency, on_front=True)
    assert "other/openvino int8" in labels(latency, on_front=False)  # 60 % at 19 ms: the first run does better sooner
    assert not [p for p in latency if "batch" in p.label]  # throughput is another question
    energy = fronts["this machine", "energy"].points
    assert labels(energy, estimated=True) == {"other/onnxruntime int8"}
    assert labels(fronts["Pixel 8", "latency"].points, on_front=True) == {"other/onnxruntime-web int8"}


def test_a_file_is_one_point_in_the_plot_of_sizes(runs):
    (size,) = [f for f in find_fronts(read_file_results([runs[1]], device="this machine")) if f.cost.key == "size"]
    assert sorted(p.label for p in size.points) == ["other/model.int8.onnx", "other/model.onnx"]
    assert {p.quality for p in size.points} == {95.0, 60.0}


def test_estimates_and_measurements_do_not_beat_each_other():
    measured = ParetoPoint(label="m", group="a", cost=10, quality=80)
    guess = ParetoPoint(label="g", group="a", cost=5, quality=90, estimated=True)
    published = ParetoPoint(label="p", group="", cost=1, quality=99, published=True)
    points = with_fronts([measured, guess, published])
    assert labels(points, on_front=True) == {"m", "g"}
    assert [p.text for p in points] == ["m", "g (estimated)", "p (published)"]


def test_an_estimate_is_hollow_dashed_and_named():
    points = with_fronts(
        [
            ParetoPoint(label="one", group="a", cost=10, quality=80),
            ParetoPoint(label="two", group="a", cost=5, quality=90, estimated=True),
            ParetoPoint(label="three", group="a", cost=7, quality=70),
            ParetoPoint(label="worse", group="a", cost=11, quality=60),
        ]
    )
    axes = Figure().add_subplot()
    _plot(axes, points, "mJ", "top-1", PRINT)
    lines, dots = axes.lines[:2], axes.lines[2:]
    assert [line.get_linestyle() for line in lines] == ["-", "--"]
    look = {p.label: dot for p, dot in zip(points, dots, strict=True)}
    assert look["two"].get_markerfacecolor() == PRINT.paper
    assert look["one"].get_markerfacecolor() == look["three"].get_markerfacecolor() == PRINT.glass[1]
    assert look["worse"].get_color() == PRINT.muted
    assert {text.get_text() for text in axes.texts} == {"one", "two (estimated)", "three", "worse"}


def test_page_pictures_and_table(runs, tmp_path):
    reference = Reference(label="Paper <i>", accuracy=0.97, latency_ms=25.0, source="arXiv:1")
    page, table, *pictures = write_pareto(runs, tmp_path / "out", references=[reference])
    assert {p.name for p in pictures} == {
        f"{cost}-{device}{suffix}"
        for cost, device in (
            *(("latency", d) for d in ("this-machine", "pixel-8")),
            ("energy", "this-machine"),
            *(("size", d) for d in ("this-machine", "pixel-8")),
        )
        for suffix in (".svg", ".png")
    }
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg role") == 5
    assert "<b>large" not in html
    assert "<i>" not in html
    assert "Paper &lt;i&gt; (published)" in html
    assert "http" not in html.replace("http-equiv", "")
    assert "≈ 30.0 mJ (estimated)" in html
    assert "are estimates" in html
    with table.open(newline="") as file:
        rows = {(r["run"], r["runtime"], r["variant"], r["batch_size"], r["device"]): r for r in csv.DictReader(file)}
    int8 = rows["other", "onnxruntime", "int8", "1", "this machine"]
    assert (int8["accuracy"], int8["energy_source"], int8["latency_is"]) == ("0.6", "estimated", "wall time")
    assert rows["other", "onnxruntime", "float", "1", "this machine"]["fronts"].split()[:2] == ["latency", "energy"]


def test_pictures_stand_alone(tmp_path):
    points = [ParetoPoint(label="one & all", group="a", cost=10, quality=80, on_front=True)]
    for name in ("a.svg", "a.png"):
        save_pareto_plot(tmp_path / name, points, "ms", "top-1")
    svg = (tmp_path / "a.svg").read_text()
    ElementTree.fromstring(svg)
    assert "var(--" not in svg
    assert PRINT.glass[1] in svg
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1320, 760)


def test_without_accuracies_there_is_nothing_to_compare(full_run, tmp_path):
    full_run.evaluation.unlink()
    with pytest.raises(RunError, match="no accuracy is known"):
        write_pareto([full_run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_references_in_csv_and_yaml(tmp_path):
    (table := tmp_path / "r.csv").write_text("label,accuracy,latency_ms,source\nEdgeViT-XXS,75,32.8,arXiv\nA,0.5,,\n")
    (words := tmp_path / "r.yaml").write_text(
        "- {label: EdgeViT-XXS, accuracy: 0.75, latency_ms: 32.8, source: arXiv}\n"
    )
    first, second = read_references(table)
    assert first == read_references(words)[0]
    assert first == Reference(label="EdgeViT-XXS", accuracy=0.75, latency_ms=32.8, source="arXiv")
    assert (second.latency_ms, second.energy_mj) == (None, None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.csv", "label,accuracy,speed\na,1,2\n", "has 'speed'; known are"),
        ("r.csv", "label,accuracy\n,0.5\n", "row 1 needs a label and an accuracy"),
        ("r.csv", "label,accuracy\na,fast\n", "accuracy='fast' is no positive number up to 100"),
        ("r.csv", "label,accuracy,size_mb\na,50,-2\n", "size_mb='-2' is no positive number"),
        ("r.yaml", "label: x\n", "are no list of rows"),
        ("r.yaml", "- [", "is not YAML"),
        ("r.csv", b"label,accuracy\n\xff,1\n", "cannot be read"),
        ("none.csv", None, "cannot be read: No such file"),
    ],
)
def test_bad_references(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        read_references(tmp_path / name)
