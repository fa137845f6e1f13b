"""Training jobs: when one is due, who works on it, and the sign of life that keeps others away."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from time import monotonic

from backend.domain.learning import TrainingJob, TrainingProgress, TrainingRequest, training_due_after
from backend.errors import LeaseLostError, StorageError
from backend.ports import UnitOfWork

_TELL_SECONDS = 1.0

log = logging.getLogger("glip_label.training")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class TrainingPolicy:
    """When training is due by itself: after so many new annotations, or so many hours; 0 for never."""

    annotations: int
    hours: float = 0.0


class Training:
    """The queue of training jobs; one instance serves all threads.

    Args:
        unit_of_work: makes the transactions.
        lease_seconds: how long a claim holds without a sign of life.
        reading: makes those that only read, and wait for no writer; as the others where None.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], UnitOfWork],
        lease_seconds: float = 60.0,
        clock: Callable[[], datetime] = _now,
        reading: Callable[[], UnitOfWork] | None = None,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._reading = unit_of_work if reading is None else reading
        self._lease = timedelta(seconds=lease_seconds)
        self._clock = clock

    def request(self, project: str, request: TrainingRequest) -> TrainingJob:
        """Queue a job for a known project, and return it or the one that is open already."""
        with self._unit_of_work() as unit:
            job = unit.jobs.add(project, request, self._clock(), unit.corrections.newest_version(project))
            unit.commit()
        return job

    def request_due(self, policy: TrainingPolicy) -> list[TrainingJob]:
        """Queue a job for every project that is due by policy, and return the new ones."""
        with self._reading() as unit:
            projects = [project.uid for project in unit.projects.all() if not project.is_imported]
        reasons = ((project, self._due(project, policy)) for project in projects)
        return [self.request(project, TrainingRequest(reason)) for project, reason in reasons if reason is not None]

    def _due(self, project: str, policy: TrainingPolicy) -> str | None:
        with self._reading() as unit:
            last, done = next(iter(unit.jobs.of(project, 1)), None), unit.jobs.done(project)
            if last is not None and last.is_open:
                return None
            # By what they saw, not by clocks: a sync may tell late what was annotated long ago.
            new, newer = (unit.corrections.count_reviewed(project, job.seen if job else 0) for job in (done, last))
            version = None if done is None or done.version is None else unit.versions.find(project, done.version)
        learnt, judged = 0 if done is None else done.learnt, version is None or version.judged
        due = new >= training_due_after(learnt, policy.annotations, judged=judged)
        if policy.annotations and due and (last == done or newer >= policy.annotations):  # a failed one fails again
            return "annotations"
        waited = last is None or self._clock() - last.requested_at >= timedelta(hours=policy.hours)
        return "schedule" if policy.hours and new and waited else None

    def find(self, job: int) -> TrainingJob | None:
        """Return a job as it stands now."""
        with self._reading() as unit:
            return unit.jobs.find(job)

    def of(self, project: str, limit: int = 20) -> Sequence[TrainingJob]:
        """Return a project's jobs, newest first."""
        with self._reading() as unit:
            return unit.jobs.of(project, limit)

    def claimable(self) -> Sequence[int]:
        """Return the jobs that wait for a worker, oldest first."""
        with self._reading() as unit:
            return unit.jobs.claimable(self._clock())

    def claim(self, worker: str, wanted: int | None = None) -> "Claim | None":
        """Take the oldest job that waits, or the wanted one; None where there is none, or another was faster."""
        for number in self.claimable() if wanted is None else (wanted,):
            with self._unit_of_work() as unit:
                now = self._clock()
                job = unit.jobs.claim(number, worker, now, now + self._lease)
                unit.commit()
            if job is not None:
                return Claim(self._unit_of_work, job, self._lease, self._clock)
        return None


class Claim:
    """A job in hand; inside its ``with`` block a thread shows that the worker lives.

    Attributes:
        job: as it was claimed.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], UnitOfWork],
        job: TrainingJob,
        lease: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self.job = job
        self._unit_of_work = unit_of_work
        self._lease = lease
        self._clock = clock
        self._lost = False
        self._told = -_TELL_SECONDS
        self._stop = Event()
        self._thread = Thread(target=self._live, name=f"job {job.id}", daemon=True)

    def __enter__(self) -> "Claim":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def report(self, progress: TrainingProgress) -> None:
        """Keep the progress, at most once a second.

        Raises:
            LeaseLostError: another worker took the job over.
        """
        if monotonic() - self._told >= _TELL_SECONDS:
            self._told = monotonic()
            self._beat(progress)
        if self._lost:
            raise LeaseLostError(self.job.id)

    def release(self) -> None:
        """Let others go on with the job at once."""
        with self._unit_of_work() as unit:
            unit.jobs.release(self.job)
            unit.commit()

    def _live(self) -> None:
        while not self._stop.wait(self._lease.total_seconds() / 4):
            self._beat(None)

    def _beat(self, progress: TrainingProgress | None) -> None:
        now = self._clock()
        try:
            with self._unit_of_work() as unit:
                self._lost = not unit.jobs.beat(self.job, now, now + self._lease, progress)
                unit.commit()
        except StorageError as error:
            log.error("job=%d: %s", self.job.id, error)  # the lease outlasts some of these
