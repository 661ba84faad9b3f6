"""An interrupted training goes on where its images lie now, on the devices that are there now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vitrail import DataConfig
from vitrail.core.errors import RunError
from vitrail.runs.folder import check_folder
from vitrail.runs.run import Run
from vitrail.training import ResolvedConfig

STARTED = ResolvedConfig(data=DataConfig(path="/srv/a/photos"), devices=2, accelerator="gpu", strategy="ddp")


@pytest.fixture
def interrupted(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.update(
        model={"name": STARTED.model, "fields": {}},
        task=STARTED.task,
        classes=["a", "b"],
        training=STARTED.to_dict(),
        versions={"vitrail": "0.2.0"},
        status="training",
    )
    return run


@pytest.mark.parametrize(
    "change",
    [
        {"data": replace(STARTED.data, path="/srv/photos")},
        {"data": replace(STARTED.data, max_bad_fraction=0.5)},
        {"devices": 1, "accelerator": "cpu", "strategy": "auto"},
        {"num_nodes": 2},
        {"num_workers": 8},
    ],
)
def test_other_places_and_devices_are_legal(change: dict[str, Any], interrupted: Run) -> None:
    check_folder(interrupted, replace(STARTED, **change), resume=True, overwrite=False)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": replace(STARTED.data, path="/srv/photos", seed=3)}, "data.seed 0 -> 3"),
        ({"devices": 1, "batch_size": 8}, "batch_size 64 -> 8"),
    ],
)
def test_other_settings_are_not(change: dict[str, Any], told: str, interrupted: Run) -> None:
    with pytest.raises(RunError) as caught:
        check_folder(interrupted, replace(STARTED, **change), resume=True, overwrite=False)
    assert f"was started with other settings: {told};" in str(caught.value)
