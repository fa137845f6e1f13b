"""What the services speak about: frozen records of plain values.

Boxes are in pixels of the upright image (see ``backend.domain.geometry``); scores lie in ``[0, 1]``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from backend.domain.geometry import Box

_SIDES = {"left", "right"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # also one of several in left_hand or LeftHand


@dataclass(frozen=True, slots=True)
class Label:
    """A class as the labelling config names it, and the words the model is asked with.

    ``prompts`` are alternatives: a box gets the best score of any of them. Empty means the name itself is asked.
    """

    name: str
    prompts: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        return self.prompts or (self.name,)


def names_sides(words: Iterable[str]) -> bool:
    """Tell whether left and right matter to what is asked for, as to a left hand, so that no mirror may be used.

    Args:
        words: the labels' names beside what they are asked with: ``left_hand`` may be asked for as a hand.
    """
    return any(word.lower() in _SIDES for each in words for word in _WORD.findall(each))


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``end`` (exclusive) of a sentence; what they name is answered as ``label``."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A free sentence with the phrases in it that are to be found (phrase grounding)."""

    text: str
    spans: tuple[Span, ...]


Query = tuple[Label, ...] | Sentence


@dataclass(frozen=True, slots=True)
class Picture:
    """An upright RGB image: ``rgb`` holds ``height * width * 3`` bytes, row-major.

    ``sha256`` is the hex digest of the file it was decoded from; ``source`` names it for people (never a signed URL).
    """

    width: int
    height: int
    rgb: bytes
    sha256: str
    source: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """One box a model proposes. ``label`` is a label's name or a span's label, ``prompt`` the words that found it."""

    box: Box
    label: str
    score: float
    prompt: str


@dataclass(frozen=True, slots=True)
class Region:
    """One proposal as it was shown, under the id that comes back in annotations.

    Attributes:
        id: unique and stable.
        proposal: with the model's own score.
        probability: what people see as its score; None where that is the model's own.
        weight: how many such proposals it stands for: above 1 where only some images show what a threshold hides, 0
            where a person asked for it with a prompt, and may not have been shown all that was found.
    """

    id: str
    proposal: Proposal
    probability: float | None = None
    weight: float = 1.0

    @property
    def score(self) -> float:
        """What people see as its score."""
        return self.proposal.score if self.probability is None else self.probability


@dataclass(frozen=True, slots=True)
class Look:
    """What was looked at, and for whom.

    Attributes:
        image: name of the ``<Image>`` tag that shows the picture.
        reference: to the picture, as the task's data has it but without credentials.
        sha256: hex digest of the picture's file.
        prompted: a person who had the task open asked for it; the editor shows them some of it, and only them.
    """

    image: str | None = None
    reference: str | None = None
    sha256: str | None = None
    prompted: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """All regions one model version proposed for one image.

    Attributes:
        width, height: of the upright image.
        regions: what people see, best score first.
        id: unique and stable.
        hidden: what else was found: people do not see it, so that they cannot delete it.
        fit: id of the fit that told what to show; None where there was none.
        order: people see images of low order first, in ``[0, 1]``; None where nobody worked it out.
    """

    task_id: int
    model_version: str
    width: int
    height: int
    regions: tuple[Region, ...]
    id: str
    look: Look = Look()
    hidden: tuple[Proposal, ...] = ()
    fit: str | None = None
    order: float | None = None

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        """Everything that was found, seen or not."""
        return (*(region.proposal for region in self.regions), *self.hidden)
