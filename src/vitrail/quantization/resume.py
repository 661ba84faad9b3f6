"""Intermediate results on disk, so that a long quantisation that was interrupted continues with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from vitrail.core.errors import VitrailError
from vitrail.core.files import read_json, write_json
from vitrail.quantization.config import QuantizationConfig
from vitrail.quantization.plan import Rounding
from vitrail.quantization.quantizers.kinds import Quantizer, quantizer_from_dict


@dataclass(frozen=True)
class TrainedBlock:
    """Results of the training of one block.

    Attributes:
        rounding: weight operand -> codes and bias.
        operands: activation operand -> its quantiser, with the trained scale.
    """

    rounding: Mapping[str, Rounding]
    operands: Mapping[str, Quantizer]

    def to_dict(self) -> dict[str, Any]:
        return {
            "rounded": {name: rounding.to_dict() for name, rounding in self.rounding.items()},
            "operands": {name: quantizer.to_dict() for name, quantizer in self.operands.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(
            {name: Rounding.from_dict(row) for name, row in values["rounded"].items()},
            {name: quantizer_from_dict(row) for name, row in values["operands"].items()},
        )


@dataclass
class ResumeFile:
    """The intermediate results.

    Attributes:
        path: path of the file; None keeps nothing on disk.
        key: identifies the model, its weights, the calibration images and the configuration that the file belongs to.
        rounding: weight operand -> its rounding.
        blocks: first node of a block -> results of its training.
    """

    path: Path | None = None
    key: dict[str, Any] = field(default_factory=dict)
    rounding: dict[str, Rounding] = field(default_factory=dict)
    blocks: dict[str, TrainedBlock] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def open(cls, path: Path | None, identity: Mapping[str, str], config: QuantizationConfig) -> Iterator[ResumeFile]:
        """The results in ``path`` if all of the key is the same; the file is removed at the end.

        Args:
            identity: fingerprint of the model, digests of its weights and of the calibration images.
        """
        key = {**identity, "config": config.to_dict() | {"keep_float": list(config.keep_float)}}
        resume = cls(path, key)
        if path is not None and path.exists():
            resume.rounding, resume.blocks = _read(path, key)
        yield resume
        if path is not None:
            path.unlink(missing_ok=True)

    def add_rounding(self, name: str, rounding: Rounding) -> None:
        """Keep one more rounded weight."""
        self.rounding[name] = rounding
        self._write()

    def add_block(self, name: str, block: TrainedBlock) -> None:
        """Keep one more trained block."""
        self.blocks[name] = block
        self._write()

    def _write(self) -> None:
        if self.path is not None:
            rounding = {name: each.to_dict() for name, each in self.rounding.items()}
            blocks = {name: each.to_dict() for name, each in self.blocks.items()}
            write_json(self.path, self.key | {"rounded": rounding, "tuned": blocks})


def _read(path: Path, key: dict[str, Any]) -> tuple[dict[str, Rounding], dict[str, TrainedBlock]]:
    """Nothing, if the file has another key or is damaged: then all is computed again."""
    try:
        values = read_json(path)
        if {name: values.get(name) for name in key} != key:
            return {}, {}
        rounding = {name: Rounding.from_dict(row) for name, row in values["rounded"].items()}
        return rounding, {name: TrainedBlock.from_dict(row) for name, row in values["tuned"].items()}
    except (VitrailError, AttributeError, KeyError, TypeError):
        return {}, {}
