"""Weights files of every layout load strictly, and nothing else does."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import save_file
from torch import Tensor

from vitrail import create_model, load_checkpoint
from vitrail.core.errors import CheckpointError
from vitrail.models import Backbone
from vitrail.models.checkpoint import WRAPPERS, Key, read_weights, rename, strip_prefixes

SMALL = {"num_classes": 3, "image_size": 32}


def small_vit(**fields: object) -> Backbone:
    return create_model("vit_nano_patch4", **(SMALL | {"depth": 2, "embed_dim": 16, "num_heads": 2} | fields))


def timm_names(model: Backbone) -> dict[str, Tensor]:
    def name(ours: str) -> str:
        ours = ours.replace("class_token", "cls_token").replace("stem.", "patch_embed.").replace(".table", "")
        return ours.replace("token_mixer", "attn")

    return {name(ours): tensor.clone() for ours, tensor in model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "backbone."])
@pytest.mark.parametrize("wrapper", ["", *WRAPPERS])
def test_nesting_and_prefixes_are_recognised(tmp_path: Path, wrapper: str, prefix: str) -> None:
    trained, model = small_vit(), small_vit()
    state: object = {prefix + name: tensor for name, tensor in timm_names(trained).items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "weights.pth")
    assert load_checkpoint(model, tmp_path / "weights.pth") == "timm"
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), model.parameters(), strict=True))


def test_averaged_weights_win_over_raw_ones(tmp_path: Path) -> None:
    averaged, model = small_vit(), small_vit()
    file = {"state_dict": timm_names(small_vit()), "state_dict_ema": timm_names(averaged)}
    torch.save(file, tmp_path / "both.pt")
    load_checkpoint(model, tmp_path / "both.pt")
    assert torch.equal(model.pos_embed.table, averaged.pos_embed.table)


def test_our_own_layout_as_safetensors(tmp_path: Path) -> None:
    trained, model = small_vit(), small_vit()
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    assert load_checkpoint(model, tmp_path / "model.safetensors") == "vitrail"
    assert torch.equal(model.pos_embed.table, trained.pos_embed.table)


def test_a_position_table_follows_the_image_size(tmp_path: Path) -> None:
    trained, model = small_vit(), small_vit(image_size=(48, 40))
    torch.nn.init.constant_(trained.pos_embed.table, 0.25)
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    load_checkpoint(model, tmp_path / "w.pth")
    assert model.pos_embed.table.shape == (1, 12 * 10 + 1, 16)
    torch.testing.assert_close(model.pos_embed.table, torch.full_like(model.pos_embed.table, 0.25))


def test_another_classifier_is_replaced_only_when_asked(tmp_path: Path) -> None:
    trained, model = small_vit(num_classes=7), small_vit()
    own = model.head.weight.clone()
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError, match=r"head.weight is 7x16 in the file and 3x16 in the model.*replace_head=True"
    ):
        load_checkpoint(model, tmp_path / "w.pth")
    load_checkpoint(model, tmp_path / "w.pth", replace_head=True)
    assert torch.equal(model.head.weight, own)
    assert torch.equal(model.pos_embed.table, trained.pos_embed.table)


def test_a_file_without_classifier_needs_the_same_consent(tmp_path: Path) -> None:
    trained, model = small_vit(num_classes=0), small_vit()
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"missing head.bias"):
        load_checkpoint(model, tmp_path / "w.pth")
    load_checkpoint(model, tmp_path / "w.pth", replace_head=True)


def test_features_model_refuses_a_classifier_it_has_no_place_for(tmp_path: Path) -> None:
    torch.save(small_vit().state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"unexpected head.bias"):
        load_checkpoint(small_vit(num_classes=0), tmp_path / "w.pth")
    load_checkpoint(small_vit(num_classes=0), tmp_path / "w.pth", replace_head=True)


def test_replacing_the_classifier_excuses_nothing_else(tmp_path: Path) -> None:
    state = small_vit(num_classes=7).state_dict()
    del state["blocks.1.norm1.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"missing blocks.1.norm1.weight"):
        load_checkpoint(small_vit(), tmp_path / "w.pth", replace_head=True)


def test_another_models_weights_are_refused_by_their_names(tmp_path: Path) -> None:
    torch.save(small_vit(depth=3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"does not fit ViT: unexpected blocks.2.mlp.fc1.bias"):
        load_checkpoint(small_vit(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"does not fit EdgeViT.*more; is it another model's"):
        load_checkpoint(create_model("edgevit_nano_stride2", num_classes=3), tmp_path / "w.pth")


def test_a_failed_load_changes_nothing(tmp_path: Path) -> None:
    model = small_vit()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save(small_vit(depth=3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError):
        load_checkpoint(model, tmp_path / "w.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code in a weights file ran",)


def test_code_in_a_weights_file_never_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {"head.weight": torch.zeros(1)}, "args": _Code()}, tmp_path / "evil.pth")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(_Code(), protocol=2))
    for name in ("evil.pth", "raw.pt"):
        with pytest.raises(CheckpointError, match="runs no code from weights files"):
            read_weights(tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pth", None, "does not exist"),
        ("empty.pth", b"", "damaged"),
        ("empty.safetensors", b"", "damaged"),
        ("noise.safetensors", b"\xff" * 64, "damaged"),
        ("noise.pth", b"\x00" * 64, "damaged"),
        ("weights.h5", b"x", "unknown kind of weights file '.h5'"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_weights(tmp_path / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("prefix", "others"), [("", ()), ("backbone.", ()), ("backbone.", ("head.conv.weight",))])
def test_a_folder_stands_for_its_model(tmp_path: Path, prefix: str, others: tuple[str, ...]) -> None:
    """Repositories of the hub hold a model, runs a task, of which the backbone is read."""
    trained, model = small_vit(), small_vit()
    state = {prefix + name: tensor for name, tensor in timm_names(trained).items()}
    save_file(state | {name: torch.zeros(1) for name in others}, tmp_path / "model.safetensors")
    assert load_checkpoint(model, tmp_path) == "timm"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), trained.parameters(), strict=True))


def test_a_folder_without_weights_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no model.safetensors; .* vitrail train --run .* --resume"):
        read_weights(tmp_path)


def test_a_file_without_tensors_is_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_weights(tmp_path / "w.pth")


def test_plain_http_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not https"):
        load_checkpoint(small_vit(), "http://example.org/w.pth")


@given(stage=st.integers(0, 20), block=st.integers(0, 200))
def test_templates_count_from_any_number(stage: int, block: int) -> None:
    key = Key("blocks{s+1}.{i}.attn", "stages.{s}.blocks.{i}.token_mixer")
    assert (
        key.match(f"blocks{stage + 1}.{block}.attn.qkv.weight")
        == f"stages.{stage}.blocks.{block}.token_mixer.qkv.weight"
    )
    assert key.match(f"blocks{stage + 1}.{block}.attention.qkv.weight") is None


def test_the_longest_row_wins_and_unknown_names_stay() -> None:
    one = torch.zeros(1)
    table = (Key("a", "x"), Key("a.b", "y"), Key("index", None))
    assert set(rename({"a.c": one, "a.b.d": one, "q": one, "index": one}, table)) == {"x.c", "y.d", "q"}


def test_pieces_are_joined_in_their_order() -> None:
    table = (Key("v", "kv", part=(1, 2)), Key("k", "kv", part=(0, 2), convert=lambda t: t * 10))
    joined = rename({"v.weight": torch.ones(2, 3), "k.weight": torch.ones(2, 3)}, table)
    assert joined["kv.weight"].tolist() == [[10.0] * 3] * 2 + [[1.0] * 3] * 2
    with pytest.raises(CheckpointError, match="needs 2 pieces"):
        rename({"v.weight": torch.ones(2, 3)}, table)


def test_a_prefix_is_stripped_only_where_all_names_have_it() -> None:
    one = torch.zeros(1)
    assert set(strip_prefixes({"module.a": one, "module.b": one})) == {"a", "b"}
    assert set(strip_prefixes({"module.a": one, "b": one})) == {"module.a", "b"}
