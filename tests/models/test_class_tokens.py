"""The distillation token of ViT and ReViT: timm's numbers, both classifiers, and every part that counts tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from golden.fill import fill
from torch import Tensor, nn

from vitrail import create_model, load_checkpoint
from vitrail.contract import computing, model_files, shapes
from vitrail.contract.promise import lively_model
from vitrail.core.errors import CheckpointError, ConfigError
from vitrail.core.types import IMAGENET_MEAN, Preprocessing
from vitrail.explain import attention_rollout, capture_attention, explain_images
from vitrail.export import export_model
from vitrail.layers import resize_pos_embed
from vitrail.models import Backbone, family_of, find_family
from vitrail.models.checkpoint import load_state
from vitrail.quantization import QuantizationConfig, quantize
from vitrail.runs.card import model_card
from vitrail.runtimes import open_session
from vitrail.tasks.pretraining import PretrainingOptions, PretrainingTask
from vitrail.training.linear_probe import LinearHead

timm = pytest.importorskip("timm")

SMALL = {"num_classes": 5, "depth": 2, "embed_dim": 32, "num_heads": 2}
TOKENS = {"class_token": True, "distillation_token": True}
DISTILLED = {
    "vit": partial(create_model, "vit_nano_patch4", depth=2, embed_dim=32, num_heads=2, image_size=16, **TOKENS),
    "revit": partial(create_model, "revit_nano_patch4", depth=2, embed_dim=32, num_heads=2, image_size=16, **TOKENS),
}
BOTH = pytest.mark.parametrize("family", DISTILLED)


def tiny(family: str, **fields: object) -> Backbone:
    """Random weights that reach the logits."""
    torch.manual_seed(0)
    return lively_model(DISTILLED[family], **({"num_classes": 5} | fields)).double()


def lively(model: nn.Module) -> nn.Module:
    """Numbers that every test knows, and that reach the logits."""
    state = {name: torch.from_numpy(fill(name, value.shape)) for name, value in model.state_dict().items()}
    model.load_state_dict({name: value.to(model.state_dict()[name]) for name, value in state.items()})
    return model


def reference(size: tuple[int, int], **fields: object) -> nn.Module:
    """timm's model."""
    return lively(
        timm.create_model("deit_tiny_distilled_patch16_224", img_size=size, **(SMALL | fields)).double().eval()
    )


def deit(size: tuple[int, int], state: dict[str, Tensor], **fields: object) -> Backbone:
    ours = create_model("deit_tiny_distilled_patch16", image_size=size, **(SMALL | fields)).double().eval()
    assert load_state(ours, state, family_of(ours).checkpoint_keys) == "timm"
    return ours


def images(height: int, width: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 3, height, width, dtype=torch.float64, generator=generator)


@torch.no_grad()
def test_logits_features_and_both_classifiers_equal_timm() -> None:
    theirs, x = reference((32, 48)), images(32, 48)
    ours = deit((32, 48), theirs.state_dict())
    features = ours.forward_features(x)
    same = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
    same(ours(x), theirs(x))
    same(ours.forward_head(features, pre_logits=True), theirs.forward_head(features, pre_logits=True))
    theirs.set_distilled_training(True)
    theirs.train()  # both logits come in training alone; there is no dropout
    for one, other in zip(ours.head_logits(features), theirs(x), strict=True):
        same(one, other)
    bare = reference((32, 48), num_classes=0)
    same(deit((32, 48), bare.state_dict(), num_classes=0)(x), bare.eval()(x))


def _swap_tokens(model: Backbone) -> None:
    model.class_token, model.distillation_token = model.distillation_token, model.class_token


def _swap_heads(model: Backbone) -> None:
    model.head, model.head_dist = model.head_dist, model.head


MUTATIONS: dict[str, Callable[[Backbone], object]] = {
    "the class token's classifier alone": lambda m: setattr(m, "forward_head", lambda x: m.head_logits(x)[0]),
    "the distillation token's classifier alone": lambda m: setattr(m, "forward_head", lambda x: m.head_logits(x)[1]),
    "the sum of both": lambda m: setattr(m, "forward_head", lambda x: sum(m.head_logits(x))),
    "one classifier for both tokens": lambda m: setattr(m, "head_dist", m.head),
    "both classifiers on the class token": lambda m: setattr(m, "head_logits", lambda x: (m.head(x[:, 0]),) * 2),
    "tokens swapped": _swap_tokens,
    "classifiers swapped": _swap_heads,
}


@torch.no_grad()
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_detail_is_noticed(mutation: str) -> None:
    theirs, x = reference((32, 32)), images(32, 32)
    ours = deit((32, 32), theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)
    MUTATIONS[mutation](ours)
    assert (ours(x) - theirs(x)).abs().max() > 1e-3 * theirs(x).abs().max()


@torch.no_grad()
def test_files_of_deits_authors_load_at_another_size(tmp_path: Path) -> None:
    state = reference((32, 32)).state_dict()
    torch.save({"model": state}, tmp_path / "deit_tiny_distilled.pth")
    fields = {**SMALL, "image_size": (48, 32)}
    ours = create_model("deit_tiny_distilled_patch16", weights=tmp_path / "deit_tiny_distilled.pth", **fields).double()
    theirs = reference((48, 32))
    theirs.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, theirs))
    x = images(48, 32)
    torch.testing.assert_close(ours.eval()(x), theirs(x), rtol=1e-5, atol=1e-5)  # the file is resized in float32
    expected = resize_pos_embed(state["pos_embed"], (3, 2), 2).float()
    torch.testing.assert_close(ours.pos_embed.table.float(), expected)
    assert torch.equal(ours.pos_embed.table[:, :2].float(), state["pos_embed"][:, :2].float())


@torch.no_grad()
@pytest.mark.parametrize("distilled", [True, False])
def test_files_of_transformers_load(tmp_path: Path, distilled: bool) -> None:
    """The names and the layout of ``facebook/deit-tiny-distilled-patch16-224``, and of plain ViTs."""
    transformers = pytest.importorskip("transformers")
    kind = "DeiTForImageClassificationWithTeacher" if distilled else "ViTForImageClassification"
    fields = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    make = transformers.DeiTConfig if distilled else transformers.ViTConfig
    config = make(**fields, image_size=32, num_labels=5, layer_norm_eps=1e-6)
    theirs = lively(getattr(transformers, kind)(config).eval())
    theirs.save_pretrained(tmp_path)
    ours = create_model("vit_tiny_patch16", distillation_token=distilled, image_size=32, **SMALL).eval()
    assert load_checkpoint(ours, tmp_path / "model.safetensors") == "transformers"
    x = images(32, 32).float()
    torch.testing.assert_close(ours(x), theirs(x).logits, rtol=1e-4, atol=1e-5)
    assert (ours.preprocessing.mean == IMAGENET_MEAN) == distilled


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_the_variants_are_as_large_as_timms_and_name_their_paper(size: str) -> None:
    name = f"deit_{size}_distilled_patch16"
    with torch.device("meta"):
        theirs = timm.create_model(f"{name}_224")
        ours = create_model(name)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    weights = find_family(name).find_weights(name, "", (224, 224))
    assert weights.hub_id == f"timm/{name}_224.fb_in1k"
    card = model_card(name)
    assert card["title"].startswith("Training data-efficient image transformers")
    assert (card["authors"], card["paper"]) == ("Touvron et al.", "ICML 2021, arXiv:2012.12877")


@torch.no_grad()
def test_a_revit_that_remembers_nothing_is_a_distilled_vit() -> None:
    revit = tiny("revit", alpha=1.0, learnable_alpha=False)
    vit = tiny("vit")
    rename = {"pos_embed": "pos_embed.table"}
    vit.load_state_dict({rename.get(name, name): value for name, value in revit.state_dict().items()})
    x = images(16, 16)
    torch.testing.assert_close(revit(x), vit(x), rtol=1e-10, atol=1e-10)
    remembering = tiny("revit", alpha=0.5, learnable_alpha=False)
    remembering.load_state_dict(revit.state_dict())
    assert not torch.allclose(remembering(x), vit(x))


@BOTH
@torch.no_grad()
def test_the_answer_is_the_mean_of_two_different_classifiers(family: str) -> None:
    model, x = tiny(family), images(16, 16)
    features = model.forward_features(x)
    by_class, by_distillation = model.head_logits(features)
    assert by_class.shape == by_distillation.shape == (2, 5)
    assert not torch.allclose(by_class, by_distillation)
    torch.testing.assert_close(model(x), (by_class + by_distillation) / 2)
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), features[:, :2].mean(1))
    model.reset_classifier(3)
    assert [logits.shape for logits in model.head_logits(features)] == [(2, 3), (2, 3)]
    assert model.head_dist.weight.dtype == torch.float64
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), features[:, :2].mean(1))


@BOTH
def test_a_model_without_the_token_is_as_before(family: str) -> None:
    model = DISTILLED[family](distillation_token=False)
    assert model.num_prefix_tokens == 1
    assert len(model.classifiers()) == 1
    assert not [name for name in model.state_dict() if "dist" in name]
    with pytest.raises(ConfigError, match="one classifier; build it with distillation_token=True"):
        model.head_logits(torch.zeros(1, 17, 32))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("vit_nano_patch4", {"global_pool": "avg"}, "needs global_pool='token'"),
        ("vit_nano_patch4", {"pre_logits": True}, "pre_logits=False"),
        ("vit_nano_patch4", {"class_token": False}, "needs class_token=True"),
        ("revit_nano_patch4", {}, "needs class_token=True"),
    ],
)
def test_impossible_configurations_are_refused(name: str, fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(name, distillation_token=True, **fields)


@BOTH
def test_names_of_parameters_and_groups(family: str) -> None:
    for check in (shapes.names_of_parameters_are_true, shapes.levels_are_as_announced, shapes.rebuilds_from_its_config):
        check(DISTILLED[family])
    shapes.classifier_can_be_changed(DISTILLED[family])
    model = DISTILLED[family]()
    assert {"head.", "head_dist."} <= set(model.head_prefixes)
    assert "distillation_token" in model.layer_groups()[0]
    assert ("distillation_token" in model.no_weight_decay()) == ("class_token" in model.no_weight_decay())
    assert model.distillation_token.std() > 0.01, "a token of zeros would begin as the class token does"


@BOTH
@pytest.mark.parametrize("theirs", [True, False])
def test_weights_with_another_number_of_tokens_name_the_field(family: str, theirs: bool) -> None:
    state = DISTILLED[family](distillation_token=theirs).state_dict()
    model = DISTILLED[family](distillation_token=not theirs)
    with pytest.raises(CheckpointError, match=rf"build the model with distillation_token={theirs} \(in") as error:
        load_state(model, state, family_of(model).checkpoint_keys, replace_head=True)
    assert "\n" not in str(error.value)


def test_timms_file_in_a_plain_vit_names_the_field() -> None:
    state = reference((32, 32)).state_dict()
    model = create_model("vit_tiny_patch16", image_size=32, **SMALL)
    with pytest.raises(CheckpointError, match="build the model with distillation_token=True "):
        load_state(model, state, family_of(model).checkpoint_keys)


def test_another_family_says_that_it_has_no_such_token() -> None:
    model = create_model("vitae_plain_nano_patch4", num_classes=2)
    with pytest.raises(CheckpointError, match=r"the weights have a distillation token .*, which \w+ lacks"):
        load_state(model, model.state_dict() | {"head_dist.weight": torch.zeros(2, 2)}, {})


@BOTH
def test_weights_of_another_number_of_classes_keep_both_fresh_classifiers(family: str) -> None:
    state, model = tiny(family, num_classes=7).state_dict(), tiny(family)
    fresh = [head.weight.clone() for head in model.classifiers()]
    with pytest.raises(CheckpointError, match="only the classifier does not fit"):
        load_state(model, state, {})
    load_state(model, state, {}, replace_head=True)
    assert all(torch.equal(head.weight, old) for head, old in zip(model.classifiers(), fresh, strict=True))
    assert torch.equal(model.distillation_token, state["distillation_token"])


def test_a_table_with_too_few_rows_tells_both_tokens() -> None:
    model = DISTILLED["vit"]()
    state = model.state_dict()
    state["pos_embed.table"] = state["pos_embed.table"][:, 1:]
    with pytest.raises(CheckpointError, match="no square of patches with a class and a distillation token"):
        load_state(model, state, {})


@BOTH
@pytest.mark.parametrize(
    "check",
    [
        computing.images_do_not_mix,
        computing.state_dict_round_trip,
        partial(computing.training_lowers_the_loss, most=16),
        computing.gradient_checkpointing_changes_nothing,
        computing.takes_other_sizes,
        computing.chosen_levels_are_right,
        computing.fusing_changes_no_output,
    ],
)
def test_promises_of_every_family(family: str, check: Callable[..., None]) -> None:
    check(DISTILLED[family])


@pytest.mark.parametrize("family", ["vit", pytest.param("revit", marks=pytest.mark.slow)])
def test_files_agree_with_the_model(family: str) -> None:
    model_files.files_agree_at_any_batch_size(DISTILLED[family])


@pytest.mark.slow
@BOTH
@pytest.mark.usefixtures("no_shape_checks")
def test_compiles_and_is_captured(family: str) -> None:
    computing.exports_with_torch(DISTILLED[family])
    computing.compiles_without_graph_breaks(DISTILLED[family])


def test_an_integer_file_has_both_classifiers(tmp_path: Path) -> None:
    model = tiny("vit").float()
    x = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    quantized = quantize(model, x, config=QuantizationConfig(preset="min_max"))
    assert {"head:weight", "head_dist:weight"} <= set(quantized.plan.operands)
    about = {"preprocessing": Preprocessing(image_size=(16, 16)), "classes": ["a"] * 5}
    export_model(model, tmp_path / "model.onnx", images=x, quantized=quantized, **about)  # compares the file
    operations = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operations
    with torch.no_grad():
        exact, simulated = model(x), quantized(x)
    output = torch.from_numpy(open_session(tmp_path / "model.onnx", "onnxruntime")(x.numpy()))
    for given in (simulated, output):
        assert (given - exact).square().sum() < 0.01 * exact.square().sum()


@BOTH
@pytest.mark.parametrize("objective", ["mpp", "mae"])
def test_masked_pretraining_hides_no_token(family: str, objective: str) -> None:
    task = PretrainingTask(DISTILLED[family](num_classes=0), PretrainingOptions(objective=objective))
    lengths: list[int] = []
    task.backbone.blocks[0].register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    task.training_answer(pixels / 255, {"image": pixels})[0].backward()
    assert lengths == [2 + (4 if objective == "mae" else 16)]
    assert task.backbone.distillation_token.grad.abs().max() > 0


@BOTH
def test_explanations_average_what_both_classifiers_read(family: str) -> None:
    model = tiny(family).float()
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    look = Preprocessing(image_size=(16, 16))
    found = explain_images(model, pixels, look)
    with torch.no_grad(), capture_attention(model) as maps:
        model(look.normalize(pixels))
    places = maps[0].places
    assert places is not None
    assert places.keys[0].isnan().all(1).tolist() == [True] * 2 + [False] * 16
    rows = attention_rollout([entry.probabilities[:, 0] for entry in maps])[:, :2, 2:].mean(1)
    expected = (rows / rows.sum(-1, keepdim=True)).unflatten(1, (4, 4))
    assert found.rollout is not None
    np.testing.assert_allclose(found.rollout, expected.numpy(), rtol=1e-4)
    assert found.position_similarity is not None
    assert found.position_similarity.shape == (4, 4, 4, 4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["vit", "revit", "timm"])
def test_a_linear_probe_becomes_both_classifiers(family: str) -> None:
    if family == "timm":
        name = "timm:deit_tiny_distilled_patch16_224"
        small = {"depth": 2, "embed_dim": 32, "num_heads": 2, "patch_size": 4}
        model = create_model(name, num_classes=5, image_size=16, options=small).double().eval()
    else:
        model = tiny(family)
    draw = np.random.default_rng(0)
    probe = LinearHead(weight=draw.normal(size=(5, 32)), bias=draw.normal(size=5), strength=1.0)
    probe.give(model)
    x = images(16, 16)
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    np.testing.assert_allclose(model(x).numpy(), probe.logits(pooled.numpy()), rtol=1e-6)


def test_timm_gets_both_classifiers() -> None:
    from vitrail.integrations.timm import register

    register()
    model = timm.create_model("vitrail_deit_tiny_distilled_patch16", img_size=32, depth=1, num_classes=3)
    assert [part.out_features for part in model.get_classifier()] == [3, 3]
    plain = timm.create_model("vitrail_vit_tiny_patch16", img_size=32, depth=1, num_classes=3)
    assert plain.get_classifier() is plain.backbone.head
