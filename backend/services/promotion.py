"""Which version of a project is in production: it moves in one transaction, and its history is kept."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from backend.domain.learning import PRODUCTION, AliasMove, ModelVersion, MoveKind
from backend.errors import UsageError
from backend.ports import Detector, Models, UnitOfWork


def _now() -> datetime:
    return datetime.now(UTC)


def production_version(unit: UnitOfWork, project: str, base: str) -> ModelVersion | None:
    """Return the version in production, or None for the base model.

    A version works on the weights that it was trained from only: where another model is configured, that one serves.
    """
    version = unit.versions.alias(project, PRODUCTION)
    return version if version is not None and version.base == base else None


class Production:
    """What answers for a project: its version in production, as it is at this moment; nothing is loaded."""

    def __init__(self, unit_of_work: Callable[[], UnitOfWork], models: Models) -> None:
        self._unit_of_work = unit_of_work
        self._models = models

    def __call__(self, project: str | None) -> Detector:
        """Return the detector of a project (``ID.CREATED``), or the base model's for None.

        Raises:
            ModelError: there is no such model.
            StorageError: the database cannot be read.
        """
        base = self._models.base
        if project is None:
            return self._models.open(None)
        with self._unit_of_work() as unit:
            version = production_version(unit, project, base)
        return self._models.open(version)

    def versions(self) -> list[str]:
        """Name the base model and all projects' versions."""
        with self._unit_of_work() as unit:
            return [self._models.base, *sorted(unit.versions.names())]


class Promotion:
    """Moves the alias ``production`` of projects; the service follows at its next request.

    Args:
        unit_of_work: makes the transactions.
        base: gives the version of the configured base model.
        announce: tells the world that a project's production moved; called after the transaction.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], UnitOfWork],
        base: Callable[[], str],
        announce: Callable[[str], None],
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._base = base
        self._announce = announce
        self._clock = clock

    def promote(self, project: str, name: str, actor: str, reason: str) -> AliasMove:
        """Put a version of a project, or the base model by its name, into production.

        Raises:
            UsageError: the project has no such version, it is in production, or it belongs to another base model.
        """
        base = self._base()
        with self._unit_of_work() as unit:
            unit.versions.lock(project)
            version = unit.versions.find(project, name)
            if version is None and name != base:
                names = [each.name for each in unit.versions.all(project)]
                raise UsageError(f"no version {name!r}; there are {', '.join([base, *names])}")
            _refuse_other_base(version, base)
            move = self._move(unit, project, version, MoveKind.PROMOTION, actor, reason)
            unit.commit()
        self._announce(project)
        return move

    def rollback(self, project: str, actor: str) -> AliasMove:
        """Put into production what was there before the present version was promoted.

        Where that belongs to another base model, the configured one serves, as it did then.

        Raises:
            UsageError: nothing was ever promoted that is not rolled back yet, or it belongs to another base model.
        """
        with self._unit_of_work() as unit:
            unit.versions.lock(project)
            stack = promoted(unit.versions.moves(project, PRODUCTION))
            if len(stack) < 2:
                raise UsageError("nothing to roll back: the base model is in production, and nothing was before it")
            base = self._base()
            left, version = (None if name is None else unit.versions.find(project, name) for name in stack[:-3:-1])
            _refuse_other_base(left, base)
            reason = f"rollback of {base if left is None else left.name}"
            if version is not None and version.base != base:
                reason += f"; {base} serves until {version.base} is configured again"
            move = self._move(unit, project, version, MoveKind.ROLLBACK, actor, reason)
            unit.commit()
        self._announce(project)
        return move

    def _move(
        self, unit: UnitOfWork, project: str, version: ModelVersion | None, kind: MoveKind, actor: str, reason: str
    ) -> AliasMove:
        if unit.versions.alias(project, PRODUCTION) == version:
            raise UsageError(f"{version.name if version else self._base()} is in production already")
        name = None if version is None else version.name
        move = AliasMove(project, PRODUCTION, name, kind, self._clock(), actor, reason, {})
        unit.versions.move(move)
        return move


def promoted(moves: Sequence[AliasMove]) -> list[str | None]:
    """Return what was promoted and not rolled back, oldest first; it begins with None, the base model."""
    stack: list[str | None] = [None]
    for move in moves:
        if move.kind is MoveKind.PROMOTION:
            stack.append(move.version)
        else:
            stack.pop()
    return stack


def _refuse_other_base(version: ModelVersion | None, base: str) -> None:
    if version is not None and version.base != base:
        raise UsageError(
            f"{version.name} was trained from {version.base}, but {base} is configured: set GLIP_LABEL_MODEL to that "
            "model first"
        )
