"""The site: every page is in its navigation, every name in its reference, and nothing is loaded from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
import yaml
from docs.blocks import ROOT, code_blocks

import vitrail

SITE = ROOT / "docs/site"


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, SITE / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hooks() -> Iterator[ModuleType]:
    sys.path.insert(0, str(SITE))
    yield load("hooks")
    sys.path.remove(str(SITE))


def leaves(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from leaves(inner)


def test_the_navigation_has_every_page_once(hooks: ModuleType) -> None:
    (text,) = re.findall(r"^nav:\n(?:[ -].*\n)+", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    named = sorted(leaves(hooks.expanded(yaml.safe_load(text)["nav"])))
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    made = [*hooks.ELSEWHERE.values(), "reference/commands.md", *(name for name, _ in hooks.python_pages())]
    assert named == sorted([*pages, *made]), "a page is missing in the navigation of mkdocs.yml, or is not there"


def test_the_reference_has_every_public_name_and_option(hooks: ModuleType) -> None:
    pages = dict(hooks.python_pages())
    entries = re.findall(r"^::: vitrail\.(\w+)$", pages["reference/python.md"], re.MULTILINE)
    assert set(entries) == {name for name in vitrail.__all__ if not name.startswith("_")}
    table = json.loads((ROOT / "src/vitrail/cli/signatures.json").read_text())
    commands = hooks.commands_page()
    assert [f"## vitrail {verb}" in commands for verb in table] == [True] * len(table)
    assert commands.count("`--learning-rate`") >= 2


def test_links_of_the_repository_lead_to_pages_of_the_site(hooks: ModuleType) -> None:
    text = "[a](../examples/02_train.py) [b](../CHANGELOG.md#x) ![c](pictures/report.png) [d](https://e.org) [f](#g)"
    assert hooks.with_links(text, ROOT / "docs/training.md") == (
        "[a](source/examples/02_train.py.md) [b](changes.md#x) ![c](pictures/report.png) [d](https://e.org) [f](#g)"
    )
    assert hooks.with_links("[a](docs/results/check.md)", ROOT / "README.md") == "[a](results/check.md)"
    assert hooks.with_links("[![x](docs/a.png)](docs/a.png)", ROOT / "README.md") == "[![x](a.png)](a.png)"
    assert hooks.with_links("[a](../yolo.md)", ROOT / "docs/results/dense.md") == "[a](../yolo.md)"
    assert "source/examples/compare/mixers.yaml.md" in hooks.source_pages()


def test_flowcharts_become_levels(hooks: ModuleType) -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    html = hooks.with_levels(page)
    assert "mermaid" not in html
    rows = re.findall(r"<div[^>]*flex[^>]*>(.*?)</div>", html)
    level = {name: number for number, row in enumerate(rows) for name in re.findall(r"<strong>(.*?)</strong>", row)}
    boxes, edges = (
        re.findall(r'^    (\w+)\["', page, re.MULTILINE),
        re.findall(r"^    (.* --> .*)$", page, re.MULTILINE),
    )
    assert level.keys() == set(boxes)
    for line in edges:
        groups = [group.split(" & ") for group in line.split(" --> ")]
        assert all(level[a] < level[b] for one, two in pairwise(groups) for a in one for b in two)
    for wrong in ("flowchart LR\n", "flowchart TB\n a --> b\n", 'flowchart TB\n a["a"]\n a --> a\n'):
        with pytest.raises(ValueError, match="chart"):
            hooks.with_levels(f"```mermaid\n{wrong}```")


def test_docstrings_get_links_where_the_reference_has_the_name() -> None:
    names = load("public_names")
    text = names.as_markdown("See :class:`vitrail.TrainConfig` and :func:`~vitrail.core.x`.\n\nExample::\n\n    ``y``")
    assert text == "See [`vitrail.TrainConfig`][vitrail.TrainConfig] and `vitrail.core.x`.\n\nExample:\n\n    `y`"


NOTEBOOKS = load("notebooks")


@pytest.mark.parametrize("name", NOTEBOOKS.NOTEBOOKS)
def test_notebooks_are_those_of_the_pages(name: str) -> None:
    page = (NOTEBOOKS.TUTORIALS / f"{name}.md").read_text()
    text = (NOTEBOOKS.TUTORIALS / f"{name}.ipynb").read_text()
    assert text == NOTEBOOKS.notebook_text(page), "renew them with: python docs/site/notebooks.py"
    found = nbformat.reads(text, as_version=4)
    nbformat.validate(found)
    code = [cell.source + "\n" for cell in found.cells if cell.cell_type == "code"]
    assert code == [block.code for block in code_blocks(f"docs/tutorials/{name}.md", "python")]


WEIGHTS = """\
import safetensors.torch
import vitrail

model = vitrail.create_model("edgevit_nano_stride2", num_classes=10)
safetensors.torch.save_file(model.state_dict(), "weights.safetensors")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NOTEBOOKS.NOTEBOOKS)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    cells = [WEIGHTS, *(block.quick() for block in code_blocks(f"docs/tutorials/{name}.md", "python"))]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(made, tmp_path / "notebook.ipynb")
    # In a process of its own: the client's event loop and the kernel's sockets outlive it.
    run = "import nbclient, nbformat; nbclient.execute(nbformat.read('notebook.ipynb', 4), timeout=800)"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


LOADED = re.compile(
    r"<(?:script|img|iframe|source|link rel=\"?(?:stylesheet|preload|icon|preconnect)\"?)\b"
    r"[^>]*\b(?:src|href)=\"?(?:https?:)?//"
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_is_built_and_loads_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", ROOT / "mkdocs.yml", "--site-dir", tmp_path]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "http_proxy": "http://127.0.0.1:9", "https_proxy": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = [*tmp_path.rglob("*.html")]
    assert len(pages) > 80
    assert not [page.name for page in pages if LOADED.search(page.read_text())]
    assert not [style.name for style in tmp_path.rglob("*.css") if re.search(r"url\(.?https?:", style.read_text())]
    reference = (tmp_path / "reference/python.html").read_text()
    assert not [name for name in vitrail.__all__ if name[0] != "_" and f'id="vitrail.{name}"' not in reference]
    assert "<!-- test:" not in (tmp_path / "index.html").read_text()
