"""What every family promises of its computation, checked on one small variant each."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from contract_models import SMALL, lively_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitrail.core.errors import ImageSizeError
from vitrail.core.types import Preprocessing
from vitrail.data import AugmentConfig, DataConfig, ImageSet, load_data, train_loader
from vitrail.export import export_model
from vitrail.models import FAMILIES, Backbone, create_model
from vitrail.runtimes import open_session

LIGHT = ("edgevit", "poolformer", "revit", "vit")
HEAVY_ARE_SLOW = [pytest.param(family, marks=[pytest.mark.slow] * (family not in LIGHT)) for family in FAMILIES]
"""All families; those of which one model takes many seconds are left to the slow tests."""


def images(model: Backbone, batch: int = 2) -> Tensor:
    return torch.randn(batch, model.config.in_chans, *model.config.image_size)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_do_not_mix(family: str) -> None:
    model = lively_model(family)
    x = images(model, 3)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_state_dict_round_trip(family: str, tmp_path: Path) -> None:
    model, other = lively_model(family), create_model(SMALL[family], num_classes=10).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    x = images(model)
    with torch.no_grad():
        assert torch.equal(model(x), other(x))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_steps_lower_the_loss(family: str) -> None:
    model = create_model(SMALL[family], num_classes=4, drop_path_rate=0.05).train()
    x, targets = images(model, 8), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(x), targets)
        optimizer.zero_grad()
        loss.backward()
        missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-2:]) < 0.8 * losses[0]


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
    model = lively_model(family).train()
    x = images(model)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(1)  # the same dropout
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-5 * float(plain.abs().max() + 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_other_than_the_native_square(family: str) -> None:
    native = create_model(SMALL[family], num_classes=10)
    side = native.config.image_size[0]
    divisor = native.size_divisor
    size = (side + divisor, side)
    model = lively_model(family, image_size=size)
    with torch.no_grad():
        assert model(torch.randn(1, 3, *size)).shape == (1, 10)
        _, maps = model.forward_intermediates(torch.randn(1, 3, *size))
    for info, level in zip(model.feature_info, maps, strict=True):
        assert level.shape[-2:] == (-(-size[0] // info.stride), -(-size[1] // info.stride))
    if divisor == 1:
        return  # nothing is illegal
    with pytest.raises(ImageSizeError, match=f"{side + 1}x{side}"):
        model(torch.randn(1, 3, side + 1, side))


@pytest.mark.parametrize("family", FAMILIES)
def test_chosen_levels_are_the_right_ones(family: str) -> None:
    model = lively_model(family)
    x = images(model)
    with torch.no_grad():
        final, every = model.forward_intermediates(x)
        last_two = model.forward_intermediates(x, 2, intermediates_only=True)
        first = model.forward_intermediates(x, [0], intermediates_only=True)
        assert torch.equal(final, model.forward_features(x))
    assert torch.equal(first[0], every[0])
    assert all(torch.equal(a, b) for a, b in zip(last_two, every[-2:], strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_fusing_for_inference_changes_no_output(family: str) -> None:
    model = lively_model(family).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 2)
        for name, parameter in module.named_parameters(recurse=False):
            if "layer_scale" in name:
                nn.init.normal_(parameter)
    x = images(model).double()
    with torch.no_grad():
        expected = model(x)
        fused = model.fuse_for_inference()(x)
        again = model.fuse_for_inference()(x)
    torch.testing.assert_close(fused, expected, rtol=1e-7, atol=1e-9)
    assert torch.equal(fused, again)
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms in ([], ["norm"])  # the one before pooling belongs to the features


@pytest.mark.parametrize("family", HEAVY_ARE_SLOW)
def test_onnx_runtime_and_openvino_agree_at_any_batch_size(family: str, tmp_path: Path) -> None:
    model = lively_model(family)
    path = tmp_path / "model.onnx"
    about = Preprocessing(image_size=model.config.image_size)
    export_model(model, path, preprocessing=about, classes=list("abcdefghij"), images=images(model))
    free = [open_session(path, runtime) for runtime in ("onnxruntime", "openvino")]
    fixed = [open_session(path, session.runtime, shape=(5, *images(model).shape[1:])) for session in free]
    for batch in (1, 5):
        x = images(model, batch)
        with torch.no_grad():
            expected = model(x).numpy()
        for session in [*free, *(fixed if batch == 5 else [])]:
            assert np.abs(session(x.numpy()) - expected).max() <= 1e-4 * np.abs(expected).max(), session


@pytest.mark.slow
@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("family", FAMILIES)
def test_compiles_without_graph_breaks(family: str) -> None:
    model = lively_model(family)
    x = images(model)
    torch._dynamo.reset()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inductor's own making
        compiled = torch.compile(model, fullgraph=True)(x)
        torch.testing.assert_close(compiled, model(x), rtol=1e-3, atol=1e-4)
