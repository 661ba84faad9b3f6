"""Every variant as a timm model: ``timm.create_model("vitrail_edgevit_xxs", features_only=True)``.

After :func:`register`, whatever builds its backbones through timm can have ours: transformers' ``AutoBackbone`` with
``TimmBackboneConfig(backbone="vitrail_edgevit_xxs")``, or segmentation_models_pytorch with ``tu-vitrail_edgevit_xxs``.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields as dataclass_fields, replace
from functools import cache
from typing import Any

import torch
from torch import nn
from torchvision.ops import StochasticDepth

from vitrail.core.errors import ConfigError
from vitrail.core.extras import import_extra
from vitrail.core.types import Preprocessing
from vitrail.integrations.timm_backbone import TimmBackbone, extract_features, input_convolutions
from vitrail.layers.conv import Conv2dSame
from vitrail.layers.max_sa import PartitionAttention
from vitrail.layers.mobilevit import MobileViTBlock
from vitrail.layers.performer import PerformerAttention
from vitrail.layers.residual_attention import PooledResidualAttention
from vitrail.layers.window import WindowAttention
from vitrail.models import FAMILIES, Backbone, create_model, find_family, list_models

PREFIX = "vitrail_"

UNTRACED = (
    Conv2dSame,
    MobileViTBlock,
    PerformerAttention,
    PooledResidualAttention,
    PartitionAttention,
    StochasticDepth,
    WindowAttention,
)
"""Modules that torch.fx keeps whole, since what they do depends on the size or kind of the input."""

default_cfgs: dict[str, Any] = {}
"""Table from which timm's ``register_model`` reads a model's weights: name -> ``timm.models.DefaultCfg``."""


def register() -> list[str]:
    """Register every variant with timm; a second call changes nothing.

    ``timm.create_model`` then takes, besides its own arguments (``pretrained``, ``features_only``, ``out_indices``,
    ``num_classes``, ``in_chans``, ``img_size``, ``drop_path_rate``), any field of the family's configuration; and tags
    of the weights, as in ``vitrail_vit_tiny_patch16.augreg_in21k``.

    Returns:
        the names, each ``vitrail_`` and the variant's own.

    Raises:
        MissingDependencyError: timm is not installed.
    """
    models = import_extra("timm.models", "timm", "timm")
    for module in UNTRACED:
        models.register_notrace_module(module)
    names = {PREFIX + name: name for name in list_models()}
    for timm_name, name in names.items():
        if not models.is_model(timm_name):
            default_cfgs[timm_name] = _default_cfg(name)
            entrypoint = _entrypoint(timm_name, name)
            setattr(sys.modules[__name__], timm_name, entrypoint)  # timm adds the name to __all__
            models.register_model(entrypoint)
    return list(names)


def _entrypoint(timm_name: str, name: str) -> Callable[..., nn.Module]:
    def build(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Mapping[str, Any] | None = None,
        cache_dir: str | None = None,
        features_only: bool = False,
        out_indices: int | Sequence[int] | None = None,
        feature_cls: str | Callable[..., nn.Module] | None = None,
        feature_cfg: Mapping[str, Any] | None = None,
        global_pool: str | None = None,
        **fields: Any,
    ) -> nn.Module:
        if cache_dir is not None:
            raise ConfigError(f"cache_dir='{cache_dir}' is not possible; set HF_HUB_CACHE instead")
        fields.pop("pretrained_model_args", None)  # how a saved model was made; timm has put it among the fields too
        source = _source(name, pretrained_cfg, dict(pretrained_cfg_overlay or {}))
        if features_only:
            fields["num_classes"] = 0
        own = [field.name for field in dataclass_fields(find_family(name).variants[name])]
        if global_pool and "global_pool" in own:
            fields["global_pool"] = global_pool
        model = _build(name, source, pretrained, fields)
        if not features_only:
            if global_pool is not None and "global_pool" not in fields:
                model.set_pooling(global_pool, model.num_classes)
            return model
        options = dict(feature_cfg or {})
        given = {"out_indices": out_indices, "feature_cls": feature_cls}
        return extract_features(model, **options | {key: value for key, value in given.items() if value is not None})

    build.__name__ = build.__qualname__ = timm_name
    build.__doc__ = f"Vitrail's {name}, see :func:`vitrail.create_model`."
    return build


def _source(name: str, given: Any, overlay: dict[str, Any]) -> dict[str, Any]:
    """The description of the weights: timm's table, what the caller gives, and what lies over both; only what is set.

    Three more entries: ``asked``, whether the caller described weights or named their tag; ``own``, whether by a whole
    description; and ``overlay`` as it is.

    Raises:
        CheckpointError: there is no such tag.
    """
    from timm.models import PretrainedCfg, get_pretrained_cfg

    family = find_family(name)
    if isinstance(given, PretrainedCfg):
        given = asdict(given)
    known: dict[str, Any]
    if isinstance(given, Mapping):
        known = dict(given)
    else:
        if given:
            family.find_weights(name, given, family.variants[name].image_size)  # or the error that lists the tags
        known = asdict(get_pretrained_cfg(".".join(filter(None, (PREFIX + name, given))), allow_unregistered=False))  # type: ignore[arg-type]  # it raises, or there is one
    known = {key: value for key, value in known.items() if value is not None}
    if not given:
        known.pop("tag", None)
    own = isinstance(given, Mapping)
    return known | overlay | {"asked": bool(given or overlay), "own": own, "overlay": overlay}


def _weights(name: str, source: Mapping[str, Any]) -> str:
    """What :func:`~vitrail.models.create_model` takes as ``weights``.

    Raises:
        ConfigError: a dictionary of tensors.
    """
    if source.get("state_dict"):
        raise ConfigError("pretrained_cfg['state_dict'] is not possible; build the model and call its load_state_dict")
    ours = {weights.hub_id for weights in find_family(name).weights.get(name, ())}
    hub_id, file = source.get("hf_hub_id"), source.get("hf_hub_filename") or "model.safetensors"
    if path := source.get("file") or source.get("url"):
        return str(path)
    if hub_id and hub_id not in ours:
        return f"hf://{hub_id}/{file}"
    tag = source.get("tag")
    return f"pretrained:{tag}" if tag else "pretrained"


def _build(name: str, source: Mapping[str, Any], pretrained: bool, fields: dict[str, Any]) -> TimmBackbone:
    size = fields.pop("img_size", None)
    if source["asked"]:  # the network of those weights, trained or not
        if fields.get("num_classes") is None and "num_classes" in source:
            fields["num_classes"] = source["num_classes"]
        if size is None and source.get("fixed_input_size") and "input_size" in source:
            size = tuple(source["input_size"][1:])
    own_head = fields.get("num_classes") not in (None, source.get("num_classes"))
    model = create_model(
        name,
        image_size=size,
        weights=_weights(name, source) if pretrained else None,
        replace_head=own_head if pretrained else None,
        **fields,
    )
    cfg = asdict(_pretrained_cfg(model.preprocessing, fixed=model.fixed_image_size, num_classes=model.num_classes))
    if source["asked"] or pretrained:
        origin = ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "tag", "license")
        cfg |= {key: source[key] for key in origin if key in source}
    if source["own"] or (source["asked"] and not pretrained):
        cfg |= {key: source[key] for key in ("mean", "std", "crop_pct", "interpolation") if key in source}
    cfg |= source["overlay"] | _shape_entries(model) | {"architecture": PREFIX + name}
    nullable = ("pool_size", "first_conv", "classifier")  # as timm's own descriptions
    return TimmBackbone(model, {key: value for key, value in cfg.items() if value is not None or key in nullable})


def _shape_entries(model: Backbone) -> dict[str, Any]:
    """Entries of timm's description that follow from the network: size of images and of the last map, first layers."""
    height, width = model.config.image_size
    stride = model.feature_info[-1].stride
    sequence = hasattr(model, "num_prefix_tokens")
    return {
        "input_size": (model.config.in_chans, height, width),
        "pool_size": None if sequence else (-(-height // stride), -(-width // stride)),
        "first_conv": input_convolutions(model),
    }


def _default_cfg(name: str) -> Any:
    """What timm lists: a tag for each of the weights on the hub, or one entry without weights."""
    from timm.models import DefaultCfg

    family = find_family(name)
    fixed = _fixed_size(family.name)
    cfgs: dict[str, Any] = {}
    for weights in family.weights.get(name, ()):
        cfg = _pretrained_cfg(
            weights.preprocessing, fixed=fixed, num_classes=weights.num_classes, license=weights.licence
        )
        cfgs.setdefault(weights.tag, replace(cfg, hf_hub_id=weights.hub_id, tag=weights.tag))
    if not cfgs:
        size = family.variants[name].image_size
        cfgs[""] = _pretrained_cfg(replace(family.backbone.preprocessing, image_size=size), fixed=fixed)
    return DefaultCfg(tags=deque(cfgs), cfgs=cfgs)


@cache
def _fixed_size(family: str) -> bool:
    """Whether the family's models take one image size; its model for the smallest images tells it."""
    variants = FAMILIES[family].variants
    with torch.device("meta"):
        model = create_model(min(variants, key=lambda name: variants[name].image_size))
    return model.fixed_image_size


def _pretrained_cfg(preprocessing: Preprocessing, *, fixed: bool, **fields: Any) -> Any:
    from timm.models import PretrainedCfg

    return PretrainedCfg(
        input_size=(3, *preprocessing.image_size),
        fixed_input_size=fixed,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=preprocessing.crop_fraction,
        interpolation=preprocessing.interpolation,
        classifier="backbone.head",
        **fields,
    )
