"""Quantisers of every kind, read back from the dictionaries that plans store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vitrail.core.errors import QuantizationError
from vitrail.quantization.quantizers.group import GroupQuantizer
from vitrail.quantization.quantizers.log import LogQuantizer
from vitrail.quantization.quantizers.outlier import OutlierQuantizer
from vitrail.quantization.quantizers.two_scale import TwoScaleQuantizer
from vitrail.quantization.quantizers.uniform import UniformQuantizer

Quantizer = UniformQuantizer | LogQuantizer | TwoScaleQuantizer | OutlierQuantizer | GroupQuantizer

KINDS: dict[str, Any] = {
    cls.kind: cls for cls in (UniformQuantizer, LogQuantizer, TwoScaleQuantizer, OutlierQuantizer, GroupQuantizer)
}


def quantizer_from_dict(values: Mapping[str, Any]) -> Quantizer:
    """The inverse of every quantiser's ``to_dict``.

    Raises:
        QuantizationError: an unknown kind, or values that its quantiser refuses.
        KeyError, TypeError: entries are missing, or of the wrong kind.
    """
    kind = values.get("kind")
    if kind not in KINDS:
        raise QuantizationError(f"unknown kind of quantiser '{kind}'; known: {', '.join(KINDS)}")
    fields = {name: value for name, value in values.items() if name != "kind"}
    if kind == UniformQuantizer.kind:
        shape = () if fields["axis"] is None and len(fields["scale"]) == 1 else (-1,)
        fields["scale"] = torch.tensor(fields["scale"], dtype=torch.float32).reshape(shape)
        fields["zero_point"] = torch.tensor(fields["zero_point"], dtype=torch.int64).reshape(shape)
    if kind == OutlierQuantizer.kind:
        fields["outliers"] = tuple(fields["outliers"])
    if kind in (GroupQuantizer.kind, OutlierQuantizer.kind):
        fields["inner"] = quantizer_from_dict(fields["inner"])
    result: Quantizer = KINDS[kind](**fields)
    return result
