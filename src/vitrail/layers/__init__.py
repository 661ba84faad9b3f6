"""Token mixers and parts, each usable alone: plain arguments, no configuration objects."""

from vitrail.layers.activation import TanhGELU
from vitrail.layers.attention import Attention, MapAttention
from vitrail.layers.axial_attention import AxialAttention
from vitrail.layers.conv import ConvNormAct, InvertedResidual, MBConv, SqueezeExcite
from vitrail.layers.embed import (
    LearnedPosEmbed1d,
    LearnedPosEmbed2d,
    PatchEmbed,
    ResizeRule,
    SinCosPosEmbed2d,
    resize_pos_embed,
)
from vitrail.layers.local_global_local import GlobalSparseAttention, LocalAggregation
from vitrail.layers.max_sa import BlockAttention, GridAttention, MaxSA, resize_bias_table
from vitrail.layers.mlp import ConvMlp, Mlp
from vitrail.layers.mobilevit import ExShortcut, MobileViTBlock
from vitrail.layers.norm import LayerNorm2d
from vitrail.layers.own_mixer import OwnMixer, as_entry, build_mixer, check_mixer
from vitrail.layers.performer import PerformerAttention
from vitrail.layers.places import HasPlaces, Places, cell_centres
from vitrail.layers.pooling import PoolingMixer
from vitrail.layers.relative_attention import RelativeAttention
from vitrail.layers.residual_attention import (
    CarriedLogits,
    PooledResidualAttention,
    ResidualAttention,
    ResidualWindowAttention,
    resize_rel_pos,
)
from vitrail.layers.resnet import HybridEmbed, ResNetStem, StandardizedConv2d
from vitrail.layers.token_mixer import TOKEN_MIXERS, MixerOptions, make_token_mixer
from vitrail.layers.vitae_cells import NormalCell, PyramidReduction, ValueSkipAttention
from vitrail.layers.window import WindowAttention, resize_rel_pos_bias

__all__ = [
    "TOKEN_MIXERS",
    "Attention",
    "AxialAttention",
    "BlockAttention",
    "CarriedLogits",
    "ConvMlp",
    "ConvNormAct",
    "ExShortcut",
    "GlobalSparseAttention",
    "GridAttention",
    "HasPlaces",
    "HybridEmbed",
    "InvertedResidual",
    "LayerNorm2d",
    "LearnedPosEmbed1d",
    "LearnedPosEmbed2d",
    "LocalAggregation",
    "MBConv",
    "MapAttention",
    "MaxSA",
    "MixerOptions",
    "Mlp",
    "MobileViTBlock",
    "NormalCell",
    "OwnMixer",
    "PatchEmbed",
    "PerformerAttention",
    "Places",
    "PooledResidualAttention",
    "PoolingMixer",
    "PyramidReduction",
    "RelativeAttention",
    "ResNetStem",
    "ResidualAttention",
    "ResidualWindowAttention",
    "ResizeRule",
    "SinCosPosEmbed2d",
    "SqueezeExcite",
    "StandardizedConv2d",
    "TanhGELU",
    "ValueSkipAttention",
    "WindowAttention",
    "as_entry",
    "build_mixer",
    "cell_centres",
    "check_mixer",
    "make_token_mixer",
    "resize_bias_table",
    "resize_pos_embed",
    "resize_rel_pos",
    "resize_rel_pos_bias",
]
