"""Predictions for tasks: stored ones are reused, concurrent askers share one, the rest is fetched, detected and stored.

A failure belongs to its task: the others are answered. Work that does not fit into the time there is fails as busy,
what was finished is stored, so that asking again goes on where it stopped.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from threading import Lock
from time import monotonic

from backend.domain.fits import FIRST_LOOK, Reading
from backend.domain.records import Look, Picture, Prediction, Proposal, Query
from backend.domain.review import FIRST_THRESHOLD
from backend.errors import BusyError, GlipLabelError, ModelError
from backend.ports import Detector, Images, UnitOfWork
from backend.services.ordering import order_of

Outcome = Prediction | GlipLabelError


@dataclass(frozen=True, slots=True)
class Ask:
    """One picture of one task, and what is asked of it. ``project`` is Label Studio's ``ID.CREATED``.

    ``look`` is kept with the prediction; its hash is filled in here.
    """

    project: str
    task_id: int
    reference: str
    query: Query
    look: Look


@dataclass(frozen=True, slots=True)
class PredictLimits:
    """``score_threshold`` where the project sets none; ``seconds`` for one request; sizes of batch and fetch pool."""

    score_threshold: float = FIRST_THRESHOLD
    seconds: float = 85.0
    batch_size: int = 4
    fetchers: int = 4


@dataclass(frozen=True, slots=True)
class _Work:
    ask: Ask
    detector: Detector
    version: str
    reading: Reading = field(compare=False)  # the key tells them apart
    query_key: str

    @property
    def key(self) -> tuple[str, int, str, str]:
        return self.ask.project, self.ask.task_id, self.version, self.query_key


class Predict:
    """The service behind ``/predict``; one instance serves all threads.

    Args:
        production: gives the detector that answers for a project from now on; asked once for each request.
        unit_of_work: makes the transactions that store predictions.
        reading: makes transactions that only read: what is stored is answered also while another writes.
    """

    def __init__(
        self,
        production: Callable[[str], Detector],
        images: Images,
        unit_of_work: Callable[[], UnitOfWork],
        reading: Callable[[], UnitOfWork],
        limits: PredictLimits = PredictLimits(),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._production = production
        self._images = images
        self._unit_of_work = unit_of_work
        self._reading = reading
        self._limits = limits
        self._clock = clock
        self._lock = Lock()
        self._in_flight: dict[tuple[str, int, str, str], Future[Outcome]] = {}

    def __call__(self, asks: Sequence[Ask]) -> list[Outcome]:
        """Answer each ask with its prediction or with the error that kept it from one, in order.

        Raises:
            ModelError: the model has no version, as when its folder is missing.
            StorageError: the database cannot be read.
        """
        deadline = self._clock() + self._limits.seconds
        works = self._works(asks)
        own: dict[_Work, Future[Outcome]] = {}
        futures: list[Future[Outcome]] = []
        with self._lock:
            for work in works:
                if work.key not in self._in_flight:
                    own[work] = self._in_flight[work.key] = Future()
                futures.append(self._in_flight[work.key])
        try:
            self._answer(own, deadline)
        except GlipLabelError as error:
            for future in own.values():
                if not future.done():
                    future.set_result(error)
        finally:
            with self._lock:
                for work, future in own.items():
                    del self._in_flight[work.key]
                    future.cancel()  # only one that a defect left open; its followers must not wait for ever
        return [self._wait(work, future, deadline) for work, future in zip(works, futures, strict=True)]

    def _works(self, asks: Sequence[Ask]) -> list[_Work]:
        projects = {ask.project for ask in asks}
        detectors = {project: self._production(project) for project in projects}
        versions = {project: detector.version for project, detector in detectors.items()}
        with self._reading() as unit:
            readings = {project: self._way_to_read(unit, project, versions[project]) for project in projects}
        alone = len({(ask.project, ask.task_id) for ask in asks}) == 1  # with all of its pictures

        def work(ask: Ask) -> _Work:
            reading = readings[ask.project]
            if ask.look.prompted:  # scores of other words are other scores
                reading = Reading(None, reading.asked_threshold, theirs=True)
            if alone and not reading.theirs:  # a person waits for it, and is the first to judge this model
                reading = replace(reading, most=FIRST_LOOK)
            key = _query_key(ask, reading)
            return _Work(ask, detectors[ask.project], versions[ask.project], reading, key)

        return [work(ask) for ask in asks]

    def _way_to_read(self, unit: UnitOfWork, project: str, version: str) -> Reading:
        theirs = unit.projects.score_threshold(project)
        threshold = self._limits.score_threshold if theirs is None else theirs
        return Reading(unit.fits.newest(project, version), threshold, theirs is not None)

    def _answer(self, own: Mapping[_Work, Future[Outcome]], deadline: float) -> None:
        missing = []
        with self._reading() as unit:
            for work, future in own.items():
                stored = unit.predictions.find(*work.key)
                if stored is None and work.reading.most is not None:  # what was retrieved for many is all there
                    stored = unit.predictions.find(
                        *work.key[:3], _query_key(work.ask, replace(work.reading, most=None))
                    )
                if stored is None:
                    missing.append(work)
                else:
                    future.set_result(stored)
        slowest = 0.0
        pool = ThreadPoolExecutor(self._limits.fetchers, "fetch")
        try:
            for batch, pictures in self._fetched(pool, missing):
                begun = self._clock()
                # The first batch is always done: asking again must get further.
                if slowest and begun + slowest > deadline:
                    break
                for work, outcome in self._predict(batch, pictures, deadline if slowest else None):
                    own[work].set_result(outcome)
                slowest = max(slowest, self._clock() - begun)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        for work in missing:
            if not own[work].done():
                own[work].set_result(self._too_late(work))

    def _fetched(
        self, pool: ThreadPoolExecutor, works: Sequence[_Work]
    ) -> Iterator[tuple[Sequence[_Work], list[Future[Picture]]]]:
        """Batches of one project and one query; the next is being fetched while the caller works on this one."""
        alike: dict[tuple[str, Query, float], list[_Work]] = {}
        for work in works:
            alike.setdefault((work.ask.project, work.ask.query, work.reading.floor), []).append(work)
        size = self._limits.batch_size
        batches = [group[start : start + size] for group in alike.values() for start in range(0, len(group), size)]
        coming: deque[list[Future[Picture]]] = deque()
        for index in range(len(batches)):
            for batch in batches[index + len(coming) : index + 2]:
                coming.append([pool.submit(self._images.fetch, work.ask.reference, work.ask.task_id) for work in batch])
            yield batches[index], coming.popleft()

    def _predict(
        self, batch: Sequence[_Work], pictures: Sequence[Future[Picture]], until: float | None
    ) -> Iterator[tuple[_Work, Outcome]]:
        """Detect one batch, store what it gave in one transaction, and pair every work with its outcome.

        Pictures that are not there ``until`` then are not waited for any longer.
        """
        ready: list[tuple[_Work, Picture]] = []
        for work, future in zip(batch, pictures, strict=True):
            try:
                left = None if until is None else max(0.0, until - self._clock())
                ready.append((work, future.result(left)))
            except TimeoutError:
                yield work, self._too_late(work)
            except GlipLabelError as error:
                yield work, error
        if not ready:
            return
        first = ready[0][0]
        try:
            found = first.detector.detect(
                [picture for _, picture in ready], first.ask.query, score_threshold=first.reading.floor
            )
        except GlipLabelError as error:
            yield from ((work, error) for work, _ in ready)
            return
        predictions = [
            (work, _prediction(work, picture, proposals))
            for (work, picture), proposals in zip(ready, found, strict=True)
        ]
        with self._unit_of_work() as unit:
            # In the tasks' order: services that store the same ones in two orders would wait for each other.
            for work, prediction in sorted(predictions, key=lambda each: (each[0].ask.project, each[0].ask.task_id)):
                unit.predictions.add(work.ask.project, work.query_key, prediction)
            unit.commit()
        yield from predictions

    def _wait(self, work: _Work, future: Future[Outcome], deadline: float) -> Outcome:
        try:
            return future.result(timeout=max(0.0, deadline - self._clock()))
        except TimeoutError:
            return self._too_late(work)

    def _too_late(self, work: _Work) -> BusyError:
        return BusyError(
            f"task {work.ask.task_id} did not fit into {self._limits.seconds:g} s: "
            "ask again, the finished tasks are kept"
        )


def _query_key(ask: Ask, reading: Reading) -> str:
    """Digest of everything but task and version that a prediction depends on."""
    query = [asdict(label) for label in ask.query] if isinstance(ask.query, tuple) else asdict(ask.query)
    fit = None if reading.fit is None else reading.fit.id
    asked = [ask.project, ask.reference, ask.look.image, ask.look.prompted, query]
    facts = [*asked, reading.threshold, reading.theirs, reading.most, fit]
    return sha256(json.dumps(facts).encode()).hexdigest()


def _prediction(work: _Work, picture: Picture, proposals: Sequence[Proposal]) -> Prediction:
    """Give what people see ids that depend only on what was asked, so that asking twice gives the same ids."""
    if not all(0.0 <= proposal.score <= 1.0 for proposal in proposals):  # also false for NaN
        raise ModelError(f"model {work.version} gave a score outside 0 to 1: its weights are damaged")
    identity = sha256("\0".join(map(str, work.key)).encode()).hexdigest()[:16]
    regions, hidden = work.reading.read(proposals, picture, identity)
    if work.ask.look.prompted:
        regions = tuple(replace(region, weight=0.0) for region in regions)
    fit = work.reading.fit
    return Prediction(
        task_id=work.ask.task_id,
        model_version=work.version,
        width=picture.width,
        height=picture.height,
        regions=regions,
        id=identity,
        look=replace(work.ask.look, sha256=picture.sha256),
        hidden=hidden,
        fit=None if fit is None else fit.id,
        order=order_of(fit, work.ask.task_id, proposals),
    )
