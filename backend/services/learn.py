"""One training job from its frozen data to a version, in production or not."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from backend.domain.learning import (
    PRODUCTION,
    AliasMove,
    Contest,
    JobState,
    Mode,
    ModelVersion,
    MoveKind,
    Ruling,
    TrainingJob,
    next_version_name,
)
from backend.domain.training_data import FrozenData, Part
from backend.errors import ImageError, LeaseLostError, ModelError, TrainingError, UsageError
from backend.ports import Detector
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
from backend.services.second_look import SecondLook
from backend.services.training import Claim

_ATTEMPTS = 40  # claims of one job: whoever works on it dies, or is stopped, before it is done

log = logging.getLogger("glip_label.training")


class Learn:
    """Works on claimed jobs. Killed at any moment, the next one that claims the job goes on where it stopped."""

    def __init__(self, parts: LearnParts, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._parts = parts
        self._clock = clock
        self._look_again = SecondLook(parts, clock)

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
                    raise TrainingError(
                        f"given up after {_ATTEMPTS} attempts: each worker died or was stopped, see their logs"
                    )
                promoted = self._work(claim)
            except (TrainingError, ModelError, ImageError, UsageError) as error:
                self.fail(job, " ".join(str(error).split()))
                promoted = False
        self._parts.files.discard(job.id)
        if promoted:
            self._parts.announce(job.project)
        log.info("job=%d project=%s seconds=%.0f promoted=%s", job.id, job.project, perf_counter() - begun, promoted)

    def _work(self, claim: Claim) -> bool:
        parts, job = self._parts, claim.job
        data = self._data(claim)
        folder = parts.files.work(job.id)
        mode = parts.trainer.train(data, job.request, self._start(job.project, data), folder, claim.report)
        candidate = parts.models.open_folder(folder)
        production, contest, ruling = self._compared(claim, data, candidate)
        look = None
        if job.request.promote and not ruling.promote:
            look = self._look_again(claim, data, attempts=int(ruling.compared))
            if look is not None and look["promote"]:
                production, contest, ruling = self._compared(claim, data, candidate)
        metrics = {"images": _counts(data), "left_out": dict(data.left_out), "gate": ruling.to_json()}
        about = {
            "parent": parts.models.base if production is None else production.name,
            "start": data.start,
            "base": parts.models.base,
            "mode": mode.value,
            "fingerprint": data.fingerprint,
            "labels": [name for name, _ in data.labels],
            "seed": job.request.seed,
            "job": job.id,
            "metrics": metrics if look is None else {**metrics, "looked_again": look},
        }
        return self._publish(claim, about, production, ruling, rehearsal(job.project, "", contest, self._clock()))

    def _compared(
        self, claim: Claim, data: FrozenData, candidate: Detector
    ) -> tuple[ModelVersion | None, Contest, Ruling]:
        """Hold the candidate against what is in production now, on all that was held out."""
        parts = self._parts
        with parts.reading() as unit:
            production, tries = production_and_tries(unit, claim.job.project, parts.models.base)
        detectors = (parts.models.open(production), candidate)
        images = (*data.part(Part.TUNE), *data.part(Part.GATE))
        contest = hold(parts, query_of(data.labels), images, detectors, next_attempt(tries), claim.report)
        return production, contest, parts.judge(contest)

    def _data(self, claim: Claim) -> FrozenData:
        """What the job learns from; gathered once, and anew where it was gathered for another base model."""
        base = self._parts.models.base
        with self._parts.reading() as unit:
            frozen = unit.jobs.data(claim.job.id)
            project = unit.projects.state(claim.job.project)
        if frozen is not None and frozen.base == base:
            return frozen
        if project is None:
            raise TrainingError(f"project {claim.job.project} is not known")
        gathered = self._parts.gathering(project, claim.job.request, claim.report)
        with self._parts.reading() as unit:
            production, tries = production_and_tries(unit, claim.job.project, base)
        start = None if claim.job.request.from_base else self._learned_most(production, tries)
        data = replace(gathered, start=None if start is None else start.name, base=base)
        with self._parts.unit_of_work() as unit:
            _held(unit.jobs.freeze(claim.job, data), claim.job)
            # Whatever lies there learned from something else: for another base, or as a job of another database.
            self._parts.files.discard(claim.job.id)
            unit.commit()
        return data

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

    def _publish(
        self, claim: Claim, about: dict[str, Any], compared: ModelVersion | None, ruling: Ruling, told: Rehearsal
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
            look = about["metrics"].get("looked_again")
            # Held against it means that it was in production by then.
            if look is not None and about["parent"] == look["version"]:
                outcome = f"{look['version']}, looked at again, went into production: {look['reason']}; {outcome}"
            _held(unit.jobs.finish(job, JobState.DONE, self._clock(), outcome, name), job)
            unit.versions.add(version)
            if told.judgements:
                unit.fits.add_rehearsal(job.project, name, told.judgements)
                unit.fits.add(replace(told.fit, model_version=name))
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
        self._parts.files.discard(job.id)

    def _discard_finished(self, job: TrainingJob) -> None:
        """Remove what jobs left that were killed after their last transaction."""
        with self._parts.unit_of_work() as unit:
            finished = [each.id for each in unit.jobs.of(job.project, 10) if not each.is_open]
        for number in finished:
            self._parts.files.discard(number)

    def _learned_most(self, production: ModelVersion | None, tries: Sequence[ModelVersion]) -> ModelVersion | None:
        """The whole model that learning goes on from; None for the base.

        It is the newest that may be better than production, if only the gate had seen more images, or production. What
        it learned is kept, or every training would have to make up for it before it gets further.
        """
        further = next((each for each in reversed(tries) if each.may_be_better and each.mode is Mode.FULL), None)
        if further is not None:
            try:
                self._parts.files.folder(further)
                return further
            except ModelError as error:  # nothing needs it
                log.warning("project=%s learning does not go on from %s: %s", further.project, further.name, error)
        return production if production is not None and production.mode is Mode.FULL else None


def _held(held: bool, job: TrainingJob) -> None:
    if not held:
        raise LeaseLostError(job.id)


def _counts(data: FrozenData) -> dict[str, int]:
    counts = Counter(image.part.value for image in data.images)
    counts["pseudo"] = len(data.pseudo)
    return dict(+counts)


def _outcome(name: str, ruling: Ruling, *, promote: bool, stays: bool) -> str:
    if promote:
        return f"{name} is in production: {ruling.reason}"
    if ruling.promote:
        why = "as asked" if stays else "what is in production changed meanwhile"
        return f"{name} would be better ({ruling.reason}), but was not promoted: {why}"
    return f"{name} was not promoted: {ruling.reason}"
