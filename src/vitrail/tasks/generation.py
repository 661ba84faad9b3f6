"""Generation: new pictures like those of the data.

Source: MaxViT-GAN (Tu et al., MaxViT, ECCV 2022, arXiv:2204.01697, sections 4.4 and A.4); see
:mod:`vitrail.models.maxvit_gan` for what is published of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import make_grid

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import fit_image, load_pictures
from vitrail.models import Backbone
from vitrail.models.discriminator import Discriminator, discriminator_loss, generator_loss, gradient_penalty
from vitrail.models.maxvit_gan import MaxViTGenerator, as_pixels, create_generator, join_latent
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import AdversarialTask, Score
from vitrail.tasks.kind import TaskKind
from vitrail.tasks.spec import OpenBackbone, TaskSpec

if TYPE_CHECKING:
    from torchmetrics import Metric


STEPS = 8
"""Pictures from one latent to another, both included."""

PATHS = 6
"""Rows of the page of interpolations."""

ENLARGED_BELOW = 64
"""Pixels a side; smaller pictures are shown twice as large."""

BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """
    Attributes:
        conditional: tell the generator the class to draw.
        features: features that pictures are compared by: the folder of one of your runs (its backbone); "random" (an
            untrained EdgeViT); or "inception", which makes the distance FID (needs torch-fidelity and a download).
        r1_weight: weight of the penalty on the discriminator's slope at real pictures; 0 turns it off.
        r1_every: steps from one penalty to the next; the penalty is multiplied by this number.
        discriminator_width: factor of all the discriminator's widths; 1 is HiT's.
    """

    conditional: bool = False
    features: str = "random"
    r1_weight: float = 10.0
    r1_every: int = 16
    discriminator_width: float = 1.0

    def __post_init__(self) -> None:
        if self.r1_weight < 0:
            raise ConfigError("is negative; 0 turns the penalty off", r1_weight=self.r1_weight)
        if self.r1_every < 1:
            raise ConfigError("is below 1; 16 is usual", r1_every=self.r1_every)
        if self.discriminator_width <= 0:
            raise ConfigError("is not above 0; 1 is usual", discriminator_width=self.discriminator_width)


def make_generator(name: str, **fields: Any) -> Backbone:
    """A generator: :func:`vitrail.models.maxvit_gan.create_generator`.

    Raises:
        ConfigError: weights to start from, which a generator does not take.
    """
    if fields.pop("weights", None) is not None:
        raise ConfigError("weights: a generator starts from random numbers; leave the option out")
    for unknown in ("replace_head", "drop_path_rate"):
        fields.pop(unknown, None)
    generator: Any = create_generator(name, **fields)
    return generator


def _num_labels(spec: TaskSpec) -> int:
    """Number of classes that the generator takes."""
    return len(spec.classes) if GENERATION.read_options(spec.options).conditional else 0


class GenerationTask(AdversarialTask):
    """A generator, which is trained against a discriminator and measured beside real pictures.

    Its input is no image: :meth:`inputs` draws random numbers for each image of a batch, the same for the same image,
    so that validations and exported files can be compared.

    Args:
        generator: any, with the number of classes that it takes.
        classes: names of the data's classes.
        options: loss and measurement.

    Raises:
        ConfigError: conditional, and the data has no classes.
    """

    name = "generation"
    scores = (
        Score(name="frechet", title="Fréchet distance", higher_is_better=False, percent=False),
        Score(name="kernel", title="kernel distance", higher_is_better=False, percent=False),
        Score(name="precision", title="precision"),
        Score(name="recall", title="recall"),
    )
    crop_fraction = 1.0
    takes_images = False
    comparable = False
    usual_epochs = 40
    output_name = "pictures"
    backbone: MaxViTGenerator  # type: ignore[assignment]  # it takes no images, and files are made from it

    def __init__(
        self,
        generator: MaxViTGenerator,
        classes: Sequence[str] = (),
        options: GenerationOptions | None = None,
        open_backbone: OpenBackbone | None = None,
    ) -> None:
        super().__init__(generator, classes)  # type: ignore[arg-type]  # see above
        self.open_backbone = open_backbone
        self.options = options or GenerationOptions()
        if self.options.conditional and len(self.classes) < 2:
            raise ConfigError(
                f"conditional=true, and the data has {len(self.classes)} classes; give folders of at least 2"
            )
        self.num_labels = generator.num_classes
        self.input_shape = (generator.config.num_inputs, 1, 1)

    @classmethod
    def in_words(cls, report: Mapping[str, Any], findings: Mapping[str, Any], images: str) -> str:
        if (distance := report.get("frechet")) is None:
            return super().in_words(report, findings, images)
        return (
            f"Its pictures are at a Fréchet distance of {distance:.3g} from {images} (0 is perfect; it compares only "
            f"with what was measured with the same features on as many pictures)."
        )

    def decoding(self) -> dict[str, Any]:
        """Numbers of random numbers and of classes of an input."""
        return super().decoding() | {"latent_dim": self.backbone.config.latent_dim, "num_labels": self.num_labels}

    def make_discriminator(self) -> nn.Module:
        """StyleGAN2's residual discriminator."""
        side = self.backbone.config.image_size[0]
        return Discriminator(side, self.num_labels, self.options.discriminator_width)

    def discriminator_loss(
        self, discriminator: nn.Module, images: Tensor, targets: Mapping[str, Tensor], step: int
    ) -> Tensor:
        """The logistic loss, with R1 at every so many steps, and so many times as heavy then."""
        options, labels = self.options, targets["label"]
        with torch.no_grad():
            fake = self(self._latents(labels))
        loss = discriminator_loss(discriminator(images, labels), discriminator(fake, labels))
        if options.r1_weight and step % options.r1_every == 0:
            loss = loss + options.r1_weight * options.r1_every * gradient_penalty(discriminator, images, labels)
        return loss

    def generator_loss(self, discriminator: nn.Module, targets: Mapping[str, Tensor]) -> Tensor:
        """The non-saturating logistic loss."""
        labels = targets["label"]
        return generator_loss(discriminator(self(self._latents(labels)), labels))

    def _latents(self, labels: Tensor) -> Tensor:
        noise = torch.randn(len(labels), self.backbone.config.latent_dim, device=labels.device)
        return join_latent(noise, labels, self.num_labels)

    def forward(self, latents: Tensor) -> Tensor:
        """Random numbers, and the one-hot class where it is conditional (b, z, 1, 1), to pictures of about -1 to 1."""
        return self.backbone(latents)

    def inputs(self, images: Tensor, targets: Mapping[str, Tensor] | None = None) -> Tensor:
        """Latents for images (b, 3, h, w), seeded by their pixels; of the images' classes, or of any by turns."""
        codes = [zlib.crc32(row.numpy().tobytes()) for row in (images.cpu() * 32).round().to(torch.int16)]
        noise = torch.stack([self._noise(code) for code in codes])
        labels = torch.tensor(codes) % max(self.num_labels, 1) if targets is None else targets["label"].cpu()
        return join_latent(noise, labels, self.num_labels).to(images.device)

    def _noise(self, seed: int) -> Tensor:
        return torch.randn(self.backbone.config.latent_dim, generator=torch.Generator().manual_seed(seed))

    def loss(self, output: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Squared distance of the mean made picture from the mean real one. No training uses it; it shows a generator
        that draws everything in one colour."""
        real = targets["image"].to(output.device).float() / 127.5 - 1
        return F.mse_loss(output.float().mean(0), real.mean(0))

    def metrics(self) -> Metric:
        """``frechet``, ``kernel``, ``precision`` and ``recall`` in the space of ``options.features``."""
        from vitrail.tasks.metrics.frechet import PictureMetric, find_extractor

        return PictureMetric(find_extractor(self.options.features, self.open_backbone))


class GenerationAnswers(Answers[GenerationTask, Tensor]):
    """Made pictures (3, h, w), uint8. They have no rows in a table."""

    columns = {}

    def decode(self, output: Tensor) -> list[Tensor]:
        """Outputs (b, 3, h, w) to pictures."""
        return list(as_pixels(output.detach().cpu()))

    def outputs(self, images: Sequence[Tensor], preprocessing: Preprocessing) -> Tensor:
        """One made picture for each image, whose pixels only seed it."""
        fitted = torch.stack([fit_image(image, preprocessing) for image in images])
        with torch.inference_mode():
            output: Tensor = self.task(self.task.inputs(preprocessing.normalize(fitted)).to(self.device))
        return output

    def samples(self, count: int, seed: int) -> dict[str, Tensor]:
        """``samples``, a page of all pictures; ``interpolations``, a page of rows from one latent to another; and the
        pictures, ``0000`` and so on. With a conditional generator the classes take turns."""
        if count < 1:
            raise ConfigError(f"{count} pictures are asked for; give 1 or more")
        made = self.pictures(count, seed)
        pages = {
            "samples": _page(made, max(round(count**0.5), 1)),
            "interpolations": _page(self.interpolations(seed), STEPS),
        }
        return pages | {f"{i:04d}": picture for i, picture in enumerate(made)}

    def pictures(self, count: int, seed: int) -> Tensor:
        """(count, 3, h, w), uint8; classes take turns where there are any."""
        return self.make(self.latents(count, seed), self._labels(range(count)))

    def latents(self, count: int, seed: int) -> Tensor:
        """Normal random numbers (count, latent_dim)."""
        return torch.randn(count, self.task.backbone.config.latent_dim, generator=torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def make(self, noise: Tensor, labels: Sequence[int] = ()) -> Tensor:
        """Pictures (n, 3, h, w), uint8, from random numbers (n, latent_dim), and a class for each where the generator
        is conditional.

        Raises:
            ConfigError: a class that does not exist, or another number of them.
        """
        count = self.task.num_labels
        wrong = [label for label in labels if not 0 <= label < count]
        if wrong or (count and len(labels) != len(noise)):
            raise ConfigError(f"classes {list(labels)}: need {len(noise)} of 0 to {count - 1}")
        latents = join_latent(noise, labels, count) if count else noise[..., None, None]
        return torch.cat([as_pixels(self.task(part.to(self.device)).cpu()) for part in latents.split(BATCH_SIZE)])

    def interpolations(self, seed: int) -> Tensor:
        """Rows of pictures from one latent to the next, along the sphere on which normal random numbers lie.

        Source: White, "Sampling Generative Networks", 2016, arXiv:1609.04468.
        """
        ends = self.latents(2 * PATHS, seed + 1).unflatten(0, (PATHS, 2))
        first, last = ends[:, :1], ends[:, 1:]
        angle = F.cosine_similarity(first, last, dim=2).clamp(-1 + 1e-6, 1 - 1e-6).acos().unsqueeze(2)
        share = torch.linspace(0, 1, STEPS).view(1, STEPS, 1)
        path = (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()
        return self.make(path.flatten(0, 1), self._labels(row for row in range(PATHS) for _ in range(STEPS)))

    def _labels(self, numbers: Iterable[int]) -> list[int]:
        """A class for each number, by turns; none where there are no classes."""
        return [number % self.task.num_labels for number in numbers] if self.task.num_labels else []

    def rows(self, answer: Tensor) -> list[tuple[Any, ...]]:
        """One row without cells."""
        return [()]

    def to_dict(self, answer: Tensor) -> dict[str, Any]:
        """No entries."""
        return {}

    def draw(self, image: Tensor, answer: Tensor) -> Tensor:
        """The made picture."""
        return answer


def _page(pictures: Tensor, columns: int) -> Tensor:
    if pictures.shape[-1] < ENLARGED_BELOW:
        pictures = pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return make_grid(pictures, nrow=columns, padding=2, pad_value=255)


GENERATION = TaskKind(
    task=GenerationTask,
    build=lambda backbone, spec, options: GenerationTask(backbone, spec.classes, options, spec.open_backbone),
    answers=GenerationAnswers,
    load_data=partial(load_pictures, labelled=None, crops=False),
    options=GenerationOptions,
    num_outputs=_num_labels,
    make_backbone=make_generator,
)
