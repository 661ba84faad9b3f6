"""Preprocessing and network go with the weights: of a run, of the table of public weights, of timm's repositories."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from vitrail import create_model, load_checkpoint
from vitrail.core.errors import CheckpointError
from vitrail.core.types import Preprocessing
from vitrail.models import FAMILIES, Backbone
from vitrail.models.pretrained import PretrainedWeights

NAME = "vit_nano_patch4"
FIELDS = {"depth": 1, "embed_dim": 16}
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def small(**options: Any) -> Backbone:
    return create_model(NAME, **({"num_classes": 3} | FIELDS | options))


def run_of(folder: Path, network: Backbone, /, **changes: Any) -> Path:
    """What a training leaves of it."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = FIELDS | {"num_classes": 3, "image_size": list(network.config.image_size), "drop_path_rate": 0.0}
    told = {"mean": MEAN, "std": STD, "interpolation": "bilinear", "crop_fraction": 0.5, "image_size": [32, 32]}
    written = {"model": {"name": NAME, "fields": fields | changes.pop("fields", {})}, "preprocessing": told} | changes
    (folder / "run.json").write_text(json.dumps(written))
    save_file(
        {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "checkpoints").mkdir(exist_ok=True)
    torch.save({"state_dict": network.state_dict()}, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.mark.parametrize("file", ["", "model.safetensors", "checkpoints/best.ckpt"])
def test_a_run_brings_its_preprocessing(tmp_path: Path, file: str) -> None:
    folder = run_of(tmp_path / "a", small())
    model, loaded = small(weights=folder / file), small()
    load_checkpoint(loaded, folder / file)
    for one in (model, loaded):
        used = one.preprocessing
        assert (used.mean, used.std, used.interpolation) == (MEAN, STD, "bilinear")
        assert (used.image_size, used.crop_fraction) == ((32, 32), small().preprocessing.crop_fraction)
        assert one.preprocessing_source == str(folder / "run.json")
    assert type(model).preprocessing != model.preprocessing, "the family's is as before"


@pytest.mark.parametrize("told", [{}, None])
def test_a_run_that_says_nothing_leaves_the_familys(tmp_path: Path, told: Any) -> None:
    model = small(weights=run_of(tmp_path, small(), preprocessing=told))
    assert model.preprocessing == type(model).preprocessing
    assert model.preprocessing_source == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"preprocessing": {"mean": "grey"}},
        {"preprocessing": {"mean": [0.5, 0.5]}},
        {"preprocessing": {"mean": [float("nan")]}},
        {"preprocessing": {"std": [0, 1, 1]}},
        {"preprocessing": {"interpolation": "magic"}},
        {"preprocessing": 3},
        {"model": [1]},
        {"fields": {"image_size": "32"}},
        {"fields": {"image_size": 32.5}},
    ],
)
def test_a_wrong_description_is_one_error(tmp_path: Path, changes: dict) -> None:
    folder = run_of(tmp_path, small(), **changes)
    with pytest.raises(CheckpointError, match=r"run\.json.*; restore the file, or move the weights") as error:
        small(weights=folder)
    assert "\n" not in str(error.value)
    (folder / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json.*restore the file"):
        small(weights=folder)


@pytest.mark.parametrize(
    ("trained", "wanted", "message"),
    [
        ({"act": "gelu_tanh"}, {}, "act='gelu_tanh'"),
        ({"num_heads": 2}, {}, "num_heads=2"),
        ({"global_pool": "avg"}, {}, "global_pool='avg'"),
        ({}, {"num_heads": 2}, None),
        ({"act": "gelu_tanh"}, {"act": "gelu_tanh"}, None),
        ({"act": "gelu_tanh"}, {"act": "gelu"}, None),
        ({"drop_rate": 0.5}, {}, None),
    ],
)
def test_a_runs_network_is_kept_or_chosen(tmp_path: Path, trained: dict, wanted: dict, message: str | None) -> None:
    """Nothing in the shapes of the tensors shows these fields."""
    folder = run_of(tmp_path, small(**trained), fields=trained)
    if message is None:
        small(weights=folder, **wanted)
        return
    for load in (lambda: small(weights=folder, **wanted), lambda: load_checkpoint(small(**wanted), folder)):
        with pytest.raises(CheckpointError, match=rf"is a run of {NAME} with {message}.*model_fields"):
            load()


def test_a_runs_oblong_table_is_resized(tmp_path: Path) -> None:
    folder = run_of(tmp_path, small(image_size=(16, 64)))
    assert small(weights=folder, image_size=(64, 16)).pos_embed.table.shape[1] == 1 + 64


def test_timms_description_beside_the_weights(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "model.safetensors")
    cfg: dict[str, Any] = {"mean": MEAN, "std": STD, "interpolation": "bilinear", "crop_pct": 1.0}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "x", "pretrained_cfg": cfg}))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        model = small(weights=path)
        assert model.preprocessing == Preprocessing(
            image_size=(32, 32), mean=MEAN, std=STD, interpolation="bilinear", crop_fraction=1.0
        )
        assert model.preprocessing_source == str(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": cfg | {"interpolation": "lanczos"}}))
    model = small(weights=tmp_path)
    assert (model.preprocessing.mean, model.preprocessing.interpolation) == (MEAN, "bicubic")
    assert [remark for remark in model.remarks if "'lanczos' is not known" in remark]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert small(weights=tmp_path).preprocessing_source == ""


PUBLIC = PretrainedWeights(
    hub_id="somebody/nano",
    tag="good",
    image_size=(32, 32),
    preprocessing=Preprocessing(image_size=(32, 32), mean=MEAN, std=STD, crop_fraction=1.0),
    num_classes=3,
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights in the hub's cache, of which nothing is asked."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub" / "models--somebody--nano"
    for part in ("blobs", "snapshots/abc", "refs"):
        (folder / part).mkdir(parents=True)
    save_file(small().state_dict(), folder / "file")
    blob = folder / "blobs" / hashlib.sha256((folder / "file").read_bytes()).hexdigest()
    (folder / "file").rename(blob)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc/model.safetensors").symlink_to(f"../../blobs/{blob.name}")
    return folder


def test_an_address_of_the_table_brings_its_preprocessing(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "hf://somebody/nano/model.safetensors"
    assert small(weights=address).preprocessing_source == "", "not in the table"
    monkeypatch.setitem(FAMILIES["vit"].weights, NAME, (PUBLIC,))
    model = small(weights=address, image_size=48)
    assert model.preprocessing == replace(PUBLIC.preprocessing, image_size=(48, 48))
    assert model.preprocessing_source == "hf://somebody/nano"


def test_a_repository_of_timm_brings_its_preprocessing(hub: Path) -> None:
    (hub / "snapshots/abc/config.json").write_text(json.dumps({"pretrained_cfg": {"mean": MEAN, "std": STD}}))
    assert small(weights="hf://somebody/nano/model.safetensors").preprocessing.mean == MEAN


def poolformer(**options: Any) -> Backbone:
    fields = {"embed_dims": (8, 16), "depths": (1, 1), "strides": (4, 2), "head_dim": 8, "num_classes": 3}
    return create_model("poolformer_nano", **(fields | options)).eval()


def in_layout(layout: str, model: Backbone) -> dict[str, torch.Tensor]:
    """Weights under the names of timm or of the authors, written down independently of the key tables."""
    names = {
        "timm": "layer_scale1=layer_scale1.scale layer_scale2=layer_scale2.scale stem.=stem.conv. "
        "downsample.=downsample.conv. norm.=head.norm. head.=head.fc.",
        "sail-sg": "layer_scale1=layer_scale_1 layer_scale2=layer_scale_2 stem.=patch_embed.proj. "
        "stages.1.downsample.=network.1.proj. stages.0.blocks=network.0 stages.1.blocks=network.2",
    }[layout]
    state = {}
    for ours, tensor in model.state_dict().items():
        name = ours
        for old, new in (pair.split("=") for pair in names.split()):
            if ours.startswith(old) or (old in ours and old not in ("norm.", "head.", "stem.")):
                name = name.replace(old, new)
        state[name] = tensor
    return state


@pytest.mark.parametrize(("layout", "head", "other"), [("timm", "timm", "authors"), ("sail-sg", "authors", "timm")])
def test_the_layout_decides_the_head(tmp_path: Path, layout: str, head: str, other: str) -> None:
    trained = poolformer(head=head)
    torch.nn.init.normal_(trained.norm.weight)
    torch.save(in_layout(layout, trained), tmp_path / "w.pth")
    model, image = poolformer(weights=tmp_path / "w.pth"), torch.randn(2, 3, 48, 48)
    assert model.config.head == head
    with torch.no_grad():
        torch.testing.assert_close(model(image), trained(image))
    assert load_checkpoint(poolformer(head=head), tmp_path / "w.pth") == layout
    with pytest.raises(CheckpointError, match=rf"is of a network with head='{head}'; build the model so"):
        load_checkpoint(poolformer(head=other), tmp_path / "w.pth")
    assert poolformer(head=other, weights=tmp_path / "w.pth").config.head == other, "chosen"


def test_a_layout_with_another_code_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for family in FAMILIES.values():
        assert family.layout_notes.keys() | family.layout_fields.keys() <= family.checkpoint_keys.keys()
    monkeypatch.setitem(FAMILIES, "poolformer", replace(FAMILIES["poolformer"], layout_notes={"timm": "a note"}))
    torch.save(in_layout("timm", poolformer()), tmp_path / "w.pth")
    assert poolformer(weights=tmp_path / "w.pth").remarks[-1].endswith("has the layout 'timm': a note")


def test_a_description_that_cannot_be_read_is_not_passed_over(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitrail.models import weights_source

    def refuse(*_: object) -> Path:
        raise CheckpointError("config.json is damaged") from OSError()

    monkeypatch.setattr(weights_source, "fetch_from_hub", refuse)
    with pytest.raises(CheckpointError, match="is damaged"):
        small(weights="hf://somebody/nano/model.safetensors")


def test_features_need_no_classifier(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "w.pth")
    assert small(num_classes=0, weights=tmp_path / "w.pth")(torch.zeros(1, 3, 32, 32)).shape == (1, 16)
    with pytest.raises(CheckpointError, match="replace_head=True"):
        small(num_classes=0, weights=tmp_path / "w.pth", replace_head=False)
