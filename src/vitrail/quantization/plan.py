"""The quantisation plan: all that quantisation decided, as one JSON file beside the float weights."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from vitrail.core.errors import QuantizationError
from vitrail.core.files import read_json, write_json
from vitrail.quantization.config import QuantizationConfig
from vitrail.quantization.nonuniform import Quantizer, quantizer_from_dict
from vitrail.quantization.quantizers import MAX_BITS, UniformQuantizer
from vitrail.quantization.smoothing import Smoothing

VERSION = 2

LARGEST_PLAN = 2**28
"""Bytes that packed codes may unpack to; more is no plan of ours."""


@dataclass(frozen=True)
class Rounded:
    """How the codes of a weight differ from its nearest ones, and the layer's corrected bias.

    Attributes:
        steps: compressed differences (int8, in the order of the weight), base64; "" for none.
        bias: of the layer after correction; None to keep its own.
    """

    steps: str = ""
    bias: tuple[float, ...] | None = None

    @classmethod
    def of(cls, codes: Tensor, nearest: Tensor, bias: Tensor | None) -> Self:
        """From codes, the nearest ones (of the same shape, int8), and the bias."""
        steps = codes.to(torch.int16) - nearest.to(torch.int16)
        packed = zlib.compress(steps.to(torch.int8).contiguous().numpy().tobytes(), 9) if bool(steps.any()) else b""
        return cls(
            steps=base64.b64encode(packed).decode("ascii"),
            bias=None if bias is None else tuple(bias.float().tolist()),
        )

    def codes(self, nearest: Tensor) -> Tensor:
        """The codes, from the nearest ones.

        Raises:
            QuantizationError: the differences are damaged, or for another shape.
        """
        if not self.steps:
            return nearest
        try:
            data = zlib.decompressobj().decompress(base64.b64decode(self.steps, validate=True), LARGEST_PLAN)
        except (ValueError, zlib.error) as error:
            raise QuantizationError(
                f"the plan's codes are damaged ({error}); make a fresh one: vitrail quantize"
            ) from error
        if len(data) != nearest.numel():
            raise QuantizationError(
                f"the plan has {len(data)} codes for a weight of {nearest.numel()}; make a fresh one: vitrail quantize"
            )
        steps = torch.from_numpy(np.frombuffer(data, np.int8).copy()).view(nearest.shape)
        return (nearest.to(torch.int16) + steps).to(nearest.dtype)

    def to_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "bias": None if self.bias is None else list(self.bias)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(steps=values["steps"], bias=None if values["bias"] is None else tuple(values["bias"]))


@dataclass(frozen=True, kw_only=True)
class QuantizationPlan:
    """Rebuilds a quantised model from its float weights without calibration.

    Attributes:
        model: class of the model.
        fingerprint: identifies the model's operands and weight shapes; see :func:`~.sites.fingerprint`.
        operands: operand name (module path ":" role) -> its quantiser. An operation all of whose operands are
            missing stays in float.
        smoothing: first reader of a norm -> what is folded into the norm and its readers.
        rounded: weight operand -> how its codes differ from the nearest ones.
        skipped: operations that stay in float, each with the reason.
        notes: what the user should know, e.g. that few images were given.
        counts: operand name -> elements of a weight, or of an activation for one image.
        num_images: calibration images seen.
        config: the choices that led here.
    """

    model: str
    fingerprint: str
    operands: Mapping[str, Quantizer]
    smoothing: Mapping[str, Smoothing] = field(default_factory=dict)
    rounded: Mapping[str, Rounded] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    num_images: int
    config: QuantizationConfig = field(default_factory=QuantizationConfig)

    @property
    def simulated(self) -> tuple[str, ...]:
        """Operands whose codes no runtime multiplies as integers; a plan with any is simulated, never executed."""
        return tuple(name for name, quantizer in self.operands.items() if not _executable(name, quantizer))

    def average_bits(self, *, weights: bool) -> float:
        """Mean width of the weights (by parameters), or of the activations (by elements)."""
        chosen = {name: self.counts.get(name, 1) for name in self.operands if is_weight(name) == weights}
        total = sum(chosen.values())
        return sum(self.operands[name].bit_width * count for name, count in chosen.items()) / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "config": asdict(self.config),
            "num_images": self.num_images,
            "notes": list(self.notes),
            "skipped": list(self.skipped),
            "smoothing": {name: smoothing.to_dict() for name, smoothing in self.smoothing.items()},
            "rounded": {name: rounded.to_dict() for name, rounded in self.rounded.items()},
            "counts": dict(self.counts),
            "operands": [{"name": name} | quantizer.to_dict() for name, quantizer in self.operands.items()],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also after a trip through JSON.

        Raises:
            QuantizationError: not a plan, or of a version that this Vitrail does not know.
        """
        if not isinstance(values, Mapping) or "operands" not in values:
            raise QuantizationError(
                "this is not a quantisation plan (it has no 'operands'); make one: vitrail quantize"
            )
        if values.get("version") != VERSION:
            raise QuantizationError(
                f"the plan has version {values.get('version')} and this Vitrail reads {VERSION}; make another with: "
                f"vitrail quantize"
            )
        try:
            config = values["config"]
            operands = {
                row["name"]: quantizer_from_dict({k: v for k, v in row.items() if k != "name"})
                for row in values["operands"]
            }
            return cls(
                model=values["model"],
                fingerprint=values["fingerprint"],
                operands=operands,
                smoothing={name: Smoothing.from_dict(row) for name, row in values["smoothing"].items()},
                rounded={name: Rounded.from_dict(row) for name, row in values["rounded"].items()},
                skipped=tuple(values["skipped"]),
                notes=tuple(values["notes"]),
                counts=dict(values["counts"]),
                num_images=values["num_images"],
                config=QuantizationConfig(**(config | {"keep_float": tuple(config["keep_float"])})),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise QuantizationError(
                f"the plan is damaged ({error}); make a fresh one with: vitrail quantize"
            ) from error

    def save(self, path: str | Path) -> None:
        """Write it as JSON, atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that :meth:`save` wrote.

        Raises:
            VitrailError: missing, not JSON, or not a plan.
        """
        return cls.from_dict(read_json(path))


def is_weight(name: str) -> bool:
    """An operand's role is the last part of its name."""
    return name.rpartition(":")[2].startswith("weight")


def _executable(name: str, quantizer: Quantizer) -> bool:
    """Even steps: of weights for each channel and any width; of activations for the whole tensor, in 8 bits."""
    if not isinstance(quantizer, UniformQuantizer):
        return False
    return is_weight(name) or (quantizer.bit_width == MAX_BITS and quantizer.axis is None)
