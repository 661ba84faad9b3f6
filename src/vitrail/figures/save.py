"""Figures become files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from vitrail.core.files import atomic_path


def save_figure(figure: Figure, path: Path, *, dpi: int = 120) -> None:
    """Write a figure atomically, as PNG or SVG by the suffix of ``path``; an SVG holds no date.

    Raises:
        VitrailError: the folder is not writable or the disk is full.
    """
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata=metadata)


def save_figures(figures: Mapping[str, Figure], folder: Path, *, suffix: str = "png", dpi: int = 120) -> list[Path]:
    """Write every figure as ``NAME.SUFFIX`` into ``folder``; returns the paths.

    Raises:
        VitrailError: the folder is not writable or the disk is full.
    """
    paths = {folder / f"{name}.{suffix}": figure for name, figure in figures.items()}
    for path, figure in paths.items():
        save_figure(figure, path, dpi=dpi)
    return list(paths)
