"""The interface of every backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.fx import Proxy
from torch.utils.checkpoint import checkpoint

from vitrail.core.errors import ConfigError, ImageSizeError
from vitrail.core.types import FeatureInfo, ImageSize, Preprocessing
from vitrail.layers.conv import fuse_sequence


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Fields that every family has; a family's own config adds its own.

    Attributes:
        num_classes: outputs of the classifier; 0 removes it, so that the model returns pooled features.
        in_chans: channels of the image.
        image_size: (height, width) in pixels that the model is built for.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 at the first.
    """

    num_classes: int = 1000
    in_chans: int = 3
    image_size: ImageSize = (224, 224)
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.num_classes < 0 or self.in_chans < 1:
            raise ConfigError(f"num_classes={self.num_classes}, in_chans={self.in_chans}: need >= 0 and >= 1")
        for name in ("drop_rate", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is outside [0, 1)")


class Backbone(nn.Module, ABC):
    """A vision transformer without a task: image in, levels of features (and, for convenience, class logits) out.

    A family implements :meth:`forward_stages` and :meth:`pool`, sets ``feature_info`` and ``num_features``, names its
    classifier ``head``, and overrides the rest only where its paper differs.

    Attributes:
        config: the family's configuration; ``type(model)(model.config)`` builds the same model.
        feature_info: one entry a level, in the order of :meth:`forward_intermediates`.
        num_features: width of the pooled features.
        size_divisor: divisor of every legal height and width.
        head_prefixes: state-dict prefixes of the parameters that depend on ``num_classes``.
        preprocessing: preprocessing that the family's weights expect; loaded weights may bring their own.
        preprocessing_source: file or address that ``preprocessing`` is from; "" where it is the family's.
        remarks: sentences on what was decided when weights were loaded.
    """

    feature_info: tuple[FeatureInfo, ...]
    num_features: int
    size_divisor: int = 1
    head_prefixes: ClassVar[tuple[str, ...]] = ("head.",)
    preprocessing: Preprocessing = Preprocessing()
    preprocessing_source: str = ""
    remarks: tuple[str, ...] = ()

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.grad_checkpointing = False
        self.head_drop = nn.Dropout(config.drop_rate)

    @abstractmethod
    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        """Yield the raw output of every level, in the family's native layout (tokens or map), in order."""

    @abstractmethod
    def pool(self, x: Tensor) -> Float[Tensor, "b num_features"]:
        """Final features (the result of :meth:`forward_features`) to one vector for each image."""

    def final_norm(self, x: Tensor) -> Tensor:
        """The norm between the last level and pooling; the identity unless a family overrides it."""
        return x

    def to_map(self, x: Tensor, image_size: ImageSize) -> Float[Tensor, "b c h w"]:
        """A level in native layout as a map; the identity for families that work on maps."""
        return x

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> Tensor:
        """Image to final features in native layout, after the final norm."""
        self.check_images(x)
        for x in self.forward_stages(x):  # noqa: B007, B020 (only the last level is used; earlier ones are freed)
            pass
        return self.final_norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Final features to logits (b, num_classes), or to pooled features (b, num_features) with ``pre_logits``."""
        x = self.pool(x)
        return x if pre_logits else self.head(self.head_drop(x))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n"]:
        """Logits; pooled features where ``num_classes`` is 0."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Float[Tensor, "b c h w"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        intermediates_only: bool = False,
    ) -> Any:
        """The levels as maps (b, c, h, w).

        Args:
            x: images.
            indices: indices of levels (negative ones count from the end); an int n means the last n; None means all.
            norm: apply the final norm to the last level if it is among them.
            intermediates_only: return the list of maps alone instead of (final features, maps).
        """
        self.check_images(x)
        image_size = (x.shape[-2], x.shape[-1])
        count = len(self.feature_info)
        wanted = level_indices(indices, count)
        levels: dict[int, Tensor] = {}
        last = x
        for index, last in enumerate(self.forward_stages(x)):
            if index in wanted:
                levels[index] = self.to_map(self.final_norm(last) if norm and index == count - 1 else last, image_size)
            if intermediates_only and index == max(wanted):
                break
        maps = [levels[index] for index in wanted]
        return maps if intermediates_only else (self.final_norm(last), maps)

    def classifiers(self) -> tuple[nn.Module, ...]:
        """The classifier. Of several, the logits are the mean of theirs, the pooled features that of what they read."""
        return (self.head,)

    def reset_classifier(self, num_classes: int) -> None:
        """A new, freshly initialised classifier; 0 removes it."""
        weight = next(self.parameters())
        self.num_classes = num_classes
        self.head: nn.Module = make_classifier(self.num_features, num_classes).to(weight.device, weight.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: blocks are recomputed in the backward pass."""
        self.grad_checkpointing = enable

    def run_block(self, block: nn.Module, *args: Any) -> Any:
        """Call a block, through gradient checkpointing where that is on; families call their blocks with this."""
        if self.grad_checkpointing and self.training:
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    def fuse_for_inference(self) -> Backbone:
        """Fold BatchNorms and scales into the weights beside them, in place; outputs stay the same to rounding.

        The model is then in evaluation mode and can no longer be trained; its state dict has other names.
        """
        self.eval()
        for module in list(self.modules()):
            if isinstance(module, nn.Sequential):
                fuse_sequence(module)
            elif callable(fuse := getattr(module, "fuse", None)):
                fuse()
        return self

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with two or more dimensions that are not decayed; vectors never are."""
        return set()

    def layer_groups(self) -> list[tuple[str, ...]]:
        """State-dict prefixes from input to output, for layer-wise learning-rate decay.

        A parameter belongs to the first group that has a prefix of its name. All others (final norm, head) form one
        more group.
        """
        stem = [("stem.",)] if hasattr(self, "stem") else []
        return [*stem, *((f"{info.name}.",) for info in self.feature_info)]

    def check_images(self, x: Tensor | Proxy) -> None:
        """Refuse images of a size that is not allowed; in a graph of torch.fx an assertion does it.

        A graph of a model that cannot take the next larger size takes only the one that the model was built for.

        Raises:
            ImageSizeError: the model cannot take images of that size.
        """
        if not isinstance(x, Proxy):
            return self.check_image_size(x.shape[-2], x.shape[-1])
        shape: Any = x.shape
        fixed, divisor = self.fixed_image_size, self.size_divisor
        for side, built in zip((shape[-2], shape[-1]), self.config.image_size, strict=True):
            legal = f"{self.config.image_size}" if fixed else f"multiples of {divisor}"
            allowed = side == built if fixed else side % divisor == 0
            torch._assert(allowed, f"image size is not allowed: this graph takes {legal}")  # noqa: SLF001 (as timm does)
        return None

    def check_image_size(self, height: int, width: int) -> None:
        """
        Raises:
            ImageSizeError: the model cannot take images of that size; the message names the nearest legal ones.
        """
        divisor = self.size_divisor
        if height % divisor or width % divisor or height == 0 or width == 0:
            nearest = dict.fromkeys(_nearest(height, width, divisor, up) for up in (0, 1))
            legal = " or ".join(f"{h}x{w}" for h, w in nearest)
            raise ImageSizeError(
                f"image size {height}x{width} is not allowed: {type(self).__name__} needs multiples of {divisor}; "
                f"nearest legal sizes: {legal}"
            )

    @property
    def fixed_image_size(self) -> bool:
        """Whether images that are one step of the coarsest level larger are refused."""
        step = max(info.stride for info in self.feature_info)
        height, width = self.config.image_size
        try:
            self.check_image_size(height + step, width + step)
        except ImageSizeError:
            return True
        return False

    def require_built_size(self, height: int, width: int, reason: str) -> None:
        """Refuse other image sizes; families of one size override :meth:`check_image_size` with it.

        Args:
            height, width: size of the images.
            reason: part that ties the model to ``config.image_size``, e.g. "position table".

        Raises:
            ImageSizeError: it is another size.
        """
        if (height, width) != self.config.image_size:
            built = "x".join(map(str, self.config.image_size))
            raise ImageSizeError(
                f"image size {height}x{width} is not allowed: this {type(self).__name__}'s {reason} is for {built}; "
                f"resize the images or build it with image_size=({height}, {width})"
            )

    def adapt_tensor(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], image_size: ImageSize | None = None
    ) -> Tensor | None:
        """A checkpoint's tensor, resized to ``shape`` (position tables); None where the family has no rule for it.

        Args:
            name: our name of it.
            tensor: tensor of the checkpoint.
            shape: shape in this model.
            image_size: (height, width) in pixels that the weights were made for; None where that is unknown.

        Raises:
            CheckpointError: it is a position table that cannot be resized.
        """
        return None

    def fields_in(self, names: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """Fields of the configuration that a checkpoint shows to be others than this model's, with its values.

        Args:
            names: our name of every tensor of the checkpoint -> its shape.
        """
        return {}

    def init_weights(self) -> None:
        """Initialise by the authors' rules; every family calls it in its constructor."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class TokenBackbone(Backbone):
    """A backbone that keeps an image as one sequence of patches, from the stem to the last block.

    Masked prediction hides patches between its three parts: stem, positions, blocks.

    Attributes:
        stem: image (b, c, h, w) to patch embeddings (b, n, d).
        num_prefix_tokens: number of tokens before the patches.
        takes_subsets: whether the blocks work on any subset of the tokens; false where they depend on the grid.
    """

    stem: nn.Module
    num_prefix_tokens: int
    takes_subsets: bool = True

    @abstractmethod
    def add_positions(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b m d"]:
        """Patch embeddings to the input of the first block: prefix tokens in front, positions added."""

    @abstractmethod
    def forward_blocks(self, x: Float[Tensor, "b m d"]) -> Iterator[Tensor]:
        """Yield the output of every block."""

    def forward_stages(self, x: Float[Tensor, "b c h w"]) -> Iterator[Tensor]:
        yield from self.forward_blocks(self.add_positions(self.stem(x)))


def make_classifier(num_features: int, num_classes: int) -> nn.Module:
    """One linear layer, or the identity for ``num_classes == 0``."""
    return nn.Linear(num_features, num_classes) if num_classes > 0 else nn.Identity()


def grid_of(image_size: ImageSize, stride: int) -> ImageSize:
    """(rows, columns) of tokens, one for ``stride`` pixels on each axis."""
    return image_size[0] // stride, image_size[1] // stride


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Stochastic-depth rates growing linearly from 0 at the first block to ``rate`` at the last (Huang et al. 2016)."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


def level_indices(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """Indices of levels as numbers from 0, in rising order; see :meth:`Backbone.forward_intermediates`.

    Raises:
        ConfigError: there is no such level.
    """
    if indices is None:
        return list(range(count))
    chosen = range(-indices, 0) if isinstance(indices, int) else indices
    for index in chosen:
        if not -count <= index < count:
            raise ConfigError(f"level {index} does not exist: this model has {count} levels, 0 to {count - 1}")
    return sorted({index % count for index in chosen})


def _nearest(height: int, width: int, divisor: int, up: int) -> tuple[int, int]:
    return tuple(max(divisor, (n // divisor + (up if n % divisor else 0)) * divisor) for n in (height, width))  # type: ignore[return-value]
