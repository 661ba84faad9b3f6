"""Processor time and peak memory of one calibration, on one thread; weights and images are random.

python benchmarks/calibration_cost.py vit_small_patch16 --preset best --bits 4
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from vitrail import create_model
from vitrail.quantization import QuantizationConfig, quantize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--preset", default="best")
    parser.add_argument("--bits", type=int, default=8, help="of weights")
    parser.add_argument("--activation-bits", type=int, default=8)
    parser.add_argument("--calibration", type=int, default=64, help="images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = create_model(options.model, num_classes=1000).eval()
    images = torch.randn(options.calibration, 3, *model.config.image_size)
    config = QuantizationConfig(
        preset=options.preset, weight_bits=options.bits, activation_bits=options.activation_bits
    )
    start = time.process_time()
    quantize(model, images, config=config)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # in KiB on Linux
    params = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{options.model}, {params:.1f} M, {options.preset}: {seconds:.0f} s of one core, {peak:.1f} GB")


if __name__ == "__main__":
    main()
