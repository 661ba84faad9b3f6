from __future__ import annotations

import ast
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import vitrail
from vitrail.core.errors import VitrailError
from vitrail.figures.save import save_figures


def figures() -> dict[str, Figure]:
    found = {name: Figure(figsize=(1, 1)) for name in ("first", "second")}
    for figure in found.values():
        figure.subplots()
    return found


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_every_figure_becomes_a_file(tmp_path: Path, suffix: str, start: bytes) -> None:
    paths = save_figures(figures(), tmp_path / "new", suffix=suffix)
    assert [path.name for path in paths] == [f"first.{suffix}", f"second.{suffix}"]
    assert sorted((tmp_path / "new").iterdir()) == paths
    assert all(path.read_bytes().startswith(start) for path in paths)
    assert not any(b"<dc:date>" in path.read_bytes() for path in paths)


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(VitrailError, match="No space left on device"):
        save_figures(figures(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["compare", "evaluation", "explain"])
def test_what_measures_does_not_draw(package: str) -> None:
    """The source is read, since torchmetrics loads matplotlib wherever it is installed."""
    modules = {
        name
        for path in (Path(vitrail.__file__).parent / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [])
        + ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
    }
    assert modules
    assert not [name for name in modules if name and name.startswith("matplotlib")]
