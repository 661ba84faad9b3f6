"""The plan of a comparison, read from a YAML file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from vitrail.core.config import typed
from vitrail.core.errors import ConfigError
from vitrail.core.files import read_yaml
from vitrail.core.import_code import import_listed
from vitrail.core.paths import user_path
from vitrail.runs.quantize import CalibrationConfig, with_field_names
from vitrail.runtimes import RuntimeName, find_runtime
from vitrail.tasks import TASKS, find_task
from vitrail.training import TrainConfig
from vitrail.training.distillation.config import DistillConfig

OF_CELLS = ("model", "model_fields", "seed")
"""Fields that the cell and its seed set; the common recipe cannot set them."""

MAX_COMBINATIONS = 1000
"""Most combinations of one grid."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model of the comparison.

    Attributes:
        name: name in tables.
        model: name that ``vitrail models`` lists.
        fields: fields of the family's configuration that differ from the variant's.
        grid: field -> values; a cell with a grid stands for one cell per combination.
        distill: teacher of this model, and what of it is imitated, as ``training`` has it for all. Default: that.
    """

    name: str
    model: str
    fields: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    distill: DistillConfig | None = None

    @property
    def folder(self) -> str:
        """The name as one of a folder."""
        return folder_name(self.name)

    def expand(self) -> list[Cell]:
        """One cell per combination of the grid; the cell itself without a grid.

        Raises:
            ConfigError: there are too many combinations.
        """
        if (count := math.prod(map(len, self.grid.values()))) > MAX_COMBINATIONS:
            raise ConfigError(f"cell '{self.name}': its grid has {count} combinations, more than {MAX_COMBINATIONS}")
        cells = []
        for values in product(*self.grid.values()):
            chosen = dict(zip(self.grid, values, strict=True))
            words = ", ".join(f"{name}={value}" for name, value in chosen.items())
            name = f"{self.name}, {words}" if words else self.name
            cells.append(replace(self, name=name, fields=self.fields | chosen, grid={}))
        return cells


@dataclass(frozen=True, kw_only=True)
class NamedQuantization(CalibrationConfig):
    """A quantisation that is applied to every trained model.

    In the file, its fields and those of ``quantization`` are on one level; ``bits`` and ``calibration`` are taken too.

    Attributes:
        name: name in tables.
    """

    name: str

    @property
    def folder(self) -> str:
        """The name as one of a folder."""
        return folder_name(self.name)

    @classmethod
    def from_file(cls, values: Any) -> NamedQuantization:
        """Read an entry of a comparison's file.

        Raises:
            ConfigError: an unknown field, or a value that is not allowed.
        """
        if not isinstance(values, dict) or not isinstance(values.get("name"), str):
            raise ConfigError(f"quantization has {values!r}, which is no table with a name; see examples/compare")
        values = with_field_names(values)
        own = {item.name for item in fields(cls)} - {"quantization"}
        nested = {name: value for name, value in values.items() if name not in own}
        return typed(cls, {k: v for k, v in values.items() if k in own} | {"quantization": nested})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of the result: a model as trained, or quantised.

    Attributes:
        cell: cell of the model.
        quantization: applied quantisation; None for the model as trained.
    """

    cell: Cell
    quantization: NamedQuantization | None = None

    @property
    def name(self) -> str:
        """The name in tables."""
        return self.cell.name if self.quantization is None else f"{self.cell.name}, {self.quantization.name}"


@dataclass(frozen=True, kw_only=True)
class ComparePlan:
    """The plan of a comparison.

    Attributes:
        question: question that the comparison answers, in one sentence.
        cells: models to compare.
        quantization: quantisations that are applied to every trained model.
        baseline: name of the entry that the others are compared with, e.g. "wide" or "wide, mptq W4A8". Default: the
            first cell.
        seeds: random seeds; every cell is trained once with each.
        training: common recipe, as in ``vitrail train --config FILE``, without model and seed.
        runtimes: runtimes of the latency measurement; all but PyTorch need an export first.
        threads: number of threads in the measurement.
        energy: energy meter, as in ``vitrail bench RUN --energy METER``. Default: none.
        collapse: also measure the mean cosine similarity of the tokens of the last level.
        robustness: also measure accuracy and consistency under shifts.
    """

    question: str = ""
    cells: tuple[Cell, ...]
    quantization: tuple[NamedQuantization, ...] = ()
    baseline: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    training: dict[str, Any] = field(default_factory=dict)
    runtimes: tuple[RuntimeName, ...] = ("torch",)
    threads: int = 1
    energy: str = ""
    collapse: bool = False
    robustness: bool = False

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(names) < 2:
            raise ConfigError(f"cells has {len(names)} entries; a comparison needs at least 2")
        _check_names("cells", [cell.name for cell in self.cells])
        _check_names("quantization", [one.name for one in self.quantization])
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"'{twice[0]}' is both a cell and a quantised form of another; give one another name")
        if self.quantization and not any(find_runtime(name).executes_integers for name in self.runtimes):
            raise ConfigError(
                f"runtimes has {', '.join(self.runtimes)}, and none runs quantised files; add onnxruntime or openvino"
            )
        if self.baseline and self.baseline not in names:
            raise ConfigError(f"baseline '{self.baseline}' is no cell; there are {', '.join(names)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds={list(self.seeds)} are not different numbers from 0; [0, 1, 2] is usual")
        if self.threads < 1:
            raise ConfigError(f"threads={self.threads} is below 1; 1 is usual")
        if taken := sorted(self.training.keys() & set(OF_CELLS)):
            raise ConfigError(f"training has {', '.join(taken)}; that belongs to cells and seeds")

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The rows of the result: each model, followed by its quantised forms."""
        ways = (None, *self.quantization)
        return tuple(Entry(cell=cell, quantization=way) for cell in self.cells for way in ways)

    @property
    def reference(self) -> Entry:
        """The baseline."""
        return next((entry for entry in self.entries if entry.name == self.baseline), self.entries[0])

    def config(self, cell: Cell, seed: int) -> TrainConfig:
        """The training configuration of one run.

        Raises:
            ConfigError: an unknown field, or a value that is not allowed.
        """
        own = {"model": cell.model, "model_fields": cell.fields, "seed": seed}
        taught = {} if cell.distill is None else {"distill": asdict(cell.distill)}
        return TrainConfig.from_dict(self.training | own | taught)


def read_plan(file: str | Path) -> ComparePlan:
    """Read a comparison from a YAML file, and check every model and recipe in it.

    Own code that the file names under ``import`` is imported, relative to the file's folder.

    Raises:
        CodeError: own code cannot be imported.
        ConfigError: the file is unreadable, or has an unknown key or a value that is not allowed.
    """
    values = read_yaml(user_path(file), title="comparison", error=ConfigError)
    if isinstance(values, dict):
        import_listed(values.pop("import", []), user_path(file))
    if not isinstance(values, dict) or not isinstance(values.get("cells"), list):
        raise ConfigError(f"comparison {file} has no list 'cells'; see examples/compare")
    cells = [expanded for cell in values["cells"] for expanded in typed(Cell, cell).expand()]
    if not isinstance(ways := values.get("quantization", []), list):
        raise ConfigError(f"quantization={ways!r} is no list; see examples/compare/quantization.yaml")
    quantization = tuple(NamedQuantization.from_file(way) for way in ways)
    plan = typed(ComparePlan, values | {"cells": tuple(cells), "quantization": quantization})
    for cell in plan.cells:
        _check_task(plan, plan.config(cell, plan.seeds[0]))
    return plan


def _check_task(plan: ComparePlan, config: TrainConfig) -> None:
    if not find_task(config.task).task.comparable:
        known = [name for name, kind in TASKS.items() if kind.task.comparable]
        raise ConfigError(f"task '{config.task}' cannot be compared; choose {', '.join(known[:-1])} or {known[-1]}")
    if plan.robustness and not find_task(config.task).task.per_image:
        raise ConfigError(f"robustness is measured of classifiers, not of {config.task}; leave it out")


def folder_name(name: str) -> str:
    """A folder name made from a name of the file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _check_names(what: str, names: Sequence[str]) -> None:
    folders = [folder_name(name) for name in names]
    if twice := sorted({name for name in names if folders.count(folder_name(name)) > 1}):
        raise ConfigError(f"{what} {', '.join(twice)} have the same name; give each one of its own")
    if "" in folders:
        raise ConfigError(f"a name in {what} has no letter or digit; give it one")
