"""Weights from the hub: the table, the cache, the download, and every way in which they may fail."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from vitrail import create_model, load_checkpoint
from vitrail.core.errors import CheckpointError
from vitrail.core.types import Preprocessing
from vitrail.models import FAMILIES, family_of, hub as hub_module
from vitrail.models.checkpoint import rename
from vitrail.models.pretrained import PretrainedWeights

NAME = "vit_nano_patch4"
VIT = FAMILIES["vit"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PUBLIC = PretrainedWeights(
    hub_id="somebody/nano",
    tag="good_in1k",
    image_size=(32, 32),
    preprocessing=Preprocessing(image_size=(32, 32), mean=(0.1, 0.2, 0.3), crop_fraction=1.0),
    num_classes=7,
)
"""What the table is made to say of a model that is small enough to be made here."""


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> tuple[PretrainedWeights, ...]:
    other = replace(PUBLIC, hub_id="somebody/nano-48", image_size=(48, 48))
    features = replace(PUBLIC, hub_id="somebody/nano-21k", tag="in21k", num_classes=0)
    monkeypatch.setitem(VIT.weights, NAME, (PUBLIC, other, features))
    return PUBLIC, other, features


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


def store(cache: Path, weights: PretrainedWeights) -> Path:
    """Trained weights as the hub's client keeps them: blobs named by hash, snapshots of links, refs to commits."""
    torch.manual_seed(1)
    model = create_model(NAME, num_classes=weights.num_classes, image_size=weights.image_size)
    folder = cache / f"models--{weights.hub_id.replace('/', '--')}"
    for part in ("blobs", f"snapshots/{COMMIT}", "refs"):
        (folder / part).mkdir(parents=True)
    save_file(model.state_dict(), folder / "file")
    blob = folder / "blobs" / hashlib.sha256((folder / "file").read_bytes()).hexdigest()
    (folder / "file").rename(blob)
    (folder / "refs/main").write_text(COMMIT)
    link = folder / "snapshots" / COMMIT / "model.safetensors"
    link.symlink_to(f"../../blobs/{blob.name}")
    return link


@pytest.mark.usefixtures("published")
def test_weights_come_from_the_cache_with_their_preprocessing(cache: Path) -> None:
    file = store(cache, PUBLIC)
    model = create_model(NAME, weights="pretrained")
    reference = create_model(NAME, num_classes=7)
    assert load_checkpoint(reference, file) == "vitrail"
    assert model.num_classes == 7
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), reference.parameters(), strict=True))
    assert model.preprocessing == PUBLIC.preprocessing
    assert reference.preprocessing == type(reference).preprocessing != PUBLIC.preprocessing


@pytest.mark.usefixtures("published")
def test_another_number_of_classes_means_a_fresh_classifier(cache: Path) -> None:
    file = store(cache, PUBLIC)
    model = create_model(NAME, num_classes=3, weights="pretrained:good_in1k")
    reference = create_model(NAME, num_classes=7, weights=file)
    assert model.head.weight.shape == (3, 128)
    assert torch.equal(model.norm.weight, reference.norm.weight)
    assert torch.equal(model.blocks[5].mlp.fc1.weight, reference.blocks[5].mlp.fc1.weight)
    with pytest.raises(CheckpointError, match="replace_head=True"):
        create_model(NAME, num_classes=3, weights="pretrained", replace_head=False)


@pytest.mark.usefixtures("published")
def test_weights_without_a_classifier_give_features(cache: Path) -> None:
    store(cache, replace(PUBLIC, hub_id="somebody/nano-21k", num_classes=0))
    assert create_model(NAME, weights="pretrained:in21k").num_classes == 0
    assert create_model(NAME, num_classes=4, weights="pretrained:in21k").head.weight.shape == (4, 128)


@pytest.mark.usefixtures("published")
def test_the_nearest_size_is_taken_and_the_position_table_resized(cache: Path) -> None:
    store(cache, replace(PUBLIC, hub_id="somebody/nano-48", image_size=(48, 48)))
    for size in ((48, 48), (64, 64)):
        model = create_model(NAME, image_size=size, weights="pretrained")
        assert model.preprocessing == replace(PUBLIC.preprocessing, image_size=size)
        assert model.pos_embed.table.shape[1] == 1 + (size[0] // 4) ** 2


def test_any_file_of_the_hub_by_address(cache: Path) -> None:
    store(cache, PUBLIC)
    model = create_model(NAME, num_classes=7)
    for address in ("hf://somebody/nano/model.safetensors", f"hf://somebody/nano@{COMMIT}/model.safetensors"):
        assert load_checkpoint(model, address) == "vitrail"
    with pytest.raises(CheckpointError, match="write hf://owner/repository/file"):
        load_checkpoint(model, "hf://somebody/nano")
    with pytest.raises(CheckpointError, match="cannot download hf://some body/nano/file"):
        load_checkpoint(model, "hf://some body/nano/file")


@pytest.mark.usefixtures("published")
def test_offline_and_damaged_are_told_apart_in_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"cannot download hf://somebody/nano/model.* not in the cache") as error:
        create_model(NAME, weights="pretrained")
    assert "\n" not in str(error.value)
    blob = store(cache, PUBLIC).resolve()
    monkeypatch.setitem(VIT.weights, NAME, (replace(PUBLIC, sha256="0" * 64),))
    with pytest.raises(CheckpointError, match=f"is damaged: its SHA-256 is not {'0' * 64}"):
        create_model(NAME, weights="pretrained")
    monkeypatch.setitem(VIT.weights, NAME, (PUBLIC,))
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        create_model(NAME, weights="pretrained")


class Hub(http.server.BaseHTTPRequestHandler):
    """What the client asks of the hub: where a file is, of which commit, with which hash."""

    content = b""

    def do_HEAD(self) -> None:
        found = self.path in (f"/somebody/nano/resolve/{name}/model.safetensors" for name in ("main", COMMIT))
        self.send_response(200 if found else 404)
        if found:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
            self.send_header("Content-Length", str(len(self.content)))
        else:
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield address
        server.shutdown()
    huggingface_hub.close_session()


@pytest.mark.usefixtures("published")
def test_a_hub_is_asked_once(
    hub: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = create_model(NAME, num_classes=7)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    monkeypatch.setattr(Hub, "content", (tmp_path / "w.safetensors").read_bytes())
    model = create_model(NAME, weights="pretrained")
    assert torch.equal(model.head.weight, trained.head.weight)
    with pytest.raises(CheckpointError, match=r"hf://some/thing/file: the hub has no such file") as error:
        load_checkpoint(model, "hf://some/thing/file")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(create_model(NAME, weights="pretrained").head.weight, trained.head.weight)


@pytest.mark.usefixtures("published")
def test_where_the_cache_has_no_links_the_hub_is_asked_for_the_hash(
    hub: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = store(cache, PUBLIC)
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(Hub, "content", content)
    with pytest.raises(CheckpointError, match=f"not {hashlib.sha256(content).hexdigest()}; delete it"):
        load_checkpoint(create_model(NAME, num_classes=7), "hf://somebody/nano/model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    load_checkpoint(create_model(NAME, num_classes=7), "hf://somebody/nano/model.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("edgevit_xxs", "the authors never published any"),
        ("revit_b", "Google Drive"),
        ("vit_large_patch14", "nobody has published any for vit_large_patch14"),
        (NAME, "variant of Vitrail's own"),
    ],
)
def test_models_without_public_weights_say_where_to_look(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        create_model(name, weights="pretrained")
    assert "\n" not in str(error.value)


def test_unknown_tags_are_refused_with_the_known_ones() -> None:
    with pytest.raises(
        CheckpointError, match=r"vit_tiny_patch16 has no .* 'in22k'; known: augreg_in21k_ft_in1k, augreg_"
    ):
        create_model("vit_tiny_patch16", weights="pretrained:in22k")


def test_every_family_has_weights_or_says_why_not() -> None:
    for family in FAMILIES.values():
        assert family.weights.keys() <= family.variants.keys()
        assert bool(family.weights_elsewhere) != bool(family.weights), family.name


PUBLISHED = {name: entries for family in FAMILIES.values() for name, entries in family.weights.items()}
ENTRIES = [weights for entries in PUBLISHED.values() for weights in entries]


def test_the_table_is_timms() -> None:
    registry = pytest.importorskip("timm.models")
    for weights in ENTRIES:
        theirs = registry.get_pretrained_cfg(weights.hub_id.removeprefix("timm/")).to_dict()
        ours = weights.preprocessing
        assert theirs["hf_hub_id"] == weights.hub_id
        assert theirs["input_size"] == (3, *weights.image_size) == (3, *ours.image_size)
        assert (theirs["mean"], theirs["std"]) == (ours.mean, ours.std), weights
        assert (theirs["crop_pct"], theirs["interpolation"]) == (ours.crop_fraction, ours.interpolation), weights
        assert (theirs["num_classes"], theirs["license"]) == (weights.num_classes, weights.licence), weights


def test_the_default_of_a_size_is_timms() -> None:
    registry = pytest.importorskip("timm.models")
    first: dict[str, str] = {}
    for weights in ENTRIES:
        first.setdefault(weights.hub_id.removeprefix("timm/").partition(".")[0], weights.tag)
    assert first == {name: registry.get_pretrained_cfg(name).tag for name in first}


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("vit_tiny_patch16", 224),
        ("vit_tiny_r_s16", 384),
        ("vit_small_r26_s32", 224),
        ("maxvit_tiny", 384),
        ("mobilevit_xxs", 256),
        ("poolformer_s12", 224),
    ],
)
def test_the_hubs_layout_fits_name_by_name_and_shape_by_shape(name: str, side: int) -> None:
    timm = pytest.importorskip("timm")
    weights = next(weights for weights in PUBLISHED[name] if weights.image_size[0] == side)
    with torch.device("meta"):
        theirs = timm.create_model(weights.hub_id.removeprefix("timm/").partition(".")[0])
        ours = create_model(name, num_classes=weights.num_classes, image_size=weights.image_size)
    state = rename(theirs.state_dict(), family_of(ours).checkpoint_keys["timm"])
    assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in ours.state_dict().items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_variants_take_the_sizes_of_their_weights(name: str) -> None:
    native = next(family.variants[name].image_size for family in FAMILIES.values() if name in family.variants)
    assert PUBLISHED[name][0].image_size == native
    for size in {weights.image_size for weights in PUBLISHED[name]}:
        with torch.device("meta"):
            create_model(name, image_size=size)


class Busy(Hub):
    """A hub that answers nothing but trouble."""

    def do_HEAD(self) -> None:
        self.send_error(503)


@pytest.fixture(params=["nobody listens", "nobody answers", "busy", "no such host"])
def lost_hub(request: pytest.FixtureRequest, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_module, "ANSWER_SECONDS", 0.3)
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        if request.param == "nobody listens":
            silent.close()
        if request.param == "busy":
            threading.Thread(target=server.serve_forever, daemon=True).start()
            port = server.server_port
        host = "hub.invalid" if request.param == "no such host" else "127.0.0.1"
        template = f"http://{host}:{port}" + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield
        if request.param == "busy":
            server.shutdown()
    silent.close()
    huggingface_hub.close_session()


@pytest.mark.usefixtures("published", "lost_hub")
def test_a_hub_that_cannot_be_reached_is_one_line_and_soon(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=r"the hub cannot be reached, .* pass the file"):
        create_model(NAME, weights="pretrained")
    assert time.monotonic() - start < 5
    assert capfd.readouterr().err == ""
    store(cache, PUBLIC)
    assert create_model(NAME, weights="pretrained").num_classes == 7  # from the cache


def test_an_address_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/w.pth"
        with pytest.raises(CheckpointError, match=f"cannot download {address}: .*timed out; check the address"):
            load_checkpoint(create_model(NAME), address)
    assert socket.getdefaulttimeout() is None
