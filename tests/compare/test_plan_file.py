"""A comparison's file: what it means, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vitrail.compare import job_list, read_plan, shard_of
from vitrail.compare.plan_file import Cell
from vitrail.core.errors import ConfigError
from vitrail.models import create_model

EXAMPLES = Path(__file__).parents[2] / "examples" / "compare"


def test_a_grid_is_every_combination(values: dict[str, Any], tmp_path: Path) -> None:
    values["cells"][1]["grid"] = {"mlp_ratio": [2.0, 4.0], "head_dim": [4, 8]}
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    plan = read_plan(file)
    assert [cell.name for cell in plan.cells] == [
        "narrow_1",
        *(f"wide, mlp_ratio={ratio}, head_dim={dim}" for ratio in (2.0, 4.0) for dim in (4, 8)),
    ]
    assert plan.config(plan.cells[3], 1).model_fields["mlp_ratio"] == 4.0
    assert plan.config(plan.cells[3], 1).model_fields["embed_dims"] == [8, 16]
    assert plan.config(plan.cells[0], 1).seed == 1
    assert plan.reference.name == "narrow_1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [1]}, "did you mean seeds"),
        ({"training": {"epoch": 3}}, "did you mean epochs"),
        ({"training": {"seed": 3}}, "belongs to cells and seeds"),
        ({"training": {"epochs": 0}}, "at least 1"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"seeds": []}, "different numbers"),
        ({"baseline": "none"}, "is no cell"),
        ({"cells": [{"name": "a", "model": "vit_nano_patch4"}]}, "at least 2"),
        ({"cells": [{"name": "A b", "model": "x"}, {"name": "a-B", "model": "y"}]}, "same name"),
        ({"cells": [{"name": "a", "model": "x", "field": {}}]}, "did you mean fields"),
        ({"cells": "all"}, "no list 'cells'"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str, values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(values | change), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_plan(file)


def test_shares_are_the_whole_without_overlap(plan_file: Path) -> None:
    jobs = job_list(read_plan(plan_file))
    assert [(cell.name, seed) for cell, seed in jobs] == [("narrow_1", 0), ("wide", 0), ("narrow_1", 1), ("wide", 1)]
    for count in (1, 2, 3, 7):
        shares = [shard_of(jobs, f"{index}/{count}") for index in range(1, count + 1)]
        together = [(cell.name, seed) for share in shares for cell, seed in share]
        assert sorted(together) == sorted((cell.name, seed) for cell, seed in jobs)
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(ConfigError, match="i/n"):
            shard_of(jobs, wrong)


def test_the_documented_file_is_one(tmp_path: Path) -> None:
    page = (EXAMPLES.parents[1] / "docs" / "comparing.md").read_text(encoding="utf-8")
    (tmp_path / "documented.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    plan = read_plan(tmp_path / "documented.yaml")
    assert [entry.name for entry in plan.entries[4:7]] == ["wide", "wide, W8A8", "wide, W4A8"]
    assert plan.quantization[2].quantization.average_bits == 5
    assert plan.quantization[1].num_images == 128


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_example_builds(file: Path) -> None:
    """Names and fields are those of real models, and all cells of a file take the same image."""
    plan = read_plan(file)
    for cell in plan.cells:
        config = plan.config(cell, 0)
        fields = {name: tuple(v) if isinstance(v, list) else v for name, v in config.model_fields.items()}
        model = create_model(config.model, 10, image_size=config.image_size, **fields)
        assert model.num_classes == 10


def test_a_cell_has_its_own_teacher(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(
        "training: {epochs: 1, distill: {teacher: runs/a}}\n"
        "cells:\n  - {name: common, model: edgevit_xxs}\n"
        "  - {name: own, model: edgevit_xxs, distill: {teacher: runs/b, teach: [features]}}\n"
    )
    plan = read_plan(file)
    common, own = (plan.config(cell, 0).distill for cell in plan.cells)
    assert (common.teacher, common.teach) == ("runs/a", ())
    assert (own.teacher, own.teach) == ("runs/b", ("features",))
    file.write_text(file.read_text().replace("[features]", "[nothing]"))
    with pytest.raises(ConfigError, match="teach"):
        read_plan(file)


def test_a_grid_of_too_many_combinations_is_refused_before_they_are_made() -> None:
    grid = {f"field_{number}": list(range(10)) for number in range(30)}
    with pytest.raises(ConfigError, match=rf"cell 'a': its grid has {10**30} combinations, more than 1000"):
        Cell(name="a", model="vit_nano_patch8", grid=grid).expand()
