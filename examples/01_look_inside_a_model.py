"""Models by name, and the levels of features that a backbone offers to a task.

python examples/01_look_inside_a_model.py
"""

from __future__ import annotations

import torch

import vitrail


def main() -> None:
    print("EdgeViTs:", ", ".join(vitrail.list_models("edgevit*")))

    model = vitrail.create_model("edgevit_xxs", num_classes=0).eval()  # 0 classes: pooled features
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        levels = model.forward_intermediates(images, intermediates_only=True)
        pooled = model(images)

    for info, level in zip(model.feature_info, levels, strict=True):
        print(f"{info.name:>10}  stride {info.stride:>2}  {tuple(level.shape)}")
    print(f"    pooled  {tuple(pooled.shape)}")


if __name__ == "__main__":
    main()
