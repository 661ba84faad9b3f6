"""The model of a training that names none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitrail.core.errors import CheckpointError, ConfigError
from vitrail.models import FAMILIES, starting_point
from vitrail.models.complexity import variant_complexity
from vitrail.models.starting_point import find_starting_point


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Repositories in the hub's cache; nothing else can be had."""
    repositories: set[str] = set()

    def look(hub_id: str, file: str, revision: str) -> str | None:
        return file if hub_id in repositories else None

    def fetch(hub_id: str, *_: object) -> Path:
        raise CheckpointError(f"cannot download {hub_id}: no network")

    monkeypatch.setattr(starting_point, "try_to_load_from_cache", look)
    monkeypatch.setattr(starting_point, "fetch_from_hub", fetch)
    return repositories


def test_weights_in_the_cache_come_first_and_of_these_the_smallest(cached: set[str]) -> None:
    family = FAMILIES["vit"]
    names = [name for name in family.weights if name in ("vit_tiny_patch16", "vit_base_patch16")]
    cached |= {family.weights[name][0].hub_id for name in names}
    found = find_starting_point()
    tag = family.weights["vit_tiny_patch16"][0].tag
    assert (found.model, found.weights) == ("vit_tiny_patch16", f"pretrained:{tag}")
    assert "in the cache" in found.sentence


def test_else_the_smallest_is_downloaded(cached: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(starting_point, "fetch_from_hub", lambda hub_id, *_: asked.append(hub_id))
    found = find_starting_point()
    public = {name: entries[0] for family in FAMILIES.values() for name, entries in family.weights.items()}
    smallest = min(public, key=lambda name: variant_complexity(name).params)
    assert found.model == smallest
    assert asked == [public[smallest].hub_id]


def test_without_weights_the_fallback_is_loud(cached: set[str]) -> None:
    found = find_starting_point()
    assert (found.model, found.weights) == ("edgevit_xxs", None)
    assert found.sentence.startswith("WARNING")
    assert "no network" in found.sentence


def test_weights_that_were_asked_for_are_not_replaced(cached: set[str]) -> None:
    with pytest.raises(CheckpointError, match="no network"):
        find_starting_point("pretrained")
    with pytest.raises(CheckpointError, match="no model has public weights with the tag 'nonsense'"):
        find_starting_point("pretrained:nonsense")


def test_a_run_tells_its_model_and_a_file_does_not(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"model": {"name": "poolformer_nano", "fields": {}}}))
    (tmp_path / "model.safetensors").touch()
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        assert find_starting_point(str(weights)).model == "poolformer_nano"
    (tmp_path / "elsewhere").mkdir()
    for weights in (str(tmp_path / "elsewhere" / "w.pth"), "https://host/w.pth"):
        with pytest.raises(ConfigError, match="do not tell which model they are of; give --model too"):
            find_starting_point(weights)
