"""Token mixers and parts, each usable alone: plain arguments, no configuration objects."""

from vitrail.layers.attention import Attention
from vitrail.layers.embed import PatchEmbed, resize_pos_embed
from vitrail.layers.local_global_local import GlobalSparseAttention, LocalAggregation
from vitrail.layers.mlp import ConvMlp, Mlp
from vitrail.layers.norm import LayerNorm2d

__all__ = [
    "Attention",
    "ConvMlp",
    "GlobalSparseAttention",
    "LayerNorm2d",
    "LocalAggregation",
    "Mlp",
    "PatchEmbed",
    "resize_pos_embed",
]
