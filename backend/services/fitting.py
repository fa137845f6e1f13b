"""Learns from verdicts how to read a model version's scores: what they are worth, what to show, what to show first."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from heapq import nsmallest

from backend.analysis.acquisition import choosing_pays
from backend.analysis.calibration import fit_calibration
from backend.analysis.edge_correction import EdgeMove, fit_edges
from backend.analysis.simulated_annotator import IDEAL, Annotator
from backend.analysis.thresholds import fit_thresholds
from backend.domain.edges import EdgeCorrection, EdgeShift
from backend.domain.facts import ProjectState
from backend.domain.fits import Fit
from backend.domain.geometry import Box
from backend.domain.records import Proposal
from backend.domain.review import LABEL_STUDIO, Costs, Judgement, judgement_of
from backend.domain.training_data import ReviewedImage
from backend.domain.verdicts import EdgeOffsets, Judged, VerdictKind
from backend.ports import UnitOfWork
from backend.services.ordering import chance, rounds_of, urgency, works_of

log = logging.getLogger("glip_label.fitting")

LEAST = 5  # verdicts; with fewer, nothing is fitted
MOST = 20_000  # verdicts; more tell no more, and take their time
_LEAST_KEPT = 10  # boxes; a model of which people kept fewer does not know what it is unsure of
_EXAMPLES = 2000  # images
_GROWTH = 1.2  # by how much verdicts must outnumber those of the last fit
_QUANTILES = 100

Proposals = Sequence[Proposal]


@dataclass(frozen=True, slots=True)
class Fitting:
    """Fits each project's versions anew when enough verdicts came; ``edges`` also learns how people move boxes.

    ``reading`` makes the transactions in which verdicts are read: they may be very many.
    """

    unit_of_work: Callable[[], UnitOfWork]
    reading: Callable[[], UnitOfWork]
    edges: bool = False
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __call__(self) -> list[Fit]:
        """Fit what is due.

        Raises:
            StorageError: the database failed.
        """
        with self.reading() as unit:
            due = [
                (project, version)
                for project in unit.projects.all()
                for version, count in unit.corrections.count_judged(project.uid).items()
                if is_due(
                    count, unit.fits.count_rehearsed(project.uid, version), unit.fits.newest(project.uid, version)
                )
            ]
        return [self.fit(project, version) for project, version in due]

    def fit(self, project: ProjectState, version: str) -> Fit:
        """Fit one version to its rehearsal and the newest verdicts on its proposals, and keep the fit."""
        with self.reading() as unit:
            count = unit.corrections.count_judged(project.uid).get(version, 0)
            judged = unit.corrections.judged(project.uid, version, MOST)
            rehearsed, last = unit.fits.rehearsed(project.uid, version), unit.fits.newest(project.uid, version)
            placing = [unit.fits.find(each) for each in sorted({each.fit for each in judged if each.fit is not None})]
            moves = _moves(unit, judged) if self.edges else []
            predictions = unit.predictions.newest(project.uid, version)
            # Chance places these: they are like all the others.
            examples = nsmallest(_EXAMPLES, predictions, key=lambda each: chance(project.uid, each.task_id))
        images = [each.proposals for each in examples]
        # A clock that was put back must not let what was fitted before it pass for the newest.
        now = self.clock() if last is None else max(self.clock(), last.fitted_at + timedelta(microseconds=1))
        fit = fit_judgements(project.uid, version, [*rehearsed, *judgements_of(judged)], images, now)
        works = works_of(judged, {each.id for each in placing if each is not None and each.ordering})
        pays = choosing_pays(rounds_of(project.uid, works))
        count += len(rehearsed)
        fit = replace(fit, judgements=count, edges=fit_edges(moves), ordering=fit.ordering if pays else ())
        with self.unit_of_work() as unit:
            unit.fits.add(fit)
            unit.commit()
        log.info("fitted project=%d version=%s judgements=%d", project.id, version, fit.judgements)
        return fit


def rehearse(reviewed: Sequence[tuple[ReviewedImage, Proposals]], costs: Costs) -> list[Judgement]:
    """Judge proposals by what people left on the images, as a person without errors would.

    So a version that nobody saw yet can be fitted.

    Args:
        reviewed: images that the version was not trained on, with all that it finds in them from ``FLOOR`` on.
        costs: of the person, which decide whether a box is mended or drawn anew.
    """
    annotator = Annotator((), costs, IDEAL)  # who never confuses labels need not know them
    judgements = [
        judgement
        for image, found in reviewed
        for judgement in annotator.review(image.sha256, image.boxes, found).judgements
    ]
    return judgements[:MOST]


def judgements_of(judged: Iterable[Judged]) -> list[Judgement]:
    """Turn verdicts on proposed regions into judgements; what was shown to explore stands for all that was not.

    What a person asked for with a prompt says nothing about what is proposed to everybody, and is left out.
    """
    found = []
    for each in judged:
        weight = 1.0 if each.region is None else each.region.weight
        judgement = judgement_of(each.verdict, weight)
        if judgement is not None and weight > 0:
            found.append(replace(judgement, image=str(each.task_id)))
    return found


def is_due(verdicts: int, rehearsed: int, newest: Fit | None) -> bool:
    """Tell whether so many verdicts on a version are worth another fit than its newest one.

    What was rehearsed does not delay it: that judges everything a version finds, most of which nobody will ever see,
    and a few verdicts on what people do see outweigh it.
    """
    known = 0 if newest is None else newest.judgements - rehearsed
    return verdicts >= max(LEAST, _GROWTH * known)


def fit_judgements(
    project: str,
    version: str,
    judgements: Sequence[Judgement],
    images: Sequence[Proposals],
    fitted_at: datetime,
    costs: Costs = LABEL_STUDIO,
) -> Fit:
    """Fit a version to what became of its proposals; ``images`` are examples of what it finds, to rank others among.

    Chance places all while next to nothing of what it finds is kept: its doubts are about things that are not there.
    """
    calibration = fit_calibration(judgements)
    thresholds = fit_thresholds(judgements, costs)
    kept = sum(each.kind is not VerdictKind.DELETED for each in judgements)
    ranked = images if kept >= _LEAST_KEPT else ()
    urgencies = sorted(urgency(found, calibration, thresholds) for found in ranked)
    step = max(1, len(urgencies) // _QUANTILES)
    ordering = tuple(urgencies[step - 1 :: step])
    return Fit(project, version, calibration, thresholds, len(judgements), fitted_at, ordering=ordering)


def _moves(unit: UnitOfWork, judged: Iterable[Judged]) -> list[EdgeMove]:
    """Tell how people moved the boxes that the model itself proposed, also where these were shown corrected."""
    corrections: dict[str | None, EdgeCorrection] = {None: EdgeCorrection()}
    moves = []
    for each in judged:
        if each.fit not in corrections:
            found = unit.fits.find(each.fit or "")
            corrections[each.fit] = EdgeCorrection() if found is None else found.edges
        kept = each.verdict.kind in (VerdictKind.ACCEPTED, VerdictKind.MOVED)
        if kept and each.region is not None and each.verdict.offsets is not None:
            proposal = each.region.proposal
            shift = corrections[each.fit].labels.get(proposal.label, EdgeShift())
            moves.append(_own_move(proposal, shift, each.verdict.offsets))
    return moves


def _own_move(shown: Proposal, shift: EdgeShift, offsets: EdgeOffsets) -> EdgeMove:
    box = shown.box
    width, height = box.width / (1 + shift.right - shift.left), box.height / (1 + shift.bottom - shift.top)
    left, top = box.x1 - shift.left * width, box.y1 - shift.top * height
    own = Box(left, top, left + width, top + height)
    return EdgeMove(
        shown.label,
        own,
        EdgeOffsets(
            offsets.left + box.x1 - own.x1,
            offsets.top + box.y1 - own.y1,
            offsets.right + box.x2 - own.x2,
            offsets.bottom + box.y2 - own.y2,
        ),
    )
