"""Attention and features of a trained model."""

from vitrail.explain.attention_maps import AttentionMap, attention_probabilities, capture_attention
from vitrail.explain.attribution import (
    attention_rollout,
    field_share,
    grad_cam,
    input_gradient,
    mean_attention_distance,
)
from vitrail.explain.explanation import Explanation, attended, explain_images
from vitrail.explain.representation import (
    effective_rank,
    filter_components,
    level_similarity,
    position_similarity,
    token_similarity,
)

__all__ = [
    "AttentionMap",
    "Explanation",
    "attended",
    "attention_probabilities",
    "attention_rollout",
    "capture_attention",
    "effective_rank",
    "explain_images",
    "field_share",
    "filter_components",
    "grad_cam",
    "input_gradient",
    "level_similarity",
    "mean_attention_distance",
    "position_similarity",
    "token_similarity",
]
