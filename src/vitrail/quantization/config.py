"""The choices of quantisation that a user has, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from vitrail.core.config import convert_fields
from vitrail.core.errors import QuantizationError

MIN_BITS, MAX_BITS = 2, 8

PresetName = Literal["min_max", "mptq", "fast", "best"]
ObserverName = Literal["min_max", "percentile", "mse", "hessian"]
SmoothingName = Literal["none", "smoothquant", "sq_b", "repq"]
SoftmaxName = Literal["uniform", "log2", "log_sqrt2", "two_scale", "best"]
ActivationName = Literal["uniform", "twin", "two_scale", "best"]
ChannelsName = Literal["uniform", "outlier"]
RoundingName = Literal["nearest", "gptq"]
CorrectionName = Literal["none", "bias", "ridge"]
ReconstructionName = Literal["none", "low", "blocks"]
AllocationName = Literal["greedy", "exact"]
TargetName = Literal["vnni", "avx2"]

OBSERVERS: tuple[str, ...] = get_args(ObserverName)

PRESETS: dict[PresetName, dict[str, Any]] = {
    "min_max": {
        "observer": "min_max",
        "smoothing": "none",
        "softmax": "uniform",
        "activation": "uniform",
        "channels": "uniform",
        "rounding": "nearest",
        "correction": "none",
        "reconstruction": "none",
    },
    "mptq": {
        "observer": "hessian",
        "smoothing": "sq_b",
        "softmax": "two_scale",
        "activation": "two_scale",
        "channels": "uniform",
        "rounding": "nearest",
        "correction": "none",
        "reconstruction": "none",
    },
    "fast": {
        "observer": "hessian",
        "smoothing": "sq_b",
        "softmax": "best",
        "activation": "best",
        "channels": "uniform",
        "rounding": "nearest",
        "correction": "none",
        "reconstruction": "none",
    },
    "best": {
        "observer": "hessian",
        "smoothing": "sq_b",
        "softmax": "best",
        "activation": "best",
        "channels": "uniform",
        "rounding": "gptq",
        "correction": "none",
        "reconstruction": "low",
    },
}
"""Preset -> the choices that it makes where the user makes none."""


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """The user's choices; the preset makes those that are left out.

    Attributes:
        preset: set of methods: "best" (most accurate with a few dozen images), "fast" (without GPTQ;
            enough for 8 bits), "mptq" (MPTQ-ViT as its paper describes it) or "min_max" (the plainest).
        weight_bits: bits of the weights, 2 to 8; with a budget, the most that a layer gets.
        activation_bits: bits of the activations: 8, which ONNX Runtime and OpenVINO execute, or 2 to 7, which are only
            simulated.
        average_bits: budget: mean bits of the weights (and of the activations with ``mixed_activations``). Default: no
            budget.
        max_size_mb: budget: size of the exported file's weights in MB. Default: no budget.
        mixed_activations: give each activation its own bits too; only simulated.
        allocation: method that spends a budget: "greedy" (Greedy MP) or "exact" (an integer programme).
        observer: method that sets the range of an operand. Default: the preset's.
        smoothing: method that moves the range of activations into weights. Default: the preset's.
        softmax: quantizer of attention probabilities below 8 bits. Default: the preset's.
        activation: quantizer of the outputs of activation functions below 8 bits. Default: the preset's.
        channels: quantizer of the inputs of linear layers below 8 bits; "outlier" gives channels with a far larger
            range a second scale (O-2SF). Default: the preset's.
        search_ratio: search the ratio of two regions (OPT-m) instead of a fixed one.
        search_clip: search the end of the coarse region.
        rounding: rounding of the weights: to the nearest value, or by second-order error (GPTQ). Default: the preset's.
        correction: correction of the error that quantised inputs make: "bias" (the mean) or "ridge" (weights too, as
            ERQ). Default: the preset's.
        reconstruction: training of weights, biases and scales, a few layers at a time (as BRECQ and QDrop): "blocks" if
            any operand has fewer than 8 bits, "low" only if activations may have. Default: the preset's.
        reconstruction_steps: number of training steps for each block of layers in the reconstruction.
        group_size: number of weights that share a scale within a channel; 0 for one scale a channel. Only simulated.
        target_cpu: processors that the file is for: "vnni" (x86 with VNNI or AMX, and Arm), or "avx2", which older x86
            processors need too: weights, keys and values take half of their codes there, since ONNX Runtime adds two
            8-bit products in 16 bits.
        keep_float: layers that stay in float: "stem" (a convolution that reads the image), "depthwise" (convolutions
            with one channel a group), "conv_transpose", or module paths or operands with wildcards, e.g. "stages.0.*"
            or "*:query".
    """

    preset: PresetName = "best"
    weight_bits: int = 8
    activation_bits: int = 8
    average_bits: float | None = None
    max_size_mb: float | None = None
    mixed_activations: bool = False
    allocation: AllocationName = "greedy"
    observer: ObserverName | None = None
    smoothing: SmoothingName | None = None
    softmax: SoftmaxName | None = None
    activation: ActivationName | None = None
    channels: ChannelsName | None = None
    search_ratio: bool = True
    search_clip: bool = True
    rounding: RoundingName | None = None
    correction: CorrectionName | None = None
    reconstruction: ReconstructionName | None = None
    reconstruction_steps: int = 80
    group_size: int = 0
    target_cpu: TargetName = "vnni"
    keep_float: tuple[str, ...] = ("stem", "depthwise", "conv_transpose")

    def __post_init__(self) -> None:
        convert_fields(self)
        for name in ("weight_bits", "activation_bits"):
            if not MIN_BITS <= getattr(self, name) <= MAX_BITS:
                raise QuantizationError(
                    f"is not supported; choose {MIN_BITS} to {MAX_BITS}", **{name: getattr(self, name)}
                )
        if self.average_bits is not None and not MIN_BITS <= self.average_bits <= MAX_BITS:
            raise QuantizationError(
                f"is outside {MIN_BITS} to {MAX_BITS}; 4 to 6 are usual", average_bits=self.average_bits
            )
        if self.max_size_mb is not None and self.max_size_mb <= 0:
            raise QuantizationError("is not positive; give megabytes", max_size_mb=self.max_size_mb)
        if self.average_bits is not None and self.max_size_mb is not None:
            both = {"average_bits": self.average_bits, "max_size_mb": self.max_size_mb}
            raise QuantizationError("give one budget, not both", **both)
        if self.reconstruction_steps < 1:
            complaint = "is below 1; 50 to 500 are usual, and reconstruction 'none' leaves it out"
            raise QuantizationError(complaint, reconstruction_steps=self.reconstruction_steps)
        if self.group_size < 0 or self.group_size == 1:
            raise QuantizationError("is not usable; 0 is off, 32, 64 and 128 are usual", group_size=self.group_size)

    @property
    def mixed(self) -> bool:
        """Bit widths differ from tensor to tensor, within a budget."""
        return self.average_bits is not None or self.max_size_mb is not None

    def implied(self) -> dict[str, str]:
        """The choices that are None -> the preset's value."""
        return {name: value for name, value in PRESETS[self.preset].items() if getattr(self, name) is None}

    def resolved(self) -> ResolvedConfig:
        """The preset's choices, replaced by the user's own."""
        choices = {name: getattr(self, name) for name in PRESETS[self.preset]} | self.implied()
        if choices["reconstruction"] == "low":
            low = self.activation_bits < MAX_BITS or self.mixed_activations
            choices["reconstruction"] = "blocks" if low else "none"
        return ResolvedConfig(**choices)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a plan stores it."""
        values = {STORED_FIELDS.get(name, name): value for name, value in asdict(self).items()}
        if self.target_cpu == "vnni":  # plans say what is unusual, so that version 0.1.0 reads the others
            del values["target_cpu"]
        return values | {"rounding": STORED_ROUNDINGS.get(self.rounding, self.rounding)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also after JSON."""
        fields = {stored: name for name, stored in STORED_FIELDS.items()}
        roundings = {stored: name for name, stored in STORED_ROUNDINGS.items()}
        renamed = {fields.get(name, name): value for name, value in values.items()}
        rounding = roundings.get(str(values.get("rounding")), values.get("rounding"))
        return cls(**(renamed | {"rounding": rounding, "keep_float": tuple(values["keep_float"])}))


STORED_FIELDS = {"activation": "act"}
STORED_ROUNDINGS: dict[str | None, str] = {"gptq": "second_order"}
"""Names that plans of version 0.1.0 have; files keep them, so that either version reads the other's."""


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig:
    """A configuration with all choices made, see :class:`QuantizationConfig`."""

    observer: ObserverName
    smoothing: SmoothingName
    softmax: SoftmaxName
    activation: ActivationName
    channels: ChannelsName
    rounding: RoundingName
    correction: CorrectionName
    reconstruction: ReconstructionName

    @property
    def needs_gradients(self) -> bool:
        return self.observer == "hessian"
