"""Pictures of an explanation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitrail.core.errors import ConfigError
from vitrail.explain import Explanation, field_share
from vitrail.figures.save import save_figures

MOST_IMAGES = 8
"""Number of images with overlays in the picture; the arrays have all."""

PictureFormat = Literal["png", "svg"]


def explanation_figures(explanation: Explanation) -> dict[str, Figure]:
    """A picture of every array that there is, by name."""
    figures = {"collapse": collapse_figure(explanation), "receptive_fields": field_figure(explanation)}
    if explanation.last_attention is not None or explanation.class_activation is not None:
        figures["attention"] = attention_figure(explanation)
    if explanation.distances is not None:
        figures["distances"] = distance_figure(explanation)
    if explanation.filters is not None:
        figures["filters"] = filter_figure(explanation)
    if explanation.position_similarity is not None:
        figures["positions"] = position_figure(explanation)
    return figures


def write_explanation(explanation: Explanation, folder: str | Path, picture: PictureFormat = "png") -> list[Path]:
    """Write ``arrays.npz`` and one file for each picture; returns their paths.

    Raises:
        ConfigError: an unknown format of pictures.
        VitrailError: the folder is not writable or the disk is full.
    """
    if picture not in ("png", "svg"):
        raise ConfigError(f"unknown picture format '{picture}'; known: png, svg")
    folder = Path(folder)
    arrays = folder / "arrays.npz"
    explanation.save(arrays)
    return [arrays, *save_figures(explanation_figures(explanation), folder, suffix=picture)]


def attention_figure(explanation: Explanation) -> Figure:
    """Each image beside its overlays of attention and Grad-CAM; every overlay has its own scale."""
    columns = {
        "attention rollout": explanation.rollout,
        "rollout without identity": explanation.rollout_without_identity,
        "last layer's attention": explanation.last_attention,
        "Grad-CAM of the prediction": explanation.class_activation,
    }
    shown = {title: heat for title, heat in columns.items() if heat is not None}
    images = explanation.images[:MOST_IMAGES]
    figure = Figure(figsize=(2.2 * (len(shown) + 1), 2.2 * len(images) + 0.3), layout="constrained")
    panels = figure.subplots(len(images), len(shown) + 1, squeeze=False)
    for row, image in zip(range(len(images)), images, strict=True):
        extent = (0, image.shape[1], image.shape[0], 0)
        for axes in panels[row]:
            axes.imshow(image, extent=extent)
            axes.set_axis_off()
        for axes, (title, heat) in zip(panels[row, 1:], shown.items(), strict=True):
            axes.imshow(heat[row], cmap="inferno", alpha=0.6, extent=extent, interpolation="bilinear")
            if row == 0:
                axes.set_title(title, fontsize=9)
    return figure


def distance_figure(explanation: Explanation) -> Figure:
    """Mean attention distance of every head, layer by layer."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    own = explanation.own_distances
    series = [(explanation.distances, "tab:blue", "tab:blue", "head" if own is None else "after mixing")]
    series.append((own, "none", "tab:orange", "before mixing"))
    for values, face, edge, label in series:
        if values is not None:
            layer, head = np.nonzero(~np.isnan(values))
            axes.scatter(layer, values[layer, head], s=18, label=label, facecolors=face, edgecolors=edge)
    axes.set(xlabel="attention layer", ylabel="mean distance (pixels)", title="How far away heads look")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def collapse_figure(explanation: Explanation) -> Figure:
    """Similarity of tokens and effective rank of their features, level by level."""
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    levels = np.arange(len(explanation.token_similarity))
    upper.plot(levels, explanation.token_similarity, "o-", label="tokens of a level")
    if not np.isnan(explanation.level_similarity).all():  # levels of a pyramid have other widths than the one before
        upper.plot(levels[1:], explanation.level_similarity, "s--", label="a token and itself a level before")
    upper.set(ylabel="cosine similarity", title="Feature collapse")
    upper.legend()
    lower.plot(levels, explanation.effective_rank, "o-", color="tab:green")
    lower.set(xlabel="level", ylabel="effective rank")
    lower.set_ylim(bottom=0)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def filter_figure(explanation: Explanation) -> Figure:
    """Principal components of the first convolution as colours, each on its own scale; grey is zero."""
    filters, shares = explanation.filters, explanation.filter_shares
    assert filters is not None
    assert shares is not None
    columns = min(7, len(filters))
    rows = -(-len(filters) // columns)
    figure = Figure(figsize=(1.1 * columns, 1.25 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    figure.suptitle("Principal components of the patch filters, share of variance", fontsize=10)
    for axes in panels:
        axes.set_axis_off()
    for axes, component, share in zip(panels, filters, shares, strict=False):
        axes.imshow(0.5 + 0.5 * component / max(float(np.abs(component).max()), 1e-12), interpolation="nearest")
        axes.set_title(f"{share:.1%}", fontsize=7)
    return figure


def position_figure(explanation: Explanation) -> Figure:
    """One tile for each position: the similarity of its embedding to all others."""
    tiles = explanation.position_similarity
    assert tiles is not None
    rows, columns = tiles.shape[:2]
    gaps = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    picture = gaps.transpose(0, 2, 1, 3).reshape(rows * (rows + 1), columns * (columns + 1))[:-1, :-1]
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(picture, cmap="viridis", interpolation="nearest")
    figure.colorbar(shown, ax=axes, label="cosine similarity", shrink=0.8)
    axes.set_xticks(np.arange(columns) * (columns + 1) + columns / 2, np.arange(columns), fontsize=7)
    axes.set_yticks(np.arange(rows) * (rows + 1) + rows / 2, np.arange(rows), fontsize=7)
    axes.set(xlabel="column of the patch", ylabel="row of the patch", title="Similarity of position embeddings")
    return figure


def field_figure(explanation: Explanation) -> Figure:
    """Effective receptive field of the central token; each has its own logarithmic scale."""
    fields, names = explanation.receptive_fields, explanation.field_levels
    figure = Figure(figsize=(2.8 * len(fields), 3.3), layout="constrained")
    for axes, field, name in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields, names, strict=True):
        top = max(float(field.max()), 1e-12)
        axes.imshow(np.log10(np.maximum(field / top, 1e-4)), cmap="magma", vmin=-4, vmax=0)
        share = field_share(torch.from_numpy(field))
        axes.set_title(f"{name}\n90 % of the gradient in {share:.1%} of the pixels", fontsize=8)
        axes.set_axis_off()
    figure.suptitle("Effective receptive fields (four decades)", fontsize=10)
    return figure
