"""What has to hold when all is sent, killed, restarted and applied."""

import re
from collections import Counter
from collections.abc import Iterator

from sqlalchemy import text

from backend.db.unit_of_work import SqlUnitOfWork
from tests.facts import reference_fold, state_of
from tests.torture.databases import opened, reading
from tests.torture.deliveries import Event
from tests.torture.processes import Command
from tests.torture.rounds import Torture
from tests.torture.world import Version

RESTART_SECONDS = 3.0


def breaches(torture: Torture) -> list[str]:
    """Return every breach, in a line each; empty where all holds."""
    applied, set_aside = _inbox(torture)
    return [
        *_answers(torture),
        *_keeping(torture, applied, set_aside),
        *_log(torture.commands),
        *_state(torture, applied),
        *(f"the database is damaged: {line}" for line in torture.database.damages()),
        *_database_check(torture, sum(set_aside.values())),
        *_export(torture, applied),
        *_restarts(torture.server.own_seconds),
    ]


def _inbox(torture: Torture) -> tuple[Counter[str], Counter[str]]:
    """How often each payload was applied, and how often it was set aside with a reason."""
    applied: Counter[str] = Counter()
    set_aside: Counter[str] = Counter()
    with reading(torture.database.url) as connection:
        for payload, moment, error in connection.execute(text("SELECT payload, applied_at, error FROM inbox")):
            applied[payload] += moment is not None
            set_aside[payload] += moment is None and error is not None
    return +applied, +set_aside


def _answers(torture: Torture) -> Iterator[str]:
    for (sound, status), number in torture.senders.statuses.items():
        if sound and status not in (200, 503):
            yield f"{number} well-formed events were answered {status}"
        if not sound and status != 400:
            yield f"{number} malformed events were answered {status}"


def _keeping(torture: Torture, applied: Counter[str], set_aside: Counter[str]) -> Iterator[str]:
    """Every answer has its row, every row its try, and every row was applied, or set aside for what it holds."""
    senders, left = torture.senders, applied + set_aside
    wanted = Counter(torture.stream.order)
    for event in torture.stream.events:
        if senders.answers[event.number] != wanted[event.number]:
            yield f"event {event.number} was answered {senders.answers[event.number]} times"
        payload = event.payload
        if payload is None:
            continue
        rows = left.pop(payload, 0)
        if not senders.answers[event.number] <= rows <= senders.tries[event.number]:
            yield (
                f"event {event.number} was answered {senders.answers[event.number]} times, "
                f"tried {senders.tries[event.number]} times, and is kept {rows} times"
            )
        if set_aside[payload] and not event.poisoned:
            yield f"event {event.number} was set aside"
    if left:
        yield f"{len(left)} things in the inbox were never sent so"


def _log(commands: Command) -> Iterator[str]:
    said = commands.log.read_text(errors="replace")
    entries = Counter(re.findall(r"inbox entry=(\d+) applied", said))
    yield from (f"inbox entry {entry} was applied {number} times" for entry, number in entries.items() if number > 1)
    for word in ("Traceback", "a defect of glip-label"):
        if word in said:
            yield f"the log tells of a defect: see {commands.log}"


def _state(torture: Torture, applied: Counter[str]) -> Iterator[str]:
    """Hold each project to a plain fold over what was told, and each version to the verdicts that the person meant."""
    told = [event for event in torture.stream.events if event.payload is not None]
    facts = [(event, event.happening.fact) for event in told if event.happening and _counts(event, applied)]
    with opened(torture.database.url) as engine, SqlUnitOfWork(engine) as unit:
        for uid in sorted({fact.project.uid for _, fact in facts if fact.project is not None}):
            mine = [(event, fact) for event, fact in facts if fact.project is not None and fact.project.uid == uid]
            expected = reference_fold(fact for _, fact in mine)
            found = state_of(unit, {task.id for _, fact in mine for task in fact.tasks}, uid)
            for part in ("projects", "labels", "tasks", "versions", "current"):
                if getattr(found, part) != getattr(expected, part):
                    yield f"project {uid}: the {part} are not those of the reference"
            verdicts: dict[Version, tuple[str, ...]] = {}
            for event, _ in mine:
                verdicts |= event.happening.verdicts if event.happening else {}
            for version in found.versions:
                kinds = tuple(each.kind.value for each in unit.corrections.verdicts(uid, version))
                if kinds != verdicts.get((version.id, version.updated_at)):
                    yield f"project {uid}: annotation {version.id} has the verdicts {kinds}"


def _counts(event: Event, applied: Counter[str]) -> bool:
    return not event.poisoned or applied[event.payload or ""] > 0


def _database_check(torture: Torture, set_aside: int) -> Iterator[str]:
    code, said = torture.commands.run("db", "check")
    if not re.search(rf"events: \d+ applied, 0 waiting, {set_aside} failed\n", said):
        yield f"db check counts other events: {said}"
    if not re.search(r"verdicts: of \d+ annotation versions, 0 differ\n", said):
        yield f"db check finds other verdicts: {said}"
    if code != (1 if set_aside else 0):
        yield f"db check ended with {code}"


def _export(torture: Torture, applied: Counter[str]) -> Iterator[str]:
    """The last export has an image for each task that the fold leaves with an annotation that was not skipped."""
    facts = [each.happening.fact for each in torture.stream.events if each.happening and _counts(each, applied)]
    current = reference_fold(fact for fact in facts if fact.project is not None and fact.project.id == 7).current
    figures = torture.exports.finish()
    wanted = len({each.task_id for each in current if not each.cancelled})
    if figures["images"] != wanted:
        yield f"the last export has {figures['images']} images, not {wanted}"


def _restarts(own: list[float]) -> Iterator[str]:
    """Starts count without the time that other programs kept the processor: a busy machine says nothing about us."""
    slow = [each for each in own if each > RESTART_SECONDS]
    if slow:
        yield f"{len(slow)} of {len(own)} starts took over {RESTART_SECONDS:g} s, one {max(slow):.1f} s"
