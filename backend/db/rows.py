"""Rows of annotations read as records: whole objects of the session, or the bare rows of an export."""

import json
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.orm import aliased

from backend.db.tables import AnnotationRegionRow, AnnotationRow, AnnotationVersionRow, PredictionRegionRow
from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.geometry import Box
from backend.domain.records import Proposal, Region

_REGION = (
    "region_id",
    "image",
    "labels",
    "x",
    "y",
    "width",
    "height",
    "rotation",
    "image_width",
    "image_height",
    "origin",
    "prediction",
    "score",
    "tool",
)
REGION_COLUMNS = tuple(getattr(AnnotationRegionRow, name) for name in _REGION)
_fields = attrgetter(*_REGION)


def is_newest() -> ColumnElement[bool]:
    """Condition on a version of an annotation: no later one replaced it, be it on another task."""
    other = aliased(AnnotationVersionRow)
    newest = select(func.max(other.updated_at)).where(other.annotation_id == AnnotationRow.id).scalar_subquery()
    return AnnotationVersionRow.updated_at == newest


def annotation_of(
    row: AnnotationVersionRow | Row[Any],
    regions: tuple[AnnotatedRegion, ...],
    *,
    annotation_id: int,
    task_id: int,
    project_id: int,
) -> Annotation:
    """Read one version of an annotation; the ids are Label Studio's."""
    return Annotation(
        id=annotation_id,
        task_id=task_id,
        project_id=project_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        annotator=row.annotator,
        cancelled=row.cancelled,
        ground_truth=row.ground_truth,
        lead_time=row.lead_time,
        parent_prediction=row.parent_prediction,
        regions=regions,
    )


def region_of(row: AnnotationRegionRow) -> AnnotatedRegion:
    """Read one region, in Label Studio's percent."""
    return region_of_columns(_fields(row))


def region_of_columns(columns: Sequence[Any]) -> AnnotatedRegion:
    """Read one region from its `REGION_COLUMNS`; an export has a million, and asking a row by name takes longer."""
    key, image, labels, x, y, width, height, rotation, image_width, image_height, *rest = columns
    return AnnotatedRegion(
        key,
        image,
        _labels(labels),
        PercentBox(x, y, width, height, rotation),
        image_width,
        image_height,
        *rest,
    )


def emitted_region(row: PredictionRegionRow | Row[Any]) -> Region:
    """Read one proposed region as it was shown, in pixels."""
    proposal = Proposal(Box(row.x1, row.y1, row.x2, row.y2), row.label, row.score, row.prompt)
    return Region(row.id, proposal, row.probability, row.weight)


@lru_cache(maxsize=4096)
def _labels(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
