"""docs/adding-a-model.md, followed step by step: the page's own code becomes a family."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from docs.blocks import ROOT, code_blocks

import vitrail.models
from vitrail.cli.options import effective_config
from vitrail.models import FAMILIES, Family, create_model
from vitrail.training import TrainConfig

PAGE = "docs/adding-a-model.md"
OWN, FILE, *STEPS = code_blocks(PAGE, "python")
(SETTINGS,) = code_blocks(PAGE, "yaml")


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    """Steps 1 and 2: the file lies among the others (in a folder of its own), the registry has one more line."""
    (tmp_path / "meanformer.py").write_text(FILE.code)
    monkeypatch.setattr(vitrail.models, "__path__", [*vitrail.models.__path__, str(tmp_path)])
    module = importlib.import_module("vitrail.models.meanformer")
    monkeypatch.setitem(FAMILIES, module.FAMILY.name, module.FAMILY)
    yield module.FAMILY
    sys.modules.pop("vitrail.models.meanformer")
    monkeypatch.delattr(vitrail.models, "meanformer", raising=False)


def test_the_steps_of_the_page_work(family: Family) -> None:
    names: dict[str, object] = {}
    for step in STEPS:
        exec(compile(step.code, f"{PAGE}:{step.line}", "exec"), names)


def test_a_file_of_ones_own_needs_no_change(own_code: Path) -> None:
    (own_code / "my_models.py").write_text(OWN.code)
    (own_code / "mine.yaml").write_text(SETTINGS.code)
    config = effective_config(TrainConfig(), own_code / "mine.yaml", {})
    assert config.model_fields == {"token_mixer": "MeanOfRows"}
    model = create_model(config.model, num_classes=2, **config.model_fields)
    assert model(torch.zeros(1, 3, 48, 48)).shape == (1, 2)


def test_the_new_family_learns_and_keeps_its_promises(family: Family) -> None:
    for name in family.variants:
        model = create_model(name, num_classes=4, drop_path_rate=0.1).train()
        images, targets = torch.randn(4, 3, *model.config.image_size), torch.arange(4)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        losses = []
        for _ in range(10):
            loss = torch.nn.functional.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]
        assert type(model)(model.config).state_dict().keys() == model.state_dict().keys()


def test_the_registry_is_still_one_dictionary() -> None:
    registry = (ROOT / "src/vitrail/models/registry.py").read_text()
    assert len(re.findall(r"^from vitrail\.models import ", registry, re.MULTILINE)) == 1
    assert len(re.findall(r"^FAMILIES: dict\[str, Family\] = \{", registry, re.MULTILINE)) == 1


def test_the_files_that_the_page_points_to_exist() -> None:
    text = (ROOT / PAGE).read_text()
    paths = re.findall(r"`((?:src|tests|docs)/[\w./-]+)`", text)
    missing = [path for path in paths if not (ROOT / path).exists() and "meanformer" not in path]
    assert not missing
