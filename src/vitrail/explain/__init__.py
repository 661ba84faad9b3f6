"""Attention and features of a trained model."""

from vitrail.explain.capture import AttentionMap, attention_probabilities, capture_attention
from vitrail.explain.explanation import Explanation, attended, explain_images
from vitrail.explain.figures import explanation_figures, write_explanation
from vitrail.explain.measures import (
    attention_rollout,
    effective_rank,
    field_share,
    filter_components,
    grad_cam,
    input_gradient,
    level_similarity,
    mean_attention_distance,
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
    "explanation_figures",
    "field_share",
    "filter_components",
    "grad_cam",
    "input_gradient",
    "level_similarity",
    "mean_attention_distance",
    "position_similarity",
    "token_similarity",
    "write_explanation",
]
