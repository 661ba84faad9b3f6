"""What timm asserts of every model of its own, asserted of ours under their names in timm.

The assertions follow timm's ``tests/test_models.py``. Numbers are checked on one small model a family; shapes and names
on all, without their numbers, in slow tests.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vitrail.core.errors import CheckpointError, ConfigError
from vitrail.integrations.timm import register
from vitrail.integrations.timm_backbone import FEATURE_CLASSES, TimmBackbone
from vitrail.models import FAMILIES, list_models

timm: Any = pytest.importorskip("timm")
pytest.importorskip("timm.optim")

SMALL = [next(name for name in family.ours if "nano" in name) for family in FAMILIES.values()]
SEQUENCES = {name for family in ("vit", "revit", "vitae_plain") for name in FAMILIES[family].variants}
FIRST: list[Any] = ["edgevit_nano_stride2", "reswin_nano_patch2", "exmobilevit_nano"]
REST = [pytest.param(name, marks=pytest.mark.slow) for name in SMALL if name not in FIRST]

some = pytest.mark.parametrize("name", FIRST + REST)
small = pytest.mark.parametrize("name", SMALL)
every = pytest.mark.parametrize("name", list_models())


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    register()


def create(name: str, **options: Any) -> Any:
    return timm.create_model(f"vitrail_{name}", **options)


def images(model: Any, batch: int = 1) -> Tensor:
    return torch.randn(batch, *model.default_cfg["input_size"])


def check_description(create: Callable[..., Any], name: str) -> None:
    """The description is true, and the classifier, then the pooling can be taken away."""
    model = create(name).eval()
    cfg, state, own = model.default_cfg, model.state_dict(), model.global_pool
    x = images(model)
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    assert model(x).shape == (1, model.num_classes)
    assert pooled.shape == (1, model.head_hidden_size)
    assert features.shape[-1 if features.ndim == 3 else 1] == model.num_features
    assert cfg["pool_size"] == (None if name in SEQUENCES else features.shape[2:])
    assert f"{cfg['classifier']}.weight" in state
    assert cfg["first_conv"]
    assert all(state[f"{layer}.weight"].shape[1] == model.in_chans for layer in cfg["first_conv"])
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert model(x).shape == pooled.shape
    model.reset_classifier(0, "")
    assert model(x).shape == features.shape
    model.reset_classifier(3, own)
    assert model(x).shape == (1, 3)
    assert create(name, num_classes=0)(x).shape == pooled.shape
    assert create(name, num_classes=0, global_pool="")(x).shape == features.shape


def check_maps(create: Callable[..., Any], name: str) -> None:
    """Levels have the channels and the size that the description promises, by every way to them."""
    model = create(name).eval()
    assert len(model.feature_info) >= 3
    x = images(model)
    final, levels = model.forward_intermediates(x)
    features = create(name, features_only=True).eval()
    getter = create(name, features_only=True, feature_cls="getter").eval()
    reductions = features.feature_info.reduction()
    assert list(accumulate(reductions, max)) == reductions
    widths = features.feature_info.channels()
    sizes = [
        (1, width, *(ceil(side / stride) for side in x.shape[2:]))
        for width, stride in zip(widths, reductions, strict=True)
    ]
    for maps in (levels, features(x), getter(x)):
        assert [tuple(level.shape) for level in maps] == sizes
    assert final.shape == model.forward_features(x).shape


@small
def test_logits_are_finite_and_checkpointing_changes_nothing(name: str) -> None:
    model = create(name).eval()
    x = images(model)
    logits = model(x)
    final, _ = model.forward_intermediates(x)
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()
    assert torch.equal(final, model.forward_features(x))
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(x), logits)
    torch.testing.assert_close(model.forward_intermediates(x)[0], final)


@small
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = create(name, num_classes=42)
    model(images(model, batch=2)).mean().backward()
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]


@small
def test_the_description_is_true(name: str) -> None:
    check_description(create, name)


@small
def test_levels_are_maps_of_the_promised_size(name: str) -> None:
    check_maps(create, name)


@pytest.mark.slow
@every
def test_all_names_keep_the_same_promises(name: str) -> None:
    with torch.device("meta"):
        check_description(create, name)
        check_maps(create, name)


@pytest.mark.slow
def test_tags_describe_the_network_of_their_weights() -> None:
    for name in timm.list_models("vitrail_*", include_tags=True):
        _, _, tag = name.partition(".")
        with torch.device("meta"):
            model = timm.create_model(name)
        known = timm.get_pretrained_cfg(name)
        if tag:
            assert model.num_classes == known.num_classes
            assert (model.default_cfg["tag"], model.default_cfg["hf_hub_id"]) == (tag, known.hf_hub_id)
            assert [model.default_cfg[key] for key in ("mean", "std")] == [known.mean, known.std]
        if known.fixed_input_size:
            assert model.default_cfg["input_size"] == (known.input_size if tag else model.default_cfg["input_size"])


def check_graph(name: str) -> None:
    """A graph of torch.fx computes the same, in training too, and takes no size that the model refuses."""
    from timm.models import create_feature_extractor

    model = create(name, num_classes=7)
    graph = create_feature_extractor(model, {"backbone.head": "logits"})
    x = images(model, batch=2)
    graph.train()(x)["logits"].mean().backward()
    assert not [key for key, parameter in graph.named_parameters() if parameter.grad is None]
    assert torch.equal(graph.eval()(x)["logits"], model.eval()(x))
    if model.backbone.size_divisor > 1:
        with pytest.raises(AssertionError, match="image size is not allowed: this graph takes"):
            graph(x[..., :-1])
    maps = create(name, features_only=True, feature_cls="fx", out_indices=(0, -1)).eval()
    assert maps.feature_info.out_indices == (0, len(model.feature_info) - 1)
    assert [level.shape[1] for level in maps(x)] == maps.feature_info.channels()


@some
def test_torch_fx_traces_the_network(name: str, no_shape_checks: None) -> None:
    check_graph(name)


def test_all_feature_classes_give_the_same_maps(no_shape_checks: None) -> None:
    from timm.models._features import FeatureGetterNet, FeatureHookNet

    for feature_cls in (*FEATURE_CLASSES, FeatureGetterNet, FeatureHookNet):
        torch.manual_seed(0)
        model = create("reswin_nano_patch2", features_only=True, feature_cls=feature_cls, out_indices=(0, 1)).eval()
        maps = model(torch.full((1, 3, 48, 48), 0.5))
        if feature_cls == "list":
            wanted = maps
        maps = list(maps.values()) if isinstance(maps, dict) else maps
        torch.testing.assert_close(maps, wanted)
        assert model.feature_info.channels() == [32, 64]
        assert "num_classes" not in model.default_cfg
    options = {"feature_cls": "dict", "output_fmt": "NHWC", "flatten_sequential": True}
    named = create("reswin_nano_patch2", features_only=True, out_indices=(1,), feature_cfg=options)
    assert {key: level.shape for key, level in named(torch.zeros(1, 3, 48, 48)).items()} == {"1": (1, 12, 12, 64)}
    with pytest.raises(ConfigError, match="feature_cls='graph' does not exist; take 'list', 'hook', 'dict', 'getter'"):
        create("reswin_nano_patch2", features_only=True, feature_cls="graph")


@some
def test_what_no_level_needs_is_dropped(name: str) -> None:
    model: TimmBackbone = create(name).eval()
    x = images(model)
    wanted = model.forward_intermediates(x, intermediates_only=True)
    count, before = len(wanted), sum(parameter.numel() for parameter in model.parameters())
    for keep in (count - 1, 1, 0):
        assert model.prune_intermediate_layers([keep], prune_norm=True) == [keep]
        after = sum(parameter.numel() for parameter in model.parameters())
        assert after < before
        before = after
        torch.testing.assert_close(model.forward_intermediates(x, [keep], intermediates_only=True), [wanted[keep]])
        assert model(x).shape == model.forward_features(x).shape
    assert model.num_classes == 0
    with pytest.raises(ConfigError, match="level 1 does not exist: this model has 1 levels"):
        model.forward_intermediates(x, [1])
    if len({info["num_chs"] for info in model.feature_info}) > 1:
        with pytest.raises(ConfigError, match=r"num_classes=3: 1 of this model's \d levels are left"):
            model.reset_classifier(3, "avg")


def test_levels_in_every_layout_and_as_few_as_wanted() -> None:
    model = create("vit_nano_patch4").eval()
    x = images(model)
    final, levels = model.forward_intermediates(x, [1, 3], norm=True)
    torch.testing.assert_close(final, model.forward_features(x))
    for layout, shape in {"NHWC": (1, 8, 8, 128), "NLC": (1, 64, 128), "NCL": (1, 128, 64)}.items():
        assert model.forward_intermediates(x, 1, output_fmt=layout, intermediates_only=True)[0].shape == shape
    stopped, early = model.forward_intermediates(x, [1, 3], norm=True, stop_early=True)
    torch.testing.assert_close(early, levels)
    torch.testing.assert_close(stopped[:, 1:].transpose(1, 2).unflatten(2, (8, 8)), levels[1])
    (patches, prefix), *_ = model.forward_intermediates(x, 1, True, norm=True, intermediates_only=True)
    torch.testing.assert_close(prefix, final[:, :1])
    assert patches.shape == (1, 128, 8, 8)
    with pytest.raises(ConfigError, match=r"indices=\[\] chooses no level: this model has 6 levels, 0 to 5"):
        model.forward_intermediates(x, [])
    with pytest.raises(ConfigError, match="output_fmt='CHW' does not exist; take 'NCHW', 'NHWC'"):
        model.forward_intermediates(x, output_fmt="CHW")
    with pytest.raises(ConfigError, match="return_prefix_tokens=True is not possible"):
        create("revit_nano_patch4").forward_intermediates(x, return_prefix_tokens=True)


def test_poolings_that_cannot_be() -> None:
    model = create("vit_nano_patch4", global_pool="avg")
    assert model.global_pool == model.backbone.config.global_pool == "avg"
    with pytest.raises(ConfigError, match=r"global_pool='token' is not possible: .*; take 'avg', or ''"):
        model.reset_classifier(3, "token")
    with pytest.raises(ConfigError, match="global_pool='' leaves nothing for a classifier of 1000 classes"):
        create("poolformer_nano", global_pool="")
    with pytest.raises(ConfigError, match="global_pool='max' is not possible"):
        create("poolformer_nano", global_pool="max")


@some
def test_layers_have_rates_from_input_to_output(name: str) -> None:
    model = create(name)
    skipped = model.no_weight_decay()
    assert skipped <= {key for key, _ in model.named_parameters()}
    groups = timm.optim.param_groups_layer_decay(model, weight_decay=0.1, no_weight_decay_list=skipped, layer_decay=0.5)
    rates = {parameter: group["lr_scale"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    assert rates[model.backbone.head.weight] == max(rates.values()) == 1
    first = model.get_parameter(f"{model.default_cfg['first_conv'][0]}.weight")
    assert rates[first] == min(rates.values()) < 0.5
    decayed = {parameter for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert not [key for key in skipped if model.get_parameter(key) in decayed]


def test_a_folder_of_timms_own_brings_weights_classes_and_pixels(tmp_path: Path) -> None:
    from timm.models import save_for_hf

    trained = create("edgevit_nano_stride2", num_classes=3, img_size=64).eval()
    trained.pretrained_cfg["mean"] = (0.1, 0.2, 0.3)
    save_for_hf(trained, str(tmp_path), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), trained(x))
    assert tuple(again.default_cfg["mean"]) == (0.1, 0.2, 0.3)
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=5).eval()
    assert torch.equal(other.forward_features(x), trained.forward_features(x))
    assert other(x).shape == (1, 5)


def test_tags_and_descriptions() -> None:
    tagged = create("vit_tiny_patch16.augreg_in21k")
    assert tagged.num_classes == tagged.default_cfg["num_classes"] == 21843
    given = dict(tagged.default_cfg) | {"num_classes": 7}
    assert create("vit_tiny_patch16", pretrained_cfg=given).num_classes == 7
    with pytest.raises(CheckpointError, match="has no pretrained weights 'wrong'"):
        create("vit_tiny_patch16.wrong")
    with pytest.raises(ConfigError, match="call its load_state_dict"):
        create("poolformer_nano", pretrained=True, pretrained_cfg_overlay={"state_dict": {"a": 1}})


def test_torchscript_is_refused_in_a_line() -> None:
    model = create("poolformer_nano")
    with pytest.raises(ConfigError, match=r"cannot be scripted; take torch\.export"), pytest.warns(FutureWarning):
        torch.jit.script(model)
