from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vitrail.core.errors import RunError
from vitrail.evaluation import RobustnessConfig, robustness_table
from vitrail.runs.robustness import measure_run_robustness, read_robustness, robustness_by_recipe
from vitrail.runs.run import Run


def test_a_run_keeps_its_robustness(old_run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--robustness"):
        read_robustness(old_run)
    written = measure_run_robustness(old_run, RobustnessConfig(groups=("translation", "scale"), num_images=12))
    assert read_robustness(old_run) == written
    assert {path.name for path in old_run.figures.iterdir()} == {"robustness-translation.png", "robustness-scale.png"}
    head, rows = robustness_table({"one": [written], "two": [written, written]}, "top1")
    assert head == ["run", "untouched", "translation", "scale"]
    assert rows[0][1] == pytest.approx(rows[1][1])
    assert rows[0][1][0] == written["clean_top1"]
    assert robustness_table({"one": [written]}, "consistency")[0][-1] == "diagonal pairs"

    other = Run(shutil.copytree(old_run.folder, tmp_path / "seed-1"))
    other.update(training=old_run.read().training.to_dict() | {"seed": 1})
    assert robustness_by_recipe([old_run, other]) == {old_run.folder.name: [written, written]}
    other.update(training=old_run.read().training.to_dict() | {"epochs": 9})
    assert list(robustness_by_recipe([old_run, other])) == [old_run.folder.name, other.folder.parent.name]
