"""One training job from its frozen data to a version, in production or not."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from backend.domain.fits import Fit
from backend.domain.learning import (
    PRODUCTION,
    AliasMove,
    Answers,
    Contest,
    JobState,
    Mode,
    ModelVersion,
    MoveKind,
    Ruling,
    TrainingJob,
    TrainingProgress,
    next_version_name,
)
from backend.domain.records import Label, Proposal, Query
from backend.domain.review import LABEL_STUDIO, Judgement
from backend.domain.training_data import FrozenData, Part
from backend.errors import ImageError, LeaseLostError, ModelError, TrainingError, UsageError
from backend.ports import Detector, Images, Models, UnitOfWork
from backend.ports.learning import Trainer, VersionFiles
from backend.services.fitting import fit_judgements, rehearse
from backend.services.gathering import Gather
from backend.services.promotion import production_version
from backend.services.training import Claim

GATE_THRESHOLD = 0.05  # lowest score that the gate sees
_ATTEMPTS = 40  # claims of one job: something kills whoever works on it

log = logging.getLogger("glip_label.training")


@dataclass(frozen=True, slots=True)
class LearnParts:
    """What `Learn` works with; ``images`` takes an image's SHA-256 for its reference."""

    unit_of_work: Callable[[], UnitOfWork]
    gathering: Gather
    images: Images
    models: Models
    trainer: Trainer
    files: VersionFiles
    judge: Callable[[Contest], Ruling]
    announce: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Rehearsal:
    """What became of a candidate's proposals on held-out images, and what that tells of its scores."""

    judgements: Sequence[Judgement]
    fit: Fit


class Learn:
    """Works on claimed jobs. Killed at any moment, the next one that claims the job goes on where it stopped."""

    def __init__(self, parts: LearnParts, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._parts = parts
        self._clock = clock

    def __call__(self, claim: Claim) -> None:
        """Finish a job, well or not: its outcome tells.

        Raises:
            LeaseLostError: another worker took it over.
            StorageError, LabelStudioError: these are away; the job can be claimed again when its lease has run out.
        """
        job = claim.job
        begun = perf_counter()
        with claim:
            self._discard_finished(job)
            try:
                if job.attempts > _ATTEMPTS:
                    raise TrainingError(f"given up after {_ATTEMPTS} attempts: each worker died, see their logs")
                promoted = self._work(claim)
            except (TrainingError, ModelError, ImageError, UsageError) as error:
                self.fail(job, " ".join(str(error).split()))
                promoted = False
        if promoted:
            self._parts.announce(job.project)
        self._parts.files.discard(job.id)
        log.info("job=%d project=%s seconds=%.0f promoted=%s", job.id, job.project, perf_counter() - begun, promoted)

    def _work(self, claim: Claim) -> bool:
        data, left_out = self._data(claim)
        folder = self._parts.files.work(claim.job.id)
        start = self._start(claim.job.project, data)
        mode = self._parts.trainer.train(data, claim.job.request, start, folder, claim.report)
        with self._parts.unit_of_work() as unit:
            production = production_version(unit, claim.job.project, self._parts.models.base)
            tries = _tries(unit, claim.job.project, self._parent(production))
        candidate = self._parts.models.open_folder(folder)
        detectors = (self._parts.models.open(production), candidate)
        contest = self._contest(claim, data, detectors, 1 + sum(map(_compared, tries)))
        ruling = self._parts.judge(contest)
        about = {
            "parent": self._parent(production),
            "start": data.start,
            "base": self._parts.models.base,
            "mode": mode.value,
            "fingerprint": data.fingerprint,
            "labels": [name for name, _ in data.labels],
            "seed": claim.job.request.seed,
            "job": claim.job.id,
            "metrics": {"images": _counts(data), "left_out": left_out, "gate": _ruling_to_json(ruling)},
        }
        return self._publish(claim, about, production, ruling, self._rehearsal(claim.job, contest))

    def _rehearsal(self, job: TrainingJob, contest: Contest) -> _Rehearsal:
        """Let held-out images tell what the candidate's scores are worth, as nobody saw its boxes yet."""
        found = contest.candidate.proposals
        judgements = rehearse(list(zip(contest.images, found, strict=True)), LABEL_STUDIO)
        return _Rehearsal(judgements, fit_judgements(job.project, "", judgements, found, self._clock()))

    def _data(self, claim: Claim) -> tuple[FrozenData, Mapping[str, int]]:
        with self._parts.unit_of_work() as unit:
            frozen = unit.jobs.data(claim.job.id)
            project = unit.projects.state(claim.job.project)
        if frozen is not None:
            return frozen, {}
        if project is None:
            raise TrainingError(f"project {claim.job.project} is not known")
        gathered = self._parts.gathering(project, claim.job.request, claim.report)
        with self._parts.unit_of_work() as unit:
            production = production_version(unit, claim.job.project, self._parts.models.base)
            tries = _tries(unit, claim.job.project, self._parent(production))
            start = None if claim.job.request.from_base else _learned_most(production, tries)
            data = replace(gathered.data, start=None if start is None else start.name)
            _held(unit.jobs.freeze(claim.job, data), claim.job)
            unit.commit()
        return data, gathered.left_out

    def _start(self, project: str, data: FrozenData) -> Path | None:
        """Find the weights that training goes on from; what is in production now may be another version."""
        if data.start is None:
            return None
        with self._parts.unit_of_work() as unit:
            version = unit.versions.find(project, data.start)
        if version is None:
            raise TrainingError(
                f"version {data.start}, from which the job was to go on, is gone: ask for a new training"
            )
        return self._parts.files.folder(version)

    def _contest(self, claim: Claim, data: FrozenData, detectors: tuple[Detector, Detector], attempt: int) -> Contest:
        """Let production and candidate answer for every held-out image, one at a time as people wait for them."""
        images = (*data.part(Part.TUNE), *data.part(Part.GATE))
        query: Query = tuple(Label(name, words) for name, words in data.labels)
        answers: list[list[tuple[Sequence[Proposal], float]]] = [[], []]
        for index, image in enumerate(images):
            claim.report(TrainingProgress("gate", index, len(images)))
            picture = self._parts.images.fetch(image.sha256)
            for detector, given in zip(detectors, answers, strict=True):
                if index == 0:  # weights are loaded and names encoded once, which nobody waits for
                    detector.detect([picture], query, score_threshold=GATE_THRESHOLD)
                begun = perf_counter()
                (found,) = detector.detect([picture], query, score_threshold=GATE_THRESHOLD)
                given.append((found, perf_counter() - begun))
        production, candidate = (
            Answers(tuple(tuple(found) for found, _ in given), tuple(seconds for _, seconds in given))
            for given in answers
        )
        return Contest(images, production, candidate, attempt)

    def _publish(
        self, claim: Claim, about: dict[str, Any], compared: ModelVersion | None, ruling: Ruling, rehearsal: _Rehearsal
    ) -> bool:
        """Make the version visible; its row, rehearsal, fit and alias and the job's end are one transaction."""
        job, base, files = claim.job, self._parts.models.base, self._parts.files
        with self._parts.unit_of_work() as unit:
            name = next_version_name(base, [each.name for each in unit.versions.all(job.project)])
        digests = files.stage(job, {"name": name, "project": job.project, **about})
        version = ModelVersion(
            job.project,
            name,
            about["parent"],
            base,
            Mode(about["mode"]),
            about["fingerprint"],
            digests,
            about["metrics"],
            self._clock(),
        )
        with self._parts.unit_of_work() as unit:
            unit.versions.lock(job.project)
            stays = production_version(unit, job.project, base) == compared
            promote = ruling.promote and job.request.promote and stays
            outcome = _outcome(name, ruling, promote=promote, stays=stays)
            _held(unit.jobs.finish(job, JobState.DONE, self._clock(), outcome, name), job)
            unit.versions.add(version)
            if rehearsal.judgements:
                unit.fits.add_rehearsal(job.project, name, rehearsal.judgements)
                unit.fits.add(replace(rehearsal.fit, model_version=name))
            if promote:
                why = (ruling.reason, ruling.numbers)
                unit.versions.move(
                    AliasMove(job.project, PRODUCTION, name, MoveKind.PROMOTION, self._clock(), "gate", *why)
                )
            # Only who holds the job gets here, and keeps it until the commit. A folder without a row is seen by nobody.
            files.reveal(job, name)
            unit.commit()
        return promote

    def fail(self, job: TrainingJob, reason: str) -> None:
        """Close a job without a version.

        Raises:
            LeaseLostError: another worker took it over.
        """
        with self._parts.unit_of_work() as unit:
            _held(unit.jobs.finish(job, JobState.FAILED, self._clock(), reason, None), job)
            unit.commit()

    def _discard_finished(self, job: TrainingJob) -> None:
        """Remove what jobs left that were killed after their last transaction."""
        with self._parts.unit_of_work() as unit:
            finished = [each.id for each in unit.jobs.of(job.project, 10) if not each.is_open]
        for number in finished:
            self._parts.files.discard(number)

    def _parent(self, production: ModelVersion | None) -> str:
        return self._parts.models.base if production is None else production.name


def _tries(unit: UnitOfWork, project: str, parent: str) -> list[ModelVersion]:
    """What was held against the version in production since it got there, oldest first."""
    moves = unit.versions.moves(project, PRODUCTION)
    return [
        version
        for version in unit.versions.all(project)
        if version.parent == parent and (not moves or version.created_at > moves[-1].moved_at)
    ]


def _learned_most(production: ModelVersion | None, tries: Sequence[ModelVersion]) -> ModelVersion | None:
    """The whole model that learning goes on from; None for the base.

    It is the newest that measured faster than production. The gate refused it where so few images prove nothing; what
    it learned is kept all the same, or every training would have to make up for it before it gets further.
    """
    faster = [each for each in tries if each.metrics.get("gate", {}).get("faster", False)]
    whole = [each for each in (production, *faster) if each is not None and each.mode is Mode.FULL]
    return whole[-1] if whole else None


def _compared(version: ModelVersion) -> bool:
    """Whether the gate looked; versions from before it told were looked at."""
    return bool(version.metrics.get("gate", {}).get("compared", True))


def _held(held: bool, job: TrainingJob) -> None:
    if not held:
        raise LeaseLostError(f"job {job.id} is another worker's by now: this one showed no life for too long")


def _counts(data: FrozenData) -> dict[str, int]:
    counts = Counter(image.part.value for image in data.images)
    counts["pseudo"] = len(data.pseudo)
    return dict(+counts)


def _ruling_to_json(ruling: Ruling) -> dict[str, Any]:
    return {field.name: getattr(ruling, field.name) for field in fields(ruling)}


def _outcome(name: str, ruling: Ruling, *, promote: bool, stays: bool) -> str:
    if promote:
        return f"{name} is in production: {ruling.reason}"
    if ruling.promote:
        why = "as asked" if stays else "what is in production changed meanwhile"
        return f"{name} would be better ({ruling.reason}), but was not promoted: {why}"
    return f"{name} was not promoted: {ruling.reason}"
