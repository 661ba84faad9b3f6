"""Models by name."""

from __future__ import annotations

import http.server
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vitrail import create_model, list_models, load_checkpoint
from vitrail.core.errors import CheckpointError, ConfigError, ImageSizeError, UnknownNameError
from vitrail.models import hub


def test_patterns_choose_among_all_variants() -> None:
    assert {"edgevit_xxs", "edgevit_xs", "edgevit_s"} <= set(list_models("edgevit*"))
    assert all(name.startswith("edgevit") for name in list_models("edgevit*"))
    assert {"vit_tiny_patch16", "vit_small_patch16", "vit_base_patch16", "vit_small_patch16_gap"} <= set(list_models())
    assert list_models() == sorted(list_models())
    assert list_models("nothing*") == []


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'edgevit_xxl'; did you mean edgevit_xx?s"):
        create_model("edgevit_xxl")


def test_unknown_fields_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"edgevit_xxs has no field 'depth'; did you mean depths\?"):
        create_model("edgevit_xxs", depth=3)


@pytest.mark.parametrize("fields", [{"num_classes": -1}, {"in_chans": 0}, {"drop_path_rate": 1.0}, {"drop_rate": -0.1}])
def test_values_out_of_range_are_refused(fields: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        create_model("edgevit_nano_stride2", **fields)


def test_illegal_image_sizes_come_with_the_nearest_legal_ones() -> None:
    with pytest.raises(ImageSizeError, match=r"224x230 .* multiples of 32; nearest legal sizes: 224x224 or 224x256"):
        create_model("edgevit_xxs", image_size=(224, 230))
    model = create_model("edgevit_nano_stride2", num_classes=2).eval()
    with pytest.raises(ImageSizeError, match="50x48"):
        model(torch.zeros(1, 3, 50, 48))
    with pytest.raises(ImageSizeError, match="multiples of 16"):
        create_model("vit_tiny_patch16", image_size=100)
    with pytest.raises(ImageSizeError, match=r"build it with image_size=\(64, 64\)"):
        create_model("vit_nano_patch4")(torch.zeros(1, 3, 64, 64))


def test_arguments_reach_the_model() -> None:
    model = create_model("edgevit_nano_stride2", num_classes=4, in_chans=1, image_size=(32, 64), drop_path_rate=0.2)
    assert model(torch.zeros(2, 1, 32, 64)).shape == (2, 4)
    rates = [block.global_block.drop_path.p for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_no_classes_means_pooled_features() -> None:
    model = create_model("edgevit_nano_stride2", num_classes=0).eval()
    images = torch.randn(2, 3, 48, 48)
    features = model(images)
    assert features.shape == (2, model.num_features)
    torch.testing.assert_close(features, model.forward_features(images).mean((2, 3)))


def test_weights_are_loaded_at_creation(tmp_path: Path) -> None:
    trained = create_model("edgevit_nano_stride2", num_classes=2)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    model = create_model("edgevit_nano_stride2", num_classes=2, weights=tmp_path / "w.safetensors")
    assert torch.equal(model.head.weight, trained.head.weight)


@pytest.mark.parametrize(
    "url", ["https://[::1/w.pth", "https://exa mple.org/w.pth", "https://x:y/w.pth", "ftp://x/w.pth"]
)
def test_addresses_that_are_none_are_one_error(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(create_model("edgevit_nano_stride2", num_classes=2), url)
    assert url in str(error.value)
    assert "\n" not in str(error.value)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_a_url_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "cache"))
    trained = create_model("edgevit_nano_stride2", num_classes=2)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/w.safetensors"
        model = create_model("edgevit_nano_stride2", num_classes=2)
        load_checkpoint(model, url)
        with pytest.raises(CheckpointError, match=r"cannot download .*missing.safetensors"):
            load_checkpoint(model, url.replace("w.", "missing."))
        server.shutdown()
    assert torch.equal(model.head.weight, trained.head.weight)
    load_checkpoint(model, url)


class Answer:
    """What a server sends: blocks without end."""

    length: int | None = None

    def read(self, size: int) -> bytes:
        return bytes(size)


@pytest.mark.parametrize(
    ("largest", "block", "length", "told"),
    [
        (4000, 1000, None, "has more than 0 GiB"),
        (4000, 1000, 9000, "has more than 0 GiB"),
        (10**9, 100, None, "sends fewer than 10 kB a second"),
    ],
)
def test_a_download_has_limits(
    largest: int, block: int, length: int | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "LARGEST_BYTES", largest)
    monkeypatch.setattr(hub, "BLOCK_BYTES", block)
    answer, now = Answer(), iter(range(0, 10**6, 10))
    answer.length = length
    with (tmp_path / "w.pth").open("wb") as file, pytest.raises(CheckpointError, match=told):
        hub._copy(answer, file, "https://host/w.pth", clock=lambda: float(next(now)))
    assert (tmp_path / "w.pth").stat().st_size <= largest + block


def test_a_download_that_ends_too_soon_is_none(tmp_path: Path) -> None:
    class Short(Answer):
        length = 10

        def read(self, size: int) -> bytes:
            found, self.length = bytes(5) if self.length == 10 else b"", 0
            return found

    told = "ended after 5 of 10 bytes"
    with (tmp_path / "w.pth").open("wb") as file, pytest.raises(CheckpointError, match=told):
        hub._copy(Short(), file, "https://host/w.pth")


def test_features_need_no_classifier_of_the_weights(tmp_path: Path) -> None:
    """The README's own example: features from a file that has a classifier."""
    torch.save(create_model("edgevit_nano_stride2", num_classes=7).state_dict(), tmp_path / "w.pth")
    model = create_model("edgevit_nano_stride2", num_classes=0, weights=str(tmp_path / "w.pth"))
    assert model.num_classes == 0
    with pytest.raises(CheckpointError, match="only the classifier does not fit: replace_head=True keeps"):
        create_model("edgevit_nano_stride2", num_classes=3, weights=tmp_path / "w.pth")
    assert (
        create_model("edgevit_nano_stride2", num_classes=3, weights=tmp_path / "w.pth", replace_head=True).num_classes
        == 3
    )
    with pytest.raises(CheckpointError, match="does not fit"):
        create_model("edgevit_nano_stride2", num_classes=0, weights=tmp_path / "w.pth", replace_head=False)
