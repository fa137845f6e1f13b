"""Reading single fields of Label Studio's JSON; what is wrong is named, its content is not repeated."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from backend.errors import UsageError

_LARGEST = 1e5


def mapping(value: object, name: str) -> Mapping[str, object]:
    """Return an object's fields.

    Raises:
        UsageError: it is no JSON object.
    """
    if not isinstance(value, dict):
        raise UsageError(f"{name} must be a JSON object")
    return value


def mappings(value: object, name: str) -> Sequence[Mapping[str, object]]:
    """Return the objects of a list.

    Raises:
        UsageError: it is no list, or one of its items is no object.
    """
    if not isinstance(value, list):
        raise UsageError(f"{name} must be a list")
    return [mapping(item, f"an item of {name}") for item in value]


def identifier(value: object, name: str) -> int:
    """Return an id: a whole number from 0 that fits into 63 bits.

    Raises:
        UsageError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UsageError(f"{name} must be a number")
    return value


def moment(value: object, name: str) -> datetime:
    """Read a time with its zone, as ``2026-11-23T08:46:43.063427Z``; returns UTC.

    Raises:
        UsageError: it is none, or lacks its zone.
    """
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) else None
        if read is not None and read.tzinfo is not None:
            return read.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"{name} must be a time with its zone, as 2026-11-23T08:46:43Z")


def number(value: object, name: str) -> float:
    """Read percent or degrees, also where they were sent as text: Label Studio lets anything pass.

    Raises:
        UsageError: it is no number, or one that no editor makes and no arithmetic in pixels stands.
    """
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            read = float(value)
        except (ValueError, OverflowError):
            read = math.nan
        if abs(read) < _LARGEST:  # false for NaN
            return read
    raise UsageError(f"{name} must be a number below {_LARGEST:,.0f}")


def optional_number(value: object) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)  # false for NaN
    return None


def optional_text(value: object) -> str | None:
    """Return text that is not empty, None for anything else."""
    return value if isinstance(value, str) and value else None
