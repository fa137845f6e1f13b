"""Whose annotation counts where an image has several, and which part of a data set an image belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from backend.domain.annotations import AnnotatedRegion, PercentBox
from backend.domain.dataset import AttributedAnnotation, Provenance
from backend.domain.geometry import RotatedBox, percent_to_pixels
from backend.domain.polygons import rotated_iou

AGREEING_IOU = 0.5
PARTS = ("train", "val", "test")  # of a data set that is divided

SettledRegion = tuple[AnnotatedRegion, Provenance]


@dataclass(frozen=True, slots=True)
class Settled:
    """What people say about one image: the regions that count, and those that too few of them drew."""

    regions: tuple[SettledRegion, ...]
    disputed: tuple[SettledRegion, ...] = ()


class AnnotatorPolicy(StrEnum):
    """Whose boxes an image gets: the starred annotation's if there is one, the newest, or what most annotators drew."""

    GROUND_TRUTH = "ground-truth"
    NEWEST = "newest"
    CONSENSUS = "consensus"


def settle(
    annotations: Sequence[AttributedAnnotation],
    policy: AnnotatorPolicy,
    width: int,
    height: int,
    renamed: Sequence[tuple[str, str]] = (),
) -> Settled | None:
    """Decide on the regions of one image of ``width`` x ``height`` pixels; None where nobody reviewed it.

    Cancelled annotations say nothing. Under ``ground-truth`` the newest annotation counts where none is starred, and
    the newest starred one where several are. ``renamed`` is as in `consensus`.
    """
    reviewed = sorted((each for each in annotations if not each.annotation.cancelled), key=_moment)
    if not reviewed:
        return None
    if policy is AnnotatorPolicy.CONSENSUS:
        # One vote for each annotator; where it is not known who annotated, one for each annotation.
        latest = {(each.annotation.annotator, _nobody(each)): each for each in reviewed}
        return consensus([_regions(each) for each in latest.values()], width, height, renamed)
    return Settled(_regions(decisive(reviewed) if policy is AnnotatorPolicy.GROUND_TRUTH else reviewed[-1]))


def decisive(reviewed: Sequence[AttributedAnnotation]) -> AttributedAnnotation:
    """Give that one of an image's annotations, none of them cancelled, which counts under ``ground-truth``."""
    return max([each for each in reviewed if each.annotation.ground_truth] or reviewed, key=_moment)


def _moment(attributed: AttributedAnnotation) -> tuple[datetime, int]:
    return attributed.annotation.updated_at, attributed.annotation.id


def _nobody(attributed: AttributedAnnotation) -> int | None:
    annotation = attributed.annotation
    return annotation.id if annotation.annotator is None else None


def _regions(attributed: AttributedAnnotation) -> tuple[SettledRegion, ...]:
    return tuple(zip(attributed.annotation.regions, attributed.provenance, strict=True))


def consensus(
    votes: Sequence[Sequence[SettledRegion]], width: int, height: int, renamed: Sequence[tuple[str, str]] = ()
) -> Settled:
    """Merge the regions of several voters: what more than half of them drew, with the same labels.

    Labels are compared as ``renamed`` (old name, new name) calls them; the regions keep their own.

    Pairs of regions with an IoU of `AGREEING_IOU` or more are joined, best first, so that no group has two regions of
    one voter. A group is represented by the one of its regions that has the highest mean IoU with the others (of the
    later voter where they are equal), so that each box is one that a person drew; its provenance tells the votes.

    Returns:
        Representatives, from left to right and top to bottom, and the regions that are in no such group. A single
        voter's regions as they are.
    """
    if len(votes) == 1:
        return Settled(tuple(votes[0]))
    absurd = [settled for vote in votes for settled in vote if not _is_plausible(settled[0].value)]
    votes = [[settled for settled in vote if _is_plausible(settled[0].value)] for vote in votes]
    boxes = [[percent_to_pixels(region.value, width, height) for region, _ in vote] for vote in votes]
    bounds = [[_bounds(box) for box in vote] for vote in boxes]
    names = dict(renamed)
    labels = [[{names.get(label, label) for label in region.labels} for region, _ in vote] for vote in votes]
    pairs = [
        (iou, (voter_a, a), (voter_b, b))
        for voter_b in range(len(votes))
        for voter_a in range(voter_b)
        for a in range(len(votes[voter_a]))
        for b in range(len(votes[voter_b]))
        if _meet(bounds[voter_a][a], bounds[voter_b][b])  # hardly any do, and to find out is cheap
        and labels[voter_a][a] == labels[voter_b][b]
        and (iou := rotated_iou(boxes[voter_a][a], boxes[voter_b][b])) >= AGREEING_IOU
    ]
    groups = [group for group in _grouped(pairs) if 2 * len(group) > len(votes)]
    chosen = []
    for group in groups:
        voter, place = max(
            group.items(),
            key=lambda item: (
                sum(rotated_iou(boxes[item[0]][item[1]], boxes[voter][place]) for voter, place in group.items()),
                item[0],
            ),
        )
        region, provenance = votes[voter][place]
        chosen.append((region, replace(provenance, votes=len(group), voters=len(votes))))
    chosen.sort(key=lambda each: (each[0].value.y, each[0].value.x, each[0].labels, each[0].id))
    agreed = {voted for group in groups for voted in group.items()}
    disputed = [
        settled
        for voter, vote in enumerate(votes)
        for place, settled in enumerate(vote)
        if (voter, place) not in agreed
    ]
    return Settled(tuple(chosen), (*absurd, *disputed))


def _bounds(box: RotatedBox) -> tuple[float, float, float, float]:
    """Left, top, right and bottom; no `Box`, which refuses what is far outside."""
    xs, ys = zip(*box.corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _is_plausible(value: PercentBox) -> bool:
    return all(abs(number) < 1e6 for number in (value.x, value.y, value.width, value.height, value.rotation))


def _grouped(pairs: list[tuple[float, tuple[int, int], tuple[int, int]]]) -> list[dict[int, int]]:
    """Join pairs into groups of voter -> place, best pairs first."""
    group_of: dict[tuple[int, int], dict[int, int]] = {}
    for _, a, b in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        first, second = group_of.setdefault(a, dict([a])), group_of.setdefault(b, dict([b]))
        if first is not second and first.keys().isdisjoint(second):
            first.update(second)
            group_of.update(dict.fromkeys(second.items(), first))
    return list({id(group): group for group in group_of.values()}.values())


@dataclass(frozen=True, slots=True)
class Splits:
    """Named parts of a data set and their shares, such as train 70, val 15, test 15.

    Raises:
        ValueError: a share is negative, all are 0, or a name comes twice.
    """

    names: tuple[str, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.shares) or len(set(self.names)) != len(self.names):
            raise ValueError(f"each part needs a name of its own and a share: {self.names}, {self.shares}")
        if not all(0 <= share < 1e9 for share in self.shares) or not sum(self.shares) > 0:
            raise ValueError(f"shares must be 0 or more, and one above 0: {self.shares}")

    def of(self, content: str) -> str:
        """The part of an image with this content (its sha256).

        It depends on nothing else, so that an image stays in its part while the data set grows, and so do its copies.
        """
        drawn = int.from_bytes(sha256(content.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
        reached = 0.0
        for name, share in zip(self.names, self.shares, strict=True):
            reached += share / sum(self.shares)
            if drawn < reached:
                return name
        return [name for name, share in zip(self.names, self.shares, strict=True) if share > 0][-1]
