"""Rows of annotations read as records: whole objects of the session, or the bare rows of an export."""

import json
from functools import lru_cache
from typing import Any

from sqlalchemy import Row

from backend.db.tables import AnnotationRegionRow, AnnotationVersionRow
from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox


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


def region_of(row: AnnotationRegionRow | Row[Any]) -> AnnotatedRegion:
    """Read one region, in Label Studio's percent."""
    return AnnotatedRegion(
        id=row.region_id,
        image=row.image,
        labels=_labels(row.labels),
        value=PercentBox(row.x, row.y, row.width, row.height, row.rotation),
        image_width=row.image_width,
        image_height=row.image_height,
        origin=row.origin,
        prediction=row.prediction,
        score=row.score,
    )


@lru_cache(maxsize=4096)
def _labels(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
