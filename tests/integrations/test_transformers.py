"""Detectors of transformers over our backbones; what runs them is tested where the optional extra is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail.core.errors import ConfigError, MissingDependencyError, UnknownNameError
from vitrail.integrations.transformers import create_detector

pytest.importorskip("timm")
installed = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="optional, not installed: transformers"
)
TINY: dict[str, Any] = {
    "num_queries": 10, "d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_layers": 2,
}  # fmt: skip


def detector(kind: Any, variant: str = "edgevit_nano_stride2") -> nn.Module:
    torch.manual_seed(0)
    return create_detector(variant, 3, kind=kind, **TINY)


@installed
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", ["edgevit_nano_stride2", "mobilevit_nano", "vitaev2_nano_stride2"])
@pytest.mark.parametrize("kind", ["dfine", "rtdetrv2"])
def test_detectors_learn_backbone_and_all(kind: Any, variant: str) -> None:
    model = detector(kind, variant).train()
    images = torch.randn(2, 3, 64, 64)
    nothing = {"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.3]])}, nothing]
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    assert norms
    assert not [name for name, one in model.named_modules() if "Frozen" in type(one).__name__]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(10):
        loss = model(pixel_values=images, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * max(losses[:2]), losses
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert len(without) < 8, "the last norm of the backbone, and constants"
    assert not {name for name in without if ".blocks." in name}
    with torch.no_grad():
        found = model.eval()(pixel_values=images)
    assert found.logits.shape == (2, 10, 3)
    assert found.pred_boxes.shape == (2, 10, 4)


class _Tensors(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model(pixel_values=images)
        return found.logits, found.pred_boxes


@installed
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_file_of_dfine_agrees(tmp_path: Path, no_shape_checks: None) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = _Tensors(detector("dfine")).eval()
    images = torch.randn(1, 3, 64, 64)
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (images,), path, dynamo=False, opset_version=17, input_names=["images"])
    with torch.no_grad():
        wanted = model(images)
    for ours, theirs in zip(
        onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()}), wanted, strict=True
    ):
        torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=1e-4, rtol=1e-4)


def test_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="vit_tiny_patch16 has 1 strides, and these detectors need 3"):
        create_detector("vit_tiny_patch16", 3)
    with pytest.raises(ConfigError, match="kind='detr' does not exist"):
        create_detector("edgevit_xxs", 3, kind="detr")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError):
        create_detector("edgevit_xxxs", 3)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vitrail\[transformers\]'"):
        create_detector("edgevit_xxs", 3)
