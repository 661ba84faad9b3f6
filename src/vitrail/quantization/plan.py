"""The quantisation plan: all that quantisation decided, apart from the weights, as one readable JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from vitrail.core.errors import QuantizationError
from vitrail.core.files import read_json, write_json
from vitrail.quantization.observers import OBSERVERS
from vitrail.quantization.quantizers import MAX_BITS, MIN_BITS, UniformQuantizer

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """What the user may choose.

    Attributes:
        weight_bits, activation_bits: 2 to 8. ONNX Runtime and OpenVINO compute with 8 bits whatever the width, so fewer
            bits only cost accuracy here.
        observer: how ranges are calibrated, a key of ``OBSERVERS``.
        keep_float: what is not quantised: "stem" (a convolution that reads the image: with it in codes, OpenVINO
            2026.4 gave another answer than ONNX Runtime for a ViT), "depthwise" (convolutions with one channel a
            group), "conv_transpose", or module paths with wildcards, e.g. "stages.0.*".
    """

    weight_bits: int = 8
    activation_bits: int = 8
    observer: str = "min_max"
    keep_float: tuple[str, ...] = ("stem", "depthwise", "conv_transpose")

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            if not MIN_BITS <= getattr(self, name) <= MAX_BITS:
                raise QuantizationError(
                    f"{name}={getattr(self, name)} is not supported; choose {MIN_BITS} to {MAX_BITS}"
                )
        if self.observer not in OBSERVERS:
            raise QuantizationError(f"unknown observer '{self.observer}'; choose {' or '.join(OBSERVERS)}")


@dataclass(frozen=True, kw_only=True)
class QuantizationPlan:
    """Rebuilds a quantised model from its float weights without calibration.

    Attributes:
        model: class of the model.
        fingerprint: identifies the model's operands and weight shapes; see :func:`~.sites.fingerprint`.
        operands: operand name (module path ":" role) -> its quantiser. An operation all of whose operands are
            missing stays in float.
        skipped: operations that stay in float, each with the reason.
        notes: what the user should know, e.g. that few images were given.
        num_images: calibration images seen.
        config: the choices that led here.
    """

    model: str
    fingerprint: str
    operands: Mapping[str, UniformQuantizer]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    num_images: int
    config: QuantizationConfig = QuantizationConfig()

    def to_dict(self) -> dict[str, Any]:
        operands = [{"name": name} | quantizer.to_dict() for name, quantizer in self.operands.items()]
        return {
            "version": VERSION,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "config": asdict(self.config),
            "num_images": self.num_images,
            "notes": list(self.notes),
            "skipped": list(self.skipped),
            "operands": operands,
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
                row["name"]: UniformQuantizer.from_dict({k: v for k, v in row.items() if k != "name"})
                for row in values["operands"]
            }
            return cls(
                model=values["model"],
                fingerprint=values["fingerprint"],
                operands=operands,
                skipped=tuple(values["skipped"]),
                notes=tuple(values["notes"]),
                num_images=values["num_images"],
                config=QuantizationConfig(**(config | {"keep_float": tuple(config["keep_float"])})),
            )
        except (KeyError, TypeError) as error:
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
