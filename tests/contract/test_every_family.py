"""What every family promises of its computation, checked on one small variant each."""

from __future__ import annotations

import pytest
import torch
from contract_models import SMALL, lively_model, make_small
from torch import nn

from vitrail.contract import computing
from vitrail.contract.model_files import files_agree_at_any_batch_size
from vitrail.core.types import Preprocessing
from vitrail.data import AugmentConfig, DataConfig, ImageSet, load_data, train_loader
from vitrail.models import FAMILIES, create_model

LIGHT = ("vit",)
HEAVY_ARE_SLOW = [pytest.param(family, marks=[pytest.mark.slow] * (family not in LIGHT)) for family in FAMILIES]
"""All families; those of which one model takes many seconds are left to the slow tests."""


@pytest.mark.parametrize("family", FAMILIES)
def test_images_do_not_mix(family: str) -> None:
    computing.images_do_not_mix(make_small(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_state_dict_round_trip(family: str) -> None:
    computing.state_dict_round_trip(make_small(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_steps_lower_the_loss(family: str) -> None:
    computing.training_lowers_the_loss(make_small(family), most=8)


@pytest.fixture(scope="module")
def photographs() -> ImageSet:
    """A part of the embedded sample: 30 training images of each class."""
    train = load_data(DataConfig()).train
    return train.subset([i for c in range(10) for i in (train.labels == c).nonzero().flatten()[:30].tolist()])


@pytest.mark.parametrize("family", HEAVY_ARE_SLOW)
def test_two_epochs_on_photographs_lower_the_loss(family: str, photographs: ImageSet) -> None:
    torch.manual_seed(0)
    model = create_model(SMALL[family], num_classes=10).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    how = Preprocessing(image_size=model.config.image_size, crop_fraction=1.0)
    mild = AugmentConfig(random_resized_crop_scale=(0.8, 1.0), rand_augment_num_ops=0, random_erasing=0.0)
    loader = train_loader(photographs, how, mild, batch_size=15, num_workers=0, seed=0, num_classes=10)
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        losses = []
        for batch in loader:
            loss = nn.functional.cross_entropy(model(how.normalize(batch.images)), batch.targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epochs.append(sum(losses) / len(losses))
    assert epochs[1] < epochs[0] - 0.02, epochs


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_nothing(family: str) -> None:
    computing.gradient_checkpointing_changes_nothing(make_small(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_other_than_the_native_square(family: str) -> None:
    computing.takes_other_sizes(make_small(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_chosen_levels_are_the_right_ones(family: str) -> None:
    computing.chosen_levels_are_right(make_small(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_fusing_for_inference_changes_no_output(family: str) -> None:
    computing.fusing_changes_no_output(make_small(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_fusing_leaves_no_norm_of_a_batch(family: str) -> None:
    model = lively_model(family).fuse_for_inference()
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms in ([], ["norm"])  # the one before pooling belongs to the features


@pytest.mark.parametrize("family", HEAVY_ARE_SLOW)
def test_onnx_runtime_and_openvino_agree_at_any_batch_size(family: str) -> None:
    files_agree_at_any_batch_size(make_small(family))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_torch_export_agrees(family: str) -> None:
    computing.exports_with_torch(make_small(family))


@pytest.mark.slow
@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("family", FAMILIES)
def test_compiles_without_graph_breaks(family: str) -> None:
    computing.compiles_without_graph_breaks(make_small(family))
