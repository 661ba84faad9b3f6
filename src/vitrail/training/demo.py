"""The training configuration of ``vitrail demo``."""

from __future__ import annotations

from vitrail.data import AugmentConfig
from vitrail.training.config import TrainConfig


def demo_config() -> TrainConfig:
    """A small EdgeViT on the built-in photographs of hand signs; about two minutes on two CPU cores.

    Signs fill the picture and differ by single fingers, so crops are mild and images are not mirrored. The last epoch
    is kept, because the best epoch on only 140 validation images is mostly chance.
    """
    return TrainConfig(
        model="edgevit_nano_stride2",
        augment=AugmentConfig(
            random_resized_crop_scale=(0.6, 1.0),
            random_resized_crop_ratio=(0.85, 1.18),
            rand_augment_num_ops=1,
            rand_augment_magnitude=5,
            random_erasing=0.1,
        ),
        epochs=30,
        batch_size=32,
        learning_rate=2e-3,
        ema_decay=0.99,
        keep="last",
        num_workers=0,
    )
