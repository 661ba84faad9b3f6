"""The quantisation plan: all decisions of a quantisation, as one JSON file beside the float weights."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from vitrail.core.errors import QuantizationError, VitrailError
from vitrail.core.files import read_json, write_json
from vitrail.quantization.config import MAX_BITS, QuantizationConfig
from vitrail.quantization.quantizers.kinds import Quantizer, quantizer_from_dict
from vitrail.quantization.quantizers.uniform import UniformQuantizer

VERSION = 2

LARGEST_PLAN = 2**28
"""Bytes that packed codes may unpack to; more is no plan of ours."""


Role = Literal["input", "weight", "output", "left", "right", "query", "key", "softmax", "value"]
"""The place of an operand among those of its operation."""


def operand_name(path: str, role: Role, call: int) -> str:
    """The name of an operand in a plan; ``call`` counts the operations of a module from 1."""
    return f"{path}:{role}" + (f"#{call}" if call > 1 else "")


def role_of(name: str) -> str:
    """The role in an operand's name, see :func:`operand_name`."""
    return name.rpartition(":")[2].partition("#")[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Smoothing:
    """The scaling of a norm's output, or explicitly of one layer's input: x' = (x - shift) / scale.

    Attributes:
        scale, shift: (channels,), float32.
        explicit: a multiplication before one layer; otherwise scale and shift are folded into a norm.
    """

    scale: Tensor
    shift: Tensor
    explicit: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"scale": self.scale.tolist(), "shift": self.shift.tolist(), "explicit": self.explicit}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(
            scale=torch.tensor(values["scale"], dtype=torch.float32),
            shift=torch.tensor(values["shift"], dtype=torch.float32),
            explicit=bool(values["explicit"]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Rounding:
    """The rounding of a weight where it is not to the nearest code, and the layer's corrected bias.

    Attributes:
        code_offsets: differences of the codes from the nearest ones (int8, in the order of the weight), compressed,
            base64; "" for none.
        bias: bias of the layer after correction, (outputs,); None for the layer's own.
    """

    code_offsets: str = ""
    bias: Tensor | None = None

    @classmethod
    def of(cls, codes: Tensor, nearest: Tensor, bias: Tensor | None) -> Self:
        """From codes, the nearest ones (of the same shape, int8), and the bias."""
        offsets = codes.to(torch.int16) - nearest.to(torch.int16)
        packed = zlib.compress(offsets.to(torch.int8).contiguous().numpy().tobytes(), 9) if bool(offsets.any()) else b""
        return cls(
            code_offsets=base64.b64encode(packed).decode("ascii"), bias=None if bias is None else bias.detach().float()
        )

    def codes(self, nearest: Tensor) -> Tensor:
        """The codes, from the nearest ones.

        Raises:
            QuantizationError: the differences are damaged, or for another shape.
        """
        if not self.code_offsets:
            return nearest
        try:
            data = zlib.decompressobj().decompress(base64.b64decode(self.code_offsets, validate=True), LARGEST_PLAN)
        except (ValueError, zlib.error) as error:
            raise QuantizationError(
                f"the plan's codes are damaged ({error}); make a fresh one: vitrail quantize RUN"
            ) from error
        if len(data) != nearest.numel():
            raise QuantizationError(
                f"the plan has {len(data)} codes for a weight of {nearest.numel()}; "
                "make a fresh one: vitrail quantize RUN"
            )
        offsets = torch.from_numpy(np.frombuffer(data, np.int8).copy()).view(nearest.shape)
        return (nearest.to(torch.int16) + offsets).to(nearest.dtype)

    def to_dict(self) -> dict[str, Any]:
        return {"steps": self.code_offsets, "bias": None if self.bias is None else self.bias.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        bias = values["bias"]
        return cls(code_offsets=values["steps"], bias=None if bias is None else torch.tensor(bias, dtype=torch.float32))


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizationPlan:
    """All decisions of a quantisation, from which a model is rebuilt with its float weights and without calibration.

    Attributes:
        model: class of the model.
        fingerprint: digest of the model's operands and weight shapes, see :func:`~.graph.ops.fingerprint`.
        weights: digest of the values of the model's weights, see :func:`~.graph.ops.contents_digest`; empty in plans of
            version 0.1.0.
        operands: operand name (module path ":" role) -> its quantiser. An operation all of whose operands are
            missing stays in float.
        smoothing: left operand of the first layer that reads a norm -> scaling between the norm and its layers.
        rounding: weight operand -> its rounding where that is not to the nearest code.
        skipped: operations that stay in float, each with the reason.
        notes: remarks for the user, e.g. that few images were given.
        counts: operand name -> number of elements of a weight, or of an activation for one image.
        num_images: number of calibration images.
        config: configuration of the quantisation.
    """

    model: str
    fingerprint: str
    weights: str = ""
    operands: Mapping[str, Quantizer]
    smoothing: Mapping[str, Smoothing] = field(default_factory=dict)
    rounding: Mapping[str, Rounding] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    num_images: int
    config: QuantizationConfig = field(default_factory=QuantizationConfig)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QuantizationPlan) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def simulated(self) -> tuple[str, ...]:
        """Operands whose codes no runtime multiplies as integers; a plan with any is simulated only."""
        return tuple(name for name, quantizer in self.operands.items() if not _executable(name, quantizer))

    def __repr__(self) -> str:
        """In a line: a plan has hundreds of scales."""
        means = (f"{self.average_bits(weights=weights):.3g} bits" for weights in (True, False))
        return "QuantizationPlan({}: {} operands, weights {}, activations {})".format(
            self.model, len(self.operands), *means
        )

    def average_bits(self, *, weights: bool) -> float:
        """Mean bit width of the weights (by parameters), or of the activations (by elements)."""
        counts = {name: self.counts.get(name, 1) for name in self.operands if (role_of(name) == "weight") == weights}
        total = sum(counts.values())
        return sum(self.operands[name].bit_width * count for name, count in counts.items()) / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "weights": self.weights,
            "config": self.config.to_dict(),
            "num_images": self.num_images,
            "notes": list(self.notes),
            "skipped": list(self.skipped),
            "smoothing": {name: smoothing.to_dict() for name, smoothing in self.smoothing.items()},
            "rounded": {name: rounding.to_dict() for name, rounding in self.rounding.items()},
            "counts": dict(self.counts),
            "operands": [{"name": name} | quantizer.to_dict() for name, quantizer in self.operands.items()],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also after JSON.

        Raises:
            QuantizationError: not a plan, or of a version that this Vitrail does not know.
        """
        if not isinstance(values, Mapping) or "operands" not in values:
            raise QuantizationError(
                "this is not a quantisation plan (it has no 'operands'); make one: vitrail quantize RUN"
            )
        if values.get("version") != VERSION:
            raise QuantizationError(
                f"the plan has version {values.get('version')} and this Vitrail reads {VERSION}; make another with: "
                f"vitrail quantize RUN"
            )
        try:
            operands = {
                row["name"]: quantizer_from_dict({k: v for k, v in row.items() if k != "name"})
                for row in values["operands"]
            }
            return cls(
                model=values["model"],
                fingerprint=values["fingerprint"],
                weights=values.get("weights", ""),
                operands=operands,
                smoothing={name: Smoothing.from_dict(row) for name, row in values["smoothing"].items()},
                rounding={name: Rounding.from_dict(row) for name, row in values["rounded"].items()},
                skipped=tuple(values["skipped"]),
                notes=tuple(values["notes"]),
                counts=dict(values["counts"]),
                num_images=values["num_images"],
                config=QuantizationConfig.from_dict(values["config"]),
            )
        except VitrailError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise QuantizationError(
                f"the plan is damaged ({reason}); make a fresh one with: vitrail quantize RUN"
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


def _executable(name: str, quantizer: Quantizer) -> bool:
    """Uniform codes: of a weight at any bit width; of an activation in 8 bits, with one scale."""
    if not isinstance(quantizer, UniformQuantizer):
        return False
    return role_of(name) == "weight" or (quantizer.bit_width == MAX_BITS and quantizer.axis is None)
