"""Quantised models as rows of a comparison, on models of a few thousand parameters."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from vitrail.bench import BenchConfig, Energy
from vitrail.compare import ComparePlan, Comparison, Entry, collect, job_list, read_plan, run_cell, write_comparison
from vitrail.compare.execute import cell_run, entry_run
from vitrail.compare.outcome import read_outcome
from vitrail.compare.page import figure_data
from vitrail.compare.plan_file import NamedQuantization
from vitrail.compare.tables import columns, csv_table, rows
from vitrail.core.errors import RunError, VitrailError
from vitrail.data import eval_loader
from vitrail.evaluation import mcnemar_exact
from vitrail.figures.comparison import comparison_figure
from vitrail.quantization import QuantizationPlan, quantize
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task
from vitrail.runs.run import Run

WAYS = [
    {"name": "min-max 8", "preset": "min_max", "num_images": 6},
    {"name": "W4A4", "preset": "mptq", "weight_bits": 4, "activation_bits": 4, "num_images": 6},
]

ONE_BLOCK = {
    "name": "narrow_1",
    "model": "vit_nano_patch4",
    "fields": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 1},
}

FAST = BenchConfig(runtimes=("torch", "onnxruntime"), min_runs=2, min_seconds=0, warmup_runs=1, memory=False)


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, images: Path, tiny_values: dict[str, Any]
) -> tuple[ComparePlan, Path]:
    """One model, two seeds, two ways; what tests change they copy."""
    folder = tmp_path_factory.mktemp("finished")
    values = tiny_values | {"quantization": WAYS, "runtimes": ["onnxruntime"]}
    values |= {"cells": [ONE_BLOCK], "robustness": False, "collapse": False}
    (folder / "plan.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    plan = read_plan(folder / "plan.yaml")
    for job in job_list(plan):
        assert run_cell(plan, folder / "out", job)
    return plan, folder / "out"


@pytest.fixture(scope="module")
def comparison(finished: tuple[ComparePlan, Path]) -> Comparison:
    return collect(*finished, FAST)


def normalised(run: Run) -> tuple[torch.Tensor, np.ndarray]:
    preprocessing = run.read().preprocessing
    (batch,) = eval_loader(load_run_data(run).held_out, preprocessing, batch_size=64)
    return preprocessing.normalize(batch.images), batch.targets.numpy()


def test_every_way_is_a_row_and_its_score_is_of_what_runs(
    finished: tuple[ComparePlan, Path], comparison: Comparison
) -> None:
    """The file in ONNX Runtime where it executes the codes; else the plan in PyTorch, and the row says so."""
    plan, folder = finished
    as_trained, executed, simulated = comparison.cells
    assert [cell.name for cell in comparison.cells] == ["narrow_1", "narrow_1, min-max 8", "narrow_1, W4A4"]
    assert [cell.computed_by for cell in comparison.cells] == ["torch", "onnxruntime", "simulated"]
    for seed in plan.seeds:
        of_file, of_plan = (entry_run(folder, entry, seed) for entry in plan.entries[1:])
        images, labels = normalised(of_file)
        session = onnxruntime.InferenceSession(of_file.onnx("int8"), providers=["CPUExecutionProvider"])
        logits = session.run(None, {"image": images.numpy()})[0]
        assert executed.scores[seed] == pytest.approx((logits.argmax(1) == labels).mean())
        with np.load(of_file.predictions) as kept:
            assert np.allclose(kept["logits"], logits, atol=1e-4)
            assert not np.allclose(kept["logits"], load_task(of_file)(images).detach().numpy(), atol=1e-4)

        assert not of_plan.onnx("int8").exists()
        assert not of_file.onnx("float").exists()  # that is the trained run's
        model = quantize(load_task(of_plan), images, plan=QuantizationPlan.load(of_plan.quantization))
        with torch.inference_mode(), np.load(of_plan.predictions) as kept:
            assert np.allclose(kept["logits"], model(images).numpy(), atol=1e-4)
    assert (executed.weight_bits, executed.activation_bits) == (8, 8)
    assert simulated.weight_bits == simulated.activation_bits == 4
    assert as_trained.quantization is None


def test_costs_and_fronts_are_only_of_what_exists(finished: tuple[ComparePlan, Path], comparison: Comparison) -> None:
    plan, folder = finished
    as_trained, executed, simulated = comparison.cells
    file = entry_run(folder, plan.entries[1], 0).onnx("int8")
    assert executed.size_bytes == file.stat().st_size
    assert as_trained.size_bytes == cell_run(folder, plan.cells[0], 0).onnx("float").stat().st_size
    assert simulated.size_bytes is None
    assert [row.runtime for row in as_trained.measurements] == ["torch", "onnxruntime"]
    assert [row.runtime for row in executed.measurements] == ["onnxruntime"]
    assert executed.measurements[0].latency_ms_median is not None
    assert simulated.measurements == ()
    for cost, front in comparison.fronts.items():
        assert front, cost
        assert simulated.name not in front
    assert comparison.fronts["params"] == (as_trained.name,)
    assert comparison.fronts["cpu_ms torch"] == (as_trained.name,)


def test_what_one_seed_only_simulates_is_called_simulated(finished: tuple[ComparePlan, Path], tmp_path: Path) -> None:
    """A mean of executed and simulated scores would be neither."""
    plan, folder = finished
    shutil.copytree(folder, tmp_path / "out")
    executed, simulated = (entry_run(tmp_path / "out", entry, 1) for entry in plan.entries[1:])
    shutil.copy(simulated.quantization, executed.quantization)
    comparison = collect(plan, tmp_path / "out", replace(FAST, runtimes=("onnxruntime",)))
    assert comparison.cells[1].computed_by == "simulated"
    assert comparison.cells[1].size_bytes is None
    assert comparison.cells[1].measurements == ()


def test_differences_are_to_the_float_model_and_to_the_baseline(
    finished: tuple[ComparePlan, Path], comparison: Comparison
) -> None:
    plan, folder = finished
    as_trained, *quantized = comparison.cells
    assert as_trained.difference is None
    assert as_trained.float_difference is None
    for entry, cell in zip(plan.entries[1:], quantized, strict=True):
        assert cell.float_difference is not None
        assert cell.float_difference == cell.difference
        assert cell.float_difference.to == "narrow_1"
        assert cell.float_difference.interval.mean == pytest.approx(np.mean(cell.scores) - np.mean(as_trained.scores))
        for seed, p in zip(plan.seeds, cell.float_difference.p_values, strict=True):
            pair = (read_outcome(entry_run(folder, e, seed)).values > 0.5 for e in (entry, plan.entries[0]))
            assert p == mcnemar_exact(*pair)

    other = collect(replace(plan, baseline="narrow_1, W4A4"), folder, replace(FAST, runtimes=("onnxruntime",)))
    first, second, third = other.cells
    assert third.difference is None
    assert third.float_difference is not None
    assert first.difference is not None
    assert first.difference.to == third.name
    assert second.difference is not None
    assert second.difference.interval.mean == pytest.approx(np.mean(second.scores) - np.mean(third.scores))


def test_a_finished_one_is_not_done_again_and_one_of_old_weights_is(
    finished: tuple[ComparePlan, Path], tmp_path: Path
) -> None:
    plan, folder = finished
    shutil.copytree(folder, tmp_path / "out")
    folder, job = tmp_path / "out", job_list(plan)[0]
    executed, simulated = (entry_run(folder, entry, 0) for entry in plan.entries[1:])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert not run_cell(plan, folder, job)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before

    executed.predictions.unlink()  # interrupted after the export: neither calibrated nor exported again
    kept = [path.stat().st_mtime_ns for path in (executed.quantization, executed.onnx("int8"))]
    assert run_cell(plan, folder, job)
    assert executed.predictions.exists()
    assert [path.stat().st_mtime_ns for path in (executed.quantization, executed.onnx("int8"))] == kept

    simulated.weights.write_bytes(b"of an earlier training")
    assert run_cell(plan, folder, job)
    assert simulated.weights.read_bytes() == cell_run(folder, plan.cells[0], 0).weights.read_bytes()
    assert simulated.quantization.stat().st_mtime_ns > before[simulated.quantization]
    assert executed.quantization.stat().st_mtime_ns == kept[0]

    fewer = replace(plan.quantization[0], num_images=5)
    with pytest.raises(RunError, match="num_images 6 -> 5"):
        run_cell(replace(plan, quantization=(fewer,)), folder, job)

    simulated.predictions.unlink()
    partial = collect(plan, folder, replace(FAST, runtimes=("onnxruntime",)))
    assert (partial.seeds, partial.missing) == ((1,), 1)


def test_tables_and_page_name_what_is_simulated(comparison: Comparison, tmp_path: Path) -> None:
    head, (_, executed, simulated) = columns(comparison), rows(comparison)
    assert executed[head.index("computed by")] == "ONNX Runtime"
    assert simulated[head.index("computed by")] == "simulated"
    assert simulated[head.index("bits W/A")] == "4/4"
    assert simulated[head.index("file MB")] == simulated[head.index("CPU ms, onnxruntime")] == "–"
    assert executed[head.index("CPU ms, torch")] == "–"
    assert " ± " in executed[head.index("top-1 (%)")]
    assert "McNemar p to float" in head
    labels = [label.get_text() for label in comparison_figure(*figure_data(comparison)).axes[0].get_yticklabels()]
    assert labels[2] == "narrow_1, W4A4 (simulated)"

    paths = write_comparison(comparison, tmp_path)
    tex, html = (path.read_text(encoding="utf-8") for path in paths[2:4])
    assert r"narrow\_1, W4A4 (simulated) & " in tex
    assert "no runtime executes" in html
    assert "weight_bits: 4" in html
    table = list(csv.DictReader(io.StringIO(paths[1].read_text(encoding="utf-8"))))
    assert [row["quantization"] for row in table] == ["", "", *["min-max 8"] * 2, *["W4A4"] * 2]
    assert [row["computed_by"] for row in table[::2]] == ["torch", "onnxruntime", "simulated"]
    assert float(table[2]["latency_ms_onnxruntime"]) > 0
    assert table[4]["latency_ms_onnxruntime"] == table[4]["size_bytes"] == table[2]["latency_ms_torch"] == ""


def test_energy_is_a_column_where_any_row_has_it(comparison: Comparison) -> None:
    assert not any("energy" in name for name in columns(comparison))
    energy = Energy(source="estimated", reads="made up", energy_mj=12.3456)
    executed = comparison.cells[1]
    measured = tuple(replace(row, energy=energy) for row in executed.measurements)
    changed = replace(comparison, cells=(comparison.cells[0], replace(executed, measurements=measured)))
    place = columns(changed).index("energy mJ, onnxruntime (estimated)")
    assert [row[place] for row in rows(changed)] == ["–", "12.3"]
    table = list(csv.DictReader(io.StringIO(csv_table(changed))))
    assert [row["energy_mj_onnxruntime"] for row in table] == ["", "", "12.3456", "12.3456"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization": "fast"}, "is no list"),
        ({"quantization": [{"preset": "fast"}]}, "no table with a name"),
        (
            {"quantization": [{"name": "a", "preset": "fastest"}]},
            "preset='fastest' is not allowed; choose min_max, mptq, fast or best",
        ),
        ({"quantization": [{"name": "a", "weight_bit": 4}]}, "did you mean quantization.weight_bits"),
        ({"quantization": [{"name": "a", "weight_bits": 1}]}, "weight_bits=1 is not supported"),
        ({"quantization": [{"name": "a", "num_images": 0}]}, "num_images=0 is below 1"),
        ({"quantization": [{"name": "W 8"}, {"name": "w-8"}]}, "quantization W 8, w-8 have the same name"),
        (
            {
                "cells": [{"name": "a", "model": "vit_nano_patch4"}, {"name": "a, b", "model": "vit_nano_patch4"}],
                "quantization": [{"name": "b"}],
            },
            "'a, b' is both a cell and a quantised form",
        ),
        ({"quantization": [{"name": "a"}], "runtimes": ["torch"]}, "none runs quantised files"),
        ({"quantization": [{"name": "a"}], "baseline": "wide, b"}, "is no cell"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str, values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(values | {"runtimes": ["onnxruntime"]} | change), encoding="utf-8")
    with pytest.raises(VitrailError, match=message):
        read_plan(file)


def test_one_model_is_enough_where_it_is_quantised(values: dict[str, Any], tmp_path: Path) -> None:
    values |= {"cells": values["cells"][1:], "quantization": WAYS, "runtimes": ["torch", "openvino"]}
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(values | {"baseline": "wide, W4A4"}), encoding="utf-8")
    plan = read_plan(file)
    assert plan.reference == Entry(cell=plan.cells[0], quantization=plan.quantization[1])
    assert plan.quantization[1].quantization.activation_bits == 4
    assert [entry.name for entry in plan.entries] == ["wide", "wide, min-max 8", "wide, W4A4"]


def test_a_way_takes_the_names_of_the_command_line() -> None:
    short = NamedQuantization.from_file({"name": "a", "bits": 4, "calibration": 16, "average_bits": 5})
    assert short == NamedQuantization.from_file({"name": "a", "weight_bits": 4, "num_images": 16, "average_bits": 5})
    assert (short.quantization.weight_bits, short.num_images) == (4, 16)
    with pytest.raises(VitrailError, match="bits and weight_bits are one setting; give it once"):
        NamedQuantization.from_file({"name": "a", "bits": 4, "weight_bits": 8})
