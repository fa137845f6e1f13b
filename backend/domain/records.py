"""What the services speak about: frozen records of plain values.

Boxes are in pixels of the upright image (see ``backend.domain.geometry``); scores lie in ``[0, 1]``.
"""

from dataclasses import dataclass

from backend.domain.geometry import Box


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
    """One proposal as it was emitted, under the id that comes back in annotations."""

    id: str
    proposal: Proposal


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
    """All regions one model version proposed for one image, best score first; ``id`` is unique and stable."""

    task_id: int
    model_version: str
    width: int
    height: int
    regions: tuple[Region, ...]
    id: str
    look: Look = Look()
