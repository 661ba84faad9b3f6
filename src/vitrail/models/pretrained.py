"""Public weights on the Hugging Face hub, as data: which file, made how, expecting which images, under which licence.

The hub ids are those of timm 1.0.31's configurations, whose repositories hold a ``model.safetensors`` in timm's layout;
MAE's weights are left out, since their licence forbids commercial use. Accuracies are given where a paper or the
authors' model zoo states them for these very weights.

MaxViT's weights for 384 and 512 pixels were trained on images squashed to a square; ours are cut to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vitrail.core.errors import CheckpointError
from vitrail.core.types import HALF, ImageSize, Preprocessing

PREFIX = "pretrained"
"""What ``weights=`` starts with to mean this table: ``pretrained`` or ``pretrained:TAG``."""


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """One file of weights on the hub.

    Attributes:
        hub_id: repository, ``owner/name``.
        file: path in it.
        revision: branch, tag or commit.
        sha256: of the file; None where the hub's own record is what the download is compared with.
        tag: how it was trained, e.g. ``augreg_in21k_ft_in1k``.
        image_size: (height, width) that it was trained for.
        preprocessing: what it expects of an image.
        num_classes: outputs of its classifier; 0 where it has none.
        licence: as the hub has it.
        top1: published accuracy on ImageNet-1K, in percent.
        source: who published that figure.
    """

    hub_id: str
    file: str = "model.safetensors"
    revision: str = "main"
    sha256: str | None = None
    tag: str
    image_size: ImageSize
    preprocessing: Preprocessing
    num_classes: int = 1000
    licence: str = "apache-2.0"
    top1: float | None = None
    source: str = ""


def _vit(name: str, side: int, tag: str) -> PretrainedWeights:
    """The rules of timm's ViT weights: 21k weights have 21,843 classes, or no classifier where training used a tanh."""
    classes = 1000 if tag.endswith("in1k") else 21843 if tag == "augreg_in21k" else 0
    preprocessing = Preprocessing(image_size=(side, side), crop_fraction=1.0 if side == 384 else 0.9)
    if tag != "dino":
        preprocessing = replace(preprocessing, mean=HALF, std=HALF)
    return PretrainedWeights(
        hub_id=f"timm/{name}_{side}.{tag}",
        tag=tag,
        image_size=(side, side),
        preprocessing=preprocessing,
        num_classes=classes,
    )


_AUGREG = "augreg_in21k_ft_in1k"

# The first of a size is what timm takes for it.
_VIT: dict[str, tuple[str, dict[int, tuple[str, ...]]]] = {
    "vit_tiny_patch16": ("vit_tiny_patch16", {224: (_AUGREG, "augreg_in21k"), 384: (_AUGREG,)}),
    "vit_small_patch8": ("vit_small_patch8", {224: ("dino",)}),
    "vit_small_patch16": (
        "vit_small_patch16",
        {224: (_AUGREG, "augreg_in1k", "augreg_in21k", "dino"), 384: (_AUGREG, "augreg_in1k")},
    ),
    "vit_small_patch32": ("vit_small_patch32", {224: (_AUGREG, "augreg_in21k"), 384: (_AUGREG,)}),
    "vit_base_patch8": ("vit_base_patch8", {224: ("augreg2_in21k_ft_in1k", _AUGREG, "augreg_in21k", "dino")}),
    "vit_base_patch16": (
        "vit_base_patch16",
        {
            224: (
                "augreg2_in21k_ft_in1k",
                _AUGREG,
                "orig_in21k_ft_in1k",
                "augreg_in1k",
                "sam_in1k",
                "augreg_in21k",
                "orig_in21k",
                "dino",
            ),
            384: (_AUGREG, "orig_in21k_ft_in1k", "augreg_in1k"),
        },
    ),
    "vit_base_patch32": (
        "vit_base_patch32",
        {224: (_AUGREG, "augreg_in1k", "sam_in1k", "augreg_in21k", "orig_in21k"), 384: (_AUGREG, "augreg_in1k")},
    ),
    "vit_large_patch16": (
        "vit_large_patch16",
        {224: (_AUGREG, "augreg_in21k", "orig_in21k"), 384: (_AUGREG,)},
    ),
    "vit_large_patch32": ("vit_large_patch32", {224: ("orig_in21k",), 384: ("orig_in21k_ft_in1k",)}),
    "vit_huge_patch14": ("vit_huge_patch14", {224: ("orig_in21k",)}),
    "vit_tiny_r_s16": ("vit_tiny_r_s16_p8", {224: (_AUGREG, "augreg_in21k"), 384: (_AUGREG,)}),
    "vit_small_r26_s32": ("vit_small_r26_s32", {224: (_AUGREG, "augreg_in21k"), 384: (_AUGREG,)}),
    "vit_base_r50_s16": ("vit_base_r50_s16", {224: ("orig_in21k",), 384: ("orig_in21k_ft_in1k",)}),
    "vit_large_r50_s32": ("vit_large_r50_s32", {224: (_AUGREG, "augreg_in21k"), 384: (_AUGREG,)}),
}
"""Variant -> (timm's name, image side -> tags)."""


def _maxvit(name: str, side: int, tag: str, top1: float | None = None) -> PretrainedWeights:
    preprocessing = Preprocessing(image_size=(side, side), crop_fraction=0.95 if side == 224 else 1.0)
    if (side, tag) != (224, "in1k"):
        preprocessing = replace(preprocessing, mean=HALF, std=HALF)
    return PretrainedWeights(
        hub_id=f"timm/{name}_tf_{side}.{tag}",
        tag=tag,
        image_size=(side, side),
        preprocessing=preprocessing,
        num_classes=21843 if tag == "in21k" else 1000,
        top1=top1,
        source="" if top1 is None else "the paper, tables 2 and 3",
    )


_MAXVIT: dict[str, dict[int, dict[str, float | None]]] = {
    "maxvit_tiny": {224: {"in1k": 83.62}, 384: {"in1k": 85.24}, 512: {"in1k": 85.72}},
    "maxvit_small": {224: {"in1k": 84.45}, 384: {"in1k": 85.74}, 512: {"in1k": 86.19}},
    "maxvit_base": {
        224: {"in1k": 84.95, "in21k": None},
        384: {"in1k": 86.34, "in21k_ft_in1k": 88.24},
        512: {"in1k": 86.66, "in21k_ft_in1k": 88.38},
    },
    "maxvit_large": {
        224: {"in1k": 85.17, "in21k": None},
        384: {"in1k": 86.40, "in21k_ft_in1k": 88.32},
        512: {"in1k": 86.70, "in21k_ft_in1k": 88.46},
    },
    "maxvit_xlarge": {224: {"in21k": None}, 384: {"in21k_ft_in1k": 88.51}, 512: {"in21k_ft_in1k": 88.70}},
}
"""Variant -> image side -> tag -> top-1."""


def _mobilevit(name: str, top1: float) -> PretrainedWeights:
    return PretrainedWeights(
        hub_id=f"timm/{name}.cvnets_in1k",
        tag="cvnets_in1k",
        image_size=(256, 256),
        preprocessing=Preprocessing(image_size=(256, 256), mean=(0.0,) * 3, std=(1.0,) * 3, crop_fraction=0.9),
        licence="cvnets-license",
        top1=top1,
        source="ml-cvnets' model zoo",
    )


def _poolformer(name: str, top1: float) -> PretrainedWeights:
    return PretrainedWeights(
        hub_id=f"timm/{name}.sail_in1k",
        tag="sail_in1k",
        image_size=(224, 224),
        preprocessing=Preprocessing(crop_fraction=0.95 if "_m" in name else 0.9),
        top1=top1,
        source="the paper, with the authors' head",
    )


PRETRAINED: dict[str, Sequence[PretrainedWeights]] = {
    **{
        name: tuple(_vit(timm, side, tag) for side, tags in sizes.items() for tag in tags)
        for name, (timm, sizes) in _VIT.items()
    },
    **{
        name: tuple(_maxvit(name, side, tag, top1) for side, tags in sizes.items() for tag, top1 in tags.items())
        for name, sizes in _MAXVIT.items()
    },
    **{
        name: (_mobilevit(name, top1),)
        for name, top1 in {"mobilevit_xxs": 69.0, "mobilevit_xs": 74.7, "mobilevit_s": 78.3}.items()
    },
    **{
        f"poolformer_{size}": (_poolformer(f"poolformer_{size}", top1),)
        for size, top1 in {"s12": 77.2, "s24": 80.3, "s36": 81.4, "m36": 82.1, "m48": 82.5}.items()
    },
}
"""Variant -> its files on the hub; of one image size the default comes first."""

ELSEWHERE = {
    "edgevit": "the authors never published any (https://github.com/saic-fi/edgevit)",
    "revit": "the authors link theirs on Google Drive (https://github.com/ADiko1997/ReViT)",
    "reswin": "the authors link theirs on Google Drive (https://github.com/ADiko1997/ReViT)",
    "remvit": "the authors link theirs on Google Drive (https://github.com/ADiko1997/ReViT)",
    "vitae": "the authors link theirs on Google Drive (https://github.com/ViTAE-Transformer/ViTAE-Transformer)",
    "vitae_plain": "the authors link theirs on Google Drive and OneDrive (https://github.com/ViTAE-Transformer/ViTAE-Transformer)",
    "vitaev2": "the authors link theirs on OneDrive (https://github.com/ViTAE-Transformer/ViTAE-Transformer)",
    "exmobilevit": "the authors published none (https://github.com/EmPasLab/ExMobileVIT)",
}
"""Families without weights on the hub -> where their authors' are."""


def without_weights(name: str, family: str, ours: bool) -> str:
    """Why the variant ``name`` has no weights on the hub, and what there is instead."""
    if ours:
        return f"{name} is a variant of Vitrail's own, which nobody has trained on a public data set"
    return ELSEWHERE.get(family, f"nobody has published any for {name}; 'vitrail models {family}*' lists its sisters")


def parse_pretrained(weights: str) -> str | None:
    """The tag of ``pretrained:TAG``, "" of ``pretrained``; None where ``weights`` names a file or an address."""
    kind, _, tag = weights.partition(":")
    return tag if kind == PREFIX and not tag.startswith("//") else None


def find_pretrained(name: str, family: str, ours: bool, tag: str, image_size: ImageSize) -> PretrainedWeights:
    """The weights of ``name`` that were trained nearest to ``image_size``.

    Args:
        name, family, ours: the variant, its family, and whether no paper published it.
        tag: how they were trained; "" takes what timm takes for that size.
        image_size: (height, width) in pixels.

    Raises:
        CheckpointError: there are none; the message says what there is.
    """
    known = PRETRAINED.get(name, ())
    if not known:
        raise CheckpointError(
            f"no public weights of {name} can be downloaded: {without_weights(name, family, ours)}; "
            "pass a file as weights, or train it"
        )
    chosen = [weights for weights in known if tag in ("", weights.tag)]
    if not chosen:
        tags = ", ".join(dict.fromkeys(weights.tag for weights in known))
        raise CheckpointError(f"{name} has no pretrained weights '{tag}'; known: {tags}")
    area = image_size[0] * image_size[1]
    return min(chosen, key=lambda weights: abs(weights.image_size[0] * weights.image_size[1] - area))
