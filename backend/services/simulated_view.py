"""One way to show a model's boxes to a simulated person, and what becomes known of its scores thereby."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from backend.analysis.simulated_annotator import Annotator, Review
from backend.analysis.simulated_project import Display
from backend.domain.fits import FIRST_LOOK, Fit, Reading
from backend.domain.records import Picture, Proposal, Region
from backend.domain.review import FIRST_THRESHOLD, Judgement
from backend.domain.training_data import LabelledBox, ReviewedImage
from backend.domain.verdicts import VerdictKind
from backend.services.fitting import fit_judgements, is_due, rehearse
from backend.services.gathering import is_there


@dataclass(frozen=True, slots=True)
class TrueImage:
    """An image with its true objects; its name is unique, `Images` finds it by its content's SHA-256."""

    name: str
    sha256: str
    width: int
    height: int
    objects: tuple[LabelledBox, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person saw of an image, and what the person made of it."""

    shown: tuple[Region, ...]
    review: Review

    def left(self, image: TrueImage) -> ReviewedImage:
        """The image as a model learns from it."""
        boxes = tuple(LabelledBox(final.box, final.label) for final in self.review.boxes)
        deleted = (
            LabelledBox(region.proposal.box, region.proposal.label)
            for region, judgement in zip(self.shown, self.review.judgements, strict=True)
            if judgement.kind is VerdictKind.DELETED
        )
        rejected = tuple(each for each in deleted if not is_there(each, boxes))
        return ReviewedImage(image.sha256, image.width, image.height, (), boxes, rejected)


class View:
    """What one person sees of whatever model is in production.

    Attributes:
        reading: how scores are read at present.
        judgements: what became of the present model's boxes.
    """

    def __init__(self, display: Display, person: Annotator, project: str) -> None:
        self.display = display
        self.person = person
        self._project = project
        self.judgements: list[Judgement] = []
        self._rehearsed: list[Judgement] = []
        self._found: list[Sequence[Proposal]] = []  # by the present model, in images that were reviewed
        cut = FIRST_THRESHOLD if display.cut is None else display.cut
        chosen = display.cut is not None
        self.reading = Reading(None, cut, theirs=chosen, most=None if chosen else FIRST_LOOK)

    def review(self, image: TrueImage, found: Sequence[Proposal], model: str, *, pays: bool) -> Seen:
        """Let the person review an image in which the model found something, and read scores anew where that is due.

        As in Label Studio where an image is predicted when it is opened: what was judged on one image decides what is
        shown on the next.

        Args:
            pays: whether images are worth choosing.
        """
        picture = Picture(image.width, image.height, b"", image.sha256, image.name)
        shown, _ = self.reading.read(found, picture, image.name)
        seen = Seen(shown, self.person.review(image.name, image.objects, [region.proposal for region in shown]))
        self._found.append(found)
        self.judgements += [
            replace(judgement, weight=region.weight)
            for region, judgement in zip(shown, seen.review.judgements, strict=True)
        ]
        if not self.reading.theirs and is_due(len(self.judgements), len(self._rehearsed), self.reading.fit):
            fit = self._fit(model, [*self._rehearsed, *self.judgements])
            self.reading = replace(self.reading, fit=fit if pays else replace(fit, ordering=()))
        return seen

    def begin(self, model: str, reviewed: Sequence[tuple[ReviewedImage, Sequence[Proposal]]]) -> None:
        """Go over to another model, whose scores are read by what it finds in images that it did not learn from."""
        self.judgements, self._found = [], [found for _, found in reviewed]
        if not self.reading.theirs:
            self._rehearsed = rehearse(reviewed, self.display.costs)
            self.reading = replace(self.reading, fit=self._fit(model, self._rehearsed))

    def _fit(self, model: str, judgements: Sequence[Judgement]) -> Fit:
        now, costs = datetime.now(UTC), self.display.costs
        return fit_judgements(self._project, model, judgements, self._found, now, costs)
