"""From a trained run to two verified ONNX files, one of them with 8-bit integers.

python examples/02_train.py && python examples/03_quantize_and_export.py
"""

from __future__ import annotations

import vitrail


def main() -> None:
    run = vitrail.open_run("runs/example")
    run.quantize(bits=8, calibration=32)
    for record in run.export("onnx"):
        print(f"{record.path}: {record.size_bytes / 1e6:.2f} MB, same top-1 as the model {record.top1_agreement:.0%}")


if __name__ == "__main__":
    main()
