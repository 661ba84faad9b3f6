"""Any model of timm as a backbone of ours: ``create_model("timm:mobilenetv4_conv_small")``.

timm (Wightman, PyTorch Image Models, huggingface/pytorch-image-models, Apache-2.0) builds the network. This file turns
its contract (``forward_intermediates``, ``feature_info``, ``group_matcher``, ``pretrained_cfg``) into ours. A parameter
has timm's name behind ``network.``, so that timm's files load, and ours load into timm.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args

import torch
from torch import Tensor, nn

from vitrail.core.errors import CheckpointError, ConfigError, ImageSizeError, UnknownNameError
from vitrail.core.extras import import_extra
from vitrail.core.types import ImageSize, Interpolation, Preprocessing
from vitrail.models.base import Backbone, BackboneConfig, level_indices
from vitrail.models.checkpoint import Key
from vitrail.models.family import Family
from vitrail.models.pretrained import PretrainedWeights
from vitrail.models.timm_levels import levels_of, takes_norm
from vitrail.models.timm_positions import resized_bias, resized_positions

PREFIX = "timm:"
"""Start of the name of a model of timm."""

OURS = "vitrail_"
"""Start of the names under which our own models are registered with timm."""

DROPS = ("drop_rate", "drop_path_rate")
"""Fields that some architectures of timm do not take."""


IN_PLACE = ("reparameterize", "switch_to_deploy")
"""Methods of modules of timm that join their branches; others have ``fuse``, which returns another module."""


@dataclass(frozen=True, kw_only=True)
class TimmConfig(BackboneConfig):
    """
    Attributes:
        architecture: timm's name of the network, without the tag of its weights.
        options: further arguments of ``timm.create_model``, such as ``{"global_pool": "avg"}``.
    """

    architecture: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


class TimmModel(Backbone):
    """A network of timm.

    Attributes:
        network: timm's module.
        fused: whether its branches are joined.
        normed: whether levels can be normalised, see :func:`~vitrail.models.timm_levels.takes_norm`.
    """

    def __init__(self, config: TimmConfig) -> None:
        """
        Raises:
            ConfigError: the architecture does not take an option.
            ImageSizeError: it does not take the image size.
        """
        super().__init__(config)
        self.config: TimmConfig
        self.network, left_out = _build(config)
        self.fused = False
        if left_out:
            self.remarks = (f"{PREFIX}{config.architecture} takes no {' and no '.join(left_out)}",)
        cfg = self.network.pretrained_cfg
        self.preprocessing = _preprocessing(cfg)
        self.fixed_size = bool(cfg.get("fixed_input_size")) and not config.options.get("dynamic_img_size", False)
        self.feature_info, self.normed = levels_of(self.network), takes_norm(self.network)
        stride = max((info.stride for info in self.feature_info), default=1)
        # some networks cut off what a patch does not fill; those whose own size is no multiple round up
        self.size_divisor = stride if all(side % stride == 0 for side in cfg["input_size"][1:]) else 1
        self.num_features = getattr(self.network, "head_hidden_size", self.network.num_features)
        self._note_classifier()
        self.check_image_size(*config.image_size)
        if config.image_size != tuple(cfg["input_size"][1:]):
            self._require_that_it_runs()

    def _require_that_it_runs(self) -> None:
        """Some networks are built for any size, and take their own alone.

        Raises:
            ImageSizeError: an image of the size does not pass.
        """
        image = torch.zeros(1, self.config.in_chans, *self.config.image_size, device=next(self.parameters()).device)
        try:
            with torch.no_grad():
                self.network.eval()(image)
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            size = "x".join(map(str, self.config.image_size))
            own = "x".join(map(str, self.network.pretrained_cfg["input_size"][1:]))
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise ImageSizeError(
                f"image size {size} is not allowed: {PREFIX}{self.config.architecture} cannot take it ({reason}); take "
                f"{own}, or a size nearer to it"
            ) from error
        finally:
            self.network.train()

    def _classifier(self) -> Any:
        """What timm calls the classifier; some networks that have none fail to say so."""
        try:
            return self.network.get_classifier()
        except AttributeError:
            if self.num_classes:
                raise
            return nn.Identity()

    def _note_classifier(self) -> None:
        parts = self.classifiers()
        names = [name for name, module in self.network.named_modules() if name and any(module is one for one in parts)]
        found = tuple(f"network.{name}." for name in names) or ("network.head.",)
        self.head_prefixes = found  # type: ignore[misc]  # each network has its own

    @property
    def head(self) -> nn.Module:  # type: ignore[override]  # it stays where timm has it
        """The classifier; where there are two (a distilled model's), the module of both is the network."""
        found = self._classifier()
        return found if isinstance(found, nn.Module) else self.network

    def classifiers(self) -> tuple[nn.Module, ...]:
        found = self._classifier()
        return found if isinstance(found, tuple) else (found,)

    def forward_stages(self, x: Tensor) -> Iterator[Tensor]:
        if self.feature_info:
            yield from self.network.forward_intermediates(x, intermediates_only=True)
        else:
            yield self.network.forward_features(x)

    def pool(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.network.forward_head(x, pre_logits=True)
        return pooled

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_image_size(x.shape[-2], x.shape[-1])
        features: Tensor = self.network.forward_features(x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        output: Tensor = self.network.forward_head(x, pre_logits=pre_logits or self.num_classes == 0)
        return output

    def forward(self, x: Tensor) -> Tensor:
        self.check_image_size(x.shape[-2], x.shape[-1])
        output: Tensor = self.network(x)
        return output

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        intermediates_only: bool = False,
    ) -> Any:
        """As :meth:`Backbone.forward_intermediates`; with ``norm``, timm's plain transformers normalise every level."""
        self.check_image_size(x.shape[-2], x.shape[-1])
        wanted = level_indices(indices, len(self.feature_info))
        norm = norm and self.normed
        return self.network.forward_intermediates(
            x, indices=wanted, norm=norm, stop_early=intermediates_only, intermediates_only=intermediates_only
        )

    def reset_classifier(self, num_classes: int) -> None:
        weight = next(self.parameters())
        self.num_classes = num_classes
        self.network.reset_classifier(num_classes)
        self.network.to(weight.device, weight.dtype)
        self._note_classifier()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable
        self.network.set_grad_checkpointing(enable)

    @property
    def has_branches(self) -> bool:
        """Whether :meth:`fuse_for_inference` has something to join: what captures a model joins it first."""
        return not self.fused and any(
            hasattr(module, name) for module in self.network.modules() for name in ("fuse", *IN_PLACE)
        )

    def fuse_for_inference(self) -> Backbone:
        """Join the branches of a model that is reparameterised for inference (RepVGG, RepViT, FastViT), in place.

        It is computed in float64, so that the weights are rounded once; some of timm's rules make new layers of the
        default type, on the default device.
        """
        from timm.utils.model import reparameterize_model

        self.eval()
        if not self.has_branches:
            return self
        device, dtype = (weight := next(self.network.parameters())).device, weight.dtype
        with torch.no_grad(), device, _default_dtype(torch.float64):
            self.network = reparameterize_model(self.network.double(), inplace=True)
        self.network.to(device, dtype)
        self.fused = True
        return self

    def no_weight_decay(self) -> set[str]:
        names: set[str] = getattr(self.network, "no_weight_decay", set)()
        known = dict(self.network.named_parameters())  # timm names what a variant may lack, too
        return {f"network.{name}" for name in names if name in known}

    def layer_groups(self) -> list[tuple[str, ...]]:
        """timm's groups of parameters; the classifier is left out."""
        if not hasattr(self.network, "group_matcher"):
            return []
        from timm.models import group_parameters

        groups = group_parameters(self.network, self.network.group_matcher(coarse=False))
        named = [[f"network.{name}" for name in groups[number]] for number in sorted(groups)]
        inner = [[name for name in names if not name.startswith(self.head_prefixes)] for names in named]
        owners: dict[str, set[int]] = {}
        for number, names in enumerate(named):
            for name in names:
                owners.setdefault(_owner(name), set()).add(-1 if name.startswith(self.head_prefixes) else number)

        def prefix(name: str) -> str:
            """The module of a parameter, with its statistics, where all of it is in one group; else the parameter."""
            return _owner(name) if len(owners[_owner(name)]) == 1 else name

        return [tuple(dict.fromkeys(map(prefix, names))) for names in inner if names]

    def check_image_size(self, height: int, width: int) -> None:
        if self.fixed_size:
            self.require_built_size(height, width, "network")
        super().check_image_size(height, width)

    @property
    def fixed_image_size(self) -> bool:
        return self.fixed_size

    def adapt_tensor(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], image_size: ImageSize | None = None
    ) -> Tensor | None:
        """timm's own rules for tables of positions: a bicubic resize of absolute and of relative ones.

        Raises:
            CheckpointError: the table cannot be resized.
        """
        if tensor.shape == shape:
            return None
        try:
            if name.endswith("pos_embed") and tensor.ndim == len(shape) == 3:
                return resized_positions(self.network.patch_embed, self.config.image_size, tensor, shape, image_size)
            if name.endswith("relative_position_bias_table") and tensor.ndim == len(shape) == 2:
                return resized_bias(self.get_submodule(name.rpartition(".")[0]), tensor, shape)
        except (AttributeError, RuntimeError, AssertionError) as error:
            raise CheckpointError(f"its {tuple(tensor.shape)} cannot be resized to {shape}") from error
        return None

    def init_weights(self) -> None:
        """timm initialises its own."""


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _owner(name: str) -> str:
    """Prefix of the module that has a parameter; the whole name of one that the network has itself."""
    module = name.rpartition(".")[0]
    return name if module == "network" else f"{module}."


def timm_names(pattern: str) -> list[str]:
    """Names of models of timm that fit a pattern, each with the prefix; without the tags of their weights.

    Raises:
        MissingDependencyError: timm is not installed.
    """
    timm = import_extra("timm", "timm", "timm")
    wanted = pattern.removeprefix(PREFIX)
    return [PREFIX + name for name in fnmatch.filter(timm.list_models(), wanted) if not name.startswith(OURS)]


@cache
def timm_family(name: str) -> Family:
    """The family of one model of timm.

    Args:
        name: prefix, architecture, and after a full stop perhaps the tag of the weights that are meant.

    Raises:
        UnknownNameError: timm has no such architecture, or no weights with that tag.
        MissingDependencyError: timm is not installed.
    """
    timm = import_extra("timm", "timm", "timm")
    models = import_extra("timm.models", "timm", "timm")
    architecture, _, tag = name.removeprefix(PREFIX).partition(".")
    if not models.is_model(architecture) or architecture.startswith(OURS):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(PREFIX + one for one in close)}?" if close else f"list them: '{PREFIX}*'"
        raise UnknownNameError(f"timm {timm.__version__} has no model '{architecture}'; {hint}")
    known = {cfg.tag or "": cfg for cfg in models.get_arch_pretrained_cfgs(architecture).values()}
    if tag and tag not in known:
        raise UnknownNameError(
            f"timm has no weights '{tag}' of {architecture}; it has {', '.join(filter(None, known)) or 'none'}"
        )
    default = known.get(tag) or models.get_pretrained_cfg(architecture) or models.PretrainedCfg()
    chosen = [known[tag]] if tag else sorted(known.values(), key=lambda cfg: cfg.tag != default.tag)
    config = TimmConfig(
        architecture=architecture, num_classes=default.num_classes or 1000, image_size=tuple(default.input_size[1:])
    )
    with torch.device("meta"):
        children = [part for part, _ in _build(config)[0].named_children()]
        loose = [part for part, _ in _build(config)[0].named_parameters(recurse=False)]
    return Family(
        name="timm",
        backbone=TimmModel,
        variants={name: config},
        weights={name: [_public(cfg) for cfg in chosen if cfg.hf_hub_id]},
        weights_elsewhere=f"timm lists none on the hub for {architecture}",
        checkpoint_keys={"timm": [Key(part, f"network.{part}") for part in (*children, *loose)]},
        title=default.paper_name or "",
        arxiv=_arxiv(default.paper_ids),
        code=f"huggingface/pytorch-image-models @ v{timm.__version__} (Apache-2.0)",
    )


def _arxiv(ids: Any) -> str:
    first = ids[0] if isinstance(ids, (tuple, list)) and ids else ids or ""
    return str(first).removeprefix("arXiv:")


def _public(cfg: Any) -> PretrainedWeights:
    hub_id, _, revision = cfg.hf_hub_id.partition("@")
    return PretrainedWeights(
        hub_id=hub_id,
        file=cfg.hf_hub_filename or "model.safetensors",
        revision=revision or "main",
        tag=cfg.tag or "",
        image_size=tuple(cfg.input_size[1:]),
        preprocessing=_preprocessing({name: getattr(cfg, name) for name in cfg.__dataclass_fields__}),
        num_classes=cfg.num_classes,
        licence=cfg.license or "unknown",
    )


def _preprocessing(cfg: Mapping[str, Any]) -> Preprocessing:
    """What timm's description of weights says of the images; ours where it says what we cannot do."""
    told: dict[str, Any] = {name: tuple(cfg[name]) for name in ("mean", "std") if len(cfg.get(name) or ()) == 3}
    if cfg.get("interpolation") in get_args(Interpolation):
        told["interpolation"] = cfg["interpolation"]
    return Preprocessing(
        image_size=tuple(cfg["input_size"][1:]), crop_fraction=min(float(cfg.get("crop_pct") or 1), 1.0), **told
    )


def _build(config: TimmConfig) -> tuple[Any, list[str]]:
    """timm's network, and the fields of :data:`DROPS` that it does not take.

    Raises:
        ConfigError: it does not take an option or the image size.
    """
    timm = import_extra("timm", "timm", "timm")
    native = timm.models.get_pretrained_cfg(config.architecture)
    given: dict[str, Any] = {"num_classes": config.num_classes, "in_chans": config.in_chans, **config.options}
    given |= {name: value for name in DROPS if (value := getattr(config, name))}
    if native is None or tuple(native.input_size[1:]) != config.image_size:
        given["img_size"] = config.image_size
    left_out: list[str] = []
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on deprecated names and on options that other weights had
                return timm.create_model(config.architecture, pretrained=False, **given), left_out
        except TypeError as error:
            refused = next((name for name in (*DROPS, "img_size") if f"'{name}'" in str(error) and name in given), None)
            if refused is None or (refused == "img_size" and native is not None and native.fixed_input_size):
                raise ConfigError(f"{PREFIX}{config.architecture} cannot be built: {error}") from error
            del given[refused]
            left_out += [refused] if refused in DROPS else []
        except (AssertionError, ValueError, RuntimeError) as error:
            size = "x".join(map(str, config.image_size))
            raise ConfigError(
                f"{PREFIX}{config.architecture} cannot be built for {size} pixels: {str(error) or type(error).__name__}"
            ) from error
