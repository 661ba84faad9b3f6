"""MaxViT-GAN: pictures from random numbers, by grid attention, block attention and MBConv at every resolution.

Paper: Tu et al., "MaxViT: Multi-Axis Vision Transformer", ECCV 2022, arXiv:2204.01697, sections 4.4, A.4, B.4 and
figure 7. Published: the order of the parts (GA-BA-C), five stages from 8 to 128 pixels, BatchNorm in place of
LayerNorm, 18.6 million parameters. **Not** published: widths, blocks a stage, windows, the latent's size, how it is
embedded, how pixels are made; there is no public code. Those follow HiT (Zhao et al., NeurIPS 2021, arXiv:2106.07631;
google-research/hit-gan @ 06d310c, Apache-2.0), on which the paper builds, with widths of ours that come to 18.6 million
parameters.

A generator is no :class:`~vitrail.models.Backbone`: it has no image as input. Export and bench need only its
``config``, ``preprocessing`` and ``num_classes``.

Shapes: b pictures, c channels, h x w tokens, m tokens of the latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import ConfigError, UnknownNameError
from vitrail.core.types import HALF, ImageSize, Preprocessing, as_image_size
from vitrail.layers import BlockAttention, ConvMlp, GridAttention, MBConv

FIRST = 8
"""Tokens a side of the first stage."""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """
    Attributes:
        embed_dims: width of each stage; the first works on 8x8 tokens, every other one on twice as many a side.
        depths: blocks of each stage.
        latent_dim: number of random inputs of a picture.
        num_classes: classes that can be chosen; their one-hot code follows the random numbers. 0 is unconditional.
        memory_tokens: tokens that the latent is embedded into, for the cross-attention of every stage.
        memory_dim: width of these tokens.
        window_size: tokens a side of blocks and grids.
        head_dim: width of an attention head.
        mlp_ratio, expand_ratio: inner over outer width, of the MLPs and of the MBConvs.
    """

    embed_dims: tuple[int, ...] = (256, 256, 256, 128, 128)
    depths: tuple[int, ...] = (1, 1, 1, 1, 1)
    latent_dim: int = 256
    num_classes: int = 0
    memory_tokens: int = 16
    memory_dim: int = 256
    window_size: int = 8
    head_dim: int = 32
    mlp_ratio: float = 4.0
    expand_ratio: float = 4.0

    def __post_init__(self) -> None:
        if not self.embed_dims or len(self.embed_dims) != len(self.depths):
            raise ConfigError(f"{len(self.embed_dims)} widths and {len(self.depths)} depths: need as many of each")
        if any(dim % self.head_dim or dim % 4 for dim in self.embed_dims):
            raise ConfigError(f"embed_dims={self.embed_dims} are not multiples of head_dim={self.head_dim} and of 4")
        if self.latent_dim < 1 or self.num_classes < 0:
            raise ConfigError(f"latent_dim={self.latent_dim}, num_classes={self.num_classes}: need 1 and 0 or more")

    @property
    def image_size(self) -> ImageSize:
        """Size of the pictures; every stage after the first doubles it."""
        side = FIRST * 2 ** (len(self.embed_dims) - 1)
        return side, side

    @property
    def num_inputs(self) -> int:
        """Number of inputs: random numbers and classes."""
        return self.latent_dim + self.num_classes


class LatentAttention(nn.Module):
    """Every token attends to the latent; one head of keys and values serves all heads of queries.

    Source: HiT, section 3.2, "memory-efficient" self-modulation. MACs for n tokens: n (2 c^2 + 2 m c), and
    2 m memory_dim head_dim.
    """

    def __init__(self, dim: int, memory_dim: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = dim // head_dim
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(memory_dim, 2 * head_dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b h w c"], memory: Float[Tensor, "b m d"]) -> Float[Tensor, "b h w c"]:
        q = self.q(x).flatten(1, 2).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        k, v = (part.unsqueeze(1).expand(-1, self.num_heads, -1, -1) for part in self.kv(memory).chunk(2, -1))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(out).unflatten(1, x.shape[1:3])


class Mixing(nn.Module):
    """A token mixer and an MLP with BatchNorms before them, each beside a shortcut."""

    def __init__(self, dim: int, token_mixer: nn.Module, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.token_mixer = token_mixer
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Float[Tensor, "b c h w"], *memory: Tensor) -> Float[Tensor, "b c h w"]:
        x = x + self.token_mixer(self.norm1(x).permute(0, 2, 3, 1), *memory).permute(0, 3, 1, 2)
        return x + self.mlp(self.norm2(x))


class GeneratorBlock(nn.Module):
    """Attention to the latent, grid attention over the map, block attention in windows, then a convolution."""

    def __init__(self, config: GeneratorConfig, dim: int) -> None:
        super().__init__()
        latent = LatentAttention(dim, config.memory_dim, config.head_dim)
        self.latent_attention = Mixing(dim, latent, config.mlp_ratio)
        grid, block = (mixer(dim, config.window_size, config.head_dim) for mixer in (GridAttention, BlockAttention))
        self.grid_attention = Mixing(dim, grid, config.mlp_ratio)
        self.block_attention = Mixing(dim, block, config.mlp_ratio)
        self.mbconv = MBConv(dim, dim, expand_ratio=config.expand_ratio)

    def forward(self, x: Float[Tensor, "b c h w"], memory: Float[Tensor, "b m d"]) -> Float[Tensor, "b c h w"]:
        x = self.latent_attention(x, memory)
        return self.mbconv(self.block_attention(self.grid_attention(x)))


class GeneratorStage(nn.Module):
    """Blocks at one resolution, and their contribution to the picture."""

    def __init__(self, config: GeneratorConfig, dim: int, depth: int, side: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, side, side))
        self.blocks = nn.ModuleList(GeneratorBlock(config, dim) for _ in range(depth))
        self.to_rgb = nn.Sequential(nn.BatchNorm2d(dim), nn.Conv2d(dim, 3, 1))

    def forward(self, x: Float[Tensor, "b c h w"], memory: Float[Tensor, "b m d"]) -> tuple[Tensor, Tensor]:
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x, memory)
        return x, self.to_rgb(x)


class MaxViTGenerator(nn.Module):
    """Random numbers to pictures, scaled so that :attr:`preprocessing` turns real ones into the same range.

    Attributes:
        config: ``type(model)(model.config)`` builds the same model.
        preprocessing: -1 to 1.
        preprocessing_source, remarks: see :class:`~vitrail.models.base.Backbone`; empty, since no weights are loaded.
        num_classes: number of classes that can be chosen.
    """

    preprocessing = Preprocessing(mean=HALF, std=HALF, crop_fraction=1.0)
    preprocessing_source: str = ""
    remarks: tuple[str, ...] = ()

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        dims = config.embed_dims
        self.first = nn.Linear(config.num_inputs, dims[0] * FIRST**2)
        self.embed = nn.Linear(config.num_inputs, config.memory_tokens * config.memory_dim)
        self.memory_pos = nn.Parameter(torch.zeros(1, config.memory_tokens, config.memory_dim))
        self.memory_norm = nn.BatchNorm1d(config.memory_dim)
        self.stages = nn.ModuleList(
            GeneratorStage(config, dim, depth, FIRST * 2**i)
            for i, (dim, depth) in enumerate(zip(dims, config.depths, strict=True))
        )
        self.upsamples = nn.ModuleList(
            nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(dims[i] // 4, dims[i + 1], 1)) for i in range(len(dims) - 1)
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Kernels and tables truncated normal with deviation 0.02, biases 0, as HiT."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, latents: Float[Tensor, "b z i j"]) -> Float[Tensor, "b 3 h w"]:
        """Normal random numbers, and the one-hot class where there are classes, to pictures of about -1 to 1.

        Raises:
            ConfigError: another number of inputs.
        """
        config = self.config
        if latents.shape[1:] != (config.num_inputs, 1, 1):
            shape = "x".join(map(str, latents.shape[1:]))
            raise ConfigError(
                f"a latent of {shape} is not allowed: this generator takes {config.latent_dim} random numbers and "
                f"{config.num_classes} for the class, as (batch, {config.num_inputs}, 1, 1)"
            )
        flat = latents.flatten(1)
        memory = self.embed(flat).unflatten(1, (config.memory_tokens, config.memory_dim)) + self.memory_pos
        memory = self.memory_norm(memory.transpose(1, 2)).transpose(1, 2)
        x = self.first(flat).unflatten(1, (config.embed_dims[0], FIRST, FIRST))
        picture = None
        for index, stage in enumerate(self.stages):
            x = x if index == 0 else self.upsamples[index - 1](x)
            x, added = stage(x, memory)
            # twice as large by repeating pixels, which every runtime can
            picture = added if picture is None else F.interpolate(picture, scale_factor=2.0, mode="nearest") + added
        assert picture is not None
        return picture

    def no_weight_decay(self) -> set[str]:
        """All: generators are trained without decay."""
        return {name for name, _ in self.named_parameters()}


GENERATORS: dict[str, GeneratorConfig] = {
    "maxvit_gan_128": GeneratorConfig(),
    "maxvit_gan_64": GeneratorConfig(embed_dims=(256, 256, 128, 128), depths=(1, 1, 1, 1)),
    "maxvit_gan_32": GeneratorConfig(embed_dims=(256, 128, 128), depths=(1, 1, 1)),
    "maxvit_gan_nano_32": GeneratorConfig(
        embed_dims=(64, 32, 16),
        depths=(1, 1, 1),
        latent_dim=64,
        memory_tokens=8,
        memory_dim=64,
        head_dim=16,
        mlp_ratio=2.0,
        expand_ratio=2.0,
    ),
}
"""128 is the paper's as far as it is published; the others are ours, and nano is for a CPU."""


def create_generator(name: str, num_classes: int = 0, image_size: Any = None, **fields: Any) -> MaxViTGenerator:
    """A generator by name.

    Args:
        name: a key of :data:`GENERATORS`.
        num_classes: classes that can be chosen; 0 is unconditional.
        image_size: None, or the variant's own.
        **fields: fields of :class:`GeneratorConfig`.

    Raises:
        UnknownNameError: no such generator.
        ConfigError: another image size, or a field that does not exist or fit.
    """
    if name not in GENERATORS:
        raise UnknownNameError(f"unknown generator '{name}'; known: {', '.join(GENERATORS)}")
    try:
        config = replace(GENERATORS[name], num_classes=num_classes, **fields)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}; it has {', '.join(GENERATORS[name].__dataclass_fields__)}") from error
    if image_size is not None and as_image_size(image_size) != config.image_size:
        raise ConfigError(f"{name} makes pictures of {config.image_size[0]} pixels; leave out image_size={image_size}")
    return MaxViTGenerator(config)


def as_pixels(pictures: Tensor) -> Tensor:
    """Pictures of about -1 to 1 as uint8."""
    return ((pictures.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def join_latent(noise: Tensor, labels: Tensor | Sequence[int], num_classes: int) -> Tensor:
    """Random numbers (b, z) and classes (b,) as a generator's input (b, z + num_classes, 1, 1)."""
    labels = torch.as_tensor(labels, device=noise.device)
    codes = F.one_hot(labels, num_classes).to(noise.dtype) if num_classes else noise[:, :0]
    return torch.cat([noise, codes], 1)[..., None, None]
