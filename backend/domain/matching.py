"""What did the human change? An annotation held against what was proposed for its task.

A final region belongs to a proposed one by its region id, else by the prediction that ``meta.glip`` names, else by
overlap at the same label. Label Studio's ``origin`` and ``parent_prediction`` are not asked: the first says "manual" of
an accepted interactive suggestion and nothing after a bulk accept, the second is nulled by a draft.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from backend.domain.annotations import AnnotatedRegion, Annotation
from backend.domain.assignment import best_assignment
from backend.domain.geometry import Box, iou, visible_bounds
from backend.domain.records import Prediction, Region
from backend.domain.verdicts import EdgeOffsets, Verdict, VerdictKind

# An object drawn anew: at less overlap than this a person throws a proposal away rather than mend it.
MIN_IOU = 0.3
# Pixels by which an untouched edge may differ. Through percent and back it stays within 1e-9 in double precision, and
# within 0.002 in single precision at 20,000 pixels; a drag by one screen pixel is more even at tenfold zoom.
TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class _Emitted:
    prediction: Prediction
    region: Region

    @property
    def label(self) -> str:
        return self.region.proposal.label


_Finals = Sequence[AnnotatedRegion]
_Found = Mapping[int, _Emitted]  # index of a final region -> the proposed region that it was


def verdicts_of(annotation: Annotation, predictions: Iterable[Prediction]) -> tuple[Verdict, ...]:
    """Tell of every final region what it was, and which proposed regions were deleted.

    Of each image the annotation answers the predictions whose region ids or ``meta.glip`` it carries. Where it carries
    none, as when every box was deleted, it is held against the one of a version that it answers elsewhere, then the one
    that it resembles most; of equals, the newest version by name. Only regions of answered predictions can be deleted.
    What was found for a typed or drawn prompt is answered by region ids and ``meta.glip`` alone, and never deleted: the
    editor shows some of it, to one person, who takes what is wanted.

    Both boxes are compared inside the image, a rotated one by its bounds, at the size the editor saw: an untouched
    region is accepted even where we took the image for larger.

    Args:
        annotation: a skipped one has no verdicts.
        predictions: those emitted for its task before it was made, of all versions, and later ones that it carries ids
            of; in any order. With other later ones, it would answer what nobody saw who made it.

    Returns:
        One verdict per final rectangle, in the annotation's order, then one per deleted region, by prediction id.

    Raises:
        ValueError: a prediction is of another task, or a region's number is not finite.
    """
    if annotation.cancelled:
        return ()
    by_id = {each.id: each for each in sorted(predictions, key=lambda each: each.id)}
    for each in by_id.values():
        if each.task_id != annotation.task_id:
            raise ValueError(f"annotation {annotation.id}: prediction {each.id} is of task {each.task_id}")
    finals = annotation.regions
    found = _by_region_id(finals, _emitted(by_id.values()))
    for prediction in by_id.values():
        found |= _by_meta(finals, prediction, found)
    answered = _answered(finals, found, by_id)
    found |= _by_overlap(finals, answered, found)
    pairs: list[tuple[_Emitted | None, AnnotatedRegion | None]] = [
        *((found.get(index), final) for index, final in enumerate(finals)),
        *((emitted, None) for emitted in _left(answered, found)),
    ]
    version, images = _main_version(answered, found), _images(finals, answered, found)
    looked = [images.get(each.id) for each in answered] or [None]  # None: it may have been at any image

    def missed_by(final: AnnotatedRegion | None) -> str | None:
        return version if final and any(seen is None or final.image in seen for seen in looked) else None

    return tuple(
        _verdict(annotation, position, emitted, final, missed_by(final))
        for position, (emitted, final) in enumerate(pairs)
        if final is None or final.tool is None
    )


def _emitted(predictions: Iterable[Prediction]) -> list[_Emitted]:
    return [_Emitted(prediction, region) for prediction in predictions for region in prediction.regions]


def _left(predictions: Iterable[Prediction], found: _Found) -> list[_Emitted]:
    """Return the proposed regions that belong to no final one yet."""
    taken = {each.region.id for each in found.values()}
    return [each for each in _emitted(predictions) if each.region.id not in taken]


def _by_region_id(finals: _Finals, emitted: Iterable[_Emitted]) -> dict[int, _Emitted]:
    """Find the regions that kept their id. Of several with one id, the one most like the proposal kept it."""
    by_id = {each.region.id: each for each in emitted}
    keepers: dict[str, int] = {}
    for index, final in enumerate(finals):
        each = by_id.get(final.id)
        if each is not None:
            keeper = keepers.setdefault(final.id, index)
            if _likeness(each, final) > _likeness(each, finals[keeper]):
                keepers[final.id] = index
    return {index: by_id[region_id] for region_id, index in keepers.items()}


def _by_meta(finals: _Finals, prediction: Prediction, found: _Found) -> dict[int, _Emitted]:
    """Find regions under a new id that say which prediction they come from; the same label goes before overlap."""

    def weight(final: AnnotatedRegion, emitted: _Emitted) -> float:
        same_label, overlap = _likeness(emitted, final)
        return same_label + overlap if overlap >= MIN_IOU else 0.0

    rows = [index for index, final in enumerate(finals) if index not in found and final.prediction == prediction.id]
    columns = _left([prediction], found)
    pairs = best_assignment([[weight(finals[row], column) for column in columns] for row in rows])
    return {rows[row]: columns[column] for row, column in pairs}


def _by_overlap(finals: _Finals, predictions: Iterable[Prediction], found: _Found) -> dict[int, _Emitted]:
    """Find regions that were drawn anew over a proposal of the same label, on the same image as far as it is known."""
    predictions = list(predictions)
    images = _images(finals, predictions, found)

    def weight(final: AnnotatedRegion, emitted: _Emitted) -> float:
        on_image = final.image in images.get(emitted.prediction.id, {final.image})
        overlap = _likeness(emitted, final)[1] if on_image and emitted.label in final.labels else 0.0
        return overlap if overlap >= MIN_IOU else 0.0

    rows = [index for index in range(len(finals)) if index not in found]
    columns = _left(predictions, found)
    pairs = best_assignment([[weight(finals[row], column) for column in columns] for row in rows])
    return {rows[row]: columns[column] for row, column in pairs}


def _images(finals: _Finals, predictions: Iterable[Prediction], found: _Found) -> dict[str, set[str]]:
    """Names of the images that predictions are of, by their ids, as far as they or what came of them tell."""
    images = {each.id: {each.look.image} for each in predictions if each.look.image is not None}
    for index, each in found.items():
        images.setdefault(each.prediction.id, set()).add(finals[index].image)
    return images


def _answered(finals: _Finals, found: _Found, by_id: Mapping[str, Prediction]) -> list[Prediction]:
    """Return the predictions that the annotation answers, by id, without those for prompts."""
    named = {each.prediction.id for each in found.values()} | {final.prediction for final in finals}
    shown = [prediction for prediction in by_id.values() if not prediction.look.prompted]
    answered = {prediction.id for prediction in shown if prediction.id in named}
    versions = {prediction.model_version for prediction in shown if prediction.id in named}

    def resemblance(prediction: Prediction) -> tuple[bool, float, list[str | int], str]:
        pairs = _by_overlap(finals, [prediction], {})
        overlaps = sum(_likeness(emitted, finals[index])[1] for index, emitted in pairs.items())
        version = prediction.model_version
        return version in versions, overlaps, _natural(version), prediction.id

    # Where it is not known which image a prediction is of, it may be any.
    for image in {prediction.look.image for prediction in shown} - {None} or {None}:
        of_image = [prediction for prediction in shown if prediction.look.image in (image, None)]
        if answered.isdisjoint(prediction.id for prediction in of_image):
            answered |= {prediction.id for prediction in sorted(of_image, key=resemblance)[-1:]}
    return [prediction for prediction in shown if prediction.id in answered]


def _main_version(answered: Collection[Prediction], found: _Found) -> str | None:
    """Return the version that most regions come from: the one that missed what was added."""
    regions = Counter(each.prediction.model_version for each in found.values())
    versions = {each.model_version for each in answered} | set(regions)
    return max(versions, key=lambda each: (regions[each], _natural(each)), default=None)


def _natural(name: str) -> list[str | int]:
    """Order ``glip-10`` after ``glip-9``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _likeness(emitted: _Emitted, final: AnnotatedRegion) -> tuple[bool, float]:
    """Whether the label stayed, and the overlap in ``[0, 1]``."""
    return emitted.label in final.labels, iou(*_boxes(emitted, final))


def _boxes(emitted: _Emitted, final: AnnotatedRegion) -> tuple[Box, Box]:
    """Return the proposed and the final box inside the image, in pixels of the size that the editor saw."""
    prediction = emitted.prediction
    width, height = float(prediction.width), float(prediction.height)
    sent = emitted.region.proposal.box.clipped(width, height)
    if final.image_width and final.image_height and (final.image_width, final.image_height) != (width, height):
        across, down = final.image_width / width, final.image_height / height
        sent = Box(sent.x1 * across, sent.y1 * down, sent.x2 * across, sent.y2 * down)
        width, height = final.image_width, final.image_height
    return sent, visible_bounds(final.value, width, height)


def _change(
    emitted: _Emitted | None, final: AnnotatedRegion | None
) -> tuple[VerdictKind, float | None, EdgeOffsets | None]:
    if emitted is None:
        return VerdictKind.ADDED, None, None
    if final is None:
        return VerdictKind.DELETED, None, None
    before, after = _boxes(emitted, final)
    overlap = iou(before, after)
    offsets = EdgeOffsets(after.x1 - before.x1, after.y1 - before.y1, after.x2 - before.x2, after.y2 - before.y2)
    untouched = all(abs(edge) <= TOLERANCE for edge in astuple(offsets))
    if untouched:
        overlap, offsets = 1.0, EdgeOffsets(0.0, 0.0, 0.0, 0.0)
    if emitted.label not in final.labels:
        return VerdictKind.RELABELLED, overlap, offsets
    return VerdictKind.ACCEPTED if untouched else VerdictKind.MOVED, overlap, offsets


def _verdict(
    annotation: Annotation,
    position: int,
    emitted: _Emitted | None,
    final: AnnotatedRegion | None,
    missed_by: str | None,
) -> Verdict:
    kind, overlap, offsets = _change(emitted, final)
    proposal = emitted.region.proposal if emitted else None
    labels = final.labels if final else ()
    return Verdict(
        annotation_id=annotation.id,
        position=position,
        kind=kind,
        emitted_region=emitted.region.id if emitted else None,
        final_region=final.id if final else None,
        label_before=proposal.label if proposal else None,
        label_after=proposal.label if proposal and proposal.label in labels else next(iter(labels), None),
        iou=overlap,
        offsets=offsets,
        model_version=emitted.prediction.model_version if emitted else missed_by,
        prompt=proposal.prompt if proposal else None,
        score=proposal.score if proposal else None,
        annotator=annotation.annotator,
        lead_time=annotation.lead_time,
    )
