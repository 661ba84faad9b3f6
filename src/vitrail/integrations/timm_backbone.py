"""A backbone of ours as timm knows a model: its method names, its options, its feature extractors."""

# No annotations as strings here: torch.fx copies those of ``forward`` into the graph.

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.models import Backbone
from vitrail.models.base import level_indices

FEATURE_CLASSES = ("list", "hook", "dict", "getter", "fx")
"""Values of timm's ``feature_cls``: ways to the same maps; the first two are one way here."""


class TimmBackbone(nn.Module):
    """A backbone with timm's method names; the tensors are those of a run's ``model.safetensors``.

    What the family never trains (random directions of ViTAE's attention) is a buffer here, since timm's rule is that
    every parameter gets a gradient.

    Attributes:
        backbone: ours.
        feature_info: one dictionary a level: ``num_chs``, ``reduction``, ``module``.
        pretrained_cfg: timm's description of the weights and of what they expect of an image.
        global_pool: "avg" or "token", as the family pools; "" after ``reset_classifier(0, "")``: the model then
            returns what :meth:`forward_features` returns.
        num_prefix_tokens: number of tokens before the patches; 0 where the family works on maps.
        in_chans: channels of the image.
    """

    def __init__(self, backbone: Backbone, pretrained_cfg: dict[str, Any]) -> None:
        super().__init__()
        _keep_as_buffers(backbone)
        self.backbone = backbone
        self.num_features = self.head_hidden_size = backbone.num_features
        self.in_chans = backbone.config.in_chans
        self.pretrained_cfg = self.default_cfg = pretrained_cfg
        self.global_pool = pooling_of(backbone)
        self.num_prefix_tokens: int = getattr(backbone, "num_prefix_tokens", 0)
        self.has_cls_token = self.num_prefix_tokens > 0
        self.feature_info = [
            {"num_chs": info.channels, "reduction": info.stride, "module": f"backbone.{info.name}"}
            for info in backbone.feature_info
        ]
        self._last_level = len(self.feature_info) - 1

    @property
    def num_classes(self) -> int:
        return self.backbone.num_classes

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        for x in self._levels(x):  # noqa: B007, B020 (only the last level is used; earlier ones are freed)
            pass
        return self._normed(x, self._last_level)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        if not self.global_pool:
            return x
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
        """As timm's: the chosen levels as maps (b, c, h, w), in the layout of ``output_fmt``.

        Args:
            x: images.
            indices: indices of levels (negative ones count from the end); an int n means the last n; None means all.
            return_prefix_tokens: pairs (map, tokens before the patches) instead of maps.
            norm: apply the final norm: where all levels are of one width to each of them, else to the last.
            stop_early: compute no level after the last chosen one, so that the final features are that level's.
            output_fmt: "NCHW", "NHWC", "NLC" or "NCL".
            intermediates_only: return the list of levels alone instead of (final features, levels).

        Raises:
            ConfigError: a level or a layout that does not exist, or ``return_prefix_tokens`` of a family without.
        """
        if return_prefix_tokens and not self.num_prefix_tokens:
            raise ConfigError("return_prefix_tokens=True is not possible: this model's levels are maps; pass False")
        wanted = self._wanted(indices)
        stop_early = stop_early or intermediates_only
        size, last = (x.shape[-2], x.shape[-1]), self._last_level
        kept: dict[int, Any] = {}
        for index, x in enumerate(self._levels(x)):  # noqa: B020 (as above)
            if index in wanted:
                level = self._normed(x, index) if norm else x
                kept[index] = in_format(self.backbone.to_map(level, size), output_fmt)
                if return_prefix_tokens:
                    kept[index] = kept[index], level[:, : self.num_prefix_tokens]
            if stop_early and index == max(wanted):
                last = index
                break
        levels = [kept[index] for index in wanted]
        return levels if intermediates_only else (self._normed(x, last), levels)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what no level of ``indices`` needs, in place; the features are then those of the last of them.

        Args:
            indices: as of :meth:`forward_intermediates`.
            prune_norm: drop the final norm too.
            prune_head: drop classifier and pooling too.

        Returns:
            the indices as numbers from 0.

        Raises:
            ConfigError: a level that does not exist.
        """
        wanted = self._wanted(indices)
        infos = self.backbone.feature_info
        for info in infos[max(wanted) + 1 : self._last_level + 1]:
            _drop(self.backbone, info.name)
        self._last_level = max(wanted)
        name, _, place = infos[self._last_level].name.partition(".")
        for container, modules in self.backbone.named_children():
            if isinstance(modules, nn.ModuleList) and (container == name or (not place and self._last_level == 0)):
                for number in range(int(place) + 1 if place else 0, len(modules)):
                    modules[number] = nn.Identity()
        if prune_norm and hasattr(self.backbone, "norm"):
            self.backbone.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return wanted

    def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]:
        """The classifier; of a model with a distillation token both, as timm's distilled models."""
        found = self.backbone.classifiers()
        return found[0] if len(found) == 1 else found

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier; 0 removes it.

        Args:
            num_classes: outputs.
            global_pool: "" removes the pooling too; the family's own ("avg" or "token") brings it back.

        Raises:
            ConfigError: another pooling than the family's, a classifier without pooling, or one of a model whose last
                level was dropped.
        """
        infos = self.backbone.feature_info
        if num_classes and infos[self._last_level].channels != infos[-1].channels:
            raise ConfigError(
                f"num_classes={num_classes}: {self._last_level + 1} of this model's {len(infos)} levels are left, and "
                "its classifier is for the last; build a new model"
            )
        self.set_pooling(self.global_pool if global_pool is None else global_pool, num_classes)
        self.backbone.reset_classifier(num_classes)

    def set_pooling(self, global_pool: str, num_classes: int) -> None:
        """Take the pooling of a model with so many classes.

        Raises:
            ConfigError: another pooling than the family's, or a classifier without pooling.
        """
        own = pooling_of(self.backbone)
        if global_pool not in ("", own):
            raise ConfigError(
                f"global_pool='{global_pool}' is not possible: the family pools as its paper does; take '{own}', or '' "
                "for features that are not pooled"
            )
        if not global_pool and num_classes:
            raise ConfigError(
                f"global_pool='' leaves nothing for a classifier of {num_classes} classes; take num_classes=0, or "
                f"global_pool='{own}'"
            )
        self.global_pool = global_pool

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.backbone.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's table of the layers from input to output, for layer-wise learning rates; one layer is one block where
        the family says so, else a stage. ``coarse`` changes nothing."""
        groups = [
            "|".join(re.escape(f"backbone.{prefix}") for prefix in group) for group in self.backbone.layer_groups()
        ]
        return {"stem": f"^(?:{groups[0]})", "blocks": [(f"^(?:{g})", (i,)) for i, g in enumerate(groups[1:])]}

    def __prepare_scriptable__(self) -> nn.Module:
        """torch.jit.script asks for it.

        Raises:
            ConfigError: always; TorchScript has no generators, which every family's levels are.
        """
        raise ConfigError("Vitrail's models cannot be scripted; take torch.export, torch.compile or torch.jit.trace")

    def _levels(self, x: Tensor) -> Iterator[Tensor]:
        self.backbone.check_images(x)
        for index, level in enumerate(self.backbone.forward_stages(x)):
            yield level
            if index == self._last_level:
                return

    def _normed(self, level: Tensor, index: int) -> Tensor:
        same_width = len({info.channels for info in self.backbone.feature_info}) == 1
        return self.backbone.final_norm(level) if same_width or index == len(self.feature_info) - 1 else level

    def _wanted(self, indices: int | Sequence[int] | None) -> list[int]:
        return chosen_levels(indices, self._last_level + 1)


class TimmFeatures(nn.Module):
    """A model of ``features_only=True``: images to the maps of the chosen levels.

    Attributes:
        feature_info: timm's description of the chosen levels; all of them by default.
        return_layers: module path -> level; an assignment to it (transformers makes one) changes the result.
        maps: one module a level through which its map goes, so that hooks and torch.fx find it.
    """

    def __init__(
        self,
        model: TimmBackbone,
        out_indices: int | Sequence[int] | None = None,
        output_fmt: str = "NCHW",
        return_dict: bool = False,
    ) -> None:
        from timm.models import FeatureInfo

        super().__init__()
        count = len(model.feature_info)
        self.model = model
        self.feature_info = FeatureInfo(model.feature_info, tuple(chosen_levels(out_indices, count)))
        self.return_layers = {info["module"]: str(info["index"]) for info in self.feature_info.get_dicts()}
        self.output_fmt = output_fmt
        self.return_dict = return_dict
        self.maps = nn.ModuleList(nn.Identity() for _ in range(count))
        self.in_chans = model.in_chans

    def forward(self, x: Tensor) -> list[Tensor] | dict[str, Tensor]:
        levels = [int(index) for index in self.return_layers.values()]
        found = self.model.forward_intermediates(x, levels, output_fmt=self.output_fmt, intermediates_only=True)
        maps = [self.maps[level](one) for level, one in zip(levels, found, strict=True)]
        return OrderedDict(zip(map(str, levels), maps, strict=True)) if self.return_dict else maps

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.model.set_grad_checkpointing(enable)


def extract_features(
    model: TimmBackbone,
    out_indices: int | Sequence[int] | None = None,
    feature_cls: str | Callable[..., nn.Module] = "list",
    **options: Any,
) -> nn.Module:
    """A model of the maps of some levels, as timm's ``features_only=True`` makes one.

    Args:
        model: gives the levels; it is kept, and shortened by "getter".
        out_indices: levels, see :meth:`TimmBackbone.forward_intermediates`.
        feature_cls: one of :data:`FEATURE_CLASSES`, or a class such as ``timm.models.FeatureGetterNet``. "dict" gives
            a dictionary from the number of the level; "getter" is timm's class; "fx" a graph of torch.fx.
        **options: more arguments of the class, such as ``output_fmt``.

    Raises:
        ConfigError: there is no such level, or no such class.
    """
    from timm.models import GraphExtractNet
    from timm.models._features import FeatureGetterNet

    way = _way(feature_cls)
    of_classifiers, of_others = ("num_classes", "classifier", "global_pool"), ("flatten_sequential", "no_rewrite")
    cfg = {name: value for name, value in model.pretrained_cfg.items() if name not in of_classifiers}
    options = {name: value for name, value in options.items() if name not in of_others}
    features: Any
    if not isinstance(way, str) or way == "getter":
        levels = tuple(chosen_levels(out_indices, len(model.feature_info)))
        make = FeatureGetterNet if isinstance(way, str) else way
        features = make(model, out_indices=levels, **options)
    elif way in FEATURE_CLASSES:
        features = TimmFeatures(model, out_indices, **options | ({"return_dict": True} if way == "dict" else {}))
    else:
        known = ", ".join(f"'{name}'" for name in FEATURE_CLASSES)
        raise ConfigError(f"feature_cls='{feature_cls}' does not exist; take {known}, or a class")
    if way == "fx":
        info = features.feature_info
        nodes = {f"maps.{level}": str(level) for level in info.out_indices}
        features = GraphExtractNet(features, nodes, squeeze_out=False)
        features.feature_info, features.in_chans = info, model.in_chans
    features.pretrained_cfg = features.default_cfg = cfg
    assert isinstance(features, nn.Module)
    return features


def _way(feature_cls: str | Callable[..., nn.Module]) -> str | Callable[..., nn.Module]:
    """The word for timm's own classes: most are made for its order of modules, and would find nothing in ours."""
    from timm.models._features import FeatureDictNet, FeatureGetterNet, FeatureHookNet, FeatureListNet
    from timm.models._features_fx import FeatureGraphNet

    if isinstance(feature_cls, str):
        return feature_cls.lower()
    classes = (FeatureListNet, FeatureHookNet, FeatureDictNet, FeatureGetterNet, FeatureGraphNet)
    words: dict[Any, str] = dict(zip(classes, FEATURE_CLASSES, strict=True))
    return words.get(feature_cls, feature_cls)


def chosen_levels(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """Indices of levels as numbers from 0, in rising order; None means all.

    Raises:
        ConfigError: there is no such level, or no level is chosen.
    """
    chosen = level_indices(indices, count)
    if not chosen:
        raise ConfigError(f"indices={indices} chooses no level: this model has {count} levels, 0 to {count - 1}")
    return chosen


def pooling_of(backbone: Backbone) -> str:
    """timm's word for the family's pooling: "token" (the class token) or "avg"."""
    config = backbone.config
    token = getattr(config, "global_pool", "token" if getattr(config, "class_token", False) else "avg") == "token"
    return "token" if token else "avg"


def input_convolutions(backbone: Backbone) -> tuple[str, ...]:
    """Names of the convolutions that read the image (timm's ``first_conv``), as in :class:`TimmBackbone`."""
    first = backbone.layer_groups()[0]
    return tuple(
        f"backbone.{name}"
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == backbone.config.in_chans and module.groups == 1
        if f"{name}.".startswith(first)
    )


def in_format(level: Tensor, output_fmt: str) -> Tensor:
    """A map (b, c, h, w) in another of timm's layouts.

    Raises:
        ConfigError: there is no such layout.
    """
    from timm.layers.format import Format, nchw_to

    try:
        layout = Format(output_fmt)
    except ValueError:
        known = ", ".join(f"'{one.value}'" for one in Format)
        raise ConfigError(f"output_fmt='{output_fmt}' does not exist; take {known}") from None
    converted: Tensor = nchw_to(level, layout)
    return converted


def _drop(module: nn.Module, name: str) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, nn.Identity())


def _keep_as_buffers(backbone: nn.Module) -> None:
    for module in backbone.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
