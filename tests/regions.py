"""Builders for what was proposed and what was left of it: pictures of 200 x 100 pixels."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.geometry import Box
from backend.domain.records import Look, Prediction, Proposal, Region
from backend.domain.verdicts import Verdict
from integrations.label_studio.regions import box_to_percent

CAT, DOG = Box(20, 10, 60, 40), Box(100, 50, 180, 90)
NOT_KNOWN = Look()
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def emitted(box: Box = CAT, label: str = "cat", score: float = 0.8) -> Proposal:
    return Proposal(box, label, score, f"a {label}")


def predicted(*proposals: Proposal, id: str = "p1", version: str = "glip-1", look: Look = NOT_KNOWN) -> Prediction:
    """A prediction on a picture of 200 x 100 pixels; its regions are called ``p1-0``, ``p1-1`` …"""
    regions = tuple(Region(f"{id}-{index}", proposal) for index, proposal in enumerate(proposals))
    return Prediction(7, version, 200, 100, regions, id, look)


def final(id: str, box: Box = CAT, *labels: str, **fields: object) -> AnnotatedRegion:
    region = AnnotatedRegion(id, "image", labels or ("cat",), PercentBox(**box_to_percent(box, 200, 100)), 200, 100)
    return replace(region, **fields)  # type: ignore[arg-type]


def annotated(*regions: AnnotatedRegion, cancelled: bool = False) -> Annotation:
    return Annotation(5, 7, 1, MONDAY, MONDAY, 3, cancelled, False, 12.5, None, regions)


def shorthand(verdicts: Sequence[Verdict]) -> list[tuple[str, str | None, str | None]]:
    return [(each.kind.value, each.emitted_region, each.final_region) for each in verdicts]
