"""A comparison of models that give every pixel a class: one score of all images together, and no test by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from vitrail.bench import BenchConfig
from vitrail.compare import collect, job_list, read_plan, run_cell, write_comparison
from vitrail.compare.execute import entry_run
from vitrail.compare.tables import columns, rows
from vitrail.core.errors import ConfigError, RunError
from vitrail.core.files import read_json, write_json
from vitrail.evaluation import evaluate_task
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task

FAST = BenchConfig(runtimes=("torch",), min_runs=2, min_seconds=0, warmup_runs=1, memory=False)

TINY = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 1}


@pytest.fixture(scope="module")
def dense_values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Dark above, bright below; two models that shall find the border."""
    folder = tmp_path_factory.mktemp("masks")
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for name in ("images", "masks"):
            (folder / part / name).mkdir(parents=True)
        for index in range(count):
            mask = np.zeros((32, 32), np.uint8)
            mask[random.integers(8, 24) :] = 1
            pixels = np.repeat((60 + 120 * mask)[..., None], 3, 2) + random.integers(0, 40, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / part / "images" / f"{index}.png")
            Image.fromarray(mask).save(folder / part / "masks" / f"{index}.png")
    (folder / "classes.txt").write_text("dark\nbright\n")
    return {
        "cells": [
            {"name": "small", "model": "vit_nano_patch4", "fields": TINY},
            {"name": "wide", "model": "vit_nano_patch4", "fields": TINY | {"mlp_ratio": 6.0}},
        ],
        "quantization": [{"name": "W8A4", "preset": "min_max", "activation_bits": 4, "num_images": 4}],
        "runtimes": ["onnxruntime"],
        "seeds": [0, 1],
        "training": {
            "task": "segmentation",
            "options": {"width": 16},
            "data": {"path": str(folder)},
            "image_size": 32,
            "epochs": 1,
            "batch_size": 3,
            "num_workers": 0,
            "ema_decay": 0.0,
        },
    }


@pytest.mark.slow
def test_segmentation_is_compared_by_its_own_score(dense_values: dict[str, Any], tmp_path: Path) -> None:
    dense_values = dense_values | {"cells": dense_values["cells"][:1]}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(dense_values), encoding="utf-8")
    plan, folder = read_plan(tmp_path / "plan.yaml"), tmp_path / "out"
    for job in job_list(plan):
        assert run_cell(plan, folder, job)
        assert not run_cell(plan, folder, job)
    comparison = collect(plan, folder, FAST)
    assert (comparison.score.name, comparison.per_image, comparison.num_images) == ("miou", False, 3)
    small, quantized = comparison.cells
    assert quantized.computed_by == "simulated"
    for seed in plan.seeds:
        run = entry_run(folder, plan.entries[0], seed)
        preprocessing = run.read().preprocessing
        report = evaluate_task(load_task(run), load_run_data(run).held_out, preprocessing)
        assert small.scores[seed] == pytest.approx(report["miou"])
    assert quantized.scores != small.scores
    assert quantized.difference is not None
    assert quantized.difference.p_values == ()
    # Over two seeds alone, the interval can only lie between the two differences.
    ends = sorted(a - b for a, b in zip(quantized.scores, small.scores, strict=True))
    assert (quantized.difference.interval.low, quantized.difference.interval.high) == pytest.approx(ends)

    head = columns(comparison)
    assert "mIoU (%)" in head
    assert not any("McNemar" in name for name in head)
    assert rows(comparison)[0][head.index("mIoU (%)")] == (
        f"{100 * np.mean(small.scores):.1f} ± {100 * np.std(small.scores, ddof=1):.1f}"
    )
    one_seed = collect(replace(plan, seeds=(1,)), folder, FAST)
    assert "[" not in rows(one_seed)[1][head.index("difference (points)")]  # nothing to resample
    page = write_comparison(comparison, folder)[3].read_text(encoding="utf-8")
    assert "is over seeds alone" in page
    assert "McNemar" not in page

    scores = entry_run(folder, plan.entries[0], 1).scores
    write_json(scores, read_json(scores) | {"names": ["another.png"]})
    with pytest.raises(RunError, match="small was tested on other images"):
        collect(plan, folder, FAST)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"robustness": True}, "robustness is measured of classifiers, not of segmentation"),
        ({"training": {"task": "generation"}}, "task 'generation' cannot be compared"),
    ],
)
def test_what_a_task_cannot_do_is_named(
    change: dict[str, Any], message: str, dense_values: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(dense_values | change), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_plan(file)
