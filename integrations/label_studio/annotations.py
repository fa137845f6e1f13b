"""Annotations as Label Studio's events and API show them, parsed into records."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.errors import UsageError
from integrations.label_studio.fields import (
    identifier,
    mapping,
    mappings,
    moment,
    number,
    optional_number,
    optional_text,
)

_RECTANGLE = "rectanglelabels"
_WHOLE_IMAGE = PercentBox(0.0, 0.0, 100.0, 100.0)


def parse_annotation(value: object, project_id: int) -> Annotation:
    """Read one annotation; of what was drawn with other tools than rectangles with labels, bounds are kept.

    Args:
        value: the annotation, with ``task`` as its task's id.
        project_id: Label Studio's id of the project it belongs to.

    Raises:
        UsageError: a field is missing or of the wrong kind; the message names it and the annotation.
    """
    fields = mapping(value, "'annotation'")
    key = identifier(fields.get("id"), "'annotation.id'")
    name = f"annotation {key}"
    items = mappings(fields.get("result") or [], f"the result of {name}")
    boxes = [item for item in items if item.get("type") == _RECTANGLE]
    regions = [_region(item, f"region {index + 1} of {name}") for index, item in enumerate(boxes)]
    return Annotation(
        id=key,
        task_id=identifier(fields.get("task"), f"'task' of {name}"),
        project_id=project_id,
        created_at=moment(fields.get("created_at"), f"'created_at' of {name}"),
        updated_at=moment(fields.get("updated_at"), f"'updated_at' of {name}"),
        annotator=_reference(fields.get("completed_by")),
        cancelled=fields.get("was_cancelled") is True,
        ground_truth=fields.get("ground_truth") is True,
        lead_time=optional_number(fields.get("lead_time")),
        parent_prediction=_reference(fields.get("parent_prediction")),
        regions=(*regions, *_other_shapes(items, {region.id for region in regions})),
    )


def _region(fields: Mapping[str, object], name: str) -> AnnotatedRegion:
    value = mapping(fields.get("value"), f"the value of {name}")
    labels = value.get("rectanglelabels")
    x, y, width, height = (number(value.get(side), f"'{side}' of {name}") for side in ("x", "y", "width", "height"))
    meta = fields.get("meta")
    glip = meta.get("glip") if isinstance(meta, dict) else None
    image = optional_text(fields.get("to_name"))
    if image is None:
        raise UsageError(f"'to_name' of {name} must name an image")
    return AnnotatedRegion(
        # One that an import made may lack an id; the place in the result names it as well.
        id=optional_text(fields.get("id")) or name,
        image=image,
        labels=tuple(label for label in labels if isinstance(label, str)) if isinstance(labels, list) else (),
        value=PercentBox(x, y, width, height, number(value.get("rotation") or 0, f"'rotation' of {name}")),
        image_width=_pixels(fields.get("original_width")),
        image_height=_pixels(fields.get("original_height")),
        origin=optional_text(fields.get("origin")),
        prediction=optional_text(glip.get("prediction")) if isinstance(glip, dict) else None,
        score=optional_number(fields.get("score")),
    )


def _other_shapes(items: Sequence[Mapping[str, object]], known: Collection[str]) -> Iterator[AnnotatedRegion]:
    """What has a place and is no rectangle with labels; choices and texts about a region have that region's id."""
    seen = set(known)
    for item in items:
        key, image, tool = (optional_text(item.get(field)) for field in ("id", "to_name", "type"))
        value = item.get("value")
        if key is None or image is None or tool is None or key in seen or not isinstance(value, dict):
            continue
        bounds = _bounds(value)
        if bounds is not None:
            seen.add(key)
            size = _pixels(item.get("original_width")), _pixels(item.get("original_height"))
            yield AnnotatedRegion(key, image, (), bounds, *size, tool=tool)


def _bounds(value: Mapping[str, object]) -> PercentBox | None:
    """Bounds of a shape, the whole image where they are not told; None for what is no shape, and for key points."""
    sides = [optional_number(value.get(side)) for side in ("x", "y", "width", "height")]
    radii = [optional_number(value.get(radius)) for radius in ("radiusX", "radiusY")]
    points = value.get("points")
    if None not in sides:
        x, y, width, height = (each or 0.0 for each in sides)
        return PercentBox(x, y, width, height, optional_number(value.get("rotation")) or 0.0)
    if None not in (*sides[:2], *radii) and not value.get("rotation"):
        x, y, across, down = (each or 0.0 for each in (*sides[:2], *radii))
        return PercentBox(x - across, y - down, 2 * across, 2 * down)
    if isinstance(points, list) and points and all(_is_point(point) for point in points):
        left, top = (min(point[axis] for point in points) for axis in (0, 1))
        right, bottom = (max(point[axis] for point in points) for axis in (0, 1))
        return PercentBox(left, top, right - left, bottom - top)
    return _WHOLE_IMAGE if points or "radiusX" in value or "rle" in value else None


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and None not in map(optional_number, value)


def _reference(value: object) -> int | None:
    """An id, or the object that it belongs to where the API shows that instead."""
    found = value.get("id") if isinstance(value, dict) else value
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**63 else None


def _pixels(value: object) -> int | None:
    read = optional_number(value)
    return int(read) if read is not None and 1 <= read <= 1_000_000 else None
