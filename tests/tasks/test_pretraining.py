"""Masked prediction: what is hidden, what is predicted of it, and what counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.export.onnx_file import onnx_bytes
from vitrail.export.source import Source
from vitrail.models import create_model
from vitrail.tasks.heads.masking import Cell, draw_hidden
from vitrail.tasks.heads.patches import Colours, Pixels, class_colour, colour_class, cut, join
from vitrail.tasks.pretraining import PretrainingAnswers, PretrainingOptions, PretrainingTask

PREPROCESSING = Preprocessing(image_size=(32, 32))
PLAIN = ("vit_nano_patch4", "revit_nano_patch4")
PYRAMIDS = ("edgevit_nano_stride2", "maxvit_nano", "mobilevit_nano", "poolformer_nano", "vitaev2_nano_stride2")


def make(model: str = "revit_nano_patch4", size: int = 32, **options: Any) -> PretrainingTask:
    return PretrainingTask(create_model(model, num_classes=0, image_size=size), PretrainingOptions(**options))


def pictures(count: int = 2, size: int = 32) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


@given(batch=st.integers(1, 4), count=st.integers(2, 60), ratio=st.floats(0.01, 0.99))
def test_as_many_cells_are_hidden_as_asked_in_every_image(batch: int, count: int, ratio: float) -> None:
    hidden = draw_hidden(batch, count, ratio=ratio, masked=0.8, other=0.1)
    wanted = min(max(round(count * ratio), 1), count - 1)
    for cells, others, seen in zip(hidden.cells, hidden.others, hidden.seen, strict=True):
        assert int((cells != Cell.SEEN).sum()) == wanted
        assert int((cells == Cell.MASKED).sum()) == round(wanted * 0.8)
        assert abs(int((cells == Cell.OTHER).sum()) - wanted * 0.1) <= 1
        assert seen.tolist() == [i for i in range(count) if cells[i] == Cell.SEEN]
        assert (others != torch.arange(count)).all(), "another patch is never the patch itself"
        assert others.min() >= 0
        assert others.max() < count


def test_eighty_ten_ten() -> None:
    cells = draw_hidden(3, 200, ratio=0.5, masked=0.8, other=0.1).cells
    for kind, number in ((Cell.SEEN, 100), (Cell.MASKED, 80), (Cell.OTHER, 10), (Cell.KEPT, 10)):
        assert (cells == kind).sum(1).tolist() == [number] * 3
    assert not torch.equal(cells[0], cells[1]), "images are hidden apart"


def test_every_cell_is_hidden_as_often() -> None:
    often = (draw_hidden(4000, 16, ratio=0.25, masked=1.0, other=0.0).cells != Cell.SEEN).double().mean(0)
    assert (often - 0.25).abs().max() < 0.03


@given(rows=st.integers(1, 4), columns=st.integers(1, 4), size=st.integers(1, 5))
def test_cutting_and_joining(rows: int, columns: int, size: int) -> None:
    images = torch.arange(2 * 3 * rows * columns * size**2).view(2, 3, rows * size, columns * size)
    patches = cut(images, size)
    assert torch.equal(join(patches, columns), images)
    last = images[1, :, -size:, -size:]
    assert torch.equal(patches[1, -1], last)


def test_colours_have_three_bits() -> None:
    colours = torch.tensor([[0, 0, 0], [31, 32, 255], [255, 255, 255], [224, 0, 64]])
    assert colour_class(colours).tolist() == [0, 0 * 64 + 1 * 8 + 7, 511, 7 * 64 + 0 + 2]
    every = torch.arange(512)
    assert torch.equal(colour_class(class_colour(every)), every)


def test_the_mean_colour_of_a_patch() -> None:
    images = pictures(2, 8)
    patch = images[1, :, 4:8, 0:4].double().mean((1, 2))
    red, green, blue = (int(value // 32) for value in patch.tolist())
    assert int(Colours(4, 1).classes(images)[1, 2, 0]) == red * 64 + green * 8 + blue


def test_the_small_patch_has_sixteen_colours_row_by_row() -> None:
    images = pictures(1, 16)
    classes = Colours(8, 4).classes(images)
    assert classes.shape == (1, 4, 16)
    part = images[0, :, 2:4, 8 + 6 : 8 + 8].double().mean((1, 2))  # second row, last column of the second patch
    assert int(classes[0, 1, 7]) == int(colour_class(part))


@pytest.mark.parametrize("side", [1, 4])
def test_certain_right_colours_cost_nothing_and_look_right(side: int) -> None:
    target = Colours(8, side)
    images = pictures(2, 16)
    output = 50 * F.one_hot(target.classes(images), 512).float().flatten(2)
    assert target.losses(output, images).max() < 1e-6
    even = torch.full((2, 4, target.num_outputs), 3.0)
    torch.testing.assert_close(target.losses(even, images), torch.full((2, 4), 512.0).log())
    shown = target.pixels(output, images)
    part = 8 // side
    means = F.avg_pool2d(images.float(), part).repeat_interleave(part, 2).repeat_interleave(part, 3)
    assert (join(shown, 2).float() - means).abs().max() <= 17, "within half of 3 bits"


def test_pixels_by_hand() -> None:
    images = pictures(2, 8)
    plain, relative = Pixels(4, normalize=False), Pixels(4, normalize=True)
    patch = images[1, :, :4, 4:].double() / 127.5 - 1
    torch.testing.assert_close(plain.values(images)[1, 1], patch.flatten().float())
    wanted = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
    torch.testing.assert_close(relative.values(images)[1, 1], wanted.flatten().float())
    for target in (plain, relative):
        values = target.values(images)
        torch.testing.assert_close(target.losses(values + 0.5, images), torch.full((2, 4), 0.25))
        assert torch.equal(join(target.pixels(values, images), 2), images)


@pytest.mark.parametrize("options", [{"objective": "mpp"}, {"objective": "mae"}, {"target": "small_patch"}])
def test_only_hidden_patches_count(options: dict[str, Any]) -> None:
    task = make(**options).eval()
    images = pictures()
    output = task(PREPROCESSING.normalize(images))
    flags = output[..., -1] > 0
    assert flags.sum(1).tolist() == [48 if options.get("objective") == "mae" else 32] * 2
    losses = task.patch_target.losses(output[..., :-1], images)
    loss = task.loss(output, {"image": images})
    torch.testing.assert_close(loss, losses[flags].mean())
    output = output.detach().requires_grad_()
    task.loss(output, {"image": images}).backward()
    assert output.grad is not None
    assert not output.grad[..., :-1][~flags].any(), "what was seen teaches nothing"
    assert output.grad[..., :-1][flags].any(1).all()


def test_hidden_pixels_do_not_reach_a_dropped_patch_or_the_mask() -> None:
    """Changing what is hidden must not change any prediction, neither with MAE nor behind a mask or paint."""
    for task in (make(objective="mae"), make(masked=1.0, other=0.0), make("maxvit_nano", 48)):
        task.eval()
        images = torch.randn(1, 3, *task.backbone.config.image_size)
        hidden = (task.get_buffer("fixed_cells") != Cell.SEEN).view(1, 1, *task.grid)
        hidden = hidden.repeat_interleave(task.cell, 2).repeat_interleave(task.cell, 3)
        with torch.no_grad():
            before, after = task(images), task(torch.where(hidden, torch.randn_like(images), images))
            changed = task(torch.where(hidden, images, torch.randn_like(images)))
        torch.testing.assert_close(after, before)
        assert not torch.allclose(changed, before), "what is seen does"


def test_corrupted_embeddings_are_the_mask_or_anothers_or_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make("vit_nano_patch4")
    hidden = draw_hidden(2, 64, ratio=0.5, masked=0.8, other=0.1)
    images = torch.randn(2, 3, 32, 32)
    given_tokens: list[Tensor] = []
    monkeypatch.setattr(task.backbone, "add_positions", lambda x: given_tokens.append(x) or x)
    task.encoder(task.backbone, images, hidden)
    patches, (tokens,) = task.backbone.stem(images), given_tokens
    for image in range(2):
        for cell in range(64):
            kind = Cell(int(hidden.cells[image, cell]))
            wanted = {
                Cell.MASKED: task.encoder.mask,
                Cell.OTHER: patches[image, hidden.others[image, cell]],
            }.get(kind, patches[image, cell])
            assert torch.equal(tokens[image, cell], wanted)


def test_mae_shows_the_backbone_a_quarter_and_the_decoder_all() -> None:
    task = make("vit_nano_patch4", objective="mae")
    lengths: list[int] = []
    task.backbone.blocks[0].register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    task.encoder.blocks[0].register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    task.training_answer(torch.randn(2, 3, 32, 32), {"image": pictures()})[0].backward()
    assert lengths == [64 // 4 + 1, 64]
    share = sum(p.numel() for p in task.encoder.parameters()) / sum(p.numel() for p in task.backbone.parameters())
    assert share < 0.3, "the decoder is light"


def test_training_hides_other_patches_every_time_and_evaluation_the_same() -> None:
    task = make()
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(task(images)[..., -1], task(images)[..., -1])
    task.eval()
    assert torch.equal(task(images), task(images))
    assert torch.equal(task(images)[:, :, -1], make().eval()(images)[:, :, -1]), "the same in another model"


@pytest.mark.parametrize("model", [*PLAIN, *PYRAMIDS, "vitae_plain_nano_patch4"])
@pytest.mark.parametrize("objective", ["mpp", "mae"])
def test_every_kind_of_backbone_learns(model: str, objective: str) -> None:
    size = 32 if model in PLAIN else 48
    task = make(model, size, objective=objective)
    assert min(task.grid) >= 4
    images = pictures(4, size) // 8 + torch.tensor([10, 90, 200], dtype=torch.uint8).view(3, 1, 1)
    inputs = PREPROCESSING.normalize(images)
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = task.training_answer(inputs, {"image": images})[0]
        optimizer.zero_grad()
        loss.backward()
        first = next(task.backbone.parameters()).grad
        assert losses or (first is not None and first.any()), "the first layer learns"
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.97 * losses[0]


def test_a_token_of_a_pyramid_predicts_its_own_squares() -> None:
    task = make("maxvit_nano", 48)
    assert (task.cell, task.split, task.grid) == (8, 2, (6, 6))
    tokens = torch.arange(9.0).view(1, 9, 1) + torch.arange(4.0).view(1, 1, 4) / 10  # token, then square in it
    task.patch_target.num_outputs = 1
    cells = task._divide(tokens).view(6, 6)
    torch.testing.assert_close(cells[:2, :2], torch.tensor([[0.0, 0.1], [0.2, 0.3]]))
    torch.testing.assert_close(cells[2:4, 4:6], torch.tensor([[5.0, 5.1], [5.2, 5.3]]))


def test_pictures_show_what_was_seen_predicted_and_true() -> None:
    task = make(target="pixels").eval()
    image = pictures(1, 32)[0]
    (answer,) = PretrainingAnswers(task).predict([image], PREPROCESSING)
    assert answer.picture.shape == (3, 32, 96)
    seen, predicted, true = answer.picture.split(32, 2)
    assert torch.equal(true, image)
    hidden = (task.get_buffer("fixed_cells") != Cell.SEEN).view(8, 8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert (seen[:, hidden] == 128).all()
    assert torch.equal(seen[:, ~hidden], image[:, ~hidden])
    assert torch.equal(predicted[:, ~hidden], image[:, ~hidden])
    assert PretrainingAnswers(task).rows(answer) == [(answer.loss,)]


def test_metrics_are_the_loss() -> None:
    task = make().eval()
    metrics = task.metrics()
    losses = []
    for count in (3, 1):
        images = pictures(count)
        output = task(PREPROCESSING.normalize(images)).detach()
        metrics.update(output, {"image": images})
        losses += [float(task.loss(output[i : i + 1], {"image": images[i : i + 1]})) for i in range(count)]
    assert float(metrics.compute()["masked_loss"]) == pytest.approx(sum(losses) / 4, rel=1e-5)


@pytest.mark.slow  # the verbs' test exports one of the two
@pytest.mark.parametrize("objective", ["mpp", "mae"])
def test_files_of_it_repeat_it(objective: str) -> None:
    import onnxruntime

    task = make(objective=objective).eval()
    images = torch.randn(3, 3, 32, 32)
    file = onnx_bytes(Source(model=task, images=images))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given_output,) = session.run(None, {"image": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(given_output), task(images).detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, r"ratio=1\.0 is not a share below 1"),
        ({"masked": 0.8, "other": 0.3}, "at most 1 together"),
        ({"objective": "mae", "decoder_width": 40}, "decoder_width=40 is not a multiple of 32"),
        ({"decoder_depth": 0}, "decoder_depth=0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_backbones_that_cannot_be_pretrained_so() -> None:
    relative = create_model("vit_nano_patch4", num_classes=0, pos_embed="relative")
    with pytest.raises(ConfigError, match="use objective=mpp"):
        PretrainingTask(relative, PretrainingOptions(objective="mae"))
    with pytest.raises(ConfigError, match="cell=5 does not divide the stride of the last level, 16 pixels"):
        make("maxvit_nano", 48, cell=5)
    odd = create_model("vit_tiny_patch16", num_classes=0, patch_size=14, image_size=28)
    with pytest.raises(ConfigError, match="14 pixels is no multiple"):
        PretrainingTask(odd, PretrainingOptions(target="small_patch"))
