"""Moving the edges of proposals the way people always move them."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace

from backend.domain.geometry import Box
from backend.domain.records import Proposal


@dataclass(frozen=True, slots=True)
class EdgeShift:
    """How far each edge goes, as a share of the box's width (left, right) or height (top, bottom).

    Below zero is to the left and up, so a box that grows has ``left`` and ``top`` below zero.

    Raises:
        ValueError: a share is half the box or more: opposite edges could cross.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 0.0
    bottom: float = 0.0

    def __post_init__(self) -> None:
        if not all(-0.5 < share < 0.5 for share in astuple(self)):
            raise ValueError(f"not a small shift of edges: {astuple(self)}")

    def apply(self, box: Box) -> Box:
        return Box(
            box.x1 + self.left * box.width,
            box.y1 + self.top * box.height,
            box.x2 + self.right * box.width,
            box.y2 + self.bottom * box.height,
        )


@dataclass(frozen=True, slots=True)
class EdgeCorrection:
    """Shifts per label; a label without one keeps its boxes."""

    labels: Mapping[str, EdgeShift] = field(default_factory=dict)

    def corrected(self, proposal: Proposal, width: float, height: float) -> Proposal:
        """Shift the edges of a proposal in an image of ``width`` x ``height`` pixels, and keep it inside."""
        shift = self.labels.get(proposal.label)
        if shift is None:
            return proposal
        return replace(proposal, box=shift.apply(proposal.box).clipped(width, height))

    def to_json(self) -> dict[str, object]:
        return {label: list(astuple(shift)) for label, shift in self.labels.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "EdgeCorrection":
        """Undo `to_json`.

        Raises:
            ValueError: it is not what `to_json` writes.
        """
        shifts = {}
        for label, shares in data.items():
            match shares:
                case [int() | float(), int() | float(), int() | float(), int() | float()]:
                    shifts[label] = EdgeShift(*map(float, shares))
                case _:
                    raise ValueError(f"the edges of {label} need four shares")
        return cls(shifts)
