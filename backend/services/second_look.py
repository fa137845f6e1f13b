"""A second look at what was refused for want of evidence: people reviewed more images since, which are new to it.

With so few held-out images even a version that saves a fifth of the time is often refused. Where the next one is
refused as well, all images that were reviewed meanwhile tell about the one before. The comparison counts as one try.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from backend.domain.learning import PRODUCTION, AliasMove, ModelVersion, MoveKind
from backend.domain.training_data import FrozenData, Part
from backend.errors import ModelError
from backend.ports import UnitOfWork
from backend.services.contests import (
    LearnParts,
    Rehearsal,
    hold,
    next_attempt,
    production_and_tries,
    query_of,
    rehearsal,
)
from backend.services.promotion import production_version
from backend.services.training import Claim

_ALL = 1_000_000  # of a project's jobs
_MOST_IMAGES = 500  # more would take long, and prove what nobody notices

log = logging.getLogger("glip_label.training")


class SecondLook:
    """Judges once more what was refused for want of evidence alone, where the next version was refused too."""

    def __init__(self, parts: LearnParts, clock: Callable[[], datetime]) -> None:
        self._parts = parts
        self._clock = clock

    def __call__(self, claim: Claim, data: FrozenData, attempts: int) -> dict[str, Any] | None:
        """Promote it if the gate lets it pass now; None where there is nothing to look at.

        Args:
            data: of the job, with all images that were reviewed until now.
            attempts: comparisons with production that no version tells of yet.

        Returns:
            The version's name beside the ruling, as JSON.

        Raises:
            LeaseLostError: another worker took the job over.
        """
        parts, project = self._parts, claim.job.project
        with parts.reading() as unit:
            production, tries = production_and_tries(unit, project, parts.models.base)
            refused = next((each for each in reversed(tries) if each.may_be_better and each.refused), None)
            if refused is None:
                return None
            learned, earlier = _learned_from(unit, project), unit.fits.rehearsed(project, refused.name)
        images = [each for each in data.images if each.part is not Part.TRAIN or each.sha256 not in learned]
        detectors = (parts.models.open(production), parts.models.open(refused))
        attempt = next_attempt(tries) + attempts
        try:
            contest = hold(parts, query_of(data.labels), images[:_MOST_IMAGES], detectors, attempt, claim.report)
        except ModelError as error:  # of a version that nothing needs
            log.warning("job=%d no second look at %s: %s", claim.job.id, refused.name, error)
            return None
        ruling = parts.judge(contest)
        if ruling.promote:
            told = rehearsal(project, refused.name, contest, self._clock(), earlier)
            self._promote(
                production,
                AliasMove(
                    project,
                    PRODUCTION,
                    refused.name,
                    MoveKind.PROMOTION,
                    self._clock(),
                    "gate",
                    ruling.reason,
                    ruling.numbers,
                ),
                told,
            )
        return {"version": refused.name, **ruling.to_json()}

    def _promote(self, compared: ModelVersion | None, move: AliasMove, told: Rehearsal) -> None:
        """Move the alias, unless production is no longer what was compared; fit and alias are one transaction."""
        base = self._parts.models.base
        with self._parts.unit_of_work() as unit:
            unit.versions.lock(move.project)
            if production_version(unit, move.project, base) != compared:
                return
            unit.fits.add_rehearsal(move.project, told.fit.model_version, told.judgements)
            unit.fits.add(told.fit)
            unit.versions.move(move)
            unit.commit()
        self._parts.announce(move.project)


def _learned_from(unit: UnitOfWork, project: str) -> set[str]:
    """SHA-256 of every image that any version of the project was trained on, be it by a model's labels."""
    learned: set[str] = set()
    for job in unit.jobs.of(project, _ALL):
        data = unit.jobs.data(job.id) if job.version is not None else None
        if data is not None:
            learned.update(image.sha256 for image in data.part(Part.TRAIN))
            learned.update(image.sha256 for image in data.pseudo)
    return learned
