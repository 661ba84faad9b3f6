"""Every family in every format: what docs/exporting.md says was tried, tried again.

ONNX and OpenVINO of every family are fast enough for tests/contract/test_every_family.py.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from types import ModuleType

import pytest
from export.installed import where_installed

from vitrail.export import FORMATS
from vitrail.models import FAMILIES

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore")  # of the converters


def _script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("export_matrix", ROOT / "benchmarks" / "export_matrix.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


MATRIX = _script()
RESULTS = json.loads(MATRIX.RESULTS.read_text())
CELLS = {(cell["family"], cell["format"]): cell for cell in RESULTS["cells"]}
PROMISED = ("onnx", "openvino", "aoti", "executorch", "litert")


def test_the_page_shows_what_was_measured() -> None:
    page = MATRIX.PAGE.read_text()
    assert MATRIX.page_with(page, RESULTS) == page


def test_what_was_tried_agreed_or_has_a_reason() -> None:
    for cell in CELLS.values():
        if cell["reason"] is None and cell["format"] != "coreml":
            assert cell["max_relative_error"] <= 1e-3, cell


def test_no_family_is_missing() -> None:
    """A new family has to be tried: python benchmarks/export_matrix.py --families NAME --skip-known."""
    missing = {*itertools.product(FAMILIES, PROMISED)} - {*CELLS}
    assert not missing, f"not tried: {sorted(missing)}; {test_no_family_is_missing.__doc__}"
    assert {family for family, _ in CELLS} == {*FAMILIES}
    assert all(cell["variant"] == MATRIX.smallest(cell["family"]) for cell in CELLS.values())


# A family with convolutions and attention, and one of convolutions and pooling, stand for the others;
# the slow tests are the whole matrix.
QUICK = [
    where_installed("onnx", "poolformer"),
    where_installed("openvino", "vitae_plain"),
]
ALL = [where_installed(format, family, slow=True) for format in FORMATS for family in FAMILIES]


@pytest.mark.parametrize(("format", "family"), [*QUICK, *ALL])
def test_a_file_agrees_or_fails_as_the_page_says(format: str, family: str) -> None:
    cell, known = MATRIX.export_cell(family, format), CELLS.get((family, format), {"reason": None})
    assert (cell["reason"] is None) == (known["reason"] is None), cell["reason"] or known["reason"]
    if cell["reason"] is None and cell["runtime"] is not None:
        assert cell["max_relative_error"] <= 1e-3
