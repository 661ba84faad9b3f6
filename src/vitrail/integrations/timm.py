"""Every variant as a timm model: ``timm.create_model("vitrail_edgevit_xxs", features_only=True)``.

After :func:`register`, whatever builds its backbones through timm can have ours: transformers' ``AutoBackbone`` with
``TimmBackboneConfig(backbone="vitrail_edgevit_xxs")``, or segmentation_models_pytorch with ``tu-vitrail_edgevit_xxs``.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.core.extras import import_extra
from vitrail.core.types import Preprocessing
from vitrail.models import FAMILIES, Backbone, create_model, find_family, list_models

PREFIX = "vitrail_"

default_cfgs: dict[str, Any] = {}
"""Table from which timm's ``register_model`` reads a model's weights: name -> ``timm.models.DefaultCfg``."""


class TimmBackbone(nn.Module):
    """A backbone with timm's method names; the parameters are those of a run's ``model.safetensors``.

    Attributes:
        backbone: ours.
        feature_info: one dictionary a level: ``num_chs``, ``reduction``, ``module``.
        pretrained_cfg: timm's description of the weights and of what they expect of an image.
    """

    def __init__(self, backbone: Backbone, pretrained_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_features = self.head_hidden_size = backbone.num_features
        self.pretrained_cfg = self.default_cfg = pretrained_cfg
        self.feature_info = [
            {"num_chs": info.channels, "reduction": info.stride, "module": f"backbone.{info.name}"}
            for info in backbone.feature_info
        ]

    @property
    def num_classes(self) -> int:
        return self.backbone.num_classes

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.backbone.forward_features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.backbone.forward_head(x, pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """As timm's: maps (b, c, h, w) of the chosen levels, in the layout of ``output_fmt``.

        ``stop_early`` changes nothing: with ``intermediates_only`` no level after the last chosen one is computed.

        Raises:
            ConfigError: a level that does not exist, or ``return_prefix_tokens``: maps have none.
        """
        if return_prefix_tokens:
            raise ConfigError("return_prefix_tokens=True is not possible: Vitrail's levels are maps; pass False")
        from timm.layers.format import Format, nchw_to

        result = self.backbone.forward_intermediates(x, indices, norm=norm, intermediates_only=intermediates_only)
        layout = Format(output_fmt)
        if intermediates_only:
            return [nchw_to(level, layout) for level in result]
        return result[0], [nchw_to(level, layout) for level in result[1]]

    def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]:
        """The classifier; of a model with a distillation token both, as timm's distilled models."""
        found = self.backbone.classifiers()
        return found[0] if len(found) == 1 else found

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """
        Raises:
            ConfigError: ``global_pool`` is set; a family pools as its paper does.
        """
        if global_pool is not None:
            raise ConfigError(f"global_pool='{global_pool}' is not possible: the family pools as its paper does")
        self.backbone.reset_classifier(num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.backbone.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}


class TimmFeatures(nn.Module):
    """A model of ``features_only=True``: images to the maps of the chosen levels.

    Attributes:
        feature_info: timm's description of the chosen levels; all of them by default.
        return_layers: module path -> level; an assignment to it (transformers makes one) changes the result.
    """

    def __init__(self, model: TimmBackbone, out_indices: int | Sequence[int] | None) -> None:
        from timm.models import FeatureInfo

        super().__init__()
        count = len(model.feature_info)
        chosen = range(count) if out_indices is None else out_indices
        chosen = range(-chosen, 0) if isinstance(chosen, int) else chosen
        if any(not -count <= index < count for index in chosen):
            raise ConfigError(f"out_indices={out_indices}: this model has {count} levels, 0 to {count - 1}")
        self.model = model
        self.feature_info = FeatureInfo(model.feature_info, tuple(sorted({index % count for index in chosen})))
        self.return_layers = {info["module"]: str(info["index"]) for info in self.feature_info.get_dicts()}
        self.pretrained_cfg = self.default_cfg = model.pretrained_cfg

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [int(index) for index in self.return_layers.values()]
        maps: list[Tensor] = self.model.forward_intermediates(x, levels, intermediates_only=True)
        return maps

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.model.set_grad_checkpointing(enable)


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
        img_size: int | tuple[int, int] | None = None,
        **fields: Any,
    ) -> nn.Module:
        if cache_dir is not None:
            raise ConfigError(f"cache_dir='{cache_dir}' is not possible; set HF_HUB_CACHE instead")
        overlay = dict(pretrained_cfg_overlay or {})
        tag = pretrained_cfg if isinstance(pretrained_cfg, str) else getattr(pretrained_cfg, "tag", None)
        weights = overlay.get("file") or (f"pretrained:{tag}" if tag else "pretrained")
        if features_only:
            fields["num_classes"] = 0
        model = create_model(
            name, image_size=img_size, weights=weights if pretrained else None, replace_head=True, **fields
        )
        cfg = _pretrained_cfg(
            model.preprocessing,
            fixed=model.fixed_image_size,
            num_classes=model.num_classes,
            architecture=timm_name,
            tag=tag,
        )
        shape = (model.config.in_chans, *model.config.image_size)
        wrapped = TimmBackbone(model, asdict(cfg) | {"input_size": shape} | overlay)
        return TimmFeatures(wrapped, out_indices) if features_only else wrapped

    build.__name__ = build.__qualname__ = timm_name
    build.__doc__ = f"Vitrail's {name}, see :func:`vitrail.create_model`."
    return build


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
