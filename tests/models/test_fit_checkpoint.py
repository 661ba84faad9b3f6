"""Position tables and stems of other shapes: fitted where there is a rule, else refused with the option that fits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vitrail import create_model, load_checkpoint
from vitrail.core.errors import CheckpointError
from vitrail.layers import resize_pos_embed
from vitrail.models import FAMILIES, Backbone, family_of
from vitrail.models.checkpoint import load_state

TINY = {"num_classes": 3, "image_size": 64, "depth": 2, "embed_dim": 16, "num_heads": 2}
SMALL = {family.name: next(name for name in family.ours if "nano" in name) for family in FAMILIES.values()}


def tiny(**fields: object) -> Backbone:
    return create_model("vit_tiny_patch16", **(TINY | fields))


def load(model: Backbone, state: dict[str, Tensor], **options: object) -> str:
    return load_state(model, state, family_of(model).checkpoint_keys, source="w.pth", **options)


GAP = {"class_token": False, "global_pool": "avg"}


@pytest.mark.parametrize(
    ("theirs", "ours", "remedy"),
    [
        ({}, GAP, "class_token=True, global_pool='token'"),
        (GAP, {}, "class_token=False, global_pool='avg'"),
        (GAP | {"global_pool": "avg_fc_norm"}, {}, "class_token=False, global_pool='avg_fc_norm'"),
        ({"global_pool": "avg_fc_norm"}, {}, "global_pool='avg_fc_norm'"),
        ({}, {"global_pool": "avg_fc_norm"}, "global_pool='token'"),
        ({"qkv_bias": False}, {}, "qkv_bias=False"),
        ({"pos_embed": "learned_2d"}, {}, "pos_embed='learned_2d'"),
        ({"pos_embed": "relative"}, {}, "pos_embed='relative'"),
        ({}, {"pos_embed": "learned_2d"}, "pos_embed='learned_1d'"),
        ({}, {"pos_embed": "sincos_2d"}, "pos_embed='learned_1d'"),
        ({"pre_logits": True, "num_classes": 0}, {"num_classes": 0}, "pre_logits=True"),
        ({"in_chans": 1}, {}, "in_chans=1"),
        ({"in_chans": 5}, {"in_chans": 4}, "in_chans=5"),
        (GAP | {"image_size": 96}, {}, "class_token=False, global_pool='avg'"),
        ({"image_size": 96}, GAP, "class_token=True, global_pool='token'"),
    ],
)
def test_the_option_that_fits_is_named_and_fits(theirs: dict, ours: dict, remedy: str) -> None:
    state, model = tiny(**theirs).state_dict(), tiny(**ours)
    with pytest.raises(CheckpointError, match=r"^w\.pth ") as error:
        load(model, state)
    assert f"build the model with {remedy} (in training: model_fields" in str(error.value)
    assert "\n" not in str(error.value)
    named = dict(part.split("=") for part in remedy.split(", "))
    values = {name: {"True": True, "False": False}.get(value, value.strip("'")) for name, value in named.items()}
    values = {name: int(value) if str(value).isdigit() else value for name, value in values.items()}
    load(tiny(**(ours | values)), state)


@pytest.mark.parametrize(("theirs", "ours"), [(True, False), (False, True)])
def test_revit_names_its_class_token_too(theirs: bool, ours: bool) -> None:
    state = create_model("revit_nano_patch4", num_classes=2, depth=1, class_token=theirs).state_dict()
    with pytest.raises(CheckpointError, match=rf"build the model with class_token={theirs} "):
        load(create_model("revit_nano_patch4", num_classes=2, depth=1, class_token=ours), state)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (16, r"4x4 patches and no class token"),
        (18, r"4x4 patches and a class and a distillation token"),
        (21, r"4x4 patches and 5 other tokens, such as registers"),
        (1 + 4 * 7, r"no square of patches with a class token.* need a model of their image_size"),
        (1, r"the table has 1 rows"),
        (0, r"the table has 0 rows"),
    ],
)
@pytest.mark.parametrize("name", ["vit_nano_patch4", "revit_nano_patch4", "vitae_plain_nano_patch4"])
def test_tables_of_other_tokens_are_told(name: str, rows: int, words: str) -> None:
    token = {} if "vitae" in name else {"class_token": True}
    model = create_model(name, num_classes=2, image_size=32, depth=1, **token)
    state = model.state_dict()
    table = "pos_embed.table" if "pos_embed.table" in state else "pos_embed"
    state[table] = state[table][:, :1].repeat(1, rows, 1)
    with pytest.raises(CheckpointError, match=rf"w.pth does not fit .*{table}: .*{words}") as error:
        load(model, state)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(17, 16), (2, 17, 16), (1, 17, 8), (1, 1, 17, 16), (17,), ()])
def test_tables_of_other_dimensions_are_told(shape: tuple[int, ...]) -> None:
    model = tiny()
    with pytest.raises(CheckpointError, match=r"pos_embed.table is .* in the file and 1x17x16 in the model"):
        load(model, model.state_dict() | {"pos_embed.table": torch.zeros(shape)})


@pytest.mark.parametrize(
    ("name", "end", "shape"),
    [
        ("reswin_nano_patch2", "rel_pos_bias", (26, None)),
        ("reswin_nano_patch2", "rel_pos_bias", (16, None)),
        ("remvit_nano_stride2", "rel_pos_h", (6, None)),
        ("remvit_nano_stride2", "rel_pos_w", (0, None)),
        ("maxvit_nano", "bias_table", (None, 6, 6)),
        ("maxvit_nano", "bias_table", (None, 0, 5)),
    ],
)
def test_tables_of_other_windows_are_told(name: str, end: str, shape: tuple) -> None:
    model = create_model(name, num_classes=2)
    state = model.state_dict()
    table = next(key for key in state if key.endswith(end))
    sizes = [old if new is None else new for old, new in zip(state[table].shape, shape, strict=True)]
    with pytest.raises(CheckpointError, match=rf"w.pth does not fit .*: {table}: the table "):
        load(model, state | {table: torch.zeros(sizes)})


@pytest.mark.parametrize("kind", ["learned_2d", "relative"])
def test_tables_without_a_rule_name_the_size(kind: str) -> None:
    with pytest.raises(CheckpointError, match=rf"pos_embed='{kind}' cannot be resized; .* image_size of the weights"):
        load(tiny(pos_embed=kind, image_size=96), tiny(pos_embed=kind).state_dict())


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("reg_token", "register tokens"),
        ("blocks.0.ls1.gamma", "LayerScale"),
        ("blocks.0.attn.q_norm.weight", "norms of queries and keys"),
        ("norm_pre.weight", "a norm before the blocks"),
        ("blocks.0.attn.relative_position_bias_table", "relative positions"),
    ],
)
def test_parts_that_the_model_lacks_are_named(name: str, what: str) -> None:
    state = tiny().state_dict()
    with pytest.raises(CheckpointError, match=rf"the weights have {what}.*, which ViT lacks"):
        load(tiny(), state | {name: torch.zeros(1)})


def test_oblong_tables_are_resized_where_their_size_is_known() -> None:
    wide = tiny(image_size=(32, 96))
    torch.nn.init.normal_(wide.pos_embed.table)
    for size in ((96, 32), (64, 64), (96, 96)):  # the first two have as many patches or a square number
        model = tiny(image_size=size)
        load(model, wide.state_dict(), image_size=(32, 96))
        grid = (size[0] // 16, size[1] // 16)
        expected = resize_pos_embed(wide.pos_embed.table.detach(), grid, 1, old_grid=(2, 6))
        torch.testing.assert_close(model.pos_embed.table.detach(), expected)
    same = tiny(image_size=(32, 96))
    load(same, wide.state_dict(), image_size=(32, 96))
    assert torch.equal(same.pos_embed.table, wide.pos_embed.table)


@pytest.mark.parametrize("family", SMALL)
def test_a_grey_image_has_the_answer_of_its_colour_image(family: str, tmp_path: Path) -> None:
    colour = create_model(SMALL[family], num_classes=2).eval()
    torch.save(colour.state_dict(), tmp_path / "w.pth")
    grey = create_model(SMALL[family], num_classes=2, in_chans=1, weights=tmp_path / "w.pth").eval()
    image = torch.randn(1, 1, *colour.config.image_size)
    with torch.no_grad():
        torch.testing.assert_close(grey(image), colour(image.expand(1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    assert grey.remarks
    assert all("for 3 channels, is summed for in_chans=1" in remark for remark in grey.remarks)


@pytest.mark.parametrize("in_chans", [2, 4, 6, 7])
def test_more_channels_share_the_weights_as_in_timm(in_chans: int) -> None:
    adapt = pytest.importorskip("timm.models._manipulate").adapt_input_conv
    three, model = tiny(), tiny(in_chans=in_chans)
    load(model, three.state_dict())
    torch.testing.assert_close(model.stem.proj.weight, adapt(in_chans, three.stem.proj.weight))
    assert len(model.remarks) == 1
    assert f"is repeated for in_chans={in_chans}" in model.remarks[0]


def test_a_failed_fit_changes_nothing(tmp_path: Path) -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save(tiny(image_size=(64, 112)).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError):
        load_checkpoint(model, tmp_path / "w.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
