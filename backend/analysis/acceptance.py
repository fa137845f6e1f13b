"""How a model's proposals fare with people: counts of verdicts and the rates that follow, per label and model version.

A proposed region counts under the label it was proposed with, an added one under the label it was given.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from statistics import median

from backend.analysis.intervals import Rate
from backend.domain.verdicts import EdgeOffsets, Verdict, VerdictKind

_SHOWN = (VerdictKind.ACCEPTED, VerdictKind.MOVED, VerdictKind.RELABELLED, VerdictKind.DELETED)
_FOUND = (VerdictKind.ACCEPTED, VerdictKind.MOVED, VerdictKind.RELABELLED)
_LEFT = (*_FOUND, VerdictKind.ADDED)
# Verdicts that count, and of which: what was shown, or what the person left.
_RATES: Mapping[str, tuple[tuple[VerdictKind, ...], tuple[VerdictKind, ...]]] = {
    "acceptance": ((VerdictKind.ACCEPTED,), _SHOWN),
    "edit": ((VerdictKind.MOVED,), _SHOWN),
    "relabel": ((VerdictKind.RELABELLED,), _SHOWN),
    "deletion": ((VerdictKind.DELETED,), _SHOWN),
    "precision": ((VerdictKind.ACCEPTED, VerdictKind.MOVED), _SHOWN),
    "miss": ((VerdictKind.ADDED,), _LEFT),
    "recall": (_FOUND, _LEFT),
}


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Verdicts on one label, or on all, of one model version.

    Attributes:
        label: None in a row of all labels, empty for added regions without a label.
        model_version: None for what was added where nothing had been proposed: no model missed it.
        accepted, moved, relabelled, deleted, added: verdicts of each kind.
        median_iou: overlap of proposed and final box over the moved ones, in ``[0, 1]``; None if none was moved.
        median_offsets: of each edge over the moved ones, final minus proposed, in pixels of the upright image.
        median_seconds, p90_seconds: of a person per verdict, an annotation's seconds being shared out equally over
            its verdicts; None where no annotation tells its time, as after a bulk accept.
        rates: shares by name. ``acceptance``, ``edit`` (moved), ``relabel`` and ``deletion`` are of what was shown, as
            is ``precision``, which lets moved boxes pass; ``miss`` (added) and ``recall`` (everything else) are of what
            the person left, of which a model could find each; of nothing where no model was asked.
    """

    label: str | None
    model_version: str | None
    accepted: int
    moved: int
    relabelled: int
    deleted: int
    added: int
    median_iou: float | None
    median_offsets: EdgeOffsets | None
    median_seconds: float | None
    p90_seconds: float | None
    rates: Mapping[str, Rate]

    @property
    def shown(self) -> int:
        """Regions that were proposed."""
        return self.accepted + self.moved + self.relabelled + self.deleted

    def to_json(self) -> dict[str, object]:
        """All counts, rates with their 95 % intervals, and medians."""
        rates = {name: rate.to_json() for name, rate in self.rates.items()}
        return {**asdict(self), "shown": self.shown, "rates": rates}


@dataclass(frozen=True, slots=True)
class AcceptanceTable:
    """``rows`` per label and model version, by label; ``totals`` per model version over all labels.

    ``annotations`` are those with at least one verdict.
    """

    rows: tuple[Acceptance, ...]
    totals: tuple[Acceptance, ...]
    annotations: int

    def to_json(self) -> dict[str, object]:
        return {
            "annotations": self.annotations,
            "labels": [row.to_json() for row in self.rows],
            "model_versions": [row.to_json() for row in self.totals],
        }


@dataclass(slots=True)
class _Group:
    kinds: Counter[VerdictKind] = field(default_factory=Counter)
    annotations: defaultdict[int, Counter[VerdictKind]] = field(default_factory=lambda: defaultdict(Counter))
    overlaps: list[float] = field(default_factory=list)
    offsets: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.kinds[verdict.kind] += 1
        self.annotations[verdict.annotation_id][verdict.kind] += 1
        if verdict.kind == VerdictKind.MOVED and verdict.iou is not None and verdict.offsets is not None:
            self.overlaps.append(verdict.iou)
            self.offsets.append(astuple(verdict.offsets))


def acceptance_table(verdicts: Iterable[Verdict]) -> AcceptanceTable:
    """Count verdicts, in any order; annotations are told apart by id, so the verdicts must be of one project."""
    labels: dict[tuple[str, str | None], _Group] = {}
    versions: dict[str | None, _Group] = {}
    sizes: Counter[int] = Counter()
    lead_times: dict[int, float] = {}
    for verdict in verdicts:
        label = (verdict.label_after if verdict.label_before is None else verdict.label_before) or ""
        labels.setdefault((label, verdict.model_version), _Group()).add(verdict)
        versions.setdefault(verdict.model_version, _Group()).add(verdict)
        sizes[verdict.annotation_id] += 1
        if verdict.lead_time is not None:
            lead_times[verdict.annotation_id] = verdict.lead_time
    shares = {annotation: seconds / sizes[annotation] for annotation, seconds in lead_times.items()}
    # What no model proposed comes last.
    rows = sorted(labels, key=lambda key: (key[0], key[1] is None, key[1] or ""))
    totals = sorted(versions, key=lambda version: (version is None, version or ""))
    return AcceptanceTable(
        tuple(_acceptance(label, version, labels[label, version], shares) for label, version in rows),
        tuple(_acceptance(None, version, versions[version], shares) for version in totals),
        len(sizes),
    )


def _acceptance(label: str | None, version: str | None, group: _Group, shares: Mapping[int, float]) -> Acceptance:
    known = ((shares[each], kinds.total()) for each, kinds in group.annotations.items() if each in shares)
    seconds = sorted(share for share, times in known for _ in range(times))
    return Acceptance(
        label=label,
        model_version=version,
        accepted=group.kinds[VerdictKind.ACCEPTED],
        moved=group.kinds[VerdictKind.MOVED],
        relabelled=group.kinds[VerdictKind.RELABELLED],
        deleted=group.kinds[VerdictKind.DELETED],
        added=group.kinds[VerdictKind.ADDED],
        median_iou=median(group.overlaps) if group.overlaps else None,
        median_offsets=EdgeOffsets(*map(median, zip(*group.offsets, strict=True))) if group.offsets else None,
        median_seconds=median(seconds) if seconds else None,
        p90_seconds=_quantile(seconds, 0.9) if seconds else None,
        rates=_rates(group.annotations.values(), version is not None),
    )


def _rates(annotations: Collection[Counter[VerdictKind]], asked: bool) -> dict[str, Rate]:
    """Rates from the numbers of verdicts in each annotation; ``asked`` tells whether a model was."""
    rates = {}
    for name, (counted, of) in _RATES.items():
        told = annotations if asked or of is _SHOWN else ()
        rates[name] = Rate.of_annotations((_sum(kinds, counted), _sum(kinds, of)) for kinds in told)
    return rates


def _sum(kinds: Counter[VerdictKind], of: Iterable[VerdictKind]) -> int:
    return sum(kinds[kind] for kind in of)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Interpolate linearly between the two nearest of at least one value in rising order."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
