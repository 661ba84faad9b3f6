"""What a family file hands to the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vitrail.core.errors import CheckpointError
from vitrail.core.types import ImageSize
from vitrail.models.base import Backbone, BackboneConfig
from vitrail.models.checkpoint import KeyTable
from vitrail.models.pretrained import PretrainedWeights


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A paper.

    Attributes:
        title, authors: as on its first page; the first author alone where there are many.
        venue, arxiv: conference and year, number there.
    """

    title: str = ""
    authors: str = ""
    venue: str = ""
    arxiv: str = ""

    @property
    def place(self) -> str:
        """Venue and address; "" without one."""
        return ", ".join(filter(None, (self.venue, self.arxiv and f"arXiv:{self.arxiv}")))


@dataclass(frozen=True, kw_only=True)
class Family:
    """
    Attributes:
        name: e.g. ``edgevit``.
        backbone: the class; it takes one positional argument, the config.
        variants: name -> config.
        weights: variant -> its files on the Hugging Face hub; the first of an image size is the default.
        weights_elsewhere: where the authors keep their weights, if these are not on the hub.
        checkpoint_keys: layout name -> table from the authors' key names to ours.
        layout_fields: layout name -> fields of the configuration that its code has, where another's has others.
        layout_notes: layout name -> sentence on a difference that no field makes up for.
        title, authors, venue, arxiv: the paper, if there is one.
        publications: variants that another paper published -> that paper.
        code: repository @ commit (licence) that the family is compatible with, if there is one.
        ours: variants that no paper published -> their purpose.
    """

    name: str
    backbone: type[Backbone]
    variants: Mapping[str, BackboneConfig]
    weights: Mapping[str, Sequence[PretrainedWeights]] = field(default_factory=dict)
    weights_elsewhere: str = ""
    checkpoint_keys: Mapping[str, KeyTable] = field(default_factory=dict)
    layout_fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layout_notes: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    authors: str = ""
    venue: str = ""
    arxiv: str = ""
    publications: Mapping[str, Publication] = field(default_factory=dict)
    code: str = ""
    ours: Mapping[str, str] = field(default_factory=dict)

    @property
    def paper(self) -> str:
        """Venue and address of the paper; "" without one."""
        return self.publication("").place

    def publication(self, name: str) -> Publication:
        """The paper of a variant: its own, or the family's."""
        own = Publication(title=self.title, authors=self.authors, venue=self.venue, arxiv=self.arxiv)
        return self.publications.get(name, own)

    def find_weights(self, name: str, tag: str, image_size: ImageSize) -> PretrainedWeights:
        """The weights of a variant that were trained nearest to ``image_size``.

        Args:
            name: the variant.
            tag: training recipe of the weights; "" takes the default of that size.
            image_size: (height, width) in pixels.

        Raises:
            CheckpointError: there are none; the message lists what there is.
        """
        known = self.weights.get(name, ())
        if not known:
            raise CheckpointError(
                f"no public weights of {name} can be downloaded: {self.without_weights(name)}; "
                "pass a file as weights, or train it"
            )
        tagged = [weights for weights in known if tag in ("", weights.tag)]
        if not tagged:
            tags = ", ".join(dict.fromkeys(weights.tag for weights in known))
            raise CheckpointError(f"{name} has no pretrained weights '{tag}'; known: {tags}")
        area = image_size[0] * image_size[1]
        return min(tagged, key=lambda weights: abs(weights.image_size[0] * weights.image_size[1] - area))

    def without_weights(self, name: str) -> str:
        """Why a variant has no weights on the hub, and what there is instead."""
        if name in self.ours:
            return f"{name} is a variant of Vitrail's own, which nobody has trained on a public data set"
        return self.weights_elsewhere or (
            f"nobody has published any for {name}; 'vitrail models {self.name}*' lists its family"
        )
