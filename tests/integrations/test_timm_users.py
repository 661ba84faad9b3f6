"""Our models in the libraries that build theirs through timm; each is run where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vitrail.integrations.timm import register
from vitrail.models import FAMILIES, create_model

pytest.importorskip("timm")


def needs(library: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"optional, not installed: {library}")


SMALL = [next(name for name in family.ours if "nano" in name) for family in FAMILIES.values()]
UNETS: dict[str, dict[str, Any]] = {
    "edgevit_xxs": {"img_size": 64},
    "mobilevit_xxs": {"img_size": 64},
    "vitaev2_s": {"img_size": 64},
    "poolformer_s12": {"img_size": 64},
    "vitae_t": {"img_size": 64, "encoder_depth": 4, "decoder_channels": (64, 32, 32, 16)},
    "remvit_t": {"img_size": 64},
    "maxvit_tiny": {"img_size": 64},
    "reswin_t": {"img_size": 224},
}
"""One published pyramid a family, and what Unet needs for it: strides of the nano variants begin at 2."""


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    register()


def backbone(name: str, **fields: Any) -> Any:
    import transformers

    config = transformers.TimmBackboneConfig(backbone=f"vitrail_{name}", **fields)
    return transformers.AutoBackbone.from_config(config)


@needs("transformers")
@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_backbone_of_transformers(name: str, tmp_path: Path) -> None:
    """``AutoBackbone``'s contract: channels, names and indices of the chosen levels, their maps, all hidden states."""
    import transformers

    ours = create_model(name, num_classes=0)
    count, x = len(ours.feature_info), torch.randn(2, 3, *ours.config.image_size)
    model = backbone(name, out_indices=[1, -1]).eval()
    assert isinstance(model, transformers.TimmBackbone)
    assert model.out_indices == [1, count - 1]
    assert model.stage_names == [f"backbone.{info.name}" for info in ours.feature_info]
    assert model.out_features == [model.stage_names[1], model.stage_names[-1]]
    assert model.channels == [ours.feature_info[1].channels, ours.feature_info[-1].channels]
    out = model(x)
    assert [level.shape[1] for level in out.feature_maps] == model.channels
    assert out.hidden_states is None
    every = model(x, output_hidden_states=True)
    assert [level.shape[1] for level in every.hidden_states] == [info.channels for info in ours.feature_info]
    for level, chosen in zip((1, count - 1), out.feature_maps, strict=True):
        torch.testing.assert_close(every.hidden_states[level], chosen)
        torch.testing.assert_close(every.feature_maps[(level != 1)], chosen)
    torch.testing.assert_close(list(model(x, return_dict=False)[0]), list(out.feature_maps))
    assert len(backbone(name)(x).feature_maps) == 1
    model.save_pretrained(tmp_path)
    config = transformers.TimmBackboneConfig.from_pretrained(tmp_path)
    again = transformers.AutoBackbone.from_config(config).eval()
    assert again.out_features == model.out_features
    from safetensors.torch import load_file

    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(list(again(x).feature_maps), list(out.feature_maps))


@needs("transformers")
@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_backbone_of_transformers_learns(name: str) -> None:
    model = backbone(name, out_indices=[0, -1]).train()
    size = create_model(name).config.image_size
    sum(level.square().mean() for level in model(torch.randn(2, 3, *size)).feature_maps).backward()
    silent = [key for key, parameter in model.named_parameters() if ".blocks." in key and parameter.grad is None]
    assert not silent


@needs("transformers")
@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_classifier_of_transformers(name: str, tmp_path: Path) -> None:
    """``TimmWrapper``: timm's models for the trainer of transformers."""
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    config = TimmWrapperConfig(architecture=f"vitrail_{name}", num_labels=3)
    model = TimmWrapperForImageClassification(config).eval()
    x = torch.randn(2, 3, *create_model(name).config.image_size)
    labels = torch.tensor([0, 2])
    out = model(pixel_values=x, labels=labels, output_hidden_states=True)
    torch.testing.assert_close(out.logits, model.timm_model(x))
    torch.testing.assert_close(out.loss, nn.functional.cross_entropy(out.logits, labels))
    assert len(out.hidden_states) == len(model.timm_model.feature_info)
    model.save_pretrained(tmp_path)
    again = TimmWrapperForImageClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(pixel_values=x).logits, out.logits)


@needs("segmentation_models_pytorch")
@pytest.mark.slow
@pytest.mark.parametrize("name", UNETS)
def test_an_encoder_of_segmentation_models(name: str) -> None:
    """The encoder's contract: the image, then maps of halved sizes with the channels that the decoder is built for."""
    import segmentation_models_pytorch as smp

    options = {key: value for key, value in UNETS[name].items() if key != "decoder_channels"}
    side, depth = options["img_size"], options.pop("encoder_depth", 5)
    encoder = smp.encoders.get_encoder(f"tu-vitrail_{name}", in_channels=4, depth=depth, weights=None, **options)
    x = torch.randn(2, 4, side, side)
    maps = encoder.train()(x)
    assert maps[0] is x
    assert [level.shape[1] for level in maps] == list(encoder.out_channels)
    assert [level.shape[2:] for level in maps] == [(side // 2**i, side // 2**i) for i in range(depth + 1)]
    assert encoder.output_stride == 2**depth
    shallow = smp.encoders.get_encoder(f"tu-vitrail_{name}", depth=3, weights=None, **options)
    assert [level.shape[1] for level in shallow(x[:, :3])] == shallow.out_channels == [3, *encoder.out_channels[1:4]]


@needs("segmentation_models_pytorch")
@pytest.mark.slow
@pytest.mark.parametrize("name", UNETS)
def test_a_unet_learns_all_of_it(name: str) -> None:
    import segmentation_models_pytorch as smp

    net = smp.Unet(f"tu-vitrail_{name}", encoder_weights=None, classes=2, **UNETS[name])
    side = UNETS[name]["img_size"]
    logits = net(torch.randn(2, 3, side, side))
    assert logits.shape == (2, 2, side, side)
    logits.square().mean().backward()
    silent = [key for key, one in net.encoder.named_parameters() if ".blocks." in key and one.grad is None]
    assert not silent


@needs("segmentation_models_pytorch")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16", "vitae_b", "revit_tiny"])
def test_a_dpt_reads_the_tokens(name: str) -> None:
    import segmentation_models_pytorch as smp

    token = name != "revit_tiny"
    readout = "cat" if token else "ignore"
    net = smp.DPT(f"tu-vitrail_{name}", encoder_weights=None, classes=2, img_size=64, decoder_readout=readout)
    assert net.encoder.has_prefix_tokens is token
    logits = net(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 2, 64, 64)
    logits.square().mean().backward()
    assert net.encoder.model.get_parameter(f"{net.encoder.model.default_cfg['first_conv'][0]}.weight").grad is not None
