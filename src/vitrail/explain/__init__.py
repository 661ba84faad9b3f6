"""What a trained model looks at, and what its features are like."""

from vitrail.explain.capture import AttentionMap, attention_probabilities, capture_attention
from vitrail.explain.measures import (
    attention_rollout,
    effective_rank,
    field_share,
    filter_components,
    input_gradient,
    level_similarity,
    mean_attention_distance,
    position_similarity,
    token_similarity,
)
from vitrail.explain.places import Places

__all__ = [
    "AttentionMap",
    "Places",
    "attention_probabilities",
    "attention_rollout",
    "capture_attention",
    "effective_rank",
    "field_share",
    "filter_components",
    "input_gradient",
    "level_similarity",
    "mean_attention_distance",
    "position_similarity",
    "token_similarity",
]
