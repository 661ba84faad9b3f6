"""What a quantisation consists of, for those who wait for it."""

from __future__ import annotations

from vitrail.quantization.config import MAX_BITS, QuantizationConfig

RECONSTRUCTING = 60.0
"""Time of the reconstruction of blocks over that of a calibration with gradients."""


def expected_stages(config: QuantizationConfig) -> list[tuple[str, float]]:
    """Title of each work of a quantisation, in order, and a guess of its time over that of the calibration.

    The guesses are those of small transformers on two cores.
    """
    choices = config.resolved()
    stages = [("Calibrating", 1.0)]
    if config.mixed:
        stages.append(("Measuring sensitivity", 4.0))
    stages.append(("Choosing scales", 2.0))
    if choices.rounding != "nearest" or choices.correction != "none":
        stages.append(("Rounding weights", 3.0))
    if choices.reconstruction == "blocks" and (config.mixed or config.weight_bits < MAX_BITS):
        stages.append(("Reconstructing blocks", RECONSTRUCTING))
    return stages
