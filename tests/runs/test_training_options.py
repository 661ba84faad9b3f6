"""Runs that deviate from the plain training: frozen parts, early stops, joined steps, weighted classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.training import TrainConfig


@pytest.fixture(scope="module")
def trained(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(replace(config, epochs=1), run=tmp_path_factory.mktemp("runs") / "plain", progress=False)


def test_a_frozen_backbone_is_kept_bit_for_bit(trained: Run, config: TrainConfig, tmp_path: Path) -> None:
    frozen = replace(config, freeze="backbone", weights=str(trained.folder), weight_decay=0.5, epochs=2)
    run = train(frozen, run=tmp_path / "run", progress=False)
    before, after = load_file(trained.weights), load_file(run.weights)
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"backbone.head.weight", "backbone.head.bias"}
    assert load_task(run)


def test_the_opening_line_says_how_much_is_trained(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(config, freeze="backbone", epochs=1), run=tmp_path / "run", progress=True)
    told = capsys.readouterr().err
    assert "parameters (34 trained)" in told
    assert "Warning: --freeze backbone freezes random weights" in told
