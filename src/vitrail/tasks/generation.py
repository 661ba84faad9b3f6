"""Pictures that look as if they were of the data.

Source: MaxViT-GAN (Tu et al., MaxViT, ECCV 2022, arXiv:2204.01697, sections 4.4 and A.4); see
:mod:`vitrail.models.maxvit_gan` for what is published of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, DataSplits, PictureSet, fit_image, load_pictures
from vitrail.models import Backbone
from vitrail.models.discriminator import Discriminator
from vitrail.models.maxvit_gan import MaxViTGenerator, as_pixels, create_generator, join_latent
from vitrail.tasks.base import Score, Task, entry

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """
    Attributes:
        conditional: tell the generator the class to draw.
        features: features that pictures are compared by: the folder of one of your runs (its backbone); "random" (an
            untrained EdgeViT); or "inception", which makes the distance FID (needs torch-fidelity and a download).
        r1_weight: weight of the penalty on the discriminator's slope at real pictures; 0 turns it off.
        r1_every: steps from one penalty to the next; the penalty is multiplied by this number.
        opponent_width: factor of all the discriminator's widths; 1 is HiT's.
    """

    conditional: bool = False
    features: str = "random"
    r1_weight: float = 10.0
    r1_every: int = 16
    opponent_width: float = 1.0

    def __post_init__(self) -> None:
        if self.r1_weight < 0:
            raise ConfigError("is negative; 0 turns the penalty off", r1_weight=self.r1_weight)
        if self.r1_every < 1:
            raise ConfigError("is below 1; 16 is usual", r1_every=self.r1_every)
        if self.opponent_width <= 0:
            raise ConfigError("is not above 0; 1 is usual", opponent_width=self.opponent_width)


@dataclass(frozen=True)
class Picture:
    """A made picture.

    Attributes:
        pixels: (3, h, w), uint8.
        label: its class; "" where there are none.
    """

    pixels: Tensor
    label: str


class GenerationTask(Task):
    """A generator, which is trained against a discriminator and measured beside real pictures.

    Its input is no image: :meth:`inputs` draws random numbers for each image of a batch, the same for the same image,
    so that validations and exported files can be compared.

    Args:
        generator: with as many classes as it shall be told.
        classes: of the data.
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
    columns = {"class": "text"}
    Options = GenerationOptions
    crop_fraction = 1.0
    adversarial = True
    output_name = "pictures"
    backbone: MaxViTGenerator  # type: ignore[assignment]  # it looks at nothing, and yet is what files are made of

    def __init__(
        self, generator: MaxViTGenerator, classes: Sequence[str] = (), options: GenerationOptions | None = None
    ) -> None:
        super().__init__(generator, classes)  # type: ignore[arg-type]  # see above
        self.options = options or GenerationOptions()
        if self.options.conditional and len(self.classes) < 2:
            raise ConfigError(
                f"conditional=true, and the data has {len(self.classes)} classes; give folders of at least 2"
            )
        self.num_labels = generator.num_classes
        self.input_shape = (generator.config.num_inputs, 1, 1)

    @classmethod
    def load_data(cls, config: DataConfig, *, progress: bool = False) -> DataSplits[PictureSet]:
        """Any images, with their classes where they have some: :func:`vitrail.data.load_pictures`."""
        return load_pictures(config, labelled=None, crops=False, progress=progress)

    @classmethod
    def num_outputs(cls, description: Mapping[str, Any]) -> int:
        """Classes that the generator is told."""
        return len(entry(description, "classes", list | tuple)) if cls.read_options(description).conditional else 0

    @classmethod
    def make_backbone(cls, name: str, **fields: Any) -> Backbone:
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

    @classmethod
    def create(cls, backbone: Backbone, description: Mapping[str, Any]) -> Self:
        """From ``classes`` and the options."""
        classes = [str(name) for name in entry(description, "classes", list | tuple)]
        return cls(backbone, classes, cls.read_options(description))  # type: ignore[arg-type]  # of make_backbone

    def make_opponent(self) -> nn.Module:
        """StyleGAN2's residual discriminator."""
        side = self.backbone.config.image_size[0]
        return Discriminator(side, self.num_labels, self.options.opponent_width)

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
        """How far the mean made picture is from the mean real one, squared. Nothing is trained by it: it lets a
        generator that draws everything in one colour be seen beside the scores."""
        real = targets["image"].to(output.device).float() / 127.5 - 1
        return F.mse_loss(output.float().mean(0), real.mean(0))

    def metrics(self) -> Metric:
        """``frechet``, ``kernel``, ``precision`` and ``recall`` in the space of ``options.features``."""
        from vitrail.tasks.picture_metric import PictureMetric, find_extractor

        return PictureMetric(find_extractor(self.options.features))

    def predict(self, output: Tensor) -> list[Picture]:
        """Outputs (b, 3, h, w) to pictures."""
        return [Picture(pixels, "") for pixels in as_pixels(output.detach().cpu())]

    @torch.inference_mode()
    def sample(self, noise: Tensor, labels: Sequence[int] = ()) -> list[Picture]:
        """Pictures from random numbers (b, latent_dim), and a class for each where it is conditional.

        Raises:
            ConfigError: another number of random numbers, or a class that does not exist.
        """
        wrong = [label for label in labels if not 0 <= label < self.num_labels]
        if wrong or (self.num_labels and len(labels) != len(noise)):
            raise ConfigError(f"classes {list(labels)}: need {len(noise)} of 0 to {self.num_labels - 1}")
        latents = join_latent(noise, labels, self.num_labels) if self.num_labels else noise[..., None, None]
        made = self.predict(self(latents.to(next(self.parameters()).device)))
        if not self.num_labels:
            return made
        return [Picture(one.pixels, self.classes[label]) for one, label in zip(made, labels, strict=True)]

    def answer(self, images: Sequence[Tensor], preprocessing: Preprocessing, top_k: int | None = None) -> list[Picture]:
        """One made picture for each image, whose pixels only seed it."""
        fitted = torch.stack([fit_image(image, preprocessing) for image in images])
        with torch.inference_mode():
            latents = self.inputs(preprocessing.normalize(fitted)).to(next(self.parameters()).device)
            return self.predict(self(latents))

    def rows(self, answer: Picture) -> list[tuple[Any, ...]]:
        """The class."""
        return [(answer.label,)]

    def to_dict(self, answer: Picture) -> dict[str, Any]:
        """``class``."""
        return {"class": answer.label}

    def draw(self, image: Tensor, answer: Picture) -> Tensor:
        """The made picture."""
        return answer.pixels
