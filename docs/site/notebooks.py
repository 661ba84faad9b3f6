"""Write the notebooks of tutorials, from the pages: ``python docs/site/notebooks.py``.

A block of Python becomes a cell, all else text. A test holds that pages and notebooks agree, and runs the cells.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

TUTORIALS = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = ("fine-tune", "quantize-a-timm-model")
CELL = re.compile(r"^(?:<!-- test: .+? -->\n)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ITSELF = re.compile(r" The page is also a\n\[notebook\]\([\w-]+\.ipynb\)\.")


def notebook(page: str) -> dict[str, Any]:
    """A page as a notebook without outputs."""
    cells: list[dict[str, Any]] = []
    for number, part in enumerate(CELL.split(ITSELF.sub("", page))):
        lines = part.strip("\n").splitlines(keepends=True)
        if lines:
            code = {"execution_count": None, "outputs": []} if number % 2 else {}
            kind = "code" if number % 2 else "markdown"
            cells.append({"cell_type": kind, "id": f"cell-{number}", "metadata": {}, **code, "source": lines})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def notebook_text(page: str) -> str:
    """The same as the text of an .ipynb file."""
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for name in NOTEBOOKS:
        page = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
        (TUTORIALS / f"{name}.ipynb").write_text(notebook_text(page), encoding="utf-8")


if __name__ == "__main__":
    main()
