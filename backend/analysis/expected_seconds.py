"""How long a person will take for an image that nobody has looked at yet."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backend.domain.calibration import PLAIN, Calibration
from backend.domain.records import Proposal
from backend.domain.review import Costs, Judgement, ShowThresholds
from backend.domain.verdicts import VerdictKind

_PRIOR_VERDICTS = 10.0  # how many verdicts the share over all labels counts for in a label's own


@dataclass(frozen=True, slots=True)
class Expectation:
    """What experience says will become of a proposal.

    Attributes:
        calibration: from the score to the probability that the box is right, be it moved a little.
        accepted: share of right boxes that are left as they are, per label.
        relabelled: share of wrong boxes that are on an object of another label, per label.
    """

    calibration: Calibration = PLAIN
    accepted: Mapping[str, float] = field(default_factory=dict)
    relabelled: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, proposals: Sequence[Proposal], thresholds: ShowThresholds, costs: Costs) -> float:
        """Expected seconds of a person for an image with these proposals, of which the thresholds hide some.

        A hidden box costs the drawing of the object that it may be on; what no proposal points at is left out.
        """
        shown = [each for each in proposals if thresholds.shows(each)]
        total = costs.of_image(len(shown))
        for each in proposals:
            right = self.calibration.probability(each.label, each.score)
            relabelled = (1 - right) * self.relabelled.get(each.label, 0.0)
            if not thresholds.shows(each):
                total += costs.draw * (right + relabelled)
                continue
            accepted = self.accepted.get(each.label, 1.0)
            useful = accepted * costs.of(VerdictKind.ACCEPTED) + (1 - accepted) * costs.of(VerdictKind.MOVED)
            wrong = 1 - right - relabelled
            total += right * useful + relabelled * costs.of(VerdictKind.RELABELLED)
            total += wrong * costs.of(VerdictKind.DELETED)
        return total


def fit_expectation(judgements: Sequence[Judgement], calibration: Calibration) -> Expectation:
    """Learn the shares of acts from judgements; few of a label are drawn towards the shares over all labels."""
    kinds: defaultdict[tuple[str, VerdictKind], float] = defaultdict(float)
    for each in judgements:
        kinds[each.label, each.kind] += each.weight
    return Expectation(
        calibration,
        _shares(kinds, VerdictKind.ACCEPTED, VerdictKind.MOVED),
        _shares(kinds, VerdictKind.RELABELLED, VerdictKind.DELETED),
    )


def _shares(kinds: Mapping[tuple[str, VerdictKind], float], kind: VerdictKind, other: VerdictKind) -> dict[str, float]:
    """Share of ``kind`` among the two, for each label; none where neither was seen of any label."""
    seen = sum(count for (_, each), count in kinds.items() if each in (kind, other))
    if not seen:
        return {}
    overall = sum(count for (_, each), count in kinds.items() if each is kind) / seen
    shares = {}
    for label in sorted({label for label, _ in kinds}):
        own, rest = kinds.get((label, kind), 0.0), kinds.get((label, other), 0.0)
        shares[label] = (own + _PRIOR_VERDICTS * overall) / (own + rest + _PRIOR_VERDICTS)
    return shares
