"""How a project reads a model version's scores: what people see of its proposals, and which images they see first."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from itertools import accumulate
from random import Random

from backend.domain.calibration import Calibration
from backend.domain.edges import EdgeCorrection
from backend.domain.records import Picture, Proposal, Region
from backend.domain.review import (
    ASKED_SHARE,
    EXPLORED_PROPOSALS,
    EXPLORED_SHARE,
    FLOOR,
    ShowThresholds,
    is_explored,
)


@dataclass(frozen=True, slots=True)
class Fit:
    """What a project's verdicts taught about one model version's scores; immutable, the newest one holds.

    Attributes:
        project: Label Studio's ``ID.CREATED``.
        model_version: whose scores.
        calibration: from scores to what people see as scores.
        thresholds: on the model's own scores.
        judgements: how many there were; it rests on the newest.
        fitted_at: UTC.
        edges: how people always move the boxes; nothing unless that is switched on.
        ordering: urgencies of the project's images, rising; empty where chance decides, as people kept next to nothing
            of what the model found, or the order did not pay.
    """

    project: str
    model_version: str
    calibration: Calibration
    thresholds: ShowThresholds
    judgements: int
    fitted_at: datetime
    edges: EdgeCorrection = field(default_factory=EdgeCorrection)
    ordering: tuple[float, ...] = ()

    @property
    def id(self) -> str:
        """Digest of everything that it says."""
        facts = [self.project, self.model_version, self.judgements, self.fitted_at.isoformat(), self.to_json()]
        return sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Write what was fitted as JSON."""
        fitted = {name: getattr(self, name).to_json() for name in ("calibration", "thresholds", "edges")}
        return json.dumps({**fitted, "ordering": self.ordering}, ensure_ascii=False, separators=(",", ":"))

    def with_json(self, text: str) -> "Fit":
        """Put what ``to_json`` wrote in place of what was fitted."""
        fields = json.loads(text)
        return replace(
            self,
            calibration=Calibration.from_json(fields["calibration"]),
            thresholds=ShowThresholds.from_json(fields["thresholds"]),
            edges=EdgeCorrection.from_json(fields["edges"]),
            ordering=tuple(fields["ordering"]),
        )


FIRST_LOOK = 10
"""Boxes to show at most of a model that nobody judged: enough for a fit, and not too many to delete should it see
things."""

_FIRST_DOUBTS = 4.0
"""Boxes among these that would be wrong if the model's own scores were probabilities; the next one is the last."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What people see of one model version's proposals in one project.

    Attributes:
        fit: None before anything was fitted: scores are shown as they are.
        threshold: lowest score of a shown box, on the scale that people see; where a fit says which boxes are shown,
            it counts only if it is ``theirs``. With ``most`` boxes at most, ``asked_threshold`` is in its place.
        theirs: a person chose the threshold. Then nothing below it is ever shown, not even to explore.
        most: how many boxes to show before anything was fitted, the best ones and nothing to explore, fewer where the
            model doubts them itself; later as many as were judged. None for all of them.
    """

    fit: Fit | None
    threshold: float
    theirs: bool
    most: int | None = None

    @property
    def asked_threshold(self) -> float:
        """Lowest score of a box where a person waits for a few of them, or asks for something."""
        return self.threshold if self.theirs else self.threshold * ASKED_SHARE

    @property
    def floor(self) -> float:
        """The model's own score from which on proposals are needed."""
        return min(FLOOR, self.threshold)

    def read(
        self, proposals: Sequence[Proposal], picture: Picture, identity: str
    ) -> tuple[tuple[Region, ...], tuple[Proposal, ...]]:
        """Part what a model found in a picture into what people see, best first, and what they do not.

        On explored images they also see some of what is hidden elsewhere, from ``FLOOR`` on: all of it if that is
        little. What is shown so stands for all that is hidden, and is weighted accordingly.

        Args:
            identity: of the prediction; the regions' ids begin with it.
        """
        if self.fit is not None:
            edges = self.fit.edges
            proposals = [edges.corrected(each, picture.width, picture.height) for each in proposals]
        above = sorted(filter(self._shows, proposals), key=lambda each: -self._seen(each))
        weights = {id(each): 1.0 for each in above[: self._limit(above)]}
        unknown = self.most is not None and self.fit is None
        if not self.theirs and not unknown and is_explored(picture.sha256):
            hidden = [each for each in proposals if id(each) not in weights and each.score >= FLOOR]
            chance = Random(picture.sha256)  # noqa: S311 - the same boxes each time, nothing secret
            drawn = chance.sample(hidden, min(len(hidden), EXPLORED_PROPOSALS))
            weights |= {id(each): len(hidden) / len(drawn) / EXPLORED_SHARE for each in drawn}
        shown = sorted((each for each in proposals if id(each) in weights), key=lambda each: -self._seen(each))
        regions = tuple(
            Region(f"{identity}-{index}", each, None if self.fit is None else self._seen(each), weights[id(each)])
            for index, each in enumerate(shown)
        )
        return regions, tuple(each for each in proposals if id(each) not in weights)

    def _limit(self, best_first: Sequence[Proposal]) -> int | None:
        """How many of the boxes to show; None for all."""
        if self.most is None:
            return None
        if self.fit is not None:
            return max(self.most, self.fit.judgements)
        doubts = list(accumulate(1 - each.score for each in best_first))
        return min(self.most, bisect_right(doubts, _FIRST_DOUBTS) + 1)

    def _seen(self, proposal: Proposal) -> float:
        if self.fit is None:
            return proposal.score
        return self.fit.calibration.probability(proposal.label, proposal.score)

    def _shows(self, proposal: Proposal) -> bool:
        if self.fit is None or self.theirs:
            return self._seen(proposal) >= (self.threshold if self.most is None else self.asked_threshold)
        return self.fit.thresholds.shows(proposal)
