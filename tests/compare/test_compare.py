"""The whole way of a comparison, on models of a few thousand parameters."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vitrail.bench import BenchConfig
from vitrail.cli.main import main
from vitrail.compare import CellResult, Comparison, collect, job_list, read_plan, run_cell, write_comparison
from vitrail.compare.collect import Difference
from vitrail.compare.execute import cell_run
from vitrail.compare.page import figure_data
from vitrail.compare.tables import spread
from vitrail.core.errors import RunError
from vitrail.core.files import read_json
from vitrail.evaluation import Interval
from vitrail.figures.comparison import comparison_figure
from vitrail.tasks import Score


@pytest.fixture
def comparison_of_three() -> Comparison:
    """Made up: the second and third are 5 points better than the first."""
    first = CellResult(
        name="a",
        model="m",
        fields={},
        params=10,
        macs=20,
        scores=(0.5, 0.6),
        interval=Interval(mean=0.55, low=0.5, high=0.6),
        train_seconds=1.0,
    )
    difference = Difference(to="a", interval=Interval(mean=0.05, low=-0.05, high=0.15))
    return Comparison(
        question="",
        baseline="a",
        training={},
        score=Score(name="top1", title="top-1"),
        per_image=True,
        seeds=(0, 1),
        missing=0,
        num_images=10,
        runtimes=(),
        cells=(first, *(replace(first, name=name, difference=difference) for name in "bc")),
        fronts={},
        place={},
    )


FAST = BenchConfig(runtimes=("torch",), min_runs=2, min_seconds=0, warmup_runs=1, memory=False)


def test_from_file_to_tables(plan_file: Path, values: dict[str, Any], tmp_path: Path) -> None:
    plan, folder = read_plan(plan_file), tmp_path / "out"
    with pytest.raises(RunError, match="4 runs are missing"):
        collect(plan, folder, FAST)
    jobs = job_list(plan)
    assert [run_cell(plan, folder, job) for job in jobs[:3]] == [True] * 3
    partial = collect(plan, folder, FAST)
    assert (partial.seeds, partial.missing) == ((0,), 1)
    assert [run_cell(plan, folder, job) for job in jobs] == [False, False, False, True]

    comparison = collect(plan, folder, FAST)
    assert (comparison.seeds, comparison.missing, comparison.num_images) == ((0, 1), 0, 12)
    for cell, of_plan in zip(comparison.cells, plan.cells, strict=True):
        for index, seed in enumerate(plan.seeds):
            run = cell_run(folder, of_plan, seed)
            with np.load(run.predictions) as arrays:
                assert cell.scores[index] == pytest.approx((arrays["logits"].argmax(1) == arrays["labels"]).mean())
            summary = read_json(run.robustness)["summary"]["translation"]
            assert cell.consistency[index] == summary["consistency"]
        assert cell.interval.low <= np.mean(cell.scores) <= cell.interval.high
        assert all(-1 <= value <= 1 for value in cell.collapse)
    narrow, wide = comparison.cells
    assert narrow.difference is None
    assert wide.difference is not None
    assert wide.difference.interval.mean == pytest.approx(np.mean(wide.scores) - np.mean(narrow.scores))
    assert wide.params > narrow.params
    assert set(comparison.fronts) == {"params", "macs", "cpu_ms torch"}
    assert narrow.name in comparison.fronts["params"]

    paths = write_comparison(comparison, folder)
    assert [path.suffix for path in paths] == [".json", ".csv", ".tex", ".html", ".png"]
    rows = list(csv.DictReader(io.StringIO(paths[1].read_text(encoding="utf-8"))))
    assert [(row["cell"], row["seed"]) for row in rows] == [(c.name, str(s)) for c in plan.cells for s in plan.seeds]
    assert float(rows[2]["top1"]) == pytest.approx(wide.scores[0])
    tex, html = (path.read_text(encoding="utf-8") for path in paths[2:4])
    assert r"narrow\_1 & " in tex
    assert "Is wider &lt;better&gt; &amp; 100 % so?" in html
    assert "<better>" not in html
    assert "<script" not in html

    values["training"]["epochs"] = 2
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(RunError, match="epochs 1 -> 2"):
        run_cell(read_plan(changed), folder, jobs[0])


def test_the_figure_shows_every_seed(comparison_of_three: Comparison) -> None:
    left, right = comparison_figure(*figure_data(comparison_of_three)).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b", "c"]
    dots = [line.get_xdata() for line in left.lines if len(line.get_xdata()) == 2]
    assert [list(values) for values in dots] == [[50.0, 60.0]] * 3
    ends = [
        tuple(line.get_xdata()) for line in right.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"
    ]
    assert ends == [(-5.0, 15.0)] * 2


def test_a_share_trains_and_does_not_compare(plan_file: Path, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "out"
    assert main(["compare", str(plan_file), "--out", str(folder), "--shard", "4/4"]) == 0
    assert "1/1 wide, seed 1: done" in capsys.readouterr().out
    assert (folder / "wide" / "seed-1" / "model.safetensors").exists()
    assert not (folder / "comparison.json").exists()
    assert main(["compare", str(plan_file), "--out", str(folder), "--shard", "5/4"]) == 2


def test_robustness_of_runs_side_by_side(plan_file: Path, tmp_path: Path, capsys: Any) -> None:
    """Two seeds of one recipe are one row; another model is a row of its own."""
    folder = tmp_path / "out"
    plan = read_plan(plan_file)
    for job in job_list(plan)[:3]:
        run_cell(plan, folder, job)
    runs = [str(folder / name) for name in ("narrow-1/seed-0", "narrow-1/seed-1", "wide/seed-0")]
    capsys.readouterr()
    assert main(["evaluate", *runs, "--robustness", "--groups", "scale", "resolution", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {name: len(several) for name, several in shown.items()} == {"narrow-1": 2, "wide": 1}
    assert shown["wide"][0] == read_json(folder / "wide" / "seed-0" / "robustness.json")
    assert (folder / "wide" / "seed-0" / "figures" / "robustness-scale.png").exists()
    assert main(["evaluate", *runs]) == 2
    assert main(["evaluate", runs[0], "--robustness", "--groups", "fog"]) == 2
    assert '--groups: "fog" is not one of translation' in capsys.readouterr().err


def test_a_spread_of_one_seed_has_no_deviation() -> None:
    assert spread([0.5], 100, 1) == "50.0"
    assert spread([0.4, 0.6], 100, 1) == "50.0 ± 14.1"
